"""Known answers: what the papers' constants give when the kit's own functions do the arithmetic, slips included.

Numbers typed here are the answers; the constants come from papers.csv.
"""

import json
import math
import os
import subprocess
import sys
from math import log
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from minitransformer.laws import formulas, published
from minitransformer.laws.optimise import DELTA, huber
from minitransformer.laws.plan import allocate, kaplan_rules
from minitransformer.laws.named import PF_DAY
from minitransformer.papers import TABLE, get, value


def constants(group: str) -> dict[str, float]:
    """The numbers of one group of papers.csv, by the last part of their keys."""
    return {key.rpartition(".")[2]: entry.value for key, entry in TABLE.items() if key.rpartition(".")[0] == group}


kaplan = constants("kaplan2020")
L_ND, L_NS, OPTIMUM = (constants(f"kaplan2020.{name}") for name in ("L_ND", "L_NS", "optimum"))
EFFICIENT = constants("kaplan2020.efficient")
ALPHAS = {name: L_NS[name] for name in ("alpha_N", "alpha_S")}
LOG_SCALES = {f"log_{name}": log(L_NS[name]) for name in ("N_c", "S_c")}


def rounded(x, digits=2) -> float:
    return float(f"{x:.{digits}g}")


def slope(law_or_rule, low: float, high: float) -> float:
    """The exponent of N against C between two budgets."""
    rule = law_or_rule if callable(law_or_rule) else lambda C: allocate(law_or_rule, C)
    return log(rule(high).N / rule(low).N) / log(high / low)


# --- Kaplan et al. 2020: reference values ---------------------------------------------------------------------------


@pytest.mark.parametrize("N, loss", [(1e6, 4.02), (1e7, 3.37), (1e8, 2.83), (1e9, 2.38)])
def test_kaplan_loss_against_size(N, loss):
    assert published("kaplan-n").predict(N=N).value == pytest.approx(loss, abs=0.005)


@pytest.mark.parametrize("D, loss", [(2.2e7, 4.05), (1e8, 3.50), (1e9, 2.82), (1e10, 2.26)])
def test_kaplan_loss_against_data(D, loss):
    assert published("kaplan-d").predict(D=D).value == pytest.approx(loss, abs=0.005)


@pytest.mark.parametrize("L, batch", [(4, 2.7e5), (3, 1.1e6), (2.5, 2.5e6), (2, 7.4e6)])
def test_kaplan_critical_batch(L, batch):
    assert rounded(published("kaplan-b-crit").predict(L=float(L)).value) == batch


def test_kaplan_critical_batch_doubles_as_the_caption_says():
    drop = 1 - value("kaplan2020.batch.doubling_drop")
    law = published("kaplan-b-crit")
    assert law.predict(L=3 * drop).value / law.predict(L=3.0).value == pytest.approx(2, rel=0.04)


# --- Kaplan et al. 2020: seven places where the paper contradicts itself -------------------------------------------


def test_1_eq_6_4_gives_less_than_it_prints():
    predicted = formulas.compute_exponent(kaplan["alpha_N"], kaplan["alpha_S"], kaplan["alpha_B"])
    assert predicted == pytest.approx(0.0520, abs=5e-5)
    assert formulas.compute_exponent(L_NS["alpha_N"], kaplan["alpha_S"], kaplan["alpha_B"]) == pytest.approx(0.0525, abs=5e-5)
    assert rounded(predicted) == OPTIMUM["alpha_C_theory_appendix"] != OPTIMUM["alpha_C_theory"]
    exponents = [predicted / kaplan[a] for a in ("alpha_N", "alpha_B", "alpha_S")]
    assert exponents == pytest.approx([0.684, 0.248, 0.068], abs=5e-4)
    assert rounded(exponents[0]) < OPTIMUM["N_exponent_theory"] and rounded(exponents[2]) > 2 * OPTIMUM["S_exponent"]


def test_2_the_overfitting_exponent_comes_from_table_2():
    assert rounded(L_ND["alpha_N"] / L_ND["alpha_D"]) == value("kaplan2020.overfitting.D_exponent")
    assert kaplan["alpha_N"] / kaplan["alpha_D"] == pytest.approx(0.80)
    growth = formulas.data_for_excess(np.array([1e6, 1e9]), 0.02, **L_ND)
    assert log(growth[1] / growth[0]) / log(1e3) == pytest.approx(L_ND["alpha_N"] / L_ND["alpha_D"])


