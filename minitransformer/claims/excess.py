"""The grid of size by unique text, and how far limited text is from unlimited (Kaplan et al. 2020, §4.2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2, f as f_distribution, t as student

from ..laws.formulas import overfitting
from ..laws.law import Estimate, Law
from .curves import of_spec
from .definition import complete, longest
from .regression import seed_noise as pooled

if TYPE_CHECKING:
    import pandas as pd

UPDATES = 40             # an epoch of the sets that the paper leaves out has so few (§4.2): more are asked for here too
ONSET = 0.15             # overfitting up to this is near the limit of unlimited text, where 1 / D is asked about
ABOVE_NOISE = 5          # and from so many times the noise of a loss on
NOTHING = Estimate(None, None, None)


# --- the grid ------------------------------------------------------------------------------------------------------


def grid(table: pd.DataFrame) -> pd.DataFrame:
    """The complete runs of size by unique text, with a column `updates`: those of one epoch, unique_tokens over tokens a step."""
    runs = complete(of_spec(table, "overfitting"))
    return runs.assign(updates=runs.unique_tokens / (runs.batch_size * runs.n_ctx))


def unlimited(table: pd.DataFrame) -> pd.DataFrame:
    """Those of them that have the whole text, of which they see no more than a part: the limit D = infinity."""
    runs = grid(table)
    return runs[runs.train_tokens == 0]


def seed_noise(table: pd.DataFrame) -> Estimate:
    """Standard deviation of the loss between seeds, relative, with its 95 % interval.

    From seeds of the grid itself, else from the ladder's longest runs of the same sizes; not identified without either.
    """
    runs, column = grid(table), "best_loss"
    keys = ["N", "train_tokens"]
    if not runs.duplicated(keys).any() and "spec" in table and (table.spec == "ladder").any():
        ladder = longest(complete(of_spec(table, "ladder")))
        runs, column, keys = ladder[ladder.N.between(runs.N.min(), runs.N.max())], "loss", ["N", "steps"]
    sd, free = pooled(runs, keys, column)
    return Estimate(*(sd * math.sqrt(free / q) for q in (free, chi2.ppf(0.975, free), chi2.ppf(0.025, free)))) if free else NOTHING


# --- how far from unlimited text -----------------------------------------------------------------------------------


def excesses(table: pd.DataFrame, updates: float = UPDATES) -> pd.DataFrame:
    """delta L = L(N, D) / L(N, infinity) - 1 of each size on each limited text (eq. 4.2), the limit being measured at that size.

    Columns N, D, loss, limit, delta; losses are geometric means over seeds. Sets of `updates` an epoch or fewer are left out.
    """
    runs = grid(table)
    logs = runs.assign(log=np.log(runs.best_loss.astype(float)))
    limits = logs[logs.train_tokens == 0].groupby("N").log.mean()
    points = logs[(logs.train_tokens > 0) & (logs.updates > updates) & logs.N.isin(limits.index)]
    points = points.assign(D=points.unique_tokens).groupby(["N", "D"], as_index=False).log.mean().astype(float)
    limit = points.N.map(limits)
    points = points.assign(loss=np.exp(points.log), limit=np.exp(limit), delta=np.expm1(points.log - limit))
    return points.drop(columns="log")


def scatter(points: pd.DataFrame, growth: float) -> float:
    """How far the points lie from one curve of N^growth / D, in per cent of the loss: the collapse of Fig. 9.

    Root mean square of log(1 + delta) about a cubic in the logarithm of N^growth / D.
    """
    return 100 * math.sqrt(_left(points, growth, False) / (len(points) - 4))


def _left(points: pd.DataFrame, growth: float, levels: bool) -> float:
    """Sum of squares of log(1 + delta) about that cubic; levels: each size may lie higher or lower by an amount of its own."""
    x = growth * np.log(points.N) - np.log(points.D)
    x = (x - x.mean()) / max(x.std(), 1e-12)
    columns = np.vander(x, 4)
    if levels:
        columns = np.hstack([columns, (points.N.to_numpy()[:, None] == np.unique(points.N)[1:]).astype(float)])
    y = np.log1p(points.delta.to_numpy())
    left = y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]
    return float(left @ left)


def collapse(points: pd.DataFrame) -> Estimate:
    """The growth that brings the points closest to one curve, whatever its shape, with its 95 % interval (profile, F).

    Each size may lie a little higher or lower, as all its points share the error of its one limit; so only the distance along D
    decides. Not identified with fewer than twelve points or two sizes, or where the interval has no end between -1 and 3.
    """
    sizes = points.N.nunique()
    free = len(points) - 4 - sizes
    if len(points) < 12 or sizes < 2 or free < 3:
        return NOTHING
    trials = np.linspace(-1, 3, 401)
    squares = np.array([_left(points, trial, True) for trial in trials])
    best = int(squares.argmin())
    inside = trials[squares <= squares[best] * (1 + f_distribution.ppf(0.95, 1, free) / free)]
    if inside[0] == trials[0] or inside[-1] == trials[-1]:
        return NOTHING
    return Estimate(float(trials[best]), float(inside[0]), float(inside[-1]))


def onset(points: pd.DataFrame, noise: float, delta: np.ndarray | None = None, resamples: int = 1000) -> Estimate:
    """The power of 1 / D with which overfitting begins: Kaplan's third principle says 1 in the limit.

    Least squares of log delta on log D with one slope and an intercept for each size, on the points whose measured delta lies
    between ABOVE_NOISE times the relative `noise` of a loss and ONSET. delta: other values at the same points, such as a law's.
    The interval holds the scatter about that line, and the noise, of which a size's points share that of their limit.
    """
    near = (points.delta > ABOVE_NOISE * noise) & (points.delta < ONSET)
    near &= near.groupby(points.N).transform("sum") > 1
    chosen, values = points[near], np.asarray(points.delta if delta is None else delta, float)[near]
    sizes, index = np.unique(chosen.N, return_inverse=True)
    free = len(chosen) - len(sizes) - 1
    if free < 1:
        return NOTHING
    means = np.eye(len(sizes))[index]
    means = np.eye(len(chosen)) - means @ np.linalg.pinv(means)  # takes the mean of its size from each
    x = means @ np.log(chosen.D.to_numpy())
    y = means @ np.log(values)
    slope = float(x @ y / (x @ x))
    scatter_error = math.sqrt(float(((y - slope * x) ** 2).sum()) / free / float(x @ x))
    if delta is not None:
        return Estimate(-slope, None, None)
    draw = np.random.RandomState(0)
    shifts = noise * (draw.standard_normal((resamples, len(chosen))) - draw.standard_normal((resamples, len(sizes)))[:, index])
    again = np.log(np.maximum(np.expm1(np.log1p(values) + shifts), 0.1 * values))
    noise_error = float(np.std(again @ means.T @ x / (x @ x)))
    half = student.ppf(0.975, free) * max(scatter_error, noise_error)
    return Estimate(-slope, -slope - half, -slope + half)


def law_excess(law: Law, points: pd.DataFrame) -> np.ndarray:
    """delta L of a fitted law at these points: eq. 4.3 for Kaplan's form; else against the law at a million times D."""
    N, D = points.N.to_numpy(), points.D.to_numpy()
    if law.form.name == "kaplan-nd":
        return overfitting(N, D, *(law.parameters[name].value for name in ("alpha_N", "alpha_D", "N_c", "D_c")))
    return law.predict(N=N, D=D).value / law.predict(N=N, D=1e6 * D).value - 1


