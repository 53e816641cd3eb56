"""What claims share: regression with one coefficient of interest, noise between seeds, and columns that hold a curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

from ..laws import frontier
from ..laws.frontier import NOTHING
from ..laws.law import Estimate, Law
from ..laws.uncertainty import LEVEL

if TYPE_CHECKING:
    import pandas as pd


def least_squares(columns: np.ndarray, y: np.ndarray) -> Estimate:
    """The coefficient of the first of the columns (n, k) in a regression of y (n,), with its 95 % interval of Student's t."""
    theta, *_ = np.linalg.lstsq(columns, y, rcond=None)
    free = len(y) - columns.shape[1]
    if free < 1:
        return Estimate(None, None, None)
    left = y - columns @ theta
    error = np.sqrt(left @ left / free * np.linalg.pinv(columns.T @ columns)[0, 0])
    half = float(student.ppf(0.975, free) * error)
    return Estimate(float(theta[0]), float(theta[0]) - half, float(theta[0]) + half)


def mean_of(values: np.ndarray) -> Estimate:
    """Mean of values (n,) with its 95 % interval of Student's t."""
    return least_squares(np.ones((len(values), 1)), np.asarray(values, float))


def scaled(estimate: Estimate, factor: float) -> Estimate:
    return estimate if estimate.value is None else Estimate(*(factor * v for v in (estimate.value, estimate.low, estimate.high)))


def triple(estimate: Estimate) -> tuple[float, float | None, float | None]:
    return estimate.value, estimate.low, estimate.high


def held(table: pd.DataFrame, column: str) -> np.ndarray:
    """Which rows hold an array in this column, (n,): tables of several specs have empty cells."""
    cells = table[column] if column in table else [None] * len(table)
    return np.array([hasattr(cell, "__len__") and len(cell) > 0 for cell in cells], bool)


def seed_noise(runs: pd.DataFrame, keys: list[str], loss: str = "loss") -> tuple[float, int]:
    """Standard deviation of the log loss between seeds, pooled over the groups of `keys`, and its degrees of freedom."""
    groups = [np.log(group.to_numpy(float)) for _, group in runs.groupby(keys)[loss]]
    free = sum(len(g) - 1 for g in groups)
    return (float(np.sqrt(sum(((g - g.mean()) ** 2).sum() for g in groups) / free)), free) if free else (float("nan"), 0)


def split_exponent(law: Law) -> Estimate:
    """a = beta / (alpha + beta) of a fitted law of N and D (Hoffmann et al. 2022, eq. 4), with the bootstrap's interval."""
    if not law.ok or any(law.parameters[name].value is None for name in ("alpha", "beta")):
        return NOTHING
    curve = law.engine
    rows = [curve.form.theta.index(name) for name in ("alpha", "beta")]

    def share(theta, covariance):
        alpha, beta = theta[..., rows[0]], theta[..., rows[1]]
        gradient = np.stack([-beta, alpha], -1) / (alpha + beta)[..., None] ** 2
        block = covariance[..., rows, :][..., rows]
        return beta / (alpha + beta), np.sqrt(np.maximum(np.einsum("...i,...ij,...j->...", gradient, block, gradient), 0))

    value, error = share(curve.theta, curve.covariance)
    drawn, errors = share(curve.draws, curve.covariances)
    with np.errstate(all="ignore"):
        q = np.quantile(np.nan_to_num(np.abs(drawn - value) / errors, nan=np.inf, posinf=1e300), LEVEL)
    half = float(q * error)
    return Estimate(float(value), float(value) - half, float(value) + half) if half < frontier.WIDEST else NOTHING
