"""Stacks, proved: a member's losses and weights are those of its config trained alone, a branch is a run from scratch."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from minitransformer import accounting
from minitransformer.data.text import load_corpus
from minitransformer.laws.batch import gradient_noise_scale
from minitransformer.models.layers import initialise
from minitransformer.sweeps.grouping import stack_cost
from minitransformer.sweeps.spent import spent
from minitransformer.sweeps.store import run_table
from minitransformer.training import evaluation, loop
from minitransformer.training.config import RunConfig
from minitransformer.training.evaluation import evaluate, fixed_windows, gradient_norms, token_losses
from minitransformer.training.loop import build_model, train
from minitransformer.training.optimiser import Optimiser
from minitransformer.training.schedules import evaluation_steps, last_constant_step, learning_rate, trunk_key
from tape import Tape, all_taped, trained

ARCHS = ["transformer", "lstm", "rhn"]
ROUNDING = {"rtol": 1e-9, "atol": 1e-11}  # float64


@pytest.fixture
def tiny(small_text, monkeypatch):
    all_taped(monkeypatch)
    return RunConfig(corpus=small_text, n_layer=2, d_model=8, n_head=2, n_ctx=12, batch_size=4, steps=30, lr=0.02,
                     warmup_steps=3, eval_tokens=600, precision="float64")


def other(config: RunConfig, **changes) -> RunConfig:
    return dataclasses.replace(config, **changes)


def many(tiny: RunConfig) -> list[RunConfig]:
    """Members that differ in all in which members may."""
    return [other(tiny, seed=1), other(tiny, lr=0.004, weight_decay=0.3), other(tiny, clip=0.05, warmup_steps=0),
            other(tiny, seed=2, schedule="cosine", steps=23), other(tiny, schedule="constant", steps=17, eval_every=5),
            other(tiny, train_tokens=300), other(tiny, train_tokens=20, schedule="constant", eval_every=2, patience=2, lr=0.05),
            other(tiny, seed=3, steps=19, cooldown=0.6)]


def assert_same(of_stack: dict, runs: dict, config: RunConfig, **tolerance) -> int:
    """That a member's curve and weights after every step are those of its config alone; the number of steps compared."""
    tape = Tape()
    alone = trained([config], tape)[config]
    assert alone.status == runs[config].status
    for name in ("step", "tokens"):
        assert runs[config].curve[name] == alone.curve[name]
    for name in ("train_loss", "val_loss"):
        np.testing.assert_allclose(runs[config].curve[name], alone.curve[name], **tolerance)
    of_one = tape.rows()
    assert set(of_one) == {key for key in of_stack if key[0] == config.id} - {(config.id, alone.curve["step"][-1])}
    for key, weights in of_one.items():
        torch.testing.assert_close(of_stack[key], weights, **tolerance)
    return len(of_one)


# --- members ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHS)
def test_members_are_what_they_would_be_alone(tiny, arch):
    """In float64, to rounding: losses and the weights after every step; some finish, one stops early, one diverges."""
    tiny = other(tiny, arch=arch, dropout=0.1)
    members = many(tiny)
    diverging = other(tiny, lr=1e308, clip=1e300, eval_every=9)
    tape = Tape()
    runs = trained([diverging, *members], tape)
    rows = tape.rows()
    assert runs[diverging].status == "diverged" and runs[diverging].curve["step"] == [9]
    assert not rows[diverging.id, 5].isfinite().all() and (diverging.id, 9) not in rows
    stopped = runs[members[6]]
    assert stopped.status == "complete" and stopped.curve["step"][-1] < tiny.steps
    compared = [assert_same(rows, runs, config, **ROUNDING) for config in members]
    assert compared[0] == tiny.steps - 1 and len({runs[c].curve["val_loss"][0] for c in members}) == len(members)


