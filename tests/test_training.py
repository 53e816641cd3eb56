"""The loop: what it optimises, when it measures, when it stops, and that members do not disturb one another."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from minitransformer.data.text import load_corpus
from minitransformer.errors import UserError
from minitransformer.models.layers import initialise
from minitransformer.sweeps.store import run_table
from minitransformer.training.config import RunConfig
from minitransformer.training.evaluation import evaluate, fixed_windows, other_text, other_windows, token_losses
from minitransformer.training.loop import Run, build_model, train
from minitransformer.training.optimiser import Optimiser
from minitransformer.training.schedules import evaluation_steps, learning_rate


@pytest.fixture
def tiny(small_text):
    return RunConfig(corpus=small_text, n_layer=1, d_model=8, n_head=1, n_ctx=16, batch_size=4, steps=40, lr=0.02,
                     warmup_steps=5, eval_tokens=1600)


# --- identity ----------------------------------------------------------------------------------------------------


def test_the_hash_is_stable():
    """These ids name committed runs: if this test fails, every reader's finished runs are orphaned."""
    assert RunConfig().id == "44136fa355b3678a"
    assert RunConfig(d_model=64, seed=3).id == "0a46ba219965a72a"
    assert RunConfig(lr=1).id == RunConfig(lr=1.0).id != RunConfig(lr=1.5).id


