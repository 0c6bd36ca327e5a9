"""GPT-2 (Radford et al. 2019). Its matrices are stored as inputs x outputs, queries, keys and values in one."""

import itertools
import math
from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.families import llama
from dragoman.interchange.family import Family, HubConfig, their_activation
from dragoman.interchange.names import NameTable, TensorForm
from dragoman.model.attention import AttentionConfig
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import Learned
from dragoman.model.scorer import ScaledDot
from dragoman.model.transformer import BlockConfig, TowerConfig, TransformerConfig

_BLOCK = "decoder.blocks.{i}."
TABLE: NameTable = {
    "transformer.wte.weight": "embed.tokens.weight",
    "transformer.wpe.weight": "embed.position.weight",
    "transformer.h.{i}.ln_1.{leaf}": _BLOCK + "mixer_residual.before.{leaf}",
    "transformer.h.{i}.attn.c_attn.weight": TensorForm(
        tuple(_BLOCK + f"mixer.{part}.weight" for part in "qkv"), transposed=True
    ),
    "transformer.h.{i}.attn.c_attn.bias": TensorForm(tuple(_BLOCK + f"mixer.{part}.bias" for part in "qkv")),
    "transformer.h.{i}.attn.c_proj.weight": TensorForm((_BLOCK + "mixer.out.weight",), transposed=True),
    "transformer.h.{i}.attn.c_proj.bias": _BLOCK + "mixer.out.bias",
    "transformer.h.{i}.ln_2.{leaf}": _BLOCK + "mlp_residual.before.{leaf}",
    "transformer.h.{i}.mlp.c_fc.weight": TensorForm((_BLOCK + "mlp.up.weight",), transposed=True),
    "transformer.h.{i}.mlp.c_fc.bias": _BLOCK + "mlp.up.bias",
    "transformer.h.{i}.mlp.c_proj.weight": TensorForm((_BLOCK + "mlp.out.weight",), transposed=True),
    "transformer.h.{i}.mlp.c_proj.bias": _BLOCK + "mlp.out.bias",
    "transformer.ln_f.{leaf}": "decoder.final_norm.{leaf}",
    "lm_head.weight": "output.weight",
}


def usual_scale(given: HubConfig) -> float:
    """Return 1 / sqrt(C).

    Raises:
        ConfigError: more heads than channels.
    """
    dim, heads = given["n_embd"], given["n_head"]
    if heads > dim:
        raise ConfigError(f"{given.where}: n_head: {heads} heads do not divide n_embd, {dim}")
    return (dim // heads) ** -0.5


def scales(given: HubConfig) -> list[float]:
    """Return each layer's factor of scores: 1 / sqrt(C), or 1; divided by its number where the file says so (Mistral's
    GPT-2, which trained in float16)."""
    scale = usual_scale(given) if given.only("scale_attn_weights", True, False) else 1.0
    numbered = given.only("scale_attn_by_inverse_layer_idx", False, True)
    return [scale / (i + 1 if numbered else 1) for i in range(given["n_layer"])]


def config(given: HubConfig) -> TransformerConfig:
    given.only("add_cross_attention", False)
    norm = LayerNorm(eps=given.get("layer_norm_epsilon", 1e-5))
    mlp = FeedForward(
        hidden=given.get("n_inner", 4 * given["n_embd"]), activation=given.activation("activation_function")
    )
    usual = usual_scale(given)
    blocks = [
        BlockConfig(
            mixer=AttentionConfig(
                heads=given["n_head"],
                visibility=Causal(),
                bias=True,
                scorer=ScaledDot(scale=None if scale == usual else scale),
            ),
            mlp=mlp,
            norm=norm,
        )
        for scale in scales(given)
    ]
    return TransformerConfig(
        vocab=given["vocab_size"],
        dim=given["n_embd"],
        decoder=TowerConfig(depth=given["n_layer"], pattern=llama.repeated(blocks), final_norm=norm),
        position=Learned(length=given["n_positions"]),
        tying="target" if given.get("tie_word_embeddings", True) else "none",
    )


def described_scales(cfg: TransformerConfig) -> dict[str, bool]:
    """Return the settings of ``scales`` that make the layers' factors; the usual ones where none does."""
    mixers = [cfg.decoder.pattern[i % len(cfg.decoder.pattern)].attention for i in range(cfg.decoder.depth)]
    usual = mixers[0].channels(cfg.dim) ** -0.5
    found = [getattr(mixer.scorer, "scale", 1.0) or usual for mixer in mixers]  # dot products have the factor 1
    for by_size, numbered in itertools.product((True, False), (False, True)):
        made = [(usual if by_size else 1.0) / (i + 1 if numbered else 1) for i in range(len(mixers))]
        if all(math.isclose(a, b) for a, b in zip(found, made, strict=True)):
            return {"scale_attn_weights": by_size, "scale_attn_by_inverse_layer_idx": numbered}
    return {}


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    block = cfg.decoder.pattern[0]
    return {
        "vocab_size": cfg.vocab,
        "n_embd": cfg.dim,
        "n_layer": cfg.decoder.depth,
        "n_head": block.attention.heads,
        "n_inner": getattr(block.mlp, "hidden", 1),
        "n_positions": cfg.position.length or 1024,
        "activation_function": their_activation(getattr(block.mlp, "activation", "gelu_tanh")),
        "layer_norm_epsilon": getattr(cfg.decoder.final_norm, "eps", 1e-5),
        "tie_word_embeddings": cfg.tying in ("all", "target"),
        **described_scales(cfg),
    }


FAMILY = Family(
    name="gpt2",
    architectures=("GPT2LMHeadModel",),
    model_type="gpt2",
    table=lambda cfg: TABLE,
    config=config,
    describe=describe,
    prefix="transformer.",
)
