"""What follows from the laws in closed form: the arithmetic of the papers, one function an equation.

Scales and exponents are arguments, so that each formula serves a published law and a fitted one alike. Two are printed
with their constants in Kaplan et al. 2020 and take none: `data_to_avoid_overfitting` and `learning_rate`.
"""

from __future__ import annotations

import math

import numpy as np

from minitransformer.errors import UserError
from minitransformer.laws import forms
from minitransformer.papers import value

FLOPS = value("kaplan2020.setup.train_flops")  # per parameter and token: C = 6 N D

# --- the best split of a budget ----------------------------------------------------------------------------------


def log_best_size(log_a: float, p: float, log_b: float, q: float, log_product: float) -> float:
    """log of the x that minimises a / x^p + b / y^q under x y = product, all in logs.

    Hoffmann et al. 2022, eq. 4, with x = N, y = D and product = C / 6: N = G (C / 6)^(beta / (alpha + beta)),
    G = (alpha A / (beta B))^(1 / (alpha + beta)).
    """
    if not (p > 0 and q > 0):
        raise UserError("there is no best size: the loss must fall with size and with data, so both exponents must be above zero")
    return (math.log(p) + log_a - math.log(q) - log_b + q * log_product) / (p + q)


# --- Kaplan et al. 2020: compute-efficient training (appendix B) ----------------------------------------------------


def compute_exponent(alpha_N: float, alpha_S: float, alpha_B: float) -> float:
    """alpha_C^min = 1 / (1/alpha_S + 1/alpha_B + 1/alpha_N): Kaplan et al. 2020, eqs. 1.8, 6.4 and B.7.

    The best size, batch and steps grow with compute by this over alpha_N, alpha_B and alpha_S (eq. 1.7).
    """
    return 1 / (1 / alpha_S + 1 / alpha_B + 1 / alpha_N)


def efficient_excess(alpha_N: float, alpha_S: float) -> float:
    """How far above its converged loss a model stops when compute is spent best, relative: eq. B.5, alpha_N / alpha_S."""
    return alpha_N / alpha_S


def log_compute_scale(alpha_N: float, alpha_S: float, log_N_c: float, log_S_c: float, log_B_star: float) -> float:
    """log of C_c (FLOPs) in L = (C_c / C_min)^alpha_C_min: eq. B.8, N_c, B* and S_c in parameters, tokens and steps."""
    f = alpha_N / alpha_S
    return math.log(FLOPS) + log_N_c + log_S_c + log_B_star + (1 / alpha_S + 1 / alpha_N) * math.log1p(f) - math.log(f) / alpha_S


def log_efficient(log_loss: float, alpha_N: float, alpha_S: float, log_N_c: float, log_S_c: float) -> tuple[float, float]:
    """logs of the size and of the fewest steps S_min that reach this loss with the least compute: eqs. B.5, B.9, B.10."""
    f = alpha_N / alpha_S
    return log_N_c + (math.log1p(f) - log_loss) / alpha_N, log_S_c + (math.log1p(1 / f) - log_loss) / alpha_S


def efficient_against(near: float, alpha_N: float, alpha_S: float) -> tuple[float, float, float]:
    """Size, steps and compute of the efficient training over those of a smaller model trained to within `near` of its
    converged loss, both to the same loss: eqs. B.12 to B.14."""
    f = efficient_excess(alpha_N, alpha_S)
    size = ((1 + f) / (1 + near)) ** (1 / alpha_N)
    steps = ((1 + 1 / f) / (1 + 1 / near)) ** (1 / alpha_S)
    return size, steps, size * steps


def cost_of_size(ratio: float, alpha_N: float, alpha_S: float) -> tuple[float, float]:
    """Compute and steps for a model `ratio` times the best size to reach the same loss, over those at the best size.

    Eqs. B.16 and B.17. Infinite for a model too small to get there.
    """
    left = 1 + alpha_S / alpha_N * (1 - ratio**-alpha_N)
    steps = left ** (-1 / alpha_S) if left > 0 else math.inf
    return ratio * steps, steps


