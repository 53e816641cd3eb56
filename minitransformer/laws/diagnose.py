"""At what stage is a training, what will it reach, and is it worth going on? Read from its curve so far.

Three questions are put to the curve, in logs of steps and loss, and asked in this order:

1. Is it still falling? A loss that is no longer a number, or stays above its lowest value while the training loss does
   not fall, diverges. One that rises, or falls ever further behind the training loss, while the training loss goes on
   falling is limited by data.
2. Has it joined the law? Early on a network learns which tokens are frequent, and then pairs of them; no power law holds
   yet. With a law of the family the curve can be seen to come towards it, from below (a law run backwards to a few
   thousand tokens asks for a loss above guessing) or from above. Without one, the test is the shape: above a floor a
   power law gets flatter and flatter in logs, so a curve that gets steeper has not joined it.
3. What does it still have to gain? With a law of N and D, doubling the steps and doubling the size cost the same
   compute: a training is near the floor of its size where doubling the size would buy twice as much. Without a law,
   E + A / S^alpha is fitted to the last stretch that it follows, and near is half as far above E as Kaplan et al. 2020
   leave a compute-efficient training (appendix B: about 10 %), which in their law is the same place.

A law is fitted to trainings at the end of their schedules, and while the learning rate is high the curve runs above it.
So a curve is held to the law only within UNDECAYED unless `decayed` says that its last loss was measured after the
learning rate went down, and the loss expected at the end is what the law says of `planned_steps`, never the curve drawn
on. Without a law the curve is drawn on, and a decay will take off more.

The constants below were chosen on the kit's own trainings; `benchmarks/diagnose.py` measures how often the stage is
right and how often the intervals hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minitransformer import papers
from minitransformer.errors import UserError
from minitransformer.laws import forms
from minitransformer.laws.law import Law, short
from minitransformer.laws.uncertainty import CURVE_RESAMPLES, fit_curve

STAGES = ("too short to tell", "diverging", "limited by data", "warming up", "near the floor of its size", "on the power law")
TOO_SHORT, DIVERGING, DATA, WARMING, FLOOR, POWER = STAGES

MIN_POINTS = 5     # three parameters of E + A / S^alpha, and two to see whether it fits
BIN = 1.15         # steps closer than this factor become one point, their median: a spike among many does not count
RECENT = 3.0       # "now" is the last factor of 3 in steps: two measurements at the sparsest of the kit's specs
RISE = 0.01        # log loss above its lowest that is a rise, twice running; the kit's single-epoch runs never rise at all
GAP = 0.04         # growth of log(validation / training) that means limited by data; in the kit's single-epoch runs it stays below 0.003
OFF = 0.06         # log distance from a law that is not held against a run: the kit's laws miss larger sizes by up to 0.05
UNDECAYED = 0.12   # how far above a law of decayed runs the loss may be before the decay: measured up to 0.10
STEEPER = 0.03     # slope gained over the last stretch that means that a curve is not flattening: the noise of slopes at RECENT
MISFIT = 0.01      # rms log loss within which E + A / S^alpha follows a stretch of a curve
STRETCH = 4.0, 16.0  # least and greatest factor in steps of such a stretch: older points are of another regime
FLAT = 10.0        # factor in steps over which one curve alone must be seen to flatten: the plateau of pairs lasts a factor of five
CROSSED = 2.0      # doubling the size buys this many times what doubling the steps does: near the floor
WIDER = 2.0        # on the interval of a law's doubling, which leans on its slope: laws bend more than their scatter says
DRAWN = 4.0        # on the interval of a curve drawn on: its points hang together, and nine in ten were then inside
FAR = 300.0        # log of "unlimited" steps or tokens
LARGEST = 1e30     # no count of steps, tokens or parameters goes beyond


class Evidence(NamedTuple):
    """One stage, whether the curve is at it, and why or why not."""

    stage: str
    holds: bool
    reason: str


@dataclass(frozen=True)
class Expectation:
    """A number of nats with its 95 % interval, low and high None where there is none. source: "law" or "curve"."""

    value: float
    low: float | None
    high: float | None
    source: str
    warning: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {k: _plain(v) if isinstance(v, float) else v for k, v in vars(self).items()}

    def __str__(self) -> str:
        return f"{self.value:.4g}" + ("" if self.low is None else f" ({self.low:.4g} to {self.high:.4g})")


@dataclass(frozen=True)
class Diagnosis:
    """What the curve so far says. Losses in nats per token, steps counted from the start of the training.

    stage: one of STAGES. stages: each of them with the reason why it holds or does not, in the order in which they are
    decided; `stage` is the first that holds. step, loss: the last measurement. expected_end: loss at `planned_steps`.
    next_doubling: what as many steps again would take off the loss. stop_bound: steps before which the training will
    not need to be stopped early (Kaplan et al. 2020, eq. 5.7), a lower bound. left: what unlimited steps would still
    take off. above_law: log loss minus that of the law at this point, before any decay. slope, law_slope: d log loss /
    d log steps over the last factor RECENT, of the curve and of the law. epochs: tokens seen per unique token.
    floor, exponent: of E + A / S^alpha, fitted to the curve from step `joined` on. All None where not known.
    """

    stage: str
    stages: tuple[Evidence, ...]
    step: float
    loss: float | None
    N: float
    advice: str
    expected_end: Expectation | None = None
    next_doubling: Expectation | None = None
    left: Expectation | None = None
    stop_bound: float | None = None
    planned_steps: float | None = None
    above_law: float | None = None
    slope: float | None = None
    law_slope: float | None = None
    epochs: float | None = None
    joined: float | None = None
    floor: float | None = None
    exponent: float | None = None
    notes: tuple[str, ...] = field(default=())

    def summary(self) -> str:
        """The diagnosis in plain words, one sentence a line."""
        reason = next(e.reason for e in self.stages if e.stage == self.stage)
        lines = [f"At step {short(self.step)}: {self.stage}, as {reason}."]
        if self.expected_end:
            how = "the law" if self.expected_end.source == "law" else "drawing on the curve"
            lines.append(f"Loss expected at step {short(self.planned_steps)}, by {how}: {self.expected_end} nats.")
            if self.expected_end.warning:
                lines.append(f"Warning: {self.expected_end.warning}.")
        if self.next_doubling:
            lines.append(f"The next doubling of steps buys {self.next_doubling} nats.")
        if self.left:
            lines.append(f"Unlimited steps would buy {self.left} nats.")
        if self.stop_bound is not None:
            lines.append(f"No need to stop early before step {short(self.stop_bound)} (a lower bound).")
        return "\n".join([*lines, *(f"Note: {note}." for note in self.notes), f"Advice: {self.advice}"])

    def to_dict(self) -> dict[str, Any]:
        """Stable keys and plain numbers, ready for JSON; None where there is no number."""
        plain = {k: _plain(v) if isinstance(v, float) else v for k, v in vars(self).items()}
        for name in ("expected_end", "next_doubling", "left"):
            plain[name] = plain[name] and plain[name].to_dict()
        return {**plain, "stages": [e._asdict() for e in self.stages], "notes": list(self.notes)}


def diagnose(step, loss, N: float, *, law: Law | None = None, tokens_per_step: float | None = None, unique_tokens: float | None = None,
             train_loss=None, planned_steps: float | None = None, decayed: bool = False) -> Diagnosis:
    """Diagnose a training of N parameters from its curve so far.

    step, loss: shape (n,), steps and validation losses (nats per token) in any order; losses may be missing (NaN) where
    they were not measured. train_loss: shape (n,), to tell overfitting from divergence. law: of the family, in N, D, S
    or U (unique tokens), with time (D or S) among them; D needs tokens_per_step. unique_tokens: how many there are to
    see. planned_steps: where the training is meant to end. decayed: the last loss was measured after the learning rate
    had come down, so it may be held to the law itself. UserError for what makes no sense.
    """
    N = _positive("N", N)
    tokens_per_step, unique_tokens, planned_steps = (
        None if v is None else _positive(name, v)
        for name, v in (("tokens_per_step", tokens_per_step), ("unique_tokens", unique_tokens), ("planned_steps", planned_steps))
    )
    step, loss, train = _columns(step, loss, train_loss)
    lost = _lost(loss, train)
    seen = np.isfinite(loss)
    curve = _binned(step[seen], loss[seen], train[seen])
    family = None if law is None else _Family(law, N, tokens_per_step, unique_tokens)
    now = float(step[-1])
    if len(curve.step) and curve.step[-1] > 0 and not lost:
        now = float(step[seen][-1])
    if planned_steps is not None and planned_steps < now * (1 - 1e-9):
        raise UserError(f"planned_steps = {short(planned_steps)} lies before the last step of the curve, {short(now)}")
    epochs = None if unique_tokens is None or tokens_per_step is None else now * tokens_per_step / unique_tokens

    checks: dict[str, tuple[bool, str]] = {TOO_SHORT: _too_short(curve, lost)}
    if checks[TOO_SHORT][0]:
        for stage in STAGES[1:]:
            checks[stage] = (False, "the curve is too short")
        found = _Facts(now, curve, decayed)
    else:
        found = _Facts(now, curve, decayed, family)
        rising, falling = _rising(curve), _train_falls(curve)
        checks[DIVERGING] = _diverging(curve, lost, rising, falling, epochs)
        checks[DATA] = _limited(curve, rising and not checks[DIVERGING][0], epochs)
        checks[WARMING] = _warming(found)
        checks[FLOOR] = _near_floor(found)
        checks[POWER] = (True, found.on_law())
    stage = next(s for s in STAGES if checks[s][0])
    stages = tuple(Evidence(s, *checks[s]) for s in STAGES)
    return _report(stage, stages, found, N, planned_steps, unique_tokens, tokens_per_step, epochs)


def early_stopping_bound(excess: float, S_c: float, alpha_S: float) -> float:
    """Steps before which a training on limited data need not stop, a lower bound (Kaplan et al. 2020, eq. 5.7).

    S_stop >~ S_c / [L(N, D) - L(N, inf)]^(1 / alpha_S): where the learning curve of unlimited data comes down to the loss
    that D tokens allow. excess: L(N, D) - L(N, inf) in nats. S_c, alpha_S: of L(N, S), eq. 5.6.
    """
    excess, S_c, alpha_S = _positive("excess", excess), _positive("S_c", S_c), _positive("alpha_S", alpha_S)
    log = math.log(S_c) - math.log(excess) / alpha_S
    return math.exp(log) if log < 700 else math.inf


# --- the curve ---------------------------------------------------------------------------------------------------


class _Curve(NamedTuple):
    """Points at least a factor BIN apart: steps, losses, training losses (NaN where unknown), noise of a log loss."""

    step: np.ndarray
    loss: np.ndarray
    train: np.ndarray
    noise: float

    @property
    def z(self) -> np.ndarray:
        return np.log(self.step)

    @property
    def y(self) -> np.ndarray:
        return np.log(self.loss)

    def rows(self, keep) -> _Curve:
        return _Curve(self.step[keep], self.loss[keep], self.train[keep], self.noise)


def _columns(step, loss, train):
    try:
        step, loss = np.asarray(step, float), np.asarray(loss, float)
        train = np.full(loss.shape, np.nan) if train is None else np.asarray(train, float)
    except (TypeError, ValueError, OverflowError):
        raise UserError("step, loss and train_loss must be columns of numbers: drop or mend the rows that are not") from None
    if step.ndim != 1 or step.shape != loss.shape or step.shape != train.shape:
        raise UserError("step, loss and train_loss must be columns of one length")
    if not ((step >= 0) & (step < LARGEST)).all():
        raise UserError("every step must be a number, zero or above: drop the rows whose step is missing")
    keep = step > 1 / LARGEST  # the loss before the first step is no part of a curve in logs
    step, loss, train = step[keep], loss[keep], train[keep]
    if not len(step):
        raise UserError("there is no curve: give the losses of at least one step after step 0")
    if (loss <= 0).any():
        raise UserError("the loss must be above zero to be followed in logs: give nats per token, not a log-likelihood or a reward")
    loss, train = (np.where(column > LARGEST, np.inf, column) for column in (loss, train))
    loss = np.maximum(loss, 1 / LARGEST)
    order = np.argsort(step, kind="stable")
    step, loss, train = step[order], loss[order], train[order]
    return step, loss, np.where(np.isfinite(train) & (train > 1 / LARGEST), train, np.nan)


def _lost(loss: np.ndarray, train: np.ndarray) -> bool:
    """Whether the curve ends without a number: not where losses are measured at some steps only, or training went on."""
    if np.isfinite(loss[-1]):
        return False
    good = np.nonzero(np.isfinite(loss))[0]
    if not len(good):
        return True
    last = good[-1]
    if np.isinf(loss[last + 1 :]).any():
        return True
    return bool(np.isfinite(loss[: last + 1]).all() and np.isnan(train[last + 1 :]).all())


def _binned(step, loss, train) -> _Curve:
    if not len(step):
        return _Curve(step, loss, train, 0.0)
    z, y = np.log(step), np.log(loss)
    bins = np.floor((z[-1] - z) / math.log(BIN) + 1e-9)
    edges = np.flatnonzero(np.append(True, np.diff(bins) != 0))
    groups = np.split(np.arange(len(z)), edges[1:])
    spread = [y[g] - np.median(y[g]) for g in groups if len(g) > 2]
    each = 1.4826 * float(np.median(np.abs(np.concatenate(spread)))) if spread else 0.0
    size = np.median([len(g) for g in groups])
    known = [train[g][np.isfinite(train[g])] for g in groups]
    return _Curve(
        np.array([step[g[0]] if len(g) == 1 else math.exp(z[g].mean()) for g in groups]),
        np.array([np.median(loss[g]) for g in groups]),
        np.array([np.median(t) if len(t) else np.nan for t in known]),
        each * 1.25 / math.sqrt(size) if size > 1 else each,
    )


def _recent(curve: _Curve) -> np.ndarray:
    """Rows of the last factor RECENT in steps, at least the last three."""
    return np.arange(min(len(curve.z) - 3, int(np.searchsorted(curve.z, curve.z[-1] - math.log(RECENT) - 1e-9))), len(curve.z))


def _line(z, y) -> float:
    d = z - z.mean()
    return float(d @ y / (d @ d))


# --- the family --------------------------------------------------------------------------------------------------


class _Family:
    """The law of the family, seen along one training: log loss as a function of log steps."""

    def __init__(self, law: Law, N: float, tokens_per_step: float | None, unique_tokens: float | None):
        if not getattr(law, "ok", False):
            raise UserError(f"this law cannot diagnose: {getattr(law, 'reason', 'it is not a law') or 'it is not a law'}")
        inputs = law.form.inputs
        if law.form.target != "L" or not set(inputs) <= {"N", "D", "S", "U"} or not set(inputs) & {"D", "S"}:
            raise UserError(f"a law of {' and '.join(inputs)} says nothing about a training in time: "
                            "give one whose inputs are among N, D, S and U, with D or S")
        if set(inputs) & {"D", "U"} and tokens_per_step is None:
            raise UserError("this law counts tokens: give tokens_per_step (batch size times context length)")
        self.law, self.N, self.tokens, self.unique = law, N, tokens_per_step, unique_tokens
        curve = law.to_dict()["curve"]
        if curve is None:
            self.theta = law.form.internal({k: e.value for k, e in law.parameters.items()})
            self.centre, self.covariance = np.zeros(len(inputs)), None
        else:
            self.theta, self.centre, self.covariance = (np.array(curve[k], float) for k in ("theta", "centre", "covariance"))
            self.q_band, self.q_new, self.sigma = curve["q_band"], curve["q_new"], curve["sigma"]

    def inputs(self, steps, fresh: bool = False) -> dict[str, np.ndarray]:
        """What the law is asked for after so many steps. fresh: as if no token came twice."""
        steps = np.asarray(steps, float)
        values = {"N": np.full(steps.shape, self.N), "S": steps}
        if self.tokens is not None:
            seen = steps * self.tokens
            unique = seen if self.unique is None or fresh else np.minimum(seen, self.unique)
            values |= {"D": seen if "U" in self.law.form.inputs else unique * _worth(seen / unique), "U": unique}
        return {name: values[name] for name in self.law.form.inputs}

    def at(self, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Loss (n,) and its derivatives by theta (p, n)."""
        z = np.log(np.stack([np.atleast_1d(inputs[name]) for name in self.law.form.inputs])) - self.centre[:, None]
        value, slope = self.law.form.evaluate(self.theta[None], z)
        loss = np.exp(np.minimum(value[0], 700.0))
        return loss, loss * slope[0]

    def log_loss(self, steps) -> np.ndarray:
        return np.log(self.at(self.inputs(steps, fresh=True))[0])

    def difference(self, first: dict, second: dict) -> Expectation:
        """Loss at `first` minus loss at `second`: what is common to both does not widen the interval."""
        (a, da), (b, db) = self.at(first), self.at(second)
        value, slope = float(a[0] - b[0]), (da - db)[:, 0]
        if self.covariance is None:
            return Expectation(value, None, None, "law")
        half = WIDER * self.q_band * math.sqrt(max(float(slope @ self.covariance @ slope), 0.0))
        return Expectation(value, value - half, value + half, "law")

    def predict(self, steps: float) -> Expectation:
        p = self.law.predict(**{k: float(v) for k, v in self.inputs(steps).items()})
        return Expectation(p.value, p.low, p.high, "law", p.warning)

    def doubling(self, steps: float) -> Expectation:
        return self.difference(self.inputs(steps), self.inputs(2 * steps))

    def left(self, steps: float) -> Expectation:
        return self.difference(self.inputs(steps), self.unlimited())

    def unlimited(self) -> dict[str, np.ndarray]:
        """Without end to the steps, and to the tokens: the floor of this size."""
        return {name: np.array(self.N if name == "N" else math.exp(FAR)) for name in self.law.form.inputs}

    def size_against_steps(self, steps: float) -> float | None:
        """What doubling N buys, over what doubling the steps does; None for a law of one size."""
        if "N" not in self.law.form.inputs:
            return None
        here = self.inputs(steps, fresh=True)
        size = self.difference(here, {**here, "N": 2 * here["N"]}).value
        more = self.difference(here, self.inputs(2 * steps, fresh=True)).value
        return size / more if more > 0 else math.inf

    def half_width(self, steps: float) -> float:
        """Of log loss, for a new training; OFF where the law gives none, or less."""
        if self.covariance is None:
            return OFF
        loss, slope = self.at(self.inputs(steps, fresh=True))
        slope = slope[:, 0] / loss[0]
        return max(OFF, self.q_new * math.sqrt(float(slope @ self.covariance @ slope) + self.sigma**2))

    def reaches(self, target: float) -> float | None:
        """Steps at which fresh data would bring the loss down to `target`, None where they never do."""
        z = np.linspace(0, 60, 6001)
        y = self.log_loss(np.exp(z)) - math.log(target)
        below = np.nonzero(y <= 0)[0]
        if not len(below):
            return None
        i = below[0]
        return float(math.exp(z[i] - (0.01 * y[i] / (y[i] - y[i - 1]) if i else 0.0)))


