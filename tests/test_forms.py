"""Every form of a law: its mathematics, its fit, and what is refused."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import binom

from minitransformer.errors import UserError
from minitransformer.laws import FORMS, fit, form, published, read_law
from minitransformer.laws.law import REFUSALS, WARNINGS
from minitransformer.laws.optimise import huber, minimise, starting_points

N, D = np.geomspace(1.5e3, 1e5, 6), np.geomspace(2.5e5, 4e6, 5)
TRUTH = {
    "power": ({"alpha_N": 0.09, "N_c": 1e8}, {"N": N}),
    "power-floor": ({"E": 1.2, "A": 15.0, "alpha_N": 0.35}, {"N": np.geomspace(1e3, 1e6, 9)}),
    "regions": ({"E": 1.0, "G": 3.0, "D_0": 3e3, "alpha_D": 0.5}, {"D": np.geomspace(1e2, 1e7, 16)}),
    "b-crit": ({"alpha_B": 0.21, "B_star": 2e8}, {"L": np.linspace(2, 5, 7)}),
    "kaplan-nd": ({"alpha_N": 0.09, "alpha_D": 0.12, "N_c": 1e8, "D_c": 1e9}, {"N": N, "D": np.geomspace(1e4, 4e6, 6)}),
    "kaplan-ns": ({"alpha_N": 0.09, "alpha_S": 0.7, "N_c": 1e8, "S_c": 200.0}, {"N": N, "S": np.geomspace(250, 8e3, 6)}),
    "chinchilla": ({"E": 1.2, "A": 30.0, "B": 60.0, "alpha": 0.35, "beta": 0.33}, {"N": N, "D": D}),
    "data-constrained": (
        {"E": 1.2, "A": 30.0, "B": 60.0, "alpha": 0.35, "beta": 0.33, "R_star_D": 15.0, "R_star_N": 5.0},
        {"N": np.geomspace(1e4, 1e6, 5), "U": np.geomspace(1e5, 1e6, 3), "epochs": np.array([1.0, 3, 10, 40])},
    ),
}


def grid(name: str, seeds: int = 1) -> tuple:
    """The form, its true parameters, and the inputs of a full grid as flat columns."""
    values, axes = TRUTH[name]
    columns = dict(zip(axes, (np.repeat(a.ravel(), seeds) for a in np.meshgrid(*axes.values(), indexing="ij"))))
    if "epochs" in columns:
        columns["D"] = columns["U"] * columns.pop("epochs")
    made = form(name, next(iter(axes)))
    return made, values, {x: columns[x] for x in made.inputs}


def noisy(name: str, rng: int, seeds: int = 3, noise: float = 0.004, scatter: float = 0.003):
    made, values, columns = grid(name, seeds)
    random = np.random.default_rng(rng)
    points = len(columns[made.x]) // seeds
    log = np.repeat(scatter * random.standard_normal(points), seeds) + noise * random.standard_normal(points * seeds)
    return made, values, columns, made.loss(values, **columns) * np.exp(log)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_says_what_it_is(name):
    made = form(name)
    assert made.name == name and made.equation and made.valid and made.sources
    assert all(p.unit and p.meaning for p in made.parameters)
    assert all(p.name in made.equation or p.name.endswith("_1") for p in made.parameters)
    assert form(name.replace("-", "_")).name == name


def test_unknown_forms_are_named():
    with pytest.raises(UserError, match="chinchilla"):
        form("chinchila")


@pytest.mark.parametrize("name", FORMS)
def test_derivatives(name):
    made, values, columns = grid(name)
    z = np.log(np.stack(list(columns.values())))
    theta = made.internal(values)[None]
    _, jacobian = made.evaluate(theta, z)
    for i in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[0, i] = 1e-6
        difference = (made.evaluate(theta + step, z)[0] - made.evaluate(theta - step, z)[0]) / 2e-6
        assert jacobian[0, i] == pytest.approx(difference[0], abs=1e-7)


@pytest.mark.parametrize("name", FORMS)
def test_reported_and_internal_parameters_are_the_same_law(name):
    made, values, columns = grid(name)
    centre = np.log([x[0] for x in columns.values()])
    if name == "data-constrained":
        centre[2] = centre[1]
    moved = fit(made, made.loss(values, **columns), resamples=50, **columns) if name not in ("power", "b-crit") else None
    reported = made.report(made.internal(values)[None], np.zeros(len(centre)))[0]
    for p, number in zip(made.parameters, reported):
        if p.name in values:
            assert (math.exp(number) if p.log else number) == pytest.approx(values[p.name], rel=1e-9)
    if moved:
        centre = moved.engine.centre
        z = np.log(np.stack(list(columns.values()))) - centre[:, None]
        again = {
            p.name: math.exp(v) if p.log else v for p, v in zip(made.parameters, made.report(moved.engine.theta[None], centre)[0])
        }
        assert np.exp(moved.engine.at(z)) == pytest.approx(made.loss(again, **columns), rel=1e-9)


@pytest.mark.parametrize("name", FORMS)
def test_exact_laws_are_recovered(name):
    made, values, columns = grid(name)
    law = fit(made, made.loss(values, **columns), **columns)
    assert law.status == "ok", law.reason
    for parameter, value in values.items():
        assert law.parameters[parameter].value == pytest.approx(value, rel=1e-4)
    assert np.abs(law.residuals).max() < 1e-6
    h = law.holdout
    assert abs(h.error_percent) < 1e-3 and h.equivalent == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", FORMS)
def test_a_law_survives_its_file(name):
    made, _, columns, loss = noisy(name, rng=1)
    law = fit(made, loss, **columns)
    again = read_law(json.loads(json.dumps(law.to_dict(), allow_nan=False)))
    at = {x: 2 * v.max() for x, v in columns.items()}
    for a, b in zip(law.predict(**at), again.predict(**at)):
        assert a == pytest.approx(b, rel=1e-9)
    assert law.predict(**at).warning == again.predict(**at).warning != ""
    assert {k: str(v) for k, v in law.parameters.items()} == {k: str(v) for k, v in again.parameters.items()}


@pytest.mark.parametrize("name", [n for n in FORMS if n not in ("power", "b-crit")])
def test_intervals_hold_the_truth(name):
    """Loose: benchmarks/coverage.py measures it with more sweeps and more resamples."""
    laws = []
    for rng in range(40):
        made, values, columns, loss = noisy(name, rng)
        laws.append(fit(made, loss, resamples=200, **columns))
    assert all(law.ok for law in laws)
    least = binom.ppf(0.0005, 40, 0.93)
    for parameter, value in values.items():
        held = [law.parameters[parameter] for law in laws]
        assert sum(e.low <= value <= e.high for e in held) >= least, parameter
        assert np.median([e.high - e.low for e in held]) < 3 * value


def test_the_fit_is_the_minimum_that_scipy_finds():
    made, values, columns, loss = noisy("chinchilla", rng=5)
    law = fit(made, loss, **columns)
    z, y = law.engine.z, law.engine.means
    objective = lambda theta: float(huber(made.evaluate(theta[None], z)[0][0] - y, 1e-3))
    start = made.internal(values)
    start[1:3] -= start[3:] * law.engine.centre
    best = minimize(objective, start, method="Nelder-Mead", options={"maxiter": 40_000, "maxfev": 40_000, "xatol": 1e-9, "fatol": 1e-14})
    assert law.objective <= best.fun * (1 + 1e-6)


def test_one_wild_run_hardly_moves_a_robust_fit():
    made, values, columns, loss = noisy("chinchilla", rng=2, seeds=1)
    spoiled = loss.copy()
    spoiled[7] *= 1.5
    robust = [fit(made, y, **columns).parameters["alpha"].value for y in (loss, spoiled)]
    squares = [fit(made, y, delta=math.inf, **columns).parameters["alpha"].value for y in (loss, spoiled)]
    assert abs(robust[1] - robust[0]) < 0.25 * abs(squares[1] - squares[0])


def test_members_of_a_batch_do_not_disturb_one_another():
    made, _, columns, loss = noisy("chinchilla", rng=3, seeds=1)
    z = np.log(np.stack(list(columns.values())))
    z -= z.mean(1, keepdims=True)
    starts = np.vstack([starting_points(made, z, np.log(loss)), np.full((1, 5), np.nan), np.zeros((1, 5))])
    together = minimise(made, z, np.log(loss), starts)
    for i in range(len(starts)):
        alone = minimise(made, z, np.log(loss), starts[i : i + 1])
        assert alone.theta[0] == pytest.approx(together.theta[i], rel=1e-8, abs=1e-10, nan_ok=True)
    assert not together.converged[-2]
    assert together.objective[0] == pytest.approx(min(together.objective[np.isfinite(together.objective)]), rel=1e-6)


def test_rows_units_and_repeats():
    made, _, columns, loss = noisy("chinchilla", rng=4)
    law = fit(made, loss, **columns)
    turned = fit(made, loss[::-1], **{k: v[::-1] for k, v in columns.items()})
    assert turned.to_dict() == law.to_dict()
    millions = fit(made, loss, N=columns["N"] / 1e6, D=columns["D"] / 1e6)
    assert millions.parameters["alpha"].value == pytest.approx(law.parameters["alpha"].value, rel=1e-5)
    assert millions.parameters["E"].high == pytest.approx(law.parameters["E"].high, rel=1e-4)


# --- what is refused, and what is said ---------------------------------------------------------------------------


def test_one_ratio_is_refused():
    made, values, _ = grid("chinchilla")
    n = np.geomspace(1e6, 1e9, 12)
    for d in (20 * n, 20 * n * (1 + 0.01 * np.sin(np.arange(12))), n**0.74):
        law = fit(made, made.loss(values, N=n, D=d), N=n, D=d)
        assert law.status == "one_ratio" and not law.parameters and law.to_dict()["curve"] is None
        with pytest.raises(UserError, match="cannot be told apart"):
            law.predict(N=1e6, D=1e7)


def test_fewer_points_than_parameters_and_two():
    made, values, columns = grid("chinchilla")
    rows = [0, 4, 9, 13, 21, 29]
    few = {k: v[rows] for k, v in columns.items()}
    law = fit(made, made.loss(values, **few), **few)
    assert law.status == "too_few_points" and "7 distinct (N, D) points" in law.reason


def test_a_column_that_does_not_vary_is_refused():
    made, values, columns = grid("chinchilla")
    same = {**columns, "D": np.full(30, 1e6)}
    assert fit(made, made.loss(values, **columns), **same).status == "range_too_narrow"


def test_a_loss_that_ignores_an_input_is_refused():
    _, _, columns = grid("kaplan-nd")
    random = np.random.default_rng(0)
    law = fit("kaplan-nd", (1e8 / columns["N"]) ** 0.09 * np.exp(0.003 * random.standard_normal(36)), **columns)
    assert law.status in ("exponent_at_bound", "not_identified") or law.parameters["alpha_D"].value is law.parameters["D_c"].value is None


def test_no_floor_in_the_data():
    """A pure power law: the floor's interval holds zero, and says so."""
    x = np.geomspace(1e3, 1e6, 10)
    seen = set()
    for rng in range(12):
        loss = (1e8 / x) ** 0.09 * np.exp(0.002 * np.random.default_rng(rng).standard_normal(10))
        law = fit("power-floor", loss, N=x)
        seen.add(law.status)
        if law.status == "at_bound":
            assert "no_floor_seen" in law.warnings
            E = law.parameters["E"]
            assert E.value == E.low == 0 and 0 < E.high < loss.min()
        elif law.ok:
            assert "floor_not_reached" in law.warnings or law.parameters["E"].low > 0
    assert "at_bound" in seen


