"""Figures of chapter III: where runs on limited text stop, and what their training loss suggests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from minitransformer.claims import overfitting, stopping as chapter
from minitransformer.errors import UserError
from minitransformer.laws.law import short

from .overfitting import DASHES, LOSS, SHADES, colours, place, size_lines
from .style import GREY, PAPER, drawing, log, note

if TYPE_CHECKING:
    import pandas as pd


def stopping_figure(points: pd.DataFrame, bound: str = "bound") -> Figure:
    """The step of the lowest loss against the bound of eq. 5.7 (Fig. 16, left), or another column of steps.

    Bars: the step is known to the ratio between measurements. On the dashed line both are equal: below it the bound is broken.
    Triangles: runs that had not stopped when their training ended. Grey: the bound asks for fewer steps than were fitted.
    """
    shown = points[np.isfinite(points[bound])]
    if not len(shown):
        raise UserError("there is no bound to draw: no run on limited text has one")
    shades = colours(points.N)
    with drawing() as (figure, (axis,)):
        log(axis)
        for run in shown.itertuples():
            outside = bound == "bound" and not run.inside
            colour, x = GREY if outside else shades[run.N], getattr(run, bound)
            axis.plot([x, x], [run.step / run.ratio, run.step * run.ratio], color=colour, lw=1.2)
            axis.plot(x, run.step, "o" if run.stopped else "^", ms=5, color=colour, mfc=colour if run.stopped else "white")
        ends = np.array([min(axis.get_xlim()[0], axis.get_ylim()[0]), max(axis.get_xlim()[1], axis.get_ylim()[1])])
        axis.plot(ends, ends, color=PAPER, ls=DASHES, lw=1.5, zorder=1)
        axis.set_xlim(shown[bound].min() / 1.3, shown[bound].max() * 1.3)
        axis.set_ylim(min(shown.step.min(), shown[bound].min()) / 1.4, max(shown.step.max(), shown[bound].max()) * 1.4)
        before = [("eq. 5.7 as an equality", PAPER)] if bound == "bound" else [("as early as on unlimited text", PAPER)]
        if bound == "bound" and not shown.inside.all():
            before.append(("outside the fitted curves", GREY))
        place(axis, [*before, *size_lines({N: c for N, c in shades.items() if N in set(shown.N)})], "upper left")
        law = "$S_c / [L(N, D) - L(N, \\infty)]^{1/\\alpha_S}$ (steps)"
        axis.set_xlabel(law if bound == "bound" else "step of the unlimited run at the same loss")
        axis.set_ylabel("step of the lowest loss")
    return figure


def runs_figure(runs: pd.DataFrame, N: float | None = None, texts: int = 4) -> Figure:
    """Validation (solid) and training loss (dotted) of one size on several texts, and on all of it in black (Fig. 16, right).

    N: the largest size unless given. Bars stand at the lowest validation loss and reach down to the training loss there.
    """
    table = overfitting.grid(runs)
    if not len(table):
        raise UserError("there are no runs on limited text to draw")
    table = table[table.N == (table.N.max() if N is None else N)].drop_duplicates("train_tokens").sort_values("unique_tokens")
    whole = table[table.train_tokens == 0]
    some = table[table.train_tokens > 0]
    some = some.iloc[np.unique(np.linspace(0, len(some) - 1, min(texts, len(some))).round().astype(int))] if len(some) else some
    with drawing(size=(5.6, 4.8)) as (figure, (axis,)):
        log(axis)
        notes = [(f"N = {short(table.N.iloc[0])}", "#333333")]
        for run, colour in [*zip(some.itertuples(), SHADES), *((run, "black") for run in whole.itertuples())]:
            axis.plot(run.curve_step, run.curve_val_loss, color=colour, lw=1.6)
            axis.plot(run.curve_step, run.curve_train_loss, color=colour, lw=1.2, ls=":")
            notes.append((f"{short(run.unique_tokens)} characters" if run.train_tokens else "all of the text", colour))
            if run.train_tokens:
                at = list(run.curve_step).index(run.best_step)
                axis.plot([run.best_step] * 2, [run.best_loss, run.curve_train_loss[at]], color=colour, lw=3.5, alpha=0.6)
        losses = np.concatenate([np.asarray(v, float) for v in table.curve_val_loss])
        axis.set_ylim(0.6 * losses.min(), np.percentile(losses, 99))
        note(axis, notes, "lower left")
        axis.set_xlabel("training step")
        axis.set_ylabel(LOSS)
    return figure


def gap_figure(gaps: pd.DataFrame) -> Figure:
    """L_test - L_train at the stopping step against two distances to unlimited text: at the same step, and at its end.

    Dashed: where the gap would be a fair measure.
    """
    if not len(gaps):
        raise UserError("no run on limited text stopped early: there is no gap to draw")
    shades = colours(gaps.N)
    with drawing(2, 1, (5.6, 7.2)) as (figure, axes):
        distances = {"behind": "above unlimited text at the same step (nats)",
                     "cost": "above the lowest loss on unlimited text (nats)"}
        for axis, (column, label) in zip(axes, distances.items()):
            shown = gaps[(gaps[column] > 0) & (gaps.gap > 0)]
            log(axis)
            for N, group in shown.groupby("N"):
                axis.plot(group[column], group.gap, "o", ms=5, color=shades[float(N)])
            if len(shown):
                ends = np.array([shown[[column, "gap"]].min().min() / 1.2, shown[[column, "gap"]].max().max() * 1.2])
                axis.plot(ends, ends, color=PAPER, ls=DASHES, lw=1.5, zorder=1)
            axis.set_xlabel(label)
            axis.set_ylabel("$L_{test} - L_{train}$ (nats)")
        place(axes[0], [("equal, dashed", PAPER), *size_lines(shades)], "lower right")
    return figure


def claim_figure(runs: pd.DataFrame) -> Figure:
    return stopping_figure(chapter.stopping(runs))


CLAIMS = {"kaplan.early_stop": claim_figure}
