"""A residual network for images, as a stack of K members (He et al. 2016, §4.2: the form for CIFAR).

A first convolution, then three stages of n_layer blocks, d_model, 2 d_model and 4 d_model channels wide, each stage after the
first at half the resolution; the mean over all places, and a linear layer. Every convolution is 3 wide in each direction. Signals
(channels, length) are images of one dimension.

Where the paper normalises over a batch, an image's channels are normalised together, so that nothing but weights is kept and no
image influences another. There is no gain, as the next convolution or the next normalisation can undo any.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Dropout, Linear


class Convolution(Linear):
    """A matrix for every place and its neighbours, then normalised, and a bias for each channel.

    The members lie side by side as groups of channels.
    """

    def __init__(self, K: int, dims: int, fan_in: int, fan_out: int, stride: int = 1):
        super().__init__(K, fan_in * 3**dims, fan_out, gain=2**0.5)
        self.bias = nn.Parameter(torch.zeros(K, fan_out))
        self.dims, self.stride = dims, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, K fan_in, ...) -> (B, K fan_out, ...)."""
        K, size = len(self.weight), (3,) * self.dims
        weight = self.weight.transpose(1, 2).reshape(K * self.bias.shape[1], -1, *size)
        y = (F.conv1d, F.conv2d)[self.dims - 1](x, weight, stride=self.stride, padding=1, groups=K)
        return F.group_norm(y, K) + self.bias.reshape(-1, *(1,) * self.dims)


class Block(nn.Module):
    """Two convolutions beside a shortcut without weights (the paper's option A): where the block halves the resolution, it takes
    every second place, and zeros for the new channels."""

    def __init__(self, K: int, dims: int, fan_in: int, fan_out: int):
        super().__init__()
        self.stride = 2 if fan_out > fan_in else 1
        self.first = Convolution(K, dims, fan_in, fan_out, self.stride)
        self.second = Convolution(K, dims, fan_out, fan_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if self.stride == 2:
            K, every = len(self.first.bias), (slice(None, None, 2),) * self.first.dims
            x = x[(..., *every)].unflatten(1, (K, -1))
            x = torch.cat([x, torch.zeros_like(x)], dim=2).flatten(1, 2)
        return F.relu(x + y)


class ResNet(nn.Module):
    """K residual networks of one shape. Images (K, B, channels, ...) of any numbers -> logits (K, B, classes).

    dims: 2 for images, 1 for signals. Each image is normalised first, all of it together.
    """

    def __init__(self, K: int, classes: int, channels: int, dims: int, n_layer: int, d_model: int, dropout: float = 0.0):
        super().__init__()
        widths = [d_model * 2**stage for stage in range(3) for _ in range(n_layer)]
        self.first = Convolution(K, dims, channels, d_model)
        self.blocks = nn.ModuleList(Block(K, dims, a, b) for a, b in zip([d_model, *widths], widths))
        self.drop = Dropout(dropout)
        self.head = Linear(K, widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        K, kind = len(images), self.head.weight.dtype
        x = images.transpose(0, 1).flatten(1, 2).to(kind)
        x = F.relu(self.first(F.group_norm(x, K)))
        for block in self.blocks:
            x = block(x)
        x = x.flatten(2).mean(dim=2).unflatten(1, (K, -1)).transpose(0, 1)
        return self.head(self.drop(x))
