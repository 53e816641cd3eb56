"""How the best run of each compute budget grows with the budget.

Three roads lead to N*(C) = G C^a: the lower envelope of all runs (`envelope`), parabolas through runs of equal compute
(`by_budget` or `iso_flops`, then `parabolas`), and a fitted law of N and D. Everything here lives in logs of C, N, D and
loss. A hull of the numbers themselves is another curve: on linear axes a straight line between two runs of a power law
passes far above the law, so poor runs between them count as efficient and the exponent is lost.

A table is anything with columns by name: a DataFrame, or a dictionary of arrays of shape (n,). N counts parameters, D
tokens, C FLOPs (6 N D where there is no such column), loss nats per token. Rows of equal N, D and C are seeds, averaged in
log loss first: the luckiest of several seeds is not what a size can do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from minitransformer.errors import UserError
from minitransformer.laws.fit import fit
from minitransformer.laws.formulas import FLOPS
from minitransformer.laws.law import Estimate, Law, Points, Prediction, finite, means_of
from minitransformer.laws.uncertainty import LEVEL, RESAMPLES, RNG_SEED, fit_line

REFUSALS = {
    "too_few_points": "fewer than {need} {what}",
    "no_minimum": "the curvature may be zero or negative: these sizes show no minimum",
    "outside": "the minimum lies outside the sizes trained: add sizes on the side where the loss still falls",
}
WARNINGS = {
    "few_points": "fewer than six points along the frontier: one run more may move the exponent",
    "edge_of_the_grid": "some of the frontier's runs have the smallest or largest N or D of the table, where nothing beyond them "
                        "could have done better: they are shown, not fitted",
    "off_centre": "some parabolas have their minimum far from the middle of their sizes, where a parabola misleads: {what}",
    "budgets_left_out": "some budgets show no minimum inside their sizes and are left out, which may bend the exponent",
    "few_budgets": "fewer than five budgets: the interval of the exponent rests on little",
    "argmin": "a mistake on show: the best run of each budget, not the minimum between runs; sizes come in steps and luck picks",
}  # fmt: skip
NOTHING = Estimate(None, None, None)
FEWEST = 4            # distinct sizes of a parabola, runs of an envelope
OUTER = 0.2           # of the sizes' range in log N, on either side, is off-centre
WIDEST = 3.0          # half the interval of an exponent that still says something


def as_dict(estimate: Estimate) -> dict[str, float | None]:
    return {name: finite(v) for name, v in vars(estimate).items()}


def _exp(*logs: float) -> Estimate:
    """An estimate from logs; not identified where a number would overflow."""
    return Estimate(*(math.exp(v) for v in logs)) if max(map(abs, logs)) < 700 else NOTHING


def _table(table) -> dict[str, np.ndarray]:
    """N, D, C and loss of shape (n,), checked."""
    try:
        found = {name: np.asarray(table[name], float) for name in ("N", "D", "loss")}
        with np.errstate(over="ignore", under="ignore"):
            found["C"] = np.asarray(table["C"], float) if "C" in table else FLOPS * found["N"] * found["D"]
    except KeyError as missing:
        raise UserError(f"a frontier needs the columns N, D and loss: {missing} is missing") from None
    except (TypeError, ValueError):
        raise UserError("N, D, C and loss must be columns of numbers") from None
    if any(c.ndim != 1 or c.shape != found["loss"].shape for c in found.values()):
        raise UserError("N, D, C and loss must have one entry per run")
    if not all((np.isfinite(c) & (c > 0)).all() for c in found.values()):
        raise UserError("N, D, C and loss must be finite and above zero in every run: leave the others out")
    return found


def _averaged(table) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Distinct (N, D, C) with the geometric mean loss of their seeds; seeds of each; variance seeds give a mean."""
    t = _table(table)
    if not len(t["loss"]):
        return t, np.zeros(0, int), 0.0
    points, counts, seeds = means_of(Points({k: t[k] for k in ("N", "D", "C")}, t["loss"]))
    return {**points.inputs, "loss": points.loss}, counts, seeds