def _worth(epochs):
    """Fresh tokens that so many epochs over one unique token are worth (Muennighoff et al. 2023, eq. 5)."""
    r = papers.value("muennighoff2023.R_star_D")
    return 1 + r * -np.expm1(-(np.maximum(epochs, 1.0) - 1) / r)


# --- what the curve shows ----------------------------------------------------------------------------------------


class _Facts:
    """Everything measured on the curve, with the law if there is one."""

    def __init__(self, now: float, curve: _Curve, decayed: bool, family: _Family | None = None):
        self.now, self.curve, self.decayed, self.family = now, curve, decayed, family
        self.slope = self.law_slope = self.above = self.local = None
        self.bent = self.dropped = False
        self.law_says = ""
        if len(curve.step) < 3:
            return
        rows = _recent(curve)
        z, y = curve.z[rows], curve.y[rows]
        self.slope = _line(z, y)
        if len(curve.step) >= MIN_POINTS:
            self._shape()
        if family is not None:
            expected = family.log_loss(curve.step[rows])
            self.law_slope = _line(z, expected)
            self.above = float(y[-1] - expected[-1])
            self.law_says = self._against_law()

    def _against_law(self) -> str:
        """follows, joining (outside what it allows, and closing in), above or below."""
        half = self.family.half_width(self.curve.step[-1])
        low, high = -half, half + (0.0 if self.decayed else UNDECAYED)
        if low <= self.above <= high:
            return "follows"
        soon = self.above + (self.slope - self.law_slope) * math.log(4)
        toward = self.slope > self.law_slope if self.above < low else self.slope < self.law_slope
        meets = soon >= low if self.above < low else soon <= high
        inputs = self.family.inputs(self.curve.step[-1], fresh=True)
        early = any(k != "N" and k in inputs and float(inputs[k]) < limits[0] * (1 - 1e-9) for k, limits in self.family.law.ranges.items())
        if toward and (meets or early):
            return "joining"
        return "below" if self.above < low else "above"

    def _shape(self) -> None:
        """The last stretch that E + A / S^alpha follows, and whether the curve gets steeper at its end."""
        curve = self.curve
        self.bent = _steepens(curve)
        self.local = _stretch(curve)
        if self.bent or self.decayed or self.local is None:
            # a fall at the end of a curve that had long been flattening is the learning rate coming down
            for share in (0.8, 0.65, 0.5):
                before = curve.rows(curve.step <= share * curve.step[-1])
                if len(before.step) >= MIN_POINTS and not _steepens(before) and (local := _stretch(before)) is not None:
                    if before.step[-1] >= 10 * before.step[0]:
                        self.dropped, self.local, self.bent = True, local, False
                        return

    def on_law(self) -> str:
        if self.law_says == "follows":
            return f"the loss is {_percent(self.above)} the law at this point, falling as steps^{self.slope:.3f} (the law: {self.law_slope:.3f})"
        if self.local is not None:
            return f"the loss follows E + A / S^alpha since step {short(self.local.start)}, falling as steps^{self.slope:.3f} now"
        return "nothing says otherwise" if self.slope is None else f"the loss goes on falling, as steps^{self.slope:.3f} now"


