"""What the loop asks of a domain. Text is `loop.Windows`; here are the data sets of examples.

A task holds, on the training's device, what its stack trains on and what it is measured on. Batches are gathered by index
alone, so that a card can record them. Every loss is in nats per symbol of the target (of an image: per image).
"""

from __future__ import annotations

from typing import Any, Protocol, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..accounting import Example, Shape, forward_flops
from ..data import examples
from ..data.examples import Examples
from ..data.sources import domain_of
from ..data.text import Corpus, load_corpus
from ..errors import UserError
from ..models.ctc import ctc_losses, edit_distance, letters_of
from .config import READS, RunConfig
from .evaluation import token_losses

PAD, BEGIN, END = 0, 1, 2  # of every target but an image's
CHUNK = 64                 # examples of each member that are measured together on a CPU


class Task(Protocol):
    """What a stack trains on and is measured on."""

    fingerprint: str
    vocab_size: int                   # symbols of the target
    bytes_per_token: float | None
    example: Example
    unique: dict[RunConfig, int]      # tokens, or examples, that each config has to draw from

    def batch(self, first: Tensor) -> Any:
        """What begins at these tokens or examples, (K, B, 1)."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Each member's mean loss of a batch, (K,)."""

    def measure(self, model: nn.Module, K: int) -> tuple[dict[str, Tensor], Tensor | None]:
        """On validation data, without dropout: val_loss and further columns of the curve, each (K,); the loss by position, if any."""


def check_domain(config: RunConfig) -> None:
    """Raises UserError where the arch does not read what the corpus is."""
    domain, reads = domain_of(config.corpus), READS.get(config.arch, ("text",))
    if domain not in reads:
        raise UserError(f"arch {config.arch!r} reads {' or '.join(reads)}, and {config.corpus!r} is {domain}")


def load_data(config: RunConfig) -> Corpus | Examples:
    """What a config trains on. Raises UserError."""
    check_domain(config)
    return load_corpus(config.corpus, config.tokenizer, config.vocab_size or None) if config.reads_text else examples.load_examples(config.corpus)


def shape_of(config: RunConfig) -> Shape:
    """The dimensions of a config's model, from its data. Raises UserError."""
    if config.reads_text and config.vocab_size:
        return config.shape(config.vocab_size)
    data = load_data(config)
    if isinstance(data, Corpus):
        return config.shape(data.vocab_size)
    return config.shape(len(data.symbols["target"]), example_of(config, data))


def example_of(config: RunConfig, data: Examples) -> Example:
    length = data.train["target"].shape[1] if data.domain != "images" else 1
    length += {"seq2seq": {"speech": 1, "translation": -1}}.get(config.arch, {}).get(data.domain, 0)
    return Example(data.train["input"].shape[1:], len(data.symbols.get("input", ())), length)


def measured(config: RunConfig) -> int:
    """Tokens, or examples, on which the loss is measured each time."""
    return config.eval_tokens * (1 + len(config.others)) if config.reads_text else min(config.eval_tokens, len(load_data(config).val["target"]))


def measuring_flops(config: RunConfig, shape: Shape) -> int:
    """FLOPs of one measurement of the loss."""
    return measured(config) * sum(forward_flops(shape).values())


def task_of(configs: Sequence[RunConfig], where: torch.device) -> Task:
    """The task of a stack of configs that read examples."""
    data = load_data(configs[0])
    kind = {"images": Images, "translation": Sentences, "speech": Transcripts if configs[0].arch == "ctc" else Sentences}[data.domain]
    return kind(configs, data, where)


