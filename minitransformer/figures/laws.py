"""Runs and the law fitted to them, training curves, and the figures of choosing a size. Every function returns a matplotlib Figure."""

from dataclasses import dataclass
from itertools import cycle
from typing import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minitransformer.errors import UserError
from minitransformer.laws.diagnose import Diagnosis
from minitransformer.laws.frontier import IsoFlop, Slices
from minitransformer.laws.law import Law

from .style import GREY, HALO, HELD_OUT, MARKERS, OURS, PAPER, SERIES, apart, draw_runs, drawing, log, note, plain, scientific


@dataclass(frozen=True)
class Curve:
    """One run's validation loss over x (steps, tokens or FLOPs); `size` (N) decides the colour."""

    size: float
    x: Sequence[float]
    loss: Sequence[float]


def law_figure(
    law: Law,
    paper: float | None = None,
    paper_name: str = "paper",
    xlabel: str | None = None,
    ylabel: str = "validation loss (nats per token)",
    to: float | None = None,
    references: dict[str, float] | None = None,
) -> Figure:
    """A fitted law over its runs, residuals in per cent below.

    Small rings are runs, dots seed means, grey those left out of the fit. The band holds 95 % of new runs.
    paper: a published exponent, drawn dashed through the middle of our range, as only slopes compare. The hold-out is
    drawn dotted with the interval it predicted for the largest size. to: extend the law, dotted, to this x.
    references: horizontal levels by name, such as guessing. A law that was refused is drawn as points and its reason.
    """
    if not law.n_runs and not len(law.excluded.x):
        raise UserError(f"there is nothing to draw: {law.reason}")
    name, symbol = law.form.x, rf"$\alpha_{{{law.form.x}}}$" if len(law.form.x) == 1 else "exponent"
    rows, size = (2, (5.6, 5.4)) if law.ok else (1, (5.6, 4.2))
    grid = {"sharex": True, "height_ratios": [3.4, 1]} if law.ok else {}
    with drawing(rows, 1, size, **grid) as (figure, axes):
        top = axes[0]
        log(top)
        top.plot(law.excluded.x, law.excluded.loss, "o", mfc="none", mec=GREY, ms=4, mew=0.9, ls="none")
        draw_runs(top, law.runs, law.means, OURS)
        notes = []
        if law.ok:
            low, high = law.range
            x = np.geomspace(low, high, 100)
            value, below, above = law.predict(x)
            top.fill_between(x, below, above, color=OURS, alpha=0.16, lw=0)
            top.plot(x, value, color=OURS)
            alpha = law.exponent
            notes.append((f"fit: {symbol} = {alpha.value:.3f} (95 %: {alpha.low:.3f} to {alpha.high:.3f})", OURS))
            if to is not None:
                x = np.geomspace(high if to > high else low, to, 50)
                value, below, above = law.predict(x)
                top.fill_between(x, below, above, color=OURS, alpha=0.08, lw=0)
                top.plot(x, value, color=OURS, ls=":")
            if paper is not None:
                middle = np.sqrt(low * high)
                x = np.array([low, high])
                top.plot(x, law.predict(middle).value * (x / middle) ** -paper, color=PAPER, ls=(0, (5, 3)), lw=1.5)
                notes.append((f"{paper_name}, dashed: {symbol} = {paper:.3g}", PAPER))
            if law.holdout:
                h = law.holdout
                if h.exponent is not None:
                    x = np.array([law.means.x[-2], h.x])
                    top.plot(x, h.predicted * (x / h.x) ** -h.exponent, color=HELD_OUT, ls=":")
                top.errorbar(
                    h.x, h.predicted, [[h.predicted - h.low], [h.high - h.predicted]],
                    fmt="D", ms=5, mfc="white", color=HELD_OUT, capsize=5, lw=1.4, zorder=3,
                )
                side = "high" if h.error_percent > 0 else "low"
                notes.append((f"largest held out: predicted {abs(h.error_percent):.1f} % too {side}", HELD_OUT))
            _residuals(axes[1], law)
        else:
            notes.append(("no law fitted: too few sizes" if law.status == "too_few_points" else "no law fitted", PAPER))
        if len(law.excluded.x):
            notes.append(("left out of the fit", GREY))
        for text, level in (references or {}).items():
            top.axhline(level, color=GREY, lw=1.2, ls=(0, (1, 1.5)))
            top.annotate(text, (0, level), xycoords=("axes fraction", "data"), xytext=(4, 3), textcoords="offset points", color=GREY)
            top.set_ylim(top=max(top.get_ylim()[1], 1.1 * level))
        note(top, notes, "lower left" if references else "upper right")
        top.set_ylabel(ylabel)
        axes[-1].set_xlabel(xlabel or f"{name} ({law.form.x_unit})")
    return figure


