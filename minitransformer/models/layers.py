"""Layers of a stack: K models of one shape computed side by side.

Every parameter and every activation carries a leading axis of K members. One
member is the ordinary case, K = 1. Members never mix: each sees its own
tokens, so the gradient of the summed losses is each member's own gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..accounting import WINDOW
from .kernels import product


class Linear(nn.Module):
    """y = x W for each member; no bias, so Kaplan's count N = 12 n_layer d_model² is exact.

    Initialised by fan-in: weights are normal with standard deviation gain / sqrt(fan_in),
    which keeps unit-variance inputs at unit variance for every width.
    """

    def __init__(self, K: int, fan_in: int, fan_out: int, gain: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(K, fan_in, fan_out))
        self.std = gain / math.sqrt(fan_in)

    def start(self, generator: torch.Generator) -> Tensor:
        return torch.randn(self.weight.shape[1:], generator=generator) * self.std

    def forward(self, x: Tensor) -> Tensor:
        """(K, ..., fan_in) -> (K, ..., fan_out)."""
        y = product(x.flatten(1, -2), self.weight)
        return y.unflatten(1, x.shape[1:-1])


class Strided(Linear):
    """A convolution over time: a rectified matrix for every second frame and those around it (Amodei et al. 2016)."""

    def __init__(self, K: int, bands: int, width: int):
        super().__init__(K, bands * WINDOW, width, gain=2**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(K, B, T, bands) -> (K, B, T / 2, width), rounded up."""
        around = nn.functional.pad(x.to(self.weight.dtype), (0, 0, WINDOW // 2, WINDOW // 2)).unfold(2, WINDOW, 2)
        return super().forward(around.flatten(3)).relu()


class Embedding(nn.Module):
    """A table of n vectors for each member."""

    def __init__(self, K: int, n: int, width: int, std: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(K, n, width))
        self.std = std

    def start(self, generator: torch.Generator) -> Tensor:
        return torch.randn(self.weight.shape[1:], generator=generator) * self.std

    def forward(self, tokens: Tensor) -> Tensor:
        """(K, B, T) integers -> (K, B, T, width)."""
        member = torch.arange(len(tokens), device=tokens.device).view(-1, 1, 1)
        return self.weight[member, tokens]


class Positions(nn.Module):
    """A learned vector for each position, started from sinusoids (Vaswani et al. 2017, §3.5).

    From random vectors a tiny model is slow to find even its previous token. Products of
    sinusoids depend on distance alone, so attention can single out a distance from the start.
    """

    def __init__(self, K: int, n_ctx: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(K, n_ctx, width))

    def start(self, generator: torch.Generator) -> Tensor:
        n_ctx, width = self.weight.shape[1:]
        half = torch.arange((width + 1) // 2)
        angle = torch.arange(n_ctx)[:, None] * 100.0 ** (-half / len(half))
        return 0.5 * torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width]

    def forward(self, T: int) -> Tensor:
        """The first T vectors: (K, 1, T, width)."""
        return self.weight[:, None, :T]


def norm(x: Tensor) -> Tensor:
    """Layer norm over the last axis without gain or bias: the next matrix can learn both."""
    return nn.functional.layer_norm(x, x.shape[-1:])


class Dropout(nn.Module):
    """Inverted dropout whose mask is a function of the member's seed, the step, the place in the model and the element.

    Nothing is drawn from a stream, so a member drops the same units alone as in a stack, on any device, after a restart, and
    in a branch as in the run from scratch. `key` (K, 1) is set for each step by `set_step`.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate, self.key = rate, None

    def forward(self, x: Tensor) -> Tensor:
        """(K, ...) -> the same shape; the identity in evaluation."""
        if not self.rate or not self.training:
            return x
        n = x[0].numel()
        noise = _scramble(_scramble(torch.arange(n, dtype=torch.int32, device=x.device)) ^ self.key)  # uniform over all int32
        keep = (noise >= int((self.rate - 0.5) * 2**32)).view(x.shape)
        return x * keep / (1 - self.rate)


def _scramble(x: Tensor) -> Tensor:
    """A bijection of int32 that scatters neighbours (C. Wellons' lowbias32); products wrap around."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * (0x846CA68B - 2**32)
    return x ^ ((x >> 16) & 0xFFFF)


def set_step(model: nn.Module, seeds: Tensor, step: Tensor) -> None:
    """Give every Dropout its key for one step; seeds (K, 1) and step () are int32."""
    for place, module in enumerate(m for m in model.modules() if isinstance(m, Dropout) and m.rate):
        module.key = _scramble(_scramble(_scramble(seeds) ^ step) ^ place)


@torch.no_grad()
def initialise(model: nn.Module, seeds: list[int]) -> None:
    """Draw each member's weights from its own seed, on the CPU, layer by layer.

    A member therefore starts from the same weights alone as in any stack and on any device.
    """
    for k, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        for module in model.modules():
            if hasattr(module, "start"):
                module.weight[k] = module.start(generator)
