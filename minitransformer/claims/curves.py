"""Curves of trainings read from a table of runs: loss after S steps, and steps to a loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .definition import complete

if TYPE_CHECKING:
    import pandas as pd

LEVEL_RATIO = 1.03  # between the fixed losses
COLUMNS = ["N", "seed", "lr", "B", "warmup", "S", "loss"]


def of_spec(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """The runs of one spec, where the table says which those are; else all of them."""
    return runs[runs.spec == name] if "spec" in runs else runs


def training_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Validation loss after S steps at a constant rate: one row for each measurement of each training.

    Columns N, seed, lr, B (tokens per step), warmup (steps), S, loss. Runs that differ in length alone are one training until
    they cool down: of each the longest is read, up to its last step at the full rate. A cosine has no such steps.
    """
    import pandas as pd

    parts, runs = [], complete(runs)
    for _, group in runs[runs.schedule != "cosine"].groupby(["N", "seed", "lr", "batch_size", "n_ctx"], sort=True):
        run = group.loc[group.steps.idxmax()]
        S = np.asarray(run.curve_step, float)
        last = run.steps if run.schedule == "constant" else math.floor(run.steps * (1 - run.cooldown)) + 1
        parts.append(pd.DataFrame({"N": float(run.N), "seed": run.seed, "lr": run.lr, "B": float(run.batch_size * run.n_ctx),
                                   "warmup": run.warmup_steps, "S": S, "loss": np.asarray(run.curve_val_loss, float)})[S <= last])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS, dtype=float)


def decayed_ends(runs: pd.DataFrame) -> pd.DataFrame:
    """The same columns, one row for each run that cooled down: its length, and the loss it ended with."""
    runs = complete(runs)
    runs = runs[(runs.schedule == "cooldown") & (runs.cooldown > 0)]
    ends = runs.assign(N=1.0 * runs.N, B=1.0 * runs.batch_size * runs.n_ctx, S=1.0 * runs.steps, warmup=runs.warmup_steps)
    return ends[COLUMNS].sort_values(["N", "seed", "S"], ignore_index=True)


def steps_to(S: np.ndarray, loss: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Steps at which a curve S, loss (n,), S ascending, first comes down to each of levels (k,): (k,), NaN where it does not.

    On the straight line in logs between the last point above and the first that is not. A level above the whole curve was
    reached before the first measurement, nobody knows when: NaN too.
    """
    found = np.full(len(levels), np.nan)
    for i, level in enumerate(levels):
        below = np.nonzero(loss <= level)[0]
        if len(below) and below[0] > 0:
            b, a = below[0], below[0] - 1
            share = math.log(loss[a] / level) / math.log(loss[a] / loss[b])
            found[i] = math.exp(math.log(S[a]) + share * math.log(S[b] / S[a]))
    return found


def fixed_losses(low: float, high: float) -> np.ndarray:
    """The whole powers of LEVEL_RATIO from high to low: the same losses whatever the runs."""
    k = np.arange(math.ceil(math.log(low) / math.log(LEVEL_RATIO)), math.floor(math.log(high) / math.log(LEVEL_RATIO)) + 1)
    return LEVEL_RATIO ** k[::-1].astype(float)


def steps_to_losses(curves: pd.DataFrame) -> pd.DataFrame:
    """N, seed, lr, B, L and the S that each curve needed to each fixed loss L, where that was after the warm-up."""
    import pandas as pd

    parts = []
    for (N, seed, lr, B), curve in curves.sort_values("S").groupby(["N", "seed", "lr", "B"]):
        curve = curve[curve.S >= curve.warmup]
        if len(curve) > 1:
            levels = fixed_losses(curve.loss.min(), curve.loss.iloc[0])
            S = steps_to(curve.S.to_numpy(float), curve.loss.to_numpy(float), levels)
            parts.append(pd.DataFrame({"N": N, "seed": seed, "lr": lr, "B": B, "L": levels, "S": S}))
    empty = pd.DataFrame(columns=["N", "seed", "lr", "B", "L", "S"], dtype=float)
    return pd.concat(parts, ignore_index=True).dropna() if parts else empty
