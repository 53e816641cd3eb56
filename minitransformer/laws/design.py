"""Design a sweep for so many minutes: which runs to train, what they cost, and how well they should pin the law down.

Three things are needed, and none of them is guessed.

*Seconds.* A probe trains real stacks for a moment, in as many processes as the sweep will use and at the same time, and
so measures a step and an evaluation of each width, alone and stacked, and how long the processes take to start.
`seconds_of` plays the sweep through with these: the same stacks, in the same order, on the same number of workers. On a
processor the probe counts processor time, which other programs do not disturb; `Rates.busy` tells if there were any.

*Truth.* Losses come from an assumed law, plus noise between seeds, plus what no fit of the law takes up: its misfit.

*Chance.* Several hundred such sweeps are drawn and fitted, all in one computation, with the objective of laws.fit.

The misfit needs care. The bootstrap behind a printed interval takes each point's distance from the law for an accident
of that point. Mostly it is not: neighbouring points of a real grid miss the law on the same side, because the law bends
where the runs do not. Such errors do not average out over more points or more seeds, they move every exponent together,
and they grow outside the grid. So misfit is drawn as a smooth random surface over the logs of the inputs (a Gaussian
process). How far it reaches is the most likely length for the residuals of the assumed law, and how large it is
is set by their size. Two numbers come out for each exponent: `half_width`, how far its estimate moves from one such world
to another, and `printed`, the half-width that laws.fit should print for one sweep, which knows nothing of smooth
misfit and is narrower wherever there is any. The hold-out error of a grid is told by the first, not by the second.
"""

from __future__ import annotations

import heapq
import json
import math
import os
import statistics
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Iterable, Mapping, Sequence

import numpy as np
from scipy.stats import t as student

from minitransformer import accounting
from minitransformer.errors import UserError
from minitransformer.laws import forms
from minitransformer.laws.fit import ILL_CONDITIONED, Law, fit, short
from minitransformer.laws.forms import LARGEST, SMALLEST, Form
from minitransformer.laws.optimise import DELTA, minimise, starting_points
from minitransformer.sweeps.execute import plan
from minitransformer.sweeps.grid import Spec, load_spec
from minitransformer.sweeps.store import reference_table
from minitransformer.training.config import RunConfig
from minitransformer.training.schedules import evaluation_steps

GOALS = ("chinchilla", "power", "power-floor")
WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
SIMULATIONS = 200
FULL_FITS = 25              # one simulated sweep in so many is fitted with intervals, as laws.fit prints them
DEARER = 10.0               # times the compute of the dearest run: what a design is asked to predict
TOKENS_PER_PARAMETER = 7.0  # at least, for the largest size of a ladder: as the kit's own ladder has
EVAL_RATIO = 4.0            # a law needs the end of each run: measuring its curve closely would cost small runs half their time


# --- what a training costs here --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """Seconds as measured: of a step and of an evaluation at each width, for one model (`step`) and each more (`more`)."""

    widths: tuple[int, ...]
    step: tuple[float, ...]
    step_more: tuple[float, ...]
    evaluation: tuple[float, ...]
    evaluation_more: tuple[float, ...]
    startup: float
    workers: int
    busy: float = 1.0  # seconds that passed for each second that the probe had of a processor

    def at(self, width: int) -> tuple[float, float, float, float]:
        """step, step_more, evaluation, evaluation_more at a width, between widths measured straight in logs."""
        z = np.log(self.widths)
        columns = (self.step, self.step_more, self.evaluation, self.evaluation_more)
        return tuple(float(np.exp(np.interp(math.log(width), z, np.log(column)))) for column in columns)


PROBE_WIDTHS, PROBE_STACK, PROBE_SECONDS = (8, 16, 32, 64, 128), 4, 0.06


def measure_rates(config: RunConfig, workers: int, device: str = "cpu", widths: Sequence[int] = PROBE_WIDTHS) -> Rates:
    """Train stacks of these widths for a moment, in `workers` processes at once as a sweep would. Takes a few seconds."""
    return _measure_rates(replace(config, d_model=8, n_head=1, lr=1e-3, seed=0, steps=1), workers, device, tuple(widths))


@lru_cache(maxsize=8)
def _measure_rates(config: RunConfig, workers: int, device: str, widths: tuple[int, ...]) -> Rates:
    from joblib import Parallel, delayed

    from minitransformer.data.text import load_corpus

    load_corpus(config.corpus, config.tokenizer, config.vocab_size or None)
    began = time.time()
    found = Parallel(n_jobs=workers)(delayed(_probe)(config, widths, device) for _ in range(workers))
    startup = max(min(max(0.0, start - began), spent) for start, spent, _, _ in found) if workers > 1 else 0.0
    columns = np.mean([times for *_, times in found], axis=0)
    return Rates(widths, *(tuple(map(float, column)) for column in columns), float(startup), workers, max(busy for *_, busy, _ in found))


