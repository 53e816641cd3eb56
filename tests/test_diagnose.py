import json
import math
import re
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minitransformer import papers
from minitransformer.errors import UserError
from minitransformer.laws import fit, published
from minitransformer.laws.curves import MIN_POINTS
from minitransformer.laws.diagnose import DATA, DIVERGING, FLOOR, POWER, STAGES, TOO_SHORT, UNDECAYED, WARMING, diagnose
from minitransformer.laws.formulas import stop_bound
from minitransformer.sweeps.store import reference_table

E, A, B, ALPHA, BETA = 1.0, 15.0, 700.0, 0.38, 0.55
TOKENS = 512.0


def family_loss(N, D):
    return E + A / N**ALPHA + B / D**BETA


@lru_cache
def simulated():
    N, D = (g.ravel() for g in np.meshgrid(np.geomspace(1e3, 1e5, 6), np.geomspace(2.5e5, 8e6, 6)))
    noise = np.random.default_rng(0).standard_normal(len(N))
    return fit("chinchilla", family_loss(N, D) * np.exp(0.002 * noise), N=N, D=D)


@pytest.fixture(scope="module")
def law():
    return simulated()


def steps(last=8000, first=500, n=12):
    return np.geomspace(first, last, n)


def test_on_the_power_law(law):
    s, N = steps(4000), 1e5
    d = diagnose(s, family_loss(N, s * TOKENS), N, law=law, tokens_per_step=TOKENS, planned_steps=16000, decayed=True)
    assert d.stage == POWER
    assert d.expected_end.value == pytest.approx(family_loss(N, 16000 * TOKENS), rel=0.01)
    assert d.expected_end.low < family_loss(N, 16000 * TOKENS) < d.expected_end.high
    gain = family_loss(N, 4000 * TOKENS) - family_loss(N, 8000 * TOKENS)
    assert d.next_doubling.low < gain < d.next_doubling.high and d.next_doubling.value == pytest.approx(gain, rel=0.1)
    assert d.left.value == pytest.approx(B / (4000 * TOKENS) ** BETA, rel=0.1)
    assert d.above_law == pytest.approx(0, abs=0.01) and d.slope == pytest.approx(d.law_slope, abs=0.01)


def test_near_the_floor_of_its_size_by_what_a_doubling_buys(law):
    """Doubling N buys A N^-alpha (1 - 2^-alpha), doubling the steps B D^-beta (1 - 2^-beta): twice as much at one D."""
    N = 3000.0
    size = A / N**ALPHA * (1 - 2**-ALPHA)
    crossing = (2 * B * (1 - 2**-BETA) / size) ** (1 / BETA) / TOKENS
    for last, stage in ((0.7 * crossing, POWER), (1.5 * crossing, FLOOR)):
        s = steps(last, last / 30)
        assert diagnose(s, family_loss(N, s * TOKENS), N, law=law, tokens_per_step=TOKENS).stage == stage


def test_a_curve_before_its_decay_is_not_worse_than_the_law(law):
    s, N = steps(4000), 1e5
    loss = 1.09 * family_loss(N, s * TOKENS)
    plain = dict(law=law, tokens_per_step=TOKENS, planned_steps=8000)
    d = diagnose(s, loss, N, **plain)
    assert d.stage == POWER and 0.08 < d.above_law < UNDECAYED
    assert d.expected_end.source == "law" and d.expected_end.value < 1.01 * family_loss(N, 8000 * TOKENS)
    assert any("before the learning rate comes down" in note for note in d.notes)
    d = diagnose(s, loss, N, **plain, decayed=True)
    assert d.expected_end.source == "curve" and any("does not describe" in note for note in d.notes)
    assert "Compare the learning rate" in d.advice


@pytest.mark.parametrize("sign", [-1, 1])
def test_warming_up_is_coming_towards_the_law(law, sign):
    s, N = steps(1000, 30), 1e5
    loss = family_loss(N, s * TOKENS) * np.exp(sign * 0.08 * np.log(3500 / s))
    d = diagnose(s, loss, N, law=law, tokens_per_step=TOKENS, planned_steps=8000, decayed=True)
    assert d.stage == WARMING and "too early" in d.advice
    assert d.expected_end.source == "law"


