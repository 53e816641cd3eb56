"""An LSTM language model, as a stack of K members (Hochreiter & Schmidhuber 1997; Hestness et al. 2017, §4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Embedding, Linear


class Layer(nn.Module):
    """One LSTM layer over a whole sequence, starting from a zero state."""

    def __init__(self, K: int, width: int):
        super().__init__()
        self.input = Linear(K, width, 4 * width)
        self.recurrent = Linear(K, width, 4 * width)
        self.bias = nn.Parameter(torch.zeros(K, 1, 4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """(K, B, T, width) -> (K, B, T, width): the hidden state after each token."""
        K, B, T, width = x.shape
        from_input = (self.input(x).flatten(1, 2) + self.bias).view(K, B, T, 4 * width)
        h = c = x.new_zeros(K, B, width)
        states = []
        for t in range(T):
            gates = torch.baddbmm(from_input[:, :, t], h, self.recurrent.weight)
            i, f, o = gates[..., : 3 * width].sigmoid().chunk(3, dim=-1)
            c = f * c + i * gates[..., 3 * width :].tanh()
            h = o * c.tanh()
            states.append(h)
        return torch.stack(states, dim=2)


class LSTM(nn.Module):
    """K LSTMs of one shape. Tokens (K, B, T) -> logits (K, B, T, vocab_size)."""

    def __init__(self, K: int, vocab_size: int, n_layer: int, d_model: int, tie_embeddings: bool = False):
        super().__init__()
        self.token = Embedding(K, vocab_size, d_model, std=0.5)
        self.layers = nn.ModuleList(Layer(K, d_model) for _ in range(n_layer))
        self.head = None if tie_embeddings else Linear(K, d_model, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens)
        for layer in self.layers:
            x = layer(x)
        if self.head is not None:
            return self.head(x)
        return torch.einsum("kbtd,kvd->kbtv", x, self.token.weight) * x.shape[-1] ** -0.5
