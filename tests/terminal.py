"""The command line without the second that a new process takes to import everything."""

import contextlib
import io
import sys
import warnings
from typing import NamedTuple

from minitransformer import cli


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def command(*arguments) -> Result:
    """minitransformer ARGUMENTS, with every warning an error."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["minitransformer", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("error")
            cli.main()
    except SystemExit as end:
        return Result(end.code, out.getvalue(), err.getvalue())
    finally:
        sys.argv = argv
