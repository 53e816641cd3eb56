"""Using a law: predictions from whatever is known, budgets split by closed forms, and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from minitransformer.errors import UserError
from minitransformer.laws import fit, form, formulas, published, read_law
from minitransformer.laws.fit import Estimate, Law
from minitransformer.laws.plan import allocate, best_for, kaplan_rules, predict
from minitransformer.laws.named import PF_DAY
from minitransformer.papers import value

CRITICAL = published("kaplan-b-crit")
TRUE = {"E": 1.2, "A": 30.0, "B": 60.0, "alpha": 0.35, "beta": 0.33}
BUDGET = 2e11
DEFAULTS = {"kaplan-ns": {"batch": 2.0**19}, "muennighoff": {"unique": 1e10}}


def searched(loss, low: float, high: float) -> float:
    """N of the lowest loss between the two, by the most ordinary search."""
    found = minimize_scalar(lambda n: loss(math.exp(n)), bounds=(math.log(low), math.log(high)), method="bounded", options={"xatol": 1e-10})
    return math.exp(found.x)


def noisy_table(rng: int, noise: float = 0.004) -> dict[str, np.ndarray]:
    N, D = (v.ravel() for v in np.meshgrid(np.geomspace(1.5e3, 1e5, 6), np.geomspace(2.5e5, 4e6, 5)))
    loss = form("chinchilla").loss(TRUE, N=N, D=D) * np.exp(noise * np.random.default_rng(rng).standard_normal(len(N)))
    return {"loss": loss, "N": N, "D": D}


@pytest.fixture(scope="module")
def fitted() -> Law:
    return fit("chinchilla", **noisy_table(0), resamples=300)


# --- allocate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chinchilla", "chinchilla-unrounded", "besiroglu", "kaplan-nd"])
@pytest.mark.parametrize("C", [1e15, 5.76e23])
def test_the_closed_form_is_where_a_search_ends(name, C):
    law = published(name)
    best = allocate(law, C)
    assert best.N == pytest.approx(searched(lambda N: law.predict(N=N, D=C / 6 / N).value, best.N / 30, best.N * 30), rel=1e-5)
    assert 6 * best.N * best.D == pytest.approx(C)
    there = law.predict(N=best.N, D=best.D)
    assert (best.loss, best.warning) == (there.value, there.warning)
    assert (best.rule, best.low, best.N_low, best.D_high) == (name, None, None, None)


def own_steps() -> Law:
    """Kaplan's L(N, S) as if somebody had fitted it at one batch."""
    return replace(published("kaplan-ns"), name="mine")


def test_steps_at_a_fixed_batch():
    law, batch = own_steps(), 2.0**19
    best = allocate(law, PF_DAY, batch=batch)
    steps = lambda N: PF_DAY / (6 * batch * N)
    assert best.N == pytest.approx(searched(lambda N: law.predict(N=N, S=steps(N)).value, best.N / 30, best.N * 30), rel=1e-5)
    assert (best.B, best.S, best.D) == pytest.approx((batch, steps(best.N), batch * steps(best.N)))


@pytest.mark.parametrize("batch", [1e4, 2.0**19, 1e8])
def test_steps_at_a_fixed_batch_count_as_fewer_where_the_batch_is_far_below_critical(batch):
    """Eq. 5.4, with the loss at both ends of it, by fixed-point iteration."""
    law = published("kaplan-ns")
    best = allocate(law, PF_DAY, batch=batch)

    def loss(N):
        S = PF_DAY / (6 * batch * N)
        found = 3.0
        for _ in range(500):
            fewest = S / (1 + CRITICAL.predict(L=found).value / batch)
            found = math.sqrt(found * law.predict(N=N, S=fewest).value)
        return found

    assert best.loss == pytest.approx(loss(best.N), rel=1e-6) == predict(law, N=best.N, C=PF_DAY, batch=batch).value
    assert best.loss < min(loss(0.9 * best.N), loss(1.1 * best.N))
    assert best.D == pytest.approx(batch * best.S) and 6 * best.N * best.D == pytest.approx(PF_DAY)
    assert best.loss > allocate(own_steps(), PF_DAY, batch=batch).loss


