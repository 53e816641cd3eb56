import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from minitransformer.errors import UserError
from minitransformer.laws import fit
from minitransformer.laws.law import REFUSALS, WARNINGS
from minitransformer.laws.forms import power_law, power_law_loss
from minitransformer.laws.uncertainty import fit_line



def fit_power_law(x, loss, seed=None, name="N", within=None):
    return fit("power", loss, seed=seed, within=within, **{name: x})


def ladder(k=5, n=3, alpha=0.1, seeds=0.005, fit=0.003, rng=0):
    random = np.random.default_rng(rng)
    x = np.repeat(np.geomspace(1e3, 1e5, k), n)
    noise = np.repeat(fit * random.standard_normal(k), n) + seeds * random.standard_normal(k * n)
    return x, (1e7 / x) ** alpha * np.exp(noise)


def test_exact_law_is_recovered():
    x = np.repeat(np.geomspace(1.6e3, 9.86e4, 6), 2)
    law = fit_power_law(x, power_law_loss(x, 0.076, 8.8e13))
    assert law.exponent.value == pytest.approx(0.076, abs=1e-12)
    assert law.parameters["N_c"].value == pytest.approx(8.8e13, rel=1e-10)
    assert law.exponent.high - law.exponent.low < 1e-12
    assert np.abs(law.residuals).max() < 1e-12
    assert law.warnings == ()
    assert law.predict(1e9).value == pytest.approx(2.38, abs=0.005)  # Kaplan et al. 2020, eq. 1.1
    assert law.holdout.predicted == pytest.approx(law.holdout.measured, rel=1e-12)
    assert law.holdout.equivalent == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("n, loss", [(1e6, 4.02), (1e7, 3.37), (1e8, 2.83), (1e9, 2.38)])
def test_kaplan_reference_values(n, loss):
    assert power_law_loss(n, 0.076, 8.8e13) == pytest.approx(loss, abs=0.005)


def test_four_points_by_hand():
    """log2 x = 0, 2, 4, 6 and log2 loss = 4, 3, 3, 2: slope -6/20 = -0.3, residuals 0.1, -0.3, 0.3, -0.1."""
    law = fit_power_law([1, 4, 16, 64], [16, 8, 8, 4])
    assert law.exponent.value == pytest.approx(0.3, abs=1e-14)
    assert law.residuals / math.log(2) == pytest.approx([0.1, -0.3, 0.3, -0.1])
    assert law.objective == pytest.approx(0.2 * math.log(2) ** 2)
    assert law.parameters["N_c"].value == pytest.approx(2**13)  # 3.9 / 0.3 = 13
    assert law.rms_percent == pytest.approx(100 * math.log(2) * math.sqrt(0.05))
    assert law.line.scatter == pytest.approx(0.1 * math.log(2) ** 2)
    assert law.holdout is None and set(law.warnings) == {"few_points", "one_seed"}


def test_a_size_with_more_seeds_does_not_weigh_more():
    x, loss = ladder(n=1)
    again = fit_power_law(np.append(x, [x[0]] * 5), np.append(loss, [loss[0]] * 5))
    assert again.exponent.value == pytest.approx(fit_power_law(x, loss).exponent.value, rel=1e-12)


def test_seeds_are_averaged_in_logs():
    law = fit_power_law([1, 1, 10, 100, 1000], [4, 9, 5, 4, 3])
    assert law.means.loss[0] == pytest.approx(6)
    assert (law.n_runs, law.n_points) == (5, 4)


def test_units_and_row_order_change_nothing():
    x, loss = ladder()
    law = fit_power_law(x, loss)
    other = fit_power_law(1e6 * x[::-1], loss[::-1] / math.log(2), name="D")
    for a, b in zip(vars(law.exponent).values(), vars(other.exponent).values()):
        assert b == pytest.approx(a, rel=1e-9)
    for a, b in zip(law.predict(3e5), other.predict(3e11)):
        assert b * math.log(2) == pytest.approx(a, rel=1e-9)
    assert list(other.parameters) == ["alpha_D", "D_c"]


def test_the_same_table_gives_the_same_bits():
    x, loss = ladder()
    assert fit_power_law(x, loss).to_dict() == fit_power_law(pd.Series(x, index=range(15, 0, -1)), pd.Series(loss)).to_dict()


