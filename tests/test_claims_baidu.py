"""Chapter I's claims: known answers from made-up learning curves, refusals, and what must not matter."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from minitransformer import claims, papers
from minitransformer.claims import baidu, capacity, growth, optimisers, regions, use
from minitransformer.claims.domains import DOMAINS, VARIANTS, domain
from minitransformer.claims.envelope import FEWEST, STRAIGHT, Grid, best_fits, curve_of, foretell, law_of, learning_curve, medians, straight
from minitransformer.claims.plateau import beyond_plateau, plateau_then_power
from minitransformer.errors import UserError
from minitransformer.figures import baidu as figures
from minitransformer.laws.fit import fit
from minitransformer.sweeps.grid import load_spec
from minitransformer.sweeps.store import reference_table

WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96)
DOUBLINGS = tuple(500 * 2**k for k in range(9))
IDS = {one.id: one for one in baidu.DEFINITIONS}


def valley(alpha=3.0, beta=0.2, scale=10.0, beta_p=0.7, curvature=0.02):
    """The best error is alpha m^-beta, at scale m^beta_p parameters; other sizes lie above by a parabola in log N."""
    return lambda m, N: alpha * m**-beta * math.exp(curvature * math.log(N / (scale * m**beta_p)) ** 2)


def table(name="images", law=valley(), noise=0.0, seeds=3, sizes=DOUBLINGS, widths=WIDTHS, **settings):
    """Runs of a domain whose errors are a law of m and N (both counts of parameters are 24 d^2), but for the seeds' noise."""
    one, rows = domain(name), []
    base = replace(load_spec(one.spec).configs("hours")[0], arch=one.arch, **settings)
    for m, width, seed in itertools.product(sizes, widths, range(seeds)):
        draw = np.random.default_rng([seed, int(m), width, len(name), len(settings.get("optimiser", ""))])
        N = 24 * width**2
        error = law(m, N) * math.exp(noise * draw.standard_normal())
        config = replace(base, d_model=width, train_tokens=int(m), seed=seed)
        rows.append({**config.to_dict(), "spec": one.spec, "scale": "hours", "status": "complete", "device": "cpu", "N": N, "N_total": N,
                     "unique_tokens": int(m), "D": 10 * m, "C": 60 * N * m, "C_total": 60 * N * m, "seconds": 1.0, "loss": error,
                     "best_loss": error, "curve_error": [3 * error, error, 2 * error], "curve_error5": [error / 2, error]})
    return pd.DataFrame(rows)


def curve(law, name="images", **options):
    return learning_curve(table(name, law, **options), domain(name))


# --- which runs, and which of them are the best ----------------------------------------------------------------------


def test_a_domain_reads_its_own_runs_and_its_own_error():
    runs = pd.concat([table("speech"), table("speech_ctc", valley(5.0)), table("images")], ignore_index=True)
    runs.loc[0, "status"] = "diverged"
    attention, ctc = DOMAINS["speech"].errors(runs), VARIANTS["speech_ctc"].errors(runs)
    assert len(ctc) == len(table("speech_ctc")) == len(attention) + 1
    assert ctc.error.min() == pytest.approx(table("speech_ctc", valley(5.0)).best_loss.min())
    images = table("images")
    assert VARIANTS["images_top5"].errors(images).error.to_list() == pytest.approx([v / 2 for v in DOMAINS["images"].errors(images).error])
    assert list(ctc.model.unique()) == list(range(len(WIDTHS))) and ctc.groupby("model").N.first().is_monotonic_increasing
    assert not len(DOMAINS["word_lm"].errors(images))
    library = images.assign(train_tokens=0, unique_tokens=10**8, curve_error=[[1e-3]] * len(images))  # ends before it has seen it
    pd.testing.assert_frame_equal(DOMAINS["images"].errors(pd.concat([images, library])), DOMAINS["images"].errors(images))


