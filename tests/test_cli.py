"""The command line as a user meets it: one clear line for every mistake, stable JSON, help that teaches."""

import json
import subprocess
import sys

import pandas as pd
import pytest


def run(*arguments, **environment):
    import os
    return subprocess.run([sys.executable, "-m", "minitransformer.cli", *arguments], capture_output=True, text=True,
                          env={**os.environ, **environment}, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("arguments", [
    ["bogus"], ["sweep"], ["sweep", "nope"], ["sweep", "ladder", "--scale", "huge"], ["replicate", "--only", "kaplan.x"],
    ["replicate", "--workers", "0"], ["data", "get", "nope"], ["sweep", "ladder", "--export", "runs.txt"],
    ["claims", "--only", "nope"], ["sweep", "ladder", "--scale", "smoke", "--device", "quantum"]])
def test_a_mistake_is_one_line_and_status_2(arguments, tmp_path):
    result = run(*arguments, MINITRANSFORMER_STORE=str(tmp_path / "runs"))
    assert result.returncode == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("minitransformer: ") and len(line) > 30


@pytest.mark.parametrize("arguments", [[], ["--help"], ["replicate", "--help"], ["sweep", "--help"], ["claims", "--help"],
                                       ["data", "--help"], ["data", "list", "--help"], ["data", "get", "--help"]])
def test_help_teaches(arguments):
    result = run(*arguments)
    assert result.returncode == 0 and "Usage" in result.stdout and len(result.stdout) > 150


def test_a_dry_run_trains_nothing(tmp_path):
    result = run("sweep", "ladder", "--scale", "laptop", "--dry-run", "--store", str(tmp_path))
    assert result.returncode == 0
    assert "15 runs to train" in result.stdout and "FLOPs" in result.stdout and "minutes" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_replicate_prints_the_claims_it_measured_and_resumes(tmp_path):
    first = run("replicate", "--scale", "smoke", "--store", str(tmp_path / "runs"), "--only", "kaplan.L_N", "--json")
    assert first.returncode == 0, first.stderr
    (claim,) = json.loads(first.stdout)
    assert {"id", "statement", "paper_value", "value", "low", "high", "unit", "holdout_error", "verdict", "reason", "notebook",
            "scale", "device", "n_runs", "seeds", "N", "D", "C", "losses", "seconds"} <= set(claim)
    assert "trained 8 runs" in first.stderr
    second = run("replicate", "--scale", "smoke", "--store", str(tmp_path / "runs"), "--only", "kaplan.L_N", "--json")
    assert "trained 0 runs; 8 were already" in second.stderr and second.stdout == first.stdout


def test_export_writes_a_table_anyone_can_read(tmp_path):
    table = tmp_path / "out" / "ladder.csv"
    result = run("sweep", "ladder", "--scale", "smoke", "--store", str(tmp_path / "runs"), "--export", str(table))
    assert result.returncode == 0, result.stderr
    assert {"N", "D", "C", "loss", "seed", "status"} <= set(pd.read_csv(table).columns)


def test_claims_check_passes_on_what_is_committed():
    result = run("claims", "--check")
    assert result.returncode == 0 and "no drift" in result.stdout, result.stderr


def test_data_list_names_every_corpus():
    assert {row["name"] for row in json.loads(run("data", "list", "--json").stdout)} >= {"sotu", "fiction"}
