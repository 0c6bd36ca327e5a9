"""Disentangled attention: the scores of DeBERTa's paper, the buckets of its release, for encoders."""

import dataclasses

import pytest
import torch
from mixing import padded_and_packed
from tiny_reader import MODEL as READER

from dragoman.config import from_dict, merge
from dragoman.errors import ConfigError
from dragoman.model.caches.state import stateless
from dragoman.model.disentangled import DisentangledAttention
from dragoman.model.encoder import EncoderConfig
from dragoman.model.init import Xavier
from dragoman.model.positions.tokens import Tokens, positions_of
from dragoman.model.tower import Tower, TowerConfig

D, H = 12, 3
CFG = DisentangledAttention(heads=H, buckets=4, reach=10)


def block(cfg):
    return {"mixer": cfg, "mlp": {"kind": "feed_forward", "hidden": 8}, "norm": "layer_norm"}


def build(cfg=CFG, depth=1) -> Tower:
    torch.manual_seed(0)
    plain = {"depth": depth, "pattern": [block({"kind": "disentangled_attention", "heads": H})]}
    tower = from_dict(TowerConfig, plain)
    pattern = tuple(dataclasses.replace(part, mixer=cfg) for part in tower.pattern)
    built = dataclasses.replace(tower, pattern=pattern).build_tower(D, None, Xavier()).double().eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return built


def mix(tower: Tower, x, tokens=None):
    """What the first mixer of a tower makes of ``x``."""
    tokens = tokens or Tokens(torch.ones(x.shape[:2], dtype=torch.long))
    positions, state = positions_of(tokens), tower.new_state(stateless)
    context = tower.contexts(x, positions, state, positions.keep)[0]
    return tower.blocks[0].mixer(x, context, state.layers[0])


def naive(tower: Tower, x):
    """Section 3.1 of the paper, pair by pair, for one text."""
    layer, scheme = tower.blocks[0].mixer, tower.schemes[0]
    table, T, C = scheme.vectors(), x.shape[1], D // H
    heads = []
    for h in range(H):
        q, k, v = (part(x[0])[:, h * C : (h + 1) * C] for part in (layer.q, layer.k, layer.v))
        q_r, k_r = (part(table)[:, h * C : (h + 1) * C] for part in (layer.q, layer.k))
        scores = torch.empty(T, T, dtype=x.dtype)
        for i in range(T):
            for j in range(T):
                row = int(scheme.bucket(torch.tensor([[[i - j]]]))) + scheme.cfg.buckets
                row = min(max(row, 0), 2 * scheme.cfg.buckets - 1)
                scores[i, j] = q[i] @ k[j] + q[i] @ k_r[row] + k[j] @ q_r[row]
        heads.append((scores / (3 * C) ** 0.5).softmax(dim=-1) @ v)
    return layer.out(torch.cat(heads, dim=-1))[None]


@pytest.mark.parametrize("cfg", [CFG, dataclasses.replace(CFG, reach=None), DisentangledAttention(heads=H)])
@pytest.mark.parametrize("T", [1, 2, 15])
def test_it_is_the_attention_of_the_paper(cfg, T):
    tower, x = build(cfg), torch.randn(1, T, D, dtype=torch.float64)
    torch.testing.assert_close(mix(tower, x), naive(tower, x))


def test_texts_apart_by_padding_and_by_segments_are_as_alone():
    tower, x, (tokens, texts) = build(), torch.randn(3, 9, D, dtype=torch.float64), padded_and_packed()
    assert tokens.segment is not None
    segment = tokens.segment.clone()
    segment[1, 7:] = 9  # attention takes an index that comes again for the same text
    got = mix(tower, x, tokens._replace(segment=segment))
    for row, columns in texts:
        torch.testing.assert_close(got[row, columns], mix(tower, x[row : row + 1, columns])[0])


def test_all_layers_share_one_table_of_distances():
    tower = build(depth=3)
    assert len(tower.schemes) == 1 and tower.schemes[0].table.weight.shape == (8, D)


@pytest.mark.parametrize("buckets, reach", [(4, 10), (6, 40), (256, 512), (32, 128)])
def test_the_buckets_are_those_of_the_release(buckets, reach):
    release = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    back = torch.arange(-600, 601)
    ours = DisentangledAttention(heads=H, buckets=buckets, reach=reach).build_position(D).bucket(back[None, None])
    theirs = release.make_log_bucket_position(back, buckets, reach)
    assert torch.equal(ours[0, 0], theirs.long())


MISTAKES = {
    "heads that do not divide the width": ({"heads": 5}, "heads: 5 heads do not divide the width 16"),
    "more buckets than distances": ({"buckets": 20, "reach": 9}, "reach: 20 buckets hold distances up to 9 one by one"),
    "a position of its own": ({"position": "rotary"}, "no 'position' here"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_path(mistake):
    changed, message = MISTAKES[mistake]
    mixer = {"kind": "disentangled_attention", "heads": 2} | changed
    cfg = merge(READER, {"inputs": {"vocab": 17}}) | {"tower": {"depth": 1, "pattern": [block(mixer)]}}
    with pytest.raises(ConfigError) as told:
        from_dict(EncoderConfig, cfg).build()
    assert message in str(told.value) and "tower.pattern.0.mixer" in str(told.value)


def test_a_decoder_does_not_take_it():
    with pytest.raises(ConfigError, match="it is for encoders; use attention with position: t5_bias"):
        CFG.check_decoder()


def test_the_table_learns():
    tower = build()
    mix(tower, torch.randn(2, 6, D, dtype=torch.float64)).square().sum().backward()
    used = tower.schemes[0].table.weight.grad.abs().sum(dim=1) > 0
    assert used.any() and not used.all()
