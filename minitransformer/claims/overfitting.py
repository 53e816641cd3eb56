"""Chapter III: overfitting: loss against size and unique text together (Kaplan et al. 2020, §4)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .. import papers
from ..laws.fit import fit
from ..laws.forms import Form, Parameter, form
from ..laws.law import Estimate, Law
from .definition import Definition, Measurement
from .excess import (
    NOTHING, UPDATES, collapse, data_needed, excess_band, excesses, grid, law_excess, onset, scatter, seed_noise, unlimited,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DEFINITIONS", "UPDATES", "by_range", "collapse", "data_needed", "excess_band", "excesses", "floored", "grid",
           "joint_law", "law_excess", "measure_overfitting", "onset", "rule", "scatter", "seed_noise", "unlimited", "without"]

FEWER = 300              # resamples of fits that only show what a choice does
FEW = 100                # and of those whose intervals are not looked at
GROWTH = Parameter("growth", "none", "exponent of N in the data that a size needs", of="alpha_D")


# --- L(N, D) -------------------------------------------------------------------------------------------------------


def rule(excess: float, sizes: tuple[float, ...] = ()) -> Form:
    """Kaplan's L(N, D) that also reports how data must grow with size for overfitting to stay at `excess`: eq. 4.4.

    D = D_scale N^growth, growth = alpha_N / alpha_D; D_scale in tokens is the D for one parameter. D_at_<N>: for each of `sizes`.
    """
    base = form("kaplan-nd")
    needed = Parameter("D_scale", "tokens", "training tokens for one parameter, from the rule", log=True, of="alpha_D")

    def report(theta: np.ndarray, centre: np.ndarray) -> np.ndarray:
        a, b, alpha_N, alpha_D = theta.T
        growth = alpha_N / alpha_D
        log_D_c, log_N_c = centre[1] + b / alpha_D, centre[0] + a / alpha_N
        scale = log_D_c - growth * log_N_c - np.log(np.expm1(math.log1p(excess) / alpha_D))
        return np.column_stack([base.report(theta, centre), growth, scale, *(scale + growth * math.log(N) for N in sizes)])

    return replace(base, report=report, parameters=(
        *base.parameters, GROWTH, needed,
        *(replace(needed, name=f"D_at_{N:.0f}", meaning=f"training tokens for {N:.0f} parameters") for N in sizes)))


def floored() -> Form:
    """E + [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D: Kaplan's form above a floor, such as the entropy of the text."""
    base = form("kaplan-nd")

    def evaluate(theta: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        above, slopes = base.evaluate(theta[:, 1:], z)
        value = np.logaddexp(theta[:, :1], above)
        return value, np.concatenate([np.exp(theta[:, :1] - value)[:, None], np.exp(above - value)[:, None] * slopes], axis=1)

    def basis(q: np.ndarray, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        """With both exponents and the floor chosen, (L - E)^(1 / alpha_D) is linear in the levels of N and D."""
        power, alpha_D, floor = q[:, :1] / q[:, 1:2], q[:, 1:2], np.exp(q[:, 2:])
        above = np.log(np.maximum(np.exp(y) - floor, 0.05 * np.exp(y))) / alpha_D
        return np.stack([np.exp(-power * z[0] - above), np.exp(-z[1] - above)], axis=1)

    def assemble(q: np.ndarray, levels: np.ndarray) -> np.ndarray:
        logs = q[:, 1:2] * np.log(np.maximum(levels, 1e-30))
        return np.column_stack([q[:, 2], logs, q[:, :2]])

    return replace(
        base, name="kaplan-nd-floor", title="law of size and data (Kaplan et al.) above a floor", theta=("e", *base.theta),
        equation="L(N, D) = E + [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D",
        parameters=(Parameter("E", "nats per token", "the floor: loss left for unlimited N and D, an extrapolation"),
                    *base.parameters, GROWTH),
        evaluate=evaluate, basis=basis, assemble=assemble, grid=(*base.grid, tuple(np.log([0.1, 0.4, 0.7, 1.0, 1.3]))),
        report=lambda theta, centre: np.column_stack(
            [np.exp(theta[:, 0]), base.report(theta[:, 1:], centre), theta[:, 3] / theta[:, 4]]),
        internal=lambda values: np.append(math.log(values["E"]) if values["E"] > 0 else -math.inf, base.internal(values)))


def joint_law(table: pd.DataFrame, law: str | Form = "kaplan-nd", updates: float = UPDATES, resamples: int = 1000) -> Law:
    """L(N, D): early-stopped loss against size and unique characters (Kaplan et al. 2020, eq. 1.5), or another form of N and D.

    Sets whose epoch has `updates` or fewer are left out, as in the paper.
    """
    runs = grid(table)
    kept = runs[runs.updates > updates]
    found = fit(law, kept.best_loss, N=kept.N, D=kept.unique_tokens, seed=kept.seed, resamples=resamples)
    left_out = len(runs) - len(kept)
    note = f"{left_out} runs whose epoch has {updates:.0f} updates or fewer were left out"
    return replace(found, notes=(*found.notes, note)) if left_out else found


def by_range(table: pd.DataFrame, resamples: int = FEWER) -> pd.DataFrame:
    """Three forms on ever longer texts: Kaplan's, the same above a floor, and Chinchilla's; one row for each smallest D kept.

    Columns smallest (D), updates (of its epoch), n (runs); for each form <form>_rms and <form>_ahead (per cent: about the fit,
    and of the dearest fifth predicted from the rest); for the first two <form>_growth with _low and _high; alpha_N and alpha_D
    of Kaplan's. NaN where a law was refused or the number is not identified.
    """
    import pandas as pd

    runs, rows = grid(table), []
    shapes = {"kaplan": rule(papers.value("kaplan2020.noise.seed")), "floor": floored(), "chinchilla": form("chinchilla")}
    for smallest in sorted(set(runs.unique_tokens)):
        kept = runs[runs.unique_tokens >= smallest]
        row = {"smallest": float(smallest), "updates": float(kept.updates.min()), "n": len(kept)}
        for name, shape in shapes.items():
            law = joint_law(kept, shape, 0, resamples)
            growth = law.parameters.get("growth", NOTHING)
            row |= {f"{name}_rms": law.rms_percent if law.ok else None,
                    f"{name}_ahead": law.holdout.rms_percent if law.holdout else None,
                    f"{name}_growth": growth.value, f"{name}_low": growth.low, f"{name}_high": growth.high}
            if name == "kaplan":
                row |= {key: law.parameters.get(key, NOTHING).value for key in ("alpha_N", "alpha_D")}
        rows.append(row)
    columns = [f"{name}_{what}" for name in shapes for what in ("rms", "ahead", "growth", "low", "high")]
    return pd.DataFrame(rows, columns=["smallest", "updates", "n", "alpha_N", "alpha_D", *columns], dtype=float)


def without(table: pd.DataFrame, column: str = "d_model") -> dict[float, float]:
    """The growth alpha_N / alpha_D with one width left out, or one size of the text (`unique_tokens`), for each of them."""
    runs = grid(table)
    found = {}
    for value in sorted(set(runs[runs.updates > UPDATES][column])):
        law = joint_law(runs[runs[column] != value], resamples=FEW)
        if law.status == "ok":
            found[float(value)] = law.engine.theta[2] / law.engine.theta[3]
    return found


# --- the claim -----------------------------------------------------------------------------------------------------


def measure_overfitting(table: pd.DataFrame) -> Measurement:
    """The exponent with which data must grow with size, from the joint fit, and what belongs to it."""
    law = joint_law(table, rule(papers.value("kaplan2020.noise.seed")))
    if not law.ok:
        return Measurement(None, refusal=law.reason)
    growth = law.parameters["growth"]
    if growth.value is None or law.parameters["alpha_N"].value is None:
        return Measurement(None, refusal="alpha_N and alpha_D cannot both be told from this grid: widen it")
    published = papers.value("kaplan2020.overfitting.D_exponent")
    theirs = {name: papers.value(f"kaplan2020.L_ND.{name}") for name in ("alpha_N", "alpha_D", "N_c", "D_c")}
    theirs["D_scale"] = papers.value("kaplan2020.overfitting.D_scale")
    more = {name: (paper, *_numbers(law.parameters[name])) for name, paper in theirs.items()
            if law.parameters[name].value is not None}
    more["data_for_8_times_the_model"] = (8**published, 8**growth.value, 8**growth.low, 8**growth.high)
    more["rms_percent"] = (None, law.rms_percent, None, None)
    floor, chinchilla = joint_law(table, floored(), resamples=FEWER), joint_law(table, "chinchilla", resamples=FEW)
    for name, other in (("floor", floor), ("chinchilla", chinchilla)):
        if other.ok:
            more[f"rms_percent_{name}"] = (None, other.rms_percent, None, None)
    if floor.ok and floor.parameters["growth"].value is not None:
        more["growth_with_a_floor"] = (published, *_numbers(floor.parameters["growth"]))
    points = excesses(table)
    if (free := collapse(points)).value is not None:
        more["growth_by_collapse"] = (published, *_numbers(free))
        more["scatter_percent"] = (None, scatter(points, growth.value), None, None)
        more["scatter_percent_by_D_alone"] = (None, scatter(points, 0.0), None, None)
    return Measurement(growth.value, growth.low, growth.high, law.holdout.error_percent if law.holdout else None, more=more,
                       reason=_why(table, law, more.get("growth_with_a_floor")))


def _numbers(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    return estimate.value, estimate.low, estimate.high


def _why(table: pd.DataFrame, law: Law, floor: tuple | None) -> str:
    """Which of the two exponents differ, and what longer texts and a floor do to their ratio."""
    apart = []
    for name in ("alpha_N", "alpha_D"):
        paper, ours = papers.value(f"kaplan2020.L_ND.{name}"), law.parameters[name]
        if not ours.low <= paper <= ours.high:
            apart.append(f"{name} is {ours.value:.3f}, not {paper}")
    runs = grid(table)
    longest_text = runs.unique_tokens[runs.train_tokens > 0].max() / papers.value("kaplan2020.setup.D_smallest")
    later = joint_law(runs[runs.updates > 4 * UPDATES], resamples=FEW)
    others = [f"{later.engine.theta[2] / later.engine.theta[3]:.2f} on texts four times longer"] if later.ok else []
    others += [f"{floor[1]:.2f} above a fitted floor"] if floor else []
    return ". ".join([
        "Of the two exponents, " + " and ".join(apart) if apart else "Neither exponent differs by itself",
        *([f"Their ratio is {' and '.join(others)}"] if others else []),
        f"Our longest limited text has {longest_text:.2f} times as many characters as the paper's shortest has tokens."])


DEFINITIONS = (
    Definition(
        id="kaplan.L_ND",
        statement="Overfitting depends on size and data through N^(alpha_N/alpha_D)/D: how data must grow with size",
        paper="kaplan2020, eqs. 1.5, 4.3 and 4.4",
        published="kaplan2020.overfitting.D_exponent",
        notebook="notebooks/overfitting.ipynb",
        specs=("overfitting",),
        x="unique_tokens", loss="best_loss",
        measure=measure_overfitting,
    ),
)
