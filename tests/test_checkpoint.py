"""Checkpoints: a training that was stopped goes on to the same bits, and what is damaged or of other configs is not believed."""

import dataclasses
import io
import json
import pickle
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from minitransformer.training import checkpoint
from minitransformer.training.checkpoint import members, pack, unpack
from minitransformer.training.config import RunConfig
from minitransformer.training.schedules import last_constant_step
from tape import Stopped, Tape, all_taped, trained


@pytest.fixture
def tiny(small_text, monkeypatch):
    all_taped(monkeypatch)
    monkeypatch.setattr("minitransformer.training.loop.BLOCK", 8)  # steps whose batches are drawn together
    return RunConfig(corpus=small_text, n_layer=1, d_model=8, n_head=2, n_ctx=12, batch_size=4, steps=24, lr=0.02, warmup_steps=3,
                     cooldown=0.5, eval_tokens=600, eval_every=3, dropout=0.1, average=0.3, weight_decay=0.1)


def other(config: RunConfig, **changes) -> RunConfig:
    return dataclasses.replace(config, **changes)


def family(tiny: RunConfig) -> list[RunConfig]:
    """A trunk to step 8, cooldowns from 9, 12 and 14, a constant rate to 18, a cosine, another seed that stops early."""
    return [tiny, other(tiny, steps=14), other(tiny, steps=20), other(tiny, schedule="constant", steps=18),
            other(tiny, schedule="cosine", steps=15), other(tiny, seed=1, train_tokens=20, lr=5 * tiny.lr, patience=1)]


def stopped(configs: list[RunConfig], step: int, state: bytes | None = None) -> Tape:
    """What is left of a training whose process is gone after this step."""
    tape = Tape(state, stop_at=step)
    with pytest.raises(Stopped):
        trained(configs, tape)
    return tape


def assert_same_bits(tape: Tape, whole: Tape) -> None:
    """That all that was written is what the training that went through wrote, times apart."""
    for step, data in tape.written.items():
        (tensors, facts), (expected, expected_facts) = unpack(data), unpack(whole.written[step])
        assert tensors.keys() == expected.keys() >= {"weights", "mean", "average", "updates", "total"}
        for name in tensors:
            assert tensors[name].dtype == expected[name].dtype and torch.equal(tensors[name], expected[name]), (step, name)
        for one, two in zip(facts["members"], expected_facts["members"], strict=True):
            assert {**one, "seconds": 0} == {**two, "seconds": 0}


# --- going on -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"arch": "lstm"}, {"arch": "rhn"}, {"arch": "lstm", "optimiser": "sgd", "lr": 1.0}])
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(tiny, changes):
    """In the trunk, just before and after a branch leaves it, in cooldowns, after members have finished, between blocks of
    batches; and stopped twice."""
    configs = family(other(tiny, **changes))
    whole = Tape()
    expected = trained(configs, whole)
    assert [last_constant_step(config) for config in configs[:3]] == [13, 8, 11]
    assert expected[configs[5]].curve["step"][-1] < 18
    for step in (1, 5, 8, 9, 12, 14, 17, 22):
        before = stopped(configs, step)
        left = [config for config in configs if config.id in members(before.state)]
        assert (len(left) < len(configs)) == (step >= 14 or step >= expected[configs[5]].curve["step"][-1])
        if step == 9:
            before = stopped(left, 11, before.state)
        tape = Tape(before.state)
        runs = trained(left, tape)
        assert set(runs) == set(left) and min(tape.written, default=23) == (12 if step == 9 else step + 1)
        assert_same_bits(tape, whole)
        for config, run in runs.items():
            assert run == dataclasses.replace(expected[config], seconds=run.seconds, utilisation=run.utilisation)
            assert run.seconds > 0 and len(run.by_position) == 12


def test_what_is_measured_besides_goes_on_too(tiny):
    """Other texts, gradients and the loss by position, at a step between two measurements; and a state from before there were any."""
    noisy = other(tiny, noise_batches=2, also_on="sotu")
    expected = trained([noisy])[noisy]
    between = stopped([noisy], 10)
    assert len(unpack(between.state)[1]["members"][0]["by_position"]) == 12
    run = trained([noisy], Tape(between.state))[noisy]
    assert run.curve == expected.curve and run.by_position == expected.by_position and len(run.curve["norm2_all"]) == 8
    tensors, facts = unpack(stopped([tiny], 2).state)
    (member,) = facts["members"]
    del member["by_position"]
    member["curve"] = {"step": [], "tokens": [], "train_loss": [], "val_loss": []}
    tape = Tape(pack(tensors, facts))
    assert trained([tiny], tape)[tiny].curve == trained([tiny])[tiny].curve and min(tape.written) == 3


def test_members_that_are_not_asked_for_are_dropped(tiny):
    """Of the state of six, two go on: as they would have, to rounding, as stacks of other sizes may round otherwise."""
    tiny = other(tiny, precision="float64")
    configs = family(tiny)
    whole = Tape()
    expected = trained(configs, whole)
    for step in (5, 10, 13):
        tape = Tape(whole.written[step])
        wanted = [configs[2], configs[0]]
        runs = trained(wanted, tape)
        assert set(runs) == set(wanted) and min(tape.written) == step + 1
        assert set(members(tape.written[step + 1])) == {config.id for config in wanted}
        for config in wanted:
            for name, values in runs[config].curve.items():
                np.testing.assert_allclose(values, expected[config].curve[name], rtol=1e-9)


