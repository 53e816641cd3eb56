"""Chapter III's claims: known answers from tables made by Kaplan's own equations, refusals, and what must not matter."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from minitransformer.claims import overfitting as chapter
from minitransformer.claims import stopping as stop
from minitransformer.errors import UserError
from minitransformer.figures import overfitting as figures
from minitransformer.figures import stopping as stop_figures
from minitransformer.laws.formulas import data_for_excess, overfitting, stop_bound
from minitransformer.sweeps.grid import load_spec
from minitransformer.training.schedules import evaluation_steps

ALPHA_N, ALPHA_D, N_C, D_C = 0.09, 0.15, 2e7, 8e6
GROWTH = ALPHA_N / ALPHA_D
ALPHA_S, S_C = 0.6, 150.0
ALL = 123_000_000  # characters of the whole text
WIDTHS, LENGTHS = (16, 32, 64, 128), (*(4096 * 2**k for k in range(11)), 0)


def limit(N):
    return (N_C / N) ** ALPHA_N


def kaplan(N, D):
    return ((N_C / N) ** (ALPHA_N / ALPHA_D) + D_C / D) ** ALPHA_D


def chinchilla(N, D):
    return 0.7 + 20 / N**0.35 + 60 / D**0.45


def fresh(N, S):
    return limit(N) + (S_C / S) ** ALPHA_S


def table(law=kaplan, noise=0.0, seeds=(0,), late=2.0, spec="overfitting", keep=lambda config: True):
    """A grid with losses by a law of N and D; a run is best `late` times as late as unlimited text brings it there.

    Validation curves follow the unlimited one at 1 / late of the steps, and turn after their best step.
    """
    rows = []
    base = load_spec("overfitting").configs("hours")[0]
    for d_model, train_tokens in itertools.product(WIDTHS, LENGTHS):
        config = replace(base, d_model=d_model, n_head=1, train_tokens=train_tokens)
        for seed in seeds:
            if not keep(config):
                continue
            N, U = 24.0 * config.d_model**2, config.train_tokens or ALL
            draw = np.random.default_rng([seed, config.d_model, config.train_tokens])
            steps = np.array(evaluation_steps(config), float)
            loss = law(N, U) * math.exp(noise * draw.standard_normal())
            if config.train_tokens:
                wanted = late * S_C * max(loss - limit(N), 1e-9) ** (-1 / ALPHA_S)
                at = int(np.argmin(abs(np.log(steps / wanted))))
                after = np.arange(len(steps)) - at
                curve = np.maximum(fresh(N, steps / late), loss) + 0.2 * np.maximum(after, 0) + 1e-9 * abs(after)
                steps, curve = steps[: at + 4], curve[: at + 4]
                curve[min(at, len(curve) - 1)] = loss
                best = int(steps[int(np.argmin(curve))])
            else:
                curve = fresh(N, steps) * np.exp(noise * draw.standard_normal())
                best = int(steps[-1])
            D = int(steps[-1]) * config.tokens_per_step
            rows.append({**config.to_dict(), "seed": seed, "spec": spec, "scale": "hours", "status": "complete", "device": "cpu",
                         "N": N, "unique_tokens": U, "D": D, "C": 6 * N * D, "C_total": 7 * N * D, "seconds": 1.0,
                         "loss": float(curve[-1]), "best_loss": loss, "best_step": best, "curve_step": steps.astype(int),
                         "curve_val_loss": curve, "curve_train_loss": curve - 0.1})
    return pd.DataFrame(rows)


# --- L(N, D) -------------------------------------------------------------------------------------------------------


def test_the_joint_law_comes_back_with_the_rule_for_data():
    runs = table(noise=0.002, seeds=(0, 1, 2))
    measured = chapter.measure_overfitting(runs)
    assert measured.low < GROWTH < measured.high and measured.value == pytest.approx(GROWTH, abs=0.02)
    for name, truth in {"alpha_N": ALPHA_N, "alpha_D": ALPHA_D}.items():
        _, value, low, high = measured.more[name]
        assert low < truth < high and value == pytest.approx(truth, rel=0.03), name
    scale = data_for_excess(1.0, 0.02, ALPHA_N, ALPHA_D, N_C, D_C)
    _, value, low, high = measured.more["D_scale"]
    assert low < scale < high
    assert measured.more["rms_percent"][1] < 0.2 < measured.more["rms_percent_chinchilla"][1]
    assert measured.more["data_for_8_times_the_model"][1] == pytest.approx(8**measured.value)


def test_the_data_that_a_size_needs_is_that_of_the_formula():
    law = chapter.joint_law(table(), chapter.rule(0.01, (24576.0,)))
    needed = data_for_excess(24576.0, 0.01, ALPHA_N, ALPHA_D, N_C, D_C)
    assert law.parameters["D_at_24576"].value == pytest.approx(needed, rel=1e-3)
    assert law.parameters["growth"].value == pytest.approx(GROWTH, rel=1e-3)


def test_sets_with_few_updates_an_epoch_do_not_count():
    runs = table(noise=0.002)
    few = runs.unique_tokens <= 40 * 1024
    spoilt = runs.assign(best_loss=np.where(few, 9.0, runs.best_loss))
    assert few.any()
    assert chapter.joint_law(spoilt).parameters == chapter.joint_law(runs).parameters
    assert "left out" in " ".join(chapter.joint_law(runs).notes)
    kept = runs[~few & (runs.train_tokens > 0)]
    assert len(chapter.excesses(runs)) == len(kept[["N", "train_tokens"]].drop_duplicates())


def test_another_unit_of_the_loss_changes_no_exponent():
    """Kaplan's first principle: a vocabulary rescales the loss, which N_c and D_c take up."""
    runs = table(noise=0.002)
    one, two = (chapter.joint_law(runs.assign(best_loss=runs.best_loss * unit)).parameters for unit in (1.0, 2.5))
    for name in ("alpha_N", "alpha_D"):
        assert one[name].value == pytest.approx(two[name].value, rel=1e-4)
    assert two["D_c"].value == pytest.approx(one["D_c"].value * 2.5 ** (1 / one["alpha_D"].value), rel=1e-3)


