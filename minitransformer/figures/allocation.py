"""Figures of chapter V: the best split of a budget, how far from convergence it stops, and a prediction."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from minitransformer import papers
from minitransformer.claims import allocation, convergence, crossing, prediction
from minitransformer.claims.curves import of_spec, training_curves
from minitransformer.laws import formulas
from minitransformer.laws.law import Estimate

from .disagreement import exponents_figure, published
from .style import GREY, HALO, HELD_OUT, OURS, PAPER, SERIES, apart, drawing, log, note, plain

if TYPE_CHECKING:
    import pandas as pd

DASHED = (0, (5, 3))
LOSS = "validation loss (nats per character)"


def _nothing(axis: Axes, text: str) -> None:
    axis.set_axis_off()
    axis.text(0.5, 0.5, fill(text, 44), ha="center", va="center", transform=axis.transAxes, color=PAPER)


def _label_ends(axis: Axes, ends: dict[float, tuple[float, float]], colours: dict) -> None:
    """Each size beside the end of its line, moved up or down so that no two overlap; axes must have their limits by now."""
    figure = axis.figure
    figure.draw_without_rendering()
    heights = [axis.transData.transform(end)[1] for end in ends.values()]
    for (N, end), shift in zip(ends.items(), apart(heights, 12 * figure.dpi / 72)):
        axis.annotate(plain(N), end, xytext=(5, shift * 72 / figure.dpi), textcoords="offset points", va="center",
                      color=colours[N], fontsize=9.5, annotation_clip=False, path_effects=HALO)


def _by_size(sizes) -> dict[float, tuple]:
    """A colour for each size, dark for large."""
    sizes = np.unique(np.asarray(sizes, float))
    norm = LogNorm(sizes[0], max(sizes[-1], sizes[0] * 1.01)) if len(sizes) else None
    return {s: matplotlib.colormaps["viridis_r"](0.25 + 0.75 * norm(s)) for s in sizes}


def mean_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """N, S, B and the geometric mean loss over seeds of the ladder's curves at a constant rate, after the warm-up."""
    curves = training_curves(of_spec(runs, "ladder"))
    curves = curves[curves.S >= crossing.AFTER_WARM_UP * curves.warmup]
    means = curves.assign(loss=np.log(curves.loss.astype(float))).groupby(["N", "S", "B"], as_index=False).loss.mean()
    return means.assign(loss=np.exp(means.loss))


def _short(name: str, e: Estimate) -> str:
    return f"{name} {e.value:.2f} ({e.low:.2f} to {e.high:.2f})" if e.value is not None else f"{name} not identified"


# --- the best split ----------------------------------------------------------------------------------------------


def overtaking_figure(runs: pd.DataFrame) -> Figure:
    """Learning curves at a constant rate against compute, a line for each size; dots where a larger size overtakes a smaller."""
    with drawing(size=(5.6, 4.6)) as (figure, (axis,)):
        _curves(axis, runs)
        axis.set_xlabel("compute, C = 6 N D (FLOPs)")
    return figure


def _curves(axis: Axes, runs: pd.DataFrame) -> None:
    means, points = mean_curves(runs), crossing.mean_points(crossing.overtaking(runs))
    colours, ends = _by_size(means.N), {}
    log(axis)
    for N, curve in means.groupby("N"):
        C = formulas.FLOPS * N * curve.S * curve.B
        axis.plot(C, curve.loss, color=colours[N], lw=1.4)
        ends[N] = (C.iloc[-1], curve.loss.iloc[-1])
    axis.plot(points.C, points.loss, "o", color="black", ms=5, ls="none", zorder=5)
    axis.margins(x=0.1)
    axis.set_ylabel(LOSS)
    note(axis, [("a line for each size N", GREY), ("● a larger size overtakes", "black")])
    _label_ends(axis, ends, colours)


