"""The command line as a user meets it: one clear line for every mistake, stable JSON, help that teaches."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from minitransformer import claims, cli
from minitransformer.laws.named import NAMES, kit_law
from minitransformer.laws import FORMS, fit, form, plan, published, read_law
from minitransformer.laws.diagnose import STAGES
from minitransformer.sweeps.grid import load_spec
from minitransformer.sweeps.store import reference_table
from terminal import command as here


def process(*arguments):
    return subprocess.run([sys.executable, "-m", "minitransformer.cli", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)


def one_line_and_status_2(result):
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("minitransformer: ") and len(line) > 30


@pytest.mark.parametrize("arguments", [
    ["bogus"], ["sweep"], ["sweep", "nope"], ["sweep", "ladder", "--scale", "huge"], ["replicate", "--only", "kaplan.x"],
    ["replicate", "--workers", "0"], ["data", "get", "nope"], ["sweep", "ladder", "--export", "runs.txt"],
    ["claims", "--only", "nope"], ["sweep", "ladder", "--scale", "smoke", "--device", "quantum"], ["fit", "nope.csv", "--law", "power"]])
def test_a_mistake_is_one_line_and_status_2(arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("MINITRANSFORMER_STORE", str(tmp_path / "runs"))
    one_line_and_status_2(here(*arguments))


@pytest.mark.parametrize("arguments", [["bogus"], ["sweep", "nope"], ["fit", "nope.csv", "--law", "power"], ["sweep", "ladder", "--scale", "smoke", "--device", "quantum"]])
def test_a_mistake_in_a_process_of_its_own(arguments):
    one_line_and_status_2(process(*arguments))


@pytest.mark.parametrize("arguments", [[], ["--help"], ["replicate", "--help"], ["sweep", "--help"], ["claims", "--help"],
                                       ["data", "--help"], ["data", "list", "--help"], ["data", "get", "--help"], ["fit", "--help"],
                                       ["plan", "--help"], ["diagnose", "--help"], ["design", "--help"], ["grade", "--help"], ["capstone", "--help"],
                                       ["capstone", "accounts", "--help"], ["capstone", "serve", "--help"], ["capstone", "marks", "--help"]])
def test_help_teaches(arguments):
    result = here(*arguments)
    assert result.returncode == 0 and "Usage" in result.stdout and len(result.stdout) > 150


def test_help_in_a_process_of_its_own_cuts_no_sentence():
    result = process("--help")
    assert result.returncode == 0 and result.stderr == ""
    commands = result.stdout.partition("Commands:")[2]
    assert "replicate" in commands and "design" in commands and "..." not in commands


def test_a_dry_run_trains_nothing(tmp_path):
    result = here("sweep", "ladder", "--scale", "laptop", "--dry-run", "--store", str(tmp_path))
    assert result.returncode == 0
    assert "15 runs to train" in result.stdout and "FLOPs" in result.stdout and "minutes" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_replicate_prints_the_claims_it_measured_and_resumes(tmp_path):
    first = process("replicate", "--scale", "smoke", "--store", str(tmp_path / "runs"), "--only", "kaplan.L_N", "--json")
    assert first.returncode == 0, first.stderr
    (claim,) = json.loads(first.stdout)
    assert {"id", "statement", "paper_value", "value", "low", "high", "unit", "holdout_error", "verdict", "reason", "notebook",
            "scale", "device", "n_runs", "seeds", "N", "D", "C", "losses", "seconds", "flops", "more"} <= set(claim)
    assert "trained 8 runs" in first.stderr
    second = here("replicate", "--scale", "smoke", "--store", str(tmp_path / "runs"), "--only", "kaplan.L_N", "--json")
    assert "trained 0 runs; 8 were already" in second.stderr and second.stdout == first.stdout


def test_replicate_measures_the_tour_unless_claims_are_named(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "_train", lambda configs, *rest: asked.append(set(configs)))
    monkeypatch.setattr(claims, "live", lambda store, scale, only: asked.append(only) or [])

    def measured(*arguments):
        asked.clear()
        result = here("replicate", *arguments, "--store", str(tmp_path / "runs"))
        assert result.returncode == 0, result.stderr
        trained, ids = asked
        chosen = claims.definitions(ids)
        assert trained == {config for d in chosen for name in d.specs for config in load_spec(name).configs("smoke")}
        return set(ids)

    tour = {d.id for d in claims.tour()}
    assert measured("--scale", "smoke") == tour == {"kaplan.L_N", "baidu.power_law.transformer"} | tour
    every = {d.id for d in claims.DEFINITIONS}
    assert tour < every
    assert measured("--scale", "smoke", "--only", "kaplan") == {name for name in every if name.startswith("kaplan.")}
    assert measured("--scale", "smoke", "--only", "kaplan.L_N", "--only", "baidu") == {"kaplan.L_N"} | {name for name in every if name.startswith("baidu.")}


def test_a_claim_in_words(monkeypatch):
    claim = claims.Claim(
        id="kaplan.L_ND", statement="Size and data in one law", paper="kaplan2020, eq. 1.5", paper_value=0.76, value=0.7, low=0.65, high=0.75, unit="",
        holdout_error=None, verdict="differs", reason="Small models.", notebook="notebooks/overfitting.ipynb", scale="hours", device="cpu", n_runs=44,
        seeds=1, N=[1.0, 2.0], D=[1.0, 2.0], C=[1.0, 2.0], seconds=7200.0, flops=3.2e14,
        more=[{"name": "D_c", "paper_value": 1.8e13, "value": 23456789.0, "low": 2e7, "high": 3e7},
              {"name": "rms %", "paper_value": None, "value": 0.8, "low": None, "high": None},
              {"name": "alpha_D", "paper_value": 0.103, "value": None, "low": None, "high": None}],
        losses=[{"N": float(n), "n_layer": 2, "loss": 2.0, "runs": 1} for n in range(3)])
    monkeypatch.setattr(claims, "committed", lambda only: [claim, dataclasses.replace(claim, holdout_error=-1.5, more=[])])
    first, second, _ = here("claims").stdout.split("\n\n")
    assert first.splitlines() == [
        "kaplan.L_ND  (hours, 44 runs, 3.2e+14 FLOPs in 7200 s of training)", "  Size and data in one law",
        "  paper 0.76   ours 0.7 [0.65, 0.75]   differs", "  Small models.",
        "    D_c: 2.346e+07 [2.000e+07, 3.000e+07]   (paper 1.8e+13)", "    rms %: 0.8", "    alpha_D: -   (paper 0.103)"]
    assert "off by -1.5 %\n  loss at N = 0: 2.000, N = 1: 2.000" in second


def test_export_writes_a_table_anyone_can_read(tmp_path):
    table = tmp_path / "out" / "ladder.csv"
    result = here("sweep", "ladder", "--scale", "smoke", "--store", str(tmp_path / "runs"), "--export", str(table))
    assert result.returncode == 0, result.stderr
    assert {"N", "D", "C", "loss", "seed", "status"} <= set(pd.read_csv(table).columns)


def test_claims_check_passes_on_what_is_committed():
    result = here("claims", "--check")
    assert result.returncode == 0 and "no drift" in result.stdout, result.stderr
    one = here("claims", "--check", "--only", "kaplan.shape")
    assert one.returncode == 0 and one.stdout.startswith("1 claim rebuilt"), one.stderr


def test_data_list_names_every_corpus():
    assert {row["name"] for row in json.loads(here("data", "list", "--json").stdout)} >= {"sotu", "fiction", "sentences"}


# --- laws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [
    ["fit", "nope.csv"], ["plan"], ["plan", "--compute", "0"], ["plan", "--compute", "1e999"],
    ["plan", "--params", "7Q"], ["plan", "--compute", "1e20", "--law", "nope.json"], ["plan", "--compute", "1e20", "--law", "kaplan-n"],
    ["plan", "--params", "1e200"], ["plan", "--tokens", "1T", "--law", "muennighoff", "--unique-tokens", "1B"], ["plan", "--tokens", "1", "--law", "besiroglu"], ["plan", "--steps", "10"],
    ["diagnose", "nope.csv", "--params", "1M"], ["diagnose", "nope.csv"], ["diagnose", "nope.csv", "--params", "none"],
    ["design", "--minutes", "-1"], ["design", "--minutes", "ten"], ["design", "--minutes", "5", "--spec", "grid.csv"],
    ["design", "--minutes", "5", "--goal", "nope"], ["design", "--minutes", "5", "--law", "nope"]])
def test_a_mistake_with_laws_is_one_line_and_status_2(arguments):
    one_line_and_status_2(here(*arguments))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "runs.csv"
    reference_table("budgets").to_csv(path, index=False)
    return path


def test_a_reader_who_stops_reading_loses_no_law(runs, tmp_path):
    """As `minitransformer fit ... --out law.json | head -1`, with the pipe closed before anything is read."""
    read, write = os.pipe()
    os.close(read)
    law = tmp_path / "law.json"
    subprocess.run([sys.executable, "-m", "minitransformer.cli", "fit", runs, "--law", "chinchilla", "--out", law], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert read_law(law).ok


def test_help_names_every_law_and_shows_examples():
    text = here("fit", "--help").stdout
    assert not [name for name in FORMS if name not in text]
    for command in ("fit", "plan", "diagnose", "design"):
        assert here(command, "--help").stdout.count(f"  minitransformer {command} ") >= 2


def test_a_fit_goes_into_a_file_that_plans(runs, tmp_path):
    file = tmp_path / "law.json"
    result = here("fit", str(runs), "--law", "chinchilla", "--out", str(file), "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    table = reference_table("budgets")
    law = fit("chinchilla", table.loss, N=table.N, D=table.D, seed=table.seed)
    assert {"law", "status", "warnings", "notes", "n_points", "objective", "parameters", "range", "holdout"} <= set(answer)
    assert answer == json.loads(file.read_text()) == law.to_dict()
    planned = json.loads(here("plan", "--params", "50k", "--tokens", "2M", "--law", str(file), "--json").stdout)
    assert planned["prediction"]["value"] == pytest.approx(law.predict(N=5e4, D=2e6).value)
    assert planned["prediction"]["low"] == pytest.approx(law.predict(N=5e4, D=2e6).low) and planned["allocations"] == []


def test_a_fit_in_words(runs):
    refused = here("fit", str(runs), "--law", "power", "--x", "C")
    one_line_and_status_2(refused)
    (condition,) = re.findall(r"--where (N=\S+)", refused.stderr)
    result = here("fit", str(runs), "--law", "power", "--x", "C", "--where", condition, "--drop-highest", "2")
    assert result.returncode == 0 and result.stderr == ""
    for piece in ("Power law: L(C)", "alpha_C ", "95 % interval", "FLOPs", "Hold-out", "nats", "as if trained with", "times its compute", "2 highest of 15", "Next: ", "--compute"):
        assert piece in result.stdout
    assert max(map(len, result.stdout.splitlines())) < 200


@pytest.mark.parametrize("law", [["power", "--x", "C", "--where", "d_model=64"], ["kaplan-ns"]])
def test_the_next_step_that_a_fit_names_works(runs, tmp_path, law):
    file = tmp_path / "law.json"
    said = here("fit", str(runs), "--law", *law, "--out", str(file)).stdout
    (command,) = re.findall(r"`minitransformer (plan .*)`", said)
    assert here(*command.split()).returncode == 0


def test_a_refused_fit_has_a_status_in_json_and_writes_no_law(runs, tmp_path):
    file = tmp_path / "law.json"
    result = here("fit", str(runs), "--law", "data-constrained", "--json", "--out", str(file))
    assert result.returncode == 2 and json.loads(result.stdout)["status"] == "no_repeats" and not file.exists()
    (line,) = result.stderr.splitlines()
    assert "no_repeats" in line and "many epochs" in line


def test_a_budget_is_split_as_in_python():
    answer = json.loads(here("plan", "--compute", "1e21", "--law", "besiroglu", "--json").stdout)
    ours, kaplan = answer["allocations"]
    assert ours == plan.allocate(published("besiroglu"), 1e21).to_dict()
    assert kaplan == plan.kaplan_rules(1e21).to_dict() and answer["prediction"] is None
    words = here("plan", "--compute", "1e21", "--law", "besiroglu").stdout
    assert "by Kaplan's rules" in words and "tokens per parameter" in words and "Warning: Kaplan's rules" in words


@pytest.mark.parametrize("law, more", [("besiroglu", ()), ("kaplan-nd", ()), ("kaplan-ns", ("--batch", "500k")), ("muennighoff", ("--unique-tokens", "1T"))])
@pytest.mark.parametrize("option, key, value", [("--params", "N", "7B"), ("--tokens", "D", "300B")])
def test_a_size_gets_the_budget_it_is_best_for(law, more, option, key, value):
    ours, kaplan = json.loads(here("plan", option, value, "--law", law, *more, "--json").stdout)["allocations"]
    names = {"--batch": "batch", "--unique-tokens": "unique"}
    again = plan.allocate(published(law), ours["C"], **{names[more[0]]: {"500k": 5e5, "1T": 1e12}[more[1]]} if more else {})
    assert ours[key] == {"7B": 7e9, "300B": 3e11}[value] == kaplan[key]
    assert getattr(again, key) == pytest.approx(ours[key], rel=1e-6)
    assert getattr(plan.kaplan_rules(kaplan["C"]), key) == pytest.approx(kaplan[key], rel=1e-6)


def test_without_a_law_the_kit_plans_by_its_own_and_says_so():
    result = here("plan", "--compute", "1e12")
    assert result.returncode == 0 and "the kit's own law" in result.stdout
    assert all(text in result.stdout for text in kit_law().warning_texts())
    answer = json.loads(here("plan", "--compute", "1e12", "--law", "kit", "--json").stdout)
    assert answer["allocations"][0]["loss"] == pytest.approx(plan.allocate(kit_law(), 1e12).loss)


def test_what_is_no_law_is_said_in_one_line(curve, tmp_path):
    (tmp_path / "other.json").write_text('{"a": 1}')
    for law, words in ((curve, "not a law but some other file"), (str(tmp_path / "other.json"), "is not a law: give what"),
                       ("power.json", "there is no file 'power.json'"), ("power", "no law is called 'power'")):
        result = here("plan", "--compute", "1e20", "--law", law)
        one_line_and_status_2(result)
        assert words in result.stderr and "--json" not in result.stderr and "char 0" not in result.stderr


def test_help_names_every_published_law():
    for command in ("plan", "diagnose", "design"):
        words = re.findall(r"[\w-]+", re.sub(r"-\s*│?\s+", "-", here(command, "--help").stdout.replace("│", " ")))
        assert set(NAMES) <= set(words)


def test_a_plan_far_from_the_runs_behind_the_law_opens_with_that():
    far = here("plan", "--compute", "1e21").stdout
    assert far.index("DO NOT PLAN A TRAINING BY THIS: N = ") < far.index("size N") and "times the largest of its runs" in far
    for more in (("--params", "7B", "--tokens", "1T"), ("--params", "50k", "--compute", "1e15")):
        assert "DO NOT PLAN" in here("plan", *more).stdout
    for near in (("--compute", "1e11"), ("--params", "50k", "--tokens", "2M"), ("--compute", "1e21", "--law", "besiroglu")):
        assert "DO NOT PLAN" not in here("plan", *near).stdout


@pytest.mark.parametrize("more, marked", [((), 2), (("--batch", "500k"), 1)])
def test_compute_of_small_batches_is_marked(more, marked):
    (row,) = [line for line in here("plan", "--compute", "1e21", "--law", "kaplan-ns", *more).stdout.splitlines() if line.startswith("compute")]
    assert row.count("(C_min)") == marked


@pytest.fixture
def curve(tmp_path):
    step = np.geomspace(100, 10_000, 40).round()
    noise = np.exp(0.003 * np.random.default_rng(0).standard_normal(40))
    table = pd.DataFrame({"step": step, "val_loss": (1.2 + 12 * step**-0.5) * noise, "train_loss": 1.15 + 12 * step**-0.5})
    table.to_csv(tmp_path / "curve.csv", index=False)
    return str(tmp_path / "curve.csv")


def test_a_curve_is_diagnosed(curve):
    answer = json.loads(here("diagnose", curve, "--params", "1M", "--planned-steps", "20k", "--json").stdout)
    assert answer["stage"] in STAGES and answer["advice"] and answer["expected_end"]["value"] == pytest.approx(1.2 + 12 * 20_000**-0.5, rel=0.03)
    words = here("diagnose", curve, "--params", "1M", "--planned-steps", "20k")
    assert words.returncode == 0 and words.stderr == "" and answer["stage"] in words.stdout and "Advice" in words.stdout


def test_a_diverged_curve_is_diagnosed_too(curve):
    table = pd.read_csv(curve)
    table.loc[35:, "val_loss"] = np.nan
    table.loc[30:, "train_loss"] = np.inf
    table.to_csv(curve, index=False)
    result = here("diagnose", curve, "--params", "1M", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout, parse_constant=pytest.fail)["stage"] == "diverging"


def test_a_law_of_the_family_diagnoses(curve, tmp_path):
    N, S = (v.ravel() for v in np.meshgrid(np.geomspace(1e5, 1e7, 5), np.geomspace(1e3, 1e5, 5)))
    loss = form("kaplan-ns").loss({"alpha_N": 0.1, "alpha_S": 0.6, "N_c": 1e7, "S_c": 1e2}, N=N, S=S)
    pd.DataFrame({"N": N, "S": S, "loss": loss}).to_csv(tmp_path / "family.csv", index=False)
    law = tmp_path / "law.json"
    assert here("fit", str(tmp_path / "family.csv"), "--law", "kaplan-ns", "--out", str(law)).returncode == 0
    answer = json.loads(here("diagnose", curve, "--params", "1M", "--law", str(law), "--planned-steps", "20k", "--json").stdout)
    assert answer["expected_end"]["value"] == pytest.approx(read_law(law).predict(N=1e6, S=2e4).value, rel=0.2)


def test_diagnose_names_its_options_as_they_are_typed(curve):
    for more, option in ((("--law", "kit"), "--tokens-per-step"), (("--planned-steps", "10"), "--planned-steps")):
        result = here("diagnose", curve, "--params", "1M", *more)
        one_line_and_status_2(result)
        assert option in result.stderr and option[2:].replace("-", "_") not in result.stderr


def test_a_fit_upset_by_an_outlier_is_told_what_to_try(tmp_path, monkeypatch):
    from minitransformer.laws import table
    from minitransformer.laws.law import REFUSALS, Law
    monkeypatch.setattr(table, "fit_table", lambda *_, **__: Law(form("chinchilla"), "not_identified", REFUSALS["not_identified"]))
    result = here("fit", "any.csv", "--law", "chinchilla")
    one_line_and_status_2(result)
    assert "--drop-highest" in result.stderr


def test_design_is_handed_what_was_asked(monkeypatch, tmp_path, capsys):
    from minitransformer import cli
    from minitransformer.laws import design

    class Found:
        spec = "title = 'a sweep'\n"

        def to_dict(self):
            return {"runs": 12}

    asked = []
    monkeypatch.setattr(design, "design", lambda *arguments: asked.append(arguments) or Found())
    monkeypatch.setattr(sys, "argv", ["minitransformer", "design", "--minutes", "2.5", "--goal", "power", "--law", "kit", "--workers", "2",
                                      "--spec", str(tmp_path / "grid.toml"), "--json"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0 and json.loads(capsys.readouterr().out) == {"runs": 12}
    assert asked == [(2.5, kit_law(), "cpu", 2, "power")] and (tmp_path / "grid.toml").read_text() == Found.spec