@pytest.mark.parametrize("wrong", [
    {"d_model": 0}, {"d_model": -8}, {"d_model": 8.5}, {"lr": math.nan}, {"lr": math.inf}, {"lr": "fast"},
    {"arch": "rnn"}, {"schedule": "linear"}, {"d_model": 30, "n_head": 4}, {"tokenizer": "bpe"}, {"eval_ratio": 1.0},
    {"cooldown": 1.5}, {"steps": True}, {"noise_batches": 1}, {"noise_batches": -2}, {"also_on": None}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(UserError, match="\\w"):
        RunConfig(**wrong)


def test_unknown_settings_are_refused():
    with pytest.raises(UserError, match="widht"):
        RunConfig.from_dict({"widht": 3})


def test_every_field_but_the_default_changes_the_id():
    other = {str: "x", int: 7, float: 0.77, bool: True}
    base = RunConfig(d_model=49, n_head=7)
    valid = {"arch": "lstm", "tokenizer": "byte", "schedule": "cosine", "precision": "bfloat16", "optimiser": "sgd", "n_head": 1}
    for field in dataclasses.fields(RunConfig):
        value = valid.get(field.name, other[type(field.default)] if field.name != "eval_ratio" else 3.0)
        assert dataclasses.replace(base, **{field.name: value}).id != base.id, field.name


# --- schedules ---------------------------------------------------------------------------------------------------


def test_warmup_then_constant_then_cooldown_to_zero():
    config = RunConfig(steps=100, warmup_steps=9, cooldown=0.3, lr=1.0)
    rates = [learning_rate(config, step) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[69] == 1.0
    assert all(a > b for a, b in zip(rates[70:], rates[71:])) and 0 < rates[-1] < 0.05
    assert rates[70 + 15 - 1 + 1] == pytest.approx(1 - math.sqrt(15 / 30))


def test_cosine_is_half_way_down_in_the_middle():
    config = RunConfig(steps=100, warmup_steps=0, schedule="cosine", lr=1.0)
    assert learning_rate(config, 51) == pytest.approx(0.5)
    assert learning_rate(config, 100) < 0.001


def test_measurements_are_log_spaced_and_end_at_the_last_step():
    assert evaluation_steps(RunConfig(steps=1000, eval_ratio=2.0)) == [31, 62, 125, 250, 500, 1000]
    assert evaluation_steps(RunConfig(steps=5)) == [5]


# --- evaluation --------------------------------------------------------------------------------------------------


def test_fixed_windows_cover_what_was_asked_and_never_overlap():
    split = np.arange(200_000)
    windows = fixed_windows(split, n_ctx=64, eval_tokens=102_400)
    assert windows.shape == (1600, 65)
    assert (np.diff(windows[:, 0]) >= 65).all() and windows[-1, -1] == split[-1]
    assert np.array_equal(windows, fixed_windows(split, 64, 102_400))


def test_default_evaluation_has_a_hundred_thousand_tokens():
    assert RunConfig().eval_tokens >= 100_000


def test_evaluate_is_the_mean_over_all_windows():
    model = build_model(RunConfig(d_model=8, n_head=1, n_ctx=16), 20, K=2)
    initialise(model, [0, 1])
    windows = torch.randint(20, (37, 17))
    with torch.no_grad():
        whole = windows.expand(2, 37, 17)
        direct = token_losses(model(whole[..., :-1]), whole[..., 1:]).mean(dim=(1, 2))
        by_position = token_losses(model(whole[..., :-1]), whole[..., 1:]).mean(dim=1)
    torch.testing.assert_close(evaluate(model, 2, windows, chunk_tokens=48).mean(dim=1).float(), direct)
    torch.testing.assert_close(evaluate(model, 2, windows, chunk_tokens=48).float(), by_position)


# --- other texts -------------------------------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path):
    """A text of which every tenth sentence is in an alphabet that English has not."""
    path = tmp_path / "foreign.txt"
    path.write_text("".join(f"{'Слово ' if i % 10 else ''}The {i} of them went by the river.\n\n" for i in range(400)), encoding="utf-8")
    return str(path)


def test_of_another_text_what_the_alphabet_lacks_is_left_out(small_text, foreign):
    ours, theirs = load_corpus(small_text, "char"), load_corpus(foreign, "char")
    text = theirs.tokenizer.decode(theirs.val)
    known = "".join(letter for letter in text if letter in ours.tokenizer.alphabet)
    assert "Слово" in text and 0 < len(known) < len(text)
    assert ours.tokenizer.decode(other_text(ours, foreign)) == known
    of_bytes = load_corpus(small_text, "byte")
    assert of_bytes.tokenizer.decode(other_text(of_bytes, foreign)) == text


def test_of_a_short_text_every_window_is_measured_and_none_twice(small_text, monkeypatch):
    monkeypatch.setattr("minitransformer.training.evaluation.other_text", lambda corpus, name: np.arange(1000))
    corpus = load_corpus(small_text, "char")
    windows = other_windows(corpus, "another", n_ctx=16, eval_tokens=10**6)
    assert windows.shape == (1000 // 17, 17) and (np.diff(windows[:, 0]) >= 17).all() and (windows[0, 0], windows[-1, -1]) == (0, 999)
    assert other_windows(corpus, "another", n_ctx=16, eval_tokens=160).shape == (10, 17)
    assert other_windows(corpus, "another", n_ctx=999, eval_tokens=160).shape == (1, 1000)


def test_a_text_that_is_not_there_or_too_short_is_one_clear_line(tiny, foreign, tmp_path):
    (tmp_path / "greek.txt").write_text("\n".join(chr(945 + i % 24) * 200 for i in range(24)), encoding="utf-8")
    for also_on, words in (("sotu+nowhere", "There is no corpus named 'nowhere'"), (str(tmp_path / "greek.txt"), "Too little text: what .* knows of"),
                           (str(tmp_path / "nothing.txt"), "There is no file")):
        with pytest.raises(UserError, match=words) as raised:
            run(dataclasses.replace(tiny, also_on=also_on))
        assert "\n" not in str(raised.value)


# --- the optimiser -----------------------------------------------------------------------------------------------


def reference_of(name: str, groups: list[dict], config: RunConfig) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=0.01, betas=(config.beta1, config.beta2), eps=1e-8)
    return torch.optim.SGD(groups, lr=0.1, momentum=config.beta1)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_optimisers_and_clipping_equal_pytorchs(name):
    decay = 0.1 if name == "adamw" else 0.0
    config = RunConfig(d_model=8, n_head=1, n_ctx=16, weight_decay=decay, clip=0.5, optimiser=name)
    ours, theirs = (build_model(config, 20, K=1).double() for _ in range(2))
    initialise(ours, [3]), initialise(theirs, [3])
    optimiser = Optimiser(ours, [config], torch.device("cpu"))
    matrices = [m.weight for m in theirs.modules() if type(m).__name__ == "Linear"]
    rest = [p for p in theirs.parameters() if not any(p is m for m in matrices)]
    reference = reference_of(name, [{"params": matrices, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}], config)
    before = [p.clone() for p in ours.parameters()]
    for step in range(20):
        batch = torch.randint(20, (1, 4, 17), generator=torch.Generator().manual_seed(step))
        for model in (ours, theirs):
            token_losses(model(batch[..., :-1]), batch[..., 1:]).mean().backward()
        optimiser.step(torch.tensor([[reference.param_groups[0]["lr"]]], dtype=torch.float64))
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        reference.step()
        reference.zero_grad()
    for a, b, start in zip(ours.parameters(), theirs.parameters(), before):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
        assert (a - start).abs().max() > 1e-3


# --- the loop ----------------------------------------------------------------------------------------------------


def run(*configs: RunConfig) -> dict[str, Run]:
    return {r.config.id: r for r in train(configs)}


def test_training_learns_and_records(tiny):
    result = run(tiny)[tiny.id]
    vocab = result.vocab_size
    assert result.status == "complete" and result.curve["step"] == [20, 40]
    assert result.curve["tokens"] == [20 * 64, 40 * 64] and result.tokens == 40 * 64
    assert result.final_loss < math.log(vocab) - 0.5
    assert result.parameters["feed_forward"] == 8 * 8 * 8
    assert result.compute["C"] == 6 * 12 * 64 * result.tokens
    assert result.device.startswith("cpu") and result.versions["torch"] == torch.__version__


def test_runs_repeat_to_the_bit(tiny):
    first, second = run(tiny)[tiny.id], run(tiny)[tiny.id]
    assert first.curve == second.curve


def test_members_train_as_they_would_alone(tiny):
    """Seeds, rates, data sizes, horizons and patience may differ in one stack; one diverges and leaves."""
    members = [dataclasses.replace(tiny, seed=1), dataclasses.replace(tiny, lr=0.005, weight_decay=0.1, clip=0.1),
               dataclasses.replace(tiny, train_tokens=400, patience=1, eval_ratio=1.1, schedule="constant"),
               dataclasses.replace(tiny, steps=25), dataclasses.replace(tiny, lr=1e30, clip=1e30)]
    together = run(*members)
    for config in members[:4]:
        alone = run(config)[config.id]
        assert alone.status == "complete"
        np.testing.assert_allclose(together[config.id].curve["val_loss"], alone.curve["val_loss"], rtol=1e-4)
        assert together[config.id].curve["step"] == alone.curve["step"]
    assert together[members[4].id].status == "diverged"


def test_the_loss_by_position_is_each_members_own_and_its_mean_is_the_final_loss(tiny):
    members = [tiny, dataclasses.replace(tiny, seed=1), dataclasses.replace(tiny, lr=0.005, steps=25)]
    together = run(*members)
    for config in members:
        found = together[config.id]
        assert len(found.by_position) == tiny.n_ctx and np.mean(found.by_position) == pytest.approx(found.final_loss, abs=1e-5)
        np.testing.assert_allclose(found.by_position, run(config)[config.id].by_position, rtol=1e-4)
    assert len({tuple(one.by_position) for one in together.values()}) == 3


def test_the_loss_by_position_goes_through_files_and_tables_and_runs_made_before_it_have_none(tiny, tmp_path):
    other = dataclasses.replace(tiny, seed=1)
    with_, without = run(tiny, other).values()
    record = json.loads(json.dumps(with_.to_dict()))
    assert Run.from_dict(record) == with_ and record["by_position"] == with_.by_position
    older = json.loads(json.dumps(without.to_dict()))
    del older["by_position"]
    without = Run.from_dict(older)
    assert without.by_position is None and without.final_loss == older["final_loss"]
    run_table([with_, without]).to_parquet(tmp_path / "table.parquet")
    there, none = pd.read_parquet(tmp_path / "table.parquet").by_position
    assert list(there) == with_.by_position and none is None
    for field in ("status", "tokens", "curve"):
        with pytest.raises(KeyError):
            Run.from_dict({name: value for name, value in record.items() if name != field} | {"config": tiny.to_dict()})


def test_a_diverged_run_has_no_loss(tiny):
    result = run(dataclasses.replace(tiny, lr=1e30, clip=1e30))
    (diverged,) = result.values()
    assert diverged.status == "diverged" and diverged.final_loss is None and diverged.best_loss is None


def test_early_stopping_ends_after_patience_measurements_without_gain(tiny):
    config = dataclasses.replace(tiny, train_tokens=20, steps=400, patience=2, eval_ratio=1.2, schedule="constant")
    result = run(config)[config.id]
    losses = result.curve["val_loss"]
    assert result.curve["step"][-1] < 400
    assert losses.index(min(losses)) == len(losses) - 3
    assert result.best_loss == min(losses) < result.final_loss
    assert result.best_step == result.curve["step"][-3]


def test_only_the_training_tokens_asked_for_are_seen(tiny, small_text, monkeypatch):
    """With every later token replaced, a run on the first 400 tokens is unchanged."""
    config = dataclasses.replace(tiny, train_tokens=400)
    before = run(config)[config.id].curve
    corpus = load_corpus(small_text, "char")
    garbage = np.array(corpus.train)
    garbage[400:] = 0
    swapped = dataclasses.replace(corpus, train=garbage)
    monkeypatch.setattr("minitransformer.training.loop.load_corpus", lambda *_: swapped)
    assert run(config)[config.id].curve == before
    longer = dataclasses.replace(tiny, train_tokens=4000)
    assert run(longer)[longer.id].curve != before


def test_too_little_text_is_one_clear_line(tiny):
    with pytest.raises(UserError, match="Too little text"):
        run(dataclasses.replace(tiny, train_tokens=10**9))
    with pytest.raises(UserError, match="window"):
        run(dataclasses.replace(tiny, train_tokens=5))


def test_a_text_that_changed_is_refused(tiny):
    with pytest.raises(UserError, match="changed"):
        run(dataclasses.replace(tiny, corpus_sha256="0" * 64))


def test_shapes_are_not_mixed(tiny):
    with pytest.raises(UserError, match="stack"):
        run(tiny, dataclasses.replace(tiny, d_model=16))


@pytest.mark.parametrize("arch, d_model", [("transformer", 8), ("transformer", 128), ("transformer", 1024), ("lstm", 8), ("lstm", 1024)])
def test_every_width_trains_at_the_rate_of_the_rule(tiny, arch, d_model):
    config = dataclasses.replace(tiny, arch=arch, d_model=d_model, n_head=max(1, d_model // 16), lr=0.0085 * (32 / d_model) ** 0.8, steps=20)
    result = run(config)[config.id]
    assert result.status == "complete" and result.final_loss < math.log(result.vocab_size) - 0.4


def test_an_lstm_trains(tiny):
    config = dataclasses.replace(tiny, arch="lstm", steps=30)
    assert run(config)[config.id].final_loss < math.log(60)
