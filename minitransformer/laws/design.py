"""Design a sweep for so many minutes: which runs to train, what they cost, and how well they should pin the law down.

Nothing is guessed. Seconds are those of sweeps.timing: a probe of this machine, and the sweep played through with it.
Exponents and predictions are those of laws.simulate: hundreds of such sweeps drawn from an assumed law and fitted. A few
ideas of what a good grid is (IDEAS) are each made to fill the budget, simulated, and compared.
"""

from __future__ import annotations

import math
import os
import shlex
from dataclasses import asdict, dataclass, replace
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
import torch

from minitransformer import accounting
from minitransformer.data.text import load_corpus
from minitransformer.errors import UserError
from minitransformer.files import cores
from minitransformer.laws import forms
from minitransformer.laws.law import Law, short
from minitransformer.laws.named import kit_law
from minitransformer.laws.plan import far_outside
from minitransformer.laws.simulate import DEARER, SIMULATIONS, Expected, Noise, Simulation, check, linear_score, noise_of, simulate
from minitransformer.sweeps.execute import plan
from minitransformer.sweeps.grid import Spec, load_spec
from minitransformer.sweeps.timing import Rates, measure_rates, seconds_of
from minitransformer.training.config import RunConfig

WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
TOKENS_PER_PARAMETER = 7.0  # at least, for the largest size of a ladder: as the kit's own ladder has
EVAL_RATIO = 4.0            # a law needs the end of each run: measuring its curve closely would cost small runs half their time
FAR = 100.0                 # times beyond the runs of the assumed law: a comparison of grids may lean on it further than a prediction


@dataclass(frozen=True)
class Candidate:
    """A grid that fits in the budget. pairs: width and steps of its points, all or all but the dearest; each `seeds` times."""

    idea: str
    widths: tuple[int, ...]
    steps: tuple[int, ...]
    seeds: int
    pairs: tuple[tuple[int, int], ...]
    seconds: float

    @property
    def runs(self) -> int:
        return len(self.pairs) * self.seeds

    @property
    def full(self) -> bool:
        return len(self.pairs) == len(self.widths) * len(self.steps)

    def __str__(self) -> str:
        first, last = self.steps[0], self.steps[-1]
        horizon = f"{first} steps" if first == last else f"{len(self.steps)} horizons of {first} to {last} steps"
        corner = "" if self.full else ", without the dearest corner"
        return (f"{len(self.widths)} widths from {self.widths[0]} to {self.widths[-1]} x {horizon}{corner}, "
                f"{self.seeds} seed{'s' * (self.seeds > 1)}: {self.runs} runs")


