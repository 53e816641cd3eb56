"""The critical batch, from trainings at several batches and from the gradient's noise (Kaplan et al. 2020, §5.1, Fig. 10)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

from .. import papers
from ..laws import batch
from ..laws.fit import fit
from ..laws.law import Estimate, Law
from ..laws.optimise import DELTA, minimise
from ..laws.uncertainty import LEVEL, RNG_SEED
from .curves import of_spec, steps_to_losses, training_curves
from .definition import Measurement, complete, inside

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 500
BEGIN = 3         # warm-ups that the quickest batch must have taken to a loss: before, they are a good part of its steps
NEIGHBOURS = 2    # measurements of the gradient, one after the other in each seed, that are taken for one point of training
WEBB = np.sqrt([0.5, 1, 1.5, 0.5, 1, 1.5]) * np.array([1, 1, 1, -1, -1, -1])
ENDS = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]


def steps_by_batch(runs: pd.DataFrame) -> pd.DataFrame:
    """Fewest steps S to each fixed loss L at each size N and batch B (tokens), by the best of the rates `lr` tried for it.

    warmup: steps of the warm-up among them. edge: 1 where that is the highest of three rates or more, -1 where it is the lowest,
    so that another might do better; else 0. Losses that some rate had passed before it was first measured are left out.
    """
    table = of_spec(runs, "critical_batch")
    curves = training_curves(table[table.noise_batches == 0])
    first = curves[curves.S >= curves.warmup].sort_values("S").groupby(["N", "B", "lr", "seed"]).loss.first()
    reached = steps_to_losses(curves)
    seen = first.groupby(["N", "B"]).min().reindex(list(zip(reached.N, reached.B))).to_numpy()
    reached = reached[reached.L.to_numpy() < seen]
    best = reached.loc[reached.groupby(["N", "B", "L"]).S.idxmin()] if len(reached) else reached
    rates = curves.groupby(["N", "B"]).agg(
        min=("lr", "min"), max=("lr", "max"), count=("lr", "nunique"), warmup=("warmup", "max"))
    tried = rates.reindex(list(zip(best.N, best.B)))
    edge = (best.lr.to_numpy() == tried["max"].to_numpy()) * 1 - (best.lr.to_numpy() == tried["min"].to_numpy())
    best = best.assign(edge=np.where(tried["count"].to_numpy() < 3, 0, edge), warmup=tried["warmup"].to_numpy())
    return best[["N", "B", "L", "S", "lr", "warmup", "edge"]].reset_index(drop=True)


def critical_points(runs: pd.DataFrame) -> pd.DataFrame:
    """S_min, E_min and B_crit = E_min / S_min at each size N and fixed loss L at which they are known: eqs. 5.1 and 5.2.

    low, high: 95 % interval of B_crit from the scatter of the batches about eq. 5.1 at that loss; batches: how many there were.
    Losses that some batch reached within BEGIN warm-ups are left out.
    """
    return _points(steps_by_batch(runs))


def _points(steps: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for (N, L), group in steps.groupby(["N", "L"]):
        if (group.S < BEGIN * group.warmup).any():
            continue
        found = batch.critical_batch(group.S, group.S * group.B)
        if found.ok and (B_crit := found.B_crit).value is not None:
            rows.append((N, L, found.S_min.value, found.E_min.value, B_crit.value, B_crit.low, B_crit.high, len(group)))
    return pd.DataFrame(rows, columns=["N", "L", "S_min", "E_min", "B_crit", "low", "high", "batches"])


def critical_law(runs: pd.DataFrame, N: float | None = None) -> Law:
    """B_crit(L) = B* / L^(1/alpha_B), through the mean of the sizes at each loss or one size's points: eq. 5.3. B in tokens."""
    points = critical_points(runs)
    points = points if N is None else points[points.N == N]
    return fit("b-crit", points.B_crit, L=points.L)


# --- how sure: whole batches resampled -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Draws:
    """B_crit (R, n) at the n rows of `points`, had each size and batch had other luck, the same at all its losses."""

    points: pd.DataFrame
    B_crit: np.ndarray

    @cached_property
    def log(self) -> np.ndarray:
        return np.log(self.B_crit)

    def slope(self, N: float | None = None) -> tuple[float, float]:
        """95 % interval of -d log B_crit / d log L = 1 / alpha_B, of one size, or of the mean of the sizes at each loss."""
        rows = np.ones(len(self.points), bool) if N is None else (self.points.N == N).to_numpy()
        L, index = np.unique(self.points.L.to_numpy()[rows], return_inverse=True)
        means = np.stack([self.log[:, rows][:, index == i].mean(1) for i in range(len(L))], 1)
        z = np.log(L) - np.log(L).mean()
        return tuple(-np.percentile(means @ z / (z @ z), ENDS[::-1]))

    def ratio(self) -> tuple[float, float, float]:
        """B_crit of the largest size over that of the smallest: geometric mean over the losses at which both are known."""
        small, large = (self.points[self.points.N == N].reset_index(names="row").set_index("L").row
                        for N in (self.points.N.min(), self.points.N.max()))
        both = small.index.intersection(large.index)
        if not len(both) or self.points.N.nunique() < 2:
            return math.nan, math.nan, math.nan
        a, b = small[both].to_numpy(), large[both].to_numpy()
        known = np.log(self.points.B_crit.to_numpy())
        draws = (self.log[:, b] - self.log[:, a]).mean(1)
        return tuple(float(v) for v in np.exp([np.mean(known[b] - known[a]), *np.percentile(draws, ENDS)]))


