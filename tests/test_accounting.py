"""Counts against Kaplan et al. 2020, Table 1, worked by hand, and against the models themselves."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minitransformer import accounting
from minitransformer.accounting import Shape
from minitransformer.models.rhn import RHN
from minitransformer.training.config import RunConfig
from minitransformer.training.loop import build_model

# GPT-2 small as in Table 1: n_layer 12, d_model 768, d_ff 3072, n_ctx 1024, vocabulary 50257.
GPT2 = Shape("transformer", n_layer=12, d_model=768, vocab_size=50257, n_ctx=1024)


def test_table_1_parameters_by_hand():
    groups = accounting.parameters(GPT2)
    assert groups["token_embedding"] + groups["position_embedding"] == (50257 + 1024) * 768 == 39_383_808
    assert groups["attention"] == 12 * 768 * 3 * 768 + 12 * 768 * 768 == 28_311_552  # QKV and project
    assert groups["feed_forward"] == 12 * 2 * 768 * 3072 == 56_623_104
    counts = accounting.count_parameters(groups)
    assert counts["N"] == 2 * 768 * 12 * (2 * 768 + 3072) == 12 * 12 * 768**2 == 84_934_656
    assert counts["N_head"] == 84_934_656 + 768 * 50257
    assert counts["N_total"] == sum(groups.values())


def test_table_1_forward_flops_by_hand():
    flops = accounting.forward_flops(GPT2)
    assert flops == {
        "embedding": 4 * 768,
        "attention": 2 * 28_311_552,
        "scores": 2 * 12 * 1024 * 768,
        "feed_forward": 2 * 56_623_104,
        "head": 2 * 768 * 50257,
    }
    without_embedding = flops["attention"] + flops["scores"] + flops["feed_forward"]
    assert without_embedding == 2 * 84_934_656 + 2 * 12 * 1024 * 768  # C_forward = 2 N + 2 n_layer n_ctx d_attn


def test_attention_width_and_feedforward_width_are_free():
    groups = accounting.parameters(Shape("transformer", 3, 64, 100, 32, d_ff=100, d_attn=48))
    assert groups["attention"] == 3 * (64 * 3 * 48 + 48 * 64)
    assert groups["feed_forward"] == 3 * 2 * 64 * 100


def test_hestness_lstm_count():
    """p = 8 h² l + 2 h v, and the biases Hestness et al. leave out."""
    groups = accounting.parameters(Shape("lstm", n_layer=2, d_model=32, vocab_size=100, n_ctx=64))
    assert groups["recurrent"] + groups["token_embedding"] + groups["head"] == 8 * 32**2 * 2 + 2 * 32 * 100
    assert groups["recurrent_bias"] == 2 * 4 * 32


def test_recurrent_highway_networks_of_zilly():
    """Zilly et al. 2017, Table 1: depth 10, 830 units and tied weights make 23 M parameters; depth 8, 890 units, untied 32 M."""
    tied = accounting.parameters(Shape("rhn", n_layer=10, d_model=830, vocab_size=10_000, n_ctx=35, tie_embeddings=True))
    assert tied["recurrent"] == 10 * 2 * 830**2 + 2 * 830**2  # R_H and R_T ten times, W_H and W_T once
    assert tied["recurrent_bias"] == 10 * 2 * 830
    assert round(sum(tied.values()) / 1e6) == 23
    untied = accounting.parameters(Shape("rhn", n_layer=8, d_model=890, vocab_size=10_000, n_ctx=35))
    assert round(sum(untied.values()) / 1e6) == 32


def test_recurrent_flops_by_hand():
    shape = Shape("rhn", n_layer=3, d_model=16, vocab_size=50, n_ctx=12)
    assert accounting.forward_flops(shape) == {"recurrent": 2 * (16 * 32 + 3 * 16 * 32), "head": 2 * 16 * 50}
    shape = Shape("lstm", n_layer=3, d_model=16, vocab_size=50, n_ctx=12)
    assert accounting.forward_flops(shape) == {"recurrent": 2 * 3 * (16 * 64 + 16 * 64), "head": 2 * 16 * 50}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n_layer", [1, 4])
def test_flops_of_a_recurrent_highway_network_by_pytorchs_own_counter(n_layer, tied):
    K, B, T = 2, 3, 5
    model = RHN(K, 50, n_layer, 16, tied).double()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(K, B, T, dtype=torch.long))
    assert counter.get_total_flops() == K * B * T * sum(accounting.forward_flops(Shape("rhn", n_layer, 16, 50, T)).values())


def test_conventions_of_compute():
    compute = accounting.count_compute(GPT2, tokens=10)
    assert compute["C"] == 6 * 84_934_656 * 10
    assert compute["C_head"] == 6 * (84_934_656 + 768 * 50257) * 10
    assert compute["C_total"] == 3 * 10 * sum(accounting.forward_flops(GPT2).values())
    assert accounting.training_flops(GPT2)["scores"] == 3 * accounting.forward_flops(GPT2)["scores"]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("arch, n_layer, d_model, d_ff", [
    ("transformer", 1, 8, 0), ("transformer", 3, 48, 64), ("lstm", 1, 8, 0), ("lstm", 2, 24, 0),
    ("rhn", 1, 8, 0), ("rhn", 5, 24, 0)])
def test_groups_sum_to_the_model(arch, n_layer, d_model, d_ff, tied):
    config = RunConfig(arch=arch, n_layer=n_layer, d_model=d_model, d_ff=d_ff, tie_embeddings=tied)
    model = build_model(config, vocab_size=70, K=2)
    assert sum(p[0].numel() for p in model.parameters()) == sum(accounting.parameters(config.shape(70)).values())
    assert all(p.shape[0] == 2 for p in model.parameters())