def test_3_the_overfitting_prefactor():
    one = formulas.data_for_excess(1.0, value("kaplan2020.noise.seed"), **L_ND)
    assert rounded(one) == 5.5e3 > formulas.data_to_avoid_overfitting(1.0) == value("kaplan2020.overfitting.D_scale")
    for N in (1e6, 1e9):  # a tenth and some of data
        assert 1.05 < formulas.data_for_excess(N, value("kaplan2020.noise.seed"), **L_ND) / formulas.data_to_avoid_overfitting(N) < 1.1


def test_4_eq_6_7_prints_twice_what_follows():
    data = kaplan_rules(PF_DAY).D
    assert rounded(data) == 2.2e10
    assert rounded(data, 1) == OPTIMUM["D_scale"] == OPTIMUM["D_scale_text"] / 2
    growth = log(kaplan_rules(10 * PF_DAY).D / data) / log(10)
    assert growth == pytest.approx(OPTIMUM["D_exponent"]) and OPTIMUM["D_exponent"] != OPTIMUM["D_exponent_text"]


def test_5_eq_B_8_gives_half_the_fitted_scale():
    scale = formulas.log_compute_scale(**ALPHAS, **LOG_SCALES, log_B_star=log(kaplan["B_star_table"]))
    assert rounded(math.exp(scale) / PF_DAY) == 1.6e8
    assert 1.8 < kaplan["C_c_min"] * PF_DAY / math.exp(scale) < 2


@pytest.mark.parametrize("N, rate", [(1e6, 1.31e-3), (1e7, 9.9e-4), (1e8, 6.7e-4), (1e9, 3.5e-4)])
def test_6_the_learning_rate_needs_the_natural_logarithm(N, rate):
    assert formulas.learning_rate(N) == pytest.approx(rate, rel=0.01)
    zero = -value("kaplan2020.rate.intercept") / value("kaplan2020.rate.slope")
    assert math.exp(zero) == pytest.approx(1.2e10, rel=0.02)
    assert value("kaplan2020.rate.N_limit") < math.exp(zero) < 1.3 * value("kaplan2020.rate.N_limit") < 1e12 < 10**zero


def test_7_L_ND_with_6ND_would_not_give_their_optimum():
    law = published("kaplan-nd")
    assert slope(law, 1e15, 1e24) == pytest.approx(0.575, abs=5e-4)
    assert slope(kaplan_rules, 1e15, 1e24) == pytest.approx(OPTIMUM["N_exponent"])


# --- Kaplan et al. 2020: appendix B and section 6 ------------------------------------------------------------------


def test_compute_efficient_training_stops_ten_per_cent_above_convergence():
    excess = formulas.efficient_excess(**ALPHAS)
    assert excess == pytest.approx(EFFICIENT["above_converged"], rel=0.02)
    best = allocate(published("kaplan-ns"), PF_DAY, critical=published("kaplan-b-crit"))
    converged = (L_NS["N_c"] / best.N) ** L_NS["alpha_N"]
    assert best.loss / converged == pytest.approx(1 + excess)


def test_against_training_to_within_two_per_cent():
    ratios = formulas.efficient_against(0.02, **ALPHAS)
    assert [rounded(r) for r in ratios] == [EFFICIENT[f"{name}_ratio"] for name in "NSC"]


def test_the_cost_of_a_wrong_size():
    """Eqs. B.16 and B.17 against what the text reads off Fig. 12; and against L(N, S) itself, by bisection."""
    small, large = (formulas.cost_of_size(EFFICIENT[f"size_{end}"], **ALPHAS) for end in ("low", "high"))
    assert small[0] == pytest.approx(1.16, abs=0.005) and large[0] == pytest.approx(1.20, abs=0.005)
    assert rounded(1 - large[1]) == EFFICIENT["steps_saved"]
    assert formulas.cost_of_size(1.0, **ALPHAS) == (1, 1) and formulas.cost_of_size(0.2, **ALPHAS)[0] == math.inf
    law = published("kaplan-ns")
    N, S = np.exp(formulas.log_efficient(log(3.0), **ALPHAS, **LOG_SCALES))
    assert law.predict(N=N, S=S).value == pytest.approx(3.0)
    for ratio in (0.6, 1.0, 2.2):
        low, high = 1.0, 1e9
        for _ in range(100):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if law.predict(N=ratio * N, S=middle).value > 3 else (low, middle)
        assert formulas.cost_of_size(ratio, **ALPHAS) == pytest.approx((ratio * middle / S, middle / S), rel=1e-6)