def resampled(steps: pd.DataFrame, points: pd.DataFrame, resamples: int = RESAMPLES) -> Draws:
    """The wild cluster bootstrap of the critical points: losses along one curve share their luck, so one weight moves them all.

    steps, points: of `steps_by_batch` and `critical_points`.
    """
    random, form = np.random.RandomState(RNG_SEED), batch.trade()
    weights = {key: WEBB[random.randint(6, size=resamples)] for key, _ in steps.groupby(["N", "B"])}
    found = np.empty((resamples, len(points)))
    for i, point in enumerate(points.itertuples()):
        rows = steps[(steps.N == point.N) & (steps.L == point.L)]
        B = rows.B.to_numpy(float)
        fitted = np.log(point.S_min + point.E_min / B)
        off = (np.log(rows.S.to_numpy(float)) - fitted) * math.sqrt(len(B) / (len(B) - 2))
        drawn = fitted + np.stack([weights[point.N, b] for b in B], 1) * off
        centre = np.log(B).mean()
        start = np.tile([math.log(point.S_min), math.log(point.E_min) - centre], (resamples, 1))
        theta = minimise(form, np.log(B)[None] - centre, drawn, start, DELTA).theta
        found[:, i] = np.clip(np.exp(theta[:, 1] - theta[:, 0] + centre), B.min() / 30, B.max() * 30)
    return Draws(points, found)


# --- the noise of the gradient -------------------------------------------------------------------------------------


def noise_points(runs: pd.DataFrame) -> pd.DataFrame:
    """B_noise = tr Sigma / |G|^2 (tokens), with its interval low, high, along the trainings whose gradients were compared.

    Columns N, S, L (geometric means), B_noise, low, high, measurements. Each point joins the seeds at NEIGHBOURS successive
    measurements. Squared norms of the gradient of one batch and of all `noise_batches` together are two batches for
    McCandlish et al. 2018, appendix A.1: see laws.batch.gradient_noise_scale.
    """
    import pandas as pd

    table = complete(of_spec(runs, "critical_batch"))
    rows = []
    for N, group in table[table.noise_batches > 0].groupby("N"):
        parts = [pd.DataFrame({"S": np.asarray(run.curve_step, float), "L": np.asarray(run.curve_val_loss, float),
                               "small": np.asarray(run.curve_norm2_batch, float), "large": np.asarray(run.curve_norm2_all, float),
                               "B": float(run.batch_size * run.n_ctx), "many": float(run.noise_batches),
                               "warmup": run.warmup_steps})
                 for run in group.itertuples()]
        measured = pd.concat(parts)
        steps = np.sort(measured.S[measured.S >= measured.warmup].unique())
        for i in range(len(steps) - NEIGHBOURS + 1):
            near = measured[measured.S.isin(steps[i : i + NEIGHBOURS])]
            found = batch.gradient_noise_scale(near.B, near.small, near.B * near.many, near.large)
            if found.ok:
                S, L = np.exp(np.log(near[["S", "L"]].to_numpy()).mean(0))
                rows.append((N, S, L, found.B_simple.value, found.B_simple.low, found.B_simple.high, found.n))
    return pd.DataFrame(rows, columns=["N", "S", "L", "B_noise", "low", "high", "measurements"])


def _beside(noise: pd.DataFrame, L, values) -> pd.DataFrame:
    """The noise points at losses between those of L, with a column `other`: values there, on lines in logs."""
    order = np.argsort(L)
    L, values = np.asarray(L, float)[order], np.asarray(values, float)[order]
    near = noise[(noise.L >= L.min()) & (noise.L <= L.max())] if len(L) else noise[:0]
    return near.assign(other=np.exp(np.interp(np.log(near.L), np.log(L), np.log(values))) if len(near) else [])


def _mean_ratio(ratios) -> tuple[float, float, float] | None:
    """Geometric mean with Student's interval; None of fewer than three."""
    off = np.log(np.asarray(ratios, float))
    if len(off) < 3:
        return None
    half = float(student.ppf((1 + LEVEL) / 2, len(off) - 1)) * off.std(ddof=1) / math.sqrt(len(off))
    return tuple(float(v) for v in np.exp([off.mean(), off.mean() - half, off.mean() + half]))


