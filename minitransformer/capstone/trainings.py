"""A training that a student may ask for: its size, its length, and what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .. import papers
from ..errors import UserError


FLOPS = int(papers.value("kaplan2020.setup.train_flops"))  # per parameter and token
SEEDS = 3  # trainings of one configuration that can be asked for
LARGEST = 10**15  # of a size or a length; FLOPs may be a million times as many


class Refusal(UserError):
    """A question that is not answered, in one line; `status` is what it is called in HTTP."""

    def __init__(self, text: str, status: int = 422):
        super().__init__(" ".join(text.split()))
        self.status = status


@dataclass(frozen=True)
class Training:
    """A model of `params` parameters (N, without embeddings) trained for `steps` steps, with one of SEEDS seeds."""

    params: int
    steps: int
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """What all trainings of one ladder have in common: the tokens of a step, and N as a multiple of the squared width."""

    tokens_per_step: int
    params_per_width2: int

    def tokens(self, training: Training) -> int:
        return training.steps * self.tokens_per_step

    def flops(self, training: Training) -> int:
        """C = 6 N D (Kaplan et al. 2020, section 2.1), exact."""
        return FLOPS * training.params * self.tokens(training)

    def width(self, training: Training) -> float:
        return math.sqrt(training.params / self.params_per_width2)

    def training(self, *, width=None, params=None, steps=None, tokens=None, flops=None, seed=0) -> Training:
        """The training of a size (width or params) and a length (steps or tokens), or of one of these and its FLOPs.

        What does not come out even is rounded down, so that a training never costs more FLOPs than were named.
        """
        size = [name for name, value in (("width", width), ("params", params)) if value is not None]
        length = [name for name, value in (("steps", steps), ("tokens", tokens)) if value is not None]
        if len(size) > 1 or len(length) > 1 or len(size) + len(length) + (flops is not None) != 2:
            raise Refusal("say two things of a training: its size (width or params) and its length (steps or tokens), or one of these and flops")
        C = None if flops is None else number("flops", flops, LARGEST * 10**6)
        if size:
            N = number(*(("width", width) if width is not None else ("params", params)))
            N = math.floor(N if width is None else self.params_per_width2 * N * N + 0.5)
            if N < 1:
                raise Refusal("a model needs at least one parameter")
        if length:
            S = number(*(("steps", steps) if steps is not None else ("tokens", tokens)))
            S = math.floor(S if tokens is None else S / self.tokens_per_step)
            if S < 1:
                raise Refusal(f"a training needs at least one step, which is {self.tokens_per_step:,} tokens")
        if not size:
            N = int(C) // (FLOPS * S * self.tokens_per_step)
        if not length:
            S = int(C) // (FLOPS * N * self.tokens_per_step)
        if N < 1 or S < 1:
            raise Refusal("these FLOPs do not pay for one step of one parameter")
        return Training(N, S, whole_seed(seed))


def number(name: str, value: Any, largest: float = LARGEST) -> float | int:
    """A finite number above zero; whole ones stay exact."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        try:
            value = value.item()  # a number of numpy
        except (AttributeError, ValueError):
            raise Refusal(f"{name} must be a number, not {repr(value)[:40]}") from None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Refusal(f"{name} must be a number, not {repr(value)[:40]}")
    if not 0 < value <= largest:  # false for NaN as well
        shown = f"{value:.4g}" if abs(value) <= 1e300 else "that"
        raise Refusal(f"{name} must lie above 0 and be at most {largest:.0e}, which {shown} is not")
    return value


def whole_seed(value: Any) -> int:
    """A seed that there is."""
    if isinstance(value, bool) or value not in range(SEEDS):
        raise Refusal(f"seed must be one of {', '.join(map(str, range(SEEDS)))}: so often was each model of the kit trained, not {repr(value)[:40]}")
    return int(value)
