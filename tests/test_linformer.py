"""Linformer: attention to learned sums of a text, as its paper writes it, for encoders of a fixed length."""

import json

import pytest
import torch
import torch.nn.functional as F
from mixing import assert_close_in_bfloat16, mixed, padded_and_packed, shaken
from tiny_reader import MODEL as READER
from tiny_run import MODEL
from torch import Tensor
from variants import assert_equal, ids

from dragoman.config import from_dict, merge, override, to_dict
from dragoman.errors import ConfigError, DataError
from dragoman.model.encoder import EncoderConfig
from dragoman.model.interface import Tokens
from dragoman.model.linformer import Linformer, LinformerLayer
from dragoman.model.transformer import TransformerConfig

D, H, LENGTH, RANK = 24, 3, 12, 4
LINFORMER = {"kind": "linformer", "heads": 2, "length": LENGTH, "rank": RANK}
every_sharing = pytest.mark.parametrize("shared", [True, False], ids=["shared", "apart"])


def naive(layer: LinformerLayer, x: Tensor) -> Tensor:
    """Equation 7 of the paper, for one text."""
    T, (E, values) = x.shape[1], (layer.sums[0], layer.sums[-1])
    heads = []
    for q, k, v in zip(*(f(x[0]).chunk(H, dim=-1) for f in (layer.q, layer.k, layer.v)), strict=True):
        weights = (q @ (E[:, :T] @ k).T / (D / H) ** 0.5).softmax(dim=-1)
        heads.append(weights @ (values[:, :T] @ v))
    return layer.out(torch.cat(heads, dim=-1))[None]


@every_sharing
@pytest.mark.parametrize("T", [1, 7, LENGTH])
def test_it_is_the_attention_of_the_paper(T, shared):
    layer = shaken(Linformer(heads=H, length=LENGTH, rank=RANK, shared=shared), D)
    x = torch.randn(1, T, D, dtype=torch.float64)
    assert_equal(mixed(layer, x), naive(layer, x))


@every_sharing
def test_texts_apart_by_padding_and_by_segments_are_as_alone(shared):
    layer = shaken(Linformer(heads=H, length=LENGTH, rank=RANK, shared=shared), D)
    x, (tokens, texts) = torch.randn(3, 9, D, dtype=torch.float64), padded_and_packed()
    got = mixed(layer, x, tokens)
    for row, columns in texts:
        assert_equal(got[row, columns], mixed(layer, x[row : row + 1, columns])[0])


def test_a_row_of_many_texts_may_be_longer_than_any_of_them():
    layer = shaken(Linformer(heads=H, length=5, rank=RANK), D)
    x = torch.randn(1, 12, D, dtype=torch.float64)
    packed = Tokens(torch.ones(1, 12).long(), segment=torch.tensor([[0] * 5 + [1] * 3 + [2] * 4]))
    assert_equal(mixed(layer, x, packed), torch.cat([mixed(layer, part) for part in x.split([5, 3, 4], dim=1)], dim=1))


def test_with_as_many_sums_as_tokens_it_can_be_attention():
    layer = shaken(Linformer(heads=H, length=7, rank=7), D)
    with torch.no_grad():
        layer.sums[0].copy_(torch.eye(7))
    x = torch.randn(2, 7, D, dtype=torch.float64)
    q, k, v = (f(x).unflatten(-1, (H, -1)).transpose(1, 2) for f in (layer.q, layer.k, layer.v))
    assert_equal(mixed(layer, x), layer.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)))


def test_in_bfloat16_it_learns_nearly_the_same():
    assert_close_in_bfloat16(shaken(Linformer(heads=H, length=70), D, torch.float32), torch.randn(2, 70, D))


# ---- configuration --------------------------------------------------------------------------------------


def reader(**mixer) -> EncoderConfig:
    block = READER["tower"]["pattern"][0] | {"mixer": LINFORMER | mixer}
    cfg = merge(READER, {"tower": {"pattern": [block]}, "inputs": {"vocab": 17}})
    return from_dict(EncoderConfig, merge(cfg, {"head": {"kind": "classification", "classes": 3, "pooling": "mean"}}))


def test_a_text_longer_than_the_sums_is_refused_in_one_line_and_commands_know_the_limit():
    model = reader(length=6).build()
    assert model.max_length == 6
    padded = F.pad(ids(2, 6), (0, 3))
    assert model(Tokens(padded, padded != 0)).isfinite().all()  # padding is not counted
    with pytest.raises(DataError, match=r"mixer\.length: a text of 7 tokens, and linformer sums up 6: shorten") as told:
        model(ids(2, 7))
    assert "\n" not in str(told.value)


def test_the_least_of_all_limits_counts():
    tower = READER["tower"] | {
        "depth": 2,
        "pattern": [READER["tower"]["pattern"][0] | {"mixer": LINFORMER | {"length": n}} for n in (9, 5)],
    }
    cfg = merge(READER, {"inputs": {"vocab": 17, "position": {"kind": "learned", "length": 7}}}) | {"tower": tower}
    assert from_dict(EncoderConfig, cfg).build().max_length == 5


WRONG = {
    "decoder.pattern.0.mixer={}": "model.decoder.pattern.0.mixer.kind: linformer sums up whole texts, and a decoder",
    "encoder.pattern.0.mixer={heads: 3}": "model.encoder.pattern.0.mixer.heads: 3 heads do not divide the width 8",
    "encoder.pattern.0.mixer={rank: 0}": "encoder.pattern.0.mixer.rank: must be greater than 0",
    "encoder.pattern.0.mixer={position: rotary}": "encoder.pattern.0.mixer: no 'position' here.",
    "encoder.pattern.0.mixer={length: null}": "encoder.pattern.0.mixer.length: expected a whole number",
}


@pytest.mark.parametrize("change", WRONG)
def test_a_mistake_is_named_with_its_path(change):
    path = change.partition("=")[0]
    plain = to_dict(from_dict(TransformerConfig, MODEL))
    with_linformer = override(plain, f"{path}={json.dumps(LINFORMER)}")
    with pytest.raises(ConfigError) as told:
        from_dict(TransformerConfig, override(with_linformer, change)).sized(vocab=9).build()
    assert WRONG[change] in str(told.value) and "\n" not in str(told.value)
