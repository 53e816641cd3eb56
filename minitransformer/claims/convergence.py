"""How far from convergence compute-efficient training stops, and what a wrong size costs (Kaplan et al. 2020, appendix B)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

from .. import papers
from ..laws.fit import fit
from ..laws.formulas import FLOPS
from ..laws.frontier import NOTHING
from ..laws.law import Estimate
from ..laws.uncertainty import LEVEL
from .crossing import AFTER_WARM_UP, growth, mean_points, overtaking
from .curves import of_spec, steps_to, training_curves
from .definition import Measurement
from .efficiency import TRANSIENT, steps_law

if TYPE_CHECKING:
    import pandas as pd


def stops(runs: pd.DataFrame) -> pd.DataFrame:
    """Where each size lies on the frontier of its own learning curve, against the loss it would converge to: eq. B.5.

    A row for each size between the first and the last overtaking point: N, S (steps there: its place on the line through the
    points, in logs) and loss; last, the lowest loss its constant rate reached, and far, how many times S that took; converged,
    low, high: the floor E of E + A / S^gamma through its own curve after the transient, with its interval, and gamma; excess,
    excess_low, excess_high: the loss over that, less one; at_least: over `last`. Sizes whose curve tells no floor are left out.
    """
    import pandas as pd

    points = mean_points(overtaking(runs))
    curves = training_curves(of_spec(runs, "ladder"))
    rows = []
    for N, group in curves[curves.S >= AFTER_WARM_UP * curves.warmup].groupby("N"):
        if not (len(points) and points.N.iloc[0] <= N <= points.N.iloc[-1]):
            continue
        mean = np.exp(np.log(group.set_index("S").loss).groupby("S").mean())
        S = math.exp(np.interp(math.log(N), np.log(points.N), np.log(points.C))) / (FLOPS * N * group.B.iloc[0])
        loss = float(np.exp(np.interp(math.log(S), np.log(mean.index), np.log(mean))))
        tail = mean[mean.index >= TRANSIENT * group.warmup.iloc[0]]
        law = fit("power-floor", tail.to_numpy(), S=tail.index.to_numpy(float))
        floor, gamma = (law.parameters[name] for name in ("E", "alpha_S")) if law.ok else (NOTHING, NOTHING)
        if floor.value is not None and floor.low > 0 and gamma.value is not None:
            rows.append((N, S, loss, mean.min(), mean.index[-1] / S, floor.value, floor.low, floor.high, gamma.value))
    table = pd.DataFrame(rows, columns=["N", "S", "loss", "last", "far", "converged", "low", "high", "gamma"])
    return table.assign(excess=table.loss / table.converged - 1, excess_low=table.loss / table.high - 1,
                        excess_high=table.loss / table.low - 1, at_least=table.loss / table["last"] - 1)


def costs(runs: pd.DataFrame) -> pd.DataFrame:
    """What a size that is not the best costs: eq. B.16 and Fig. 12, read off the ladder's curves.

    A row for each size that reaches the loss of an overtaking point: loss; size, compute and steps over those of the best size,
    the lowest point of the parabola of log C in log N through the cheapest size and its two neighbours.
    """
    import pandas as pd

    curves = training_curves(of_spec(runs, "ladder"))
    curves = curves[curves.S >= AFTER_WARM_UP * curves.warmup].astype({"loss": float})
    means = np.exp(np.log(curves.set_index(["N", "B", "S"]).loss).groupby(["N", "B", "S"]).mean()).reset_index()
    rows = []
    for loss in mean_points(overtaking(runs)).loss:
        reached = [(N, B, steps_to(curve.S.to_numpy(), curve.loss.to_numpy(), np.array([loss]))[0])
                   for (N, B), curve in means.groupby(["N", "B"])]
        N, B, S = np.array([r for r in reached if math.isfinite(r[2])]).T
        x, y = np.log(N), np.log(FLOPS * N * B * S)
        least = int(np.argmin(y))
        if not 0 < least < len(N) - 1:
            continue
        c2, c1, c0 = np.polyfit(x[least - 1 : least + 2] - x[least], y[least - 1 : least + 2], 2)
        best, price = x[least] - c1 / (2 * c2), c0 - c1**2 / (4 * c2)
        rows += [(loss, *np.exp((a - best, b - price, b - price - (a - best)))) for a, b in zip(x, y)]
    return pd.DataFrame(rows, columns=["loss", "size", "compute", "steps"])


def ratio(alpha_N: Estimate, alpha_S: Estimate) -> Estimate:
    """alpha_N / alpha_S, which eq. B.5 expects for the excess; the half-widths of the two, in logs, taken as independent."""
    if any(e.value is None or e.low is None or e.low <= 0 for e in (alpha_N, alpha_S)):
        return NOTHING
    spread = math.hypot(math.log(alpha_N.high / alpha_N.low) / 2, math.log(alpha_S.high / alpha_S.low) / 2)
    return Estimate(*(alpha_N.value / alpha_S.value * math.exp(s * spread) for s in (0, -1, 1)))


def convergence(runs: pd.DataFrame) -> Measurement:
    """The mean excess over converged loss, in logs, of the sizes on the frontier (Kaplan et al. 2020, eq. B.5).

    The interval adds, in squares, Student's interval of the mean over sizes and the mean half-width of the extrapolated floors,
    which one form serves and so may all be off to the same side.
    """
    table = stops(runs)
    if len(table) < 3:
        return Measurement(None, refusal="fewer than three sizes lie on the frontier and tell the loss they converge to")
    logs = np.log1p(table[["excess", "excess_low", "excess_high", "at_least"]].to_numpy())
    middle = logs[:, 0].mean()
    scatter = student.ppf((1 + LEVEL) / 2, len(logs) - 1) * logs[:, 0].std(ddof=1) / math.sqrt(len(logs))
    down, up = (math.hypot(scatter, logs[:, i].mean() - middle) for i in (1, 2))
    published = papers.value("kaplan2020.alpha_N") / papers.value("kaplan2020.alpha_S")
    steps = steps_law(runs)
    law = ratio(*(steps.parameters[name] for name in ("alpha_N", "alpha_S"))) if steps.ok else NOTHING
    falling = growth(table, "converged", "N")
    own = Estimate(-falling.value, -falling.high, -falling.low) if falling.value is not None else NOTHING
    gammas = np.log(table.gamma.to_numpy())
    spread = student.ppf((1 + LEVEL) / 2, len(gammas) - 1) * gammas.std(ddof=1) / math.sqrt(len(gammas))
    own = ratio(own, Estimate(*np.exp(gammas.mean() + spread * np.array([0, -1, 1])).tolist()))
    smallest, largest = (float(table.excess[i]) for i in (0, len(table) - 1))
    more = {"over the lowest loss its own curve reached, at least": (None, math.expm1(logs[:, 3].mean()), None, None),
            "of the smallest size": (None, smallest, float(table.excess_low.iloc[0]), float(table.excess_high.iloc[0])),
            "of the largest size": (None, largest, float(table.excess_low.iloc[-1]), float(table.excess_high.iloc[-1]))}
    for name, e in (("alpha_N / alpha_S of the joint fit L(N, S)", law), ("alpha_N / alpha_S of each size's own curve", own)):
        if e.value is not None:
            more[name] = (published, e.value, e.low, e.high)
    reason = f"The excess is {smallest:.2f} for the smallest size on the frontier and {largest:.2f} for the largest."
    if own.value is not None:
        reason += f" The paper's number is alpha_N / alpha_S; read off the sizes' own curves that ratio is {own.value:.2f} here."
    return Measurement(math.expm1(middle), math.expm1(middle - down), math.expm1(middle + up), more=more, reason=reason)