@dataclass(frozen=True, eq=False)
class SizeLaw:
    """N*(C) = G C^a, Hoffmann et al. 2022, eq. 4, which writes C/6 for C. C in FLOPs, N in parameters.

    C, N (k,): the points it runs through. theta: log N at the mean log C, and a. covariance (2, 2) of theta; errors
    (R, 2) and covariances (R, 2, 2) of resamples, from which the intervals come as in laws/uncertainty.py.
    """

    C: np.ndarray
    N: np.ndarray
    theta: np.ndarray
    covariance: np.ndarray = field(repr=False)
    errors: np.ndarray = field(repr=False)
    covariances: np.ndarray = field(repr=False)

    @property
    def a(self) -> Estimate:
        value, half = float(self.theta[1]), self._half(np.array([0.0, 1.0]))
        return Estimate(value, value - half, value + half) if half < WIDEST else NOTHING

    @property
    def b(self) -> Estimate:
        """The exponent of D*, 1 - a where C is 6 N D."""
        return Estimate(1 - self.a.value, 1 - self.a.high, 1 - self.a.low) if self.a.value is not None else NOTHING

    @property
    def G(self) -> Estimate:
        return _exp(*self._log(1.0))

    def at(self, C: float) -> Prediction:
        """The best size for C FLOPs; the interval is that of the line."""
        if not (np.isfinite(C) and C > 0):
            raise UserError(f"C must be finite and above zero, not {C!r}")
        warning = "" if self.C.min() * (1 - 1e-9) <= C <= self.C.max() * (1 + 1e-9) else "outside the budgets that were measured"
        found = _exp(*self._log(C))
        return Prediction(found.value, found.low, found.high, warning)

    def _log(self, C: float) -> tuple[float, float, float]:
        gradient = np.array([1.0, math.log(C) - np.log(self.C).mean()])
        middle, half = float(self.theta @ gradient), self._half(gradient)
        return middle, middle - half, middle + half

    def _half(self, g: np.ndarray) -> float:
        error = np.abs(self.errors @ g)
        spread = np.sqrt(np.einsum("i,rij,j->r", g, self.covariances, g))
        q = np.quantile(np.where(spread > 0, error / np.where(spread > 0, spread, 1), 0), LEVEL, method="higher")
        return float(q * math.sqrt(max(g @ self.covariance @ g, 0)))

    def to_dict(self) -> dict[str, Any]:
        return {"a": as_dict(self.a), "b": as_dict(self.b), "G": as_dict(self.G), "C": self.C.tolist(), "N": self.N.tolist()}


def _through(C: np.ndarray, N: np.ndarray) -> SizeLaw:
    """A straight line in logs by least squares."""
    line = fit_line(np.log(C), np.log(N))
    factor = np.diag([1 / len(line.z), 1 / line.sxx])
    intercepts, slopes, _, deviations = line.draws
    return SizeLaw(C, N, np.array([line.intercept, line.slope]), line.variance * factor,
                   np.stack([intercepts, slopes], 1), deviations[:, None, None] ** 2 * factor)


@dataclass(frozen=True, eq=False)
class Result:
    """status "ok", or the name of a refusal with its `reason`; warnings by name."""

    TEXTS: ClassVar[dict[str, str]] = WARNINGS
    status: str
    reason: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def warning_texts(self) -> list[str]:
        return [self.TEXTS[w].format(what=self._what()) for w in self.warnings]

    def _what(self) -> str:
        return ""

    def _head(self) -> dict[str, Any]:
        return {"status": self.status, "reason": self.reason, "warnings": list(self.warnings)}


# --- the envelope ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Envelope(Result):
    """The compute-efficient frontier. C, N, D, loss (k,): the runs on it, cheapest first; fitted (k,): those inside the grid.

    law: L(C) through the fitted ones, Kaplan et al. 2020, eq. 1.3; size: N*(C) through them. None where not fitted. Their
    intervals are those of lines through the runs chosen: they do not know that sizes come in steps.
    """

    C: np.ndarray = None
    N: np.ndarray = None
    D: np.ndarray = None
    loss: np.ndarray = None
    fitted: np.ndarray = None
    law: Law | None = None
    size: SizeLaw | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**self._head(), **{name: getattr(self, name).tolist() for name in ("C", "N", "D", "loss", "fitted")},
                "law": self.law.to_dict() if self.law else None, "size": self.size.to_dict() if self.size else None}


