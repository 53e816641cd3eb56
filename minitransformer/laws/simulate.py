"""Simulate a sweep that is not yet trained: how well will its runs pin the law down?

Losses come from an assumed law, plus noise between seeds, plus what no fit of the law takes up: its misfit. Several
hundred such sweeps are drawn and fitted, all in one computation, with the objective of laws.fit.

The misfit needs care. The bootstrap behind a printed interval takes each point's distance from the law for an accident
of that point. Mostly it is not: neighbouring points of a real grid miss the law on the same side, because the law bends
where the runs do not. Such errors do not average out over more points or more seeds, they move every exponent together,
and they grow outside the grid. So misfit is drawn as a smooth random surface over the logs of the inputs (a Gaussian
process). How far it reaches is the most likely length for the residuals of the assumed law, and how large it
is, their size. Two numbers come out for each exponent: `half_width`, how far its estimate moves from one such world
to another, and `printed`, the half-width that laws.fit should print for one sweep, which knows nothing of smooth
misfit and is narrower wherever there is any. The hold-out error of a grid is told by the first, not by the second.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Mapping, Sequence

import numpy as np
from scipy.stats import t as student

from minitransformer.errors import UserError
from minitransformer.laws import forms
from minitransformer.laws.fit import ILL_CONDITIONED, fit
from minitransformer.laws.forms import LARGEST, SMALLEST, Form
from minitransformer.laws.law import Law
from minitransformer.laws.optimise import DELTA, minimise, starting_points
from minitransformer.laws.named import kit_law

GOALS = ("chinchilla", "power", "power-floor")
SIMULATIONS = 200
FULL_FITS = 25              # one simulated sweep in so many is fitted with intervals, as laws.fit prints them
DEARER = 10.0               # times the compute of the dearest run: what a design is asked to predict


@dataclass(frozen=True)
class Noise:
    """Of log loss. seed: sd of one run about its size's mean. misfit: sd of the smooth surface by which runs miss the law;
    reach: the distance in ln(input) over which it changes. source: where the three numbers come from."""

    seed: float
    misfit: float
    reach: float
    source: str


def noise_of(law: Law) -> Noise:
    """The noise of a fitted law, from its residuals and its seeds; of the kit's own size-by-tokens runs for any other."""
    if law.engine is None:
        return replace(_own_noise(), source="noise and misfit of the kit's own size-by-tokens runs, as a published law has none")
    if not len(law.engine.residuals):
        own = _own_noise()
        return replace(own, misfit=own.misfit * law.engine.sigma / (kit_law().engine.sigma * kit_law().engine.one_run),
                       source="misfit from the law's file; seeds and the reach of misfit from the kit's own size-by-tokens runs")
    return _measured_noise(law)


@lru_cache(maxsize=1)
def _own_noise() -> Noise:
    return _measured_noise(kit_law())


def _measured_noise(law: Law) -> Noise:
    if law.line:
        z = (law.line.z - law.line.centre)[None]
        jacobian = np.stack([np.ones_like(z[0]), -z[0]])
    else:
        z = law.engine.z
        jacobian = law.form.evaluate(law.engine.theta[None], z)[1][0]
    residuals, share = law.engine.residuals, float(np.mean(1 / law.engine.counts))  # share: of a run's variance, in its point's mean
    rank = np.linalg.matrix_rank(jacobian)
    free = len(residuals) - rank
    source = "seeds and misfit measured on the assumed law's own runs"
    seed = math.sqrt(law.engine.seeds / share)
    if not seed:
        seed, source = _own_noise().seed, source + ", which had one seed each: that noise is of the kit's size-by-tokens runs"
    excess = float(residuals @ residuals) - free * seed**2 * share
    if excess <= 0:
        return Noise(seed, 0.0, 1.0, source)
    outside = np.linalg.qr(jacobian.T, mode="complete")[0][:, rank:]  # (n, free): what no fit takes up
    seen = outside.T @ residuals

    def fitted(reach: float) -> tuple[float, float]:
        """Log likelihood of the residuals, and the misfit that gives residuals of their size."""
        surface = outside.T @ _smooth(z, reach) @ outside
        misfit = math.sqrt(excess / max(float(np.trace(surface)), 1e-12))
        covariance = misfit**2 * surface + np.eye(free) * seed**2 * share
        return -0.5 * (np.linalg.slogdet(covariance)[1] + seen @ np.linalg.solve(covariance, seen)), misfit

    if free >= 8:  # what reaches further than half the table is taken up by the fit and cannot be seen
        reach = max(np.geomspace(0.1, max(0.5 * np.ptp(z, axis=1).min(), 0.2), 30), key=lambda r: fitted(r)[0])
    else:
        reach = _own_noise().reach
        source += "; too few sizes to tell how far misfit reaches, so that is of the kit's size-by-tokens runs"
    return Noise(seed, fitted(float(reach))[1], float(reach), source)