def test_far_below_the_critical_batch_compute_is_C_min():
    law = published("kaplan-ns")
    tiny, ideal = allocate(law, PF_DAY, batch=1.0), allocate(law, PF_DAY)
    assert (tiny.N, tiny.loss, tiny.D) == pytest.approx((ideal.N, ideal.loss, ideal.D / 2), rel=1e-3)
    half = allocate(law, 2 * PF_DAY, batch=ideal.B)  # at the critical batch: twice the steps, tokens and compute for the same loss
    assert predict(law, N=ideal.N, D=ideal.D, batch=ideal.B).value == pytest.approx(ideal.loss)
    assert half.loss <= ideal.loss * (1 + 1e-9)


def test_steps_at_the_critical_batch():
    """C_min = 6 N B_crit(L) S_min, solved for S_min at every N by bisection."""
    law = published("kaplan-ns")
    best = allocate(law, PF_DAY, critical=CRITICAL)

    def loss(N):
        low, high = 0.0, 30.0
        for _ in range(80):
            S = math.exp((low + high) / 2)
            found = law.predict(N=N, S=S).value
            cheaper = 6 * N * S * CRITICAL.predict(found).value < PF_DAY
            low, high = ((low + high) / 2, high) if cheaper else (low, (low + high) / 2)
        return found

    assert best.N == pytest.approx(searched(loss, best.N / 10, best.N * 10), rel=1e-4)
    assert best.loss == pytest.approx(loss(best.N))
    assert best.B == pytest.approx(CRITICAL.predict(best.loss).value)
    assert (2 * best.B * best.S, 2 * PF_DAY / 6 / best.N) == pytest.approx((best.D, best.D))


def test_a_batch_turns_data_into_steps_and_changes_nothing_else():
    law = published("besiroglu")
    plain, batched, critical = allocate(law, 1e22), allocate(law, 1e22, batch=1e6), allocate(law, 1e22, critical=CRITICAL)
    assert plain.N == batched.N == critical.N and plain.B is plain.S is None
    assert (batched.B, batched.S) == pytest.approx((1e6, plain.D / 1e6))
    assert (critical.B, critical.S * critical.B) == pytest.approx((CRITICAL.predict(plain.loss).value, plain.D))


def test_scarce_data_call_for_smaller_models_read_more_often():
    law = published("muennighoff")
    fresh = allocate(law, 1e22)
    a, log_A, log_B = (value(f"muennighoff2023.{name}") for name in ("alpha", "log_A", "log_B"))
    assert fresh.N == pytest.approx(math.exp((log_A - log_B) / (2 * a)) * (1e22 / 6) ** 0.5)
    assert allocate(law, 1e22, unique=1e12).N == pytest.approx(fresh.N, rel=1e-6)
    sizes = []
    for unique in (1e11, 2.5e10, 1e10):
        best = allocate(law, 1e22, unique=unique)
        loss = lambda N, U=unique: law.predict(N=N, D=1e22 / 6 / N, U=U).value
        assert best.N == pytest.approx(searched(loss, best.N / 3, best.N * 3), rel=1e-4)
        assert best.loss == pytest.approx(loss(best.N)) and best.loss > fresh.loss and not best.warning
        sizes.append(best.N)
    assert sorted(sizes, reverse=True) == sizes and sizes[0] < fresh.N
    assert "epochs: past some 40" in allocate(law, 1e22, unique=1e8).warning


@pytest.mark.parametrize("C, arbitrary", [(1e18, False), (1e19, False), (1e21, True), (1e25, True)])
def test_a_split_that_the_loss_does_not_tell_from_others_is_owned_up_to(C, arbitrary):
    law = published("muennighoff")
    best = allocate(law, C, unique=1e8)
    assert best.warning.startswith("this split is one of many") == arbitrary
    others = [predict(law, N=best.N * factor, C=C, unique=1e8).value / best.loss - 1 for factor in (0.8, 1.25)]
    assert (min(others) < 1e-9) == arbitrary


