"""Loss against size, data and compute: known exponents are found in made-up tables, and a part of a table is refused."""

import math

import numpy as np
import pandas as pd
import pytest

from minitransformer import claims
from minitransformer.claims import compute, sizes
from minitransformer.figures import compute as compute_figures, sizes as figures
from minitransformer.laws import batch
from minitransformer.laws.formulas import compute_exponent

WIDTHS = (6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
HORIZONS = (1000, 2000, 4000, 8000, 16000)
B = 1024.0
N_LAW = (2e6, 0.09)  # N_c, alpha_N


def run(d, steps, seed, loss, curve=((16.0,), (5.0,)), spec="ladder", **more):
    N, D = 24 * d * d, steps * B
    return {"spec": spec, "scale": "hours", "status": "complete", "n_layer": 2, "d_model": d, "N": N, "steps": steps,
            "seed": seed, "loss": loss, "D": D, "C": 6 * N * D, "C_head": 6 * (N + 80 * d) * D, "C_total": 12 * N * D,
            "schedule": "cooldown", "cooldown": 0.2, "batch_size": 8, "n_ctx": 128, "lr": 0.1 / d, "warmup_steps": 100,
            "curve_step": list(curve[0]),
            "curve_val_loss": list(curve[1]),
            "train_tokens": 0, "unique_tokens": 123_720_057, "best_loss": loss, "best_step": steps, "noise_batches": 0, **more}


def ladder(law, noise=0.002, seeds=(0, 1, 2), widths=WIDTHS, horizons=HORIZONS, curve=None, strays=()):
    """Runs of every width, length and seed. law(N, D): the loss, but for noise; curve(N): steps and losses at a constant rate."""
    draw, rows = np.random.default_rng(0), []
    for d in widths:
        N = 24.0 * d * d
        for seed in seeds:
            luck = np.exp(noise * (10 if d in strays else 1) * draw.standard_normal())
            for steps in horizons:
                own = law(N, steps * B) * luck * np.exp(0.3 * noise * draw.standard_normal())
                rows.append(run(d, steps, seed, own, curve(N) if curve else ((16.0,), (5.0,))))
    return pd.DataFrame(rows)


def straight(N, D):
    return (N_LAW[0] / N) ** N_LAW[1]


def floored(N, D):
    return 1.1 + 7.2 * N**-0.26


def limited(N, D):
    return 0.9 + 4.9 * N**-0.2 + 110 * D**-0.4


def slope(law, widths=WIDTHS, D=16000 * B):
    x = np.array([math.log(24.0 * d * d) for d in widths])
    return -np.polyfit(x, np.log([law(math.exp(v), D) for v in x]), 1)[0]


# --- the average exponent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("robust", [False, True])
def test_the_average_exponent_is_the_slope_of_the_line_whatever_the_bend(robust):
    random = np.random.default_rng(1)
    z = np.log([24.0 * d * d for d in WIDTHS])
    columns, _ = np.linalg.qr(np.vander(z - z.mean(), 3, increasing=True))
    y = 0.5 - 0.08 * z + 0.003 * random.standard_normal(len(z))
    found = sizes.average_exponent(np.exp(z), np.exp(y), robust)
    assert found.value == pytest.approx(-np.polyfit(z, y, 1)[0])
    bent = sizes.average_exponent(np.exp(z) * 7, 3 * np.exp(y + 0.2 * columns[:, 2]), robust)
    assert [bent.value, bent.low, bent.high] == pytest.approx([found.value, found.low, found.high])
    assert found.low < found.value < found.high


@pytest.mark.parametrize("robust, noise", [(False, np.full(11, 0.004)), (True, np.array([0.02, 0.01, 0.01] + [0.003] * 8))])
def test_its_interval_holds_the_average_of_a_bent_law_about_as_often_as_it_says(robust, noise):
    z = np.log([24.0 * d * d for d in WIDTHS])
    truth, random = np.log(floored(np.exp(z), 0)), np.random.default_rng(2)
    expected, hits = -np.polyfit(z, truth, 1)[0], 0
    for _ in range(400):
        e = sizes.average_exponent(np.exp(z), np.exp(truth + noise * random.standard_normal(11)), robust)
        hits += e.low < expected < e.high
    assert 0.92 * 400 <= hits <= 0.995 * 400


def test_too_few_points_have_no_average():
    assert sizes.average_exponent([1, 2, 4, 8], [4, 3, 2, 1]).value is None
    assert sizes.average_exponent([3, 3, 3, 3, 3], [4, 3, 2, 1, 1]).value is None


def test_the_exponent_along_a_fitted_law_is_its_own():
    table = ladder(floored, noise=1e-4)
    law = sizes.size_law(table, "power-floor")
    N = law.means.x
    assert law.holdout.x == N.max() and law.holdout.n_held == 1 and abs(law.holdout.error_percent) < 0.1
    assert law.holdout.low < law.holdout.measured < law.holdout.high
    found = sizes.law_exponent(law, N)
    assert found.value == pytest.approx(slope(floored), abs=3e-4) and found.low < found.value < found.high
    line = sizes.size_law(table)
    assert sizes.law_exponent(line, N) == line.exponent
    assert sizes.law_exponent(sizes.size_law(table[table.d_model < 16]), N).value is None


# --- L(N) ------------------------------------------------------------------------------------------------------------


def test_a_power_law_of_size_is_found_and_no_bend_with_it():
    table = ladder(straight)
    measured = sizes.measure_size(table)
    assert measured.low < N_LAW[1] < measured.high and measured.high - measured.low < 0.004
    assert abs(measured.holdout_error) < 1
    assert sizes.straight_from(table) == 24 * 36
    low, high = measured.more["alpha_N of the straight range"][2:]
    assert low < N_LAW[1] < high


def test_a_floor_bends_the_line_and_the_law_with_a_floor_foretells_better():
    measured = sizes.measure_size(ladder(floored, noise=0.001))
    assert measured.low < slope(floored) < measured.high and measured.high - measured.low < 0.012
    assert measured.more["hold-out error without a floor (%)"][1] < -3
    assert abs(measured.holdout_error) < 1 and measured.holdout_error == measured.more["hold-out error with a floor (%)"][1]
    _, E, low, high = measured.more["E, the floor"]
    assert low < 1.1 < high and abs(E - 1.1) < 0.1
    assert "0.13 among the smallest" in measured.reason
    _, _, low, high = measured.more["alpha_N, a bend taken for chance"]
    assert high - low > 2 * (measured.high - measured.low)


def test_small_sizes_that_stray_are_left_out_of_the_straight_range():
    bent_below = lambda N, D: straight(N, D) * (1 + 0.3 * (1000 / N) ** 1.5)
    assert sizes.straight_from(ladder(bent_below, noise=0.001)) >= 24 * 16**2
    bent = ladder(lambda N, D: floored(N, D), noise=1e-4)
    assert sizes.straight_from(bent) is None
    assert sizes.straight_from(bent[bent.seed == 0]) is None


def test_the_exponent_by_horizon_and_without_a_limit():
    table = ladder(limited, noise=0.0005)
    lengths = sizes.by_horizon(table)
    assert lengths.D.tolist() == [1024.0 * s for s in HORIZONS] and (lengths.n == len(WIDTHS)).all()
    assert lengths.value.is_monotonic_increasing
    for row in lengths.itertuples():
        assert row.low < slope(limited, D=row.D) < row.high
    limit = sizes.law_exponent(sizes.joint_law(table), sizes.size_law(table).means.x, D=sizes.UNLIMITED)
    assert limit.low < slope(limited, D=1e30) < limit.high and limit.high - limit.low < 0.02


def test_only_lengths_that_every_size_has_are_compared():
    table = pd.concat([ladder(limited), ladder(limited, widths=(192,), horizons=(32000,))], ignore_index=True)
    assert set(claims.longest(table).steps) == {16000}
    assert sizes.by_horizon(table).D.max() == 16000 * B
    table = pd.concat([table, ladder(limited, widths=(192,), horizons=(500,))], ignore_index=True)
    assert sizes.joint_law(table).ranges["D"] == (2000 * B, 32000 * B)
    short = table[~((table.d_model == 64) & (table.steps == 16000))]
    assert set(claims.longest(short).steps) == {8000}


def test_a_short_ladder_keeps_the_interval_of_its_line():
    table = ladder(straight, widths=WIDTHS[3:8])
    measured, line = sizes.measure_size(table), sizes.size_law(table)
    assert (measured.value, measured.low, measured.high) == (line.exponent.value, line.exponent.low, line.exponent.high)


@pytest.mark.parametrize("part", [lambda t: t[:0], lambda t: t[t.d_model < 12], lambda t: t.groupby("N").head(1)[:3]])
def test_a_part_of_a_ladder_is_refused_in_words(part):
    for measure in (sizes.measure_size, compute.measure_compute):
        measured = measure(part(ladder(straight)))
        assert measured.value is None and "at least" in measured.refusal


# --- L(D) ------------------------------------------------------------------------------------------------------------

SETS = [8192 * 2**k for k in range(10)]


def texts(loss, widths=(64, 128), unstopped=(4_194_304, 0), noise=0.0, gain=0.03):
    """gain: what the last half of its steps brings a run that has not stopped."""
    draw, rows = np.random.default_rng(0), []
    for d in widths:
        for D in (*SETS, 0):
            unique = D or 123_720_057
            own = loss(unique) * (1.1 if d < max(widths) else 1.0) * np.exp(noise * draw.standard_normal())
            best = 16000 if D in unstopped else 800
            curve = ((4000.0, 8000.0, 16000.0), (own / (1 - gain) ** 2, own / (1 - gain), own))
            rows.append(run(d, 16000, 0, own, curve, spec="overfitting", train_tokens=D, unique_tokens=unique, best_step=best))
    return pd.DataFrame(rows)


def test_the_region_leaves_out_small_sets_and_those_that_never_turned():
    points = sizes.data_points(texts(lambda D: D**-0.1))
    assert set(points.d_model) == {128} and points.unique_tokens.tolist() == SETS
    assert points[points.kept].unique_tokens.tolist() == [D for D in SETS if 40 * 1024 < D < 4_194_304]
    assert not points.stopped.iloc[-1] and points.stopped.iloc[0]
    assert [sizes.last_gain(row) for row in points.itertuples()] == pytest.approx([0.0] * 9 + [0.03])
    assert sizes.data_points(texts(lambda D: D**-0.1, gain=0.005)).stopped.all()


def test_a_power_law_of_text_is_found_in_its_region():
    small = lambda D: 4 * D**-0.095 * (1 + (15_000 / D) ** 3)
    measured = sizes.measure_data(texts(small, noise=0.002))
    assert measured.low < 0.095 < measured.high and measured.high - measured.low < 0.02
    assert measured.more["smallest D of the region"][1] == pytest.approx(65536)
    assert abs(measured.holdout_error) < 2


def test_three_regions_are_followed_where_a_line_is_not():
    curve = lambda D: 1.2 + 1.6 / (1 + D / 20_000) ** 0.5
    measured = sizes.measure_data(texts(curve, unstopped=(0,), noise=0.001))
    assert abs(measured.more["hold-out error of three regions (%)"][1]) < abs(measured.holdout_error)
    x = np.log([D for D in SETS if D > 40 * 1024])
    assert measured.low < -np.polyfit(x, np.log(curve(np.exp(x))), 1)[0] < measured.high
    assert "0.1" in measured.reason


def test_too_little_text_is_refused():
    table = texts(lambda D: D**-0.1)
    for part in (table[table.unique_tokens < 200_000], table[:0], table[table.train_tokens == 0]):
        assert sizes.measure_data(part).value is None


# --- L(C) ------------------------------------------------------------------------------------------------------------

A_N, A_S, A_B = 0.2, 0.6, 0.25
SIZES = (16, 24, 36, 54, 81, 122)  # widths: in nearly even steps of log N


def steps_law(N, S):
    return (3e5 / N) ** A_N + (900 / S) ** A_S


def at_any_batch(N):
    S = np.geomspace(250, 1e5, 60)
    return S, steps_law(N, S)


def B_crit(L):
    return 3000 * (1.6 / np.asarray(L, float)) ** (1 / A_B)


def at_this_batch(N):
    """The same law of S_min: steps at batch B are more by eq. 5.4."""
    S_min = np.geomspace(50, 1e5, 200)
    L = steps_law(N, S_min)
    S = S_min * (1 + B_crit(L) / B)
    kept = (S > 201) & (S < 1.2e5)
    return S[kept], L[kept]


def frontier_ladder(curve, **options):
    return ladder(lambda N, D: 0.97 * steps_law(N, D / B), widths=SIZES, horizons=(150_000,), curve=curve, **options)


def test_the_frontier_of_a_law_of_size_and_steps_has_its_exponent():
    points = compute.overtakings(frontier_ladder(at_any_batch))
    assert {"N", "C", "loss", "seed"} <= set(points) and points.seed.nunique() == 3 and len(points) >= 9
    found, expected = compute.compute_exponent(points), A_N * A_S / (A_N + A_S)
    assert found.value == pytest.approx(expected, rel=0.01)
    twice = compute.overtakings(frontier_ladder(at_any_batch), "C_total")
    assert compute.compute_exponent(twice).value == pytest.approx(found.value, rel=1e-6)
    assert twice.C.to_numpy() == pytest.approx(2 * points.C.to_numpy())
    heads = compute.compute_exponent(compute.overtakings(frontier_ladder(at_any_batch), "C_head"))
    assert heads.value > found.value  # the head weighs most in small models: the frontier spans less compute


def test_adjusted_compute_has_the_exponent_of_the_paper_s_equation():
    table = frontier_ladder(at_this_batch)
    points = compute.overtakings(table, critical=B_crit)
    assert (points.C_min < points.C).all()
    expected = compute_exponent(A_N, A_S, A_B)
    assert compute.compute_exponent(points, "C_min").value == pytest.approx(expected, rel=0.02)
    assert abs(compute.compute_exponent(points).value / expected - 1) > 0.05


def test_the_interval_of_the_critical_batch_widens_that_of_alpha_C_min():
    table = frontier_ladder(at_this_batch)
    L = np.geomspace(1.4, 2.2, 8)
    laws = [batch.fit("b-crit", B_crit(L) * np.exp(noise * np.array([1, -1] * 4)), L=L) for noise in (1e-4, 0.2)]
    sure, unsure = (compute.adjusted_exponent(table, law) for law in laws)
    assert unsure.high - unsure.low > 1.2 * (sure.high - sure.low)
    assert sure.value == pytest.approx(compute_exponent(A_N, A_S, A_B), rel=0.02)


def test_sizes_whose_seeds_disagree_are_not_on_the_frontier():
    table = frontier_ladder(at_any_batch, strays=(16,))
    assert compute.steady_sizes(table) == [24.0 * d * d for d in SIZES[1:]]
    assert compute.overtakings(table).N_low.min() > 24 * 16**2
    assert compute.overtakings(table, steady=False).N_low.min() == 24 * 16**2


def test_the_claim_on_compute_is_measured_or_refused():
    measured = compute.measure_compute(frontier_ladder(at_any_batch))
    assert measured.value == pytest.approx(A_N * A_S / (A_N + A_S), rel=0.01) and abs(measured.holdout_error) < 1
    assert {"alpha_C of C_head", "alpha_C of C_total"} <= set(measured.more) and "alpha_C_min" not in measured.more
    few = frontier_ladder(at_any_batch)
    assert compute.measure_compute(few[few.d_model < 40]).value is None


# --- figures ---------------------------------------------------------------------------------------------------------


def labelled(figure):
    figure.draw_without_rendering()
    return all(axis.get_ylabel() for axis in figure.axes)


@pytest.mark.parametrize("part", [lambda t: t, lambda t: t[t.d_model < 48]])
def test_figures_of_size_are_drawn_from_whole_and_partial_tables(part):
    table = part(ladder(limited))
    assert all(labelled(draw(table)) for draw in (figures.size_figure, figures.local_figure, figures.horizon_figure))


def test_figures_of_text_and_compute_are_drawn_from_whole_and_partial_tables():
    table = texts(lambda D: 1.2 + 1.6 / (1 + D / 20_000) ** 0.5, noise=0.002)
    assert labelled(figures.data_figure(table)) and labelled(figures.data_figure(table[table.unique_tokens < 2e5]))
    runs = frontier_ladder(at_this_batch)
    assert labelled(compute_figures.compute_figure(runs)) and labelled(compute_figures.compute_figure(runs[runs.d_model < 40]))
    assert labelled(compute_figures.adjusted_figure(compute.overtakings(runs, critical=B_crit)))
