"""The line that a notebook begins with: what it finds, what it chooses, and where runs are kept from there on."""

import json
import os
import re
import sys
import types
from pathlib import Path

import pytest

from minitransformer import notebook
from minitransformer.errors import UserError
from minitransformer.notebook import start
from minitransformer.sweeps import execute
from minitransformer.sweeps.grid import load_spec
from minitransformer.sweeps.store import RunStore, default_store

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """Without any choice made beforehand, and with all of the environment as it was afterwards."""
    for name in ("SCALE", "STORE", "DEVICE", "QUIET"):
        monkeypatch.setenv(f"MINITRANSFORMER_{name}", "")  # so that what `start` sets is undone
        monkeypatch.delenv(f"MINITRANSFORMER_{name}")
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    monkeypatch.chdir(tmp_path)


def with_card(monkeypatch, name="", memory=0):
    import torch

    found = types.SimpleNamespace(name=name, total_memory=memory * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(name))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda card: found)


@pytest.mark.parametrize("card, options, scale, device, said", [
    (("", 0), {}, "laptop", "cpu", 'No GPU. Scale laptop: minutes on two processor cores; it trains on the processor. Another scale: start("smoke").'),
    (("Tesla T4", 15), {}, "laptop", "cpu", "Tesla T4 with 16 GB. Scale laptop"),
    (("Tesla T4", 15), {"scale": "gpu"}, "gpu", "cuda", "Scale gpu: minutes to an hour on one large card; it trains here."),
    (("NVIDIA H100", 80), {}, "gpu", "cuda", "NVIDIA H100 with 86 GB. Scale gpu"),
    (("NVIDIA H100", 80), {"gpu": False}, "laptop", "cpu", "the gpu scale is for cards of 40 GB"),
    (("NVIDIA H100", 80), {"scale": "smoke"}, "smoke", "cpu", "Scale smoke: seconds, and numbers that mean nothing"),
    (("", 0), {"scale": "gpu"}, "gpu", "cpu", "it trains on the processor, for days."),
    (("NVIDIA A100-SXM4-40GB", 39.56), {}, "gpu", "cuda", "with 42 GB"),
])
def test_the_scale_follows_from_the_machine_unless_one_is_named(card, options, scale, device, said, monkeypatch, capsys):
    with_card(monkeypatch, *card)
    assert start(**options) == scale and os.environ["MINITRANSFORMER_DEVICE"] == device
    printed = capsys.readouterr().out
    assert said in printed and printed.endswith(f"Runs are kept in {Path('runs').resolve()}.\n")
    assert f'start("{scale}")' not in printed


def test_the_environment_names_a_scale_and_may_ask_for_silence(monkeypatch, capsys):
    with_card(monkeypatch, "NVIDIA H100", 80)
    monkeypatch.setenv("MINITRANSFORMER_SCALE", "smoke")
    monkeypatch.setenv("MINITRANSFORMER_QUIET", "1")
    assert start() == "smoke" and start("laptop") == "laptop"
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="there is no scale 'hour'; use smoke, laptop, hours or gpu"):
        start("hour")


def test_a_sweep_trains_where_start_said(monkeypatch, tmp_path):
    with_card(monkeypatch, "NVIDIA H100", 80)
    asked = []
    monkeypatch.setattr(execute, "plan", lambda configs, store, device, workers: asked.append(device) or 1 / 0)
    for scale, device, given in (("gpu", "cuda", {}), ("laptop", "cpu", {}), ("gpu", "cpu", {"device": "cpu"})):
        start(scale)
        with pytest.raises(ZeroDivisionError):
            execute.sweep(load_spec("ladder").configs("smoke"), RunStore(tmp_path), **given)
        assert asked[-1] == device


def test_runs_are_kept_where_the_reader_says(tmp_path, capsys):
    start("smoke", runs=tmp_path / "a" / "mine")
    assert default_store() == str(tmp_path / "a" / "mine") and (tmp_path / "a" / "mine").is_dir()
    with pytest.raises(UserError, match="names no folder"):
        start("smoke", runs="")
    start("smoke", runs="memory://runs")
    assert default_store() == "memory://runs" and capsys.readouterr().out.endswith("Runs are kept in memory://runs.\n")


def test_in_colab_it_says_what_a_disconnect_costs_and_mounts_the_drive(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    start()
    assert "Colab deletes them when it disconnects; start(runs=" in capsys.readouterr().out
    drive = tmp_path / "drive"
    monkeypatch.setattr(notebook, "DRIVE", str(drive))
    with pytest.raises(UserError, match="this is not Colab"):
        start(runs=drive / "MyDrive" / "runs")
    assert not drive.exists()
    colab = types.SimpleNamespace(drive=types.SimpleNamespace(mount=lambda where: Path(where, "MyDrive").mkdir(parents=True)))
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    start(runs=drive / "MyDrive" / "runs")
    assert (drive / "MyDrive" / "runs").is_dir() and "disconnects" not in capsys.readouterr().out
    colab.drive.mount = None
    start(runs=drive / "MyDrive" / "others")  # mounted already


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.rglob("*.ipynb")), ids=lambda path: path.stem)
def test_every_notebook_that_trains_begins_with_it(path):
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    code = "\n".join(cells)
    assert "MINITRANSFORMER_SCALE" not in code and ("sweep(" not in code or code.count("SCALE = start(") == 1)
    if "SCALE = start()" in code:  # may choose the gpu scale by itself
        assert all("gpu" in load_spec(name).scales for name in set(re.findall(r'load_spec\("(\w+)"\)', code)))
