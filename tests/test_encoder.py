"""Models that read and write nothing: inputs, heads and two towers, each against what it is said to compute."""

import dataclasses
import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from variants import D, H, assert_equal, gradients

from dragoman.config import from_dict, to_dict
from dragoman.errors import ConfigError, DataError
from dragoman.model.attention import AttentionConfig
from dragoman.model.caches.state import stateless
from dragoman.model.contrastive import TwoTowersConfig, contrastive_loss
from dragoman.model.encoder import Encoder, EncoderConfig
from dragoman.model.families import ModelConfig
from dragoman.model.heads import (
    AttentionPoolingHead,
    ClassificationHead,
    First,
    Last,
    MaskedLanguageHead,
    Mean,
    SentenceHead,
    SpansHead,
    TaggingHead,
)
from dragoman.model.inputs import FixedLength, FrameConvolution, FrameInput, PatchInput, TokenInput
from dragoman.model.interface import EncoderModel, Frames, Tokens
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.moe import Mixture
from dragoman.model.norm import LayerNorm, RmsNorm
from dragoman.model.positions.grid import LearnedGrid, NoGrid, SinusoidalGrid
from dragoman.model.positions.position import Alibi, Learned, Sinusoidal, T5Bias
from dragoman.model.positions.rotary import Rotary, RotaryGrid
from dragoman.model.positions.tokens import Positions
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig

V, C, T = 19, 5, 6


def tower(mlp: Any = None, placement: str = "pre", norm: Any = None, **mixer: Any) -> TowerConfig:
    norm = norm or LayerNorm()
    attention = AttentionConfig(**{"heads": H, "visibility": Full(), "bias": True} | mixer)
    block = BlockConfig(mixer=attention, mlp=mlp or FeedForward(hidden=32), norm=norm, placement=placement)
    return TowerConfig(depth=2, pattern=(block,), final_norm=norm)


IMAGE = {"size": (8, 12), "patch": 4, "channels": 2}
ENCODERS: dict[str, EncoderConfig] = {
    name: EncoderConfig(dim=D, **parts)
    for name, parts in {
        "bert": {
            "inputs": TokenInput(vocab=V, position=Learned(length=9), types=2, norm=LayerNorm()),
            "tower": tower(placement="post", mlp=FeedForward(hidden=32, activation="gelu")),
            "head": MaskedLanguageHead(),
        },
        "roberta": {
            "inputs": TokenInput(vocab=V, position=Learned(length=9, offset=2), types=1, norm=LayerNorm(), pad=1),
            "tower": tower(placement="post"),
            "head": ClassificationHead(classes=3, activation="tanh"),
        },
        "untied": {"inputs": TokenInput(vocab=V), "tower": tower(), "head": MaskedLanguageHead(tied=False)},
        "modern": {
            "inputs": TokenInput(vocab=V),
            "tower": tower(mlp=Gated(hidden=16), norm=RmsNorm(), position=Rotary(), bias=False, kv_heads=2),
            "head": TaggingHead(classes=4),
        },
        "mixture": {
            "inputs": TokenInput(vocab=V, position=Sinusoidal(), scale=True),
            "tower": tower(mlp=Mixture(experts=3, active=2, expert=Gated(hidden=8))),
            "head": SpansHead(),
        },
        "t5 encoder": {
            "inputs": TokenInput(vocab=V),
            "tower": tower(position=T5Bias(buckets=8, reach=8, bidirectional=True)),
            "head": SentenceHead(),
        },
        "clip text": {
            "inputs": TokenInput(vocab=V, position=Learned(length=9)),
            "tower": tower(visibility=Causal()),
            "head": SentenceHead(pooling=Last(), size=7),
        },
        "siglip text": {
            "inputs": TokenInput(vocab=V, position=Learned(length=9), filled=FixedLength(length=9, token=3)),
            "tower": tower(),
            "head": SentenceHead(pooling=Last(), size=7, bias=True),
        },
        "vit, pooled by attention": {
            "inputs": PatchInput(**IMAGE, class_token=False),
            "tower": tower(),
            "head": AttentionPoolingHead(heads=H, hidden=9, normalize=True),
        },
        "no head": {"inputs": TokenInput(vocab=V, position=Sinusoidal(layout="halves")), "tower": tower()},
        "vit": {"inputs": PatchInput(**IMAGE), "tower": tower(), "head": ClassificationHead(classes=3)},
        "vit, mean, sinusoidal": {
            "inputs": PatchInput(**IMAGE, class_token=False, position=SinusoidalGrid()),
            "tower": tower(),
            "head": ClassificationHead(classes=3, pooling=Mean()),
        },
        "vit, rotary": {
            "inputs": PatchInput(**IMAGE, position=NoGrid(), norm=LayerNorm(), bias=False),
            "tower": tower(position=RotaryGrid(), head_dim=8),
            "head": SentenceHead(pooling=First(), size=7),
        },
        "frames": {
            "inputs": FrameInput(channels=C, position=Learned(length=9), norm=LayerNorm()),
            "tower": tower(),
            "head": TaggingHead(classes=4),
        },
        "frames, convolved": {
            "inputs": FrameInput(
                channels=C, convolutions=(FrameConvolution(), FrameConvolution(stride=2)), position=Learned(length=9)
            ),
            "tower": tower(),
            "head": ClassificationHead(classes=2, pooling=Mean()),
        },
        "frames, alibi": {
            "inputs": FrameInput(channels=C, bias=False),
            "tower": tower(position=Alibi()),
            "head": ClassificationHead(classes=2, pooling=Mean()),
        },
    }.items()
}
OF_ANOTHER_LENGTH = ("siglip text", "frames, convolved")
"""Encoders whose vectors are not as many as tokens or frames; their padding: test_siglip.py, test_whisper.py."""
WITH_LENGTH = [
    name for name, cfg in ENCODERS.items() if not isinstance(cfg.inputs, PatchInput) and name not in OF_ANOTHER_LENGTH
]
every_encoder = pytest.mark.parametrize("name", ENCODERS)
every_length = pytest.mark.parametrize("name", WITH_LENGTH)


