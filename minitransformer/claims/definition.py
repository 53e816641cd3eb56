"""What a claim is: a statement of a paper, how ours is measured from a table of runs, and the verdict."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Mapping

from .. import papers
from ..laws.law import Law
from ..sweeps.spent import spent
from ..training.config import RunConfig

if TYPE_CHECKING:
    import pandas as pd

AGREES, DIFFERS, NOT_REACHABLE = "agrees", "differs", "not reachable at this scale"


@dataclass(frozen=True)
class Claim:
    """One statement of a paper beside our measurement of it. Intervals are 95 %; ranges are [low, high]."""

    id: str
    statement: str
    paper: str                          # citation key and place
    paper_value: float | None
    value: float | None
    low: float | None
    high: float | None
    unit: str
    holdout_error: float | None         # per cent of the loss: the largest size predicted without it
    verdict: str
    reason: str
    notebook: str
    scale: str
    device: str
    n_runs: int
    seeds: int
    N: list[float] | None
    D: list[float] | None
    C: list[float] | None
    seconds: float                      # of one core or card: training, and what was measured on the way, summed over runs
    flops: float                        # of training, every component; what several runs have in common counted once
    more: list[dict[str, Any]] = field(default_factory=list)    # other numbers of the same statement: name, paper_value, value, low, high
    losses: list[dict[str, float]] = field(default_factory=list)  # see `losses_of`

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Measurement:
    """What a table of runs says: None for value, low and high when it cannot say.

    refusal: why these runs cannot decide about the statement, whether or not they give a number.
    more: other numbers that belong to the statement, by name: (paper's value or None, ours, low, high).
    reason: why ours differs, where the runs themselves tell; else the definition's words are used.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    holdout_error: float | None = None
    refusal: str = ""
    more: Mapping[str, tuple[float | None, float, float | None, float | None]] = field(default_factory=dict)
    reason: str = ""


def inside(measured: Measurement, target: float | None) -> bool:
    """The paper's value lies in our interval."""
    return measured.low <= target <= measured.high


@dataclass(frozen=True)
class Definition:
    """How a claim is stated and measured.

    measure gets the complete runs of `specs`, whose column `spec` says which each belongs to. tour: one of the few claims that
    `minitransformer replicate` measures unless others are asked for.
    """

    id: str
    statement: str
    paper: str
    published: str | None               # key in papers.py, or None where the paper gives no number
    notebook: str
    specs: tuple[str, ...]
    measure: Callable[[pd.DataFrame], Measurement]
    agrees: Callable[[Measurement, float | None], bool] = inside
    if_differs: str = ""
    unit: str = ""
    x: str = "N"                        # column the losses are listed by
    loss: str = "loss"
    tour: bool = False

    def claim(self, table: pd.DataFrame) -> Claim:
        runs, scale = complete(table), ", ".join(sorted(set(table.scale)))
        measured = self.measure(runs)
        target = papers.value(self.published) if self.published else None
        if measured.value is None or measured.refusal:
            verdict, reason = NOT_REACHABLE, measured.refusal
        elif scale == "smoke":
            verdict, reason = NOT_REACHABLE, "smoke runs stop after seconds: they test the kit, not the claim"
        elif self.agrees(measured, target):
            verdict, reason = AGREES, ""
        else:
            verdict, reason = DIFFERS, measured.reason or self.if_differs
        return Claim(
            id=self.id, statement=self.statement, paper=self.paper, paper_value=target, value=finite(measured.value),
            low=finite(measured.low), high=finite(measured.high), unit=self.unit, holdout_error=finite(measured.holdout_error),
            verdict=verdict, reason=reason, notebook=self.notebook, scale=scale, device=", ".join(sorted(set(table.device))),
            n_runs=len(table), seeds=int(table.seed.nunique()), N=_range(runs.N), D=_range(runs.unique_tokens if self.x == "unique_tokens" else runs.D),
            C=_range(runs.C), seconds=round(float(table.seconds.sum()), 1), flops=spent(table).training,
            more=[{"name": name, "paper_value": finite(paper), "value": finite(value), "low": finite(low), "high": finite(high)}
                  for name, (paper, value, low, high) in measured.more.items()],
            losses=losses_of(runs, self.x, self.loss),
        )


def losses_of(runs: pd.DataFrame, x: str, loss: str) -> list[dict[str, float]]:
    """Mean over seeds of the loss at each x and depth, of the longest trainings that all x have.

    None where runs of one x and depth differ in more than seed: a mean over these would say nothing.
    """
    runs = longest(runs, x)
    settings = [name for name in RunConfig.__dataclass_fields__ if name in runs and name != "seed"]
    groups = runs.groupby([x, "n_layer"], sort=True)
    if len(runs[settings].drop_duplicates()) > groups.ngroups:
        return []
    return [{x: float(value), "n_layer": int(n_layer), "loss": round(float(group[loss].mean()), 5), "runs": len(group)}
            for (value, n_layer), group in groups]


def longest(runs: pd.DataFrame, x: str = "N") -> pd.DataFrame:
    """The runs of the longest training that every x had, where data limit the sizes least; none where they have none in common."""
    common = set.intersection(*(set(group.steps) for _, group in runs.groupby(x))) if len(runs) else set()
    return runs[runs.steps == max(common, default=0)]


def finite(value: float | None) -> float | None:
    """A number as JSON can hold it; None for what is none."""
    return float(value) if value is not None and math.isfinite(value) else None


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """The runs a law may be fitted to: a diverged run is counted, shown and never fitted."""
    return table[table.status == "complete"]


def of_law(law: Law, sign: int = 1) -> Measurement:
    """The exponent of a fitted power law, its interval and its hold-out error."""
    if not law.ok:
        return Measurement(None, refusal=law.reason)
    alpha = law.exponent
    low, high = sorted((sign * alpha.low, sign * alpha.high))
    return Measurement(sign * alpha.value, low, high, law.holdout.error_percent if law.holdout else None)


def _range(column: pd.Series) -> list[float] | None:
    return [float(column.min()), float(column.max())] if len(column) else None
