"""A speech recogniser that needs no alignment, as a stack of K members: Deep Speech 2 in small (Amodei et al. 2016).

A convolution over time, bidirectional LSTM layers, and for every second frame a distribution over letters and a blank. The
loss is that of all paths which are the target once repeated letters are merged and blanks dropped (CTC, Graves et al. 2006).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Dropout, Linear, Strided, norm
from .lstm import Bidirectional

BLANK = 0       # and the padding of targets
NEVER = -1e30   # the log of a probability that is none


class Outputs(NamedTuple):
    """Logs of probabilities (K, B, T, letters), and how many of the T places are of the recording, (K, B)."""

    logs: Tensor
    lengths: Tensor


class CTC(nn.Module):
    """K recognisers of one shape. Recordings (K, B, frames, bands) and their true lengths (K, B) -> Outputs."""

    def __init__(self, K: int, vocab_size: int, bands: int, n_layer: int, d_model: int, dropout: float = 0.0):
        super().__init__()
        self.source = Strided(K, bands, d_model)
        self.layers = nn.ModuleList(Bidirectional(K, d_model) for _ in range(n_layer))
        self.drops = nn.ModuleList(Dropout(dropout) for _ in range(n_layer + 1))
        self.head = Linear(K, d_model, vocab_size)

    def forward(self, input: Tensor, frames: Tensor) -> Outputs:
        x, lengths = self.drops[0](self.source(input)), (frames + 1) // 2
        for layer, drop in zip(self.layers, self.drops[1:]):
            x = drop(layer(x, lengths))
        logits = self.head(norm(x))
        return Outputs((logits if logits.dtype == torch.float64 else logits.float()).log_softmax(dim=-1), lengths)


def ctc_losses(outputs: Outputs, targets: Tensor) -> Tensor:
    """-log of the probability of each target (K, B, L), (K, B); 0 where the recording is too short for it."""
    logs, lengths, labels = (tensor.flatten(0, 1) for tensor in (*outputs, targets))
    way = library if logs.device.type == "cpu" else over_paths
    return way(logs, lengths, labels).view(targets.shape[:2])


def library(logs: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
    """(n, T, letters), (n,), (n, L) -> (n,)."""
    return F.ctc_loss(logs.transpose(0, 1), labels, lengths, (labels != BLANK).sum(dim=1), BLANK, "none", zero_infinity=True)


def over_paths(logs: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
    """The same by the equations as they stand (Graves et al. 2006, §4.1), which a card can record: the library's waits for the lengths."""
    path = torch.zeros(len(labels), 2 * labels.shape[1] + 1, dtype=torch.int64, device=labels.device)  # the target between blanks
    path[:, 1::2] = labels
    emitted = logs.gather(2, path[:, None].expand(-1, logs.shape[1], -1))
    may_skip = F.pad((path[:, 2:] != BLANK) & (path[:, 2:] != path[:, :-2]), (2, 0))
    alpha = F.pad(emitted[:, 0, :2], (0, path.shape[1] - 2), value=NEVER)
    for t in range(1, logs.shape[1]):
        before = [F.pad(alpha, (n, 0), value=NEVER)[:, :path.shape[1]] for n in (0, 1, 2)]
        before[2] = before[2].masked_fill(~may_skip, NEVER)
        after = torch.stack(before).logsumexp(dim=0) + emitted[:, t]
        alpha = torch.where((t < lengths)[:, None], after, alpha)
    ends = 2 * (labels != BLANK).sum(dim=1, keepdim=True)
    found = torch.cat([alpha.gather(1, ends), alpha.gather(1, ends - 1)], dim=1).logsumexp(dim=1)
    return -found.masked_fill(found < NEVER / 2, 0)


def letters_of(outputs: Outputs) -> Tensor:
    """The likeliest path, repeats merged and blanks dropped: (K, B, T), padded at the end."""
    best = outputs.logs.argmax(dim=-1)
    best = best.masked_fill(torch.arange(best.shape[-1], device=best.device) >= outputs.lengths[..., None], BLANK)
    dropped = (best == BLANK) | (best == F.pad(best, (1, 0), value=BLANK)[..., :-1])
    return best.masked_fill(dropped, BLANK).gather(-1, dropped.to(torch.int8).argsort(dim=-1, stable=True))


@torch.no_grad()
def transcribe(model: CTC, input: Tensor, frames: Tensor) -> Tensor:
    """The letters of recordings, as `CTC` asks for them: (K, B, T), padded at the end."""
    training = model.training
    letters = letters_of(model.eval()(input, frames))
    model.train(training)
    return letters


def edit_distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """The fewest insertions, deletions and replacements between sequences padded with 0 at the end: (..., m), (..., n) -> (...)."""
    place = torch.arange(theirs.shape[-1] + 1, device=theirs.device)
    row = place.expand(*theirs.shape[:-1], -1)
    for symbol in ours.unbind(-1):
        replaced = row[..., :-1] + (theirs != symbol[..., None])
        after = torch.cat([row[..., :1] + 1, torch.minimum(row[..., 1:] + 1, replaced)], dim=-1)
        after = (after - place).cummin(dim=-1).values + place  # insertions
        row = torch.where(symbol[..., None] != 0, after, row)
    return row.gather(-1, (theirs != 0).sum(dim=-1, keepdim=True)).squeeze(-1)