def _residuals(axis: Axes, law: Law) -> None:
    x = np.geomspace(*law.range, 100)
    value, below, above = law.predict(x)
    axis.fill_between(x, 100 * (below / value - 1), 100 * (above / value - 1), color=OURS, alpha=0.16, lw=0)
    axis.axhline(0, color=OURS, lw=1.2)
    percent = [p._replace(loss=100 * (p.loss / law.predict(p.x).value - 1)) for p in (law.runs, law.means)]
    draw_runs(axis, *percent, OURS)
    axis.yaxis.set_major_locator(MaxNLocator(4, symmetric=True, steps=[1, 2, 5, 10]))
    axis.set_ylabel("residual (%)")


def learning_curve_figure(
    law: Law, vocab_size: int | None = None, unigram: float | None = None, xlabel: str = "training set, D (tokens)", **options
) -> Figure:
    """Loss against the size of the training set, as `law_figure`: the small-data end, left out of the fit, in grey.

    vocab_size draws the level of uniform guessing, log V; unigram the entropy of single tokens (nats per token).
    """
    references = {"guessing, log V": np.log(vocab_size)} if vocab_size else {}
    if unigram:
        references["counting single tokens"] = unigram
    return law_figure(law, xlabel=xlabel, references=references, **options)


def isoflop_figure(
    slices: Slices, found: IsoFlop, best_runs: IsoFlop | None = None, ylabel: str = "validation loss (nats per token)"
) -> Figure:
    """Runs of equal compute with a parabola for each budget and its minimum; right, N*(C) through the minima.

    best_runs: what `frontier.argmin` makes of the same slices, drawn as squares beside it.
    """
    colours = [matplotlib.colormaps["viridis_r"](c) for c in np.linspace(0.4, 1, len(slices.C))]
    with drawing(1, 2, (6.4, 3.9), width_ratios=[1.1, 1]) as (figure, (left, right)):
        log(left)
        log(right)
        for b, (C, minimum, colour) in enumerate(zip(slices.C, found.minima, colours)):
            rows = slices.budget == b
            left.plot(slices.N[rows], slices.loss[rows], "o", color=colour, ms=4.5)
            if minimum.coefficients:
                N = np.geomspace(slices.N[rows].min(), slices.N[rows].max(), 60)
                left.plot(N, minimum.curve(N), color=colour, lw=1.2)
            if minimum.N.value:
                left.plot(minimum.N.value, minimum.loss.value, "D", mfc="white", mec=colour, ms=5, zorder=4)
        runs = [(best_runs, "s", PAPER, "best run of each budget")] if best_runs else []
        for result, marker, colour, _ in [*runs, (found, "D", OURS, "")]:
            known = [m for m in result.minima if m.N.value]
            for m in known if result is found else ():
                if m.N.low is not None:
                    right.plot([m.C, m.C], [m.N.low, m.N.high], color=colour, lw=1.2)
            right.plot([m.C for m in known], [m.N.value for m in known], marker, mfc="white", mec=colour, ms=5.5, ls="none", zorder=4)
            if result.size:
                C = np.array([result.size.C.min(), result.size.C.max()])
                right.plot(C, [result.size.at(c).value for c in C], color=colour, ls="-" if result is found else (0, (5, 3)), lw=1.5)
        low, high = left.get_ylim()
        left.set_ylim(low, high * (high / low) ** (0.06 * len(slices.C)))
        some = slices.C[[0, len(slices.C) // 2, -1]] if len(slices.C) > 2 else slices.C
        right.set_xticks(some, [scientific(C) for C in some])
        right.yaxis.set_label_position("right")
        right.yaxis.tick_right()
        right.margins(x=0.15, y=0.32)
        left.set(xlabel="N (parameters)", ylabel=ylabel)
        right.set(xlabel="C (FLOPs)", ylabel="best N (parameters)")
        note(left, [(f"C = {scientific(C)}", colour) for C, colour in zip(slices.C, colours)])
        note(right, [("◆ minimum of parabola", OURS), *((f"■ {text}", colour) for *_, colour, text in runs)])
    return figure


def ends_figure(
    ends: dict[str, Sequence[tuple[float, float]]],
    best: tuple[float, float] | None = None,
    best_name: str = "the minimum",
    xlabel: str = "alpha (exponent of N)",
    ylabel: str = "beta (exponent of D)",
) -> Figure:
    """Where searches ended: a cloud of pairs (k, 2) for each name, and the best pair known as a cross."""
    if not ends or not all(len(pairs) for pairs in ends.values()):
        raise UserError("there are no ends of searches to draw")
    kinds = [(c, *m) for c, m, _ in zip((PAPER, OURS, *SERIES[2:]), MARKERS.items(), ends)]
    with drawing() as (figure, (axis,)):
        log(axis)
        for pairs, (colour, marker, _) in zip(ends.values(), kinds):
            axis.plot(*np.asarray(pairs, float).T, marker, mfc="none", mec=colour, ms=6.5, mew=1.3, alpha=0.85, ls="none")
        notes = [(f"{sign} {name}", colour) for name, (colour, _, sign) in zip(ends, kinds)]
        if best is not None:
            axis.plot(*best, "x", color="black", ms=9, mew=2, zorder=5)
            notes.append((f"✕ {best_name}", "black"))
        axis.margins(0.12)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        note(axis, notes)
    return figure


def curves_figure(
    runs: Sequence[Curve], xlabel: str = "training step", ylabel: str = "validation loss (nats per token)", size_name: str = "N"
) -> Figure:
    """Validation loss over training, one colour per size, dark for large; seeds of a size share colour and label."""
    if not runs:
        raise UserError("there are no training curves to draw")
    sizes = sorted({run.size for run in runs})
    norm = LogNorm(sizes[0], max(sizes[-1], sizes[0] * 1.01))
    colour = {s: matplotlib.colormaps["viridis_r"](0.4 + 0.6 * norm(s)) for s in sizes}
    with drawing() as (figure, (axis,)):
        log(axis)
        for run in runs:
            axis.plot(run.x, run.loss, color=colour[run.size], lw=1.4, alpha=0.9)
        figure.draw_without_rendering()
        ends = {s: [(run.x[-1], run.loss[-1]) for run in runs if run.size == s] for s in sizes}
        place = {s: (max(x for x, _ in e), np.exp(np.mean([np.log(y) for _, y in e]))) for s, e in ends.items()}
        line = 12 * figure.dpi / 72
        shifts = apart([axis.transData.transform(place[s])[1] for s in sizes], line, axis.bbox.y0 + line / 2)
        for s, shift in zip(sizes, shifts):
            label = f"{size_name} = {plain(s)}" if s == sizes[0] else plain(s)
            axis.annotate(
                label, place[s], xytext=(6, shift * 72 / figure.dpi), textcoords="offset points", va="center",
                color=colour[s], annotation_clip=False, fontsize=10.5, path_effects=HALO,
            )
        axis.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def two_axes_figure(
    n_total: Sequence[float],
    n_non_embedding: Sequence[float],
    loss: Sequence[float],
    depth: Sequence[int],
    ylabel: str = "validation loss (nats per token)",
) -> Figure:
    """The same losses against N with and without embeddings, side by side, a line per depth (Kaplan et al. 2020, Fig. 6).

    All four of shape (n,), an entry per run; runs of equal N and depth are seeds.
    """
    columns = [np.asarray(c, float) for c in (n_total, n_non_embedding, loss, depth)]
    if len({len(c) for c in columns}) != 1 or not len(columns[0]):
        raise UserError("two_axes_figure needs one n_total, n_non_embedding, loss and depth per run")
    *counts, loss, depth = columns
    depths = np.unique(depth)
    kinds = [(c, *m) for c, m, _ in zip(cycle(SERIES), cycle(MARKERS.items()), depths)]
    titles = "with embeddings", "without embeddings"
    with drawing(1, 2, (6.0, 3.8), sharey=True) as (figure, axes):
        for axis, n, title in zip(axes, counts, titles):
            log(axis)
            for layers, (colour, marker, _) in zip(depths, kinds):
                mine = depth == layers
                sizes = np.unique(n[mine])
                means = [np.exp(np.log(loss[mine & (n == s)]).mean()) for s in sizes]
                axis.plot(n[mine], loss[mine], marker, mfc="none", mec=colour, ms=3.5, mew=0.8, alpha=0.7, ls="none")
                axis.plot(sizes, means, f"{marker}-", color=colour, ms=5)
            axis.set(title=title, xlabel="N (parameters)")
        axes[0].set_ylabel(ylabel)
        note(axes[1], [(f"{sign} {d:.0f} layer{'s' if d != 1 else ''}", c) for d, (c, _, sign) in zip(depths, kinds)])
    return figure


def diagnosis_figure(
    step: Sequence[float],
    loss: Sequence[float],
    found: Sequence[Diagnosis],
    law: Law,
    tokens_per_step: float | None = None,
    ylabel: str = "validation loss (nats per token)",
) -> Figure:
    """One training's curve with its diagnoses numbered on it, over the loss that the law expects of trainings of its size
    that end at each step; below, how far the curve lies above that.

    The band, and the bar beside planned_steps, hold 95 % of new trainings. The law is drawn from its least steps on.
    """
    (N,) = {d.N for d in found}
    time = next((name for name in ("D", "S") if name in law.form.inputs), None)
    if time is None or not set(law.form.inputs) <= {"N", "D", "S"} or (time == "D" and tokens_per_step is None):
        raise UserError("a training is drawn against a law of N, D and S only: one of D needs tokens_per_step")
    per_step = tokens_per_step if time == "D" else 1.0
    step, loss = np.asarray(step, float), np.asarray(loss, float)
    inputs = lambda steps: {name: N if name == "N" else steps * per_step for name in law.form.inputs}
    start = max(law.ranges[time][0] / per_step, step[0]) if time in law.ranges else step[0]
    start = start if start < step[-1] else step[0]  # a training that ends before the law's range
    with drawing(2, 1, (5.6, 5.8), sharex=True, height_ratios=[2.6, 1]) as (figure, (top, below)):
        log(top)
        steps = np.geomspace(start, max([step[-1], *(d.planned_steps or 0 for d in found)]), 100)
        value, low, high = law.predict(**inputs(steps))
        if low is not None:
            top.fill_between(steps, low, high, color=PAPER, alpha=0.14, lw=0)
            below.fill_between(steps, 100 * (low / value - 1), 100 * (high / value - 1), color=PAPER, alpha=0.14, lw=0)
        top.plot(steps, value, color=PAPER, ls=(0, (5, 3)), lw=1.5)
        top.plot(step, loss, "o-", color=OURS, ms=3, lw=1.4)
        seen = step >= start * (1 - 1e-9)
        below.plot(step[seen], 100 * (loss[seen] / law.predict(**inputs(step[seen])).value - 1), "o-", color=OURS, ms=3, lw=1.4)
        below.axhline(0, color=PAPER, ls=(0, (5, 3)), lw=1.5)
        notes = [("this training", OURS), ("the law, of trainings that end there", PAPER)]
        end = next((d.expected_end for d in reversed(found) if d.expected_end and d.expected_end.source == "law"), None)
        if end:
            bar = None if end.low is None else [[end.value - end.low], [end.high - end.value]]
            top.errorbar(1.15 * steps[-1], end.value, bar, fmt="D", ms=5, mfc="white", color=HELD_OUT, capsize=5, lw=1.4)
            notes.append(("expected at the end", HELD_OUT))
        for i, d in enumerate(found, 1):
            top.plot(d.step, d.loss, "o", color="black", ms=6, zorder=5)
            beside = {"xytext": (0, 8)} if d.step < step[-1] else {"xytext": (0, -9), "va": "top"}
            top.annotate(str(i), (d.step, d.loss), textcoords="offset points", ha="center", color="black", path_effects=HALO, **beside)
            notes.append((f"{i}: {d.stage}", "black"))
        note(top, notes)
        top.set_ylabel(ylabel)
        below.set(xlabel="training step", ylabel="above the law (%)")
        below.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    return figure
