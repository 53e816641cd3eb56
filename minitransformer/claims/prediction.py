"""The loss of a large run, foretold from small ones (Kaplan et al. 2020: what the laws are for).

The form of the law and the runs it is fitted to are chosen by rehearsal, inside the small runs: their own dearest runs are
foretold, each from runs as much smaller than it as the small runs are than the target. The target is not looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..laws import forms, frontier
from ..laws.fit import fit
from ..laws.law import Law, Prediction, points_needed
from ..laws.uncertainty import fit_curve
from .curves import of_spec
from .definition import Measurement

if TYPE_CHECKING:
    import pandas as pd

SMALLER, CHEAPER = 4, 16     # the runs of a fit have at most N / SMALLER and C / CHEAPER of the run they foretell
GOAL = 2.0                   # per cent: the error that would do
FORMS = {"chinchilla": "L(N, D), Chinchilla's form", "kaplan-nd": "L(N, D), Kaplan's form", "L(N)": "a power law of N alone",
         "L(C)": "a power law of C alone"}
FEWEST_SIZES, FEWEST_POINTS = 3, 10  # of a rehearsal
REHEARSALS = 6
CUTS = 5
WIDER = 2.0                  # rms errors of the rehearsals: the interval is never narrower


@dataclass(frozen=True)
class Choice:
    """A form, and the runs it is fitted to: sizes from `smallest` (N) and horizons from `shortest` (D tokens) upwards.

    rms: its error in the rehearsals, per cent; NaN where some rehearsal could not be fitted.
    """

    form: str
    smallest: float
    shortest: float
    rms: float = math.nan


@dataclass(frozen=True, eq=False)
class Foretold:
    """What was foretold and what came. target: N, D, C and seeds of the largest run; measured: its mean loss.

    choices: all that could be tried, best first; law, predicted: of the best, fitted to all `small` runs; errors: per cent by
    form, of each form's best choice; rehearsed: N, D, measured and predicted loss in the rehearsals. reason: why there is none.
    """

    target: dict[str, float] = field(default_factory=dict)
    measured: float = math.nan
    small: pd.DataFrame | None = None
    choices: tuple[Choice, ...] = ()
    law: Law | None = None
    predicted: Prediction | None = None
    errors: dict[str, float] = field(default_factory=dict)
    rehearsed: pd.DataFrame | None = None
    reason: str = ""

    @property
    def chosen(self) -> Choice:
        return self.choices[0]

    def percent(self, loss: float) -> float:
        return 100 * (loss / self.measured - 1)


def points_of(runs: pd.DataFrame) -> pd.DataFrame:
    """N, D, C, the geometric mean loss over seeds and how many they are: a row for each size and horizon of decayed runs."""
    rows = of_spec(runs, "ladder").assign(log=lambda t: np.log(t.loss))
    table = rows.groupby(["N", "D", "C"], as_index=False).agg(log=("log", "mean"), seeds=("log", "size"))
    return table.assign(loss=np.exp(table.log)).drop(columns="log")


def below(points: pd.DataFrame, N: float, C: float) -> pd.DataFrame:
    """The points small enough and cheap enough for a fit that foretells a run of this N and C."""
    return points[(points.N * SMALLER <= N) & (points.C * CHEAPER <= C)]


def foretell(runs: pd.DataFrame) -> Foretold:
    """Choose by rehearsal, fit to the small runs, and foretell the dearest run of the largest size."""
    points = points_of(runs)
    if not len(points):
        return Foretold(reason="there are no runs")
    top = points.loc[points[points.N == points.N.max()].C.idxmax()]
    target = {"N": float(top.N), "D": float(top.D), "C": float(top.C), "seeds": int(top.seeds)}
    small = below(points, top.N, top.C)
    found = Foretold(target, float(top.loss), small)
    stages = rehearsals(small)
    if len(stages) < 2:
        return replace(found, reason="fewer than two of the small runs have enough still smaller ones to rehearse on")
    choices = [c for c in _choices(small, stages) if math.isfinite(c.rms)]
    best = {c.form: c for c in sorted(choices, key=lambda c: -c.rms)}
    laws = {form: law for form, c in best.items() if (law := fitted(c, runs, small)).ok}
    choices = tuple(sorted((c for c in choices if c.form in laws), key=lambda c: c.rms))
    if not choices:
        return replace(found, reason="no form could be fitted to the small runs")
    at = {form: law.predict(**{x: target[x] for x in law.form.inputs}) for form, law in laws.items()}
    errors = {form: found.percent(at[form].value) for form in FORMS if form in at}
    chosen = choices[0]
    return replace(found, choices=choices, law=laws[chosen.form], predicted=_widened(at[chosen.form], chosen.rms), errors=errors,
                   rehearsed=_rehearse(chosen, stages))


def _widened(predicted: Prediction, rms: float) -> Prediction:
    """The interval of the law, or WIDER times the error of the rehearsals where that is more."""
    least = math.exp(WIDER * rms / 100)
    return replace(predicted, low=min(predicted.low, predicted.value / least), high=max(predicted.high, predicted.value * least))


# --- rehearsing --------------------------------------------------------------------------------------------------


def rehearsals(small: pd.DataFrame) -> list[tuple[pd.Series, pd.DataFrame]]:
    """The dearest runs of the two largest small sizes, each with the runs as much smaller as these are than the target."""
    stages = []
    largest = small[small.N.isin(np.sort(small.N.unique())[-2:])]
    for _, top in largest.sort_values(["C", "N"], ascending=False).iterrows():
        rest = below(small, top.N, top.C)
        if rest.N.nunique() >= FEWEST_SIZES and len(rest) >= FEWEST_POINTS:
            stages.append((top, rest))
    return stages[:REHEARSALS]


def _choices(small: pd.DataFrame, stages) -> list[Choice]:
    """Every form with up to CUTS of the smallest sizes and the shortest horizon left out, and its error in the rehearsals."""
    choices = []
    for form in FORMS:
        for smallest in np.sort(small.N.unique())[: CUTS + 1]:
            for shortest in np.sort(small.D.unique())[: 1 if form == "L(N)" else 2]:
                choice = Choice(form, float(smallest), float(shortest))
                table = _rehearse(choice, stages)
                choices.append(replace(choice, rms=float(100 * np.sqrt(np.mean((table.predicted / table.measured - 1).to_numpy() ** 2)))))
    return choices


def _rehearse(choice: Choice, stages) -> pd.DataFrame:
    """N, D, measured and predicted loss of each rehearsal; NaN where the choice leaves too few runs to fit."""
    import pandas as pd

    rows = [(top.N, top.D, top.loss, _expected(choice, used(choice, rest), top)) for top, rest in stages]
    return pd.DataFrame(rows, columns=["N", "D", "measured", "predicted"])


def used(choice: Choice, points: pd.DataFrame) -> pd.DataFrame:
    """The points this choice fits: the longest run of each size for L(N), the frontier of all for L(C)."""
    kept = points[(points.N >= choice.smallest) & (points.D >= choice.shortest)]
    if choice.form == "L(N)":
        return kept.loc[kept.groupby("N").D.idxmax()] if len(kept) else kept
    return kept.iloc[frontier.hull(kept.C.to_numpy(), kept.loss.to_numpy())] if choice.form == "L(C)" and len(kept) else kept


def _form(choice: Choice) -> forms.Form:
    return forms.form("power", choice.form[2]) if choice.form.startswith("L(") else forms.form(choice.form)


def _expected(choice: Choice, points: pd.DataFrame, at: pd.Series) -> float:
    """The loss the choice expects at a point, without intervals."""
    form = _form(choice)
    if len(points) < points_needed(form):
        return math.nan
    z, y = np.log(points[list(form.inputs)].to_numpy(float)).T, np.log(points.loss.to_numpy())
    x = np.log(np.array([[at[name]] for name in form.inputs], float))
    if form.name == "power":
        return float(np.exp(np.polyval(np.polyfit(z[0], y, 1), x[0, 0])))
    centre = z.mean(1)
    if np.linalg.svd(np.corrcoef(z), compute_uv=False)[-1] < 0.02:  # sizes and horizons move together
        return math.nan
    curve = fit_curve(form, z - centre[:, None], y, np.ones(len(y), int), centre, resamples=0)
    return float(np.exp(curve.at(x - centre[:, None])[0])) if curve.converged else math.nan


def fitted(choice: Choice, runs: pd.DataFrame, points: pd.DataFrame) -> Law:
    """The choice fitted to every seed of the points it uses; L(C) to their means, as the frontier is one of means."""
    form, kept = _form(choice), used(choice, points)
    if choice.form != "L(C)":
        kept = of_spec(runs, "ladder").merge(kept[["N", "D"]], on=["N", "D"])
    return fit(form, kept.loss, **{name: kept[name] for name in form.inputs})


# --- the claim ---------------------------------------------------------------------------------------------------


def prediction(runs: pd.DataFrame) -> Measurement:
    """The error of the chosen form on the target, per cent; the interval is that of the prediction, as errors."""
    found = foretell(runs)
    if found.reason:
        return Measurement(None, refusal=found.reason)
    value, low, high = (found.percent(v) for v in found.predicted)
    nearest = found.small.N.max(), found.small.C.max()
    more = {
        "target over the largest run fitted, N": (None, found.target["N"] / nearest[0], None, None),
        "target over the dearest run fitted, C": (None, found.target["C"] / nearest[1], None, None),
        "error of the rehearsals, rms": (None, found.chosen.rms, None, None),
        **{f"error of {FORMS[form]}": (None, error, None, None) for form, error in found.errors.items()},
    }
    return Measurement(value, low, high, abs(value), more=more)
