"""Chapter IV: sample efficiency and training time (Kaplan et al. 2020, §5 and Figs 2, 4, 10, 19)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Callable

import numpy as np
from scipy.stats import t as student

from .. import papers
from ..laws import batch
from ..laws.fit import fit
from ..laws.law import Estimate, Law
from ..laws.uncertainty import LEVEL
from .critical import (
    critical_law, critical_points, exponents, measure_critical, noise_against, noise_points, of_the_loss_alone, steps_by_batch,
)
from .curves import decayed_ends, of_spec, steps_to, steps_to_losses, training_curves
from .definition import Definition, Measurement

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DEFINITIONS", "against_largest", "critical_law", "critical_points", "critical_when_decayed", "decayed_ends",
           "exponents", "measure_samples", "measure_steps", "noise_against", "noise_points", "steps_by_batch", "steps_law",
           "steps_points", "to_fixed_losses", "tokens_to_losses", "training_curves"]

# Before so many warm-ups, all sizes alike learn which letter follows which; models of fewer parameters stay there for most of
# their training. Neither is part of the law of size and steps.
TRANSIENT = 10
SMALLEST = 10000
ALIKE = 1.1          # trainings within this factor are of one length: last measurements at the full rate may differ a little
SIZES = 4            # that must reach a loss for an exponent in N
FEWER = 300          # resamples of the fits that only show what a choice does to alpha_S


# --- sample efficiency ---------------------------------------------------------------------------------------------


def tokens_to_losses(runs: pd.DataFrame, decayed: bool = False) -> pd.DataFrame:
    """N, seed, L, S and D = B S: what each training of the ladder needed to each fixed loss L.

    At a constant rate, read off the training curve; decayed: between the ends of runs of different length, on lines in logs.
    """
    table = of_spec(runs, "ladder")
    found = steps_to_losses(decayed_ends(table) if decayed else training_curves(table))
    return found.assign(D=found.B * found.S)[["N", "seed", "L", "S", "D"]]


def to_fixed_losses(tokens: pd.DataFrame) -> pd.DataFrame:
    """One row for each fixed loss that SIZES sizes or more reached with all their seeds, from `tokens_to_losses`.

    Columns L, sizes, N_small, N_large, exponent with low and high of D ~ N^exponent over them, and D_small / D_large: how many
    times fewer tokens the largest needs than the smallest that gets there.
    """
    import pandas as pd

    seeds = tokens.groupby("N").seed.nunique()
    rows = []
    for L, group in tokens.groupby("L"):
        reached = group.groupby("N").seed.nunique()
        group = group[group.N.isin(reached.index[reached == seeds[reached.index]])]
        if group.N.nunique() < SIZES:
            continue
        law = fit("power", group.D, N=group.N, seed=group.seed)
        means = np.exp(np.log(group.D.astype(float)).groupby(group.N).mean())
        rows.append((L, len(means), means.index[0], means.index[-1], -law.exponent.value, -law.exponent.high, -law.exponent.low,
                     means.iloc[0] / means.iloc[-1]))
    return pd.DataFrame(rows, columns=["L", "sizes", "N_small", "N_large", "exponent", "low", "high", "factor"]).sort_values(
        "L", ascending=False, ignore_index=True)


def against_largest(runs: pd.DataFrame, decayed: bool = False) -> pd.DataFrame:
    """How many times fewer tokens (or steps) the largest size needs to the loss with which each smaller one ends.

    Columns N, L, factor, low, high and largest (its N). Every size ends where the longest runs of most do; trainings that are shorter are left out,
    and sizes that have fewer seeds than most. Seeds are paired, their log factors averaged, and the interval is Student's; NaN with one seed. Sizes whose end the largest
    passes unseen, before its first measurement after warm-up, are left out.
    """
    import pandas as pd

    table = of_spec(runs, "ladder")
    curves = decayed_ends(table) if decayed else training_curves(table)
    curves = curves[curves.S >= curves.warmup]
    rows = []
    lengths = curves.groupby(["N", "seed"]).S.transform("max")
    curves = curves[lengths > lengths.median() / ALIKE]
    seeds = curves.groupby("N").seed.nunique()
    curves = curves[curves.N.map(seeds) >= seeds.median()]
    if curves.N.nunique() > 1:
        curves = curves[curves.S < ALIKE * curves.groupby(["N", "seed"]).S.max().min()]
        largest = dict(list(curves[curves.N == curves.N.max()].groupby("seed")))
        for N, group in curves[curves.N < curves.N.max()].groupby("N"):
            pairs = []
            for seed, curve in group.groupby("seed"):
                last = curve.loc[curve.S.idxmax()]
                if seed in largest:
                    S = steps_to(largest[seed].S.to_numpy(), largest[seed].loss.to_numpy(), np.array([last.loss]))[0]
                    pairs.append((math.log(last.S / S), math.log(last.loss)))
            if pairs and np.isfinite(pairs).all():
                factors, losses = np.array(pairs).T
                n = len(factors)
                half = float(student.ppf((1 + LEVEL) / 2, n - 1)) * factors.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
                rows.append((N, math.exp(losses.mean()), *np.exp([factors.mean(), factors.mean() - half, factors.mean() + half]),
                             float(curves.N.max())))
    return pd.DataFrame(rows, columns=["N", "L", "factor", "low", "high", "largest"])


def measure_samples(runs: pd.DataFrame) -> Measurement:
    """How many times fewer tokens the largest size needs than the smallest, to the loss with which the smallest ends."""
    factors = against_largest(runs)
    if len(factors) < SIZES - 1 or factors.low.isna().any():
        return Measurement(None, refusal=f"at least {SIZES} sizes of two seeds with dense curves are needed")
    first, last = factors.iloc[0], factors.iloc[-1]
    more = {f"the same for N = {last.N:,.0f}, the next": (None, last.factor, last.low, last.high),
            "N of the largest, among sizes of several seeds": (None, last.largest, None, None)}
    levels = to_fixed_losses(tokens_to_losses(runs))
    if len(levels):
        for name, row in {"widest": levels.loc[levels.sizes.idxmax()], "lowest": levels.iloc[-1]}.items():
            label = f"exponent of tokens against N, to the {name} loss ({row.L:.2f}), {row.sizes:.0f} sizes"
            more[label] = (None, row.exponent, row.low, row.high)
    ends = against_largest(runs, decayed=True).dropna()
    if len(ends):
        row = ends.iloc[0]
        more[f"decayed runs: largest against N = {row.N:,.0f}"] = (None, row.factor, row.low, row.high)
    return Measurement(first.factor, first.low, first.high, more=more)


# --- the law of size and steps -------------------------------------------------------------------------------------


def steps_points(runs: pd.DataFrame, critical: Law | Callable | None = None, *, decayed: bool = False, first: float = 1.0,
                 smallest: float = SMALLEST) -> pd.DataFrame:
    """N, B, S, loss and S_min of the ladder's curves, the mean log loss of the seeds, after `first` x TRANSIENT warm-ups.

    Sizes from `smallest` on. S_min by eq. 5.4 with B_crit at each point's loss; without a critical batch it is S itself.
    """
    table = of_spec(runs, "ladder")
    points = decayed_ends(table) if decayed else training_curves(table)
    points = points[(points.S >= first * TRANSIENT * points.warmup) & (points.N >= smallest)]
    points = points.assign(loss=np.log(points.loss.astype(float))).groupby(["N", "B", "S"], as_index=False).loss.mean()
    points["loss"] = np.exp(points.loss)
    points["S_min"] = batch.S_min(points.S, points.B, critical, points.loss) if critical is not None and len(points) else points.S
    return points


def steps_law(runs: pd.DataFrame, critical: Law | Callable | None = None, *, adjusted: bool = True, decayed: bool = False,
              first: float = 1.0, smallest: float = SMALLEST, resamples: int = 1000) -> Law:
    """L(N, S_min) = (N_c / N)^alpha_N + (S_c / S_min)^alpha_S: Kaplan et al. 2020, eqs. 1.6 and 5.6.

    From the ladder's training curves at a constant rate, or the ends of its decayed runs. S is adjusted to S_min by eq. 5.4 with
    `critical`, else with `critical_law` of the same table (its rows of spec critical_batch). Where neither is to be had, or
    adjusted is False, S are steps at the ladder's own batch, as the law's notes say. Points of one size are resampled together.
    first, smallest: see `steps_points`.
    """
    notes = ()
    if not adjusted:
        critical = None
    elif critical is None and "spec" in runs and (runs.spec == "critical_batch").any():
        critical = critical_law(runs)
        if not critical.ok:
            notes, critical = (f"there is no critical batch: {critical.reason}",), None
    if critical is None:
        notes = ("S are steps at the batch of these runs, not S_min", *notes)
    points = steps_points(runs, critical, decayed=decayed, first=first, smallest=smallest)
    return replace(fit("kaplan-ns", points.loss, N=points.N, S=points.S_min, group=points.N, resamples=resamples), notes=notes)


def measure_steps(runs: pd.DataFrame) -> Measurement:
    """alpha_S, the other constants of the law, and what each choice behind it does to alpha_S."""
    critical = critical_law(runs)
    if not critical.ok:
        return Measurement(None, refusal=f"S_min needs the critical batch: {critical.reason}")
    law = steps_law(runs, critical)
    if not law.ok or law.parameters["alpha_S"].value is None:
        return Measurement(None, refusal=law.reason or "alpha_S is not identified")
    more = {}
    for name in ("alpha_N", "S_c", "N_c"):
        found = law.parameters[name]
        if found.value is not None:
            more[name] = (papers.value(f"kaplan2020.L_NS.{name}"), found.value, found.low, found.high)
    more["residual (rms, %)"] = (None, law.rms_percent, None, None)
    others = {name: alpha for name, alpha in alternatives(runs, critical).items() if alpha.value is not None}
    more |= {f"alpha_S, {name}": (None, a.value, a.low, a.high) for name, a in others.items()}
    alpha = law.parameters["alpha_S"]
    values = {name: a.value for name, a in others.items()} or {"as it is": alpha.value}
    low, high = min(values, key=values.get), max(values, key=values.get)
    points = steps_points(runs, critical)
    adjusted = float(np.median(points.S / points.S_min))
    return Measurement(alpha.value, alpha.low, alpha.high, law.holdout.rms_percent if law.holdout else None, more=more, reason=(
        f"The exponent leans on choices: it is {values[low]:.2f} ({low}) to {values[high]:.2f} ({high}). Our batch lies so far "
        f"below the critical one that steps are divided by {adjusted:.0f} (median); a constant rate leaves noise in the curves."))


def alternatives(runs: pd.DataFrame, critical: Law) -> dict[str, Estimate]:
    """alpha_S by what is done differently: other first steps or sizes, B_crit at the ends of its band or none, decayed runs."""
    measured = noise_points(runs)
    noise = fit("b-crit", measured.B_noise, L=measured.L)
    ways = {
        "from half as many steps on": dict(critical=critical, first=0.5),
        "from twice as many steps on": dict(critical=critical, first=2.0),
        "from four times as many on": dict(critical=critical, first=4.0),
        "all sizes": dict(critical=critical, smallest=0.0),
        "sizes from half the limit on": dict(critical=critical, smallest=SMALLEST / 2),
        "sizes from twice the limit on": dict(critical=critical, smallest=2 * SMALLEST),
        "steps not adjusted": dict(adjusted=False),
        "B_crit: low end of its band": dict(critical=lambda L: critical.band(L).low),
        "B_crit: high end of its band": dict(critical=lambda L: critical.band(L).high),
        "the gradient's noise for B_crit": dict(critical=noise),
        "ends of decayed runs": dict(critical=critical, decayed=True),
        "decayed ends, not adjusted": dict(adjusted=False, decayed=True),
    }
    if not noise.ok:
        del ways["the gradient's noise for B_crit"]
    laws = {name: steps_law(runs, resamples=FEWER, **way) for name, way in ways.items()}
    return {name: law.parameters["alpha_S"] for name, law in laws.items() if law.ok}


def critical_when_decayed(runs: pd.DataFrame) -> pd.DataFrame:
    """What the critical batch would be if small batches were cooled down: N, L, S, S_min, B_crit at a constant rate, and decayed.

    The ladder's decayed runs reach a loss in S steps (the mean of the seeds, between runs of different length). Taken for the
    small end of eq. 5.1, with S_min from the trainings at a constant rate, where large batches have little noise to shed:
    E_min = B (S - S_min), and decayed = E_min / S_min.
    """
    ends = tokens_to_losses(runs, decayed=True)
    ends = ends.assign(B=ends.D / ends.S).groupby(["N", "L"], as_index=False)[["S", "B"]].mean()
    both = critical_points(of_spec(runs, "critical_batch")).merge(ends, on=["N", "L"])
    both["decayed"] = both.B * (both.S / both.S_min - 1)
    return both[["N", "L", "S", "S_min", "B_crit", "decayed"]].sort_values(["N", "L"], ascending=[True, False], ignore_index=True)


DEFINITIONS = (
    Definition(
        id="kaplan.sample_efficiency",
        statement="Larger models reach a loss in fewer steps and tokens: tokens of the smallest size over those of the largest, "
                  "to the loss with which the smallest ends",
        paper="kaplan2020, Figs 2 and 19",
        published="kaplan2020.range.sample_factor",
        notebook="notebooks/sample_efficiency.ipynb",
        specs=("ladder",),
        measure=measure_samples,
        agrees=lambda measured, target: measured.low > 1,
        if_differs="The largest size needs as many tokens as the smallest.",
        unit="times",
    ),
    Definition(
        id="kaplan.L_NS",
        statement="Training curves of all sizes follow one law of size and fewest steps: its exponent in S_min",
        paper="kaplan2020, eq. 1.6",
        published="kaplan2020.L_NS.alpha_S",
        notebook="notebooks/steps.ipynb",
        specs=("ladder", "critical_batch"),
        measure=measure_steps,
        if_differs="The exponent leans on which steps are counted and on the learning rate's schedule.",
    ),
    Definition(
        id="kaplan.B_crit",
        statement="The critical batch depends on the loss and not on the size: alpha_B of B_crit(L)",
        paper="kaplan2020, eq. 1.4, Fig. 10",
        published="kaplan2020.alpha_B",
        notebook="notebooks/critical_batch.ipynb",
        specs=("critical_batch",),
        measure=measure_critical,
        agrees=of_the_loss_alone,
        if_differs="Losses are nats per character, not per word piece, and span a short range.",
    ),
)
