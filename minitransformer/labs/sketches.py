"""Sketches of what a right answer looks like, drawn from no data: axes, shapes and marks, without the numbers that are asked for."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..figures import GREY, HELD_OUT, OURS, PAPER, drawing

SIZE = (4.6, 2.7)


def _bare(axis: Axes, x: str, y: str, logarithmic: bool = True) -> None:
    """Named axes without numbers."""
    if logarithmic:
        axis.loglog()
    axis.minorticks_off()
    axis.set(xlabel=x, ylabel=y, xticks=[], yticks=[])


def _word(axis: Axes, text: str, at: tuple[float, float], colour: str = GREY) -> None:
    axis.annotate(text, at, xycoords="axes fraction", color=colour, ha="center")


def threshold() -> Figure:
    """Two falling curves, a level, and where each first lies below it."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(1, 1000, 200)
        for scale, colour in ((1.0, OURS), (0.72, PAPER)):
            y = scale * (0.5 + 2 * x**-0.4)
            first = np.argmax(y <= 0.9)
            axis.plot(x, y, color=colour)
            axis.plot([x[first]] * 2, [0.3, y[first]], ":", color=colour)
            axis.plot(x[first], y[first], "o", color=colour)
        axis.axhline(0.9, color=GREY, ls="--")
        _bare(axis, "step", "validation loss")
        axis.set_ylim(0.32, 2.6)
        _word(axis, "target", (0.09, 0.53))
        return figure


def stopping() -> Figure:
    """Training loss falls on, validation loss turns; the turn and the gap at the end are marked."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.linspace(0.3, 10, 200)
        train, val = 0.4 + 2 * np.exp(-x / 2.5), 1.1 + 1.6 * np.exp(-x / 1.2) + 0.09 * x
        best = np.argmin(val)
        axis.plot(x, train, color=GREY)
        axis.plot(x, val, color=OURS)
        axis.plot(x[best], val[best], "o", color=PAPER)
        axis.annotate("", (x[-1], train[-1]), (x[-1], val[-1]), arrowprops={"arrowstyle": "<->", "color": PAPER})
        _bare(axis, "step", "loss", logarithmic=False)
        _word(axis, "validation", (0.6, 0.62), OURS)
        _word(axis, "training", (0.6, 0.12))
        _word(axis, "gap", (0.9, 0.33), PAPER)
        _word(axis, "stop here", (0.33, 0.3), PAPER)
        return figure


def line() -> Figure:
    """Points about a falling straight line on log-log axes, and its slope."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(1, 300, 8)
        axis.plot(x, 3 * x**-0.2 * np.exp(0.03 * np.array([1, -1, 0.4, -0.6, 1, -0.3, -0.8, 0.6])), "o", color=OURS)
        axis.plot(x, 3 * x**-0.2, color=OURS)
        corner = [(x[2], 3 * x[2] ** -0.2), (x[2], 3 * x[5] ** -0.2), (x[5], 3 * x[5] ** -0.2)]
        axis.plot(*zip(*corner), color=PAPER)
        _bare(axis, "examples, D", "loss")
        _word(axis, "the slope is minus the exponent", (0.35, 0.12), PAPER)
        return figure


def regions() -> Figure:
    """A learning curve with its three regions."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(1, 1e6, 300)
        axis.plot(x, 1 / (1 / 3.0 + 1 / (0.5 + 40 * (x + 1) ** -0.45)), color=OURS)
        for edge in (250.0, 4e4):
            axis.axvline(edge, color=GREY, ls="--")
        _bare(axis, "examples, D", "loss")
        for text, at in (("small data", 0.17), ("power law", 0.57), ("floor", 0.9)):
            _word(axis, text, (at, 0.92))
        return figure


def seeds() -> Figure:
    """Two recipes, some seeds each: means apart by much, or by little against their scatter."""
    with drawing(size=SIZE) as (figure, (axis,)):
        rng = np.array([-0.9, -0.2, 0.3, 0.8])
        for place, centre in ((0, 1.0), (1, 0.82), (3, 1.0), (4, 0.97)):
            axis.plot(place + np.zeros(4), centre + 0.045 * rng, "o", mfc="none", color=OURS if place in (0, 3) else PAPER)
            axis.plot([place - 0.3, place + 0.3], [centre] * 2, color=OURS if place in (0, 3) else PAPER)
        _bare(axis, "", "loss", logarithmic=False)
        axis.set_ylim(0.7, 1.12)
        axis.set_xlim(-0.8, 4.8)
        _word(axis, "clear", (0.23, 0.06), HELD_OUT)
        _word(axis, "not clear", (0.77, 0.06), HELD_OUT)
        return figure


def forecast(x_name: str = "examples, D") -> Figure:
    """A line through the small points, carried on to a larger one that was held out."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(1, 100, 6)
        axis.plot(x, x**-0.2, "o-", color=OURS)
        far = np.array([100, 1200])
        axis.plot(far, far**-0.2, "--", color=OURS)
        axis.plot(1200, 1200**-0.2 * 1.14, "D", color=HELD_OUT)
        axis.plot(1200, 1200**-0.2, "o", mfc="none", color=OURS)
        _bare(axis, x_name, "loss")
        _word(axis, "measured", (0.84, 0.35), HELD_OUT)
        _word(axis, "predicted", (0.72, 0.06), OURS)
        return figure