def hull(C: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Indices of the lower convex hull of (log C, log loss), from the cheapest run to the lowest loss; runs on a chord stay."""
    x, y = np.log(C), np.log(loss)
    kept: list[int] = []
    for i in np.lexsort((y, x)):
        if kept and x[i] == x[kept[-1]]:
            continue
        while len(kept) > 1:
            p, q = kept[-2], kept[-1]
            if y[q] <= y[p] + (y[i] - y[p]) * (x[q] - x[p]) / (x[i] - x[p]) + 1e-10:
                break
            kept.pop()
        kept.append(i)
    kept = np.array(kept, int)
    return kept[: int(np.argmin(y[kept])) + 1] if len(kept) else kept


def envelope(table, edges: bool = False) -> Envelope:
    """The runs on the lower convex hull in (log C, log loss), and L(C) and N*(C) through them.

    Runs with the smallest or largest N or D of the table bound the frontier without lying on it: no rival was trained on
    their other side. They are not fitted, unless `edges` asks for it.
    """
    t, _, _ = _averaged(table)
    kept = hull(t["C"], t["loss"])
    C, N, D, loss = (t[k][kept] for k in ("C", "N", "D", "loss"))
    edge = np.zeros(len(kept), bool)
    for name, values in (("N", N), ("D", D)):
        if not edges and len(values) and t[name].min() < t[name].max():
            edge |= (values == t[name].min()) | (values == t[name].max())
    fitted = dict(C=C, N=N, D=D, loss=loss, fitted=~edge)
    warnings = ("edge_of_the_grid",) if edge.any() else ()
    if (~edge).sum() < FEWEST:
        return Envelope("too_few_points", REFUSALS["too_few_points"].format(need=FEWEST, what="runs on the frontier, inside the grid"),
                        warnings, **fitted)
    law = fit("power", loss[~edge], C=C[~edge])
    if not law.ok:
        return Envelope(law.status, law.reason, warnings, **fitted)
    if (~edge).sum() < 6:
        warnings += ("few_points",)
    return Envelope("ok", "", warnings, **fitted, law=law, size=_through(C[~edge], N[~edge]))


# --- IsoFLOP -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Slices:
    """Points of equal compute: C (B,) budgets; budget (P,) index of each point; N, D, loss (P,).

    log loss = weights (P, m) @ y (m,), y being mean log losses of the design points, with `counts` seeds each, whose
    mean has the variance `seeds` (0 where nothing was trained twice).
    """

    C: np.ndarray
    budget: np.ndarray
    N: np.ndarray
    D: np.ndarray
    weights: np.ndarray
    y: np.ndarray
    counts: np.ndarray
    seeds: float

    @property
    def loss(self) -> np.ndarray:
        return np.exp(self.weights @ self.y)


def by_budget(table, budget=None, tolerance: float = 0.05) -> Slices:
    """Runs grouped by the labels `budget` (n,), or by C: neighbours closer than `tolerance` (relative) share a budget."""
    raw = _table(table)
    if budget is not None:
        labels, index = np.unique(np.asarray(budget), return_inverse=True)
        if len(index) != len(raw["C"]):
            raise UserError("budget must have one label per run")
        log = np.bincount(index, np.log(raw["C"])) / np.bincount(index)
        raw["C"], tolerance = np.exp(log)[index], 0.0
    t, counts, seeds = _averaged(raw)
    order = np.argsort(t["C"], kind="stable")
    t = {k: v[order] for k, v in t.items()}
    log = np.log(t["C"])
    group = np.concatenate([[0], np.cumsum(np.diff(log) > math.log1p(tolerance) + 1e-12)]).astype(int)[: len(log)]
    n = np.bincount(group)
    middle = np.bincount(group, log) / np.maximum(n, 1)
    if len(log) and np.abs(log - middle[group]).max() > 2 * math.log1p(tolerance) + 1e-9:
        raise UserError("the runs' C form no budgets, they run on without gaps: name the budgets, or cut slices with iso_flops")
    return Slices(np.exp(middle), group, t["N"], t["D"], np.eye(len(log)), np.log(t["loss"]), counts[order], seeds)


def iso_flops(table, budgets=None, order: int = 3) -> Slices:
    """Slices of equal compute through a grid of sizes and horizons: each size is read where it would have spent the budget.

    budgets (B,): FLOPs; left out, as many as there are horizons, over the range that five sizes reach (four, where never
    five do). Between
    horizons a size's log loss is interpolated in log D through the nearest order + 1 of them (a straight line for order 1
    lies above a curve that bends upwards, by more between horizons than at them); it is never extrapolated.
    """
    t, counts, seeds = _averaged(table)
    x, y = np.log(t["D"]), np.log(t["loss"])
    rows = [np.nonzero(t["N"] == N)[0] for N in np.unique(t["N"])]
    rows = [r[np.argsort(x[r], kind="stable")] for r in rows if len(r) > 1]
    rate = [float(np.exp(np.mean(np.log(t["C"][r]) - x[r]))) for r in rows]  # FLOPs per token of each size
    reach = [(math.log(k) + x[r[0]], math.log(k) + x[r[-1]]) for k, r in zip(rate, rows)]
    if budgets is None:
        ends = sorted(end for pair in reach for end in pair)
        sizes = [sum(low - 1e-9 <= c <= high + 1e-9 for low, high in reach) for c in ends]
        wide = [c for c, n in zip(ends, sizes) if n >= max(FEWEST, min(5, max(sizes)))]
        budgets = np.exp(np.linspace(wide[0], wide[-1], max(len(r) for r in rows))) if wide else np.zeros(0)
    budgets = np.unique(np.asarray(budgets, float))
    if not (np.isfinite(budgets) & (budgets > 0)).all():
        raise UserError("budgets must be finite and above zero")
    found = []
    for b, C in enumerate(budgets):
        for k, r, (low, high) in zip(rate, rows, reach):
            if low - 1e-9 <= math.log(C) <= high + 1e-9:
                found.append((b, t["N"][r[0]], C / k, _lagrange(r, x[r], math.log(C / k), order, len(y))))
    budget, N, D, weights = zip(*found) if found else ((), (), (), np.zeros((0, len(y))))
    return Slices(budgets, np.array(budget, int), np.array(N), np.array(D), np.array(weights), y, counts, seeds)


def _lagrange(rows: np.ndarray, x: np.ndarray, at: float, order: int, m: int) -> np.ndarray:
    """Weights (m,) of the polynomial through the nearest order + 1 of x (h,), the two around `at` among them."""
    size = min(order + 1, len(x))
    first = int(np.clip(np.searchsorted(x[1:-1], at) + 1 - size // 2, 0, len(x) - size))
    knots = x[first : first + size]
    weights = np.zeros(m)
    for i in range(size):
        others = np.delete(knots, i)
        weights[rows[first + i]] = np.prod((at - others) / (knots[i] - others))
    return weights


@dataclass(frozen=True)
class Minimum:
    """The parabola of one budget C (FLOPs): log loss = c0 + c1 x + c2 x^2, x = log N - centre, through n_points sizes.

    status: "ok"; "off_centre": fewer than two sizes on one side of the minimum, or the minimum in the outer fifth of the
    sizes' range; "outside", "no_minimum" (the curvature may be zero), "too_few_points": no numbers.
    """

    C: float
    status: str
    n_points: int
    N: Estimate = NOTHING
    D: Estimate = NOTHING
    loss: Estimate = NOTHING
    centre: float = 0.0
    coefficients: tuple[float, ...] = ()

    @property
    def reason(self) -> str:
        """Why there are no numbers; empty where there are."""
        return REFUSALS.get(self.status, "").format(need=FEWEST, what="sizes")

    def curve(self, N: np.ndarray) -> np.ndarray:
        """The parabola's loss at sizes N, for drawing it."""
        return np.exp(np.polyval(self.coefficients[::-1], np.log(np.asarray(N, float)) - self.centre))

    def to_dict(self) -> dict[str, Any]:
        return {"C": self.C, "status": self.status, "reason": self.reason, "n_points": self.n_points,
                **{k: as_dict(getattr(self, k)) for k in ("N", "D", "loss")}, "centre": self.centre,
                "coefficients": list(self.coefficients)}


