"""Figures of chapter V's last part: exponents beside those of the papers, and what a vocabulary does to them."""

from __future__ import annotations

from typing import Sequence

import numpy as np
from matplotlib.figure import Figure

from minitransformer import papers
from minitransformer.claims import disagreement
from minitransformer.laws.law import Estimate, Law

from .style import GREY, OURS, PAPER, SERIES, drawing, log, note

DASHED = (0, (5, 3))


def published(key: str) -> Estimate:
    """A published number as an estimate, with the paper's interval where it gives one."""
    found = papers.get(key)
    return Estimate(found.value, found.low, found.high)


def exponents_figure(rows: Sequence[tuple[str, Estimate, Estimate | None]], xlabel: str, ours: str = "ours",
                     theirs: str = "paper") -> Figure:
    """Exponents with their intervals, one below the other, a paper's beside ours; what is not identified says so."""
    with drawing(size=(5.6, 1.3 + 0.62 * len(rows))) as (figure, (axis,)):
        for i, (label, mine, other) in enumerate(rows):
            if mine.value is not None:
                bar = [[mine.value - mine.low], [mine.high - mine.value]]
                axis.errorbar(mine.value, i - 0.1, xerr=bar, fmt="o", color=OURS, capsize=4, ms=6)
            else:
                axis.annotate("not identified", (0.5, i - 0.1), xycoords=("axes fraction", "data"), color=OURS, ha="center",
                              va="center")
            if other is not None and other.value is not None:
                bar = None if other.low is None else [[max(other.value - other.low, 0)], [max(other.high - other.value, 0)]]
                axis.errorbar(other.value, i + 0.18, xerr=bar, fmt="D", color=PAPER, mfc="white", capsize=4, ms=5, ls=DASHED)
        axis.set_yticks(range(len(rows)), [label for label, *_ in rows])
        axis.set_ylim(len(rows) - 0.5, -1.15)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(xlabel)
        axis.margins(x=0.08)
        axis.annotate(f"● {ours}", (0.01, 0.99), xycoords="axes fraction", va="top", color=OURS)
        axis.annotate(f"◇ {theirs}", (0.99, 0.99), xycoords="axes fraction", va="top", ha="right", color=PAPER)
    return figure


def steps_figure(found: Sequence[disagreement.Stepped]) -> Figure:
    """The exponent of the best size as the set-up changes, one thing at a time, beside Porian et al. 2024 on web text."""
    rows = []
    for stepped in found:
        rows.append((stepped.step.short, stepped.a, published(f"porian2024.refinedweb.{stepped.published}")))
    return exponents_figure(rows, "exponent of the best size in compute", "our runs", "Porian et al. 2024")


def vocabulary_figure(found: Sequence[disagreement.Vocabulary], law: Law | None = None) -> Figure:
    """The exponent of the best size without embeddings for each vocabulary, against that size, and what embeddings alone predict.

    Bars: measured, over the range of best sizes and with its 95 % interval. Lines: the local exponent that Pearce & Song's
    argument makes of `law`. The grey line is the law's exponent with all parameters counted.
    """
    with drawing() as (figure, (axis,)):
        log(axis, "x")
        N = np.geomspace(100, 1e7, 200)
        alpha, beta = ((law.parameters[name].value for name in ("alpha", "beta")) if law is not None and law.ok else (None, None))
        texts = []
        for vocabulary, colour in zip(found, SERIES):
            if alpha:
                axis.plot(N, disagreement.local_exponent(N, vocabulary.width_share, alpha, beta), color=colour, lw=1.3, ls=DASHED)
            a = vocabulary.a
            if a.value is not None:
                low, high = vocabulary.N
                axis.errorbar(np.sqrt(low * high), a.value, [[a.value - a.low], [a.high - a.value]], fmt="o", color=colour,
                              capsize=4, ms=6, zorder=5)
                axis.plot([low, high], [a.value, a.value], color=colour, lw=2.4)
            texts.append((f"● {vocabulary.name}" if a.value is not None else f"{vocabulary.name}: not identified", colour))
        if alpha:
            axis.axhline(beta / (alpha + beta), color=GREY, lw=1.2)
            texts.append(("dashed: expected; grey: all parameters", GREY))
        axis.set(xlabel="best size, N without embeddings", ylabel="exponent of the best size")
        low, high = axis.get_ylim()
        axis.set_ylim(low, high + 0.075 * len(texts) * (high - low))
        note(axis, texts)
    return figure
