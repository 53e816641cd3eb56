"""Sketches for the lab that trains a ladder, drawn from no data."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..figures import GREY, OURS, PAPER, drawing
from .sketches import SIZE, _bare, _word


def bill() -> Figure:
    """Compute of five rungs: the last outweighs the others together."""
    with drawing(size=SIZE) as (figure, (axis,)):
        heights = 2.0 ** np.arange(5)
        axis.bar(range(4), heights[:4], color=OURS)
        axis.bar(4, heights[4], color=PAPER)
        _bare(axis, "rung of the ladder", "FLOPs", logarithmic=False)
        _word(axis, "as much as all the others together", (0.42, 0.9), PAPER)
        return figure


def rates() -> Figure:
    """Loss against learning rate for three widths: the wider, the lower its valley and the further left."""
    with drawing(size=SIZE) as (figure, (axis,)):
        x = np.linspace(-3.2, 3.2, 100)
        for centre, level, name, place, colour in ((1.3, 1.6, "narrow", 8, GREY), (0.0, 1.15, "", 0, PAPER), (-1.3, 0.8, "wide", -16, OURS)):
            axis.plot(x, level + 0.12 * (x - centre) ** 2 + 0.012 * (x - centre) ** 3, color=colour)
            axis.plot(centre, level, "o", color=colour)
            axis.annotate(name, (centre, level), (0, place), textcoords="offset points", color=colour, ha="center")
        _bare(axis, "learning rate (log)", "loss", logarithmic=False)
        axis.set_ylim(0.5, 2.9)
        return figure


def bend() -> Figure:
    """Residuals of a straight line, which bend, and those of a line with a floor, which scatter."""
    with drawing(1, 2, size=(5.6, 2.4)) as (figure, (left, right)):
        x = np.arange(9.0)
        luck = 0.12 * np.array([1, -0.7, 0.2, -1, 0.6, 0.9, -0.4, -0.8, 0.3])
        left.plot(x, 0.13 * (x - 4) ** 2 - 0.87 + luck, "o", color=PAPER)
        right.plot(x, luck, "o", color=OURS)
        for axis, text in ((left, "straight line"), (right, "with a floor")):
            axis.axhline(0, color=GREY, ls="--")
            _bare(axis, "parameters, N (log)", "measured / law (log)", logarithmic=False)
            axis.set_ylim(-1.4, 1.9)
            _word(axis, text, (0.5, 0.9))
        return figure
