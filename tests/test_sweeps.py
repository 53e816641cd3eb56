"""Sweeps: a spec is a fixed list of runs, a finished run is never trained again, whatever is killed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from minitransformer import accounting, files
from minitransformer.errors import UserError
from minitransformer.sweeps import execute, timing
from minitransformer.sweeps.grid import SCALES, SPECS, load_spec
from minitransformer.sweeps.store import RunStore, run_table
from minitransformer.training.config import RunConfig
from minitransformer.training.loop import train
from terminal import command

SPEC = """
title = "two shapes"
[base]
corpus = "{corpus}"
n_layer = 1
n_ctx = 16
batch_size = 4
steps = {steps}
eval_tokens = 1600
warmup_steps = 5
[rules]
lr = {{value = 0.02, of = "d_model", at = 8, power = -1}}
n_head = {{value = 1, of = "d_model", at = 16, power = 1}}
[scales.smoke]
d_model = [8, 16]
seed = [0, 1]
"""


@pytest.fixture
def spec(tmp_path, small_text):
    path = tmp_path / "two.toml"
    path.write_text(SPEC.format(corpus=small_text, steps=20))
    return path


def test_a_spec_is_a_fixed_list_of_configs(spec):
    configs = load_spec(spec).configs("smoke")
    assert [(c.d_model, c.seed, c.n_head, c.lr) for c in configs] == [
        (8, 0, 1, 0.02), (8, 1, 1, 0.02), (16, 0, 1, 0.01), (16, 1, 1, 0.01)]
    assert configs == load_spec(spec).configs("smoke")
    assert len(configs[0].corpus_sha256) == 64


def test_points_go_together_and_rules_yield(tmp_path):
    path = tmp_path / "points.toml"
    path.write_text("""
