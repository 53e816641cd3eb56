import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from minitransformer.errors import UserError
from minitransformer.laws import fit, published
from minitransformer.laws.batch import C_min, S_min, critical_batch, gradient_noise_scale
from minitransformer.laws.frontier import REFUSALS, WARNINGS, SizeLaw, argmin, by_budget, envelope, hull, iso_flops, parabolas
from minitransformer.sweeps.store import reference_table

LAW = published("besiroglu")
_values = {k: e.value for k, e in LAW.parameters.items()}
TRUE_A = _values["beta"] / (_values["alpha"] + _values["beta"])
TRUE_G = (_values["alpha"] * _values["A"] / (_values["beta"] * _values["B"])) ** (1 / (_values["alpha"] + _values["beta"]))
BUDGETS = np.geomspace(6e18, 3e21, 9)


def best(C):
    return TRUE_G * (C / 6) ** TRUE_A  # Hoffmann et al. 2022, eq. 4


def chinchilla(C, N):
    N, C = (np.asarray(v, float) for v in (N, C))
    return {"N": N, "D": C / 6 / N, "C": C, "loss": np.asarray(LAW.predict(N=N, D=C / 6 / N).value)}


def bowls(budgets, sizes=5, sd=0.0, seeds=1, rng=0, a=0.6, G=0.02, shift=0.0):
    """Runs whose log loss is exactly a parabola in log N about N* = G C^a, and normal noise."""
    C, k = (v.ravel() for v in np.meshgrid(budgets, np.linspace(-2, 2, sizes), indexing="ij"))
    C, k = np.repeat(C, seeds), np.repeat(k, seeds)
    N = G * C**a * np.exp(k + shift)
    noise = sd * np.random.default_rng(rng).standard_normal(len(N))
    return {"N": N, "D": C / 6 / N, "C": C, "loss": 3 * C**-0.02 * np.exp(0.03 * (k + shift) ** 2 + noise)}


def valid(result):
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert "nan" not in text and set(result.warnings) <= set(result.TEXTS)
    assert all(result.warning_texts()) and result.reason == "" if result.ok else result.reason
    return json.loads(text)


# --- the envelope ------------------------------------------------------------------------------------------------


def test_hull_by_hand():
    """log10 C = 0..4; log10 loss = 4, 3, 2.5, 1, 2: the chord from (1, 3) to (3, 1) passes below (2, 2.5)."""
    C, loss = 10.0 ** np.array([0, 1, 2, 3, 4, 0]), 10.0 ** np.array([4, 3, 2.5, 1, 2, 5])
    assert hull(C, loss).tolist() == [0, 1, 3]


def test_the_hull_is_taken_in_logs():
    """A run 20 % above the power law lies below the straight line through its neighbours on linear axes."""
    C = np.array([1e3, 1e4, 1e5])
    loss = 10 * C**-0.1 * [1, 1.2, 1]
    chord = loss[0] + (loss[2] - loss[0]) * (C[1] - C[0]) / (C[2] - C[0])
    assert loss[1] < chord and hull(C, loss).tolist() == [0, 2]


def test_envelope_recovers_an_exact_frontier():
    C = np.geomspace(1e12, 1e16, 7)
    N = 0.1 * C**0.7
    t = {"N": np.concatenate([N, N, N]), "C": np.concatenate([C, 3 * C, 2 * C]),
         "loss": np.concatenate([20 * C**-0.05, 21 * C**-0.05, 23 * C**-0.05])}
    t["D"] = t["C"] / 6 / t["N"]
    e = envelope(t)
    assert e.ok and e.C == pytest.approx(C) and e.fitted.tolist() == [False] + [True] * 5 + [False]
    assert e.law.exponent.value == pytest.approx(0.05, abs=1e-10)
    assert e.size.a.value == pytest.approx(0.7, abs=1e-10) and e.size.a.high - e.size.a.low < 1e-6
    assert e.size.G.value == pytest.approx(0.1, rel=1e-8)
    assert set(e.warnings) == {"edge_of_the_grid", "few_points"}
    valid(e)


def test_envelope_leaves_out_the_edges_of_the_grid():
    """Beyond the longest horizon only larger models are left, so the hull there follows the grid, not the frontier."""
    N, D = (v.ravel() for v in np.meshgrid(np.geomspace(1e6, 1e10, 33), np.geomspace(1e9, 1e11, 17)))
    t = {"N": N, "D": D, "loss": LAW.predict(N=N, D=D).value}
    inside, all_of_it = envelope(t), envelope(t, edges=True)
    assert abs(inside.size.a.value - TRUE_A) < 0.03 < abs(all_of_it.size.a.value - TRUE_A)
    assert "edge_of_the_grid" in inside.warnings and all_of_it.warnings == ()


