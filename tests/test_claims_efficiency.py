"""Chapter IV's claims: known answers from tables made by Kaplan's own equations, refusals, and what must not matter."""

import numpy as np
import pandas as pd
import pytest

from minitransformer.claims import critical, curves, efficiency
from minitransformer.errors import UserError
from minitransformer.figures import efficiency as figures

ALPHA_N, ALPHA_S, N_C, S_C = 0.08, 0.7, 1e7, 40.0
ALPHA_B, B_STAR = 0.25, 3e4           # B_crit = 3e4 / L^4: 1,900 tokens at a loss of 2
SIZES = [24.0 * d * d for d in (6, 8, 12, 16, 24, 32, 48, 64, 96)]


def critical_batch(L):
    return B_STAR / L ** (1 / ALPHA_B)


def curve(N, B, S, floor=0.0):
    """Loss after S steps at batch B: eq. 1.6 of S_min, which is S / (1 + B_crit(L) / B) by eq. 5.4, solved for the loss."""
    lowest = (N_C / N) ** ALPHA_N
    L = lowest + np.geomspace(1e-4, 5, 4000)[::-1]
    steps = S_C * (L - lowest) ** (-1 / ALPHA_S) * (1 + critical_batch(L) / B)
    return np.exp(np.interp(np.log(S), np.log(steps), np.log(L)))


def row(N, B, steps, seed=0, noise=0.0, **more):
    S = np.unique(np.round(steps / 1.25 ** np.arange(30)))
    S = S[S >= 16]
    draw = np.random.default_rng([seed, int(N), int(B), int(steps)])
    loss = curve(N, B, S) * np.exp(noise * draw.standard_normal(len(S)))
    return {"spec": "ladder", "status": "complete", "N": N, "seed": seed, "lr": 0.01, "batch_size": int(B / 128),
            "n_ctx": 128, "n_layer": 2, "schedule": "cooldown", "cooldown": 0.2, "warmup_steps": 10,
            "steps": int(steps), "noise_batches": 0, "curve_step": S,
            "curve_val_loss": loss, "loss": float(loss[-1]), **more}


def ladder(sizes=SIZES, noise=0.002, seeds=(0, 1, 2)):
    return [row(N, 1024.0, steps, seed, noise) for N in sizes for steps in (1000, 2000, 4000, 8000, 16000) for seed in seeds]