def shaken(model: nn.Module) -> Any:
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def models() -> dict[str, Encoder]:
    torch.manual_seed(1)
    return {name: shaken(cfg.build()) for name, cfg in ENCODERS.items()}


def given(model: Encoder, rows: int = 3, length: int = T) -> Any:
    if isinstance(model.cfg.inputs, PatchInput):
        return torch.randn(rows, 2, 8, 12, dtype=torch.float64)
    if isinstance(model.cfg.inputs, FrameInput):
        return Frames(torch.randn(rows, length, C, dtype=torch.float64))
    field = torch.arange(length).expand(rows, -1) % max(model.cfg.inputs.types, 1)
    return Tokens(torch.randint(2, V, (rows, length)), field=field)


def each(inputs: Any, change: Any) -> Any:
    return (
        change(inputs) if isinstance(inputs, Tensor) else type(inputs)(*(t if t is None else change(t) for t in inputs))
    )


def padded(inputs: Any, left: int, right: int) -> Any:
    """With what could be tokens in the place of padding: a model must not look."""

    def pad(t: Tensor) -> Tensor:
        return torch.cat([t.flip(1)[:, :left], t, t.flip(1)[:, :right]], dim=1)

    longer = each(inputs, pad)
    rows, length = longer[0].shape[:2]
    index = torch.arange(length).expand(rows, -1)
    return longer._replace(keep=(index >= left) & (index < length - right))


# ---- every encoder ---------------------------------------------------------------------------------


@every_encoder
def test_an_encoder_is_described_by_plain_data_and_built_without_memory(name, models):
    cfg = ENCODERS[name]
    assert from_dict(ModelConfig, to_dict(cfg)) == cfg
    with torch.device("meta"):
        empty = cfg.build()
    assert isinstance(empty, EncoderModel)
    shapes, real = ({n: t.shape for n, t in m.state_dict().items()} for m in (empty, models[name]))
    assert shapes == real


@every_encoder
def test_every_parameter_of_an_encoder_gets_a_gradient(name, models):
    model = models[name]
    weight = torch.randn_like(model(given(model)))
    unused = {
        n for n, g in gradients(model, (model(given(model, 8)).sum(0) * weight[0]).sum()).items() if (g == 0).all()
    }
    assert not unused


@every_encoder
def test_a_row_is_answered_as_if_it_were_alone(name, models):
    model, inputs = models[name], given(models[name])
    alone = [model(each(inputs, lambda t, i=i: t[i : i + 1])) for i in range(3)]
    assert_equal(model(inputs), torch.cat(alone))


@every_length
@pytest.mark.parametrize("left, right", [(0, 3), (2, 0), (1, 2)], ids=["right", "left", "both"])
def test_padding_changes_nothing(name, left, right, models):
    model, inputs = models[name], given(models[name])
    longer = padded(inputs, left, right)
    want, got = model.hidden(inputs), model.hidden(longer)
    assert_equal(got[:, left : left + T], want)
    answer, same = model(inputs), model(longer)
    assert_equal(same[:, left : left + T] if answer.dim() == 3 else same, answer)


