"""The one exception a user is meant to read."""


class UserError(Exception):
    """A problem the user can mend: its text is one line that says what is wrong and what to do."""