def excess_band(law: Law, N: float, D: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eq. 4.3 of a fitted Kaplan law for one size: its value, and where 95 % of the refitted laws run."""
    curve = law.engine
    theta = np.vstack([curve.theta, curve.draws])
    a, b, alpha_N, alpha_D = (column[:, None] for column in theta.T)
    size = (a - alpha_N * (math.log(N) - curve.centre[0])) / alpha_D
    data = b / alpha_D - (np.log(np.asarray(D, float)) - curve.centre[1])
    values = np.expm1(alpha_D * np.logaddexp(0, data - size))
    return values[0], *np.percentile(values[1:], [2.5, 97.5], axis=0)


def data_needed(points: pd.DataFrame, excess: float) -> dict[float, float]:
    """The D at which the measured delta of each size comes down to `excess`, between two points (straight in logs)."""
    found = {}
    for N, group in points.sort_values("D").groupby("N"):
        D, delta = group.D.to_numpy(), np.maximum(group.delta.to_numpy(), 1e-6)
        i = int(np.argmax(delta <= excess))
        if i and delta[i] <= excess:
            share = math.log(delta[i - 1] / excess) / math.log(delta[i - 1] / delta[i])
            found[float(N)] = float(D[i - 1] * (D[i] / D[i - 1]) ** share)
    return found
