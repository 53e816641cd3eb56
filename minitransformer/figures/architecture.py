"""Figures of chapter II: what of the architecture matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minitransformer.claims import architecture, positions, transfer
from minitransformer.claims.curves import of_spec
from minitransformer.errors import UserError

from .laws import two_axes_figure
from .style import GREY, HALO, HELD_OUT, MARKERS, OURS, PAPER, SERIES, apart, drawing, log, note, plain

if TYPE_CHECKING:
    import pandas as pd

LOSS = "validation loss (nats per character)"


def embedding_figure(runs: pd.DataFrame, steps: int | None = None) -> Figure:
    """The depths' losses under both counts, at one length of training: the longest that all depths share unless given."""
    steps = steps or max(architecture.depth_horizons(runs), default=0)
    found = runs[runs.steps == steps]
    return two_axes_figure(found.N_total, found.N, found.loss, found.n_layer, ylabel=LOSS)


def shape_figure(effects: pd.DataFrame, tolerance: float = 0.03) -> Figure:
    """Excess of the loss over the base shape in three sweeps, a frame of `shape_effects` (Kaplan et al. 2020, Fig. 5).

    Dots with 95 % bars of seed noise; rings are extreme shapes, the square is the base. tolerance: the paper's, dashed.
    """
    with drawing(3, 1, (5.6, 7.4)) as (figure, axes):
        for axis, (name, label) in zip(axes, architecture.SWEEPS.items()):
            part = effects[effects.sweep == name]
            log(axis, "x")
            axis.axhline(0, color=GREY, lw=1)
            axis.axhline(100 * tolerance, color=PAPER, ls=(0, (5, 3)), lw=1.5)
            percent = 100 * part.excess
            bars = np.nan_to_num(100 * np.stack([part.excess - part.low, part.high - part.excess]))
            axis.errorbar(part.ratio, percent, bars, fmt="none", ecolor=OURS, capsize=3, lw=1.3)
            axis.plot(part.ratio, percent, color=OURS, lw=1, alpha=0.5)
            for rows, face in ((~part.extreme & (part.excess != 0), OURS), (part.extreme, "white")):
                axis.plot(part.ratio[rows], percent[rows], "o", mfc=face, mec=OURS, ms=6, ls="none", zorder=4)
            axis.plot(part.ratio[part.excess == 0], percent[part.excess == 0], "s", color="black", ms=6, ls="none", zorder=5)
            axis.set(xlabel=label, ylabel="excess loss (%)")
            axis.margins(x=0.06, y=0.18)
        note(axes[0], [(f"dashed: {100 * tolerance:g} %, as in the paper", PAPER), ("■ base   ○ extreme", "black")])
        limits = [axis.get_ylim() for axis in axes]
        for axis in axes:
            axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    return figure


def recurrent_figure(runs: pd.DataFrame) -> Figure:
    """Loss against N for Transformers and LSTMs, and below, how far the LSTMs lie above Transformers of equal N at each position.

    The band holds 95 % of resampled sizes; the dotted line is the mean gap over all positions (Kaplan et al. 2020, Fig. 7).
    """
    gaps = positions.recurrent_gaps(runs)
    kinds = sorted(set(zip(runs.arch, runs.n_layer)), key=lambda kind: (kind[0] != "transformer", kind[1]))
    with drawing(2, 1, (5.6, 6.6)) as (figure, (top, below)):
        log(top)
        notes = []
        for (arch, n_layer), colour, (marker, sign) in zip(kinds, SERIES, MARKERS.items()):
            mine = runs[(runs.arch == arch) & (runs.n_layer == n_layer)]
            means = mine.groupby("N").loss.mean()
            top.plot(mine.N, mine.loss, marker, mfc="none", mec=colour, ms=3.5, mew=0.8, alpha=0.7, ls="none")
            top.plot(means.index, means, f"{marker}-", color=colour, ms=5)
            name = "Transformer" if arch == "transformer" else "LSTM"
            notes.append((f"{sign} {name}, {n_layer} layer{'s' * (n_layer > 1)}", colour))
        note(top, notes)
        top.set(xlabel="non-embedding parameters, N", ylabel=LOSS)
        _gap_by_position(below, gaps)
    return figure


