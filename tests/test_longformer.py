"""Longformer: the published layer, what a token sees, and what a cache holds."""

import pytest
import torch
from sparse_layers import mixed, plain, weights_of
from transformers import LongformerConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention
from variants import D, H, V, assert_equal, ids

from dragoman.model.attention import AttentionConfig
from dragoman.model.caches.cache import Cache, Growing
from dragoman.model.longformer import Longformer
from dragoman.model.masks import sparse
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import NoNorm
from dragoman.model.positions.position import NoPosition
from dragoman.model.positions.tokens import Tokens, positions_of
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sparse, "SMALLEST_BLOCK", 1)


@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("window", [4, 8])
def test_it_is_the_published_layer(window, first):
    cfg = LongformerConfig(
        hidden_size=D, num_attention_heads=H, attention_window=[window], attention_probs_dropout_prob=0.0, vocab_size=9
    )
    theirs = LongformerSelfAttention(cfg, 0).double()
    ours = Longformer(
        heads=H,
        window=window // 2 + 1,
        global_first=first,
        global_projections=first > 0,
        bias=True,
        causal=False,
        position=NoPosition(),
    ).build(D)
    ours = ours.double()
    names = {"q": "query", "k": "key", "v": "value"}
    if first:
        names |= {"global_q": "query_global", "global_k": "key_global", "global_v": "value_global"}
    for our, their in names.items():
        getattr(ours, our).load_state_dict(getattr(theirs, their).state_dict())
    with torch.no_grad():
        ours.out.weight.copy_(torch.eye(D))
        ours.out.bias.zero_()
    x, keep = torch.randn(2, 16, D, dtype=torch.float64), torch.arange(16) < torch.tensor([[16], [11]])
    mask = torch.where(keep, 0.0, -10000.0)
    mask[:, :first] = 10000.0
    (wanted,) = theirs(
        x,
        attention_mask=mask.double(),
        is_index_masked=mask < 0,
        is_index_global_attn=mask > 0,
        is_global_attn=bool(first),
    )
    places = positions_of(Tokens(torch.ones(2, 16, dtype=torch.long), keep))
    torch.testing.assert_close(
        mixed(ours, x, places)[keep], wanted[keep], rtol=1e-6, atol=1e-6
    )  # their softmax: float32


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_a_token_sees_its_window_and_the_global_tokens_and_these_see_all(causal):
    layer = Longformer(heads=H, window=6, global_first=1, global_every=6, causal=causal, global_projections=True)
    seen = weights_of(layer.build(D).double(), torch.randn(1, 15, D, dtype=torch.float64), plain(15))[0] > 0

    def is_global(i):
        return i % 6 == 0

    wanted = [[(abs(i - j) < 6 or is_global(j)) and (i >= j or not causal) for j in range(15)] for i in range(15)]
    chosen = [i for i in range(15) if not is_global(i)]  # the weights of the others were told before
    assert (seen[:, chosen] == torch.tensor(wanted)[chosen]).all()
    assert layer.visibility.allows(plain(15), plain(15))[0].tolist() == [
        [wanted[i][j] or (is_global(i) and (i >= j or not causal)) for j in range(15)] for i in range(15)
    ]


def writer(mixer):
    block = BlockConfig(mixer=mixer, mlp=FeedForward(hidden=8), norm=NoNorm())
    return TransformerConfig(vocab=V, dim=D, decoder=TowerConfig(depth=1, pattern=(block,))).build().double()


@torch.no_grad()
def test_a_cache_holds_the_window_and_the_first_tokens():
    model, sizes = writer(Longformer(heads=H, window=4, global_first=2)), []
    text = ids(2, 40)
    state = model.start(None, Cache(layout=Growing()))
    found = []
    for token in text.split(1, dim=1):
        found.append(model.decode(token, state))
        sizes.append(state.tower.layers[0].nbytes // (2 * 2 * D * 8))
    assert sizes[-1] == 2 + 3 and sizes[10:] == [5] * 30
    assert_equal(torch.cat(found, dim=1), model(text))


@torch.no_grad()
def test_without_global_tokens_it_is_attention_with_a_window():
    sparse_one = writer(Longformer(heads=H, window=4, global_first=0, position=NoPosition()))
    dense = writer(AttentionConfig(heads=H, visibility=Causal(window=4)))
    dense.load_state_dict(sparse_one.state_dict())
    text = ids(2, 30)
    assert_equal(sparse_one(text), dense(text))
