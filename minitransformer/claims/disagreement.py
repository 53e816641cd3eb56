"""Why Kaplan and Chinchilla differ: their set-ups switched one at a time on our own runs, and the part of the vocabulary.

After Porian et al. 2024 (what is counted, warm-up, decay, rates) and Pearce & Song 2024 (embeddings).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..laws import frontier
from ..laws.fit import fit
from ..laws.formulas import FLOPS
from ..laws.frontier import NOTHING
from ..laws.law import Estimate, Law
from .curves import of_spec
from .definition import complete
from .regression import split_exponent

if TYPE_CHECKING:
    import pandas as pd

BUDGETS = 8  # at which each step is read
AROUND = 3   # sizes on either side of the best one that its parabola goes through
WARMED = 5   # warm-ups: shorter runs of a vocabulary have learnt next to nothing


# --- one change at a time ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One set-up: which runs, how N and C are counted, and where Porian et al. 2024 have it (key after porian2024.refinedweb)."""

    name: str
    short: str
    published: str
    spec: str
    schedule: str
    warm_up: str            # "long", "short"
    count: str              # N, or N_head: with the last layer


STEPS = (
    Step("Kaplan's set-up", "Kaplan's set-up", "a_kaplan", "reconcile", "cosine", "long", "N"),
    Step("the last layer counted", "+ last layer counted", "a_head", "reconcile", "cosine", "long", "N_head"),
    Step("a short warm-up", "+ short warm-up", "a_warmup", "reconcile", "cosine", "short", "N_head"),
    Step("decay matched to the length", "+ decay matched", "a_cosine", "reconcile", "cooldown", "short", "N_head"),
    Step("rates tuned for each size", "+ rates tuned", "a_tuned", "ladder", "cooldown", "short", "N_head"),
)


@dataclass(frozen=True, eq=False)
class Stepped:
    """What a step gives: a, the exponent of the best size, and the parabolas it comes from; reason where there is none."""

    step: Step
    a: Estimate
    found: frontier.IsoFlop
    slices: frontier.Slices
    reason: str = ""

    name = property(lambda self: self.step.name)
    published = property(lambda self: self.step.published)


def rows_of(runs: pd.DataFrame, step: Step) -> pd.DataFrame:
    """N, D, C and loss of a step: every measurement of its curves under a cosine, the ends of its runs where decay matches.

    The ladder gives the sizes that `reconcile` has too.
    """
    import pandas as pd

    table = complete(of_spec(runs, step.spec))
    table = table[table.schedule == step.schedule]
    if step.spec == "ladder":
        table = table[table.N.isin(of_spec(runs, "reconcile").N)]
    elif len(table):
        longest = table.warmup_steps.max() if step.schedule == "cosine" else math.inf
        table = table[table.warmup_steps == longest] if step.warm_up == "long" else table[table.warmup_steps < longest]
    if step.schedule == "cosine":
        parts = [pd.DataFrame({"N": row[step.count], "D": np.asarray(row.curve_tokens, float),
                               "loss": np.asarray(row.curve_val_loss, float)}) for _, row in table.iterrows()]
        found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["N", "D", "loss"], dtype=float)
    else:
        found = table[[step.count, "D", "loss"]].set_axis(["N", "D", "loss"], axis=1)
    found = found.astype(float)
    return found.assign(C=FLOPS * found.N * found.D)


def steps(runs: pd.DataFrame) -> list[Stepped]:
    """Each step's exponent at the same budgets and by the same parabolas; empty where the table has no such runs.

    The budgets lie evenly over those at which the runs with matched decay, at one rate, have enough sizes; in the first step
    their C is counted without the last layer, as everything there is.
    """
    if "spec" not in runs or not (runs.spec == "reconcile").any():
        return []
    matched = next(step for step in STEPS if step.schedule == "cooldown")
    budgets = {count: frontier.iso_flops(rows_of(runs, replace(matched, count=count))).C for count in ("N", "N_head")}
    return [_stepped(runs, step, budgets[step.count]) for step in STEPS]


def _stepped(runs: pd.DataFrame, step: Step, budgets: np.ndarray) -> Stepped:
    rows = rows_of(runs, step)
    if len(budgets):
        budgets = np.geomspace(budgets[0], budgets[-1], BUDGETS)
    slices = around(frontier.iso_flops(rows, budgets))
    found = frontier.parabolas(slices)
    if found.size is None or found.size.a.value is None:
        return Stepped(step, NOTHING, found, slices, found.reason or "the parabolas say too little")
    return Stepped(step, found.size.a, found, slices)


def around(slices: frontier.Slices, sizes: int = AROUND) -> frontier.Slices:
    """The slices with only the `sizes` next smaller and larger ones beside the best size of each budget.

    Far from its minimum the loss is no parabola in log N: curves that reach a hundred times in N would be fitted by their arms.
    """
    kept = np.zeros(len(slices.N), bool)
    for b in range(len(slices.C)):
        rows = np.nonzero(slices.budget == b)[0]
        rows = rows[np.argsort(slices.N[rows])]
        if len(rows):
            best = int(np.argmin(slices.loss[rows]))
            kept[rows[max(best - sizes, 0) : best + sizes + 1]] = True
    return replace(slices, budget=slices.budget[kept], N=slices.N[kept], D=slices.D[kept], weights=slices.weights[kept])