def _steepens(curve: _Curve) -> bool:
    """Whether the slope now is steeper than it was over the factor of steps before."""
    rows = _recent(curve)
    earlier = np.arange(max(0, int(np.searchsorted(curve.z, curve.z[rows[0]] - math.log(RECENT) - 1e-9))), rows[0] + 1)
    if len(earlier) < 2:
        return False
    return _line(curve.z[rows], curve.y[rows]) < _line(curve.z[earlier], curve.y[earlier]) - STEEPER - 3 * curve.noise


class _Local(NamedTuple):
    """E + A / S^alpha on the stretch from `start`; `fit` is a laws.uncertainty.Curve of it."""

    start: float
    fit: Any
    z: np.ndarray
    y: np.ndarray

    @property
    def report(self) -> tuple[float, float, float]:
        """E, log A, alpha."""
        e, a, alpha = self.fit.form.report(self.fit.theta[None], self.fit.centre)[0]
        return float(e), float(a), float(alpha)

    def loss(self, steps: float) -> float:
        return float(np.exp(self.fit.at(np.array([[math.log(steps)]]) - self.fit.centre[:, None])[0]))

    def resampled(self) -> _Local:
        """The same with what intervals need."""
        return self._replace(fit=_fitted(self.z, self.y, CURVE_RESAMPLES))

    def interval(self, steps: tuple[float, ...], signs: tuple[float, ...]) -> Expectation:
        """Of a sum of losses with signs, from the linearised covariance and DRAWN."""
        z = np.log(np.array(steps))[None] - self.fit.centre[:, None]
        value, slope = self.fit.form.evaluate(self.fit.theta[None], z)
        loss = np.exp(value[0])
        total, gradient = float(loss @ signs), (slope[0] * loss) @ np.array(signs)
        q = self.fit.q_band * DRAWN
        variance = float(gradient @ self.fit.covariance @ gradient)
        if len(steps) == 1:
            variance += (loss[0] * self.fit.sigma) ** 2
        half = q * math.sqrt(max(variance, 0.0))
        return Expectation(total, total - half, total + half, "curve")