@dataclass(frozen=True, eq=False)
class _Noise:
    """variance of a design point's log loss; errors (R, m) drawn with it, and variances (R,) that a resample would find."""

    variance: float
    errors: np.ndarray
    variances: np.ndarray

    @classmethod
    def of(cls, slices: Slices, residual: np.ndarray) -> _Noise:
        """residual (P, m): maps design points to distances from the parabolas."""
        free = (residual**2).sum()  # the sum over parabolas of points - 3, where slices are runs
        about = free**2 / ((residual @ residual.T) ** 2).sum()  # degrees of freedom, fewer where slices share runs
        within = int(slices.counts.sum()) - len(slices.y)
        scatter = float(((residual @ slices.y) ** 2).sum() / free)
        pooled = within > 0 and scatter <= slices.seeds

        def variance(scatter, seeds):
            return np.maximum((about * scatter + within * seeds) / (about + within) if pooled else scatter, 1e-30)

        actual = float(variance(scatter, slices.seeds))
        random = np.random.RandomState(RNG_SEED)
        errors = math.sqrt(actual) * random.standard_normal((RESAMPLES, len(slices.y)))
        seeds = actual * random.chisquare(max(within, 1), RESAMPLES) / max(within, 1)
        return cls(actual, errors, variance(((errors @ residual.T) ** 2).sum(1) / free, seeds))

    def critical(self, gradient: np.ndarray) -> float:
        """q for gradient (m,) @ errors."""
        return float(np.quantile(np.abs(self.errors @ gradient) / np.sqrt(self.variances * (gradient @ gradient)), LEVEL))


