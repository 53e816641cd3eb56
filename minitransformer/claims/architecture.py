"""Chapter II: what of the architecture matters: count, shape, recurrence, context, other text (Kaplan et al. 2020, §3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

from .. import papers
from ..laws.fit import fit
from ..laws.law import Estimate, Law
from .compute import compute_law, overtakings
from .curves import of_spec
from .definition import Definition, Measurement, complete
from .positions import follows_the_paper, measure_context, measure_recurrent
from .regression import least_squares, scaled, seed_noise, triple
from .transfer import measure_transfer, nearly_constant

if TYPE_CHECKING:
    import pandas as pd


# --- which parameters to count (Fig. 6) --------------------------------------------------------------------------


SMALL_ALPHABET = ("With an alphabet instead of word pieces the embeddings are a modest part of all but the smallest models, so "
                  "that the two counts differ little.")


def trend_scatter(N: np.ndarray, loss: np.ndarray) -> float:
    """Root mean square distance of log loss from one smooth trend, quadratic in log N."""
    z = np.log(N) - np.log(N).mean()
    y = np.log(loss)
    return float(np.sqrt(np.mean((y - np.polyval(np.polyfit(z, y, 2), z)) ** 2)))


def _with_steps(table: pd.DataFrame) -> pd.DataFrame:
    """The complete runs; a table without lengths holds runs of one."""
    runs = complete(table)
    return runs if "steps" in runs else runs.assign(steps=0)


def depth_horizons(table: pd.DataFrame) -> list[int]:
    """The lengths (steps) that every depth was trained for, ascending; depths with fewer than three widths do not count."""
    runs = _with_steps(table)
    kept = runs.groupby("n_layer").d_model.transform("nunique") >= 3
    return sorted(set.intersection(*(set(group.steps) for _, group in runs[kept].groupby("n_layer")))) if kept.any() else []


def depth_points(table: pd.DataFrame, steps: int | None = None, least_layers: int = 1) -> pd.DataFrame:
    """Mean loss of each shape, with both counts of N, where the depths overlap in N to a factor of two.

    steps: of the runs; the longest horizon that all depths share unless given.
    """
    runs = _with_steps(table)
    runs = runs[(runs.n_layer >= least_layers) & (runs.groupby("n_layer").d_model.transform("nunique") >= 3)]
    horizons = depth_horizons(runs)
    runs = runs[runs.steps == (steps or max(horizons, default=0))]
    means = runs.groupby(["n_layer", "d_model"], as_index=False)[["N", "N_total", "loss"]].mean()
    spans = means.groupby("n_layer").N.agg(["min", "max"])
    return means[(means.N >= spans["min"].max() / 2) & (means.N <= spans["max"].min() * 2)]


def tightening(table: pd.DataFrame, resamples: int = 2000, steps: int | None = None, least_layers: int = 1) -> Measurement:
    """How many times farther from one trend the shapes lie when embeddings are counted (Kaplan et al. 2020, Fig. 6).

    steps, least_layers: as for `depth_points`.
    """
    if "corpus" in table and len(set(zip(table.corpus, table.n_ctx, table.tokenizer))) > 1:
        return Measurement(None, refusal="the depths were trained on different texts or contexts and cannot be compared")
    return tightening_of(depth_points(table, steps, least_layers), resamples)


def tightening_of(points: pd.DataFrame, resamples: int = 2000) -> Measurement:
    """The same of shapes with columns n_layer, N, N_total and loss. The interval is a bootstrap over shapes."""
    if len(points) < 6 or points.n_layer.nunique() < 2:
        return Measurement(None, refusal="one trend needs at least six shapes of two depths whose sizes overlap")
    columns = (points.N.to_numpy(float), points.N_total.to_numpy(float), points.loss.to_numpy(float))

    def ratio(rows: np.ndarray) -> float:
        N, total, loss = (column[rows] for column in columns)
        return trend_scatter(total, loss) / max(trend_scatter(N, loss), 1e-12)

    draw = np.random.RandomState(0)
    ratios = []
    while len(ratios) < resamples:
        rows = draw.randint(len(points), size=len(points))
        if len(np.unique(rows)) >= 5:
            ratios.append(ratio(rows))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Measurement(ratio(np.arange(len(points))), float(low), float(high))


def recounted(points: pd.DataFrame, vocabulary: float, n_ctx: int) -> pd.DataFrame:
    """Shapes of `depth_points` with N_total as it would be with another vocabulary; their losses stay as they are."""
    return points.assign(N_total=points.N + (2 * vocabulary + n_ctx) * points.d_model)


def depth_effect(points: pd.DataFrame, count: str = "N") -> Estimate:
    """Change of the loss of `depth_points`, in per cent, with each doubling of depth at equal `count`, beside one trend in it."""
    z = np.log(points[count].to_numpy(float))
    z = z - z.mean()
    columns = np.stack([np.log2(points.n_layer.to_numpy(float)), np.ones_like(z), z, z**2], axis=1)
    return scaled(least_squares(columns, np.log(points.loss.to_numpy(float))), 100)


def above_two_layers(points: pd.DataFrame) -> np.ndarray:
    """By how many per cent each shape of `depth_points` lies above the quadratic trend of the two-layer shapes in log N."""
    z, y = np.log(points.N.to_numpy(float)), np.log(points.loss.to_numpy(float))
    two = (points.n_layer == 2).to_numpy()
    return 100 * np.expm1(y - np.polyval(np.polyfit(z[two], y[two], min(2, two.sum() - 1)), z))


def measure_embedding(runs: pd.DataFrame) -> Measurement:
    """The ratio of `tightening` for models of two layers or more, as the paper leaves one layer out, at the longest horizon."""
    main = tightening(runs, least_layers=2)
    if main.value is None:
        return main
    more: dict[str, tuple] = {}
    horizons = depth_horizons(runs)
    for steps in horizons:
        for name, least in (("two layers or more", 2), ("one layer too", 1)):
            found = tightening(runs, steps=steps, least_layers=least)
            if found.value is not None and (steps, least) != (horizons[-1], 2):
                more[f"ratio, {name}, {steps:,} steps"] = (None, found.value, found.low, found.high)
        for count, name in (("N", "N"), ("N_total", "all parameters")):
            effect = depth_effect(depth_points(runs, steps, 2), count)
            if effect.value is not None:
                more[f"loss for each doubling of depth at equal {name}, {steps:,} steps, %"] = (None, *triple(effect))
    reason = ""
    if main.low <= 1 and len(horizons) > 1:
        before = more.get(f"ratio, two layers or more, {horizons[0]:,} steps")
        way = "moves" if before and main.value > before[1] else "does not move"
        reason = f"The ratio {way} towards the paper's with longer training. {SMALL_ALPHABET}"
    return Measurement(main.value, main.low, main.high, more=more, reason=reason)


# --- shape at fixed N (Fig. 5) -----------------------------------------------------------------------------------

SHAPE = ["n_layer", "d_model", "n_head", "d_ff"]
LEAST_ASPECT = 4        # width over depth; the deepest model of the paper, 207 layers of width 768, has 3.7
LEAST_HEAD = 4          # units of a head
SWEEPS = {"depth": "width over depth", "heads": "units of a head", "feed-forward": "feed-forward over width"}
A_FEW_PER_CENT = 0.05


def shape_effects(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Loss of every shape against the base shape, in three sweeps (Kaplan et al. 2020, Fig. 5).

    The base is the first shape that the spec lists of its commonest depth. alpha: exponent of N, with which losses are brought
    to the N of the base. Columns: sweep, ratio (on its axis), the shape, N, log_loss (mean over seeds, corrected), excess (of the
    loss over the base's, a share), low, high (95 % of seed noise, pooled over shapes; absent with one seed), extreme, runs. Each
    sweep has a row of the base.
    """
    import pandas as pd

    runs = complete(table)
    runs = runs.assign(d_ff=np.where(runs.d_ff > 0, runs.d_ff, 4 * runs.d_model), log_loss=np.log(runs.loss))
    groups = runs.groupby(SHAPE, as_index=False, sort=False)
    shapes = groups.agg(N=("N", "first"), log_loss=("log_loss", "mean"), runs=("seed", "size"))
    usual = shapes[shapes.d_ff == 4 * shapes.d_model]
    common = usual.n_layer.value_counts(sort=False).idxmax()
    base = usual[usual.n_layer == common].iloc[0]
    shapes["log_loss"] += alpha * np.log(shapes.N / base.N)
    sd, free = seed_noise(runs, SHAPE)
    half = student.ppf(0.975, free) * sd * np.sqrt(1 / shapes.runs + 1 / base.runs) if free else np.nan
    shapes = shapes.assign(excess=np.expm1(shapes.log_loss - base.log_loss), half=half)
    is_base = (shapes[SHAPE] == base[SHAPE]).all(axis=1)
    shapes.loc[is_base, "half"] = 0.0
    shapes["low"], shapes["high"] = (np.expm1(np.log1p(shapes.excess) + sign * shapes.half) for sign in (-1, 1))
    aspect, head, forward = shapes.d_model / shapes.n_layer, shapes.d_model / shapes.n_head, shapes.d_ff / shapes.d_model
    shapes["extreme"] = (shapes.n_layer < 2) | (aspect < LEAST_ASPECT) | (head < LEAST_HEAD)
    usual, deep = forward == 4, shapes.n_layer != common
    kinds = {"depth": (aspect, usual & deep), "heads": (head, usual & ~deep & ~is_base), "feed-forward": (forward, ~usual)}
    parts = [shapes.assign(sweep=name, ratio=ratio)[rows | is_base].sort_values("ratio") for name, (ratio, rows) in kinds.items()]
    return pd.concat(parts, ignore_index=True).drop(columns="half")


