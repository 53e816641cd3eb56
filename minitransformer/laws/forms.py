"""The forms a law can take: names, units, paper and equation of every parameter."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Parameter:
    name: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class Form:
    """A law before it is fitted: `equation` in plain text, `valid` says where it can hold."""

    name: str
    x: str
    x_unit: str
    equation: str
    parameters: tuple[Parameter, ...]
    sources: tuple[str, ...]
    valid: str


UNITS = {"N": "parameters", "D": "tokens", "C": "FLOPs", "S": "steps"}

SOURCES = {
    "N": ("Kaplan et al. 2020, eq. 1.1",),
    "D": (
        "Kaplan et al. 2020, eq. 1.2",
        "Hestness et al. 2017, who write alpha m^beta_g: their beta_g is -alpha_D, their alpha is D_c^alpha_D",
    ),
    "C": ("Kaplan et al. 2020, eq. 3.3 at a fixed batch; eq. 1.3 for C_min",),
}

VALID = {
    "N": "sizes trained to convergence on data that do not limit them, N counted without embeddings",
    "D": "training sets above the small-data end, early stopped, with a model that they do not saturate",
    "C": "the best loss for each amount of compute, over model sizes",
}


def power_law(x: str = "N") -> Form:
    """L(x) = (x_c / x)^alpha_x; loss in nats per token (or any positive error), x in the unit of `UNITS`."""
    unit = UNITS.get(x, f"units of {x}")
    return Form(
        name="power",
        x=x,
        x_unit=unit,
        equation=f"L({x}) = ({x}_c / {x})^alpha_{x}",
        parameters=(
            Parameter(f"alpha_{x}", "none", "the exponent: doubling x multiplies the loss by 2^-alpha"),
            Parameter(f"{x}_c", unit, "where the line would reach a loss of 1, far outside any data"),
        ),
        sources=SOURCES.get(x, ("Kaplan et al. 2020, eqs. 1.1 to 1.3",)),
        valid=VALID.get(x, "between the small end, near guessing, and the irreducible floor"),
    )


def power_law_loss(x: np.ndarray, alpha: float, x_c: float) -> np.ndarray:
    """Loss of the power law at x (any shape), computed in logs so that large x_c cannot overflow."""
    return np.exp(alpha * (np.log(x_c) - np.log(x)))
