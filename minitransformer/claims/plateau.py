"""Chapter I: a curve that still bends away from its plateau: one law for the small-data region and the power law after it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..laws.fit import fit
from ..laws.forms import Form, form
from ..laws.law import Law

if TYPE_CHECKING:
    import pandas as pd


def plateau_then_power() -> Form:
    """L(m) = G / (1 + m / m_0)^alpha: the kit's form of three regions without its floor, for curves that show none.

    Far beyond m_0 it is the power law of Hestness et al. 2017 with beta_g = -alpha.
    """
    base = form("regions", "D")
    return Form(
        name="plateau-power", title="plateau, then a power law", inputs=base.inputs, equation="L(D) = G / (1 + D / D_0)^alpha_D",
        parameters=base.parameters[1:4], sources=base.sources, valid="one model family from near guessing on; no floor in sight",
        theta=("g", "z0", "alpha"), exponents=("alpha",), evaluate=_evaluate,
        report=lambda t, centre: np.stack([np.exp(t[:, 0]), t[:, 1] + centre[0], t[:, 2]], 1),
        internal=lambda values: np.array([math.log(values["G"]), math.log(values["D_0"]), values["alpha_D"]]),
        basis=lambda q, z, y: np.exp(-q[:, :1] * np.logaddexp(0, z[0] - q[:, 1:]) - y)[:, None],
        assemble=lambda q, c: np.stack([np.log(np.maximum(c[:, 0], 1e-300)), q[:, 1], q[:, 0]], 1),
        grid=base.grid,
    )


def _evaluate(theta, z):
    g, z0, alpha = (theta[:, i : i + 1] for i in range(3))
    soft = np.logaddexp(0, z[0] - z0)
    return g - alpha * soft, np.stack([np.ones_like(soft), alpha * (1 - np.exp(-soft)), -soft], 1)


def beyond_plateau(points: pd.DataFrame) -> Law:
    """The law through all seeds of the best fits, from the smallest training set on."""
    return fit(plateau_then_power(), points.error.to_numpy(float), D=points.m.to_numpy(float), seed=points.seed.to_numpy())


def forecast_beyond(law: Law, held: pd.DataFrame) -> pd.DataFrame:
    """Points predicted by such a law of others; columns as `envelope.forecast`."""
    import pandas as pd

    measured = np.exp(np.log(held.error).groupby(held.m).mean().sort_index())
    predicted, low, high = law.predict(measured.index.to_numpy(float)) if len(measured) else np.empty((3, 0))
    return pd.DataFrame({"m": measured.index.to_numpy(float), "predicted": predicted, "low": low, "high": high,
                         "measured": measured.to_numpy(), "error_percent": 100 * (predicted / measured.to_numpy() - 1)})


def foretell_beyond(points: pd.DataFrame, held: int) -> pd.DataFrame:
    """The `held` largest training sets predicted by this law through the others; empty where they have none."""
    largest = np.unique(points.m)[-held:]
    law = beyond_plateau(points[~points.m.isin(largest)])
    return forecast_beyond(law, points[points.m.isin(largest)]) if law.ok else forecast_beyond(law, points[:0])