class _Drawn:
    """Examples, each a row of every array: what the domains have in common."""

    bytes_per_token = None

    def __init__(self, configs: Sequence[RunConfig], data: Examples, where: torch.device):
        first, there = configs[0], len(data.train["target"])
        for config in configs:
            if config.train_tokens > there:
                raise UserError(f"Too few examples: the train split of {data.name!r} has {there:,}, and {config.train_tokens:,} were asked for")
        self.unique = {config: config.train_tokens or there for config in configs}
        self.fingerprint, self.vocab_size, self.example = data.fingerprint, len(data.symbols["target"]), example_of(first, data)
        rows = np.linspace(0, len(data.val["target"]) - 1, measured(first)).astype(np.int64)
        self.train = self.arrays({name: array[:max(self.unique.values())] for name, array in data.train.items()}, data, where)
        self.val = self.arrays({name: array[rows] for name, array in data.val.items()}, data, where)

    def arrays(self, split: dict[str, np.ndarray], data: Examples, where: torch.device) -> dict[str, Tensor]:
        """Numbers as they are stored, to be made larger batch by batch; whatever is an index as int64."""
        indices = {name: array.astype(np.int64) for name, array in split.items() if name != "input" or data.symbols.get("input")}
        return {name: torch.from_numpy(np.array(array)).to(where) for name, array in {**split, **indices}.items()}

    def batch(self, first: Tensor) -> dict[str, Tensor]:
        """Arrays (K, B, ...)."""
        return {name: array[first[..., 0]] for name, array in self.train.items()}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        found, symbols = self.judge(model, batch, only_loss=True)
        return found["val_loss"] / symbols

    def measure(self, model: nn.Module, K: int) -> tuple[dict[str, Tensor], None]:
        training, total, count = model.training, {}, 0
        chunk = CHUNK if self.val["target"].device.type == "cpu" else max(CHUNK, 4096 // K)
        model.eval()
        with torch.no_grad():
            for rows in torch.arange(len(self.val["target"])).split(chunk):
                batch = {name: array[rows].expand(K, len(rows), *array.shape[1:]) for name, array in self.val.items()}
                found, symbols = self.judge(model, batch)
                count = count + symbols
                for name, value in found.items():
                    total[name] = total.get(name, 0) + value.double()
        model.train(training)
        return {name: value / count for name, value in total.items()}, None

    def judge(self, model: nn.Module, batch: dict[str, Tensor], only_loss: bool = False) -> tuple[dict[str, Tensor], Tensor]:
        """Sums over a batch, each (K,): the loss as `val_loss` and, unless that is all, what is wrong; and the number of symbols, (K,)."""
        raise NotImplementedError


class _Answers(_Drawn):
    """A distribution over symbols in every place of the target, and one of them is right: images, and translation with teacher forcing."""

    tops: dict[str, int]

    def answers(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (K, B, ..., V), targets (K, B, ...) and which of them count."""
        raise NotImplementedError

    def judge(self, model, batch, only_loss=False):
        logits, targets, real = self.answers(model, batch)
        found = {"val_loss": token_losses(logits, targets) * real}
        if not only_loss:
            better = (logits > logits.gather(-1, targets[..., None])).sum(dim=-1)
            found |= {name: (better >= top) & real for name, top in self.tops.items()}
        return {name: value.flatten(1).sum(dim=1) for name, value in found.items()}, real.flatten(1).sum(dim=1)


class Images(_Answers):
    """`error` is the share of images whose class is not the likeliest, `error5` that whose class is not among the five likeliest."""

    tops = {"error": 1, "error5": 5}

    def answers(self, model, batch):
        return model(batch["input"]), batch["target"], torch.ones_like(batch["target"], dtype=torch.bool)


class Sentences(_Answers):
    """A sentence for each example, of which every symbol is predicted from the true ones before it: `error` is the share of wrong ones."""

    tops = {"error": 1}

    def arrays(self, split, data, where):
        if data.domain == "speech":  # what is said is letters only: it gets a begin and an end
            target = np.pad(split["target"].astype(np.int64), ((0, 0), (1, 1)), constant_values=((PAD, PAD), (BEGIN, PAD)))
            target[np.arange(len(target)), (target != PAD).sum(axis=1)] = END
            split = {**split, "target": target}
        return super().arrays(split, data, where)

    def answers(self, model, batch):
        said, targets = batch["target"][..., :-1], batch["target"][..., 1:]
        return model(batch["input"], said, batch.get("frames")), targets, targets != PAD


class Transcripts(_Drawn):
    """Letters without their places in time (CTC): `error` is the edit distance of the likeliest path's letters, per letter of the target."""

    def judge(self, model, batch, only_loss=False):
        outputs = model(batch["input"], batch["frames"])
        targets = batch["target"]
        found = {"val_loss": ctc_losses(outputs, targets)}
        if not only_loss:
            found["error"] = edit_distance(letters_of(outputs), targets)
        return {name: value.sum(dim=1) for name, value in found.items()}, (targets != PAD).sum(dim=(1, 2))
