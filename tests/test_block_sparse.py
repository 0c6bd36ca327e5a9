"""Block-sparse attention equals attention with the pattern as a mask, whatever the pattern, positions and rows."""

import pytest
import torch
from sparse_layers import assert_blocks_equal_mask, by_mask, context, mixed, plain
from variants import D, H, assert_equal

from dragoman.model import block_sparse
from dragoman.model.big_bird import BigBird
from dragoman.model.block_sparse import gathered_keys
from dragoman.model.longformer import Longformer
from dragoman.model.masks import sparse
from dragoman.model.norm import RmsNorm
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.position import Alibi, NoPosition, Shaw, T5Bias
from dragoman.model.positions.rotary import DynamicNtkScaling, Rotary
from dragoman.model.reformer import Reformer
from dragoman.model.scorer import Additive, CappedDot
from dragoman.model.sparse_transformer import FixedAttention, StridedAttention

PATTERNS = {
    "window": Longformer(window=3, global_first=0),
    "window 1": Longformer(window=1, global_first=1),
    "first tokens": Longformer(window=4, global_first=2),
    "every third": Longformer(window=3, global_first=2, global_every=3),
    "own projections": Longformer(window=4, global_every=4, global_projections=True),
    "big bird": BigBird(block=2, window=4, random_blocks=2),
    "two global blocks": BigBird(block=2, window=2, global_blocks=2, random_blocks=1, seed=9),
    "no global block": BigBird(block=3, window=3, global_blocks=0, random_blocks=1),
    "no random block": BigBird(block=2, window=4, random_blocks=0),
    "strided": StridedAttention(stride=4),
    "stride 1": StridedAttention(stride=1),
    "fixed": FixedAttention(stride=4, summary=2),
    "all summary": FixedAttention(stride=3, summary=3),
    "reformer": Reformer(buckets=4, rounds=2, chunk=3),
    "one round": Reformer(buckets=2, rounds=1, chunk=2),
    "many rounds": Reformer(buckets=6, rounds=4, chunk=2),
}
ATTENTION = [name for name, cfg in PATTERNS.items() if not isinstance(cfg, Reformer)]
OPTIONS = {
    "no position": {"position": NoPosition(), "bias": True},
    "alibi": {"position": Alibi(), "kv_heads": 2},
    "t5": {"position": T5Bias(buckets=8, reach=8, bidirectional=True), "qk_norm": RmsNorm()},
    "shaw": {"position": Shaw(reach=3), "kv_heads": 1},
    "dynamic": {"position": Rotary(scaling=DynamicNtkScaling(trained=7)), "head_dim": 8},
    "capped": {"scorer": CappedDot(cap=1.0)},
    "additive": {"scorer": Additive(), "kv_heads": 2},
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sparse, "SMALLEST_BLOCK", 1)


def with_fields(cfg, **fields):
    return type(cfg)(**{name: value for name, value in vars(cfg).items() if name != "kind"} | {"heads": H} | fields)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("name", PATTERNS)
def test_blocks_equal_the_mask_in_outputs_and_gradients(name, causal, monkeypatch):
    cfg = with_fields(PATTERNS[name], causal=causal)
    assert_blocks_equal_mask(cfg, 29)
    monkeypatch.setattr(block_sparse, "PIECE", 40)  # in many pieces
    assert_blocks_equal_mask(cfg, 22)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["every third", "big bird", "strided", "fixed"])
def test_positions_and_scorers_act_in_blocks_as_in_attention(name, options):
    assert_blocks_equal_mask(with_fields(PATTERNS[name], **OPTIONS[options]), 21)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_text_longer_than_what_it_gathers_goes_by_blocks(name):
    layer = with_fields(PATTERNS[name]).build(D)
    if isinstance(PATTERNS[name], Reformer):
        assert layer.goes_by_blocks(context(layer, plain(40), RelativeScheme()), 40)
        return
    longest = next((T for T in range(1, 200) if gathered_keys(layer.visibility, T) < T), None)
    assert longest is not None or name in ("stride 1", "all summary")
    if longest:
        assert context(layer, plain(longest), RelativeScheme()).plan is not None
        assert context(layer, plain(longest - 1), RelativeScheme()).plan is None


WHOLE = {
    "longformer": Longformer(window=20, global_first=0),
    "big bird": BigBird(block=5, window=20, global_blocks=0, random_blocks=0),
    "strided": StridedAttention(stride=20),
    "fixed": FixedAttention(stride=20, summary=1),
}


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("name", WHOLE)
def test_a_window_as_long_as_the_text_is_full_attention(name, causal):
    cfg = with_fields(WHOLE[name], causal=causal)
    layer, dense = cfg.build(D).double(), cfg.attention(D).build(D).double()
    dense.load_state_dict(layer.state_dict())
    x, scheme = torch.randn(2, 20, D, dtype=torch.float64), cfg.build_position(D)
    assert_equal(mixed(layer, x, plain(20), scheme), mixed(dense, x, plain(20), scheme))


@pytest.mark.parametrize("name", ATTENTION)
def test_dropout_is_the_same_when_a_piece_is_computed_again(name, monkeypatch):
    monkeypatch.setattr(block_sparse, "PIECE", 40)
    layer = with_fields(PATTERNS[name], dropout=0.3).build(D).double().train()
    x = torch.randn(1, 25, D, dtype=torch.float64, requires_grad=True)

    def loss(at):
        torch.manual_seed(3)
        return mixed(layer, at, plain(25)).square().sum()

    (found,) = torch.autograd.grad(loss(x), x)
    step = torch.randn_like(x) * 1e-6
    slope = (loss(x + step) - loss(x - step)) / 2
    torch.testing.assert_close((found * step).sum(), slope, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize("name", PATTERNS)
def test_no_matrix_of_tokens_by_tokens_is_made(name, monkeypatch):
    """What autograd keeps grows with the length, not with its square."""
    cfg = {"every third": Longformer(window=16, global_every=16)}.get(name, PATTERNS[name])
    if name in ("stride 1", "all summary"):
        return
    layer, kept = with_fields(cfg).build(D), []
    monkeypatch.setattr(block_sparse, "PIECE", 2**11)
    for T in (512, 1024):
        stored: dict[int, int] = {}

        def keep(t):
            stored[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()  # noqa: B023
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            mixed(layer, torch.randn(1, T, D, requires_grad=True), plain(T))
        kept.append(sum(stored.values()))
    assert kept[1] < 2.3 * kept[0]


@pytest.mark.parametrize("name", PATTERNS)
def test_blocks_equal_the_mask_in_bfloat16_but_for_rounding(name):
    layer = with_fields(PATTERNS[name], heads=2, head_dim=32).build(D)  # heads that the kernels in C take
    x = torch.randn(2, 30, D)
    with torch.autocast("cpu", torch.bfloat16):
        found = mixed(layer, x, plain(30))
        masked = by_mask(layer, x, plain(30))
    assert found.isfinite().all() and (found - masked).abs().mean() < 0.05
