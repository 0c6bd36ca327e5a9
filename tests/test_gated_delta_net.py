"""The gated delta rule: as its paper writes it, as Qwen3-Next computes it, at once and step by step."""

import pytest
import torch
import torch.nn.functional as F
from mixing import assert_close_in_bfloat16, mixed, padded_and_packed, shaken, stepwise
from torch import Tensor
from transformers import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import (
    Qwen3NextGatedDeltaNet,
    torch_chunk_gated_delta_rule,
    torch_recurrent_gated_delta_rule,
)
from variants import assert_equal

from dragoman.errors import ConfigError
from dragoman.model.gated_delta_net import RATES, TIME_STEPS, GatedDeltaNet, GatedDeltaNetLayer, normalize
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.ops.delta_rule import gated_delta_rule
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig

B, H, C, V, D = 2, 3, 4, 5, 24

# ---- the rule -------------------------------------------------------------------------------------------


def naive(q, k, v, log_decay, beta, starts=None, state=None):
    """Equation 10 of the paper, token by token."""
    S, found = q.new_zeros(B, H, C, V) if state is None else state, []
    for t in range(q.shape[2]):
        if starts is not None:
            S = S * (~starts[:, t])[:, None, None, None]
        key, b = k[:, :, t, :, None], beta[:, :, t, None, None]
        transition = torch.eye(C, dtype=q.dtype) - b * key @ key.mT
        S = log_decay[:, :, t, None, None].exp() * transition @ S + b * key @ v[:, :, t, None]
        found.append(q[:, :, t, None] @ S)
    return torch.cat(found, dim=2), S