def frontier_figure(runs: pd.DataFrame) -> Figure:
    """Learning curves against compute, and the sizes that are best for each compute.

    Above: as `overtaking_figure`. Below: N at the dots, against C at the runs' own batch and against C_min, with the paper's
    slope dashed; squares are the minima of parabolas through decayed runs of equal compute.
    """
    found, ways = allocation.efficient(runs), allocation.chinchilla(runs)
    points = found.points
    with drawing(2, 1, (5.6, 7.4), sharex=True, height_ratios=[1.1, 1]) as (figure, (top, below)):
        log(below)
        texts = []
        _line(below, points.C, points.N, found.fixed, "o", OURS)
        texts.append(("● " + _short("at the runs' batch:", found.fixed), OURS))
        if found.N_opt.value is not None:
            _line(below, points.C_min, points.N, found.N_opt, "^", HELD_OUT)
            texts.append((r"▲ " + _short("in $C_{min}$:", found.N_opt), HELD_OUT))
        minima = [m for m in ways.minima.minima if m.N.value is not None]
        for m in minima:
            below.plot([m.C, m.C], [m.N.low, m.N.high], color=SERIES[3], lw=1.2)
        below.plot([m.C for m in minima], [m.N.value for m in minima], "s", mfc="white", color=SERIES[3], ms=5.5, ls="none",
                   zorder=4)
        texts.append(("■ " + _short("decayed, IsoFLOP:", ways.isoflop), SERIES[3]))
        x = points.C_min if "C_min" in points else points.C
        if len(points):
            slope = papers.value("kaplan2020.optimum.N_exponent")
            line = np.array([x.min(), x.max()])
            middle = np.exp(np.log(x).mean()), np.exp(np.log(points.N).mean())
            below.plot(line, middle[1] * (line / middle[0]) ** slope, color=PAPER, ls=DASHED, lw=1.5)
            texts.append((f"Kaplan 2020, dashed: {slope:.2f}", PAPER))
        low, high = below.get_ylim()
        below.set_ylim(low, high * (high / low) ** (0.09 * len(texts)))
        below.set(xlabel="compute, C = 6 N D (FLOPs)", ylabel="best size, N (parameters)")
        _corner(below, texts)
        _curves(top, runs)
    return figure


def _line(axis: Axes, x, y, exponent: Estimate, marker: str, colour: str) -> None:
    """Points and the line of this exponent through their middle, with the band of its interval."""
    axis.plot(x, y, marker, color=colour, ms=6, ls="none", zorder=4)
    if exponent.value is None:
        return
    line = np.geomspace(x.min(), x.max(), 50)
    at = lambda a: np.exp(np.log(y).mean()) * (line / np.exp(np.log(x).mean())) ** a
    ends = at(exponent.low), at(exponent.high)
    axis.fill_between(line, np.minimum(*ends), np.maximum(*ends), color=colour, alpha=0.15, lw=0)
    axis.plot(line, at(exponent.value), color=colour, lw=1.5)


def _corner(axis: Axes, lines: Sequence[tuple[str, str]]) -> None:
    """Notes in the upper left corner, which a rising line leaves free."""
    for i, (text, colour) in enumerate(lines):
        axis.annotate(text, (0.015, 0.98), xycoords="axes fraction", xytext=(0, -15 * i - 4), textcoords="offset points",
                      va="top", color=colour, bbox={"fc": "white", "alpha": 0.75, "lw": 0, "pad": 1})


def ways_figure(runs: pd.DataFrame) -> Figure:
    """Kaplan's way and Chinchilla's three on the same runs, with sizes counted both ways; the papers' exponents beside them."""
    kaplan = allocation.efficient(runs)
    rows = [("Kaplan, fixed batch", kaplan.fixed, published("kaplan2020.fixed_batch.N_exponent")),
            (r"Kaplan, $C_{min}$", kaplan.N_opt, published("kaplan2020.optimum.N_exponent"))]
    for count, words in (("N", "$N$"), ("N_total", "all")):
        ways = allocation.chinchilla(runs, count)
        for name, text in (("envelope", "envelope"), ("isoflop", "IsoFLOP"), ("parametric", "parametric")):
            rows.append((f"{text}, {words}", getattr(ways, name), published(f"hoffmann2022.{name}.a")))
    return exponents_figure(rows, "exponent of the best size in compute", "our runs", "the papers on theirs")


