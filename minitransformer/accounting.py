"""What a model holds and what it costs: parameters by group, FLOPs by component, every convention by name.

A multiply and an add are two FLOPs. Training costs three times the forward pass: the
backward pass is counted as two forward passes (Kaplan et al. 2020, §2.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

EMBEDDING_GROUPS = ("token_embedding", "position_embedding")
WINDOW = 11  # frames that a convolution over time sees at once (models/layers.py, Strided)


class Example(NamedTuple):
    """What one example of a data set holds, padding included; of text nothing."""

    input: tuple[int, ...] = ()  # its axes: (channels, height, width), (channels, length), (length,) of symbols, (frames, bands)
    symbols: int = 0             # how many there are that its input is made of; 0 where that is of numbers
    length: int = 1              # symbols of its target that are predicted


@dataclass(frozen=True)
class Shape:
    """The dimensions that decide counts. Transformer: d_attn = d_model unless given. RHN: n_layer is its depth."""

    arch: str
    n_layer: int
    d_model: int
    vocab_size: int
    n_ctx: int
    d_ff: int = 0
    d_attn: int = 0
    tie_embeddings: bool = False
    example: Example = Example()

    @property
    def feedforward(self) -> int:
        return self.d_ff or 4 * self.d_model

    @property
    def attention(self) -> int:
        return self.d_attn or self.d_model


def parameters(shape: Shape) -> dict[str, int]:
    """Parameters by group.

    Transformer: Kaplan et al. 2020, Table 1. LSTM: Hestness et al. 2019, 8 h² l and 2 h v. Recurrent highway network
    (Zilly et al. 2017, §4, carry gate 1 - t): R_H and R_T of each of n_layer micro-steps, and W_H and W_T of the first.
    Of what reads examples see models/resnet.py, seq2seq.py and ctc.py.
    """
    s = shape
    if s.arch in EXAMPLES:
        return {name: parts.parameters for name, parts in EXAMPLES[s.arch](s).items()}
    groups = {"token_embedding": s.vocab_size * s.d_model}
    if s.arch == "transformer":
        groups["position_embedding"] = s.n_ctx * s.d_model
        groups["attention"] = s.n_layer * (3 * s.d_model * s.attention + s.attention * s.d_model)
        groups["feed_forward"] = s.n_layer * 2 * s.d_model * s.feedforward
    elif s.arch == "rhn":
        groups["recurrent"] = (s.n_layer + 1) * 2 * s.d_model**2
        groups["recurrent_bias"] = s.n_layer * 2 * s.d_model
    else:
        groups["recurrent"] = s.n_layer * 8 * s.d_model**2
        groups["recurrent_bias"] = s.n_layer * 4 * s.d_model
    groups["head"] = 0 if s.tie_embeddings else s.d_model * s.vocab_size
    return groups


def count_parameters(groups: dict[str, int]) -> dict[str, int]:
    """The three conventions of N.

    N        non-embedding: no token or position embedding, no head (Kaplan et al. 2020, eq. 2.1); of networks for examples,
             too, every parameter but embeddings and head
    N_head   N with the head (the matrix from d_model to the vocabulary)
    N_total  every parameter (Hoffmann et al. 2022)
    """
    total = sum(groups.values())
    N = total - sum(groups.get(name, 0) for name in (*EMBEDDING_GROUPS, "head"))
    return {"N": N, "N_head": N + groups["head"], "N_total": total}


def forward_flops(shape: Shape) -> dict[str, int]:
    """Forward FLOPs by component: per token, or of what reads examples per example, its padding included.

    `scores` follows Kaplan's Table 1 (2 n_layer n_ctx d_attn): the two products of attention,
    averaged over a causal mask; so does `embedding` (4 d_model). `recurrent` counts products of matrices only, and so does
    all that reads examples.
    """
    if shape.arch in EXAMPLES:
        return {name: parts.flops for name, parts in EXAMPLES[shape.arch](shape).items() if parts.flops}
    groups = parameters(shape)
    flops = {"head": 2 * shape.d_model * shape.vocab_size}
    if shape.arch == "transformer":
        flops["embedding"] = 4 * shape.d_model
        flops["attention"] = 2 * groups["attention"]
        flops["scores"] = 2 * shape.n_layer * shape.n_ctx * shape.attention
        flops["feed_forward"] = 2 * groups["feed_forward"]
    else:
        flops["recurrent"] = 2 * groups["recurrent"]
    return flops


def widest(shape: Shape) -> int:
    """Numbers in the widest activation of one token or, of what reads examples, of one of these."""
    s = shape
    if s.arch == "resnet":
        return s.d_model * math.prod(s.example.input[1:])
    if s.arch in EXAMPLES:
        steps = _source(s)[0]
        return max(2 * 4 * s.d_model * steps, s.vocab_size * (s.example.length if s.arch == "seq2seq" else steps))
    return s.feedforward


def training_flops(shape: Shape) -> dict[str, int]:
    """Training FLOPs per token, or example, by component: three forward passes."""
    return {name: 3 * flops for name, flops in forward_flops(shape).items()}


def count_compute(shape: Shape, tokens: int) -> dict[str, int]:
    """The conventions of C, in FLOPs, for training on `tokens` tokens, or examples.

    C        6 N D (Kaplan et al. 2020, §2.1); of examples this is no compute, as they use a weight more than once: take C_total
    C_head   6 (N + head) D: with the last layer, the correction of Porian et al. 2024
    C_total  every component: attention scores and head included
    """
    counts = count_parameters(parameters(shape))
    head = forward_flops(shape)["head"]
    return {
        "C": 6 * counts["N"] * tokens,
        "C_head": (6 * counts["N"] + 3 * head) * tokens,
        "C_total": sum(training_flops(shape).values()) * tokens,
    }


class Parts(NamedTuple):
    """Of one group: parameters, and FLOPs of their products with one example."""

    parameters: int
    flops: int = 0


def _resnet(s: Shape) -> dict[str, Parts]:
    (channels, *places), width, weights, flops, biases = s.example.input, s.d_model, 0, 0, 0
    for stage in range(3):
        out = s.d_model * 2**stage
        places = [-(-side // 2) for side in places] if stage else places
        for fan_in in [channels] * (stage == 0) + [width] + [out] * (2 * s.n_layer - 1):
            weights += (size := fan_in * 3 ** len(places) * out)
            flops += 2 * size * math.prod(places)
            biases += out
        width = out
    return {"convolution": Parts(weights, flops), "convolution_bias": Parts(biases), "head": Parts(width * s.vocab_size, 2 * width * s.vocab_size)}


def _source(s: Shape) -> tuple[int, dict[str, Parts]]:
    """Steps of the input as an encoder reads it, and what brings them to its width."""
    if s.example.symbols:
        return s.example.input[0], {"token_embedding": Parts(s.example.symbols * s.d_model)}
    frames, bands = s.example.input
    weights, steps = bands * WINDOW * s.d_model, -(-frames // 2)
    return steps, {"convolution": Parts(weights, 2 * weights * steps)}


def _lstm(s: Shape, directions: int, steps: int) -> tuple[Parts, Parts]:
    """Weights and biases of n_layer layers."""
    layers = s.n_layer * directions
    return Parts(layers * 8 * s.d_model**2, 2 * layers * 8 * s.d_model**2 * steps), Parts(layers * 4 * s.d_model)


def _seq2seq(s: Shape) -> dict[str, Parts]:
    (steps, groups), d, said = _source(s), s.d_model, s.example.length
    groups["token_embedding"] = Parts(groups.get("token_embedding", Parts(0)).parameters + s.vocab_size * d)
    groups["encoder"], groups["encoder_bias"] = _lstm(s, 2, steps)
    groups["decoder"], groups["decoder_bias"] = _lstm(s, 1, said)
    groups["summary"] = Parts(d * d, 2 * d * d)
    groups["attention"] = Parts(3 * d * d, 2 * 3 * d * d * said)
    groups["scores"] = Parts(0, 2 * 2 * steps * d * said)
    return {**groups, "head": Parts(d * s.vocab_size, 2 * d * s.vocab_size * said)}


def _ctc(s: Shape) -> dict[str, Parts]:
    steps, groups = _source(s)
    groups["recurrent"], groups["recurrent_bias"] = _lstm(s, 2, steps)
    return {**groups, "head": Parts(s.d_model * s.vocab_size, 2 * s.d_model * s.vocab_size * steps)}


EXAMPLES = {"resnet": _resnet, "seq2seq": _seq2seq, "ctc": _ctc}