def _probe(config: RunConfig, widths: tuple[int, ...], device: str) -> tuple[float, float, float, list[list[float]]]:
    """When it began, processor time spent until then, seconds passed per second of processor time, and four rows: of each
    width the seconds of a step for one model and for each more, and of an evaluation likewise."""
    import torch

    began, spent, passed = time.time(), time.process_time(), time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = []
        for width in widths:
            alone, stacked = (_time_stack(replace(config, d_model=width), K, device) for K in (1, PROBE_STACK))
            more = [max((s - a) / (PROBE_STACK - 1), 1e-3 * a) for a, s in zip(alone, stacked)]
            rows.append([alone[0], more[0], alone[1], more[1]])
    finally:
        torch.set_num_threads(threads)
    busy = (time.perf_counter() - passed) / (time.process_time() - spent) if device == "cpu" else 1.0
    return began, spent, max(busy, 1.0), np.array(rows).T.tolist()


def _time_stack(config: RunConfig, K: int, device: str) -> tuple[float, float]:
    import torch

    from minitransformer.data.text import load_corpus
    from minitransformer.models.layers import initialise
    from minitransformer.training.evaluation import evaluate, fixed_windows
    from minitransformer.training.loop import AdamW, backward, build_model

    corpus = load_corpus(config.corpus, config.tokenizer, config.vocab_size or None)
    where = torch.device(device)
    model = build_model(config, corpus.vocab_size, K)
    initialise(model, list(range(K)))
    optimiser = AdamW(model.to(where), [config] * K, where)
    few = min(4096, config.eval_tokens)
    windows = torch.from_numpy(fixed_windows(corpus.val, config.n_ctx, few).astype(np.int64)).to(where)
    batch = windows[torch.arange(K * config.batch_size) % len(windows)].view(K, config.batch_size, -1)
    rates = torch.full((K, 1), 1e-4, device=where)

    def step():
        with torch.autocast(where.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            backward(model, batch).sum()
        optimiser.step(rates)

    def measure():
        with torch.autocast(where.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            evaluate(model, K, windows)

    clock = time.process_time if where.type == "cpu" else time.perf_counter

    def timed(work, least: int) -> float:
        work()
        taken: list[float] = []
        while len(taken) < least or sum(taken) < PROBE_SECONDS:
            start = clock()
            work()
            if where.type == "cuda":
                torch.cuda.synchronize()
            taken.append(clock() - start)
        return statistics.median(taken)

    return timed(step, 2), timed(measure, 2) * config.eval_tokens / few


def seconds_of(configs: Iterable[RunConfig], rates: Rates, device: str = "cpu") -> float:
    """How long a sweep of these configs should take: its own stacks, the dearest first, each to the first free worker."""
    stacks = plan(configs, (), device).stacks
    if not stacks:
        return 0.0
    free = [0.0] * min(rates.workers, len(stacks))
    for stack in stacks:
        heapq.heappush(free, heapq.heappop(free) + _stack_seconds(stack, rates))
    return max(free) + (rates.startup if len(free) > 1 else 0.0)


def _stack_seconds(stack: Sequence[RunConfig], rates: Rates) -> float:
    step, step_more, evaluation, evaluation_more = rates.at(stack[0].d_model)
    ends = np.array([config.steps for config in stack])
    seconds, before = 0.0, 0
    for end in np.unique(ends):
        seconds += (end - before) * (step + step_more * ((ends >= end).sum() - 1))
        before = end
    for due in {s for config in set(stack) for s in evaluation_steps(config)}:
        seconds += evaluation + evaluation_more * ((ends >= due).sum() - 1)
    return float(seconds)


# --- what a law leaves to chance -------------------------------------------------------------------------------------


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
    engine = law.engine
    if engine is None or not len(getattr(engine, "residuals", ())):
        own = _own_noise()
        if engine is None:
            return replace(own, source="noise and misfit of the kit's own size-by-tokens runs, as a published law has none")
        share = engine.sigma / _own_law().engine.sigma
        return Noise(own.seed, own.misfit * share, own.reach,
                     "misfit from the law's file; seeds and the reach of misfit from the kit's own size-by-tokens runs")
    return _measured_noise(law)


@lru_cache(maxsize=1)
def _own_law() -> Law:
    table = reference_table("budgets")
    if table is None:
        raise UserError("the kit's own table of runs is missing: give a law, or install the kit again")
    return fit("chinchilla", table.loss, N=table.N, D=table.D, seed=table.seed)


@lru_cache(maxsize=1)
def _own_noise() -> Noise:
    return _measured_noise(_own_law())


def _measured_noise(law: Law) -> Noise:
    if law.line:
        z = (law.line.z - law.line.centre)[None]
        jacobian = np.stack([np.ones_like(z[0]), -z[0]])
    else:
        z = law.engine.z
        jacobian = law.form.evaluate(law.engine.theta[None], z)[1][0]
    residuals, counts, seeds = law.engine.residuals, law.engine.counts, law.engine.seeds
    n, free = len(residuals), len(residuals) - np.linalg.matrix_rank(jacobian)
    source = "seeds and misfit measured on the assumed law's own runs"
    seed = math.sqrt(seeds / np.mean(1 / counts))
    if not seed:
        seed, source = _own_noise().seed, source + ", which had one seed each: that noise is of the kit's size-by-tokens runs"
    excess = float(residuals @ residuals) - free * seed**2 * float(np.mean(1 / counts))
    if excess <= 0:
        return Noise(seed, 0.0, 1.0, source)
    outside = np.linalg.qr(jacobian.T, mode="complete")[0][:, np.linalg.matrix_rank(jacobian):]  # (n, free): what no fit takes up
    distance = ((z[:, :, None] - z[:, None, :]) ** 2).sum(0)

    def fitted(reach: float) -> tuple[float, float]:
        """Log likelihood of the residuals, and the misfit that gives residuals of their size."""
        surface = outside.T @ np.exp(-distance / (2 * reach**2)) @ outside
        misfit = math.sqrt(excess / max(float(np.trace(surface)), 1e-12))
        covariance = misfit**2 * surface + np.eye(free) * seed**2 * float(np.mean(1 / counts))
        seen = outside.T @ residuals
        return -0.5 * (np.linalg.slogdet(covariance)[1] + seen @ np.linalg.solve(covariance, seen)), misfit

    if free >= 8:
        reach = max(np.geomspace(0.1, 3, 30), key=lambda r: fitted(r)[0])
    elif law is _own_law():
        reach = 1.0
    else:
        reach = _own_noise().reach
        source += "; too few sizes to tell how far misfit reaches, so that is of the kit's size-by-tokens runs"
    return Noise(seed, fitted(float(reach))[1], float(reach), source)


# --- simulated sweeps ------------------------------------------------------------------------------------------------


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
    any noise is off by, as its form is not that of the assumed law. estimates: (R, exponents). usual: median
    half-widths of Student's intervals.
    """

    intervals: dict[str, Expected]
    refused: float
    at_bound: float
    at: dict[str, float]
    error_percent: float | None
    within_percent: float | None
    bias_percent: float
    simulations: int
    estimates: np.ndarray
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


def simulate(law: Law, goal: str = "chinchilla", *, N, D, target: Mapping[str, float] | None = None, noise: Noise | None = None,
             simulations: int = SIMULATIONS, full_fits: int | None = None, rng_seed: int = 0) -> Simulation:
    """Draw sweeps of these runs from a law, fit each, and say how the estimates and predictions fall.

    N, D: shape (n,), parameters and tokens of each run; runs that agree in both are seeds. goal: the form to fit, one of
    GOALS; a ladder is fitted in N. target: {"N": ..., "D": ...} of the training to predict; a tenfold dearer one if left out.
    """
    _check(goal, law)
    form = forms.form(goal, "N")
    N, D = (np.asarray(v, float) for v in (N, D))
    points, index = np.unique(np.stack([N, D]), axis=1, return_inverse=True)
    index = index.ravel()
    order = np.argsort(index, kind="stable")
    counts = np.bincount(index)
    if target is None:
        dearest = int(np.argmax(N * D))
        target = _dearer(form, float(N[dearest]), float(D[dearest]))
    everywhere = np.concatenate([points, [[target["N"]], [target["D"]]]], 1)
    truth = np.log(_assumed_loss(law, *everywhere))
    noise = noise or noise_of(law)

    random = np.random.RandomState(rng_seed)
    log_inputs = np.log(np.stack([_law_inputs(*everywhere)[name] for name in law.form.inputs]))
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
        printed = _printed(form, names, points[used][:, index[order]], runs[: simulations // FULL_FITS if full_fits is None else full_fits])
        intervals = {n: Expected(*map(float, (a, m, lo, hi)), p)
                     for n, a, m, lo, hi, p in zip(names, assumed, middle, low, high, printed)}
        off = np.expm1(np.clip(form.evaluate(good, goal_at)[0][:, 0] - newcomer[fitted], -50, 50))
        error = 100 * float(np.sqrt(np.mean(off**2)))
        within = 100 * float(np.quantile(np.abs(off), 0.95))
    return Simulation(intervals, refused, float(bound.mean()), {k: float(v) for k, v in target.items()}, error, within,
                      100 * abs(math.expm1(form.evaluate(exact, goal_at)[0][0, 0] - truth[-1])), simulations, theta[:, which], usual)


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
    starts = starting_points(form, z, truth)[:: 3][:4]
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


def _surface(z: np.ndarray, noise: Noise, draws: np.ndarray) -> np.ndarray:
    """Smooth misfit at log inputs z (k, m) from standard normal draws (R, m)."""
    distance = ((z[:, :, None] - z[:, None, :]) ** 2).sum(0)
    value, vector = np.linalg.eigh(np.exp(-distance / (2 * noise.reach**2)))
    return noise.misfit * (draws * np.sqrt(np.maximum(value, 0))) @ vector.T


def _linear_score(law: Law, form: Form, noise: Noise, N: np.ndarray, D: np.ndarray, seeds: int) -> float:
    """The score of a grid from linearised least squares: quick enough to choose which grids to simulate."""
    points = np.stack([N, D])
    truth = np.log(_assumed_loss(law, N, D))
    z = np.log(points[[("N", "D").index(name) for name in form.inputs]])
    z = z - z.mean(1, keepdims=True)
    theta = _fit_all(form, z, truth[None], truth)[0]
    jacobian = form.evaluate(theta, z)[1][0]
    log_inputs = np.log(np.stack([_law_inputs(N, D)[name] for name in law.form.inputs]))
    distance = ((log_inputs[:, :, None] - log_inputs[:, None, :]) ** 2).sum(0)
    covariance = noise.misfit**2 * np.exp(-distance / (2 * noise.reach**2)) + np.eye(len(N)) * noise.seed**2 / seeds
    weights = np.linalg.pinv(jacobian.T, rcond=1e-6)
    variance = np.diag(weights @ covariance @ weights.T)
    which = [form.theta.index(name) for name in form.exponents]
    return float(np.sqrt(np.mean(variance[which] / theta[0, which] ** 2)))


def _check(goal: str, law: Law) -> None:
    if goal not in GOALS:
        raise UserError(f"no sweep can be designed for {goal!r}; choose one of {', '.join(GOALS)}")
    if not law.ok:
        raise UserError(f"there is no law to design from: {law.reason}")
    missing = set(law.form.inputs) - set(_law_inputs(np.ones(1), np.ones(1)))
    if missing:
        raise UserError(f"a sweep cannot be designed from a law of {sorted(missing)[0]}: give one of N, or of N and D")
    if goal == "chinchilla" and not ("N" in law.form.inputs and "D" in law.form.inputs):
        raise UserError(f"a grid of N and D cannot be simulated from a law of {' and '.join(law.form.inputs)}: give a law of both")
    if "N" not in law.form.inputs:
        raise UserError(f"a ladder of sizes cannot be simulated from a law of {' and '.join(law.form.inputs)}: give a law of N")


def _law_inputs(N: np.ndarray, D: np.ndarray) -> dict[str, np.ndarray]:
    return {"N": N, "D": D, "U": D, "C": 6 * N * D}


def _assumed_loss(law: Law, N: np.ndarray, D: np.ndarray) -> np.ndarray:
    known = _law_inputs(N, D)
    loss = np.asarray(law.predict(**{name: known[name] for name in law.form.inputs}).value, float)
    if not (np.isfinite(loss).all() and (loss > 0).all()):
        raise UserError("the assumed law gives no finite loss at the sizes that fit in this budget: choose another law")
    return loss


def _dearer(form: Form, N: float, D: float) -> dict[str, float]:
    """Ten times the compute: of a ladder all in size, of a grid in equal shares."""
    if "D" not in form.inputs:
        return {"N": DEARER * N, "D": D}
    return {"N": math.sqrt(DEARER) * N, "D": math.sqrt(DEARER) * D}


# --- the design ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A grid that fits in the budget: every width with every horizon below `corner` (a bound on N D), `seeds` times."""

    idea: str
    widths: tuple[int, ...]
    steps: tuple[int, ...]
    seeds: int
    pairs: tuple[tuple[int, int], ...]
    seconds: float

    @property
    def runs(self) -> int:
        return len(self.pairs) * self.seeds

    def __str__(self) -> str:
        first, last = self.steps[0], self.steps[-1]
        horizon = f"{first} steps" if first == last else f"{len(self.steps)} horizons of {first} to {last} steps"
        corner = "" if len(self.pairs) == len(self.widths) * len(self.steps) else ", without the dearest corner"
        return (f"{len(self.widths)} widths from {self.widths[0]} to {self.widths[-1]} x {horizon}{corner}, "
                f"{self.seeds} seed{'s' * (self.seeds > 1)}: {self.runs} runs")


@dataclass(frozen=True, eq=False)
class Design:
    """A sweep to be trained. points: one for each distinct size and horizon, with N, D, C (6 N D), d_model, steps, seeds.

    seconds, flops: of the whole sweep, evaluations counted, on `workers` processes of this machine. intervals: by exponent.
    spec: TOML text that `minitransformer sweep FILE` runs. others: the designs that were compared, best first.
    """

    minutes: float
    goal: str
    device: str
    workers: int
    candidate: Candidate
    points: list[dict[str, Any]]
    seconds: float
    flops: float
    simulation: Simulation
    others: list[tuple[Candidate, Simulation]]
    law: Law
    noise: Noise
    notes: tuple[str, ...]
    spec: str

    @property
    def runs(self) -> int:
        return self.candidate.runs

    @property
    def intervals(self) -> dict[str, Expected]:
        return self.simulation.intervals

    def summary(self) -> str:
        """The design in plain words, one sentence a line."""
        s, scale = self.simulation, "gpu" if self.device != "cpu" else "laptop"
        where = f"{self.workers} core{'s' * (self.workers > 1)} of this machine" if self.device == "cpu" else self.device
        lines = [f"For {self.goal} in {self.minutes:g} minutes: {self.candidate}.",
                 f"{self.flops:.2g} FLOPs, about {self.seconds / 60:.2g} minutes on {where} (measured by a probe)."]
        if not s.intervals:
            lines.append(f"{100 * s.refused:.0f} % of {s.simulations} simulated sweeps gave no law: too little to measure exponents with.")
        for name, e in s.intervals.items():
            printed = "" if e.printed is None else f"; the interval printed should be +-{e.printed:.2g}"
            lines.append(f"  {name} = {e.value:.3f} expected, give or take {e.half_width:.2g} (95 % of sweeps: {e.low:.3f} to "
                         f"{e.high:.3f}){printed}.")
        if s.intervals:
            lines.append(f"Of {s.simulations} simulated sweeps {100 * s.refused:.1f} % gave no law and {100 * s.at_bound:.1f} % no floor.")
            at = " and ".join(f"{k} = {short(v)}" for k, v in s.at.items())
            lines.append(f"A training {DEARER:g} times dearer than the dearest ({at}) should be predicted with an error of "
                         f"{s.error_percent:.2g} % (rms), in 95 % of sweeps below {s.within_percent:.2g} %.")
        lines.append(f"Compared: best was {self.candidate.idea}, by the relative widths of the exponents ({s.score:.2g}, rms).")
        lines += [f"  {c.idea}: {c}; {_widths(o)}." for c, o in self.others]
        n = self.noise
        lines.append(f"Simulated from {_name(self.law)}; {100 * n.seed:.2g} % between seeds and {100 * n.misfit:.2g} % of smooth misfit "
                     f"that reaches over a factor of {math.exp(n.reach):.2g} ({n.source}).")
        lines += [f"Note: {note}." for note in self.notes]
        lines.append(f"To train it: write the spec to a file (name.toml) and run `minitransformer sweep name.toml --scale {scale}`.")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The design with stable keys and plain numbers, ready for JSON; None where there is no number."""
        return {
            "goal": self.goal, "minutes": self.minutes, "device": self.device, "workers": self.workers,
            "runs": self.runs, "seconds": self.seconds, "flops": self.flops, "points": self.points,
            **_simulation_dict(self.simulation),
            "law": _name(self.law), "noise": asdict(self.noise), "notes": list(self.notes),
            "compared": [{"idea": c.idea, "grid": str(c), "runs": c.runs, "seconds": c.seconds, **_simulation_dict(s)}
                         for c, s in [(self.candidate, self.simulation), *self.others]],
            "spec": self.spec,
        }


def _simulation_dict(s: Simulation) -> dict[str, Any]:
    return {
        "intervals": {k: {**asdict(e), "half_width": e.half_width} for k, e in s.intervals.items()},
        "simulations": s.simulations, "refused": s.refused, "at_bound": s.at_bound,
        "prediction": {"at": s.at, "error_percent": s.error_percent, "within_percent": s.within_percent,
                       "bias_percent": s.bias_percent},
        "score": s.score if math.isfinite(s.score) else None,
    }


def _widths(s: Simulation) -> str:
    if not s.intervals:
        return f"{100 * s.refused:.0f} % of fits refused"
    found = ", ".join(f"{name} +-{e.half_width:.2g}" for name, e in s.intervals.items())
    refused = f", {100 * s.refused:.0f} % refused" if s.refused else ""
    return f"{found}, prediction {s.error_percent:.2g} %{refused} ({s.score:.2g})"


def _name(law: Law) -> str:
    return law.name or f"{'a fitted' if law.engine is not None else 'a given'} {law.form.name}"


# idea, widths, horizons, seeds, whether the dearest corner stays
IDEAS = {
    "chinchilla": (
        ("more seeds", 3, 3, 3, True),
        ("few points over a wide range", 3, 3, 1, True),
        ("seeds and points in balance", 4, 4, 2, True),
        ("more points", 5, 4, 1, True),
        ("many points", 7, 5, 1, True),
        ("long runs of small models only", 6, 5, 1, False),
    ),
    "power": (
        ("more seeds", 5, 1, 5, True),
        ("seeds and sizes in balance", 5, 1, 3, True),
        ("more sizes", 7, 1, 2, True),
        ("sizes over a wide range", 5, 1, 1, True),
        ("many sizes", 9, 1, 1, True),
        ("the fewest sizes", 4, 1, 1, True),
    ),
}
RATIOS = (8, 32, 128)  # of the longest horizon to the shortest
WARM_UPS = (10, 2)     # the shortest horizon, in warm-ups: the second where the budget leaves no choice


def design(minutes: float, law: Law | None = None, device: str = "cpu", workers: int | None = None, goal: str = "chinchilla", *,
           spec: str = "budgets", settings: Mapping[str, Any] | None = None, simulations: int = SIMULATIONS,
           rates: Rates | None = None, rng_seed: int = 0) -> Design:
    """The best sweep that fits in so many minutes, of a handful that are compared by simulation.

    law: what to simulate from, in nats per token of the corpus trained on (laws.fit, laws.read_law, laws.published); the
    kit's own size-by-tokens runs, fitted, if left out. goal: "chinchilla" (a grid of N and D), or "power", "power-floor"
    (a ladder of N at one horizon). workers: processes of one thread; one per core if left out. device: "cpu", or "gpu" where
    there is one: seconds are measured, so a machine cannot be planned for from another. spec, settings: whose base and
    rules are used, and settings that differ, such as {"corpus": "my.txt"}. rates: as measured before, to save the probe.

    UserError for a budget that is not a number above zero, or too short for the fewest runs that can be fitted.
    """
    try:
        minutes = float(minutes)
    except (TypeError, ValueError):
        minutes = math.nan
    if not (math.isfinite(minutes) and minutes > 0):
        raise UserError("minutes must be a number above zero: how long may the sweep take?")
    if workers is not None and (type(workers) is not int or workers < 1):
        raise UserError(f"workers must be a whole number above zero, not {workers!r}")
    if type(simulations) is not int or simulations < 20:
        raise UserError(f"simulations must be a whole number from 20 up, not {simulations!r}")
    law = _own_law() if law is None else law
    _check(goal, law)
    device = _device(device)
    base = load_spec(spec)
    kept = {k: v for k, v in base.base.items() if k not in ("d_model", "steps", "seed")}
    base = replace(base, base={**kept, "eval_ratio": EVAL_RATIO, **(settings or {})}, scales={})
    maker = _Maker(base, device, goal)
    if rates is None:
        probed = (8, 32, 128, 512) if device != "cpu" else (*PROBE_WIDTHS, 256) if minutes > 10 else PROBE_WIDTHS
        rates = measure_rates(maker.config(8, 1), 1 if device != "cpu" else workers or os.cpu_count() or 1, device, probed)
    maker.measure(rates)
    form, noise = forms.form(goal, "N"), noise_of(law)

    budget = 60 * minutes
    found = {}
    for warm_ups in WARM_UPS:
        maker.least_steps = max(40, warm_ups * maker.warmup)
        for idea, *shape in IDEAS["chinchilla" if goal == "chinchilla" else "power"]:
            scored = {c: _linear_score(law, form, noise, *maker.inputs(c), c.seeds) for c in maker.candidates(idea, *shape, budget)}
            if scored:
                best = min(scored, key=scored.get)
                found.setdefault((best.pairs, best.seeds), best)
        if found:
            break
    else:
        least = maker.smallest()
        raise UserError(f"{minutes:g} minutes are too few: the smallest sweep a law can be fitted to, {least.runs} runs, takes about "
                        f"{least.seconds:.2g} seconds here; allow {math.ceil(least.seconds / 6) / 10:.1f} minutes or more")
    results = []
    for candidate in found.values():
        runs = [np.repeat(v, candidate.seeds) for v in maker.inputs(candidate)]
        results.append((candidate, simulate(law, goal, N=runs[0], D=runs[1], noise=noise, simulations=simulations, full_fits=0,
                                            rng_seed=rng_seed)))
    results.sort(key=lambda pair: pair[1].score)
    best = results[0][0]
    runs = [np.repeat(v, best.seeds) for v in maker.inputs(best)]
    simulation = simulate(law, goal, N=runs[0], D=runs[1], noise=noise, simulations=simulations, rng_seed=rng_seed)
    text = maker.toml(best, f"A sweep for {goal} in {minutes:g} minutes")
    todo = plan(maker.spec(best, "").configs("laptop"), (), device)
    points = [{"N": maker.N(d), "D": s * maker.tokens_per_step, "C": 6 * maker.N(d) * s * maker.tokens_per_step, "d_model": d, "steps": s,
               "seeds": best.seeds} for d, s in best.pairs]
    return Design(minutes, goal, device, rates.workers, best, points, best.seconds, float(todo.flops), simulation, results[1:], law, noise,
                  _notes(law, noise, maker, best, simulation, budget), text)


def _device(name: str) -> str:
    if name not in ("cpu", "gpu") and not str(name).startswith("cuda"):
        raise UserError(f"unknown device {name!r}; use cpu or gpu")
    if name == "cpu":
        return name
    import torch

    if not torch.cuda.is_available():
        raise UserError("no CUDA device is available here to measure: run design on the machine with the card, or leave --device out")
    return "cuda" if name == "gpu" else name


def _notes(law: Law, noise: Noise, maker: _Maker, best: Candidate, s: Simulation, budget: float) -> tuple[str, ...]:
    found = []
    rates = maker.rates
    if rates.busy > 1.2:
        found.append(f"other programs were running: if they go on, all of this takes some {rates.busy:.1f} times as long")
    if law.status == "published":
        found.append(f"the law {_name(law)} is of other text and tokens: take its widths for a rough guide")
    N, D = maker.inputs(best)
    reached = {"N": N, "D": D}
    outside = [x for x in law.form.inputs if x in law.ranges and x in reached
               and (reached[x].min() < 0.99 * law.ranges[x][0] or reached[x].max() > 1.01 * law.ranges[x][1])]
    if outside:
        found.append(f"the sweep leaves the range of {' and '.join(outside)} that the assumed law was fitted on: the law is extrapolated")
    if best.steps[0] < WARM_UPS[0] * maker.warmup:
        found.append(f"the shortest runs are largely warm-up ({maker.warmup} steps), which no law describes: this is a rehearsal")
    if s.refused > 0.05:
        found.append(f"one sweep in {1 / s.refused:.0f} of this design gives no law at all; what is expected is said of the others")
    if best.seconds < 0.7 * budget:
        found.append(f"no design compared does better with all of the time: widths stop at {maker.widths[-1]}, horizons where the unique "
                     "tokens of the corpus do")
    if s.intervals and s.bias_percent > s.error_percent / 2:
        found.append(f"of the error of the prediction {s.bias_percent:.2g} % is the form's own: the assumed law bends, a {maker.goal} law "
                     "less so; its exponent is one of this range")
    if any(e.printed is not None and e.printed < 0.8 * e.half_width for e in s.intervals.values()):
        found.append("a fit takes each point's misfit for chance and prints a narrower interval than it should; smooth misfit moves the "
                     "exponents of a whole sweep together, and neither more seeds nor more points in the same range cure it")
    if noise.misfit > noise.seed:
        found.append("how the misfit goes on outside the runs it was measured on is not known; predictions far out may be worse")
    return tuple(found)


class _Maker:
    """Makes grids of one base: counts, configs, specs and their seconds."""

    def __init__(self, base: Spec, device: str, goal: str):
        from minitransformer.data.text import load_corpus
        from minitransformer.training.loop import shape_of

        self.base, self.device, self.goal = base, device, goal
        first = self.config(8, 1)
        corpus = load_corpus(first.corpus, first.tokenizer, first.vocab_size or None)
        corpus.require(first.train_tokens, first.eval_tokens)
        self.tokens_per_step, self.warmup = first.tokens_per_step, first.warmup_steps
        self.most_steps = (first.train_tokens or len(corpus.train)) // self.tokens_per_step
        self.least_steps = 40
        self.widths = [d for d in WIDTHS if self._valid(d)]
        self._counts = {d: accounting.count_parameters(accounting.parameters(shape_of(self.config(d, 1), corpus.vocab_size)))["N"]
                        for d in self.widths}

    def measure(self, rates: Rates) -> None:
        self.rates = rates
        self.widths = [d for d in self.widths if d <= rates.widths[-1]]

    def config(self, width: int, steps: int) -> RunConfig:
        return self._spec([(width, steps)], 1, "").configs("laptop")[0]

    def _valid(self, width: int) -> bool:
        try:
            self.config(width, 1)
        except UserError:
            return False
        return True

    def N(self, width: int) -> int:
        return self._counts[width]

    def inputs(self, c: Candidate) -> tuple[np.ndarray, np.ndarray]:
        return np.array([float(self.N(d)) for d, _ in c.pairs]), np.array([float(s * self.tokens_per_step) for _, s in c.pairs])

    def spec(self, c: Candidate, title: str) -> Spec:
        return self._spec(c.pairs, c.seeds, title)

    def _spec(self, pairs: Sequence[tuple[int, int]], seeds: int, title: str) -> Spec:
        widths, steps = sorted({d for d, _ in pairs}), sorted({s for _, s in pairs})
        if len(pairs) == len(widths) * len(steps):
            scale = {"d_model": widths, "steps": steps, "seed": list(range(seeds))}
        else:
            scale = {"points": [{"d_model": d, "steps": s} for d, s in pairs], "seed": list(range(seeds))}
        return replace(self.base, title=title, scales={"laptop": scale})

    def toml(self, c: Candidate, title: str) -> str:
        """The spec as text: the base and rules it was measured with, this grid, and a smoke test of it."""
        made = self.spec(c, title)
        few = {"d_model": self.widths[:3], "steps": [40, 80, 160]} if self.goal == "chinchilla" else {
            "d_model": self.widths[:4], "steps": 60, "seed": [0, 1]}
        sections = {"base": made.base, "rules": made.rules, "scales.smoke": few,
                    f"scales.{'laptop' if self.device == 'cpu' else 'gpu'}": made.scales["laptop"]}
        lines = [f"title = {_toml(title)}"]
        for name, section in sections.items():
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in section.items())]
        return "\n".join(lines) + "\n"

    def smallest(self) -> Candidate:
        """The grid of fewest and shortest runs that can be fitted."""
        if self.goal == "chinchilla":
            return self._grid("the smallest", self.widths[:3], 3, 4, 1, True, _ceil(4 * self.least_steps))
        widths = self.widths[: len(forms.form(self.goal, "N").theta) + 2]
        return self._grid("the smallest", widths, 1, 1, 1, True, self._ladder_steps(widths[-1]))

    def _ladder_steps(self, widest: int) -> int:
        return _ceil(max(self.least_steps, TOKENS_PER_PARAMETER * self.N(widest) / self.tokens_per_step))

    def _grid(self, idea, widths, n_steps, ratio, seeds, corner, longest) -> Candidate:
        """With horizons from `longest` down to a `ratio`-th of it, or to the shortest there may be."""
        ratio = min(ratio, longest / self.least_steps)
        steps = sorted({_round(longest * ratio ** -(i / max(n_steps - 1, 1))) for i in range(n_steps)})
        corner = math.inf if corner else self.N(widths[-1]) * steps[-1] / 8
        pairs = tuple((d, s) for d in widths for s in steps if self.N(d) * s <= corner * 1.001)
        c = Candidate(idea, tuple(widths), tuple(steps), seeds, pairs, math.nan)
        return replace(c, seconds=seconds_of(self.spec(c, "").configs("laptop"), self.rates, self.device))

    def candidates(self, idea: str, n_widths: int, n_steps: int, seeds: int, corner: bool, budget: float):
        """The grids of this shape that fill the budget: one for each largest width and range of horizons."""
        need = 3 if self.goal == "chinchilla" else len(self.smallest().widths)
        for last in range(max(n_widths, need), len(self.widths) + 1):
            widths = _spread_over(self.widths[:last], n_widths)
            if len(widths) < need:
                continue
            least = _ceil(4 * self.least_steps) if n_steps > 1 else self._ladder_steps(widths[-1])
            for ratio in RATIOS if n_steps > 1 else (1,):
                if grid := self._fill(lambda longest: self._grid(idea, widths, n_steps, ratio, seeds, corner, longest), least, budget):
                    yield grid

    def _fill(self, made, least: int, budget: float) -> Candidate | None:
        """The longest horizon that fits, found by secants: seconds are all but straight in steps."""
        most = _floor(self.most_steps)
        if least > most or (best := made(least)).seconds > budget:
            return None
        trial = _floor(min(least * budget / best.seconds, most))
        for _ in range(6):
            if trial <= best.steps[-1]:
                break
            there = made(trial)
            slope = (there.seconds - best.seconds) / (there.steps[-1] - best.steps[-1])
            if there.seconds <= budget:
                best = there
            else:
                most = _floor(0.97 * trial)
            trial = _floor(min(best.steps[-1] + (budget - best.seconds) / max(slope, 1e-12), most))
            if trial < 1.02 * best.steps[-1]:
                break
        return best


def _spread_over(pool: Sequence[int], count: int) -> list[int]:
    """`count` widths from the pool, its first and its last, evenly spaced in logs where the pool allows."""
    count = min(count, len(pool))
    chosen = {pool[0], pool[-1]}
    for target in np.linspace(math.log(pool[0]), math.log(pool[-1]), count)[1:-1]:
        chosen.add(min((d for d in pool if d not in chosen), key=lambda d: abs(math.log(d) - target)))
    return sorted(chosen)


def _floor(steps: float, to=math.floor) -> int:
    """Down to two figures; or `to` the nearest, or up."""
    digits = 10 ** max(0, int(math.log10(max(steps, 1))) - 1)
    return max(1, int(to(steps / digits) * digits))


def _round(steps: float) -> int:
    return _floor(steps, round)


def _ceil(steps: float) -> int:
    return _floor(steps, math.ceil)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)