def test_errors_of_zero_have_no_place_on_log_axes_and_trials_are_no_seeds():
    runs = table(noise=0.01)
    best = best_fits(DOMAINS["images"].errors(runs)).set_index("m").d_model
    for width, gone in ((best[500], {500}), (96, set())):
        nought = (runs.unique_tokens == 500) & (runs.d_model == width) & (runs.seed == 1)
        found = DOMAINS["images"].errors(runs.assign(curve_error=[[0.5, 0.0] if n else c for n, c in zip(nought, runs.curve_error)]))
        assert set(found.m) == set(DOUBLINGS) - gone and not len(found[(found.m == 500) & (found.d_model == width)])
    trials = runs[runs.seed == 0].assign(lr=1.0, curve_error=[[1e-6]] * (len(runs) // 3))
    both = pd.concat([trials, runs], ignore_index=True)
    pd.testing.assert_frame_equal(DOMAINS["images"].errors(both), DOMAINS["images"].errors(runs))


def test_the_best_fit_is_the_lowest_median_not_the_luckiest_seed():
    errors = pd.DataFrame([(100.0, model, seed, error) for model, found in enumerate([(0.5, 0.5, 0.1), (0.4, 0.45, 0.9), (0.6, 0.6, 0.6)])
                           for seed, error in enumerate(found)], columns=["m", "model", "seed", "error"])
    errors = errors.assign(N=errors.model + 1.0, N_total=errors.model + 1.0, n_layer=1, d_model=errors.model)
    (best,) = best_fits(errors).itertuples()
    assert (best.model, best.error, best.seeds, best.sizes, best.edge) == (1, 0.45, 3, 3, "")
    assert best_fits(errors[errors.model > 0]).edge.to_list() == ["smallest"] and best_fits(errors[errors.model < 2]).edge.to_list() == ["largest"]
    assert sorted(curve_of(errors, DOMAINS["images"]).points.error) == [0.4, 0.45, 0.9]


def test_a_set_on_which_only_smaller_models_were_tried_is_not_on_the_curve_of_the_best():
    errors = DOMAINS["images"].errors(table())
    best = best_fits(errors)
    largest = best.m.max()
    rows = best_fits(errors[(errors.m < largest) | (errors.model < best.model.iloc[-2])])
    pd.testing.assert_frame_equal(rows, best[best.m < largest])
    before, after = use.blind(curve_of(errors[(errors.m < largest) | (errors.model < best.model.iloc[-2])], DOMAINS["images"]))
    assert list(np.unique(after.m)) == best.m.iloc[-3:-1].to_list() and before.errors.m.max() == best.m.iloc[-4]
    alone = best_fits(errors[(errors.m < largest) | (errors.model == best.model.iloc[-2])])
    assert alone.m.max() == largest and alone.sizes.iloc[-1] == 1


def test_medians_are_numpys():
    draw = np.random.default_rng(0).standard_normal((5, 4, 3))
    draw[0, 0, 1] = draw[1, 2, :2] = np.nan
    assert np.allclose(medians(draw), np.nanmedian(draw, axis=-1))
    draw[2, 2] = np.nan
    assert np.isnan(medians(draw)[2, 2])


def test_other_draws_of_the_seeds_scatter_as_the_seeds_do():
    grid = Grid.of(DOMAINS["images"].errors(table(noise=0.05, seeds=4)))
    assert grid.log.shape == (len(DOUBLINGS), len(WIDTHS), 4) and np.allclose(grid.N, [24 * d * d for d in WIDTHS])
    assert np.std(grid.seeds(200) - grid.log.mean(-1, keepdims=True)) == pytest.approx(0.05, rel=0.1)
    assert not Grid.of(DOMAINS["images"].errors(table(seeds=1))).repeated and grid.repeated


# --- the region and the law ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOMAINS)
def test_a_power_law_comes_back_in_every_domain(name):
    settings = {"optimiser": "sgd"} if name == "char_lm" else {}
    runs = table(name, valley(beta=0.13, curvature=0.002), noise=0.005, **settings)
    measured = IDS[f"baidu.power_law.{name}"].measure(runs)
    assert measured.low < -0.13 < measured.high and measured.value == pytest.approx(-0.13, abs=0.005)
    assert abs(measured.holdout_error) < 3 and measured.more["sizes"][1] == 9
    assert measured.more["decades"][1] == pytest.approx(math.log10(2**8))
    assert measured.more["beta_g_whole_curve"][1] == measured.value
    claim = IDS[f"baidu.power_law.{name}"].claim(runs)
    assert claim.verdict == (claims.AGREES if measured.low <= papers.value(DOMAINS[name].beta_g) <= measured.high else claims.DIFFERS)
    assert claim.D == [500.0, 128000.0] and claim.seeds == 3
    assert (claim.verdict == claims.DIFFERS) == ("belongs to a data set" in claim.reason)


def test_the_paper_s_own_exponent_agrees():
    claim = IDS["baidu.power_law.images"].claim(table("images", valley(beta=0.309, curvature=0.002), noise=0.02))
    assert (claim.verdict, claim.paper_value) == (claims.AGREES, -0.309)


def test_variants_stand_beside_the_value():
    runs = pd.concat([table("char_lm", valley(beta=0.2), optimiser="sgd"), table("char_lm", valley(beta=0.3), optimiser="adamw")],
                     ignore_index=True)
    more = IDS["baidu.power_law.char_lm"].measure(runs).more
    assert more["beta_g_char_lm_adam"][:2] == (-0.0954, pytest.approx(-0.3, abs=0.01))


def test_the_region_leaves_out_the_plateau_and_the_floor():
    law = lambda m, N: max(min(3.0 * m**-0.4, 3.0 * 1900**-0.4), 3.0 * 70000**-0.4)
    found = curve(law, sizes=tuple(500 * 2**k for k in range(12)))
    assert (found.region.low, found.region.high, found.region.sizes) == (2000.0, 64000.0, 6)
    assert found.beta_g.value == pytest.approx(-0.4) and found.whole.exponent.value < 0.4
    assert len(found.law.excluded.loss) == 6 * 3 * len(WIDTHS) // len(WIDTHS)


def test_a_curve_without_a_straight_piece_is_refused():
    stairs = lambda m, N: 0.5 ** (math.log2(m / 500) // 2)
    bent = curve(stairs)
    assert bent.region is None and not bent.law.ok and bent.holdout_error is None
    measured = baidu.measure_power_law(DOMAINS["images"], table(law=stairs))
    assert measured.value is None and f"no {FEWEST} neighbouring" in measured.refusal
    assert curve(lambda m, N: 0.5).region is None and curve(lambda m, N: m**0.1).region is None
    assert curve(valley(), sizes=DOUBLINGS[: FEWEST - 1]).region is None


def test_a_curve_that_still_bends_away_from_its_plateau_has_the_law_it_bends_into():
    bending_away = lambda m, N: 0.7 / (1 + m / 3000) ** 0.5
    found = curve(bending_away, "translation", noise=0.004, widths=(16,), sizes=[125 * 2**i for i in range(8)])
    assert found.region is None and found.law.form.name == "plateau-power"
    assert found.beta_g.low <= -0.5 <= found.beta_g.high and found.beta_g.high - found.beta_g.low < 0.2
    border = found.law.parameters["D_0"]
    assert border.low <= 3000 <= border.high
    ahead = found.foretold
    assert list(ahead.m) == [8000, 16000] and ((ahead.low < ahead.measured) & (ahead.measured < ahead.high)).all()
    runs = table("translation", bending_away, noise=0.004, widths=(16,), sizes=[125 * 2**i for i in range(8)])
    measured = baidu.measure_power_law(DOMAINS["translation"], runs)
    assert measured.value == pytest.approx(found.beta_g.value) and "plateau" in measured.reason
    assert use.use(found).needed.value is None and abs(use.use(found).error.value) < 10


def test_the_form_of_plateau_and_power_law_is_that_of_three_regions_without_a_floor():
    at = dict(G=0.7, D_0=900.0, alpha_D=0.25)
    m = np.geomspace(50, 5e4, 7)
    assert plateau_then_power().loss(at, D=m) == pytest.approx(0.7 / (1 + m / 900) ** 0.25)
    theta, z, step = np.array([[-0.3, 1.0, 0.4]]), np.linspace(-2, 3, 5)[None], 1e-6
    value, slopes = plateau_then_power().evaluate(theta, z)
    for i in range(3):
        moved = plateau_then_power().evaluate(theta + step * np.eye(3)[i], z)[0]
        assert slopes[:, i] == pytest.approx((moved - value) / step, abs=1e-5)


def test_how_far_from_a_line_is_a_share_of_its_fall():
    """Zigzags of one height are a line where it falls far, and none where it falls little; another unit changes nothing."""
    for beta, height in itertools.product((0.05, 0.4), (0.005, 0.05)):
        m = np.array(DOUBLINGS, float)
        points = pd.DataFrame({"m": m, "error": m**-beta * np.exp(height * (-1.0) ** np.arange(9))})
        whole = height / (beta * math.log(2**8)) < STRAIGHT
        region = straight(points)
        assert (region is not None and region.sizes == 9) == whole, (beta, height)
        again = straight(points.assign(error=7 * points.error, m=3 * points.m))
        assert again == (region and replace(region, low=3 * region.low, high=3 * region.high, off=pytest.approx(region.off)))


def test_no_curve_is_straighter_than_its_seeds_show():
    m = np.array(DOUBLINGS, float)
    zigzag = m**-0.1 * np.exp(0.05 * (-1.0) ** np.arange(9))
    once = pd.DataFrame({"m": m, "error": zigzag})
    noisy = pd.DataFrame({"m": np.repeat(m, 3), "error": np.repeat(zigzag, 3) * np.tile(np.exp([-0.1, 0.0, 0.1]), 9)})
    assert straight(once) is None and straight(noisy).sizes == 9
    bent = m**-0.1 * np.exp(-0.1 * np.log(m / 500) ** 2)
    assert straight(noisy.assign(error=np.repeat(bent, 3))) is None


def test_the_two_largest_sizes_are_foretold_from_the_others():
    points = pd.DataFrame({"m": np.repeat(DOUBLINGS, 2), "error": np.repeat(np.array(DOUBLINGS, float) ** -0.3, 2)})
    points.loc[points.m == DOUBLINGS[-1], "error"] *= 1.1
    found = foretell(points)
    assert found.m.to_list() == list(DOUBLINGS[-2:])
    assert found.error_percent.to_list() == pytest.approx([0, 100 * (1 / 1.1 - 1)], abs=1e-6)
    points.loc[points.m >= DOUBLINGS[-2], "error"] *= 5
    assert foretell(points).predicted.to_list() == pytest.approx(found.predicted.to_list())
    assert not len(foretell(points[points.m <= DOUBLINGS[3]]))
    law = curve(valley(beta=0.3), noise=0.01)
    assert (law.foretold.low < law.foretold.measured).all() and (law.foretold.measured < law.foretold.high).all()
    worst = law.foretold.error_percent.abs().idxmax()
    assert law.holdout_error == law.foretold.error_percent[worst]


def test_the_order_of_the_rows_does_not_matter():
    runs = table(noise=0.02)
    one, two = (IDS["baidu.power_law.images"].measure(r) for r in (runs, runs.sample(frac=1, random_state=0)))
    assert (one.value, one.low, one.high, one.holdout_error) == pytest.approx((two.value, two.low, two.high, two.holdout_error))


# --- three regions -------------------------------------------------------------------------------------------------

SPOKEN = (5, 9, 19, 37, 75, 150, 300, 600, 1199, 2398, 4800)


def spoken(floor=0.02, first=20.0, alpha=1.2):
    return lambda m, N: floor + (0.8 - floor) / (1 + m / first) ** alpha


def test_both_borders_come_back():
    measured = regions.measure_regions(table("speech", spoken(), noise=0.03, sizes=SPOKEN, widths=(8, 16)), ("speech",))
    first, second = 20.0, 20.0 * ((0.78 / 0.02) ** (1 / 1.2) - 1)
    for name, truth in (("first_border", first), ("second_border", second), ("floor", 0.02), ("exponent_between", -1.2)):
        _, value, low, high = measured.more[name]
        assert low < truth < high, name
    assert measured.low < math.log10(second / first) < measured.high and measured.low > 0
    assert measured.more["second_border"][1] == pytest.approx(second, rel=0.25)
    claim = IDS["baidu.regions"].claim(table("speech", spoken(), noise=0.03, sizes=SPOKEN, widths=(8, 16)))
    assert claim.verdict == claims.AGREES and claim.unit == "decades"


@pytest.mark.parametrize("law", [spoken(floor=1e-9), spoken(first=0.05), valley(beta=0.3)], ids=["no floor", "no plateau", "a line"])
def test_a_curve_that_lacks_a_region_is_refused(law):
    measured = regions.measure_regions(table("speech", law, noise=0.03, sizes=SPOKEN, widths=(8, 16)), ("speech",))
    assert measured.value is None and measured.refusal.startswith("speech: ")


def test_the_first_curve_that_shows_all_three_is_taken():
    runs = pd.concat([table("speech", spoken(floor=1e-9), noise=0.03, sizes=SPOKEN, widths=(8,)),
                      table("speech_ctc", spoken(), noise=0.03, sizes=SPOKEN, widths=(8,))], ignore_index=True)
    assert regions.measure_regions(runs).more["floor"][1] == pytest.approx(0.02, rel=0.3)


# --- the growth of the model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta_p", [0.5, 0.8])
def test_the_growth_comes_back_both_ways(beta_p):
    law = valley(scale=24 * 14.0**2 / 500**beta_p, beta_p=beta_p)
    found = growth.growth(DOMAINS["images"].errors(table(law=law, sizes=DOUBLINGS[:6])), DOMAINS["images"])
    assert not found.reason and found.points.inside.all()
    assert found.beta_p.low < beta_p < found.beta_p.high and found.beta_p.value == pytest.approx(beta_p, abs=0.12)
    assert found.by_parabola.value == pytest.approx(beta_p, abs=1e-3)


def test_the_smallest_within_one_per_cent_is_taken():
    errors = DOMAINS["images"].errors(table(law=lambda m, N: {24 * 64: 0.6, 24 * 144: 0.5049, 24 * 256: 0.5}.get(N, 0.5051), sizes=(500,)))
    (point,) = growth.smallest_enough(errors).itertuples()
    assert (point.N, point.best, point.inside) == (24 * 144, 24 * 256, True)


@pytest.mark.parametrize("law, edge", [(lambda m, N: m**-0.2 * N**-0.1, "largest"), (lambda m, N: m**-0.2 * N**0.1, "smallest")])
def test_a_grid_whose_edge_is_best_cannot_tell_the_growth(law, edge):
    found = growth.growth(DOMAINS["images"].errors(table(law=law)), DOMAINS["images"])
    assert found.beta_p.value is None and f"9 {'of 9 training sets the best model is the largest' if edge == 'largest' else 'the smallest'}" in found.reason
    assert set(found.points.edge) == {edge} and found.by_parabola.value is None


def test_one_size_cannot_grow():
    found = growth.growth(DOMAINS["images"].errors(table(widths=(8,))), DOMAINS["images"])
    assert found.beta_p.value is None and found.reason == "one size of model was trained"


def test_sizes_too_far_apart_to_see_growth_are_refused():
    found = growth.growth(DOMAINS["images"].errors(table(law=valley(scale=24 * 16**2 / 500**0.02, beta_p=0.02), widths=(4, 16, 64))), DOMAINS["images"])
    assert found.beta_p.value is None and "too far apart" in found.reason


def test_the_claim_takes_the_first_domain_that_can_tell():
    law = valley(scale=24 * 14.0**2 / 500**0.7)
    runs = pd.concat([table("word_lm", lambda m, N: m**-0.1 * N**-0.1), table("images", law, sizes=DOUBLINGS[:6])], ignore_index=True)
    measured = growth.measure_growth(runs)
    assert measured.more["beta_p_images"][0] == papers.value("hestness2017.image.beta_p") and measured.value == measured.more["beta_p_images"][1]
    assert growth.overlaps(measured) and measured.low < 0.7 < measured.high
    assert not growth.overlaps(claims.Measurement(0.3, 0.2, 0.4)) and not growth.overlaps(claims.Measurement(1.2, 1.0, 1.4))
    assert growth.measure_growth(runs[runs.spec == "words"]).value is None


def test_where_no_grid_of_the_chapter_can_tell_the_transformers_of_four_sizes_do():
    (definition,) = claims.definitions(("baidu.model_growth",))
    assert "overfitting" in definition.specs
    runs = pd.concat([table("word_lm", lambda m, N: m**-0.1 * N**-0.1), reference_table("overfitting").assign(spec="overfitting")])
    measured = growth.measure_growth(runs)
    assert measured.value == measured.more["beta_p_transformer"][1] and definition.agrees(measured, None)
    value, low, high = measured.more["beta_p_transformer_by_parabola"][1:]
    assert 0 < low < value < high < 1


# --- one size ------------------------------------------------------------------------------------------------------


def bending(kappa=0.6, c=20.0):
    """A size follows 2 m^-0.5 up to m = c N^(1/kappa), and stays there from then on."""
    return lambda m, N: 2 * min(m, c * N**kappa) ** -0.5


def test_where_a_size_leaves_the_curve_comes_back():
    errors = DOMAINS["speech"].errors(table("speech", bending(), noise=0.01))
    found = capacity.capacity(errors, DOMAINS["speech"])
    left = found.bends[found.bends.left]
    assert 3 <= len(left) < len(WIDTHS) and left.m.is_monotonic_increasing
    assert found.exponent.low < 0.6 < found.exponent.high and found.exponent.value == pytest.approx(0.6, abs=0.05)
    middle = left.iloc[1]
    assert middle.m == pytest.approx(20 * middle.N**0.6 * (1 + capacity.ABOVE) ** 2, rel=0.25) and middle.low < middle.m < middle.high


def test_leaving_is_for_good_and_never_guessed():
    m = np.array([1.0, 2.0, 4.0, 8.0])
    over = np.log(np.array([[1.0, 1.0, 1.0, 1.0], [2.0, 1.0, 2.0, 2.0], [1.0, 2.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0], [1.0, 1.05, np.nan, 1.4]])).T
    found = capacity.leaving(m, over, 0.1)
    assert np.isnan(found[[0, 2, 3]]).all()  # never leaves; came back; never was near
    assert found[1] == pytest.approx(math.log(2) * (1 + math.log(1.1) / math.log(2)))
    assert found[4] == pytest.approx(math.log(2) + 2 * math.log(2) * math.log(1.1 / 1.05) / math.log(1.4 / 1.05))


def test_capacity_is_refused_where_fewer_than_two_sizes_leave():
    measured = capacity.measure_capacity(table("speech", lambda m, N: m**-0.5, noise=0.01))
    assert measured.value is None and "two are needed" in measured.refusal
    assert "more than one seed" in capacity.measure_capacity(table("speech", bending(), seeds=1)).refusal
    claim = IDS["baidu.capacity"].claim(table("speech_ctc", bending(), noise=0.01))
    assert claim.verdict == claims.AGREES and any(one["name"].startswith("speech_ctc_leaves_at_") for one in claim.more)


def test_single_sizes_have_a_constant_and_the_best_are_flatter():
    law = lambda m, N: 4 * m**-0.5 + 3 * N**-0.35
    runs = table("translation", law, noise=0.003, widths=WIDTHS[::2])
    measured = capacity.measure_bend(runs)
    known = {name.removeprefix("gamma_"): values for name, values in measured.more.items() if name.startswith("gamma_")}
    assert len(known) == 4
    for N, (_, value, low, high) in known.items():
        assert value == pytest.approx(3 * float(N) ** -0.35, rel=0.15)
        assert measured.more[f"single_{N}"][1] == pytest.approx(-0.5, abs=0.1)
    assert measured.low > 0 and IDS["baidu.translation_bend"].agrees(measured, None)
    assert IDS["baidu.translation_bend"].claim(runs).verdict == claims.AGREES
    lines = capacity.measure_bend(table("translation", valley(curvature=1e-6), noise=0.003, widths=WIDTHS[:2]))
    assert lines.value is None or not IDS["baidu.translation_bend"].agrees(lines, None)


# --- optimisers ----------------------------------------------------------------------------------------------------


def pair(adam, sgd, **options):
    return pd.concat([table("char_lm", adam, optimiser="adamw", **options), table("char_lm", sgd, optimiser="sgd", **options)], ignore_index=True)


@pytest.mark.parametrize("turn", [0.0, 0.03])
def test_a_turn_is_told_from_a_shift(turn):
    runs = pair(valley(2.85, 0.2 + turn), valley(3.0, 0.2), noise=0.004)
    measured = optimisers.measure_optimisers(runs)
    assert measured.low < -turn < measured.high
    assert IDS["baidu.optimizer"].claim(runs).verdict == (claims.DIFFERS if turn else claims.AGREES)
    if not turn:
        paper, ratio, low, high = measured.more["error_ratio"]
        assert paper == 0.95 and low < 0.95 < high
    assert measured.more["paper_difference"][0] == pytest.approx(-0.0018)


def test_optimisers_are_compared_where_both_were_trained():
    runs = pair(valley(curvature=1e-3), valley(curvature=1e-3))
    fewer = runs[(runs.optimiser == "sgd") | (runs.d_model == 32)]
    found = optimisers.compare(fewer)
    assert set(found.sgd.errors.d_model) == set(found.adam.errors.d_model) == {32}
    assert found.ratio.value == pytest.approx(1.0) and found.slope.value == pytest.approx(0.0, abs=1e-9)
    assert optimisers.measure_optimisers(runs[runs.optimiser == "sgd"]).value is None


# --- use -----------------------------------------------------------------------------------------------------------


def test_data_for_a_target_and_the_gain_of_a_doubling():
    found = use.use(curve(lambda m, N: 3 * m**-0.25, noise=0.01))
    assert found.gain.low < 100 * (1 - 2**-0.25) < found.gain.high
    m = DOUBLINGS[-1] * use.TARGET ** (-1 / 0.25)
    assert found.needed.low < m < found.needed.high and found.needed.value == pytest.approx(m, rel=0.2)
    assert found.error.low <= found.error.value <= found.error.high and found.decides


@pytest.mark.parametrize("bend", [0, 900])
def test_what_is_gained_at_the_end_of_a_curve_is_what_its_law_says(bend):
    """Also where it still bends away from its plateau, and falls less than its exponent."""
    m = np.repeat([125.0 * 2**i for i in range(8)], 3)
    points = pd.DataFrame({"m": m, "error": 0.7 * (1 + m / bend) ** -0.25 if bend else m**-0.25, "seed": np.tile([0, 1, 2], 8)})
    law = beyond_plateau(points) if bend else law_of(points)
    (now, twice, more), *_ = law.predict(16000 * np.array([1, 2, 1]) + np.array([0, 0, use.data_for_less(law).value]))
    assert use.gain(law).value == pytest.approx(100 * (1 - twice / now), rel=1e-3)
    assert more / now == pytest.approx(0.99, rel=1e-4)


def test_the_worst_forecast_of_all_domains_decides():
    good = pd.concat([table("images", valley(beta=0.3, curvature=0.002), noise=0.01), table("speech", valley(beta=0.5, curvature=0.002), noise=0.01)])
    claim = IDS["baidu.use"].claim(good)
    assert claim.verdict == claims.AGREES and claim.value == abs(claim.holdout_error) < 5 and claim.low <= claim.value <= claim.high
    worse = good.assign(curve_error=[[1.5 * e[1]] if m == DOUBLINGS[-1] and spec == "images" else e
                                     for e, m, spec in zip(good.curve_error, good.unique_tokens, good.spec)])
    claim = IDS["baidu.use"].claim(worse)
    assert claim.verdict == claims.DIFFERS and claim.value == pytest.approx(100 / 3, abs=2) and "images" in claim.reason
    assert learning_curve(worse, DOMAINS["images"]).region.high == DOUBLINGS[-2]  # which is why the region is found without them
    assert use.measure_use(good[good.unique_tokens < 3000]).value is None


def test_a_forecast_that_misses_by_more_than_a_doubling_gains_is_of_no_use():
    m = np.array(DOUBLINGS, float)
    late = np.where(m >= m[-2], 1.05, 1.0)
    points = pd.DataFrame({"m": m, "error": 2 * m**-0.1 * late, "seed": 0, "model": 0, "N": 1.0, "N_total": 1.0, "n_layer": 1, "d_model": 1})
    found = use.use(curve_of(points, DOMAINS["images"]))
    assert found.error.value == pytest.approx(100 * (1 / 1.05 - 1), abs=0.01) and found.gain.value == pytest.approx(6.2, abs=0.5)
    assert found.decides and not replace(found, gain=replace(found.gain, value=4.0)).decides
    assert use.use(curve_of(points[:6], DOMAINS["images"])) is None


def test_departures_are_runs_above_the_band_alone():
    law = curve(valley(3.0, 0.3, curvature=0.002), noise=0.01).law
    m = np.array([1000.0, 4000.0, 16000.0])
    fine = use.departs(law, m, 3 * m**-0.3)
    assert not fine.departs.any() and (fine.above.abs() < 2).all()
    found = use.departs(law, m, 3 * m**-0.3 * np.array([1.0, 1.3, 0.5]))
    assert found.departs.to_list() == [False, True, False]
    assert found.above.to_list() == pytest.approx([0, 30, -50], abs=2)


# --- figures -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything():
    law = valley(scale=24 * 14.0**2 / 500**0.7)
    return pd.concat([
        pair(valley(2.85), valley(3.0), noise=0.004, widths=WIDTHS[:3]), table("word_lm", law, noise=0.004, widths=WIDTHS[:5]),
        table("translation", lambda m, N: 4 * m**-0.5 + 3 * N**-0.35, noise=0.003, widths=WIDTHS[:3]), table("images", law, noise=0.01),
        *(table(name, lambda m, N: max(spoken()(m, N), bending(c=0.2)(m, N) / 2), noise=0.03, sizes=SPOKEN, widths=WIDTHS[:4])
          for name in ("speech", "speech_ctc"))], ignore_index=True)


def test_every_claim_of_the_chapter_has_a_figure(everything):
    assert set(figures.CLAIMS) == set(IDS)
    for name in set(IDS) - {"baidu.power_law.transformer"}:
        figure = figures.CLAIMS[name](everything[everything.spec.isin(IDS[name].specs)])
        shown = [axis for axis in figure.axes if axis.get_visible()]
        assert shown and all(axis.get_xlabel() for axis in shown[-1:]), name
        figure.draw_without_rendering()


def test_a_curve_shows_the_papers_slope_and_what_was_foretold(everything):
    found = learning_curve(everything, DOMAINS["images"])
    (axis,) = figures.curve_figure(found).axes
    words = " ".join(text.get_text() for text in axis.texts)
    assert "Hestness 2017, dashed: \N{MINUS SIGN}0.309" in words and "foretold" in words
    dashed = [line for line in axis.lines if line.get_linestyle() == "--"]
    x, y = (np.log(np.asarray(v, float)) for v in dashed[0].get_data())
    assert np.polyfit(x, y, 1)[0] == pytest.approx(-0.309)


def test_tables_that_cannot_say_are_drawn_or_refused_in_one_line(everything):
    for name in set(IDS) - {"baidu.power_law.transformer"}:
        runs = everything[everything.spec.isin(IDS[name].specs)]
        for some in (runs[:0], runs[(runs.unique_tokens < 3000) & (runs.d_model < 16)]):
            try:
                assert figures.CLAIMS[name](some).axes
            except UserError as refused:
                assert "\n" not in str(refused)
            measured = IDS[name].measure(some)
            assert measured.value is not None or measured.refusal, name


def test_departures_are_drawn_apart(everything):
    found = learning_curve(everything, DOMAINS["images"])
    m = np.array([1000.0, 4000.0])
    departures = use.departs(found.law, m, found.law.predict(m).value * np.array([1.0, 2.0]))
    (axis,) = figures.departure_figure(found, departures, "one bug").axes
    assert any("one bug: 1 of 2 above" in text.get_text() for text in axis.texts)
    assert figures.curves_side_by_side([found]).axes
    with pytest.raises(UserError, match="no learning curves"):
        figures.curves_side_by_side([])
