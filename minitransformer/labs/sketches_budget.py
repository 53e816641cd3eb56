"""Sketches for the lab that spends a budget, drawn from no data."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..figures import GREY, OURS, PAPER, drawing
from .sketches import SIZE, _bare, _word


def valley() -> Figure:
    """Losses of several sizes at equal compute, a parabola through them, its lowest point between two."""
    with drawing(size=SIZE) as (figure, (axis,)):
        curve = lambda x: np.exp(0.2 + 0.25 * np.log10(x / 14) ** 2)
        x, sizes = np.geomspace(1, 200, 200), np.array([1.5, 4, 9, 30, 110])
        axis.plot(x, curve(x), color=GREY, ls="--")
        axis.plot(sizes, curve(sizes), "o", color=OURS)
        axis.plot(14, curve(14), "*", color=PAPER, ms=12)
        _bare(axis, "model size", "loss")
        _word(axis, "too small", (0.13, 0.13))
        _word(axis, "too few steps", (0.86, 0.13))
        _word(axis, "the minimum", (0.5, 0.22), PAPER)
        return figure


def carried() -> Figure:
    """Two valleys, a line through their lowest points, and the target far to the right."""
    with drawing(size=SIZE) as (figure, (axis,)):
        line = lambda x: 2 * x**-0.12
        for C in (3.0, 12.0):
            x = C * np.geomspace(0.6, 1.7, 40)
            axis.plot(x, line(C) * np.exp(0.35 * np.log(x / C) ** 2), color=OURS)
            axis.plot(C, line(C), "o", color=OURS)
        x = np.geomspace(3, 2000, 50)
        axis.plot(x, line(x), color=GREY)
        beyond = x[x >= 12]
        for sign in (-1, 1):
            axis.plot(beyond, line(beyond) * (beyond / 12) ** (0.02 * sign), color=GREY, ls="--")
        axis.plot(2000, line(2000), "*", color=PAPER, ms=12)
        _bare(axis, "compute", "loss")
        _word(axis, "bought", (0.2, 0.35), OURS)
        _word(axis, "the target", (0.85, 0.42), PAPER)
        return figure


def interval_cost() -> Figure:
    """The mean score of an interval against its half-width: steep where too narrow, slow where too wide."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.linspace(0.1, 4, 200)
        cost = 2 * x + 14 * np.exp(-1.6 * x)
        best = np.argmin(cost)
        axis.plot(x, cost, color=OURS)
        axis.plot(x[best], cost[best], "o", color=PAPER)
        _bare(axis, "half-width of the interval", "mean score", logarithmic=False)
        _word(axis, "claims too much", (0.31, 0.75))
        _word(axis, "says too little", (0.84, 0.16))
        _word(axis, "best", (0.41, 0.2), PAPER)
        return figure


def plan_of_valley() -> Figure:
    """Sizes and lengths of equal compute, on a falling line."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(1, 40, 50)
        sizes = np.array([2, 4.5, 10, 22])
        axis.plot(x, 100 / x, color=GREY, ls="--")
        axis.plot(sizes, 100 / sizes, "o", color=OURS)
        _bare(axis, "model size", "training length")
        _word(axis, "small and long", (0.42, 0.8), OURS)
        _word(axis, "large and short", (0.6, 0.13), OURS)
        _word(axis, "equal compute", (0.24, 0.5))
        return figure


def fan() -> Figure:
    """Cheap runs, the lines that would go on from them, and an interval at the target."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.geomspace(10, 2000, 50)
        for power in (0.08, 0.1, 0.12, 0.14, 0.16):
            axis.plot(x, 1.55 * (x / 10) ** -power, color=GREY, lw=0.8)
        axis.plot([2, 4, 6, 10], [2.0, 1.8, 1.68, 1.55], "o", color=OURS)
        middle = 1.55 * 200**-0.12
        axis.errorbar(2000, middle, yerr=[[middle - 1.55 * 200**-0.16], [1.55 * 200**-0.08 - middle]], fmt="o", color=PAPER, capsize=4)
        _bare(axis, "compute", "loss")
        _word(axis, "bought", (0.13, 0.45), OURS)
        _word(axis, "value and interval", (0.78, 0.72), PAPER)
        return figure
