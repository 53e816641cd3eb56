"""Claims: measured from tables alone, refused when a table cannot say, and accepted numbers do not drift."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest

from minitransformer import claims
from minitransformer.claims.definition import losses_of
from minitransformer.errors import UserError
from minitransformer.figures import claim_figure
from minitransformer.sweeps import execute
from minitransformer.sweeps.grid import load_spec
from minitransformer.sweeps.spent import spent
from minitransformer.sweeps.store import RunStore, reference_table
from minitransformer.sweeps.tune import rows

IDS = [definition.id for definition in claims.DEFINITIONS]


def shapes(count, noise=0.001):
    """A made-up ladder whose loss is an exact function of one count of N, but for seed noise."""
    draw = np.random.default_rng(0)
    rows = []
    for n_layer in (1, 2, 4):
        for d in (16, 24, 32, 48, 64):
            N, total = 12 * n_layer * d * d, 12 * n_layer * d * d + 3000 * d
            x = {"N": N, "N_total": total}[count]
            rows.append({"n_layer": n_layer, "d_model": d, "N": N, "N_total": total, "status": "complete", "seed": 0,
                         "loss": 5 * x**-0.09 * np.exp(noise * draw.standard_normal())})
    return pd.DataFrame(rows)


def test_tightening_recognises_which_count_makes_one_trend():
    without, with_ = claims.tightening(shapes("N")), claims.tightening(shapes("N_total"))
    assert without.low > 2 and with_.high < 0.5
    assert without.low < without.value < without.high


def test_too_few_shapes_are_refused():
    measured = claims.tightening(shapes("N").query("d_model < 24"))
    assert measured.value is None and "six shapes" in measured.refusal


def test_every_claim_is_measured_from_committed_runs():
    measured = {claim.id: claim for claim in claims.committed()}
    assert list(measured) == [d.id for d in claims.DEFINITIONS if all(reference_table(name) is not None for name in d.specs)]
    assert {"kaplan.L_N", "baidu.power_law.transformer"} <= set(measured) and len(set(IDS)) == len(IDS)
    for claim in measured.values():
        if claim.verdict == claims.NOT_REACHABLE:
            assert claim.reason
            continue
        assert claim.low <= claim.value <= claim.high and claim.low < claim.high
        assert set(claim.scale.split(", ")) <= {"laptop", "hours", "gpu"} and claim.n_runs >= 8 and claim.seconds > 0 and claim.flops > 0
        assert claim.verdict in (claims.AGREES, claims.DIFFERS)
        assert (claim.reason == "") == (claim.verdict == claims.AGREES)


def test_the_committed_ladder_falls_with_every_size():
    table = reference_table("ladder")
    means = table.groupby("N").loss.mean()
    assert means.is_monotonic_decreasing and len(means) >= 5
    assert (table.groupby("N").seed.nunique().iloc[:-2] == 3).all() and (table.status == "complete").all()


def test_committed_tables_are_the_specs():
    """The tables hold exactly the runs that the specs describe: an edited spec needs new runs."""
    for path in sorted((claims.resources.files("minitransformer") / "reference").iterdir()):
        if path.name.endswith(".parquet"):
            table = pd.read_parquet(path)
            (scale,) = set(table.scale)
            configs = load_spec(path.name[: -len(".parquet")]).configs(scale, rows(table))
            assert set(table.id) == {c.id for c in configs}, path.name


def test_no_drift_and_drift_is_noticed(monkeypatch):
    measured = claims.committed()
    assert claims.drift(measured) == []
    moved = [dataclasses.replace(measured[0], value=measured[0].value * 1.001), *measured[1:]]
    (line,) = claims.drift(moved)
    assert measured[0].id in line and "value" in line
    assert any("no longer measured" in line for line in claims.drift(measured[1:]))


def test_diverged_runs_are_counted_but_never_fitted():
    table = reference_table("ladder")
    longest = claims.longest(table)
    broken = table.copy()
    broken.loc[longest.index[0], ["status", "loss"]] = ["diverged", None]
    assert claims.size_law(table).n_runs == len(longest) and claims.size_law(broken).n_runs == len(longest) - 1
    (definition,) = claims.definitions(("kaplan.L_N",))
    assert definition.claim(broken).n_runs == len(table)


def test_smoke_runs_make_no_verdict(tmp_path):
    store = RunStore(tmp_path)
    execute.sweep(load_spec("ladder").configs("smoke"), store)
    found = {claim.id: claim for claim in claims.live(tmp_path)}
    assert set(found) == {d.id for d in claims.DEFINITIONS if d.specs == ("ladder",)}
    assert {(claim.scale, claim.verdict) for claim in found.values()} == {("smoke", claims.NOT_REACHABLE)}
    assert json.loads(json.dumps(found["kaplan.L_N"].to_dict(), allow_nan=False))["losses"]
    assert claims.live(tmp_path / "nowhere") == []
    assert claim_figure("kaplan.L_N", tmp_path).axes
    with pytest.raises(UserError, match="no runs behind"):
        claim_figure("kaplan.embedding", tmp_path)


@pytest.mark.parametrize("claim_id", IDS)
def test_every_claim_has_its_figure(claim_id):
    """Or says in one line why there is none: no table, or one that cannot say."""
    measured = claims.committed((claim_id,))
    try:
        figure = claim_figure(claim_id)
    except UserError as refused:
        assert "\n" not in str(refused) and (not measured or measured[0].verdict == claims.NOT_REACHABLE)
        return
    assert figure.axes and any(axis.get_xlabel() for axis in figure.axes) and any(axis.get_ylabel() for axis in figure.axes)


def test_claims_are_chosen_by_name_or_family():
    assert {d.id for d in claims.definitions(("kaplan",))} == {name for name in IDS if name.startswith("kaplan.")} > {"kaplan.L_N"}
    assert [d.id for d in claims.definitions(("kaplan.L_N", "baidu"))] == ["kaplan.L_N", *(name for name in IDS if name.startswith("baidu."))]
    with pytest.raises(UserError, match="there are"):
        claims.definitions(("kaplan.L",))


# --- what a claim says besides its number --------------------------------------------------------------------------


def test_losses_are_means_over_seeds_of_the_longest_common_training():
    runs = reference_table("budgets")
    assert runs.groupby("d_model").steps.nunique().min() > 1
    found = losses_of(runs, "N", "loss")
    last = runs[runs.steps == 8000].groupby("N").loss.mean()
    assert [point["N"] for point in found] == sorted(last.index) and [point["loss"] for point in found] == pytest.approx(last.to_list(), abs=1e-5)
    assert {point["runs"] for point in found} == {3}
    shorter = runs[~((runs.d_model == 64) & (runs.steps == 8000))]  # the largest ends at 4000 steps, and so do all that are compared
    assert losses_of(shorter, "N", "loss")[0]["loss"] == pytest.approx(runs[(runs.steps == 4000) & (runs.d_model == 8)].loss.mean(), abs=1e-5)
    assert losses_of(reference_table("learning_rates"), "N", "loss") == [] == losses_of(runs[:0], "N", "loss")


def test_a_table_without_runs_or_without_a_common_length_is_refused():
    table = reference_table("ladder")
    assert not claims.size_law(table[:0]).ok
    apart = table.assign(steps=table.N)
    assert not claims.size_law(apart).ok and losses_of(apart, "N", "loss") == []


def test_what_is_no_number_is_none_in_json_and_a_claims_flops_count_a_trunk_once(monkeypatch):
    (definition,) = claims.definitions(("kaplan.L_N",))
    measured = claims.Measurement(0.1, -math.inf, 0.2, holdout_error=math.nan, more={"x": (None, np.float64(2.0), math.nan, math.inf)})
    claim = dataclasses.replace(definition, measure=lambda runs: measured).claim(reference_table("budgets"))
    assert (claim.low, claim.high, claim.holdout_error) == (None, 0.2, None)
    assert claim.more == [{"name": "x", "paper_value": None, "value": 2.0, "low": None, "high": None}]
    assert json.loads(json.dumps(claim.to_dict(), allow_nan=False))["more"] == claim.more
    table = reference_table("budgets")
    assert claim.flops == spent(table).training < 0.7 * table.C_total.sum()


def test_drift_compares_numbers_within_lists(monkeypatch, tmp_path):
    (accepted,) = [c for c in claims.committed(("baidu.power_law.transformer",))]
    accepted = dataclasses.replace(accepted, more=[{"name": "x", "paper_value": None, "value": 0.5, "low": None, "high": None}])
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "claims.json").write_text(json.dumps([accepted.to_dict()]))
    monkeypatch.setattr(claims.resources, "files", lambda name: tmp_path)

    def moved(factor, **change):
        more = [{**accepted.more[0], "value": 0.5 * factor, **change}]
        losses = [{**point, "loss": point["loss"] * factor} for point in accepted.losses]
        return claims.drift([dataclasses.replace(accepted, more=more, losses=losses, N=[n * factor for n in accepted.N])])

    assert moved(1.0) == moved(1 + 1e-9) == []
    assert [line.split()[1] for line in moved(1 + 1e-4)] == ["N", "more", "losses"]
    assert len(moved(1.0, low=0.1)) == len(moved(1.0, name="y")) == len(moved(1.0, another=1)) == 1