def test_the_order_of_the_rows_and_diverged_runs_do_not_matter():
    runs = table(noise=0.002)
    broken = pd.concat([runs, runs.head(3).assign(status="diverged", best_loss=np.nan)], ignore_index=True)
    for other in (runs.sample(frac=1, random_state=0), broken):
        assert chapter.joint_law(other).parameters == chapter.joint_law(runs).parameters
        assert chapter.excesses(other).equals(chapter.excesses(runs))
        assert stop.measure_stopping(other).value == stop.measure_stopping(runs).value


def test_by_range_says_where_each_form_holds():
    ranges = chapter.by_range(table(chinchilla), resamples=100)
    assert ranges.smallest.is_monotonic_increasing and ranges.n.iloc[0] == len(WIDTHS) * len(LENGTHS)
    enough = ranges[ranges.n >= 16]
    assert (enough.chinchilla_rms < 0.05).all() and (enough.kaplan_rms > 3 * enough.chinchilla_rms).all()
    assert math.isnan(ranges.kaplan_rms.iloc[-1])  # one D is no grid
    kaplans = chapter.by_range(table(), resamples=100).query("n >= 16")
    assert np.allclose(kaplans.kaplan_growth, GROWTH, atol=0.01) and (kaplans.kaplan_rms < 0.05).all()
    assert np.allclose(kaplans.alpha_D, ALPHA_D, atol=0.003)


