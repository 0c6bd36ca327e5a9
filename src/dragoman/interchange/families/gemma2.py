"""Gemma 2: norms around each sublayer, capped scores and logits, every other layer with a window (arXiv:2408.00118)."""

from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.families import llama, qwen2
from dragoman.interchange.family import Family, HubConfig, their_activation
from dragoman.interchange.names import NameTable
from dragoman.model.masks.visibility import Causal, Visibility
from dragoman.model.mlp import Gated
from dragoman.model.norm import ZeroCenteredRmsNorm
from dragoman.model.scorer import AnyScorer, CappedDot, ScaledDot
from dragoman.model.transformer import BlockConfig, TransformerConfig

TABLE: NameTable = (
    llama.ATTENTION
    | llama.MLP
    | {
        "model.layers.{i}.post_attention_layernorm.{leaf}": "decoder.blocks.{i}.mixer_residual.output.{leaf}",
        "model.layers.{i}.pre_feedforward_layernorm.{leaf}": "decoder.blocks.{i}.mlp_residual.before.{leaf}",
        "model.layers.{i}.post_feedforward_layernorm.{leaf}": "decoder.blocks.{i}.mlp_residual.output.{leaf}",
    }
)


def norm(given: HubConfig) -> ZeroCenteredRmsNorm:
    return ZeroCenteredRmsNorm(eps=given.get("rms_norm_eps", 1e-6))


def scorer(given: HubConfig) -> AnyScorer:
    channels = float(given.get("query_pre_attn_scalar", 256))
    if channels <= 0:
        raise ConfigError(f"{given.where}: query_pre_attn_scalar: expected a number above 0, got {channels}")
    scale = channels**-0.5
    cap = given.get("attn_logit_softcapping")
    return ScaledDot(scale=scale) if cap is None else CappedDot(cap=float(cap), scale=scale)


def gated(given: HubConfig) -> Gated:
    names = [name for name in ("hidden_activation", "hidden_act") if given.get(name)]  # both count as read
    name = names[0] if names else "hidden_activation"
    return Gated(hidden=given["intermediate_size"], activation=given.activation(name))


def masks(given: HubConfig) -> list[Visibility]:
    """Return each layer's mask: by default every other layer has a window, from the first on."""
    if given.get("layer_types"):
        return llama.windows(given, every=True)
    return [Causal(window=None if i % 2 else given["sliding_window"]) for i in range(given["num_hidden_layers"])]


def block(given: HubConfig, **mixer: Any) -> BlockConfig:
    mixer = {"head_dim": given.get("head_dim", 256), "scorer": scorer(given)} | mixer
    return BlockConfig(mixer=llama.attention(given, **mixer), mlp=gated(given), norm=norm(given), placement="sandwich")


def model(given: HubConfig, blocks: list[BlockConfig]) -> TransformerConfig:
    given.only("use_bidirectional_attention", False)
    tied = given.changed(tie_word_embeddings=given.get("tie_word_embeddings", True))
    cap = given.get("final_logit_softcapping")
    return llama.model(tied, blocks, norm(given), scale_embedding=True, logit_cap=None if cap is None else float(cap))


def config(given: HubConfig) -> TransformerConfig:
    return model(given, [block(given, visibility=mask) for mask in masks(given)])


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    first = cfg.decoder.pattern[0]
    scale = getattr(first.attention.scorer, "scale", None)
    types = qwen2.layer_types(cfg)
    return llama.describe(cfg) | {
        "hidden_activation": their_activation(getattr(first.mlp, "activation", "gelu_tanh")),
        "attn_logit_softcapping": getattr(first.attention.scorer, "cap", None),
        "final_logit_softcapping": cfg.logit_cap,
        "query_pre_attn_scalar": _whole((scale or first.attention.channels(cfg.dim) ** -0.5) ** -2),
        "layer_types": types["layer_types"],
        "sliding_window": types["sliding_window"],
        "use_bidirectional_attention": False,
    }


def _whole(scalar: float) -> int:
    """Return a number as an integer, the only kind that transformers takes here.

    Raises:
        ConfigError: it is none.
    """
    if abs(scalar - round(scalar)) > 1e-4:
        raise ConfigError(f"scorer.scale: 1 / scale^2 is {scalar:.6g}, and transformers takes whole numbers alone")
    return round(scalar)


FAMILY = Family(
    name="gemma2",
    architectures=("Gemma2ForCausalLM",),
    model_type="gemma2",
    table=lambda cfg: TABLE,
    config=config,
    describe=describe,
    prefix="model.",
)
