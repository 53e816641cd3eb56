"""How long a sweep will take on this machine, measured rather than guessed.

A probe trains real stacks for a moment, in as many processes as the sweep will use and at the same time, and so measures
a step and an evaluation of each width, alone and stacked, and how long the processes take to start. `seconds_of` plays
the sweep through with these: the same stacks, in the same order, on the same number of workers. A processor's rate of
matrix products says little about it: most of a small model's step is not spent in them.
"""

from __future__ import annotations

import heapq
import math
import statistics
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Iterable, Sequence

import numpy as np
import torch
from joblib import Parallel, delayed

from ..models.layers import initialise, set_step
from ..training.config import RunConfig
from ..training.loop import autocast, backward, build_model, task_for
from ..training.optimiser import Optimiser
from ..training.schedules import evaluation_steps, last_constant_step, trunk_key
from ..training.tasks import load_data, measured
from .execute import of_workers
from .grouping import Plan, Stack, cost

STACK, SECONDS = 4, 0.06                     # of a probe: models in a stack, seconds for each thing measured
EVAL_TOKENS, EVAL_EXAMPLES = 4096, 128       # of a probe: what it evaluates
WORTH_A_PROBE = 3e11                         # FLOPs of a sweep: a cheaper one is over in seconds
TOO_DEAR = 3e10                              # FLOPs of a step and an evaluation in a probe, which makes some fifteen of them


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


