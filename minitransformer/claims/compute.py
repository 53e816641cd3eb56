"""Chapter II: loss against compute, as spent and as a small batch would have needed it (Kaplan et al. 2020, Figs 1 and 13)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Callable

import numpy as np

from .. import papers
from ..laws import batch
from ..laws.fit import fit
from ..laws.formulas import FLOPS
from ..laws.frontier import NOTHING, Envelope, envelope
from ..laws.law import Estimate, Law
from .critical import critical_law
from .crossing import AFTER_WARM_UP, FEWEST, LEAD, crossings, mean_points
from .curves import decayed_ends, of_spec, training_curves
from .definition import Definition, Measurement, complete, longest
from .regression import triple
from .sizes import average_exponent

if TYPE_CHECKING:
    import pandas as pd

STEADY = 0.01  # standard deviation of log loss between seeds, up to which a size is trained alike every time


def steady_sizes(table: pd.DataFrame) -> list[float]:
    """The sizes whose seeds end within STEADY of one another at the longest common horizon, or that have one seed."""
    runs = longest(complete(table))
    spread = np.log(runs.loss.astype(float)).groupby(runs.N.astype(float)).std().fillna(0.0)
    return spread.index[spread <= STEADY].tolist()


def overtakings(table: pd.DataFrame, count: str = "C", decayed: bool = False, critical: Law | Callable | None = None,
                steady: bool = True) -> pd.DataFrame:
    """Points of the frontier: where a size overtakes the next smaller one at equal compute, a row for each pair and seed.

    Columns N (between the two), C, loss, seed, N_low, N_high, and with `critical` C_min. count: C, C_head or C_total, what a
    token costs (accounting.count_compute). Curves at a constant rate after the warm-up, or the ends of runs that cooled down.
    critical: B_crit(L) in tokens, for C_min = C / (1 + B / B_crit(L)), eq. 5.5. steady: of `steady_sizes` only.
    """
    ladder = complete(of_spec(table, "ladder"))
    sizes = ladder.drop_duplicates("N").set_index("N")
    cost = (sizes[count] / sizes.D).rename(index=float)
    curves = decayed_ends(ladder) if decayed else training_curves(ladder)
    curves = curves[(curves.S >= AFTER_WARM_UP * curves.warmup) & (curves.N.isin(steady_sizes(ladder)) | (not steady))]
    curves = curves.assign(C=curves.B * curves.S * curves.N.map(cost))
    points = crossings(curves, smooth=decayed, reach=1, lead=0.0 if decayed else LEAD)
    if critical is not None and len(points):
        points["C_min"] = batch.C_min(points.C, float(curves.B.iloc[0]), critical, points.loss)
    return points


def compute_law(points: pd.DataFrame, x: str = "C") -> Law:
    """L(C) or L(C_min) through the mean point of each pair of sizes (Kaplan et al. 2020, eqs. 3.3 and 1.3)."""
    means = mean_points(points) if len(points) else points
    return fit("power", means.loss.to_numpy(float), C=means[x].to_numpy(float))


def compute_exponent(points: pd.DataFrame, x: str = "C") -> Estimate:
    """alpha_C, averaged over the frontier: the luck of every seed counts, a bend does not."""
    return average_exponent(points[x], points.loss) if points.N.nunique() >= FEWEST else NOTHING


def hull_law(table: pd.DataFrame, decayed: bool = False) -> Envelope:
    """The same frontier as the lower convex hull of the curves, or of the decayed runs, of the steady sizes."""
    ladder = complete(of_spec(table, "ladder"))
    curves = decayed_ends(ladder) if decayed else training_curves(ladder)
    curves = curves[(curves.S >= AFTER_WARM_UP * curves.warmup) & curves.N.isin(steady_sizes(ladder))]
    D = curves.B * curves.S
    return envelope({"N": curves.N, "D": D, "C": FLOPS * curves.N * D, "loss": curves.loss})


def adjusted_exponent(table: pd.DataFrame, critical: Law, **options) -> Estimate:
    """The same of C_min, its interval widened, in squares, by what those of B_crit's height and exponent do to it."""
    points = overtakings(table, critical=critical, **options)
    found = compute_exponent(points, "C_min") if len(points) else NOTHING
    if found.value is None:
        return found
    middle = math.exp(np.log(points.loss).mean())
    height, power = critical.band(middle), critical.parameters["alpha_B"]

    def moved(level: float, alpha: float) -> float:
        law = lambda L: level * (np.asarray(L, float) / middle) ** (-1 / alpha)
        return compute_exponent(overtakings(table, critical=law, **options), "C_min").value - found.value

    ends = [[moved(b, power.value) for b in (height.low, height.high)], [moved(height.value, a) for a in (power.low, power.high)]]
    extra = math.hypot(*(max(map(abs, pair)) for pair in ends))
    low, high = (math.hypot(end - found.value, extra) for end in (found.low, found.high))
    return Estimate(found.value, found.value - low, found.value + high)


def measure_compute(runs: pd.DataFrame) -> Measurement:
    """alpha_C at the fixed batch of the ladder; with the critical batch measured, alpha_C of C_min too."""
    points = overtakings(runs)
    law, found, paper = compute_law(points), NOTHING, papers.value("kaplan2020.alpha_C")
    if law.ok:
        found = compute_exponent(points)
    if found.value is None:
        return Measurement(None, refusal=f"along the frontier of compute: {law.reason or 'too few sizes overtake one another'}")
    more = {"alpha_C, a bend taken for chance": (paper, *triple(law.exponent))}
    others = {f"alpha_C of {count}": overtakings(runs, count) for count in ("C_head", "C_total")}
    for name, rows in {**others, "alpha_C of decayed runs": overtakings(runs, decayed=True)}.items():
        other = compute_exponent(rows) if len(rows) else NOTHING
        if other.value is not None:
            more[name] = (paper, *triple(other))
    critical = critical_law(runs) if "spec" in runs and (runs.spec == "critical_batch").any() else None
    if critical is not None and critical.ok and critical.parameters["alpha_B"].value is not None:
        more["alpha_C_min"] = (papers.value("kaplan2020.alpha_C_min"), *triple(adjusted_exponent(runs, critical)))
    return Measurement(*triple(found), law.holdout.error_percent if law.holdout else None, more=more)


DEFINITIONS = (
    Definition(
        id="kaplan.L_C",
        statement="The lowest loss for a given compute falls as its power, at a fixed batch: the exponent of L(C)",
        paper="kaplan2020, eqs. 3.3 and 1.3",
        published="kaplan2020.alpha_C",
        notebook="notebooks/compute.ipynb",
        specs=("ladder", "critical_batch"),
        measure=measure_compute,
        if_differs="The frontier is short, as only sizes with a smaller and a larger rival count, and it bends as L(N) does.",
    ),
)