def test_nothing_is_written_before_its_time(tiny, monkeypatch):
    monkeypatch.setattr("minitransformer.training.loop.CHECKPOINT_SECONDS", 3600.0)
    tape = Tape()
    trained([tiny], tape)
    assert not tape.written


# --- what is not believed -----------------------------------------------------------------------------------------


@pytest.fixture
def state(tiny) -> bytes:
    return stopped([tiny, other(tiny, seed=1)], 10).state


def starts_afresh(configs: list[RunConfig], state: bytes) -> bool:
    tape = Tape(state, stop_at=1)
    try:
        trained(configs, tape)
    except Stopped:
        return True
    return False


def test_the_state_is_believed_where_it_is_whole(tiny, state):
    assert members(state) == [tiny.id, other(tiny, seed=1).id]
    assert not starts_afresh([tiny], state)


def test_a_state_of_other_configs_is_a_fresh_start(tiny, state):
    for change in ({"seed": 2}, {"lr": 0.03}, {"steps": 25}, {"eval_every": 4}, {"d_model": 16}):
        assert starts_afresh([other(tiny, **change)], state)
    assert starts_afresh([tiny, other(tiny, seed=2)], state)


def test_a_state_of_another_shape_is_a_fresh_start(tiny, state):
    """As after a local text was changed, or from a version of the kit whose models had other parameters."""
    tensors, facts = unpack(state)
    for name in tensors:
        assert starts_afresh([tiny], pack({one: tensor for one, tensor in tensors.items() if one != name}, facts)), name
    fewer = {name: tensor[:, :-1].clone() if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    assert starts_afresh([tiny], pack(fewer, facts))
    one_row = {name: tensor[:1] if tensor.ndim else tensor for name, tensor in tensors.items()}
    assert starts_afresh([other(tiny, seed=1)], pack(one_row, facts))


def test_a_truncated_state_is_a_fresh_start(tiny, state):
    header = 8 + int.from_bytes(state[:8], "little")
    for length in (0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(state) // 2, len(state) - 1):
        with pytest.raises(ValueError):
            members(state[:length])
        assert starts_afresh([tiny], state[:length])


def test_a_state_with_bytes_changed_is_a_fresh_start(tiny, state):
    """Wherever they are: the length of the header, the header, the facts, the weights."""
    header, rng = 8 + int.from_bytes(state[:8], "little"), random.Random(0)
    places = [*range(8), *rng.sample(range(8, header), 150), *rng.sample(range(header, len(state)), 50), len(state) - 1]
    for place in places:
        damaged = bytearray(state)
        damaged[place] ^= 1 << rng.randrange(8)
        with pytest.raises(ValueError):
            members(bytes(damaged))
    assert starts_afresh([tiny], bytes(damaged))


@pytest.mark.parametrize("facts", [
    None, [], {}, "step", {"step": 3}, {"members": 5, "step": 3}, {"members": [3], "step": 3}, {"members": [{}], "step": 3},
    {"members": [{"config": 3}], "step": 3}, {"members": [{"config": {"lr": "fast"}}], "step": 3},
    {"members": [{"config": None, "row": 0}]}])
def test_facts_that_are_none_are_refused(tiny, facts):
    state = pack({"weights": torch.zeros(1, 3)}, facts)
    with pytest.raises(ValueError):
        members(state)
    assert starts_afresh([tiny], state)


def test_other_files_are_refused(tiny, state):
    tensors, facts = unpack(state)
    torch_file = io.BytesIO()
    torch.save({"weights": tensors["weights"], "facts": facts}, torch_file)
    empty, deep = ((len(header)).to_bytes(8, "little") + header for header in (b"{}", b"[" * 40000))
    for data in (b"\0" * 64, b"\xff" * 64, b"{}", empty, deep, save(tensors), json.dumps(facts).encode(), torch_file.getvalue()):
        with pytest.raises(ValueError):
            members(data)
        with pytest.raises(ValueError):
            unpack(data)
        assert starts_afresh([tiny], data)


class Trap:
    sprung = False

    @classmethod
    def spring(cls):
        cls.sprung = True

    def __reduce__(self):
        return Trap.spring, ()


def test_pickles_are_never_opened(tiny, state):
    """Neither at once nor within torch's own format; and the state that is written is none."""
    file = io.BytesIO()
    torch.save(Trap(), file)
    for data in (pickle.dumps(Trap()), file.getvalue()):
        with pytest.raises(ValueError):
            members(data)
        assert starts_afresh([tiny], data)
    assert not Trap.sprung
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(state)
    pickle.loads(pickle.dumps(Trap()))
    assert Trap.sprung


# --- the file -----------------------------------------------------------------------------------------------------


def test_the_state_is_a_safetensors_file_that_other_programs_can_read(tiny, state):
    tensors, facts = unpack(state)
    read = load(state)
    assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensors[name]) for name in read)
    assert read["weights"].shape == read["average"].shape == (2, read["weights"].shape[1]) and read["updates"] == facts["step"] == 10
    header = json.loads(state[8:8 + int.from_bytes(state[:8], "little")])
    assert json.loads(header["__metadata__"][checkpoint.FACTS]) == facts


def test_packing_is_undone_by_unpacking():
    tensors = {"a": torch.randn(3, 4).t(), "b": torch.tensor(7.0, dtype=torch.float64), "c": torch.randn(4, 4)[1::2],
               "d": torch.randn(2, 0)}
    facts = {"x": [1, 0.1, float("inf"), "é"], "members": []}
    read, read_facts = unpack(pack(tensors, facts))
    assert read_facts == facts and read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in tensors)
