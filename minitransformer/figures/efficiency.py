"""Figures of chapter IV: sample efficiency, the law of size and steps, the critical batch (Kaplan et al. 2020, §5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minitransformer import papers
from minitransformer.claims import efficiency
from minitransformer.laws.law import Estimate, Law

from .style import GREY, HELD_OUT, OURS, PAPER, SERIES, drawing, log, note, plain

if TYPE_CHECKING:
    import pandas as pd

TOKENS = "characters to reach a loss"
DASHED = (0, (5, 3))


def _shades(count: int) -> list:
    return [matplotlib.colormaps["viridis_r"](share) for share in np.linspace(0.25, 1, max(count, 1))]


def _spread(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` of `count` places, evenly spread, first and last among them."""
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int)) if count else np.zeros(0, int)


def _nothing(axis: Axes, text: str) -> None:
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, color=PAPER, wrap=True)


# --- sample efficiency ---------------------------------------------------------------------------------------------


def samples_figure(runs: pd.DataFrame, levels: int = 6) -> Figure:
    """Tokens to each of some fixed losses against N, and how many times fewer the largest size needs than each other one.

    Above: rings are seeds, lines join their means; a line ends where a size does not reach the loss. Below: bars are 95 %
    intervals; circles at a constant rate, squares for decayed runs.
    """
    tokens = efficiency.tokens_to_losses(runs)
    with drawing(2, 1, (5.6, 7.0), sharex=True, height_ratios=[1.35, 1]) as (figure, (top, below)):
        log(top)
        losses = [L for L, group in tokens.groupby("L") if group.N.nunique() > 1]
        chosen = sorted({losses[i] for i in _spread(len(losses), levels)}, reverse=True)
        for L, colour in zip(chosen, _shades(len(chosen))):
            group = tokens[tokens.L == L]
            means = np.exp(np.log(group.D.astype(float)).groupby(group.N).mean())
            top.plot(group.N, group.D, "o", mfc="none", mec=colour, ms=4, mew=0.9, ls="none")
            top.plot(means.index, means, color=colour)
            top.annotate(f"{L:.2f}", (means.index[-1], means.iloc[-1]), xytext=(6, 0), textcoords="offset points", va="center",
                         color=colour, fontsize=10.5)
        top.margins(x=0.11, y=0.12)
        top.set_ylabel(TOKENS)
        note(top, [("beside each line: the loss, nats per character", GREY)])
        if not chosen:
            _nothing(top, "no two sizes reach one loss")

        log(below)
        texts = []
        for decayed, marker, colour, text in ((False, "o", OURS, "● constant rate"), (True, "s", HELD_OUT, "■ decayed runs")):
            factors = efficiency.against_largest(runs, decayed)
            if len(factors):
                _bars(below, factors.N, factors.factor, factors.low, factors.high, marker, colour)
                texts.append((text, colour))
        below.axhline(1, color=GREY, lw=1.2)
        below.set(xlabel="non-embedding parameters, N", ylabel="times as many\nas the largest needs")
        note(below, texts)
    return figure


def _bars(axis: Axes, x, value, low, high, marker: str, colour: str, **options) -> None:
    x, value, low, high = (np.asarray(v, float) for v in (x, value, low, high))
    known = np.isfinite(low) & np.isfinite(high)
    reach = [(value - low)[known], (high - value)[known]]
    axis.errorbar(x[known], value[known], reach, fmt="none", ecolor=colour, capsize=3, lw=1.2)
    axis.plot(x, value, marker, **{"color": colour, "ms": 6, "ls": "none", "zorder": 4, **options})


# --- the law of size and steps -------------------------------------------------------------------------------------


def steps_law_figure(points: pd.DataFrame, law: Law, xlabel: str = "fewest steps, $S_{min}$") -> Figure:
    """Training curves in S_min with the law of size and steps through them, residuals in per cent below.

    points: of `efficiency.steps_points`. The shade is the law's own band for each size.
    """
    with drawing(2, 1, (5.6, 6.0), sharex=True, height_ratios=[2.4, 1]) as (figure, (top, below)):
        log(top)
        for axis, ylabel in ((top, "validation loss (nats per character)"), (below, "residual (%)")):
            axis.set_ylabel(ylabel)
        below.set_xlabel(xlabel)
        colour = _by_size(points.N)
        for N, group in points.groupby("N"):
            group = group.sort_values("S_min")
            top.plot(group.S_min, group.loss, "o", color=colour(N), ms=3.2, ls="none")
            if law.ok:
                S = np.geomspace(group.S_min.min(), group.S_min.max(), 60)
                value, low, high = law.band(N=N, S=S)
                top.fill_between(S, low, high, color=colour(N), alpha=0.15, lw=0)
                top.plot(S, value, color=colour(N), lw=1.2)
                off = 100 * (group.loss / law.band(N=N, S=group.S_min.to_numpy()).value - 1)
                below.plot(group.S_min, off, color=colour(N), lw=1)
        below.axhline(0, color=GREY, lw=1.2)
        low, high = top.get_ylim()
        top.set_ylim(low, high * (high / low) ** 0.16)
        if law.ok:
            alpha = law.parameters["alpha_S"]
            shown = "not identified" if alpha.value is None else f"{alpha.value:.2f} (95 %: {alpha.low:.2f} to {alpha.high:.2f})"
            note(top, [(rf"$\alpha_S$ = {shown}", OURS), (f"residual {law.rms_percent:.1f} % rms", GREY)])
        else:
            note(top, [("no law fitted", PAPER)])
        below.yaxis.set_major_locator(MaxNLocator(4, symmetric=True, steps=[1, 2, 5, 10]))
        _sizes_bar(figure, [top, below], points.N)
    return figure