def test_without_a_law():
    s = steps(3000, 20, 30)
    d = diagnose(s, 1.5 + 20 / s**0.5, 1e5, planned_steps=12000)
    assert d.stage == POWER
    assert d.floor == pytest.approx(1.5, rel=1e-3) and d.exponent == pytest.approx(0.5, rel=1e-2)
    assert d.expected_end.value == pytest.approx(1.5 + 20 / 12000**0.5, rel=1e-3)
    assert d.next_doubling.value == pytest.approx(20 / 3000**0.5 - 20 / 6000**0.5, rel=1e-2)
    assert "decay will take off more" in d.expected_end.warning and d.expected_end.source == "curve"
    assert diagnose(s, 1.5 + 2 / s**0.5, 1e5).stage == FLOOR
    assert diagnose(s, 4 - 0.06 * np.log(s / 20) ** 2, 1e5).stage == WARMING


def test_a_fall_at_the_end_is_a_decay():
    s = steps(4000, 20, 30)
    loss = (1.5 + 20 / s**0.5) * np.where(s > 2900, 0.88, 1.0)
    d = diagnose(s, loss, 1e5)
    assert d.stage == POWER and any("coming down" in note for note in d.notes)
    assert d.floor == pytest.approx(1.5, rel=1e-2)


def test_a_curve_said_to_be_decayed_without_a_drop_is_not_told_of_a_fall():
    s = steps(4000, 20, 30)
    d = diagnose(s, 1.5 + 20 / s**0.5, 1e5, decayed=True)
    assert d.stage == POWER and "looks like" not in d.summary() and "the one before it was followed" in d.summary()


def test_losses_close_together_are_said_to_be_merged():
    assert "there are 3 after merging those close together (4 were measured)" in diagnose([10, 20, 40, 41], [3, 2.5, 2.2, 2.1], 1e4).summary()
    assert "merging" not in diagnose([10, 20, 40], [3, 2.5, 2.2], 1e4).summary()


@pytest.mark.parametrize("N, last, said", [(1e5, 4000, []), (1.5e6, 4000, ["N = 1.5M (runs: 1k to 100k)"]),
                                           (1.5e6, 300, ["N = 1.5M", "D = 154k (runs: 250k to 8M)"]), (1e5, 20000, ["D = 10.2M (runs"])])
@pytest.mark.parametrize("planned", [None, 30000])
def test_a_training_outside_the_runs_behind_the_law_is_warned(law, N, last, said, planned):
    s = steps(last, last / 10)
    d = diagnose(s, family_loss(N, s * TOKENS), N, law=law, tokens_per_step=TOKENS, decayed=True, planned_steps=planned)
    (note,) = [note for note in d.notes if "outside the runs behind the law" in note] or [""]
    assert all(each in note for each in said) and bool(note) == bool(said)


def test_before_the_first_run_the_law_is_followed_with_a_caveat(law):
    early, late = (diagnose(s, family_loss(1e5, s * TOKENS), 1e5, law=law, tokens_per_step=TOKENS) for s in (steps(300, 30), steps(4000)))
    assert early.stage == late.stage == POWER
    assert "may be chance" in early.summary() and "ask again after D = 250k" in early.advice
    assert "may be chance" not in late.summary() and "ask again" not in late.advice


def test_diverging():
    s = steps(4000, 20, 30)
    loss = 1.5 + 20 / s**0.5
    for bad in (np.nan, np.inf):
        lost = loss.copy()
        lost[-1] = bad
        d = diagnose(s, lost, 1e5, planned_steps=8000)
        assert d.stage == DIVERGING and d.expected_end is None and "lower learning rate" in d.advice
        assert "before the loss was lost" in d.advice and "overfitting" not in d.summary() and "rise" not in d.summary()
    loss[-3:] *= 1.5
    assert diagnose(s, loss, 1e5).stage == DIVERGING
    assert diagnose(s, loss, 1e5, train_loss=loss - 0.05).stage == DIVERGING
    assert diagnose([1], [math.nan], 1e5).stage == DIVERGING


def test_one_spike_is_not_a_divergence():
    s = steps(4000, 20, 30)
    loss = 1.5 + 20 / s**0.5
    loss[15] *= 1.5
    assert diagnose(s, loss, 1e5).stage == POWER
    loss[-1] *= 1.5
    assert diagnose(s, loss, 1e5).stage != DIVERGING


def test_losses_measured_at_some_steps_only_are_not_lost():
    s = np.arange(1, 4001, dtype=float)
    loss, train = np.full(len(s), np.nan), 1.5 + 20 / s**0.5
    loss[99::100] = train[99::100]
    assert diagnose(s[:-7], loss[:-7], 1e5).stage == POWER
    loss = np.where(s <= 3000, train, np.nan)
    d = diagnose(s, loss, 1e5, train_loss=train)
    assert d.stage == POWER and d.step == 3000
    assert diagnose(s, loss, 1e5).stage == DIVERGING


