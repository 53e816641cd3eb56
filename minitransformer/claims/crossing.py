"""Where a larger size overtakes a smaller one at equal compute: the compute-efficient frontier without budgets to choose.

Where two neighbouring sizes have the same loss for the same compute, the best size lies between them: at their geometric
mean wherever the loss is a parabola in log N. The price of such a point can be adjusted for its batch afterwards: both sizes
have the same loss there, so the same critical batch (Kaplan et al. 2020, eq. 5.5).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import CubicSpline

from ..laws.fit import fit
from ..laws.formulas import FLOPS
from ..laws.frontier import NOTHING
from ..laws.law import Estimate
from .curves import of_spec, training_curves

if TYPE_CHECKING:
    import pandas as pd

AFTER_WARM_UP = 2      # warm-ups, before which no crossing is read
LEAD = 0.03            # of log loss: so far ahead a smaller size must once have been; at first all sizes learn the same
NEXT = math.log(1.25)  # a crossing this close to the end of what was measured is not believed: one measurement, in log C
FEWEST = 4             # crossings through which an exponent is drawn


def counted(curves: pd.DataFrame, runs: pd.DataFrame, count: str = "N") -> pd.DataFrame:
    """The curves with sizes counted as N, N_head or N_total, and C = 6 N D in that count; D = B S tokens."""
    sizes = runs.drop_duplicates("N").set_index("N")[count] if count != "N" else None
    N = curves.N if sizes is None else curves.N.map(sizes)
    D = curves.B * curves.S
    return curves.assign(N=N.astype(float), D=D, C=FLOPS * N.astype(float) * D)


def crossings(curves: pd.DataFrame, smooth: bool = False, reach: int = 2, lead: float = 0.0) -> pd.DataFrame:
    """Where two sizes have the same loss for the same compute: one row for each pair of sizes and seed.

    curves: columns N, C, loss, seed, a row for each measurement. Columns of the result: N (the geometric mean of the two),
    C, loss, seed, N_low, N_high. Pairs have fewer than `reach` sizes between them. Curves are straight lines between measurements
    in logs; `smooth` draws a cubic spline through them instead, for the few horizons of decayed runs. Where noise makes two
    curves cross several times, the point that leaves as much wrong on its left as on its right counts. Pairs that do not change
    places well inside what was measured are left out, and those whose smaller size was never ahead by `lead` (in log loss).
    """
    import pandas as pd

    rows = []
    sizes = np.sort(curves.N.unique())
    logs = {key: np.log(group.sort_values("C")[["C", "loss"]].to_numpy(float)).T for key, group in curves.groupby(["N", "seed"])}
    for low, high in [(low, high) for apart in range(1, reach + 1) for low, high in zip(sizes, sizes[apart:])]:
        for seed in sorted(seed for N, seed in logs if N == low and (high, seed) in logs):
            found = _crossing(logs[low, seed], logs[high, seed], smooth, lead)
            if found is not None:
                rows.append((math.sqrt(low * high), math.exp(found[0]), math.exp(found[1]), seed, low, high))
    return pd.DataFrame(rows, columns=["N", "C", "loss", "seed", "N_low", "N_high"])


def _crossing(small, large, smooth: bool, least: float) -> tuple[float, float] | None:
    """log C and log loss where the larger size (log C, log loss) comes below the smaller, or None."""
    start, end = max(small[0][0], large[0][0]), min(small[0][-1], large[0][-1])
    if end - start < 2 * NEXT or min(len(small[0]), len(large[0])) < 3:
        return None
    read = (lambda curve, x: CubicSpline(*curve)(x)) if smooth else (lambda curve, x: np.interp(x, *curve))
    x = np.linspace(start, end, 401)
    lead = read(large, x) - read(small, x)  # of the smaller size
    ahead = np.maximum(lead, 0)
    ahead, whole = ahead[1:] + ahead[:-1], np.abs(lead[1:]) + np.abs(lead[:-1])
    at = start + float(np.sum(np.divide(ahead, whole, out=np.ones_like(whole), where=whole > 0))) * (x[1] - x[0])
    if not (start + NEXT <= at <= end - NEXT and lead[0] > 0 > lead[-1] and lead.max() >= least):
        return None
    return at, float((read(small, at) + read(large, at)) / 2)


def mean_points(points: pd.DataFrame) -> pd.DataFrame:
    """Geometric means over seeds for each pair of sizes, smallest first."""
    pairs = [points.N_low, points.N_high]
    logs = np.log(points.drop(columns=["seed", "N_low", "N_high"]).astype(float))
    return np.exp(logs.groupby(pairs).mean()).reset_index().sort_values("N", ignore_index=True)


def growth(points: pd.DataFrame, y: str, x: str = "C") -> Estimate:
    """The exponent of y in x along the points, a row for each pair of sizes and seed; nothing for fewer than FEWEST pairs.

    Sizes are known and compute is not, so x and y are each fitted as powers of N, with the pairs' seeds, and the exponent is the
    ratio of the two (where y is N, one over that of x). n sizes make n - 1 steps: where more pairs than that are among the points,
    they say in part the same, and the interval is wider by the square root of how many times more.
    """
    if points.N.nunique() < FEWEST:
        return NOTHING
    laws = {name: fit("power", points[name], N=points.N) for name in {x, y} - {"N"}}
    if not all(law.ok for law in laws.values()):
        return NOTHING
    of_y, of_x = ((-e.value, (e.high - e.low) / 2) for e in (laws[n].exponent if n != "N" else Estimate(-1, -1, -1) for n in (y, x)))
    value = of_y[0] / of_x[0]
    half = math.hypot(of_y[1] / of_x[0], value * of_x[1] / of_x[0])
    if "N_low" in points:
        half *= math.sqrt(max(points.N.nunique() / (len(set(points.N_low) | set(points.N_high)) - 1), 1))
    return Estimate(value, value - half, value + half)


def overtaking(runs: pd.DataFrame, count: str = "N") -> pd.DataFrame:
    """Crossings of the ladder's learning curves at a constant rate, by seed, once the warm-up is over."""
    ladder = of_spec(runs, "ladder")
    curves = training_curves(ladder)
    curves = counted(curves[curves.S >= AFTER_WARM_UP * curves.warmup], ladder, count)
    found = crossings(curves, lead=LEAD)
    B = float(curves.B.iloc[0]) if len(curves) else math.nan
    D = found.C / (FLOPS * found.N)
    return found.assign(D=D, S=D / B, B=B)