def largest_excess(effects: pd.DataFrame, sd: float, free: int, draws: int = 20_000) -> tuple[float, float, float]:
    """The largest excess of these shapes over the base and an interval that allows for its being the largest of many.

    Simultaneous bounds (Dunnett 1955): with 95 % confidence all excesses lie within them, and so does the largest.
    """
    shapes = effects.drop_duplicates(SHAPE)
    base = shapes[shapes.excess == 0].iloc[0]
    rest = shapes[shapes.excess != 0]
    draw = np.random.RandomState(0)
    runs = rest.runs.to_numpy()
    errors = draw.standard_normal((draws, len(rest))) / np.sqrt(runs) - draw.standard_normal((draws, 1)) / np.sqrt(base.runs)
    spread = np.sqrt(1 / runs + 1 / base.runs)
    q = np.quantile(np.abs(errors / spread).max(1) / np.sqrt(draw.chisquare(free, draws) / free), 0.95)
    logs = np.log1p(rest.excess.to_numpy())
    half = q * sd * spread
    return tuple(float(np.expm1(max(0.0, v))) for v in (logs.max(), (logs - half).max(), (logs + half).max()))


def aspect_range(effects: pd.DataFrame, tolerance: float) -> float:
    """By what factor width over depth can vary around the best depth with the loss within `tolerance` (a share) of the best."""
    depth = effects[effects.sweep == "depth"].sort_values("ratio").reset_index(drop=True)
    good = (depth.excess <= (1 + depth.excess.min()) * (1 + tolerance) - 1).to_numpy()
    first = last = int(depth.excess.idxmin())
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(good) - 1 and good[last + 1]:
        last += 1
    return float(depth.ratio[last] / depth.ratio[first])


