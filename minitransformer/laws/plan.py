"""Using a law: the loss to expect from a training, and the best way to spend a budget.

C is training compute in FLOPs, C = 6 N D, with N and D counted as the law counts them (for Kaplan et al. N is without
embeddings).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Callable

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from minitransformer.errors import UserError
from minitransformer.laws import formulas
from minitransformer.laws.law import Law, Prediction, short
from minitransformer.laws.formulas import FLOPS
from minitransformer.laws.named import PF_DAY, published
from minitransformer.papers import value

FAR = 10.0  # times beyond the runs behind a law: no longer an extrapolation to lean on
LEAST, MOST = 1.0, 1e60  # FLOPs that are taken for a budget
FLAT = 1e-10  # a loss that e times the compute lowers by less than this share has stopped falling
MANY = 1.5  # the split is arbitrary where sizes that differ by more than this factor are as good
VAGUE = 100.0  # the best size is called unknown where its interval spans more than this factor


@dataclass(frozen=True)
class Allocation:
    """A budget, spent. None stands where the rule says nothing.

    C: FLOPs. N: parameters. D: training tokens. B: batch, tokens. S: steps. loss: nats per token expected at the end,
    low and high its 95 % interval for a newly trained model. N_low to D_high: 95 % intervals of the best size and of
    the data that go with it. warning: empty where nothing is to be said.

    At the critical batch (`kaplan_rules`, and laws of steps without a fixed batch) C and S are the paper's C_min and
    S_min, what a very small and a very large batch would need; a run at B itself takes 2 S_min steps, D = 2 C_min / 6 N
    tokens and 2 C_min (Kaplan et al. 2020, eqs. 5.4, 5.5 and 6.7). Otherwise D = B S and C = 6 N D.
    """

    rule: str
    C: float
    N: float
    D: float
    B: float | None = None
    S: float | None = None
    loss: float | None = None
    low: float | None = None
    high: float | None = None
    warning: str = ""
    N_low: float | None = None
    N_high: float | None = None
    D_low: float | None = None
    D_high: float | None = None

    @property
    def tokens_per_parameter(self) -> float:
        return self.D / self.N

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and None, ready for JSON."""
        return {**vars(self), "tokens_per_parameter": self.tokens_per_parameter}


def kaplan_rules(C: float) -> Allocation:
    """Kaplan et al. 2020, Table 6, with D by eq. 6.7 and the loss by eq. 1.3.

    C is C_min in FLOPs: the compute of a run far below the critical batch; at the critical batch it costs twice that.
    """
    C = _budget(C)
    power = lambda name: value(f"kaplan2020.optimum.{name}_scale") * (C / PF_DAY) ** value(f"kaplan2020.optimum.{name}_exponent")
    N = power("N")
    smallest, largest = value("kaplan2020.setup.N_smallest"), value("kaplan2020.setup.N_largest")
    outside = "" if smallest <= N <= largest else f"outside the sizes that Kaplan et al. trained ({short(smallest)} to {short(largest)})"
    loss = published("kaplan-c-min").predict(C=C).value
    return _checked(Allocation("Kaplan's rules", C, N, 2 * C / (FLOPS * N), power("B"), power("S"), loss, warning=outside))


