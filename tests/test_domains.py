"""Images, pairs of sentences and speech in the one loop: members are what they would be alone, a training goes on, models learn."""

import dataclasses
import functools
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from minitransformer import accounting
from minitransformer.data import examples
from minitransformer.data.sources import SOURCES
from minitransformer.errors import UserError
from minitransformer.laws.design import design
from minitransformer.models.ctc import Outputs, ctc_losses, edit_distance, letters_of, library, over_paths, transcribe
from minitransformer.models.layers import initialise
from minitransformer.models.lstm import Bidirectional
from minitransformer.models.seq2seq import translate
from minitransformer.sweeps.execute import sweep
from minitransformer.sweeps.grouping import stack_cost
from minitransformer.sweeps.spent import spent
from minitransformer.sweeps.store import RunStore, run_table
from minitransformer.sweeps.timing import measure_rates
from minitransformer.training.config import RunConfig
from minitransformer.training.coordinates import coordinate_check
from minitransformer.training.evaluation import gradient_norms
from minitransformer.training.loop import build_model, task_for, train
from minitransformer.training.optimiser import Optimiser
from minitransformer.training.tasks import measured, shape_of
from small_examples import glyphs, morse, numbers
from tape import Stopped, Tape, all_taped, trained
from terminal import command
from test_checkpoint import assert_same_bits
from test_stacks import ROUNDING, assert_same, other

DATA = {"glyphs": glyphs(), "signals": glyphs(signals=True), "numbers": numbers(), "morse": morse()}
KINDS = [("resnet", "glyphs"), ("resnet", "signals"), ("seq2seq", "numbers"), ("seq2seq", "morse"), ("ctc", "morse")]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    for name, data in DATA.items():
        monkeypatch.setitem(SOURCES, name, dataclasses.replace(SOURCES["sotu"], name=name, domain=data.domain))
    monkeypatch.setattr(examples, "load_examples", DATA.__getitem__)


def config(arch: str, corpus: str, **changes) -> RunConfig:
    return RunConfig(**{"arch": arch, "corpus": corpus, "n_layer": 1, "d_model": 4, "batch_size": 6, "steps": 20, "lr": 0.02, "warmup_steps": 3,
                        "precision": "float64", "eval_tokens": 30, **changes})