def test_envelope_averages_seeds_before_it_chooses():
    t = {"N": [1e3, 1e3, 1e3], "D": [1e4] * 3, "loss": [2.0, 8.0, 4.0]}
    assert envelope(t).loss == pytest.approx([4.0])


@pytest.mark.parametrize("n", [0, 1, 3])
def test_envelope_needs_four_runs(n):
    e = envelope(chinchilla(np.geomspace(1e19, 1e21, n), best(np.geomspace(1e19, 1e21, n))))
    assert e.status == "too_few_points" and e.law is None and e.size is None
    valid(e)


# --- IsoFLOP -----------------------------------------------------------------------------------------------------


def test_exact_parabolas_recover_the_truth():
    r = parabolas(by_budget(bowls(BUDGETS)))
    assert r.ok and r.warnings == () and {m.status for m in r.minima} == {"ok"}
    assert r.size.a.value == pytest.approx(0.6, abs=1e-10) and r.size.a.high - r.size.a.low < 1e-8
    assert r.size.G.value == pytest.approx(0.02, rel=1e-8)
    for m in r.minima:
        assert m.N.value == pytest.approx(0.02 * m.C**0.6) and m.D.value == pytest.approx(m.C / 6 / m.N.value)
        assert m.loss.value == pytest.approx(3 * m.C**-0.02) and m.curve(m.N.value) == pytest.approx(m.loss.value)
    assert r.size.at(1e20).value == pytest.approx(0.02 * 1e20**0.6) and r.size.at(1e20).warning == ""
    assert "outside" in r.size.at(1e25).warning
    assert (r.size.b.value, r.size.b.low) == pytest.approx((0.4, 1 - r.size.a.high))
    valid(r)


def test_a_parabola_by_hand():
    """x = log N = -3, -1, 1, 3: log loss = x^2 - 0.4 x + 0.01 (-1, 3, -3, 1), the last orthogonal to every parabola."""
    x, y = np.array([-3.0, -1, 1, 3]), np.array([10.19, 1.43, 0.57, 7.81])
    r = parabolas(by_budget({"N": np.exp(x), "D": np.exp(-x), "C": np.ones(4), "loss": np.exp(y)}))
    assert r.minima[0].coefficients == pytest.approx((0, -0.4, 1), abs=1e-12)
    assert math.log(r.minima[0].N.value) == pytest.approx(0.2) and math.log(r.minima[0].loss.value) == pytest.approx(-0.04)
    assert r.status == "too_few_points" and r.size is None  # one budget has no exponent


def test_parabola_on_chinchilla_and_argmin_beside_it():
    """On a ladder of doubling sizes the best run misses the exponent by steps that the parabola does not see."""
    C, N = (v.ravel() for v in np.meshgrid(BUDGETS, 7e7 * 2.0 ** np.arange(12), indexing="ij"))
    near = np.abs(np.log(C / 6 / N**2 / 20)) < 4
    slices = by_budget(chinchilla(C[near], N[near]))
    right, wrong = parabolas(slices), argmin(slices)
    assert abs(right.size.a.value - TRUE_A) < 0.003 and abs(wrong.size.a.value - TRUE_A) > 0.01
    assert wrong.warnings == ("argmin",) and {m.N.value for m in wrong.minima} <= set(N)
    valid(wrong)


def test_luck_moves_the_argmin_much_more_than_the_parabola():
    slices = [by_budget(bowls(BUDGETS, 9, 0.01, rng=r)) for r in range(40)]
    error = lambda f: np.sqrt(np.mean([(f(s).size.a.value - 0.6) ** 2 for s in slices]))
    assert error(argmin) > 3 * error(parabolas)


