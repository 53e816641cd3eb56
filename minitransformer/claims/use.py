"""Chapter I: what a learning curve is good for: foretelling larger sets, setting a target, buying data, finding a broken model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..laws.fit import fit
from ..laws.law import Estimate, Law
from .definition import Measurement
from .domains import DOMAINS
from .envelope import HELD, Grid, LearningCurve, learning_curve, spread
from .regression import triple

if TYPE_CHECKING:
    import pandas as pd

TARGET = 0.9      # of the lowest error measured: the target that data are counted for
DOUBLING = 2.0


@dataclass(frozen=True, eq=False)
class Use:
    """curve; error: per cent by which the held-out size that was foretold worst was missed, with other draws of the seeds; gain: per
    cent of the error that doubling the data takes off; needed: m for TARGET times the lowest error measured."""

    curve: LearningCurve
    error: Estimate
    gain: Estimate
    needed: Estimate

    @property
    def decides(self) -> bool:
        """The forecast misses by less than one doubling gains, so it can say whether a doubling was worth its price."""
        return abs(self.error.value) < self.gain.value


def use(curve: LearningCurve) -> Use | None:
    """The article's uses on one curve; None where it has no law, or too few sizes to hold any out."""
    if not curve.law.ok or not len(curve.foretold):
        return None
    return Use(curve, missed(curve), gain(curve.law), data_for(curve.law, TARGET * lowest(curve)))


def lowest(curve: LearningCurve) -> float:
    """The lowest error of a best fit in the region: the geometric mean of its seeds."""
    return float(curve.law.means.loss.min())


def missed(curve: LearningCurve, held: int = HELD) -> Estimate:
    """The forecast's error in per cent at the held-out size where it is largest, and where other draws of the seeds would put it."""
    inside = curve.points[curve.points.m.between(curve.region.low, curve.region.high)]
    worst = int(curve.foretold.error_percent.abs().to_numpy().argmax())
    drawn = Grid.of(inside.assign(model=0)).mean_draws()
    x = np.log(np.unique(inside.m))
    slope, level = np.polyfit(x[:-held], drawn[:, :-held].T, 1)
    off = 100 * np.expm1(level + slope * x[worst - held] - drawn[:, worst - held])
    return spread(float(curve.foretold.error_percent.iloc[worst]), off)


def gain(law: Law, times: float = DOUBLING) -> Estimate:
    """Per cent of the error that `times` as much data take off."""
    alpha = law.exponent
    return Estimate(*(100 * -math.expm1(-a * math.log(times)) for a in (alpha.value, alpha.low, alpha.high)))


def data_for(law: Law, target: float) -> Estimate:
    """The training-set size at which the law comes down to an error, with its interval (Fieller 1954): an extrapolation beyond the
    region. Not identified where the exponent may be zero."""
    return fit("power", law.runs.loss / target, D=law.runs.x).parameters["D_c"]


def departs(law: Law, m, error) -> pd.DataFrame:
    """Whether errors lie above what a law expects of a newly trained run: a model that does is broken, or too small.

    m, error: (n,). One row each: m, error, predicted, low, high (95 % of new runs), above (per cent over the prediction) and departs.
    """
    import pandas as pd

    m, error = np.asarray(m, float), np.asarray(error, float)
    predicted, low, high = law.predict(m)
    return pd.DataFrame({"m": m, "error": error, "predicted": predicted, "low": low, "high": high,
                         "above": 100 * (error / predicted - 1), "departs": error > high})


def measure_use(runs: pd.DataFrame) -> Measurement:
    """The largest error of a forecast of the two largest training sets, over all domains; what each law is good for beside it."""
    curves = {name: learning_curve(runs, one) for name, one in DOMAINS.items()}
    found = {name: use(curve) for name, curve in curves.items()}
    if missing := [DOMAINS[name].name for name, one in found.items() if one is None]:
        return Measurement(None, refusal=f"no forecast can be tested of {', '.join(missing)}: the power law holds for too few sizes")
    more = {}
    for name, one in found.items():
        more |= {f"{name}_missed_percent": (None, *triple(one.error)), f"{name}_doubling_percent": (None, *triple(one.gain))}
        if one.needed.value is not None:
            more[f"{name}_data_for_target"] = (None, *triple(one.needed))
    worst = max(found.values(), key=lambda one: abs(one.error.value))
    value, ends = abs(worst.error.value), sorted(abs(v) for v in (worst.error.low, worst.error.high))
    low = 0.0 if worst.error.low < 0 < worst.error.high else ends[0]
    useless = [one.curve.domain.name for one in found.values() if not one.decides]
    return Measurement(value, low, ends[1], worst.error.value, more=more,
                       reason=f"The forecast of {', '.join(useless)} misses by more than a doubling of the data gains." if useless else "")


def decides(measured: Measurement, target: float | None = None) -> bool:
    """In every domain the forecast misses by less than one doubling gains."""
    return not measured.reason
