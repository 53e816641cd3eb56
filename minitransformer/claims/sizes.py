"""Chapter II: loss against size and against data, each where the other is not the limit (Kaplan et al. 2020, §3.2 and §3.3)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

from .. import papers
from ..laws.fit import fit
from ..laws.frontier import NOTHING
from ..laws.law import Estimate, HoldOut, Law
from .definition import Definition, Measurement, complete, longest, of_law
from .regression import triple

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 5         # points of a line that may still be judged: one is held out, and two of the other four make the line
ENOUGH = 8         # points that tell a bend from chance even where some scatter more than others
FLAT = 0.01        # share of the loss that the last doubling of the steps may still bring a training that counts as stopped
REACH = 8          # in length of training, of the runs from which unlimited text is extrapolated
UNLIMITED = 1e30   # characters: where a law of N and D has reached its limit


# --- L(N) ----------------------------------------------------------------------------------------------------------


def common_lengths(runs: pd.DataFrame) -> list[int]:
    """The steps that every size was trained for, fewest first."""
    return sorted(set.intersection(*(set(group.steps) for _, group in runs.groupby("N")))) if len(runs) else []


def size_law(table: pd.DataFrame, form: str = "power", smallest: float | None = None) -> Law:
    """L(N): final loss against non-embedding parameters, at the longest common horizon (Kaplan et al. 2020, eq. 1.1).

    form: power, or power-floor for a power law down to a floor. smallest: leave smaller N out.
    """
    runs = longest(complete(table))
    return _fitted(form, runs.loss, runs.seed, (smallest, None), N=runs.N)


def _fitted(form: str, loss: pd.Series, seed: pd.Series, within=None, **x: pd.Series) -> Law:
    """A law of one input, whatever its form held to the same test: the largest x alone, predicted from the others."""
    law = fit(form, loss, seed=seed, within=within, **x)
    if not law.ok or law.line:
        return law
    ((name, values),) = law.runs.inputs.items()
    small, top = values < values.max(), float(values.max())
    rest = fit(form, law.runs.loss[small], **{name: values[small]})
    if not rest.ok:
        return replace(law, holdout=None)
    p, measured = rest.predict(top), float(law.means.loss[-1])
    error = 100 * (p.value / measured - 1)
    return replace(law, holdout=HoldOut({name: top}, *p, measured, p.value - measured, error, None, None, 1, abs(error)))


def straight_from(table: pd.DataFrame) -> float | None:
    """The N from which on a pure power law holds: smaller sizes are left out one by one until the kit no longer sees a bend.

    Until, that is, the sizes lie no further from their line than their seeds explain (the warning lack_of_fit). None where the
    FEWEST largest sizes still bend, or where no size has two seeds that could tell.
    """
    runs = longest(complete(table))
    if not runs.duplicated("N").any():
        return None
    sizes = np.sort(runs.N.unique())
    for smallest in sizes[: len(sizes) - FEWEST + 1]:
        if "lack_of_fit" not in size_law(runs, smallest=smallest).warnings:
            return float(smallest)
    return None


def average_exponent(x, loss, robust: bool = False) -> Estimate:
    """How fast loss falls with x on the average over these points: minus the slope of their line in logs, bend or no bend.

    x, loss (k,): one entry a point. A line's own interval takes a bend for chance and says how far other points might lie. Here
    the bend (quadratic in log x, at right angles to the line) is a term of its own, and the interval, Student's t with k - 3
    degrees of freedom, says what the luck of these very points does to their slope. robust: points may scatter differently, as
    small sizes do (standard errors HC3 of MacKinnon and White 1985).
    """
    z, y = np.log(np.asarray(x, float)), np.log(np.asarray(loss, float))
    if len(z) < FEWEST or np.ptp(z) < 1e-3:
        return NOTHING
    columns, _ = np.linalg.qr(np.vander(z - z.mean(), 3, increasing=True))  # constant, line, bend: orthonormal
    line = columns[:, 1]
    left = y - columns @ (columns.T @ y)
    free = len(z) - 3
    within = left**2 / (1 - (columns**2).sum(1)) ** 2 if robust else np.full(len(z), left @ left / free)
    slope, error = line @ y / (line @ z), math.sqrt(line**2 @ within) / abs(line @ z)
    half = float(student.ppf(0.975, free) * error)
    return Estimate(float(-slope), float(-slope) - half, float(-slope) + half)


def local_exponents(x, loss) -> tuple[np.ndarray, np.ndarray]:
    """Between neighbours of x (k,), smallest first: their geometric mean, and minus the slope of log loss in log x, (k - 1,)."""
    z, y = np.log(np.asarray(x, float)), np.log(np.asarray(loss, float))
    return np.exp((z[1:] + z[:-1]) / 2), -np.diff(y) / np.diff(z)


def law_exponent(law: Law, x, **others: float) -> Estimate:
    """The same average of a fitted law at inputs x (k,), `others` held fixed (D=UNLIMITED), with the interval of the fit."""
    if not law.ok:
        return NOTHING
    if law.line:
        return law.exponent
    x = np.asarray(x, float)
    inputs = {law.form.x: x, **{name: np.full(len(x), value) for name, value in others.items()}}
    fitted = law.engine
    logs = np.log(np.stack([inputs[name] for name in law.form.inputs]))
    value, by_theta = law.form.evaluate(fitted.theta[None], logs - fitted.centre[:, None])
    z = np.log(x) - np.log(x).mean()
    slope, gradient = float(value[0] @ z / (z @ z)), by_theta[0] @ z / (z @ z)
    half = float(fitted.q_band * math.sqrt(max(gradient @ fitted.covariance @ gradient, 0.0)))
    return Estimate(-slope, -slope - half, -slope + half)


def by_horizon(table: pd.DataFrame, smallest: float | None = None) -> pd.DataFrame:
    """The exponent of L(N) after each length that every size was trained for: D (characters), n (sizes), value, low, high."""
    import pandas as pd

    runs = complete(table)
    runs = runs if smallest is None else runs[runs.N >= smallest]
    rows = []
    for D, group in runs.groupby("D"):
        if group.N.nunique() == runs.N.nunique():
            points = fit("power", group.loss, N=group.N).means if group.N.nunique() > 3 else None
            found = average_exponent(points.x, points.loss, robust=len(points.x) >= ENOUGH) if points else NOTHING
            rows.append((float(D), group.N.nunique(), *triple(found)))
    return pd.DataFrame(rows, columns=["D", "n", "value", "low", "high"]).dropna()


def joint_law(table: pd.DataFrame, form: str = "chinchilla") -> Law:
    """L(N, D) through the decayed runs, from which the limit of unlimited text is read.

    Trainings shorter than the longest common one by more than a factor of REACH are left out: after these the narrowest models
    know little more than which letter follows which. Lengths of one size hang together, as they share a trunk, so sizes are what
    is resampled.
    """
    runs = complete(table)
    runs = runs[runs.steps >= max(common_lengths(runs), default=0) / REACH]
    points = runs.assign(log=np.log(runs.loss.astype(float))).groupby(["N", "D"], as_index=False).log.mean()
    return fit(form, np.exp(points.log), N=points.N, D=points.D, group=points.N)


def measure_size(runs: pd.DataFrame) -> Measurement:
    """alpha_N: the exponent of the paper's form, averaged over the ladder; the hold-out is that of the better of two forms."""
    line, floor = size_law(runs), size_law(runs, "power-floor")
    if not line.ok:
        return Measurement(None, refusal=line.reason)
    paper = papers.value("kaplan2020.alpha_N")
    points, found = line.means, NOTHING
    if len(points.x) >= ENOUGH:
        found = average_exponent(points.x, points.loss, robust=True)
    if found.value is None:
        return of_law(line)
    more = {"alpha_N, a bend taken for chance": (paper, *triple(line.exponent)),
            "hold-out error without a floor (%)": (None, line.holdout.error_percent, None, None)}
    better = line.holdout
    if floor.ok and floor.holdout:
        better = min(line.holdout, floor.holdout, key=lambda h: abs(h.error_percent))
        more |= {"hold-out error with a floor (%)": (None, floor.holdout.error_percent, None, None),
                 "E, the floor": (None, *triple(floor.parameters["E"])),
                 "alpha_N above the floor": (None, *triple(floor.exponent))}
    start = straight_from(runs)
    if start is not None:
        straight = size_law(runs, smallest=start)
        more |= {"smallest N of the straight range": (None, start, None, None),
                 "alpha_N of the straight range": (paper, *triple(straight.exponent))}
    lengths = by_horizon(runs)
    limit = law_exponent(joint_law(runs), points.x, D=UNLIMITED)
    if limit.value is not None:
        more["alpha_N, unlimited text"] = (paper, *triple(limit))
    return Measurement(*triple(found), better.error_percent, more=more, reason=_why_size(points, lengths, limit, floor))