@dataclass(frozen=True)
class Expected:
    """An exponent over the simulated sweeps. value: the median estimate; low, high: the central 95 % of estimates.

    assumed: of the law simulated from; where that is another form, what a fit to it without noise gives. printed: the
    median half-width of the interval that laws.fit prints; None where it was not asked for or never fitted.
    """

    assumed: float
    value: float
    low: float
    high: float
    printed: float | None = None

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True, eq=False)
class Simulation:
    """Many simulated sweeps of one grid. intervals: by exponent; empty where fewer than half could be fitted.

    refused, at_bound: share of sweeps whose fit was refused (an exponent at the edge of its range, or not identified)
    and whose floor came out as zero. at: inputs of the training to be predicted. error_percent: root mean square of the
    errors of predicting it, in per cent of its loss; within_percent holds 95 % of them; bias_percent is what a fit without
    any noise is off by, as its form is not that of the assumed law. usual: median half-widths of Student's intervals.
    """

    intervals: dict[str, Expected]
    refused: float
    at_bound: float
    at: dict[str, float]
    error_percent: float | None
    within_percent: float | None
    bias_percent: float
    simulations: int
    usual: tuple[float, ...] = ()

    @property
    def score(self) -> float:
        """Root mean square of the exponents' relative half-widths, more where fits are refused: the lower the better.

        A half-width is that of the estimates, or that of the usual interval of one fit where it is wider: with hardly
        more points than parameters, estimates may be good and yet nobody can tell.
        """
        if not self.intervals:
            return math.inf
        widths = [max(e.half_width, usual) / abs(e.assumed) for e, usual in zip(self.intervals.values(), self.usual)]
        return math.sqrt(np.mean(np.square(widths))) / (1 - self.refused)

    def __str__(self) -> str:
        if not self.intervals:
            return f"{100 * self.refused:.0f} % of fits refused"
        found = ", ".join(f"{name} +-{e.half_width:.2g}" for name, e in self.intervals.items())
        refused = f", {100 * self.refused:.0f} % refused" if self.refused else ""
        return f"{found}, prediction {self.error_percent:.2g} %{refused} ({self.score:.2g})"

    def to_dict(self) -> dict[str, Any]:
        return {
            "intervals": {k: {**asdict(e), "half_width": e.half_width} for k, e in self.intervals.items()},
            "simulations": self.simulations, "refused": self.refused, "at_bound": self.at_bound,
            "prediction": {"at": self.at, "error_percent": self.error_percent, "within_percent": self.within_percent,
                           "bias_percent": self.bias_percent},
            "score": self.score if math.isfinite(self.score) else None,
        }


