"""Chapter I: how the best size of model grows with the training set (Hestness et al. 2017, §2: s(m) proportional to m^beta_p)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import papers
from ..laws import frontier
from ..laws.frontier import NOTHING, IsoFlop
from ..laws.law import Estimate
from .definition import Measurement
from .domains import DOMAINS, VARIANTS, Domain
from .regression import least_squares, triple

if TYPE_CHECKING:
    import pandas as pd

WITHIN = 0.01     # the smallest model whose error is within this share of the best
FEWEST = 4        # training-set sizes whose best size lies inside the grid
NEIGHBOURS = 2    # sizes on either side of the best that a parabola goes through
WIDEST = 1.0      # an interval of beta_p that is wider says nothing
BETA_P = (0.5, 1.0)   # what the paper expects, and finds


@dataclass(frozen=True, eq=False)
class Growth:
    """points: m, N (the smallest within 1 % of the best), best (N of the best), error, sizes (how many were tried), inside (N is
    neither the smallest nor the largest tried), edge (which it is); tried: m, N of every size. beta_p: slope of log N over log m
    through those inside; minima, by_parabola: N at the minimum of a parabola for each m, and its slope. reason: why there is no
    beta_p, or empty."""

    domain: Domain
    points: pd.DataFrame
    tried: pd.DataFrame
    beta_p: Estimate
    minima: IsoFlop
    by_parabola: Estimate
    reason: str


def growth(errors: pd.DataFrame, domain: Domain, count: str = "N_total") -> Growth:
    """How the best size grows, from `Domain.errors`. count: N_total, as in the paper, or N without embeddings.

    A best size at the edge of those tried is not known: nothing beyond it was tried. Such training sets are left out, and where
    they are half of all or more, the design cannot tell beta_p. The interval is that of the line through the points (Student's t).
    """
    points = smallest_enough(errors, count)
    inside = points[points.inside]
    minima, by_parabola = parabolas(errors, count)
    reason = ""
    if len(points) and points.sizes.max() == 1:
        reason = "one size of model was trained"
    elif len(points) and 2 * len(inside) <= len(points):
        reason = (f"at {(points.edge == 'largest').sum()} of {len(points)} training sets the best model is the largest tried, at "
                  f"{(points.edge == 'smallest').sum()} the smallest")
    elif len(inside) < FEWEST:
        reason = f"the best size lies inside those tried at {len(inside)} training sets only: at least {FEWEST} are needed"
    beta_p = NOTHING
    if not reason:
        x = np.log(inside.m.to_numpy())
        beta_p = least_squares(np.column_stack([x - x.mean(), np.ones(len(x))]), np.log(inside.N.to_numpy()))
        if inside.N.nunique() == 1:
            beta_p, reason = NOTHING, "the same size is best everywhere: sizes lie too far apart to see it grow"
        elif beta_p.high - beta_p.low > WIDEST:
            beta_p, reason = NOTHING, f"the interval of beta_p, {beta_p.low:.1f} to {beta_p.high:.1f}, is too wide to say anything"
    tried = errors[["m", count]].drop_duplicates().rename(columns={count: "N"})
    return Growth(domain, points, tried, beta_p, minima, by_parabola, reason)


def smallest_enough(errors: pd.DataFrame, count: str = "N_total", within: float = WITHIN) -> pd.DataFrame:
    """For each training set the smallest model whose median error is within a share of the best: the points of `Growth`."""
    import pandas as pd

    rows = []
    for m, group in errors.groupby("m"):
        medians = group.groupby([count, "model"]).error.median().reset_index().sort_values([count, "model"], ignore_index=True)
        best = int(medians.error.idxmin())
        chosen = int((medians.error <= medians.error[best] * (1 + within)).idxmax())
        edge = "largest" if chosen == len(medians) - 1 else "smallest" if chosen == 0 else ""
        rows.append((m, medians[count][chosen], medians[count][best], medians.error[chosen], len(medians), edge == "", edge))
    return pd.DataFrame(rows, columns=["m", "N", "best", "error", "sizes", "inside", "edge"])


def parabolas(errors: pd.DataFrame, count: str = "N_total", neighbours: int = NEIGHBOURS) -> tuple[IsoFlop, Estimate]:
    """N at the minimum of a parabola through log error over log N, at each training set, and the slope of log N over log m.

    Through the best size and up to `neighbours` on either side; a minimum outside these sizes is refused.
    """
    kept = []
    for _, group in errors.groupby("m"):
        sizes = np.unique(group[count])
        best = int(np.argmin([group[group[count] == N].error.median() for N in sizes]))
        kept.append(group[group[count].isin(sizes[max(best - neighbours, 0) : best + neighbours + 1])])
    if not kept:
        return IsoFlop("too_few_points", "there are no runs"), NOTHING
    chosen = {name: np.concatenate([group[column].to_numpy(float) for group in kept])
              for name, column in (("N", count), ("D", "m"), ("C", "m"), ("loss", "error"))}
    found = frontier.parabolas(frontier.by_budget(chosen, budget=chosen["C"]))
    return found, found.size.a if found.size is not None and len(found.size.N) >= FEWEST else NOTHING


DOMAINS_THAT_GROW = ("word_lm", "char_lm", "char_lm_adam", "translation", "images", "speech", "speech_ctc", "transformer")


def measure_growth(runs: pd.DataFrame) -> Measurement:
    """beta_p of the first domain that can tell, in the order of `DOMAINS_THAT_GROW`; the others beside it."""
    chosen = [{**DOMAINS, **VARIANTS}[name] for name in DOMAINS_THAT_GROW]
    found = {one.id: growth(one.errors(runs), one) for one in chosen}
    more = {}
    for name, one in found.items():
        paper = papers.value(one.domain.beta_p) if one.domain.beta_p else None
        if one.beta_p.value is not None:
            more[f"beta_p_{name}"] = (paper, *triple(one.beta_p))
        if one.by_parabola.value is not None:
            more[f"beta_p_{name}_by_parabola"] = (paper, *triple(one.by_parabola))
    first = next((one for one in found.values() if one.beta_p.value is not None), None)
    if first is None:
        return Measurement(None, refusal="; ".join(f"{one.domain.name}: {one.reason}" for one in found.values()), more=more)
    more["training_sets"] = (None, float(first.points.inside.sum()), None, None)
    return Measurement(*triple(first.beta_p), more=more, reason=f"This is of {first.domain.name}: the whole interval lies outside "
                       f"[{BETA_P[0]}, {BETA_P[1]:.0f}).")


def overlaps(measured: Measurement, target: float | None = None) -> bool:
    """The interval overlaps [0.5, 1)."""
    return measured.low < BETA_P[1] and measured.high >= BETA_P[0]