@pytest.mark.parametrize("k, n, seeds, fit", [(5, 3, 0.003, 0.0), (5, 3, 0.003, 0.01), (7, 1, 0.005, 0.005)])
def test_intervals_hold_the_truth_about_95_times_in_100(k, n, seeds, fit):
    laws = [fit_power_law(*ladder(k, n, seeds=seeds, fit=fit, rng=r)) for r in range(300)]
    low, high = binom.ppf([0.0005, 0.9995], 300, [0.92, 0.98])
    assert low <= sum(a.exponent.low <= 0.1 <= a.exponent.high for a in laws) <= high
    assert low <= sum(a.parameters["N_c"].low <= 1e7 <= a.parameters["N_c"].high for a in laws) <= high
    assert low <= sum(a.holdout.inside for a in laws) <= high


def test_lack_of_fit_shared_by_seeds_widens_the_interval():
    def width(fit):
        return np.mean([law.exponent.high - law.exponent.low for law in (fit_power_law(*ladder(fit=fit, rng=r)) for r in range(20))])

    assert width(0.02) > 3 * width(0.0)


def test_a_line_straighter_than_its_seeds_allow_is_not_certain():
    x = np.repeat(np.geomspace(1e3, 1e5, 5), 3)
    loss = (1e7 / x) ** 0.1 * np.exp(np.tile([-0.01, 0, 0.01], 5))
    law = fit_power_law(x, loss)
    assert law.line.scatter < 1e-20
    assert 0.002 < law.exponent.high - law.exponent.low < 0.02


def test_uncertainty_of_a_straight_line_matches_student_in_the_limit():
    """With many sizes and one seed the bootstrap's critical value is near the normal's."""
    z = np.linspace(0, 5, 60)
    line = fit_line(z, -0.1 * z + 0.01 * np.random.default_rng(0).standard_normal(60))
    assert line.critical(0, 1) == pytest.approx(2.0, abs=0.12)


def test_hold_out_is_the_fit_without_the_largest():
    x, loss = ladder(6)
    h = fit_power_law(x, loss).holdout
    small = fit_power_law(x[:-3], loss[:-3])
    value = small.predict(1e5).value
    half = small.line.half_width(1, np.log(1e5) - small.line.centre, 1)  # of a mean over seeds, which is what is held out
    assert (h.predicted, h.low, h.high) == pytest.approx((value, value * np.exp(-half), value * np.exp(half)), rel=1e-12)
    assert h.measured == pytest.approx(np.exp(np.log(loss[-3:]).mean()))
    assert h.error_nats == pytest.approx(value - h.measured)
    assert h.error_percent == pytest.approx(100 * (value / h.measured - 1))
    assert small.predict(1e5 * h.equivalent).value == pytest.approx(h.measured)
    assert h.exponent == pytest.approx(small.exponent.value)


def test_predict_warns_outside_and_widens():
    law = fit_power_law(*ladder())
    assert law.predict(1e4).warning == ""
    assert "outside" in law.predict(1e7).warning
    value, low, high = law.predict(np.geomspace(1e3, 1e8, 7))
    assert value.shape == (7,) and (low < value).all() and (value < high).all()
    assert (np.diff((np.log(high) - np.log(low))[2:]) > 0).all()
    assert law.band(1e4).high < law.predict(1e4).high


@pytest.mark.parametrize("x", [0, -1, math.nan, "big", [1, math.inf]])
def test_predict_refuses(x):
    with pytest.raises(UserError):
        fit_power_law(*ladder()).predict(x)


def test_within_keeps_what_it_leaves_out():
    x, loss = ladder(7)
    loss = np.where(x < 1500, 5.0, loss)
    law = fit_power_law(x, loss, within=(2e3, None))
    assert law.n_runs == 18 and list(law.excluded.x) == [x[0]] * 3 and set(law.excluded.loss) == {5.0}
    assert law.exponent.value == fit_power_law(x[3:], loss[3:]).exponent.value
    assert "3 runs outside" in law.summary()
    assert law.to_dict()["n_excluded"] == 3


@pytest.mark.parametrize("within", [(5, 1), (math.nan, 1), 3, ("a", 2), (1, 2, 3)])
def test_within_must_be_a_range(within):
    with pytest.raises(UserError, match="within"):
        fit_power_law(*ladder(), within=within)


BROKEN = {
    "no_runs": ([], []),
    "not_numbers": (["a", "b"], [1, 2]),
    "lengths_differ": ([1, 2, 3], [1, 2]),
    "x_not_finite": ([1, 10, 100, math.inf], [4, 3, 2, 1]),
    "x_not_positive": ([0, 10, 100, 1000], [4, 3, 2, 1]),
    "loss_not_finite": ([1, 10, 100, 1000], [4, 3, math.nan, 1]),
    "loss_not_positive": ([1, 10, 100, 1000], [4, 3, 0, 1]),
    "too_few_points": ([1, 10, 100, 100], [4, 3, 2, 1]),
    "range_too_narrow": ([1, 1.0001, 1.0002, 1.0003], [4, 3, 2, 1]),
}


