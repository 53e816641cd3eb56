"""A fitted law: what it knows, how well, and what it cannot know."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Iterator, NamedTuple

import numpy as np

from minitransformer.errors import UserError
from minitransformer.laws.forms import Form
from minitransformer.laws.uncertainty import Curve, Line

REFUSALS = {
    "no_runs": "there are no runs to fit: give at least {need} distinct {points}",
    "not_numbers": "{x} and loss must be columns of numbers: drop or mend the rows that are not",
    "lengths_differ": "{x}, loss and seed must have one entry per run: their lengths differ",
    "x_not_finite": "{x} is missing or infinite in some runs: leave those runs out",
    "x_not_positive": "{x} must be above zero to lie on a log axis: leave the other runs out",
    "loss_not_finite": "the loss is missing or infinite in some runs: leave diverged and failed runs out",
    "loss_not_positive": "the loss must be above zero to lie on a log axis: leave the other runs out",
    "too_few_points": "{title}: at least {need} distinct {points} are needed, two more than it has parameters: train more",
    "range_too_narrow": "the {x} are all but equal: spread them over at least a decade",
    "one_ratio": "{x} move together in every run (one ratio, or one rule for all): their exponents cannot be told apart; "
                 "vary one while the other stays",
    "no_repeats": "no run saw its data often enough for the worth of a repeat to be measured: add runs of many epochs",
    "not_converged": "the search for the best fit did not end: look for runs that do not belong",
    "exponent_at_bound": "an exponent ran to the edge of what is searched: the loss does not fall with every one of {x}, "
                         "or falls in a way that this law cannot follow",
    "not_identified": "many sets of parameters fit equally well: this table cannot tell them apart; "
                      "widen the ranges or choose a form with fewer parameters",
    "mixed_tokenizers": "the runs were made with several tokenizers ({mixed}), whose losses cannot be compared: keep the runs of one",
    "mixed_corpora": "the runs were made on several texts ({mixed}), whose losses cannot be compared: keep the runs of one",
    "mixed_inputs": "{mixed} among runs of one {x}: choose one with --where, or fit a law of both",
}
WARNINGS = {
    "range_under_a_decade": "less than a factor of ten lies between the smallest and the largest {any}, so the exponent may be local",
    "few_points": "{need} distinct {points}, the fewest that can be fitted: none can be held out",
    "one_seed": "every point was trained once: the interval rests on the scatter about the law alone",
    "same_run_twice": "some runs have the same {x} and the same seed: they were counted as separate seeds",
    "lack_of_fit": "the points lie further from the law than their seeds explain: the law bends or the runs differ in more than {x}; "
                   "intervals take such misfit for chance, so they may be too narrow",
    "exponent_may_be_zero": "the interval of the exponent holds zero, so {x}_c is not identified",
    "loss_rises": "the loss rises with {x}: look for diverged, under-trained or overfitted runs",
    "scale_out_of_range": "{x}_c is too large or too small for a floating-point number and is left out",
    "no_floor_seen": "the best fit has no floor: E is zero as far as these runs can tell, and only its upper limit means anything",
    "floor_not_reached": "less than half of the lowest loss is floor: E is an extrapolation, and the exponent leans on it",
    "not_all_identified": "what is marked as not identified cannot be told from this table; the rest can",
    "few_groups": "fewer than eight trainings: points of one curve are not independent, so the intervals are rough",
}


class Points(NamedTuple):
    """Inputs by name, arrays of equal length, and the loss."""

    inputs: dict[str, np.ndarray]
    loss: np.ndarray

    @property
    def x(self) -> np.ndarray:
        return next(iter(self.inputs.values()))


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; all three are None where the data do not identify it."""

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.value is None:
            return "not identified"
        if self.low is None:
            return f"{short(self.value)} (no interval published)"
        return f"{short(self.value)} (95 % interval {short(self.low)} to {short(self.high)})"


