"""What runs cost in FLOPs: of trainings that share a trunk the common part is counted once, and so is what was measured on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable, NamedTuple, Sequence

from .. import accounting
from ..training.config import RunConfig
from ..training.schedules import last_constant_step, trunk_key

if TYPE_CHECKING:
    import pandas as pd


class Spent(NamedTuple):
    """FLOPs, every component: of training, and of what was measured on the way (losses, and gradients for their noise)."""

    training: float
    measuring: float

    @property
    def total(self) -> float:
        return self.training + self.measuring


class Part(NamedTuple):
    """A run of a family: its config, the steps it trained, and those after which it was measured."""

    config: RunConfig
    steps: int
    measured: Sequence[int]


def families(configs: Iterable[RunConfig]) -> list[list[RunConfig]]:
    """Runs that are one training until they part, together, in the order of their first."""
    found: dict[tuple, list[RunConfig]] = {}
    for config in configs:
        found.setdefault((config.stack_key, trunk_key(config)), []).append(config)
    return list(found.values())


def family_cost(parts: Sequence[Part], training: float, measuring: float) -> Spent:
    """Of the runs of one family, trained together. A gradient that is only looked at costs as much as one that is followed.

    training: FLOPs of a token, or of an example. measuring: those of one measurement of the loss.
    """
    first, step = parts[0].config, parts[0].config.tokens_per_step
    shared = [min(last_constant_step(part.config), part.steps) for part in parts]
    steps = max(shared) + sum(part.steps - own for part, own in zip(parts, shared))
    times = len({(at, part.config if at > own else None) for part, own in zip(parts, shared) for at in part.measured})
    return Spent(steps * step * training, times * (measuring + first.noise_batches * step * training))


def spent(table: pd.DataFrame) -> Spent:
    """Of a table of runs (`store.run_table`), as they ended: one that stopped early cost what it trained.

    In a table that lacks what this takes, such as one from elsewhere, every run counts as if trained alone, and no measuring.
    """
    if not {"id", "vocab_size", "curve_step"} <= set(table):
        return Spent(float(table.C_total.sum()), 0.0)
    table = table.drop_duplicates("id")
    rates, parts = {}, {}
    for config, row in zip(configs(table), table.itertuples()):
        parts[config] = Part(config, int(row.D) // config.tokens_per_step, [int(step) for step in row.curve_step])
        rates[config] = _rates(config, row)
    costs = [family_cost([parts[one] for one in family], *rates[family[0]]) for family in families(parts)]
    return Spent(float(sum(cost.training for cost in costs)), float(sum(cost.measuring for cost in costs)))


def _rates(config: RunConfig, row: Any) -> tuple[float, float]:
    """What `family_cost` asks of a row of a table; the data themselves are not looked at."""
    if not config.reads_text:
        return row.C_total / row.D, row.C_measure
    shape = config.shape(int(row.vocab_size))
    forward = sum(accounting.forward_flops(shape).values())
    return accounting.count_compute(shape, 1)["C_total"], config.eval_tokens * (1 + len(config.others)) * forward


def configs(table: pd.DataFrame) -> list[RunConfig]:
    """The config of each row of a table of runs. Its vocab_size is the one that the tokenizer had; a setting that the table lacks, as
    one made before there was that setting, has its default."""
    fields = {name: field for name, field in RunConfig.__dataclass_fields__.items() if name in table}
    kinds = {name: type(field.default) for name, field in fields.items()}
    return [RunConfig(**{name: kinds[name](value) for name, value in row.items() if value == value})
            for row in table[list(fields)].to_dict("records")]