def allocate(law: Law, C: float, *, batch: float | None = None, critical: Law | None = None, unique: float | None = None) -> Allocation:
    """The size and the data, or steps, that give the lowest loss for C FLOPs by this law, in closed form where there is one.

    chinchilla, kaplan-nd: C = 6 N D (Hoffmann et al. 2022, eq. 4). `batch` (tokens), or the critical batch of the loss
    by the law `critical`, only turns D into steps.
    kaplan-ns: with a fixed `batch`, C = 6 N batch S, where S are the law's own steps or, with `critical` too, count as
    S_min = S / (1 + B_crit(L) / batch) (Kaplan et al. 2020, eq. 5.4; by a search over N); with `critical` alone,
    C_min = 6 N B_crit(L) S_min (eqs. B.5 to B.10; see Allocation for D). The published kaplan-ns, a law of S_min, brings
    the published critical batch along.
    data-constrained: C = 6 N D with `unique` tokens to draw on, by a search over N; without it every token is fresh.
    Intervals of N and D carry the law's uncertainty (delta method, with the critical value of its band), not that of `critical`.
    UserError where the law has no optimum: a law of one input, exponents that are not positive, a budget too extreme.
    """
    law._require()
    C = _budget(C)
    batch, unique = (None if v is None else _number(name, v) for name, v in (("batch", batch), ("unique", unique)))
    form, steps = law.form, law.form.name == "kaplan-ns"
    critical = _critical(law, critical)
    _suits(law, batch, critical, unique)
    theta, centre = _theta(law)
    log_product = math.log(C / FLOPS / (batch if steps and batch else 1.0))  # of N D, or of N S
    at_critical = steps and batch is None
    if at_critical:
        size = lambda theta: _critical_optimum(law, theta, centre, critical, C)[0]
    elif steps and critical is not None:
        loss = lambda theta, log_N: _at_batch(form, theta, centre, log_N, log_product - log_N, math.log(batch), critical)[0]
        size = lambda theta: _search(lambda log_N: loss(theta, log_N), _log_size(form, theta, centre, log_product))
    elif unique is not None:
        loss = lambda theta, log_N: _log_loss(form, theta, centre, log_N, log_product - log_N, math.log(unique))
        size = lambda theta: _search(lambda log_N: loss(theta, log_N), _log_size(form, theta, centre, log_product))
    else:
        size = lambda theta: _log_size(form, theta, centre, log_product)

    log_N = size(theta)
    N = _exp(log_N)
    D = (2 if at_critical else 1) * C / (FLOPS * N)
    B, S = batch, None if batch is None else D / batch
    if at_critical:
        S = _exp(_critical_optimum(law, theta, centre, critical, C)[1])
        B = C / (FLOPS * N * S)
    found = predict(law, batch=batch, critical=critical, **{x: {"N": N, "D": D, "S": S, "U": min(D, unique or D)}[x] for x in form.inputs})
    warnings = [found.warning] if found.warning else []
    if critical is not None and not steps:
        best_batch = critical.predict(found.value)
        B, S = best_batch.value, D / best_batch.value
        warnings += [best_batch.warning] if best_batch.warning else []
    if unique is not None and D / unique > (worthless := value("muennighoff2023.epochs_worthless")):
        warnings.append(f"{short(D / unique)} epochs: past some {worthless:g} a repeat buys nothing, so neither does more compute")
    if unique is not None and (as_good := _as_good(lambda log_N: loss(theta, log_N), log_N)):
        warnings.insert(0, f"this split is one of many: any size from {' to '.join(map(short, as_good))} reaches the same loss for this compute")
    half = _half_width(law, size, theta)
    ends = (None, None) if half is None or half > 300 else (_exp(log_N - half), _exp(log_N + half))
    if half is not None and 2 * half > math.log(VAGUE):
        warnings.append("the runs behind this law hardly say what size is best")
    data = tuple(None if end is None else D * N / end for end in ends[::-1])
    rule = law.name or law.form.name
    return _checked(Allocation(rule, C, N, D, B, S, found.value, found.low, found.high, "; ".join(warnings), *ends, *data))


def far_outside(law: Law, factor: float = FAR, **at: float) -> list[str]:
    """Where the law is asked for more than `factor` times what its runs reach: "N = 7.58B is 77k times the largest of its runs (98.6k)"."""
    found = []
    for name, x in at.items():
        low, high = law.ranges.get(name, (0.0, math.inf))
        if x > factor * high:
            found.append(f"{name} = {short(x)} is {short(x / high)} times the largest of its runs ({short(high)})")
        elif x < low / factor:
            found.append(f"{name} = {short(x)} is a factor of {short(low / x)} below the smallest of its runs ({short(low)})")
    return found


