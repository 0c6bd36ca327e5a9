"""T5 and T5 1.1, FLAN-T5, ByT5, mT5 (arXiv:1910.10683, arXiv:2010.11934).

Unscaled scores, biases by bucket of distance, no other biases.
"""

from typing import Any

from dragoman.interchange.family import Family, HubConfig, their_activation
from dragoman.interchange.names import NameTable
from dragoman.model.attention import AttentionConfig
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.norm import RmsNorm
from dragoman.model.positions.position import NoPosition, T5Bias
from dragoman.model.scorer import Dot
from dragoman.model.transformer import BlockConfig, TowerConfig, TransformerConfig


def _tower(side: str, mlp: int) -> dict[str, str]:
    theirs, ours = f"{side}.block.{{i}}.layer", f"{side}.blocks.{{i}}"
    attention = {f"{theirs}.0.SelfAttention.{p}.weight": f"{ours}.mixer.{p}.weight" for p in "qkv"}
    return attention | {
        f"{theirs}.0.SelfAttention.o.weight": f"{ours}.mixer.out.weight",
        f"{theirs}.0.layer_norm.weight": f"{ours}.mixer_residual.before.weight",
        f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight": f"{side}.schemes.0.table.weight",
        f"{theirs}.{mlp}.DenseReluDense.wi_0.weight": f"{ours}.mlp.gate.weight",
        f"{theirs}.{mlp}.DenseReluDense.wo.weight": f"{ours}.mlp.out.weight",
        f"{theirs}.{mlp}.layer_norm.weight": f"{ours}.mlp_residual.before.weight",
        f"{side}.final_layer_norm.weight": f"{side}.final_norm.weight",
    }


def table(cfg: TransformerConfig) -> NameTable:
    up = "wi_1" if isinstance(cfg.decoder.pattern[0].mlp, Gated) else "wi"
    cross = "decoder.block.{i}.layer.1"
    found: NameTable = {"shared.weight": "embed.tokens.weight", "lm_head.weight": "output.weight"}
    return (
        found
        | _tower("encoder", 1)
        | _tower("decoder", 2)
        | {f"{cross}.EncDecAttention.{p}.weight": f"decoder.blocks.{{i}}.cross.{p}.weight" for p in "qkv"}
        | {
            f"{cross}.EncDecAttention.o.weight": "decoder.blocks.{i}.cross.out.weight",
            f"{cross}.layer_norm.weight": "decoder.blocks.{i}.cross_residual.before.weight",
            f"encoder.block.{{i}}.layer.1.DenseReluDense.{up}.weight": "encoder.blocks.{i}.mlp.up.weight",
            f"decoder.block.{{i}}.layer.2.DenseReluDense.{up}.weight": "decoder.blocks.{i}.mlp.up.weight",
        }
    )


def config(given: HubConfig, *, shared: bool = True) -> TransformerConfig:
    """Return our configuration; with ``shared``, all layers of a tower have one table of biases."""
    norm = RmsNorm(eps=given.get("layer_norm_epsilon", 1e-6))
    projection = given.get("feed_forward_proj", "relu")
    activation = (
        "gelu_new" if projection == "gated-gelu" else projection.removeprefix("gated-")
    )  # as Transformers reads it
    given.only("is_decoder", False)
    given.only("dense_act_fn", activation)
    given.only("is_gated_act", projection.startswith("gated-"))
    act = HubConfig({"feed_forward_proj": activation}, given.where).activation("feed_forward_proj")
    hidden = given["d_ff"]
    mlp = (
        Gated(hidden=hidden, activation=act)
        if projection.startswith("gated-")
        else FeedForward(hidden=hidden, activation=act, bias=False)
    )

    def attention(position: T5Bias | NoPosition, visibility: Causal | Full) -> AttentionConfig:
        return AttentionConfig(
            heads=given["num_heads"],
            head_dim=given["d_kv"],
            position=position,
            visibility=visibility,
            scorer=Dot(),
        )

    def tower(depth: int, *, decoder: bool) -> TowerConfig:
        bias = T5Bias(
            buckets=given.get("relative_attention_num_buckets", 32),
            reach=given.get("relative_attention_max_distance", 128),
            bidirectional=not decoder,
            shared=shared,
        )
        block = BlockConfig(
            mixer=attention(bias, Causal() if decoder else Full()),
            cross=attention(NoPosition(), Full()) if decoder else None,
            mlp=mlp,
            norm=norm,
        )
        return TowerConfig(depth=depth, pattern=(block,), final_norm=norm)

    tied = given.get("tie_word_embeddings", True)
    return TransformerConfig(
        vocab=given["vocab_size"],
        dim=given["d_model"],
        encoder=tower(given["num_layers"], decoder=False),
        decoder=tower(given.get("num_decoder_layers", given["num_layers"]), decoder=True),
        tying="all" if tied else "inputs",
        scale_output=given.get("scale_decoder_outputs", tied),
    )


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    block = cfg.decoder.pattern[0]
    activation = their_activation(getattr(block.mlp, "activation", "relu"))
    if isinstance(block.mlp, Gated):
        activation = "gated-gelu" if activation == "gelu_new" else f"gated-{activation}"
    return {
        "vocab_size": cfg.vocab,
        "d_model": cfg.dim,
        "d_kv": block.attention.channels(cfg.dim),
        "d_ff": getattr(block.mlp, "hidden", 1),
        "num_heads": block.attention.heads,
        "num_layers": cfg.encoder.depth if cfg.encoder else 1,
        "num_decoder_layers": cfg.decoder.depth,
        "feed_forward_proj": activation,
        "layer_norm_epsilon": getattr(cfg.decoder.final_norm, "eps", 1e-6),
        "relative_attention_num_buckets": getattr(block.attention.position, "buckets", 32),
        "relative_attention_max_distance": getattr(block.attention.position, "reach", 128),
        "tie_word_embeddings": cfg.tying == "all",
        "scale_decoder_outputs": cfg.scale_output,
        "is_encoder_decoder": True,
    }


FAMILY = Family(
    name="t5",
    architectures=("T5ForConditionalGeneration", "MT5ForConditionalGeneration"),
    model_type="t5",
    table=table,
    config=config,
    describe=describe,
    aliases={"shared.weight": ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")},
    shape="encoder-decoder",
)
