"""Figures of chapter V's last part: exponents beside those of the papers, and what a vocabulary does to them."""

from __future__ import annotations

from typing import Sequence

from matplotlib.figure import Figure

from minitransformer import papers
from minitransformer.claims import disagreement
from minitransformer.laws.law import Estimate

from .style import HELD_OUT, OURS, PAPER, drawing, note

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


def vocabulary_figure(found: Sequence[disagreement.Vocabulary]) -> Figure:
    """The exponent of the best size for each vocabulary, from the same runs: without and with embeddings, and what they explain."""
    with drawing(1, 1, (5.6, 0.9 + 0.95 * len(found))) as (figure, (axis,)):
        for i, v in enumerate(found):
            for estimate, place, colour, mark in ((v.a, -0.2, OURS, "o"), (v.a_total, 0.2, HELD_OUT, "s"), (v.expected, 0.0, PAPER, "D")):
                if estimate.value is None:
                    continue
                if mark != "D":
                    axis.plot([estimate.low, estimate.high], [i + place] * 2, color=colour, lw=1.8)
                axis.plot(estimate.value, i + place, mark, color=colour, mfc=colour if mark != "D" else "white", ms=6, zorder=5)
        axis.set_yticks(range(len(found)), [v.name if v.a.value is not None else f"{v.name}\nnot identified" for v in found])
        axis.set_ylim(len(found) - 0.5, -1.45)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("exponent of the best size in compute")
        axis.margins(x=0.08)
        note(axis, [("● counted without embeddings", OURS), ("■ all parameters counted", HELD_OUT),
                    ("◇ without, as expected from embeddings alone", PAPER)])
    return figure
