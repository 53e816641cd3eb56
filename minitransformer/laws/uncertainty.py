"""95 % intervals by a hierarchical studentised bootstrap: for a straight line (Line) and for every other form (Curve).

Two things move a fitted slope: the noise between seeds of one size, and the scatter of whole sizes about the line,
which all seeds of a size share. Resampling seeds alone misses the second, and percentile bootstraps are too narrow
with five sizes. So a resample draws both, sizes (leverage-adjusted residuals with a random sign) and seeds (deviations
from their size's mean), and the interval is estimate +- q * standard error, q being the 95 % quantile of
|error| / standard error over the resamples, each with a standard error of its own.

The standard error comes from the scatter of the size means, unless they lie closer to the line than their seeds' noise
allows. Five points on a line by luck prove nothing, so then both are taken for the same noise: their variances are
pooled and the resamples draw seeds only. `benchmarks/coverage.py` prints how often the intervals hold the truth,
beside the usual ones.

A Curve does the same with the refitted form in place of the line, and the linearised standard error of each refit.
Where a floor may be zero the bootstrap is known to fail (Andrews 2000), and the interval comes from the profile of the
objective instead: the values of a parameter that the refitted others can live with. How much worse the objective may
get is again read from resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from minitransformer.laws.forms import Form
from minitransformer.laws.optimise import DELTA, Minimum, bounds, minimise, starting_points

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

    @property
    def one_run(self) -> float:
        """Scatter of a single run about the law, over that of a size's mean."""
        return _one_run(self.seeds, self.counts, self.variance)

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


def _one_run(seeds: float, counts: np.ndarray, variance: float) -> float:
    """seeds: variance of a mean over `counts` runs that their noise explains; a run by itself has all of that noise."""
    if not seeds:
        return 1.0
    share = float(np.mean(1 / counts))
    return float(np.sqrt(1 + seeds * (1 / share - 1) / max(variance, seeds * share)))


CURVE_RESAMPLES = 1000
SMOOTHING = 1.0  # a robust fit passes through some points exactly; without smoothing its resamples would all but repeat them


@dataclass(frozen=True, eq=False)
class Curve:
    """A form fitted to the mean log loss of each distinct design point, or to runs whose points hang together.

    theta (p,): the best of many starts; centre (k,): what was subtracted from the log inputs z (k, n). means, residuals
    (n,): log losses and their distance from the curve. covariance (p, p): of theta, linearised; groups (n,): points of
    one training, which move together. sigma: scatter of a point. q_band, q_new: critical values for the curve and for a
    new point on it, the larger of those at the dearest point and at ten times its compute. draws (R, p), covariances
    (R, p, p): theta and covariance of each resample.
    """

    form: Form
    delta: float
    theta: np.ndarray
    centre: np.ndarray
    z: np.ndarray
    means: np.ndarray
    counts: np.ndarray
    residuals: np.ndarray
    covariance: np.ndarray
    sigma: float
    seeds: float
    objective: float
    condition: float
    converged: bool
    q_band: float = 0.0
    q_new: float = 0.0
    draws: np.ndarray | None = None
    covariances: np.ndarray | None = None
    groups: np.ndarray | None = None

    def at(self, z: np.ndarray) -> np.ndarray:
        """Log loss at centred log inputs (k, m)."""
        return self.form.evaluate(self.theta[None], z)[0][0]

    @property
    def one_run(self) -> float:
        """Scatter of a single run about the law, over that of a point's mean."""
        return _one_run(self.seeds, self.counts, self.sigma**2)

    def half_width(self, z: np.ndarray, new: float) -> np.ndarray:
        gradient = self.form.evaluate(self.theta[None], z)[1][0]
        variance = np.einsum("pm,pq,qm->m", gradient, self.covariance, gradient)
        return (self.q_new if new else self.q_band) * np.sqrt(variance + (new * self.sigma) ** 2)

    def estimates(self) -> tuple[np.ndarray, np.ndarray]:
        """Reported parameters, in logs where the form says so, and the half-widths of their intervals: (P,), (P,)."""
        value, error = _reported(self.form, self.theta[None], self.centre, self.covariance[None])
        drawn, drawn_error = _reported(self.form, self.draws, self.centre, self.covariances)
        with np.errstate(all="ignore"):
            q = _quantile(np.abs(drawn - value) / np.maximum(drawn_error, 1e-300))
        return value[0], q * error[0]

    def at_floor_bound(self) -> np.ndarray:
        """Of each draw, and last of the fit itself, whether its floor is too low to tell from zero: (R + 1,)."""
        index = self.form.theta.index("e")
        floors = np.append(self.draws[:, index], self.theta[index])
        return floors < self.means.min() - 6

    def profile(self, index: int) -> tuple[float, float]:
        """Lowest and highest theta[index] that the data can live with; the bound itself where they set no limit."""
        low, high = bounds(self.form, self.means)
        y = self.means - self.residuals + self._noise(len(self.draws))
        pinned = self.draws.copy()
        pinned[:, index] = self.theta[index]
        free = _refit(self.form, self.z, y, self.draws, self.delta).objective
        held = minimise(self.form, self.z, y, pinned, self.delta, hold=(index,), steps=60).objective
        allowed = 1 + np.quantile(held / np.maximum(free, 1e-300) - 1, LEVEL)
        ends = []
        for end in (low[index], high[index]):
            grid = self.theta[index] + (end - self.theta[index]) * np.linspace(0, 1, 41) ** 2
            start, objective = self.theta.copy(), []
            for value in grid:
                start[index] = value
                found = minimise(self.form, self.z, self.means, start[None], self.delta, hold=(index,), steps=60)
                start = found.theta[0].copy()
                objective.append(found.objective[0])
                if objective[-1] > allowed * self.objective:
                    break
            excess = np.array(objective) - allowed * self.objective
            if excess[-1] <= 0 or len(excess) == 1:
                ends.append(end if excess[-1] <= 0 else self.theta[index])
            else:
                share = -excess[-2] / (excess[-1] - excess[-2])
                ends.append(grid[len(excess) - 2] + share * (grid[len(excess) - 1] - grid[len(excess) - 2]))
        return float(ends[0]), float(ends[1])

    def _noise(self, resamples: int) -> np.ndarray:
        jacobian = self.form.evaluate(self.theta[None], self.z)[1]
        return _noise(self.residuals, jacobian[0], self.sigma, self.groups, resamples)