def test_the_limit_of_an_unseen_floor_is_one_the_data_set():
    """Nine tiny real runs that a floor of 1 nat fits as well as none: the limit may not lie below it."""
    n, d = np.repeat([1536, 3456, 6144], 3), np.tile([20480, 40960, 81920], 3)
    loss = np.array([3.035876, 2.806485, 2.555798, 2.964412, 2.650811, 2.480900, 2.856807, 2.584166, 2.448518])
    law = fit("chinchilla", loss, N=n, D=d)
    assert law.status == "not_identified" or law.parameters["E"].high > 1


@pytest.mark.parametrize("name", ["power", "chinchilla"])
def test_the_interval_of_a_prediction_is_that_of_one_run(name):
    """Three seeds behind each point of the fit, one run to predict."""
    inside = []
    for rng in range(150):
        made, values, columns, loss = noisy(name, rng, noise=0.01, scatter=0.002)
        at = {x: float(np.median(v)) for x, v in columns.items()}
        p = fit(made, loss, resamples=200, **columns).predict(**at)
        random = np.random.default_rng(10**6 + rng)
        single = made.loss(values, **at) * np.exp(0.002 * random.standard_normal() + 0.01 * random.standard_normal())
        inside.append(p.low <= single <= p.high)
    low, high = binom.ppf([0.001, 0.999], 150, [0.92, 0.985])
    assert low <= sum(inside) <= high


