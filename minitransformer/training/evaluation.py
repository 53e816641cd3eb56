"""The loss on fixed windows of held-out text."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def fixed_windows(tokens: np.ndarray, n_ctx: int, eval_tokens: int) -> np.ndarray:
    """At least eval_tokens predicted tokens in windows spread evenly over a split, never overlapping.

    Returns (windows, n_ctx + 1): each row holds n_ctx inputs and, one place on, their targets.
    """
    count = -(-eval_tokens // n_ctx)
    starts = np.linspace(0, len(tokens) - n_ctx - 1, count).astype(np.int64)
    return np.asarray(tokens)[starts[:, None] + np.arange(n_ctx + 1)]


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats: logits (K, B, T, V), targets (K, B, T) -> (K, B, T)."""
    return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), reduction="none").view(targets.shape)


@torch.no_grad()
def evaluate(model: torch.nn.Module, K: int, windows: Tensor, chunk_tokens: int = 2048) -> Tensor:
    """Mean loss of each member over all windows, in nats per token: (K,)."""
    rows = max(1, chunk_tokens // (windows.shape[1] - 1))
    total = torch.zeros(K, dtype=torch.float64, device=windows.device)
    for chunk in windows.split(rows):
        shared = chunk.expand(K, *chunk.shape)
        losses = token_losses(model(shared[..., :-1]), shared[..., 1:])
        total += losses.double().sum(dim=(1, 2))
    return total / (len(windows) * (windows.shape[1] - 1))
