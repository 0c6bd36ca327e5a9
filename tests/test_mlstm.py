"""mLSTM: as its paper writes it, as transformers computes it in xLSTM, at once and step by step."""

import pytest
import torch
import torch.nn.functional as F
from mixing import assert_close_in_bfloat16, mixed, padded_and_packed, shaken, stepwise
from torch import Tensor
from transformers import xLSTMConfig
from transformers.models.xlstm.modeling_xlstm import xLSTMLayer
from variants import assert_equal

from dragoman.errors import ConfigError
from dragoman.model.mlp import FeedForward
from dragoman.model.mlstm import EPS, Mlstm, MlstmLayer
from dragoman.model.norm import LayerNorm
from dragoman.model.ops.chunked_recurrence import stabilize
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig

D = 24

# ---- the cell of the paper ------------------------------------------------------------------------------


def naive(layer: MlstmLayer, x: Tensor) -> Tensor:
    """Equations 19 to 27 of the paper, token by token and without a stabilizer, in the layer of xLSTM 7B."""
    B, T, _ = x.shape
    H, C, V = layer.cfg.heads, layer.key_dim, layer.value_dim
    q, k = (f(x).view(B, T, H, C) for f in (layer.q, layer.k))
    v, o = layer.v(x).view(B, T, H, V), layer.gate(x).sigmoid()
    i, f = (layer.capped(g(x)) for g in (layer.input_gate, layer.forget_gate))
    i, f = i.exp(), f.sigmoid()
    cell, n, found = x.new_zeros(B, H, C, V), x.new_zeros(B, H, C), []
    for t in range(T):
        key, forget, read = k[:, t], f[:, t, :, None], i[:, t, :, None]
        cell = forget[..., None] * cell + read[..., None] * key[..., None] * v[:, t, :, None]
        n = forget * n + read * key
        query = q[:, t] * C**-0.5
        below = (query * n).sum(-1, keepdim=True).abs().clamp(min=1)
        found.append((query[:, :, None] @ cell)[:, :, 0] / below)
    h = F.layer_norm(torch.stack(found, dim=1), (V,), eps=layer.cfg.eps).flatten(-2) * layer.norm
    return layer.out(h * o)


@pytest.mark.parametrize("T", [1, 5, 64, 150])
def test_chunks_compute_the_cell_of_the_paper_and_its_gradients(T, monkeypatch):
    monkeypatch.setattr("dragoman.model.mlstm.EPS", 0.0)  # the paper has none
    layer, x = shaken(Mlstm(heads=3), D), torch.randn(2, T, D, dtype=torch.float64, requires_grad=True)
    found = []
    for made in (mixed, naive):
        y = made(layer, x)
        found.append((y, torch.autograd.grad(y.square().sum(), [x, *layer.parameters()], materialize_grads=True)))
    assert_equal(*found, tolerance=1e-8)


def test_gates_of_any_size_stay_in_the_range_of_numbers():
    layer = shaken(Mlstm(heads=3, gate_cap=None), D, torch.float32)
    with torch.no_grad():
        layer.input_gate.weight *= 300
    x = torch.randn(2, 100, D, requires_grad=True)
    y = mixed(layer, x)
    (by_input,) = torch.autograd.grad(y.square().sum(), x)
    assert y.isfinite().all() and by_input.isfinite().all()


@pytest.mark.parametrize("T", [1, 9])
def test_the_stabilizer_is_the_running_maximum(T):
    log_input, log_forget = torch.randn(2, 3, T) * 9, -torch.rand(2, 3, T)
    before, wanted = torch.randn(2, 3), []
    factor, log_decay, found = stabilize(log_input, log_forget, None, before, 0.0)
    m = before
    for t in range(T):
        m, earlier = torch.maximum(log_forget[..., t] + m, log_input[..., t]), m
        wanted.append((torch.exp(log_input[..., t] - m), log_forget[..., t] + earlier - m, m))
    for ours, theirs in zip((factor, log_decay, found), zip(*wanted, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs, -1), rtol=1e-4, atol=1e-5)
    assert (log_decay <= 1e-5).all() and (factor <= 1 + 1e-5).all()


# ---- transformers ---------------------------------------------------------------------------------------

SIZES = {
    "usual": (Mlstm(heads=3), {"num_heads": 3}),
    "other": (Mlstm(heads=2, key_dim=12, value_dim=18, gate_cap=5.0, eps=1e-3),
              {"num_heads": 2, "qk_dim_factor": 1.0, "v_dim_factor": 1.5, "gate_soft_cap": 5.0, "norm_eps": 1e-3}),
}  # fmt: skip
NAMES = {
    "q": "q", "k": "k", "v": "v", "gate": "ogate_preact", "input_gate": "igate_preact", "forget_gate": "fgate_preact",
    "out": "out_proj",
}  # fmt: skip


def their_layer(options: dict) -> xLSTMLayer:
    cfg = xLSTMConfig(hidden_size=D, num_hidden_layers=1, eps=EPS, autocast_kernel_dtype="float32", **options)
    layer = xLSTMLayer(cfg).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("T", [1, 7, 70])
@torch.no_grad()
def test_it_is_the_layer_of_xlstm_with_weights_in_and_out(size, T):
    cfg, options = SIZES[size]
    theirs, ours, other = their_layer(options), cfg.build(D), their_layer(options)
    for our, their in NAMES.items():
        getattr(ours, our).load_state_dict(getattr(theirs, their).state_dict())
        getattr(other, their).load_state_dict(getattr(ours, our).state_dict())
    ours.norm.copy_(theirs.multihead_norm.weight)
    other.multihead_norm.weight.copy_(ours.norm)
    x = torch.randn(2, T, D)
    torch.testing.assert_close(mixed(ours, x), theirs(x)[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(theirs(x)[0], other(x)[0])


# ---- the layer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [[1] * 9, [4, 1, 1, 3], [9]])
@torch.no_grad()
def test_step_by_step_it_is_as_at_once(pieces):
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        layer, x = shaken(Mlstm(heads=3), D, dtype), torch.randn(2, 9, D, dtype=dtype)
        assert_equal(stepwise(layer, x, pieces), mixed(layer, x), tolerance)


def test_texts_apart_by_padding_and_by_segments_are_as_alone():
    layer, x = shaken(Mlstm(heads=3), D, std=1.0), torch.randn(3, 9, D, dtype=torch.float64)
    tokens, texts = padded_and_packed()
    got = mixed(layer, x, tokens)
    for row, columns in texts:
        assert_equal(got[row, columns], mixed(layer, x[row : row + 1, columns])[0])


def test_in_bfloat16_it_learns_nearly_the_same():
    assert_close_in_bfloat16(shaken(Mlstm(heads=3), D, torch.float32), torch.randn(2, 70, D))


def test_gates_begin_as_published_in_a_model():
    block = BlockConfig(mixer=Mlstm(heads=3), mlp=FeedForward(hidden=8), norm=LayerNorm())
    model = TransformerConfig(vocab=9, dim=D, decoder=TowerConfig(depth=2, pattern=(block,))).build()
    for part in model.decoder.blocks:
        mixer = part.mixer
        assert mixer.forget_gate.bias.tolist() == [3.0, 4.5, 6.0] and mixer.input_gate.bias.tolist() == [-10.0] * 3
        assert not mixer.input_gate.weight.any() and not mixer.forget_gate.weight.any()
        assert mixer.q.weight.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "heads: 5 heads do not divide the width 24; set value_dim and key_dim"),
        ({"heads": 8}, "heads: 8 heads do not divide half of the width 24; set key_dim"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        Mlstm(**options).build(D)