def best_for(rule: Callable[[float], Allocation], *, N: float | None = None, D: float | None = None) -> Allocation:
    """The budget whose best size is N, or whose best data are D: allocations read backwards.

    rule: from C to its Allocation, such as kaplan_rules or `lambda C: allocate(law, C)`; N and D must grow with C.
    UserError where no budget has such a best. So it is where the loss stops falling first: with 1e9 unique tokens no
    telling budget has 1e12 for its best D by the law of Muennighoff et al. 2023, as the thousandth epoch teaches nothing.
    """
    if (N is None) == (D is None):
        raise UserError("say what the budget should be the best for: a size N or data D, one of them")
    name, target = ("D", _number("D", D)) if N is None else ("N", _number("N", N))
    at = lambda log_C: rule(math.exp(log_C))
    off = lambda log_C: math.log(getattr(at(log_C), name) / target)
    flat = lambda log_C: abs(math.log(at(log_C + 1).loss / at(log_C).loss)) < FLAT
    least, most = math.log(LEAST) + 1, math.log(MOST) - 2
    start = 2 * math.log(target) + math.log(6 * 20 if name == "N" else 6 / 20)  # where D = 20 N
    low = high = min(max(start, least), most)
    while low > least and off(low) > 0:
        low = max(low - 2, least)
    while high < most and off(high) < 0 and not flat(high):
        high = min(high + 2, most)
    log_C = brentq(off, low, high, xtol=1e-12) if off(low) <= 0 <= off(high) else high
    if flat(log_C):
        raise UserError(f"by this law the loss has stopped falling before {name} = {target:.3g} is the best for any budget: "
                        "ask for less, or give the compute itself")
    if not off(low) <= 0 <= off(high):
        raise UserError(f"no budget between {LEAST:g} and {MOST:g} FLOPs has {target:.3g} as its best {name} by this law")
    return replace(at(log_C), **{name: target})


def predict(law: Law, *, batch: float | None = None, critical: Law | None = None, unique: float | None = None, **given) -> Prediction:
    """The loss a newly trained model should reach, with a 95 % interval and a warning outside the fitted range.

    given: the law's own inputs, as in predict(law, N=1e6, D=2e7), numbers or arrays; or what they follow from by
    C = 6 N D and, with `batch`, D = batch S: predict(law, N=1e6, C=1e14). C alone means the best split of C by
    `allocate`, whose other arguments these are. Without `unique`, every token of a data-constrained law is fresh. A law
    of steps takes S as its own steps (S_min for the published one); with `batch` and `critical`, as steps of that batch.
    """
    law._require()
    known = {name: _positive(name, v) for name, v in given.items() if v is not None}
    batch, unique = (None if v is None else _positive(name, v) for name, v in (("batch", batch), ("unique", unique)))
    need = [x for x in law.form.inputs if x != "U"]
    if "U" in law.form.inputs:
        unique = known.pop("U", unique)
    elif unique is not None:
        raise UserError(f"the law {law.form.name} takes every token for a fresh one: unique tokens go with the law data-constrained")
    if set(known) == {"C"} and len(need) == 2:
        best = allocate(law, known["C"], batch=batch, critical=critical, unique=unique)
        return Prediction(best.loss, best.low, best.high, best.warning)
    values = known if set(known) == set(need) else derived(known, batch) if len(known) == 2 else {}
    if not set(need) <= set(values):
        fewer = " or from C alone" if len(need) == 2 else ""
        raise UserError(f"this law predicts from {' and '.join(need)}, from two numbers they follow from (N, D, C; S with a batch){fewer}, "
                        f"not from {' and '.join(known) or 'nothing'}")
    critical = _critical(law, critical)
    if law.form.name == "kaplan-ns" and batch is not None and critical is not None:
        _suits(law, batch, critical, unique)
        logs = (np.log(np.asarray(v, float)) for v in (values["N"], values["S"], batch))
        fewest = np.exp(_at_batch(law.form, *_theta(law), *logs, critical)[1])
        values = {**values, "S": fewest if fewest.ndim else float(fewest)}
    if "U" in law.form.inputs:
        values = {**values, "U": np.minimum(values["D"], values["D"] if unique is None else unique)}
    return law.predict(**{x: values[x] for x in law.form.inputs})


# --- inside -----------------------------------------------------------------------------------------------------------


