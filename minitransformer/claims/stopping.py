"""Chapter III: when to stop on limited text (Kaplan et al. 2020, §5.3 and Fig. 16)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Mapping

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import beta, t as student

from .. import papers
from ..laws.formulas import stop_bound
from ..laws.law import Estimate
from .curves import of_spec, steps_to, training_curves
from .definition import Definition, Measurement
from .efficiency import TRANSIENT, steps_law
from .excess import NOTHING, grid, unlimited
from .overfitting import FEW, joint_law

if TYPE_CHECKING:
    import pandas as pd

FAR = 1e30  # characters: where the joint law has reached its limit
COLUMNS = ["N", "D", "loss", "step", "ratio", "stopped", "last", "last_loss", "excess", "bound", "inside", "fresh", "train",
           "fresh_val", "fresh_train", "limit"]


# --- learning curves on unlimited text ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Fresh:
    """L(N, S) = L_N + (S_c / S)^alpha_S, learning curves on unlimited text with one S-term: eq. 1.6 without its law of N.

    limits: L_N by N (nats). first, last: the steps fitted. rms_percent: of the residuals, in per cent of the loss. Without a
    fit, `reason` says why.
    """

    alpha_S: Estimate = NOTHING
    S_c: Estimate = NOTHING
    limits: Mapping[float, float] = field(default_factory=dict)
    first: float = math.nan
    last: float = math.nan
    rms_percent: float = math.nan
    reason: str = ""

    @property
    def ok(self) -> bool:
        return not self.reason

    def loss(self, N: float, S: np.ndarray) -> np.ndarray:
        return self.limits[N] + (self.S_c.value / np.asarray(S, float)) ** self.alpha_S.value

    def bound(self, N: float, loss: float) -> float:
        """The step before which eq. 5.7 allows no run of size N to stop at this loss; infinite at the limit and below it."""
        return float(stop_bound(loss - self.limits[N], self.alpha_S.value, self.S_c.value))


def shared_curve(curves: pd.DataFrame) -> Fresh:
    """Fit `Fresh` to curves with columns N, warmup, S, loss, from TRANSIENT warm-ups on.

    Least squares of relative errors: for a given alpha_S the other parameters are linear. Intervals: jackknife over sizes.
    """
    kept = curves[curves.S >= TRANSIENT * curves.warmup]
    kept = kept[kept.groupby("N").S.transform("nunique") >= 4]
    if kept.N.nunique() < 3:
        return Fresh(reason="fewer than three sizes have four measurements after the first steps")
    alpha, log_S_c, limits, rms = _shared(kept)
    if not 0.03 < alpha < 2.9:
        return Fresh(reason="the learning curves show no power of S above a limit")
    sizes = sorted(limits)
    left = np.array([_shared(kept[kept.N != N])[:2] for N in sizes])
    half = student.ppf(0.975, len(sizes) - 1) * np.sqrt((len(sizes) - 1) * left.var(axis=0))
    exponent = Estimate(alpha, float(alpha - half[0]), float(alpha + half[0]))
    scale = Estimate(*(math.exp(log_S_c + side * half[1]) for side in (0, -1, 1)))
    return Fresh(exponent, scale, limits, float(kept.S.min()), float(kept.S.max()), rms)


def _shared(curves: pd.DataFrame) -> tuple[float, float, dict[float, float], float]:
    """alpha_S, log S_c, the limits by N, and the residuals' rms in per cent."""
    sizes, index = np.unique(curves.N.to_numpy(float), return_inverse=True)
    loss, logs = curves.loss.to_numpy(float), np.log(curves.S.to_numpy(float))
    levels = np.eye(len(sizes))[index]

    def solve(alpha: float) -> tuple[np.ndarray, np.ndarray]:
        columns = np.column_stack([levels, np.exp(-alpha * (logs - logs.mean()))]) / loss[:, None]
        found = np.linalg.lstsq(columns, np.ones(len(loss)), rcond=None)[0]
        return found, columns @ found - 1

    alpha = float(minimize_scalar(lambda trial: float((solve(trial)[1] ** 2).sum()), bounds=(0.02, 3.0), method="bounded").x)
    found, left = solve(alpha)
    log_S_c = math.log(max(found[-1], 1e-300)) / alpha + float(logs.mean())
    return alpha, log_S_c, dict(zip(sizes.tolist(), found[:-1].tolist())), 100 * math.sqrt(float(np.mean(left**2)))


