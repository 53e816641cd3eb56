"""The one training loop: a stack of configurations of one shape in, one run for each out.

A stack has rows and members. A row is one training: weights, moments, an order of batches. A member is one config, and what is
recorded of it. Members whose trainings have been the same so far share a row: with the schedule "cooldown", runs that differ
in length alone are one trunk at a constant rate until the shortest begins to cool down, and there it branches off with a copy
of the row. The result is the same to the last bit as if each had been trained from scratch.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .. import accounting
from ..data.text import Corpus, load_corpus
from ..errors import UserError
from ..models.ctc import CTC
from ..models.layers import initialise, set_step
from ..models.lstm import LSTM
from ..models.resnet import ResNet
from ..models.rhn import RHN
from ..models.seq2seq import Seq2Seq
from ..models.transformer import Transformer
from .checkpoint import Checkpoint, pack, unpack
from .config import RunConfig
from .evaluation import evaluate, fixed_windows, gradient_norms, other_windows, window_loss
from .machine import device_name, peak_flops, versions
from .optimiser import Optimiser, state_names
from .run import Run
from .schedules import evaluation_steps, last_constant_step, learning_rate, trunk_key
from .tasks import Task, check_domain, measuring_flops, task_of

CHECKPOINT_SECONDS = 60.0  # between two writings of a stack's state
BLOCK = 256                # steps whose batches are drawn together


@dataclass(frozen=True)
class Progress:
    """Where a stack is: ids of the runs still training, step of the longest, FLOPs done and the latest losses."""

    ids: tuple[str, ...]
    step: int
    steps: int
    flops: float
    losses: tuple[float, ...]


def build_model(config: RunConfig, vocab_size: int, K: int = 1, example: accounting.Example = accounting.Example()) -> nn.Module:
    """K uninitialised models of the shape that a config and, where it reads examples, one of these describe."""
    if config.arch == "transformer":
        return Transformer(K, vocab_size, config.n_ctx, config.n_layer, config.d_model, config.n_head,
                           config.d_feedforward, config.tie_embeddings, config.dropout)
    if config.arch == "resnet":
        channels, *places = example.input
        return ResNet(K, vocab_size, channels, len(places), config.n_layer, config.d_model, config.dropout)
    if config.arch == "seq2seq":
        return Seq2Seq(K, vocab_size, example.symbols or example.input[-1], bool(example.symbols), config.n_layer, config.d_model, config.dropout)
    if config.arch == "ctc":
        return CTC(K, vocab_size, example.input[-1], config.n_layer, config.d_model, config.dropout)
    if config.arch == "rhn":
        return RHN(K, vocab_size, config.n_layer, config.d_model, config.tie_embeddings, config.dropout)
    return LSTM(K, vocab_size, config.n_layer, config.d_model, config.tie_embeddings, config.dropout, config.norm_output)


@dataclass
class _Member:
    """One config's share of the loop: its row in the stack, and what has been recorded of it."""

    config: RunConfig
    row: int
    curve: dict[str, list[float]] = field(default_factory=dict)
    by_position: list[float] | None = None  # the latest losses, by position in the context
    seconds: float = 0.0                    # its share of the stack's
    flops: float = 0.0                      # likewise
    measured: tuple[int, float] = (0, 0.0)  # step of the latest measurement, and the sum of the row's training losses then

    def __post_init__(self):
        self.measure_at = frozenset(evaluation_steps(self.config))

    def record(self, step: int, total: float, by_position: list[float] | None, measured: dict[str, float]) -> None:
        """total: sum of the row's training losses of all steps so far; what is kept is the mean since the last measurement."""
        before, total_before = self.measured
        values = {"step": step, "tokens": step * self.config.tokens_per_step, "train_loss": (total - total_before) / (step - before), **measured}
        for name, value in values.items():
            self.curve.setdefault(name, []).append(value)
        self.by_position, self.measured = by_position, (step, total)

    def finished(self) -> str | None:
        """The status if this member is done after its latest measurement, else None."""
        losses = self.curve["val_loss"]
        if not (math.isfinite(losses[-1]) and math.isfinite(self.curve["train_loss"][-1])):
            return "diverged"
        if self.curve["step"][-1] == self.config.steps:
            return "complete"
        since_best = len(losses) - 1 - losses.index(min(losses))
        return "complete" if self.config.patience and since_best >= self.config.patience else None