def test_no_power_law_between_plateau_and_floor():
    made, values, columns = grid("regions")
    law = fit(made, made.loss({**values, "E": 5.0, "G": 6.0}, **columns), **columns)
    assert law.parameters["D_0"].value == pytest.approx(values["D_0"], rel=1e-3)
    assert law.parameters["D_1"].value is None and "not_all_identified" in law.warnings


def test_repeats_need_repeats():
    made, values, columns = grid("data-constrained")
    once = {**columns, "U": columns["D"]}
    assert fit(made, made.loss(values, **once), **once).status == "no_repeats"


def test_points_of_one_curve_hang_together():
    """Five points of one training share its luck: taken for independent, they promise too much."""
    made, values, columns = grid("kaplan-ns")
    held = {True: 0, False: 0}
    runs = columns["N"]
    for rng in range(60):
        random = np.random.default_rng(rng)
        luck = dict(zip(np.unique(runs), 0.01 * random.standard_normal(6)))
        loss = made.loss(values, **columns) * np.exp([luck[n] for n in runs] + 0.0005 * random.standard_normal(36))
        for grouped in held:
            alpha = fit(made, loss, group=runs if grouped else None, resamples=300, **columns).parameters["alpha_N"]
            held[grouped] += alpha.low <= values["alpha_N"] <= alpha.high
    assert held[True] > held[False] and held[True] >= 48