def stack(base: RunConfig, seeds: list[int]):
    """A task, its model for these seeds, and a batch that is another for each."""
    task = task_for([base], CPU)
    model = build_model(base, task.vocab_size, len(seeds), task.example)
    initialise(model, seeds)
    first = torch.stack([torch.randint(task.unique[base], (base.batch_size, 1), generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return task, model.to(torch.float64 if base.precision == "float64" else torch.float32), task.batch(first)


def member(model: torch.nn.Module, base: RunConfig, k: int) -> torch.nn.Module:
    """One member of a stack, as a model of its own."""
    shape = shape_of(base)
    alone = build_model(base, shape.vocab_size, 1, shape.example).double()
    for p, q in zip(alone.parameters(), model.parameters()):
        p.data = q.data[k:k + 1].clone()
    return alone


def model_after(base: RunConfig, tape: Tape, step: int) -> torch.nn.Module:
    """The model as it was after a step."""
    shape = shape_of(base)
    model = build_model(base, shape.vocab_size, 1, shape.example)
    Optimiser(model, [base], CPU)._point(tape.rows(steps=[step])[base.id, step][None])
    return model


# --- members ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch, corpus", KINDS)
def test_members_are_what_they_would_be_alone(arch, corpus, monkeypatch):
    """In float64, to rounding: losses and the weights after every step; one stops early, one has few examples, one diverges."""
    all_taped(monkeypatch)
    base = config(arch, corpus, dropout=0.1)
    members = [base, other(base, seed=1, weight_decay=0.3), other(base, clip=0.05, schedule="cosine", steps=13), other(base, train_tokens=9, steps=17),
               other(base, train_tokens=7, schedule="constant", eval_every=2, patience=1, lr=0.05)]
    diverging = other(base, lr=1e308, clip=1e300, eval_every=9)
    tape = Tape()
    runs = trained([diverging, *members], tape)
    assert runs[diverging].status == "diverged"
    assert [assert_same(tape.rows(), runs, one, **ROUNDING) for one in members][0] == base.steps - 1
    assert runs[members[3]].unique_tokens == 9 and len({runs[one].curve["val_loss"][0] for one in members}) == len(members)
    assert runs[base].tokens == 20 * 6 and runs[base].by_position is None and runs[base].bytes_per_token is None


@pytest.mark.parametrize("arch, corpus", KINDS)
def test_members_are_what_they_would_be_alone_in_float32(arch, corpus, monkeypatch):
    base = config(arch, corpus, precision="float32", steps=40, eval_every=39)
    members = [base, other(base, seed=1), other(base, train_tokens=50)]
    runs = trained(members)
    for one in members:
        np.testing.assert_allclose(runs[one].curve["val_loss"], trained([one])[one].curve["val_loss"], rtol=1e-3)
    assert len({run.final_loss for run in runs.values()}) == 3


@pytest.mark.parametrize("arch, corpus", KINDS)
def test_bfloat16_is_float64_to_its_precision(arch, corpus):
    losses = [trained([one])[one].final_loss for one in (config(arch, corpus, precision=precision) for precision in ("float64", "bfloat16"))]
    assert 1e-6 < abs(losses[1] / losses[0] - 1) < 0.02


@pytest.mark.parametrize("arch, corpus", KINDS)
def test_gradients_do_not_cross_members_nor_losses(arch, corpus):
    base = config(arch, corpus)
    task, model, batch = stack(base, [0, 1])
    losses = task.loss(model, batch)
    losses[0].backward()
    assert all(p.grad[1].abs().max() == 0 for p in model.parameters())
    assert all(p.grad[0].abs().max() > 0 for p in model.parameters())
    for k in range(2):
        alone = task.loss(member(model, base, k), {name: array[k:k + 1] for name, array in batch.items()})
        torch.testing.assert_close(losses[k:k + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("arch, corpus", KINDS)
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(arch, corpus, monkeypatch):
    all_taped(monkeypatch)
    monkeypatch.setattr("minitransformer.training.loop.BLOCK", 8)
    base = config(arch, corpus, precision="float32", cooldown=0.5, dropout=0.1, eval_every=4, noise_batches=2, average=0.3)
    configs = [base, other(base, steps=12), other(base, seed=1, steps=15)]
    whole = Tape()
    expected = trained(configs, whole)
    for step in (3, 9, 16):
        before = Tape(stop_at=step)
        with pytest.raises(Stopped):
            trained(configs, before)
        tape = Tape(before.state)
        left = [one for one in configs if one.steps > step]
        runs = trained(left, tape)
        assert_same_bits(tape, whole)
        assert all(runs[one].curve == expected[one].curve for one in left) and min(tape.written) == step + 1


@pytest.mark.parametrize("arch, corpus", KINDS)
@pytest.mark.parametrize("d_model", [4, 64])
def test_every_width_starts_near_guessing(arch, corpus, d_model):
    task, model, batch = stack(config(arch, corpus, d_model=d_model, precision="float32"), [0])
    guessing = math.log(task.vocab_size)
    if arch == "ctc":
        outputs = model(batch["input"], batch["frames"])
        uniform = ctc_losses(Outputs(torch.full_like(outputs.logs, -guessing), outputs.lengths), batch["target"])
        guessing = (uniform.sum() / (batch["target"] != 0).sum()).item()
    assert guessing - 0.3 < task.loss(model, batch).item() < guessing + (1.0 if arch != "ctc" else 0.5 * guessing)


@pytest.mark.parametrize("arch, corpus", KINDS)
def test_gradient_norms_are_autograds(arch, corpus):
    base = config(arch, corpus)
    task, model, batch = stack(base, [0, 1])
    small, every = gradient_norms(model, [batch], task.loss)
    alone = member(model, base, 1)
    loss = task.loss(alone, {name: array[1:] for name, array in batch.items()})
    expected = sum(g.square().sum().item() for g in torch.autograd.grad(loss.sum(), list(alone.parameters())))
    assert small[1].item() == pytest.approx(expected, rel=1e-9) == every[1].item()


# --- what is measured ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch, corpus", KINDS)
def test_all_examples_are_measured_where_there_are_fewer_than_asked_for(arch, corpus):
    """However they are cut into chunks; and of fewer, these are spread over the split."""
    base = config(arch, corpus, eval_tokens=RunConfig.eval_tokens)
    task, model, _ = stack(base, [0, 1])
    there = len(DATA[corpus].val["target"])
    assert measured(base) == there == len(task.val["target"])
    found, by_position = task.measure(model, 2)
    whole = {name: array.expand(2, *array.shape) for name, array in task.val.items()}
    torch.testing.assert_close(found["val_loss"], task.loss(model.eval(), whole).detach())
    assert by_position is None and set(found) == {"val_loss", "error", *(["error5"] if arch == "resnet" else [])}
    few = task_for([other(base, eval_tokens=3)], CPU)
    assert torch.equal(few.val["target"], task.val["target"][[0, (there - 1) // 2, there - 1]])


@pytest.mark.parametrize("arch, corpus", KINDS)
def test_only_the_training_examples_asked_for_are_seen(arch, corpus, monkeypatch):
    """With every later one replaced, a run on the first 20 is unchanged to the bit; one on more is not."""
    few, more = config(arch, corpus, train_tokens=20, steps=8), config(arch, corpus, train_tokens=60, steps=8)
    before = [trained([one])[one].curve for one in (few, more)]
    data = DATA[corpus]
    swapped = {name: np.concatenate([array[:20], np.repeat(array[:1], len(array) - 20, axis=0)]) for name, array in data.train.items()}
    monkeypatch.setitem(DATA, corpus, dataclasses.replace(data, train=swapped))
    assert [trained([one])[one].curve == curve for one, curve in zip((few, more), before)] == [True, False]


def test_the_errors_of_images_are_ranks():
    logits = torch.tensor([[[9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0]] * 4])
    batch = {"input": torch.zeros(1, 4, 1, 12, 12), "target": torch.tensor([[0, 4, 5, 9]])}
    found, count = task_for([config("resnet", "glyphs")], CPU).judge(lambda images: logits, batch)
    assert (found["error"].item(), found["error5"].item(), count.item()) == (3, 2, 4)
    assert found["val_loss"].item() == pytest.approx(sum(math.log(sum(math.exp(9 - i) for i in range(10))) - (9 - t) for t in (0, 4, 5, 9)))


# --- the models ---------------------------------------------------------------------------------------------------


def plain_resnet(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Logits (B, classes) of a single member, layer by layer with PyTorch's own modules."""
    dims = images.ndim - 2

    def convolution(layer, x, stride=1):
        fan_out = layer.bias.shape[1]
        own = (torch.nn.Conv1d, torch.nn.Conv2d)[dims - 1](x.shape[1], fan_out, 3, stride, 1, bias=False).double()
        own.weight.data = layer.weight[0].T.reshape(own.weight.shape)
        y = torch.nn.LayerNorm(own(x).shape[1:], elementwise_affine=False)(own(x))
        return y + layer.bias[0].view(-1, *[1] * dims)

    x = torch.relu(convolution(model.first, torch.nn.LayerNorm(images.shape[1:], elementwise_affine=False)(images)))
    for n, block in enumerate(model.blocks):
        halves = n in (len(model.blocks) // 3, 2 * len(model.blocks) // 3)
        y = convolution(block.second, torch.relu(convolution(block.first, x, 2 if halves else 1)))
        if halves:
            x = x[:, :, ::2] if dims == 1 else x[:, :, ::2, ::2]
            x = torch.cat([x, torch.zeros_like(x)], dim=1)
        x = torch.relu(x + y)
    return x.flatten(2).mean(dim=2) @ model.head.weight[0]


@pytest.mark.parametrize("corpus", ["glyphs", "signals"])
def test_a_resnet_is_the_papers(corpus):
    base = config("resnet", corpus, n_layer=2)
    _, model, batch = stack(base, [0, 1])
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
        for k in range(2):
            torch.testing.assert_close(model(batch["input"])[k], plain_resnet(member(model, base, k), batch["input"][k].double()), rtol=1e-9, atol=1e-9)


def test_the_paper_counts_its_own_parameters():
    """ResNet-20 on CIFAR has 0.27 million parameters, ResNet-56 0.85 million (He et al. 2016, Table 6); ResNet-20 takes 41 million multiplications."""
    for n_layer, millions in ((3, 0.27), (5, 0.46), (9, 0.85)):
        shape = accounting.Shape("resnet", n_layer, 16, 10, 128, example=accounting.Example((3, 32, 32)))
        assert sum(accounting.parameters(shape).values()) / 1e6 == pytest.approx(millions, abs=0.01)
        if n_layer == 3:
            assert accounting.forward_flops(shape)["convolution"] == pytest.approx(2 * 40.6e6, rel=0.01)


@pytest.mark.parametrize("n_layer", [1, 3])
@pytest.mark.parametrize("arch, corpus", KINDS)
def test_counts_are_the_models(arch, corpus, n_layer):
    """Parameters, and FLOPs by PyTorch's own counter."""
    base = config(arch, corpus, n_layer=n_layer, d_model=6)
    shape, (task, model, batch) = shape_of(base), stack(base, [0, 1])
    groups = accounting.parameters(shape)
    assert sum(p[0].numel() for p in model.parameters()) == sum(groups.values()) and all(len(p) == 2 for p in model.parameters())
    assert accounting.count_parameters(groups)["N"] == sum(groups.values()) - groups["head"] - groups.get("token_embedding", 0)
    task.loss(model, batch)  # whatever way is the fastest has been found now
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        task.loss(model, batch)
    assert counter.get_total_flops() == 2 * 6 * sum(accounting.forward_flops(shape).values())


def lstm_of(layer, x: torch.Tensor) -> torch.Tensor:
    """A member's layer (T, width) -> (T, width), by PyTorch's own module."""
    own = torch.nn.LSTM(x.shape[1], x.shape[1]).double()
    own.weight_ih_l0.data, own.weight_hh_l0.data = layer.input.weight[0].T, layer.recurrent.weight[0].T
    own.bias_ih_l0.data, own.bias_hh_l0.data = layer.bias[0, 0], torch.zeros_like(layer.bias[0, 0])
    return own(x)[0]


def both_ways(layer: Bidirectional, x: torch.Tensor) -> torch.Tensor:
    return lstm_of(layer.ahead, x) + lstm_of(layer.back, x.flip(0)).flip(0)


def heard(source, sound: torch.Tensor) -> torch.Tensor:
    """Frames (T, bands) -> (T / 2, width), by PyTorch's own convolution."""
    own = torch.nn.Conv1d(sound.shape[1], source.weight.shape[2], 11, 2, 5, bias=False).double()
    own.weight.data = source.weight[0].T.reshape(own.weight.shape)
    return torch.relu(own(sound.double().T[None]))[0].T


def plain(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.LayerNorm(x.shape[-1], elementwise_affine=False)(x)


@pytest.mark.parametrize("corpus", ["numbers", "morse"])
def test_attention_is_luongs_and_padding_is_not_heard(corpus):
    """One example at a time without its padding, one symbol at a time, by PyTorch's own modules."""
    base = config("seq2seq", corpus, n_layer=2)
    task, stacked, batch = stack(base, [0, 1])
    for k in range(2):
        model = member(stacked, base, k)
        logits = stacked(batch["input"], batch["target"][..., :-1], batch.get("frames"))[k]
        for b in range(base.batch_size):
            if corpus == "morse":
                x = heard(model.source, batch["input"][k, b])[:(int(batch["frames"][k, b]) + 1) // 2]
            else:
                x = model.source.weight[0, batch["input"][k, b][batch["input"][k, b] > 0]]
            for layer in model.encoder:
                x = both_ways(layer, x)
            states, said = plain(x), batch["target"][k, b, :-1]
            y = model.token.weight[0, said] + states.mean(dim=0) @ model.summary.weight[0]
            for layer in model.decoder:
                y = lstm_of(layer, y)
            for t, h in enumerate(plain(y)):
                score = torch.stack([h @ model.query.weight[0] @ state / math.sqrt(len(h)) for state in states])
                context = (score.exp() / score.exp().sum()) @ states
                expected = torch.tanh(torch.cat([context, h]) @ model.combine.weight[0]) @ model.head.weight[0]
                torch.testing.assert_close(logits[b, t], expected, rtol=1e-9, atol=1e-11)


def test_a_recogniser_hears_both_ways_and_no_padding():
    base = config("ctc", "morse", n_layer=2)
    _, stacked, batch = stack(base, [0, 1])
    outputs = stacked(batch["input"], batch["frames"])
    for k in range(2):
        model = member(stacked, base, k)
        for b, frames in enumerate(batch["frames"][k].tolist()):
            x = heard(model.source, batch["input"][k, b])[:(frames + 1) // 2]
            for layer in model.layers:
                x = both_ways(layer, x)
            assert len(x) == outputs.lengths[k, b]
            torch.testing.assert_close(outputs.logs[k, b, :len(x)], torch.log_softmax(plain(x) @ model.head.weight[0], -1), rtol=1e-9, atol=1e-11)


# --- paths and edits ----------------------------------------------------------------------------------------------


def merged(path) -> tuple[int, ...]:
    return tuple(symbol for symbol, before in zip(path, (0, *path)) if symbol and symbol != before)


def test_the_loss_of_a_recogniser_is_that_of_all_its_paths():
    """Each of the 3^5 paths written out; both ways to compute it, and their gradients."""
    generator = torch.Generator().manual_seed(0)
    logs = torch.randn(6, 5, 3, dtype=torch.float64, generator=generator).log_softmax(dim=-1).requires_grad_()
    lengths, labels = torch.tensor([5, 5, 3, 2, 2, 4]), torch.tensor([[1, 2, 0], [1, 1, 0], [2, 0, 0], [1, 1, 0], [2, 1, 0], [1, 2, 1]])
    found = []
    for n, (length, label) in enumerate(zip(lengths.tolist(), labels.tolist())):
        paths = [path for path in itertools.product(range(3), repeat=length) if merged(path) == tuple(filter(None, label))]
        found.append(-torch.stack([sum(logs[n, t, symbol] for t, symbol in enumerate(path)) for path in paths]).logsumexp(0) if paths else logs[n].sum() * 0)
    expected = torch.stack(found)
    assert expected[3] == 0 and (expected[[0, 1, 2, 4, 5]] > 0).all()
    (gradient,) = torch.autograd.grad(expected.sum(), logs, retain_graph=True)
    for way in (library, over_paths):
        losses = way(logs, lengths, labels)
        torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    (by_paths,) = torch.autograd.grad(over_paths(logs, lengths, labels).sum(), logs)
    torch.testing.assert_close(by_paths, gradient, rtol=1e-10, atol=1e-12)
    scores = torch.randn(6, 5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    of_scores = [torch.autograd.grad(way(scores.log_softmax(-1), lengths, labels).sum(), scores)[0] for way in (library, over_paths)]
    torch.testing.assert_close(*of_scores, rtol=1e-10, atol=1e-12)


def test_a_batch_of_recordings_has_one_loss_by_both_ways():
    base = config("ctc", "morse", precision="float32")
    task, model, batch = stack(base, [0, 1])
    outputs = model(batch["input"], batch["frames"])
    logs, lengths, labels = (tensor.flatten(0, 1) for tensor in (*outputs, batch["target"]))
    torch.testing.assert_close(over_paths(logs, lengths, labels), library(logs, lengths, labels), rtol=1e-5, atol=1e-5)


def test_the_likeliest_path_becomes_letters():
    paths = torch.tensor([[[0, 3, 3, 0, 3, 4, 4, 0], [5, 5, 0, 0, 0, 0, 5, 5], [3, 4, 3, 4, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]]])
    outputs = Outputs(F.one_hot(paths, 6).double(), torch.tensor([[8, 6, 3, 8]]))
    assert letters_of(outputs).tolist() == [[[3, 3, 4, 0, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0, 0, 0], [3, 4, 3, 0, 0, 0, 0, 0], [0] * 8]]


@pytest.mark.parametrize("ours, theirs, edits", [
    ("kitten", "sitting", 3), ("saturday", "sunday", 3), ("flaw", "lawn", 2), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0),
    ("intention", "execution", 5), ("ab", "ba", 2), ("aaaa", "a", 3)])
def test_known_edit_distances(ours, theirs, edits):
    rows = [[ord(letter) for letter in word] for word in (ours, theirs)]
    for more in (0, 3):  # of padding
        one, two = (torch.tensor([row + [0] * more], dtype=torch.int64) for row in rows)
        assert edit_distance(one, two).tolist() == [edits] == edit_distance(two, one).tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(some.lists(some.tuples(some.lists(some.integers(1, 3), max_size=7), some.lists(some.integers(1, 3), max_size=7)), min_size=1, max_size=5))
def test_edit_distances_side_by_side_are_those_of_the_plain_recursion(pairs):
    @functools.cache
    def distance(a: tuple, b: tuple) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))

    ours, theirs = (torch.tensor([row + [0] * (8 - len(row)) for row in rows]) for rows in zip(*pairs))
    assert edit_distance(ours, theirs).tolist() == [distance(tuple(a), tuple(b)) for a, b in pairs]


# --- learning -----------------------------------------------------------------------------------------------------


def learnt(base: RunConfig):
    return next(train([other(base, precision="float32", eval_tokens=1000)]))


@pytest.mark.parametrize("corpus, steps", [("glyphs", 250), ("signals", 300)])
def test_a_resnet_learns_to_read_digits(corpus, steps):
    run = learnt(config("resnet", corpus, d_model=8, steps=steps, batch_size=32))
    assert run.curve["error"][-1] < {"glyphs": 0.1, "signals": 0.5}[corpus] and run.curve["error5"][-1] <= run.curve["error"][-1]


def test_a_translator_learns_to_say_numbers(monkeypatch):
    """The curve's error is with the true words before each; alone it says the same."""
    all_taped(monkeypatch)
    data, tape = DATA["numbers"], Tape()
    base = config("seq2seq", "numbers", d_model=24, steps=400, batch_size=32, precision="float32", schedule="constant", eval_every=399)
    run = trained([base], tape)[base]
    assert run.curve["error"][-1] < 0.05
    model = model_after(base, tape, 399)
    said = translate(model, torch.from_numpy(data.val["input"].astype(np.int64))[None])[0]
    rows = [[symbol for symbol in row[1:] if symbol > 2] for row in data.val["target"].tolist()]
    right = [row == [symbol for symbol in ours if symbol] for row, ours in zip(rows, said.tolist())]
    assert np.mean(right) > 0.8 and said.shape[1] <= data.val["target"].shape[1]
    assert translate(model, torch.from_numpy(data.val["input"].astype(np.int64))[None], longest=1).shape == (1, 40, 1)


@pytest.mark.parametrize("arch", ["seq2seq", "ctc"])
def test_words_in_morse_code_are_understood(arch, monkeypatch):
    all_taped(monkeypatch)
    data, tape = DATA["morse"], Tape()
    base = config(arch, "morse", d_model=24, steps=400, batch_size=32, precision="float32", schedule="constant", eval_every=399, lr=0.01, eval_tokens=1000)
    run = trained([base], tape)[base]
    assert run.curve["error"][-1] < 0.1
    model, (input, frames, target) = model_after(base, tape, 399), (torch.from_numpy(data.val[name].copy())[None] for name in ("input", "frames", "target"))
    ours = transcribe(model, input, frames) if arch == "ctc" else translate(model, input, frames)
    share = (edit_distance(ours, target).sum() / (target != 0).sum()).item()
    assert share < {"seq2seq": 0.25, "ctc": 0.05}[arch] and (arch != "ctc" or share == pytest.approx(run.curve["error"][0]))


# --- sweeps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch, corpus", KINDS)
def test_a_sweep_goes_through(arch, corpus, tmp_path):
    base = config(arch, corpus, precision="float32")
    configs = [other(base, seed=seed, steps=steps) for seed in (0, 1) for steps in (10, 20)]
    store = RunStore(tmp_path)
    sweep(configs, store, workers=1, quiet=True)
    runs = list(store.runs(configs))
    assert len(runs) == 4 and all(run.status == "complete" for run in runs)
    table = run_table(runs)
    assert set(table.D) == {60, 120} and (table.curve_error.map(len) == table.curve_step.map(len)).all()
    table.to_parquet(tmp_path / "table.parquet")
    assert spent(table).total == stack_cost(configs) < table.C_total.sum() + 6 * 4 * table.C_measure.max()
    assert sweep(configs, store, workers=1, quiet=True).missing == 0
    rates = measure_rates([base], workers=1)
    assert rates.step[0] > 0 and rates.evaluation[0] > 0


def test_a_spec_of_images_goes_through_the_command_line(tmp_path):
    spec = tmp_path / "images.toml"
    spec.write_text("""title = "Images"
[base]
arch = "resnet"
corpus = "glyphs"
n_layer = 1
steps = 20
batch_size = 8
[rules]
lr = {value = 0.01, of = "d_model", at = 4, power = -0.5}
[scales.smoke]
d_model = [2, 4]
train_tokens = [100, 400]
""")
    def run(*more: str):
        done = command("sweep", str(spec), "--store", str(tmp_path / "runs"), "--scale", "smoke", "--workers", "1", *more)
        assert done.returncode == 0, done.stderr
        return done

    assert "4 runs to train" in run("--dry-run").stdout
    assert "trained 4 runs; 0 were already in" in run("--export", str(tmp_path / "runs.csv")).stderr
    assert "4 were already in" in run().stderr
    table = pd.read_csv(tmp_path / "runs.csv")
    assert set(table.unique_tokens) == {100, 400} and set(table.arch) == {"resnet"} and (table.D == 20 * 8).all()


def test_what_does_not_fit_is_one_clear_line():
    for wrong, words in ((config("resnet", "numbers"), "arch 'resnet' reads images, and 'numbers' is translation"),
                         (config("ctc", "sotu"), "arch 'ctc' reads speech, and 'sotu' is text"),
                         (config("seq2seq", "glyphs"), "arch 'seq2seq' reads translation or speech, and 'glyphs' is images"),
                         (config("transformer", "glyphs", d_model=8), "arch 'transformer' reads text, and 'glyphs' is images"),
                         (config("resnet", "glyphs", train_tokens=541), "Too few examples: the train split of 'glyphs' has 540, and 541")):
        with pytest.raises(UserError, match=words):
            trained([wrong])
        if not wrong.train_tokens:
            with pytest.raises(UserError, match=words):
                stack_cost([wrong])
    with pytest.raises(UserError, match="a design is for models of language: arch 'resnet' reads other data"):
        design(1.0, settings={"arch": "resnet", "corpus": "glyphs"})
    with pytest.raises(UserError, match="a coordinate check takes Transformers"):
        coordinate_check([config("resnet", "glyphs")])
    with pytest.raises(UserError, match="also_on is for models of language"):
        config("resnet", "glyphs", also_on="sotu")
