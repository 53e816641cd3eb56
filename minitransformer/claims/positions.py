"""Loss by position in the context: fits, noise, and one architecture against another (Kaplan et al. 2020, §3.2.1, appendix D.5).

`by_position` of a run holds its final validation loss at each position of its context, shape (n_ctx,), nats per character: the
first entry is the loss of the character after one known character, so that its position T is 1.

The windows of text are the same for all runs of one n_ctx. What is hard in them at some position is hard for every model, so
differences between models are far better known than the loss of one model from position to position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2

from .. import papers
from ..laws.fit import fit
from ..laws.law import Estimate
from .curves import of_spec
from .definition import Measurement, complete, inside, longest
from .regression import held

if TYPE_CHECKING:
    import pandas as pd

FIRST, EARLY = 5, 16    # the early part of the context, from the first position that has a counterpart in the paper, whose first
                        # word piece has more than four characters; the late part is the last half
QUIET = 16              # beyond this position the loss changes so slowly that neighbours differ by noise
POOR = 0.01             # a law whose misfit chance explains less often than this is not taken for a description
RESAMPLES = 2000
CHANCE = "chance of so large a misfit"


def positions(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of the log loss at each position: a row for each shape and length, column `log_loss` of arrays (n_ctx,)."""
    runs = complete(table)
    runs = runs[held(runs, "by_position")]
    runs = runs.assign(log_loss=[np.log(np.asarray(p, float)) for p in runs.by_position] if len(runs) else [])
    keys = ["arch", "n_layer", "d_model", "n_ctx", "steps"]
    found = runs.groupby(keys, as_index=False).agg(
        N=("N", "first"), D=("D", "first"), loss=("loss", "mean"), runs=("seed", "size"),
        log_loss=("log_loss", lambda curves: np.mean(np.stack(list(curves)), axis=0)))
    return found.sort_values(["arch", "n_layer", "n_ctx", "N", "steps"], ignore_index=True)


def octaves(n_ctx: int) -> list[tuple[int, int]]:
    """Bins of positions, first and last: 1, 2, 3 to 4, 5 to 8, 9 to 16, and so on to n_ctx."""
    ends = [1]
    while ends[-1] < n_ctx:
        ends.append(min(2 * ends[-1], n_ctx))
    return list(zip([1, *(e + 1 for e in ends[:-1])], ends))