def batches(noise=0.0, sizes=(6144.0, 55296.0), rates=(0.5, 1.0, 2.0), shift=1.0):
    """Seven batches, three rates each; a rate off by two takes half as many steps again. shift: of the larger size's B_crit."""
    rows = []
    for N in sizes:
        for b in (2, 4, 8, 16, 32, 64, 128):
            B = 128.0 * b
            for rate in rates:
                one = row(N, B, 64000 // b + 1000, 0, 0.0, spec="critical_batch", schedule="constant", lr=rate * 0.01 * b**0.5)
                slow = 1.5 if rate != 1 else 1.0
                extra = shift if N == max(sizes) else 1.0
                draw = np.random.default_rng([b, int(N), int(10 * rate)])
                one["curve_val_loss"] = curve(N, B / extra, one["curve_step"] / slow) * np.exp(noise * draw.standard_normal())
                rows.append(one)
    return rows


def gradients(factor=1.0, noise=0.0, sizes=(6144.0, 55296.0)):
    """Squared gradient norms whose noise scale is `factor` times the critical batch."""
    rows = []
    for N in sizes:
        for seed in (1, 2, 3):
            one = row(N, 1024.0, 8000, seed, spec="critical_batch", schedule="constant", noise_batches=64)
            draw = np.random.default_rng([seed, int(N)])
            G2 = 0.01 * np.exp(noise * draw.standard_normal(len(one["curve_step"])))
            trace = G2 * factor * critical_batch(one["curve_val_loss"])
            rows.append({**one, "curve_norm2_batch": G2 + trace / 1024, "curve_norm2_all": G2 + trace / 65536})
    return rows


def table(*parts):
    return pd.DataFrame([one for part in parts for one in part])


# --- reading curves ------------------------------------------------------------------------------------------------


def test_steps_to_a_loss_are_exact_on_a_power_law_and_never_guessed():
    S = np.geomspace(10, 1e4, 12)
    loss = 8 * S**-0.2
    found = curves.steps_to(S, loss, np.array([6.0, 4.0, 1.5, 1.0]))
    assert found[1] == pytest.approx((8 / 4) ** 5) and found[2] == pytest.approx((8 / 1.5) ** 5)
    assert np.isnan(found[0]) and np.isnan(found[3])  # before the first measurement, and below the last


def test_the_first_crossing_counts_when_a_curve_goes_up_again():
    assert curves.steps_to(np.array([1.0, 2, 4, 8]), np.array([4.0, 2, 3, 1]), np.array([2.5]))[0] < 2


def test_a_curve_ends_where_its_rate_begins_to_fall():
    runs = table([row(864.0, 1024.0, 1000), row(864.0, 1024.0, 4000), row(864.0, 1024.0, 500, schedule="cosine", seed=7)])
    found = curves.training_curves(runs)
    assert found.S.max() == 3200 and set(found.seed) == {0}
    assert list(curves.decayed_ends(runs).S) == [1000, 4000]


def test_fixed_losses_do_not_depend_on_the_runs():
    assert set(np.round(curves.fixed_losses(2, 3), 9)) <= set(np.round(curves.fixed_losses(1, 4), 9))


# --- sample efficiency ---------------------------------------------------------------------------------------------


def test_tokens_to_a_loss_are_those_of_the_law():
    runs = table(ladder(noise=0.0))
    tokens = efficiency.tokens_to_losses(runs)
    for found in tokens[tokens.seed == 0].iloc[::7].itertuples():
        lowest = (N_C / found.N) ** ALPHA_N
        steps = S_C * (found.L - lowest) ** (-1 / ALPHA_S) * (1 + critical_batch(found.L) / 1024)
        assert found.S == pytest.approx(steps, rel=0.01)
    levels = efficiency.to_fixed_losses(tokens)
    assert (levels.exponent < 0).all() and (levels.factor > 1).all() and (levels.low <= levels.exponent).all()
    assert levels.exponent.is_monotonic_decreasing or levels.sizes.nunique() > 1


def test_the_largest_needs_as_many_fewer_tokens_as_the_law_says():
    found = efficiency.measure_samples(table(ladder()))
    last = curve(SIZES[0], 1024.0, 12800.0)
    steps = S_C * (last - (N_C / SIZES[-1]) ** ALPHA_N) ** (-1 / ALPHA_S) * (1 + critical_batch(last) / 1024)
    assert found.low < 12800 / steps < found.high and found.value == pytest.approx(12800 / steps, rel=0.1)
    assert any("decayed" in name for name in found.more)


def test_a_size_that_has_only_begun_changes_nothing():
    runs = ladder()
    begun = [row(221184.0, 1024.0, 500, seed) for seed in (0, 1, 2)]
    one, other = (efficiency.against_largest(table(part)) for part in (runs, runs + begun))
    assert np.allclose(one, other) and len(one) == len(SIZES) - 1
    alone = [row(884736.0, 1024.0, 16000, 0)]  # one seed has no interval
    assert np.allclose(one, efficiency.against_largest(table(runs + alone)))
    longer = [row(max(SIZES), 1024.0, 32000, seed, 0.002) for seed in (0,)]
    assert efficiency.against_largest(table(runs, longer)).factor[0] == pytest.approx(one.factor[0], rel=0.1)


def test_equal_models_save_nothing():
    runs = table(ladder(sizes=SIZES[:5]))
    same = runs.assign(curve_val_loss=[curve(864.0, 1024.0, S) * np.exp(0.01 * np.random.default_rng(i).standard_normal())
                                       for i, S in enumerate(runs.curve_step)])
    measured = efficiency.measure_samples(same)
    (definition,) = (d for d in efficiency.DEFINITIONS if d.id == "kaplan.sample_efficiency")
    assert measured.value is None or not definition.agrees(measured, None)


def test_too_little_to_compare_is_refused():
    for runs in (table(ladder(SIZES[:2])), table(ladder(seeds=(0,))), table(ladder())[:0]):
        measured = efficiency.measure_samples(runs)
        assert measured.value is None and "sizes" in measured.refusal


# --- the law of size and steps -------------------------------------------------------------------------------------


def test_the_law_of_size_and_steps_is_recovered():
    law = efficiency.steps_law(table(ladder(), batches()))
    assert law.ok and law.notes == ()
    for name, true in {"alpha_N": ALPHA_N, "alpha_S": ALPHA_S, "S_c": S_C}.items():
        assert law.parameters[name].value == pytest.approx(true, rel=0.06), name
    assert law.rms_percent < 0.5


def test_without_the_adjustment_the_exponent_is_another_and_the_law_says_so():
    runs = table(ladder(), batches())
    plain, adjusted = efficiency.steps_law(runs, adjusted=False), efficiency.steps_law(runs)
    assert "not S_min" in plain.notes[0]
    assert abs(plain.parameters["alpha_S"].value - adjusted.parameters["alpha_S"].value) > 0.05
    assert "not S_min" in efficiency.steps_law(runs[runs.spec == "ladder"]).notes[0]


def test_a_known_critical_batch_can_be_given():
    law = efficiency.steps_law(table(ladder()), critical_batch)
    assert law.ok and law.notes == () and law.parameters["alpha_S"].value == pytest.approx(ALPHA_S, rel=0.06)


def test_the_claim_on_steps_shows_what_each_choice_does():
    measured = efficiency.measure_steps(table(ladder(), batches()))
    assert measured.low < ALPHA_S < measured.high or measured.value == pytest.approx(ALPHA_S, rel=0.05)
    assert measured.more["alpha_N"][0] == 0.077
    assert {"alpha_S, steps not adjusted", "alpha_S, ends of decayed runs"} <= set(measured.more)
    assert measured.holdout_error < 1


def test_steps_without_batches_or_sizes_are_refused():
    assert "critical batch" in efficiency.measure_steps(table(ladder())).refusal
    assert efficiency.measure_steps(table(ladder(SIZES[:1]), batches())).value is None
    assert not efficiency.steps_law(table(ladder())[:0]).ok


# --- the critical batch --------------------------------------------------------------------------------------------


def test_the_critical_batch_is_recovered_with_the_best_of_the_rates():
    runs = table(batches())
    points = critical.critical_points(runs)
    assert np.allclose(points.B_crit, critical_batch(points.L), rtol=0.06)
    lowest = np.where(points.N == 6144, (N_C / 6144) ** ALPHA_N, (N_C / 55296) ** ALPHA_N)
    assert np.allclose(points.S_min, S_C * (points.L - lowest) ** (-1 / ALPHA_S), rtol=0.06)
    law = critical.critical_law(runs)
    assert law.ok and law.parameters["alpha_B"].value == pytest.approx(ALPHA_B, rel=0.05)
    assert law.predict(L=2.0).value == pytest.approx(critical_batch(2.0), rel=0.05)
    steps = critical.steps_by_batch(runs)
    assert (steps.edge == 0).all() and not steps.duplicated(["N", "B", "L"]).any()


def test_a_best_rate_at_the_edge_is_marked():
    runs = table(batches())
    assert (critical.steps_by_batch(runs[runs.lr <= 0.0101 * runs.batch_size**0.5]).edge == 0).all()  # two rates have no middle
    worse = runs.assign(lr=np.where(np.isclose(runs.lr, 0.01 * runs.batch_size**0.5), 9.0, runs.lr))
    assert (critical.steps_by_batch(worse).edge == 1).all()


def test_the_claim_on_the_critical_batch():
    measured = critical.measure_critical(table(batches(noise=0.004), gradients(factor=0.5, noise=0.05)))
    assert measured.low < ALPHA_B < measured.high and measured.value == pytest.approx(ALPHA_B, rel=0.25)
    _, ratio, low, high = measured.more["B_crit, largest over smallest size at equal loss"]
    assert low < 1 < high
    _, value, low, high = measured.more["B_noise over B_crit"]
    assert value == pytest.approx(0.5, rel=0.25)
    paper, *_ = measured.more["fall of the loss that doubles B_crit"]
    assert paper == 0.13


def test_a_critical_batch_that_depends_on_the_size_is_seen():
    measured = critical.measure_critical(table(batches(noise=0.002, shift=2.0)))
    _, ratio, low, high = measured.more["B_crit, largest over smallest size at equal loss"]
    assert low > 1.3 and ratio == pytest.approx(2, rel=0.3)
    assert not critical.of_the_loss_alone(measured, measured.value) and f"{ratio:.2f} times" in measured.reason


def test_one_law_for_both_sizes_is_what_the_paper_says():
    measured = critical.measure_critical(table(batches(noise=0.004), gradients()))
    assert critical.of_the_loss_alone(measured, ALPHA_B) and not critical.of_the_loss_alone(measured, 2 * ALPHA_B)
    _, ratio, low, high = measured.more["B_noise, largest over smallest size at equal loss"]
    assert low < 1.02 and high > 0.98 and ratio == pytest.approx(1, rel=0.05)


def test_decayed_runs_without_noise_of_their_own_change_nothing():
    """In the made-up world a cooldown takes nothing off, so the hyperbola's small end is where it was."""
    found = efficiency.critical_when_decayed(table(ladder(noise=0.0), batches()))
    assert len(found) > 3 and np.allclose(found.decayed, critical_batch(found.L), rtol=0.15)
    quick = [{**one, "loss": 0.9 * one["loss"]} for one in ladder(noise=0.0)]
    found = efficiency.critical_when_decayed(table(quick, batches()))
    assert len(found) and (found.decayed < 0.8 * found.B_crit).all()
    assert not len(efficiency.critical_when_decayed(table(batches())))


def test_the_gradients_noise_is_recovered_along_the_training():
    noise = critical.noise_points(table(gradients(factor=3.0)))
    assert np.allclose(noise.B_noise, 3 * critical_batch(noise.L), rtol=0.1) and (noise.measurements == 6).all()
    both = critical.noise_against(critical.critical_points(table(batches())), noise)
    assert len(both) > 4 and np.allclose(both.B_noise / both.B_crit, 3, rtol=0.1)


def test_parts_of_the_batches_are_refused_and_never_crash():
    whole = table(batches(), gradients())
    few = whole[whole.batch_size <= 4]
    for runs in (few, whole[:0], whole[:5], whole[whole.noise_batches > 0]):
        measured = critical.measure_critical(runs)
        assert measured.value is None and measured.refusal
        assert not critical.critical_law(runs).ok
    with pytest.raises(UserError):
        critical.critical_law(few).predict(L=2.0)


def test_the_order_of_the_rows_does_not_matter():
    runs = table(ladder(SIZES[:5]), batches(noise=0.003, sizes=(6144.0,)), gradients(sizes=(6144.0,)))
    mixed = runs.sample(frac=1, random_state=1)
    for measure in (efficiency.measure_samples, critical.measure_critical):
        one, other = measure(runs), measure(mixed)
        assert one.value == pytest.approx(other.value) and one.low == pytest.approx(other.low)


# --- figures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim_id", sorted(figures.CLAIMS))
def test_figures_say_what_they_show_and_survive_what_they_cannot(claim_id):
    whole = table(ladder(SIZES[2:7], seeds=(0, 1)), batches(sizes=(6144.0,)), gradients(sizes=(6144.0,)))
    for runs in (whole, whole[whole.batch_size <= 8], whole[:0]):
        figure = figures.CLAIMS[claim_id](runs)
        assert all(axis.get_xlabel() or axis.get_ylabel() for axis in figure.axes)
    assert figure is not None


def test_the_exponents_line_runs_through_what_is_left_to_learn():
    runs = table(ladder(noise=0.0), batches())
    law = efficiency.steps_law(runs)
    points = efficiency.steps_points(runs, efficiency.critical_law(runs))
    axis = figures.collapse_figure(points, law, 0.76).axes[0]
    dots = np.concatenate([line.get_xydata() for line in axis.lines if line.get_marker() == "o"])
    (S, left) = next(line.get_data() for line in axis.lines if line.get_marker() != "o")
    expected = np.exp(np.interp(np.log(dots[:, 0]), np.log(S), np.log(left)))
    assert len(dots) == len(points) and np.median(np.abs(np.log(dots[:, 1] / expected))) < 0.05


def test_the_paper_is_drawn_where_it_can_be_compared():
    runs = table(batches())
    points, law = critical.critical_points(runs), critical.critical_law(runs)
    dashed = [line for line in figures.critical_figure(points, law, None, 0.21).axes[0].lines if line.is_dashed()]
    assert len(dashed) == 1
    (L, B), middle = dashed[0].get_data(), np.sqrt(law.range[0] * law.range[1])
    assert np.polyfit(np.log(L), np.log(B), 1)[0] == pytest.approx(-1 / 0.21)
    assert np.exp(np.interp(np.log(middle), np.log(L), np.log(B))) == pytest.approx(law.predict(L=middle).value, rel=1e-3)
