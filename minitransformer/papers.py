"""Every published number the kit compares itself with: its place in the paper, and how it was read.

The numbers live in ``papers.csv`` beside this file, one row each, grouped by paper. A key starts with the paper's
entry in ``book/references.bib``:

>>> value("kaplan2020.alpha_N")
0.076
"""

import csv
import difflib
from dataclasses import dataclass
from importlib import resources

from minitransformer.errors import UserError

CONFIDENCE = {
    "A": "read in the paper itself, or on its authors' own page about it",
    "A-code": "read in, or recomputed from, code or data that the authors published",
    "A-sib": "restated by the same authors in another of their papers",
    "B": "read in one account of the paper by somebody else",
    "B2": "read in two or more independent accounts by others",
    "C": "computed for this book from numbers of grade A, or by running the authors' code again",
    "OCR": "read off a figure by machine, so a digit may be wrong",
}


@dataclass(frozen=True)
class Published:
    """One published number. An interval, where the paper gives one, is ``low`` to ``high``; the paper says of what kind."""

    key: str
    paper: str
    """The paper's entry in the bibliography."""
    quantity: str
    symbol: str
    """LaTeX without dollar signs; empty where the paper has none."""
    value: float
    unit: str
    """Empty for a pure number."""
    where: str
    """Equation, table, figure or section of the paper."""
    confidence: str
    """A key of CONFIDENCE."""
    low: float | None
    high: float | None
    note: str
    printed: str
    """The value as the paper prints it: 0.050 says more than 0.05."""


def _read() -> dict[str, Published]:
    text = resources.files("minitransformer").joinpath("papers.csv").read_text(encoding="utf-8")
    table = {}
    for row in csv.DictReader(text.splitlines()):
        printed, low, high = row.pop("value"), row.pop("low"), row.pop("high")
        table[row["key"]] = Published(
            **row,
            paper=row["key"].split(".")[0],
            value=float(printed),
            low=float(low) if low else None,
            high=float(high) if high else None,
            printed=printed,
        )
    return table


TABLE = _read()


def get(key: str) -> Published:
    """The published number with this key; UserError names the nearest keys where there is none."""
    if key not in TABLE:
        near = difflib.get_close_matches(key, TABLE, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "minitransformer.papers.TABLE lists every key."
        raise UserError(f"No published number is called {key!r}: {hint}")
    return TABLE[key]


def value(key: str) -> float:
    """The number itself."""
    return get(key).value