def test_appendix_B_is_what_allocating_finds():
    """L = (C_c / C_min)^alpha_C_min with eqs. B.7 and B.8; N, B, S grow as eq. 1.7 says."""
    law, critical = published("kaplan-ns"), published("kaplan-b-crit")
    scale = formulas.log_compute_scale(**ALPHAS, **LOG_SCALES, log_B_star=log(kaplan["B_star"]))
    alpha = formulas.compute_exponent(**ALPHAS, alpha_B=kaplan["alpha_B"])
    one, ten = (allocate(law, C, critical=critical) for C in (PF_DAY, 10 * PF_DAY))
    assert log(one.loss) == pytest.approx(alpha * (scale - log(PF_DAY)))
    for name, exponent in (("N", "alpha_N"), ("S", "alpha_S")):
        assert math.log10(getattr(ten, name) / getattr(one, name)) == pytest.approx(alpha / L_NS[exponent])
    assert math.log10(ten.B / one.B) == pytest.approx(alpha / kaplan["alpha_B"])
    assert 6 * one.N * one.B * one.S == pytest.approx(PF_DAY)


def test_the_early_stopping_bound_is_where_unlimited_data_would_get_there():
    N, D = 1e8, 1e8
    excess = published("kaplan-nd").predict(N=N, D=D).value - (L_ND["N_c"] / N) ** L_ND["alpha_N"]
    steps = formulas.stop_bound(excess, L_NS["alpha_S"], L_NS["S_c"])
    converged = (L_NS["N_c"] / N) ** L_NS["alpha_N"]
    assert published("kaplan-ns").predict(N=N, S=steps).value == pytest.approx(converged + excess)
    assert formulas.stop_bound(0.0, L_NS["alpha_S"], L_NS["S_c"]) == math.inf


def test_overfitting_is_the_excess_of_L_ND():
    N, D = 1e8, 1e9
    excess = formulas.overfitting(N, D, **L_ND)
    assert 1 + excess == pytest.approx(published("kaplan-nd").predict(N=N, D=D).value / (L_ND["N_c"] / N) ** L_ND["alpha_N"])
    assert formulas.data_for_excess(N, excess, **L_ND) == pytest.approx(D)


def test_avoiding_overfitting_takes_more_data_than_efficient_training_sees():
    assert rounded(value("kaplan2020.overfitting.D_exponent") * OPTIMUM["N_exponent"]) == value("kaplan2020.overfitting.D_compute_exponent")
    assert value("kaplan2020.overfitting.D_compute_exponent") > OPTIMUM["D_exponent"]


def test_the_crossing_follows_from_table_6_not_from_eq_6_7():
    def crossing(scale, exponent):
        data_loss = (kaplan["D_c"] / scale) ** kaplan["alpha_D"]
        return (kaplan["C_c_min"] ** kaplan["alpha_C_min"] / data_loss) ** (1 / (kaplan["alpha_C_min"] - exponent * kaplan["alpha_D"]))

    crossed = {key: value(f"kaplan2020.crossing.{key}") for key in "CNDL"}
    from_table = crossing(OPTIMUM["D_scale"], OPTIMUM["D_exponent"])
    assert rounded(from_table, 1) == crossed["C"]
    there = kaplan_rules(from_table * PF_DAY)
    assert rounded(there.loss) == crossed["L"]
    assert rounded(there.N, 1) == crossed["N"]
    assert crossed["D"] / there.D == pytest.approx(3.64, abs=5e-3)  # one epoch there is little over a quarter of the printed D*
    assert crossing(OPTIMUM["D_scale_text"], OPTIMUM["D_exponent_text"]) > 9 * crossed["C"]


def test_six_epochs():
    seen = value("kaplan2020.setup.steps") * value("kaplan2020.setup.batch")
    assert seen == pytest.approx(1.31e11, rel=0.005)
    assert seen / (value("kaplan2020.setup.tokens") - value("kaplan2020.setup.test_tokens")) == pytest.approx(5.9, abs=0.05)


