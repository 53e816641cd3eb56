"""Fitting a form to a table of runs."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import f as f_distribution

from minitransformer.errors import UserError
from minitransformer.laws import forms
from minitransformer.laws.forms import SMALLEST, Form
from minitransformer.laws.law import REFUSALS, Estimate, HoldOut, Law, Points, finite, means_of, points_needed, words_for
from minitransformer.laws.optimise import DELTA
from minitransformer.laws.uncertainty import CURVE_RESAMPLES, Curve, Line, fit_curve, fit_line

LACK_OF_FIT_P = 0.01
ILL_CONDITIONED = 3e3  # of the Jacobian with columns of length one, inputs centred
HELD_OUT = 0.2         # share of the points, the dearest, that a law of several inputs is asked to predict


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
    words = words_for(form)
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
    with np.errstate(all="ignore"):  # numbers hundreds of decades apart overflow on the way; what is not finite is not reported
        if form.name in ("power", "b-crit"):
            return _fit_line(form, runs, excluded, labels, refuse)
        return _fit_curve(form, runs, excluded, labels, groups, delta, starts, resamples, refuse)


def _shared_warnings(form: Form, runs: Points, labels, n_points: int) -> list[str]:
    found = []
    if any(np.ptp(np.log(x)) < math.log(10) * (1 - 1e-9) for x in runs.inputs.values()):
        found.append("range_under_a_decade")
    if n_points == points_needed(form):
        found.append("few_points")
    if len(runs.loss) == n_points:
        found.append("one_seed")
    if labels is not None and len(set(zip(*runs.inputs.values(), labels))) < len(runs.loss):
        found.append("same_run_twice")
    return found


def _fit_line(form: Form, runs: Points, excluded: Points, labels, refuse) -> Law:
    sizes = np.unique(np.log(runs.x))
    if len(sizes) < points_needed(form):
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
    status = spread(np.log(np.stack(list(runs.inputs.values())))) if len(runs.loss) > points_needed(form) else ""
    if status:
        return refuse(status, runs, excluded)
    points, counts, seeds = means_of(runs) if groups is None else (runs, np.ones(len(runs.loss), int), 0.0)
    if len(points.loss) < points_needed(form) or (groups is not None and len(np.unique(groups)) < 3):
        return refuse("too_few_points", runs, excluded)
    z = np.log(np.stack(list(points.inputs.values())))
    y = np.log(points.loss)
    if spread(z):
        return refuse(spread(z), runs, excluded)
    curve = _curve(form, z, y, counts, seeds, delta, starts, resamples, groups)
    if not np.isfinite(curve.objective) or not curve.converged:
        return refuse("not_converged", runs, excluded, condition=finite(curve.condition))
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
        if p.name.startswith(("alpha", "beta")) and (low[i] <= SMALLEST * 1.01 or high[i] >= forms.LARGEST * 0.999):
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
    if rest.sum() < points_needed(form) or (_repeats if form.name == "data-constrained" else _spread)(z[:, rest]):
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
