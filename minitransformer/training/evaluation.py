"""What is measured of a model: its loss on fixed windows of held-out text, and the noise of its gradient."""

from __future__ import annotations

from typing import Any, Callable, Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.text import Corpus, load_corpus
from ..errors import UserError


def fixed_windows(tokens: np.ndarray, n_ctx: int, eval_tokens: int) -> np.ndarray:
    """At least eval_tokens predicted tokens in windows spread evenly over a split, never overlapping.

    Returns (windows, n_ctx + 1): each row holds n_ctx inputs and, one place on, their targets.
    """
    count = -(-eval_tokens // n_ctx)
    starts = np.linspace(0, len(tokens) - n_ctx - 1, count).astype(np.int64)
    return np.asarray(tokens)[starts[:, None] + np.arange(n_ctx + 1)]


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, in float32 at least: logits (K, B, T, V), targets (K, B, T) -> (K, B, T)."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)


@torch.no_grad()
def evaluate(model: torch.nn.Module, K: int, windows: Tensor, chunk_tokens: int | None = None) -> Tensor:
    """Mean loss of each of the model's K members at each position of the windows (n, T + 1), in nats, without dropout: (K, T).

    chunk_tokens: of each member at a time; what suits a processor's cache or fills a card unless given.
    """
    chunk_tokens = chunk_tokens or (2048 if windows.device.type == "cpu" else max(2048, 2**18 // K))
    rows = max(1, chunk_tokens // (windows.shape[1] - 1))
    total = torch.zeros(K, windows.shape[1] - 1, dtype=torch.float64, device=windows.device)
    training = model.training
    model.eval()
    for chunk in windows.split(rows):
        shared = chunk.expand(K, *chunk.shape)
        total += token_losses(model(shared[..., :-1]), shared[..., 1:]).double().sum(dim=1)
    model.train(training)
    return total / len(windows)


def other_text(corpus: Corpus, name: str) -> np.ndarray:
    """The validation text of another corpus in the tokens of this one, without the characters that it does not know."""
    text = load_corpus(name, "byte")
    ids = corpus.tokenizer.encode(text.tokenizer.decode(text.val))
    return ids[ids > 0] if corpus.tokenizer.kind in ("char", "word") else ids


def other_windows(corpus: Corpus, name: str, n_ctx: int, eval_tokens: int) -> np.ndarray:
    """`fixed_windows` of another corpus, of all there are where they hold fewer than eval_tokens tokens."""
    text = other_text(corpus, name)
    if not (there := len(text) // (n_ctx + 1)):
        raise UserError(f"Too little text: what {corpus.name!r} knows of the validation split of {name!r} is {len(text):,} tokens, "
                        f"and a window takes {n_ctx + 1:,}. Name another corpus in also_on, or make n_ctx smaller.")
    return fixed_windows(text, n_ctx, min(eval_tokens, there * n_ctx))


def window_loss(model: torch.nn.Module, batch: Tensor) -> Tensor:
    """Each member's mean loss in nats per token: windows (K, B, T + 1) -> (K,)."""
    return token_losses(model(batch[..., :-1]), batch[..., 1:]).mean(dim=(1, 2))


def gradient_norms(model: torch.nn.Module, batches: Iterable[Any],
                   loss: Callable[[torch.nn.Module, Any], Tensor] = window_loss) -> tuple[Tensor, Tensor]:
    """Squared norm of the gradient, per member: of one batch, averaged over batches, and of them all together.

    With these McCandlish et al. 2018 (appendix A.1) estimate the noise scale. Without dropout; gradients are left empty.
    """
    parameters, training = list(model.parameters()), model.training
    model.eval()
    total, small, n = 0.0, 0.0, 0
    for n, batch in enumerate(batches, 1):
        loss(model, batch).sum().backward()
        gradient = torch.cat([p.grad.flatten(1) for p in parameters], dim=1).double()
        for p in parameters:
            p.grad = None
        total, small = total + gradient, small + gradient.square().sum(dim=1)
    model.train(training)
    return small / n, (total / n).square().sum(dim=1)
