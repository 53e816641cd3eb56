"""One training in logs of steps and loss: as it was measured, as E + A / S^alpha follows it, and as a law of its family has it.

What to make of the three is decided in diagnose.py. The constants were chosen on the kit's own trainings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from minitransformer import papers
from minitransformer.errors import UserError
from minitransformer.laws import formulas, forms, uncertainty
from minitransformer.laws.law import Law, Prediction, short

MIN_POINTS = 5     # three parameters of E + A / S^alpha, and two to see whether it fits
BIN = 1.15         # steps closer than this factor become one point, their median: a spike among many does not count
RECENT = 3.0       # "now" is the last factor of 3 in steps: two measurements at the sparsest of the kit's specs
RISE = 0.01        # log loss above its lowest that is a rise, twice running; the kit's single-epoch runs never rise at all
STEEPER = 0.03     # slope gained over the last stretch that means that a curve is not flattening: the noise of slopes at RECENT
MISFIT = 0.01      # rms log loss within which E + A / S^alpha follows a stretch of a curve
STRETCH = 4.0, 16.0  # least and greatest factor in steps of such a stretch: older points are of another regime
FLAT = 10.0        # factor in steps over which one curve alone must be seen to flatten: the plateau of pairs lasts a factor of five
DRAWN = 4.0        # on the interval of a curve drawn on: its points hang together, and nine in ten were then inside
WIDER = 2.0        # on the interval of a law's doubling, which leans on its slope: laws bend more than their scatter says
OFF = 0.06         # log distance from a law that is not held against a run: the kit's laws miss larger sizes by up to 0.05
UNLIMITED = math.exp(300)  # steps or tokens
LARGEST = 1e30     # no count of steps, tokens or parameters goes beyond


# --- as it was measured --------------------------------------------------------------------------------------------


class TrainingCurve(NamedTuple):
    """Points at least a factor BIN apart: steps, losses, training losses (NaN where unknown), noise of a log loss.

    now: the last step, of those with a loss unless the curve is `lost`, which is to say ends without a number.
    measured: how many losses the points were made of.
    """

    step: np.ndarray
    loss: np.ndarray
    train: np.ndarray
    noise: float
    now: float
    lost: bool
    measured: int

    @property
    def z(self) -> np.ndarray:
        return np.log(self.step)

    @property
    def y(self) -> np.ndarray:
        return np.log(self.loss)

    @property
    def lowest(self) -> int:
        return int(np.argmin(self.y))

    @property
    def rises(self) -> np.ndarray:
        """Of each point, whether it lies above the lowest loss by more than RISE and noise."""
        return self.y > self.y.min() + max(RISE, 4 * self.noise)

    @property
    def train_falls(self) -> bool | None:
        """Whether the training loss went down since the validation loss was lowest; None where it is not known."""
        known = self.train[self.lowest :][np.isfinite(self.train[self.lowest :])]
        return bool(known[-1] < known[0]) if len(known) > 1 else None

    def until(self, step: float) -> TrainingCurve:
        keep = self.step <= step
        return self._replace(step=self.step[keep], loss=self.loss[keep], train=self.train[keep])

    def recent(self) -> int:
        """The first row of the last factor RECENT in steps, which has three rows at least."""
        return min(len(self.z) - 3, _factor_before(self.z, -1))

    def steepens(self) -> bool:
        """Whether the slope now is steeper than it was over the factor of steps before."""
        z, y, now = self.z, self.y, self.recent()
        before = slice(_factor_before(z, now), now + 1)
        return len(z[before]) > 1 and slope(z[now:], y[now:]) < slope(z[before], y[before]) - STEEPER - 3 * self.noise


def read_curve(step, loss, train=None) -> TrainingCurve:
    """Rows in any order, losses missing (NaN) where they were not measured. UserError for what is no curve."""
    try:
        step, loss = np.asarray(step, float), np.asarray(loss, float)
        train = np.full(loss.shape, np.nan) if train is None else np.asarray(train, float)
    except (TypeError, ValueError, OverflowError):
        raise UserError("step, loss and train_loss must be columns of numbers: drop or mend the rows that are not") from None
    if step.ndim != 1 or step.shape != loss.shape or step.shape != train.shape:
        raise UserError("step, loss and train_loss must be columns of one length")
    if not ((step >= 0) & (step < LARGEST)).all():
        raise UserError("every step must be a number, zero or above: drop the rows whose step is missing")
    order = np.argsort(step, kind="stable")
    order = order[step[order] > 1 / LARGEST]  # the loss before the first step is no part of a curve in logs
    step, loss, train = step[order], loss[order], train[order]
    if not len(step):
        raise UserError("there is no curve: give the losses of at least one step after step 0")
    if (loss <= 0).any():
        raise UserError("the loss must be above zero to be followed in logs: give nats per token, not a log-likelihood or a reward")
    loss = np.where(loss > LARGEST, np.inf, np.maximum(loss, 1 / LARGEST))
    train = np.where((train > 1 / LARGEST) & (train <= LARGEST), train, np.nan)
    lost, seen = _lost(loss, train), np.isfinite(loss)
    now = float(step[-1] if lost else step[seen][-1])
    return TrainingCurve(*_binned(step[seen], loss[seen], train[seen]), now, lost, int(seen.sum()))


def _lost(loss: np.ndarray, train: np.ndarray) -> bool:
    """Whether the curve ends without a number: not where losses are measured at some steps only, or training went on."""
    measured = np.flatnonzero(np.isfinite(loss))
    if not len(measured):
        return True
    end = measured[-1] + 1
    if np.isinf(loss[end:]).any():
        return True
    return bool(end < len(loss) and np.isfinite(loss[:end]).all() and np.isnan(train[end:]).all())


def _binned(step, loss, train) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    if not len(step):
        return step, loss, train, 0.0
    z, y = np.log(step), np.log(loss)
    bins = np.floor((z[-1] - z) / math.log(BIN) + 1e-9)
    groups = np.split(np.arange(len(z)), np.flatnonzero(np.diff(bins)) + 1)
    spread = [y[g] - np.median(y[g]) for g in groups if len(g) > 2]
    each = 1.4826 * float(np.median(np.abs(np.concatenate(spread)))) if spread else 0.0
    size = np.median([len(g) for g in groups])
    known = [train[g][np.isfinite(train[g])] for g in groups]
    return (
        np.array([step[g[0]] if len(g) == 1 else math.exp(z[g].mean()) for g in groups]),
        np.array([np.median(loss[g]) for g in groups]),
        np.array([np.median(t) if len(t) else np.nan for t in known]),
        each * 1.25 / math.sqrt(size) if size > 1 else each,
    )


def positive(name: str, number) -> float:
    try:
        number = float(number)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 1 / LARGEST < number < LARGEST:
        raise UserError(f"{name} must be a number above zero, and one that a training can have")
    return number


def slope(z: np.ndarray, y: np.ndarray) -> float:
    """Of the straight line through the points."""
    d = z - z.mean()
    return float(d @ y / (d @ d))


def _factor_before(z: np.ndarray, row: int) -> int:
    """The first row within a factor RECENT in steps before this one."""
    return int(np.searchsorted(z, z[row] - math.log(RECENT) - 1e-9))


# --- as E + A / S^alpha follows it ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stretch:
    """E + A / S^alpha, fitted to log losses y at log steps z, the last of a curve from step `start` on."""

    start: float
    z: np.ndarray
    y: np.ndarray
    fit: uncertainty.Curve

    @property
    def constants(self) -> tuple[float, float, float]:
        """E, log A, alpha."""
        return tuple(self.fit.form.report(self.fit.theta[None], self.fit.centre)[0].tolist())

    @cached_property
    def resampled(self) -> uncertainty.Curve:
        """The fit with what intervals need."""
        return _fitted(self.z, self.y, uncertainty.CURVE_RESAMPLES)

    def at(self, *steps: float) -> tuple[np.ndarray, np.ndarray]:
        """Losses after so many steps (n,) and their derivatives by theta (p, n)."""
        return _losses(self.fit.form, self.fit.theta, np.log(np.array(steps))[None] - self.fit.centre[:, None])

    def predict(self, steps: float) -> Prediction:
        loss, by_theta = self.at(steps)
        fit = self.resampled
        return _interval(loss[0], by_theta[:, 0], fit.covariance, fit.q_band * DRAWN, (loss[0] * fit.sigma) ** 2)

    def fall(self, first: float, second: float) -> Prediction:
        """Loss at one step less that at a later one."""
        loss, by_theta = self.at(first, second)
        return _interval(loss[0] - loss[1], by_theta[:, 0] - by_theta[:, 1], self.resampled.covariance, self.resampled.q_band * DRAWN)


def follow(curve: TrainingCurve, decayed: bool) -> tuple[Stretch | None, bool, bool]:
    """The last stretch that E + A / S^alpha follows, whether the curve gets steeper at its end, and whether that end was
    taken for the learning rate coming down and left out: a fall that ends a curve which had long been flattening."""
    if len(curve.step) < MIN_POINTS:
        return None, False, False
    stretch, bent = _stretch(curve), curve.steepens()
    if bent or decayed or stretch is None:
        for share in (0.8, 0.65, 0.5):
            before = curve.until(share * curve.step[-1])
            if len(before.step) < MIN_POINTS or before.step[-1] < FLAT * before.step[0] or before.steepens():
                continue
            if (earlier := _stretch(before)) is not None:
                return earlier, False, True
    return stretch, bent, False


def _stretch(curve: TrainingCurve) -> Stretch | None:
    """The longest stretch up to the end that E + A / S^alpha follows within MISFIT; None where there is none."""
    tolerance = max(MISFIT, 2 * curve.noise)
    spans, (least, most) = curve.z[-1] - curve.z, np.log(STRETCH)
    shortest = len(curve.z) - MIN_POINTS
    for i in range(shortest + 1):
        if spans[i] < least - 1e-9 or (spans[i] > most and i < shortest):
            continue
        z, y = curve.z[i:], curve.y[i:]
        fit = _fitted(z, y, 0)
        off = np.abs(fit.residuals)
        if np.isfinite(fit.objective) and 1.4826 * np.median(off) <= tolerance and off[-1] <= 2 * tolerance:
            return Stretch(float(curve.step[i]), z, y, fit)
    return None


def _fitted(z, y, resamples: int) -> uncertainty.Curve:
    centre = np.array([z.mean()])
    return uncertainty.fit_curve(forms.form("power-floor", "S"), z[None] - centre[:, None], y, np.ones(len(z), int), centre,
                                 delta=math.inf, resamples=resamples)


# --- as a law of its family has it ---------------------------------------------------------------------------------


class Along:
    """The law of a family, seen along one training of N parameters. UserError for a law without time among its inputs."""

    def __init__(self, law: Law, N: float, tokens_per_step: float | None, unique_tokens: float | None):
        if not getattr(law, "ok", False):
            raise UserError(f"this law cannot diagnose: {getattr(law, 'reason', 'it is not a law') or 'it is not a law'}")
        names = law.form.inputs
        if law.form.target != "L" or not set(names) <= {"N", "D", "S", "U"} or not set(names) & {"D", "S"}:
            raise UserError(f"a law of {' and '.join(names)} says nothing about a training in time: "
                            "give one whose inputs are among N, D, S and U, with D or S")
        if set(names) & {"D", "U"} and tokens_per_step is None:
            raise UserError("this law counts tokens: give tokens_per_step (batch size times context length)")
        self.law, self.form, self.names = law, law.form, names
        self.N, self.tokens, self.unique = N, tokens_per_step, unique_tokens
        curve = law.to_dict()["curve"]
        if curve is None:
            self.theta = law.form.internal({k: e.value for k, e in law.parameters.items()})
            self.centre, self.covariance = np.zeros(len(names)), None
        else:
            self.theta, self.centre, self.covariance = (np.array(curve[k], float) for k in ("theta", "centre", "covariance"))
            self.q_band, self.q_new, self.sigma = curve["q_band"], curve["q_new"], curve["sigma"]

    def inputs(self, steps, fresh: bool = False) -> dict[str, np.ndarray]:
        """What the law is asked for after so many steps. fresh: as if no token came twice."""
        steps = np.asarray(steps, float)
        values = {"N": np.full(steps.shape, self.N), "S": steps}
        if self.tokens is not None:
            values["D"] = values["U"] = seen = steps * self.tokens
            if self.unique is not None and not fresh:
                values["U"] = np.minimum(seen, self.unique)
                if "U" not in self.names:
                    values["D"] = formulas.effective_data(seen, self.unique, papers.value("muennighoff2023.R_star_D"))
        return {name: values[name] for name in self.names}

    def unlimited(self) -> dict[str, float]:
        """Without end to the steps, and to the tokens: the floor of this size."""
        return {name: self.N if name == "N" else UNLIMITED for name in self.names}

    def at(self, inputs: dict) -> tuple[np.ndarray, np.ndarray]:
        """Loss (n,) and its derivatives by theta (p, n)."""
        z = np.log(np.stack([np.atleast_1d(inputs[name]) for name in self.names]))
        return _losses(self.form, self.theta, z - self.centre[:, None])

    def loss(self, inputs: dict) -> float:
        return float(self.at(inputs)[0][0])

    def log_loss(self, steps) -> np.ndarray:
        """At each of these steps, of fresh tokens."""
        return np.log(self.at(self.inputs(steps, fresh=True))[0])

    def predict(self, steps: float) -> Prediction:
        return self.law.predict(**{name: float(v) for name, v in self.inputs(steps).items()})

    def fall(self, first: float, second: float | None = None) -> Prediction:
        """Loss at one step less that at another, or the floor: what is common to both does not widen the interval."""
        (a, da), (b, db) = self.at(self.inputs(first)), self.at(self.unlimited() if second is None else self.inputs(second))
        if self.covariance is None:
            return Prediction(float(a[0] - b[0]), None, None)
        return _interval(a[0] - b[0], (da - db)[:, 0], self.covariance, WIDER * self.q_band)

    def size_against_steps(self, steps: float) -> float | None:
        """What doubling N buys, over what doubling the steps does; None for a law of one size."""
        if "N" not in self.names:
            return None
        now, later = self.inputs(steps, fresh=True), self.inputs(2 * steps, fresh=True)
        loss = self.loss(now)
        more = loss - self.loss(later)
        return (loss - self.loss({**now, "N": 2 * self.N})) / more if more > 0 else math.inf

    def half_width(self, steps: float) -> float:
        """Of log loss, for a new training; OFF where the law gives none, or less."""
        if self.covariance is None:
            return OFF
        loss, by_theta = self.at(self.inputs(steps, fresh=True))
        by_theta = by_theta[:, 0] / loss[0]
        return max(OFF, self.q_new * math.sqrt(float(by_theta @ self.covariance @ by_theta) + self.sigma**2))

    def outside(self, steps: float) -> list[str]:
        """Which of the size and the time so far lie outside of the runs behind the law."""
        now, ranges = self.inputs(steps, fresh=True), self.law.ranges
        return [f"{name} = {short(float(now[name]))} (runs: {short(ranges[name][0])} to {short(ranges[name][1])})" for name in self.names
                if name != "U" and name in ranges and not ranges[name][0] * (1 - 1e-9) <= float(now[name]) <= ranges[name][1] * (1 + 1e-9)]

    def first_run(self) -> str:
        """Where the law's runs begin in time."""
        name = next((name for name in ("D", "S") if name in self.names and name in self.law.ranges), None)
        return "" if name is None else f"{name} = {short(self.law.ranges[name][0])}"

    def earlier_than_fitted(self, steps: float) -> bool:
        now, ranges = self.inputs(steps, fresh=True), self.law.ranges
        return any(float(now[name]) < ranges[name][0] * (1 - 1e-9) for name in self.names if name != "N" and name in ranges)

    def reaches(self, target: float) -> float | None:
        """Steps at which fresh data would bring the loss down to `target`, None where they never do, or so long before the
        law's first run that it cannot say."""
        z = np.linspace(0, 60, 6001)
        y = self.log_loss(np.exp(z)) - math.log(target)
        if not (y <= 0).any():
            return None
        i = int(np.argmax(y <= 0))
        steps = math.exp(z[i] - (0.01 * y[i] / (y[i] - y[i - 1]) if i else 0.0))
        first = self.law.ranges.get("S", (0.0,))[0] if "S" in self.names else self.law.ranges.get("D", (0.0,))[0] / self.tokens
        return steps if steps >= first / 2 else None


def _losses(form: forms.Form, theta: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loss (n,) at centred log inputs (k, n), and its derivatives by theta (p, n)."""
    value, by_theta = form.evaluate(theta[None], z)
    loss = np.exp(np.minimum(value[0], 700.0))
    return loss, loss * by_theta[0]


def _interval(value: float, by_theta: np.ndarray, covariance: np.ndarray, q: float, scatter: float = 0.0) -> Prediction:
    half = q * math.sqrt(max(float(by_theta @ covariance @ by_theta) + scatter, 0.0))
    return Prediction(float(value), float(value - half), float(value + half))