def law_at(ladder: pd.DataFrame, steps: int) -> Law:
    """L(N) of the ladder's runs of one length."""
    runs = complete(ladder)[lambda r: r.steps == steps]
    return fit("power", runs.loss, N=runs.N, seed=runs.seed)


def worth(excess: float, alpha_C: float) -> float:
    """The share of compute that makes up for an excess of the loss, where L falls as C^-alpha_C: 0.01 at 0.05 is worth 0.22."""
    return float((1 + excess) ** (1 / alpha_C) - 1)


def measure_shape(runs: pd.DataFrame) -> Measurement:
    shapes, ladder = of_spec(runs, "shapes"), of_spec(runs, "ladder")
    if not len(shapes) or shapes.groupby(SHAPE).ngroups < 4:
        return Measurement(None, refusal="too few shapes: at least four of equal N are needed")
    law = law_at(ladder, int(shapes.steps.max()))
    if not law.ok:
        return Measurement(None, refusal=f"small differences of N need a ladder of equal length: {law.reason}")
    effects = shape_effects(shapes, law.exponent.value)
    sd, free = seed_noise(shapes, SHAPE)
    usual = effects[~effects.extreme]
    if not free or usual.drop_duplicates(SHAPE).shape[0] < 3:
        return Measurement(None, refusal="two seeds of some shape, and three shapes that are not extreme, are needed")
    value, low, high = largest_excess(usual, sd, free)
    more: dict[str, tuple] = {}
    for name in SWEEPS:
        part = usual[usual.sweep == name]
        if len(part) > 1:
            more[f"{name}: largest excess over the base"] = (None, *largest_excess(part, sd, free))
    logs = np.log1p(usual.excess)
    more["the worst of these shapes over the best"] = (None, float(np.expm1(logs.max() - logs.min())), None, None)
    if effects.extreme.any():
        more["largest excess, extreme shapes too"] = (None, *largest_excess(effects, sd, free))
    wide = papers.value("kaplan2020.shape.aspect_range")
    more["range of width over depth within 3 % of the best, ×"] = (wide, aspect_range(effects, 0.03), None, None)
    compute = compute_law(overtakings(runs))
    if compute.ok:
        a, one = compute.exponent, papers.value("kaplan2020.shape.compute_per_percent")
        more["compute worth 1 % of loss, a share"] = (one, worth(0.01, a.value), worth(0.01, a.high), worth(0.01, a.low))
        more["compute worth the largest excess, a share"] = (None, worth(value, a.value), worth(low, a.high), worth(high, a.low))
    return Measurement(value, low, high, more=more)