@dataclass(frozen=True)
class Prediction:
    """Loss expected of one newly trained run, with its 95 % interval; unpacks to value, low, high.

    Scalars for scalar inputs, arrays of the same shape for arrays; low and high are None where a published law gives
    none. `warning` is empty inside the fitted range.
    """

    value: Any
    low: Any
    high: Any
    warning: str = ""

    def __iter__(self) -> Iterator:
        return iter((self.value, self.low, self.high))


@dataclass(frozen=True)
class HoldOut:
    """The dearest run predicted by a fit to the smaller ones: the largest x, or the dearest fifth of a grid.

    at: its inputs. Errors are predicted against measured. `equivalent` is how many times as much compute, spent in the
    same proportions, the law would need to reach the measured loss (0.9: the model did as well as nine tenths of its
    compute should); None where the fit cannot say. n_held, rms_percent: how many points were held out, and their error.
    """

    at: dict[str, float]
    predicted: float
    low: float
    high: float
    measured: float
    error_nats: float
    error_percent: float
    equivalent: float | None
    exponent: float | None
    n_held: int
    rms_percent: float

    @property
    def x(self) -> float:
        return next(iter(self.at.values()))

    @property
    def inside(self) -> bool:
        return self.low <= self.measured <= self.high


@dataclass(frozen=True, eq=False)
class Law:
    """A fitted form, or the reason why there is none (`ok` is False: no numbers at all).

    status: "ok" (converged), "at_bound" (the best floor is zero), "published" (constants of a paper), or a refusal.
    runs, excluded: every run fitted, and those left out by `within`. parameters: by name. engine: what was fitted.
    notes: what was done to the table before, one sentence each.
    """

    form: Form
    status: str
    reason: str = ""
    warnings: tuple[str, ...] = ()
    runs: Points = field(default_factory=lambda: Points({"x": np.zeros(0)}, np.zeros(0)))
    excluded: Points = field(default_factory=lambda: Points({"x": np.zeros(0)}, np.zeros(0)))
    parameters: dict[str, Estimate] = field(default_factory=dict)
    holdout: HoldOut | None = None
    engine: Line | Curve | None = None
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    name: str = ""
    condition: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status in ("ok", "at_bound", "published")

    @property
    def line(self) -> Line | None:
        return self.engine if isinstance(self.engine, Line) else None

    @property
    def n_runs(self) -> int:
        return len(self.runs.loss)

    @property
    def n_points(self) -> int:
        return len(self.means.loss)

    @property
    def means(self) -> Points:
        """Distinct inputs and the geometric mean of the loss over their seeds."""
        if self.line:
            return Points({self.form.x: np.exp(self.line.z)}, np.exp(self.line.means))
        if self.engine is not None and self.engine.groups is not None:
            return self.runs
        return means_of(self.runs)[0]

    @property
    def range(self) -> tuple[float, float] | None:
        """Of the first input; `ranges` has them all."""
        return self.ranges.get(self.form.x)

    @property
    def exponent(self) -> Estimate:
        """alpha of the first input: positive where the loss falls with it."""
        self._require()
        return self.parameters[self.form.alpha]

    @property
    def residuals(self) -> np.ndarray:
        """Log loss of each mean minus the law's: 0.01 is one per cent."""
        self._require()
        if self.engine is None:
            raise UserError("a published law has no residuals: it was not fitted here")
        return self.engine.residuals

    @property
    def objective(self) -> float | None:
        """The minimised sum: of squares for a power law, of Huber losses for the other forms."""
        if self.engine is None:
            return None
        return float(self.residuals @ self.residuals) if self.line else self.engine.objective

    @property
    def rms_percent(self) -> float:
        """Root mean square of the residuals, in per cent of the loss."""
        return 100 * math.sqrt(np.mean(self.residuals**2))

    def predict(self, *x, **inputs) -> Prediction:
        """What one newly trained run should measure: the interval covers its own seed and misfit too.

        predict(N=1e6, D=2e7), or predict(1e6) where the law has one input; numbers or arrays.
        """
        return self._predict(x, inputs, new=1.0 if self.engine is None else self.engine.one_run)

    def band(self, *x, **inputs) -> Prediction:
        """Where the law itself runs: narrower than `predict`, as no new measurement is involved."""
        return self._predict(x, inputs, new=0.0)

    def _predict(self, x, inputs, new: float) -> Prediction:
        self._require()
        names = self.form.inputs
        if x and not inputs and len(x) == len(names):
            inputs = dict(zip(names, x))
        if set(inputs) != set(names) or (x and len(x) != len(names)):
            raise UserError(f"this law predicts from {' and '.join(names)}: give them all and nothing else")
        try:
            arrays = np.broadcast_arrays(*(np.asarray(inputs[name], float) for name in names))
        except (TypeError, ValueError):
            shown = ", ".join(f"{name} = {inputs[name]!r}" for name in names)
            raise UserError(f"cannot predict at {shown}: {' and '.join(names)} must be a number above zero") from None
        if not all((np.isfinite(a) & (a > 0)).all() for a in arrays):
            raise UserError(f"cannot predict there: {' and '.join(names)} must be finite and above zero")
        shape = arrays[0].shape
        z = np.log(np.stack([a.ravel() for a in arrays]))
        half = None
        if self.line:
            middle, half = self.line.at(z[0]), self.line.half_width(1, z[0] - self.line.centre, new)
        elif self.engine is not None:
            z = z - self.engine.centre[:, None]
            middle, half = self.engine.at(z), self.engine.half_width(z, new)
        else:
            values = {name: e.value for name, e in self.parameters.items()}
            middle = self.form.evaluate(self.form.internal(values)[None], z)[0][0]

        def shaped(log):
            with np.errstate(over="ignore"):
                loss = np.exp(log).reshape(shape)
            return loss if shape else float(loss)

        outside = [
            f"outside the fitted range of {name} ({short(self.ranges[name][0])} to {short(self.ranges[name][1])}): "
            "the law may not hold there"
            for name, a in zip(names, arrays)
            if name in self.ranges and a.size and (a.min() < self.ranges[name][0] * (1 - 1e-9) or a.max() > self.ranges[name][1] * (1 + 1e-9))
        ]
        low, high = (None, None) if half is None else (shaped(middle - half), shaped(middle + half))
        return Prediction(shaped(middle), low, high, "; ".join(outside))

    def summary(self) -> str:
        """The fit in plain words, one sentence a line."""
        if not self.ok:
            return f"No law fitted: {self.reason}."
        if self.line:
            alpha = self.exponent
            found = "not identified" if alpha.value is None else f"{alpha.value:.4f} (95 % interval {alpha.low:.4f} to {alpha.high:.4f})"
            lines = [f"{self.form.equation} with {self.form.alpha} {'=' if alpha.value is not None else 'is'} {found}."]
        else:
            lines = [f"{self.form.equation}", *(f"  {name} = {estimate}" for name, estimate in self.parameters.items())]
        if self.engine is not None and self.n_runs:
            spans = " and of ".join(f"{x} from {short(low)} to {short(high)}" for x, (low, high) in self.ranges.items())
            what = "seed means lie" if self.line else "they lie"
            points = "values" if len(self.form.inputs) == 1 else "places"
            lines.append(f"Fitted to {self.n_runs} runs at {self.n_points} {points} of {spans}; {what} {self.rms_percent:.2g} % (rms) from the "
                         f"{'line' if self.line else 'law'}.")
        if len(self.excluded.loss):
            lines.append(f"{len(self.excluded.loss)} runs outside that range were left out.")
        if self.holdout:
            h = self.holdout
            at = " and ".join(f"{name} = {short(value)}" for name, value in h.at.items())
            some = "" if h.n_held == 1 else f" and the {h.n_held - 1} dearest after it"
            of_loss = self.form.target == "L"
            compute = "" if h.equivalent is None or not of_loss else f", as if trained with {h.equivalent:.2g} times its compute"
            lines.append(
                f"Fitted without {at}{some}, it predicts {h.predicted:.4g} there ({h.low:.4g} to {h.high:.4g}); "
                f"measured {h.measured:.4g}{compute}: off by {f'{h.error_nats:+.2g} nats, ' if of_loss else ''}{h.error_percent:+.2g} %."
            )
        return "\n".join(lines + [f"Note: {note}." for note in self.notes] + [f"Warning: {text}." for text in self.warning_texts()])

    def warning_texts(self) -> list[str]:
        return [WARNINGS[w].format(**words_for(self.form)) for w in self.warnings]

    def to_dict(self) -> dict[str, Any]:
        """The fit with stable keys and plain numbers, ready for JSON; None where there is no number.

        `curve` holds what predictions are made of (`runs` for a straight line); laws.read_law makes a law of it again.
        """
        h = self.holdout
        return {
            "law": self.form.name,
            "x": self.form.x,
            "equation": self.form.equation,
            "status": self.status,
            "reason": self.reason,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "n_points": self.n_points,
            "n_runs": self.n_runs,
            "n_excluded": len(self.excluded.loss),
            "objective": finite(self.objective),
            "condition": finite(self.condition),
            "parameters": {
                k: {"value": finite(v.value), "low": finite(v.low), "high": finite(v.high)} for k, v in self.parameters.items()
            },
            "range": {k: list(v) for k, v in self.ranges.items()} or None,
            "holdout": {k: v if isinstance(v, dict) else finite(v) for k, v in vars(h).items()} if h else None,
            "curve": _curve_dict(self) if self.ok and self.engine is not None else None,
            "runs": {**{k: v.tolist() for k, v in self.runs.inputs.items()}, "loss": self.runs.loss.tolist()} if self.line else None,
        }

    def _require(self) -> None:
        if not self.ok:
            raise UserError(f"no law was fitted: {self.reason}")


