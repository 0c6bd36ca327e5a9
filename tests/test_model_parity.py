"""The same weights give the same numbers as in PyTorch's own layers and in Hugging Face's models."""

import pytest
import torch
from torch import Tensor, nn
from variants import assert_equal

from dragoman.model.attention import Attention, AttentionConfig, AttentionContext
from dragoman.model.caches.state import Stateless, stateless
from dragoman.model.init import Xavier
from dragoman.model.interface import PAD, Tokens
from dragoman.model.masks.visibility import Causal, Full, build_cross_mask, build_self_mask
from dragoman.model.memory import Memory
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.norm import Depths, LayerNorm, RmsNorm
from dragoman.model.positions.effect import PositionEffect
from dragoman.model.positions.position import Sinusoidal
from dragoman.model.positions.rotary import LinearScaling, NoScaling, Rotary, Yarn
from dragoman.model.positions.tokens import positions_of
from dragoman.model.tower import Block, BlockConfig, Tower, TowerConfig
from dragoman.model.transformer import Transformer, TransformerConfig

D, H, F = 24, 4, 40


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def places(*size: int, lengths: list[int] | None = None):
    """Of texts padded on the right to one length."""
    keep = None if lengths is None else torch.arange(size[1])[None] < torch.tensor(lengths)[:, None]
    return positions_of(Tokens(torch.ones(size, dtype=torch.long), keep))


# ---- PyTorch ---------------------------------------------------------------------------------------


