"""Figures of chapter I: the growth of the model, what one size does, optimisers, use; and what draws each claim."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from minitransformer import claims, papers
from minitransformer.claims import capacity as fixed, growth as sizes, optimisers, regions, use as uses
from minitransformer.claims.domains import DOMAINS, Domain, domain
from minitransformer.claims.envelope import beta_g, law_of, learning_curve, means_by_size
from minitransformer.errors import UserError
from minitransformer.laws.law import short

from .laws import learning_curve_figure
from .learning import curve_figure, curves_side_by_side, departure_figure, draw_law, minus, needs_runs, regions_figure, room, sizes_of
from .overfitting import DASHES, place
from .style import GREY, HELD_OUT, MARKERS, OURS, PAPER, SERIES, drawing, log, note

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CLAIMS", "bend_figure", "capacity_figure", "curve_figure", "curves_side_by_side", "departure_figure", "growth_figure",
           "optimisers_figure", "regions_figure", "use_figure"]


def transformer_figure(runs: pd.DataFrame) -> Figure:
    return learning_curve_figure(
        claims.data_law(runs), int(runs.vocab_size.iloc[0]), paper=abs(papers.value("hestness2017.char_lm_sgd.curve_beta_g")),
        paper_name="Hestness 2017", xlabel="training set, D (characters)", ylabel="best validation loss (nats per character)",
    )


# --- growth of the model -------------------------------------------------------------------------------------------


def growth_figure(found: Sequence[sizes.Growth]) -> Figure:
    """The smallest size within 1 % of the best at each training set, a panel for each domain; the paper's slope dashed.

    Dots: inside the sizes tried, and fitted where the design allows. Rings: at their edge. Small crosses: every size tried. Diamonds:
    minima of parabolas.
    """
    found = [one for one in found if len(one.points)]
    if not found:
        raise UserError("there are no runs of several sizes to draw")
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    with drawing(rows, columns, (3.6 * columns if columns > 1 else 5.6, 3.3 * rows)) as (figure, axes):
        for axis, one in zip(axes, found):
            log(axis)
            axis.plot(one.tried.m, one.tried.N, "x", color=GREY, ms=3, mew=0.7, alpha=0.7, ls="none")
            inside = one.points.inside
            axis.plot(one.points.m[~inside], one.points.N[~inside], "o", mfc="white", mec=OURS, ms=6, ls="none", zorder=4)
            axis.plot(one.points.m[inside], one.points.N[inside], "o", color=OURS, ms=6, ls="none", zorder=4)
            known = [minimum for minimum in one.minima.minima if minimum.N.value]
            axis.plot([k.C for k in known], [k.N.value for k in known], "D", mfc="none", mec=HELD_OUT, ms=5, ls="none", zorder=3)
            lines = [(one.domain.name, "#333333")]
            x, y = np.log(one.points.m[inside]), np.log(one.points.N[inside])
            ends = np.log([one.points.m.min(), one.points.m.max()])
            if one.beta_p.value is not None:
                axis.plot(np.exp(ends), np.exp(y.mean() + one.beta_p.value * (ends - x.mean())), color=OURS)
                lines.append((minus(f"$\\beta_p$ = {one.beta_p.value:.2f} ({one.beta_p.low:.2f} to {one.beta_p.high:.2f})"), OURS))
            else:
                lines.append(("$\\beta_p$ cannot be told", OURS))
            if one.by_parabola.value is not None:
                lines.append((f"by parabolas: {one.by_parabola.value:.2f}", HELD_OUT))
            if one.domain.beta_p:
                paper = papers.value(one.domain.beta_p)
                mid = (x.mean(), y.mean()) if inside.any() else (ends.mean(), np.log(one.points.N).mean())
                axis.plot(np.exp(ends), np.exp(mid[1] + paper * (ends - mid[0])), color=PAPER, ls=DASHES, lw=1.5)
                lines.append((f"Hestness 2017: {paper}", PAPER))
            room(axis, len(lines))
            place(axis, lines, "upper left")
            axis.set_xlabel(f"m ({one.domain.data})")
            axis.set_ylabel("N (parameters)")
        for axis in axes[len(found):]:
            axis.set_visible(False)
    return figure


# --- one size of model ---------------------------------------------------------------------------------------------


def capacity_figure(found: fixed.Capacity) -> Figure:
    """Each size's median error over the best at the same training set, and where it leaves the curve of the best for good; right, that
    training set against the size."""
    if not len(found.errors):
        raise UserError(f"there are no runs of {found.domain.name} to draw")
    medians = found.errors.groupby(["m", "N_total"]).error.median().unstack()
    over = 100 * (medians.div(medians.min(axis=1), axis=0) - 1)
    shades = dict(zip(over.columns, matplotlib.colormaps["viridis_r"](np.linspace(0.3, 1, len(over.columns)))))
    with drawing(1, 2, (7.2, 4.0), width_ratios=[1.35, 1]) as (figure, (left, right)):
        log(left, "x")
        log(right)
        for N, colour in shades.items():
            one = over[N].dropna()
            left.plot(one.index, one, "o-", color=colour, ms=4, lw=1.3)
        left.axhline(100 * fixed.ABOVE, color=GREY, ls=":", lw=1.3)
        left.set_yscale("symlog", linthresh=10)
        left.set_ylim(-1, None)
        ticks = [0, 10, 100, 1000][: 3 if over.max().max() < 300 else 4]
        left.set_yticks(ticks, map(str, ticks))
        known = found.bends[found.bends.left]
        for row in known.itertuples():
            left.plot(row.m, 100 * fixed.ABOVE, "D", mfc="white", mec=shades[row.N], ms=6, zorder=5)
            right.errorbar(row.N, row.m, [[row.m - row.low], [row.high - row.m]], fmt="D", color=shades[row.N], mfc="white", ms=6,
                           capsize=4)
        lines = [(found.domain.name, "#333333")]
        if found.exponent.value is not None:
            N = np.array([known.N.min(), known.N.max()])
            middle = np.exp(np.log(known.m).mean()), np.exp(np.log(known.N).mean())
            right.plot(N, middle[0] * (N / middle[1]) ** found.exponent.value, color=OURS, zorder=1)
            lines.append((f"exponent {found.exponent.value:.2f} ({found.exponent.low:.2f} to {found.exponent.high:.2f})", OURS))
        else:
            lines.append(("fewer than two sizes leave", PAPER))
        right.margins(0.2)
        right.set_xlim(over.columns.min() / 1.5, 1.5 * over.columns.max())
        room(right, 2)
        place(right, lines, "upper left")
        place(left, [(f"N = {short(float(f'{N:.2g}'))}", colour) for N, colour in shades.items()], "upper left")
        left.set_xlabel(sizes_of(found.domain))
        left.set_ylabel("error over the best (%)")
        right.set_xlabel("N (parameters)")
        right.set_ylabel(f"leaves at m ({found.domain.data})")
    return figure


def bend_figure(found: fixed.Bend) -> Figure:
    """The curve of the best in black with its law, and each size's own, a power law above a constant, which is its dotted level."""
    curve = found.curve
    needs_runs(curve)
    sizes_ = sorted(set(curve.errors.N_total))
    shades = dict(zip(sizes_, matplotlib.colormaps["viridis_r"](np.linspace(0.3, 1, len(sizes_)))))
    with drawing(size=(5.6, 4.8)) as (figure, (axis,)):
        log(axis)
        lines = []
        for N, colour in shades.items():
            medians = curve.errors[curve.errors.N_total == N].groupby("m").error.median()
            axis.plot(medians.index, medians, "o", color=colour, ms=4, ls="none", alpha=0.8)
            text, law = f"N = {short(float(f'{N:.2g}'))}", found.single.get(float(N))
            if law is not None and law.ok and law.parameters["alpha_D"].value is not None:
                draw_law(axis, law, colour, band=False)
                text += minus(f": {-law.parameters['alpha_D'].value:.2f}")
            lines.append((text, colour))
        if curve.law.ok:
            draw_law(axis, curve.law, "black")
            lines.append((minus(f"the best: {curve.beta_g.value:.3f}"), "black"))
        room(axis, len(lines))
        note(axis, lines)
        axis.set_xlabel(sizes_of(curve.domain))
        axis.set_ylabel(curve.domain.error)
    return figure