def test_limited_by_data():
    s = steps(4000, 20, 30)
    loss = 1.5 + 20 / s**0.5
    rising = loss + 0.1 * np.maximum(np.log(s / 500), 0) ** 2 * 2
    d = diagnose(s, rising, 1e5, train_loss=loss - 0.1)
    assert d.stage == DATA and d.expected_end is None and d.next_doubling is None and "keep the weights" in d.advice
    assert diagnose(s, rising, 1e5, tokens_per_step=TOKENS, unique_tokens=1e4).stage == DATA  # no training loss, many epochs
    assert diagnose(s, rising, 1e5).stage == DIVERGING
    d = diagnose(s, loss, 1e5, train_loss=loss * np.exp(-0.1 * np.maximum(np.log(s / 500), 0)))
    assert d.stage == DATA and "gap grows" in next(e.reason for e in d.stages if e.stage == DATA)
    many = papers.value("muennighoff2023.epochs_knee")
    for epochs, stage in ((1.5 * many, DATA), (0.5 * many, POWER)):
        assert diagnose(s, loss, 1e5, tokens_per_step=TOKENS, unique_tokens=s[-1] * TOKENS / epochs).stage == stage


def test_stop_bound_of_kaplan():
    ns, nd = published("kaplan-ns"), published("kaplan-nd")
    S_c, alpha_S = (ns.parameters[k].value for k in ("S_c", "alpha_S"))
    excess = nd.predict(N=3e8, D=2e7).value - nd.predict(N=3e8, D=1e30).value
    bound = stop_bound(excess, alpha_S, S_c)
    assert (S_c / bound) ** alpha_S == pytest.approx(excess)
    s, floor = np.geomspace(3e3, 2e5, 40), nd.predict(N=3e8, D=1e30).value
    d = diagnose(s, floor + (S_c / s) ** alpha_S, 3e8, law=nd, tokens_per_step=2**19, unique_tokens=2e7)
    assert d.stop_bound == pytest.approx(bound, rel=0.05)


def test_stop_bound_of_an_overfitting_run_is_where_fresh_data_would_have_reached_its_lowest_loss(law):
    s, N = steps(8000), 1e5
    lowest = family_loss(N, 1000 * TOKENS)
    loss = np.maximum(family_loss(N, s * TOKENS), lowest) + 0.2 * np.maximum(np.log(s / 3000), 0)
    d = diagnose(s, loss, N, law=law, tokens_per_step=TOKENS, unique_tokens=1e5, train_loss=family_loss(N, s * TOKENS))
    assert d.stage == DATA
    assert d.stop_bound == pytest.approx(1000, rel=0.05)


def test_a_published_law_has_no_interval():
    law = published("kaplan-ns")
    s = np.geomspace(5e3, 1e5, 20)
    d = diagnose(s, law.predict(N=np.full(20, 1e8), S=s).value, 1e8, law=law, planned_steps=2e5)
    assert d.stage in (POWER, FLOOR)
    assert d.expected_end.value == pytest.approx(law.predict(N=1e8, S=2e5).value) and d.expected_end.low is None
    assert d.next_doubling.low is None
    json.dumps(d.to_dict(), allow_nan=False)


def test_too_short_and_refusals(law):
    d = diagnose([10, 20, 40], [3, 2.5, 2.2], 1e4, planned_steps=100)
    assert d.stage == TOO_SHORT and d.expected_end is None and str(MIN_POINTS) in d.summary()
    s = steps()
    for call in (
        lambda: diagnose([], [], 1e4),
        lambda: diagnose([0], [3], 1e4),
        lambda: diagnose([1, 2], [3], 1e4),
        lambda: diagnose(["a"], [3], 1e4),
        lambda: diagnose([1, math.nan], [3, 2], 1e4),
        lambda: diagnose(s, -s, 1e4),
        lambda: diagnose(s, s, 0),
        lambda: diagnose(s, s, 1e4, planned_steps=s[-1] / 2),
        lambda: diagnose(s, s, 1e4, law=law),
        lambda: diagnose(s, s, 1e4, law=published("kaplan-n")),
        lambda: diagnose(s, s, 1e4, law=fit("chinchilla", [1.0], N=[1.0], D=[1.0]), tokens_per_step=1),
    ):
        with pytest.raises(UserError) as problem:
            call()
        assert "\n" not in str(problem.value)


def test_rows_in_any_order_say_the_same():
    s = steps(3000, 20, 30)
    loss = 1.5 + 20 / s**0.5
    order = np.random.default_rng(0).permutation(len(s))
    assert diagnose(s[order], loss[order], 1e5).to_dict() == diagnose(s, loss, 1e5).to_dict()


