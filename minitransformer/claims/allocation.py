"""Chapter V: how to spend a compute budget (Kaplan et al. 2020, §6 and appendix B; Hoffmann et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable

import numpy as np

from .. import papers
from ..laws import batch, formulas, frontier
from ..laws.fit import fit
from ..laws.frontier import NOTHING
from ..laws.law import Estimate, Law
from . import convergence, disagreement, prediction
from .critical import critical_law
from .crossing import FEWEST, counted, crossings, growth, mean_points, overtaking
from .curves import decayed_ends, of_spec
from .definition import Definition, Measurement
from .efficiency import steps_law
from .regression import split_exponent

if TYPE_CHECKING:
    import pandas as pd

COUNTS = {"N": "without embeddings", "N_total": "with embeddings"}


# --- Kaplan's way ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Efficient:
    """The compute-efficient frontier of training curves at one batch and a constant rate.

    points: a row for each pair of sizes: N, C (FLOPs at the runs' own batch), loss, D (tokens), S (steps), B (tokens), and where
    a critical batch is known C_min, S_min and B_crit. N_opt, B_opt, S_opt: exponents in C_min (eq. 1.7); fixed: of N in C.
    """

    points: pd.DataFrame
    critical: Law | Callable | None
    fixed: Estimate = NOTHING
    N_opt: Estimate = NOTHING
    B_opt: Estimate = NOTHING
    S_opt: Estimate = NOTHING
    reason: str = ""


def efficient(runs: pd.DataFrame, critical: Law | Callable | None = None) -> Efficient:
    """Kaplan's way to the best size: Kaplan et al. 2020, eqs. 5.4, 5.5, 6.1 and 6.2, Fig. 14.

    critical: B_crit(L) in tokens, a law of the form b-crit or a function of the loss; else `critical_law` of the same table.
    Intervals are those of lines through the points and their seeds, and in C_min also what the interval of B_crit does.
    """
    if critical is None and "spec" in runs and (runs.spec == "critical_batch").any():
        critical = critical_law(runs)
    seeds = overtaking(runs)
    points, fixed = mean_points(seeds), growth(seeds, "N")
    if fixed.value is None:
        return Efficient(points, critical, reason=f"larger sizes overtake smaller ones at fewer than {FEWEST} places")
    if critical is None or (isinstance(critical, Law) and not critical.ok):
        why = "the table has no runs of several batches" if critical is None else critical.reason
        return Efficient(points, None, fixed, reason=f"no critical batch: {why}")
    middle, variants = _critical_variants(critical, points.loss.to_numpy())
    exponents = [_with(growth(adjusted(seeds, middle), y, "C_min"), [growth(adjusted(seeds, v), y, "C_min").value for v in variants])
                 for y in ("N", "B_crit", "S_min")]
    return Efficient(adjusted(points, middle), critical, fixed, *exponents)


def adjusted(points: pd.DataFrame, critical: Callable) -> pd.DataFrame:
    """The points with B_crit, C_min and S_min by eqs. 5.3 to 5.5."""
    return points.assign(B_crit=critical(points.loss.to_numpy()), C_min=batch.C_min(points.C, points.B, critical, points.loss),
                         S_min=batch.S_min(points.S, points.B, critical, points.loss))


def _critical_variants(critical, loss: np.ndarray) -> tuple[Callable, list[Callable]]:
    """B_crit(L), and pairs of others at the ends of its interval: lower and higher, flatter and steeper about the middle loss."""
    if not isinstance(critical, Law):
        return critical, []
    middle = math.exp(np.log(loss).mean())
    at, power = critical.band(middle), critical.parameters["alpha_B"]
    curve = lambda level, alpha: (lambda L: level * (np.asarray(L, float) / middle) ** (-1 / alpha))
    ends = [curve(level, power.value) for level in (at.low, at.high) if level is not None]
    ends += [curve(at.value, alpha) for alpha in (power.low, power.high) if alpha is not None]
    return curve(at.value, power.value), ends if len(ends) == 4 else []


def _with(estimate: Estimate, others: list[float | None]) -> Estimate:
    """The estimate with its interval widened by others, in pairs of ends: independent errors add up in squares."""
    if estimate.value is None or not others or None in others:
        return estimate
    extra = sum(max(abs(v - estimate.value) for v in pair) ** 2 for pair in (others[:2], others[2:]))
    down, up = (math.sqrt((end - estimate.value) ** 2 + extra) for end in (estimate.low, estimate.high))
    return Estimate(estimate.value, estimate.value - down, estimate.value + up)


def from_exponents(steps: Law, critical: Law) -> dict[str, Estimate]:
    """What eqs. 1.7 and 1.8 make of our own alpha_N, alpha_S and alpha_B: exponents of C_min, and of N, B and S in C_min.

    Intervals by the delta method in logs, with the half-widths of the three exponents taken as independent.
    """
    known = {"N": steps.parameters["alpha_N"], "S": steps.parameters["alpha_S"], "B": critical.parameters["alpha_B"]}
    if any(e.value is None or e.low is None or e.low <= 0 for e in known.values()):
        return {name: NOTHING for name in ("C", "N", "B", "S")}
    centre = {name: math.log(e.value) for name, e in known.items()}
    half = {name: math.log(e.high / e.low) / 2 for name, e in known.items()}

    def at(name: str, logs: dict[str, float]) -> float:
        alpha = {k: math.exp(v) for k, v in logs.items()}
        total = formulas.compute_exponent(alpha["N"], alpha["S"], alpha["B"])
        return math.log(total / alpha[name] if name != "C" else total)

    found = {}
    for name in ("C", "N", "B", "S"):
        middle = at(name, centre)
        moved = [max(abs(at(name, {**centre, k: centre[k] + sign * h}) - middle) for sign in (-1, 1)) for k, h in half.items()]
        spread = math.sqrt(sum(m**2 for m in moved))
        found[name] = Estimate(*(math.exp(middle + s * spread) for s in (0, -1, 1)))
    return found


# --- Chinchilla's three ways -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ways:
    """N ∝ C^a three ways from one table of decayed runs (Hoffmann et al. 2022, §3); reasons: where a way gives none.

    points: where larger sizes overtake. slices, minima: of the second way; best_runs: the mistake beside it. law: of the third.
    """

    envelope: Estimate
    isoflop: Estimate
    parametric: Estimate
    reasons: dict[str, str]
    points: pd.DataFrame = field(repr=False)
    slices: frontier.Slices = field(repr=False)
    minima: frontier.IsoFlop = field(repr=False)
    best_runs: frontier.IsoFlop = field(repr=False)
    law: Law = field(repr=False)


def chinchilla(runs: pd.DataFrame, count: str = "N") -> Ways:
    """Approach 1 (where larger sizes overtake along the horizons), 2 (parabolas at equal compute) and 3 (a fitted law).

    count: N or N_total; C is 6 N D in the same count. The sizes are those that take part in the frontier of the learning curves,
    and all larger ones: the smallest never leave the plateau that all sizes share at first, where no law of size holds.
    """
    ladder, first = of_spec(runs, "ladder"), overtaking(runs)
    ends = decayed_ends(ladder)
    ends = counted(ends[ends.N >= first.N_low.min()] if len(first) else ends, ladder, count)
    seeds = crossings(ends, smooth=True)
    slices = frontier.iso_flops(ends)
    minima = frontier.parabolas(slices)
    law = fit("chinchilla", ends.loss, N=ends.N, D=ends.D, seed=ends.seed)
    found = {"envelope": growth(seeds, "N"), "isoflop": minima.size.a if minima.size else NOTHING,
             "parametric": split_exponent(law)}
    reasons = {
        "envelope": f"a larger size overtakes a smaller one at fewer than {FEWEST} places",
        "isoflop": minima.reason or "the parabolas say too little",
        "parametric": law.reason or "the exponents are not identified",
    }
    reasons = {name: reasons[name] for name, estimate in found.items() if estimate.value is None}
    return Ways(**found, reasons=reasons, points=mean_points(seeds), slices=slices, minima=minima, best_runs=frontier.argmin(slices), law=law)


# --- the claims --------------------------------------------------------------------------------------------------


def allocation(runs: pd.DataFrame) -> Measurement:
    """The exponent of the best size in C_min by Kaplan's way; beside it everything else that these runs say of a split."""
    kaplan = efficient(runs)
    published = lambda key: papers.value(f"kaplan2020.{key}")
    numbers = {"N at the fixed batch of the runs": (published("fixed_batch.N_exponent"), kaplan.fixed),
               "B": (published("optimum.B_exponent"), kaplan.B_opt), "S": (published("optimum.S_exponent"), kaplan.S_opt)}
    if isinstance(kaplan.critical, Law):
        steps = steps_law(runs, kaplan.critical)
        if steps.ok:
            predicted = from_exponents(steps, kaplan.critical)
            numbers["N by eq. 1.8"] = (published("optimum.N_exponent_theory"), predicted["N"])
            numbers |= {f"{name} by eq. 1.8": (None, predicted[name]) for name in ("B", "S")}
    for count, words in COUNTS.items():
        ways = chinchilla(runs, count)
        numbers |= {f"N, Chinchilla's {name}, {words}": (papers.value(f"hoffmann2022.{name}.a"), getattr(ways, name))
                    for name in ("envelope", "isoflop", "parametric")}
    for step in disagreement.steps(runs):
        numbers[f"N, {step.name}"] = (papers.value(f"porian2024.refinedweb.{step.published}"), step.a)
    more = {name: (paper, e.value, e.low, e.high) for name, (paper, e) in numbers.items() if e.value is not None}
    if kaplan.N_opt.value is None:
        return Measurement(None, refusal=kaplan.reason, more=more)
    return Measurement(kaplan.N_opt.value, kaplan.N_opt.low, kaplan.N_opt.high, more=more, reason=_why(kaplan, more))


def _why(kaplan: Efficient, more: dict) -> str:
    """What the runs say of the distance to the paper's exponent."""
    words = ("Our rates suit each size and our warm-up is short: then even a constant rate gives N an exponent of "
             f"{kaplan.fixed.value:.2f} at the runs' own batch.")
    first = f"N, {disagreement.STEPS[0].name}"
    if first in more:
        _, value, low, high = more[first]
        words += (" With Kaplan's set-up put back (one rate, a long warm-up, curves that have not decayed) it is "
                  f"{value:.2f}, of which the runs know little more than that it lies between {low:.2f} and {high:.2f}.")
    return words


DEFINITIONS = (
    Definition(
        id="kaplan.allocation",
        statement="With more compute, most of it should go into size: the exponent of the best N against C_min",
        paper="kaplan2020, eqs. 1.7, 6.1 and 6.2, Figs 3 and 14",
        published="kaplan2020.optimum.N_exponent",
        notebook="notebooks/allocation.ipynb",
        specs=("ladder", "critical_batch", "reconcile"),
        measure=allocation,
    ),
    Definition(
        id="kaplan.convergence",
        statement="Compute-efficient training stops well before convergence: how far above its converged loss a model is left",
        paper="kaplan2020, eq. B.5",
        published="kaplan2020.efficient.above_converged",
        notebook="notebooks/convergence.ipynb",
        specs=("ladder", "critical_batch"),
        measure=convergence.convergence,
        unit="relative",
    ),
    Definition(
        id="kaplan.prediction",
        statement="A law fitted to small runs tells the loss of a larger one: its error for four times the size and sixteen "
                  "times the compute",
        paper="kaplan2020, §1.2 and §8",
        published=None,
        notebook="notebooks/prediction.ipynb",
        specs=("ladder",),
        measure=prediction.prediction,
        agrees=lambda measured, target: abs(measured.value) <= prediction.GOAL,
        if_differs="The form that foretold the small runs best bends otherwise than the large ones.",
        unit="per cent of the loss",
    ),
)
