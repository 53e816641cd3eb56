"""Fitting a form to a table of runs. The result says what it knows, how well, and what it cannot know."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, NamedTuple

import numpy as np
from scipy.stats import f as f_distribution

from minitransformer.errors import UserError
from minitransformer.laws import forms
from minitransformer.laws.forms import SMALLEST, Form
from minitransformer.laws.optimise import DELTA
from minitransformer.laws.uncertainty import CURVE_RESAMPLES, Curve, Line, fit_curve, fit_line

REFUSALS = {
    "no_runs": "there are no runs to fit: give at least {need} distinct {x}",
    "not_numbers": "{x} and loss must be columns of numbers: drop or mend the rows that are not",
    "lengths_differ": "{x}, loss and seed must have one entry per run: their lengths differ",
    "x_not_finite": "{x} is missing or infinite in some runs: leave those runs out",
    "x_not_positive": "{x} must be above zero to lie on a log axis: leave the other runs out",
    "loss_not_finite": "the loss is missing or infinite in some runs: leave diverged and failed runs out",
    "loss_not_positive": "the loss must be above zero to lie on a log axis: leave the other runs out",
    "too_few_points": "a {title} and its interval need at least {need} distinct {x}: train more sizes",
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
}
WARNINGS = {
    "range_under_a_decade": "{x} spans less than a factor of ten, so the exponent may be local",
    "few_points": "{need} distinct {x}, the fewest that can be fitted: none can be held out",
    "one_seed": "every size was trained once: the interval rests on the scatter about the line alone",
    "same_run_twice": "some runs have the same {x} and the same seed: they were counted as separate seeds",
    "lack_of_fit": "the sizes lie further from the line than their seeds explain: the law bends or the runs differ in more than {x}",
    "exponent_may_be_zero": "the interval of the exponent holds zero, so {x}_c is not identified",
    "loss_rises": "the loss rises with {x}: look for diverged, under-trained or overfitted runs",
    "scale_out_of_range": "{x}_c is too large or too small for a floating-point number and is left out",
    "no_floor_seen": "the best fit has no floor: E is zero as far as these runs can tell, and only its upper limit means anything",
    "floor_not_reached": "less than half of the lowest loss is floor: E is an extrapolation, and the exponent leans on it",
    "not_all_identified": "what is marked as not identified cannot be told from this table; the rest can",
    "few_groups": "fewer than eight trainings: points of one curve are not independent, so the intervals are rough",
}
LACK_OF_FIT_P = 0.01
ILL_CONDITIONED = 3e3  # of the Jacobian with columns of length one, inputs centred
HELD_OUT = 0.2         # share of the points, the dearest, that a law of several inputs is asked to predict


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
    """Loss expected for the mean of a new size's seeds, with its 95 % interval; unpacks to value, low, high.

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
        return _means(self.runs)[0]

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
        """What a newly trained model should measure: the interval covers its own scatter and seeds too.

        predict(N=1e6, D=2e7), or predict(1e6) where the law has one input; numbers or arrays.
        """
        return self._predict(x, inputs, new=1.0)

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
            lines = [
                f"{self.form.equation} with {self.form.alpha} = {alpha.value:.4f} (95 % interval {alpha.low:.4f} to {alpha.high:.4f})."
            ]
        else:
            lines = [f"{self.form.equation}", *(f"  {name} = {estimate}" for name, estimate in self.parameters.items())]
        if self.engine is not None and self.n_runs:
            spans = " and of ".join(f"{x} from {short(low)} to {short(high)}" for x, (low, high) in self.ranges.items())
            what = "seed means lie" if self.line else "they lie"
            lines.append(f"Fitted to {self.n_runs} runs at {self.n_points} values of {spans}; {what} {self.rms_percent:.2g} % (rms) from the "
                         f"{'line' if self.line else 'law'}.")
        if len(self.excluded.loss):
            lines.append(f"{len(self.excluded.loss)} runs outside that range were left out.")
        if self.holdout:
            h = self.holdout
            at = " and ".join(f"{name} = {short(value)}" for name, value in h.at.items())
            some = "" if h.n_held == 1 else f" and the {h.n_held - 1} dearest after it"
            compute = "" if h.equivalent is None else f", as if trained with {h.equivalent:.2g} times its compute"
            lines.append(
                f"Fitted without {at}{some}, it predicts {h.predicted:.4g} there ({h.low:.4g} to {h.high:.4g}); "
                f"measured {h.measured:.4g}{compute}: off by {h.error_nats:+.2g} nats, {h.error_percent:+.2g} %."
            )
        return "\n".join(lines + [f"Note: {note}." for note in self.notes] + [f"Warning: {text}." for text in self.warning_texts()])

    def warning_texts(self) -> list[str]:
        return [WARNINGS[w].format(x=" and ".join(self.form.inputs), need=_need(self.form)) for w in self.warnings]

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
            "objective": _finite(self.objective),
            "condition": _finite(self.condition),
            "parameters": {
                k: {"value": _finite(v.value), "low": _finite(v.low), "high": _finite(v.high)} for k, v in self.parameters.items()
            },
            "range": {k: list(v) for k, v in self.ranges.items()} or None,
            "holdout": {k: v if isinstance(v, dict) else _finite(v) for k, v in vars(h).items()} if h else None,
            "curve": _curve_dict(self) if self.ok and self.engine is not None else None,
            "runs": {**{k: v.tolist() for k, v in self.runs.inputs.items()}, "loss": self.runs.loss.tolist()} if self.line else None,
        }

    def _require(self) -> None:
        if not self.ok:
            raise UserError(f"no law was fitted: {self.reason}")