# --- optimisers, and use -------------------------------------------------------------------------------------------


def optimisers_figure(found: optimisers.Pair) -> Figure:
    """Best fits of Adam and SGD at the same widths and training sets; below, Adam's error over SGD's, the region's line through it."""
    needs_runs(found.adam)
    needs_runs(found.sgd)
    with drawing(2, 1, (5.6, 5.6), sharex=True, height_ratios=[2.4, 1]) as (figure, (top, bottom)):
        log(top)
        log(bottom, "x")
        lines = []
        for (name, curve), colour, marker in zip((("Adam", found.adam), ("SGD", found.sgd)), SERIES[:4:3], MARKERS):
            top.plot(curve.points.m, curve.points.error, marker, mfc="none", mec=colour, ms=4, mew=0.9, alpha=0.8, ls="none")
            top.plot(curve.best.m, curve.best.error, marker, color=colour, ms=6, ls="none")
            law, text = law_of(curve.points, found.region), name
            if law.ok:
                draw_law(top, law, colour)
                text += minus(f": $\\beta_g$ = {beta_g(law).value:.3f}")
            lines.append((text, colour))
        (x, adam), (z, sgd) = (means_by_size(curve.points) for curve in (found.adam, found.sgd))
        both = np.isin(x, z)
        bottom.plot(np.exp(x[both]), np.exp(adam[both] - sgd[np.isin(z, x)]), "o", color="#333333", ms=5)
        offset = 1 + papers.value("hestness2017.char_lm_adam.offset")
        bottom.axhline(1, color=GREY, lw=1)
        bottom.axhline(offset, color=PAPER, ls=DASHES, lw=1.5)
        if found.slope.value is not None:
            ends = np.log([found.region.low, found.region.high])
            bottom.plot(np.exp(ends), found.ratio.value * np.exp(found.slope.value * (ends - ends.mean())), color="#333333", lw=1.5)
            slope = found.slope
            lines.append((minus(f"slopes differ by {slope.value:+.3f} ({slope.low:+.3f} to {slope.high:+.3f})"), "#333333"))
        lines.append((f"Hestness 2017, dashed below: {offset:g}", PAPER))
        room(top, len(lines))
        note(top, lines)
        top.set_ylabel(found.adam.domain.error)
        bottom.set_ylabel("Adam / SGD")
        bottom.set_xlabel(sizes_of(found.adam.domain))
    return figure


