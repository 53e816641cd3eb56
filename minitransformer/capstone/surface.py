"""What a training would reach, read off finished runs: the loss of a real run, or a value between real runs.

In logs of N and D the mean log losses of the runs lie on a grid. A cubic in both takes up their common curvature; what is
left is interpolated on triangles, whose long side lies along equal compute, so that a cut through the grid at one budget
leaves whole triangles. On a run the value is that run's. Nothing is extrapolated.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from .trainings import Recipe, Refusal, Training

if TYPE_CHECKING:
    import pandas as pd

DEGREE = 3
HALVED = 4.0  # an error that goes with the square of the distance, at half the distance


@dataclass(frozen=True)
class Reading:
    """Mean log loss of a training. seeds: real losses, where it was trained, else empty. noise, uncertainty: standard
    deviations of log loss between seeds and of the interpolation, so 0.01 is one per cent of the loss."""

    log_loss: float
    seeds: tuple[float, ...]
    noise: float
    uncertainty: float


@dataclass(frozen=True, eq=False)
class Surface:
    """The grid of finished runs. sizes (k,): N; lengths (h,): steps; mean, variance (k, h): of log loss over seeds, NaN
    where nothing was trained; losses: of the seeds of each (size, length)."""

    recipe: Recipe
    sizes: np.ndarray
    lengths: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    losses: dict[tuple[int, int], tuple[float, ...]]

    @classmethod
    def of(cls, runs: pd.DataFrame) -> Surface:
        """The surface of complete runs of one recipe: rows with N, d_model, steps, seed, loss, batch_size and n_ctx."""
        recipe = recipe_of(runs)
        sizes, lengths = np.unique(runs.N), np.unique(runs.steps)
        losses = {(int(N), int(steps)): tuple(group.sort_values("seed").loss.astype(float)) for (N, steps), group in runs.groupby(["N", "steps"])}
        mean, variance = np.full((2, len(sizes), len(lengths)), np.nan)
        for (N, steps), values in losses.items():
            at = np.searchsorted(sizes, N), np.searchsorted(lengths, steps)
            mean[at], variance[at] = np.mean(np.log(values)), np.var(np.log(values), ddof=1) if len(values) > 1 else np.nan
        pooled = np.nanmean(variance)
        return cls(recipe, sizes, lengths, mean, np.where(np.isnan(variance) & ~np.isnan(mean), pooled, variance), losses)

    def read(self, training: Training) -> Reading:
        """What the runs say about a training; Refusal where they do not surround it."""
        N, S = training.params, training.steps
        if not (self.sizes[0] <= N <= self.sizes[-1] and self.lengths[0] <= S <= self.lengths[-1]):
            raise Refusal(f"N = {N:,} for {S:,} steps is out of range: sizes go from {self.sizes[0]:,} to {self.sizes[-1]:,} parameters, "
                          f"lengths from {self.lengths[0]:,} to {self.lengths[-1]:,} steps")
        known = self.losses.get((N, S), ())
        corners = self._corners(N, S)
        if any(np.isnan(self.mean[at]) for at in corners):
            raise Refusal(f"N = {N:,} for {S:,} steps is out of range: there is no run so dear around it; ask for a smaller or shorter one")
        value = self._cubic(math.log(N), math.log(S)) @ self._trend + sum(w * self._rest[at] for at, w in corners.items())
        noise = math.sqrt(sum(w * self.variance[at] for at, w in corners.items()))
        return Reading(float(value), known, noise, 0.0 if known else self.uncertainty)

    def loss(self, student: str, training: Training) -> tuple[float, Reading]:
        """The loss that this student's training reaches: one of the real seeds, or a drawn one; always the same for the same question."""
        reading = self.read(training)
        key = f"{student}\n{training.params}\n{training.steps}"
        if reading.seeds:
            return reading.seeds[(_draw(key) + training.seed) % len(reading.seeds)], reading
        luck = NormalDist().inv_cdf((_draw(f"{key}\n{training.seed}") + 0.5) / 2**52)
        return math.exp(reading.log_loss + reading.noise * luck), reading

    @cached_property
    def uncertainty(self) -> float:
        """Standard deviation of log loss: every run that stands between two others, along N, D or equal compute, is interpolated
        from these without it, and the root mean square of the errors counts at half the distance. The luck of seeds is in it."""
        errors, rows, columns = [], *self.mean.shape
        for i, j in zip(*np.nonzero(~np.isnan(self.mean))):
            trend = None
            for di, dj in ((0, 1), (1, 0), (1, -1)):
                a, b = (i - di, j - dj), (i + di, j + dj)
                if not all(0 <= r < rows and 0 <= c < columns and not np.isnan(self.mean[r, c]) for r, c in (a, b)):
                    continue
                if trend is None:
                    without = self.mean.copy()
                    without[i, j] = np.nan
                    trend = self._surface_of(self._fit(without))
                z = np.log(self.sizes) if di else np.log(self.lengths)
                at = (z[i] - z[a[0]]) / (z[b[0]] - z[a[0]]) if di else (z[j] - z[a[1]]) / (z[b[1]] - z[a[1]])
                rest = self.mean - trend
                errors.append(trend[i, j] + (1 - at) * rest[a] + at * rest[b] - self.mean[i, j])
        return float(np.sqrt(np.mean(np.square(errors)))) / HALVED

    def _corners(self, N: int, S: int) -> dict[tuple[int, int], float]:
        """Runs around a place and their weights, which add up to one; those of weight zero are left out."""
        (i, u), (j, v) = _place(self.sizes, N), _place(self.lengths, S)
        if u + v <= 1:
            weights = {(i, j): 1 - u - v, (i + 1, j): u, (i, j + 1): v}
        else:
            weights = {(i + 1, j + 1): u + v - 1, (i + 1, j): 1 - v, (i, j + 1): 1 - u}
        return {at: w for at, w in weights.items() if w > 0}

    @cached_property
    def _trend(self) -> np.ndarray:
        return self._fit(self.mean)

    @cached_property
    def _rest(self) -> np.ndarray:
        return self.mean - self._surface_of(self._trend)

    def _fit(self, mean: np.ndarray) -> np.ndarray:
        there = ~np.isnan(mean)
        z = np.meshgrid(np.log(self.sizes), np.log(self.lengths), indexing="ij")
        return np.linalg.lstsq(self._cubic(*(x[there] for x in z)), mean[there], rcond=None)[0]

    def _surface_of(self, coefficients: np.ndarray) -> np.ndarray:
        return self._cubic(*np.meshgrid(np.log(self.sizes), np.log(self.lengths), indexing="ij")) @ coefficients

    def _cubic(self, log_N, log_S) -> np.ndarray:
        x, y = log_N - np.log(self.sizes).mean(), log_S - np.log(self.lengths).mean()
        return np.stack([x**i * y**j for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)], -1)


def recipe_of(runs: pd.DataFrame) -> Recipe:
    return Recipe(int((runs.batch_size * runs.n_ctx).iloc[0]), int((runs.N // runs.d_model**2).iloc[0]))


def _place(knots: np.ndarray, x: int) -> tuple[int, float]:
    """The interval of knots that x lies in, and how far along it in logs, exactly 0 or 1 at its ends."""
    i = int(np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2))
    return i, math.log(x / knots[i]) / math.log(knots[i + 1] / knots[i]) if x != knots[i + 1] else 1.0


def _draw(text: str) -> int:
    """A whole number below 2**52, the same for the same text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 12