def test_a_fitted_law_says_how_well_it_knows_the_best_size(fitted):
    inside, far = allocate(fitted, BUDGET), allocate(fitted, 1e20)
    for best in (inside, far):
        assert best.N_low < best.N < best.N_high and best.D_low < best.D < best.D_high
        assert best.low < best.loss < best.high
        assert (best.D_low * best.N_high, best.D_high * best.N_low) == pytest.approx((best.C / 6, best.C / 6))
    assert far.N_high / far.N_low > 3 * inside.N_high / inside.N_low
    assert inside.warning == "" and "outside the fitted range of N" in far.warning and "outside the fitted range of D" in far.warning


def test_the_interval_of_the_best_size_is_that_of_simulated_sweeps(fitted):
    """Its width against the spread of the best size over tables drawn anew, and how often it holds the truth."""
    truth = Law(form("chinchilla"), "published", parameters={k: Estimate(v, None, None) for k, v in TRUE.items()})
    best = [allocate(fit("chinchilla", **noisy_table(i), resamples=200), BUDGET) for i in range(1, 31)]
    spread = np.std([math.log(b.N) for b in best])
    claimed = np.median([math.log(b.N_high / b.N_low) for b in best]) / (2 * 1.96)
    assert claimed == pytest.approx(spread, rel=0.35)
    true = allocate(truth, BUDGET).N
    assert sum(b.N_low <= true <= b.N_high for b in best) >= 25


def test_a_law_from_a_file_allocates_as_the_fit_did(fitted):
    again = read_law(json.loads(json.dumps(fitted.to_dict())))
    first, second = allocate(fitted, BUDGET).to_dict(), allocate(again, BUDGET).to_dict()
    assert json.loads(json.dumps(first)) == pytest.approx({**second, "rule": first["rule"], "warning": first["warning"]})
    assert list(first) == ["rule", "C", "N", "D", "B", "S", "loss", "low", "high", "warning", "N_low", "N_high", "D_low", "D_high",
                           "tokens_per_parameter"]


def test_runs_that_hardly_say_what_is_best_are_owned_up_to():
    table = noisy_table(3, noise=0.05)
    law = fit("chinchilla", **table, resamples=200)
    law = law if law.ok else fit("chinchilla", **noisy_table(4, noise=0.03), resamples=200)
    assert "hardly say what size is best" in allocate(law, 1e22).warning


@pytest.mark.parametrize(
    "law, more, message",
    [
        ("kaplan-n", {}, "of N alone cannot split a budget"),
        ("kaplan-c-min", {}, "of C alone"),
        ("kaplan-b-crit", {}, "of L alone"),
        ("mine", {}, "only when the batch is known"),
        ("besiroglu", {"batch": 1e5, "critical": CRITICAL}, "not both"),
        ("kaplan-ns", {"batch": -1}, "batch must be a number above zero"),
        ("kaplan-ns", {"critical": published("kaplan-n")}, "critical must be a law of the critical batch"),
        ("besiroglu", {"unique": 1e9}, "takes every token for a fresh one"),
        ("muennighoff", {"unique": "many"}, "unique must be a number above zero, not 'many'"),
    ],
)
def test_what_cannot_be_allocated_is_refused_in_one_line(law, more, message):
    with pytest.raises(UserError, match=message) as caught:
        allocate(own_steps() if law == "mine" else published(law), 1e20, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("C", [0, -1, math.nan, math.inf, None, "all", np.ones(500)])
def test_a_budget_is_a_number_above_zero(C):
    for rule in (kaplan_rules, lambda C: allocate(published("besiroglu"), C), lambda C: predict(published("besiroglu"), C=C)):
        with pytest.raises(UserError) as caught:
            rule(C)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_no_best_size_where_an_exponent_is_not_positive():
    law = published("besiroglu")
    for name, bad in (("alpha", -0.1), ("beta", 0.0)):
        broken = replace(law, parameters={**law.parameters, name: Estimate(bad, None, None)})
        with pytest.raises(UserError, match="above zero"):
            allocate(broken, 1e20)


def test_a_refused_fit_allocates_and_predicts_nothing():
    law = fit("chinchilla", [3.0, 2.0], N=[1e3, 1e4], D=[1e5, 1e6])
    for use in (lambda: allocate(law, 1e20), lambda: predict(law, C=1e20)):
        with pytest.raises(UserError, match="no law was fitted"):
            use()


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["chinchilla", "kaplan-nd", "kaplan-ns", "muennighoff", "rules"]),
    st.floats(min_value=5e-324, max_value=1.7e308) | st.floats(1, 1e60),
)
def test_any_budget_gives_finite_numbers_or_one_line(name, C):
    try:
        found = kaplan_rules(C) if name == "rules" else allocate(published(name), C, **DEFAULTS.get(name, {}))
    except UserError as error:
        assert "\n" not in str(error) and not 1 <= C <= 1e60
    else:
        assert all(math.isfinite(v) and v > 0 for v in found.to_dict().values() if isinstance(v, float))