def price_of_one_rate(runs: pd.DataFrame) -> pd.DataFrame:
    """Loss at one rate for all sizes over that at a rate for each, per cent: a row for each N, a column for each length."""
    one, tuned = (complete(of_spec(runs, name)) for name in ("reconcile", "ladder"))
    mean = lambda t: np.exp(np.log(t.loss).groupby([t.N, t.steps]).mean())
    ratio = (mean(one[one.schedule == "cooldown"]) / mean(tuned)).dropna()
    return (100 * (ratio - 1)).unstack()


# --- vocabularies ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """One vocabulary's runs. width_share: (N_total - N) / N^(1/2), which depends on the vocabulary alone at a fixed depth.

    a, a_total: exponents of the best size without and with embeddings, beta / (alpha + beta) of Chinchilla's law fitted to the same
    runs in either count; N: the smallest and largest size trained; expected: the mean exponent between those by Pearce & Song's
    argument; points: N, N_total, D, C, C_total, loss per character of what was fitted; reason: why there is no a.
    """

    name: str
    size: int
    width_share: float
    a: Estimate
    a_total: Estimate
    N: tuple[float, float]
    expected: Estimate
    points: pd.DataFrame
    reason: str = ""


def per_character(runs: pd.DataFrame, bytes_per_character: float) -> pd.DataFrame:
    """Runs with loss_per_character (nats) and characters (seen in training): a token is worth the characters it stands for."""
    worth = runs.bytes_per_token / bytes_per_character
    return runs.assign(loss_per_character=runs.loss / worth, characters=runs.D * worth)


def vocabularies(runs: pd.DataFrame, law: Law | None = None, bytes_per_character: float = 1.0) -> list[Vocabulary]:
    """The best size against compute for each vocabulary, smallest first, beside what embeddings alone would make of `law`.

    law: Chinchilla's form in N_total, whose alpha and beta are taken for every vocabulary.
    """
    table = per_character(complete(runs), bytes_per_character)
    return [_vocabulary(group, law) for _, group in sorted(table.groupby("vocab_size"))]


def _vocabulary(group: pd.DataFrame, law: Law | None) -> Vocabulary:
    group = group[group.steps >= WARMED * group.warmup_steps]
    share = float(np.median((group.N_total - group.N) / np.sqrt(group.N)))
    laws = {count: fit("chinchilla", group.loss_per_character, N=group[count], D=group.D) for count in ("N", "N_total")}
    ends = (float(group.N.min()), float(group.N.max()))
    expected = _expected(law, share, ends) if law is not None else NOTHING
    name = {"byte": "bytes", "char": "characters"}.get(group.tokenizer.iloc[0], f"BPE {int(group.vocab_size.iloc[0]):,}")
    points = group[["N", "N_total", "D", "C", "C_total", "loss_per_character", "characters"]]
    a = split_exponent(laws["N"])
    return Vocabulary(name, int(group.vocab_size.iloc[0]), share, a, split_exponent(laws["N_total"]), ends, expected, points,
                      "" if a.value is not None else laws["N"].reason or "the exponents are not identified")


def local_exponent(N, omega: float, alpha: float, beta: float, power: float = 1 / 2):
    """d log N* / d log C without embeddings, if Chinchilla's law holds for all parameters N_total = N + omega N^power.

    Pearce & Song 2024 have power 1/3: width and depth grow together (`laws.formulas.local_exponent`). At a fixed depth the
    embeddings grow as the width, the square root of N.
    """
    n = np.asarray(N, float) ** (1 - power)
    first = (n + power * omega) / (n + omega)                 # d log N_total / d log N
    second = (n + power**2 * omega) / (n + power * omega)     # 1 + the same of its derivative
    return 1 / (1 - second / beta + (alpha + 1) / beta * first)


def mean_exponent(low: float, high: float, omega: float, alpha: float, beta: float, power: float = 1 / 2) -> float:
    """The exponent over a range of best sizes: its length in log N over that in log C."""
    z = np.linspace(math.log(low), math.log(high), 101) if high > low else np.full(2, math.log(low))
    inverse = 1 / local_exponent(np.exp(z), omega, alpha, beta, power)
    return float(1 / np.mean((inverse[1:] + inverse[:-1]) / 2))


def _expected(law: Law, omega: float, ends: tuple[float, float]) -> Estimate:
    """mean_exponent by a law of N_total; the interval is what the intervals of its alpha and beta make of it."""
    if not law.ok or any(law.parameters[name].low is None for name in ("alpha", "beta")):
        return NOTHING
    alpha, beta = law.parameters["alpha"], law.parameters["beta"]
    at = lambda a, b: mean_exponent(*ends, omega, a, b)
    middle = at(alpha.value, beta.value)
    off = [max(abs(at(a, beta.value) - middle) for a in (alpha.low, alpha.high) if a > 0),
           max(abs(at(alpha.value, b) - middle) for b in (beta.low, beta.high) if b > 0)]
    return Estimate(middle, middle - math.hypot(*off), middle + math.hypot(*off))
