"""The accounts of a class: a CSV file of students, their tokens and their budgets."""

from __future__ import annotations

import csv
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

from ..errors import UserError
from ..files import replacing
from .trainings import LARGEST

NAME = re.compile(r"[\w.@' -]{1,64}")
COLUMNS = ["student", "token", "budget"]
SHORTEST = 16  # characters of a token


@dataclass(frozen=True)
class Entry:
    student: str
    token: str
    budget: int  # FLOPs


class Accounts(list[Entry]):
    """Students in the order of the file."""

    @property
    def budgets(self) -> dict[str, int]:
        return {entry.student: entry.budget for entry in self}

    def student(self, token: str) -> str | None:
        """Whose token this is. Digests of one length are compared, all of them, in constant time."""
        digest, found = hashlib.sha256(token.encode()).digest(), None
        for entry in self:
            if hmac.compare_digest(hashlib.sha256(entry.token.encode()).digest(), digest):
                found = entry.student
        return found


def load(path: Path) -> Accounts:
    """The accounts of a file; UserError, with the line, where it is no such file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise UserError(f"cannot read {path}: {getattr(problem, 'strerror', None) or problem}; make it with `minitransformer capstone accounts`") from None
    found = Accounts()
    for line, row in enumerate(rows, 2):
        if not set(COLUMNS) <= set(row) or None in (row[name] for name in COLUMNS):
            raise UserError(f"line {line} of {path} is no account: the columns are {', '.join(COLUMNS)}")
        budget = row["budget"].strip()
        if not (budget.isascii() and budget.isdigit() and len(budget) <= 21 and int(budget) <= LARGEST * 10**6):
            raise UserError(f"line {line} of {path}: a budget is a whole number of FLOPs, not {budget[:40]!r}")
        found.append(Entry(_name(row["student"]), row["token"].strip(), int(budget)))
        if len(found[-1].token) < SHORTEST:
            raise UserError(f"line {line} of {path}: a token has at least {SHORTEST} characters; have one made by `minitransformer capstone accounts`")
    for what in ("student", "token"):
        if len({getattr(entry, what) for entry in found}) < len(found):
            raise UserError(f"{path} has the same {what} twice")
    return found


def add(path: Path, names: Iterable[str], budget: int) -> Accounts:
    """Give each new name an account; those in the file keep theirs. The file is readable for its owner alone."""
    accounts = load(path) if path.exists() else Accounts()
    for name in dict.fromkeys(map(_name, names)):
        if name not in accounts.budgets:
            accounts.append(Entry(name, secrets.token_hex(16), budget))
    with replacing(path, "Free or unlock that folder, or name another file.") as part:
        part.chmod(0o600)
        with part.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            rows.writerows((entry.student, entry.token, entry.budget) for entry in accounts)
    return accounts


def _name(name: str) -> str:
    name = " ".join(name.split())
    if not NAME.fullmatch(name):
        raise UserError(f"a student's name has 1 to 64 letters, digits, spaces, dots, dashes or @, which {name[:70]!r} has not")
    return name