def test_a_noisy_curve_of_every_step():
    random = np.random.default_rng(1)
    s = np.arange(1, 20001, dtype=float)
    loss = (1.5 + 20 / s**0.5) * np.exp(0.05 * random.standard_normal(len(s)))
    d = diagnose(s, loss, 1e5, planned_steps=40000)
    assert d.stage == POWER
    assert d.expected_end.low < 1.5 + 20 / 40000**0.5 < d.expected_end.high
    assert d.expected_end.value == pytest.approx(1.5 + 20 / 40000**0.5, rel=0.02)


# --- committed runs; benchmarks/diagnose.py prints the whole table


@pytest.fixture(scope="module")
def budgets():
    return reference_table("budgets")


@pytest.fixture(scope="module")
def smaller(budgets):
    rows = budgets[budgets.N < budgets.N.max()]
    return fit("chinchilla", rows.loss, N=rows.N, D=rows.D)


def curve(run):
    return (np.array(run[f"curve_{name}"], float) for name in ("step", "val_loss", "train_loss"))


def test_the_largest_size_predicted_at_half_time_from_the_smaller(budgets, smaller):
    for _, run in budgets[(budgets.N == budgets.N.max()) & (budgets.seed == 0) & (budgets.steps >= 1000)].iterrows():
        s, loss, train = curve(run)
        half = s <= run.steps / 2
        d = diagnose(s[half], loss[half], run.N, law=smaller, tokens_per_step=TOKENS, unique_tokens=run.unique_tokens,
                     train_loss=train[half], planned_steps=run.steps)
        assert d.stage == POWER
        assert d.expected_end.low < run.loss < d.expected_end.high


def test_warming_up_until_it_leaves_the_plateau(budgets, smaller):
    run = budgets[(budgets.N == budgets.N.max()) & (budgets.steps == 8000)].iloc[0]
    s, loss, _ = curve(run)
    told = {last: diagnose(s[s <= last], loss[s <= last], run.N, law=smaller, tokens_per_step=TOKENS).stage for last in (100, 500, 4000)}
    assert told == {100: WARMING, 500: POWER, 4000: POWER}


def test_a_small_model_nears_its_floor(budgets, smaller):
    run = budgets[(budgets.N == budgets.N.min()) & (budgets.steps == 8000)].iloc[0]
    s, loss, _ = curve(run)
    assert diagnose(s, loss, run.N, law=smaller, tokens_per_step=TOKENS, decayed=True).stage == FLOOR


def test_every_run_on_few_tokens_is_found_to_be_limited_by_data(smaller):
    for _, run in reference_table("learning_curve").iterrows():
        s, loss, train = curve(run)
        d = diagnose(s, loss, run.N, law=smaller, tokens_per_step=TOKENS, unique_tokens=run.unique_tokens, train_loss=train)
        assert d.stage == DATA
        if d.stop_bound is not None:
            assert d.stop_bound <= s[np.argmin(loss)]


def test_no_run_on_fresh_tokens_is(budgets, smaller):
    for _, run in budgets[budgets.seed == 1].iterrows():
        s, loss, train = curve(run)
        assert diagnose(s, loss, run.N, train_loss=train).stage not in (DATA, DIVERGING)


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
plausible = st.floats(0.1, 10) | st.just(math.nan)
optional = st.none() | st.floats(1, 1e12) | numbers


@st.composite
def tables(draw):
    n = draw(st.integers(0, 14))
    step = draw(arrays(float, n, elements=st.floats(1, 1e6))) if draw(st.booleans()) else draw(arrays(float, n, elements=numbers))
    value = plausible if draw(st.booleans()) else numbers
    return step, draw(arrays(float, n, elements=value)), draw(st.none() | arrays(float, n, elements=value))


@settings(max_examples=150, deadline=None)
@given(tables(), st.floats(1, 1e9) | numbers, optional, optional, optional, st.booleans(), st.sampled_from([None, "fitted", "kaplan-ns", "muennighoff", "kaplan-nd"]))
def test_never_a_traceback_never_nan(table, N, tokens, unique, planned, decayed, name):
    step, loss, train = table
    family = {None: None, "fitted": simulated()}[name] if name in (None, "fitted") else published(name)
    try:
        d = diagnose(step, loss, N, law=family, tokens_per_step=tokens, unique_tokens=unique, train_loss=train, planned_steps=planned, decayed=decayed)
    except UserError as problem:
        assert "\n" not in str(problem)
        return
    assert d.stage in STAGES and [e.stage for e in d.stages] == list(STAGES)
    json.dumps(d.to_dict(), allow_nan=False)
    assert not re.search(r"\b(nan|inf)\b", d.summary().lower())
    assert d.advice