def collapse_figure(points: pd.DataFrame, law: Law, paper: float | None = None) -> Figure:
    """What each size has still to learn, its loss above the law's (N_c / N)^alpha_N, against S_min: by eq. 1.6 one straight line.

    paper: its exponent, dashed. A law that was refused leaves an empty figure with the reason.
    """
    with drawing() as (figure, (axis,)):
        log(axis)
        axis.set(xlabel="fewest steps, $S_{min}$", ylabel="loss still to be trained away (nats)")
        if not law.ok or law.parameters["N_c"].value is None:
            _nothing(axis, "no law fitted")
            return figure
        colour = _by_size(points.N)
        values = {name: estimate.value for name, estimate in law.parameters.items()}
        for N, group in points.groupby("N"):
            excess = group.loss - (values["N_c"] / N) ** values["alpha_N"]
            keep = excess > 0
            axis.plot(group.S_min[keep], excess[keep], "o", color=colour(N), ms=3.6, ls="none")
        S = np.array([points.S_min.min(), points.S_min.max()])
        line = lambda alpha, at: (values["S_c"] / at) ** values["alpha_S"] * (S / at) ** -alpha
        axis.plot(S, (values["S_c"] / S) ** values["alpha_S"], color=OURS)
        texts = [(rf"line: $\alpha_S$ = {values['alpha_S']:.2f}", OURS)]
        if paper is not None:
            axis.plot(S, line(paper, np.sqrt(S[0] * S[1])), color=PAPER, ls=DASHED, lw=1.5)
            texts.append((rf"Kaplan 2020, dashed: $\alpha_S$ = {paper:.2f}", PAPER))
        note(axis, texts)
        _sizes_bar(figure, [axis], points.N)
    return figure


def choices_figure(main: Estimate, others: Mapping[str, Estimate], paper: float, symbol: str = r"$\alpha_S$") -> Figure:
    """One exponent by what was done differently, each with its 95 % interval; the paper's dashed."""
    rows = {"as in the claim": main, **others}
    with drawing(1, 1, (6.2, 1.3 + 0.36 * len(rows))) as (figure, (axis,)):
        for place, (name, found) in enumerate(rows.items()):
            colour = OURS if place == 0 else GREY
            if found.value is not None:
                axis.plot([found.low, found.high], [place, place], color=colour, lw=1.6)
                axis.plot(found.value, place, "o", color=colour, ms=6)
            else:
                axis.annotate("not identified", (paper, place), xytext=(-6, 0), textcoords="offset points", color=GREY,
                              ha="right", va="center")
        axis.axvline(paper, color=PAPER, ls=DASHED, lw=1.5)
        axis.annotate("Kaplan 2020", (paper, -0.75), xytext=(4, 0), textcoords="offset points", color=PAPER, va="center")
        axis.set_yticks(range(len(rows)), list(rows))
        axis.set_ylim(len(rows) - 0.4, -1.2)
        axis.set_xlabel(symbol)
    return figure


def _by_size(N) -> Callable:
    scale = LogNorm(min(N) * 0.999, max(N) * 1.001) if len(N) else LogNorm(1, 10)
    return lambda size: matplotlib.colormaps["viridis_r"](0.15 + 0.85 * float(scale(size)))


def _sizes_bar(figure: Figure, axes: list[Axes], N) -> None:
    """A bar of colours for N on the right."""
    if not len(N):
        return
    colours = matplotlib.colors.ListedColormap(matplotlib.colormaps["viridis_r"](np.linspace(0.15, 1, 256)))
    scale = LogNorm(min(N) * 0.999, max(N) * 1.001)
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(scale, colours), ax=axes, pad=0.02, aspect=30)
    sizes = np.unique(N)
    shown = sizes[_spread(len(sizes), 5)]
    bar.set_ticks(shown, labels=[plain(float(size)) for size in shown])
    bar.ax.minorticks_off()
    bar.set_label("non-embedding parameters, N")


