"""Chapter I: Adam against SGD: another intercept, the same slope (Hestness et al. 2017, Fig. 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import papers
from ..laws.frontier import NOTHING
from ..laws.law import Estimate
from .curves import of_spec
from .definition import Measurement, complete
from .domains import DOMAINS, VARIANTS
from .envelope import FEWEST, LearningCurve, Region, beta_g, curve_of, law_of, means_by_size
from .regression import least_squares, mean_of, triple

if TYPE_CHECKING:
    import pandas as pd

ADAM, SGD = VARIANTS["char_lm_adam"], DOMAINS["char_lm"]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two optimisers at the same widths and training sets. adam, sgd: curves of their best fits; region: where both are compared.

    slope: Adam's beta_g minus SGD's; ratio: Adam's error over SGD's, the geometric mean over the region. reason, or empty.
    """

    adam: LearningCurve
    sgd: LearningCurve
    region: Region | None
    slope: Estimate
    ratio: Estimate
    reason: str


def compare(runs: pd.DataFrame) -> Pair:
    """Both learning curves over the cells (size of model, training set) that both optimisers were trained at.

    The slope is that of the line through the differences of the two mean log errors at each training set of SGD's power-law region,
    or at all where nothing is straight, and its interval that of this line (Student's t): what both curves have in common, such as
    a bend, cancels.
    """
    errors = [one.errors(runs) for one in (ADAM, SGD)]
    cell = ["m", "n_layer", "d_model"]
    shared = errors[0][cell].drop_duplicates().merge(errors[1][cell].drop_duplicates(), on=cell)
    adam, sgd = (curve_of(part.merge(shared, on=cell), one) for part, one in zip(errors, (ADAM, SGD)))
    if not len(shared):
        return Pair(adam, sgd, None, NOTHING, NOTHING, "no size of model was trained with both optimisers on one training set")
    m = np.unique(sgd.points.m)
    region = sgd.region or Region(float(m[0]), float(m[-1]), len(m), float("nan"))
    (x, ours), (_, theirs) = (means_by_size(one.points[one.points.m.between(region.low, region.high)]) for one in (adam, sgd))
    if len(x) < FEWEST:
        return Pair(adam, sgd, region, NOTHING, NOTHING, f"both optimisers were trained at {len(x)} training sets of the region: "
                                                         f"{FEWEST} are needed")
    slope = least_squares(np.column_stack([x - x.mean(), np.ones(len(x))]), ours - theirs)
    ratio = mean_of(ours - theirs)
    return Pair(adam, sgd, region, slope, Estimate(*(float(np.exp(v)) for v in triple(ratio))), "")


def measure_optimisers(runs: pd.DataFrame) -> Measurement:
    """Adam's exponent minus SGD's on the same cells, and the ratio of their errors."""
    found = compare(runs)
    more = {}
    for name, curve in (("adam", found.adam), ("sgd", found.sgd)):
        if found.region and (law := law_of(curve.points, found.region)).ok:
            more[f"beta_g_{name}"] = (papers.value(curve.domain.beta_g), *triple(beta_g(law)))
    if found.reason:
        return Measurement(None, refusal=found.reason, more=more)
    more["error_ratio"] = (1 + papers.value("hestness2017.char_lm_adam.offset"), *triple(found.ratio))
    more["paper_difference"] = (paper_difference(), *triple(found.slope))
    rates = {optimiser: group.lr.nunique() for optimiser, group in of_spec(complete(runs), SGD.spec).groupby("optimiser")}
    return Measurement(*triple(found.slope), more=more,
                       reason=f"Adam's curve is the {'flatter' if found.slope.value > 0 else 'steeper'} one. On each text each optimiser has "
                              f"the best of the rates it was tried at, {rates['adamw']} for Adam and {rates['sgd']} for SGD: others may move it.")


def paper_difference() -> float:
    """Adam's published exponent minus SGD's."""
    return papers.value(ADAM.beta_g) - papers.value(SGD.beta_g)


def no_turn(measured: Measurement, target: float | None = None) -> bool:
    """The interval holds no difference, or one as small as the paper's own."""
    small = abs(paper_difference())
    return measured.low <= small and measured.high >= -small