# --- Kaplan's rules ---------------------------------------------------------------------------------------------------


def test_kaplan_rules_are_table_6():
    one = kaplan_rules(PF_DAY)
    table = {name: value(f"kaplan2020.optimum.{name}_scale") for name in "NBS"}
    assert (one.N, one.B, one.S) == pytest.approx((table["N"], table["B"], table["S"]))
    ten = kaplan_rules(10 * PF_DAY)
    for name in "NBS":
        assert math.log10(getattr(ten, name) / getattr(one, name)) == pytest.approx(value(f"kaplan2020.optimum.{name}_exponent"))
    assert one.D == pytest.approx(2 * PF_DAY / (6 * one.N))
    assert one.loss == pytest.approx(value("kaplan2020.C_c_min") ** value("kaplan2020.alpha_C_min"))
    assert one.low is one.high is one.N_low is None and one.warning == ""
    assert "outside the sizes" in kaplan_rules(1e24).warning and "outside the sizes" in kaplan_rules(1e8).warning


def test_at_its_own_critical_batch_table_6_takes_twice_the_steps():
    """D = B x 2 S_min, which joins three columns of the table, holds to some 10 % over nine decades."""
    for C in np.geomspace(1e-6, 1e3, 10) * PF_DAY:
        best = kaplan_rules(C)
        assert best.D == pytest.approx(2 * best.B * best.S, rel=0.12)


# --- the budget of a size ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, more", [("besiroglu", {}), ("kaplan-nd", {}), ("kaplan-ns", {}), ("kaplan-ns", {"batch": 5e5}),
                                        ("muennighoff", {"unique": 1e12}), ("muennighoff", {"unique": 1e10}), ("rules", {})])
@pytest.mark.parametrize("goal", [{"N": 7e9}, {"D": 3e11}])
def test_a_size_or_data_get_the_budget_they_are_best_for(name, more, goal):
    rule = kaplan_rules if name == "rules" else lambda C: allocate(published(name), C, **more)
    found = best_for(rule, **goal)
    ((key, target),) = goal.items()
    assert getattr(found, key) == target
    assert rule(found.C).N == pytest.approx(found.N, rel=1e-6) and rule(found.C).D == pytest.approx(found.D, rel=1e-6)


@pytest.mark.parametrize("goal, message", [({"N": 1e200}, "no budget between"), ({"D": 1.0}, "no budget between"), ({"N": -1}, "above zero"),
                                           ({}, "one of them"), ({"N": 1e9, "D": 1e9}, "one of them")])
def test_no_budget_at_all(goal, message):
    with pytest.raises(UserError, match=message):
        best_for(lambda C: allocate(published("besiroglu"), C), **goal)


@pytest.mark.parametrize("goal", [{"D": 1e12}, {"N": 1e11}])
def test_a_thousand_epochs_are_the_best_for_no_budget(goal):
    law = published("muennighoff")
    before, after = (predict(law, N=N, D=1e12, unique=1e9).value for N in (2e10, 1e11))
    assert before == pytest.approx(after, rel=1e-9)  # five times the size and compute: the loss does not tell them apart
    with pytest.raises(UserError, match="stopped falling"):
        best_for(lambda C: allocate(law, C, unique=1e9), **goal)
    assert best_for(lambda C: allocate(law, C, unique=1e9), D=1e11).N == pytest.approx(1.87e9, rel=0.01)


# --- predict ----------------------------------------------------------------------------------------------------------