# --- Hoffmann et al. 2022, Besiroglu et al. 2024 -------------------------------------------------------------------

TABLE_3 = {"400M": 400e6, "1B": 1e9, "10B": 10e9, "67B": 67e9, "175B": 175e9, "280B": 280e9, "1T": 1e12}


def test_gopher_budget_by_rounded_and_by_unrounded_constants():
    """Two digits of alpha and beta move the best size by a quarter; the paper's own 40B is the unrounded one's."""
    C = value("hoffmann2022.gopher_C")
    short, full = allocate(published("chinchilla"), C), allocate(published("chinchilla-unrounded"), C)
    assert (rounded(short.N), rounded(short.D)) == (32e9, 3.0e12)
    assert (rounded(full.N), rounded(full.D)) == (40e9, 2.4e12)
    assert rounded(full.N) == value("hoffmann2022.gopher_N_parametric")
    assert rounded(slope(published("chinchilla-unrounded"), 1e20, 1e24)) == value("hoffmann2022.parametric.a")


def test_table_3_is_one_power_law_of_approach_1():
    """Every row is C = 6 N D to the digits printed, and together they grow as Table 2 says of the envelope."""
    C, D = (np.array([value(f"hoffmann2022.optimal.{x}_{name}") for name in TABLE_3]) for x in "CD")
    N = np.array(list(TABLE_3.values()))
    assert 6 * N * D == pytest.approx(C, rel=0.05)  # 1.5T tokens is 3 % up or down, 67B another 1 %
    a, b = np.polyfit(np.log(C), np.log(N), 1)[0], np.polyfit(np.log(C), np.log(D), 1)[0]
    assert (round(a, 2), round(b, 2)) == (value("hoffmann2022.envelope.a"), value("hoffmann2022.envelope.b"))
    assert D / N == pytest.approx(20.5, rel=0.1)


def test_table_3_from_the_unrounded_constants_of_approach_3():
    """It does not follow from them: the parametric law falls short by 9 % at 400M parameters and by half at 1T.

    Only at the smallest size do the two approaches agree, within 10 % of N and of D.
    """
    law = published("chinchilla-unrounded")
    found = {name: allocate(law, value(f"hoffmann2022.optimal.C_{name}")) for name in TABLE_3}
    assert [found[name].N / N for name, N in TABLE_3.items()] == pytest.approx([0.912, 0.845, 0.697, 0.602, 0.549, 0.528, 0.474], abs=1e-3)
    assert found["400M"].D == pytest.approx(value("hoffmann2022.optimal.D_400M"), rel=0.1)
    assert found["67B"].N == pytest.approx(value("hoffmann2022.gopher_N_parametric"), rel=0.01)


def test_the_appendix_lost_a_zero():
    """Table A3: 175B parameters at 1.26e24 FLOPs by approach 3. With ten times as much the unrounded law has 165B, without 58B."""
    printed = value("hoffmann2022.appendix.C_175B")
    law = published("chinchilla-unrounded")
    assert allocate(law, 10 * printed).N == pytest.approx(175e9, rel=0.06)
    assert allocate(law, printed).N < 0.35 * 175e9


def test_175B_in_the_text_and_in_the_table():
    for where in ("text", "optimal"):
        C, D = (value(f"hoffmann2022.{where}.{x}_175B") for x in "CD")
        assert 6 * 175e9 * D == pytest.approx(C, rel=0.01)
    assert value("hoffmann2022.text.C_175B") / value("hoffmann2022.optimal.C_175B") == pytest.approx(1.145, abs=5e-4)


def test_besiroglu_optimum():
    assert round(slope(published("besiroglu"), 1e20, 1e24), 3) == value("besiroglu2024.a")
    C = 6 * value("hoffmann2022.chinchilla_N") * value("hoffmann2022.chinchilla_D")
    best = allocate(published("besiroglu"), C)
    assert best.tokens_per_parameter == pytest.approx(value("besiroglu2024.tokens_per_parameter"), rel=0.1)
    assert best.N == pytest.approx(value("hoffmann2022.chinchilla_N"), rel=0.05)


