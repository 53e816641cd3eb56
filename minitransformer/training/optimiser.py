"""AdamW and SGD for a stack: each member with its own rate, clipping and weight decay."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..models.layers import Linear
from .config import RunConfig


def state_names(config: RunConfig) -> list[str]:
    """What the optimiser keeps of every weight: itself, running means of its gradient and of the square, perhaps its own."""
    return ["weights", "mean", *["square"] * (config.optimiser == "adamw"), *["average"] * (config.average > 0)]


class Optimiser:
    """AdamW (Loshchilov & Hutter 2019), or SGD with momentum beta1, with per-member clipping, on one flat tensor (K, P).

    The model's parameters are views into that tensor, so a step is a handful of operations
    whatever the depth, each row has its own learning rate, and a row leaves the stack, or is
    copied where a branch begins, by an index. Weight decay acts on the matrices of Linear layers.
    """

    def __init__(self, model: nn.Module, configs: Sequence[RunConfig], device: torch.device):
        self.parameters = list(model.parameters())
        self.betas = configs[0].beta1, configs[0].beta2
        decayed = {m.weight for m in model.modules() if isinstance(m, Linear)}
        self.decays = torch.cat([torch.full((p[0].numel(),), float(p in decayed)) for p in self.parameters]).to(device)
        flat = torch.cat([p.detach().flatten(1) for p in self.parameters], dim=1).to(device)
        self.state = {name: flat.clone() if name in ("weights", "average") else torch.zeros_like(flat) for name in state_names(configs[0])}

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=flat.dtype, device=device)[:, None]

        self.settings = {name: column([getattr(c, name) for c in configs]) for name in ("average", "clip", "weight_decay")}
        self.decaying = any(c.weight_decay for c in configs)
        self.updates = torch.zeros((), dtype=torch.float64, device=device)
        self._point(self.state["weights"])

    def _point(self, weights: Tensor) -> None:
        """Let the model's parameters be views into weights (K, P)."""
        start = 0
        for p in self.parameters:
            size = math.prod(p.shape[1:])
            p.grad = None
            p.data = weights[:, start:start + size].view(len(weights), *p.shape[1:])
            start += size

    def step(self, rates: Tensor) -> None:
        """One update; rates (K, 1). Clears the gradients. Everything that changes is a tensor, so a card can record it."""
        self.updates += 1
        grad = torch.cat([p.grad.flatten(1) for p in self.parameters], dim=1)
        for p in self.parameters:
            p.grad = None
        grad *= (self.settings["clip"] / (grad.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
        (beta1, beta2), weights, mean = self.betas, self.state["weights"], self.state["mean"]
        if self.decaying:
            weights.mul_(1 - rates * self.settings["weight_decay"] * self.decays)
        if "square" in self.state:
            mean.lerp_(grad, 1 - beta1)
            square = self.state["square"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            denominator = (square / (1 - beta2**self.updates)).sqrt_().add_(1e-8)
            weights.sub_(mean.div(denominator).mul_(rates / (1 - beta1**self.updates)))
        else:
            weights.sub_(mean.mul_(beta1).add_(grad) * rates)
        if "average" in self.state:
            self.state["average"].lerp_(weights, (1 / (self.settings["average"] * self.updates)).clamp(max=1.0))

    @contextmanager
    def measured(self, rows: list[int]) -> Iterator[None]:
        """Within, the model holds these rows only, with the weights that are measured: the running mean where one is kept."""
        self._point(self.state.get("average", self.state["weights"])[rows])
        try:
            yield
        finally:
            self._point(self.state["weights"])

    def rearrange(self, rows: list[int]) -> None:
        """Rows to go on with, in order: one that is left out leaves the stack, one that is named twice becomes two."""
        self.state = {name: tensor[rows] for name, tensor in self.state.items()}
        self.settings = {name: tensor[rows] for name, tensor in self.settings.items()}
        self._point(self.state["weights"])

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from the state of another day: weights, mean (K, P), perhaps square and average, and the number of updates."""
        self.updates.copy_(tensors["updates"])
        self.state = {name: tensors[name].to(tensor) for name, tensor in self.state.items()}
        self._point(self.state["weights"])