@dataclass(frozen=True, eq=False)
class _Parabola:
    """x (n,): log N - centre. solve (3, m): maps design points to coefficients theta (3,); residual (n, m): to residuals."""

    n: int
    x: np.ndarray
    centre: float
    log_C: np.ndarray
    solve: np.ndarray
    theta: np.ndarray
    residual: np.ndarray

    @classmethod
    def of(cls, slices: Slices, b: int) -> _Parabola:
        rows = np.nonzero(slices.budget == b)[0]
        rows = rows[np.argsort(slices.N[rows], kind="stable")]
        z = np.log(slices.N[rows])
        centre = float(z.mean()) if len(z) else 0.0
        design = np.vander(z - centre, 3, increasing=True)
        inverse = np.linalg.pinv(design)
        weights = slices.weights[rows]
        n = len(np.unique(np.round(z, 6)))  # sizes all but equal are one
        return cls(n, z - centre, centre, z + np.log(slices.D[rows]), inverse @ weights, inverse @ weights @ slices.y,
                   weights - design @ inverse @ weights)

    def minimum(self, slices: Slices, C: float, noise: _Noise) -> Minimum:
        if self.n < FEWEST:
            return Minimum(C, "too_few_points", self.n)
        shape = dict(centre=self.centre, coefficients=tuple(self.theta.tolist()))
        c0, c1, c2 = self.theta
        _, g1, g2 = self.solve
        if c2 <= 0:
            return Minimum(C, "no_minimum", self.n, **shape)
        root = -c1 / (2 * c2)
        k = noise.critical(g1 + 2 * root * g2) ** 2 * noise.variance
        a, b, c = 4 * (c2**2 - k * (g2 @ g2)), 4 * (c1 * c2 - k * (g1 @ g2)), c1**2 - k * (g1 @ g1)
        if a <= 0:
            return Minimum(C, "no_minimum", self.n, **shape)
        if not self.x[0] < root < self.x[-1]:
            return Minimum(C, "outside", self.n, **shape)
        spread = math.sqrt(max(b**2 - 4 * a * c, 0))
        logs = np.array([root, (-b - spread) / (2 * a), (-b + spread) / (2 * a)]) + self.centre
        D = (np.interp(logs, self.x + self.centre, self.log_C) - logs)[[0, 2, 1]]
        gradient = np.array([1, root, root**2]) @ self.solve
        half = noise.critical(gradient) * math.sqrt(noise.variance * (gradient @ gradient))
        loss = c0 + c1 * root + c2 * root**2
        sides = min((self.x < root).sum(), (self.x > root).sum())
        outer = min(root - self.x[0], self.x[-1] - root) < OUTER * (self.x[-1] - self.x[0])
        status = "off_centre" if outer or sides < 2 else "ok"
        return Minimum(C, status, self.n, _exp(*logs), _exp(*D), _exp(loss, loss - half, loss + half), **shape)


def _size_law(fits: list[_Parabola], C: np.ndarray, noise: _Noise) -> SizeLaw:
    """The line through log N* of each budget, with the covariance of its level and slope."""
    d = np.log(C) - np.log(C).mean()
    line = np.stack([np.full(len(d), 1 / len(d)), d / (d @ d)])
    off = np.eye(len(d)) - np.stack([np.ones(len(d)), d], 1) @ line

    def minima(errors):  # (R, m) -> log N* (R, B), its derivatives (R, B, m), whether all are minima (R,)
        theta = np.stack([f.theta + errors @ f.solve.T for f in fits], 1)
        good = (theta[:, :, 2] > 0).all(1)
        curvature = np.where(theta[:, :, 2] > 0, theta[:, :, 2], 1.0)
        root = -theta[:, :, 1] / (2 * curvature)
        g1, g2 = (np.stack([f.solve[i] for f in fits]) for i in (1, 2))
        return root + [f.centre for f in fits], -(g1 + 2 * root[:, :, None] * g2) / (2 * curvature[:, :, None]), good

    def spread(deviation, slopes, variance):  # covariance (R, 2, 2), extra variance of the minima (R,)
        inner = variance[:, None, None] * (slopes @ slopes.transpose(0, 2, 1))
        extra = np.maximum(((deviation @ off) ** 2).sum(1) - np.einsum("ij,rji->r", off, inner), 0) / (len(d) - 2)
        return line @ inner @ line.T + extra[:, None, None] * (line @ line.T), extra

    z, slopes, _ = minima(np.zeros((1, noise.errors.shape[1])))
    covariance, extra = spread(z, slopes, np.array([noise.variance]))
    drawn, slopes, good = minima(noise.errors)
    random = np.random.RandomState(RNG_SEED + 1)
    deviation = drawn - z + math.sqrt(extra[0]) * random.standard_normal(drawn.shape)
    covariances, _ = spread(deviation, slopes, noise.variances)
    errors = deviation @ line.T
    errors[~good], covariances[~good] = 1e9, np.eye(2)
    return SizeLaw(C, np.exp(z[0]), line @ z[0], covariance[0], errors, covariances)