[base]
lr = 0.5
[rules]
lr = {value = 1.0, of = "d_model", at = 8, power = 0}
[scales.smoke]
points = [{n_layer = 1, d_model = 32}, {n_layer = 2, d_model = 16, lr = 0.25}, {n_layer = 3, d_model = [8, 64], seed = [4, 6]}]
seed = [4, 5]
""")
    configs = load_spec(path).configs("smoke")
    assert [(c.n_layer, c.d_model, c.lr, c.seed) for c in configs] == [
        (1, 32, 1.0, 4), (1, 32, 1.0, 5), (2, 16, 0.25, 4), (2, 16, 0.25, 5), *((3, d, 1.0, s) for s in (4, 6) for d in (8, 64))]


@pytest.mark.parametrize("text, word", [
    ("title = ", "TOML"), ("[scale.smoke]\n", "scale"), ("title = 'x'", "scales"),
    ("[scales.smoke]\nd_model = [8]\n[rules]\nlr = {value = 1}", "rule"), ("[scales.smoke]\nwidth = 8", "width"),
    ("[scales.smoke]\nn_ctxx = 8", "unknown setting 'n_ctxx'; did you mean 'n_ctx'"), ("[scales.smoke]\nseed = []", r"seed = \[\] in \[scales.smoke\]"),
    ("[scales.smoke]\npoints = []", "points"), ("[scales.smoke]\npoints = [{seed = []}]", "seed")])
def test_a_broken_spec_is_one_clear_line(tmp_path, text, word):
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=word):
        load_spec(path).configs("smoke")


def test_specs_of_the_kit_expand_at_every_scale():
    for path in SPECS.glob("*.toml"):
        spec = load_spec(path.stem)
        assert {"smoke", "laptop"} <= set(spec.scales) <= set(SCALES)
        for scale in spec.scales:
            configs = spec.configs(scale)
            assert len({c.id for c in configs}) == len(configs) > 0


def test_scales_rise():
    """From a store the book takes the largest scale whose runs are all there."""
    assert SCALES == ("smoke", "laptop", "hours", "gpu")
    for path in SPECS.glob("*.toml"):
        spec = load_spec(path.stem)
        costs = [sum(c.steps * c.tokens_per_step * c.n_layer * c.d_model**2 for c in spec.configs(scale)) for scale in SCALES if scale in spec.scales]
        assert costs == sorted(costs), path.stem


def test_the_laptop_ladder_is_what_the_book_says():
    configs = load_spec("ladder").configs("laptop")
    sizes = {12 * c.n_layer * c.d_model**2 for c in configs}
    assert len(sizes) >= 5 and max(sizes) >= 100 * min(sizes)
    assert len({c.seed for c in configs}) == 3
    data = sorted({c.train_tokens for c in load_spec("learning_curve").configs("laptop")})
    assert all(b == 2 * a for a, b in zip(data, data[1:])) and data[-1] >= 100 * data[0]


# --- the store ---------------------------------------------------------------------------------------------------


@pytest.fixture
def one(small_text):
    config = RunConfig(corpus=small_text, n_layer=1, d_model=8, n_head=1, n_ctx=16, batch_size=4, steps=20,
                       eval_tokens=1600)
    return next(train([config]))


def test_a_run_survives_the_store_unchanged(tmp_path, one):
    store = RunStore(tmp_path / "deep" / "runs")
    assert one.config not in store
    store.add(one)
    assert store.get(one.config) == one
    assert sorted(p.name for p in store.path.iterdir()) == [f"{one.config.id}.json"]


def test_a_damaged_file_counts_as_absent(tmp_path, one):
    store = RunStore(tmp_path)
    store.add(one)
    file = tmp_path / f"{one.config.id}.json"
    file.write_text(file.read_text()[:100])
    assert one.config not in store


def test_a_store_that_cannot_be_written_is_one_clear_line(tmp_path, one):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot keep runs"):
        RunStore(blocked / "runs").check()


def test_a_store_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, spec, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(timing, "estimate", lambda *_: pytest.fail("measured"))
    done = command("sweep", spec, "--scale", "smoke", "--store", tmp_path / "file" / "runs")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "cannot keep runs in" in done.stderr


def test_a_read_only_store_that_has_every_run_is_enough(tmp_path, spec, monkeypatch):
    configs, store = load_spec(spec).configs("smoke"), RunStore(tmp_path / "runs")
    execute.sweep(configs, store, workers=1)

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(Path, "touch", refused)
    assert command("sweep", spec, "--scale", "smoke", "--store", store.path).returncode == 0
    more = spec.with_name("more.toml")
    more.write_text(spec.read_text().replace("seed = [0, 1]", "seed = [0, 1, 2]"))
    done = command("sweep", more, "--scale", "smoke", "--store", store.path)
    assert done.returncode == 2 and "cannot keep runs in" in done.stderr and "training" not in done.stderr


def test_who_only_asks_makes_no_store(tmp_path, spec):
    there = tmp_path / "runs"
    status = command("sweep", spec, "--scale", "smoke", "--store", there, "--status")
    assert status.returncode == 2 and status.stderr.startswith(f"minitransformer: no store at {there}: ")
    assert command("sweep", spec, "--scale", "smoke", "--store", there, "--dry-run").returncode == 0
    assert command("sweep", spec, "--scale", "smoke", "--store", there, "--device", "quantum").returncode == 2
    if not torch.cuda.is_available():
        assert command("sweep", spec, "--scale", "smoke", "--store", there, "--device", "cuda").returncode == 2
    assert not there.exists()


def test_a_table_has_every_count_and_the_curve(one):
    table = run_table([one], "smoke")
    row = table.iloc[0]
    assert row.N == 12 * 64 and row.N_total == sum(one.parameters.values())
    assert row.C == 6 * row.N * row.D and row.scale == "smoke"
    assert list(row.curve_val_loss) == one.curve["val_loss"] and row.loss == one.final_loss


# --- sweeps ------------------------------------------------------------------------------------------------------


def test_a_sweep_trains_each_run_once_and_resumes(tmp_path, spec):
    configs, store = load_spec(spec).configs("smoke"), RunStore(tmp_path / "runs")
    first = execute.sweep(configs[:3], store, workers=2)
    assert (first.missing, first.finished) == (3, 0)
    written = {c.id: (store.path / f"{c.id}.json").stat().st_mtime_ns for c in configs[:3]}
    second = execute.sweep(configs, store, workers=2)
    assert (second.missing, second.finished) == (1, 3)
    assert written == {c.id: (store.path / f"{c.id}.json").stat().st_mtime_ns for c in configs[:3]}
    assert execute.sweep(configs, store).missing == 0


def test_workers_do_not_change_the_result(tmp_path, spec):
    configs = load_spec(spec).configs("smoke")
    curves = []
    for workers in (1, 2):
        store = RunStore(tmp_path / str(workers))
        execute.sweep(configs, store, workers)
        curves.append([run.curve for run in store.runs(configs)])
    assert curves[0] == curves[1]


def test_a_changed_spec_trains_only_what_changed(tmp_path, spec):
    store = RunStore(tmp_path / "runs")
    execute.sweep(load_spec(spec).configs("smoke"), store, workers=1)
    spec.write_text(spec.read_text().replace("d_model = [8, 16]", "d_model = [8, 16, 24]"))
    todo = execute.plan(load_spec(spec).configs("smoke"), store)
    assert (todo.missing, todo.finished) == (2, 4)
    assert {c.d_model for stack in todo.stacks for c in stack.configs} == {24}


def test_the_plan_costs_what_the_accounting_says(tmp_path, small_text):
    config = RunConfig(corpus=small_text, d_model=8, n_head=1, n_layer=1, n_ctx=16, batch_size=4, steps=20, eval_tokens=1600)
    todo = execute.plan([config, config], RunStore(tmp_path))
    groups = accounting.Shape("transformer", 1, 8, next(train([config])).vocab_size, 16)
    forward = sum(accounting.forward_flops(groups).values())
    assert todo.missing == 1 and todo.flops == 3 * forward * 20 * 64 + 1 * 1600 * forward


def test_seconds_play_the_sweep_through():
    one = RunConfig(d_model=8, n_ctx=64, batch_size=8, steps=100, eval_ratio=10.0)
    flat = timing.Rates((8, 16), (1.0, 1.0), (0.5, 0.5), (7.0, 7.0), (3.0, 3.0), 11.0, 2)

    def seconds_of(*stacks, rates=flat):
        return timing.seconds_of(map(execute.Stack.of, stacks), rates)

    assert seconds_of([one]) == pytest.approx(100 + 7)
    apart = dataclasses.replace(one, steps=300, seed=1)  # measured at 300 and at 30, while both train
    assert seconds_of([one, apart]) == pytest.approx(100 * 1.5 + 200 + 7 + 7 + 7)
    assert seconds_of([one, dataclasses.replace(one, seed=1)]) == pytest.approx(100 * 1.5 + 7 + 3)
    branch = dataclasses.replace(one, steps=300)  # one row until the shorter begins to cool down after 71 steps
    assert seconds_of([one, branch]) == pytest.approx(71 + 29 * 1.5 + 200 + 7 + 7 + 7)
    other = dataclasses.replace(one, d_model=16, n_head=1)
    assert seconds_of([one], [other]) == pytest.approx(107 + 11)
    assert seconds_of([one], [other], rates=dataclasses.replace(flat, workers=1)) == pytest.approx(214)
    assert seconds_of([dataclasses.replace(one, also_on="sotu+sentences")]) == pytest.approx(100 + 3 * 7)
    assert seconds_of([dataclasses.replace(one, noise_batches=6)]) == pytest.approx(100 + 7 + 6)
    assert seconds_of() == 0


def test_a_probe_trains_as_the_sweep_does_with_dropout_too(small_text):
    config = RunConfig(corpus=small_text, n_layer=1, d_model=8, n_head=1, n_ctx=16, batch_size=4, eval_tokens=1600, dropout=0.1)
    for arch in ("transformer", "lstm"):
        rates = timing.measure_rates([dataclasses.replace(config, arch=arch)], 1)
        assert all(0 < value < 1 for value in rates.at(8))


def test_an_estimate_is_of_the_sweeps_own_shapes(small_text):
    """Of each depth its smallest, a middle and its largest width are probed, and the sweep is played through with those."""
    base = RunConfig(corpus=small_text, n_head=1, n_ctx=16, batch_size=4, steps=10**6, eval_tokens=1600)
    shallow, deep = ([dataclasses.replace(base, n_layer=n, d_model=d) for d in widths] for n, widths in ((1, (8, 12, 16, 20)), (2, (12,))))
    alone = [timing.seconds_of(execute.plan(one, ()).stacks, timing.measure_rates(probed, 1))
             for one, probed in ((shallow, [shallow[0], *shallow[2:]]), (deep, deep))]
    assert timing.estimate(execute.plan(shallow + deep, ()), 1) == pytest.approx(sum(alone))


def test_no_time_is_told_where_a_probe_would_cost_too_much(small_text):
    few = RunConfig(corpus=small_text, d_model=8, n_head=1, n_ctx=16, batch_size=4, steps=20, eval_tokens=1600)
    large = dataclasses.replace(few, d_model=512, n_ctx=256, batch_size=64, steps=10**4)
    assert timing.estimate(execute.plan([few], ()), 1) is None
    assert timing.estimate(execute.plan([large], ()), 1) is None


def test_a_spec_written_as_text_is_read_as_the_same(tmp_path):
    spec = dataclasses.replace(load_spec("depths"), title='Depth "by" width \\ größer')
    (tmp_path / "depths.toml").write_text(spec.toml(), encoding="utf-8")
    assert load_spec(tmp_path / "depths.toml") == spec


def test_killed_in_the_middle_nothing_finished_is_lost_or_repeated(tmp_path, small_text):
    """kill -9 of the sweep as soon as one run is finished; no worker goes on behind its back; then resume."""
    path = tmp_path / "long.toml"
    path.write_text(SPEC.format(corpus=small_text, steps=1500).replace("seed = [0, 1]", "seed = [0, 1]\ntrain_tokens = 1000"))
    store = tmp_path / "runs"
    command = [sys.executable, "-m", "minitransformer.cli", "sweep", str(path), "--scale", "smoke", "--store", str(store), "--workers", "2"]
    sweep = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and sweep.poll() is None and not list(store.glob("*.json")):
        time.sleep(0.02)
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    while subprocess.run(["pgrep", "-g", str(sweep.pid)], stdout=subprocess.DEVNULL).returncode == 0:
        assert time.monotonic() < deadline, "workers outlive a killed sweep"
        time.sleep(0.1)
    finished = {p.name: p.stat().st_mtime_ns for p in store.glob("[0-9a-f]*.json")}
    assert finished
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    left, kept = 4 - len(finished), len(finished)
    assert f"trained {left} run{'s' * (left != 1)}; {kept} {'was' if kept == 1 else 'were'} already" in done.stderr
    after = {p.name: p.stat().st_mtime_ns for p in store.glob("[0-9a-f]*.json")}
    assert len(after) == 4 and all(after[name] == stamp for name, stamp in finished.items())
    for file in after:
        assert json.loads((store / file).read_text())["status"] == "complete"


@pytest.mark.skipif(os.name == "nt", reason="a terminal there sends another signal")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_says_that_nothing_finished_is_lost(tmp_path, small_text, workers):
    """Ctrl-C of a terminal, which reaches the sweep and its workers."""
    path, store = tmp_path / "long.toml", RunStore(tmp_path / "runs")
    path.write_text(SPEC.format(corpus=small_text, steps=100_000))
    sweep = subprocess.Popen([sys.executable, "-m", "minitransformer.cli", "sweep", str(path), "--scale", "smoke", "--store", store.address,
                              "--workers", str(workers)], start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and sweep.poll() is None and not any(record["step"] for record in store.under_way()):
        time.sleep(0.05)
    os.killpg(sweep.pid, signal.SIGINT)
    _, said = sweep.communicate(timeout=60)
    assert sweep.returncode == 130, said
    assert said.splitlines()[-1] == "minitransformer: stopped; finished runs are kept, the same command goes on from here"
    assert "Traceback" not in said


def test_an_error_in_a_worker_is_still_one_clear_line(tmp_path, spec):
    config = dataclasses.replace(load_spec(spec).configs("smoke")[0], train_tokens=10**9)
    with pytest.raises(UserError, match="Too little text"):
        execute.sweep([config], RunStore(tmp_path / "runs"), workers=2)


@pytest.mark.skipif(os.name == "nt", reason="permissions work differently on Windows")
def test_no_half_written_file_is_left(tmp_path, one, monkeypatch):
    store = RunStore(tmp_path / "runs")

    def full_disk(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(UserError, match="No space left"):
        store.add(one)
    assert list(store.path.iterdir()) == []


def test_the_command_trains_what_a_spec_tunes_and_says_what_it_found(tmp_path, small_text):
    path = tmp_path / "tuned.toml"
    path.write_text(SPEC.format(corpus=small_text, steps=20).replace("d_model = [8, 16]", "d_model = [8]")
                    + "[tune]\nlr = [0.5, 1.0, 2.0]\n")
    store, spec = RunStore(tmp_path / "runs"), load_spec(path)
    _, *rows, total = command("sweep", str(path), "--scale", "smoke", "--store", str(store), "--dry-run").stdout.splitlines()[1:]
    trials, final = ([row for row in rows if row.endswith(what)] for what in ("  trials", "  final runs (rate to be found)"))
    assert len(rows) == len(trials) + len(final) and [sum(int(row.split()[0]) for row in some) for some in (trials, final)] == [3, 2]
    costs = [sum(map(execute.cost, some)) for some in (spec.configs("smoke"), spec.waiting("smoke"))]
    assert total.startswith(f"5 runs to train, 0 finished; about {sum(costs):.2e} FLOPs ({costs[0]:.2e} now, {costs[1]:.2e} when the rates are found)")
    done = command("sweep", str(path), "--scale", "smoke", "--store", str(store))
    assert done.returncode == 0, done.stderr
    assert "trials, round 1: training 3 runs" in done.stderr and "\nfinal runs: training " in done.stderr
    assert len(store.runs(spec.final("smoke", store))) == 2 and "losses by rate" in done.stderr.splitlines()[-1]
    status = command("sweep", str(path), "--scale", "smoke", "--store", str(store), "--status")
    runs = len(spec.configs("smoke", store))
    assert status.stdout.startswith(f"{runs} of {runs} runs finished") and "nothing is running" in status.stdout


def test_one_run_is_one_run(tmp_path, spec):
    spec.write_text(spec.read_text().replace("d_model = [8, 16]\nseed = [0, 1]", "d_model = [8]\nseed = [0]"))
    words = [command("sweep", spec, "--scale", "smoke", "--store", tmp_path / "runs", *more) for more in (["--dry-run"], [], [], ["--dry-run"])]
    assert "\n1 run to train, 0 finished" in words[0].stdout and "1 run is in" in words[3].stdout
    assert words[1].stderr.startswith("training 1 run\n") and "trained 1 run; 0 were already" in words[1].stderr
    assert words[2].stderr.startswith("trained 0 runs; 1 was already")


def test_a_share_of_a_card_without_ray_is_one_clear_line(spec):
    done = command("sweep", spec, "--scale", "smoke", "--gpus-per-stack", "0.5")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "--gpus-per-stack is for --backend ray" in done.stderr


def test_the_cores_are_those_this_process_may_use():
    assert 1 <= files.cores() <= os.cpu_count()
    if hasattr(os, "sched_setaffinity"):
        one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from minitransformer.files import cores; print(cores())"
        assert subprocess.check_output([sys.executable, "-c", one], text=True) == "1\n"


def test_an_unknown_backend_and_a_missing_driver_are_one_clear_line(tmp_path, spec):
    for option in (["--backend", "bogus"], ["--store", "unheard-of://bucket"]):
        done = command("sweep", str(spec), "--scale", "smoke", "--store", str(tmp_path), *option)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_a_point_may_leave_an_axis(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text("[scales.smoke]\nsteps = [10, 20]\nseed = [0, 1]\npoints = [{d_model = 8, n_head = 1}, {d_model = 16, n_head = 1, steps = 40}]\n")
    found = [(c.d_model, c.steps, c.seed) for c in load_spec(path).configs("smoke")]
    assert found == [(8, 10, 0), (8, 10, 1), (8, 20, 0), (8, 20, 1), (16, 40, 0), (16, 40, 1)]
