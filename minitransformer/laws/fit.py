"""Fitting a form to a table of runs. The result says what it knows, how well, and what it cannot know."""

import math
from dataclasses import dataclass, field
from typing import Any, Iterator, NamedTuple

import numpy as np
from scipy.stats import f as f_distribution

from minitransformer.errors import UserError
from minitransformer.laws.forms import Form, power_law
from minitransformer.laws.uncertainty import Line, fit_line

REFUSALS = {
    "no_runs": "there are no runs to fit: give at least four distinct {x}",
    "not_numbers": "{x} and loss must be two columns of numbers: drop or mend the rows that are not",
    "lengths_differ": "{x}, loss and seed must have one entry per run: their lengths differ",
    "x_not_finite": "{x} is missing or infinite in some runs: leave those runs out",
    "x_not_positive": "{x} must be above zero to lie on a log axis: leave the other runs out",
    "loss_not_finite": "the loss is missing or infinite in some runs: leave diverged and failed runs out",
    "loss_not_positive": "the loss must be above zero to lie on a log axis: leave the other runs out",
    "too_few_points": "a power law and its interval need at least four distinct {x}: train more sizes",
    "range_too_narrow": "the {x} are all but equal: spread them over at least a decade",
}
WARNINGS = {
    "range_under_a_decade": "{x} spans less than a factor of ten, so the exponent may be local",
    "few_points": "four distinct {x}, the fewest that can be fitted: none can be held out",
    "one_seed": "every size was trained once: the interval rests on the scatter about the line alone",
    "same_run_twice": "some runs have the same {x} and the same seed: they were counted as separate seeds",
    "lack_of_fit": "the sizes lie further from the line than their seeds explain: the law bends or the runs differ in more than {x}",
    "exponent_may_be_zero": "the interval of the exponent holds zero, so {x}_c is not identified",
    "loss_rises": "the loss rises with {x}: look for diverged, under-trained or overfitted runs",
    "scale_out_of_range": "{x}_c is too large or too small for a floating-point number and is left out",
}
LACK_OF_FIT_P = 0.01


