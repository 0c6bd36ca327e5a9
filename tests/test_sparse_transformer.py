"""Sparse Transformer: the sets of the paper, written out, and what a cache of the fixed pattern holds."""

import pytest
import torch
from sparse_layers import mixed, plain
from variants import D, H, V, assert_equal, ids

from dragoman.model.caches.cache import Cache, Growing
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import NoNorm
from dragoman.model.positions.position import NoPosition
from dragoman.model.sparse_transformer import FixedAttention, StridedAttention
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig


def strided(i, l):  # section 4.3: A1 = {t, ..., i} for t = max(0, i - l), A2 = {j : (i - j) mod l = 0}
    return set(range(max(0, i - l), i + 1)) | {j for j in range(i + 1) if (i - j) % l == 0}


def fixed(i, l, c):  # A1 = {j : floor(j / l) = floor(i / l)}, A2 = {j : j mod l in {l - c, ..., l - 1}}
    return {j for j in range(i + 1) if j // l == i // l or j % l >= l - c}


CASES = {
    "strided": (StridedAttention(heads=H, stride=4, position=NoPosition()), lambda i: strided(i, 4)),
    "strided, 7": (StridedAttention(heads=H, stride=7, position=NoPosition()), lambda i: strided(i, 7)),
    "fixed": (FixedAttention(heads=H, stride=6, summary=2, position=NoPosition()), lambda i: fixed(i, 6, 2)),
    "fixed, 1": (FixedAttention(heads=H, stride=5, summary=1, position=NoPosition()), lambda i: fixed(i, 5, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_token_attends_to_the_sets_of_the_paper(name):
    cfg, sees = CASES[name]
    layer, x = cfg.build(D).double(), torch.randn(1, 26, D, dtype=torch.float64)
    q, k, v = (f(x)[0].view(26, H, -1) for f in (layer.q, layer.k, layer.v))
    rows = []
    for i in range(26):
        shown = sorted(sees(i))
        weights = torch.einsum("hc,jhc->hj", q[i], k[shown]).div((D // H) ** 0.5).softmax(-1)
        rows.append(torch.einsum("hj,jhc->hc", weights, v[shown]).flatten())
    assert_equal(mixed(layer, x, plain(26))[0], layer.out(torch.stack(rows)))


@pytest.mark.parametrize("name", CASES)
def test_two_layers_connect_every_token_with_all_before_it(name):
    _, sees = CASES[name]
    for i in range(60):
        assert set().union(*(sees(j) for j in sees(i))) == set(range(i + 1))


@torch.no_grad()
def test_a_cache_of_the_fixed_pattern_holds_the_own_block_and_the_summaries():
    mixer = FixedAttention(heads=H, stride=6, summary=2)
    block = BlockConfig(mixer=mixer, mlp=FeedForward(hidden=8), norm=NoNorm())
    model = TransformerConfig(vocab=V, dim=D, decoder=TowerConfig(depth=1, pattern=(block,))).build().double()
    text, found, sizes = ids(2, 40), [], []
    state = model.start(None, Cache(layout=Growing()))
    for token in text.split(1, dim=1):
        found.append(model.decode(token, state))
        sizes.append(state.tower.layers[0].nbytes // (2 * 2 * D * 8))
    assert sizes == [2 * (n // 6) + n % 6 for n in range(1, 41)]
    assert_equal(torch.cat(found, dim=1), model(text))