@dataclass(frozen=True, eq=False)
class IsoFlop(Result):
    """minima: one for each budget, cheapest first. size: N*(C) through those with a number, None where too few."""

    minima: tuple[Minimum, ...] = ()
    size: SizeLaw | None = None

    def _what(self) -> str:
        return ", ".join(f"C = {m.C:.3g}" for m in self.minima if m.status == "off_centre")

    def to_dict(self) -> dict[str, Any]:
        return {**self._head(), "minima": [m.to_dict() for m in self.minima], "size": self.size.to_dict() if self.size else None}


def argmin(slices: Slices) -> IsoFlop:
    """A common mistake, for comparison only: take the best run of each budget for the best size (no intervals of minima).

    Sizes come in steps, so N* does too; and the luckiest run is taken for the best one. `parabolas` is what to use.
    """
    best = [np.nonzero(slices.budget == b)[0] for b in range(len(slices.C))]
    best = np.array([rows[np.argmin(slices.loss[rows])] for rows in best if len(rows)], int)
    minima = tuple(Minimum(float(slices.C[slices.budget[i]]), "ok", int((slices.budget == slices.budget[i]).sum()),
                           *(Estimate(float(v), None, None) for v in (slices.N[i], slices.D[i], slices.loss[i]))) for i in best)
    if len(best) < FEWEST:
        return IsoFlop("too_few_points", REFUSALS["too_few_points"].format(need=FEWEST, what="budgets"), ("argmin",), minima)
    return IsoFlop("ok", "", ("argmin",), minima, _through(slices.C[slices.budget[best]], slices.N[best]))


def parabolas(slices: Slices) -> IsoFlop:
    """The minimum of a parabola in log N through the log losses of each budget, and N*(C) through the minima.

    Hoffmann et al. 2022, section 3.2. Noise: one standard deviation of log loss for all design points, from the scatter
    about the parabolas, or from that and the seeds where the scatter is no larger than seeds explain. Resamples draw
    normal noise for every design point, so that slices cut through the same runs move together. N*, where the derivative is
    zero, gets the interval of Fieller (1954) with the resamples' critical value. The variance of a is that of the runs'
    noise carried through, and of what the minima scatter beyond it about their line.
    """
    fits = [_Parabola.of(slices, b) for b in range(len(slices.C))]
    enough = [f for f in fits if f.n >= FEWEST]
    if not enough:
        minima = tuple(Minimum(float(C), "too_few_points", f.n) for C, f in zip(slices.C, fits))
        return IsoFlop("too_few_points", REFUSALS["too_few_points"].format(need=FEWEST, what="sizes in every budget"), (), minima)
    noise = _Noise.of(slices, np.concatenate([f.residual for f in enough]))
    minima = tuple(f.minimum(slices, float(C), noise) for C, f in zip(slices.C, fits))
    used = [i for i, m in enumerate(minima) if m.N.value is not None]
    warnings = [name for name, seen in (("off_centre", any(m.status == "off_centre" for m in minima)),
                                        ("budgets_left_out", len(used) < len(minima)), ("few_budgets", len(used) < 5)) if seen]
    if len(used) < 3:
        return IsoFlop("too_few_points", REFUSALS["too_few_points"].format(need=3, what="budgets with a minimum"), tuple(warnings), minima)
    return IsoFlop("ok", "", tuple(warnings), minima, _size_law([fits[i] for i in used], slices.C[used], noise))