def simulate(law: Law, goal: str = "chinchilla", *, N, D, target: Mapping[str, float] | None = None, noise: Noise | None = None,
             simulations: int = SIMULATIONS, printed: bool = True, rng_seed: int = 0) -> Simulation:
    """Draw sweeps of these runs from a law, fit each, and say how the estimates and predictions fall.

    N, D: shape (n,), parameters and tokens of each run; runs that agree in both are seeds. goal: the form to fit, one of
    GOALS; a ladder is fitted in N. target: {"N": ..., "D": ...} of the training to predict; a tenfold dearer one if left out.
    printed: fit some with intervals too, as laws.fit prints them, which takes most of the time.
    """
    check(goal, law)
    form = forms.form(goal, "N")
    N, D = (np.asarray(v, float) for v in (N, D))
    points, index = np.unique(np.stack([N, D]), axis=1, return_inverse=True)
    index = index.ravel()
    order = np.argsort(index, kind="stable")
    counts = np.bincount(index)
    if target is None:
        dearest, share = np.argmax(N * D), 0.5 if "D" in form.inputs else 1.0  # of a ladder all in size, of a grid in equal shares
        target = {"N": DEARER**share * N[dearest], "D": DEARER ** (1 - share) * D[dearest]}
    everywhere = np.concatenate([points, [[target["N"]], [target["D"]]]], 1)
    log_inputs, truth = _assumed(law, *everywhere)
    noise = noise or noise_of(law)

    random = np.random.RandomState(rng_seed)
    surface = truth + _surface(log_inputs, noise, random.standard_normal((simulations, len(truth))))
    runs = surface[:, index[order]] + noise.seed * random.standard_normal((simulations, len(N)))
    means = np.add.reduceat(runs, np.cumsum(counts) - counts, axis=1) / counts
    newcomer = surface[:, -1] + noise.seed * random.standard_normal(simulations)

    used = [("N", "D").index(name) for name in form.inputs]
    z = np.log(points[used])
    centre = z.mean(1)
    inner, goal_at = z - centre[:, None], np.log(everywhere[used, -1:]) - centre[:, None]
    theta, fitted, bound = _fit_all(form, inner, means, truth[:-1])
    exact = _fit_all(form, inner, truth[None, :-1], truth[:-1])[0]
    which = [form.theta.index(name) for name in form.exponents]
    names = [next(p.name for p in form.parameters if p.name in (name, f"{name}_{form.x}")) for name in form.exponents]
    refused, intervals, error, within, usual = float(1 - fitted.mean()), {}, None, None, ()
    if fitted.mean() >= 0.5:
        good = theta[fitted]
        low, middle, high = np.quantile(good[:, which], [0.025, 0.5, 0.975], axis=0)
        same = law.form.name == form.name
        assumed = [law.parameters[n].value if same and n in law.parameters else exact[0, i] for n, i in zip(names, which)]
        usual = _usual(form, good, inner, means[fitted], which)
        widths = _printed(form, names, points[used][:, index[order]], runs[: simulations // FULL_FITS if printed else 0])
        intervals = {n: Expected(*map(float, (a, m, lo, hi)), w) for n, a, m, lo, hi, w in zip(names, assumed, middle, low, high, widths)}
        off = np.expm1(np.clip(form.evaluate(good, goal_at)[0][:, 0] - newcomer[fitted], -50, 50))
        error = 100 * float(np.sqrt(np.mean(off**2)))
        within = 100 * float(np.quantile(np.abs(off), 0.95))
    return Simulation(intervals, refused, float(bound.mean()), {k: float(v) for k, v in target.items()}, error, within,
                      100 * abs(math.expm1(form.evaluate(exact, goal_at)[0][0, 0] - truth[-1])), simulations, usual)


def _usual(form: Form, theta: np.ndarray, z: np.ndarray, y: np.ndarray, which: list[int]) -> tuple[float, ...]:
    """Median over fits of the half-widths of Student's 95 % intervals."""
    value, jacobian = form.evaluate(theta, z)
    free = y.shape[1] - theta.shape[1]
    sigma = np.sqrt(((y - value) ** 2).sum(1) / free)
    error = np.sqrt(np.einsum("rii->ri", np.linalg.pinv(jacobian @ jacobian.transpose(0, 2, 1))))
    return tuple(float(v) for v in student.ppf(0.975, free) * np.median(sigma[:, None] * error[:, which], axis=0))


def _fit_all(form: Form, z: np.ndarray, y: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """theta (R, p) of each row of y (R, n), whether laws.fit would give it as a law, and whether its floor is zero.

    From the starts that suit the truth: the surface of one sweep is close enough to it.
    """
    delta = np.inf if form.name == "power" else DELTA
    starts = starting_points(form, z, truth)[::3][:4]
    found = minimise(form, z, np.tile(y, (len(starts), 1)), np.repeat(starts, len(y), 0), delta)
    objective = np.where(np.isfinite(found.objective), found.objective, np.inf).reshape(len(starts), len(y))
    best = objective.argmin(0) * len(y) + np.arange(len(y))
    theta, fitted = found.theta[best], found.converged[best]
    bound = np.zeros(len(y), bool)
    if form.floor:
        bound = theta[:, form.theta.index("e")] < y.min(1) - 6
    if form.name != "power":
        exponents = theta[:, [form.theta.index(name) for name in form.exponents]]
        fitted = fitted & ((exponents > SMALLEST * 1.01) & (exponents < LARGEST * 0.999)).all(1)
        jacobian = form.evaluate(theta, z)[1]
        norms = np.sqrt((jacobian**2).sum(2, keepdims=True))
        singular = np.linalg.svd(jacobian / np.maximum(norms, 1e-300), compute_uv=False)
        fitted &= (singular[:, 0] <= ILL_CONDITIONED * singular[:, -1]) | bound
    return theta, fitted, bound


def _printed(form: Form, names: Sequence[str], inputs: np.ndarray, runs: np.ndarray) -> list[float | None]:
    """Median half-width of the intervals that laws.fit gives for these simulated sweeps."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for losses in runs:
        law = fit(form, np.exp(losses), **dict(zip(form.inputs, inputs)))
        for name in names if law.ok else ():
            estimate = law.parameters[name]
            if estimate.value is not None:
                found[name].append((estimate.high - estimate.low) / 2)
    return [float(np.median(found[name])) if found[name] else None for name in names]


def _smooth(z: np.ndarray, reach: float) -> np.ndarray:
    """Correlation (m, m) of misfit at log inputs z (k, m)."""
    return np.exp(-((z[:, :, None] - z[:, None, :]) ** 2).sum(0) / (2 * reach**2))


def _surface(z: np.ndarray, noise: Noise, draws: np.ndarray) -> np.ndarray:
    """Smooth misfit at log inputs z (k, m) from standard normal draws (R, m)."""
    value, vector = np.linalg.eigh(_smooth(z, noise.reach))
    return noise.misfit * (draws * np.sqrt(np.maximum(value, 0))) @ vector.T


def linear_score(law: Law, goal: str, noise: Noise, N: np.ndarray, D: np.ndarray, seeds: int) -> float:
    """The score of a grid from linearised least squares: quick enough to choose which grids to simulate."""
    form = forms.form(goal, "N")
    log_inputs, truth = _assumed(law, N, D)
    z = np.log(np.stack([{"N": N, "D": D}[name] for name in form.inputs]))
    z = z - z.mean(1, keepdims=True)
    theta = _fit_all(form, z, truth[None], truth)[0]
    weights = np.linalg.pinv(form.evaluate(theta, z)[1][0].T, rcond=1e-6)
    covariance = noise.misfit**2 * _smooth(log_inputs, noise.reach) + np.eye(len(N)) * noise.seed**2 / seeds
    variance = np.diag(weights @ covariance @ weights.T)
    which = [form.theta.index(name) for name in form.exponents]
    return float(np.sqrt(np.mean(variance[which] / theta[0, which] ** 2)))


def check(goal: str, law: Law) -> None:
    """UserError where sweeps for this goal cannot be simulated from this law."""
    if goal not in GOALS:
        raise UserError(f"no sweep can be designed for {goal!r}; choose one of {', '.join(GOALS)}")
    if not law.ok:
        raise UserError(f"there is no law to design from: {law.reason}")
    need = {"N", "D"} if goal == "chinchilla" else {"N"}
    if not need <= set(law.form.inputs) <= {"N", "D", "U", "C"}:
        raise UserError(f"a sweep for {goal} cannot be designed from a law of {' and '.join(law.form.inputs)}: "
                        f"give a law of {'N and D' if 'D' in need else 'N, or of N and D'}")


def _assumed(law: Law, N: np.ndarray, D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log inputs of the law (k, m) and its log loss (m,) at these sizes and tokens, none of them seen twice."""
    known = {"N": N, "D": D, "U": D, "C": 6 * N * D}
    inputs = {name: known[name] for name in law.form.inputs}
    loss = np.asarray(law.predict(**inputs).value, float)
    if not (np.isfinite(loss).all() and (loss > 0).all()):
        raise UserError("the assumed law gives no finite loss at the sizes that fit in this budget: choose another law")
    return np.log(np.stack(list(inputs.values()))), np.log(loss)
