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

How a curve is read, followed and compared with a law is in curves.py. The constants here and there were chosen on the
kit's own trainings; `benchmarks/diagnose.py` measures how often the stage is right and how often the intervals hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minitransformer.errors import UserError
from minitransformer.laws import formulas
from minitransformer.laws.curves import BIN, FLAT, MIN_POINTS, OFF, RECENT, UNLIMITED, Along, TrainingCurve, follow, positive, read_curve, slope
from minitransformer.laws.law import Law, Prediction, finite, short
from minitransformer.papers import value

STAGES = ("too short to tell", "diverging", "limited by data", "warming up", "near the floor of its size", "on the power law")
TOO_SHORT, DIVERGING, DATA, WARMING, FLOOR, POWER = STAGES

GAP = 0.04         # growth of log(validation / training) that means limited by data; in the kit's single-epoch runs it stays below 0.003
UNDECAYED = 0.12   # how far above a law of decayed runs the loss may be before the decay: measured up to 0.10
CROSSED = 2.0      # doubling the size buys this many times what doubling the steps does: near the floor


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
    notes: tuple[str, ...] = ()

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
        plain = {k: finite(v) if isinstance(v, float) else v for k, v in vars(self).items()}
        for name in ("expected_end", "next_doubling", "left"):
            plain[name] = plain[name] and dict(vars(plain[name]))
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
    N = positive("N", N)
    asked = {"tokens_per_step": tokens_per_step, "unique_tokens": unique_tokens, "planned_steps": planned_steps}
    tokens_per_step, unique_tokens, planned_steps = (None if v is None else positive(name, v) for name, v in asked.items())
    curve = read_curve(step, loss, train_loss)
    along = None if law is None else Along(law, N, tokens_per_step, unique_tokens)
    if planned_steps is not None and planned_steps < curve.now * (1 - 1e-9):
        raise UserError(f"planned_steps = {short(planned_steps)} lies before the last step of the curve, {short(curve.now)}")
    epochs = None if unique_tokens is None or tokens_per_step is None else curve.now * tokens_per_step / unique_tokens

    too_short = _too_short(curve)
    facts = _Facts(curve, None if too_short[0] else along, decayed, epochs)
    checks = (_diverging, _limited, _warming, _near_floor, _on_law)
    found = [too_short, *((False, "the curve is too short") if too_short[0] else check(facts) for check in checks)]
    stages = tuple(Evidence(stage, *evidence) for stage, evidence in zip(STAGES, found))
    stage = next(e.stage for e in stages if e.holds)

    end, doubling, left = _expectations(stage, facts, planned_steps)
    E, _, alpha = facts.stretch.constants if facts.stretch else (None, None, None)
    return Diagnosis(
        stage=stage, stages=stages, step=curve.now, loss=float(curve.loss[-1]) if len(curve.loss) else None, N=N,
        advice=_advice(stage, facts, doubling, planned_steps), expected_end=end, next_doubling=doubling, left=left,
        stop_bound=_stop_bound(facts), planned_steps=planned_steps, above_law=facts.above, slope=facts.slope, law_slope=facts.law_slope,
        epochs=epochs, joined=facts.stretch.start if facts.stretch else None, floor=E, exponent=alpha, notes=tuple(_notes(stage, facts)),
    )