def _gap_by_position(axis: Axes, gaps: positions.Gaps | None) -> None:
    log(axis, "x")
    axis.set(xlabel="position in the context, T (characters)", ylabel="LSTM above Transformer (%)")
    if gaps is None:
        note(axis, [("too few sizes of both", PAPER)])
        return
    middles, by_octave = positions.binned(gaps.log_gap)
    names, members = np.unique(gaps.cluster, return_inverse=True)
    draw = np.random.RandomState(0)
    picks = draw.randint(len(names), size=(2000, len(names)))
    weights = np.stack([(picks == i).sum(1) for i in range(len(names))], axis=1)[:, members].astype(float)
    resampled = weights @ by_octave / weights.sum(1, keepdims=True)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    percent = lambda v: 100 * np.expm1(v)
    axis.axhline(0, color=GREY, lw=1)
    axis.fill_between(middles, percent(low), percent(high), color=OURS, alpha=0.16, lw=0)
    axis.plot(middles, percent(by_octave.mean(0)), "o-", color=OURS, ms=5)
    axis.axhline(percent(gaps.log_gap.mean()), color=OURS, ls=":", lw=1.4)
    axis.annotate("mean over positions", (1, percent(gaps.log_gap.mean())), xycoords=("axes fraction", "data"), xytext=(-2, 3),
                  textcoords="offset points", ha="right", color=OURS, fontsize=10.5, path_effects=HALO)


def position_figure(shapes: pd.DataFrame, fitted: bool = True) -> Figure:
    """Loss by position, in octaves, a line for each model of a `positions.positions` frame; bars: 95 % of the noise of the text.

    fitted: the power law with a floor through all positions of each, dotted (Kaplan et al. 2020, Fig. 20). Dark is large, or a
    long context where there are several; the bars of one context move together, as all models read the same windows.
    """
    if not len(shapes):
        raise UserError("there is no loss by position to draw: these runs do not hold it")
    several = shapes.n_ctx.nunique() > 1
    size = shapes.n_ctx if several else shapes.N
    norm = LogNorm(size.min(), max(size.max(), 1.01 * size.min()))
    colours = [matplotlib.colormaps["viridis_r"](0.4 + 0.6 * norm(value)) for value in size]
    with drawing() as (figure, (axis,)):
        log(axis)
        ends, notes = [], []
        for shape, colour in zip(shapes.itertuples(), colours):
            found = positions.position_law(shape.log_loss)
            middles, losses = positions.binned(np.exp(shape.log_loss))
            bars = np.nan_to_num(1.96 * found.errors * losses)
            axis.errorbar(middles, losses, bars, fmt="o", color=colour, ms=4, lw=1, capsize=2)
            axis.plot(middles, losses, color=colour, lw=1.2, alpha=0.6)
            if fitted and not found.reason:
                T = np.geomspace(1, shape.n_ctx, 100)
                axis.plot(T, found.at(T), color=colour, ls=":", lw=1.6)
            ends.append((middles[-1], losses[-1]))
            notes.append((f"N = {plain(shape.N)}, context {shape.n_ctx}", colour))
        figure.draw_without_rendering()
        shifts = apart([axis.transData.transform(end)[1] for end in ends], 14 * figure.dpi / 72)
        for i, (shape, end, colour, shift) in enumerate(zip(shapes.itertuples(), ends, colours, shifts)):
            if not several:
                axis.annotate(("N = " if not i else "") + plain(shape.N), end, xytext=(9, shift * 72 / figure.dpi), color=colour,
                              va="center", textcoords="offset points", annotation_clip=False, fontsize=10.5, path_effects=HALO)
        notes = notes if several else []
        note(axis, notes + [("dotted: power law with a floor", "black")] * fitted)
        axis.set(xlabel="position in the context, T (characters)", ylabel=LOSS)
    return figure


def exponent_figure(found: pd.DataFrame, whole: float | None = None, paper: float | None = None) -> Figure:
    """The exponent of N by position, a frame of `exponents_by_position`; whole: that of the mean loss, dotted."""
    if not len(found):
        raise UserError("the exponent by position needs four sizes of one context")
    with drawing() as (figure, (axis,)):
        log(axis, "x")
        axis.axhline(0, color=GREY, lw=1)
        axis.fill_between(found["T"], found.low, found.high, color=OURS, alpha=0.16, lw=0)
        axis.plot(found["T"], found.alpha, "o-", color=OURS, ms=5)
        notes = [("each position by itself, 95 %", OURS)]
        if whole is not None:
            axis.axhline(whole, color=OURS, ls=":", lw=1.4)
            notes.append(("dotted: of the mean loss", OURS))
        if paper is not None:
            axis.axhline(paper, color=PAPER, ls=(0, (5, 3)), lw=1.5)
            notes.append((f"Kaplan 2020, dashed: {paper:.3g}", PAPER))
        note(axis, notes, "lower left" if found.alpha.iloc[0] > found.alpha.iloc[-1] else "upper right")
        axis.set_ylim(top=max(axis.get_ylim()[1], 1.35 * float(found.high.max())))
        axis.set(xlabel="position in the context, T (characters)", ylabel=r"exponent $\alpha_N$ at this position")
    return figure


