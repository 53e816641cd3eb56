"""Chapter I: the learning curve of the best model at each training-set size, its power-law region and its law.

The procedure of Hestness et al. 2017, §3: at each training-set size the size of model whose median over seeds of the lowest
validation error is lowest is the best fit, and the curve is that of the best fits. The law goes through all seeds of these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..laws.fit import fit
from ..laws.forms import form
from ..laws.frontier import NOTHING
from ..laws.law import Estimate, Law
from ..laws.uncertainty import fit_line
from .domains import Domain
from .plateau import beyond_plateau, foretell_beyond

if TYPE_CHECKING:
    import pandas as pd

STRAIGHT = 0.03  # a curve is a straight line where its points lie, rms, within this share of the line's fall over the range: on a
                 # fall from 1 to 0.5, whose logarithm is 0.69, within 2 %. A smooth bend may take so much that the slopes at both ends
                 # differ by half to four fifths of their mean: the rule finds where the curve runs straight on the whole, and what
                 # bend is left shows in the hold-out and in the interval, which holds the scatter about the line.
FEWEST = 5       # training-set sizes of a region: two to hold out and three to predict them from
HELD = 2         # largest sizes of the region that are predicted from the others
RESAMPLES = 1000


@dataclass(frozen=True)
class Region:
    """A range of training-set sizes, ends included, in which the curve is a straight line. off: rms distance over fall."""

    low: float
    high: float
    sizes: int
    off: float

    @property
    def decades(self) -> float:
        return math.log10(self.high / self.low)


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """errors: every run (`Domain.errors`); best: `best_fits`; points: every seed of the best fits; law: in the region, whole: over
    all sizes, both as error = (D_c / m)^alpha, so that the paper's beta_g is -alpha; foretold: `foretell`.

    Where nothing is straight for long enough, because the curve is still bending away from its plateau, region is None and `law` is
    that of `plateau.py` over all sizes, if it can be told: beta_g is then that of the power law it bends into."""

    domain: Domain
    errors: pd.DataFrame
    best: pd.DataFrame
    points: pd.DataFrame
    region: Region | None
    law: Law
    whole: Law
    foretold: pd.DataFrame

    @property
    def beta_g(self) -> Estimate:
        return beta_g(self.law)

    @property
    def holdout_error(self) -> float | None:
        """Per cent: of the held-out sizes the one that was foretold worst; positive where the forecast was too high. The region was
        found with these sizes in it; `use.blind` finds it without."""
        return worst(self.foretold)


def beta_g(law: Law) -> Estimate:
    """The paper's exponent, negative where the error falls."""
    return Estimate(-law.exponent.value, -law.exponent.high, -law.exponent.low) if law.ok else NOTHING


def learning_curve(table: pd.DataFrame, domain: Domain) -> LearningCurve:
    """The learning curve of a domain from a table of runs."""
    return curve_of(domain.errors(table), domain)


def curve_of(errors: pd.DataFrame, domain: Domain) -> LearningCurve:
    """The same from `Domain.errors`, or from a part of them."""
    best = best_fits(errors)
    points = errors.merge(best[["m", "model"]], on=["m", "model"])
    region = straight(points)
    if region is None and len(points) and (bent := beyond_plateau(points)).ok and follows(points, bent):
        return LearningCurve(domain, errors, best, points, None, bent, law_of(points), foretell_beyond(points, HELD))
    inside = points[points.m.between(region.low, region.high)] if region else points[:0]
    return LearningCurve(domain, errors, best, points, region, law_of(points, region), law_of(points), foretell(inside))


def best_fits(errors: pd.DataFrame) -> pd.DataFrame:
    """The best size of model for each training-set size: m, model, N, N_total, n_layer, d_model, error (median over seeds), seeds,
    sizes (how many were tried), edge ("smallest" or "largest" where it is that of those tried, else "").

    Without training sets on which only models smaller than the best one of the next smaller set were tried: what they end on is
    their own capacity.
    """
    keys = ["m", "model", "N", "N_total", "n_layer", "d_model"]
    medians = errors.groupby(keys, as_index=False).error.agg(error="median", seeds="size")
    best = medians.loc[medians.groupby("m").error.idxmin()].reset_index(drop=True)
    tried = medians.groupby("m").model.agg(["min", "max", "size"]).loc[best.m].reset_index()
    reached, kept = -1, []
    for at, (model, largest) in enumerate(zip(best.model, tried["max"])):
        if largest >= reached:
            reached = model
            kept.append(at)
    best, tried = best.loc[kept].reset_index(drop=True), tried.loc[kept].reset_index(drop=True)
    edge = np.select([best.model == tried["max"], best.model == tried["min"]], ["largest", "smallest"], "")
    return best.assign(sizes=tried["size"], edge=edge)