@dataclass(frozen=True, eq=False)
class Design:
    """A sweep to be trained. points: one for each distinct size and horizon, with N, D, C (6 N D), d_model, steps, seeds.

    seconds, flops: of the whole sweep, evaluations counted, on `workers` processes of this machine. intervals: by exponent.
    spec: TOML text that `minitransformer sweep FILE` runs. others: the designs that were compared, best first.
    warning: why the assumed law says nothing of these sizes; empty where it may.
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
    warning: str = ""

    @property
    def runs(self) -> int:
        return self.candidate.runs

    @property
    def intervals(self) -> dict[str, Expected]:
        return self.simulation.intervals

    def summary(self, file: str | os.PathLike | None = None) -> str:
        """The design in plain words, one sentence a line. file: where the spec was written."""
        s, scale = self.simulation, "gpu" if self.device != "cpu" else "laptop"
        where = f"{self.workers} core{'s' * (self.workers > 1)} of this machine" if self.device == "cpu" else self.device
        lines = [f"DO NOT TRUST THIS DESIGN: {self.warning}."] if self.warning else []
        lines += [f"For {self.goal} in {self.minutes:g} minutes: {self.candidate}.",
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
        lines += [f"  {c.idea}: {c}; {o}." for c, o in self.others]
        n = self.noise
        lines.append(f"Simulated from {_name(self.law)}; {100 * n.seed:.2g} % between seeds and {100 * n.misfit:.2g} % of smooth misfit "
                     f"that reaches over a factor of {math.exp(n.reach):.2g} ({n.source}).")
        lines += [f"Note: {note}." for note in self.notes]
        run = f"run `minitransformer sweep {'name.toml' if file is None else shlex.quote(str(file))} --scale {scale}`"
        lines.append(f"To train it: write the spec to a file (--spec name.toml) and {run}." if file is None else f"Written to {file}; to train it {run}.")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The design with stable keys and plain numbers, ready for JSON; None where there is no number."""
        return {
            "goal": self.goal, "minutes": self.minutes, "device": self.device, "workers": self.workers,
            "runs": self.runs, "seconds": self.seconds, "flops": self.flops, "points": self.points,
            **self.simulation.to_dict(),
            "law": _name(self.law), "noise": asdict(self.noise), "notes": list(self.notes), "warning": self.warning,
            "compared": [{"idea": c.idea, "grid": str(c), "runs": c.runs, "seconds": c.seconds, **s.to_dict()}
                         for c, s in [(self.candidate, self.simulation), *self.others]],
            "spec": self.spec,
        }


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
           settings: Mapping[str, Any] | None = None, simulations: int = SIMULATIONS, rates: Rates | None = None) -> Design:
    """The best sweep that fits in so many minutes, of a handful that are compared by simulation.

    law: what to simulate from, in nats per token of the corpus trained on (laws.fit, laws.read_law, laws.published); the
    kit's own size-by-tokens runs, fitted, if left out. goal: "chinchilla" (a grid of N and D), or "power", "power-floor"
    (a ladder of N at one horizon). workers: processes of one thread; one per core if left out. device: "cpu", or "gpu" where
    there is one: seconds are measured, so a machine cannot be planned for from another. settings: those that differ from
    the kit's size-by-tokens runs, such as {"corpus": "my.txt"}. rates: as measured before, to save the probe.

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
    law = law or kit_law()
    check(goal, law)
    if device not in ("cpu", "gpu", "cuda"):
        raise UserError(f"unknown device {device!r}; use cpu or gpu")
    if device != "cpu" and not torch.cuda.is_available():
        raise UserError("no CUDA device is available here to measure: run design on the machine with the card, or leave --device out")
    device, workers = ("cpu", workers or cores()) if device == "cpu" else ("cuda", 1)
    maker = _Maker(goal, device, settings or {})
    if rates is None:
        probed = (8, 32, 128, 512) if device != "cpu" else (8, 16, 32, 64, 128, 256) if minutes > 10 else (8, 16, 32, 64, 128)
        rates = measure_rates([maker.config(d) for d in probed if d in maker.widths], workers, device)
    maker.use(rates)
    noise, budget = noise_of(law), 60 * minutes

    def simulated(c: Candidate, printed: bool) -> Simulation:
        N, D = (np.repeat(v, c.seeds) for v in maker.inputs(c))
        return simulate(law, goal, N=N, D=D, noise=noise, simulations=simulations, printed=printed)

    found = _candidates(maker, law, noise, budget)
    if not found:
        least = maker.smallest()
        raise UserError(f"{minutes:g} minutes are too few: the smallest sweep a law can be fitted to, {least.runs} runs, takes about "
                        f"{least.seconds:.2g} seconds here; allow {math.ceil(least.seconds / 6) / 10:.1f} minutes or more")
    results = sorted(((c, simulated(c, printed=False)) for c in found), key=lambda pair: pair[1].score)
    best, simulation = results[0][0], simulated(results[0][0], printed=True)
    spec = maker.spec(best, f"A sweep for {goal} in {minutes:g} minutes")
    points = [{"N": N, "D": D, "C": 6 * N * D, "d_model": d, "steps": s, "seeds": best.seeds}
              for d, s in best.pairs for N, D in [(maker.N[d], s * maker.tokens_per_step)]]
    return Design(minutes, goal, device, rates.workers, best, points, best.seconds, float(plan(spec.configs(maker.scale), (), device).flops),
                  simulation, results[1:], law, noise, _notes(law, noise, maker, best, simulation, budget), spec.toml(),
                  _warning(law, maker, best))


def _candidates(maker: _Maker, law: Law, noise: Noise, budget: float) -> list[Candidate]:
    """Of each idea the grid that scores best, without those that come out alike."""
    for warm_ups in WARM_UPS:
        maker.least_steps = max(40, warm_ups * maker.warmup)
        found = {}
        for idea, *shape in IDEAS["chinchilla" if maker.goal == "chinchilla" else "power"]:
            scored = {c: linear_score(law, maker.goal, noise, *maker.inputs(c), c.seeds) for c in maker.candidates(idea, *shape, budget)}
            if scored:
                best = min(scored, key=scored.get)
                found.setdefault((best.pairs, best.seeds), best)
        if found:
            break
    return list(found.values())


def _warning(law: Law, maker: _Maker, best: Candidate) -> str:
    inputs = dict(zip("ND", maker.inputs(best)))
    far = [found[0] for name, v in inputs.items() for found in [far_outside(law, FAR, **{name: v.min()}) + far_outside(law, FAR, **{name: v.max()})]
           if found]
    losses, guessing = law.predict(**{name: inputs[name] for name in law.form.inputs}).value, math.log(maker.vocab_size)
    more = (f"it asks for up to {losses.max():.3g} nats, where guessing among {maker.vocab_size} tokens takes {guessing:.3g}"
            if losses.max() > guessing and (far or losses.min() > guessing) else "")
    if not (far or more):
        return ""
    return f"{_name(law)} says nothing of such models: {'; '.join([*far, *[more] * bool(more)])}. Leave --law out, or fit one to runs of this kind"


def _notes(law: Law, noise: Noise, maker: _Maker, best: Candidate, s: Simulation, budget: float) -> tuple[str, ...]:
    found = []
    if maker.rates.busy > 1.2:
        found.append(f"other programs were running: if they go on, all of this takes some {maker.rates.busy:.1f} times as long")
    if law.status == "published":
        found.append(f"the law {_name(law)} is of other text and tokens: take its widths for a rough guide")
    outside = [x for x, reached in zip(("N", "D"), maker.inputs(best))
               if x in law.ranges and (reached.min() < 0.99 * law.ranges[x][0] or reached.max() > 1.01 * law.ranges[x][1])]
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
    """Makes grids of the kit's size-by-tokens runs with some settings changed: counts, configs, specs and their seconds."""

    def __init__(self, goal: str, device: str, settings: Mapping[str, Any]):
        self.goal, self.device, self.scale = goal, device, "laptop" if device == "cpu" else "gpu"
        kit = load_spec("budgets")
        self.base = replace(kit, base={**kit.base, "eval_ratio": EVAL_RATIO, **settings}, scales={})
        first = self.config(8)
        if not first.reads_text:
            raise UserError(f"a design is for models of language: arch {first.arch!r} reads other data")
        corpus = load_corpus(first.corpus, first.tokenizer, first.vocab_size or None)
        corpus.require(first.train_tokens, first.eval_tokens)
        self.vocab_size = corpus.vocab_size
        self.tokens_per_step, self.warmup = first.tokens_per_step, first.warmup_steps
        self.most_steps = (first.train_tokens or len(corpus.train)) // self.tokens_per_step
        self.least_steps = 40
        self.N = {d: accounting.count_parameters(accounting.parameters(self.config(d).shape(corpus.vocab_size)))["N"]
                  for d in WIDTHS if self._valid(d)}
        self.widths = list(self.N)

    def use(self, rates: Rates) -> None:
        """Seconds are by these rates, and no width is used that is larger than they know."""
        self.rates = rates
        self.widths = [d for d in self.widths if d <= rates.widths[-1]]

    def config(self, width: int) -> RunConfig:
        return replace(self.base, scales={"any": {"d_model": width, "steps": 1}}).configs("any")[0]

    def _valid(self, width: int) -> bool:
        try:
            return bool(self.config(width))
        except UserError:
            return False

    def inputs(self, c: Candidate) -> tuple[np.ndarray, np.ndarray]:
        """N and D of each point of a grid."""
        return np.array([float(self.N[d]) for d, _ in c.pairs]), np.array([float(s * self.tokens_per_step) for _, s in c.pairs])

    def spec(self, c: Candidate, title: str = "") -> Spec:
        """The sweep: the base and rules it was measured with, this grid, and a smoke test of it."""
        scale = {"d_model": list(c.widths), "steps": list(c.steps)} if c.full else {"points": [{"d_model": d, "steps": s} for d, s in c.pairs]}
        smoke = {"d_model": self.widths[:3], "steps": [40, 80, 160]} if self.goal == "chinchilla" else {
            "d_model": self.widths[:4], "steps": 60, "seed": [0, 1]}
        return replace(self.base, title=title, scales={"smoke": smoke, self.scale: {**scale, "seed": list(range(c.seeds))}})

    def smallest(self) -> Candidate:
        """The grid of fewest and shortest runs that can be fitted."""
        if self.goal == "chinchilla":
            return self._grid("the smallest", self.widths[:3], 3, 4, 1, True, _tidy(4 * self.least_steps, math.ceil))
        widths = self.widths[: len(forms.form(self.goal, "N").theta) + 2]
        return self._grid("the smallest", widths, 1, 1, 1, True, self._ladder_steps(widths[-1]))

    def _ladder_steps(self, widest: int) -> int:
        return _tidy(max(self.least_steps, TOKENS_PER_PARAMETER * self.N[widest] / self.tokens_per_step), math.ceil)

    def _grid(self, idea, widths, n_steps, ratio, seeds, corner, longest) -> Candidate:
        """With horizons from `longest` down to a `ratio`-th of it, or to the shortest there may be."""
        ratio = min(ratio, longest / self.least_steps)
        steps = sorted({_tidy(longest * ratio ** -(i / max(n_steps - 1, 1))) for i in range(n_steps)})
        corner = math.inf if corner else self.N[widths[-1]] * steps[-1] / 8
        pairs = tuple((d, s) for d in widths for s in steps if self.N[d] * s <= corner * 1.001)
        c = Candidate(idea, tuple(widths), tuple(steps), seeds, pairs, math.nan)
        stacks = plan(self.spec(c).configs(self.scale), (), self.device).stacks
        return replace(c, seconds=seconds_of(stacks, self.rates))

    def candidates(self, idea: str, n_widths: int, n_steps: int, seeds: int, corner: bool, budget: float) -> Iterator[Candidate]:
        """The grids of this shape that fill the budget: one for each largest width and range of horizons."""
        need = 3 if self.goal == "chinchilla" else len(self.smallest().widths)
        for last in range(max(n_widths, need), len(self.widths) + 1):
            widths = _spread_over(self.widths[:last], n_widths)
            if len(widths) < need:
                continue
            least = _tidy(4 * self.least_steps, math.ceil) if n_steps > 1 else self._ladder_steps(widths[-1])
            for ratio in RATIOS if n_steps > 1 else (1,):
                if grid := self._fill(lambda longest: self._grid(idea, widths, n_steps, ratio, seeds, corner, longest), least, budget):
                    yield grid

    def _fill(self, made, least: int, budget: float) -> Candidate | None:
        """The longest horizon that fits, found by secants: seconds are all but straight in steps."""
        most = _tidy(self.most_steps, math.floor)
        if least > most or (best := made(least)).seconds > budget:
            return None
        trial = _tidy(min(least * budget / best.seconds, most), math.floor)
        for _ in range(6):
            if trial <= best.steps[-1]:
                break
            there = made(trial)
            slope = (there.seconds - best.seconds) / (there.steps[-1] - best.steps[-1])
            if there.seconds <= budget:
                best = there
            else:
                most = _tidy(0.97 * trial, math.floor)
            trial = _tidy(min(best.steps[-1] + (budget - best.seconds) / max(slope, 1e-12), most), math.floor)
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


def _tidy(steps: float, to=round) -> int:
    """To two figures: the nearest, or down or up to them."""
    digits = 10 ** max(0, int(math.log10(max(steps, 1))) - 1)
    return max(1, int(to(steps / digits) * digits))
