"""Reformer: the equations of the paper in a loop, and its hashes and its attention as published."""

import pytest
import torch
from sparse_layers import mixed, plain
from transformers import ReformerConfig
from transformers.models.reformer.modeling_reformer import LSHSelfAttention
from variants import D, H, assert_equal

from dragoman.model.positions.position import NoPosition
from dragoman.model.reformer import EPS, Reformer

C = D // H


def buckets(layer, x):
    """argmax [xR; -xR], for each token, head and round."""
    rotated = torch.einsum("thc,hcrn->thrn", x, layer.rotations)
    return torch.cat([rotated, -rotated], dim=-1).argmax(dim=-1)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("sizes", [(2, 1, 3), (4, 2, 2), (4, 3, 4), (8, 4, 30)], ids=str)
def test_it_is_the_union_of_the_buckets_of_all_rounds(sizes, causal):
    many, rounds, chunk = sizes
    cfg = Reformer(heads=H, buckets=many, rounds=rounds, chunk=chunk, causal=causal, position=NoPosition())
    layer, x, T = cfg.build(D).double(), torch.randn(1, 25, D, dtype=torch.float64), 25
    shared, v = (f(x)[0].view(T, H, C) for f in (layer.q, layer.v))
    bucket, keys = buckets(layer, shared), shared * (shared.square().mean(-1, keepdim=True) + EPS).rsqrt()
    y = torch.zeros(T, H, C, dtype=torch.float64)
    for h in range(H):
        for i in range(T):
            seen = set()
            for r in range(rounds):
                same = [j for j in range(T) if bucket[j, h, r] == bucket[i, h, r]]
                seen |= set([j for j in same if j < i][-chunk:])
                seen |= set() if causal else set([j for j in same if j > i][:chunk])
            shown = sorted(seen) or [i]
            weights = (keys[shown, h] @ shared[i, h] / C**0.5).softmax(0)
            y[i, h] = weights @ v[shown, h]
    assert_equal(mixed(layer, x, plain(T))[0], layer.out(y.flatten(1)))


def published(**fields):
    return LSHSelfAttention(
        ReformerConfig(
            hidden_size=D,
            num_attention_heads=H,
            attention_head_size=C,
            hash_seed=4,
            lsh_attention_probs_dropout_prob=0.0,
            attn_layers=["lsh"],
            axial_pos_embds=False,
            **fields,
        ),
        0,
    )


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_vector_hashes_to_the_published_bucket(rounds):
    theirs = published(num_buckets=8, num_hashes=rounds)
    ours = Reformer(heads=H, buckets=8, rounds=rounds).build(D)
    x = torch.randn(2, H, 11, C)
    found = theirs._hash_vectors(x, rounds, None).view(2, H, rounds, 11) - 8 * torch.arange(rounds)[:, None]
    torch.manual_seed(4)
    ours.rotations.copy_(torch.randn(H, C, rounds, 4))
    assert torch.equal(ours.hash(x), found)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_within_one_bucket_it_is_the_published_attention(causal):
    """Where theirs does not sort: over texts no longer than a chunk. Beyond, theirs goes by chunks of fixed places."""
    theirs = published(num_buckets=2, lsh_attn_chunk_length=16, is_decoder=causal).double().eval()
    ours = Reformer(heads=H, buckets=2, rounds=1, chunk=16, causal=causal, position=NoPosition()).build(D).double()
    ours.q.load_state_dict(theirs.query_key.state_dict())
    ours.v.load_state_dict(theirs.value.state_dict())
    ours.rotations.zero_()  # all in bucket 0
    x = torch.randn(2, 13, D, dtype=torch.float64)
    assert_equal(mixed(ours, x, plain(13)), ours.out(theirs(x).hidden_states))


def test_directions_are_those_of_the_seed_in_every_precision():
    first, again, other = (Reformer(heads=H, seed=seed).build(D).rotations for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first.bfloat16().float(), first) and "rotations" in Reformer(heads=H).build(D).state_dict()


@torch.no_grad()
def test_more_rounds_find_more_of_what_full_attention_weighs():
    x = torch.randn(1, 200, D, dtype=torch.float64)
    full = Reformer(heads=H, buckets=2, rounds=1, chunk=200, position=NoPosition()).build(D).double()
    full.rotations.zero_()
    errors = []
    for rounds in (1, 4, 16):
        layer = Reformer(heads=H, buckets=4, rounds=rounds, chunk=200, position=NoPosition()).build(D).double()
        layer.load_state_dict({k: v for k, v in full.state_dict().items() if k != "rotations"}, strict=False)
        errors.append(float((mixed(layer, x, plain(200)) - mixed(full, x, plain(200))).square().mean()))
    assert errors[0] > errors[1] > errors[2]