class Points(NamedTuple):
    x: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; all three are None where the data do not identify it."""

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.value is None:
            return "not identified"
        return f"{short(self.value)} (95 % interval {short(self.low)} to {short(self.high)})"


@dataclass(frozen=True)
class Prediction:
    """Loss expected at x for the mean of a new size's seeds, with its 95 % interval; unpacks to value, low, high.

    Scalars for a scalar x, arrays of the same shape for an array. `warning` is empty inside the fitted range.
    """

    value: Any
    low: Any
    high: Any
    warning: str = ""

    def __iter__(self) -> Iterator:
        return iter((self.value, self.low, self.high))


@dataclass(frozen=True)
class HoldOut:
    """The largest x predicted by a fit to the others. Errors are predicted against measured.

    `equivalent` is how many times larger than x the size is at which the law expects the measured loss
    (0.9: the model did as well as one of 0.9 times its size should); None where the exponent may be zero.
    """

    x: float
    predicted: float
    low: float
    high: float
    measured: float
    error_nats: float
    error_percent: float
    equivalent: float | None
    exponent: float

    @property
    def inside(self) -> bool:
        return self.low <= self.measured <= self.high


@dataclass(frozen=True, eq=False)
class Law:
    """A fitted form, or the reason why there is none (`status` other than "ok": no numbers at all).

    runs, excluded: every run fitted, and those left out by `within`. means: distinct x and the geometric mean of
    the loss over its seeds. residuals: log loss of each mean minus the line's (0.01 is one per cent).
    objective: sum of their squares.
    """

    form: Form
    status: str
    reason: str = ""
    warnings: tuple[str, ...] = ()
    runs: Points = field(default_factory=lambda: Points(np.zeros(0), np.zeros(0)))
    excluded: Points = field(default_factory=lambda: Points(np.zeros(0), np.zeros(0)))
    parameters: dict[str, Estimate] = field(default_factory=dict)
    holdout: HoldOut | None = None
    line: Line | None = None

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def n_runs(self) -> int:
        return len(self.runs.x)

    @property
    def n_points(self) -> int:
        return len(self.means.x)

    @property
    def means(self) -> Points:
        if self.ok:
            return Points(np.exp(self.line.z), np.exp(self.line.means))
        x = np.unique(self.runs.x)
        return Points(x, np.array([np.exp(np.log(self.runs.loss[self.runs.x == v]).mean()) for v in x]))

    @property
    def range(self) -> tuple[float, float] | None:
        return (float(self.runs.x.min()), float(self.runs.x.max())) if self.n_runs else None

    @property
    def exponent(self) -> Estimate:
        """alpha: positive where the loss falls with x."""
        self._require()
        return self.parameters[self.form.parameters[0].name]

    @property
    def residuals(self) -> np.ndarray:
        self._require()
        return self.line.residuals

    @property
    def objective(self) -> float | None:
        return float(self.residuals @ self.residuals) if self.ok else None

    @property
    def rms_percent(self) -> float:
        """Root mean square of the residuals, in per cent of the loss."""
        return 100 * math.sqrt(np.mean(self.residuals**2))

    def predict(self, x) -> Prediction:
        """What a newly trained size should measure at x: the interval covers its own scatter and seeds too."""
        return self._predict(x, new=1.0)

    def band(self, x) -> Prediction:
        """Where the line itself is at x: narrower than `predict`, as no new measurement is involved."""
        return self._predict(x, new=0.0)

    def _predict(self, x, new: float) -> Prediction:
        self._require()
        name = self.form.x
        try:
            x = np.asarray(x, float)
        except (TypeError, ValueError):
            raise UserError(f"cannot predict at {x!r}: {name} must be a number above zero") from None
        if not (np.isfinite(x) & (x > 0)).all():
            raise UserError(f"cannot predict there: {name} must be finite and above zero")
        middle = self.line.at(np.log(x))
        half = self.line.half_width(1, np.log(x) - self.line.centre, new)
        with np.errstate(over="ignore"):
            value, low, high = (np.exp(v) if x.ndim else float(np.exp(v)) for v in (middle, middle - half, middle + half))
        first, last = self.range
        warning = ""
        if x.size and (x.min() < first or x.max() > last):
            warning = f"outside the fitted range of {name} ({short(first)} to {short(last)}): the law may not hold there"
        return Prediction(value, low, high, warning)

    def summary(self) -> str:
        """The fit in plain words, one sentence a line."""
        name = self.form.x
        if not self.ok:
            return f"No law fitted: {self.reason}."
        alpha = self.exponent
        lines = [
            f"{self.form.equation} with alpha_{name} = {alpha.value:.4f} (95 % interval {alpha.low:.4f} to {alpha.high:.4f}).",
            f"Fitted to {self.n_runs} runs at {self.n_points} values of {name} from {short(self.range[0])} to "
            f"{short(self.range[1])}; seed means lie {self.rms_percent:.2g} % (rms) from the line.",
        ]
        if len(self.excluded.x):
            lines.append(f"{len(self.excluded.x)} runs outside that range were left out.")
        if self.holdout:
            h = self.holdout
            lines.append(
                f"Fitted without {name} = {short(h.x)}, it predicts {h.predicted:.4g} there ({h.low:.4g} to {h.high:.4g}); "
                f"measured {h.measured:.4g}: off by {h.error_percent:+.2g} %."
            )
        return "\n".join(lines + [f"Warning: {WARNINGS[w].format(x=name)}." for w in self.warnings])

    def to_dict(self) -> dict[str, Any]:
        """The fit with stable keys and plain numbers, ready for JSON; None where there is no number."""
        h = self.holdout
        return {
            "law": self.form.name,
            "status": self.status,
            "reason": self.reason,
            "warnings": list(self.warnings),
            "n_points": self.n_points,
            "n_runs": self.n_runs,
            "n_excluded": len(self.excluded.x),
            "objective": _finite(self.objective),
            "parameters": {
                k: {"value": _finite(v.value), "low": _finite(v.low), "high": _finite(v.high)} for k, v in self.parameters.items()
            },
            "range": list(self.range) if self.range else None,
            "holdout": {k: _finite(v) for k, v in vars(h).items()} if h else None,
        }

    def _require(self) -> None:
        if not self.ok:
            raise UserError(f"no law was fitted: {self.reason}")


def fit_power_law(x, loss, seed=None, name: str = "N", within: tuple[float | None, float | None] | None = None) -> Law:
    """L(x) = (x_c / x)^alpha (Kaplan et al. 2020, eqs. 1.1 to 1.3; Hestness et al. 2017), least squares in logs.

    x: shape (n,), above zero; equal values are seeds of one size. loss: shape (n,), above zero (nats per token).
    seed: labels of shape (n,), only used to notice a run given twice. name: N, D, C or any other, for the words.
    within: fit this range of x only, ends included, None for an open end; the rest is kept in `excluded`.

    The line goes through the mean log loss of each distinct x, so a size with more seeds does not weigh more.
    Runs that cannot be fitted give a Law whose status names the reason; a bad `within` raises UserError.
    """
    form = power_law(name)
    empty = Points(np.zeros(0), np.zeros(0))

    def refuse(status: str, runs: Points = empty, excluded: Points = empty) -> Law:
        return Law(form, status, REFUSALS[status].format(x=name), runs=runs, excluded=excluded)

    low, high = _limits(within, name)
    try:
        x, loss = _column(x), _column(loss)
        labels = None if seed is None else np.asarray(seed).astype(str)
    except (TypeError, ValueError, OverflowError):
        return refuse("not_numbers")
    if len(x) != len(loss) or (labels is not None and labels.shape != x.shape):
        return refuse("lengths_differ")
    if not len(x):
        return refuse("no_runs")
    for status, good in (
        ("x_not_finite", np.isfinite(x)),
        ("x_not_positive", x > 0),
        ("loss_not_finite", np.isfinite(loss)),
        ("loss_not_positive", loss > 0),
    ):
        if not good.all():
            return refuse(status)

    inside = (x >= low) & (x <= high)
    runs, excluded = Points(x[inside], loss[inside]), Points(x[~inside], loss[~inside])
    sizes = np.unique(np.log(runs.x))
    if len(sizes) < len(form.parameters) + 2:
        return refuse("too_few_points", runs, excluded)
    if np.ptp(sizes) < 1e-3:
        return refuse("range_too_narrow", runs, excluded)

    line = fit_line(np.log(runs.x), np.log(runs.loss))
    alpha, half = -line.slope, float(line.half_width(0, 1))
    root = line.crossing()
    scale = Estimate(None, None, None)
    if root is not None and max(map(abs, root)) < 700:
        scale = Estimate(*(float(np.exp(v)) for v in root))
    warnings = []
    if np.ptp(sizes) < math.log(10) * (1 - 1e-9):
        warnings.append("range_under_a_decade")
    if len(sizes) == len(form.parameters) + 2:
        warnings.append("few_points")
    if len(runs.x) == len(sizes):
        warnings.append("one_seed")
    if labels is not None and len(set(zip(runs.x, labels[inside]))) < len(runs.x):
        warnings.append("same_run_twice")
    if _lack_of_fit(line, len(runs.x)):
        warnings.append("lack_of_fit")
    if root is None:
        warnings.append("exponent_may_be_zero")
    elif scale.value is None:
        warnings.append("scale_out_of_range")
    if alpha + half < 0:
        warnings.append("loss_rises")
    alpha_name, scale_name = (p.name for p in form.parameters)
    return Law(
        form, "ok", "", tuple(warnings), runs, excluded,
        {alpha_name: Estimate(alpha, alpha - half, alpha + half), scale_name: scale}, _hold_out(runs, line), line,
    )


def _hold_out(runs: Points, line: Line) -> HoldOut | None:
    """None unless the sizes that remain could be fitted by themselves."""
    z, y = np.log(runs.x), np.log(runs.loss)
    small = z < line.z[-1]
    if len(line.z) < 5 or np.ptp(z[small]) < 1e-3:
        return None
    rest = fit_line(z[small], y[small])
    top, measured = line.z[-1], line.means[-1]
    predicted, half = float(rest.at(top)), float(rest.half_width(1, top - rest.centre, 1))
    identified = abs(rest.slope) > rest.half_width(0, 1)
    with np.errstate(over="ignore"):
        return HoldOut(
            x=float(runs.x.max()),
            predicted=float(np.exp(predicted)),
            low=float(np.exp(predicted - half)),
            high=float(np.exp(predicted + half)),
            measured=float(np.exp(measured)),
            error_nats=float(np.exp(predicted) - np.exp(measured)),
            error_percent=100 * float(np.expm1(predicted - measured)),
            equivalent=float(np.exp((measured - predicted) / rest.slope)) if identified else None,
            exponent=-rest.slope,
        )


def _lack_of_fit(line: Line, n_runs: int) -> bool:
    """F test of the scatter of seed means about the line against what the seeds explain."""
    k = len(line.z)
    if n_runs == k or line.scatter < 1e-18:
        return False
    return line.seeds == 0 or f_distribution.sf(line.scatter / line.seeds, k - 2, n_runs - k) < LACK_OF_FIT_P


def _column(values) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind == "c" or values.dtype.kind in "mM":
        raise ValueError
    values = values.astype(float)
    if values.ndim != 1:
        raise ValueError
    return values


def _limits(within, name: str) -> tuple[float, float]:
    if within is None:
        return 0.0, math.inf
    try:
        low, high = within
        low, high = 0.0 if low is None else float(low), math.inf if high is None else float(high)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not low <= high:
        raise UserError(f"within must be a pair (lowest {name}, highest {name}), with None for an open end, not {within!r}")
    return low, high


def _finite(value):
    return value if value is not None and math.isfinite(value) else None


def short(value: float) -> str:
    """1500 -> 1.5k, 98600 -> 98.6k, 2.5e6 -> 2.5M, 1.5678 -> 1.57; powers of ten beyond 1e12."""
    if value and not 1e-3 <= abs(value) < 1e12:
        return f"{value:.2e}"
    for limit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"