def _fitted(z, y, resamples: int):
    centre = np.array([z.mean()])
    return fit_curve(forms.form("power-floor", "S"), z[None] - centre[:, None], y, np.ones(len(z), int), centre, delta=math.inf, resamples=resamples)


def _stretch(curve: _Curve) -> _Local | None:
    """The longest stretch up to the end that E + A / S^alpha follows within MISFIT; None where there is none."""
    tolerance = max(MISFIT, 2 * curve.noise)
    ends = curve.z[-1] - curve.z
    least, most = np.log(STRETCH)
    for i in range(len(curve.z) - MIN_POINTS + 1):
        if ends[i] < least - 1e-9 or (ends[i] > most and i < len(curve.z) - MIN_POINTS):
            continue
        z, y = curve.z[i:], curve.y[i:]
        fit = _fitted(z, y, 0)
        if np.isfinite(fit.objective) and np.median(np.abs(fit.residuals)) * 1.4826 <= tolerance and abs(fit.residuals[-1]) <= 2 * tolerance:
            return _Local(float(curve.step[i]), fit, z, y)
    return None


def _too_short(curve: _Curve, lost: bool) -> tuple[bool, str]:
    n = len(curve.step)
    if n >= MIN_POINTS or lost:
        return False, f"{n} points at distinct steps"
    return True, f"{MIN_POINTS} losses are needed, at steps that are a factor of {BIN} apart or more, and there are {n}"