def fit(law: str | Form, loss, *, seed=None, group=None, within=None, delta: float = DELTA, starts: np.ndarray | None = None,
        resamples: int = CURVE_RESAMPLES, **inputs) -> Law:
    """Fit a law to runs: fit("power", loss, N=N), fit("chinchilla", loss, N=N, D=D), fit("regions", error, D=D).

    law: a name of forms.FORMS, or a Form. loss, inputs: shape (n,), above zero (nats per token; N, D, ... by the names
    the form asks for; forms of one input take any name). seed: labels of shape (n,), only used to notice a run given
    twice. group: labels of shape (n,): points read off one training curve share one, and are resampled together.
    within: fit this range of the first input only, (low, high), ends included, None for an open end.

    Equal inputs are seeds of one point: fits go through the mean log loss of each distinct point, so a point with more
    seeds does not weigh more. A power law is a straight line in logs and is fitted by least squares. The other forms
    minimise the summed Huber loss of log losses (`delta` in log loss; infinity gives least squares), from many starts:
    `starts`, theta of shape (R, p) for centred inputs, replaces the kit's own.

    Runs that cannot be fitted give a Law whose status names the reason; arguments that make no sense raise UserError.
    """
    form = forms.form(law, next(iter(inputs), None)) if isinstance(law, str) else law
    if set(inputs) != set(form.inputs):
        raise UserError(f"the law {form.name} needs {' and '.join(form.inputs)}, not {' and '.join(inputs) or 'nothing'}")
    words = {"x": " and ".join(form.inputs), "need": _need(form), "title": form.title}
    empty = Points({name: np.zeros(0) for name in form.inputs}, np.zeros(0))

    def refuse(status: str, runs: Points = empty, excluded: Points = empty, **more) -> Law:
        return Law(form, status, REFUSALS[status].format(**words), runs=runs, excluded=excluded, ranges=_ranges(runs), **more)

    low, high = _limits(within, form.x)
    if not delta > 0:
        raise UserError(f"delta must be above zero, not {delta!r}")
    try:
        columns = {name: _column(inputs[name]) for name in form.inputs}
        loss = _column(loss)
        labels = None if seed is None else np.asarray(seed).astype(str)
        groups = None if group is None else np.asarray(group).astype(str)
    except (TypeError, ValueError, OverflowError):
        return refuse("not_numbers")
    if any(len(c) != len(loss) for c in columns.values()) or any(g is not None and g.shape != loss.shape for g in (labels, groups)):
        return refuse("lengths_differ")
    if not len(loss):
        return refuse("no_runs")
    for status, good in (
        ("x_not_finite", np.all([np.isfinite(c) for c in columns.values()], axis=0)),
        ("x_not_positive", np.all([c > 0 for c in columns.values()], axis=0)),
        ("loss_not_finite", np.isfinite(loss)),
        ("loss_not_positive", loss > 0),
    ):
        if not good.all():
            return refuse(status)

    inside = (columns[form.x] >= low) & (columns[form.x] <= high)
    runs, excluded = (Points({k: c[rows] for k, c in columns.items()}, loss[rows]) for rows in (inside, ~inside))
    labels, groups = (None if g is None else g[inside] for g in (labels, groups))
    if form.name in ("power", "b-crit"):
        return _fit_line(form, runs, excluded, labels, refuse)
    return _fit_curve(form, runs, excluded, labels, groups, delta, starts, resamples, refuse)