def copy_attention(theirs: nn.MultiheadAttention, ours: Attention) -> None:
    parts = (ours.q, ours.k, ours.v)
    theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    theirs.out_proj.weight.copy_(ours.out.weight)
    if ours.cfg.bias:
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.bias.copy_(ours.out.bias)


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("lengths", [None, [7, 4]], ids=["equal", "padded"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_attention_is_that_of_torch(causal, lengths, bias):
    visibility = Causal() if causal else Full()
    ours = AttentionConfig(heads=H, visibility=visibility, bias=bias).build(D)
    theirs = nn.MultiheadAttention(D, H, bias=bias, batch_first=True)
    with torch.no_grad():
        copy_attention(theirs, ours)
    where = places(2, 7, lengths=lengths)
    future = torch.ones(7, 7, dtype=torch.bool).triu(1)
    x = torch.randn(2, 7, D, requires_grad=True)
    padding = None if where.keep is None else ~where.keep
    want, weights = theirs(
        x, x, x, key_padding_mask=padding, attn_mask=future if causal else None, average_attn_weights=False
    )
    seen = []
    ours.weights.register_forward_hook(lambda module, given, out: seen.append(out))
    got = ours(x, AttentionContext(build_self_mask(visibility, where, where), PositionEffect(), None), Stateless())
    assert_equal(got, want)
    assert_equal(seen[0], weights)
    assert_equal(torch.autograd.grad(got.square().sum(), x), torch.autograd.grad(want.square().sum(), x))


@pytest.mark.parametrize("lengths", [None, [5, 2]], ids=["equal", "padded"])
def test_attention_across_is_that_of_torch(lengths):
    ours = AttentionConfig(heads=H, visibility=Full(), bias=True).build(D)
    theirs = nn.MultiheadAttention(D, H, batch_first=True)
    with torch.no_grad():
        copy_attention(theirs, ours)
    x, memory, where = torch.randn(2, 7, D), torch.randn(2, 5, D), places(2, 5, lengths=lengths)
    view = AttentionContext(build_cross_mask(Full(), places(2, 7), where), PositionEffect(), None)
    want, _ = theirs(x, memory, memory, key_padding_mask=None if where.keep is None else ~where.keep)
    assert_equal(ours.read(x, view, ours.key_value(memory)), want)


def tower(block: BlockConfig, *, is_encoder: bool) -> Tower:
    cfg = TowerConfig(depth=1, pattern=(block,))
    return Tower(cfg, D, Depths(1, 1), Xavier(), is_encoder=is_encoder)


def copy_block(theirs: nn.Module, ours: Block, placement: str) -> None:
    copy_attention(theirs.self_attn, ours.mixer)
    residuals = [ours.mixer_residual]
    if hasattr(theirs, "multihead_attn"):
        copy_attention(theirs.multihead_attn, ours.cross)
        residuals += [ours.cross_residual]
    theirs.linear1.load_state_dict(ours.mlp.up.state_dict())
    theirs.linear2.load_state_dict(ours.mlp.out.state_dict())
    for i, residual in enumerate([*residuals, ours.mlp_residual], 1):
        norm = residual.before if placement == "pre" else residual.after
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
        getattr(theirs, f"norm{i}").load_state_dict(norm.state_dict())


def block(
    placement: str = "post", activation: str = "relu", *, decoder: bool, heads: int = H, hidden: int = F
) -> BlockConfig:
    def attention(visibility: Full | Causal) -> AttentionConfig:
        return AttentionConfig(heads=heads, visibility=visibility, bias=True)

    return BlockConfig(
        mixer=attention(Causal() if decoder else Full()),
        cross=attention(Full()) if decoder else None,
        mlp=FeedForward(hidden=hidden, activation=activation),
        norm=LayerNorm(),
        placement=placement,
    )


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("placement", ["post", "pre"])
def test_an_encoder_block_is_that_of_torch(placement, activation):
    ours = tower(block(placement, activation, decoder=False), is_encoder=True)
    theirs = nn.TransformerEncoderLayer(
        D, H, F, 0.0, activation=activation, batch_first=True, norm_first=placement == "pre"
    )
    with torch.no_grad():
        copy_block(theirs, ours.blocks[0], placement)
    where = places(2, 7, lengths=[7, 4])
    x = torch.randn(2, 7, D, requires_grad=True)
    want = theirs(x, src_key_padding_mask=~where.keep)[where.keep]
    got = ours(x, where, ours.new_state(stateless), where.keep)[where.keep]
    assert_equal(got, want)
    assert_equal(torch.autograd.grad(got.square().sum(), x), torch.autograd.grad(want.square().sum(), x))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("placement", ["post", "pre"])
def test_a_decoder_block_is_that_of_torch(placement, activation):
    ours = tower(block(placement, activation, decoder=True), is_encoder=False)
    theirs = nn.TransformerDecoderLayer(
        D, H, F, 0.0, activation=activation, batch_first=True, norm_first=placement == "pre"
    )
    with torch.no_grad():
        copy_block(theirs, ours.blocks[0], placement)
    where, source = places(2, 7), places(2, 5, lengths=[5, 3])
    x, memory = torch.randn(2, 7, D, requires_grad=True), torch.randn(2, 5, D, requires_grad=True)
    future = torch.ones(7, 7, dtype=torch.bool).triu(1)
    want = theirs(x, memory, tgt_mask=future, memory_key_padding_mask=~source.keep)
    got = ours(x, where, ours.new_state(stateless), None, Memory(memory, source))
    assert_equal(got, want)
    assert_equal(
        torch.autograd.grad(got.square().sum(), (x, memory)), torch.autograd.grad(want.square().sum(), (x, memory))
    )


# ---- Hugging Face ----------------------------------------------------------------------------------


def load_renamed(ours: nn.Module, theirs: dict[str, Tensor], names: dict[str, str]) -> None:
    """Give ``ours`` each of ``theirs`` under its own name; all must find a place."""
    renamed = {}
    for name, value in theirs.items():
        for old, new in names.items():
            name = name.replace(old, new)
        renamed[name] = value
    ours.load_state_dict({name: renamed.pop(name) for name in ours.state_dict()})
    assert not renamed, f"left over: {list(renamed)}"


MARIAN = {
    "model.": "",
    "shared.weight": "embed.tokens.weight",
    "encoder.embed_tokens.weight": "source_embed.tokens.weight",
    "decoder.embed_tokens.weight": "embed.tokens.weight",
    "lm_head.weight": "output.weight",
    "final_logits_bias": "output.bias",
    "layers.": "blocks.",
    "self_attn_layer_norm": "mixer_residual.after",
    "encoder_attn_layer_norm": "cross_residual.after",
    "final_layer_norm": "mlp_residual.after",
    "self_attn": "mixer",
    "encoder_attn": "cross",
    "_proj": "",
    "fc1": "mlp.up",
    "fc2": "mlp.out",
}


@pytest.fixture(scope="module")
def marian():
    """Hugging Face's model of the 2017 shape, of sizes that nothing divides, and ours with its weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.MarianMTModel(
        transformers.MarianConfig(
            vocab_size=47,
            d_model=30,
            encoder_layers=3,
            decoder_layers=2,
            encoder_attention_heads=3,
            decoder_attention_heads=5,
            encoder_ffn_dim=37,
            decoder_ffn_dim=41,
            activation_function="relu",
            max_position_embeddings=64,
            pad_token_id=PAD,
            scale_embedding=True,
            init_std=0.3,
            attention_dropout=0.0,
            dropout=0.0,
        )
    ).double()
    with torch.no_grad():
        theirs.final_logits_bias.normal_()

    ours = TransformerConfig(
        vocab=47,
        dim=30,
        encoder=TowerConfig(depth=3, pattern=(block(decoder=False, heads=3, hidden=37),)),
        decoder=TowerConfig(depth=2, pattern=(block(decoder=True, heads=5, hidden=41),)),
        position=Sinusoidal(layout="halves"),
        scale_embedding=True,
        output_bias=True,
    ).build()
    theirs_named = {k: v.squeeze() for k, v in theirs.state_dict().items() if "embed_positions" not in k}
    load_renamed(ours, theirs_named, MARIAN)
    return ours.double(), theirs


def test_logits_and_gradients_are_those_of_marian(marian):
    ours, theirs = marian
    source, target = torch.randint(1, 47, (3, 11)), torch.randint(1, 47, (3, 9))
    source[0, 6:], source[2, 10:], target[1, 5:] = PAD, PAD, PAD
    keep = target != PAD
    want = theirs(input_ids=source, attention_mask=(source != PAD).long(), decoder_input_ids=target).logits[keep]
    got = ours(target, source)[keep]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)  # their sines are float32
    shared = (ours.embed.tokens.weight, theirs.model.shared.weight)
    by_ours, by_theirs = (
        torch.autograd.grad(x.logsumexp(-1).sum(), w)[0] for x, w in zip((got, want), shared, strict=True)
    )
    torch.testing.assert_close(by_ours, by_theirs, rtol=1e-5, atol=1e-4)


def test_sinusoids_in_halves_are_those_of_marian(marian):
    ours, theirs = marian
    cos_sin = ours.embed.position.sinusoids(torch.arange(64)[None])[0]
    torch.testing.assert_close(cos_sin, theirs.model.encoder.embed_positions.weight.detach(), rtol=0, atol=1e-6)


LLAMA = {
    "model.norm": "decoder.final_norm",
    "model.": "",
    "embed_tokens": "embed.tokens",
    "lm_head": "output",
    "layers.": "decoder.blocks.",
    "input_layernorm": "mixer_residual.before",
    "post_attention_layernorm": "mlp_residual.before",
    "self_attn.o_proj": "mixer.out",
    "self_attn": "mixer",
    "mlp.down_proj": "mlp.out",
    "_proj": "",
}


def llama(scaling: object, rope: dict[str, object], trained: int) -> tuple[Transformer, nn.Module]:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=53,
            hidden_size=48,
            intermediate_size=70,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=trained,
            rms_norm_eps=1e-6,
            initializer_range=0.2,
            tie_word_embeddings=False,
            rope_parameters={"rope_theta": 10_000.0} | rope,
        )
    )
    one = BlockConfig(
        mixer=AttentionConfig(heads=6, kv_heads=2, visibility=Causal(), position=Rotary(scaling=scaling)),
        mlp=Gated(hidden=70),
        norm=RmsNorm(),
    )
    cfg = TransformerConfig(
        vocab=53, dim=48, decoder=TowerConfig(depth=2, pattern=(one,), final_norm=RmsNorm()), tying="none"
    )
    ours = cfg.build()
    load_renamed(ours, theirs.state_dict(), LLAMA)
    return ours.double(), theirs.double()


@pytest.mark.parametrize(
    "scaling, rope",
    [
        (NoScaling(), {"rope_type": "default"}),
        (LinearScaling(factor=3.0), {"rope_type": "linear", "factor": 3.0}),
        (
            Yarn(factor=4.0, trained=16),
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        ),
    ],
    ids=["plain", "linear", "yarn"],
)
def test_logits_are_those_of_llama(scaling, rope):
    ours, theirs = llama(scaling, rope, trained=16)
    tokens = torch.randint(1, 53, (2, 30))
    torch.testing.assert_close(ours(tokens), theirs(input_ids=tokens).logits, rtol=1e-5, atol=1e-5)
