"""Chapter I: what one size of model does: it leaves the curve of the best, and its own curve has a constant (Hestness et al. 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import papers
from ..laws.fit import fit
from ..laws.frontier import NOTHING
from ..laws.law import Estimate, Law
from .definition import Measurement
from .domains import DOMAINS, Domain, domain
from .envelope import Grid, LearningCurve, beta_g, learning_curve, spread
from .regression import triple

if TYPE_CHECKING:
    import pandas as pd

FEWER = 400     # resamples of the curve of a single size
ABOVE = 0.25  # a size has left the curve of the best where its error lies by more than this share above it, and stays there: by more
              # than the seeds of one listener lie apart, in the median
OTHERS = (0.5, 1.0)   # the same by other shares, printed beside it: the choice is ours


# --- where a size leaves the curve of the best ---------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Capacity:
    """bends: N, m (where the size leaves the curve of the best), low, high, left (whether it does so inside the data), one row for
    each size. exponent: of m against N. reason: why there is none, or empty."""

    domain: Domain
    errors: pd.DataFrame
    bends: pd.DataFrame
    exponent: Estimate
    reason: str


def capacity(errors: pd.DataFrame, of: Domain, above: float = ABOVE) -> Capacity:
    """The training-set size at which each size of model leaves the best-fit curve for good, with intervals from other draws of seeds."""
    import pandas as pd

    grid = Grid.of(errors)
    if not grid.repeated:
        return Capacity(of, errors, pd.DataFrame(columns=["N", "m", "low", "high", "left"]).astype({"left": bool}), NOTHING,
                        "no size was trained with more than one seed")
    actual = leaving(grid.m, grid.medians, above)
    drawn = leaving(grid.m, grid.draws(), above)
    rows = []
    for k, N in enumerate(grid.N):
        found = spread(actual[k], drawn[:, k])
        rows.append((N, *(math.exp(v) if v is not None else np.nan for v in triple(found)), found.value is not None))
    bends = pd.DataFrame(rows, columns=["N", "m", "low", "high", "left"])
    left = bends.left.to_numpy()
    if left.sum() < 2:
        return Capacity(of, errors, bends, NOTHING, f"{left.sum()} of {len(left)} sizes leave the curve of the best inside the "
                                                        "training sets measured: two are needed")
    x = np.log(grid.N[left]) - np.log(grid.N[left]).mean()
    slope = lambda logs: logs @ x / (x @ x)
    return Capacity(of, errors, bends, spread(float(slope(actual[left])), slope(drawn[:, left])), "")


def leaving(m: np.ndarray, medians: np.ndarray, above: float) -> np.ndarray:
    """log m at which each model's median log error, (..., M, K), rises for good to more than `above` over the lowest of its m.

    On the straight line in logs between the last m at which it is no higher and the next. (..., K), NaN where it is never as low
    as that, or still is at the largest m it was trained on.
    """
    over = medians - np.nanmin(medians, axis=-1, keepdims=True) - math.log1p(above)
    x = np.log(m)[:, None]
    near = over <= 0
    last = len(m) - 1 - np.argmax(near[..., ::-1, :], axis=-2)                 # the last m at which it is near
    rows = np.arange(len(m))[:, None]
    later = (rows > last[..., None, :]) & np.isfinite(over)
    after = np.argmax(later, axis=-2)                                          # the next m it was trained on
    pick = lambda values, at: np.take_along_axis(np.broadcast_to(values, over.shape), at[..., None, :], -2)[..., 0, :]
    before, beyond = pick(over, last), pick(over, after)
    share = -before / np.where(beyond > before, beyond - before, 1.0)
    found = pick(x, last) + share * (pick(x, after) - pick(x, last))
    return np.where(near.any(-2) & later.any(-2), found, np.nan)


LISTENERS = ("speech_ctc", "speech")    # the paper's is a model with CTC


def measure_capacity(runs: pd.DataFrame, names: tuple[str, ...] = LISTENERS) -> Measurement:
    """The exponent of the training set at which a size leaves the curve of the best, against that size; of the first family that
    can tell, and the others beside it."""
    found = [capacity(domain(name).errors(runs), domain(name)) for name in names]
    told = [one for one in found if one.exponent.value is not None]
    more = {}
    for one in found:
        more |= {f"{one.domain.id}_leaves_at_{row.N:.0f}": (None, row.m, row.low, row.high)
                 for row in one.bends[one.bends.left].itertuples()}
    if not told:
        why = {one.domain.name: one.reason or "where the sizes leave the curve hangs on the seeds" for one in found}
        return Measurement(None, refusal="; ".join(f"{name}: {reason}" for name, reason in why.items()), more=more)
    more |= {f"exponent_{one.domain.id}": (None, *triple(one.exponent)) for one in told[1:]}
    for above in OTHERS:
        other = capacity(told[0].errors, told[0].domain, above)
        if other.exponent.value is not None:
            more[f"exponent_at_{100 * above:.0f}_percent"] = (None, *triple(other.exponent))
    return Measurement(*triple(told[0].exponent), more=more, reason=f"Of {told[0].domain.name}, larger models do not leave the curve at "
                       "larger training sets, as far as these seeds can tell.")


# --- one size's own curve ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Bend:
    """curve: of the best fits; single: for each size (N_total) its own law, a power law above a constant gamma; flatter: exponent of
    the best minus the mean of the single ones, as beta_g, so that it is positive where the curve of the best is the flatter."""

    curve: LearningCurve
    single: dict[float, Law]
    flatter: Estimate
    reason: str


def bend(curve: LearningCurve) -> Bend:
    """Each size's own curve from the beginning of the power-law region on, or the end of the small-data region where nothing is
    straight, and how much flatter the curve of the best is."""
    if not curve.law.ok:
        return Bend(curve, {}, NOTHING, curve.law.reason)
    errors = curve.errors[curve.errors.m >= (curve.region.low if curve.region else curve.law.parameters["D_0"].value)]
    single = {float(N): fit("power-floor", group.error.to_numpy(float), D=group.m.to_numpy(float), seed=group.seed.to_numpy(),
                            resamples=FEWER)
              for N, group in errors.groupby("N_total")}
    known = {N: law for N, law in single.items() if law.ok and law.parameters["alpha_D"].value is not None}
    if len(known) < 2:
        return Bend(curve, single, NOTHING, f"the curve of {len(known)} size{'s' * (len(known) != 1)} of {len(single)} can be told from a "
                                            "straight line and from a constant: two are needed")
    ours, alphas = beta_g(curve.law), [law.parameters["alpha_D"] for law in known.values()]
    value = ours.value + float(np.mean([alpha.value for alpha in alphas]))
    half = math.hypot((ours.high - ours.low) / 2, math.sqrt(sum(((a.high - a.low) / 2) ** 2 for a in alphas)) / len(alphas))
    return Bend(curve, single, Estimate(value, value - half, value + half), "")


def measure_bend(runs: pd.DataFrame, name: str = "translation") -> Measurement:
    """How much flatter the curve of the best is than those of single sizes, in exponents; these and their constants beside it."""
    found = bend(learning_curve(runs, DOMAINS[name]))
    theirs = [papers.value(f"hestness2017.translation.beta_g_single_{i}") for i in (1, 2)]
    best = papers.value("hestness2017.translation.beta_g")
    more = {"best": (best, *triple(beta_g(found.curve.law)))} if found.curve.law.ok else {}
    known = [(N, law) for N, law in found.single.items() if law.ok and law.parameters["alpha_D"].value is not None]
    for (N, law), paper in zip(known, [*theirs, *[None] * len(known)]):
        alpha, gamma = law.parameters["alpha_D"], law.parameters["E"]
        more[f"single_{N:.0f}"] = (paper, -alpha.value, -alpha.high, -alpha.low)
        if gamma.value is not None:
            more[f"gamma_{N:.0f}"] = (None, *triple(gamma))
    if found.reason:
        return Measurement(None, refusal=found.reason, more=more)
    more["paper_difference"] = (best - float(np.mean(theirs)), found.flatter.value, found.flatter.low, found.flatter.high)
    return Measurement(*triple(found.flatter), more=more, reason="The curve of the best is not the flatter one, as far as these seeds "
                       "can tell.")