@pytest.mark.parametrize("status", BROKEN)
def test_refusals_by_name(status):
    law = fit_power_law(*BROKEN[status])
    assert law.status == status and not law.ok
    assert law.parameters == {} and law.holdout is None and law.objective is None
    assert law.summary() == f"No law fitted: {law.reason}."
    assert json.loads(json.dumps(law.to_dict(), allow_nan=False))["status"] == status
    for ask in (lambda: law.exponent, lambda: law.predict(1), lambda: law.rms_percent):
        with pytest.raises(UserError, match="no law was fitted"):
            ask()


def test_seed_labels_must_match():
    assert fit_power_law(*ladder(), seed=[1, 2]).status == "lengths_differ"


def bent():
    x = np.repeat(np.geomspace(1e3, 1e5, 6), 3)
    return x, 1 + (1e7 / x) ** 0.3 * np.exp(np.tile([-0.002, 0, 0.002], 6))


WARNED = {
    "range_under_a_decade": ((np.geomspace(1e3, 9e3, 6), np.geomspace(3, 2, 6)), {}),
    "few_points": ((np.geomspace(1e3, 1e6, 4), np.geomspace(3, 2, 4)), {}),
    "one_seed": (ladder(n=1), {}),
    "same_run_twice": (ladder(), {"seed": [0, 0, 1] * 5}),
    "lack_of_fit": (bent(), {}),
    "exponent_may_be_zero": ((np.geomspace(1e3, 1e6, 5), [2, 2.1, 2, 2.1, 2]), {}),
    "loss_rises": ((np.geomspace(1e3, 1e6, 5), np.geomspace(2, 3, 5)), {}),
    "scale_out_of_range": ((np.geomspace(1e3, 1e6, 5), 3 * np.geomspace(1e3, 1e6, 5) ** -0.001), {}),
}


@pytest.mark.parametrize("warning", WARNED)
def test_warnings_by_name(warning):
    (x, loss), options = WARNED[warning]
    law = fit_power_law(x, loss, **options)
    assert warning in law.warnings
    assert WARNINGS[warning].format(x="N", any="N", points="N", need=4) in law.summary()


def test_a_clean_ladder_has_no_warning():
    assert fit_power_law(*ladder(), seed=[0, 1, 2] * 5).warnings == ()


def test_a_decade_is_enough():
    assert "range_under_a_decade" not in fit_power_law(np.geomspace(3, 30, 5), np.geomspace(3, 2, 5)).warnings


def test_scale_that_is_not_identified_is_no_number():
    law = fit_power_law([1e3, 1e4, 1e5, 1e6, 1e7], [2, 2.1, 2, 2.1, 2])
    assert law.parameters["N_c"].value is None and str(law.parameters["N_c"]) == "not identified"
    assert law.holdout.equivalent is None


def test_json_has_the_designed_keys():
    d = json.loads(json.dumps(fit_power_law(*ladder()).to_dict(), allow_nan=False))
    assert {"law", "status", "warnings", "n_points", "objective", "parameters", "range", "holdout"} <= set(d)
    assert d["law"] == "power" and d["range"] == {"N": [1e3, 1e5]} and set(d["parameters"]["alpha_N"]) == {"value", "low", "high"}


@pytest.mark.parametrize("x", ["N", "D", "C", "tokens per letter"])
def test_forms_name_units_paper_and_equation(x):
    form = power_law(x)
    assert all(p.unit and p.meaning for p in form.parameters)
    assert any("eq" in s for s in form.sources) and form.valid and x in form.equation


numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(1e-3, 1e12),
    st.integers(-3, 10**18),
    st.sampled_from([None, "", "1e3", "x", True, 10**400, 1j, [1], pd.NaT, "n\0"]),
)
positive = st.floats(5e-324, 1.7e308)


@settings(max_examples=300, deadline=None)
@given(st.lists(numbers, max_size=12), st.lists(numbers, max_size=12))
def test_broken_tables_never_give_a_traceback(x, loss):
    check(x, loss)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(positive, positive), min_size=4, max_size=12))
def test_wild_but_valid_tables_never_give_nan(rows):
    check(*zip(*rows))


def check(x, loss):
    try:
        law = fit_power_law(x, loss)
    except UserError:
        return
    assert law.ok or law.status in REFUSALS
    json.dumps(law.to_dict(), allow_nan=False)
    assert "nan" not in law.summary()
    if law.ok:
        value, low, high = law.predict(law.range[1])
        assert not any(map(math.isnan, (value, low, high))) and low <= value <= high
        assert law.exponent.low <= law.exponent.value <= law.exponent.high