def estimate(todo: Plan, workers: int) -> float | None:
    """Seconds that a plan should take on so many cores of this machine, by a probe of its smallest, a middle and its largest width.

    None where a probe would be too dear: for a sweep of seconds, and for models so large that they want a card.
    """
    if todo.flops < WORTH_A_PROBE or not todo.stacks or max(cost(_probed(stack.configs[0])) for stack in todo.stacks) > TOO_DEAR:
        return None
    shapes: dict[tuple, dict[int, RunConfig]] = {}  # runs that differ in more than width are probed apart
    for stack in todo.stacks:
        first = stack.configs[0]
        shapes.setdefault(_but_for_width(first), {})[first.d_model] = first
    rates = {}
    for shape, configs in shapes.items():
        widths = sorted(configs)
        rates[shape] = measure_rates([configs[d] for d in sorted({widths[0], widths[len(widths) // 2], widths[-1]})], workers)
    seconds = [_stack_seconds(stack.configs, rates[_but_for_width(stack.configs[0])]) for stack in todo.stacks]
    return _last_end(seconds, workers, max(found.startup for found in rates.values()))


def _but_for_width(config: RunConfig) -> tuple:
    return replace(config, d_model=1, n_head=1).stack_key


def _probed(config: RunConfig) -> RunConfig:
    most = EVAL_TOKENS if config.reads_text else EVAL_EXAMPLES
    return replace(config, steps=1, seed=0, lr=1e-3, train_tokens=config.span + 1, eval_tokens=min(most, config.eval_tokens), also_on="")


def seconds_of(stacks: Iterable[Stack], rates: Rates) -> float:
    """How long these stacks should take: in their order, each to the first free worker."""
    return _last_end([_stack_seconds(stack.configs, rates) for stack in stacks], rates.workers, rates.startup)


def _last_end(seconds: Sequence[float], workers: int, startup: float) -> float:
    if not seconds:
        return 0.0
    free = [0.0] * min(workers, len(seconds))
    for one in seconds:
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free) + (startup if len(free) > 1 else 0.0)


def _stack_seconds(stack: Sequence[RunConfig], rates: Rates) -> float:
    """Members train in rows, and those that branch from one trunk share its row until they part; only rows due are measured."""
    step, step_more, evaluation, evaluation_more = rates.at(stack[0].d_model)
    trunks: dict[tuple, int] = {}
    for config in stack:
        trunks[trunk_key(config)] = max(trunks.get(trunk_key(config), 0), last_constant_step(config))
    rows = np.array([(0, end) for end in trunks.values()] + [(last_constant_step(config), config.steps) for config in stack])
    due: dict[int, set] = {}
    for config in stack:
        for s in evaluation_steps(config):
            due.setdefault(s, set()).add(trunk_key(config) if s <= last_constant_step(config) else config)
    seconds, before = 0.0, 0
    for end in np.unique(rows):
        seconds += (end - before) * (step + step_more * (((rows[:, 0] < end) & (end <= rows[:, 1])).sum() - 1))
        before = end
    texts, batches = 1 + len(stack[0].others), stack[0].noise_batches
    one, more = texts * evaluation + batches * step, texts * evaluation_more + batches * step_more
    return float(seconds + sum(one + more * (len(found) - 1) for found in due.values()))


def measure_rates(configs: Sequence[RunConfig], workers: int, device: str = "cpu") -> Rates:
    """Train stacks of the shape of each config for a moment, in `workers` processes at once as a sweep would.

    configs: one of each width to measure, in order, alike in everything else. A few tenths of a second each; remembered.
    """
    return _measure_rates(tuple(map(_probed, configs)), measured(replace(configs[0], also_on="")), workers, device)


@lru_cache(maxsize=32)
def _measure_rates(configs: tuple[RunConfig, ...], evaluated: int, workers: int, device: str) -> Rates:
    load_data(configs[0])  # once, before all workers ask for them
    began = time.time()
    found = Parallel(n_jobs=workers, **(of_workers() if workers > 1 else {}))(delayed(_probe)(configs, device) for _ in range(workers))
    startup = max(min(max(0.0, start - began), spent) for start, spent, _, _ in found) if workers > 1 else 0.0
    step, step_more, *evaluations = np.mean([times for *_, times in found], axis=0)
    columns = step, step_more, *(column * evaluated / measured(configs[0]) for column in evaluations)
    return Rates(tuple(c.d_model for c in configs), *(tuple(map(float, column)) for column in columns), float(startup), workers,
                 max(busy for *_, busy, _ in found))


def _probe(configs: tuple[RunConfig, ...], device: str) -> tuple[float, float, float, list[list[float]]]:
    """When it began, processor time spent until then, seconds passed per second of processor time, and four rows: of each
    width the seconds of a step for one model and for each more, and of an evaluation likewise."""
    began, spent, passed = time.time(), time.process_time(), time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = []
        for config in configs:
            alone, stacked = (_time_stack(config, K, torch.device(device)) for K in (1, STACK))
            more = [max((s - a) / (STACK - 1), 1e-3 * a) for a, s in zip(alone, stacked)]
            rows.append([alone[0], more[0], alone[1], more[1]])
    finally:
        torch.set_num_threads(threads)
    busy = (time.perf_counter() - passed) / (time.process_time() - spent) if device == "cpu" else 1.0
    return began, spent, max(busy, 1.0), np.array(rows).T.tolist()


def _time_stack(config: RunConfig, K: int, where: torch.device) -> tuple[float, float]:
    """Seconds of a step and of an evaluation of K models; of processor time where it can be, which other programs do not disturb."""
    task = task_for([config], where)
    model = build_model(config, task.vocab_size, K, task.example)
    initialise(model, list(range(K)))
    optimiser = Optimiser(model.to(where), [config] * K, where)
    batch = task.batch(torch.zeros(K, config.batch_size, 1, dtype=torch.int64, device=where))
    rates, seeds = torch.full((K, 1), 1e-4, device=where), torch.arange(K, dtype=torch.int32, device=where)[:, None]
    clock = time.process_time if where.type == "cpu" else time.perf_counter

    def step():
        if config.dropout:
            set_step(model, seeds, optimiser.updates.to(torch.int32))
        with autocast(config, where):
            backward(model, batch, task)
        optimiser.step(rates)

    def measure():
        with autocast(config, where):
            task.measure(model, K)

    def timed(work) -> float:
        work()
        taken: list[float] = []
        while len(taken) < 2 or sum(taken) < SECONDS:
            start = clock()
            work()
            if where.type == "cuda":
                torch.cuda.synchronize()
            taken.append(clock() - start)
        return statistics.median(taken)

    return timed(step), timed(measure)