@every_encoder
def test_an_encoder_sees_in_both_directions_unless_it_is_causal(name, models):
    model, inputs = models[name], given(models[name], 1)
    x, places = model.inputs.read(inputs)
    x = x.detach().requires_grad_()
    hidden = model.tower(x, places, model.tower.new_state(stateless))
    (seen,) = torch.autograd.grad(hidden[0, 2].square().sum(), x)
    last = 2 if name == "clip text" else x.shape[1] - 1
    assert seen[0].abs().sum(-1).nonzero().flatten().tolist() == list(range(last + 1))


# ---- inputs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_patches_are_projected_as_by_a_convolution_of_their_size_and_stride(bias):
    reader = PatchInput(size=(8, 12), patch=4, channels=3, bias=bias, class_token=False, position=NoGrid()).build(D)
    convolution = nn.Conv2d(3, D, kernel_size=4, stride=4, bias=bias)
    with torch.no_grad():
        convolution.weight.copy_(reader.project.weight.view_as(convolution.weight))
        if bias:
            convolution.bias.copy_(reader.project.bias)
    images = torch.randn(2, 3, 8, 12)
    got, places = reader.read(images)
    torch.testing.assert_close(got, convolution(images).flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5)
    assert places.row.tolist() == [[0, 0, 0, 1, 1, 1]]
    assert places.column.tolist() == [[0, 1, 2, 0, 1, 2]]


def test_the_class_token_stands_in_front_with_a_position_of_its_own():
    reader = PatchInput(size=(4, 4), patch=2, position=LearnedGrid()).build(D)
    nn.init.normal_(reader.class_token)
    images = torch.randn(2, 3, 4, 4)
    got, places = reader.read(images)
    assert places.pos.tolist() == [[0, 1, 2, 3, 4]]
    assert_equal(got[0, 0], reader.class_token + reader.position.weight[0], 1e-6)
    want = reader.project(images[:, :, 2:, :2].flatten(1)) + reader.position.weight[3]
    assert_equal(got[:, 3], want, 1e-5)