@pytest.mark.parametrize("budgets, sizes, seeds", [(4, 5, 1), (3, 4, 2), (6, 5, 3)])
def test_intervals_of_separate_budgets_hold_the_truth(budgets, sizes, seeds):
    C = np.geomspace(1e15, 1e17, budgets)
    coverage([parabolas(by_budget(bowls(C, sizes, 0.005, seeds, r))) for r in range(250)], 0.6, lambda C: 0.02 * C**0.6)


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_of_slices_that_share_runs_hold_the_truth(seeds):
    """log loss = 0.05 (n - 16)^2 + 0.075 (d - 20)^2 with n, d = log N, log D: a = 0.075 / 0.125, and slices are parabolas."""
    n, d = (np.repeat(v.ravel(), seeds) for v in np.meshgrid(np.linspace(8, 12, 7), np.linspace(13, 16, 5)))
    loss = lambda r: np.exp(0.05 * (n - 16) ** 2 + 0.075 * (d - 20) ** 2 - 5 + 0.01 * np.random.default_rng(r).standard_normal(len(n)))
    found = [parabolas(iso_flops({"N": np.exp(n), "D": np.exp(d), "loss": loss(r)})) for r in range(250)]
    coverage(found, 0.6, lambda C: np.exp((0.05 * 16 + 0.075 * (math.log(C / 6) - 20)) / 0.125))


def coverage(found, a, N):
    low, high = binom.ppf([0.0005, 0.9995], len(found), [0.92, 0.98])
    assert all(r.ok for r in found)
    assert low <= sum(r.size.a.low <= a <= r.size.a.high for r in found) <= high
    held = [r.minima[1].N.low <= N(r.minima[1].C) <= r.minima[1].N.high for r in found if r.minima[1].N.value]
    assert len(held) > 0.9 * len(found) and low <= sum(held) * len(found) / len(held) <= high


def test_scatter_of_the_minima_beyond_the_noise_widens_the_interval():
    t = bowls(np.geomspace(1e15, 1e17, 5), seeds=3, sd=0.001)
    moved = np.repeat([1, 1.3, 1 / 1.3, 1.3, 1], 15)
    plain = parabolas(by_budget(t)).size.a
    bent = parabolas(by_budget({**t, "N": t["N"] * moved, "D": t["D"] / moved})).size.a
    assert bent.high - bent.low > 5 * (plain.high - plain.low)


@pytest.mark.parametrize("shift, status", [(0, "ok"), (1.5, "off_centre"), (-1.5, "off_centre"), (3, "outside"), (-3, "outside")])
def test_where_the_minimum_lies(shift, status):
    r = parabolas(by_budget(bowls(BUDGETS, shift=shift)))
    assert {m.status for m in r.minima} == {status}
    assert r.ok == (status != "outside") and ("off_centre" in r.warnings) == (status == "off_centre")
    if status == "outside":
        assert r.size is None and r.minima[0].N.value is None and "outside" in r.minima[0].reason
    if status == "off_centre":
        assert "C = 6e+18" in r.warning_texts()[0]
    valid(r)


def test_no_minimum_and_too_few_points():
    t = bowls(BUDGETS)
    upside_down = parabolas(by_budget({**t, "loss": 1 / t["loss"]}))
    assert {m.status for m in upside_down.minima} == {"no_minimum"} and upside_down.status == "too_few_points"
    noisy = parabolas(by_budget({**t, "loss": np.random.default_rng(0).uniform(2, 3, len(t["N"]))}))
    assert "no_minimum" in {m.status for m in noisy.minima}  # a curvature that may be zero is no minimum
    assert {m.status for m in parabolas(by_budget(bowls(BUDGETS, sizes=3))).minima} == {"too_few_points"}
    assert "few_budgets" in parabolas(by_budget(bowls(BUDGETS[:3]))).warnings
    valid(upside_down)


def test_budgets_by_tolerance_and_by_label():
    t = bowls(BUDGETS[:3])
    wobble = np.random.default_rng(0).uniform(0.98, 1.02, len(t["C"]))
    assert len(by_budget({**t, "C": t["C"] * wobble}).C) == 3
    assert len(by_budget({**t, "C": t["C"] * wobble}, tolerance=1e-6).C) == 15
    assert len(by_budget({**t, "C": t["C"] * wobble}, budget=np.repeat(["a", "b", "c"], 5)).C) == 3
    with pytest.raises(UserError, match="iso_flops"):
        by_budget({"N": np.ones(99), "D": np.ones(99), "C": np.geomspace(1, 10, 99), "loss": np.ones(99)})


