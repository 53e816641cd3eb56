"""The coordinate check: how far a model's numbers move in its first updates (Yang et al. 2022, "Tensor Programs V", App. D.1).

A rule for hyper-parameters suits every width if updates move what the model computes equally far at each: not ever further
until wide models blow up, nor ever less until they stop learning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Sequence

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..models.layers import initialise
from .config import RunConfig
from .loop import Windows, _Batches, _Update, build_model
from .optimiser import Optimiser
from .schedules import learning_rate

STEPS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Movement:
    """Root mean square change since the start, after each of `steps` updates, over all coordinates on held-out text."""

    config: RunConfig
    steps: tuple[int, ...]
    residual: tuple[float, ...]  # of what the last layer hands on
    scores: tuple[float, ...]    # of the last layer's attention scores, before the softmax, over the pairs that it may see
    logits: tuple[float, ...]    # nats


def coordinate_check(configs: Sequence[RunConfig], steps: Sequence[int] = STEPS, sample_tokens: int = 1024) -> list[Movement]:
    """Train one stack of Transformers for a few updates, by the loop's own optimiser and batches, and watch it move.

    The configs share a shape (`RunConfig.stack_key`); warm-up and schedule act as in training. Raises UserError otherwise.
    """
    first, rows = configs[0], [replace(config, eval_tokens=sample_tokens) for config in configs]
    if first.arch != "transformer" or len({config.stack_key for config in configs}) != 1:
        raise UserError("a coordinate check takes Transformers of one shape, data and batch size")
    task = Windows(rows, torch.device("cpu"))
    model = build_model(first, task.vocab_size, len(rows))
    initialise(model, [config.seed for config in rows])
    update = _Update(model, Optimiser(model, rows, torch.device("cpu")), task, rows, torch.zeros(len(rows), dtype=torch.float64))
    batches = [_Batches(config, task.unique[config]) for config in rows]
    sample = task.windows[:, :-1]
    start, moved = _coordinates(model, sample, len(rows)), []
    for step in range(1, max(steps) + 1):
        update([batch.at(step) for batch in batches], [learning_rate(config, step) for config in rows])
        if step in steps:
            now = _coordinates(model, sample, len(rows))
            moved.append([(after - before).flatten(1).square().mean(1).sqrt().tolist() for before, after in zip(start, now)])
    return [Movement(config, tuple(sorted(set(steps))), *(tuple(at[part][k] for at in moved) for part in range(3)))
            for k, config in enumerate(configs)]


@torch.no_grad()
def _coordinates(model: nn.Module, sample: Tensor, K: int) -> list[Tensor]:
    """Residual stream (K, n, T, d_model), attention scores (K, n, heads, pairs) and logits (K, n, T, vocab_size)."""
    block, seen = model.blocks[-1], {}
    hooks = [block.register_forward_hook(lambda module, args, out: seen.update(residual=out)),
             block.query_key.register_forward_hook(lambda module, args, out: seen.update(scores=_scores(out, block.n_head)))]
    training = model.training
    logits = model.eval()(sample.expand(K, *sample.shape))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return [seen["residual"], seen["scores"], logits]


def _scores(query_key: Tensor, n_head: int) -> Tensor:
    """(K, B, T, 2 d_model) -> q·k / sqrt(width of a head) of each position and what it may see, (K, B, heads, T (T + 1) / 2)."""
    q, k = (x.unflatten(-1, (n_head, -1)).transpose(2, 3) for x in query_key.chunk(2, dim=-1))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    rows, columns = torch.tril_indices(*scores.shape[-2:])
    return scores[..., rows, columns]