def means_by_size(points: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """log m, ascending, and the mean log error of the seeds there."""
    means = np.log(points.error).groupby(points.m).mean().sort_index()
    return np.log(means.index.to_numpy(float)), means.to_numpy()


def straight(points: pd.DataFrame, share: float = STRAIGHT, fewest: int = FEWEST) -> Region | None:
    """The longest range of consecutive sizes, in log m, on which the curve falls and is straight: to within `share` of its fall, or
    to within the error that seeds leave in its points, as no curve is straighter than its seeds show.

    Of equally long ranges the straightest. None where there is none of at least `fewest` sizes.
    """
    x, y = means_by_size(points)
    errors = _squared_errors(points)
    found = []
    for i in range(len(x)):
        for j in range(i + fewest, len(x) + 1):
            slope, level = np.polyfit(x[i:j], y[i:j], 1)
            fall = -slope * (x[j - 1] - x[i])
            rms = math.sqrt(float(np.mean((y[i:j] - level - slope * x[i:j]) ** 2)))
            if fall > 1e-9 and rms <= max(share * fall, math.sqrt(errors[i:j].mean())):
                found.append((round(x[j - 1] - x[i], 6), -rms / fall, i, j))
    if not found:
        return None
    _, off, i, j = max(found)
    m = np.unique(points.m)
    return Region(float(m[i]), float(m[j - 1]), j - i, -off)


def follows(points: pd.DataFrame, law: Law, share: float = STRAIGHT) -> bool:
    """Whether the curve lies as near to a law as a straight one must lie to its line."""
    x, y = means_by_size(points)
    expected = np.log(law.predict(np.exp(x)).value)
    rms = math.sqrt(float(np.mean((y - expected) ** 2)))
    return rms <= max(share * (expected[0] - expected[-1]), math.sqrt(_squared_errors(points).mean()))


def _squared_errors(points: pd.DataFrame) -> np.ndarray:
    """Squared standard error of the mean log error at each m, by the seeds there; 0 where there is one."""
    groups = np.log(points.error).groupby(points.m)
    return (groups.var() / groups.size()).fillna(0.0).sort_index().to_numpy(float)


def law_of(points: pd.DataFrame, region: Region | None | str = "all") -> Law:
    """error = (D_c / m)^alpha through all seeds of the best fits, in the region; over the whole curve unless one is given."""
    if region is None:
        return Law(form("power", "D"), "no_region", f"no {FEWEST} neighbouring sizes of training set lie on a falling line, to within "
                                                    f"{100 * STRAIGHT:.0f} % of its fall or their seeds' noise: train more sizes, or larger models on them")
    within = None if region == "all" else (region.low, region.high)
    return fit("power", points.error.to_numpy(float), D=points.m.to_numpy(float), seed=points.seed.to_numpy(), within=within)


def foretell(points: pd.DataFrame, held: int = HELD) -> pd.DataFrame:
    """The `held` largest sizes predicted by a line through the others, as `forecast`; empty with fewer than three others."""
    m = np.unique(points.m)
    return forecast(points[~points.m.isin(m[-held:])], points[points.m.isin(m[-held:])])


def forecast(known: pd.DataFrame, held: pd.DataFrame) -> pd.DataFrame:
    """Points predicted by the line through others: one row for each of their sizes: m, predicted, low, high, measured, error_percent.

    measured: geometric mean of the seeds; low, high: where 95 % of such means should lie. Empty with fewer than three sizes known.
    """
    import pandas as pd

    columns = ["m", "predicted", "low", "high", "measured", "error_percent"]
    if known.m.nunique() < 3 or not len(held):
        return pd.DataFrame(columns=columns, dtype=float)
    line, (x, y) = fit_line(np.log(known.m.to_numpy(float)), np.log(known.error.to_numpy(float))), means_by_size(held)
    middle, half = line.at(x), line.half_width(1, x - line.centre, 1)
    with np.errstate(over="ignore"):
        rows = np.column_stack([np.unique(held.m), *(np.exp(v) for v in (middle, middle - half, middle + half, y))])
    return pd.DataFrame(np.column_stack([rows, 100 * (rows[:, 1] / rows[:, 4] - 1)]), columns=columns)


def worst(forecasts: pd.DataFrame) -> float | None:
    """The error in per cent, with its sign, of the forecast that missed by most."""
    return float(forecasts.error_percent[forecasts.error_percent.abs().idxmax()]) if len(forecasts) else None


# --- other draws of the seeds --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Grid:
    """Log errors by training-set size, model and seed: m (M,), N (K,), log (M, K, S) with NaN where there is no run."""

    m: np.ndarray
    N: np.ndarray
    log: np.ndarray

    @classmethod
    def of(cls, errors: pd.DataFrame, count: str = "N_total") -> Grid:
        m, row = np.unique(errors.m, return_inverse=True)
        models, column = np.unique(errors.model, return_inverse=True)
        place = errors.groupby(["m", "model"]).cumcount().to_numpy()
        log = np.full((len(m), len(models), place.max() + 1 if len(place) else 1), np.nan)
        log[row, column, place] = np.log(errors.error.to_numpy(float))
        return cls(m, errors.groupby("model")[count].first().to_numpy(float), log)

    @property
    def repeated(self) -> bool:
        """Whether any model was trained twice: else other draws of the seeds say nothing."""
        return bool((np.isfinite(self.log).sum(-1) > 1).any())

    @property
    def medians(self) -> np.ndarray:
        """Median log error over seeds, (M, K); NaN where there is no run."""
        return medians(self.log)

    def draws(self, resamples: int = RESAMPLES) -> np.ndarray:
        """Median log errors of other seeds, (R, M, K)."""
        return medians(self.seeds(resamples))

    def mean_draws(self, resamples: int = RESAMPLES) -> np.ndarray:
        """Mean log errors of other seeds, of the one model there is: (R, M)."""
        return np.nanmean(self.seeds(resamples)[:, :, 0], axis=-1)

    def seeds(self, resamples: int) -> np.ndarray:
        """Log errors of other seeds, (R, M, K, S): each cell's mean, and deviations drawn from all cells of its m.

        Deviations are made larger by sqrt(S / (S - 1)), as a mean of S lies too close to its own seeds.
        """
        random = np.random.RandomState(2017)
        count = np.isfinite(self.log).sum(-1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.nansum(self.log, -1, keepdims=True) / count
            deviation = (self.log - mean) * np.sqrt(count / (count - 1))
        found = np.full((resamples, *self.log.shape), np.nan)
        for i in range(len(self.m)):
            pool = deviation[i][np.isfinite(deviation[i])]
            pool = pool if len(pool) else np.zeros(1)
            found[:, i] = mean[i] + pool[random.randint(len(pool), size=(resamples, *self.log.shape[1:]))]
        return np.where(np.isfinite(self.log), found, np.nan)


def medians(log: np.ndarray) -> np.ndarray:
    """Over the last axis, without those that are NaN; NaN where all are."""
    ordered, count = np.sort(log, axis=-1), np.isfinite(log).sum(-1)
    pick = lambda k: np.take_along_axis(ordered, np.clip(k, 0, log.shape[-1] - 1)[..., None], -1)[..., 0]
    return np.where(count > 0, (pick((count - 1) // 2) + pick(count // 2)) / 2, np.nan)


def spread(value: float, drawn: np.ndarray) -> Estimate:
    """A value with the range that holds 95 % of its resamples, itself included; not identified where a twentieth of them fail."""
    good = drawn[np.isfinite(drawn)]
    if not math.isfinite(value) or len(good) < 0.95 * len(drawn):
        return NOTHING
    low, high = np.percentile(good, [2.5, 97.5])
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))