def test_iso_flops_interpolates_and_never_extrapolates():
    N, D = (v.ravel() for v in np.meshgrid([1e3, 2e3, 4e3, 8e3, 16e3], [1e5, 2e5, 4e5, 8e5]))
    t = {"N": N, "D": D, "loss": 9 * N**-0.1 * D**-0.2}
    s = iso_flops(t, [6 * 3e8, 6 * 3e9])
    assert s.N[s.budget == 0].tolist() == [1e3, 2e3] and s.N[s.budget == 1].tolist() == [4e3, 8e3, 16e3]
    assert s.N * s.D == pytest.approx(s.C[s.budget] / 6) and s.loss == pytest.approx(9 * s.N**-0.1 * s.D**-0.2)
    assert s.D.min() >= 1e5 and s.D.max() <= 8e5
    assert len(iso_flops(t, [1.0]).N) == 0 and len(iso_flops(t).C) == 4
    curved = {"N": N, "D": D, "loss": np.exp(0.03 * np.log(D) ** 2 - np.log(D))}
    truth = lambda s: np.exp(0.03 * np.log(s.D) ** 2 - np.log(s.D))
    cubic, straight = iso_flops(curved, [6 * 3e9]), iso_flops(curved, [6 * 3e9], order=1)
    assert cubic.loss == pytest.approx(truth(cubic), rel=1e-12) and (straight.loss > truth(straight) * 1.001).all()


def test_our_budgets():
    t = reference_table("budgets")
    r = parabolas(iso_flops(t))
    assert r.ok and all(m.status == "ok" for m in r.minima)
    assert (np.diff([m.N.value for m in r.minima]) > 0).all()
    assert 0 < r.size.a.low < r.size.a.high < 1
    law = fit("chinchilla", t.loss, N=t.N, D=t.D)
    alpha, beta = law.parameters["alpha"].value, law.parameters["beta"].value
    assert r.size.a.low < beta / (alpha + beta) < r.size.a.high
    assert envelope(t).status == "too_few_points"  # thirty-five points leave two inside the edges
    valid(r)


# --- broken tables -----------------------------------------------------------------------------------------------

GOOD = {"N": [1.0, 2.0], "D": [1.0, 2.0], "loss": [2.0, 1.0]}


@pytest.mark.parametrize("broken", [{"loss": [1.0, math.nan]}, {"N": [0, 1]}, {"D": ["a", "b"]}, {"N": [1.0]}, {"loss": [1.0, -1.0]}])
def test_broken_tables_are_one_line(broken):
    for make in (envelope, by_budget, iso_flops):
        with pytest.raises(UserError):
            make({**GOOD, **broken})
        with pytest.raises(UserError, match="missing"):
            make({"N": [1.0], "D": [1.0]})


positive = st.floats(5e-324, 1.7e308)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1e3, 2e3, 4e3, 1e4, 3e4]) | positive, st.sampled_from([1e5, 2e5, 1e6]) | positive,
                          st.floats(0.5, 10) | positive), max_size=20))