def test_whatever_two_numbers_are_known(fitted):
    N, D, batch = 2e4, 1e6, 4096.0
    straight = predict(fitted, N=N, D=D)
    assert straight == fitted.predict(N=N, D=D) and straight.low < straight.value < straight.high
    for given_ in ({"N": N, "C": 6 * N * D}, {"D": D, "C": 6 * N * D}, {"N": N, "S": D / batch}, {"S": D / batch, "C": 6 * N * D}):
        assert tuple(predict(fitted, batch=batch, **given_)) == pytest.approx(tuple(straight)), given_
    ns = own_steps()
    for given_ in ({"N": 1e9, "S": 1e4}, {"N": 1e9, "D": 1e10}, {"D": 1e10, "C": 6e19}):
        assert predict(ns, batch=1e6, **given_).value == pytest.approx(ns.predict(N=1e9, S=1e4).value), given_
    assert predict(published("kaplan-c"), N=1e9, D=1e10).value == published("kaplan-c").predict(C=6e19).value
    assert predict(published("kaplan-d"), N=1e9, C=6e19).value == pytest.approx(published("kaplan-d").predict(D=1e10).value)
    assert predict(published("kaplan-n"), N=1e9, D=None).value == published("kaplan-n").predict(N=1e9).value
    many = predict(fitted, N=np.array([1e4, 2e4]), C=6 * N * D)
    assert many.value.shape == (2,) and many.value[1] == pytest.approx(straight.value)


def test_compute_alone_means_the_best_split(fitted):
    best = allocate(fitted, BUDGET)
    assert tuple(predict(fitted, C=BUDGET)) == (best.loss, best.low, best.high)
    assert predict(fitted, C=BUDGET).value <= min(predict(fitted, N=n, C=BUDGET).value for n in np.geomspace(1e3, 1e6, 200))
    for more in ({}, {"batch": 1e6}):
        assert predict(published("kaplan-ns"), C=PF_DAY, **more).value == allocate(published("kaplan-ns"), PF_DAY, **more).loss


def test_outside_the_fitted_range_a_prediction_warns(fitted):
    assert predict(fitted, N=2e4, D=1e6).warning == ""
    assert "fitted range of D" in predict(fitted, N=2e4, D=1e9).warning
    assert "fitted range of N" in predict(fitted, D=1e6, C=6e13).warning
    assert "fitted range" in predict(fitted, C=1e20).warning


def test_repeats_are_counted_where_the_law_counts_them():
    law = published("muennighoff")
    once = predict(law, N=1e9, D=2e10)
    assert once.value == law.predict(N=1e9, D=2e10, U=2e10).value == predict(law, N=1e9, D=2e10, unique=1e12).value
    again = predict(law, N=1e9, C=1.2e20, unique=1e9)
    assert again.value == pytest.approx(law.predict(N=1e9, D=2e10, U=1e9).value) and again.value > once.value
    assert predict(law, N=1e9, D=2e10, U=1e9).value == again.value
    assert predict(law, C=1.2e20, U=1e9).value == allocate(law, 1.2e20, unique=1e9).loss


@pytest.mark.parametrize(
    "name, given_",
    [
        ("besiroglu", {}),
        ("besiroglu", {"N": 1e9}),
        ("besiroglu", {"N": 1e9, "S": 1e4}),
        ("besiroglu", {"N": 1e9, "D": 1e10, "C": 1e20}),
        ("besiroglu", {"N": 1e9, "D": 0.0}),
        ("besiroglu", {"N": "big", "D": 1e9}),
        ("besiroglu", {"N": 1e9, "D": 1e9, "unique": 1e8}),
        ("besiroglu", {"x": 1e9}),
        ("kaplan-n", {"D": 1e9}),
        ("kaplan-n", {"C": 1e20}),
        ("kaplan-ns", {"N": 1e9, "D": 1e10}),
    ],
)
def test_a_prediction_from_too_little_or_too_much_is_refused(name, given_):
    with pytest.raises(UserError) as caught:
        predict(published(name), **given_)
    assert "\n" not in str(caught.value)


def test_learning_rate_ends_where_the_rule_does():
    assert formulas.learning_rate(1e6) > formulas.learning_rate(1e9) > 0
    with pytest.raises(UserError, match="breaks down"):
        formulas.learning_rate(2e10)
