"""What a sweep has to do: the runs that are missing, grouped into stacks, and what they cost."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Container, Iterable, Sequence

import torch

from .. import accounting, files
from ..training.config import RunConfig
from ..training.schedules import evaluation_steps
from ..training.tasks import measuring_flops, shape_of
from .spent import Part, families, family_cost
from .store import RunStore

MAX_STACK_FLOPS = 2e12  # on a CPU: about half a minute of one core, so that cores stay busy and a kill costs little
CACHE = 2**21           # bytes of the widest activation of a stack that still stay near a core: more members are only slower


@dataclass(frozen=True)
class Stack:
    """Runs of one shape to be trained together; `before` names a stack whose checkpoint it may go on from."""

    name: str
    configs: tuple[RunConfig, ...]
    before: str = ""

    @classmethod
    def of(cls, configs: Iterable[RunConfig], before: str = "") -> Stack:
        """Named by its runs: 16 hexadecimal digits of the SHA-256 of their sorted ids."""
        configs = tuple(configs)
        return cls(hashlib.sha256("".join(sorted(c.id for c in configs)).encode()).hexdigest()[:16], configs, before)

    def cut(self, most: int) -> list[Stack]:
        """Parts of at most so many runs, the stack itself where it has no more."""
        if len(self.configs) <= most:
            return [self]
        return [Stack.of(self.configs[i:i + most], self.before or self.name) for i in range(0, len(self.configs), most)]


@dataclass(frozen=True)
class Plan:
    """What a sweep will do: stacks to train, runs already there, the cost in FLOPs, and stacks that another sweep trains now.

    here: once it is done, how many of the missing runs this sweep has trained; None where it cannot know, as on a cluster.
    """

    stacks: list[Stack]
    finished: int
    flops: float
    elsewhere: tuple[Stack, ...] = ()
    here: int | None = None

    @property
    def missing(self) -> int:
        return sum(len(stack.configs) for stack in (*self.stacks, *self.elsewhere))


def counted(runs: int) -> str:
    return f"{runs} run{'s' * (runs != 1)}"


def cost(config: RunConfig) -> float:
    """FLOPs of a run, every component and the evaluations counted, if it is not stopped early."""
    return stack_cost([config])


def stack_cost(configs: Iterable[RunConfig]) -> float:
    """FLOPs of runs trained together: the constant part that a trunk's branches share is counted once."""
    return sum(_family_cost(tuple(family)) for family in families(configs))


@lru_cache(maxsize=65536)
def _family_cost(family: tuple[RunConfig, ...]) -> float:
    first = family[0]
    shape = shape_of(first)
    parts = [Part(config, config.steps, evaluation_steps(config)) for config in family]
    return family_cost(parts, accounting.count_compute(shape, 1)["C_total"], measuring_flops(first, shape)).total


def plan(configs: Iterable[RunConfig], store: RunStore | Container[RunConfig], device: str = "cpu", share: int | None = None) -> Plan:
    """Group the runs that are not in the store into stacks of one shape.

    First come the stacks that have a checkpoint, whose runs stay together; then the others, the dearest first. How runs are
    grouped depends on the cores of the machine, not on the number of workers. On cards the work of one shape is shared among those present, or among
    `share`. A stack with a run that a live lease holds is `elsewhere`.
    """
    configs = list(dict.fromkeys(configs))
    kept = isinstance(store, RunStore)
    there = {run.config for run in store.runs(configs)} if kept else {config for config in configs if config in store}
    missing = {config.id: config for config in configs if config not in there}
    resumed = []
    for name, ids in sorted(store.checkpoints().items() if kept and missing else (), key=lambda one: len(one[1])):
        if members := tuple(missing.pop(run) for run in ids if run in missing):
            resumed.append(Stack(name, members))
    by_shape: dict[tuple, list[RunConfig]] = {}
    for config in missing.values():
        by_shape.setdefault(config.stack_key, []).append(config)
    on_cards = None if device == "cpu" else share or len(cards(device))
    most = min(MAX_STACK_FLOPS, 1.001 * stack_cost(missing.values()) / files.cores())
    fresh = [Stack.of(part) for group in by_shape.values() for part in _split(group, most, on_cards)]
    fresh.sort(key=lambda stack: -stack_cost(stack.configs))
    stacks = [*resumed, *fresh]
    flops = sum(stack_cost(stack.configs) for stack in stacks)
    leased = {run for record in store.under_way() for run in record["ids"]} if kept and stacks else set()
    elsewhere = tuple(stack for stack in stacks if any(config.id in leased for config in stack.configs))
    return Plan([stack for stack in stacks if stack not in elsewhere], len(there), flops, elsewhere)


def _split(group: Sequence[RunConfig], most: float, on_cards: int | None) -> list[list[RunConfig]]:
    """Runs of one shape in stacks; those of one trunk stay together.

    On cards: as many stacks as there are cards. On a CPU: at most `most` FLOPs each, and no more trunks than fit its cache.
    """
    trunks_of, first = families(group), group[0]
    if on_cards:
        most, trunks = 1.001 * stack_cost(group) / on_cards, len(trunks_of)
    else:
        trunks = max(1, CACHE // (4 * first.tokens_per_step * accounting.widest(shape_of(first))))
    stacks: list[list[RunConfig]] = []
    cost_so_far, trunks_so_far = 0.0, 0
    for family in trunks_of:
        cost_so_far, trunks_so_far = cost_so_far + stack_cost(family), trunks_so_far + 1
        if not stacks or cost_so_far > most or trunks_so_far > trunks:
            stacks.append([])
            cost_so_far, trunks_so_far = stack_cost(family), 1
        stacks[-1] += family
    return stacks


def cards(device: str) -> list[str]:
    """The cards that a device names: cuda is every one that is visible, cuda:1 that one."""
    return [device] if ":" in device else [f"cuda:{i}" for i in range(torch.cuda.device_count() or 1)]