def test_wild_tables_never_give_nan(rows):
    t = pd.DataFrame(rows, columns=["N", "D", "loss"], dtype=float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in (envelope, lambda t: parabolas(iso_flops(t)), lambda t: parabolas(by_budget(t, np.arange(len(t)) % 3)),
                     lambda t: argmin(by_budget(t, np.arange(len(t)) // 4))):
            try:
                result = make(t)
            except UserError:
                continue
            assert result.ok or result.status in REFUSALS or result.law is None
            valid(result)


def test_every_warning_can_be_read():
    assert all(text for text in WARNINGS.values()) and SizeLaw.__doc__


# --- batches -----------------------------------------------------------------------------------------------------


def test_adjustments_at_the_critical_batch_halve():
    assert S_min(1000, 2e6, 2e6) == 500 and C_min(1e20, 2e6, 2e6) == 5e19  # Kaplan et al. 2020, eqs. 5.4 and 5.5
    assert S_min(1000, [1e6, 3e6], 1e6) == pytest.approx([500, 750]) and C_min(8.0, 3.0, 1.0) == 2
    law = published("kaplan-b-crit")
    critical = law.predict(L=3.0).value
    assert S_min(1000, 2**19, law, loss=3.0) == pytest.approx(1000 / (1 + critical / 2**19))
    assert C_min(1e20, 2**19, lambda L: critical, loss=3.0) == pytest.approx(1e20 / (1 + 2**19 / critical))
    assert S_min(1000, 2**19, law, 3.0) * 6 * 1e6 * critical == pytest.approx(C_min(6 * 1e6 * 2**19 * 1000, 2**19, law, 3.0))


@pytest.mark.parametrize("wrong", [lambda: S_min(0, 1, 1), lambda: C_min(1, "a", 1), lambda: S_min(1, 1, published("kaplan-b-crit"))])
def test_adjustments_refuse(wrong):
    with pytest.raises(UserError):
        wrong()


def pairs(batches, sd=0.0, rng=0):
    """S_min = 1000 steps, E_min = 1e7 examples, so B_crit = 1e4."""
    B = np.asarray(batches, float)
    S = 1000 * (1 + 1e4 / B) * np.exp(sd * np.random.default_rng(rng).standard_normal(len(B)))
    return S, S * B


def test_critical_batch_recovers_the_truth():
    S, E = pairs(np.geomspace(1e3, 1e5, 5))
    assert (S / 1000 - 1) * (E / 1e7 - 1) == pytest.approx(1)  # eq. 5.1
    c = critical_batch(S, E)
    assert c.ok and c.warnings == ()
    for found, true in ((c.S_min, 1000), (c.E_min, 1e7), (c.B_crit, 1e4)):
        assert found.value == pytest.approx(true, rel=1e-6) and found.low <= found.value <= found.high < 1.001 * true
    assert c.law.predict(B=1e4).value == pytest.approx(2000)
    valid(c)


def test_critical_batch_is_robust():
    S, _ = pairs(np.geomspace(1e3, 1e5, 7))
    S[2] *= 1.5
    assert critical_batch(S, S * np.geomspace(1e3, 1e5, 7)).B_crit.value == pytest.approx(1e4, rel=0.02)


def test_critical_batch_intervals_hold_the_truth():
    found = [critical_batch(*pairs(np.geomspace(6e2, 1.6e5, 6), 0.02, r)) for r in range(60)]
    low, high = binom.ppf([0.0005, 0.9995], 60, [0.92, 0.98])
    assert low <= sum(c.B_crit.low <= 1e4 <= c.B_crit.high for c in found) <= high


@pytest.mark.parametrize("sd", [0.0, 0.02])
def test_batches_on_one_side_identify_one_end(sd):
    small, large = (critical_batch(*pairs(b, sd, 1)) for b in (np.geomspace(10, 300, 6), np.geomspace(1e6, 1e8, 6)))
    assert small.warnings == ("batches_all_small",) and small.E_min.value == pytest.approx(1e7, rel=0.05)
    assert large.warnings == ("batches_all_large",) and large.S_min.value == pytest.approx(1000, rel=0.05)
    assert small.S_min.value is small.B_crit.value is large.E_min.value is large.B_crit.value is None
    valid(small), valid(large)


def test_critical_batch_refuses():
    assert critical_batch(*pairs([1e3, 1e4, 1e5, 1e5])).status == "too_few_points"
    assert critical_batch(*pairs(np.linspace(1e4, 1.1e4, 6))).status == "same_batch"
    with pytest.raises(UserError):
        critical_batch([1, 2, 3, -4], [1, 2, 3, 4])


def gradients(n, dim=100, noise=40.0, small=8, big=64, rng=0):
    """Squared norms of mean gradients: |G|^2 = 1, tr Sigma = noise."""
    random = np.random.default_rng(rng)
    norm = lambda B: ((1 / math.sqrt(dim) + math.sqrt(noise / dim / B) * random.standard_normal((n, dim))) ** 2).sum(1)
    return small, norm(small), big, norm(big)


def test_noise_scale_by_hand():
    """|G|^2 = 3 and tr Sigma = 24: a batch of 8 shows 6, one of 24 shows 4. Means first, then the ratio."""
    r = gradient_noise_scale(8, [5.0, 7, 6, 6], 24, [4.0, 4, 3.9, 4.1])
    assert (r.G2.value, r.trace.value, r.B_simple.value) == pytest.approx((3, 24, 8))
    assert r.ok and r.B_simple.low < 8 < r.B_simple.high and r.warnings == ("few_measurements",)
    valid(r)


def test_noise_scale_intervals_hold_the_truth():
    found = [gradient_noise_scale(*gradients(20, rng=r)) for r in range(300)]
    low, high = binom.ppf([0.0005, 0.9995], 300, [0.92, 0.98])
    assert low <= sum(r.B_simple.low <= 40 <= r.B_simple.high for r in found) <= high
    assert np.mean([r.G2.value for r in found]) == pytest.approx(1, abs=0.02)
    assert np.mean([r.trace.value for r in found]) == pytest.approx(40, rel=0.02)


def test_noise_scale_refuses():
    assert gradient_noise_scale(8, [2.0] * 3, 16, [1.0] * 3).status == "too_few_points"
    none = gradient_noise_scale(*gradients(20, noise=1e5))
    assert none.status == "no_signal" and none.B_simple.value is None
    assert gradient_noise_scale(8, [1.0] * 9, 16, [2.0] * 9).status == "no_noise"
    with pytest.raises(UserError, match="larger"):
        gradient_noise_scale(8, [2.0] * 9, 8, [1.0] * 9)
    valid(none)
