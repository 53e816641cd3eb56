"""The models: members of a stack do not mix, the past does not see the future, every width starts sane."""

import math

import pytest
import torch

from minitransformer.models.layers import initialise
from minitransformer.models.rhn import RHN
from minitransformer.training.config import RunConfig
from minitransformer.training.evaluation import token_losses
from minitransformer.training.loop import build_model

V = 50
ARCHS = ["transformer", "lstm", "rhn"]


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


def zilly(model: RHN, text: list[int]) -> torch.Tensor:
    """Logits (T, V) of a single member by the equations of Zilly et al. 2017, §4: one matrix and one vector at a time."""
    width = model.token.weight.shape[-1]
    W = model.input.weight[0]
    W_H, W_T = W[:, :width].T, W[:, width:].T
    s, outputs = torch.zeros(width, dtype=torch.float64), []
    for token in text:
        x = model.token.weight[0, token]
        for layer, step in enumerate(model.steps, start=1):
            R, b = step.recurrent.weight[0], step.bias[0, 0]
            R_H, R_T, b_H, b_T = R[:, :width].T, R[:, width:].T, b[:width], b[width:]
            h = torch.tanh((W_H @ x if layer == 1 else 0) + R_H @ s + b_H)
            t = 1 / (1 + torch.exp(-((W_T @ x if layer == 1 else 0) + R_T @ s + b_T)))
            c = 1 - t
            s = h * t + s * c
        outputs.append(model.head.weight[0].T @ s)
    return torch.stack(outputs)


@pytest.mark.parametrize("n_layer", [1, 5])
def test_recurrent_highway_network_follows_the_equations(n_layer):
    model = stack("rhn", [3], n_layer=n_layer)
    with torch.no_grad():
        for step in model.steps:
            step.bias += torch.randn(step.bias.shape, generator=torch.Generator().manual_seed(1))
        batch = tokens(1)
        expected = torch.stack([zilly(model, text.tolist()) for text in batch[0]])
        torch.testing.assert_close(model(batch)[0], expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("d_model", [8, 64, 256])
def test_a_deep_recurrent_highway_network_starts_sane(d_model):
    """Ten micro-steps for each of 64 tokens: the state keeps its size; every micro-step and the first token hear of the loss."""
    model = stack("rhn", [0], torch.float32, n_layer=10, d_model=d_model, n_ctx=64)
    embedded = []
    model.token.register_forward_hook(lambda module, inputs, x: embedded.append(x))
    batch = tokens(1, B=2, T=65)
    logits = model(batch[..., :-1])
    losses = token_losses(logits, batch[..., 1:])
    assert math.log(V) - 0.3 < losses.mean() < math.log(V) + 0.3
    assert 0.5 < logits[:, :, -8:].std() / logits[:, :, 8:16].std() < 2.0

    by_token = torch.autograd.grad(losses[..., -1].sum(), embedded[0], retain_graph=True)[0].square().sum(dim=(0, 1, 3)).sqrt()
    assert (by_token[:-1] < 2 * by_token[-1]).all() and by_token[-17] > 1e-3 * by_token[-1] and by_token[0] > 1e-9 * by_token[-1]
    losses.mean().backward()
    by_step = [step.recurrent.weight.grad.norm().item() for step in model.steps[1:]]
    assert max(by_step) < 3 * min(by_step)


def test_seeds_differ_and_are_reproducible():
    a, b = stack("transformer", [0, 1]), stack("transformer", [0, 1])
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.token.weight[0], a.token.weight[1])


def test_tied_embeddings_have_no_head():
    assert stack("transformer", [0], tie_embeddings=True).head is None


def test_the_gradients_of_a_highway_network_are_those_of_its_definition():
    torch.manual_seed(0)
    model = RHN(2, vocab_size=7, n_layer=3, d_model=5).double()
    initialise(model, [0, 1])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    tokens = torch.randint(0, 7, (2, 4, 6))
    x = model.input(model.token(tokens))
    s, states = torch.zeros(2, 4, 5, dtype=torch.float64), []
    for token in range(6):
        for layer, step in enumerate(model.steps):
            pre = torch.bmm(s, step.recurrent.weight) + step.bias + (x[:, :, token] if layer == 0 else 0)
            h, t = pre[..., :5].tanh(), pre[..., 5:].sigmoid()
            s = h * t + s * (1 - t)
        states.append(s)
    plain = model.head(torch.stack(states, dim=2))
    torch.testing.assert_close(model(tokens), plain)
    weights = list(model.parameters())
    weighting = torch.randn_like(plain)
    for one, other in zip(torch.autograd.grad((model(tokens) * weighting).sum(), weights), torch.autograd.grad((plain * weighting).sum(), weights)):
        torch.testing.assert_close(one, other)