def _need(form: Form) -> int:
    return len(form.theta) + 2


def _shared_warnings(form: Form, runs: Points, labels, n_points: int) -> list[str]:
    found = []
    if any(np.ptp(np.log(x)) < math.log(10) * (1 - 1e-9) for x in runs.inputs.values()):
        found.append("range_under_a_decade")
    if n_points == _need(form):
        found.append("few_points")
    if len(runs.loss) == n_points:
        found.append("one_seed")
    if labels is not None and len(set(zip(*runs.inputs.values(), labels))) < len(runs.loss):
        found.append("same_run_twice")
    return found


def _fit_line(form: Form, runs: Points, excluded: Points, labels, refuse) -> Law:
    sizes = np.unique(np.log(runs.x))
    if len(sizes) < _need(form):
        return refuse("too_few_points", runs, excluded)
    if np.ptp(sizes) < 1e-3:
        return refuse("range_too_narrow", runs, excluded)
    line = fit_line(np.log(runs.x), np.log(runs.loss))
    alpha, half = -line.slope, float(line.half_width(0, 1))
    warnings = _shared_warnings(form, runs, labels, len(sizes))
    if _lack_of_fit(line.scatter, line.seeds, len(sizes) - 2, len(runs.loss) - len(sizes)):
        warnings.append("lack_of_fit")
    parameters = (_power_estimates if form.name == "power" else _batch_estimates)(line, alpha, half, warnings)
    if alpha + half < 0:
        warnings.append("loss_rises")
    estimates = dict(zip((p.name for p in form.parameters), parameters))
    return Law(form, "ok", "", tuple(warnings), runs, excluded, estimates, _hold_out_line(form.x, runs, line), line, _ranges(runs))


def _power_estimates(line: Line, alpha: float, half: float, warnings: list[str]) -> tuple[Estimate, Estimate]:
    root = line.crossing()
    scale = Estimate(None, None, None)
    if root is None:
        warnings.append("exponent_may_be_zero")
    elif max(map(abs, root)) < 700:
        scale = Estimate(*(float(np.exp(v)) for v in root))
    else:
        warnings.append("scale_out_of_range")
    return Estimate(alpha, alpha - half, alpha + half), scale


def _batch_estimates(line: Line, slope: float, half: float, warnings: list[str]) -> tuple[Estimate, Estimate]:
    if abs(slope) <= half:
        warnings.append("exponent_may_be_zero")
        return Estimate(None, None, None), Estimate(None, None, None)
    middle, spread = float(line.at(0.0)), float(line.half_width(1, -line.centre))
    ends = sorted((1 / (slope - half), 1 / (slope + half)))
    return Estimate(1 / slope, *ends), Estimate(*(float(np.exp(v)) for v in (middle, middle - spread, middle + spread)))


def _hold_out_line(x: str, runs: Points, line: Line) -> HoldOut | None:
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
        equivalent = float(np.exp((measured - predicted) / rest.slope)) if identified else None
    return _held({x: float(runs.x.max())}, predicted, half, measured, equivalent, -rest.slope, 1,
                 100 * abs(math.expm1(min(predicted - measured, 700))))


def _held(at, predicted, half, measured, equivalent, exponent, n_held, rms) -> HoldOut:
    with np.errstate(over="ignore"):
        value, low, high, true = (float(np.exp(v)) for v in (predicted, predicted - half, predicted + half, measured))
        return HoldOut(at, value, low, high, true, value - true, 100 * float(np.expm1(predicted - measured)), equivalent, exponent,
                       n_held, rms)


