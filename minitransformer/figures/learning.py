"""Figures of chapter I: one learning curve, several side by side, and the three regions of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minitransformer import papers
from minitransformer.claims import regions
from minitransformer.claims.domains import Domain
from minitransformer.claims.envelope import LearningCurve
from minitransformer.errors import UserError
from minitransformer.laws.law import Law, short

from .overfitting import DASHES
from .style import GREY, HELD_OUT, OURS, PAPER, drawing, log, note

if TYPE_CHECKING:
    import pandas as pd


def minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def sizes_of(domain: Domain) -> str:
    return f"training set, m ({domain.data})"


def needs_runs(curve: LearningCurve) -> None:
    if not len(curve.errors):
        raise UserError(f"there are no runs of {curve.domain.name} to draw")


def draw_sizes(axis: Axes, errors: pd.DataFrame) -> None:
    """The median curve of each size of model, faint: pale for small, dark for large."""
    models = sorted(set(errors.model))
    shades = matplotlib.colormaps["viridis_r"](np.linspace(0.3, 1, len(models)))
    for model, colour in zip(models, shades):
        medians = errors[errors.model == model].groupby("m").error.median()
        axis.plot(medians.index, medians, "o-", color=colour, lw=0.9, ms=2.5, alpha=0.45, zorder=1)


def draw_best(axis: Axes, curve: LearningCurve, colour: str = OURS) -> None:
    """Every seed of the best fits as a ring, their medians as dots: grey outside the region."""
    low, high = curve.law.range if curve.law.ok else (0, 0)
    inside = lambda m: m.between(low, high)
    for part, shade in ((curve.best[inside(curve.best.m)], colour), (curve.best[~inside(curve.best.m)], GREY)):
        seeds = curve.points[curve.points.m.isin(part.m)]
        axis.plot(seeds.m, seeds.error, "o", mfc="none", mec=shade, ms=4, mew=0.9, alpha=0.8, ls="none", zorder=3)
        axis.plot(part.m, part.error, "o", color=shade, ms=6, ls="none", zorder=4)


def draw_law(axis: Axes, law: Law, colour: str = OURS, band: bool = True) -> None:
    m = np.geomspace(*law.range, 100)
    value, low, high = law.predict(m)
    axis.plot(m, value, color=colour, zorder=2)
    if band:
        axis.fill_between(m, low, high, color=colour, alpha=0.14, lw=0, zorder=0)


def curve_figure(curve: LearningCurve) -> Figure:
    """A domain's learning curve: every size faint (dark: large), the best fits strong, the law of the region with the band that holds
    95 % of new runs, and the paper's slope dashed through its middle, as only slopes compare.

    Green diamonds: the two largest sizes of the region as foretold from the others, with the interval of the forecast.
    """
    needs_runs(curve)
    with drawing(size=(5.6, 4.6)) as (figure, (axis,)):
        log(axis)
        draw_sizes(axis, curve.errors)
        draw_best(axis, curve)
        notes = []
        if curve.law.ok:
            draw_law(axis, curve.law)
            ours = curve.beta_g
            which = "best fits" if curve.region else "beyond the plateau"
            notes.append((minus(f"{which}: $\\beta_g$ = {ours.value:.3f} ({ours.low:.3f} to {ours.high:.3f})"), OURS))
            if curve.domain.beta_g:
                paper = papers.value(curve.domain.beta_g)
                ends = np.array(curve.law.range if curve.region else (curve.law.parameters["D_0"].value, curve.law.range[1]))
                middle = np.sqrt(ends.prod())
                axis.plot(ends, curve.law.predict(middle).value * (ends / middle) ** paper, color=PAPER, ls=DASHES, lw=1.5, zorder=2)
                notes.append((minus(f"Hestness 2017, dashed: {paper:.3f}"), PAPER))
        else:
            notes.append(("no power-law region", PAPER))
        if len(curve.foretold):
            f = curve.foretold
            axis.errorbar(f.m, f.predicted, [f.predicted - f.low, f.high - f.predicted], fmt="D", ms=5, mfc="white", color=HELD_OUT,
                          capsize=5, lw=1.4, ls="none", zorder=5)
            missed = minus(" and ".join(f"{v:+.1f} %" for v in f.error_percent))
            notes.append((f"foretold from the others: {missed}", HELD_OUT))
        notes.append(("thin: each size, dark for large", GREY))
        room(axis, len(notes))
        note(axis, notes)
        axis.set_xlabel(sizes_of(curve.domain))
        axis.set_ylabel(curve.domain.error)
    return figure


def room(axis: Axes, lines: int, below: bool = False) -> None:
    """Room for lines of notes above what is drawn, or below it."""
    points = 72 * axis.get_position().height * axis.figure.get_figheight()
    share = min((15 * lines + 10) / points, 0.6)
    low, high = axis.get_ylim()
    more = (high / low) ** (share / (1 - share))
    axis.set_ylim(low / more if below else low, high if below else high * more)


def curves_side_by_side(curves: Sequence[LearningCurve]) -> Figure:
    """The best fits of several domains, a panel each, with their laws: the same number of decades takes the same room."""
    curves = [curve for curve in curves if len(curve.errors)]
    if not curves:
        raise UserError("there are no learning curves to draw")
    rows = -(-len(curves) // 2)
    with drawing(rows, 2, (7.2, 3.1 * rows)) as (figure, axes):
        for axis, curve in zip(axes, curves):
            log(axis)
            draw_best(axis, curve)
            lines = [(curve.domain.name, "#333333")]
            if curve.law.ok:
                draw_law(axis, curve.law)
                lines.append((minus(f"$\\beta_g$ = {curve.beta_g.value:.3f}"), OURS))
            room(axis, 2)
            note(axis, lines)
            axis.set_xlabel(f"m ({curve.domain.data})")
            axis.set_ylabel(curve.domain.error)
        for axis in axes[len(curves):]:
            axis.set_visible(False)
    return figure


def departure_figure(curve: LearningCurve, departures: pd.DataFrame, name: str = "suspect") -> Figure:
    """A law with the band of new runs, and runs that are checked against it (`use.departs`): those that lie above in red."""
    needs_runs(curve)
    with drawing() as (figure, (axis,)):
        log(axis)
        draw_best(axis, curve)
        draw_law(axis, curve.law)
        for rows, colour in ((departures.departs, PAPER), (~departures.departs, HELD_OUT)):
            axis.plot(departures.m[rows], departures.error[rows], "s", mfc="white", mec=colour, ms=6, mew=1.6, ls="none", zorder=5)
        count = int(departures.departs.sum())
        lines = [("best fits and their law", OURS), (f"{name}: {count} of {len(departures)} above the band", PAPER if count else HELD_OUT)]
        room(axis, 2)
        note(axis, lines)
        axis.set_xlabel(sizes_of(curve.domain))
        axis.set_ylabel(curve.domain.error)
    return figure


# --- three regions -------------------------------------------------------------------------------------------------


def regions_figure(found: regions.Regions) -> Figure:
    """A learning curve as plateau, power law and floor; the borders dotted, with their intervals shaded."""
    curve, law = found.curve, found.law
    needs_runs(curve)
    with drawing(size=(5.6, 4.4)) as (figure, (axis,)):
        log(axis)
        axis.plot(curve.points.m, curve.points.error, "o", mfc="none", mec=OURS, ms=4, mew=0.9, alpha=0.8, ls="none")
        axis.plot(curve.best.m, curve.best.error, "o", color=OURS, ms=6, ls="none", zorder=4)
        lines = [(curve.domain.name, "#333333")]
        if law.ok:
            draw_law(axis, law)
            ends = axis.get_xlim()
            for border, name, colour in ((found.first, "end of the small-data region", PAPER),
                                         (found.second, "end of the power law", HELD_OUT)):
                if border.value is not None:
                    axis.axvline(border.value, color=colour, ls=":", lw=1.5)
                    axis.axvspan(max(border.low, ends[0]), min(border.high, ends[1]), color=colour, alpha=0.12, lw=0)
                    lines.append((f"{name}: {short(float(f'{border.value:.2g}'))}", colour))
            axis.set_xlim(ends)
        else:
            lines.append(("no curve with three regions fitted", PAPER))
        note(axis, lines, "lower left")
        room(axis, len(lines), below=True)
        axis.set_xlabel(sizes_of(curve.domain))
        axis.set_ylabel(curve.domain.error)
    return figure
