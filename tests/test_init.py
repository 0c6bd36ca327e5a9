"""How models start: scores, embeddings and logits of a sane size, whatever is chosen."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from dragoman.model.attention import AttentionConfig
from dragoman.model.init import Gpt2Init, InverseSqrtWidth, Xavier
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.norm import DeepNorm, LayerNorm, NoNorm, RmsNorm
from dragoman.model.positions.position import Sinusoidal
from dragoman.model.scorer import Additive, Dot, Multiplicative, ScaledDot
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import Transformer, TransformerConfig

D, H, V = 256, 4, 1000
INITS = {"xavier": Xavier(), "1/sqrt(width)": InverseSqrtWidth(), "gpt-2": Gpt2Init()}


def config(**options: object) -> TransformerConfig:
    def tower(*, decoder: bool) -> TowerConfig:
        cross = AttentionConfig(heads=H, visibility=Full())
        mixer = AttentionConfig(heads=H, visibility=Causal() if decoder else Full())
        part = {"mlp": FeedForward(hidden=4 * D), "norm": LayerNorm()}
        part |= {k: options.pop(k) if decoder else options[k] for k in ("placement", "residual", "mlp") if k in options}
        block = BlockConfig(mixer=mixer, cross=cross if decoder else None, **part)
        depth = options.get("depth", (2, 2))[decoder]
        return TowerConfig(depth=depth, pattern=(block,), final_norm=LayerNorm())

    encoder, decoder = tower(decoder=False), tower(decoder=True)
    options.pop("depth", None)
    return TransformerConfig(vocab=V, dim=D, encoder=encoder, decoder=decoder, **options)


def std(x: Tensor) -> float:
    return x.double().std().item()


# ---- scores ----------------------------------------------------------------------------------------


def scores(scorer: object, head_dim: int, init: object = None) -> Tensor:
    """Between normalized tokens, through freshly started projections."""
    attention = AttentionConfig(heads=2, head_dim=head_dim, scorer=scorer, visibility=Full()).build(2 * head_dim)
    for part in (attention.q, attention.k):
        (init or InverseSqrtWidth()).fill(part.weight, 2 * head_dim)
    x = torch.randn(4, 64, 2 * head_dim)
    return attention.scorer.scores(attention.query(x), attention.key_value(x).k)


@pytest.mark.parametrize("init", [Xavier(), InverseSqrtWidth()], ids=["xavier", "1/sqrt(width)"])
@pytest.mark.parametrize("head_dim", [8, 64, 256])
def test_scaled_scores_start_with_a_variance_near_one_and_unscaled_ones_near_the_channels(head_dim, init):
    assert scores(ScaledDot(), head_dim, init).var().item() == pytest.approx(1, rel=0.35)
    assert scores(Dot(), head_dim, init).var().item() == pytest.approx(head_dim, rel=0.35)


@pytest.mark.parametrize("scorer, expected", [(Multiplicative(), 1.0), (Additive(), 0.5)], ids=["product", "sum"])
@pytest.mark.parametrize("head_dim", [8, 64, 256])
def test_learned_scores_start_with_a_variance_that_does_not_grow_with_the_channels(head_dim, scorer, expected):
    variance = torch.stack([scores(scorer, head_dim).var() for _ in range(6)]).mean().item()
    assert 0.4 * expected < variance < 1.8 * expected


def test_unscaled_scores_saturate_softmax_and_scaled_ones_do_not():
    def entropy(scorer: object) -> float:
        p = scores(scorer, 256).softmax(-1)
        return -(p * p.clamp(min=1e-30).log()).sum(-1).mean().item() / math.log(64)

    assert entropy(ScaledDot()) > 0.8
    assert entropy(Dot()) < 0.3


# ---- matrices --------------------------------------------------------------------------------------


def test_xavier_is_uniform_with_variance_two_over_inputs_and_outputs():
    block = config(init=Xavier()).build().decoder.blocks[0]
    up = block.mlp.up.weight
    assert std(up) == pytest.approx(math.sqrt(2 / (D + 4 * D)), rel=0.02)
    assert up.abs().max().item() == pytest.approx(math.sqrt(6 / (D + 4 * D)), rel=0.01)
    assert (block.mlp.up.bias == 0).all()


@pytest.mark.parametrize("init, expected", [(InverseSqrtWidth(), D**-0.5), (Gpt2Init(depth_scaled=False), 0.02)])
def test_normal_starts_have_one_deviation_for_every_matrix(init, expected):
    block = config(init=init).build().encoder.blocks[0]
    for part in (block.mixer.q, block.mixer.out, block.mlp.up, block.mlp.out):
        assert std(part.weight) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("kind", [Xavier, InverseSqrtWidth, Gpt2Init])
def test_depth_scaling_divides_what_ends_a_sublayer_by_the_root_of_their_number(kind):
    def start(*, scaled: bool) -> Transformer:
        torch.manual_seed(0)
        return config(init=kind(depth_scaled=scaled), depth=(3, 2)).build()

    plain, scaled = (dict(start(scaled=on).named_parameters()) for on in (False, True))
    for name, weight in plain.items():
        ends = name.endswith("out.weight") and "blocks" in name
        sublayers = 2 * 3 if name.startswith("encoder") else 3 * 2
        torch.testing.assert_close(scaled[name], weight / math.sqrt(sublayers) if ends else weight)


@pytest.mark.parametrize("mlp", [FeedForward(hidden=64), Gated(hidden=64)], ids=["plain", "gated"])
def test_deep_norm_scales_values_outputs_and_one_factor_of_the_hidden_layer(mlp):
    def start(**options: object) -> dict[str, Tensor]:
        torch.manual_seed(0)
        return dict(config(mlp=mlp, placement="post", depth=(5, 3), **options).build().named_parameters())

    plain, deep = start(), start(residual=DeepNorm())
    N, M = 5, 3
    gains = {"encoder": 0.87 * (N**4 * M) ** (-1 / 16), "decoder": (12 * M) ** -0.25}
    for name, weight in plain.items():
        scaled = "blocks" in name and name.split(".")[-2] in ("v", "out", "up") and name.endswith("weight")
        torch.testing.assert_close(deep[name], weight * gains[name.split(".")[0]] if scaled else weight)


def test_deep_norm_carries_the_input_by_the_papers_constants():
    model = config(placement="post", residual=DeepNorm(), depth=(5, 3)).build()
    assert model.encoder.blocks[0].mixer_residual.residual_scale == pytest.approx(0.81 * (5**4 * 3) ** (1 / 16))
    for residual in ("mixer_residual", "cross_residual", "mlp_residual"):
        assert getattr(model.decoder.blocks[2], residual).residual_scale == pytest.approx((3 * 3) ** 0.25)
    alone = dataclasses.replace(
        config(placement="post", residual=DeepNorm(), depth=(2, 7)), encoder=None, position=Sinusoidal()
    )
    (block,) = alone.decoder.pattern
    alone = dataclasses.replace(
        alone, decoder=dataclasses.replace(alone.decoder, pattern=(dataclasses.replace(block, cross=None),))
    )
    assert alone.build().decoder.blocks[0].mlp_residual.residual_scale == pytest.approx(14**0.25)


# ---- the whole model -------------------------------------------------------------------------------


@pytest.mark.parametrize("init", INITS.values(), ids=INITS)
@pytest.mark.parametrize("placement", ["post", "pre", "sandwich", "output"])
def test_a_new_model_knows_nothing_and_says_so(placement, init):
    cfg = config(init=init, placement=placement, position=Sinusoidal(), scale_embedding=True, tying="inputs")
    model = cfg.build().eval()  # tied to the output, a token that the residual sum carries through predicts itself
    with torch.no_grad():
        logits = model(torch.randint(1, V, (4, 20)), torch.randint(1, V, (4, 20)))
    nll = -logits.log_softmax(-1).mean().item()
    assert nll < math.log(V) + 1.5  # near that of guessing
    assert std(logits) < 2


@pytest.mark.parametrize("scaled", [True, False])
def test_embeddings_start_at_the_size_of_the_sinusoids_if_scaled(scaled):
    model = config(scale_embedding=scaled).build()
    embedded = model.embed.tokens.weight * model.embed.scale
    assert std(embedded) == pytest.approx(1 if scaled else D**-0.5, rel=0.05)


@pytest.mark.parametrize("norm", [LayerNorm(), RmsNorm(), NoNorm()], ids=["layer", "rms", "none"])
def test_norms_start_as_the_identity_on_normalized_vectors(norm):
    x = torch.randn(5, D)
    x = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, unbiased=False)
    torch.testing.assert_close(norm.build(D)(x), x, rtol=1e-4, atol=1e-4)
