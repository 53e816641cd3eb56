"""95 % intervals for a straight line through seed means, by a hierarchical studentised bootstrap.

Two things move a fitted slope: the noise between seeds of one size, and the scatter of whole sizes about the line,
which all seeds of a size share. Resampling seeds alone misses the second, and percentile bootstraps are too narrow
with five sizes. So a resample draws both, sizes (leverage-adjusted residuals with a random sign) and seeds (deviations
from their size's mean), and the interval is estimate +- q * standard error, q being the 95 % quantile of
|error| / standard error over the resamples, each with a standard error of its own.

The standard error comes from the scatter of the size means, unless they lie closer to the line than their seeds' noise
allows. Five points on a line by luck prove nothing, so then both are taken for the same noise: their variances are
pooled and the resamples draw seeds only. `benchmarks/coverage.py` prints how often the intervals hold the truth,
beside the usual ones.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
RNG_SEED = 2020


@dataclass(frozen=True, eq=False)
class Line:
    """y = intercept + slope * (z - centre), by least squares on the mean y of each distinct z.

    z, means, residuals, counts (seeds): shape (k,). centre and sxx: mean of z and sum of squares about it.
    seeds: variance of a size's mean that the seeds explain, 0 where no size has two. scatter: variance of the means
    about the line. variance: the one used. draws: intercept, slope, newcomer (the mean of a new size) and standard
    deviation of each resample, shape (4, RESAMPLES), from a world whose line is zero.
    """

    z: np.ndarray
    means: np.ndarray
    counts: np.ndarray
    centre: float
    sxx: float
    intercept: float
    slope: float
    residuals: np.ndarray
    seeds: float
    scatter: float
    variance: float
    draws: np.ndarray

    def at(self, z: np.ndarray) -> np.ndarray:
        return self.intercept + self.slope * (np.asarray(z, float) - self.centre)

    def critical(self, level: float, slope: np.ndarray, new: float = 0.0) -> np.ndarray:
        """q for the quantity level * intercept + slope * slope - new * newcomer; `slope` any shape."""
        slope = np.asarray(slope, float)[..., None]
        intercept, slopes, newcomer, deviation = self.draws
        error = np.abs(level * intercept + slope * slopes - new * newcomer)
        return np.quantile(error / (deviation * np.sqrt(self._leverage(level, slope, new))), LEVEL, axis=-1)

    def half_width(self, level: float, slope: np.ndarray, new: float = 0.0) -> np.ndarray:
        slope = np.asarray(slope, float)
        return self.critical(level, slope, new) * np.sqrt(self.variance * self._leverage(level, slope, new))

    def _leverage(self, level: float, slope: np.ndarray, new: float) -> np.ndarray:
        return level**2 / len(self.z) + slope**2 / self.sxx + new**2

    def crossing(self) -> tuple[float, float, float] | None:
        """z where the line is zero, with its interval (Fieller 1954); None where the slope may be zero."""
        if abs(self.slope) <= self.half_width(0, 1):
            return None
        root = -self.intercept / self.slope
        q2v = self.critical(1, root) ** 2 * self.variance
        a = self.slope**2 - q2v / self.sxx
        if a <= 0:
            return None
        b = self.intercept * self.slope
        spread = np.sqrt(q2v * (self.intercept**2 / self.sxx + a / len(self.z)))
        return self.centre + root, self.centre + (-b - spread) / a, self.centre + (-b + spread) / a


@lru_cache(maxsize=8)
def _choices(k: int, runs: int, pool: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which size, which sign and which seed each resample draws: the same for every ladder of one shape."""
    random = np.random.RandomState(RNG_SEED)  # the legacy generator: NumPy keeps its stream the same for ever
    sizes = random.randint(k, size=(RESAMPLES, k + 1), dtype=np.int64)
    signs = 2 * random.randint(2, size=(RESAMPLES, k + 1), dtype=np.int64) - 1
    return sizes, signs, random.randint(pool, size=(RESAMPLES, runs), dtype=np.int64)


def fit_line(z: np.ndarray, y: np.ndarray) -> Line:
    """Fit the line to runs z, y of shape (n,), with at least 3 distinct z; equal z are seeds."""
    order = np.lexsort((y, z))  # so that the order of the rows does not decide what a resample draws
    z, y = z[order], y[order]
    sizes, index, counts = np.unique(z, return_inverse=True, return_counts=True)
    k, n = len(sizes), len(z)
    means = np.bincount(index, y) / counts
    deviations = y - means[index]
    centre = sizes.mean()
    d = sizes - centre
    sxx = float(d @ d)
    intercept, slope = means.mean(), float(d @ means) / sxx
    residuals = means - intercept - slope * d
    seeds = float(deviations @ deviations) / (n - k) * np.mean(1 / counts) if n > k else 0.0
    scatter = float(residuals @ residuals) / (k - 2)
    pooled = scatter <= seeds

    def variance(scatter, seeds):
        return ((k - 2) * scatter + (n - k) * seeds) / (n - 2) if pooled else scatter

    adjusted = residuals / np.sqrt(1 - 1 / k - d**2 / sxx)
    inflated = deviations * np.sqrt(counts / np.maximum(counts - 1, 1))[index]
    pool = inflated[counts[index] > 1] if n > k else np.zeros(1)
    groups = np.append(counts, int(np.median(counts)))
    size_picks, signs, seed_picks = _choices(k, groups.sum(), len(pool))
    seed_draws = pool[seed_picks]
    seed_means = np.add.reduceat(seed_draws, np.cumsum(groups) - groups, axis=1) / groups
    drawn = seed_means if pooled else seed_means + adjusted[size_picks] * signs
    m, newcomer = drawn[:, :k], drawn[:, k]
    slopes, intercepts = m @ d / sxx, m.mean(1)
    left = m - intercepts[:, None] - slopes[:, None] * d
    within = ((seed_draws**2)[:, :n].sum(1) - (counts * seed_means[:, :k] ** 2).sum(1)) / max(n - k, 1)
    found = variance((left**2).sum(1) / (k - 2), np.maximum(within, 0) * np.mean(1 / counts))
    actual = variance(scatter, seeds)
    deviation = np.sqrt(np.maximum(found, max(1e-18 * actual, np.finfo(float).tiny)))
    return Line(sizes, means, counts, float(centre), sxx, float(intercept), slope, residuals, seeds, scatter, actual,
                np.stack([intercepts, slopes, newcomer, deviation]))
