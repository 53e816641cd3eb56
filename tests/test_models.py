"""The models: members of a stack do not mix, the past does not see the future, every width starts sane."""

import math

import pytest
import torch

from minitransformer.models.layers import initialise
from minitransformer.training.config import RunConfig
from minitransformer.training.evaluation import token_losses
from minitransformer.training.loop import build_model

V = 50
ARCHS = ["transformer", "lstm"]


def stack(arch: str, seeds: list[int], dtype=torch.float64, **shape):
    config = RunConfig(arch=arch, **{"d_model": 16, "n_head": 2, "n_ctx": 12, "n_layer": 2, **shape})
    model = build_model(config, V, len(seeds))
    initialise(model, seeds)
    return model.to(dtype)


def tokens(K: int, B: int = 3, T: int = 12) -> torch.Tensor:
    return torch.randint(V, (K, B, T), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("arch", ARCHS)
def test_a_member_computes_what_it_would_alone(arch, tied):
    batch = tokens(3)
    together = stack(arch, [5, 6, 7], tie_embeddings=tied)(batch)
    assert together.shape == (3, 3, 12, V)
    for k, seed in enumerate([5, 6, 7]):
        alone = stack(arch, [seed], tie_embeddings=tied)(batch[k:k + 1])
        torch.testing.assert_close(together[k:k + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("arch", ARCHS)
def test_gradients_do_not_cross_members(arch):
    model = stack(arch, [0, 1])
    batch = tokens(2)
    token_losses(model(batch[..., :-1]), batch[..., 1:]).mean(dim=(1, 2))[0].backward()
    assert all(p.grad[1].abs().max() == 0 for p in model.parameters())
    assert all(p.grad[0].abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize("arch", ARCHS)
def test_the_past_does_not_see_the_future(arch):
    model, batch = stack(arch, [0]), tokens(1)
    changed = batch.clone()
    changed[..., 7] = (changed[..., 7] + 1) % V
    before, after = model(batch), model(changed)
    torch.testing.assert_close(before[..., :7, :], after[..., :7, :])
    assert (before[..., 7:, :] - after[..., 7:, :]).abs().amax(dim=-1).min() > 0


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("d_model", [8, 64, 1024])
def test_every_width_starts_near_guessing(arch, d_model):
    model = stack(arch, [0], torch.float32, d_model=d_model, n_head=max(1, d_model // 16), n_ctx=8)
    batch = tokens(1, B=4, T=9)
    loss = token_losses(model(batch[..., :-1]), batch[..., 1:]).mean().item()
    assert math.log(V) - 0.3 < loss < math.log(V) + 1.0
    assert 0.02 < model(batch[..., :-1]).std() < 2.0


def test_seeds_differ_and_are_reproducible():
    a, b = stack("transformer", [0, 1]), stack("transformer", [0, 1])
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.token.weight[0], a.token.weight[1])


def test_tied_embeddings_have_no_head():
    assert stack("transformer", [0], tie_embeddings=True).head is None