def test_every_warning_and_refusal_reads_as_a_sentence():
    for text in [*REFUSALS.values(), *WARNINGS.values()]:
        words = text.format(x="N and D", any="N or D", points="(N, D) points", need=7, title="power law", mixed="sotu, fiction")
        assert "{" not in words and not words.endswith(".")


def test_arguments_that_make_no_sense():
    made, values, columns = grid("chinchilla")
    loss = made.loss(values, **columns)
    for wrong in ({"N": columns["N"]}, {**columns, "S": columns["N"]}, {}):
        with pytest.raises(UserError, match="N and D"):
            fit("chinchilla", loss, **wrong)
    with pytest.raises(UserError, match="delta"):
        fit("chinchilla", loss, delta=0, **columns)
    law = fit("chinchilla", loss, resamples=50, **columns)
    for call in (lambda: law.predict(N=1e6), lambda: law.predict(1e6), lambda: law.predict(N=1e6, D=-1), lambda: law.predict(N="x", D=1)):
        with pytest.raises(UserError):
            call()


def test_what_is_no_loss_is_not_told_in_nats():
    L = np.linspace(2, 5, 7)
    batches, losses = fit("b-crit", 2e8 / L ** (1 / 0.21), L=L), fit("power", 4 * L**-0.1, N=L)
    assert batches.holdout and "nats" not in batches.summary() and "compute" not in batches.summary()
    assert "nats" in losses.summary()


def test_a_line_without_a_slope_has_no_exponent_and_says_so():
    law = fit("b-crit", [1.0, 1.0, 1.0, 1.0], L=[1.0, 2.0, 3.0, 4.0])
    assert law.ok and law.exponent.value is None and "alpha_B is not identified." in law.summary()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(FORMS)),
    rows=st.integers(0, 40),
    data=st.data(),
)
def test_no_table_breaks_a_fit(name, rows, data):
    """Any numbers at all: a law with finite parameters and strict JSON, or a refusal with a reason."""
    made = form(name)
    number = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.floats(1e-3, 1e6), st.sampled_from([1.0, 10.0, 100.0]))
    columns = {x: data.draw(st.lists(number, min_size=rows, max_size=rows)) for x in made.inputs}
    loss = data.draw(st.lists(number, min_size=rows, max_size=rows))
    law = fit(name, loss, resamples=50, **columns)
    json.dumps(law.to_dict(), allow_nan=False)
    assert law.ok or law.reason
    assert law.summary()


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from([n for n in FORMS if n not in ("power", "b-crit")]), rng=st.integers(0, 10**6), size=st.integers(5, 30), decades=st.floats(0.01, 8))
def test_random_tables_are_fitted_or_refused(name, rng, size, decades):
    made = form(name)
    random = np.random.default_rng(rng)
    columns = {x: 10 ** (2 + decades * random.random(size)) for x in made.inputs}
    law = fit(name, np.exp(random.standard_normal(size)), resamples=50, **columns)
    json.dumps(law.to_dict(), allow_nan=False)
    if law.ok:
        assert all(e.value is None or (math.isfinite(e.value) and e.low <= e.value <= e.high) for e in law.parameters.values())
        law.predict(**{x: 1e5 for x in made.inputs})


# --- laws from papers and files ----------------------------------------------------------------------------------


def test_published_laws_predict_without_an_interval():
    value, low, high = published("chinchilla").predict(N=7e10, D=1.4e12)
    assert value == pytest.approx(1.937, abs=1e-3) and low is None and high is None
    with pytest.raises(UserError, match="kaplan-nd"):
        published("kaplan")


@pytest.mark.parametrize(
    "broken",
    ["{", "[]", "{}", '{"law": "power"}', '{"law": "nonsense", "parameters": {}}', '{"law": "chinchilla", "parameters": {"E": 1}}',
     '{"law": "power", "status": "too_few_points", "reason": "few", "parameters": {}}',
     '{"law": "power", "x": "N", "parameters": {"alpha_N": {"value": null, "low": null, "high": null}, "N_c": {"value": 1, "low": 1, "high": 1}}}',
     '{"law": "power", "x": "N", "parameters": {}, "curve": {"theta": [1], "centre": [0], "covariance": [[1]], "sigma": 1, "q_band": 1, "q_new": 1}}'],
)  # fmt: skip
def test_a_file_that_is_no_law_is_one_clear_line(tmp_path, broken):
    path = tmp_path / "law.json"
    path.write_text(broken)
    with pytest.raises(UserError) as caught:
        read_law(path)
    assert "\n" not in str(caught.value)