def fresh_curves(table: pd.DataFrame) -> Fresh:
    """Of the grid's own unlimited runs: the same batch, rate and averaging of weights as the runs that are stopped."""
    return shared_curve(training_curves(unlimited(table)))


def stopping(table: pd.DataFrame, curves: Fresh | None = None) -> pd.DataFrame:
    """Each run on limited text whose size has an unlimited run too: where it stopped, and where eq. 5.7 allows it to.

    curves: S_c, alpha_S and L(N, infinity), `fresh_curves` unless given. Columns:
    N, D (unique characters), loss and step (the best), ratio (between measurements: how well the step is known), stopped (it
    was measured `patience` times beyond its best), last, last_loss (where its training ended);
    excess (nats above the limit), bound (steps, eq. 5.7), inside (the curves were fitted at so few steps);
    fresh (the step at which the unlimited run of this size had the same loss);
    at the best step train (mean training loss since the measurement before) and, of the unlimited run, fresh_val, fresh_train
    (between its measurements where they fall on other steps);
    limit (the lowest loss of the unlimited run).
    """
    import pandas as pd

    curves = fresh_curves(table) if curves is None else curves
    others = list(unlimited(table).itertuples())
    of_seed, of_size = ({key(run): run for run in reversed(others)} for key in (lambda run: (run.N, run.seed), lambda run: run.N))
    rows = []
    for run in grid(table).sort_values(["N", "unique_tokens", "seed"]).itertuples():
        other = of_seed.get((run.N, run.seed), of_size.get(run.N))
        if run.train_tokens == 0 or other is None:
            continue
        at = list(run.curve_step).index(run.best_step)
        steps, losses = np.asarray(other.curve_step, float), np.asarray(other.curve_val_loss, float)
        then = lambda curve: float(np.interp(np.log(run.best_step), np.log(steps), np.asarray(curve, float), left=math.nan, right=math.nan))
        known = curves.ok and float(run.N) in curves.limits
        bound = curves.bound(float(run.N), run.best_loss) if known else math.nan
        rows.append({
            "N": float(run.N), "D": float(run.unique_tokens), "loss": run.best_loss, "step": float(run.best_step),
            "ratio": run.eval_ratio, "stopped": len(run.curve_step) - 1 - at >= max(run.patience, 1),
            "last": float(run.curve_step[-1]), "last_loss": run.curve_val_loss[-1],
            "excess": run.best_loss - curves.limits[float(run.N)] if known else math.nan, "bound": bound,
            "inside": bool(known and curves.first <= bound < math.inf),
            "fresh": steps_to(steps, losses, np.array([run.best_loss]))[0], "train": run.curve_train_loss[at],
            "fresh_val": then(losses), "fresh_train": then(other.curve_train_loss), "limit": other.best_loss,
        })
    kinds = {name: bool if name in ("stopped", "inside") else float for name in COLUMNS}
    return pd.DataFrame(rows, columns=COLUMNS).astype(kinds)


def gaps(points: pd.DataFrame) -> pd.DataFrame:
    """At the best step of the runs that stopped: what the training loss suggests, and what limited text cost. Nats.

    gap: validation loss less training loss. own: the same of the unlimited run at that step, which cannot overfit: what the two
    texts and the two ways of measuring differ by. behind: how far the validation loss lies above the unlimited run's at that
    step; cost: above its lowest.
    """
    stopped = points[points.stopped]
    return stopped[["N", "D", "step"]].assign(gap=stopped.loss - stopped.train, own=stopped.fresh_val - stopped.fresh_train,
                                              behind=stopped.loss - stopped.fresh_val, cost=stopped.loss - stopped.limit)


def share(hits: int, n: int) -> Estimate:
    """A share with its 95 % interval (Clopper and Pearson 1934)."""
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    return Estimate(hits / n, low, float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0)


def holds(points: pd.DataFrame, bound: str = "bound") -> Estimate:
    """Share of runs that stopped no earlier than the bound, where the step is taken as late as the measurements allow."""
    return share(int((points.step * points.ratio >= points[bound]).sum()), len(points))