def fit_curve(form: Form, z: np.ndarray, means: np.ndarray, counts: np.ndarray, centre: np.ndarray, seeds: float = 0.0,
              delta: float = DELTA, starts: np.ndarray | None = None, resamples: int = CURVE_RESAMPLES,
              groups: np.ndarray | None = None) -> Curve:
    """Fit a form by its best start and resample it.

    z (k, n): centred log inputs of distinct points; means (n,): their mean log loss over seeds; counts (n,): seeds.
    seeds: variance of a mean that the seeds explain. groups (n,): points of one training share a label.
    """
    starts = starting_points(form, z, means) if starts is None else starts
    found = minimise(form, z, means, starts, delta)
    best = int(np.argmin(np.where(np.isfinite(found.objective), found.objective, np.inf)))
    theta, objective = found.theta[best], float(found.objective[best])
    value, jacobian = form.evaluate(theta[None], z)
    residuals = means - value[0]
    n, p = len(means), len(theta)
    jacobian = np.where(np.isfinite(jacobian), jacobian, 0)
    norms = np.sqrt((jacobian[0] ** 2).sum(1))
    singular = np.linalg.svd(jacobian[0] / np.maximum(norms, 1e-300)[:, None], compute_uv=False)
    condition = float(singular[0] / max(singular[-1], 1e-300))
    scatter = float(residuals @ residuals) / (n - p)
    extra = int(counts.sum()) - n
    pooled = scatter <= seeds
    variance = ((n - p) * scatter + extra * seeds) / (n - p + extra) if pooled else scatter
    sigma = float(np.sqrt(max(variance, 1e-32)))
    covariance = _covariance(jacobian, residuals[None], np.array([sigma]), groups)[0]
    fields = dict(form=form, delta=delta, theta=theta, centre=centre, z=z, means=means, counts=counts, residuals=residuals,
                  covariance=covariance, sigma=sigma, seeds=seeds, objective=objective, condition=condition,
                  converged=bool(found.converged[best]), groups=groups)
    if not resamples:
        return Curve(**fields)
    noise = _noise(residuals, jacobian[0], sigma, groups, resamples)
    refits = _refit(form, z, value + noise, np.repeat(theta[None], resamples, 0), delta)
    good = np.isfinite(refits.objective)
    draws, noise = refits.theta[good], noise[good]
    fitted, jacobians = form.evaluate(draws, z)
    left = value + noise - fitted
    deviations = np.sqrt(np.maximum((left**2).sum(1) / (n - p), 1e-32))
    covariances = _covariance(jacobians, left, deviations, groups)
    top = z[:, [int(np.argmax(z.sum(0)))]]
    ends = np.hstack([top, top + np.log(10) / min(len(z), 2)])  # the dearest point, and one of ten times its compute
    at_ends, slopes = form.evaluate(draws, ends)
    width = np.einsum("rpm,rpq,rqm->rm", slopes, covariances, slopes)
    off = at_ends - form.evaluate(theta[None], ends)[0]
    newcomer = noise[np.arange(len(draws)), np.random.RandomState(RNG_SEED + 1).randint(n, size=len(draws))]
    with np.errstate(all="ignore"):
        q_band = _quantile(np.abs(off) / np.sqrt(width)).max()
        q_new = _quantile(np.abs(off - newcomer[:, None]) / np.sqrt(width + deviations[:, None] ** 2)).max()
    return Curve(**fields, q_band=float(q_band), q_new=float(q_new), draws=draws, covariances=covariances)


def _quantile(ratios: np.ndarray) -> np.ndarray:
    """Of each column; what is not a number, in a resample without that parameter, counts as far off."""
    return np.quantile(np.where(np.isnan(ratios), 1e300, ratios), LEVEL, axis=0)


