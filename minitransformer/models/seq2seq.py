"""An encoder and a decoder with attention between them, as a stack of K members (Bahdanau et al. 2015; Luong et al. 2015).

Bidirectional LSTM layers read the input; LSTM layers say the target, symbol after symbol, each from the true ones before it. What
they hold then is compared with every state of the encoder (Luong's "general" score, here of normalised states and divided by the
root of the width), and the mean of the states, weighted by the softmax of the scores, helps to predict the next symbol. Where
Luong's decoder begins in the encoder's last state, this one hears the mean of all its states with every symbol.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Dropout, Embedding, Linear, Strided, norm
from .lstm import Bidirectional, Layer

PAD, BEGIN, END = 0, 1, 2  # of the target, and PAD of an input of symbols


class Seq2Seq(nn.Module):
    """K models of one shape. Input (K, B, S) of symbols, or (K, B, frames, bands) with the true lengths `frames` (K, B), and what
    is said so far (K, B, T) -> logits of the next symbols (K, B, T, vocab_size).

    source: the number of the input's symbols or, where it is none of `of_symbols`, of its bands.
    """

    def __init__(self, K: int, vocab_size: int, source: int, of_symbols: bool, n_layer: int, d_model: int, dropout: float = 0.0):
        super().__init__()
        self.source = Embedding(K, source, d_model, std=0.5) if of_symbols else Strided(K, source, d_model)
        self.encoder = nn.ModuleList(Bidirectional(K, d_model) for _ in range(n_layer))
        self.token = Embedding(K, vocab_size, d_model, std=0.5)
        self.summary = Linear(K, d_model, d_model)
        self.decoder = nn.ModuleList(Layer(K, d_model) for _ in range(n_layer))
        self.query = Linear(K, d_model, d_model)
        self.combine = Linear(K, 2 * d_model, d_model)
        self.drops = nn.ModuleList(Dropout(dropout) for _ in range(2 * n_layer + 2))
        self.head = Linear(K, d_model, vocab_size)

    def forward(self, input: Tensor, said: Tensor, frames: Tensor | None = None) -> Tensor:
        return self.decode(*self.encode(input, frames), said)

    def encode(self, input: Tensor, frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """States (K, B, S, d_model), and how many of them are of the input and not of its padding, (K, B)."""
        lengths = (input != PAD).sum(dim=-1) if frames is None else (frames + 1) // 2
        first, *drops = self.drops[:len(self.encoder) + 1]
        x = first(self.source(input))
        for layer, drop in zip(self.encoder, drops):
            x = drop(layer(x, lengths))
        return norm(x), lengths

    def decode(self, states: Tensor, lengths: Tensor, said: Tensor) -> Tensor:
        padding = torch.arange(states.shape[2], device=states.device) >= lengths[..., None]
        mean = states.masked_fill(padding[..., None], 0).sum(dim=2) / lengths[..., None]
        first, *drops = self.drops[len(self.encoder) + 1:]
        x = first(self.token(said) + self.summary(mean)[:, :, None])
        for layer, drop in zip(self.decoder, drops):
            x = drop(layer(x))
        x = norm(x)
        scores = self.query(x) @ states.transpose(2, 3) * x.shape[-1] ** -0.5
        found = scores.masked_fill(padding[:, :, None], float("-inf")).softmax(dim=-1).to(states.dtype) @ states
        return self.head(self.combine(torch.cat([found, x], dim=-1)).tanh())


@torch.no_grad()
def translate(model: Seq2Seq, input: Tensor, frames: Tensor | None = None, longest: int = 100) -> Tensor:
    """The likeliest symbol after symbol, to the end, at most so many: as `Seq2Seq` asks -> (K, B, T), padded, without begin or end."""
    training = model.training
    states, lengths = model.eval().encode(input, frames)
    said = torch.full((*lengths.shape, 1), BEGIN, device=input.device)
    ended = torch.zeros_like(said, dtype=torch.bool)
    while said.shape[-1] <= longest and not ended.all():
        symbol = model.decode(states, lengths, said)[:, :, -1:].argmax(dim=-1)
        ended |= symbol == END
        said = torch.cat([said, symbol.masked_fill(ended, PAD)], dim=-1)
    model.train(training)
    return said[..., 1:]