def test_sinusoids_of_a_grid_are_those_of_its_row_and_of_its_column():
    reader = PatchInput(size=(4, 6), patch=2, position=SinusoidalGrid()).build(D)
    added = reader.position(torch.zeros(1, 7, D, dtype=torch.float64), reader.positions(torch.device("cpu")))[0]
    line = Sinusoidal(layout="halves").build(D // 2).sinusoids(torch.arange(3)[None])[0]
    assert not added[0].any()
    for i, (row, column) in enumerate((r, c) for r in range(2) for c in range(3)):
        assert_equal(added[1 + i], torch.cat([line[row], line[column]]))


def test_rotary_positions_in_a_grid_turn_one_half_of_the_pairs_by_row_and_one_by_column():
    heads, size = 2, 8
    places = PatchInput(size=(4, 6), patch=2).build(D).positions(torch.device("cpu"))
    x = torch.randn(1, heads, 7, size, dtype=torch.float64)
    got = RotaryGrid(theta=100.0).build(heads, size).effect(places, places, torch.float64).rotate(x)
    line = Rotary(theta=100.0).build(heads, size // 2)
    for where, channels in ((places.row, [0, 1, 4, 5]), (places.column, [2, 3, 6, 7])):
        along = Positions(where)
        assert_equal(got[..., channels], line.effect(along, along, torch.float64).rotate(x[..., channels]))


def test_scores_in_a_grid_depend_on_the_step_from_patch_to_patch_only():
    places = PatchInput(size=(6, 8), patch=2, class_token=False).build(D).positions(torch.device("cpu"))
    q, k = (torch.randn(8, dtype=torch.float64).expand(1, 1, 12, 8) for _ in range(2))
    turn = RotaryGrid(theta=100.0).build(1, 8).effect(places, places, torch.float64).rotate
    scores = (turn(q) @ turn(k).transpose(2, 3))[0, 0].view(3, 4, 3, 4)
    assert_equal(scores[0, 0, 1, 2], scores[1, 1, 2, 3])
    assert_equal(scores[2, 3, 0, 1], scores[2, 2, 0, 0])
    assert (scores[0, 0, 1, 2] - scores[0, 0, 2, 1]).abs() > 1e-3


def test_token_types_add_a_vector_for_each_field_and_that_of_field_0_where_none_is_given():
    reader = TokenInput(vocab=V, types=2).build(D)
    ids = torch.tensor([[3, 4, 5]])
    plain, _ = reader.read(ids)
    told, _ = reader.read(Tokens(ids, field=torch.tensor([[0, 1, 1]])))
    words = reader.tokens(ids)
    assert_equal(plain, words + reader.types.weight[0])
    assert_equal(told, words + reader.types.weight[[0, 1, 1]])


def test_an_offset_leaves_the_first_rows_of_the_table_unused():
    reader = TokenInput(vocab=V, position=Learned(length=3, offset=2)).build(D)
    ids = torch.tensor([[3, 4, 5]])
    assert reader.position.weight.shape == (5, D)
    assert_equal(reader.read(ids)[0], reader.tokens(ids) + reader.position.weight[2:])


def test_ids_alone_tell_padding_by_the_id_that_is_configured():
    ids = torch.tensor([[3, 0, 1], [0, 1, 1]])
    keep = TokenInput(vocab=V, pad=1).build(D).read(ids)[1].keep
    assert keep.tolist() == [[True, True, False], [True, False, False]]
    assert TokenInput(vocab=V, pad=None).build(D).read(ids)[1].keep is None


def test_nothing_of_a_padded_frame_is_read_be_it_no_number(models):
    model = models["frames"]
    frames = padded(given(model), 0, 2)
    spoilt = frames._replace(values=frames.values.masked_fill(~frames.keep[..., None], float("nan")))
    assert torch.equal(model.hidden(spoilt), model.hidden(frames))


def test_a_decoder_may_read_images_or_frames():
    attention = {"heads": H}
    cross = AttentionConfig(**attention, visibility=Full())
    block = {"mlp": FeedForward(hidden=32), "norm": LayerNorm()}
    decoder = BlockConfig(mixer=AttentionConfig(**attention, visibility=Causal()), cross=cross, **block)
    for source, inputs in (
        (FrameInput(channels=C), Frames(torch.randn(2, T, C), torch.arange(T) < torch.tensor([[T], [3]]))),
        (PatchInput(**IMAGE), torch.randn(2, 2, 8, 12)),
    ):
        cfg = TransformerConfig(
            vocab=V, dim=D, source=source, encoder=tower(), decoder=TowerConfig(depth=1, pattern=(decoder,))
        )
        model, target = cfg.build().eval(), torch.randint(1, V, (2, 4))
        state = model.start(inputs)
        steps = [model.decode(token, state) for token in target.split(1, dim=1)]
        torch.testing.assert_close(torch.cat(steps, dim=1), model(target, inputs), rtol=1e-4, atol=1e-5)


# ---- heads -----------------------------------------------------------------------------------------

KEEP = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 1, 1]]).bool()


@pytest.mark.parametrize(
    "pooling, want",
    [
        (First(), lambda row: row[0]),
        (Last(), lambda row: row[-1]),
        (Mean(), lambda row: row.mean(0)),
    ],
    ids=["first", "last", "mean"],
)
def test_pooling_looks_at_real_tokens_only(pooling, want):
    x = torch.randn(3, 4, D, dtype=torch.float64)
    assert_equal(pooling.pool(x, KEEP), torch.stack([want(row[keep]) for row, keep in zip(x, KEEP, strict=True)]))
    assert_equal(pooling.pool(x, None), torch.stack([want(row) for row in x]))


def test_masked_language_logits_come_from_the_matrix_of_embeddings(models):
    tied, untied = models["bert"], models["untied"]
    assert tied.head.output.weight is tied.inputs.tokens.weight
    assert untied.head.output.weight is not untied.inputs.tokens.weight
    x = torch.randn(2, D, dtype=torch.float64)
    head = tied.head
    want = F.layer_norm(F.gelu(head.dense(x)), (D,), head.norm.weight, head.norm.bias, 1e-5)
    assert_equal(head.features(x), want)
    assert_equal(head(x[None])[0], want @ tied.inputs.tokens.weight.T + head.output.bias)


def test_a_classifier_is_a_linear_map_of_the_pooled_vector_with_a_layer_before_it_if_one_is_wanted(models):
    x = torch.randn(2, 3, D, dtype=torch.float64)
    plain, pooler = models["vit"].head, models["roberta"].head
    assert_equal(plain(x), plain.output(x[:, 0]))
    assert_equal(pooler(x), pooler.output(torch.tanh(pooler.dense(x[:, 0]))))


def test_sentences_have_vectors_of_length_1(models):
    vector = models["t5 encoder"](given(models["t5 encoder"]))
    assert vector.shape == (3, D)
    assert_equal(vector.norm(dim=1), torch.ones(3, dtype=torch.float64))