def binned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle of each octave (geometric), and the mean there of values (..., n_ctx)."""
    bins = octaves(values.shape[-1])
    return np.array([np.sqrt(a * b) for a, b in bins]), np.stack([values[..., a - 1:b].mean(-1) for a, b in bins], axis=-1)


def noise(log_loss: np.ndarray) -> float:
    """Standard deviation of the log loss (n_ctx,) at one position, from the differences between neighbours beyond QUIET."""
    steps = np.diff(log_loss[QUIET:])
    return float(np.sqrt(np.mean(steps**2) / 2)) if len(steps) > 7 else float("nan")


# --- one model: a power law in the position? ---------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PositionLaw:
    """L(T) = E + A / T^alpha over the positions of one model.

    noise: as above. middles, residuals, errors: by octave, the residual of the loss as a share of it, and its standard error.
    chance: the probability of a misfit as large as this from noise alone. `reason` says why alpha is None where it is.
    """

    alpha: Estimate
    E: float
    A: float
    noise: float
    middles: np.ndarray
    residuals: np.ndarray
    errors: np.ndarray
    chance: float
    reason: str = ""

    @property
    def describes(self) -> bool:
        return self.alpha.value is not None and self.chance > POOR

    def at(self, T: np.ndarray) -> np.ndarray:
        return self.E + self.A * np.asarray(T, float) ** -self.alpha.value


ALPHAS = np.geomspace(0.02, 8, 400)


def position_law(log_loss: np.ndarray) -> PositionLaw:
    """Least squares over all positions of one model (n_ctx,), whose noise is a share of the loss, the same at each.

    `laws.fit` is for points that are known better: it keeps the floor below the lowest of them, and here the lowest is noise. E
    and A are linear once alpha is chosen; the interval of alpha is where the sum of squares (profiled over E and A) is within
    what noise, or the misfit by octaves where that is larger, allows at 95 %.
    """
    n, loss = len(log_loss), np.exp(log_loss)
    T, bins, sd = np.arange(1.0, n + 1), octaves(n), noise(log_loss)
    errors = sd / np.sqrt([b - a + 1 for a, b in bins])
    powers, model = T ** -ALPHAS[:, None], np.full(n, loss.mean())
    for _ in range(3):
        columns = np.stack([np.broadcast_to(1 / model, powers.shape), powers / model], axis=-1)         # (alphas, n, 2)
        normal = columns.swapaxes(1, 2) @ columns
        theta = np.linalg.solve(normal, (columns.swapaxes(1, 2) @ (loss / model))[..., None])[..., 0]
        squares = np.square((columns @ theta[..., None])[..., 0] - loss / model).sum(1)
        best = int(np.argmin(squares))
        model = theta[best, 0] + theta[best, 1] * powers[best]
    E, A = map(float, theta[best])
    middles, residuals = binned(loss / model - 1)
    misfit = float(np.sum((residuals / errors) ** 2))
    free = len(bins) - 3
    allowed = np.nonzero(squares <= squares[best] + chi2.ppf(0.95, 1) * sd**2 * max(1.0, misfit / free))[0]
    reason = ""
    if A <= 0 or best in (0, len(ALPHAS) - 1) or allowed[0] == 0 or allowed[-1] == len(ALPHAS) - 1:
        reason = "the positions do not tell an exponent: the loss hardly falls with them, or falls at the first few only"
    alpha = Estimate(None, None, None) if reason else Estimate(*(float(ALPHAS[i]) for i in (best, allowed[0], allowed[-1])))
    return PositionLaw(alpha, E, A, sd, middles, residuals, errors, float(chi2.sf(misfit, free)), reason)


def late_gain(log_loss: np.ndarray, after: int = EARLY) -> float:
    """How far the log loss (..., n_ctx) of the last half of the context lies below that at positions after / 2 to after."""
    half = log_loss.shape[-1] // 2
    return log_loss[..., after // 2:after].mean(-1) - log_loss[..., half:].mean(-1)


def gain_by_size(log_losses: np.ndarray, N: np.ndarray) -> Estimate:
    """How `late_gain` grows with size, per factor of ten in N. log_losses (models, n_ctx) of one n_ctx; N (models,).

    What the text does to all models alike cancels in the slope; the interval is a bootstrap over positions and models.
    """
    z = np.log10(N)
    draw, n_ctx, after = np.random.RandomState(0), log_losses.shape[1], EARLY
    half, slopes = n_ctx // 2, []
    while len(slopes) < RESAMPLES:
        rows = draw.randint(len(z), size=len(z))
        if len(np.unique(z[rows])) < 3:
            continue
        first, last = draw.randint(after // 2, after, size=after // 2), draw.randint(half, n_ctx, size=n_ctx - half)
        mine = log_losses[rows]
        slopes.append(np.polyfit(z[rows], mine[:, first].mean(1) - mine[:, last].mean(1), 1)[0])
    low, high = np.percentile(slopes, [2.5, 97.5])
    return Estimate(float(np.polyfit(z, late_gain(log_losses), 1)[0]), float(low), float(high))


def exponents_by_position(table: pd.DataFrame) -> pd.DataFrame:
    """alpha_N at each octave of positions, fitted over sizes of one n_ctx (Kaplan et al. 2020, Fig. 21): T, alpha, low, high."""
    import pandas as pd

    shapes = positions(table)
    if shapes.N.nunique() < 4 or shapes.n_ctx.nunique() > 1:
        return pd.DataFrame(columns=["T", "alpha", "low", "high"])
    middles, losses = binned(np.stack(list(shapes.log_loss)))
    laws = [fit("power", np.exp(column), N=shapes.N) for column in losses.T]
    return pd.DataFrame([{"T": T, "alpha": law.exponent.value, "low": law.exponent.low, "high": law.exponent.high}
                         for T, law in zip(middles, laws) if law.ok])


def measure_context(runs: pd.DataFrame) -> Measurement:
    """The exponent of the loss in the position, of the largest model with the longest context; negative, as in the paper."""
    shapes, ladder = positions(of_spec(runs, "contexts")), of_spec(runs, "ladder")
    if not len(shapes):
        return Measurement(None, refusal="the runs do not hold the loss by position")
    fits = {(int(s.N), int(s.n_ctx)): position_law(s.log_loss) for s in shapes.itertuples() if s.n_ctx >= 4 * EARLY}
    if not fits:
        return Measurement(None, refusal=f"no context is long enough: at least {4 * EARLY} positions are needed")
    largest = max(fits, key=lambda key: (key[1], key[0]))
    main = fits[largest]
    if main.reason:
        return Measurement(None, refusal=main.reason)
    more = {f"exponent at N = {N:,}, context {n_ctx}": (None, *_negative(p.alpha))
            for (N, n_ctx), p in fits.items() if not p.reason and (N, n_ctx) != largest and n_ctx >= largest[1] // 2}
    more[CHANCE] = (None, main.chance, None, None)
    rungs = longest(ladder)
    sizes = positions(rungs)
    if sizes.N.nunique() >= 4:
        found = [(row.N, row.n_ctx, position_law(row.log_loss)) for row in sizes.itertuples()]
        known = [rung for rung in found if not rung[2].reason]
        for N, n_ctx, one in dict.fromkeys([*known[:1], *known[-1:]]):
            more[f"exponent at N = {N:,}, context {n_ctx}"] = (None, *_negative(one.alpha))
        gain = gain_by_size(np.stack(list(sizes.log_loss)), sizes.N.to_numpy(float))
        more["gain late in the context, % per factor of ten in N"] = (None, *(100 * v for v in (gain.value, gain.low, gain.high)))
        by_position = exponents_by_position(rungs)
        for name, row in (("at the first position", by_position.iloc[0]), ("in the last half", by_position.iloc[-1])):
            more[f"alpha_N {name}"] = (None, float(row.alpha), float(row.low), float(row.high))
    return Measurement(*_negative(main.alpha), more=more, reason=_where_it_ends(main, shapes, largest))


def follows_the_paper(measured: Measurement, target: float | None) -> bool:
    """The exponent is the paper's, and a power law with a floor does describe the loss."""
    return measured.more[CHANCE][1] > POOR and inside(measured, target)


