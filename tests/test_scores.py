"""`tools/scores.py`: the best fits are trained again, scored once, and an entry stands for one place on the curve."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from minitransformer.data import examples
from minitransformer.data.sources import SOURCES
from minitransformer.sweeps.execute import sweep
from minitransformer.sweeps.grid import Spec, load_spec
from minitransformer.sweeps.store import RunStore, run_table
from minitransformer.training.config import RunConfig
from small_examples import morse, numbers

ROOT = Path(__file__).resolve().parent.parent
found = importlib.util.spec_from_file_location("scores", ROOT / "tools" / "scores.py")
tool = importlib.util.module_from_spec(found)
sys.modules["scores"] = tool
found.loader.exec_module(tool)

SMALL = {"numbers": numbers(), "morse": morse()}
BASE = {"n_layer": 1, "batch_size": 16, "steps": 30, "lr": 0.02, "warmup_steps": 3, "schedule": "constant", "eval_every": 10, "eval_tokens": 100}
SIZES = {"train_tokens": [8, 40], "seed": [0, 1], "d_model": [2, 8]}
MADE = {
    "translation": Spec("translation", "", {**BASE, "corpus": "numbers", "arch": "seq2seq"}, {}, {"smoke": SIZES}),
    "speech": Spec("speech", "", {**BASE, "corpus": "morse", "average": 0.2}, {}, {"smoke": {
        "train_tokens": [40], "points": [{"arch": "seq2seq", "d_model": 4}, {"arch": "ctc", "d_model": 4}]}}),
}


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        for name, data in SMALL.items():
            patch.setitem(SOURCES, name, dataclasses.replace(SOURCES["sotu"], name=name, domain=data.domain))
        real = examples.load_examples
        for place in (examples, tool):
            patch.setattr(place, "load_examples", lambda corpus: SMALL.get(corpus) or real(corpus))
        patch.setattr(tool, "load_spec", MADE.__getitem__)
        yield patch


@pytest.fixture(scope="module")
def store(patched, tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("runs"))
    sweep([config for spec in MADE.values() for config in spec.configs("smoke")], store, workers=1, quiet=True)
    return store


@pytest.fixture
def out(tmp_path):
    return tmp_path / "scores.json"


def call(store, out, *more: str) -> int:
    return tool.main(["--store", str(store.path), "--scale", "smoke", "--workers", "1", "--out", str(out), *more])


def lowest(store, config: RunConfig) -> float:
    return min(store.get(config).curve["error"])


def test_of_each_size_the_width_whose_median_error_is_lowest(store):
    chosen = tool.choose(("translation",), str(store.path), "smoke")
    wanted = {}
    for size in SIZES["train_tokens"]:
        runs = [config for config in MADE["translation"].configs("smoke") if config.train_tokens == size]
        width = min(SIZES["d_model"], key=lambda width: np.median([lowest(store, config) for config in runs if config.d_model == width]))
        wanted[size] = next(config for config in runs if config.d_model == width and config.seed == 0)
    assert {one.config.train_tokens: one.config for one in chosen} == wanted
    assert [one.config.train_tokens for one in tool.choose(("translation",), str(store.path), "smoke", largest=8)] == [8]
    assert all(one.curve == {name: store.get(one.config).curve[name] for name in one.curve} and "error" in one.curve for one in chosen)


def test_speech_has_a_best_fit_with_attention_and_one_with_ctc(store):
    assert {one.config.arch for one in tool.choose(("speech",), str(store.path), "smoke")} == {"seq2seq", "ctc"}


def test_a_committed_table_gives_what_the_store_gives(store, patched, tmp_path, monkeypatch):
    def table(name: str) -> pd.DataFrame:
        path = tmp_path / f"{name}.parquet"
        run_table(store.runs(MADE[name].configs("smoke"))).to_parquet(path)
        return pd.read_parquet(path)

    monkeypatch.setattr(tool, "reference_table", table)
    assert tool.choose(tool.SPECS) == tool.choose(tool.SPECS, str(store.path), "smoke")


def test_a_size_whose_runs_are_not_all_there_waits(store, tmp_path):
    part = RunStore(tmp_path / "part")
    for run in store.runs(MADE["translation"].configs("smoke")):
        if (run.config.train_tokens, run.config.d_model, run.config.seed) != (40, 2, 1):
            part.add(run)
    assert [one.config.train_tokens for one in tool.choose(("translation",), str(part.path), "smoke")] == [8]
    assert tool.choose(("speech",), str(part.path), "smoke") == []


def test_a_size_whose_rate_is_still_sought_waits(store, tmp_path, monkeypatch):
    """Of two widths one has all its trials and its run, the other only a trial."""
    plain = {**MADE["translation"].scales["smoke"], "train_tokens": [8], "seed": [0]}
    tuning = dataclasses.replace(MADE["translation"], tune={"lr": [0.5, 1.0, 2.0]}, scales={"smoke": plain})
    monkeypatch.setattr(tool, "load_spec", lambda name: tuning)
    part = RunStore(tmp_path / "part")
    for width in (2, 8):
        for configs in dataclasses.replace(tuning, scales={"smoke": {**plain, "d_model": [width]}}).rounds("smoke", part):
            sweep(configs[:1] if width == 8 else configs, part, workers=1, quiet=True)
            if width == 8:
                break
    assert len(tuning.final("smoke", part)) == 1 and tool.choose(("translation",), str(part.path), "smoke") == []
    for configs in tuning.rounds("smoke", part):
        sweep(configs, part, workers=1, quiet=True)
    (one,) = tool.choose(("translation",), str(part.path), "smoke")
    assert one.config in tuning.final("smoke", part)


def test_every_best_fit_gets_its_scores_once(store, out, monkeypatch, capsys):
    assert call(store, out, "--largest", "8") == 0 and len(tool.read(out)) == 1
    first = out.read_text(encoding="utf-8")
    assert call(store, out) == 0
    kept = json.loads(out.read_text(encoding="utf-8"))
    assert [(one["spec"], one["arch"], one["train_tokens"]) for one in kept.values()] == [
        ("speech", "ctc", 40), ("speech", "seq2seq", 40), ("translation", "seq2seq", 8), ("translation", "seq2seq", 40)]
    assert json.loads(first).items() <= kept.items()
    runs = {run.config.id: run for spec in MADE.values() for run in store.runs(spec.configs("smoke"))}
    for name, entry in kept.items():
        run = runs[name]
        assert entry["repeated"] and (entry["step"], entry["d_model"], entry["seed"]) == (run.best_step, run.config.d_model, 0)
        assert entry["error"] == run.curve["error"][run.curve["step"].index(run.best_step)]
        assert entry["examples"] == 40 and {one["row"] for one in entry["samples"]} == {6, 20, 33}
        assert ("bleu" in entry and "chrf" in entry) == (entry["spec"] == "translation") == ("cer" not in entry)
        assert all(set(one) == {"row", "input", "said", "reference"} and one["reference"] and one["input"] for one in entry["samples"])
    monkeypatch.setattr(tool, "scored", lambda one: pytest.fail("trained again"))
    capsys.readouterr()
    assert call(store, out) == 0 and capsys.readouterr().out == "4 best fits, 4 scored already\n"


def test_an_entry_takes_the_place_of_another_width(store, out):
    (one,) = tool.choose(("translation",), str(store.path), "smoke", largest=8)
    entry = {"spec": "translation", "corpus": "numbers", "arch": "seq2seq", "train_tokens": 8}
    out.write_text(json.dumps({"older": entry, "larger": {**entry, "train_tokens": 40}, "elsewhere": {**entry, "corpus": "tatoeba"}}))
    tool.write(out, one, {**entry, "new": True})
    assert set(tool.read(out)) == {one.config.id, "larger", "elsewhere"}


def test_a_curve_that_is_another_is_noticed(store):
    (one,) = tool.choose(("translation",), str(store.path), "smoke", largest=8)
    other = dataclasses.replace(one, curve={**one.curve, "val_loss": [1e-9 + loss for loss in one.curve["val_loss"]]})
    entry = tool.scored(other)
    assert entry["repeated"] is False and "not the same curve" in tool.line(entry)


def test_what_fails_does_not_stop_the_others(store, out, monkeypatch, capsys):
    real = tool.scored

    def sometimes(one):
        if one.config.train_tokens == 8:
            raise tool.UserError("this one fails")
        return real(one)

    monkeypatch.setattr(tool, "scored", sometimes)
    assert call(store, out, "--spec", "translation") == 1
    assert [one["train_tokens"] for one in tool.read(out).values()] == [40] and "this one fails" in capsys.readouterr().err


def test_without_a_table_one_line_says_what_to_do(patched, out, monkeypatch, capsys):
    monkeypatch.setattr(tool, "reference_table", lambda name: None)
    assert tool.main(["--out", str(out)]) == 1 and not out.exists()
    assert capsys.readouterr().err == "the spec translation has no committed table of runs: name a store of runs with --store\n"


def test_from_the_command_line_over_two_processes_on_the_real_dictionary(tmp_path):
    configs = [config for config in load_spec("translation").configs("smoke") if config.train_tokens in (64, 128)]
    store, out = RunStore(tmp_path / "runs"), tmp_path / "scores.json"
    sweep(configs, store, workers=1, quiet=True)
    command = [sys.executable, str(ROOT / "tools" / "scores.py"), "--spec", "translation", "--store", str(store.path), "--scale", "smoke", "--workers", "2"]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept = json.loads(out.read_text(encoding="utf-8"))
    assert [one["train_tokens"] for one in kept.values()] == [64, 128] and all(one["repeated"] and one["examples"] == 1000 for one in kept.values())
