"""RunConfig: everything that decides a run. Its hash is the run's identity."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, Mapping

from .. import accounting
from ..errors import UserError

CHOICES = {
    "arch": ("transformer", "lstm", "rhn", "resnet", "seq2seq", "ctc"),
    "tokenizer": ("byte", "char", "bpe", "word"),
    "optimiser": ("adamw", "sgd"),
    "schedule": ("cosine", "cooldown", "constant"),
    "precision": ("float32", "bfloat16", "float64"),
}
READS = {"resnet": ("images",), "seq2seq": ("translation", "speech"), "ctc": ("speech",)}  # the others read text
MAY_BE_ZERO = {"warmup_steps", "weight_decay", "seed", "cooldown", "average", "beta1", "beta2", "patience", "train_tokens", "vocab_size", "d_ff", "dropout", "eval_every",
               "noise_batches"}


@dataclass(frozen=True)
class RunConfig:
    """One training run. Two configs that differ anywhere are two runs; equal configs are one.

    A field left at its default is not part of the hash, so a field added later does not
    change the identity of runs already made. Defaults therefore never change.
    """

    # data
    corpus: str = "sotu"            # a name from `minitransformer data list`, or a path to a text file
    corpus_sha256: str = ""         # of a local file's text; named corpora are pinned by the kit
    tokenizer: str = "char"
    vocab_size: int = 0             # 0: what the tokenizer makes of the text (byte, char)
    train_tokens: int = 0           # D available: unique training tokens, or examples; 0: the whole training split
    # model
    arch: str = "transformer"
    n_layer: int = 2                # for arch "rhn": the depth of its recurrence; for "resnet": blocks in each of three stages
    d_model: int = 32
    n_head: int = 2
    d_ff: int = 0                   # 0: 4 d_model
    n_ctx: int = 128
    tie_embeddings: bool = False
    norm_output: bool = False       # for arch "lstm": normalise the last states before the head
    dropout: float = 0.0            # share of units set to zero, after the embedding and each layer's output
    # optimisation
    batch_size: int = 16            # sequences of n_ctx tokens, or examples, per step
    steps: int = 1000
    lr: float = 1e-2
    schedule: str = "cooldown"
    warmup_steps: int = 50
    cooldown: float = 0.3           # share of the steps spent decaying, for schedule "cooldown"
    weight_decay: float = 0.0
    optimiser: str = "adamw"
    beta1: float = 0.9              # for "sgd" the momentum
    beta2: float = 0.99
    clip: float = 1.0               # bound on the norm of each member's gradient
    average: float = 0.0            # measure the running mean of the weights over this share of the steps so far; 0: the last
    seed: int = 0
    precision: str = "float32"
    # evaluation
    eval_tokens: int = 102_400      # fixed windows from the validation split; of examples at most so many
    eval_ratio: float = 2.0         # between the steps at which the loss is measured
    eval_every: int = 0             # steps from one measurement to the next; 0: by eval_ratio
    also_on: str = ""               # other corpora whose validation text is measured too, joined by +: "sotu+sentences"
    noise_batches: int = 0          # batches whose gradients are compared at each measurement, for the noise scale; 0: none
    patience: int = 0               # evaluations without a better loss before stopping; 0: never stop

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if kind is float and type(value) is int:
                value = float(value)
                object.__setattr__(self, field.name, value)
            if type(value) is not kind:
                raise UserError(f"{field.name} = {value!r}: expected {kind.__name__}")
            if kind in (int, float):
                lowest_allowed = value >= 0 if field.name in MAY_BE_ZERO else value > 0
                if not (math.isfinite(value) and lowest_allowed):
                    raise UserError(f"{field.name} = {value!r}: expected a positive number")
            if field.name in CHOICES and value not in CHOICES[field.name]:
                raise UserError(f"{field.name} = {value!r}: expected one of {', '.join(CHOICES[field.name])}")
        if self.arch == "transformer" and self.d_model % self.n_head:
            raise UserError(f"n_head = {self.n_head} does not divide d_model = {self.d_model}")
        if self.tokenizer in ("bpe", "word") and not self.vocab_size:
            raise UserError(f"the {self.tokenizer} tokenizer needs a vocab_size")
        if self.eval_ratio <= 1:
            raise UserError(f"eval_ratio = {self.eval_ratio}: expected more than 1")
        for name in ("beta1", "beta2", "cooldown", "average"):
            if getattr(self, name) > 1:
                raise UserError(f"{name} = {getattr(self, name)}: expected at most 1")
        if self.noise_batches == 1:
            raise UserError("noise_batches = 1: expected 0, or at least 2 to compare")
        if self.dropout >= 1:
            raise UserError(f"dropout = {self.dropout}: expected less than 1")
        if not self.reads_text:
            for name in ("also_on", "tie_embeddings"):
                if getattr(self, name):
                    raise UserError(f"{name} is for models of language: arch {self.arch!r} reads {' or '.join(READS[self.arch])}")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RunConfig:
        unknown = set(fields) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise UserError(f"unknown setting {sorted(unknown)[0]!r}; RunConfig lists what there is")
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of the fields that are not at their defaults."""
        changed = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)
                   if getattr(self, f.name) != f.default}
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def others(self) -> tuple[str, ...]:
        """The corpora of `also_on`."""
        return tuple(filter(None, self.also_on.split("+")))

    @property
    def d_feedforward(self) -> int:
        return self.d_ff or 4 * self.d_model

    @property
    def reads_text(self) -> bool:
        """Whether it trains on windows of text; else on examples, and `tokens` counts these."""
        return self.arch not in READS

    @property
    def span(self) -> int:
        """How far what is drawn reaches beyond the token, or example, that it begins with."""
        return self.n_ctx if self.reads_text else 0

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * max(1, self.span)

    def shape(self, vocab_size: int, example: accounting.Example = accounting.Example()) -> accounting.Shape:
        """The dimensions that decide counts, with as many symbols as the tokenizer, or the target of the examples, has."""
        return accounting.Shape(self.arch, self.n_layer, self.d_model, vocab_size, self.n_ctx, self.d_feedforward,
                                tie_embeddings=self.tie_embeddings, example=example)

    @property
    def stack_key(self) -> tuple:
        """Runs with equal keys have one shape and may share a stack."""
        return (self.corpus, self.corpus_sha256, self.tokenizer, self.vocab_size, self.arch, self.n_layer,
                self.d_model, self.n_head, self.d_ff, self.n_ctx, self.tie_embeddings, self.norm_output, self.batch_size,
                self.dropout, self.precision, self.also_on, self.noise_batches, self.eval_tokens, self.average > 0, self.optimiser, self.beta1, self.beta2)