class Windows:
    """Text, as windows of n_ctx + 1 tokens: one for each batch's place and, spread over the validation split, those that are measured.

    Also of the texts of `also_on`, as columns loss_on_NAME.
    """

    example = accounting.Example()

    def __init__(self, configs: Sequence[RunConfig], where: torch.device):
        first = configs[0]
        check_domain(first)
        corpus = load_corpus(first.corpus, first.tokenizer, first.vocab_size or None)
        self.fingerprint, self.vocab_size, self.bytes_per_token = corpus.fingerprint, corpus.vocab_size, corpus.bytes_per_token
        self.unique = {config: _unique_tokens(config, corpus) for config in configs}
        self.tokens = torch.from_numpy(corpus.train[: max(self.unique.values())].astype(np.int64)).to(where)
        self.within = torch.arange(first.n_ctx + 1, device=where)
        self.windows, *others = (torch.from_numpy(found.astype(np.int64)).to(where) for found in (
            fixed_windows(corpus.val, first.n_ctx, first.eval_tokens),
            *(other_windows(corpus, name, first.n_ctx, first.eval_tokens) for name in first.others)))
        self.others = dict(zip(first.others, others))

    def batch(self, first: Tensor) -> Tensor:
        """(K, B, 1) -> (K, B, n_ctx + 1)."""
        return self.tokens[first + self.within]

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return window_loss(model, batch)

    def measure(self, model: nn.Module, K: int) -> tuple[dict[str, Tensor], Tensor]:
        by_position = evaluate(model, K, self.windows)
        others = {f"loss_on_{name}": evaluate(model, K, windows).mean(dim=1) for name, windows in self.others.items()}
        return {"val_loss": by_position.mean(dim=1), **others}, by_position


def task_for(configs: Sequence[RunConfig], where: torch.device) -> Task:
    """What a stack trains on and is measured on, on a device. Raises UserError."""
    return Windows(configs, where) if configs[0].reads_text else task_of(configs, where)


class _Batches:
    """What every place of every batch of a row begins with: uniform over the row's unique tokens, or examples, from the seed alone."""

    def __init__(self, config: RunConfig, unique: int):
        self.order = np.random.default_rng([config.seed, 1])
        self.highest, self.shape, self.drawn = unique - config.span, (BLOCK, config.batch_size), 0

    def at(self, step: int) -> np.ndarray:
        """(batch_size,) first tokens, or examples, of update number `step`; steps are asked for in order."""
        while self.drawn < step:
            self.block = self.order.integers(0, self.highest, size=self.shape)
            self.drawn += BLOCK
        return self.block[step - 1 - self.drawn]


def _noise_batches(rows: Sequence[RunConfig], unique: dict[RunConfig, int], step: int) -> Iterator[np.ndarray]:
    """(rows, batch_size) first tokens, or examples, of each batch whose gradients are compared at this step, in an order of its own."""
    draws = [np.random.default_rng([row.seed, 2, step]).integers(0, unique[row] - row.span, size=(row.noise_batches, row.batch_size)) for row in rows]
    yield from np.stack(draws, axis=1)


class _Update:
    """One step of every row. On a card it is recorded once (CUDA graph) and replayed, so tiny models do not wait for launches."""

    WARM_UP = 3  # steps before the recording

    def __init__(self, model: nn.Module, optimiser: Optimiser, task: Task, rows: Sequence[RunConfig], total: Tensor):
        first, where = rows[0], total.device
        self.model, self.optimiser, self.task, self.total = model, optimiser, task, total
        self.starts = torch.zeros(len(rows), first.batch_size, 1, dtype=torch.int64, device=where)
        self.rates = torch.zeros(len(rows), 1, dtype=optimiser.state["weights"].dtype, device=where)
        self.seeds = torch.tensor([[row.seed % 2**31] for row in rows], dtype=torch.int32, device=where)
        self.cast = lambda: autocast(first, where)
        self.dropout = first.dropout > 0
        self.calls, self.graph = 0, None
        self.stream = torch.cuda.Stream(where) if where.type == "cuda" else None

    def __call__(self, starts: Sequence[np.ndarray], rates: Sequence[float]) -> None:
        self.starts.copy_(torch.from_numpy(np.stack(starts))[..., None])
        self.rates.copy_(torch.tensor(rates, dtype=self.rates.dtype)[:, None])
        self.calls += 1
        if self.stream is None:
            self._run()
        elif self.graph is not None:
            self.graph.replay()
        elif self.calls <= self.WARM_UP:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self._run()
            torch.cuda.current_stream().wait_stream(self.stream)
        else:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self._run()
            self.graph.replay()

    def _run(self) -> None:
        if self.dropout:
            set_step(self.model, self.seeds, self.optimiser.updates.to(torch.int32))
        with self.cast():
            self.total += backward(self.model, self.task.batch(self.starts), self.task)
        self.optimiser.step(self.rates)


