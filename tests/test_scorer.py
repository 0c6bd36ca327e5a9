"""The ways to score a key for a query, against their formulas written out."""

import pytest
import torch
from torch import Tensor
from variants import assert_equal

from dragoman.model.attention import AttentionConfig
from dragoman.model.masks.visibility import Full
from dragoman.model.norm import RmsNorm
from dragoman.model.scorer import Additive, CappedDot, Dot, Multiplicative, ScaledDot

H, G, C, Q, K = 4, 2, 6, 3, 5

FORMULAS = {
    "scaled": (ScaledDot(), lambda w, h, q, k: q @ k / C**0.5),
    "scaled by something else": (ScaledDot(scale=0.7), lambda w, h, q, k: 0.7 * (q @ k)),
    "unscaled": (Dot(), lambda w, h, q, k: q @ k),
    "capped (Gemma 2)": (CappedDot(cap=0.4), lambda w, h, q, k: 0.4 * torch.tanh(q @ k / C**0.5 / 0.4)),
    "capped, scaled": (CappedDot(cap=1.5, scale=0.7), lambda w, h, q, k: 1.5 * torch.tanh(0.7 * (q @ k) / 1.5)),
    "multiplicative (Luong)": (Multiplicative(), lambda w, h, q, k: q @ w[h] @ k),
    "additive (Bahdanau)": (Additive(), lambda w, h, q, k: w[h] @ torch.tanh(q + k)),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("norm", [None, RmsNorm()], ids=["raw", "normalized"])
def test_scores_are_those_of_the_formula_for_every_head(name, norm):
    scorer, formula = FORMULAS[name]
    options = {} if norm is None else {"qk_norm": norm}
    attention = AttentionConfig(heads=H, kv_heads=G, scorer=scorer, visibility=Full(), **options).build(H * C).double()
    weight = getattr(attention.scorer, "weight", None)
    x, memory = torch.randn(1, Q, H * C, dtype=torch.float64), torch.randn(1, K, H * C, dtype=torch.float64)
    got = attention.scorer.scores(attention.query(x), attention.key_value(memory).k)
    queries, keys = (part(y).view(-1, n, C) for part, y, n in ((attention.q, x, H), (attention.k, memory, G)))
    if norm is not None:
        queries, keys = normalized(queries), normalized(keys)
    for h in range(H):
        for i in range(Q):
            for j in range(K):
                assert_equal(got[0, h, i, j], formula(weight, h, queries[i, h], keys[j, h // (H // G)]))


def normalized(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