def means_of(runs: Points) -> tuple[Points, np.ndarray, float]:
    """Distinct inputs with the mean log loss of their seeds, how many each has, and the variance seeds give a mean."""
    z = np.stack(list(runs.inputs.values()))
    order = np.lexsort((runs.loss, *z[::-1]))  # so that the order of the rows decides no rounding
    z, runs = z[:, order], Points(runs.inputs, runs.loss[order])
    distinct, index, counts = np.unique(z, axis=1, return_inverse=True, return_counts=True)
    index = index.ravel()
    y = np.log(runs.loss)
    means = np.bincount(index, y) / counts
    n, k = len(y), len(counts)
    off = y - means[index]
    seeds = float(off @ off) / (n - k) * float(np.mean(1 / counts)) if n > k else 0.0
    return Points(dict(zip(runs.inputs, distinct)), np.exp(means)), counts, seeds


def words_for(form: Form) -> dict[str, Any]:
    """What refusals and warnings are filled in with."""
    names = form.inputs
    points = names[0] if len(names) == 1 else f"({', '.join(names)}) points"
    return {"x": " and ".join(names), "any": " or ".join(names), "points": points, "need": points_needed(form), "title": form.title}


def points_needed(form: Form) -> int:
    return len(form.theta) + 2


def _curve_dict(law: Law) -> dict[str, Any]:
    """theta, covariance and critical values: loss = exp(at(theta) -+ q * sqrt(g' covariance g + new * sigma^2))."""
    if law.line:
        line, top = law.line, law.line.z[-1] - law.line.centre
        return {
            "theta": [line.intercept, -line.slope],
            "centre": [line.centre],
            "covariance": [[line.variance / len(line.z), 0.0], [0.0, line.variance / line.sxx]],
            "sigma": math.sqrt(line.variance) * line.one_run,
            "q_band": float(line.critical(1, top)),
            "q_new": float(line.critical(1, top, line.one_run)),
        }
    c = law.engine
    return {"theta": c.theta.tolist(), "centre": c.centre.tolist(), "covariance": c.covariance.tolist(), "sigma": c.sigma * c.one_run,
            "q_band": c.q_band, "q_new": c.q_new}


def finite(value):
    return value if value is not None and math.isfinite(value) else None


def short(value: float) -> str:
    """1500 -> 1.5k, 98600 -> 98.6k, 2.5e6 -> 2.5M, 1.4e12 -> 1.4T, 1.5678 -> 1.57; powers of ten beyond 1e15."""
    if value and not 1e-3 <= abs(value) < 0.9995e15:
        return f"{value:.2e}"
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"