def autocast(config: RunConfig, device: torch.device):
    """bfloat16 arithmetic on float32 master weights where the config asks for it."""
    if config.precision != "bfloat16":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=device.type == "cpu")


def backward(model: nn.Module, batch: Any, task: Task) -> Tensor:
    """Gradients of one batch; returns each member's mean loss (K,), free of the graph."""
    loss = task.loss(model, batch)
    loss.sum().backward()
    return loss.detach()


def train(configs: Sequence[RunConfig], device: str = "cpu",
          report: Callable[[Progress], None] = lambda progress: None, checkpoint: Checkpoint | None = None,
          witness: Callable[[nn.Module, Tensor], None] = lambda model, losses: None) -> Iterator[Run]:
    """Train one stack; yield each member's Run as soon as that member is done.

    The configs share a shape (`RunConfig.stack_key`) and may differ in seed, learning rate,
    schedule, horizon, data size and patience. Members never influence one another: a member
    that diverges or stops early leaves the stack and the others go on.

    checkpoint: where the state is kept about once a minute. Training goes on from the state found there
    when it holds every one of these configs; other members in it are dropped.

    witness: shown each measurement, the model with the rows that are due and the weights that are measured, and their
    validation losses (rows,). What it keeps it must copy.
    """
    if len({config.stack_key for config in configs}) != 1:
        raise UserError("the configs of a stack must share data, model shape, batch size and precision")
    first, where = configs[0], torch.device(device)
    if where.type == "cuda":
        where = torch.device("cuda", where.index or 0)
        torch.cuda.set_device(where)
    task = task_for(configs, where)
    if first.corpus_sha256 and first.corpus_sha256 != task.fingerprint:
        raise UserError(f"{first.corpus} has changed since this sweep was planned; start a new sweep")
    unique, shape = task.unique, first.shape(task.vocab_size, task.example)
    groups = accounting.parameters(shape)
    flops_per_step = sum(accounting.training_flops(shape).values()) * first.tokens_per_step

    kept = _restore(checkpoint.read() if checkpoint is not None else None, configs, sum(groups.values()))
    members, step, tensors = kept or (_start(configs), 0, {})
    rows = _row_configs(members)
    model = build_model(first, task.vocab_size, len(rows), task.example).to(torch.float64 if first.precision == "float64" else torch.float32)
    counted = sum(p[0].numel() for p in model.parameters())
    assert counted == sum(groups.values()), f"counted {counted} parameters, groups sum to {sum(groups.values())}"
    initialise(model, [config.seed for config in rows])
    optimiser = Optimiser(model.to(where), rows, where)
    total = torch.zeros(len(rows), dtype=torch.float64, device=where)  # of each row's training losses
    if tensors:
        total = tensors.pop("total").to(where)
        optimiser.restore(tensors)
    batches = {config: _Batches(config, unique[config]) for config in rows}
    update = _Update(model, optimiser, task, rows, total)
    peak = peak_flops(where, first.precision)
    partings = {last_constant_step(m.config) + 1 for m in members}

    def rearrange(order: list[int]) -> None:
        nonlocal rows, total, batches, update
        changed, rows = order != list(range(len(rows))), _row_configs(members)
        batches = {config: batches.get(config) or _Batches(config, unique[config]) for config in rows}
        if changed:
            optimiser.rearrange(order)
            total = total[order]
            update = _Update(model, optimiser, task, rows, total)

    spent, clock = 0.0, time.perf_counter()
    last_report = last_saved = clock
    while members:
        step += 1
        if step in partings and (leaving := _leaving(members, step)):
            order = [*range(len(rows)), *(m.row for m in leaving)]
            for row, m in enumerate(leaving, len(rows)):
                m.row = row
            rearrange(order)
        update([batches[config].at(step) for config in rows], [learning_rate(config, step) for config in rows])

        due = [m for m in members if step in m.measure_at]
        if due:
            due_rows = sorted({m.row for m in due})
            with autocast(first, where), optimiser.measured(due_rows):
                found, by_position = task.measure(model, len(due_rows))
                witness(model, found["val_loss"])
                if first.noise_batches:
                    found |= zip(("norm2_batch", "norm2_all"), gradient_norms(model, (
                        task.batch(torch.from_numpy(starts)[..., None].to(where))
                        for starts in _noise_batches([rows[row] for row in due_rows], unique, step)), task.loss))
            totals, found = total.tolist(), {name: values.tolist() for name, values in found.items()}
            for m in due:
                at = due_rows.index(m.row)
                m.record(step, totals[m.row], None if by_position is None else [round(loss, 5) for loss in by_position[at].tolist()],
                         {name: values[at] for name, values in found.items()})
        now = time.perf_counter()
        for m in members:
            m.seconds += (now - clock) / len(members)
            m.flops += flops_per_step * len(rows) / len(members)
        clock = now
        if due or now - last_report > 1:
            report(Progress(tuple(m.config.id for m in members), step, max(m.config.steps for m in members),
                            sum(m.flops for m in members) + spent,
                            tuple((m.curve.get("val_loss") or [math.nan])[-1] for m in members)))
            last_report = now

        done = [(m, status) for m in due if (status := m.finished())]
        for m, status in done:
            members.remove(m)
            spent += m.flops
            seen = step * first.tokens_per_step
            compute = accounting.count_compute(shape, seen) | ({} if first.reads_text else {"C_measure": measuring_flops(first, shape)})
            yield Run(m.config, status, groups, compute, m.curve, seen, unique[m.config],
                      task.vocab_size, task.bytes_per_token, device_name(where), round(m.seconds, 3), versions(),
                      round(m.flops / max(m.seconds, 1e-9) / peak, 4), m.by_position)
        if done and members:
            alive = sorted({m.row for m in members})
            for m in members:
                m.row = alive.index(m.row)
            rearrange(alive)
            clock = time.perf_counter()
        if checkpoint is not None and members and now - last_saved > CHECKPOINT_SECONDS:
            checkpoint.write(pack({**optimiser.state, "updates": optimiser.updates, "total": total}, _facts(members, step)))
            last_saved = time.perf_counter()