def test_seventy_three_tokens_per_parameter_come_from_the_interval():
    """Besiroglu et al. read 73 off Hoffmann's approach 3. Neither printed nor unrounded constants give it (93 and 59); the
    middle of the interval printed for the exponent does, with the scale G of the unrounded ones."""
    C = 6 * value("hoffmann2022.chinchilla_N") * value("hoffmann2022.chinchilla_D")
    printed, full = (allocate(published(name), C).tokens_per_parameter for name in ("chinchilla", "chinchilla-unrounded"))
    assert (round(printed), round(full)) == (93, 59)
    scale = allocate(published("chinchilla-unrounded"), 6.0).N  # G, where N D = 1
    interval = get("hoffmann2022.parametric.a")
    a = (interval.low + interval.high) / 2
    assert round(scale**-2 * (C / 6) ** (1 - 2 * a)) == value("besiroglu2024.tokens_per_parameter_hoffmann")


@pytest.mark.opt_in("MINITRANSFORMER_PUBLISHED")
def test_the_240_points_of_besiroglu(tmp_path):
    """chinchilla.csv in that folder: 245 rows of N, D and loss as Besiroglu et al. read them off Hoffmann's figure."""
    table = Path(os.environ["MINITRANSFORMER_PUBLISHED"]) / "chinchilla.csv"
    runs = pd.read_csv(table)
    assert len(runs) == value("besiroglu2024.points_all")
    kept = runs.sort_values("loss").head(int(value("besiroglu2024.points")))

    def fitted(*more) -> dict:
        done = subprocess.run([sys.executable, "-m", "minitransformer.cli", "fit", str(table), "--law", "chinchilla", "--json", *more],
                              capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True)
        return json.loads(done.stdout)

    found = fitted("--drop-highest", str(len(runs) - len(kept)))
    assert (found["status"], found["n_points"]) == ("ok", len(kept))
    for name in ("E", "alpha", "beta"):
        assert found["parameters"][name]["value"] == pytest.approx(value(f"besiroglu2024.rerun.{name}"), abs=0.002)
        assert found["parameters"][name]["low"] < value(f"besiroglu2024.{name}") < found["parameters"][name]["high"]
    assert found["objective"] == pytest.approx(value("besiroglu2024.rerun.objective"), abs=1e-6)
    for name, key in (("chinchilla-unrounded", "objective_unrounded"), ("chinchilla", "objective_rounded")):
        off = np.log(kept["loss"] / published(name).predict(N=kept["N"], D=kept["D"]).value)
        assert huber(off.to_numpy(), DELTA) == pytest.approx(value(f"besiroglu2024.rerun.{key}"), abs=1e-6)
    everything = fitted()["parameters"]
    for name in ("E", "alpha", "beta"):
        assert everything[name]["value"] == pytest.approx(value(f"besiroglu2024.rerun.{name}_all"), abs=0.002)


# --- Pearce & Song 2024 -----------------------------------------------------------------------------------------------

BES = value("besiroglu2024.alpha"), value("besiroglu2024.beta")
OMEGA = value("pearce2024.omega")
EXPONENTS = {  # omega -> local exponent at N = 1e4, 1e5, 1e6, 1e7, 1e8, and the N of the peak
    900: ([0.956, 0.690, 0.555, 0.522, 0.515], 5.0e3),
    8_000: ([0.846, 0.977, 0.805, 0.592, 0.530], 1.3e5),
    OMEGA: ([0.776, 0.830, 0.963, 0.853, 0.613], 1.9e6),
    89_600: ([0.768, 0.799, 0.904, 0.956, 0.689], 5.0e6),
}


@pytest.mark.parametrize("omega", EXPONENTS)
def test_local_exponents_by_vocabulary(omega):
    exponents, peak = EXPONENTS[omega]
    assert formulas.local_exponent(10.0 ** np.arange(4, 9), omega, *BES) == pytest.approx(exponents, abs=5e-4)
    sizes = np.geomspace(1e2, 1e9, 70001)
    g = formulas.local_exponent(sizes, omega, *BES)
    at = sizes[g.argmax()]
    assert rounded(at) == peak and g.max() == pytest.approx(0.981, abs=5e-4)
    assert (at ** (2 / 3) / omega, at / omega**1.5) == pytest.approx((0.326, 0.186), abs=5e-4)


def test_limits_of_the_local_exponent():
    alpha, beta = BES
    assert formulas.local_exponent(1e-12, OMEGA, *BES) == pytest.approx(beta / (alpha / 3 + beta), rel=1e-6)
    assert formulas.local_exponent(1e30, OMEGA, *BES) == pytest.approx(beta / (alpha + beta), rel=1e-6)


