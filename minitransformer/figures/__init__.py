"""The house style and the figures of the book. Every function returns a matplotlib Figure.

`style` holds colours, axes and notes; `laws` the shapes that every chapter uses; each chapter's own figures have its name.
"""

from typing import Callable

from matplotlib.figure import Figure

from minitransformer.errors import UserError

from .laws import (
    Curve, curves_figure, diagnosis_figure, ends_figure, isoflop_figure, law_figure, learning_curve_figure, two_axes_figure,
)
from .style import GREY, HELD_OUT, OURS, PAPER, SERIES, PlainLog, drawing, log, note, plain, scientific, style

__all__ = ["GREY", "HELD_OUT", "OURS", "PAPER", "SERIES", "Curve", "PlainLog", "claim_figure", "curves_figure", "diagnosis_figure", "drawing",
           "ends_figure", "isoflop_figure", "law_figure", "learning_curve_figure", "log", "note", "plain", "scientific", "style",
           "two_axes_figure"]


def claim_figure(claim_id: str, store: str | None = None) -> Figure:
    """The figure of a claim, from the committed runs or from a run store."""
    from minitransformer import claims  # here, as claims bring torch along

    (definition,) = claims.definitions((claim_id,))
    table = claims.runs_behind(definition, store)
    if table is None:
        raise UserError(f"there are no runs behind {claim_id}: minitransformer replicate --only {claim_id} trains them")
    return _by_claim()[claim_id](claims.complete(table))


def _by_claim() -> dict[str, Callable[..., Figure]]:
    """What draws each claim, from its complete runs: every chapter's module has a dictionary CLAIMS."""
    from . import allocation, architecture, baidu, compute, efficiency, overfitting, sizes, stopping

    return {**sizes.CLAIMS, **compute.CLAIMS, **architecture.CLAIMS, **overfitting.CLAIMS, **stopping.CLAIMS, **efficiency.CLAIMS,
            **allocation.CLAIMS, **baidu.CLAIMS}
