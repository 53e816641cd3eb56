"""The marks of a class, from its log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Mapping

from ..errors import UserError
from .challenge import ladder
from .forecast import LOSSES, POINTS, Forecast, score
from .ledger import NAME, parse

if TYPE_CHECKING:
    import pandas as pd


def table(folder: Path, budgets: Mapping[str, int]) -> pd.DataFrame:
    """A row for each account: student, budget and spent (FLOPs), trainings, refused, forecasts, points and the points of each
    part, and held: how many of the three intervals hold the truth. The last forecast counts."""
    import pandas as pd
    if not (folder / NAME).is_file():
        raise UserError(f"there is no log in {folder}")
    entries, truth, rows = parse(folder / NAME)[0], ladder().truth, []
    for student, budget in budgets.items():
        mine = [entry for entry in entries if entry["student"] == student]
        handed_in = [entry["forecast"] for entry in mine if entry["kind"] == "forecast"]
        mark = score(Forecast.of(handed_in[-1]), truth) if handed_in else None
        rows.append({"student": student, "budget": budget, "spent": sum(entry["C"] for entry in mine if entry["kind"] == "answer"),
                     "trainings": sum(entry["kind"] == "answer" for entry in mine), "refused": sum(entry["kind"] == "refused" for entry in mine),
                     "forecasts": len(handed_in), "points": round(mark.points, 1) if mark else 0.0,
                     **{name: round(mark.parts[name], 1) if mark else 0.0 for name in POINTS},
                     "held": sum(mark.held.values()) if mark else 0})
    return pd.DataFrame(rows)


def held_share(marks: pd.DataFrame) -> float | None:
    """Of all intervals handed in, the share that holds the truth; None where none was."""
    handed_in = marks[marks.forecasts > 0]
    return float(handed_in.held.sum() / (len(LOSSES) * len(handed_in))) if len(handed_in) else None
