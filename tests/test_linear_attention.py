"""Linear attention: equal to its quadratic form, in chunks and step by step, whatever its features and positions."""

import pytest
import torch
import torch.nn.functional as F
from mixing import assert_close_in_bfloat16, context_of, mixed, padded_and_packed, shaken, stepwise
from tiny_reader import MODEL as READER
from tiny_run import MODEL
from torch import Tensor
from variants import assert_equal, ids

from dragoman.config import from_dict, merge, override
from dragoman.errors import ConfigError
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.encoder import EncoderConfig
from dragoman.model.feature_maps import EluFeatures, FavorFeatures, log_features
from dragoman.model.interface import Tokens
from dragoman.model.linear_attention import LinearAttention, LinearAttentionLayer
from dragoman.model.ops import chunked_recurrence
from dragoman.model.ops.chunked_recurrence import decayed_recurrence
from dragoman.model.positions.position import NoPosition
from dragoman.model.positions.rotary import Rotary
from dragoman.model.positions.tokens import positions_of
from dragoman.model.transformer import TransformerConfig

B, H, C, V, D = 2, 3, 4, 5, 24

# ---- the recurrence -------------------------------------------------------------------------------------


def naive(q, k, v, log_decay=None, starts=None, state=None):
    """The recurrence as it is defined, token by token."""
    S, found = q.new_zeros(B, H, C, V) if state is None else state, []
    for t in range(q.shape[2]):
        S = S if log_decay is None else S * log_decay[:, :, t, None, None].exp()
        S = S if starts is None else S * (~starts[:, t])[:, None, None, None]
        S = S + k[:, :, t, :, None] @ v[:, :, t, None]
        found.append(q[:, :, t, None] @ S)
    return torch.cat(found, dim=2), S


@pytest.mark.parametrize("span", [128, 4096])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("packed", [0, 1, B])
@pytest.mark.parametrize("decays", [False, True])
@pytest.mark.parametrize("T", [1, 2, 64, 65, 300])
def test_chunks_compute_the_recurrence_and_its_gradients(T, decays, packed, begun, span, monkeypatch):
    monkeypatch.setattr(chunked_recurrence, "SPAN", span)
    q, k, v = (torch.randn(B, H, T, channels, dtype=torch.float64, requires_grad=True) for channels in (C, C, V))
    log_decay = (-torch.rand(B, H, T, dtype=torch.float64) / 3).requires_grad_() if decays else None
    starts = torch.rand(packed, T) < 0.1 if packed else None
    state = torch.randn(B, H, C, V, dtype=torch.float64, requires_grad=True) if begun else None
    found = []
    for recurrence in (decayed_recurrence, naive):
        outputs, after = recurrence(q, k, v, log_decay, starts, state)
        by = [x for x in (q, k, v, log_decay, state) if x is not None]
        total = outputs.square().sum() + after.square().sum()
        found.append((outputs, after, torch.autograd.grad(total, by, materialize_grads=True)))
    assert_equal(*found)


def test_strong_decays_of_texts_that_follow_each_other_leave_numbers():
    q, k, v = (torch.randn(1, 1, 130, 2, requires_grad=True) for _ in range(3))
    log_decay = torch.full((1, 1, 130), -90.0)
    log_decay[..., 70] = 1e4  # of a state that is emptied
    outputs, _ = decayed_recurrence(q, k, v, log_decay, torch.arange(130)[None] == 70)
    assert outputs.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(outputs.sum(), [q, k, v]))


# ---- the quadratic form ---------------------------------------------------------------------------------

FEATURES = {"elu": EluFeatures(), "favor": FavorFeatures(), "9 of favor": FavorFeatures(features=9)}
every_features = pytest.mark.parametrize("features", FEATURES)
every_position = pytest.mark.parametrize("position", [NoPosition(), Rotary()], ids=["no position", "rotary"])
every_direction = pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])


def made(features: str, causal: bool, position=None, dtype=torch.float64):
    cfg = LinearAttention(heads=H, features=FEATURES[features], causal=causal, position=position or NoPosition())
    return shaken(cfg, D, dtype, std=0.2), cfg.build_position(D)


def quadratic(layer: LinearAttentionLayer, x: Tensor, scheme) -> Tensor:
    """All weights, T x T: with elu + 1 positions are in the numerator alone (RoFormer, equation 19)."""
    rotate = context_of(layer, positions_of(Tokens(torch.ones(x.shape[:2]).long())), scheme).position_effect.rotate
    q, k, v = (f(x).unflatten(-1, (H, -1)).transpose(1, 2) for f in (layer.q, layer.k, layer.v))
    if isinstance(layer.cfg.features, EluFeatures):
        q, k = F.elu(q) + 1, F.elu(k) + 1
        above, below = rotate(q) @ rotate(k).mT, q @ k.mT
    else:
        q, k = (log_features(rotate(y), layer.features.projection).exp() for y in (q, k))
        above = below = q @ k.mT
    if layer.cfg.causal:
        above, below = above.tril(), below.tril()
    return layer.out(((above @ v) / below.sum(-1, keepdim=True)).transpose(1, 2).flatten(-2))


@every_features
@every_position
@every_direction
@pytest.mark.parametrize("T", [1, 7, 150])
def test_it_equals_its_quadratic_form_and_its_gradients(features, position, causal, T):
    layer, scheme = made(features, causal, position)
    x, found = torch.randn(2, T, D, dtype=torch.float64, requires_grad=True), []
    for y in (mixed(layer, x, scheme=scheme), quadratic(layer, x, scheme)):
        found.append((y, torch.autograd.grad(y.square().sum(), [x, *layer.parameters()], materialize_grads=True)))
    assert_equal(*found, tolerance=1e-8)