def _why_size(points, lengths: pd.DataFrame, limit: Estimate, floor: Law) -> str:
    """What the runs say about the difference: the bend, and training too short."""
    local, paper = local_exponents(points.x, points.loss)[1], papers.value("kaplan2020.alpha_N")
    ends = local[:2].mean(), local[-2:].mean()
    text = f"No one exponent holds: it is {ends[0]:.2f} among the smallest sizes and {ends[1]:.2f} among the largest"
    if floor.ok and (floor.parameters["E"].low or 0) > 0:
        text += f", as with a floor near {floor.parameters['E'].value:.1f} nats per character"
    if len(lengths) < 2 or limit.value is None:
        return text + "."
    first, last = lengths.value.iloc[[0, -1]]
    closed = 1 - abs(limit.value - paper) / abs(last - paper)
    short = "explains most" if closed > 0.5 else "explains some" if closed > 0.1 else "explains none"
    return (f"{text}. Training too short {short} of the difference: the average is {first:.3f} after the shortest training, "
            f"{last:.3f} after the longest, and {limit.value:.3f} for unlimited text by a fitted L(N, D).")


# --- L(D) ----------------------------------------------------------------------------------------------------------


def data_points(table: pd.DataFrame) -> pd.DataFrame:
    """Early-stopped runs of the widest model on limited text, least text first, with three columns more.

    updates: steps of one epoch. stopped: the loss turned before training ended, or had all but stopped falling, so that text was
    the limit and not training. kept: stopped, and an epoch has more updates than those of the sets that the paper found too
    small for its law (§4.2): the power-law region.
    """
    from .overfitting import UPDATES, grid

    runs = grid(table)
    runs = runs[(runs.d_model == runs.d_model.max()) & (runs.train_tokens > 0)].sort_values("unique_tokens", ignore_index=True)
    stopped = np.array([last_gain(run) < FLAT for run in runs.itertuples()], bool)
    return runs.assign(stopped=stopped, kept=stopped & (runs.updates > UPDATES))