def _positive(name: str, given):
    try:
        number = np.asarray(given, float)
    except (TypeError, ValueError):
        number = np.array(math.nan)
    if not (np.isfinite(number) & (number > 0)).all():
        raise UserError(f"{name} must be a number above zero, not {' '.join(repr(given).split())[:60]}")
    return number if number.ndim else float(number)


def _number(name: str, given) -> float:
    number = _positive(name, given)
    if np.ndim(number):
        raise UserError(f"a budget is split for one {name} at a time, not for {np.size(number)}")
    return number


def _budget(C) -> float:
    C = _number("C", C)
    if not LEAST <= C <= MOST:
        raise UserError(f"C = {C:.3g} is no budget: give the FLOPs of a training, between {LEAST:g} and {MOST:g}")
    return C


def _suits(law: Law, batch, critical: Law | None, unique) -> None:
    name = law.form.name
    if name not in ("chinchilla", "kaplan-nd", "kaplan-ns", "data-constrained"):
        raise UserError(f"the law {name} of {law.form.x} alone cannot split a budget: that takes a law of N and D "
                        "(chinchilla, kaplan-nd, data-constrained) or of N and S (kaplan-ns)")
    if batch is not None and critical is not None and name != "kaplan-ns":
        raise UserError(f"the law {name} knows nothing of batches: give a fixed batch or a law of the critical batch, not both")
    if name == "kaplan-ns" and batch is None and critical is None:
        raise UserError("a law of N and S splits a budget only when the batch is known: give batch (tokens) or a law of the critical batch")
    if critical is not None:
        critical._require()
        if critical.form.name != "b-crit" or any(e.value is None for e in critical.parameters.values()):
            raise UserError("critical must be a law of the critical batch (b-crit) with both its parameters known")
    if unique is not None and "U" not in law.form.inputs:
        raise UserError(f"the law {name} takes every token for a fresh one: unique tokens go with the law data-constrained")


def _critical(law: Law, critical: Law | None) -> Law | None:
    """The law of the critical batch to use: Kaplan's own L(N, S) is a law of S_min and comes with theirs."""
    published_steps = law.status == "published" and law.name == "kaplan-ns"
    return published("kaplan-b-crit") if critical is None and published_steps else critical


def _theta(law: Law) -> tuple[np.ndarray, np.ndarray]:
    """Internal parameters (p,) and the centre (k,) of their log inputs."""
    if law.engine is not None:
        return law.engine.theta, law.engine.centre
    return law.form.internal({name: e.value for name, e in law.parameters.items()}), np.zeros(len(law.form.inputs))


def _reported(form, theta, centre) -> dict[str, float]:
    """Reported parameters by name, scales in logs."""
    return dict(zip((p.name for p in form.parameters), form.report(theta[None], centre)[0].tolist()))


def _log_size(form, theta, centre, log_product: float) -> float:
    """log N of the lowest loss where the other input is exp(log_product) / N."""
    r = _reported(form, theta, centre)
    if form.name == "kaplan-nd":
        p = r["alpha_N"] / r["alpha_D"]
        return formulas.log_best_size(p * r["N_c"], p, r["D_c"], 1.0, log_product)
    if form.name == "kaplan-ns":
        return formulas.log_best_size(r["alpha_N"] * r["N_c"], r["alpha_N"], r["alpha_S"] * r["S_c"], r["alpha_S"], log_product)
    return formulas.log_best_size(r["A"], r["alpha"], r["B"], r["beta"], log_product)


def _critical_optimum(law: Law, theta, centre, critical: Law, C: float) -> tuple[float, float]:
    """log N and log S_min for C_min = 6 N B_crit(L) S_min."""
    r = _reported(law.form, theta, centre)
    alpha_B, B_star = (critical.parameters[name].value for name in ("alpha_B", "B_star"))
    if not min(r["alpha_N"], r["alpha_S"], alpha_B) > 0:
        raise UserError("there is no best size: every exponent must be above zero")
    scale = formulas.log_compute_scale(r["alpha_N"], r["alpha_S"], r["N_c"], r["S_c"], math.log(B_star))
    log_loss = formulas.compute_exponent(r["alpha_N"], r["alpha_S"], alpha_B) * (scale - math.log(C))
    return formulas.log_efficient(log_loss, r["alpha_N"], r["alpha_S"], r["N_c"], r["S_c"])


