"""The pages on the engine: what they compute, the code they print, the commands they quote, and the sketch for a billion parameters."""

import csv
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.main import get_command

from minitransformer import accounting
from minitransformer.cli import app
from minitransformer.models.layers import initialise
from minitransformer.models.transformer import Transformer
from minitransformer.sweeps import lease, tune
from minitransformer.sweeps.grid import load_spec
from minitransformer.sweeps.grouping import plan
from minitransformer.sweeps.store import RunStore
from minitransformer.training import loop
from minitransformer.training.config import RunConfig
from minitransformer.training.evaluation import token_losses
from minitransformer.training.schedules import learning_rate

ROOT = Path(__file__).resolve().parent.parent
PAGES = {name: (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8") for name in ("engine", "cluster", "runs")}


def extension(name: str):
    path = ROOT / "book" / "_ext"
    sys.path.insert(0, str(path))
    benchmark = sys.modules.pop("engine", None)  # a benchmark has the name of the extension
    spec = importlib.util.spec_from_file_location(f"{name}_extension", path / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(path))
        sys.modules.pop("engine", None)
        if benchmark:
            sys.modules["engine"] = benchmark


@pytest.fixture(scope="module")
def engine():
    yield from extension("engine")


@pytest.fixture(scope="module")
def runs():
    yield from extension("runs")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.M | re.S)


# --- numbers ------------------------------------------------------------------------------------------------------


def test_activations_are_what_a_step_keeps(engine):
    """Counted in the tensors that autograd saves, with attention that keeps no scores; half of a logit's bytes are its gradient."""
    n_layer, d_model, vocab_size, n_ctx, batch = 6, 128, 96, 128, 4
    model = Transformer(1, vocab_size, n_ctx, n_layer, d_model, 2, 4 * d_model, tie_embeddings=True)
    initialise(model, [0])
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    x = torch.randint(0, vocab_size, (1, batch, n_ctx + 1))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        token_losses(model(x[..., :-1]), x[..., 1:]).mean()
    counted = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    parameters, tokens = sum(p.numel() for p in model.parameters()), batch * n_ctx
    said = engine.activations(n_layer, d_model, vocab_size, parameters, tokens) - engine.LOGIT / 2 * vocab_size * tokens
    assert counted == pytest.approx(said, rel=0.04)


def test_state_is_what_the_optimiser_holds(engine):
    from minitransformer.training.optimiser import Optimiser

    model = Transformer(1, 30, 8, 1, 16, 1, 64)
    initialise(model, [0])
    optimiser = Optimiser(model, [RunConfig()], torch.device("cpu"))
    parameters = sum(p.numel() for p in model.parameters())
    gradients = parameters
    assert 4 * (gradients + sum(t.numel() for t in optimiser.state.values())) == engine.STATE * parameters


@pytest.mark.parametrize("size", [1e6, 1e7, 1e8, 1e9])
def test_sizes_are_what_they_are_called(engine, size):
    counts = accounting.count_parameters(accounting.parameters(engine.shape(size)))
    assert counts["N"] == pytest.approx(size, rel=0.02)
    tokens, flops = engine.training(size, 20)
    assert tokens == 20 * counts["N_total"]
    assert flops == accounting.count_compute(engine.shape(size), int(tokens))["C_total"] > 6 * counts["N"] * tokens


def test_costs_follow_from_flops(engine):
    hour = engine.card_rate() * 3600
    assert ">1.0 h<" in engine.cost(hour, "card") and ">\\$3.00<" in engine.cost(hour, "price")
    assert f">{engine.duration(hour / engine.core_rate())}<" in engine.cost(hour, "core")


@pytest.mark.parametrize("seconds, text", [(0.2, "under 1 s"), (1.26, "1.3 s"), (59, "59 s"), (90, "1.5 min"), (7200, "2.0 h"),
                                           (86_400 * 365, "360 days"), (86_400 * 366 * 87, "87 years"), (3.2e10, "1,000 years")])  # fmt: skip
def test_durations(engine, seconds, text):
    assert engine.duration(seconds) == text


@pytest.mark.parametrize("dollars, text", [(0.002, "under 1 cent"), (0.4857, "$0.49"), (3.114, "$3.11"), (276.2, "$280"), (2762.0, "$2,800")])
def test_prices(engine, dollars, text):
    assert engine.money(dollars) == text


def test_rule_of_thumb_and_facts(engine):
    assert engine.rule_of_thumb() == 20
    facts = {name: value() for name, value in engine.inline_facts().items()}
    assert all(facts.values())
    asked = set(re.findall(r"\{engine\}`([^`]+)`", "".join(PAGES.values())))
    assert asked and asked <= set(facts)


def test_what_a_core_takes_is_recorded_or_follows_from_its_rate(engine):
    rows = {tuple(row[:2]): row for row in engine.specs_table()[1:]}
    table = engine.reference_table("budgets")
    assert rows["`budgets`", "laptop"][4] == engine.duration(table.seconds.sum())
    for name, scale in rows:
        table = engine.reference_table(name.strip("`"))
        assert scale == "gpu" or table is None or (int(rows[name, scale][2]), scale) == (len(table), table.scale.iloc[0])
    configs = engine.spec_configs("ladder", "gpu")
    seconds = float(re.search(r'data-flops="([^"]+)"', rows["`ladder`", "gpu"][4])[1]) / engine.core_rate()
    assert seconds > 1.001 * engine.execute.stack_cost(configs) / engine.core_rate()  # narrow models take longer than their FLOPs
    rates = engine.core_rates()
    assert rates.notna().all() and {8, 24, 96} <= set(rates.index)
    assert engine.core_rate(8) < engine.core_rate(12) < engine.core_rate(24) < engine.core_rate(96)
    assert engine.core_rate(rates.index[-1]) == engine.core_rate(4096)
    assert engine.core_rate(24) == pytest.approx(rates[24], rel=0.05)
    assert all(f"`{name}`" in PAGES["cluster"] for name in engine.TIMED)


def test_every_committed_table_has_its_row_and_its_command(runs):
    committed = {path.stem: runs.reference_table(path.stem) for path in (ROOT / "minitransformer" / "reference").glob("*.parquet")}
    heading, *rows = runs.table_rows()
    found = {row[0].split("`")[1]: dict(zip(heading, row)) for row in rows if "`" in row[0]}
    assert found.keys() == committed.keys() and all(len(row) == len(heading) for row in rows)
    for name, table in committed.items():
        row, cost = found[name], runs.spent(table)
        assert row["Runs (seeds)"] == f"{len(table)} ({table.seed.nunique()})" and row["Scale, text"].startswith(f"{table.scale.iloc[0]}, ")
        assert row["One core"] == runs.duration(table.seconds.sum()) and row["Training, FLOPs"] == runs.flops(cost.training)
        assert 0 < cost.training <= table.C_total.sum() and 0 < cost.measuring
        assert row[heading[0]].startswith(load_spec(name).title)
    totals = {row[1].split(",")[0]: dict(zip(heading, row)) for row in rows if row[0].startswith("**")}
    assert totals.keys() == {table.scale.iloc[0] for table in committed.values()}
    assert sum(int(row["Runs (seeds)"].replace(",", "")) for row in totals.values()) == sum(map(len, committed.values()))
    for scale, row in totals.items():
        of_scale = [table for table in committed.values() if table.scale.iloc[0] == scale]
        assert row["One core"] == runs.duration(sum(table.seconds.sum() for table in of_scale))
        assert row["Training, FLOPs"] == runs.flops(sum(runs.spent(table).training for table in of_scale))
    lines = [line for line in runs.commands().splitlines() if not line.startswith("#")]
    assert sorted(re.findall(r"sweep (\w+) --scale (\w+)", "\n".join(lines))) == sorted((n, t.scale.iloc[0]) for n, t in committed.items())
    command = get_command(app).commands["sweep"]
    for line in lines:
        context = command.make_context("sweep", line.split()[2:])
        assert context.params["export"].name == f"{context.params['spec']}.parquet"


def test_trunks_are_counted_once_in_the_table(runs):
    budgets = runs.reference_table("budgets")
    one = budgets[(budgets.d_model == 8) & (budgets.seed == 0)]
    configs = [config for config in load_spec("budgets").configs("laptop") if config.d_model == 8 and config.seed == 0]
    assert len(one) == len(configs) == 5 and runs.spent(one).total == pytest.approx(runs.stack_cost(configs))
    assert runs.stack_cost(configs) < 0.75 * sum(runs.stack_cost([config]) for config in configs)


def test_machines_are_named_once_each(runs, monkeypatch):
    table = runs.reference_table("depths")
    assert len({(device, versions) for one in runs.tables().values() for device, versions in zip(one.device, one.versions)}) > 1 or (
        runs.machines().startswith("All of them were trained on cpu"))
    card = table.assign(device="NVIDIA H100", versions='{"torch": "9.9"}')
    monkeypatch.setattr(runs, "tables", lambda: {"depths": table, "ladder": card})
    words = runs.machines().replace(runs.NBSP, " ")
    assert words.count("Trained on ") == 2 and "Trained on NVIDIA H100 with torch 9.9: `ladder`." in words and "`depths`." in words


def test_what_a_card_would_do_is_planned_from_the_specs(runs):
    heading, *rows, every = runs.card_rows()
    language = {name for name in runs.specs() if "gpu" in load_spec(name).scales}
    others = {path.stem for path in runs.SPECS.glob("*.toml")} - set(runs.specs())
    assert {row[0].strip("`") for row in rows} == language and {"ladder", "words"} <= language
    assert others and not any(config.reads_text for name in others for config in load_spec(name).configs("smoke"))
    assert every[0] == "**All**" and all(len(row) == len(heading) for row in (*rows, every))
    assert int(every[1]) == len({config.id for row in rows for config in load_spec(row[0].strip("`")).configs("gpu")})


def test_the_exercise_has_the_shape_it_says(engine):
    said = re.search(r"with (\d+) layers of width ([\d,]+)\.", PAGES["cluster"])
    assert tuple(int(part.replace(",", "")) for part in said.groups()) == engine.EXERCISE
    assert engine.inline_facts()["exercise"]() == "6.5" and engine.inline_facts()["decades"]() == "5.3"


def test_branches_are_drawn_from_the_schedule(engine):
    row = engine.branch_row()
    assert len(row) > 2 and len({replace(c, steps=1) for c in row}) == 1
    alone, together = engine.branch_steps(row)
    shared = {(step, learning_rate(c, step)) for c in row for step in range(1, c.steps + 1)}
    assert together < alone and together == len(shared)  # every step at which two lengths differ is taken twice, and no other


def test_tables_hold_every_spec_and_size(engine):
    rows = engine.specs_table()
    assert {row[0].strip("`") for row in rows[1:]} == set(engine.specs())
    assert len({len(row) for row in rows}) == 1
    assert len(engine.memory_table()) == 1 + len(engine.SIZES) and len(engine.trainings_table()) == 1 + 2 * len(engine.SIZES)


def test_speed_is_read_from_what_the_benchmark_printed(engine, monkeypatch):
    text = """2 cores, torch
limit: 457 GFLOP/s

               thousand tokens per second (threads)         sweep / better of a, b    share of the limit
        N     sweep    (a) GPT-2    (b) plain      (c)       median  lowest-highest      sweep   better
     1536    1511.7          nan    368.0 (2)      nan         4.11       1.30-4.85         3%       2%
   786432      28.1          nan     20.6 (1)      nan         1.36       1.34-1.46        32%      23%
other processes used 1% of the cores

peak memory of a process, GB: ladder 0.45

2 cores: 2.36 times the tokens of the better of the usual ways (geometric mean), 1.36 times at the least; no card here
"""
    rows, others, last = engine.speed(text)
    assert others == "other processes used 1% of the cores" and last.startswith("2 cores: 2.36 times")
    plain = [[cell.replace("\u2060", "").replace(engine.NBSP, " ") for cell in row] for row in engine.speed_cells(rows)]
    assert "(c)" not in plain[0] and "(b)" in plain[0]
    assert plain[1:] == [["1,536", "1511.7", "368.0 (2)", "4.11", "1.30–4.85", "3%", "2%"],
                         ["786,432", "28.1", "20.6 (1)", "1.36", "1.34–1.46", "32%", "23%"]]
    monkeypatch.setattr(engine, "printed", lambda: text)
    assert engine.speed_times() == ("2.4", "1.4") and engine.speed_reached() == "1 of 2 sizes"


def test_without_the_benchmark_the_build_warns(engine, monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "PRINTED", tmp_path / "engine.txt")
    with pytest.raises(engine.MeasuredError, match="there is no benchmarks/engine.txt"):
        engine.inline_facts()["speed-mean"]()
    (tmp_path / "engine.txt").write_text("2 cores: no card here\n")
    with pytest.raises(engine.MeasuredError, match="holds no table"):
        engine.inline_facts()["speed-reached"]()


def test_the_reader_can_change_the_assumptions(engine, browser, tmp_path):
    costs = "".join(f"<p>{engine.cost(flops, kind)}</p>" for kind in ("core", "card", "price") for flops in (1.31e20, 7e14, 2.3e17)).replace("\\$", "$")
    page_file = tmp_path / "page.html"
    script = (ROOT / "book" / "_static" / "engine.js").as_uri()
    page_file.write_text(f'<!doctype html><meta charset="utf-8"><script src="{script}" defer></script>{engine.prices_form()}{costs}', encoding="utf-8")
    page = browser.new_page()
    shown = lambda: page.locator(".engine-cost").all_inner_texts()
    try:
        page.goto(page_file.as_uri())
        assert page.locator("form").is_visible() and page.locator("input").count() == 4
        before = shown()
        page.locator("input[data-name=peak]").dispatch_event("input")
        assert shown() == before  # the script and the page say the same
        page.locator("input[data-name=price]").fill("6")
        assert shown()[:6] == before[:6] and shown()[6] == engine.money(2 * 1.31e20 / engine.card_rate() / 3600 * engine.ASSUMED["price"])
        page.locator("input[data-name=core]").fill("")
        assert shown()[:3] == ["–"] * 3
    finally:
        page.close()


def test_on_a_phone_every_cell_has_its_heading(browser, tmp_path):
    static = ROOT / "book" / "_static"
    page_file = tmp_path / "page.html"
    page_file.write_text(f'<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="{(static / "custom.css").as_uri()}">'
                         f'<script src="{(static / "engine.js").as_uri()}" defer></script><table class="engine-costs">'
                         '<thead><tr><th>Rung</th><th>Flags</th></tr></thead><tbody><tr><td><p>Ray</p></td><td><p>none</p></td></tr></tbody></table>', encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    try:
        page.goto(page_file.as_uri())
        before = "cell => [getComputedStyle(cell, '::before').content, getComputedStyle(cell).display]"
        assert [cell.evaluate(before) for cell in page.locator("td").all()] == [['"Rung"', "grid"], ['"Flags"', "grid"]]
    finally:
        page.close()


# --- what the pages print -----------------------------------------------------------------------------------------


def test_the_checks_of_exactness_hold(capsys):
    names: dict = {}
    threads = torch.get_num_threads()
    try:
        for code in blocks("engine", "python"):
            exec(code, names)
    finally:
        torch.set_num_threads(threads)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 4 + 3
    assert all(abs(float(row[-1])) < 1e-9 for row in rows)
    assert len({row[-2] for row in rows[:4]}) == 4


def test_stacks_on_a_processor_are_as_large_as_said(monkeypatch):
    monkeypatch.setattr("minitransformer.files.cores", lambda: 2)
    said = re.search(r"At (\d+) tokens a step these are (\d+) members of width (\d+), (\d+) of width (\d+), and (\d+) from width (\d+) on", PAGES["engine"])
    tokens, *sizes = map(int, said.groups())
    for members, width in zip(sizes[::2], sizes[1::2]):
        stacks = plan([RunConfig(d_model=width, n_ctx=64, batch_size=tokens // 64, steps=100, seed=seed) for seed in range(128)], ()).stacks
        assert {len(stack.configs) for stack in stacks} == {members}


def test_the_lines_that_tune_are_understood(tmp_path):
    (lines,) = blocks("engine", "toml")
    path = tmp_path / "tuned.toml"
    path.write_text(lines + "[scales.laptop]\nd_model = [8, 32]\nsteps = 100\n")
    trials = next(iter(load_spec(path).rounds("laptop", RunStore(tmp_path / "runs"))))
    assert sorted(config.lr for config in trials if config.d_model == 32) == [0.00425, 0.0085, 0.017]
    assert {config.steps for config in trials} == {50}
    assert f"at most {['one', 'two', 'three', 'four', 'five'][tune.WIDEN - 1]} times" in PAGES["engine"]


def test_the_cost_of_a_billion_in_python_is_that_of_the_table(engine, capsys):
    (code,) = blocks("cluster", "python")
    exec(code, {})
    flops, hours, dollars = re.fullmatch(r"(\S+) FLOPs, (\d+) hours, (\d+) dollars\n", capsys.readouterr().out).groups()
    _, exact = engine.training(1e9, engine.rule_of_thumb())
    assert float(flops) == pytest.approx(exact, rel=0.04)
    assert float(hours) == pytest.approx(exact / engine.card_rate() / 3600, rel=0.01)
    assert float(dollars) == pytest.approx(float(hours) * engine.ASSUMED["price"], rel=0.01)


def test_quoted_commands_exist():
    command = get_command(app)
    text = "\n".join(PAGES.values())
    shell = "\n".join(blocks("cluster", "sh") + blocks("runs", "sh")).replace("\\\n", " ")
    quoted = re.findall(r"minitransformer ([a-z][^\n#]*)", shell) + re.findall(r"`minitransformer ([^`]+)`", text)
    assert len(quoted) > 10
    for line in quoted:
        words, found = line.split(), command
        while hasattr(found, "commands"):
            found = found.commands[words.pop(0)]
        known = {option for parameter in found.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
    flags = {flag for code in re.findall(r"`(--[^`]+)`", text) for flag in code.split() if flag.startswith("--")}
    options = {option for parameter in command.commands["sweep"].params for option in parameter.opts}
    assert {flag for flag in flags - options if flag not in ("--nnodes", "--rdzv-backend", "--rdzv-endpoint")} == set()
    assert {"--store", "--backend", "--status", "--device"} <= flags


def test_a_minute_is_a_minute():
    assert "about a minute" in PAGES["cluster"] and loop.CHECKPOINT_SECONDS == 60
    assert "for a minute is dead" in PAGES["cluster"] and lease.LEASE == 60


def test_torchrun_has_the_options_named():
    from torch.distributed.run import get_args_parser

    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    assert {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint"} <= known


# --- a billion parameters, on paper -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trainings(tmp_path_factory) -> list[Path]:
    """loss.csv of the sketch in one process and in two that share its weights."""
    import numpy as np

    folder = tmp_path_factory.mktemp("fsdp")
    steps = np.random.default_rng(0).integers(0, 3, 40_000)
    (np.cumsum(steps) % 60).astype(np.uint16).tofile(folder / "tokens.bin")
    small = "--steps 30 --n-layer 2 --d-model 32 --n-head 2 --n-ctx 32 --batch-size 16 --vocab-size 60 --part 4 --lr 0.01".split()
    for processes in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
                   str(ROOT / "book" / "code" / "billion.py"), str(folder / "tokens.bin"), *small, "--out", str(folder / f"{processes}.csv")]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr[-2000:]
    return [folder / "1.csv", folder / "2.csv"]


def test_weights_shared_by_two_processes_train_as_in_one(trainings):
    one, two = ([float(row["loss"]) for row in csv.DictReader(path.open())] for path in trainings)
    assert len(one) == len(two) == 30 and one[-1] < 0.8 * one[0]
    assert one == pytest.approx(two, rel=1e-4)


def test_diagnose_reads_what_the_sketch_writes(trainings):
    done = subprocess.run([sys.executable, "-c", "from minitransformer.cli import main; main()", "diagnose", str(trainings[0]), "--params", "1.03B", "--law", "chinchilla-corrected",
                           "--tokens-per-step", "524288", "--planned-steps", "40000"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("At step 30: ")
