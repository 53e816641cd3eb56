"""Loss on other text against loss on text of the training kind (Kaplan et al. 2020, §3.2.2, Fig. 8 and 24).

Runs with `also_on` hold the loss on other texts along their curves: columns `curve_loss_on_NAME`. Losses are in nats per
character, and a constant offset is a line of slope one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..laws.uncertainty import Line, fit_line
from .curves import of_spec
from .definition import Measurement, complete, longest
from .regression import held, least_squares, mean_of, triple

if TYPE_CHECKING:
    import pandas as pd

PREFIX = "curve_loss_on_"
NEAR_CONSTANT = 0.2     # the offset may change by this share of what the loss changes and still be called nearly constant
FEWEST_SIZES = 4
NAMES = {"sotu": "speeches", "sentences": "sentences"}


def texts(table: pd.DataFrame) -> list[str]:
    """Names of the other texts that some run was measured on."""
    return [column.removeprefix(PREFIX) for column in table if column.startswith(PREFIX) and held(table, column).any()]


def finished(table: pd.DataFrame, text: str) -> pd.DataFrame:
    """A row for each complete run measured on `text`: its shape, N, steps, seed, status, loss, and `other`, its loss there."""
    runs = complete(table)
    runs = runs[held(runs, PREFIX + text)]
    return runs[["n_layer", "d_model", "N", "steps", "seed", "status", "loss"]].assign(other=[v[-1] for v in runs[PREFIX + text]])


def ladder_points(table: pd.DataFrame, text: str) -> pd.DataFrame:
    """The sizes of the ladder at their longest common horizon, means over seeds: N, loss, other, offset (nats)."""
    runs = finished(table, text)
    means = longest(runs).groupby("N", as_index=False)[["loss", "other"]].mean()
    return means.assign(offset=means.other - means.loss)


def transfer_line(points: pd.DataFrame) -> Line:
    """Loss on the other text as a straight line in the loss, through the sizes of `ladder_points`."""
    return fit_line(points.loss.to_numpy(float), points.other.to_numpy(float))


def slope_of(line: Line) -> tuple[float, float, float]:
    half = float(line.half_width(0, 1))
    return line.slope, line.slope - half, line.slope + half


def off_line(line: Line, loss: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far a loss on the other text lies above the line of finished ladder runs at the same loss, in per cent."""
    return 100 * (np.asarray(other, float) / line.at(np.asarray(loss, float)) - 1)


def during_training(table: pd.DataFrame, text: str, line: Line) -> pd.DataFrame:
    """Distance from `line` along the trainings, before their learning rate falls: the longest run of each size and seed.

    Columns N, seed, step, loss, other, off (per cent); only where the loss lies in the range of the finished sizes.
    """
    import pandas as pd

    runs = complete(table)
    runs = runs[held(runs, PREFIX + text)].sort_values("steps").groupby(["N", "seed"]).tail(1)
    rows = []
    for _, run in runs.iterrows():
        step, loss, other = (np.asarray(run[name], float) for name in ("curve_step", "curve_val_loss", PREFIX + text))
        cool = run.cooldown if run.schedule == "cooldown" else 0.0
        seen = (step > run.warmup_steps) & (step <= (1 - cool) * run.steps) & (loss >= line.z.min()) & (loss <= line.z.max())
        rows.append(pd.DataFrame({"N": run.N, "seed": run.seed, "step": step[seen], "loss": loss[seen], "other": other[seen]}))
    found = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["N", "seed", "step", "loss", "other"])
    return found.assign(off=off_line(line, found.loss, found.other))


def measure_transfer(runs: pd.DataFrame) -> Measurement:
    """Slope of the loss on the first other text in the loss on fiction; and whether phase, depth or size matter too."""
    ladder, main, more = of_spec(runs, "ladder"), None, {}
    for text in texts(ladder):
        points = ladder_points(ladder, text)
        if len(points) < FEWEST_SIZES:
            continue
        line, name = transfer_line(points), NAMES.get(text, text)
        slope = slope_of(line)
        if main is None:
            main = slope
        else:
            more[f"{name}: slope"] = (None, *slope)
        more[f"{name}: mean offset, nats"] = (None, *triple(mean_of(points.offset)))
        spread = float(np.ptp(points.offset) / points.loss.mean())
        more[f"{name}: spread of the offset over sizes, % of the loss"] = (None, 100 * spread, None, None)
        for what, estimate in beside_the_loss(runs, text, line).items():
            if estimate.value is not None:
                more[f"{name}: {what}"] = (None, *triple(estimate))
    if main is None:
        return Measurement(None, refusal=f"the loss on another text is needed for at least {FEWEST_SIZES} sizes of one length")
    return Measurement(*main, more=more)


def beside_the_loss(runs: pd.DataFrame, text: str, line: Line) -> dict:
    """Does anything but the loss on the training text tell the loss on the other? Distances from the line, in per cent, as
    Estimates: of trainings under way, with each factor of ten in N at equal loss, and with each doubling of depth."""
    found = {}
    under_way = during_training(of_spec(runs, "ladder"), text, line)
    trainings = under_way.groupby(["N", "seed"]).off.agg(["mean", "size"])
    trainings = trainings[trainings["size"] >= 3]["mean"]
    if len(trainings) > 2:
        found["above the line during training, %"] = mean_of(trainings)
    ends = finished(of_spec(runs, "ladder"), text).groupby(["N", "steps"], as_index=False)[["loss", "other"]].mean()
    ends = ends[(ends.loss >= line.z.min()) & (ends.loss <= line.z.max())]
    if ends.N.nunique() > 2 and len(ends) > 5:
        columns = np.stack([np.log10(ends.N.to_numpy(float)), ends.loss.to_numpy(float), np.ones(len(ends))], axis=1)
        off = off_line(line, ends.loss, ends.other)
        found["change with each factor of ten in N at equal loss, %"] = least_squares(columns, off)
    deep = finished(runs, text)
    deep = deep[deep.steps.isin(set(deep[deep.n_layer != deep.n_layer.mode().iloc[0]].steps))]
    deep = deep[(deep.loss >= line.z.min()) & (deep.loss <= line.z.max())]
    if deep.n_layer.nunique() > 2:
        columns = np.stack([np.log2(deep.n_layer.to_numpy(float)), deep.loss.to_numpy(float), np.ones(len(deep))], axis=1)
        off = off_line(line, deep.loss, deep.other)
        found["change with each doubling of depth at equal loss, %"] = least_squares(columns, off)
    return found


def nearly_constant(measured: Measurement, target: float | None) -> bool:
    """Every slope within NEAR_CONSTANT of one, intervals included."""
    others = [row[2:] for name, row in measured.more.items() if name.endswith(": slope")]
    bounds = [(measured.low, measured.high), *others]
    return all(1 - NEAR_CONSTANT <= low and high <= 1 + NEAR_CONSTANT for low, high in bounds)