@pytest.mark.parametrize("E", [0.0, 0.8])
def test_a_floor_is_found_where_there_is_one(E):
    """With a floor in the runs, Kaplan's own form misses them and its ratio with it; the form above a floor finds both."""
    runs = table(lambda N, D: E + (1 - E / 2) * kaplan(N, D), noise=0.001)
    law, plain = chapter.joint_law(runs, chapter.floored()), chapter.joint_law(runs)
    assert law.rms_percent < 0.2 and law.parameters["E"].value == pytest.approx(E, abs=0.15)
    assert law.parameters["growth"].value == pytest.approx(GROWTH, abs=0.06)
    assert law.parameters["E"].low <= E <= law.parameters["E"].high
    assert (plain.rms_percent > 1.2 * law.rms_percent) == bool(E)
    values = {"E": 0.5, "alpha_N": 0.1, "alpha_D": 0.2, "N_c": 1e6, "D_c": 1e5}
    expected = 0.5 + ((1e6 / 3e4) ** 0.5 + 1e5 / 2e6) ** 0.2
    assert chapter.floored().loss(values, N=3e4, D=2e6) == pytest.approx(expected)


def test_the_growth_hangs_on_no_single_width_or_text_where_the_law_is_true():
    for column in ("d_model", "unique_tokens"):
        found = chapter.without(table(), column)
        assert len(found) >= 4 and np.allclose(list(found.values()), GROWTH, atol=0.01)


# --- how far from unlimited text -----------------------------------------------------------------------------------


def test_excesses_are_those_of_eq_4_3_and_collapse_on_their_own_exponent():
    points = chapter.excesses(table())
    exact = overfitting(points.N, points.D, ALPHA_N, ALPHA_D, N_C, D_C)
    far = overfitting(points.N, ALL, ALPHA_N, ALPHA_D, N_C, D_C)
    assert np.allclose(points.delta, (1 + exact) / (1 + far) - 1)
    free = chapter.collapse(points)
    assert free.low < GROWTH < free.high and free.value == pytest.approx(GROWTH, abs=0.05)
    assert chapter.scatter(points, GROWTH) < 0.2 * chapter.scatter(points, 0.0)
    assert np.allclose(chapter.law_excess(chapter.joint_law(table()), points), exact, rtol=0.02)


def test_an_exponent_without_an_end_is_not_reported():
    points = chapter.excesses(table())
    assert chapter.collapse(points[points.N == points.N.min()]).value is None
    assert chapter.collapse(points.head(6)).value is None
    flat = points.assign(delta=0.05 + 0.001 * np.random.default_rng(0).standard_normal(len(points)))
    assert chapter.collapse(flat).value is None


def test_onset_tells_one_over_d_from_another_power():
    for law, truth, width in ((kaplan, 1.0, 0.15), (chinchilla, 0.45, 0.05)):
        # the excess of the law itself, as the limit of a run on all of the text is not quite that of unlimited text
        points = chapter.excesses(table(law))
        delta = law(points.N, points.D) / law(points.N, 1e30) - 1
        found = chapter.onset(points.assign(delta=delta), 0.0004)
        assert found.value == pytest.approx(truth, abs=width), law.__name__
    assert chapter.onset(points.assign(delta=-0.01), 0.002).value is None


def test_the_band_of_eq_4_3_holds_the_truth():
    law = chapter.joint_law(table(noise=0.003))
    D = np.geomspace(1e5, 4e6, 20)
    value, low, high = chapter.excess_band(law, 49152.0, D)
    assert (low <= value).all() and (value <= high).all()
    truth = overfitting(49152.0, D, ALPHA_N, ALPHA_D, N_C, D_C)
    assert np.mean((low < truth) & (truth < high)) > 0.7


def test_the_data_needed_is_read_between_two_points():
    delta = [0.1, 0.01, 0.001, 0.5, 0.4, 0.3]
    points = pd.DataFrame({"N": [1.0] * 3 + [2.0] * 3, "D": [100.0, 1000.0, 10000.0] * 2, "delta": delta})
    assert chapter.data_needed(points, 0.01) == {1.0: pytest.approx(1000.0)}
    assert chapter.data_needed(points, 0.1 / math.sqrt(10)) == {1.0: pytest.approx(100 * math.sqrt(10))}


