"""The training loop: a stack of configurations of one shape in, one run for each out."""

from __future__ import annotations

import math
import platform
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .. import __version__, accounting
from ..data.text import Corpus, load_corpus
from ..errors import UserError
from ..models.layers import Linear, initialise
from ..models.lstm import LSTM
from ..models.transformer import Transformer
from .config import RunConfig
from .evaluation import evaluate, fixed_windows, token_losses
from .run import Run
from .schedules import evaluation_steps, learning_rate


@dataclass(frozen=True)
class Progress:
    """Where a stack is: member ids, step of the longest member, FLOPs done and the latest losses."""

    ids: tuple[str, ...]
    step: int
    steps: int
    flops: float
    losses: tuple[float, ...]


def shape_of(config: RunConfig, vocab_size: int) -> accounting.Shape:
    return accounting.Shape(config.arch, config.n_layer, config.d_model, vocab_size, config.n_ctx,
                            config.d_feedforward, tie_embeddings=config.tie_embeddings)


def build_model(config: RunConfig, vocab_size: int, K: int = 1) -> nn.Module:
    """K uninitialised models of the shape a config describes."""
    if config.arch == "lstm":
        return LSTM(K, vocab_size, config.n_layer, config.d_model, config.tie_embeddings)
    return Transformer(K, vocab_size, config.n_ctx, config.n_layer, config.d_model, config.n_head,
                       config.d_feedforward, config.tie_embeddings)