def matrices() -> Figure:
    """The six weight matrices of one layer as rectangles, sides named."""
    with drawing(size=(5.6, 2.4)) as (figure, (axis,)):
        left = 0.0
        for name, width, height, colour in (("Q", 1, 1, OURS), ("K", 1, 1, OURS), ("V", 1, 1, OURS), ("out", 1, 1, OURS), ("up", 4, 1, PAPER), ("down", 1, 4, PAPER)):
            axis.add_patch(Rectangle((left, 0), width, height, fc="none", ec=colour, lw=1.8))
            axis.annotate(name, (left + width / 2, height / 2), ha="center", va="center", color=colour)
            left += width + 0.35
        axis.annotate("attention", (2.2, 1.35), ha="center", color=OURS)
        axis.annotate("feed-forward", (7.4, 1.35), ha="center", color=PAPER)
        axis.set(xlim=(-0.2, left), ylim=(-0.3, 4.2))
        axis.axis("off")
        return figure


def shares() -> Figure:
    """Bars of equal height for growing widths: the part of the layers grows, that of embeddings and head shrinks."""
    with drawing(size=SIZE) as (figure, (axis,)):
        for place, part in enumerate((0.04, 0.14, 0.35, 0.6, 0.8, 0.92)):
            axis.bar(place, part, color=OURS)
            axis.bar(place, 1 - part, bottom=part, color=GREY, alpha=0.5)
        axis.axhline(0.5, color=PAPER, ls="--")
        _bare(axis, "width", "share of all parameters", logarithmic=False)
        _word(axis, "layers", (0.83, 0.2), "white")
        _word(axis, "embeddings and head", (0.27, 0.75), "black")
        _word(axis, "half", (0.045, 0.51), PAPER)
        return figure


def ratio() -> Figure:
    """A ratio that falls towards one as the width grows."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(1, 100, 100)
        axis.semilogx(x, 1 + 1.6 / x, color=OURS)
        axis.axhline(1, color=GREY, ls="--")
        axis.minorticks_off()
        axis.set(xlabel="width", ylabel="all FLOPs / 6 N D", xticks=[], yticks=[1], ylim=(0.8, 2.7))
        return figure


def valley() -> Figure:
    """Runs of one budget, a parabola through them, its lowest point between two of the runs."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.arange(6.0)
        axis.plot(x, 1 + 0.09 * (x - 2.45) ** 2, "o", color=OURS)
        fine = np.linspace(-0.3, 5.3, 100)
        axis.plot(fine, 1 + 0.09 * (fine - 2.45) ** 2, color=OURS)
        axis.plot(2.45, 1, "D", color=PAPER)
        _bare(axis, "parameters, N (log)", "loss at one budget", logarithmic=False)
        _word(axis, "vertex", (0.49, 0.13), PAPER)
        return figure


def cloud() -> Figure:
    """Two designs of runs in the plane of size and data: along one line, and spread out."""
    with drawing(1, 2, size=(5.6, 2.6)) as (figure, (left, right)):
        x = np.arange(5.0)
        left.plot(x, x, "o", color=PAPER)
        for row in x:
            right.plot(x, np.full(5, row), "o", color=OURS)
        for axis, text in ((left, "cannot tell"), (right, "can tell")):
            _bare(axis, "log N", "log D", logarithmic=False)
            axis.set(xlim=(-0.7, 4.7), ylim=(-0.7, 5.6))
            _word(axis, text, (0.5, 0.9))
        return figure


