"""Run: a finished training as a fact."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .config import RunConfig


LATER = ("utilisation", "by_position")  # fields that runs made before them lack


@dataclass
class Run:
    """A configuration and what came of it. Losses are in nats per token, on validation text; of examples in nats per symbol of
    their target, and tokens are examples."""

    config: RunConfig
    status: str                          # complete, or diverged
    parameters: dict[str, int]           # by group
    compute: dict[str, int]              # FLOPs spent, by convention
    curve: dict[str, list[float]]        # step, tokens, train_loss, val_loss at log-spaced steps; loss_on_NAME, norm2_*: see RunConfig; of examples error
    tokens: int                          # tokens seen, repeats included
    unique_tokens: int                   # tokens there were to see
    vocab_size: int
    bytes_per_token: float | None        # None of examples
    device: str
    seconds: float                       # of the member: the stack's time shared among its members
    versions: dict[str, str] = field(default_factory=dict)
    utilisation: float | None = None     # FLOPs of training per second over the device's peak (MFU)
    by_position: list[float] | None = None  # the last validation loss at each position of the context

    @property
    def final_loss(self) -> float | None:
        return self.curve["val_loss"][-1] if self.status == "complete" else None

    @property
    def best_loss(self) -> float | None:
        """The lowest validation loss on the curve: the early-stopped loss."""
        return min(self.curve["val_loss"]) if self.status == "complete" else None

    @property
    def best_step(self) -> int | None:
        if self.status != "complete":
            return None
        return self.curve["step"][self.curve["val_loss"].index(self.best_loss)]

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.config.id, **asdict(self), "config": self.config.to_dict(),
                "final_loss": self.final_loss, "best_loss": self.best_loss, "best_step": self.best_step}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Run:
        known = {name: record[name] for name in cls.__dataclass_fields__ if name in record or name not in LATER}
        return cls(**{**known, "config": RunConfig.from_dict(record["config"])})