def _fit_curve(form: Form, runs: Points, excluded: Points, labels, groups, delta, starts, resamples, refuse) -> Law:
    spread = _repeats if form.name == "data-constrained" else _spread
    status = spread(np.log(np.stack(list(runs.inputs.values())))) if len(runs.loss) > _need(form) else ""
    if status:
        return refuse(status, runs, excluded)
    points, counts, seeds = _means(runs) if groups is None else (runs, np.ones(len(runs.loss), int), 0.0)
    if len(points.loss) < _need(form) or (groups is not None and len(np.unique(groups)) < 3):
        return refuse("too_few_points", runs, excluded)
    z = np.log(np.stack(list(points.inputs.values())))
    y = np.log(points.loss)
    if spread(z):
        return refuse(spread(z), runs, excluded)
    curve = _curve(form, z, y, counts, seeds, delta, starts, resamples, groups)
    if not np.isfinite(curve.objective) or not curve.converged:
        return refuse("not_converged", runs, excluded, condition=_finite(curve.condition))
    if any(curve.theta[form.theta.index(name)] <= SMALLEST * 1.01 or curve.theta[form.theta.index(name)] >= forms.LARGEST * 0.999
           for name in form.exponents):
        return refuse("exponent_at_bound", runs, excluded, condition=curve.condition)
    floor_free = form.floor and curve.at_floor_bound()
    if curve.condition > ILL_CONDITIONED and not (form.floor and floor_free[-1]):
        return refuse("not_identified", runs, excluded, condition=curve.condition)
    warnings = _shared_warnings(form, runs, labels, len(points.loss))
    if groups is not None:
        warnings = [w for w in warnings if w != "one_seed"]
        if len(np.unique(groups)) < 8:
            warnings.append("few_groups")
    elif _lack_of_fit(float(curve.residuals @ curve.residuals) / (len(y) - len(form.theta)), seeds, len(y) - len(form.theta),
                      len(runs.loss) - len(y)):
        warnings.append("lack_of_fit")
    estimates = _curve_estimates(form, curve, floor_free)
    if any(estimates[p.name].value is None for p in form.parameters):
        if all(estimates[p.name].value is None for p in form.parameters if p.name.startswith(("alpha", "beta"))):
            return refuse("not_identified", runs, excluded, condition=curve.condition)
        warnings.append("not_all_identified")
    status = "ok"
    if form.floor:
        E = estimates["E"]
        if floor_free[-1]:
            status = "at_bound"
            warnings.append("no_floor_seen")
        elif E.value is None or E.low <= 0 or E.value < 0.5 * points.loss.min():
            warnings.append("floor_not_reached")
    law = Law(form, status, "", tuple(warnings), runs, excluded, estimates, None, curve, _ranges(runs), condition=curve.condition)
    held = _hold_out_curve(form, z, y, counts, seeds, delta, groups)
    return Law(**{**vars(law), "holdout": held})


def _curve(form, z, y, counts, seeds, delta, starts, resamples, groups) -> Curve:
    centre = z.mean(1)
    if form.name == "data-constrained":
        centre[2] = centre[1]
    return fit_curve(form, z - centre[:, None], y, counts, centre, seeds, delta, starts, resamples, groups)


def _curve_estimates(form: Form, curve: Curve, floor_free) -> dict[str, Estimate]:
    value, half = curve.estimates()
    low, high = value - half, value + half
    names = [p.name for p in form.parameters]
    if form.floor and (np.mean(floor_free[:-1]) > 0.025 or floor_free[-1]):
        for i, p in enumerate(form.parameters):  # the bootstrap fails at the edge of what a floor may be
            theta = "e" if p.name == "E" else next((t for t in form.exponents if _is(form, p.name, t)), None)
            if theta is not None:
                ends = curve.profile(form.theta.index(theta))
                low[i], high[i] = np.exp(ends) if p.name == "E" else ends
    if form.floor:
        i = names.index("E")
        low[i] = max(low[i], 0.0)
        if floor_free[-1]:
            value[i] = low[i] = 0.0
        elif low[i] < 1e-3 * np.exp(curve.means.min()):
            low[i] = 0.0
    found = {}
    for i, p in enumerate(form.parameters):
        numbers = (value[i], low[i], high[i])
        known = all(np.isfinite(v) and (not p.log or abs(v) < 690) for v in numbers)
        if p.log and high[i] - low[i] > 2 * math.log(1e6):
            known = False
        if known and p.log:
            numbers = tuple(float(np.exp(v)) for v in numbers)
        if p.name.startswith(("alpha", "beta")) and low[i] <= 0:
            known = False
        found[p.name] = Estimate(*(float(v) for v in numbers)) if known else Estimate(None, None, None)
    for p in form.parameters:
        if p.of and found[p.of].value is None:
            found[p.name] = Estimate(None, None, None)
    return found


def _is(form: Form, reported: str, theta: str) -> bool:
    return reported == theta or (theta == "alpha" and reported == form.alpha)