def transfer_figure(runs: pd.DataFrame) -> Figure:
    """Loss on each text against N, and the offset of the first other text against the loss on fiction (Kaplan 2020, Fig. 8).

    Below: dots are the ladder's finished sizes with their line and its 95 % band, thin lines trainings under way, other signs
    other depths.
    """
    ladder = of_spec(runs, "ladder")
    names = transfer.texts(ladder)
    if not names:
        raise UserError("these runs were measured on no other text: also_on names some")
    points = {name: transfer.ladder_points(ladder, name) for name in names}
    with drawing(2, 1, (5.6, 7.0)) as (figure, (top, below)):
        log(top)
        first = points[names[0]]
        top.plot(first.N, first.loss, "o-", color=OURS, ms=5)
        notes = [("● the training text", OURS)]
        for (name, found), colour, (marker, sign) in zip(points.items(), SERIES[1:], list(MARKERS.items())[1:]):
            top.plot(found.N, found.other, f"{marker}-", color=colour, ms=5)
            notes.append((f"{sign} {transfer.NAMES.get(name, name)}", colour))
        low, high = top.get_ylim()
        top.set_ylim(low, high * (high / low) ** 0.15)
        note(top, notes)
        top.set(xlabel="non-embedding parameters, N", ylabel=LOSS)
        _offsets(below, runs, ladder, names[0], first)
    return figure


def _offsets(axis: Axes, runs: pd.DataFrame, ladder: pd.DataFrame, name: str, points: pd.DataFrame) -> None:
    axis.set(xlabel="loss on the training text (nats per character)", ylabel=f"offset on {transfer.NAMES.get(name, name)} (nats)")
    notes = [("● finished sizes", OURS)]
    if len(points) >= 3:
        line = transfer.transfer_line(points)
        under_way = transfer.during_training(ladder, name, line)
        for _, run in under_way.groupby(["N", "seed"]):
            axis.plot(run.loss, run.other - run.loss, color=GREY, lw=0.7, alpha=0.5)
        x = np.linspace(points.loss.min(), points.loss.max(), 60)
        half = line.half_width(1, x - line.centre)
        axis.fill_between(x, line.at(x) - x - half, line.at(x) - x + half, color=OURS, alpha=0.16, lw=0)
        axis.plot(x, line.at(x) - x, color=OURS)
        notes.append(("thin: trainings under way", GREY))
    deep = transfer.finished(runs, name)
    depths = deep[deep.n_layer != 2].groupby("n_layer")
    for (n_layer, found), colour, (marker, sign) in zip(depths, (PAPER, HELD_OUT, *SERIES[3:]), list(MARKERS.items())[1:]):
        axis.plot(found.loss, found.other - found.loss, marker, mfc="none", mec=colour, ms=5, ls="none")
        notes.append((f"{sign} {n_layer} layer{'s' * (n_layer > 1)}", colour))
    axis.plot(points.loss, points.offset, "o", color=OURS, ms=6, ls="none", zorder=5)
    axis.invert_xaxis()
    top = max(points.offset.max(), 1e-6)
    axis.set_ylim(0, 1.9 * top)
    axis.yaxis.set_major_locator(MaxNLocator(6))
    note(axis, notes)


def _shape_of_claim(runs: pd.DataFrame) -> Figure:
    shapes, ladder = of_spec(runs, "shapes"), of_spec(runs, "ladder")
    law = architecture.law_at(ladder, int(shapes.steps.max()))
    return shape_figure(architecture.shape_effects(shapes, law.exponent.value if law.ok else 0.0))


def _context_of_claim(runs: pd.DataFrame) -> Figure:
    shapes = positions.positions(of_spec(runs, "contexts"))
    return position_figure(shapes[shapes.n_ctx == shapes.n_ctx.max()])


CLAIMS = {"kaplan.embedding": embedding_figure, "kaplan.shape": _shape_of_claim, "kaplan.lstm": recurrent_figure,
          "kaplan.context": _context_of_claim, "kaplan.transfer": transfer_figure}