@pytest.mark.parametrize("arch", ARCHS)
def test_members_are_what_they_would_be_alone_in_float32(tiny, arch, monkeypatch):
    """After 200 steps, losses agree within 1e-3 and weights within 1e-2 of the largest: what rounding may grow to."""
    tiny = other(tiny, arch=arch, precision="float32", steps=200, lr=0.01, n_layer=1, eval_every=199, dropout=0.1)
    members = [tiny, other(tiny, seed=1, weight_decay=0.1, schedule="cosine"), other(tiny, train_tokens=400, clip=0.1)]
    tape = Tape()
    runs = trained(members, tape)
    rows = tape.rows(steps=[199])
    for config in members:
        own = Tape()
        alone = trained([config], own)[config]
        np.testing.assert_allclose(runs[config].curve["val_loss"], alone.curve["val_loss"], rtol=1e-3)
        (weights,) = own.rows(steps=[199]).values()
        assert (rows[config.id, 199] - weights).abs().max() < 1e-2 * weights.abs().max()
    assert len({run.final_loss for run in runs.values()}) == 3


@pytest.mark.parametrize("arch", ARCHS)
def test_the_running_mean_of_the_weights_is_each_members_own_and_is_measured(tiny, arch):
    tiny = other(tiny, arch=arch, average=0.4, eval_every=10, steps=11)
    members = [tiny, other(tiny, average=0.2, seed=1), other(tiny, average=1.0, steps=21, seed=2)]
    tape = Tape()
    runs = trained(members, tape)
    weights, means = tape.rows(), tape.rows("average")
    windows = torch.from_numpy(fixed_windows(load_corpus(tiny.corpus, "char").val, tiny.n_ctx, tiny.eval_tokens).astype(np.int64))
    for config in members:
        assert_same(weights, runs, config, **ROUNDING)
        mean = weights[config.id, 1]
        for step in range(2, 11):
            mean = mean + min(1.0, 1 / (config.average * step)) * (weights[config.id, step] - mean)
        torch.testing.assert_close(means[config.id, 10], mean, rtol=1e-12, atol=1e-12)
        assert not torch.equal(mean, weights[config.id, 10])
        model = build_model(config, runs[config].vocab_size).double()
        Optimiser(model, [config], torch.device("cpu"))._point(mean[None])
        assert evaluate(model, 1, windows).mean().item() == pytest.approx(runs[config].curve["val_loss"][0], rel=1e-12)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_stack_repeated_is_the_same_to_the_bit(tiny, arch):
    tiny = other(tiny, arch=arch, precision="float32", dropout=0.2, average=0.1, steps=12)
    members = [tiny, other(tiny, steps=9), other(tiny, seed=5, lr=0.1)]
    tapes = Tape(), Tape()
    first, second = (trained(members, tape) for tape in tapes)
    assert all(first[config].curve == second[config].curve for config in members)
    one, two = (tape.rows() for tape in tapes)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_the_seed_alone_decides_the_order_of_batches(tiny, monkeypatch):
    given, call = [], loop._Update.__call__
    monkeypatch.setattr(loop._Update, "__call__", lambda self, *batch: (given.append(np.stack(batch[0])), call(self, *batch)))
    trained([tiny, other(tiny, seed=1), other(tiny, lr=0.1, clip=0.5, weight_decay=0.2, warmup_steps=9, schedule="cosine")])
    zero, one, again = np.stack(given, axis=1)
    assert np.array_equal(zero, again) and zero.shape == (30, 4) and (zero != one).mean() > 0.99
    assert len(np.unique(zero)) > 115 and len(np.unique(zero, axis=0)) == 30


# --- what else is measured ----------------------------------------------------------------------------------------


def at_step(config: RunConfig, tape: Tape, vocab_size: int, step: int) -> torch.nn.Module:
    """The member's model as it was after a step."""
    model = build_model(config, vocab_size).double()
    Optimiser(model, [config], torch.device("cpu"))._point(tape.rows(steps=[step])[config.id, step][None])
    return model


