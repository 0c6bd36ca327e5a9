"""LLaMA 1 to 3.3, and all models under its name (arXiv:2302.13971, arXiv:2407.21783).

The families that follow its layout (Mistral, Qwen, Gemma, Mixtral) reuse this code.
"""

import dataclasses
from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.family import Family, HubConfig, their_activation
from dragoman.interchange.names import NameTable
from dragoman.interchange.rope import read_rotary, their_longest, their_rotary
from dragoman.model.attention import AttentionConfig
from dragoman.model.masks.visibility import Causal, Visibility
from dragoman.model.mlp import Gated
from dragoman.model.norm import Norm, RmsNorm
from dragoman.model.transformer import BlockConfig, TowerConfig, TransformerConfig

ATTENTION: NameTable = {
    "model.embed_tokens.weight": "embed.tokens.weight",
    "model.layers.{i}.input_layernorm.{leaf}": "decoder.blocks.{i}.mixer_residual.before.{leaf}",
    "model.layers.{i}.self_attn.q_proj.{leaf}": "decoder.blocks.{i}.mixer.q.{leaf}",
    "model.layers.{i}.self_attn.k_proj.{leaf}": "decoder.blocks.{i}.mixer.k.{leaf}",
    "model.layers.{i}.self_attn.v_proj.{leaf}": "decoder.blocks.{i}.mixer.v.{leaf}",
    "model.layers.{i}.self_attn.o_proj.{leaf}": "decoder.blocks.{i}.mixer.out.{leaf}",
    "model.layers.{i}.self_attn.q_norm.{leaf}": "decoder.blocks.{i}.mixer.q_norm.{leaf}",
    "model.layers.{i}.self_attn.k_norm.{leaf}": "decoder.blocks.{i}.mixer.k_norm.{leaf}",
    "model.norm.{leaf}": "decoder.final_norm.{leaf}",
    "lm_head.weight": "output.weight",
}
MLP: NameTable = {
    "model.layers.{i}.mlp.gate_proj.{leaf}": "decoder.blocks.{i}.mlp.gate.{leaf}",
    "model.layers.{i}.mlp.up_proj.{leaf}": "decoder.blocks.{i}.mlp.up.{leaf}",
    "model.layers.{i}.mlp.down_proj.{leaf}": "decoder.blocks.{i}.mlp.out.{leaf}",
}
PRE_NORM: NameTable = {
    "model.layers.{i}.post_attention_layernorm.{leaf}": "decoder.blocks.{i}.mlp_residual.before.{leaf}"
}
TABLE: NameTable = ATTENTION | MLP | PRE_NORM


# ---- config.json -> ours ---------------------------------------------------------------------------


def attention(given: HubConfig, **options: Any) -> AttentionConfig:
    heads = given["num_attention_heads"]
    return AttentionConfig(
        **{
            "heads": heads,
            "kv_heads": given.get("num_key_value_heads", heads),
            "head_dim": given.get("head_dim", given["hidden_size"] // heads),
            "position": options.get("position") or read_rotary(given),
            "visibility": Causal(),
            "bias": bool(given.get("attention_bias", False)),
        }
        | options
    )


def gated(given: HubConfig) -> Gated:
    return Gated(hidden=given["intermediate_size"], activation=given.activation("hidden_act"))


def gated_with_bias(given: HubConfig) -> Gated:
    """Return the feed-forward of a family that obeys ``mlp_bias``: LLaMA and SmolLM 3 do, no other of its followers."""
    return dataclasses.replace(gated(given), bias=bool(given.get("mlp_bias", False)))


def rms_norm(given: HubConfig) -> RmsNorm:
    return RmsNorm(eps=given.get("rms_norm_eps", 1e-6))


def model(given: HubConfig, blocks: list[BlockConfig], norm: Norm, **options: Any) -> TransformerConfig:
    tied = given.get("tie_word_embeddings", False)
    return TransformerConfig(
        vocab=given["vocab_size"],
        dim=given["hidden_size"],
        decoder=TowerConfig(depth=given["num_hidden_layers"], pattern=repeated(blocks), final_norm=norm),
        tying="target" if tied else "none",
        **options,
    )


def repeated(blocks: list[BlockConfig]) -> tuple[BlockConfig, ...]:
    """Return the shortest pattern that ``blocks`` repeat."""
    for length in range(1, len(blocks) + 1):
        if all(block == blocks[i % length] for i, block in enumerate(blocks)):
            return tuple(blocks[:length])
    raise AssertionError("every list repeats itself")


def windows(given: HubConfig, *, every: bool) -> list[Visibility]:
    """Return each layer's mask, from ``layer_types`` where given; else ``every`` layer has the window, or none."""
    depth, window = given["num_hidden_layers"], given.get("sliding_window")
    kinds = given.get("layer_types", ["sliding_attention" if every else "full_attention"] * depth)
    if not isinstance(kinds, list):
        raise ConfigError(f"{given.where}: layer_types: a list with an entry for each layer is wanted, not {kinds!r}")
    if strange := sorted(set(kinds) - {"sliding_attention", "full_attention"}):
        raise ConfigError(f"{given.where}: layer_types: {strange[0]!r} is not supported here")
    if len(kinds) != depth:
        raise ConfigError(f"{given.where}: layer_types: {len(kinds)} of them for {depth} layers")
    if "sliding_attention" in kinds and window is None:
        raise ConfigError(f"{given.where}: sliding_window: must be given, for layers with sliding_attention")
    return [Causal(window=window) if kind == "sliding_attention" else Causal() for kind in kinds]


def config(given: HubConfig) -> TransformerConfig:
    given.only("pretraining_tp", 1)
    block = BlockConfig(mixer=attention(given), mlp=gated_with_bias(given), norm=rms_norm(given))
    return model(given, [block], rms_norm(given))


# ---- ours -> config.json ---------------------------------------------------------------------------


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    mixer, mlp = cfg.decoder.pattern[0].attention, cfg.decoder.pattern[0].mlp
    return {
        "vocab_size": cfg.vocab,
        "hidden_size": cfg.dim,
        "num_hidden_layers": cfg.decoder.depth,
        "num_attention_heads": mixer.heads,
        "num_key_value_heads": mixer.key_value_heads,
        "head_dim": mixer.head_dim or cfg.dim // mixer.heads,
        "intermediate_size": getattr(mlp, "hidden", 1),
        "hidden_act": their_activation(getattr(mlp, "activation", "silu")),
        "rms_norm_eps": getattr(cfg.decoder.final_norm, "eps", 1e-6),
        "rope_parameters": their_rotary(mixer.position),
        "max_position_embeddings": their_longest(mixer.position),
        "tie_word_embeddings": cfg.tying in ("all", "target"),
        "attention_bias": mixer.bias,
        "mlp_bias": getattr(mlp, "bias", False),
    }


FAMILY = Family(
    name="llama",
    architectures=("LlamaForCausalLM",),
    model_type="llama",
    table=lambda cfg: TABLE,
    config=config,
    describe=describe,
    prefix="model.",
)