# --- Kaplan et al. 2020: overfitting, early stopping, learning rate ------------------------------------------------


def overfitting(N, D, alpha_N: float, alpha_D: float, N_c: float, D_c: float):
    """Loss at D tokens over that for unlimited data, less one: eqs. 4.2 and 4.3, from L(N, D)."""
    return (1 + (np.asarray(N, float) / N_c) ** (alpha_N / alpha_D) * D_c / D) ** alpha_D - 1


def data_for_excess(N, excess: float, alpha_N: float, alpha_D: float, N_c: float, D_c: float):
    """Tokens at which data cost a model of size N this relative `excess` of loss: the inverse of `overfitting`."""
    return D_c * (np.asarray(N, float) / N_c) ** (alpha_N / alpha_D) / ((1 + excess) ** (1 / alpha_D) - 1)


def data_to_avoid_overfitting(N):
    """Tokens that a model of size N needs for its overfitting to drown in seed noise, as printed in eq. 4.4: scale N^exponent."""
    return value("kaplan2020.overfitting.D_scale") * np.asarray(N, float) ** value("kaplan2020.overfitting.D_exponent")


def stop_bound(excess, alpha_S: float, S_c: float):
    """The fewest steps before early stopping can be due: eq. 5.7, S_stop >= S_c / excess^(1 / alpha_S).

    excess: L(N, D) - L(N, infinity) in nats, the loss that limited data cost; none (zero or less) gives infinity.
    """
    excess = np.asarray(excess, float)
    with np.errstate(divide="ignore"):
        return S_c * np.maximum(excess, 0.0) ** (-1 / alpha_S)


def learning_rate(N: float) -> float:
    """Kaplan et al. 2020, eq. D.1, for Adam: a straight line in log N, where the logarithm must be the natural one.

    It falls to zero just beyond the size above which the paper calls it broken: UserError from there on.
    """
    rate = value("kaplan2020.rate.intercept") + value("kaplan2020.rate.slope") * math.log(N)
    if rate <= 0:
        raise UserError(f"Kaplan's rule has no learning rate for {N:.3g} parameters: it breaks down above "
                        f"{value('kaplan2020.rate.N_limit'):.0e}")
    return rate


# --- Pearce & Song 2024: the exponent seen without embeddings -------------------------------------------------------


def embedding_constant(vocabulary: float, context: float, aspect: float) -> float:
    """omega in N_total = N + omega N^(1/3), for width / depth = `aspect` and learned positions (context 0: none).

    Pearce & Song 2024. N = 12 depth width^2 without embeddings, so width = (N aspect / 12)^(1/3).
    """
    return (vocabulary + context) * (aspect / value("kaplan2020.setup.shape_factor")) ** (1 / 3)


def local_exponent(N, omega: float, alpha: float, beta: float):
    """d log N* / d log C, both counted without embeddings, if Chinchilla's law holds for all parameters.

    Pearce & Song 2024: L = E + A / N_total^alpha + B / D^beta with N_total = N + omega N^(1/3), minimised under
    C = 6 N D. It runs from beta / (alpha / 3 + beta) for small N over a peak to beta / (alpha + beta) for large N,
    whatever A and B.
    """
    n = np.asarray(N, float) ** (2 / 3)
    inverse = 1 - (n + omega / 9) / (n + omega / 3) / beta + (alpha + 1) / beta * (n + omega / 3) / (n + omega)
    return 1 / inverse


# --- Muennighoff et al. 2023: what repeats are worth ----------------------------------------------------------------


def effective_data(D, U, R_star: float):
    """Fresh tokens that D tokens are worth when only U of them differ: U + U R* (1 - exp(-(D / U - 1) / R*)).

    Muennighoff et al. 2023, eq. 5. D itself up to one epoch. The same formula turns N, U_N and R*_N into N'.
    """
    worth = np.exp(forms._effective(np.log(np.asarray(D, float)), np.log(np.asarray(U, float)), math.log(R_star))[0])
    return worth if worth.shape else float(worth)