def drawn(T: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    q, k, v = (torch.randn(B, H, T, channels, dtype=dtype) for channels in (C, C, V))
    log_decay, beta = -torch.rand(B, H, T, dtype=dtype) / 3, torch.rand(B, H, T, dtype=dtype)
    return [q, normalize(k), v, log_decay, beta]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("packed", [0, 1, B])
@pytest.mark.parametrize("T", [1, 2, 63, 64, 65, 200])
def test_chunks_compute_the_rule_of_the_paper_and_its_gradients(T, packed, begun):
    given = [x.requires_grad_() for x in drawn(T)]
    starts = torch.rand(packed, T) < 0.1 if packed else None
    state = torch.randn(B, H, C, V, dtype=torch.float64, requires_grad=True) if begun else None
    found = []
    for rule in (gated_delta_rule, naive):
        outputs, after = rule(*given, starts, state)
        by = torch.autograd.grad((outputs.square().sum() + after.square().sum()), given + ([state] if begun else []))
        found.append((outputs, after, by))
    assert_equal(*found)


@pytest.mark.parametrize("theirs", [torch_chunk_gated_delta_rule, torch_recurrent_gated_delta_rule])
def test_the_rule_is_that_of_transformers(theirs):
    q, k, v, log_decay, beta = drawn(150, torch.float32)
    ours, after = gated_delta_rule(q * C**-0.5, k, v, log_decay, beta)
    given = (x.transpose(1, 2) for x in (q, k, v, log_decay, beta))
    wanted, state = theirs(*given, output_final_state=True)
    torch.testing.assert_close(ours.transpose(1, 2), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after, state, rtol=1e-5, atol=1e-5)


# ---- the layer ------------------------------------------------------------------------------------------

SIZES = {
    "as many heads": ({"heads": 3}, {"linear_num_key_heads": 3, "linear_key_head_dim": 8, "linear_value_head_dim": 8}),
    "shared keys": (
        {"heads": 4, "key_heads": 2, "key_dim": 5, "value_dim": 7, "kernel": 3, "eps": 1e-4},
        {"linear_num_key_heads": 2, "linear_key_head_dim": 5, "linear_value_head_dim": 7},
    ),
}


def pair(size: str) -> tuple[Qwen3NextGatedDeltaNet, GatedDeltaNetLayer]:
    """Their layer, with random weights, and ours without."""
    ours, theirs = SIZES[size]
    cfg = GatedDeltaNet(**ours)
    options = {"linear_num_value_heads": cfg.heads, "linear_conv_kernel_dim": cfg.kernel, "rms_norm_eps": cfg.eps}
    given = Qwen3NextConfig(hidden_size=D, num_hidden_layers=1, layer_types=["linear_attention"], **theirs | options)
    layer = Qwen3NextGatedDeltaNet(given, 0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer, cfg.build(D)


def order(cfg: GatedDeltaNet) -> tuple[Tensor, Tensor]:
    """Rows of their projections in our order: theirs are sorted by heads of keys."""
    (C, V), G = cfg.channels(D), cfg.key_heads or cfg.heads
    R = cfg.heads // G
    inputs = torch.arange(G * (2 * C + 2 * R * V)).view(G, -1).split([C, C, R * V, R * V], dim=1)
    gates = torch.arange(2 * cfg.heads).view(G, -1).split([R, R], dim=1)
    return torch.cat([part.flatten() for part in inputs]), torch.cat([part.flatten() for part in gates])


def read(theirs: Qwen3NextGatedDeltaNet, ours: GatedDeltaNetLayer) -> None:
    """Copy their weights."""
    inputs, gates = order(ours.cfg)
    with torch.no_grad():
        ours.inputs.weight.copy_(theirs.in_proj_qkvz.weight[inputs])
        ours.gates.weight.copy_(theirs.in_proj_ba.weight[gates])
        for our, their in (("convolution", "conv1d"), ("out", "out_proj")):
            getattr(ours, our).load_state_dict(getattr(theirs, their).state_dict())
        for our, their in ((ours.log_rate, theirs.A_log), (ours.time_bias, theirs.dt_bias)):
            our.copy_(their)
        ours.norm.copy_(theirs.norm.weight)


def write(ours: GatedDeltaNetLayer, theirs: Qwen3NextGatedDeltaNet) -> None:
    """Copy ours to theirs."""
    inputs, gates = order(ours.cfg)
    with torch.no_grad():
        theirs.in_proj_qkvz.weight[inputs] = ours.inputs.weight
        theirs.in_proj_ba.weight[gates] = ours.gates.weight
        for our, their in (("convolution", "conv1d"), ("out", "out_proj")):
            getattr(theirs, their).load_state_dict(getattr(ours, our).state_dict())
        for our, their in ((ours.log_rate, theirs.A_log), (ours.time_bias, theirs.dt_bias)):
            their.copy_(our)
        theirs.norm.weight.copy_(ours.norm)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("T", [1, 7, 70])
@torch.no_grad()
def test_it_is_the_layer_of_qwen3_next_with_weights_in_and_out(size, T):
    theirs, ours = pair(size)
    read(theirs, ours)
    x = torch.randn(2, T, D)
    torch.testing.assert_close(mixed(ours, x), theirs(x), rtol=1e-5, atol=1e-5)
    other, _ = pair(size)
    write(ours, other)
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("pieces", [[1] * 9, [4, 1, 1, 3], [9]])
@torch.no_grad()
def test_step_by_step_it_is_as_at_once(pieces):
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        layer, x = shaken(GatedDeltaNet(heads=3), D, dtype), torch.randn(2, 9, D, dtype=dtype)
        assert_equal(stepwise(layer, x, pieces), mixed(layer, x), tolerance)


@pytest.mark.parametrize("kernel", [1, 4])
def test_texts_apart_by_padding_and_by_segments_are_as_alone(kernel):
    layer, x = shaken(GatedDeltaNet(heads=3, kernel=kernel), D), torch.randn(3, 9, D, dtype=torch.float64)
    tokens, texts = padded_and_packed()
    got = mixed(layer, x, tokens)
    for row, columns in texts:
        assert_equal(got[row, columns], mixed(layer, x[row : row + 1, columns])[0])


def test_in_bfloat16_it_learns_nearly_the_same():
    assert_close_in_bfloat16(shaken(GatedDeltaNet(heads=3), D, torch.float32), torch.randn(2, 70, D))


def test_rates_and_time_steps_begin_as_published_in_a_model():
    block = BlockConfig(mixer=GatedDeltaNet(heads=12), mlp=FeedForward(hidden=8), norm=LayerNorm())
    model = TransformerConfig(vocab=9, dim=D, decoder=TowerConfig(depth=2, pattern=(block,))).build()
    for part in model.decoder.blocks:
        rate, step = part.mixer.log_rate.exp(), F.softplus(part.mixer.time_bias)
        assert ((rate >= RATES[0]) & (rate <= RATES[1])).all() and rate.std() > 1
        assert ((step >= 0.99 * TIME_STEPS[0]) & (step <= 1.01 * TIME_STEPS[1])).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "heads: 5 heads do not divide the width 24"),
        ({"heads": 4, "key_heads": 3}, "key_heads: 3 heads of queries and keys do not divide 4"),
        ({"heads": 5, "key_dim": 3}, "heads: 5 heads do not divide the width 24; set key_dim and value_dim"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        GatedDeltaNet(**options).build(D)
