"""Figures of chapter II: loss against compute (Kaplan et al. 2020, Figs 1 and 13)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from minitransformer import papers
from minitransformer.claims import compute
from minitransformer.claims.curves import of_spec, training_curves
from minitransformer.laws.law import Law, short

from .style import GREY, HELD_OUT, OURS, PAPER, drawing, log, note

if TYPE_CHECKING:
    import pandas as pd

COMPUTE, LOSS = "training compute, C (FLOPs)", "validation loss (nats per character)"
DASHED = (0, (5, 3))


def compute_figure(runs: pd.DataFrame) -> Figure:
    """Learning curves at a constant rate against compute, where larger sizes overtake, and the line through these points."""
    ladder, points = of_spec(runs, "ladder"), compute.overtakings(runs)
    law, paper = compute.compute_law(points), papers.value("kaplan2020.alpha_C")
    curves = training_curves(ladder)
    curves = curves.assign(log=np.log(curves.loss)).groupby(["N", "S", "B"], as_index=False).log.mean()
    with drawing(size=(5.6, 4.6)) as (figure, (axis,)):
        log(axis)
        norm = LogNorm(curves.N.min(), max(curves.N.max(), 1.01 * curves.N.min()))
        for N, group in curves.groupby("N"):
            colour = matplotlib.colormaps["viridis_r"](0.25 + 0.75 * norm(N))
            axis.plot(6 * N * group.B * group.S, np.exp(group.log), color=colour, lw=1.2)
        axis.plot(points.C, points.loss, "D", mfc="white", mec="black", ms=4.5, zorder=5)
        notes = [(f"learning curves, N = {short(curves.N.min())} (light) to {short(curves.N.max())}", GREY),
                 ("◆ a larger size overtakes", "black")]
        if law.ok:
            _frontier(axis, law, OURS)
            low, high = law.range
            middle, ends = np.sqrt(low * high), np.array([low / 2, high * 2])
            axis.plot(ends, law.predict(middle).value * (ends / middle) ** -paper, color=PAPER, ls=DASHED, lw=1.5, zorder=4)
            e = compute.compute_exponent(points)
            notes += [(rf"frontier: $\alpha_C$ = {e.value:.3f} ({e.low:.3f} to {e.high:.3f})", OURS),
                      (rf"Kaplan 2020, dashed: $\alpha_C$ = {paper:.3g}", PAPER)]
        else:
            notes.append(("no law fitted: too few sizes overtake", PAPER))
        axis.set(xlabel=COMPUTE, ylabel=LOSS)
        axis.set_ylim(top=1.7 * points.loss.max() if len(points) else None)
        note(axis, notes)
    return figure


def _frontier(axis: Axes, law: Law, ink: str) -> None:
    x = np.geomspace(law.range[0] / 2, law.range[1] * 2, 60)
    value, low, high = law.band(x)
    axis.plot(x, value, color=ink, zorder=4)
    axis.fill_between(x, low, high, color=ink, alpha=0.18, lw=0)


def adjusted_figure(points: pd.DataFrame) -> Figure:
    """The frontier against C at the fixed batch and against C_min: `points` from `compute.overtakings`, with a critical batch."""
    kinds = (("C", "o", OURS, "C, as spent", "alpha_C"), ("C_min", "s", HELD_OUT, r"$C_{min}$", "alpha_C_min"))
    with drawing(size=(5.6, 4.2)) as (figure, (axis,)):
        log(axis)
        notes = []
        for column, marker, ink, name, key in kinds:
            law, paper = compute.compute_law(points, column), papers.value(f"kaplan2020.{key}")
            axis.plot(points[column], points.loss, marker, color=ink, ms=5.5)
            if law.ok:
                _frontier(axis, law, ink)
                e = compute.compute_exponent(points, column)
                name += f": {e.value:.3f} ({e.low:.3f} to {e.high:.3f}), paper {paper:.3f}"
            notes.append((name, ink))
        axis.set(xlabel=COMPUTE, ylabel=LOSS)
        axis.set_ylim(top=axis.get_ylim()[1] * 1.05)
        note(axis, notes)
    return figure


CLAIMS = {"kaplan.L_C": compute_figure}