# --- convergence -------------------------------------------------------------------------------------------------


def convergence_figure(runs: pd.DataFrame) -> Figure:
    """Above: how far each size's curve lies above its converged loss, with the place where it is the best size for its compute.

    Below: the excess there with its interval, the least it can be (triangles: over the lowest loss measured), and the paper's.
    """
    table, means = convergence.stops(runs), mean_curves(runs)
    colours = _by_size(table.N)
    with drawing(2, 1, (5.6, 6.8), height_ratios=[1.25, 1]) as (figure, (top, below)):
        if not len(table):
            _nothing(top, "no size overtakes another and is overtaken within these curves")
            below.set_axis_off()
            return figure
        log(top)
        log(below, "x")
        ends = {}
        for row in table.itertuples():
            curve = means[means.N == row.N]
            excess = 100 * (curve.loss / row.converged - 1)
            top.plot(curve.S[excess > 0], excess[excess > 0], color=colours[row.N], lw=1.5)
            top.plot(row.S, 100 * row.excess, "o", color=colours[row.N], ms=7, zorder=5)
            ends[row.N] = (curve.S.iloc[-1], excess.iloc[-1])
        paper = 100 * papers.value("kaplan2020.efficient.above_converged")
        for axis in (top, below):
            axis.axhline(paper, color=PAPER, ls=DASHED, lw=1.5)
        top.margins(x=0.1)
        top.set(xlabel="steps, S", ylabel="above converged loss (%)")
        note(top, [("a line for each size N", GREY), ("● best size for its compute", "black"),
                   (f"Kaplan 2020, dashed: {paper:.0f} %", PAPER)])
        excess, bars = 100 * table.excess, 100 * np.array([table.excess - table.excess_low, table.excess_high - table.excess])
        below.errorbar(table.N, excess, bars, fmt="o", color=OURS, capsize=4, ms=6)
        below.plot(table.N, 100 * table.at_least, "^", mfc="white", color=GREY, ms=6, ls="none")
        below.set_ylim(0, 1.45 * max((excess + bars[1]).max(), paper))
        below.set(xlabel="non-embedding parameters, N", ylabel="above converged loss (%)")
        note(below, [("● over the extrapolated loss", OURS), ("△ over the lowest loss measured", GREY)])
        _label_ends(top, ends, colours)
    return figure


def costs_figure(runs: pd.DataFrame) -> Figure:
    """Compute and steps to one loss at other sizes than the best, over those at the best; the paper's curves dashed (Fig. 12)."""
    table = convergence.costs(runs)
    alpha = [papers.value(f"kaplan2020.L_NS.{name}") for name in ("alpha_N", "alpha_S")]
    with drawing(2, 1, (5.6, 6.4), sharex=True) as (figure, axes):
        if not len(table):
            _nothing(axes[0], "no size overtakes another within these curves")
            axes[1].set_axis_off()
            return figure
        losses = np.sort(table.loss.unique())[::-1]
        colours = dict(zip(losses, matplotlib.colormaps["viridis_r"](np.linspace(0.25, 1, len(losses)))))
        size = np.geomspace(max(table["size"].min(), 0.3), table["size"].max(), 200)
        for axis, column in zip(axes, ("compute", "steps")):
            log(axis)
            for loss, group in table.sort_values("size").groupby("loss"):
                axis.plot(group["size"], group[column], "o-", color=colours[loss], ms=4, lw=1.2)
            paper = np.array([formulas.cost_of_size(r, *alpha) for r in size])[:, ("compute", "steps").index(column)]
            shown = np.isfinite(paper) & (paper <= 1.2 * table[column].max())
            axis.plot(size[shown], paper[shown], color=PAPER, ls=DASHED, lw=1.5)
            axis.axvline(1, color=GREY, lw=1)
            axis.set_ylabel(f"{column} over that of the best size")
        axes[1].set_xlabel("size over the best size, N / N*")
        note(axes[0], [("a line for each loss, dark for low", GREY), ("Kaplan 2020, dashed", PAPER)])
    return figure


# --- prediction --------------------------------------------------------------------------------------------------