def _rising(curve: _Curve) -> bool:
    """Above the lowest loss by RISE at the last two points."""
    if len(curve.y) < 3:
        return False
    return bool((curve.y[-2:] > curve.y.min() + max(RISE, 4 * curve.noise)).all())


def _train_falls(curve: _Curve) -> bool | None:
    """Whether the training loss went down since validation was lowest; None where it is not known."""
    if not len(curve.y):
        return None
    best = int(np.argmin(curve.y))
    train = curve.train[best:]
    known = train[np.isfinite(train)]
    return bool(known[-1] < known[0]) if len(known) > 1 else None


def _diverging(curve, lost, rising, falling, epochs) -> tuple[bool, str]:
    if lost:
        return True, "the loss is no longer a number"
    if not rising:
        single = curve.y[-1] > curve.y.min() + max(RISE, 4 * curve.noise)
        return False, "the last point is up, but one point may be a spike" if single else "the loss is not rising"
    up = f"the loss is {math.expm1(curve.y[-1] - curve.y.min()):.1%} above its lowest, at step {short(curve.step[np.argmin(curve.y)])}"
    if falling or (falling is None and epochs is not None and epochs >= papers.value("muennighoff2023.epochs_like_new")):
        return False, f"{up}, while the training loss falls" if falling else f"{up}, after {epochs:.3g} epochs"
    return True, up + (", and so is the training loss" if falling is False else "")


