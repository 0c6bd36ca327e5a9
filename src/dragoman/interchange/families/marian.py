"""Marian and OPUS-MT: the 2017 encoder-decoder, with sines and cosines in two halves (arXiv:1804.00344)."""

import dataclasses
from typing import Any

from dragoman.interchange.family import Family, HubConfig, their_activation
from dragoman.interchange.names import NameTable, TensorForm
from dragoman.model.attention import AttentionConfig
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm, NoNorm, Placement
from dragoman.model.positions.position import AbsolutePosition, Sinusoidal
from dragoman.model.transformer import BlockConfig, TowerConfig, TransformerConfig


def _attention(theirs: str, ours: str) -> dict[str, str]:
    parts = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "out"}
    return {f"{theirs}.{old}.{{leaf}}": f"{ours}.{new}.{{leaf}}" for old, new in parts.items()}


def _tower(side: str) -> dict[str, str]:
    theirs, ours = f"model.{side}.layers.{{i}}", f"{side}.blocks.{{i}}"
    return _attention(f"{theirs}.self_attn", f"{ours}.mixer") | {
        f"{theirs}.self_attn_layer_norm.{{leaf}}": f"{ours}.mixer_residual.after.{{leaf}}",
        f"{theirs}.fc1.{{leaf}}": f"{ours}.mlp.up.{{leaf}}",
        f"{theirs}.fc2.{{leaf}}": f"{ours}.mlp.out.{{leaf}}",
        f"{theirs}.final_layer_norm.{{leaf}}": f"{ours}.mlp_residual.after.{{leaf}}",
    }


_REST: NameTable = (
    _tower("encoder")
    | _tower("decoder")
    | _attention("model.decoder.layers.{i}.encoder_attn", "decoder.blocks.{i}.cross")
    | {
        "model.decoder.layers.{i}.encoder_attn_layer_norm.{leaf}": "decoder.blocks.{i}.cross_residual.after.{leaf}",
        "final_logits_bias": TensorForm(("output.bias",), shape=(1, -1)),
    }
)
TABLE: NameTable = {"model.shared.weight": "embed.tokens.weight"} | _REST
SEPARATE: NameTable = {
    "model.encoder.embed_tokens.weight": "source_embed.tokens.weight",
    "model.decoder.embed_tokens.weight": "embed.tokens.weight",
    "lm_head.weight": "output.weight",
} | _REST
"""Names where source and target have embeddings of their own."""
ALIASES = {
    "model.shared.weight": (
        "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.weight",
        "lm_head.weight",
    ),
    "model.decoder.embed_tokens.weight": ("lm_head.weight",),
}


def tower(given: HubConfig, side: str, placement: Placement) -> TowerConfig:
    def attention(visibility: Causal | Full) -> AttentionConfig:
        return AttentionConfig(heads=given[f"{side}_attention_heads"], visibility=visibility, bias=True)

    decoder = side == "decoder"
    block = BlockConfig(
        mixer=attention(Causal() if decoder else Full()),
        cross=attention(Full()) if decoder else None,
        mlp=FeedForward(hidden=given[f"{side}_ffn_dim"], activation=given.activation("activation_function")),
        norm=LayerNorm(),
        placement=placement,
    )
    final_norm = LayerNorm() if placement == "pre" else NoNorm()
    return TowerConfig(depth=given[f"{side}_layers"], pattern=(block,), final_norm=final_norm)


def model(
    given: HubConfig,
    position: AbsolutePosition,
    embedding_norm: LayerNorm | NoNorm,
    *,
    placement: Placement = "post",
    output_bias: bool = True,
) -> TransformerConfig:
    given.only("tie_word_embeddings", True)
    given.only("share_encoder_decoder_embeddings", True)
    given.only("normalize_before", placement == "pre")
    given.only("is_decoder", False)
    given.only("decoder_vocab_size", given["vocab_size"])
    given.read.add("num_hidden_layers")
    return TransformerConfig(
        vocab=given["vocab_size"],
        dim=given["d_model"],
        encoder=tower(given, "encoder", placement),
        decoder=tower(given, "decoder", placement),
        position=position,
        embedding_norm=embedding_norm,
        scale_embedding=bool(given.get("scale_embedding", False)),
        output_bias=output_bias,
    )


def config(given: HubConfig) -> TransformerConfig:
    given.only("normalize_embedding", False)
    given.only("static_position_embeddings", True)
    if given.get("share_encoder_decoder_embeddings", True):
        return model(given, Sinusoidal(layout="halves"), NoNorm())
    sizes = {"source_vocab": given["vocab_size"], "vocab": given.get("decoder_vocab_size", given["vocab_size"])}
    tying = "target" if given.get("tie_word_embeddings", True) else "none"
    shared = given.changed(
        share_encoder_decoder_embeddings=True, tie_word_embeddings=True, decoder_vocab_size=given["vocab_size"]
    )
    return dataclasses.replace(config(shared), **sizes, tying=tying)


def table(cfg: TransformerConfig) -> NameTable:
    return TABLE if cfg.tying == "all" else SEPARATE


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    sides = {"encoder": cfg.encoder or cfg.decoder, "decoder": cfg.decoder}
    separate = cfg.tying in ("target", "none")
    sizes = {"decoder_vocab_size": cfg.vocab, "share_encoder_decoder_embeddings": False} if separate else {}
    content: dict[str, Any] = sizes | {
        "vocab_size": (separate and cfg.source_vocab) or cfg.vocab,
        "d_model": cfg.dim,
        "activation_function": their_activation(getattr(cfg.decoder.pattern[0].mlp, "activation", "relu")),
        "scale_embedding": cfg.scale_embedding,
        "max_position_embeddings": cfg.position.length or 1024,
        "tie_word_embeddings": cfg.tying != "none",
        "is_encoder_decoder": True,
    }
    for side, tower in sides.items():
        content[f"{side}_layers"] = tower.depth
        content[f"{side}_attention_heads"] = tower.pattern[0].attention.heads
        content[f"{side}_ffn_dim"] = getattr(tower.pattern[0].mlp, "hidden", 1)
    return content


FAMILY = Family(
    name="marian",
    architectures=("MarianMTModel",),
    model_type="marian",
    table=table,
    config=config,
    describe=describe,
    prefix="model.",
    aliases=ALIASES,
    shape="encoder-decoder",
)
