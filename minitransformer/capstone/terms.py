"""What may be asked and what is to be foretold, in the words that go over the wire."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Mapping

from .challenge import Challenge
from .trainings import SEEDS, Recipe, Training


@dataclass(frozen=True)
class Terms:
    """target: FLOPs of the run to foretell; dearest_answer: FLOPs of the dearest training that is answered. sizes, steps: of
    the real runs that can be bought, everything between them is interpolated. seeds: of each. oversized, dearest: the named held-out runs."""

    target: int
    dearest_answer: int
    recipe: Recipe
    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    seeds: int
    oversized: Training
    dearest: Training

    @classmethod
    def of(cls, challenge: Challenge) -> Terms:
        surface, recipe = challenge.surface, challenge.surface.recipe
        sizes = [int(N) for N in surface.sizes if recipe.flops(Training(int(N), int(surface.lengths[0]))) <= challenge.budget]
        return cls(challenge.target, challenge.budget, recipe, tuple(sizes), tuple(map(int, surface.lengths)), SEEDS,
                   **challenge.named)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Terms:
        return cls(given["target"], given["dearest_answer"], Recipe(**given["recipe"]), tuple(given["sizes"]), tuple(given["steps"]), given["seeds"],
                   Training(**given["oversized"]), Training(**given["dearest"]))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        r = self.recipe
        named = "\n".join(f"  {name}: width {r.width(t):g}, N = {t.params:,}, {t.steps:,} steps, D = {r.tokens(t):,}, C = {r.flops(t):.3g}"
                          for name, t in (("oversized", self.oversized), ("dearest", self.dearest)))
        return (f"C = 6 N D; N = {r.params_per_width2} width^2, a step is {r.tokens_per_step:,} characters\n"
                f"widths {', '.join(f'{r.width(Training(N, 1)):g}' for N in self.sizes)}, and sizes between them\n"
                f"steps {', '.join(f'{s:,}' for s in self.steps)}, and lengths between them; seeds 0 to {self.seeds - 1}\n"
                f"no training above {self.dearest_answer:.3g} FLOPs is answered\n"
                f"foretell the best model for {self.target:.4g} FLOPs, its loss, and the losses of\n{named}")