def _hold_out_curve(form: Form, z, y, counts, seeds, delta, groups) -> HoldOut | None:
    """Fit the cheaper points, predict the dearest fifth; None unless the rest could be fitted by itself."""
    cost = z.sum(0) if form.name != "data-constrained" else z[:2].sum(0)
    if groups is None:
        held = np.zeros(len(y), bool)
        held[np.argsort(cost, kind="stable")[-max(1, int(HELD_OUT * len(y))) :]] = True
    else:
        held = groups == groups[int(np.argmax(cost))]
    rest = ~held
    if rest.sum() < _need(form) or (_repeats if form.name == "data-constrained" else _spread)(z[:, rest]):
        return None
    fit = _curve(form, z[:, rest], y[rest], counts[rest], seeds, delta, None, 400, None if groups is None else groups[rest])
    if not (np.isfinite(fit.objective) and np.isfinite(fit.q_new)):
        return None
    inner = z - fit.centre[:, None]
    predicted = fit.at(inner[:, held])
    top = int(np.argmax(np.where(held, cost, -np.inf)))
    at = dict(zip(form.inputs, np.exp(z[:, top]).tolist()))
    half = float(fit.half_width(inner[:, [top]], 1.0)[0])
    value = float(fit.at(inner[:, [top]])[0])
    rms = 100 * float(np.sqrt(np.mean(np.expm1(predicted - y[held]) ** 2)))
    return _held(at, value, half, float(y[top]), _equivalent(form, fit, inner[:, top], float(y[top])), None, int(held.sum()), rms)


def _equivalent(form: Form, fit: Curve, z: np.ndarray, measured: float) -> float | None:
    """Compute, as a multiple of that at z, at which the fit expects this log loss; inputs grow in equal proportions."""
    scales = np.linspace(-7, 7, 2801)
    share = 1 / min(len(z), 2)
    loss = fit.at(z[:, None] + share * scales)
    beyond = np.nonzero((loss[:-1] >= measured) & (loss[1:] < measured))[0]
    if not len(beyond):
        return None
    i = beyond[0]
    return float(np.exp(scales[i] + (loss[i] - measured) / (loss[i] - loss[i + 1]) * (scales[1] - scales[0])))


def _means(runs: Points) -> tuple[Points, np.ndarray, float]:
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


def _spread(z: np.ndarray) -> str:
    """Which refusal the inputs call for, if any: one that does not vary, or two that vary together."""
    spread = z.std(1)
    if (spread < 1e-3).any():
        return "range_too_narrow"
    if len(z) > 1 and np.linalg.svd(np.corrcoef(z), compute_uv=False)[-1] < 0.02:
        return "one_ratio"
    return ""


def _repeats(z: np.ndarray) -> str:
    if (z[:2].std(1) < 1e-3).any():
        return "range_too_narrow"
    if np.linalg.svd(np.corrcoef(z[:2]), compute_uv=False)[-1] < 0.02:
        return "one_ratio"
    return "" if (z[1] - z[2]).max() > math.log(4) and np.ptp(z[1] - z[2]) > math.log(2) else "no_repeats"


def _lack_of_fit(scatter: float, seeds: float, free: int, within: int) -> bool:
    """F test of the scatter of seed means about the law against what the seeds explain."""
    if not within or scatter < 1e-18:
        return False
    return seeds == 0 or f_distribution.sf(scatter / seeds, free, within) < LACK_OF_FIT_P


def _ranges(runs: Points) -> dict[str, tuple[float, float]]:
    return {name: (float(x.min()), float(x.max())) for name, x in runs.inputs.items() if len(x)}


def _curve_dict(law: Law) -> dict[str, Any]:
    """theta, covariance and critical values: loss = exp(at(theta) -+ q * sqrt(g' covariance g + new * sigma^2))."""
    if law.line:
        line, top = law.line, law.line.z[-1] - law.line.centre
        return {
            "theta": [line.intercept, -line.slope],
            "centre": [line.centre],
            "covariance": [[line.variance / len(line.z), 0.0], [0.0, line.variance / line.sxx]],
            "sigma": math.sqrt(line.variance),
            "q_band": float(line.critical(1, top)),
            "q_new": float(line.critical(1, top, 1.0)),
        }
    c = law.engine
    return {"theta": c.theta.tolist(), "centre": c.centre.tolist(), "covariance": c.covariance.tolist(), "sigma": c.sigma,
            "q_band": c.q_band, "q_new": c.q_new}


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
