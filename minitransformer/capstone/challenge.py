"""The task: which runs a student may buy, which are held out, and what is asked about those.

The target is the dearest budget that two sizes of the ladder were trained with, to the FLOP; the student's budget is a
thirtieth of it, and so is the dearest training that is answered. Answers between runs need runs around them, so those up to
a tenth of the target are looked at; every dearer run is held out. Of the held-out runs, those of exactly the target are the
truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..sweeps.store import reference_table
from .surface import Surface, recipe_of
from .trainings import Training

if TYPE_CHECKING:
    import pandas as pd

TIMES = 30   # the target is so many budgets
AROUND = 10  # and so many times the dearest run that an answer may look at


@dataclass(frozen=True, eq=False)
class Challenge:
    """runs: the complete runs of a ladder of one recipe. target, budget: FLOPs."""

    runs: pd.DataFrame
    target: int

    @classmethod
    def of(cls, runs: pd.DataFrame) -> Challenge:
        sizes = runs.groupby("C").N.nunique()
        return cls(runs, int(sizes[sizes > 1].index.max()))

    @property
    def budget(self) -> int:
        return self.target // TIMES

    @property
    def served(self) -> pd.DataFrame:
        return self.runs[self.runs.C * AROUND <= self.target]

    @property
    def held_out(self) -> pd.DataFrame:
        return self.runs[self.runs.C * AROUND > self.target]

    @cached_property
    def surface(self) -> Surface:
        return Surface.of(self.served)

    @cached_property
    def named(self) -> dict[str, Training]:
        """The two held-out trainings that students are told about: the largest model with exactly the target's FLOPs, and the dearest of all."""
        there = self.held_out[self.held_out.C == self.target]
        return {name: Training(int(run.N), int(run.steps)) for name, run in
                (("oversized", there.loc[there.N.idxmax()]), ("dearest", self.held_out.loc[self.held_out.C.idxmax()]))}

    @cached_property
    def truth(self) -> Truth:
        from ..laws import frontier  # scipy, which no answer needs
        held = self.held_out
        recipe = recipe_of(held)
        at_target = held[held.C == self.target]
        lowest = np.exp(np.log(at_target.loss).groupby(at_target.N).mean())
        named = {name: held[(held.N == t.params) & (held.steps == t.steps)].loss for name, t in self.named.items()}
        losses = {"best": float(lowest.min()), **{name: float(np.exp(np.log(loss).mean())) for name, loss in named.items()}}
        best = Training(int(lowest.idxmin()), int(at_target.steps[at_target.N == lowest.idxmin()].iloc[0]))
        cut = frontier.iso_flops(held, [self.target])
        curve = np.polynomial.Polynomial.fit(np.log(cut.N), np.log(cut.loss), 2)
        return Truth(best, losses, curve, cut.N, cut.loss, recipe.width(best))


@dataclass(frozen=True, eq=False)
class Truth:
    """What the held-out runs say. best: the training of exactly the target's FLOPs that did best; losses: geometric means over
    seeds of "best" and of the named trainings. N, loss (k,): what each size reaches with the target's FLOPs, real or between
    two real lengths; curve: the parabola through their logs."""

    best: Training
    losses: dict[str, float]
    curve: np.polynomial.Polynomial
    N: np.ndarray
    loss: np.ndarray
    width: float

    @cached_property
    def size(self) -> float:
        """N where the parabola is lowest."""
        return math.exp(float(self.curve.deriv().roots()[0].real))

    def regret(self, N: float) -> float:
        """How much higher the loss is at N than at the best size, on the parabola: 0.01 is one per cent."""
        return math.expm1(min(float(self.curve(math.log(N)) - self.curve(math.log(self.size))), 700.0))


@cache
def ladder() -> Challenge:
    """The challenge of the kit's committed ladder: eleven sizes, up to seven lengths."""
    return Challenge.of(reference_table("ladder").query("status == 'complete'"))