def _log_loss(form, theta, centre, *logs) -> np.ndarray:
    """Log loss at logs of the inputs, numbers or arrays of one shape."""
    z = np.broadcast_arrays(*logs)
    return form.evaluate(theta[None], np.stack([v.ravel() for v in z]) - centre[:, None])[0][0].reshape(z[0].shape)


def _at_batch(form, theta, centre, log_N, log_S, log_batch, critical: Law) -> tuple[np.ndarray, np.ndarray]:
    """Log loss and log S_min of S steps at this batch: S_min (1 + B_crit(L(N, S_min)) / batch) = S, by bisection."""
    alpha_B, B_star = (critical.parameters[name].value for name in ("alpha_B", "B_star"))
    log_N, log_S, log_batch = np.broadcast_arrays(log_N, log_S, log_batch)
    low, high = log_S - 100.0, log_S + 0.0
    for _ in range(60):
        middle = (low + high) / 2
        more = np.logaddexp(0.0, math.log(B_star) - _log_loss(form, theta, centre, log_N, middle) / alpha_B - log_batch)
        enough = middle + more > log_S
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return _log_loss(form, theta, centre, log_N, high), high


def _search(log_loss: Callable[[np.ndarray], np.ndarray], start: float) -> float:
    """log N of the lowest loss within a factor of e^30 of the start, the smallest where several are as good."""
    grid = np.linspace(start - 30, start + 30, 1201)
    best, step = grid[np.argmin(log_loss(grid))], grid[1] - grid[0]
    return float(minimize_scalar(log_loss, bounds=(best - step, best + step), method="bounded", options={"xatol": 1e-9}).x)


def _as_good(log_loss: Callable[[np.ndarray], np.ndarray], best: float) -> tuple[float, float] | None:
    """The sizes around the best, at log N, whose loss is the same within FLAT; None where a factor of MANY holds them all."""
    grid = best + np.linspace(-30, 30, 1201)  # the best in the middle
    worse = np.flatnonzero(log_loss(grid) > log_loss(grid[600:601]) + FLAT)
    low, high = grid[max(worse[worse < 600], default=0)], grid[min(worse[worse > 600], default=1200)]
    return (_exp(low), _exp(high)) if high - low > math.log(MANY) else None


def _half_width(law: Law, size: Callable[[np.ndarray], float], theta: np.ndarray) -> float | None:
    """Half the 95 % interval of log N by the delta method; None for a law without a covariance."""
    if law.engine is None:
        return None
    gradient = []
    for i, step in enumerate(1e-4 * np.maximum(np.abs(theta), 0.1)):
        nudge = np.eye(len(theta))[i] * step
        gradient.append((size(theta + nudge) - size(theta - nudge)) / (2 * step))
    return float(law.engine.q_band * math.sqrt(max(np.array(gradient) @ law.engine.covariance @ np.array(gradient), 0.0)))


def derived(known: dict[str, Any], batch: float | None) -> dict[str, Any]:
    """N, D, C, and S where there is a batch, as far as two of them give the others."""
    values = dict(known)
    for _ in range(2):
        if batch is not None and "S" in values:
            values.setdefault("D", values["S"] * batch)
        if {"N", "D"} <= set(values):
            values.setdefault("C", FLOPS * values["N"] * values["D"])
        if {"C", "N"} <= set(values):
            values.setdefault("D", values["C"] / FLOPS / values["N"])
        if {"C", "D"} <= set(values):
            values.setdefault("N", values["C"] / FLOPS / values["D"])
        if batch is not None and "D" in values:
            values.setdefault("S", values["D"] / batch)
    return values


def _exp(log: float) -> float:
    return math.exp(min(max(log, -745.0), 709.0))


def _checked(found: Allocation) -> Allocation:
    numbers = (found.N, found.D, found.B, found.S, found.loss)
    if not all(v is None or (math.isfinite(v) and v > 0) for v in numbers):
        raise UserError(f"C = {found.C:.3g} FLOPs is too far from anything this law can describe")
    return found