def _unique_tokens(config: RunConfig, corpus: Corpus) -> int:
    corpus.require(config.train_tokens, config.eval_tokens)
    unique = config.train_tokens or len(corpus.train)
    if unique < config.n_ctx + 1:
        raise UserError(f"train_tokens = {unique} is less than one window of n_ctx + 1 = {config.n_ctx + 1} tokens")
    return unique


def _start(configs: Sequence[RunConfig]) -> list[_Member]:
    trunks = list(dict.fromkeys(map(trunk_key, configs)))
    return [_Member(config, trunks.index(trunk_key(config))) for config in configs]


def _row_configs(members: Sequence[_Member]) -> list[RunConfig]:
    """The config that each row follows: of those that share it, the one that keeps the constant rate longest."""
    longest: dict[int, RunConfig] = {}
    for m in members:
        if m.row not in longest or last_constant_step(m.config) > last_constant_step(longest[m.row]):
            longest[m.row] = m.config
    return [longest[row] for row in sorted(longest)]


def _leaving(members: Sequence[_Member], step: int) -> list[_Member]:
    """Members that part at this step from others of their row which stay; where all part, the last keeps the row."""
    leaving: list[_Member] = []
    for m in members:
        if last_constant_step(m.config) == step - 1:
            stay = [other for other in members if other.row == m.row and other is not m and other not in leaving]
            leaving += [m] if stay else []
    return leaving


def _facts(members: Sequence[_Member], step: int) -> dict[str, Any]:
    recorded = ("row", "curve", "by_position", "seconds", "flops", "measured")
    return {"step": step, "members": [{"config": m.config.to_dict(), **{name: getattr(m, name) for name in recorded}} for m in members]}


def _restore(data: bytes | None, configs: Sequence[RunConfig], size: int) -> tuple[list[_Member], int, dict[str, Tensor]] | None:
    """Members, the step they are at and the tensors of their rows, from a checkpoint.

    None where it is damaged, does not hold every config, or holds models of other than `size` parameters.
    """
    if data is None:
        return None
    try:
        tensors, facts = unpack(data)
        kept = {RunConfig.from_dict(member.pop("config")): member for member in facts["members"]}
        members = [_Member(config, **kept[config]) for config in configs]
        if any(tensors[name].shape[1:] != (size,) for name in state_names(configs[0])) or tensors["updates"] != facts["step"] or "total" not in tensors:
            return None
        alive = sorted({m.row for m in members})
        for m in members:
            m.row, m.measured = alive.index(m.row), tuple(m.measured)
        return members, facts["step"], {name: tensor[alive] if tensor.ndim else tensor for name, tensor in tensors.items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, UserError):
        return None