def prediction_figure(runs: pd.DataFrame) -> Figure:
    """Above: the small runs, those that no fit saw, and the targets, foretold and measured. Below: the error of every way.

    Foretold by the announced rule; where it refuses, the dearest target by rehearsal.
    """
    asked = [prediction.announced(runs, target) for target in prediction.targets(runs)] or [prediction.announced(runs)]
    if not all(found.predicted for found in asked):
        asked = [prediction.foretell(runs)]
    with drawing(2, 1, (5.6, 7.2), height_ratios=[1.35, 1]) as (figure, (top, below)):
        if asked[0].small is None:
            _nothing(top, asked[0].reason)
            below.set_axis_off()
            return figure
        log(top)
        points = prediction.points_of(runs).set_index(["N", "D"])
        goals = [(found.target["N"], found.target["D"]) for found in asked]
        fitted = points.index.isin(asked[0].small.set_index(["N", "D"]).index)
        others = ~fitted & ~points.index.isin(goals)
        top.plot(points.C[others], points.loss[others], "o", mfc="none", mec=GREY, ms=4.5, ls="none")
        top.plot(points.C[fitted], points.loss[fitted], "o", color=OURS, ms=4.5, ls="none")
        bars = []
        for found in asked:
            top.plot(found.target["C"], found.measured, "*", color="black", ms=13, zorder=6)
            if found.predicted is None:
                continue
            value, low, high = found.predicted
            top.errorbar(found.target["C"], value, [[value - low], [high - value]], fmt="D", mfc="white", color=HELD_OUT,
                         capsize=6, ms=9, zorder=5)
            bars += _ways(found, runs)
        top.set(xlabel="compute, C = 6 N D (FLOPs)", ylabel=LOSS)
        note(top, [("● small enough to be fitted", OURS), ("○ too large or too dear to be fitted", GREY), ("★ a target, measured", "black"),
                   *([("◆ foretold, with 95 % interval", HELD_OUT)] if bars else [])], "lower left")
        if not bars:
            _nothing(below, asked[0].reason)
            return figure
        for i, (_, error, interval) in enumerate(bars):
            below.barh(i, error, color=HELD_OUT if interval else GREY, height=0.6, alpha=0.9 if interval else 0.55)
            if interval and i and not asked[0].choices:
                below.axhline(i - 0.5, color=GREY, lw=0.8)
            if interval:
                below.errorbar(error, i, xerr=[[error - interval[0]], [interval[1] - error]], fmt="none", ecolor="black", capsize=4, lw=1.2)
        below.set_yticks(range(len(bars)), [name for name, *_ in bars])
        below.axvspan(-prediction.GOAL, prediction.GOAL, color=PAPER, alpha=0.14, lw=0)
        below.axvline(0, color=GREY, lw=1.2)
        below.invert_yaxis()
        below.grid(axis="y", visible=False)
        below.set_xlabel(f"foretold over measured, per cent (shade: {prediction.GOAL:g} %)")
    return figure


LABELS = {"chinchilla": "L(N, D), Chinchilla", "kaplan-nd": "L(N, D), Kaplan", prediction.FLOOR: "Kaplan, with a floor", "L(N)": "L(N)",
          "L(C)": "L(C)"}


def _ways(found: prediction.Foretold, runs: pd.DataFrame) -> list[tuple[str, float, tuple[float, float] | None]]:
    """A bar for each way to foretell one target: name, error in per cent, and the interval of the one that was promised."""
    interval = tuple(found.percent(v) for v in (found.predicted.low, found.predicted.high))
    if found.choices:
        return [(LABELS[form], error, interval if form == found.chosen.form else None) for form, error in found.errors.items()]
    rehearsed = prediction.foretell(runs, (found.target["N"], found.target["D"]))
    ways = [(f"N = {plain(found.target['N'])}: the mean", found.error, interval)]
    ways += [(LABELS[form], error, None) for form, error in found.errors.items()]
    return ways + [("by rehearsal", rehearsed.error, None)] * (not rehearsed.reason)


CLAIMS = {"kaplan.allocation": frontier_figure, "kaplan.convergence": convergence_figure, "kaplan.prediction": prediction_figure}
