"""The forms a law can take: equation, parameters with units, paper, valid range, and the mathematics of each.

All of them are built from one piece, a power law in logs: term(z) = a - alpha * (z - centre), with z the log of an
input. A form joins such terms, and a floor e, into log loss:

    power             a
    power_floor       log(exp(e) + exp(a))
    regions           log(exp(e) + exp(g - alpha * softplus(z - z_0)))
    kaplan_nd         alpha_D * log(exp(a / alpha_D) + exp(b / alpha_D))
    kaplan_ns         log(exp(a) + exp(b))
    chinchilla        log(exp(e) + exp(a) + exp(b))
    data_constrained  the same, with the effective N' and D' of Muennighoff et al. for N and D

Fits work on these levels and exponents, theta, because in centred logs they are nearly independent of one another; N_c
or A, which are levels extrapolated over many decades, are computed from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Callable, Mapping

import numpy as np

from minitransformer.errors import UserError

UNITS = {"N": "parameters", "D": "tokens", "C": "FLOPs", "S": "steps", "L": "nats per token", "U": "unique tokens"}
MEANINGS = {
    "N": "model size without embeddings",
    "D": "training tokens",
    "C": "training compute",
    "S": "training steps",
    "L": "loss",
    "U": "unique tokens among the D seen",
}
SMALLEST, LARGEST = 1e-3, 4.0  # exponents are searched between these
LEVEL = 25.0                   # and levels within exp(25) of the losses


@dataclass(frozen=True)
class Parameter:
    """One reported number. `log`: its interval is computed in logs (positive, known to a factor). `of`: the exponent
    without which it means nothing."""

    name: str
    unit: str
    meaning: str
    log: bool = False
    of: str = ""


@dataclass(frozen=True)
class Form:
    """A law before it is fitted: `equation` in plain text, `valid` says where it can hold.

    theta: names of the internal parameters; those in `exponents` are exponents, the others levels (logs).
    evaluate(theta (R, p), z (k, n)) -> log loss (R, n) and its derivatives (R, p, n), z being centred logs of inputs.
    report(theta (R, p), centre (k,)) -> each reported parameter, (R, P), in logs where `log` is set.
    internal(values) -> theta (p,) for reported values at centre 0.
    """

    name: str
    title: str
    inputs: tuple[str, ...]
    equation: str
    parameters: tuple[Parameter, ...]
    sources: tuple[str, ...]
    valid: str
    theta: tuple[str, ...] = ()
    exponents: tuple[str, ...] = ()
    evaluate: Callable = field(default=None, repr=False)
    report: Callable = field(default=None, repr=False)
    internal: Callable = field(default=None, repr=False)
    basis: Callable = field(default=None, repr=False)
    """basis(nonlinear (R, q), z, y) -> columns (R, m, n) and right-hand side (R, n): the problem that is linear once the
    exponents are chosen, for starting values; see optimise.py."""
    assemble: Callable = field(default=None, repr=False)
    """assemble(nonlinear (R, q), coefficients (R, m)) -> theta (R, p)."""
    grid: tuple[tuple[float, ...], ...] = ()
    target: str = "L"

    @property
    def x(self) -> str:
        """The first, often only, input."""
        return self.inputs[0]

    @property
    def x_unit(self) -> str:
        return UNITS.get(self.x, f"units of {self.x}")

    @property
    def alpha(self) -> str:
        """The name of the first exponent reported."""
        return next(p.name for p in self.parameters if p.name.startswith("alpha"))

    @property
    def floor(self) -> bool:
        return "e" in self.theta

    def loss(self, values: Mapping[str, float], **inputs) -> np.ndarray:
        """The law at these inputs (numbers or arrays), for given parameters by their reported names."""
        z = np.broadcast_arrays(*(np.log(np.asarray(inputs[name], float)) for name in self.inputs))
        flat = np.stack([v.ravel() for v in z])
        loss = np.exp(self.evaluate(self.internal(values)[None], flat)[0][0]).reshape(z[0].shape)
        return loss if loss.shape else float(loss)


def _stack(*columns) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*columns), 1)


def _join(*terms) -> tuple[np.ndarray, list[np.ndarray]]:
    """log(sum exp) of terms (R, n) and the share of each."""
    top = terms[0]
    for term in terms[1:]:
        top = np.maximum(top, term)
    parts = [np.exp(term - top) for term in terms]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return top + np.log(total), [part / total for part in parts]


def _columns(theta: np.ndarray) -> list[np.ndarray]:
    """theta (R, p) as p columns (R, 1)."""
    return [theta[:, i : i + 1] for i in range(theta.shape[1])]


def _positive(values: Mapping[str, float], *names: str) -> list[float]:
    return [math.log(values[name]) if values[name] > 0 else -math.inf for name in names]


# --- power law ---------------------------------------------------------------------------------------------------

SOURCES = {
    "N": ("Kaplan et al. 2020, eq. 1.1",),
    "D": (
        "Kaplan et al. 2020, eq. 1.2",
        "Hestness et al. 2017, who write alpha m^beta_g: their beta_g is -alpha_D, their alpha is D_c^alpha_D",
    ),
    "C": ("Kaplan et al. 2020, eq. 3.3 at a fixed batch; eq. 1.3 for C_min",),
}

VALID = {
    "N": "sizes trained to convergence on data that do not limit them, N counted without embeddings",
    "D": "training sets above the small-data end, early stopped, with a model that they do not saturate",
    "C": "the best loss for each amount of compute, over model sizes",
}


def power_law(x: str = "N") -> Form:
    """L(x) = (x_c / x)^alpha_x; loss in nats per token (or any positive error), x in the unit of `UNITS`."""
    return Form(
        name="power",
        title="power law",
        inputs=(x,),
        equation=f"L({x}) = ({x}_c / {x})^alpha_{x}",
        parameters=(
            Parameter(f"alpha_{x}", "none", "the exponent: doubling x multiplies the loss by 2^-alpha"),
            Parameter(f"{x}_c", UNITS.get(x, f"units of {x}"), "where the line would reach a loss of 1, far outside any data", log=True, of=f"alpha_{x}"),
        ),
        sources=SOURCES.get(x, ("Kaplan et al. 2020, eqs. 1.1 to 1.3",)),
        valid=VALID.get(x, "between the small end, near guessing, and the irreducible floor"),
        theta=("a", "alpha"),
        exponents=("alpha",),
        evaluate=_power,
        report=lambda theta, centre: _stack(theta[:, 1], centre[0] + theta[:, 0] / theta[:, 1]),
        internal=lambda values: np.array([values[f"alpha_{x}"] * math.log(values[f"{x}_c"]), values[f"alpha_{x}"]]),
    )


def critical_batch() -> Form:
    """B_crit(L) = B* / L^(1/alpha_B): the batch that trains with twice the fewest steps and twice the fewest tokens."""
    return Form(
        name="b-crit",
        title="critical batch size",
        inputs=("L",),
        target="B_crit",
        equation="B_crit(L) = B_star / L^(1 / alpha_B)",
        parameters=(
            Parameter("alpha_B", "none", "its inverse is the exponent: a loss lower by 1 % allows a batch 1/alpha_B % larger"),
            Parameter("B_star", "tokens", "the critical batch at a loss of 1 nat", log=True),
        ),
        sources=("Kaplan et al. 2020, eqs. 1.4 and 5.3", "McCandlish et al. 2018"),
        valid="losses inside the range measured: outside it Kaplan et al. call it unreliable (appendix C)",
        theta=("b", "gamma"),
        exponents=("gamma",),
        evaluate=_power,
        report=lambda theta, centre: _stack(1 / theta[:, 1], theta[:, 0] + theta[:, 1] * centre[0]),
        internal=lambda values: np.array([math.log(values["B_star"]), 1 / values["alpha_B"]]),
    )


def _power(theta, z):
    a, alpha = _columns(theta)
    return a - alpha * z[0], _stack(np.ones((len(theta), z.shape[1])), np.broadcast_to(-z[0], (len(theta), z.shape[1])))


def power_law_loss(x: np.ndarray, alpha: float, x_c: float) -> np.ndarray:
    """Loss of the power law at x (any shape), computed in logs so that large x_c cannot overflow."""
    return np.exp(alpha * (np.log(x_c) - np.log(x)))


# --- one input and a floor ---------------------------------------------------------------------------------------


def power_floor(x: str = "N") -> Form:
    """L(x) = E + A / x^alpha: a power law down to an irreducible floor."""
    return Form(
        name="power-floor",
        title="power law with a floor",
        inputs=(x,),
        equation=f"L({x}) = E + A / {x}^alpha_{x}",
        parameters=(
            Parameter("E", "nats per token", "the irreducible floor: the loss left for unlimited x"),
            Parameter("A", f"nats per token times {x}^alpha", "height of the power law at x = 1", log=True, of=f"alpha_{x}"),
            Parameter(f"alpha_{x}", "none", "the exponent of the part above the floor"),
        ),
        sources=("Henighan et al. 2020, Table 1", "Hestness et al. 2017, for a single model: alpha m^beta_g + gamma"),
        valid="above the small end; the floor needs points whose loss is mostly floor",
        theta=("e", "a", "alpha"),
        exponents=("alpha",),
        evaluate=_power_floor,
        report=lambda theta, centre: _stack(np.exp(theta[:, 0]), theta[:, 1] + theta[:, 2] * centre[0], theta[:, 2]),
        internal=lambda values: np.array([*_positive(values, "E", "A"), values[f"alpha_{x}"]]),
        basis=lambda q, z, y: _linear(y, np.ones_like(z[0]), np.exp(-q[:, :1] * z[0])),
        assemble=lambda q, c: _stack(_log(c[:, 0]), _log(c[:, 1]), q[:, 0]),
        grid=(tuple(np.geomspace(0.03, 2.5, 40)),),
    )


def _power_floor(theta, z):
    e, a, alpha = _columns(theta)
    value, (floor, power) = _join(e, a - alpha * z[0])
    return value, _stack(floor, power, -power * z[0])


def regions(x: str = "D") -> Form:
    """Hestness's three regions in one smooth curve: a plateau near guessing, a power law, an irreducible floor.

    L(x) = E + (G - E) / (1 + x / x_0)^alpha. G is the plateau; the small-data region ends near x_0; the power law ends
    near x_1, where as much of the loss lies above the floor as below it: infinite when the floor is zero, and not defined
    when that is so already before x_0, so that no power law lies between.
    """
    return Form(
        name="regions",
        title="plateau, power law, floor",
        inputs=(x,),
        equation=f"L({x}) = E + (G - E) / (1 + {x} / {x}_0)^alpha_{x}",
        parameters=(
            Parameter("E", "nats per token", "the irreducible floor"),
            Parameter("G", "nats per token", "the plateau of the small-data region, near guessing"),
            Parameter(f"{x}_0", UNITS.get(x, f"units of {x}"), "where the small-data region ends", log=True, of=f"alpha_{x}"),
            Parameter(f"alpha_{x}", "none", "the exponent of the power-law region, above the floor"),
            Parameter(f"{x}_1", UNITS.get(x, f"units of {x}"), "where the loss is half floor: the end of the power-law region, if beyond the other", log=True, of=f"alpha_{x}"),
        ),
        sources=("Hestness et al. 2017, Fig. 6, which draws the regions; this curve through them is the kit's",),
        valid="one model family from near guessing to its floor; each region needs points in it",
        theta=("e", "g", "z0", "alpha"),
        exponents=("alpha",),
        evaluate=_regions,
        report=lambda t, centre: _stack(
            np.exp(t[:, 0]), np.exp(t[:, 0]) + np.exp(t[:, 1]), t[:, 2] + centre[0], t[:, 3], t[:, 2] + centre[0] + _span(t)
        ),
        internal=lambda values: np.array(
            [*_positive(values, "E"), math.log(values["G"] - values["E"]), math.log(values[f"{x}_0"]), values[f"alpha_{x}"]]
        ),
        basis=lambda q, z, y: _linear(y, np.ones_like(z[0]), np.exp(-q[:, :1] * np.logaddexp(0, z[0] - q[:, 1:]))),
        assemble=lambda q, c: _stack(_log(c[:, 0]), _log(c[:, 1]), q[:, 1], q[:, 0]),
        grid=(tuple(np.geomspace(0.05, 2.5, 16)), tuple(np.linspace(-9, 9, 19))),
    )


def _span(theta: np.ndarray) -> np.ndarray:
    """log(x_1 / x_0): where (G - E) / (1 + x / x_0)^alpha = E. NaN where that comes before x_0: no power law between."""
    ratio = (theta[:, 1] - theta[:, 0]) / theta[:, 3]
    return np.where(ratio >= np.log(2), np.log(np.expm1(np.clip(ratio, 1e-9, 700.0))), np.nan)


def _regions(theta, z):
    e, g, z0, alpha = _columns(theta)
    soft = np.logaddexp(0, z[0] - z0)
    value, (floor, power) = _join(e, g - alpha * soft)
    slope = 1 - np.exp(-soft)  # the logistic function of z - z0
    return value, _stack(floor, power, power * alpha * slope, -power * soft)


# --- two inputs --------------------------------------------------------------------------------------------------

EXPONENTS = tuple(np.geomspace(0.03, 2.0, 16))


def kaplan_nd() -> Form:
    """L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D."""
    return Form(
        name="kaplan-nd",
        title="law of size and data (Kaplan et al.)",
        inputs=("N", "D"),
        equation="L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D",
        parameters=(
            Parameter("alpha_N", "none", "exponent in N where data do not limit"),
            Parameter("alpha_D", "none", "exponent in D where size does not limit"),
            Parameter("N_c", "parameters", "scale of N", log=True, of="alpha_N"),
            Parameter("D_c", "tokens", "scale of D", log=True, of="alpha_D"),
        ),
        sources=("Kaplan et al. 2020, eqs. 1.5 and 4.1, Table 2",),
        valid="early-stopped runs on D unique tokens, N without embeddings; strained below some 1e7 tokens",
        theta=("a", "b", "alpha_N", "alpha_D"),
        exponents=("alpha_N", "alpha_D"),
        evaluate=_kaplan_nd,
        report=lambda t, c: _stack(t[:, 2], t[:, 3], c[0] + t[:, 0] / t[:, 2], c[1] + t[:, 1] / t[:, 3]),
        internal=lambda v: np.array(
            [v["alpha_N"] * math.log(v["N_c"]), v["alpha_D"] * math.log(v["D_c"]), v["alpha_N"], v["alpha_D"]]
        ),
        basis=lambda q, z, y: _linear(y / q[:, 1:], np.exp(-q[:, :1] / q[:, 1:] * z[0]), np.exp(-np.ones((len(q), 1)) * z[1])),
        assemble=lambda q, c: _stack(q[:, 1] * _log(c[:, 0]), q[:, 1] * _log(c[:, 1]), q[:, 0], q[:, 1]),
        grid=(EXPONENTS, EXPONENTS),
    )


def _kaplan_nd(theta, z):
    a, b, alpha_N, alpha_D = _columns(theta)
    size, data = (a - alpha_N * z[0]) / alpha_D, (b - alpha_D * z[1]) / alpha_D
    joint, (n, d) = _join(size, data)
    return alpha_D * joint, _stack(n, d, -n * z[0], joint - n * size - d * b / alpha_D)


def kaplan_ns() -> Form:
    """L(N, S) = (N_c / N)^alpha_N + (S_c / S)^alpha_S, with S the steps a very large batch would need (S_min)."""
    return Form(
        name="kaplan-ns",
        title="law of size and steps (Kaplan et al.)",
        inputs=("N", "S"),
        equation="L(N, S) = (N_c / N)^alpha_N + (S_c / S)^alpha_S",
        parameters=(
            Parameter("alpha_N", "none", "exponent in N of the converged loss"),
            Parameter("alpha_S", "none", "exponent in S of what training still has to learn"),
            Parameter("N_c", "parameters", "scale of N", log=True, of="alpha_N"),
            Parameter("S_c", "steps", "scale of S", log=True, of="alpha_S"),
        ),
        sources=("Kaplan et al. 2020, eqs. 1.6 and 5.6, Table 3",),
        valid="after warm-up, data not the limit; S adjusted to S_min by eq. 5.4 where batches differ",
        theta=("a", "b", "alpha_N", "alpha_S"),
        exponents=("alpha_N", "alpha_S"),
        evaluate=_kaplan_ns,
        report=lambda t, c: _stack(t[:, 2], t[:, 3], c[0] + t[:, 0] / t[:, 2], c[1] + t[:, 1] / t[:, 3]),
        internal=lambda v: np.array(
            [v["alpha_N"] * math.log(v["N_c"]), v["alpha_S"] * math.log(v["S_c"]), v["alpha_N"], v["alpha_S"]]
        ),
        basis=lambda q, z, y: _linear(y, np.exp(-q[:, :1] * z[0]), np.exp(-q[:, 1:] * z[1])),
        assemble=lambda q, c: _stack(_log(c[:, 0]), _log(c[:, 1]), q[:, 0], q[:, 1]),
        grid=(EXPONENTS, EXPONENTS),
    )


def _kaplan_ns(theta, z):
    a, b, alpha, beta = _columns(theta)
    value, (n, s) = _join(a - alpha * z[0], b - beta * z[1])
    return value, _stack(n, s, -n * z[0], -s * z[1])


def chinchilla() -> Form:
    """L(N, D) = E + A / N^alpha + B / D^beta."""
    return Form(
        name="chinchilla",
        title="law of size and data (Chinchilla)",
        inputs=("N", "D"),
        equation="L(N, D) = E + A / N^alpha + B / D^beta",
        parameters=(
            Parameter("E", "nats per token", "the floor: loss left for unlimited N and D, an extrapolation"),
            Parameter("A", "nats per token times N^alpha", "weight of limited size", log=True, of="alpha"),
            Parameter("B", "nats per token times D^beta", "weight of limited data", log=True, of="beta"),
            Parameter("alpha", "none", "exponent in N"),
            Parameter("beta", "none", "exponent in D"),
        ),
        sources=("Hoffmann et al. 2022, eqs. 2 and 10", "corrected by Besiroglu et al. 2024"),
        valid="runs whose schedule matches their length, each token seen once, N and D varied apart",
        theta=("e", "a", "b", "alpha", "beta"),
        exponents=("alpha", "beta"),
        evaluate=_chinchilla,
        report=lambda t, c: _stack(np.exp(t[:, 0]), t[:, 1] + t[:, 3] * c[0], t[:, 2] + t[:, 4] * c[1], t[:, 3], t[:, 4]),
        internal=lambda v: np.array([*_positive(v, "E", "A", "B"), v["alpha"], v["beta"]]),
        basis=lambda q, z, y: _linear(y, np.ones_like(z[0]), np.exp(-q[:, :1] * z[0]), np.exp(-q[:, 1:] * z[1])),
        assemble=lambda q, c: _stack(_log(c[:, 0]), _log(c[:, 1]), _log(c[:, 2]), q[:, 0], q[:, 1]),
        grid=(EXPONENTS, EXPONENTS),
    )


def _chinchilla(theta, z):
    e, a, b, alpha, beta = _columns(theta)
    value, (floor, n, d) = _join(e, a - alpha * z[0], b - beta * z[1])
    return value, _stack(floor, n, d, -n * z[0], -d * z[1])


# --- repeated data -----------------------------------------------------------------------------------------------


def data_constrained() -> Form:
    """L(N, D, U) = E + A / N'^alpha + B / D'^beta, for D tokens seen of which U are unique.

    D' = U + U R*_D (1 - exp(-R_D / R*_D)) with R_D = D / U - 1 repeats, and N' likewise from U_N, the size that U
    unique tokens would call for, and R_N = N / U_N - 1 (none where N is below U_N).
    """
    names = ("E", "A", "B", "alpha", "beta", "R_star_D", "R_star_N")
    return Form(
        name="data-constrained",
        title="law of repeated data (Muennighoff et al.)",
        inputs=("N", "D", "U"),
        equation="L(N, D, U) = E + A / N'^alpha + B / D'^beta, D' = U + U R_star_D (1 - exp(-(D / U - 1) / R_star_D)), "
        "N' alike with U_N and R_star_N",
        parameters=(
            *chinchilla().parameters,
            Parameter("R_star_D", "epochs", "repeats after which data have lost most of their worth", log=True),
            Parameter("R_star_N", "times U_N", "excess size after which parameters have lost most of theirs", log=True),
        ),
        sources=("Muennighoff et al. 2023",),
        valid="several epochs over U unique tokens, no early stopping; one epoch and forty at least",
        theta=("e", "a", "b", "alpha", "beta", "r_D", "r_N"),
        exponents=("alpha", "beta"),
        evaluate=_data_constrained,
        report=lambda t, c: _stack(
            np.exp(t[:, 0]), t[:, 1] + t[:, 3] * c[0], t[:, 2] + t[:, 4] * c[1], t[:, 3], t[:, 4], t[:, 5], t[:, 6]
        ),
        internal=lambda v: np.array([*_positive(v, "E", "A", "B"), v["alpha"], v["beta"], *_positive(v, *names[5:])]),
        basis=lambda q, z, y: _linear(
            y, np.ones_like(z[0]), np.exp(-q[:, :1] * z[0]), np.exp(-q[:, 1:2] * _effective(z[1], z[2], q[:, 2:])[0])
        ),
        assemble=lambda q, c: _stack(_log(c[:, 0]), _log(c[:, 1]), _log(c[:, 2]), q[:, 0], q[:, 1], q[:, 2], np.full(len(q), math.log(5.0))),
        grid=(EXPONENTS[::2], EXPONENTS[::2], tuple(np.log([3.0, 10.0, 30.0]))),
    )


def _effective(total, unique, r_star):
    """log of x' = u + u R* (1 - exp(-R / R*)), R = x / u - 1 >= 0, and its derivatives in log x, log u and log R*."""
    scale = np.exp(r_star)
    ratio = np.exp(np.clip(total - unique, 0.0, 300.0))
    used = np.minimum((ratio - 1) / scale, 700.0)
    kept = np.exp(-used)
    inside = 1 + scale * (1 - kept)
    value = np.where(total > unique, unique + np.log(inside), total)
    beyond = (total > unique).astype(float)
    d_total = np.where(beyond, ratio * kept / inside, 1.0)
    d_scale = beyond * scale * (1 - kept - used * kept) / inside
    return value, d_total, 1 - d_total, d_scale