def noise_against(points: pd.DataFrame, noise: pd.DataFrame) -> pd.DataFrame:
    """The noise points at losses where that size's B_crit is known, with it in a column (on lines in logs between losses)."""
    import pandas as pd

    parts = [_beside(noise[noise.N == N], known.L, known.B_crit) for N, known in points.groupby("N")]
    return pd.concat(parts or [noise[:0].assign(other=[])], ignore_index=True).rename(columns={"other": "B_crit"})


def noise_ratio(noise: pd.DataFrame) -> tuple[float, float, float] | None:
    """B_noise of the largest size over that of the smallest at equal loss, where they overlap; None where they do not."""
    if noise.N.nunique() < 2:
        return None
    small, large = (noise[noise.N == N] for N in (noise.N.min(), noise.N.max()))
    both = _beside(small, large.L, large.B_noise)
    return _mean_ratio(both.other / both.B_noise)


# --- the claim -----------------------------------------------------------------------------------------------------


def exponents(runs: pd.DataFrame) -> dict[str, Estimate]:
    """alpha_B by what is done differently: one size alone, a batch left out, low losses alone; and of the gradient's noise.

    Each with the interval of its own line. Those that cannot be told are left out.
    """
    steps, points, noise = steps_by_batch(runs), critical_points(runs), noise_points(runs)
    ways = {f"N = {N:,.0f} alone": own for N, own in points.groupby("N")}
    if len(points):
        ways["the lower half of the losses"] = points[points.L <= np.median(points.L.unique())]
        ways["without the smallest batch"] = _points(steps[steps.B > steps.B.min()])
        ways["without the largest batch"] = _points(steps[steps.B < steps.B.max()])
        same = noise[(noise.L >= points.L.min()) & (noise.L <= points.L.max())]
        ways["the gradient's noise, same losses"] = same.rename(columns={"B_noise": "B_crit"})
    laws = {name: fit("b-crit", table.B_crit, L=table.L) for name, table in ways.items()}
    found = {name: law.parameters["alpha_B"] for name, law in laws.items() if law.ok}
    return {name: alpha for name, alpha in found.items() if alpha.value is not None}


RATIO = "B_crit, largest over smallest size at equal loss"


def measure_critical(runs: pd.DataFrame) -> Measurement:
    """alpha_B, whether the size matters at equal loss, and whether the gradient's noise tells the same.

    The interval is the wider, at each end, of two: whole batches resampled, and the scatter of the losses about the line.
    """
    points = critical_points(runs)
    law = fit("b-crit", points.B_crit, L=points.L)
    if not law.ok:
        return Measurement(None, refusal=law.reason)
    draws, alpha = resampled(steps_by_batch(runs), points), law.parameters["alpha_B"]
    low, high = draws.slope()
    if alpha.value is None or min(alpha.low, low) <= 0:
        return Measurement(None, refusal="the critical batch does not measurably grow as the loss falls")
    value, low, high = alpha.value, min(alpha.low, 1 / high), max(alpha.high, 1 / low)

    noise, star = noise_points(runs), law.parameters["B_star"]
    more, reason = {}, ""
    if points.N.nunique() > 1 and not math.isnan((ratio := draws.ratio())[0]):
        more[RATIO] = (None, *ratio)
        reason = f"At equal loss the larger size's critical batch is {ratio[0]:.2f} times the smaller's"
        if of_noise := noise_ratio(noise):
            more["B_noise, largest over smallest size at equal loss"] = (None, *of_noise)
            reason += f", the noise of its gradient {of_noise[0]:.2f} times"
        reason += ". At a constant rate, small batches hardly reach the last losses that a size can reach."
    if over := _mean_ratio((both := noise_against(points, noise)).B_noise / both.B_crit):
        more["B_noise over B_crit"] = (None, *over)
    more |= {f"alpha_B, {name}": (None, a.value, a.low, a.high) for name, a in exponents(runs).items()}
    more["B* (tokens)"] = (papers.value("kaplan2020.B_star"), star.value, star.low, star.high)
    doubling = (1 - 2.0**-v for v in (value, low, high))
    more["fall of the loss that doubles B_crit"] = (papers.value("kaplan2020.batch.doubling_drop"), *doubling)
    return Measurement(value, low, high, more=more, reason=reason)


def of_the_loss_alone(measured: Measurement, target: float | None) -> bool:
    """The paper's exponent lies in our interval and, where there are two sizes, no difference between them is seen."""
    _, _, low, high = measured.more.get(RATIO, (None, 1.0, 1.0, 1.0))
    return inside(measured, target) and low <= 1 <= high