def use_figure(found: dict[str, uses.Use]) -> Figure:
    """For each domain, what the two largest training sets' errors were foretold as, over what they were (per cent, with the forecast's
    interval), beside what one doubling of the data gains (bar)."""
    if not found:
        raise UserError("there is no forecast to draw: no domain has a power law of enough sizes")
    with drawing(size=(5.6, 1.2 + 0.85 * len(found))) as (figure, (axis,)):
        for row, one in enumerate(found.values()):
            axis.barh(row, 2 * one.gain.value, left=-one.gain.value, height=0.72, color=OURS, alpha=0.15, lw=0)
            for shift, f in zip((-0.16, 0.16), one.ahead.itertuples()):
                low, high = (100 * (end / f.measured - 1) for end in (f.low, f.high))
                axis.errorbar(f.error_percent, row + shift, xerr=[[f.error_percent - low], [high - f.error_percent]], fmt="D", ms=5,
                              mfc="white", color=HELD_OUT, capsize=4, lw=1.4)
        axis.axvline(0, color=GREY, lw=1)
        axis.set_yticks(range(len(found)), [one.curve.domain.name for one in found.values()])
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.set_xlabel("foretold minus measured (% of the error)")
        axis.set_ylabel("domain")
        axis.set_title("forecasts (diamonds) and one doubling's gain (bars)", fontsize=10.5)
    return figure


# --- from the runs behind a claim ----------------------------------------------------------------------------------


def power_law_figure(of: Domain, runs: pd.DataFrame) -> Figure:
    return curve_figure(learning_curve(runs, of))


def claimed_regions(runs: pd.DataFrame) -> Figure:
    found = [regions.find_regions(learning_curve(runs, domain(name))) for name in regions.CANDIDATES]
    return regions_figure(next((one for one in found if not one.reason), found[0]))


def claimed_growth(runs: pd.DataFrame) -> Figure:
    found = [sizes.growth(domain(name).errors(runs), domain(name)) for name in sizes.DOMAINS_THAT_GROW]
    told = [one for one in found if one.beta_p.value is not None]
    return growth_figure(told or found)


def claimed_capacity(runs: pd.DataFrame) -> Figure:
    found = [fixed.capacity(domain(name).errors(runs), domain(name)) for name in fixed.LISTENERS]
    return capacity_figure(next((one for one in found if one.exponent.value is not None), found[0]))


def claimed_use(runs: pd.DataFrame) -> Figure:
    found = {name: uses.use(learning_curve(runs, one)) for name, one in DOMAINS.items()}
    return use_figure({name: one for name, one in found.items() if one is not None})


CLAIMS = {
    "baidu.power_law.transformer": transformer_figure,
    **{f"baidu.power_law.{name}": partial(power_law_figure, one) for name, one in DOMAINS.items()},
    "baidu.regions": claimed_regions,
    "baidu.model_growth": claimed_growth,
    "baidu.capacity": claimed_capacity,
    "baidu.translation_bend": lambda runs: bend_figure(fixed.bend(learning_curve(runs, DOMAINS["translation"]))),
    "baidu.optimizer": lambda runs: optimisers_figure(optimisers.compare(runs)),
    "baidu.use": claimed_use,
}