def test_the_loss_on_another_text_is_that_of_the_same_weights(tiny, tmp_path):
    path = tmp_path / "other.txt"
    path.write_text("".join(f"Ω {i}: It was a dark night, and {i} of them were late.\n\n" for i in range(300)), encoding="utf-8")
    tiny = other(tiny, also_on=f"sotu+{path}", eval_every=10, steps=20, dropout=0.1)
    members, tape = [tiny, other(tiny, seed=1)], Tape()
    runs = trained(members, tape)
    corpus, text = load_corpus(tiny.corpus, "char"), load_corpus(path, "char")
    known = [letter for letter in text.tokenizer.decode(text.val) if letter in corpus.tokenizer.alphabet]
    assert 0 < len(known) < len(text.val)
    windows = torch.from_numpy(fixed_windows(corpus.tokenizer.encode("".join(known)), 12, 600).astype(np.int64))
    for config in members:
        assert set(runs[config].curve) == {"step", "tokens", "train_loss", "val_loss", "loss_on_sotu", f"loss_on_{path}"}
        model = at_step(config, tape, corpus.vocab_size, 10).eval()
        assert evaluate(model, 1, windows).mean().item() == pytest.approx(runs[config].curve[f"loss_on_{path}"][0], rel=1e-12)
        assert len(runs[config].curve["loss_on_sotu"]) == 2 and runs[config].curve["loss_on_sotu"][0] != runs[config].curve["val_loss"][0]


@pytest.mark.parametrize("arch, K", [("transformer", 1), ("transformer", 3), ("lstm", 3), ("rhn", 2)])
def test_gradient_norms_are_autograds(tiny, arch, K):
    config = other(tiny, arch=arch, dropout=0.3)
    model = build_model(config, 20, K).double()
    initialise(model, list(range(K)))
    batches = [torch.randint(20, (K, 4, 13), generator=torch.Generator().manual_seed(i)) for i in range(3)]
    small, every = gradient_norms(model, batches)
    assert model.training and all(p.grad is None for p in model.parameters())
    model.eval()
    for k in range(K):
        alone = build_model(config, 20).double().eval()
        for p, q in zip(alone.parameters(), model.parameters()):
            p.data = q.data[k:k + 1].clone()
        gradients = []
        for batch in batches:
            loss = token_losses(alone(batch[k:k + 1, :, :-1]), batch[k:k + 1, :, 1:]).mean()
            gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(alone.parameters()))]))
        assert small[k].item() == pytest.approx(np.mean([(g @ g).item() for g in gradients]), rel=1e-9)
        assert every[k].item() == pytest.approx(sum(gradients).square().sum().item() / 9, rel=1e-9)


