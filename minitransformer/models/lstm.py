"""An LSTM language model, as a stack of K members (Hochreiter & Schmidhuber 1997; Hestness et al. 2017, §4.2)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from .kernels import fastest, product
from .layers import Dropout, Embedding, Linear, norm


class Layer(nn.Module):
    """One LSTM layer over a whole sequence, starting from a zero state. Gates in the order i, f, g, o."""

    def __init__(self, K: int, width: int):
        super().__init__()
        self.input = Linear(K, width, 4 * width)
        self.recurrent = Linear(K, width, 4 * width)
        self.bias = nn.Parameter(torch.zeros(K, 1, 4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """(K, B, T, width) -> (K, B, T, width): the hidden state after each token."""
        return lstm(x, *self.weights)

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.input.weight, self.recurrent.weight, self.bias


class Bidirectional(nn.Module):
    """Two layers, one of which reads each sequence from its end; what they say is added (Amodei et al. 2016)."""

    def __init__(self, K: int, width: int):
        super().__init__()
        self.ahead, self.back = Layer(K, width), Layer(K, width)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(K, B, T, width) of lengths (K, B) -> the same shape. Places beyond the lengths hold nothing of use, and influence no other.

        Both directions are computed side by side, as if they were members.
        """
        time, length = torch.arange(x.shape[2], device=x.device), lengths[..., None]
        turned = torch.where(time < length, length - 1 - time, time)[..., None].expand_as(x)
        weights = (torch.cat(pair) for pair in zip(self.ahead.weights, self.back.weights))
        ahead, back = lstm(torch.cat([x, x.gather(2, turned)]), *weights).chunk(2)
        return ahead + back.gather(2, turned)


def lstm(x: Tensor, input: Tensor, recurrent: Tensor, bias: Tensor) -> Tensor:
    """A layer of given weights, by the way that is fastest here."""
    way = _fastest_way(*x.shape[1:], x.dtype, x.device)
    return WAYS[way](x, input, recurrent, bias)


def step_by_step(x: Tensor, input: Tensor, recurrent: Tensor, bias: Tensor) -> Tensor:
    """The equations as they stand, all members at once."""
    K, B, T, width = x.shape
    from_input = (product(x.flatten(1, 2), input) + bias).view(K, B, T, 4 * width)
    h = c = x.new_zeros(K, B, width)
    states = []
    for x_t in from_input.unbind(2):
        i, f, g, o = torch.baddbmm(x_t, h, recurrent).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return torch.stack(states, dim=2)


def one_by_one(x: Tensor, input: Tensor, recurrent: Tensor, bias: Tensor) -> Tensor:
    """The library's own LSTM (oneDNN on a processor, cuDNN on a card), member after member."""
    start = x.new_zeros(1, x.shape[1], x.shape[-1])
    zeros = torch.zeros_like(bias[0, 0])
    states = [torch.lstm(x[k], (start, start), [input[k].t().contiguous(), recurrent[k].t().contiguous(), bias[k, 0], zeros],
                         True, 1, 0.0, True, False, True)[0] for k in range(len(x))]
    return torch.stack(states)


WAYS = {"step by step": step_by_step, "one by one": one_by_one}


@lru_cache(maxsize=None)
def _fastest_way(B: int, T: int, width: int, dtype: torch.dtype, device: torch.device) -> str:
    def tried(way):
        def forward_and_backward():
            with torch.enable_grad():
                tensors = [torch.zeros(4, *shape, dtype=dtype, device=device, requires_grad=True)
                           for shape in ((B, T, width), (width, 4 * width), (width, 4 * width), (1, 4 * width))]
                torch.autograd.grad(way(*tensors).sum(), tensors)
        return forward_and_backward

    return fastest(f"lstm {B} {T} {width} {dtype} {device.type}", {name: tried(way) for name, way in WAYS.items()})


class LSTM(nn.Module):
    """K LSTMs of one shape. Tokens (K, B, T) -> logits (K, B, T, vocab_size).

    norm_output: normalise the last states before the head. What an LSTM says is bounded and starts small, so that with thousands
    of words the head first learns how often each occurs, and for hundreds of steps nothing else.
    """

    def __init__(self, K: int, vocab_size: int, n_layer: int, d_model: int, tie_embeddings: bool = False, dropout: float = 0.0,
                 norm_output: bool = False):
        super().__init__()
        self.norm_output = norm_output
        self.token = Embedding(K, vocab_size, d_model, std=0.5)
        self.layers = nn.ModuleList(Layer(K, d_model) for _ in range(n_layer))
        self.drops = nn.ModuleList(Dropout(dropout) for _ in range(n_layer + 1))  # between layers, as Zaremba et al. 2014
        self.head = None if tie_embeddings else Linear(K, d_model, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.drops[0](self.token(tokens))
        for layer, drop in zip(self.layers, self.drops[1:]):
            x = drop(layer(x))
        if self.norm_output:
            x = norm(x)
        if self.head is not None:
            return self.head(x)
        return torch.einsum("kbtd,kvd->kbtv", x, self.token.weight) * x.shape[-1] ** -0.5