# --- the critical batch --------------------------------------------------------------------------------------------


def trade_figure(steps: pd.DataFrame, points: pd.DataFrame, N: float | None = None, levels: int = 4) -> Figure:
    """Steps against tokens to fixed losses, one point for each batch, with S = S_min (1 + 1 / (E / E_min - 1)): eq. 5.1.

    steps, points: of `efficiency.steps_by_batch` and `critical_points`; N: the size shown, the largest unless given. Diamonds
    lie where B = B_crit, at twice the fewest steps and twice the fewest tokens.
    """
    with drawing() as (figure, (axis,)):
        log(axis)
        axis.set(xlabel="characters seen, E", ylabel="steps taken, S")
        known = points[points.N == (points.N.max() if N is None else N)].sort_values("L", ascending=False)
        if not len(known):
            _nothing(axis, "no critical batch could be found")
            return figure
        known = known.iloc[_spread(len(known), levels)]
        texts = []
        for point, colour in zip(known.itertuples(), _shades(len(known))):
            rows = steps[(steps.N == point.N) & (steps.L == point.L)]
            axis.plot(rows.B * rows.S, rows.S, "o", color=colour, ms=5, ls="none")
            B = np.geomspace(rows.B.min() / 2, rows.B.max() * 2, 100)
            S = point.S_min + point.E_min / B
            axis.plot(B * S, S, color=colour, lw=1.2)
            axis.plot(2 * point.E_min, 2 * point.S_min, "D", mfc="white", mec=colour, ms=6.5, zorder=5)
            texts.append((f"loss {point.L:.2f}", colour))
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** 0.45)
        note(axis, [*texts, (r"◇ $2 S_{min}$ steps, $2 E_{min}$ characters", GREY)])
    return figure


def critical_figure(points: pd.DataFrame, law: Law, noise: pd.DataFrame | None = None, paper: float | None = None) -> Figure:
    """B_crit against the loss for each size with 95 % intervals, the law through them, and the gradient's noise scale beside.

    paper: its alpha_B, whose slope is drawn dashed through the middle, as only slopes compare. The loss falls to the right.
    """
    with drawing(1, 1, (5.6, 4.8)) as (figure, (axis,)):
        log(axis)
        axis.set(xlabel="validation loss (nats per character), falling", ylabel="batch (characters)")
        texts = []
        sizes = sorted({*points.N, *(() if noise is None else noise.N)})
        for N, colour in zip(sizes, (OURS, HELD_OUT, *SERIES[3:])):
            rows = points[points.N == N]
            _bars(axis, rows.L, rows.B_crit, rows.low, rows.high, "o", colour)
            text = f"● N = {plain(float(N))}"
            if noise is not None and (noise.N == N).any():
                rows = noise[noise.N == N]
                _bars(axis, rows.L, rows.B_noise, rows.low, rows.high, "s", colour, mfc="white", mec=colour, ms=5)
                text += "   □ its gradient's noise"
            texts.append((text, colour))
        if law.ok and law.parameters["alpha_B"].value is not None:
            L = np.geomspace(*law.range, 60)
            value, low, high = law.band(L=L)
            axis.fill_between(L, low, high, color=GREY, alpha=0.2, lw=0)
            axis.plot(L, value, color="black", lw=1.4)
            alpha = law.parameters["alpha_B"]
            texts.append((rf"line: $\alpha_B$ = {alpha.value:.2f}", "black"))
            if paper is not None:
                middle = np.sqrt(L[0] * L[-1])
                axis.plot(L, law.band(L=middle).value * (L / middle) ** (-1 / paper), color=PAPER, ls=DASHED, lw=1.5)
                texts.append((rf"Kaplan 2020, dashed: $\alpha_B$ = {paper:.2f}", PAPER))
        elif not len(points):
            texts.append(("no critical batch could be found", PAPER))
        axis.invert_xaxis()
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** 0.25)
        note(axis, texts)
    return figure


# --- by claim ------------------------------------------------------------------------------------------------------


def steps_figure(runs: pd.DataFrame) -> Figure:
    critical = efficiency.critical_law(runs)
    critical = critical if critical.ok else None
    return steps_law_figure(efficiency.steps_points(runs, critical), efficiency.steps_law(runs, critical),
                            "fewest steps, $S_{min}$" if critical else "steps, S")


def batch_figure(runs: pd.DataFrame) -> Figure:
    return critical_figure(efficiency.critical_points(runs), efficiency.critical_law(runs), efficiency.noise_points(runs),
                           papers.value("kaplan2020.alpha_B"))


CLAIMS = {"kaplan.sample_efficiency": samples_figure, "kaplan.L_NS": steps_figure, "kaplan.B_crit": batch_figure}
