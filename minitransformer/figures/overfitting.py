"""Figures of chapter III: loss against size and unique text, and how far limited text is from unlimited."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from minitransformer import papers
from minitransformer.claims import overfitting as chapter
from minitransformer.errors import UserError
from minitransformer.laws.formulas import data_to_avoid_overfitting
from minitransformer.laws.law import Estimate, Law, short

from .style import GREY, OURS, PAPER, SERIES, drawing, log, note

if TYPE_CHECKING:
    import pandas as pd

TEXT, SIZE, LOSS = "unique training text, D (characters)", "non-embedding parameters, N", "validation loss (nats per character)"
DASHES = (0, (5, 3))
SHADES = tuple(colour for colour in SERIES if colour != PAPER)


def colours(sizes) -> dict[float, str]:
    """A colour for each size, small to large, the same in every figure of the chapter."""
    return dict(zip(sorted(set(map(float, sizes))), SHADES * 4))


def size_lines(shades: dict[float, str]) -> list[tuple[str, str]]:
    return [(f"N = {short(N)}", colour) for N, colour in shades.items()]


def place(axis: Axes, lines: Sequence[tuple[str, str]], corner: str) -> None:
    """`note` in the corners that a rising curve leaves free: "upper left" or "lower right"."""
    upper = corner == "upper left"
    for i, (text, colour) in enumerate(lines):
        down = i if upper else i - len(lines) + 1
        axis.annotate(
            text, (0.015, 0.98) if upper else (0.985, 0.02), xycoords="axes fraction", xytext=(0, -15 * down - 4 * upper),
            textcoords="offset points", ha="left" if upper else "right", va="top" if upper else "bottom", color=colour,
            bbox={"fc": "white", "alpha": 0.75, "lw": 0, "pad": 1},
        )


def grid_figure(runs: pd.DataFrame, law: Law | None = None, updates: float = chapter.UPDATES) -> Figure:
    """Early-stopped loss against unique text, one colour a size, with the joint law and its band; its residuals below.

    Squares at the right end are the runs on the whole text. Grey: sets of `updates` an epoch or fewer, left out of the law.
    """
    table, law = chapter.grid(runs), chapter.joint_law(runs, updates=updates) if law is None else law
    if not len(table):
        raise UserError("there are no runs on limited text to draw")
    shades, grid = colours(table.N), {"sharex": True, "height_ratios": [3, 1.1]} if law.ok else {}
    with drawing(1 + law.ok, 1, (5.6, 4.2 + 1.4 * law.ok), **grid) as (figure, axes):
        top = axes[0]
        log(top)
        for N, group in table.groupby("N"):
            group, colour = group.sort_values("unique_tokens"), shades[float(N)]
            kept, whole = group.updates > updates, group.train_tokens == 0
            top.plot(group.unique_tokens[kept & ~whole], group.best_loss[kept & ~whole], "o", ms=4.5, color=colour)
            top.plot(group.unique_tokens[whole], group.best_loss[whole], "s", ms=5, color=colour)
            top.plot(group.unique_tokens[~kept], group.best_loss[~kept], "o", ms=4.5, mec=GREY, mfc="none")
            if law.ok and kept.any():
                D = np.geomspace(group.unique_tokens[kept].min(), group.unique_tokens[kept].max(), 100)
                value, below, above = law.band(N=np.full(100, float(N)), D=D)
                top.plot(D, value, color=colour, lw=1.4)
                top.fill_between(D, below, above, color=colour, alpha=0.15, lw=0)
        note(top, [*([] if law.ok else [("no law fitted", PAPER)]), *size_lines(shades)])
        top.set_ylabel(LOSS)
        if law.ok:
            points = law.means
            for N, colour in shades.items():
                rows = points.inputs["N"] == N
                axes[1].plot(points.inputs["D"][rows], 100 * law.residuals[rows], "o-", ms=3.5, lw=0.8, color=colour)
            axes[1].axhline(0, color=GREY, lw=1)
            axes[1].set_ylabel("residual (%)")
            note(axes[1], [(f"{law.rms_percent:.1f} % rms", "#333333")])
        axes[-1].set_xlabel(TEXT)
    return figure


def collapse_figure(points: pd.DataFrame, law: Law, noise: Estimate = chapter.NOTHING) -> Figure:
    """delta L against D, where sizes lie apart, and against D of equal overfitting, where they should lie on one curve (Fig. 9).

    Below, D is divided by (N / N_0)^growth, N_0 being the middle size, so that the axis is eq. 4.3's D / N^growth in characters
    for that size. The line is eq. 4.3 with our constants and its band; dashed, with the paper's alpha_D, placed to meet ours at
    the paper's threshold. Grey band: two runs that differ in their seed alone (95 %).
    """
    if not len(points):
        raise UserError("there are no runs on limited and on unlimited text of one size to compare")
    shades, middle = colours(points.N), float(np.exp(np.log(points.N.unique()).mean()))
    growth = law.parameters["alpha_N"].value / law.parameters["alpha_D"].value if _known(law, "alpha_N", "alpha_D") else None
    with drawing(2 if growth else 1, 1, (5.6, 7.0) if growth else (5.6, 4.0)) as (figure, axes):
        for axis, power in zip(axes, (0.0, growth)):
            log(axis, "x")
            axis.invert_xaxis()
            for N, group in points.groupby("N"):
                mark = "o" if power else "o-"
                axis.plot(group.D / (N / middle) ** power, group.delta, mark, lw=0.8, ms=5, color=shades[float(N)])
            axis.axhline(0, color=GREY, lw=1)
            if noise.value:
                half = 1.96 * math.sqrt(2) * noise.value
                axis.axhspan(-half, half, color=GREY, alpha=0.2, lw=0)
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axis.set_ylabel("$L(N, D) / L(N, \\infty) - 1$")
            free = f"{chapter.scatter(points, power):.1f} % about one curve" if len(points) > 5 else ""
            place(axis, [(free, "#333333"), *([] if power else size_lines(shades))], "upper left")
        axes[0].set_xlabel(TEXT)
        if growth:
            axis, x = axes[1], points.D / (points.N / middle) ** growth
            D = np.geomspace(x.max(), x.min(), 200)
            value, below, above = chapter.excess_band(law, middle, D)
            axis.plot(D, value, color="black", lw=1.4)
            axis.fill_between(D, below, above, color="black", alpha=0.12, lw=0)
            alpha, level = papers.value("kaplan2020.L_ND.alpha_D"), papers.value("kaplan2020.noise.seed")
            meet = float(np.interp(level, value, D)) if value[0] < level < value[-1] else D[len(D) // 2]
            axis.plot(D, (1 + math.expm1(math.log1p(level) / alpha) * meet / D) ** alpha - 1, color=PAPER, ls=DASHES, lw=1.5)
            axis.set_ylim(axes[0].get_ylim())
            axis.set_xlabel(f"$D\\,(N_0/N)^{{{growth:.2f}}}$ (characters), $N_0$ = {short(middle)}")
            lines = [("eq. 4.3, our constants", "black"), (rf"Kaplan 2020, dashed: $\alpha_D$ = {alpha}", PAPER)]
            place(axis, lines, "lower right")
    return figure


def rule_figure(needs: dict[str, dict[float, Estimate]], measured: dict[float, float] | None = None) -> Figure:
    """Unique text that a size needs, by the joint law, for each threshold named, with intervals; the paper's rule dashed.

    measured: where each size's own points come down to the first threshold, drawn as diamonds.
    """
    with drawing() as (figure, (axis,)):
        log(axis)
        notes = []
        for (name, found), colour in zip(needs.items(), SHADES):
            N = np.array([n for n, e in found.items() if e.value is not None])
            value, low, high = (np.array([getattr(found[n], end) for n in N]) for end in ("value", "low", "high"))
            axis.errorbar(N, value, [value - low, high - value], fmt="o-", ms=4, capsize=4, lw=1.4, color=colour)
            notes.append((name, colour))
        if measured:
            axis.plot(list(measured), list(measured.values()), "D", ms=7, mfc="white", color=OURS, ls="none")
            notes.append(("diamonds: read off the runs", OURS))
        sizes = np.array(axis.get_xlim())
        axis.plot(sizes, data_to_avoid_overfitting(sizes), color=PAPER, ls=DASHES, lw=1.5)
        place(axis, [*notes, ("Kaplan 2020, dashed (tokens)", PAPER)], "lower right")
        axis.set_xlim(sizes)
        axis.set_xlabel(SIZE)
        axis.set_ylabel("unique text needed, D (characters)")
    return figure


def range_figure(ranges: pd.DataFrame, cut: float | None = None) -> Figure:
    """What each form says when the shortest texts are left out one after another: alpha_N / alpha_D, and residuals.

    cut: the shortest text that the claim keeps, as a dotted line.
    """
    forms = {"kaplan": ("Kaplan's form", SHADES[0]), "floor": ("above a floor", SHADES[2]),
             "chinchilla": ("Chinchilla's form", SHADES[1])}
    with drawing(2, 1, (5.6, 6.2), sharex=True) as (figure, (top, bottom)):
        log(bottom, "x")
        for side, name in ((0.95, "kaplan"), (1.05, "floor")):
            value, low, high = (ranges[f"{name}_{end}"] for end in ("growth", "low", "high"))
            rows = high - low < 2
            top.errorbar(side * ranges.smallest[rows], value[rows], [(value - low)[rows], (high - value)[rows]], fmt="o", ms=5,
                         capsize=4, lw=1.4, color=forms[name][1])
        published = papers.value("kaplan2020.overfitting.D_exponent")
        top.axhline(published, color=PAPER, ls=DASHES, lw=1.5)
        top.set_ylim(0, max(top.get_ylim()[1], 1.6))
        note(top, [(f"Kaplan 2020, dashed: {published}", PAPER), *list(forms.values())[:2]])
        top.set_ylabel(r"$\alpha_N / \alpha_D$")
        for name, (_, colour) in forms.items():
            bottom.plot(ranges.smallest, ranges[f"{name}_rms"], "o-", ms=4, color=colour)
            bottom.plot(ranges.smallest, ranges[f"{name}_ahead"], "o:", ms=4, mfc="none", color=colour, lw=1)
        bottom.set_ylim(0, bottom.get_ylim()[1] * 1.35)
        note(bottom, [*forms.values(), ("dotted: the dearest fifth, predicted", "#333333")])
        bottom.set_ylabel("rms residual (%)")
        bottom.set_xlabel("shortest text kept, D (characters)")
        for axis in (top, bottom):
            if cut:
                axis.axvline(cut, color=GREY, ls=":", lw=1.2)
    return figure


def _known(law: Law, *names: str) -> bool:
    return law.ok and all(law.parameters[name].value is not None for name in names)


def claim_figure(runs: pd.DataFrame) -> Figure:
    return collapse_figure(chapter.excesses(runs), chapter.joint_law(runs), chapter.seed_noise(runs))


CLAIMS = {"kaplan.L_ND": claim_figure}
