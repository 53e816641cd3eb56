"""Images, pairs of sentences and speech in the one loop: members are what they would be alone, a training goes on, models learn."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from minitransformer import accounting
from minitransformer.data import examples
from minitransformer.data.sources import SOURCES
from minitransformer.errors import UserError
from minitransformer.models.layers import initialise
from minitransformer.sweeps.execute import sweep
from minitransformer.sweeps.grouping import stack_cost
from minitransformer.sweeps.spent import spent
from minitransformer.sweeps.store import RunStore, run_table
from minitransformer.sweeps.timing import measure_rates
from minitransformer.training.config import RunConfig
from minitransformer.training.evaluation import gradient_norms
from minitransformer.training.loop import build_model, task_for, train
from minitransformer.training.tasks import load_data, measured, shape_of
from small_examples import glyphs, morse, numbers
from tape import Stopped, Tape, all_taped, trained
from test_checkpoint import assert_same_bits
from test_stacks import ROUNDING, assert_same, other

DATA = {"glyphs": glyphs(), "signals": glyphs(signals=True), "numbers": numbers(), "morse": morse()}
KINDS = [("resnet", "glyphs"), ("resnet", "signals")]
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


# --- members ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch, corpus", KINDS)
def test_members_are_what_they_would_be_alone(arch, corpus, monkeypatch):
    """In float64, to rounding: losses and the weights after every step; one stops early, one has few examples, one diverges."""
    all_taped(monkeypatch)
    base = config(arch, corpus, dropout=0.1)
    members = [base, other(base, seed=1, weight_decay=0.3), other(base, clip=0.05, schedule="cosine", steps=13), other(base, train_tokens=9, steps=17),
               other(base, train_tokens=7, schedule="constant", eval_every=2, patience=1, lr=0.05)]
    diverging = other(base, lr=1e300, clip=1e300, eval_every=9)
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
    assert math.log(task.vocab_size) - 0.3 < task.loss(model, batch).item() < math.log(task.vocab_size) + 1.0


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
    """ResNet-20 on CIFAR has 0.27 million parameters, ResNet-56 0.85 million (He et al. 2016, Table 6); and 41 million products (0.04 GFLOPs)."""
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
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        task.loss(model, batch)
    assert counter.get_total_flops() == 2 * 6 * sum(accounting.forward_flops(shape).values())


# --- learning -----------------------------------------------------------------------------------------------------


def learnt(base: RunConfig):
    return next(train([other(base, precision="float32", eval_tokens=1000)]))


@pytest.mark.parametrize("corpus, steps", [("glyphs", 150), ("signals", 300)])
def test_a_resnet_learns_to_read_digits(corpus, steps):
    run = learnt(config("resnet", corpus, d_model=8, steps=steps, batch_size=32))
    print(run.curve)
    assert run.curve["error"][-1] < {"glyphs": 0.1, "signals": 0.4}[corpus] and run.curve["error5"][-1] <= run.curve["error"][-1]


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
    with pytest.raises(UserError, match="also_on is for models of language"):
        config("resnet", "glyphs", also_on="sotu")
