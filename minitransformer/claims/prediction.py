"""The loss of a large run, foretold from small ones (Kaplan et al. 2020: what the laws are for).

By one of two rules, neither of which looks at the target. `foretell` chooses the form of the law and the runs it is fitted to by
rehearsal: the dearest of the small runs are foretold, each from runs as much smaller than it as the small runs are than the
target. `announced` has both fixed: Kaplan's L(N, D) with and without a floor, the mean of what the two say.
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
from .efficiency import SMALLEST
from .overfitting import floored

if TYPE_CHECKING:
    import pandas as pd

SMALLER, CHEAPER = 4, 16     # the runs of a fit have at most N / SMALLER and C / CHEAPER of the run they foretell
GOAL = 2.0                   # per cent: the error that would do
FORMS = {"chinchilla": "L(N, D), Chinchilla's form", "kaplan-nd": "L(N, D), Kaplan's form", "L(N)": "a power law of N alone",
         "L(C)": "a power law of C alone"}
FLOOR = "kaplan-nd-floor"
NAMES = FORMS | {FLOOR: "Kaplan's form above a floor"}
TARGETS = 2                  # sizes of which the dearest run is foretold
WARMUPS = 10                 # the announced rule fits runs of at least so many warm-ups, and of SMALLEST parameters
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
    """What was foretold and what came. target: N, D, C and seeds of the large run; measured: its mean loss; small: fit for a fit.

    predicted: by the rule; errors: of each form it looked at, per cent; law: the one behind the prediction, or None for a mean of
    several. By rehearsal also choices: all that could be tried, best first; rehearsed: N, D, measured and predicted loss in the
    rehearsals of the best. reason: why there is no prediction.
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

    @property
    def error(self) -> float:
        """Of the prediction, per cent of the measured loss; NaN where there is none."""
        return math.nan if self.predicted is None else self.percent(self.predicted.value)

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


def targets(runs: pd.DataFrame) -> list[tuple[float, float]]:
    """N and D of the dearest run of each of the TARGETS largest sizes, largest first."""
    points = points_of(runs).sort_values("C").groupby("N").tail(1).sort_values("N", ascending=False)
    return list(zip(points.N[:TARGETS], points.D[:TARGETS]))


def posed(runs: pd.DataFrame, target: tuple[float, float] | None = None) -> Foretold:
    """The question: the target, of N and D as given or else the first of `targets`, and the runs small enough for it."""
    points = points_of(runs)
    if not len(points):
        return Foretold(reason="there are no runs")
    N, D = target or targets(runs)[0]
    top = points[(points.N == N) & (points.D == D)].iloc[0]
    return Foretold({"N": float(N), "D": float(D), "C": float(top.C), "seeds": int(top.seeds)}, float(top.loss),
                    below(points, N, top.C))


# --- the announced rule ------------------------------------------------------------------------------------------


def announced(runs: pd.DataFrame, target: tuple[float, float] | None = None) -> Foretold:
    """Foretell by Kaplan's L(N, D) with and without a floor: the geometric mean of the two; the interval holds both of theirs.

    Fitted to every seed of the small runs of at least SMALLEST parameters and WARMUPS warm-ups.
    """
    found = posed(runs, target)
    if found.reason:
        return found
    rows = of_spec(runs, "ladder").merge(found.small[["N", "D"]], on=["N", "D"])
    rows = rows[(rows.N >= SMALLEST) & (rows.steps >= WARMUPS * rows.warmup_steps)]
    if rows.N.nunique() < FEWEST_SIZES:
        return replace(found, reason=f"fewer than {FEWEST_SIZES} of the small sizes have {SMALLEST:,} parameters or more")
    laws = {name: fit(form, rows.loss, N=rows.N, D=rows.D) for name, form in (("kaplan-nd", "kaplan-nd"), (FLOOR, floored()))}
    for name, law in laws.items():
        if not law.ok:
            return replace(found, reason=f"{NAMES[name]}: {law.reason}")
    at = {name: law.predict(N=found.target["N"], D=found.target["D"]) for name, law in laws.items()}
    predicted = Prediction(math.sqrt(math.prod(p.value for p in at.values())), min(p.low for p in at.values()),
                           max(p.high for p in at.values()))
    return replace(found, predicted=predicted, errors={name: found.percent(p.value) for name, p in at.items()})


# --- rehearsing --------------------------------------------------------------------------------------------------


def foretell(runs: pd.DataFrame, target: tuple[float, float] | None = None) -> Foretold:
    """Choose by rehearsal, fit to the small runs, and foretell the target."""
    found = posed(runs, target)
    if found.reason:
        return found
    small, target = found.small, found.target
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
    """The error of the announced rule on the target it misses by more, per cent; the interval is that prediction's, as errors."""
    found = [announced(runs, target) for target in targets(runs)]
    if not found or any(f.reason for f in found):
        return Measurement(None, refusal=next((f.reason for f in found if f.reason), "there are no runs"))
    worst = max(found, key=lambda f: abs(f.error))
    value, low, high = (worst.percent(v) for v in worst.predicted)
    more = {
        "target over the largest run fitted, N": (None, min(f.target["N"] / f.small.N.max() for f in found), None, None),
        "target over the dearest run fitted, C": (None, min(f.target["C"] / f.small.C.max() for f in found), None, None),
    }
    for f in found:
        of = f"of N = {f.target['N']:,.0f}, D = {f.target['D']:,.0f}"
        more[f"error {of}"] = (None, *(f.percent(v) for v in f.predicted))
        more |= {f"error {of} by {NAMES[name]}": (None, error, None, None) for name, error in f.errors.items()}
        rehearsed = foretell(runs, (f.target["N"], f.target["D"]))
        if not rehearsed.reason:
            more[f"error {of} by rehearsal"] = (None, *(rehearsed.percent(v) for v in rehearsed.predicted))
    return Measurement(value, low, high, value, more=more)