def branches() -> Figure:
    """One long curve, and the ends of shorter runs beneath it."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(1, 100, 200)
        y = 0.8 + 1.5 * x**-0.4
        axis.plot(x, y, color=GREY)
        for end in (4.0, 12.0, 36.0, 100.0):
            late = x[(x > end * 0.8) & (x <= end)]
            down = np.linspace(0, 1, len(late)) * 0.13
            axis.plot(late, 0.8 + 1.5 * late**-0.4 - down * (0.8 + 1.5 * late**-0.4), color=OURS)
            axis.plot(late[-1], (0.8 + 1.5 * late[-1] ** -0.4) * 0.87, "o", color=OURS)
        _bare(axis, "tokens", "validation loss")
        _word(axis, "one long run, on its way", (0.62, 0.75))
        _word(axis, "finished runs", (0.3, 0.2), OURS)
        return figure


def windows() -> Figure:
    """A bent curve with a straight piece laid on each part of it, every piece with its own slope."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(1, 1000, 100)
        y = 0.5 + 2 * x**-0.35
        axis.plot(x, y, color=GREY)
        for i, colour in zip((10, 45, 80), (OURS, PAPER, HELD_OUT)):
            slope = np.polyfit(np.log(x[i - 8 : i + 8]), np.log(y[i - 8 : i + 8]), 1)[0]
            piece = x[max(i - 10, 0) : i + 20]
            axis.plot(piece, y[i] * (piece / x[i]) ** slope, color=colour)
        _bare(axis, "parameters, N", "loss")
        _word(axis, "each window has its own exponent", (0.55, 0.85))
        return figure


def lengths() -> Figure:
    """Loss against size for three lengths of training: the longer, the steeper."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(1, 1000, 9)
        for slope, colour in ((0.03, GREY), (0.07, PAPER), (0.11, OURS)):
            axis.plot(x, x**-slope, "o-", color=colour)
        _bare(axis, "parameters, N", "loss")
        _word(axis, "short training", (0.8, 0.86))
        _word(axis, "long training", (0.55, 0.2), OURS)
        return figure


def fan() -> Figure:
    """Loss against data for three sizes: together where data are few, each with its own floor where they are many."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(1, 1e4, 100)
        for floor, colour in ((1.0, GREY), (0.6, PAPER), (0.36, OURS)):
            axis.plot(x, floor + 2.2 * x**-0.33, color=colour)
        _bare(axis, "unique characters, D", "best loss")
        _word(axis, "data decide", (0.2, 0.9))
        _word(axis, "size decides", (0.82, 0.5))
        return figure


def excess() -> Figure:
    """Excess over the loss with unlimited data, falling with D; larger models further right; a level and where it is crossed."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(1, 1e3, 100)
        for shift, colour in ((1.0, GREY), (4.0, PAPER), (16.0, OURS)):
            axis.semilogx(x, 1.2 * np.exp(-np.log1p(x / shift) * 0.8), color=colour)
            axis.plot(shift * (1.2 / 0.25) ** (1 / 0.8) - shift, 0.25, "o", color=colour)
        axis.axhline(0.25, color=GREY, ls="--")
        _bare(axis, "unique characters, D", "excess", logarithmic=False)
        _word(axis, "limit", (0.06, 0.25))
        return figure


def trade() -> Figure:
    """Steps against batch, and examples against batch: each rises towards one side; the critical batch is where both are twice their least."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(0.03, 30, 100)
        axis.plot(x, 1 + 1 / x, color=OURS)
        axis.plot(x, 1 + x, color=PAPER)
        axis.axvline(1, color=GREY, ls="--")
        axis.plot(1, 2, "o", color=GREY)
        _bare(axis, "batch, B", "times its least")
        _word(axis, "steps", (0.2, 0.8), OURS)
        _word(axis, "examples", (0.78, 0.8), PAPER)
        _word(axis, "critical", (0.6, 0.05))
        return figure


def context() -> Figure:
    """Loss against position in the context for two kinds of model: together at first, then one falls further."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(1, 256, 100)
        axis.semilogx(x, 1.2 + 1.2 * x**-0.7, color=PAPER)
        axis.semilogx(x, 1.2 + 1.2 * x**-0.7 - 0.05 * np.log(np.maximum(x / 12, 1)), color=OURS)
        _bare(axis, "position in the context", "loss", logarithmic=False)
        _word(axis, "one kind", (0.85, 0.32), PAPER)
        _word(axis, "the other", (0.55, 0.06), OURS)
        return figure


def interval() -> Figure:
    """A heap of slopes from resampled runs, and the middle 95 per cent of it."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.linspace(-3, 3, 25)
        axis.bar(x, np.exp(-(x**2) / 2), width=0.22, color=OURS, alpha=0.6)
        for edge in (-1.96, 1.96):
            axis.axvline(edge, color=PAPER, ls="--")
        _bare(axis, "exponent in each resample", "how often", logarithmic=False)
        axis.set_ylim(0, 1.3)
        _word(axis, "95 %", (0.5, 0.9), PAPER)
        return figure
