"""Chapter I: what a learning curve is good for: foretelling larger sets, setting a target, buying data, finding a broken model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..laws.fit import fit
from ..laws.frontier import NOTHING
from ..laws.law import Estimate, Law
from .definition import Measurement
from .domains import DOMAINS
from .envelope import HELD, Grid, LearningCurve, curve_of, forecast, learning_curve, means_by_size, spread
from .plateau import forecast_beyond
from .regression import triple

if TYPE_CHECKING:
    import pandas as pd

TARGET = 0.9      # of the lowest error measured: the target that data are counted for
DOUBLING = 2.0


@dataclass(frozen=True, eq=False)
class Use:
    """curve; ahead: the two largest training sets as foretold by whoever had not seen them (`blind`); error: per cent by which the
    worse forecast missed, with other draws of the seeds; gain: per cent of the error that doubling the data takes off; needed: m for
    TARGET times the lowest error measured."""

    curve: LearningCurve
    ahead: pd.DataFrame
    error: Estimate
    gain: Estimate
    needed: Estimate

    @property
    def decides(self) -> bool:
        """The forecast misses by less than one doubling gains, so it can say whether a doubling is worth its price."""
        return abs(self.error.value) < self.gain.value


def use(curve: LearningCurve) -> Use | None:
    """The article's uses on one curve; None where it has no law, or had none without its two largest training sets."""
    before, after = blind(curve)
    if not curve.law.ok or not before.law.ok:
        return None
    if before.region is None:
        ahead = forecast_beyond(before.law, after)
        error = own_interval(ahead)
    else:
        known = before.points[before.points.m.between(before.region.low, before.region.high)]
        ahead, error = forecast(known, after), missed(known, after)
    return Use(curve, ahead, error, gain(curve.law), data_for(curve.law, TARGET * lowest(curve)))


def blind(curve: LearningCurve, held: int = HELD) -> tuple[LearningCurve, pd.DataFrame]:
    """The curve as it was before the `held` largest training sets were trained on, its region and law found again, and the best fits
    of those sets."""
    first = min(np.unique(curve.points.m)[-held:], default=math.inf)
    return curve_of(curve.errors[curve.errors.m < first], curve.domain), curve.points[curve.points.m >= first]


def lowest(curve: LearningCurve) -> float:
    """The lowest error of a best fit that the law goes through: the geometric mean of its seeds."""
    low, high = curve.law.range
    return float(np.exp(means_by_size(curve.points[curve.points.m.between(low, high)])[1].min()))


def missed(known: pd.DataFrame, held: pd.DataFrame) -> Estimate:
    """The error in per cent of the forecast that misses by most, and where other draws of the seeds would put it; without seeds, the
    forecast's own interval."""
    import pandas as pd

    ahead = forecast(known, held)
    grid, at = Grid.of(pd.concat([known, held]).assign(model=0)), ahead.loc[ahead.error_percent.abs().idxmax()]
    if not grid.repeated:
        return own_interval(ahead)
    x, drawn = np.log(grid.m), grid.mean_draws()
    seen, place = np.isin(grid.m, known.m), int(np.nonzero(grid.m == at.m)[0][0])
    slope, level = np.polyfit(x[seen], drawn[:, seen].T, 1)
    return spread(float(at.error_percent), 100 * np.expm1(level + slope * x[place] - drawn[:, place]))


def own_interval(ahead: pd.DataFrame) -> Estimate:
    """The error in per cent of the forecast that misses by most, and the forecast's own interval."""
    at = ahead.loc[ahead.error_percent.abs().idxmax()]
    return Estimate(*(float(100 * (v / at.measured - 1)) for v in (at.predicted, at.low, at.high)))


def gain(law: Law, times: float = DOUBLING) -> Estimate:
    """Per cent of the error that `times` as much data take off, from the largest training set on."""
    most, bend = law.range[1], _bend(law)
    reach = math.log((times * most + bend) / (most + bend))
    return Estimate(*(100 * -math.expm1(-a * reach) for a in triple(law.exponent)))


def data_for_less(law: Law, share: float = 0.01) -> Estimate:
    """How many examples beyond the largest training set make the error lower by a share of itself; not identified where the exponent
    may be zero."""
    alpha = law.exponent
    if alpha.low <= 0:
        return NOTHING
    return Estimate(*((law.range[1] + _bend(law)) * math.expm1(-math.log1p(-share) / a) for a in (alpha.value, alpha.high, alpha.low)))


def _bend(law: Law) -> float:
    """m_0 of a curve that still bends away from its plateau, which falls like (m + m_0)^-alpha; 0 on a straight line."""
    return 0.0 if law.form.name == "power" else law.parameters["D_0"].value


def data_for(law: Law, target: float) -> Estimate:
    """The training-set size at which the law comes down to an error, with its interval (Fieller 1954): an extrapolation beyond the
    region. Not identified where the exponent may be zero, and not given where the curve is still bending away from its plateau."""
    if law.form.name != "power":
        return NOTHING
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
    """The largest error of a forecast of the two largest training sets, over the domains that have a law; what each is
    good for beside it."""
    found = {name: one for name, domain in DOMAINS.items() if (one := use(learning_curve(runs, domain))) is not None}
    if not found:
        return Measurement(None, refusal="no forecast can be tested: the power law holds for too few sizes of training set everywhere")
    more = {"domains": (None, float(len(found)), None, None)}
    for name, one in found.items():
        more |= {f"{name}_missed_percent": (None, *triple(one.error)),
                 f"{name}_missed_inside_percent": (None, one.curve.holdout_error, None, None),
                 f"{name}_doubling_percent": (None, *triple(one.gain))}
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