class _Facts:
    """What the curve shows, by itself and beside the law if there is one. law_says: follows, joining (outside of what the
    law allows, and closing in), above, below, or nothing."""

    def __init__(self, curve: TrainingCurve, law: Along | None, decayed: bool, epochs: float | None):
        self.curve, self.law, self.decayed, self.epochs = curve, law, decayed, epochs
        self.slope = self.law_slope = self.above = None
        self.law_says = ""
        self.stretch, self.bent, self.dropped = follow(curve, decayed)
        if len(curve.step) < 3:
            return
        now = curve.recent()
        self.slope = slope(curve.z[now:], curve.y[now:])
        if law is not None:
            expected = law.log_loss(curve.step[now:])
            self.law_slope = slope(curve.z[now:], expected)
            self.above = float(curve.y[-1] - expected[-1])
            self.law_says = self._against_law()

    def _against_law(self) -> str:
        step, above = self.curve.step[-1], self.above
        half = self.law.half_width(step)
        low, high = -half, half + (0.0 if self.decayed else UNDECAYED)
        if low <= above <= high:
            return "follows"
        flatter = self.slope - self.law_slope
        soon = above + flatter * math.log(4)
        toward, meets = (flatter > 0, soon >= low) if above < low else (flatter < 0, soon <= high)
        if toward and (meets or self.law.earlier_than_fitted(step)):
            return "joining"
        return "below" if above < low else "above"

    @property
    def by_law(self) -> bool:
        return self.law_says in ("follows", "joining")

    @property
    def before_first_run(self) -> bool:
        """Whether the law is followed at a time earlier than it was fitted to."""
        return self.law_says == "follows" and self.law.earlier_than_fitted(self.curve.step[-1])

    @property
    def overfits(self) -> bool:
        """Whether the loss rises while the training data go on being learnt, or after many epochs where that is not known."""
        if self.curve.lost or len(self.curve.y) < MIN_POINTS or not self.curve.rises[-2:].all():
            return False
        if self.curve.train_falls is None:
            return self.epochs is not None and self.epochs >= value("muennighoff2023.epochs_like_new")
        return self.curve.train_falls

    def beside(self, law: str = "the law") -> str:
        return f"the loss is {abs(math.expm1(self.above)):.1%} {'above' if self.above >= 0 else 'below'} {law}"


# --- the stages, in the order in which they are decided: whether each holds, and why -------------------------------------


def _too_short(curve: TrainingCurve) -> tuple[bool, str]:
    n = len(curve.step)
    if n >= MIN_POINTS or curve.lost:
        return False, f"{n} points at distinct steps"
    return True, f"{MIN_POINTS} losses are needed, at steps that are a factor of {BIN} apart or more, and there are {n}" + (
        f" after merging those close together ({curve.measured} were measured)" if curve.measured > n else "")


def _diverging(facts: _Facts) -> tuple[bool, str]:
    curve = facts.curve
    if curve.lost:
        return True, "the loss is no longer a number"
    if not curve.rises[-2:].all():
        return False, "the last point is up, but one point may be a spike" if curve.rises[-1] else "the loss is not rising"
    up = f"the loss is {math.expm1(curve.y[-1] - curve.y.min()):.1%} above its lowest, at step {short(curve.step[curve.lowest])}"
    if facts.overfits:
        return False, f"{up}, while the training loss falls" if curve.train_falls else f"{up}, after {facts.epochs:.3g} epochs"
    return True, up + (", and so is the training loss" if curve.train_falls is False else "")