def test_the_constant_behind_each_vocabulary():
    aspect = value("pearce2024.aspect")
    assert formulas.embedding_constant(value("pearce2024.vocabulary"), 0, aspect) == pytest.approx(OMEGA, rel=3e-4)
    assert formulas.embedding_constant(256, 256, 64) == pytest.approx(900, rel=0.01)
    assert formulas.embedding_constant(4096, 512, 64) == pytest.approx(8_000, rel=0.01)
    n_vocab, n_ctx = value("kaplan2020.setup.n_vocab"), value("kaplan2020.setup.n_ctx")
    assert formulas.embedding_constant(n_vocab, n_ctx, 64) == pytest.approx(89_600, rel=1e-3)


def best_sizes(law, budgets, total: bool):
    """The best N (or N_total) for each budget 6 N D counted alike, over 3000 sizes from 768 to 1.5e9: no formula, only losses."""
    N = np.geomspace(value("kaplan2020.setup.N_smallest"), value("kaplan2020.setup.N_largest"), 3000)
    all_of_it = N + OMEGA * N ** (1 / 3)
    counted = all_of_it if total else N
    loss = law.predict(N=all_of_it[None], D=budgets[:, None] / 6 / counted).value
    return counted[loss.argmin(1)]


@pytest.mark.parametrize("name", ["besiroglu", "chinchilla-unrounded"])
def test_the_local_exponent_is_that_of_a_search(name):
    law = published(name)
    alpha, beta = (law.parameters[p].value for p in ("alpha", "beta"))
    budgets = np.geomspace(1e14, 1e20, 13)
    sizes = best_sizes(law, budgets, total=False)
    seen = np.diff(np.log(sizes)) / np.diff(np.log(budgets))
    inside = np.sqrt(sizes[1:] * sizes[:-1])
    assert seen == pytest.approx(formulas.local_exponent(inside, OMEGA, alpha, beta), abs=0.02)


@pytest.mark.parametrize("name, key", [("besiroglu", "besiroglu"), ("chinchilla-unrounded", "hoffmann")])
def test_one_straight_line_over_kaplans_sizes(name, key):
    """A line through the best sizes for 100 budgets, 10^12.95 to 10^20.7 FLOPs without embeddings (the authors' range)."""
    law, budgets = published(name), np.logspace(12.95, 20.7, 100)
    exponent = lambda C, total: np.polyfit(np.log(C), np.log(best_sizes(law, C, total)), 1)[0]
    assert exponent(budgets, False) == pytest.approx(value(f"pearce2024.{key}.a_nonembedding"), abs=1e-3)
    with_all = np.logspace(14.5, 20.5, 40)  # well inside the sizes
    assert exponent(with_all, True) == pytest.approx(value(f"pearce2024.{key}.a_total"), abs=1e-3)
    assert slope(law, 1e20, 1e24) == pytest.approx(value(f"pearce2024.{key}.a_total"), abs=1e-3)


# --- Muennighoff et al. 2023 ------------------------------------------------------------------------------------------


def test_what_repeated_data_are_worth():
    epochs = np.array([2, 4, 8, 16, 40])
    worth = formulas.effective_data(epochs * 1e9, 1e9, value("muennighoff2023.R_star_D")) / (epochs * 1e9)
    assert worth == pytest.approx([0.984, 0.931, 0.828, 0.661, 0.379], abs=5e-4)
    assert formulas.effective_data(1e9, 1e9, 15.0) == pytest.approx(1e9)
    assert formulas.effective_data(5e8, 1e9, 15.0) == pytest.approx(5e8)
    assert formulas.effective_data(1e15, 1e9, 15.0) == pytest.approx(16e9)


def test_muennighoff_constants():
    law = published("muennighoff")
    assert [law.parameters[name].value for name in "ABE"] == pytest.approx([520.8, 1487.7, 1.869], rel=5e-4)
    for U in (1e8, 1e10):  # the size whose best data are U tokens: N D = U^2 U_N / U
        best = allocate(law, 6 * U**2 * value("muennighoff2023.U_N_ratio"))
        assert best.N / best.D == pytest.approx(value("muennighoff2023.U_N_ratio"), abs=5e-4)
