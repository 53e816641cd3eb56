"""Figures of chapter II: loss against size and against data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minitransformer import papers
from minitransformer.claims import sizes
from minitransformer.laws.law import Estimate, Law, Points

from .laws import law_figure
from .style import GREY, HELD_OUT, OURS, PAPER, draw_runs, drawing, log, note

if TYPE_CHECKING:
    import pandas as pd

SIZE, TEXT = "non-embedding parameters, N", "unique training text, D (characters)"
LOSS = "validation loss (nats per character)"
DASHED, DOTTED = (0, (5, 3)), (0, (1, 1.5))


def forms_figure(line: Law, others: Mapping[str, Law], paper: float, xlabel: str, ylabel: str = LOSS, symbol: str = r"$\alpha$",
                 average: Estimate | None = None, left_out: Points | None = None) -> Figure:
    """Loss against x with the straight line and other laws through it, and below how far the points lie from each of them.

    Rings are runs, dots their means, grey rings runs that the line leaves out. Bands hold 95 % of new runs. The paper's exponent
    is drawn dashed through the middle, as only slopes compare. Diamonds: the largest x as each law predicts it from the smaller
    ones, with the interval of that. average: the slope's own interval.
    """
    laws = {"straight line": line, **{name: law for name, law in others.items() if law.ok}}
    inks = dict(zip(laws, (OURS, HELD_OUT, "#AA4499")))
    with drawing(2, 1, (5.6, 6.0), sharex=True, height_ratios=[2.6, 1]) as (figure, (top, below)):
        log(top)
        if left_out is not None:
            top.plot(left_out.x, left_out.loss, "o", mfc="none", mec=GREY, ms=4.5, mew=0.9, ls="none")
        draw_runs(top, line.runs, line.means, "#222222")
        low, high = line.range
        middle = np.sqrt(low * high)
        ends = np.array([low, high])
        top.plot(ends, line.predict(middle).value * (ends / middle) ** -paper, color=PAPER, ls=DASHED, lw=1.5)
        for i, ((name, law), ink) in enumerate(zip(laws.items(), inks.values())):
            x = np.geomspace(*law.range, 120)
            value, lower, upper = law.predict(x)
            top.plot(x, value, color=ink, ls="-" if i else DOTTED, lw=1.6)
            top.fill_between(x, lower, upper, color=ink, alpha=0.06 if i == 0 < len(laws) - 1 else 0.15, lw=0)
            if law.holdout:
                h = law.holdout
                at = h.x * 1.06 ** (i - 0.5)
                ends = [[h.predicted - h.low], [h.high - h.predicted]]
                top.errorbar(at, h.predicted, ends, fmt="D", ms=4.5, mfc="white", color=ink, capsize=4, lw=1.2, zorder=3)
            inside = (line.means.x >= law.range[0] / 1.001) & (line.means.x <= law.range[1] * 1.001)
            at = line.means.x[inside]
            below.plot(at, 100 * (line.means.loss[inside] / law.predict(at).value - 1), "o-", color=ink, ms=4, lw=1.0)
        below.axhline(0, color=GREY, lw=1)
        e = average or line.exponent
        notes = [(f"straight line, dotted: {symbol} = {e.value:.3f} ({e.low:.3f} to {e.high:.3f})", OURS),
                 (f"Kaplan 2020, dashed: {symbol} = {paper:.3g}", PAPER), *((name, inks[name]) for name in list(laws)[1:])]
        if left_out is not None and len(left_out.loss):
            notes.append(("left out of the line", GREY))
        top.set_ylim(top=top.get_ylim()[1] * 1.08)
        note(top, notes)
        top.set_ylabel(ylabel)
        below.set_ylabel("residual (%)")
        below.yaxis.set_major_locator(MaxNLocator(4, symmetric=True, steps=[1, 2, 5, 10]))
        below.set_xlabel(xlabel)
    return figure


def size_figure(runs: pd.DataFrame) -> Figure:
    """L(N) at the longest common horizon, with and without a floor."""
    line, floor, paper = sizes.size_law(runs), sizes.size_law(runs, "power-floor"), papers.value("kaplan2020.alpha_N")
    if not (line.ok and floor.ok and len(line.means.x) >= sizes.ENOUGH):
        return law_figure(line, paper, "Kaplan 2020", SIZE, LOSS)
    average = sizes.average_exponent(line.means.x, line.means.loss, robust=True)
    return forms_figure(line, {"power law with a floor": floor}, paper, SIZE, symbol=r"$\alpha_N$", average=average)


def local_figure(runs: pd.DataFrame) -> Figure:
    """The exponent of L(N) between neighbouring sizes, dots, and along the law with a floor, with its band."""
    line, floor, paper = sizes.size_law(runs), sizes.size_law(runs, "power-floor"), papers.value("kaplan2020.alpha_N")
    with drawing(size=(5.6, 4.0)) as (figure, (axis,)):
        log(axis, "x")
        notes = [("between neighbouring sizes", "#222222")]
        if floor.ok:
            x = np.geomspace(*floor.range, 60)
            found = np.array([[e.value, e.low, e.high] for e in (sizes.law_exponent(floor, [v / 1.02, v * 1.02]) for v in x)]).T
            axis.plot(x, found[0], color=HELD_OUT)
            axis.fill_between(x, found[1], found[2], color=HELD_OUT, alpha=0.14, lw=0)
            notes.append(("along the law with a floor", HELD_OUT))
        average = sizes.average_exponent(line.means.x, line.means.loss, len(line.means.x) >= sizes.ENOUGH)
        if average.value is not None:
            axis.axhspan(average.low, average.high, color=OURS, alpha=0.18, lw=0)
            axis.axhline(average.value, color=OURS, ls=DOTTED)
            notes.append((f"average: {average.value:.3f} ({average.low:.3f} to {average.high:.3f})", OURS))
        axis.plot(*sizes.local_exponents(line.means.x, line.means.loss), "o", color="#222222", ms=5.5)
        axis.axhline(paper, color=PAPER, ls=DASHED, lw=1.5)
        notes.append((f"Kaplan 2020: {paper:.3g}", PAPER))
        axis.set(xlabel=SIZE, ylabel=r"local exponent, $-\mathrm{d}\log L/\mathrm{d}\log N$")
        axis.set_ylim(0, axis.get_ylim()[1] * 1.25)
        note(axis, notes)
    return figure


def horizon_figure(runs: pd.DataFrame) -> Figure:
    """The exponent of L(N) after each length of training, and for unlimited text by two fitted laws of N and D."""
    lengths, paper = sizes.by_horizon(runs), papers.value("kaplan2020.alpha_N")
    points = sizes.size_law(runs).means
    with drawing(size=(5.6, 4.0)) as (figure, (axis,)):
        log(axis, "x")
        far, notes = lengths.D.max() * 4, [("after training on D characters", OURS)]
        bars = [lengths.value - lengths.low, lengths.high - lengths.value]
        axis.errorbar(lengths.D, lengths.value, bars, fmt="o-", color=OURS, capsize=4, ms=5)
        for i, (form, name, ink) in enumerate((("chinchilla", "Chinchilla's", HELD_OUT), ("kaplan-nd", "Kaplan's", "#AA4499"))):
            e = sizes.law_exponent(sizes.joint_law(runs, form), points.x, D=sizes.UNLIMITED)
            if e.value is not None:
                bars = [[e.value - e.low], [e.high - e.value]]
                axis.errorbar(far * 1.5**i, e.value, bars, fmt="D", mfc="white", color=ink, capsize=4, ms=5)
                axis.annotate("unlimited", (far * 1.5**i, e.low), xytext=(0, -6), textcoords="offset points", ha="center",
                              va="top", color=ink, fontsize=10)
                notes.append((f"unlimited text, {name} L(N, D)", ink))
        axis.axhline(paper, color=PAPER, ls=DASHED, lw=1.5)
        notes.append((f"Kaplan 2020: {paper:.3g}", PAPER))
        axis.set(xlabel="characters of training, D", ylabel=r"exponent of $L(N)$, $\alpha_N$")
        bottom, high = axis.get_ylim()
        axis.set_ylim(min(bottom, 0.9 * paper), high + 0.35 * (high - bottom))
        note(axis, notes)
    return figure


def data_figure(runs: pd.DataFrame) -> Figure:
    """L(D): early-stopped loss of the widest model; the straight line through the power-law region, three regions through all."""
    line, paper = sizes.text_law(runs), papers.value("kaplan2020.alpha_D")
    points = sizes.data_points(runs)
    if not line.ok:
        return law_figure(line, xlabel=TEXT, ylabel="best " + LOSS)
    rest = points[~points.kept]
    others = {"three regions": sizes.text_law(runs, "regions")}
    average = sizes.average_exponent(line.means.x, line.means.loss)
    average = average if average.value is not None else None
    left_out = Points({"D": rest.unique_tokens.to_numpy(float)}, rest.best_loss.to_numpy(float))
    return forms_figure(line, others, paper, TEXT, "best " + LOSS, r"$\alpha_D$", average, left_out)


CLAIMS = {"kaplan.L_N": size_figure, "kaplan.L_D": data_figure}