def _limited(curve, overfits, epochs) -> tuple[bool, str]:
    if overfits:
        return True, f"the validation loss has risen since step {short(curve.step[np.argmin(curve.y)])} while the training data went on being learnt"
    known = np.isfinite(curve.train)
    first_epoch = epochs is not None and epochs <= 1
    if known.sum() >= 4 and not first_epoch:
        gap = curve.y[known] - np.log(curve.train[known])
        grown = float(gap[-1] - np.median(gap[: max(2, len(gap) // 2)]))
        if grown > GAP and gap[-1] > GAP / 2:
            return True, f"the validation loss is {math.expm1(gap[-1]):.1%} above the training loss, and the gap grows"
        return False, "validation and training loss keep together"
    if epochs is not None and epochs >= papers.value("muennighoff2023.epochs_knee"):
        knee = papers.value("muennighoff2023.epochs_knee")
        return True, f"every token has been seen {epochs:.3g} times, and beyond {knee:.0f} repeats teach little"
    if first_epoch:
        return False, "no token has been seen twice"
    return False, "nothing says so" if epochs is not None else "not known: give the training loss, or unique_tokens and tokens_per_step"


def _warming(found: _Facts) -> tuple[bool, str]:
    if found.law_says == "follows":
        return False, f"the loss is {_percent(found.above)} the law at this point"
    if found.law_says == "joining":
        slopes = f"(slope {found.slope:.3f}, the law's {found.law_slope:.3f})"
        return True, f"the loss is {_percent(found.above)} the law at this point and closing in {slopes}"
    if found.bent:
        return True, f"the loss falls faster and faster (slope {found.slope:.3f} now), where a power law flattens"
    if found.local is None:
        return True, "no stretch up to now follows a power law with a floor"
    return False, f"the loss flattens as a power law does, since step {short(found.local.start)}"


def _near_floor(found: _Facts) -> tuple[bool, str]:
    near = papers.value("kaplan2020.efficient.above_converged") / CROSSED
    follows = found.law_says in ("follows", "joining")
    if follows:
        ratio = found.family.size_against_steps(found.curve.step[-1])
        if ratio is not None:
            text = f"twice the size would buy {ratio:.2g} times what twice the steps does"
            return ratio >= CROSSED, text
        left, loss = found.family.left(found.now).value, math.exp(found.family.log_loss(found.now)[0])
        floor = loss - left
    elif found.local is not None:
        if found.curve.step[-1] < FLAT * found.local.start:
            return False, f"a floor shows in a curve that has flattened over a factor of {FLAT:.0f} in steps, which this one has not"
        floor, loss = found.local.report[0], found.local.loss(found.curve.step[-1])
        now = found.local.z > found.local.z[-1] - math.log(RECENT) - 1e-9
        slope = _line(found.local.z[now], found.local.y[now]) if now.sum() > 1 else found.slope
        if slope < -near:
            return False, f"the loss still falls as steps^{slope:.3f}"
    else:
        return False, "no floor can be seen"
    above = loss / floor - 1 if floor > 1e-6 * loss else math.inf
    return above <= near, f"the loss is {above:.1%} above the floor that its curve points to" if math.isfinite(above) else "no floor can be seen"


def _percent(log: float) -> str:
    return f"{abs(math.expm1(log)):.1%} {'above' if log >= 0 else 'below'}"


# --- what follows ------------------------------------------------------------------------------------------------


def _report(stage, stages, found: _Facts, N, planned, unique, tokens, epochs) -> Diagnosis:
    curve, family, now = found.curve, found.family, found.now
    with_law = family is not None and found.law_says in ("follows", "joining")
    notes = _notes(stage, found)
    end = doubling = left = None
    overfits = stage == DATA and _rising(curve)
    local = found.local if stage not in (TOO_SHORT, WARMING) and not with_law else None
    if stage not in (DIVERGING, TOO_SHORT) and not overfits:
        if with_law:
            doubling, left = family.doubling(now), family.left(now)
            end = None if planned is None else family.predict(planned)
        elif local is not None:
            local = local.resampled()
            doubling = local.interval((now, 2 * now), (1.0, -1.0))
            left = _possible(local.interval((now, math.exp(FAR)), (1.0, -1.0)), float(curve.loss[-1]))
            end = _drawn_on(local, planned, found) if planned is not None and planned > now else None
    fitted = (found.local.start, *found.local.report[::2]) if found.local is not None else (None, None, None)
    return Diagnosis(
        stage=stage, stages=stages, step=now, loss=float(curve.loss[-1]) if len(curve.loss) else None, N=N,
        advice=_advice(stage, found, end, doubling, planned, overfits), expected_end=_sound(end), next_doubling=_sound(doubling), left=_sound(left),
        stop_bound=_stop_bound(found, with_law, overfits, unique), planned_steps=planned, above_law=found.above, slope=found.slope,
        law_slope=found.law_slope, epochs=epochs, joined=fitted[0], floor=fitted[1], exponent=fitted[2], notes=tuple(notes),
    )


def _drawn_on(local: _Local, planned: float, found: _Facts) -> Expectation:
    end = local.interval((planned,), (1.0,))
    if found.decayed or found.dropped:
        return Expectation(end.value, end.low, end.high, "curve", "drawn on from before the learning rate came down")
    return Expectation(end.value, end.low, end.high, "curve", "drawn on at the learning rate so far: a decay will take off more")


def _stop_bound(found: _Facts, with_law: bool, overfits: bool, unique: float | None) -> float | None:
    """Eq. 5.7, with the learning curve of the law (or of the run) and the loss that the data allow."""
    family = found.family
    if family is None or unique is None:
        return None
    inputs = family.law.form.inputs
    floor = float(family.at(family.unlimited())[0][0])
    if family.law.form.name == "kaplan-nd":  # its D are the tokens there are, so the learning curve is the run's own
        allowed = float(family.at({"N": np.array(family.N), "D": np.array(unique)})[0][0])
        if found.local is None or not allowed > floor:
            return None
        _, a, alpha = found.local.report
        return _plain(early_stopping_bound(allowed - floor, math.exp(a / alpha) if a / alpha < 700 else math.inf, alpha)) if a / alpha < 700 else None
    if "U" in inputs:
        allowed = float(family.at({**family.unlimited(), "U": np.array(unique)})[0][0])
    elif overfits:
        allowed = float(found.curve.loss.min())
    else:
        return None
    steps = family.reaches(allowed) if allowed > floor else None
    low = family.law.ranges.get("S", (0.0,))[0] if "S" in inputs else family.law.ranges.get("D", (0.0,))[0] / family.tokens
    return steps if steps is not None and steps >= low / 2 else None  # earlier than any run of the law's, it says nothing


def _notes(stage, found: _Facts) -> list[str]:
    notes = []
    if found.family is None and stage not in (TOO_SHORT, DIVERGING, DATA):
        notes.append("one curve alone cannot tell a plateau, after which something new is learnt, from warming up or from a floor: "
                     "a law of smaller sizes can")
    if found.law_says in ("above", "below"):
        more = "" if found.above < 0 or found.decayed else ", more than a learning rate that has yet to come down explains"
        notes.append(f"the law does not describe this training: the loss is {_percent(found.above)} it at this point{more}")
    if found.law_says == "follows" and not found.decayed and found.above > OFF:
        notes.append(f"the loss is {_percent(found.above)} the law, as it is before the learning rate comes down")
    if found.dropped:
        notes.append("the fall at the end looks like the learning rate coming down; the curve before it was followed")
    return notes


def _advice(stage, found: _Facts, end, doubling, planned, overfits) -> str:
    buys = "" if doubling is None else f": twice the steps buy {max(doubling.value, 0):.2g} nats"
    if stage == TOO_SHORT:
        return "Go on, and measure the loss at more steps."
    if stage == DIVERGING:
        return ("Stop, and start again from before the rise with a lower learning rate or a longer warm-up"
                + ("." if np.isfinite(found.curve.train).any() else "; if the training loss still falls, it is overfitting instead."))
    if stage == DATA:
        if overfits:
            best = found.curve.step[np.argmin(found.curve.y)]
            return f"Stop: keep the weights of about step {short(best)}, and get more data or a smaller model."
        return "Watch for the validation loss to turn, and get more data: more steps over the same tokens buy ever less."
    if stage == WARMING:
        return "Go on: it is too early to judge this training by its loss."
    if found.law_says == "above":
        return f"Compare the learning rate, batch and data with the law's runs before going on{buys}."
    if stage == FLOOR:
        unsure = "" if found.family is not None else " (or this is a plateau before something new is learnt, which one curve cannot tell)"
        return f"Let the learning rate come down and stop; spend further compute on a larger model{unsure}{buys}."
    if planned is not None and found.now >= planned * (1 - 1e-9):
        return f"The plan is done; a longer training would still gain{buys}."
    return f"Go on{buys}."


def _sound(expectation: Expectation | None) -> Expectation | None:
    """None in place of numbers that are not finite."""
    if expectation is None or not math.isfinite(expectation.value):
        return None
    if expectation.low is not None and not (math.isfinite(expectation.low) and math.isfinite(expectation.high)):
        return Expectation(expectation.value, None, None, expectation.source, expectation.warning)
    return expectation


def _possible(left: Expectation, loss: float) -> Expectation | None:
    """No more can be left than the loss, and no less than nothing; None where no more than that is known."""
    if left.low <= 0 and left.high >= loss:
        return None
    return Expectation(min(left.value, loss), max(left.low, 0.0), min(left.high, loss), left.source)


def _positive(name: str, value) -> float:
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 1 / LARGEST < value < LARGEST:
        raise UserError(f"{name} must be a number above zero, and one that a training can have")
    return value


def _plain(value):
    return value if value is None or math.isfinite(value) else None