def _refit(form: Form, z: np.ndarray, y: np.ndarray, theta: np.ndarray, delta: float) -> Minimum:
    """The minimum near theta; where that has next to no floor, on ground too flat to leave, also tried from half a floor."""
    found = minimise(form, z, y, theta, delta, steps=60)
    if not form.floor:
        return found
    index = form.theta.index("e")
    lowest = y.min(-1) if y.ndim > 1 else np.full(len(theta), y.min())
    flat = found.theta[:, index] < lowest - 2
    if not flat.any():
        return found
    raised = found.theta[flat].copy()
    raised[:, index] = lowest[flat] + np.log(0.5)
    settled = minimise(form, z, y[flat] if y.ndim > 1 else y, raised, delta, hold=(index,), steps=20).theta
    other = minimise(form, z, y[flat] if y.ndim > 1 else y, settled, delta, steps=60)
    better = other.objective < found.objective[flat]
    rows = np.nonzero(flat)[0][better]
    found.theta[rows], found.objective[rows], found.converged[rows] = other.theta[better], other.objective[better], other.converged[better]
    return found


def _covariance(jacobian: np.ndarray, residuals: np.ndarray, sigma: np.ndarray, groups) -> np.ndarray:
    """Of theta, linearised, for each (R, p, n), (R, n), (R,): sigma^2 (J J')^-1, or the sandwich over groups."""
    inverse = _inverse(jacobian)
    if groups is None:
        return inverse * sigma[:, None, None] ** 2
    labels, index = np.unique(groups, return_inverse=True)
    scores = (jacobian * residuals[:, None, :]) @ np.eye(len(labels))[index]
    few = len(labels) / max(len(labels) - jacobian.shape[1], 1)
    sandwich = inverse @ (scores @ scores.transpose(0, 2, 1)) @ inverse * few
    return sandwich + 1e-6 * inverse * sigma[:, None, None] ** 2


def _noise(residuals: np.ndarray, jacobian: np.ndarray, sigma: float, groups, resamples: int) -> np.ndarray:
    """Errors for (resamples, n) new tables: leverage-adjusted residuals drawn again with random signs.

    Points of one training move together: each training draws the luck, or mean residual, of some training, and keeps
    its own residuals about it, multiplied by one number of six (the wild cluster bootstrap with the weights of Webb 2023).
    """
    random = np.random.RandomState(RNG_SEED)
    n = len(residuals)
    if groups is not None:
        labels, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
        luck = np.bincount(index, residuals) / counts
        shape = (resamples, len(labels))
        drawn = luck[random.randint(len(labels), size=shape)] * (2 * random.randint(2, size=shape) - 1)
        drawn = (drawn + SMOOTHING * luck.std() * random.standard_normal(shape)) / np.sqrt(1 + SMOOTHING**2)
        weights = np.sqrt([0.5, 1, 1.5, 0.5, 1, 1.5]) * np.array([1, 1, 1, -1, -1, -1])
        return drawn[:, index] + (residuals - luck[index]) * weights[random.randint(6, size=shape)][:, index]
    leverage = np.einsum("pn,pq,qn->n", jacobian, _inverse(jacobian[None])[0], jacobian)
    pool = residuals / np.sqrt(np.maximum(1 - leverage, 0.05))
    pool = pool * (sigma / max(np.sqrt(np.mean(pool**2)), 1e-300))
    drawn = pool[random.randint(n, size=(resamples, n))] * (2 * random.randint(2, size=(resamples, n)) - 1)
    return (drawn + SMOOTHING * sigma * random.standard_normal((resamples, n))) / np.sqrt(1 + SMOOTHING**2)


def _inverse(jacobian: np.ndarray) -> np.ndarray:
    """(J J')^-1 of each (R, p, n), well defined where columns vanish."""
    gram = jacobian @ jacobian.transpose(0, 2, 1)
    diagonal = np.einsum("rii->ri", gram)
    scale = 1 / np.sqrt(diagonal + 1e-14 * diagonal.max(1, keepdims=True) + 1e-100)
    scaled = gram * scale[:, :, None] * scale[:, None, :]
    np.einsum("rii->ri", scaled)[...] += 1e-12
    return np.linalg.inv(scaled) * scale[:, :, None] * scale[:, None, :]


def _reported(form: Form, theta: np.ndarray, centre: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reported parameters (R, P) and their standard errors by the gradient of the report."""
    with np.errstate(all="ignore"):
        value = form.report(theta, centre)
        columns = []
        for i in range(theta.shape[1]):
            step = 1e-6 * np.maximum(np.abs(theta[:, i]), 1e-2)
            up, down = theta.copy(), theta.copy()
            up[:, i] += step
            down[:, i] -= step
            columns.append((form.report(up, centre) - form.report(down, centre)) / (2 * step[:, None]))
        gradient = np.stack(columns, 2)
        variance = np.einsum("rip,rpq,riq->ri", gradient, covariance, gradient)
    return value, np.sqrt(np.maximum(variance, 0))