def _negative(exponent: Estimate) -> tuple[float, float, float]:
    return -exponent.value, -exponent.high, -exponent.low


def last_fall(log_loss: np.ndarray) -> int:
    """The last octave, by its end, from which on to the end of the context the loss falls by more than two standard errors."""
    sd, n = noise(log_loss), len(log_loss)
    reached = 1
    for a, b in octaves(n)[:-1]:
        here, rest = log_loss[a - 1:b], log_loss[b:]
        if here.mean() - rest.mean() > 2 * sd * np.sqrt(1 / len(here) + 1 / len(rest)):
            reached = b
    return reached


def _where_it_ends(main: PositionLaw, shapes: pd.DataFrame, key: tuple[int, int]) -> str:
    (log_loss,) = shapes[(shapes.N == key[0]) & (shapes.n_ctx == key[1])].log_loss
    misfit = "" if main.describes else "No power law with a floor follows the loss within its noise. "
    last, piece = last_fall(log_loss), papers.value("kaplan2020.setup.characters_per_token")
    return (f"{misfit}Beyond position {last} of {key[1]}, or {last / piece:.1f} of the paper's word pieces, no further fall can be "
            "told from noise: models as small as ours use the last few characters, and their curve ends about where the paper's begin.")


# --- recurrent network against Transformer -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Gaps:
    """Log loss of recurrent networks above that of a Transformer of equal N: `log_gap` (pairs, n_ctx), beside each network's
    layers and N, and the Transformer nearest in size, whose number is the pair's `cluster`."""

    n_layer: np.ndarray
    N: np.ndarray
    cluster: np.ndarray
    log_gap: np.ndarray

    def of(self, rows: np.ndarray) -> Gaps:
        return Gaps(self.n_layer[rows], self.N[rows], self.cluster[rows], self.log_gap[rows])

    def part(self, first: int, last: int) -> np.ndarray:
        """Mean gap of each pair at positions first to last."""
        return self.log_gap[:, first - 1:last].mean(1)