@every_features
@every_position
@pytest.mark.parametrize("pieces", [[1] * 9, [4, 1, 1, 3]])
@torch.no_grad()
def test_step_by_step_it_is_as_at_once(features, position, pieces):
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        (layer, scheme), x = made(features, True, position, dtype), torch.randn(2, 9, D, dtype=dtype)
        assert_equal(stepwise(layer, x, pieces, scheme), mixed(layer, x, scheme=scheme), tolerance)


@every_features
@every_position
@every_direction
def test_texts_apart_by_padding_and_by_segments_are_as_alone(features, position, causal):
    (layer, scheme), x = made(features, causal, position), torch.randn(3, 9, D, dtype=torch.float64)
    tokens, texts = padded_and_packed()
    got = mixed(layer, x, tokens, scheme)
    for row, columns in texts:
        assert_equal(got[row, columns], mixed(layer, x[row : row + 1, columns], scheme=scheme)[0])


@every_features
@every_direction
def test_keys_of_very_different_lengths_stay_in_the_range_of_numbers(features, causal):
    layer, _ = made(features, causal, dtype=torch.float32)
    x = torch.randn(1, 90, D) * torch.linspace(0, 60, 90)[None, :, None]
    x = torch.cat([x, x.flip(1)], dim=1).requires_grad_()
    y = mixed(layer, x)
    (by_input,) = torch.autograd.grad(y.sum(), x)
    assert y.isfinite().all() and by_input.isfinite().all()


@every_features
@every_direction
def test_in_bfloat16_it_learns_nearly_the_same(features, causal):
    assert_close_in_bfloat16(made(features, causal, dtype=torch.float32)[0], torch.randn(2, 70, D))


@torch.no_grad()
def test_the_state_does_not_grow_with_the_text():
    layer, _ = made("elu", True)
    state, sizes = layer.new_state(DEFAULT), []
    for _ in range(5):
        positions = positions_of(Tokens(torch.ones(1, 1).long()))
        layer(torch.randn(1, 1, D, dtype=torch.float64), context_of(layer, positions), state)
        sizes.append(state.nbytes)
    assert len(set(sizes)) == 1 and sizes[0] > 0


# ---- configuration --------------------------------------------------------------------------------------

LINEAR = {"kind": "linear_attention", "heads": 2}


def with_mixer(mixer: dict) -> dict:
    """Both towers of a translator."""
    found = dict(MODEL)
    for name in ("encoder", "decoder"):
        (block,) = MODEL[name]["pattern"]
        found[name] = MODEL[name] | {"pattern": [block | {"mixer": mixer | {"causal": name == "decoder"}}]}
    return found


WRONG = {
    "decoder.pattern.0.mixer.causal=false": "model.decoder.pattern.0.mixer.causal: a decoder must not see what it is",
    "decoder.pattern.0.mixer.heads=3": "model.decoder.pattern.0.mixer.heads: 3 heads do not divide the width",
    "decoder.pattern.0.mixer.position=alibi": "decoder.pattern.0.mixer.position: no 'alibi' here.",
    "decoder.pattern.0.mixer.position.partial=1": "decoder.pattern.0.mixer.position",
    "encoder.pattern.0.mixer.features=relu": "encoder.pattern.0.mixer.features: no 'relu' here.",
    "decoder.pattern.0.mixer.features={kind: favor_features, features: 0}": "features.features: must be greater than 0",
    "decoder.pattern.0.mixer.position={kind: rotary, scaling: {kind: dynamic_ntk_scaling, trained: 4}}": (
        "model.decoder.pattern.0.mixer.position.scaling: dynamic_ntk_scaling rotates all keys again"
    ),
    "decoder.pattern.0.mixer.position={kind: rotary, scaling: {kind: yarn, factor: 2.0, trained: 4}}": (
        "model.decoder.pattern.0.mixer.position.scaling: yarn sharpens a softmax"
    ),
    "decoder.pattern.0.mixer={kind: linear_attention, heads: 8, head_dim: 1, position: rotary}": (
        "model.decoder.pattern.0.mixer.position: rotary needs pairs of channels"
    ),
}


@pytest.mark.parametrize("change", WRONG)
def test_a_mistake_is_named_with_its_path(change):
    with pytest.raises(ConfigError) as told:
        from_dict(TransformerConfig, override(with_mixer(LINEAR), change)).sized(vocab=9).build()
    assert WRONG[change] in str(told.value) and "\n" not in str(told.value)


@every_features
def test_a_full_one_reads_padded_texts_in_encoders(features):
    mixer = LINEAR | {"causal": False, "features": {"elu": "elu_features"}.get(features, "favor_features")}
    cfg = merge(READER, {"tower": {"pattern": [READER["tower"]["pattern"][0] | {"mixer": mixer}]}})
    cfg = merge(cfg, {"head": {"kind": "classification", "classes": 3, "pooling": "mean"}, "inputs": {"vocab": 17}})
    model = from_dict(EncoderConfig, cfg).build().double().eval()
    text = ids(2, 6)
    longer = F.pad(text, (2, 3))
    assert_equal(model(Tokens(longer, longer != 0)), model(text))
    assert_equal(model(text[:1]), model(text)[:1])
