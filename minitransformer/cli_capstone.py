"""minitransformer capstone: accounts, server and marks of a class."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from .errors import UserError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The capstone for a class: accounts, server, marks.")
LogFolder = Annotated[Path, typer.Option("--log", help="The folder that keeps the log of this class.")]
AccountsFile = Annotated[Path, typer.Option("--accounts", help="The file that `capstone accounts` made.")]


@app.command()
def accounts(names: Annotated[Optional[list[str]], typer.Argument(help="Students; quote names with spaces.")] = None,
             names_from: Annotated[Optional[Path], typer.Option("--from", help="A text file with a name in each line.")] = None,
             file: Annotated[Path, typer.Option("--file", help="Where accounts are kept: student, token, budget.")] = Path("accounts.csv"),
             budget: Annotated[Optional[str], typer.Option(help="FLOPs for each new account. [default: a thirtieth of the target]")] = None) -> None:
    """Give students accounts with a token each.

    Accounts already in the file keep their tokens. Each student gets the token of their own line, and nobody else's.

    Example: minitransformer capstone accounts ann "bob b" --file class.csv
    """
    from .capstone import accounts as book
    from .capstone.challenge import ladder
    listed = names_from.read_text(encoding="utf-8").splitlines() if names_from and names_from.is_file() else []
    if names_from and not listed:
        raise UserError(f"there are no names in {names_from}: a text file with one in each line is wanted")
    wanted = [*(names or ()), *(line for line in listed if line.strip())]
    if not wanted:
        raise UserError("name at least one student, or a file of names with --from")
    if budget:
        from .laws.table import amount
        granted = int(amount(budget, "--budget"))
    made = book.add(file, wanted, granted if budget else ladder().budget)
    print("student,token,budget")
    for entry in made:
        print(f"{entry.student},{entry.token},{entry.budget}")
    print(f"{len(made)} account{'s' * (len(made) != 1)} in {file}", file=sys.stderr)


@app.command()
def serve(accounts: AccountsFile, log: LogFolder,
          host: Annotated[str, typer.Option(help="The address to listen on. Anything but the loopback is for a network you trust: read the book's page first.")] = "127.0.0.1",
          port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765) -> None:
    """Answer a class until it is stopped.

    Everything is in the log before it is answered. Kill it at any moment and start it again: accounts and answers come back from
    the log.

    Example: minitransformer capstone serve --accounts class.csv --log class-log
    """
    from .capstone import accounts as book
    from .capstone.challenge import ladder
    from .capstone.desk import Desk
    from .capstone.ledger import Ledger
    from .capstone.server import bind

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    known, ledger = book.load(accounts), Ledger(log)
    desk = Desk(ladder(), known.budgets, ledger)
    desk.challenge.surface.uncertainty  # the one slow thing, before the first question
    try:
        server = bind(host, port, desk, known)
    except OSError as problem:
        raise UserError(f"cannot listen on {host}:{port}: {problem.strerror or problem}; name another --port") from None
    if ledger.cut:
        print(f"capstone: the last line of the log was damaged and is cut off ({ledger.cut} bytes, never answered)", file=sys.stderr)
    print(f"capstone: {len(known)} accounts, {len(ledger.entries)} lines in the log, listening on {server.url}", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("capstone: stopped; the log is kept, the same command goes on from here", file=sys.stderr)
    finally:
        ledger.close()


@app.command()
def marks(log: LogFolder, accounts: AccountsFile, csv: Annotated[Optional[Path], typer.Option(help="Write the table here too.")] = None,
          json_: Annotated[bool, typer.Option("--json", help="Print JSON with stable keys.")] = False) -> None:
    """Score the forecasts in a log, whether or not the server runs.

    One row a student: FLOPs spent, trainings, points in all and by part; no points without a forecast.

    Example: minitransformer capstone marks --accounts class.csv --log class-log --csv marks.csv
    """
    import json

    from .files import replacing
    from .capstone import accounts as book
    from .capstone.marks import held_share, table
    known = book.load(accounts)
    found = table(log, known.budgets)
    if csv:
        with replacing(csv, "Name another file with --csv.") as part:
            found.to_csv(part, index=False)
    if json_:
        print(json.dumps(found.to_dict("records"), indent=1, allow_nan=False))
        return
    print(found.to_string(index=False, float_format=lambda v: f"{v:.1f}"))
    if (share := held_share(found)) is not None:
        print(f"{share:.0%} of the class's 95 % intervals hold the truth")
