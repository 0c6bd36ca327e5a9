"""GPT-2 (Radford et al. 2019). Its matrices are stored as inputs x outputs, queries, keys and values in one."""

from typing import Any

from dragoman.interchange.family import Family, HubConfig, their_activation
from dragoman.interchange.names import NameTable, TensorForm
from dragoman.model.attention import AttentionConfig
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import Learned
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


def config(given: HubConfig) -> TransformerConfig:
    given.only("scale_attn_weights", True)
    given.only("scale_attn_by_inverse_layer_idx", False)
    given.only("add_cross_attention", False)
    norm = LayerNorm(eps=given.get("layer_norm_epsilon", 1e-5))
    block = BlockConfig(
        mixer=AttentionConfig(heads=given["n_head"], visibility=Causal(), bias=True),
        mlp=FeedForward(
            hidden=given.get("n_inner", 4 * given["n_embd"]), activation=given.activation("activation_function")
        ),
        norm=norm,
    )
    return TransformerConfig(
        vocab=given["vocab_size"],
        dim=given["n_embd"],
        decoder=TowerConfig(depth=given["n_layer"], pattern=(block,), final_norm=norm),
        position=Learned(length=given["n_positions"]),
        tying="target" if given.get("tie_word_embeddings", True) else "none",
    )


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