def recurrent_gaps(table: pd.DataFrame) -> Gaps | None:
    """Every LSTM beside the Transformers, interpolated in log N to its size.

    None without three Transformers and an LSTM of one context and length.
    """
    shapes = positions(table)
    ours, theirs = shapes[shapes.arch == "transformer"].sort_values("N"), shapes[shapes.arch == "lstm"]
    if len(ours) < 3 or not len(theirs) or shapes.n_ctx.nunique() > 1 or shapes.steps.nunique() > 1:
        return None
    z, y = np.log(ours.N.to_numpy(float)), np.stack(list(ours.log_loss))
    wanted = np.log(theirs.N.to_numpy(float))
    near = (wanted > z[0] - np.log(1.5)) & (wanted < z[-1] + np.log(1.5))
    theirs, wanted = theirs[near], wanted[near]
    if not len(theirs):
        return None
    right = np.clip(np.searchsorted(z, wanted), 1, len(z) - 1)
    share = ((wanted - z[right - 1]) / (z[right] - z[right - 1]))[:, None]
    between = (1 - share) * y[right - 1] + share * y[right]
    cluster = np.abs(wanted[:, None] - z).argmin(1)
    return Gaps(theirs.n_layer.to_numpy(), theirs.N.to_numpy(float), cluster, np.stack(list(theirs.log_loss)) - between)


def stretches(n_ctx: int, first: int = FIRST) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last positions of the early and of the late part of a context."""
    return (first, min(EARLY, n_ctx // 4)), (n_ctx // 2 + 1, n_ctx)


def gap_draws(gaps: Gaps, first: int, last: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Mean gap at positions first to last in resamples of sizes (pairs at one size go together) and of positions: (resamples,)."""
    names, members = np.unique(gaps.cluster, return_inverse=True)
    picks = np.random.RandomState(0).randint(len(names), size=(resamples, len(names)))
    counts = np.stack([(picks == i).sum(1) for i in range(len(names))], axis=1)[:, members].astype(float)
    chosen = np.random.RandomState(first).randint(first - 1, last, size=(resamples, last - first + 1))
    by_pair = np.stack([gaps.log_gap[:, c].mean(1) for c in chosen])
    return (counts * by_pair).sum(1) / counts.sum(1)


def _per_cent(log_gap: float, draws: np.ndarray) -> tuple[float, float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return tuple(100 * float(np.expm1(v)) for v in (log_gap, low, high))


def lost_ground(gaps: Gaps, first: int = FIRST) -> tuple[float, float, float]:
    """By how many per cent the recurrent networks fall back from the early to the late part of the context: value, low, high.

    first: where the early part begins.
    """
    early, late = stretches(gaps.log_gap.shape[1], first)
    value = gaps.part(*late).mean() - gaps.part(*early).mean()
    return _per_cent(value, gap_draws(gaps, *late) - gap_draws(gaps, *early))


def measure_recurrent(runs: pd.DataFrame) -> Measurement:
    """How far LSTMs fall back behind Transformers of equal N from the beginning of the context to its end (Fig. 7)."""
    gaps = recurrent_gaps(runs)
    if gaps is None or len(np.unique(gaps.cluster)) < 3:
        return Measurement(None, refusal="three sizes of both architectures, with the loss by position, are needed")
    parts = ((1, FIRST - 1), *stretches(gaps.log_gap.shape[1]))
    more = {f"LSTM above Transformer at positions {first} to {last}, %":
            (None, *_per_cent(gaps.part(first, last).mean(), gap_draws(gaps, first, last))) for first, last in parts}
    more["ground lost from the first character on, %"] = (None, *lost_ground(gaps, first=1))
    for layers in np.unique(gaps.n_layer):
        mine = gaps.of(gaps.n_layer == layers)
        if len(np.unique(mine.cluster)) >= 3:
            more[f"ground lost by LSTMs of {layers} layer{'s' * int(layers > 1)}, %"] = (None, *lost_ground(mine))
    for name, arch, layers in (("Transformers", "transformer", 2), ("LSTMs of 1 layer", "lstm", 1)):
        mine = complete(runs)[lambda r: (r.arch == arch) & (r.n_layer == layers)]
        law = fit("power", mine.loss, N=mine.N, seed=mine.seed)
        if law.ok:
            more[f"alpha_N of the {name}"] = (None, law.exponent.value, law.exponent.low, law.exponent.high)
    lost = lost_ground(gaps)
    seen, flat = gaps.log_gap.shape[1], papers.value("kaplan2020.context.lstm_flat") * papers.value("kaplan2020.setup.characters_per_token")
    short = "" if not lost[1] <= 0 <= lost[2] or seen >= flat else (
        f"within {seen} characters no ground is lost that could be told from noise, but the paper's LSTMs keep up for about {flat:.0f}: "
        "a longer context must decide")
    return Measurement(*lost, more=more, refusal=short)
