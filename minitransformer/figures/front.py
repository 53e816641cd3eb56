"""The one figure of the front page: our points, and the line of the paper. Every function returns a matplotlib Figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from minitransformer import papers
from minitransformer.claims import complete, sizes

from .sizes import LOSS, SIZE, size_figure
from .style import HALO, OURS, PAPER, draw_runs, drawing, log

if TYPE_CHECKING:
    import pandas as pd


def front_figure(runs: pd.DataFrame, size: tuple[float, float] = (6.2, 3.2), fonts: float = 1.0) -> Figure:
    """L(N): rings are runs, dots their means, the line is our law with a floor and its 95 % band, Kaplan's slope is dashed.

    runs: those of the claim, as `claims.runs_behind` gives them. size: inches. fonts: how much larger than the style's the words
    are. Words stand at what they name, in its colour.
    """
    runs = complete(runs)
    line, floor, paper = sizes.size_law(runs), sizes.size_law(runs, "power-floor"), papers.value("kaplan2020.alpha_N")
    if not (line.ok and floor.ok):
        return size_figure(runs)
    with drawing(size=size) as (figure, (axis,)):
        log(axis)
        low, high = line.range
        x = np.geomspace(low, high, 120)
        value, below, above = floor.predict(x)
        axis.fill_between(x, below, above, color=OURS, alpha=0.18, lw=0)
        axis.plot(x, value, color=OURS)
        draw_runs(axis, line.runs, line.means, OURS)
        middle, ends = np.sqrt(low * high), np.array([low, high])
        dashed = lambda x: floor.predict(middle).value * (x / middle) ** -paper
        axis.plot(ends, dashed(ends), color=PAPER, ls=(0, (5, 3)))
        axis.set_ylim(top=line.runs.loss.max() * 1.04)
        words = {"path_effects": HALO, "fontsize": 12.5 * fonts, "textcoords": "offset points"}
        at = low * (high / low) ** 0.16
        axis.annotate("small Transformers, trained here", (at, floor.predict(at).value), xytext=(10, 10), color=OURS, va="bottom", ha="left", **words)
        below_it = dashed(low * (high / low) ** 0.3)
        axis.annotate("the slope of\nKaplan et al., 2020", (low, below_it), xytext=(0, 0), color=PAPER, va="top", ha="left", **words)
        axis.set_xlabel(SIZE, fontsize=11.5 * fonts)
        axis.set_ylabel(LOSS.replace(" (", "\n("), fontsize=11.5 * fonts)
        axis.tick_params(labelsize=11 * fonts)
    return figure
