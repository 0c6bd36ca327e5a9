"""Attention of training steps: no further from float64 than products and a softmax, forward and back."""

import pytest
import torch
from by_kernels import (
    Function,
    compare,
    half,
    in_each_type,
    needed,
    same_with_any_number_of_threads,
    value_and_gradients,
)
from torch import Tensor

from dragoman.model.attention import AttentionConfig, AttentionContext, flash
from dragoman.model.caches.state import KV
from dragoman.model.masks.visibility import AttentionMask, Full
from dragoman.model.positions.effect import PositionEffect
from dragoman.model.positions.position import Alibi
from dragoman.model.positions.tokens import Tokens, positions_of

pytestmark = needed


def attending(mask: AttentionMask, H: int, G: int, C: int) -> Function:
    """From what three linear layers give, by whichever kernel is chosen for it."""
    attention, view = (
        AttentionConfig(heads=H, kv_heads=G, visibility=Full()).build(H * C),
        AttentionContext(mask, PositionEffect(), None),
    )

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (-1, C)).transpose(1, 2) for t in (q, k, v))
        return attention.kernel(q, KV(k, v), view)(attention, q, KV(k, v), view).transpose(1, 2).flatten(-2)

    return attend


#            B  H  G  Q    K    C
SHAPES = [
    (2, 2, 2, 5, 5, 32),
    (2, 4, 2, 33, 33, 64),
    (1, 2, 1, 16, 40, 32),
    (2, 6, 2, 70, 9, 96),
    (1, 1, 1, 150, 150, 64),
]


def sights(B: int, Q: int, K: int) -> dict[str, AttentionMask]:
    keep, some = torch.rand(B, 1, 1, K) < 0.7, torch.rand(B, 1, Q, K) < 0.3
    left, document = torch.arange(K) >= torch.arange(1, B + 1)[:, None], torch.arange(K) * 3 // K
    keep[-1], some[0, 0, 0], some[-1, 0, -1] = False, False, False
    made = {
        "all": AttentionMask(),
        "padding": AttentionMask(keep),
        "left": AttentionMask(left[:, None, None]),
        "some": AttentionMask(some),
    }
    if Q == K:
        apart = (document[:, None] == document) & torch.ones(K, K, dtype=torch.bool).tril()
        made |= {"causal": AttentionMask(causal=True), "documents": AttentionMask(apart.expand(B, 1, K, K))}
    return made


@in_each_type
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_over_the_keys_that_are_seen(monkeypatch, shape, dtype):
    B, H, G, Q, K, C = shape
    for mask in sights(B, Q, K).values():
        given = [t.to(dtype) for t in (3 * half(B, Q, H * C), half(B, K, G * C), half(B, K, G * C))]
        heads = compare(monkeypatch, attending(mask, H, G, C), *given, dtype=dtype)[0].unflatten(-1, (H, C))
        dense = mask.dense(Q, K, heads.device)
        if dense is not None:
            assert not heads[~dense.any(-1).expand(B, 1, Q)[:, 0]].any(), "who sees nothing gathers nothing"


@in_each_type
def test_attention_reads_heads_wherever_they_lie(dtype):
    lying = [
        torch.randn(2, 3, 7, 64).to(dtype),
        half(2, 7, 3, 128).to(dtype)[..., 32:96].transpose(1, 2),
        half(2, 7, 3, 64).to(dtype).transpose(1, 2),
    ]
    attention, view = (
        AttentionConfig(heads=3, visibility=Full()).build(192),
        AttentionContext(AttentionMask(causal=True), PositionEffect(), None),
    )

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return flash(attention, q, KV(k, v), view)

    upstream = half(2, 3, 64, 7).to(dtype).transpose(2, 3)
    there = value_and_gradients(attend, lying, upstream)
    here = value_and_gradients(attend, [t.contiguous() for t in lying], upstream.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(there, here, strict=True))


@in_each_type
def test_attention_keeps_nothing_of_the_size_of_its_weights(dtype):
    kept = []
    given = [half(1, 100, 64).to(dtype).requires_grad_() for _ in range(3)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        attending(AttentionMask(causal=True), 2, 2, 32)(*given)
    assert 0 < max(kept) <= given[0].numel() < 2 * 100 * 100


@in_each_type
def test_weights_that_are_dropped_biased_or_listened_to_are_written_out(dtype):
    q, view = half(1, 2, 5, 32).to(dtype).requires_grad_(), AttentionContext(AttentionMask(), PositionEffect(), None)
    plain, dropping = (AttentionConfig(heads=2, visibility=Full(), dropout=p).build(64) for p in (0.0, 0.1))
    places = positions_of(Tokens(torch.ones(1, 5, dtype=torch.long)))
    biased = AttentionContext(AttentionMask(), Alibi().build(2, 32).effect(places, places, torch.float32), None)
    assert plain.kernel(q, KV(q, q), view) is flash
    assert dropping.kernel(q, KV(q, q), view) is not flash and plain.kernel(q, KV(q, q), biased) is not flash
    plain.weights.register_forward_hook(lambda *given: None)
    assert plain.kernel(q, KV(q, q), view) is not flash


@in_each_type
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_not_lost(odd, dtype):
    given = [half(2, 5, 32).to(dtype).abs() for _ in range(3)]
    given[0][0, 3, 7] = odd
    value, _, by_k, _ = value_and_gradients(attending(AttentionMask(), 1, 1, 32), given)
    assert not value[0, 3].isfinite().any() and value[0, :3].isfinite().all() and value[1].isfinite().all()
    assert not by_k[0].isfinite().any() and by_k[1].isfinite().all()


@in_each_type
def test_the_number_of_threads_changes_no_bit(dtype):
    given, upstream = [half(3, 40, 64).to(dtype) for _ in range(3)], half(3, 40, 64)
    attend = attending(AttentionMask(causal=True), 2, 2, 32)
    same_with_any_number_of_threads(lambda: value_and_gradients(attend, given, upstream))


@in_each_type
@pytest.mark.parametrize("mask", [AttentionMask(), AttentionMask(causal=True)], ids=["all", "causal"])
def test_other_texts_of_the_batch_change_no_bit(mask, dtype):
    given, upstream = [half(3, 21, 64).to(dtype) for _ in range(3)], half(3, 21, 64)
    attend = attending(mask, 2, 2, 32)
    together = value_and_gradients(attend, given, upstream)
    alone = value_and_gradients(attend, [t[1:2] for t in given], upstream[1:2])
    assert all(torch.equal(a[1:2], b) for a, b in zip(together, alone, strict=True))