def _limited(facts: _Facts) -> tuple[bool, str]:
    curve, epochs, knee = facts.curve, facts.epochs, value("muennighoff2023.epochs_knee")
    if facts.overfits:
        return True, f"the validation loss has risen since step {short(curve.step[curve.lowest])} while the training data went on being learnt"
    known = np.isfinite(curve.train)
    first_epoch = epochs is not None and epochs <= 1
    if known.sum() >= 4 and not first_epoch:
        gap = curve.y[known] - np.log(curve.train[known])
        grown = float(gap[-1] - np.median(gap[: max(2, len(gap) // 2)]))
        if grown > GAP and gap[-1] > GAP / 2:
            return True, f"the validation loss is {math.expm1(gap[-1]):.1%} above the training loss, and the gap grows"
        return False, "validation and training loss keep together"
    if epochs is None:
        return False, "not known: give the training loss, or unique_tokens and tokens_per_step"
    if epochs >= knee:
        return True, f"every token has been seen {epochs:.3g} times, and beyond {knee:.0f} repeats teach little"
    return False, "no token has been seen twice" if first_epoch else "nothing says so"


def _warming(facts: _Facts) -> tuple[bool, str]:
    if facts.law_says == "follows":
        return False, f"{facts.beside()} at this point"
    if facts.law_says == "joining":
        return True, f"{facts.beside()} at this point and closing in (slope {facts.slope:.3f}, the law's {facts.law_slope:.3f})"
    if facts.bent:
        return True, f"the loss falls faster and faster (slope {facts.slope:.3f} now), where a power law flattens"
    if facts.stretch is None:
        return True, "no stretch up to now follows a power law with a floor"
    return False, f"the loss flattens as a power law does, since step {short(facts.stretch.start)}"


def _near_floor(facts: _Facts) -> tuple[bool, str]:
    near = value("kaplan2020.efficient.above_converged") / CROSSED
    curve, law, stretch = facts.curve, facts.law, facts.stretch
    if facts.by_law and (ratio := law.size_against_steps(curve.step[-1])) is not None:
        return ratio >= CROSSED, f"twice the size would buy {ratio:.2g} times what twice the steps does"
    if facts.by_law:
        loss = math.exp(law.log_loss(curve.now)[0])
        floor = loss - law.fall(curve.now).value
    elif stretch is None:
        return False, "no floor can be seen"
    elif curve.step[-1] < FLAT * stretch.start:
        return False, f"a floor shows in a curve that has flattened over a factor of {FLAT:.0f} in steps, which this one has not"
    else:
        now = stretch.z > stretch.z[-1] - math.log(RECENT) - 1e-9
        falls = slope(stretch.z[now], stretch.y[now]) if now.sum() > 1 else facts.slope
        if falls < -near:
            return False, f"the loss still falls as steps^{falls:.3f}"
        floor, loss = stretch.constants[0], stretch.at(curve.step[-1])[0][0]
    if not floor > 1e-6 * loss:
        return False, "no floor can be seen"
    return bool(loss / floor - 1 <= near), f"the loss is {loss / floor - 1:.1%} above the floor that its curve points to"


def _on_law(facts: _Facts) -> tuple[bool, str]:
    if facts.law_says == "follows":
        return True, f"{facts.beside()} at this point, falling as steps^{facts.slope:.3f} (the law: {facts.law_slope:.3f})"
    if facts.stretch is not None:
        return True, f"the loss follows E + A / S^alpha since step {short(facts.stretch.start)}, falling as steps^{facts.slope:.3f} now"
    return True, "nothing says otherwise" if facts.slope is None else f"the loss goes on falling, as steps^{facts.slope:.3f} now"


# --- what follows: expectations, the bound, notes and advice -------------------------------------------------------------


def _expectations(stage: str, facts: _Facts, planned: float | None) -> tuple[Expectation | None, ...]:
    """Of the loss at `planned` steps, of what the next doubling of steps takes off, and of what is left to take off."""
    law, stretch, now = facts.law, facts.stretch, facts.curve.now
    if stage == DIVERGING or facts.overfits:
        return None, None, None
    if facts.by_law:
        end = None if planned is None else law.predict(planned)
        return _expected(end, "law"), _expected(law.fall(now, 2 * now), "law"), _expected(law.fall(now), "law")
    if stage == WARMING or stretch is None:
        return None, None, None
    end = None if planned is None or planned <= now else stretch.predict(planned)
    came_down = facts.decayed or facts.dropped
    warning = "drawn on " + ("from before the learning rate came down" if came_down else "at the learning rate so far: a decay will take off more")
    left, loss = stretch.fall(now, UNLIMITED), float(facts.curve.loss[-1])
    # no more can be left than the loss, and no less than nothing; where no more than that is known, nothing is said
    left = None if left.low <= 0 and left.high >= loss else Prediction(min(left.value, loss), max(left.low, 0.0), min(left.high, loss))
    return _expected(end, "curve", warning), _expected(stretch.fall(now, 2 * now), "curve"), _expected(left, "curve")


def _expected(found: Prediction | None, source: str, warning: str = "") -> Expectation | None:
    """None in place of numbers that are not finite."""
    if found is None or not math.isfinite(found.value):
        return None
    known = found.low is not None and math.isfinite(found.low) and math.isfinite(found.high)
    return Expectation(found.value, *((found.low, found.high) if known else (None, None)), source, warning or found.warning)


def _stop_bound(facts: _Facts) -> float | None:
    """Eq. 5.7, with the learning curve of the law (or of the run) and the loss that the data allow."""
    law = facts.law
    if law is None or law.unique is None:
        return None
    floor, of_all_data = law.loss(law.unlimited()), law.form.name == "kaplan-nd"
    if of_all_data or "U" in law.names:
        allowed = law.loss({**law.unlimited(), "D" if of_all_data else "U": law.unique})
    else:
        allowed = float(facts.curve.loss.min()) if facts.overfits else floor
    if not allowed > floor:
        return None
    if not of_all_data:
        return law.reaches(allowed)
    if facts.stretch is None:  # the D of that law are the tokens there are, so the learning curve is the run's own
        return None
    _, log_A, alpha = facts.stretch.constants
    with np.errstate(over="ignore"):
        return finite(float(formulas.stop_bound(allowed - floor, alpha, np.exp(log_A / alpha))))


def _notes(stage: str, facts: _Facts) -> list[str]:
    notes = []
    if facts.law is None and stage not in (TOO_SHORT, DIVERGING, DATA):
        notes.append("one curve alone cannot tell a plateau, after which something new is learnt, from warming up or from a floor: "
                     "a law of smaller sizes can")
    if facts.law_says and (outside := facts.law.outside(facts.curve.now)):
        notes.append(f"outside the runs behind the law: {', '.join(outside)}; what the law says of this training is extrapolated")
    if stage == POWER and facts.before_first_run:
        notes.append(f"this early, before {facts.law.first_run()}, no run holds the law up: the loss agrees with it, which may be chance")
    if facts.law_says in ("above", "below"):
        more = "" if facts.above < 0 or facts.decayed else ", more than a learning rate that has yet to come down explains"
        notes.append(f"the law does not describe this training: {facts.beside('it')} at this point{more}")
    if facts.law_says == "follows" and not facts.decayed and facts.above > OFF:
        notes.append(f"{facts.beside()}, as it is before the learning rate comes down")
    if facts.dropped and facts.decayed:
        notes.append("the end, after the learning rate had come down, is another curve: the one before it was followed")
    elif facts.dropped:
        notes.append("the fall at the end looks like the learning rate coming down; the curve before it was followed")
    return notes


def _advice(stage: str, facts: _Facts, doubling: Expectation | None, planned: float | None) -> str:
    curve = facts.curve
    buys = "" if doubling is None else f": twice the steps buy {max(doubling.value, 0):.2g} nats"
    if stage == TOO_SHORT:
        return "Go on, and measure the loss at more steps."
    if curve.lost:
        return ("Stop: go back to weights from before the loss was lost, with a lower learning rate, a longer warm-up or clipped gradients; "
                "if it is lost again at the same step, look at its batch.")
    if stage == DIVERGING:
        return ("Stop, and start again from before the rise with a lower learning rate or a longer warm-up"
                + ("." if np.isfinite(curve.train).any() else "; if the training loss still falls, it is overfitting instead."))
    if facts.overfits:
        return f"Stop: keep the weights of about step {short(curve.step[curve.lowest])}, and get more data or a smaller model."
    if stage == DATA:
        return "Watch for the validation loss to turn, and get more data: more steps over the same tokens buy ever less."
    if stage == WARMING:
        return "Go on: it is too early to judge this training by its loss."
    if facts.law_says == "above":
        return f"Compare the learning rate, batch and data with the law's runs before going on{buys}."
    if stage == FLOOR:
        unsure = "" if facts.law is not None else " (or this is a plateau before something new is learnt, which one curve cannot tell)"
        return f"Let the learning rate come down and stop; spend further compute on a larger model{unsure}{buys}."
    if planned is not None and curve.now >= planned * (1 - 1e-9):
        return f"The plan is done; a longer training would still gain{buys}."
    if facts.before_first_run:
        return f"Go on, and ask again after {facts.law.first_run()}, where the runs behind the law begin{buys}."
    return f"Go on{buys}."