def _data_constrained(theta, z):
    e, a, b, alpha, beta, r_D, r_N = _columns(theta)
    # U_N, the best size for U unique tokens: alpha A / N^alpha = beta B / U^beta
    best = np.clip((np.log(alpha) + a - np.log(beta) - b + beta * z[2]) / alpha, -300.0, 300.0)
    data, dD, dU, d_rD = _effective(z[1], z[2], r_D)
    size, dN, d_best, d_rN = _effective(z[0], best, r_N)
    value, (floor, n, d) = _join(e, a - alpha * size, b - beta * data)
    via = -n * alpha * d_best  # what moving U_N does to log loss
    return value, _stack(
        floor,
        n + via / alpha,
        d - via / alpha,
        -n * size + via * (1 / alpha - best) / alpha,
        -d * data + via * (z[2] - 1 / beta) / alpha,
        -d * beta * d_rD,
        -n * alpha * d_rN,
    )


# --- linear once the exponents are chosen ------------------------------------------------------------------------


def _linear(y, *columns):
    """Relative least squares: columns / target against 1, so that errors are those of log loss."""
    y = np.atleast_2d(y)
    scale = np.exp(-y)
    columns = np.broadcast_arrays(*(np.atleast_2d(c) for c in columns), scale)[:-1]
    return np.stack([c * scale for c in columns], 1)


def _log(coefficient: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(coefficient, 1e-30))


FORMS: dict[str, Callable[..., Form]] = {
    "power": power_law,
    "power-floor": power_floor,
    "regions": regions,
    "b-crit": critical_batch,
    "kaplan-nd": kaplan_nd,
    "kaplan-ns": kaplan_ns,
    "chinchilla": chinchilla,
    "data-constrained": data_constrained,
}
ALIASES = {"plateau": "regions", "floor": "power-floor", "b_crit": "b-crit"}


def form(name: str, x: str | None = None) -> Form:
    """The form of this name; `x` names the input of the forms that have one. UserError lists them all."""
    key = ALIASES.get(name, name).replace("_", "-")
    if key not in FORMS:
        raise UserError(f"no law is called {name!r}; there are: {', '.join(FORMS)}")
    make = FORMS[key]
    one = key in ("power", "power-floor", "regions")
    return make(x) if one and x else make()