# ---- two towers ------------------------------------------------------------------------------------


def test_two_towers_compare_texts_with_images():
    model = shaken(TwoTowersConfig(first=ENCODERS["clip text"], second=ENCODERS["vit, rotary"]).build())
    texts, images = given(model.first, 3), given(model.second, 3)
    similarity = model(texts, images)
    scale = model.log_scale.exp()
    for i in range(3):
        for j in range(3):
            alone = model.first(each(texts, lambda t, i=i: t[i : i + 1])) @ model.second(images[j : j + 1]).T
            assert_equal(similarity[i, j], scale * alone[0, 0])


def test_a_second_tower_that_is_none_is_the_first():
    model = TwoTowersConfig(first=ENCODERS["t5 encoder"]).build()
    assert model.second is model.first
    assert model.log_scale.item() == pytest.approx(math.log(1 / 0.07))
    texts = torch.randint(1, V, (3, T))
    assert_equal(model(texts, texts).diagonal(), torch.full((3,), 1 / 0.07), 1e-4)
    assert len(list(model.parameters())) == len(list(ENCODERS["t5 encoder"].build().parameters())) + 1


def test_the_contrastive_loss_is_the_mean_of_both_directions_log_likelihoods():
    similarity = torch.randn(4, 4, dtype=torch.float64)
    summed, count = contrastive_loss(similarity)
    want = 0.0
    for i in range(4):
        row, column = similarity[i].softmax(0), similarity[:, i].softmax(0)
        want -= (row[i].log() + column[i].log()) / 2
    assert_equal(summed, want)
    assert count == 4


def test_similarities_are_scaled_by_no_more_than_a_hundred():
    model = TwoTowersConfig(first=ENCODERS["t5 encoder"], temperature=0.001).build()
    texts = torch.randint(1, V, (2, T))
    assert_equal(model(texts, texts).diagonal(), torch.full((2,), 100.0), 1e-4)


# ---- mistakes --------------------------------------------------------------------------------------

BERT, VIT, TEXT = ENCODERS["bert"], ENCODERS["vit"], ENCODERS["clip text"]


def changed(cfg: Any, **changes: Any) -> Any:
    return dataclasses.replace(cfg, **changes)


@pytest.mark.parametrize(
    "cfg, says",
    [
        (changed(BERT, inputs=TokenInput()), "model.inputs.vocab: must be given"),
        (
            changed(VIT, head=ClassificationHead()),
            "model.head.classes: must be given before the model is built; training",
        ),
        (
            changed(VIT, head=MaskedLanguageHead()),
            "model.head.masked_language predicts token ids, and the inputs are none",
        ),
        (changed(VIT, inputs=PatchInput(size=(9, 8), patch=4)), "model.inputs.patch: squares of 4 pixels do not fill"),
        (changed(VIT, dim=22, inputs=PatchInput(size=(8, 8), patch=4, position=SinusoidalGrid())), "model.inputs.posi"),
        (changed(VIT, tower=tower(position=RotaryGrid())), "model.tower.pattern.0.mixer.position: two coordinates"),
        (TwoTowersConfig(first=BERT), "model.first.head: must be a normalized sentence head"),
        (
            TwoTowersConfig(first=TEXT, second=changed(TEXT, head=SentenceHead())),
            "model.second.head: vectors of size 24",
        ),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_mistake_in_the_configuration_names_its_place(cfg, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        cfg.build()


@pytest.mark.parametrize(
    "name, wrong, says",
    [
        ("bert", torch.randint(1, V, (2, 12)), "a text of 12 tokens, and learned positions for 9"),
        ("bert", torch.randn(2, 3, C), "this model reads token ids"),
        ("vit", torch.randn(2, 2, 8, 8), "images of 2 x 8 x 12 (channels, height, width), got images of 2 x 8 x 8"),
        ("vit", Tokens(torch.ones(1, 2, dtype=torch.long)), "got tokens"),
        ("frames", torch.randn(2, 3, C + 1, dtype=torch.float64), "this model reads frames (batch, length, 5)"),
    ],
)
def test_inputs_that_do_not_fit_are_told_so(name, wrong, says, models):
    with pytest.raises(DataError, match=re.escape(says)):
        models[name](wrong)


def test_positions_in_a_grid_need_a_grid():
    with pytest.raises(ConfigError, match=r"model.tower.pattern.0.mixer.position: rotary_grid turns by rows and col"):
        changed(BERT, tower=tower(position=RotaryGrid(), head_dim=8)).build()
