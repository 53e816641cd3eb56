"""Chapter I: the three regions of a learning curve (Hestness et al. 2017, §5 and Fig. 6), with the borders between them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..laws.fit import fit
from ..laws.forms import Form, Parameter, form
from ..laws.frontier import NOTHING
from ..laws.law import Estimate, Law
from .definition import Measurement
from .domains import domain
from .envelope import LearningCurve, learning_curve
from .regression import triple

if TYPE_CHECKING:
    import pandas as pd

CANDIDATES = ("speech", "speech_ctc", "signals")   # curves that begin at guessing and may end on a floor


def three_regions() -> Form:
    """The kit's form of a plateau, a power law and a floor, which also reports how many decades lie between the borders."""
    base = form("regions", "D")
    decades = Parameter("decades", "none", "log10 of D_1 / D_0: how long the power law is", of="alpha_D")

    def report(theta: np.ndarray, centre: np.ndarray) -> np.ndarray:
        found = base.report(theta, centre)
        names = [p.name for p in base.parameters]
        return np.column_stack([found, (found[:, names.index("D_1")] - found[:, names.index("D_0")]) / math.log(10)])

    return replace(base, report=report, parameters=(*base.parameters, decades))


@dataclass(frozen=True, eq=False)
class Regions:
    """law: the curve through all three; first, second: the borders in units of m; decades between them. reason: why the runs do not
    show all three, or empty."""

    curve: LearningCurve
    law: Law
    first: Estimate
    second: Estimate
    decades: Estimate
    reason: str


def find_regions(curve: LearningCurve) -> Regions:
    """The curve of best fits as plateau, power law and floor. All three are seen where both borders' intervals lie inside the data."""
    points = curve.points
    law = fit(three_regions(), points.error.to_numpy(float), D=points.m.to_numpy(float), seed=points.seed.to_numpy())
    if not law.ok:
        return Regions(curve, law, NOTHING, NOTHING, NOTHING, law.reason)
    first, second, decades = (law.parameters[name] for name in ("D_0", "D_1", "decades"))
    low, high = law.range
    reason = ""
    for border, name in ((first, "small-data region"), (second, "power law")):
        if not reason and border.value is None:
            reason = f"where the {name} ends cannot be told from these runs"
        elif not reason and not low < border.low <= border.high < high:
            reason = f"the {name} may end outside the training sets measured"
    return Regions(curve, law, first, second, decades, reason)


def measure_regions(runs: pd.DataFrame, candidates: tuple[str, ...] = CANDIDATES) -> Measurement:
    """The decades of power law between plateau and floor, on the first curve that shows all three."""
    found = [find_regions(learning_curve(runs, domain(name))) for name in candidates]
    shown = next((one for one in found if not one.reason), None)
    if shown is None:
        return Measurement(None, refusal="; ".join(f"{one.curve.domain.name}: {one.reason}" for one in found))
    value, low, high = triple(shown.decades)
    parameters = shown.law.parameters
    more = {"first_border": (None, *triple(shown.first)), "second_border": (None, *triple(shown.second)),
            **{name: (None, *triple(parameters[key])) for name, key in (("plateau", "G"), ("floor", "E"))
               if parameters[key].value is not None},
            "exponent_between": (None, -parameters["alpha_D"].value, -parameters["alpha_D"].high, -parameters["alpha_D"].low),
            "rms_percent": (None, shown.law.rms_percent, None, None)}
    return Measurement(value, low, high, more=more)