def tightness(points: pd.DataFrame, bound: str = "bound", resamples: int = 2000) -> Estimate:
    """Median of stopping step over bound, with the 95 % interval of a bootstrap over texts, as runs on one text go together."""
    ratios = {D: group.to_numpy() for D, group in (points.step / points[bound]).groupby(points.D)}
    texts = list(ratios.values())
    draw = np.random.RandomState(0)
    medians = [np.median(np.concatenate([texts[i] for i in draw.randint(len(texts), size=len(texts))])) for _ in range(resamples)]
    low, high = np.percentile(medians, [2.5, 97.5])
    return Estimate(float(np.median(np.concatenate(texts))), float(low), float(high))


def other_bounds(table: pd.DataFrame) -> dict[str, Fresh]:
    """The same bound with constants from elsewhere, by where they come from; only those that could be fitted.

    L_NS: eq. 1.6 as it stands, from the grid's unlimited runs. L_ND: L(N, infinity) from the joint fit at unlimited D, as
    in the paper's Fig. 16. ladder: from the curves of the ladder, whose weights are not averaged, where the table has them.
    """
    own, found = fresh_curves(table), {}
    if not own.ok:
        return found
    law = steps_law(unlimited(table).drop(columns="spec", errors="ignore"), adjusted=False)
    values = {name: e.value for name, e in law.parameters.items()}
    if law.ok and None not in values.values():
        limits = {N: (values["N_c"] / N) ** values["alpha_N"] for N in own.limits}
        found["L_NS"] = replace(own, alpha_S=law.parameters["alpha_S"], S_c=law.parameters["S_c"], limits=limits,
                                rms_percent=law.rms_percent)
    joint = joint_law(table, resamples=FEW)
    if joint.status == "ok":
        found["L_ND"] = replace(own, limits={N: float(joint.predict(N=N, D=FAR).value) for N in own.limits})
    if "spec" in table and (table.spec == "ladder").any():
        curves = training_curves(of_spec(table, "ladder"))
        ladder = shared_curve(curves[curves.N.isin(own.limits)])
        found |= {"ladder": ladder} if ladder.ok else {}
    return found


def measure_stopping(table: pd.DataFrame) -> Measurement:
    """How many runs stopped no earlier than eq. 5.7 allows, how close to it, and whether its assumption holds without any law."""
    curves = fresh_curves(table)
    if not curves.ok:
        return Measurement(None, refusal=f"no learning curve on unlimited text: {curves.reason}")
    every = stopping(table, curves)
    points = every[every.stopped & every.inside]
    if len(points) < 5:
        return Measurement(None, refusal=f"{len(points)} runs stopped where the learning curves were fitted; five are asked for")
    found, tight = holds(points), tightness(points)
    more = {name: (papers.value(f"kaplan2020.L_NS.{name}"), e.value, e.low, e.high)
            for name, e in (("S_c", curves.S_c), ("alpha_S", curves.alpha_S))}
    more["runs"] = (None, float(len(points)), None, None)
    more["median_step_over_bound"] = (None, tight.value, tight.low, tight.high)
    direct = every[every.stopped & every.fresh.notna()]
    reason = ""
    if len(direct):
        seen, close = holds(direct, "fresh"), tightness(direct, "fresh")
        more["share_without_a_law"] = (None, seen.value, seen.low, seen.high)
        more["median_step_over_unlimited"] = (None, close.value, close.low, close.high)
        reason = (f"Without a law, {seen.value:.0%} of the runs stop no earlier than the unlimited run of their size has the "
                  f"same loss; what eq. 5.7 adds to that are the fitted curves, which miss theirs by {curves.rms_percent:.1f} %.")
    for name, other in other_bounds(table).items():
        points = stopping(table, other)
        points = points[points.stopped & points.inside]
        if len(points):
            theirs = holds(points)
            more[f"share_with_{name}"] = (None, theirs.value, theirs.low, theirs.high)
    return Measurement(found.value, found.low, found.high, more=more, reason=reason)


DEFINITIONS = (
    Definition(
        id="kaplan.early_stop",
        statement="Early stopping comes no sooner than eq. 5.7 allows: the share of stopped runs at or beyond that step",
        paper="kaplan2020, eq. 5.7 and Fig. 16",
        published=None,
        notebook="notebooks/early_stopping.ipynb",
        specs=("overfitting",),
        x="unique_tokens", loss="best_loss",
        measure=measure_stopping,
        agrees=lambda measured, target: measured.value >= 0.95,
        if_differs="Some runs stop earlier than the law of size and steps allows.",
    ),
)