def last_gain(run) -> float:
    """What the second half of its steps took off a training's loss, as a share; 0 where the loss had turned before the end."""
    if run.best_step < run.steps:
        return 0.0
    half = np.interp(math.log(run.steps / 2), np.log(run.curve_step), np.log(run.curve_val_loss))
    return float(-math.expm1(math.log(run.best_loss) - half))


def text_law(table: pd.DataFrame, form: str = "power") -> Law:
    """L(D): early-stopped loss of the widest model against its unique characters (Kaplan et al. 2020, eq. 1.2).

    power and power-floor are fitted to the power-law region of `data_points`; regions to every set at which text was the limit.
    """
    points = data_points(table)
    points = points[points.stopped if form == "regions" else points.kept]
    return _fitted(form, points.best_loss, points.seed, D=points.unique_tokens)


def measure_data(runs: pd.DataFrame) -> Measurement:
    """alpha_D: the exponent of the paper's form, averaged over the power-law region."""
    line = text_law(runs)
    if not line.ok:
        return Measurement(None, refusal=line.reason)
    found = average_exponent(line.means.x, line.means.loss)
    measured = of_law(line)
    if found.value is None:
        return measured
    more = {"alpha_D, a bend taken for chance": (papers.value("kaplan2020.alpha_D"), *triple(line.exponent)),
            **{f"{end} D of the region": (None, D, None, None) for end, D in zip(("smallest", "largest"), line.range)}}
    for form, name in (("power-floor", "with a floor"), ("regions", "of three regions")):
        law = text_law(runs, form)
        if law.ok and law.holdout:
            more[f"hold-out error {name} (%)"] = (None, law.holdout.error_percent, None, None)
    local = local_exponents(line.means.x, line.means.loss)[1]
    why = (f"The local exponent goes from {local[0]:.2f} at the small end of the region to {local[-1]:.2f} at the large end: on "
           "little text a model still learns spelling and common words, which is quick; on much, its own size begins to tell.")
    return Measurement(*triple(found), measured.holdout_error, more=more, reason=why)


DEFINITIONS = (
    Definition(
        id="kaplan.L_N",
        statement="Loss falls as a power of model size: the exponent of L(N), non-embedding N, averaged over the ladder",
        paper="kaplan2020, eq. 1.1",
        published="kaplan2020.alpha_N",
        notebook="notebooks/size.ipynb",
        specs=("ladder",),
        measure=measure_size,
        if_differs="Characters instead of 50,257 word pieces, and models far smaller: each bends or tilts the line.",
        tour=True,
    ),
    Definition(
        id="kaplan.L_D",
        statement="Loss falls as a power of the training text, stopped early: the exponent of L(D)",
        paper="kaplan2020, eq. 1.2",
        published="kaplan2020.alpha_D",
        notebook="notebooks/data.ipynb",
        specs=("overfitting",),
        measure=measure_data,
        if_differs="On so little text a model still learns spelling and common words, which is quick; then it is too small.",
        x="unique_tokens", loss="best_loss",
    ),
)