def test_seed_noise_is_the_spread_of_the_logs():
    noise = chapter.seed_noise(table(noise=0.01, seeds=(0, 1, 2)))
    assert noise.low < 0.01 < noise.high and noise.value == pytest.approx(0.01, rel=0.25)
    single = table()
    assert chapter.seed_noise(single).value is None
    ladder = pd.DataFrame([{"spec": "ladder", "status": "complete", "N": N, "steps": 16000, "seed": s, "train_tokens": 0,
                            "n_ctx": 128, "batch_size": 8, "unique_tokens": ALL, "loss": 2 * math.exp(0.004 * (s - 1))}
                           for N in (864.0, 6144.0, 24576.0) for s in range(3)])
    assert chapter.seed_noise(pd.concat([single, ladder])).value == pytest.approx(0.004)


# --- when to stop --------------------------------------------------------------------------------------------------


def test_the_learning_curves_come_back_whatever_their_limits():
    found = stop.fresh_curves(table())
    assert found.alpha_S.value == pytest.approx(ALPHA_S, rel=1e-3) and found.S_c.value == pytest.approx(S_C, rel=0.01)
    assert found.limits == {N: pytest.approx(limit(N), rel=1e-3) for N in found.limits} and len(found.limits) == 4
    curves = stop.training_curves(stop.unlimited(table()))
    early = curves.S < 10 * curves.warmup
    moved = curves.assign(loss=np.where(early, 4.0, curves.loss) + curves.N / 1e6)
    again = stop.shared_curve(moved)
    assert again.alpha_S.value == pytest.approx(ALPHA_S, rel=0.01) and again.first >= 1000
    noisy = stop.fresh_curves(table(noise=0.003))
    assert noisy.alpha_S.low < ALPHA_S < noisy.alpha_S.high
    assert found.bound(24576.0, limit(24576.0) + 0.2) == pytest.approx(float(stop_bound(0.2, ALPHA_S, S_C)), rel=0.02)
    assert found.loss(24576.0, 2000.0) == pytest.approx(fresh(24576.0, 2000.0), rel=1e-3)


def test_runs_that_stop_twice_as_late_as_the_bound_are_found_to():
    measured = stop.measure_stopping(table(late=2.0))
    assert measured.value == 1.0 and measured.high == 1.0 and measured.low < 1
    assert measured.more["median_step_over_bound"][1] == pytest.approx(2.0, rel=0.1)
    assert measured.more["share_without_a_law"][1] == 1.0
    assert measured.more["median_step_over_unlimited"][1] == pytest.approx(2.0, rel=0.1)


def test_runs_that_stop_too_early_are_found_to_as_well():
    measured = stop.measure_stopping(table(late=0.5))
    assert measured.value == 0.0 and measured.low == 0.0 and "0%" in measured.reason
    assert measured.more["median_step_over_bound"][1] == pytest.approx(0.5, rel=0.1)
    (definition,) = stop.DEFINITIONS
    assert not definition.agrees(measured, None) and definition.agrees(stop.measure_stopping(table(late=2.0)), None)


def test_a_step_is_known_to_the_ratio_of_the_measurements():
    points = pd.DataFrame({"step": [100.0, 100.0], "ratio": 1.2, "bound": [119.0, 121.0], "D": [1.0, 2.0]})
    assert stop.holds(points).value == 0.5


def test_runs_that_had_not_stopped_are_not_counted():
    points = stop.stopping(table())
    ended = points[~points.stopped]
    assert len(ended) and (ended["last"] == 16000).all() and (points[points.stopped].step < 16000).all()
    kept = points[points.stopped & points.inside]
    assert stop.measure_stopping(table()).more["runs"][1] == len(kept)
    assert (kept.bound >= 1000).all()


def test_an_interval_of_a_share():
    assert stop.share(5, 5).low == pytest.approx(0.478, abs=1e-3) and stop.share(5, 5).high == 1.0
    assert stop.share(0, 5).high == pytest.approx(0.522, abs=1e-3) and stop.share(0, 5).low == 0.0
    assert stop.share(8, 10).low == pytest.approx(0.444, abs=1e-3)