def test_the_noise_scale_that_is_measured_is_the_true_one():
    """Of a model that knows nothing but how often each symbol occurs, on text drawn at random: its gradient is p - q, and its noise
    a symbol's. Symbols occur as q, the model says p: tr Sigma / |G|^2 is (1 - |q|^2) / |p - q|^2."""
    q, p = (torch.tensor(values, dtype=torch.float64) for values in ([0.5, 0.3, 0.15, 0.05], [0.4, 0.3, 0.2, 0.1]))

    class Frequencies(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Parameter(torch.stack([p.log(), q.log()]))

        def forward(self, tokens):
            return self.logits[:, None, None].expand(*tokens.shape, 4)

    generator, model, found = torch.Generator().manual_seed(0), Frequencies(), []
    for _ in range(40):
        symbols = torch.multinomial(q, 2 * 32 * 4 * 9, replacement=True, generator=generator).view(32, 2, 4, 9)
        found.append(torch.stack(gradient_norms(model, list(symbols))))
    small, every = torch.stack(found, dim=2).tolist()  # (2 members, 40 measurements)
    scale = gradient_noise_scale(4 * 8, small[0], 32 * 4 * 8, every[0])
    truth = ((1 - q @ q) / (p - q).square().sum()).item()
    assert scale.ok and scale.B_simple.low < truth < scale.B_simple.high and scale.B_simple.value == pytest.approx(truth, rel=0.1)
    assert scale.trace.value == pytest.approx((1 - q @ q).item(), rel=0.05)
    assert gradient_noise_scale(4 * 8, small[1], 32 * 4 * 8, every[1]).status == "no_signal"  # of a model that has learnt all


def test_measuring_the_noise_changes_nothing_else(tiny):
    """The same losses and weights to the bit; members have each their own batches, in a stack as alone."""
    tiny = other(tiny, precision="float32", dropout=0.2, average=0.2, eval_every=7)
    with_, without = Tape(), Tape()
    noisy = other(tiny, noise_batches=5, also_on="sotu")
    run, plain = trained([noisy], with_)[noisy], trained([tiny], without)[tiny]
    assert all(run.curve[name] == plain.curve[name] for name in plain.curve) and run.by_position == plain.by_position
    assert all(torch.equal(with_.rows()[noisy.id, step], weights) for (_, step), weights in without.rows().items())
    assert all(small > every > 0 for small, every in zip(run.curve["norm2_batch"], run.curve["norm2_all"], strict=True))
    members = [other(noisy, precision="float64", seed=seed, steps=steps) for seed, steps in ((0, 30), (1, 30), (2, 17))]
    together = trained(members)
    for config in members:
        alone = trained([config])[config]
        for name in ("norm2_batch", "norm2_all", "loss_on_sotu"):
            np.testing.assert_allclose(together[config].curve[name], alone.curve[name], **ROUNDING)
    assert len({run.curve["norm2_all"][0] for run in together.values()}) == 3


def test_the_gradients_compared_are_of_the_training_text_at_the_weights_of_that_step(tiny):
    tiny = other(tiny, noise_batches=3, eval_every=10, steps=20, train_tokens=500)
    tape = Tape()
    run = trained([tiny], tape)[tiny]
    corpus = load_corpus(tiny.corpus, "char")
    (starts,) = zip(*loop._noise_batches([tiny], {tiny: 500}, 10))
    assert np.shape(starts) == (3, 4) and np.max(starts) < 500 - 12 and len(np.unique(starts)) > 9
    batches = [torch.from_numpy(corpus.train[one[:, None] + np.arange(13)].astype(np.int64))[None] for one in starts]
    norms = gradient_norms(at_step(tiny, tape, corpus.vocab_size, 10), batches)
    assert [value.item() for value in norms] == pytest.approx([run.curve["norm2_batch"][0], run.curve["norm2_all"][0]], rel=1e-12)


# --- trunk and branches -------------------------------------------------------------------------------------------


@pytest.fixture
def updates(monkeypatch):
    """How many rows each update of the loop had."""
    rows, call = [], loop._Update.__call__

    def counted(self, starts, rates):
        rows.append(len(self.rates))
        assert len(starts) == len(rates) == len(self.optimiser.state["weights"]) == len(self.rates)
        call(self, starts, rates)

    monkeypatch.setattr(loop._Update, "__call__", counted)
    return rows


def steps_of_rows(configs: list[RunConfig]) -> int:
    """Updates of single rows when each trunk is trained once: its constant part, and every branch from where it parts."""
    constant: dict[tuple, int] = {}
    for config in configs:
        constant[trunk_key(config)] = max(constant.get(trunk_key(config), 0), last_constant_step(config))
    return sum(constant.values()) + sum(config.steps - last_constant_step(config) for config in configs)


def family(config: RunConfig) -> list[RunConfig]:
    """Five trainings that are one at first: three lengths, another cooldown, and no cooldown."""
    return [config, other(config, steps=14), other(config, steps=21), other(config, cooldown=0.7, eval_every=4),
            other(config, schedule="constant", steps=24)]


@pytest.mark.parametrize("arch, average", [("transformer", 0.0), ("transformer", 0.3), ("lstm", 0.3), ("rhn", 0.0)])
def test_a_branch_is_a_run_from_scratch(tiny, updates, arch, average):
    """Two trunks with five branches each and two cosines in one stack: every curve and all weights, to rounding in float64."""
    tiny = other(tiny, arch=arch, average=average, dropout=0.1, n_layer=1, warmup_steps=5)
    cosine = [other(tiny, schedule="cosine"), other(tiny, schedule="cosine", steps=20)]
    members = [cosine[0], *family(tiny), *family(other(tiny, seed=1)), cosine[1]]
    tape, reports = Tape(), []
    runs = {run.config: run for run in train(members, report=reports.append, checkpoint=tape)}
    shared = steps_of_rows(members)
    assert sum(updates) == shared < 0.7 * sum(config.steps for config in members)
    assert updates[0] == 4 and max(updates) <= len(members)
    one_step = sum(accounting.training_flops(tiny.shape(runs[tiny].vocab_size)).values()) * tiny.tokens_per_step
    assert reports[-1].flops == pytest.approx(shared * one_step)
    table = run_table(runs.values())
    assert spent(table).training == shared * one_step < table.C_total.sum() and spent(table).total == stack_cost(members)
    rows = tape.rows()
    for config in members:
        assert_same(rows, runs, config, **ROUNDING)


def test_a_branch_is_a_run_from_scratch_to_the_bit(tiny, updates):
    """Where the stack has one row throughout: the trunk ends where the branch begins."""
    branch = other(tiny, precision="float32", dropout=0.1, average=0.2, steps=20)
    trunk = other(branch, schedule="constant", steps=last_constant_step(branch), eval_every=5)
    tape = Tape()
    runs = trained([trunk, branch], tape)
    assert set(updates) == {1} and len(updates) == 20
    assert_same(tape.rows(), runs, trunk, rtol=0, atol=0)
    assert_same(tape.rows(), runs, branch, rtol=0, atol=0)


def test_a_trunk_that_diverges_takes_its_branches_along_and_no_one_else(tiny):
    bad, good = other(tiny, lr=1e308, clip=1e300), other(tiny, seed=1)
    members = [*family(bad), *family(good)]
    tape = Tape()
    runs = trained(members, tape)
    assert {runs[config].status for config in family(bad)} == {"diverged"}
    table = run_table(runs.values())
    assert 0 < spent(table[table.status == "diverged"]).training < spent(table[table.status == "complete"]).training
    rows = tape.rows()
    for config in members[5:]:
        assert_same(rows, runs, config, **ROUNDING)


def test_a_branch_that_stops_early_leaves_the_trunk_alone(tiny, updates):
    steady = other(tiny, train_tokens=20, lr=0.05, steps=40, eval_every=2, schedule="constant")
    hasty = other(steady, patience=2)
    tape = Tape()
    runs = trained([hasty, steady], tape)
    assert runs[hasty].curve["step"][-1] < 40 == runs[steady].curve["step"][-1]
    assert updates == [1] * 40
    assert spent(run_table(runs.values())).training == runs[steady].compute["C_total"]
    for config in (hasty, steady):
        assert_same(tape.rows(), runs, config, **ROUNDING)


shares = some.one_of(some.floats(0, 1), some.integers(0, 20).map(lambda n: n / 20))
schedules = some.builds(RunConfig, steps=some.integers(1, 300), cooldown=shares, warmup_steps=some.integers(0, 60), lr=some.just(0.7),
                        schedule=some.sampled_from(["cooldown", "constant", "cosine"]))


@given(schedules)
def test_the_last_constant_step_is_where_the_rate_last_does_not_depend_on_the_length(config):
    def constant(step):
        return config.lr * min(1.0, step / (config.warmup_steps + 1))

    last = last_constant_step(config)
    assert 0 <= last <= config.steps
    if config.schedule != "cosine":
        assert all(learning_rate(config, step) == constant(step) for step in range(1, last + 1))
        assert all(learning_rate(config, step) < constant(step) for step in range(last + 1, config.steps + 1))
        assert all(learning_rate(config, step) >= 0 for step in range(1, config.steps + 1))


@given(schedules, schedules)
def test_trainings_of_one_trunk_have_the_same_rates_while_both_are_on_it(one, two):
    two = other(two, warmup_steps=one.warmup_steps)
    assert (trunk_key(one) == trunk_key(two)) == (one == two or "cosine" not in (one.schedule, two.schedule))
    if trunk_key(one) == trunk_key(two) and one != two:
        for step in range(1, min(last_constant_step(one), last_constant_step(two)) + 1):
            assert learning_rate(one, step) == learning_rate(two, step)


def test_nothing_that_changes_a_training_from_its_first_step_is_shared():
    base = RunConfig(d_model=48, n_head=2)
    changes = {"corpus": "x", "corpus_sha256": "x", "tokenizer": "byte", "arch": "lstm", "d_model": 96, "n_head": 1, "precision": "bfloat16",
               "optimiser": "sgd", "schedule": "constant", "eval_ratio": 1.75, "also_on": "sotu"}
    for field in dataclasses.fields(RunConfig):
        value = changes.get(field.name, {int: 7, float: 0.77, bool: True}.get(type(field.default)))
        same = trunk_key(base) == trunk_key(other(base, **{field.name: value}))
        assert same == (field.name in {"schedule", "steps", "cooldown", "eval_ratio", "eval_every", "patience"}), field.name


@given(some.builds(RunConfig, steps=some.integers(1, 500), eval_every=some.integers(0, 60), eval_ratio=some.floats(1.01, 9)))
def test_measurements_are_in_order_and_end_at_the_last_step(config):
    steps = evaluation_steps(config)
    assert steps == sorted(set(steps)) and steps[0] >= 1 and steps[-1] == config.steps
    if config.eval_every:
        assert all(step % config.eval_every == 0 for step in steps[:-1]) and len(steps) == -(-config.steps // config.eval_every)


# --- limited data -------------------------------------------------------------------------------------------------


def test_few_tokens_are_seen_again_and_again_and_the_best_loss_is_kept(tiny, monkeypatch):
    """A run with patience is the beginning of the one without, to the measurement at which patience ends."""
    seen, call = [], loop._Update.__call__
    monkeypatch.setattr(loop._Update, "__call__", lambda self, *batch: (seen.extend(batch[0]), call(self, *batch)))
    endless = other(tiny, train_tokens=20, lr=0.05, steps=90, eval_every=3, schedule="constant")
    run = trained([endless])[endless]
    assert run.unique_tokens == 20 and run.tokens == 90 * 48 > 200 * run.unique_tokens
    assert set(np.concatenate(seen)) == set(range(20 - 12))
    losses, steps = run.curve["val_loss"], run.curve["step"]
    assert steps == list(range(3, 91, 3))
    assert run.best_loss == min(losses) < run.final_loss == losses[-1] and run.best_step == steps[losses.index(min(losses))]
    for patience in (1, 4):
        config = other(endless, patience=patience)
        stopped = trained([config])[config]
        end = next(n for n in range(len(losses)) if n - losses.index(min(losses[:n + 1])) >= patience)
        assert stopped.curve == {name: values[:end + 1] for name, values in run.curve.items()}
        assert stopped.best_step == steps[end - patience] and stopped.tokens == steps[end] * 48
        assert stopped.status == "complete"


# --- precision ----------------------------------------------------------------------------------------------------


@pytest.fixture
def logits(monkeypatch):
    """The types of the logits that a training's losses and measurements are computed from, and of these losses."""
    types, losses = set(), evaluation.token_losses

    def noted(logits, targets):
        result = losses(logits, targets)
        types.add((logits.dtype, result.dtype))
        return result

    monkeypatch.setattr(evaluation, "token_losses", noted)
    return types


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("precision, computed, kept", [
    ("float64", torch.float64, torch.float64), ("float32", torch.float32, torch.float32), ("bfloat16", torch.bfloat16, torch.float32)])
def test_precision_is_what_was_asked_for(tiny, logits, arch, precision, computed, kept):
    """bfloat16 arithmetic goes with float32 weights and moments; float64 is float64 throughout."""
    config, exact = other(tiny, arch=arch, precision=precision, steps=15, dropout=0.1), other(tiny, arch=arch, steps=15, dropout=0.1)
    tape = Tape()
    run = trained([config, other(config, seed=1)], tape)[config]
    assert logits == {(computed, kept)}
    coarser = {torch.float64: torch.float32, torch.float32: torch.bfloat16}[kept]
    for name in ("weights", "mean", "square"):
        values = tape.rows(name)[config.id, 14]
        assert values.dtype == kept and not torch.equal(values, values.to(coarser).to(kept))
    reference = trained([exact])[exact]
    error = max(abs(a - b) for a, b in zip(run.curve["val_loss"], reference.curve["val_loss"]))
    assert run.status == "complete" and math.isfinite(run.final_loss)
    low, high = {"float64": (0, 1e-11), "float32": (1e-11, 1e-4), "bfloat16": (1e-6, 0.05)}[precision]
    assert low <= error < high