class AdamW:
    """AdamW (Loshchilov & Hutter 2019) with per-member clipping, on one flat tensor (K, P).

    The model's parameters are views into that tensor, so a step is a handful of operations
    whatever the depth, each member has its own learning rate, and a member leaves the stack
    by dropping a row. Weight decay acts on the matrices of Linear layers.
    """

    def __init__(self, model: nn.Module, configs: Sequence[RunConfig], device: torch.device):
        self.parameters = list(model.parameters())
        self.betas = configs[0].beta1, configs[0].beta2
        decayed = {m.weight for m in model.modules() if isinstance(m, Linear)}
        self.decays = torch.cat([torch.full((p[0].numel(),), float(p in decayed)) for p in self.parameters]).to(device)
        flat = torch.cat([p.detach().flatten(1) for p in self.parameters], dim=1).to(device)
        self.state = {"weights": flat, "mean": torch.zeros_like(flat), "square": torch.zeros_like(flat)}
        if configs[0].average:
            self.state["average"] = flat.clone()
        self.average = torch.tensor([[c.average] for c in configs], device=device)
        self.clip = torch.tensor([[c.clip] for c in configs], device=device)
        self.weight_decay = torch.tensor([[c.weight_decay] for c in configs], device=device)
        self.updates = 0
        self._point()

    def _point(self) -> None:
        weights, start = self.state["weights"], 0
        for p in self.parameters:
            size = math.prod(p.shape[1:])
            p.data = weights[:, start:start + size].view(len(weights), *p.shape[1:])
            p.grad = None
            start += size

    def step(self, rates: Tensor) -> None:
        """One update; rates (K, 1). Clears the gradients."""
        self.updates += 1
        grad = torch.cat([p.grad.flatten(1) for p in self.parameters], dim=1)
        for p in self.parameters:
            p.grad = None
        grad *= (self.clip / (grad.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
        beta1, beta2 = self.betas
        weights, mean, square = self.state["weights"], self.state["mean"], self.state["square"]
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        denominator = (square / (1 - beta2**self.updates)).sqrt_().add_(1e-8)
        if self.weight_decay.any():
            weights.mul_(1 - rates * self.weight_decay * self.decays)
        weights.sub_(mean.div(denominator).mul_(rates / (1 - beta1**self.updates)))
        if "average" in self.state:
            self.state["average"].lerp_(weights, (1 / (self.average * self.updates)).clamp(max=1.0))

    @contextmanager
    def measured_weights(self) -> Iterator[None]:
        """Within, the model holds the weights that are measured: the running mean where one is kept."""
        if "average" not in self.state:
            yield
            return
        last = self.state["weights"].clone()
        self.state["weights"].copy_(self.state["average"])
        yield
        self.state["weights"].copy_(last)

    def keep(self, rows: list[int]) -> None:
        """Drop every member not in `rows`."""
        self.state = {name: tensor[rows] for name, tensor in self.state.items()}
        self.clip, self.weight_decay, self.average = self.clip[rows], self.weight_decay[rows], self.average[rows]
        self._point()


@dataclass
class _Member:
    """One config's share of the loop: where its batches start, and its curve so far."""

    config: RunConfig
    starts: np.ndarray                   # (steps, B) first token of every window of every batch
    unique_tokens: int
    measure_at: frozenset[int]
    curve: dict[str, list[float]] = field(
        default_factory=lambda: {"step": [], "tokens": [], "train_loss": [], "val_loss": []})
    seconds: float = 0.0

    @classmethod
    def prepare(cls, config: RunConfig, corpus: Corpus) -> _Member:
        corpus.require(config.train_tokens, config.eval_tokens)
        unique = config.train_tokens or len(corpus.train)
        if unique < config.n_ctx + 1:
            raise UserError(f"train_tokens = {unique} is less than one window of n_ctx + 1 = {config.n_ctx + 1} tokens")
        order = np.random.default_rng([config.seed, 1])
        starts = order.integers(0, unique - config.n_ctx, size=(config.steps, config.batch_size))
        return cls(config, starts, unique, frozenset(evaluation_steps(config)))

    def record(self, step: int, train_loss: float, val_loss: float) -> None:
        for name, value in zip(self.curve, (step, step * self.config.tokens_per_step, train_loss, val_loss)):
            self.curve[name].append(value)

    def finished(self) -> str | None:
        """The status if this member is done after its latest measurement, else None."""
        losses = self.curve["val_loss"]
        if not (math.isfinite(losses[-1]) and math.isfinite(self.curve["train_loss"][-1])):
            return "diverged"
        if self.curve["step"][-1] == self.config.steps:
            return "complete"
        since_best = len(losses) - 1 - losses.index(min(losses))
        return "complete" if self.config.patience and since_best >= self.config.patience else None


def train(configs: Sequence[RunConfig], device: str = "cpu",
          report: Callable[[Progress], None] = lambda progress: None) -> Iterator[Run]:
    """Train one stack; yield each member's Run as soon as that member is done.

    The configs share a shape (`RunConfig.stack_key`) and may differ in seed, learning rate,
    schedule, horizon, data size and patience. Members never influence one another: a member
    that diverges or stops early leaves the stack and the others go on.
    """
    if len({config.stack_key for config in configs}) != 1:
        raise UserError("the configs of a stack must share data, model shape, batch size and precision")
    first, where = configs[0], torch.device(device)
    corpus = load_corpus(first.corpus, first.tokenizer, first.vocab_size or None)
    if first.corpus_sha256 and first.corpus_sha256 != corpus.fingerprint:
        raise UserError(f"{first.corpus} has changed since this sweep was planned; start a new sweep")
    members = [_Member.prepare(config, corpus) for config in configs]

    tokens = torch.from_numpy(corpus.train[: max(m.unique_tokens for m in members)].astype(np.int64)).to(where)
    windows = torch.from_numpy(fixed_windows(corpus.val, first.n_ctx, first.eval_tokens).astype(np.int64)).to(where)
    model = build_model(first, corpus.vocab_size, len(configs))
    initialise(model, [config.seed for config in configs])
    groups = accounting.parameters(shape_of(first, corpus.vocab_size))
    counted = sum(p[0].numel() for p in model.parameters())
    assert counted == sum(groups.values()), f"counted {counted} parameters, groups sum to {sum(groups.values())}"
    optimiser = AdamW(model.to(where), configs, where)
    within = torch.arange(first.n_ctx + 1, device=where)
    cast = torch.autocast(where.type, torch.bfloat16, enabled=first.precision == "bfloat16")

    losses_since, count_since = torch.zeros(len(members), device=where), torch.zeros(len(members), device=where)
    flops, clock, last_report = 0.0, time.perf_counter(), 0.0
    per_token = sum(accounting.training_flops(shape_of(first, corpus.vocab_size)).values())
    for step in range(1, max(config.steps for config in configs) + 1):
        starts = torch.from_numpy(np.stack([m.starts[step - 1] for m in members])).to(where)
        with cast:
            losses_since += backward(model, tokens[starts[..., None] + within])
        optimiser.step(torch.tensor([[learning_rate(m.config, step)] for m in members], device=where))
        count_since += 1
        flops += per_token * first.tokens_per_step * len(members)

        due = [k for k, m in enumerate(members) if step in m.measure_at]
        if due:
            with cast, optimiser.measured_weights():
                val = evaluate(model, len(members), windows)
            train_mean = losses_since / count_since
            for k in due:
                members[k].record(step, train_mean[k].item(), val[k].item())
                losses_since[k] = count_since[k] = 0
        now = time.perf_counter()
        for m in members:
            m.seconds += (now - clock) / len(members)
        clock = now
        if due or now - last_report > 1:
            report(Progress(tuple(m.config.id for m in members), step, max(m.config.steps for m in members), flops,
                            tuple(m.curve["val_loss"][-1] if m.curve["val_loss"] else math.nan for m in members)))
            last_report = now
        done = {k: status for k in due if (status := members[k].finished())}
        for k, status in done.items():
            m = members[k]
            yield Run(m.config, status, groups, accounting.count_compute(shape_of(m.config, corpus.vocab_size), step * first.tokens_per_step),
                      m.curve, step * first.tokens_per_step, m.unique_tokens, corpus.vocab_size, corpus.bytes_per_token,
                      device_name(where), round(m.seconds, 3), versions())
        if done:
            alive = [k for k in range(len(members)) if k not in done]
            if not alive:
                return
            members = [members[k] for k in alive]
            losses_since, count_since = losses_since[alive], count_since[alive]
            optimiser.keep(alive)


def backward(model: nn.Module, batch: Tensor) -> Tensor:
    """Gradients of one batch (K, B, T + 1); returns each member's mean loss (K,), free of the graph."""
    loss = token_losses(model(batch[..., :-1]), batch[..., 1:]).mean(dim=(1, 2))
    loss.sum().backward()
    return loss.detach()


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def versions() -> dict[str, str]:
    return {"minitransformer": __version__, "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__}