DEFINITIONS = (
    Definition(
        id="kaplan.embedding",
        statement="Counted without embeddings, all depths of two layers or more follow one trend: its scatter with embeddings, "
                  "over without",
        paper="kaplan2020, Fig. 6",
        published=None,
        notebook="notebooks/counting.ipynb",
        specs=("ladder", "depths"),
        measure=measure_embedding,
        agrees=lambda measured, target: measured.low > 1,
        if_differs=SMALL_ALPHABET,
        tour=True,
    ),
    Definition(
        id="kaplan.shape",
        statement="At fixed N, depth, heads and feed-forward width hardly matter: the largest excess of the loss over the base "
                  "shape, among shapes that are not extreme",
        paper="kaplan2020, Fig. 5",
        published="kaplan2020.shape.loss_tolerance",
        notebook="notebooks/shape.ipynb",
        specs=("shapes", "ladder"),
        measure=measure_shape,
        agrees=lambda measured, target: measured.high <= A_FEW_PER_CENT,
        if_differs="Our models are so small that a shape at the edge of what we tried leaves little room: heads of a few units, "
                   "or layers narrower than the alphabet is long.",
        unit="share of the loss",
    ),
    Definition(
        id="kaplan.lstm",
        statement="An LSTM equals a Transformer on early tokens and falls behind later: ground lost from characters 5 to 16 of "
                  "the context to its last half",
        paper="kaplan2020, Fig. 7",
        published=None,
        notebook="notebooks/recurrent.ipynb",
        specs=("recurrent",),
        measure=measure_recurrent,
        agrees=lambda measured, target: measured.low > 0,
        if_differs="No ground is lost in a context as long as that in which the paper's LSTMs fall behind.",
        unit="%",
    ),
    Definition(
        id="kaplan.context",
        statement="At fixed N the loss falls as a power of the position in the context, down to a floor: the exponent",
        paper="kaplan2020, Fig. 20",
        published="kaplan2020.context.first_exponent",
        notebook="notebooks/context.ipynb",
        specs=("contexts", "ladder"),
        measure=measure_context,
        agrees=follows_the_paper,
    ),
    Definition(
        id="kaplan.transfer",
        statement="On other text the loss is higher by a nearly constant offset: how many nats it falls there for each nat it "
                  "falls on the training text",
        paper="kaplan2020, Fig. 8",
        published=None,
        notebook="notebooks/other_text.ipynb",
        specs=("ladder", "depths"),
        measure=measure_transfer,
        agrees=nearly_constant,
        if_differs="The offset changes along the ladder by more than a fifth of what the loss itself changes.",
    ),
)