def test_gaps_are_taken_where_the_run_was_best():
    points = stop.stopping(table())
    gaps = stop.gaps(points)
    assert len(gaps) == points.stopped.sum()
    assert np.allclose(gaps.gap, 0.1) and np.allclose(gaps.own.dropna(), 0.1)
    first = gaps.iloc[-1]
    run = points[points.stopped].iloc[-1]
    assert first.behind == pytest.approx(run.loss - fresh(run.N, run.step)) and first.cost == pytest.approx(run.loss - run.limit)


def test_the_bound_with_constants_from_elsewhere():
    runs = table()
    ladder = table(spec="ladder", keep=lambda config: not config.train_tokens)
    others = stop.other_bounds(pd.concat([runs, ladder], ignore_index=True))
    assert {"L_ND", "ladder"} <= set(others)
    assert others["ladder"].alpha_S.value == pytest.approx(ALPHA_S, rel=1e-3)
    assert others["L_ND"].limits == {N: pytest.approx(limit(N), rel=0.01) for N in others["L_ND"].limits}


# --- a table that is not complete ----------------------------------------------------------------------------------

PARTS = {
    "nothing": lambda config: False,
    "one run": lambda config: config.d_model == 16 and config.train_tokens == 65536,
    "one width": lambda config: config.d_model == 32,
    "unlimited text alone": lambda config: not config.train_tokens,
    "one text": lambda config: config.train_tokens == 262144,
    "no unlimited text": lambda config: config.train_tokens > 0,
    "two widths": lambda config: config.d_model in (16, 32),
    "the smallest sets": lambda config: 0 < config.train_tokens < 40000,
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_grid_is_refused_or_measured_but_never_an_accident(part):
    runs = table(keep=PARTS[part])
    if not len(runs):
        runs = table().head(0)
    joint, early = chapter.measure_overfitting(runs), stop.measure_stopping(runs)
    assert joint.value is None or joint.low < joint.value < joint.high
    assert (joint.value is None) == bool(joint.refusal) and (early.value is None) == bool(early.refusal)
    if part != "two widths" and part != "no unlimited text":
        assert joint.refusal
    assert early.refusal
    assert len(chapter.by_range(runs, 50)) == runs.unique_tokens.nunique()
    for draw in (figures.grid_figure, figures.claim_figure, stop_figures.claim_figure, stop_figures.runs_figure):
        try:
            assert draw(runs).axes
        except UserError as refusal:
            assert str(refusal)


def test_figures_of_the_whole_grid():
    runs = table(noise=0.003, seeds=(0, 1))
    law = chapter.joint_law(runs, chapter.rule(0.02, (6144.0, 24576.0)))
    needs = {"2 %": {N: law.parameters[f"D_at_{N:.0f}"] for N in (6144.0, 24576.0)}}
    points = stop.stopping(runs)
    measured = chapter.data_needed(chapter.excesses(runs), 0.02)
    drawn = [figures.grid_figure(runs), figures.claim_figure(runs), figures.rule_figure(needs, measured),
             figures.range_figure(chapter.by_range(runs, 50), 65536), stop_figures.claim_figure(runs),
             stop_figures.stopping_figure(points, "fresh"), stop_figures.runs_figure(runs, 24576.0),
             stop_figures.gap_figure(stop.gaps(points))]
    for figure in drawn:
        assert all(axis.get_ylabel() for axis in figure.axes)
        assert figure.get_size_inches()[0] <= 6
    assert set(figures.CLAIMS) | set(stop_figures.CLAIMS) == {d.id for d in (*chapter.DEFINITIONS, *stop.DEFINITIONS)}


def test_claims_are_made_of_the_grid():
    runs = table(noise=0.002)
    (joint,), (early,) = chapter.DEFINITIONS, stop.DEFINITIONS
    first, second = joint.claim(runs), early.claim(runs)
    assert first.paper_value == 0.74 and first.verdict == "differs" and first.reason and first.low < first.value < first.high
    assert first.N == [6144.0, 393216.0] and first.D == [4096.0, float(ALL)]
    assert second.verdict == "agrees" and second.value == 1.0
    assert "smoke" in joint.claim(runs.assign(scale="smoke")).reason
