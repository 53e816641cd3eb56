"""What a batch that is too large or too small costs: Kaplan's adjustments, the critical batch, and the gradient's noise.

A run of S steps at batch B saw E = B S examples. Neither S nor E can fall below a least number for a given loss, and near
the critical batch B_crit = E_min / S_min both are about twice their least (McCandlish et al. 2018). B, B_crit and E share
one unit, tokens or examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.stats import t as student

from minitransformer.errors import UserError
from minitransformer.laws.fit import fit
from minitransformer.laws.forms import Form, Parameter, _join, _linear, _log, _stack
from minitransformer.laws.frontier import FEWEST, NOTHING, Result, as_dict
from minitransformer.laws.law import Estimate, Law
from minitransformer.laws.optimise import DELTA
from minitransformer.laws.uncertainty import LEVEL

REFUSALS = {
    "too_few_points": "fewer than four {what}",
    "same_batch": "the batches are all but equal: spread them over at least a decade",
    "no_signal": "the squared gradient cannot be told from zero: take larger batches or more measurements",
    "no_noise": "the small batch's gradient is no noisier than the large one's: set the batches further apart",
}
WARNINGS = {
    "batches_all_small": "every batch is below the critical one: only E_min is identified; add larger batches",
    "batches_all_large": "every batch is above the critical one: only S_min is identified; add smaller batches",
    "few_measurements": "fewer than twenty measurements: the interval is rough",
}


def _critical(B_crit, loss):
    """B_crit as numbers, or from a law B_crit(L) or a function of the loss."""
    if isinstance(B_crit, Law) or callable(B_crit):
        if loss is None:
            raise UserError("a law of the critical batch needs the loss: give loss=")
        B_crit = B_crit.predict(L=loss).value if isinstance(B_crit, Law) else B_crit(loss)
    return _positive(B_crit=B_crit)


def _positive(**numbers):
    for name, value in numbers.items():
        try:
            value = np.asarray(value, float)
        except (TypeError, ValueError):
            raise UserError(f"{name} must be a number above zero, not {value!r}") from None
        if not (np.isfinite(value) & (value > 0)).all():
            raise UserError(f"{name} must be finite and above zero")
    return value


def S_min(S, B, B_crit, loss=None):
    """Steps that a batch far above critical would have needed: S / (1 + B_crit(L) / B). Kaplan et al. 2020, eq. 5.4.

    S steps; B and B_crit in one unit (tokens); B_crit: numbers, or a law of the form b-crit with `loss`. Any shapes.
    """
    return _positive(S=S) / (1 + _critical(B_crit, loss) / _positive(B=B))


def C_min(C, B, B_crit, loss=None):
    """FLOPs that a batch far below critical would have needed: C / (1 + B / B_crit(L)). Kaplan et al. 2020, eq. 5.5."""
    return _positive(C=C) / (1 + _positive(B=B) / _critical(B_crit, loss))


def trade() -> Form:
    """S(B) = S_min + E_min / B: steps to one loss at batch B = E / S, which is (S / S_min - 1) (E / E_min - 1) = 1."""

    def evaluate(theta, z):
        value, shares = _join(theta[:, :1], theta[:, 1:] - z[0])
        return value, _stack(*shares)

    return Form(
        name="batch-trade",
        title="trade of steps against examples",
        inputs=("B",),
        target="S",
        equation="S(B) = S_min + E_min / B",
        parameters=(
            Parameter("S_min", "steps", "fewest steps, with an unlimited batch", log=True),
            Parameter("E_min", "unit of the examples", "fewest examples, with the smallest batch", log=True),
            Parameter("B_crit", "unit of the examples", "E_min / S_min: twice the fewest steps and twice the fewest examples", log=True),
        ),
        sources=("Kaplan et al. 2020, eqs. 5.1 and 5.2", "McCandlish et al. 2018"),
        valid="one model trained to one loss at several batches, the rates tuned for each",
        theta=("s", "b"),
        evaluate=evaluate,
        report=lambda t, centre: _stack(t[:, 0], t[:, 1] + centre[0], t[:, 1] + centre[0] - t[:, 0]),
        internal=lambda v: np.log([v["S_min"], v["E_min"]]),
        basis=lambda q, z, y: _linear(y, np.ones_like(z[0]), np.exp(-z[0])),
        assemble=lambda q, c: _stack(_log(c[:, 0]), _log(c[:, 1])),
        grid=((1.0,),),
    )


@dataclass(frozen=True, eq=False)
class CriticalBatch(Result):
    """S_min (steps), E_min and B_crit = E_min / S_min (unit of the examples); `law` draws the curve S(B)."""

    TEXTS: ClassVar = WARNINGS
    S_min: Estimate = NOTHING
    E_min: Estimate = NOTHING
    B_crit: Estimate = NOTHING
    law: Law | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**self._head(), **{name: as_dict(getattr(self, name)) for name in ("S_min", "E_min", "B_crit")},
                "law": self.law.to_dict() if self.law else None}


def critical_batch(steps, examples, delta: float = DELTA) -> CriticalBatch:
    """The critical batch from steps and examples (n,) that runs of different batches needed to reach one loss.

    Robust least squares of log S at the known batch E / S (eqs. 5.1 and 5.2 of Kaplan et al. 2020); equal batches are
    seeds. Where every batch lies on one side of the critical one, only E_min (small batches) or S_min (large) is known.
    """
    S, E = np.broadcast_arrays(_positive(steps=steps), _positive(examples=examples))
    if S.ndim != 1:
        raise UserError("steps and examples must be columns of equal length")
    B = np.exp(np.round(np.log(E / S), 9))
    if len(np.unique(B)) < FEWEST:
        return CriticalBatch("too_few_points", REFUSALS["too_few_points"].format(what="distinct batches"))
    if B.max() / B.min() < 1.5:
        return CriticalBatch("same_batch", REFUSALS["same_batch"])
    law = fit(trade(), S, B=B, delta=delta)
    if not law.ok:
        return CriticalBatch(law.status, law.reason)
    found = law.parameters
    level = law.engine.theta[1] - law.engine.theta[0] + law.engine.centre[0]  # log B_crit, were it identified
    if level >= np.log(B.max()):
        return CriticalBatch("ok", "", ("batches_all_small",), E_min=found["E_min"], law=law)
    if level <= np.log(B.min()):
        return CriticalBatch("ok", "", ("batches_all_large",), S_min=found["S_min"], law=law)
    return CriticalBatch("ok", "", (), **found, law=law)


@dataclass(frozen=True, eq=False)
class NoiseScale(Result):
    """B_simple = tr Sigma / |G|^2, a batch in examples (or tokens); G2 = |G|^2 and trace = tr Sigma as measured."""

    TEXTS: ClassVar = WARNINGS
    B_simple: Estimate = NOTHING
    G2: Estimate = NOTHING
    trace: Estimate = NOTHING
    n: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {**self._head(), **{name: as_dict(getattr(self, name)) for name in ("B_simple", "G2", "trace")}, "n": self.n}


def gradient_noise_scale(B_small, G2_small, B_big, G2_big) -> NoiseScale:
    """The simple noise scale from squared gradient norms (n,) at two batches. McCandlish et al. 2018, appendix A.1.

    |G|^2 = (B_big |G_big|^2 - B_small |G_small|^2) / (B_big - B_small) and tr Sigma = (|G_small|^2 - |G_big|^2) /
    (1 / B_small - 1 / B_big) are unbiased, their ratio is not: both are averaged over the n measurements, taken at one point
    of training, before dividing. Fieller's interval of the ratio of two means; it exists where |G|^2 is above zero.
    """
    small, big = _positive(B_small=B_small), _positive(B_big=B_big)
    if not (big > small).all():
        raise UserError("B_big must be larger than B_small")
    small, g_small, big, g_big = np.broadcast_arrays(small, _positive(G2_small=G2_small), big, _positive(G2_big=G2_big))
    if small.ndim != 1 or len(small) < FEWEST:
        return NoiseScale("too_few_points", REFUSALS["too_few_points"].format(what="measurements"))
    n = len(small)
    g2, trace = (big * g_big - small * g_small) / (big - small), (g_small - g_big) / (1 / small - 1 / big)
    (v, cov), (_, w) = np.cov(g2, trace) / n
    q = float(student.ppf((1 + LEVEL) / 2, n - 1))
    warnings = ("few_measurements",) if n < 20 else ()
    G2, T = (Estimate(float(m), float(m - q * s), float(m + q * s)) for m, s in ((g2.mean(), math.sqrt(v)), (trace.mean(), math.sqrt(w))))
    if G2.low <= 0:
        return NoiseScale("no_signal", REFUSALS["no_signal"], warnings, NOTHING, G2, T, n)
    if T.value <= 0:
        return NoiseScale("no_noise", REFUSALS["no_noise"], warnings, NOTHING, G2, T, n)
    a, b, c = G2.value**2 - q**2 * v, G2.value * T.value - q**2 * cov, T.value**2 - q**2 * w
    spread = math.sqrt(max(b**2 - a * c, 0))
    return NoiseScale("ok", "", warnings, Estimate(T.value / G2.value, max((b - spread) / a, 0.0), (b + spread) / a), G2, T, n)
