"""xLSTM 7B's layout: mLSTM and a gated feed-forward in each layer, capped logits (arXiv:2503.13427)."""

from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable
from dragoman.model.mlp import Gated
from dragoman.model.mlstm import EPS, Mlstm
from dragoman.model.norm import RmsNorm
from dragoman.model.transformer import BlockConfig, TowerConfig, TransformerConfig

TABLE: NameTable = {
    "backbone.embeddings.weight": "embed.tokens.weight",
    "backbone.blocks.{i}.norm_mlstm.{leaf}": "decoder.blocks.{i}.mixer_residual.before.{leaf}",
    "backbone.blocks.{i}.mlstm_layer.q.{leaf}": "decoder.blocks.{i}.mixer.q.{leaf}",
    "backbone.blocks.{i}.mlstm_layer.k.{leaf}": "decoder.blocks.{i}.mixer.k.{leaf}",
    "backbone.blocks.{i}.mlstm_layer.v.{leaf}": "decoder.blocks.{i}.mixer.v.{leaf}",
    "backbone.blocks.{i}.mlstm_layer.ogate_preact.{leaf}": "decoder.blocks.{i}.mixer.gate.{leaf}",
    "backbone.blocks.{i}.mlstm_layer.igate_preact.{leaf}": "decoder.blocks.{i}.mixer.input_gate.{leaf}",
    "backbone.blocks.{i}.mlstm_layer.fgate_preact.{leaf}": "decoder.blocks.{i}.mixer.forget_gate.{leaf}",
    "backbone.blocks.{i}.mlstm_layer.multihead_norm.weight": "decoder.blocks.{i}.mixer.norm",
    "backbone.blocks.{i}.mlstm_layer.out_proj.{leaf}": "decoder.blocks.{i}.mixer.out.{leaf}",
    "backbone.blocks.{i}.norm_ffn.{leaf}": "decoder.blocks.{i}.mlp_residual.before.{leaf}",
    "backbone.blocks.{i}.ffn.proj_up_gate.{leaf}": "decoder.blocks.{i}.mlp.gate.{leaf}",
    "backbone.blocks.{i}.ffn.proj_up.{leaf}": "decoder.blocks.{i}.mlp.up.{leaf}",
    "backbone.blocks.{i}.ffn.proj_down.{leaf}": "decoder.blocks.{i}.mlp.out.{leaf}",
    "backbone.out_norm.{leaf}": "decoder.final_norm.{leaf}",
    "lm_head.weight": "output.weight",
}

# ---- config.json -> ours ---------------------------------------------------------------------------


def config(given: HubConfig) -> TransformerConfig:
    for name, known in (("use_bias", False), ("add_out_norm", True), ("weight_mode", "single"), ("eps", EPS)):
        given.only(name, known)
    given.read |= _UNREAD
    dim, heads = given.get("embedding_dim") or given["hidden_size"], given.get("num_heads", 8)
    norm = RmsNorm(eps=given.get("norm_eps", 1e-6))
    keys, values = (_channels(given, name, dim, heads) for name in ("qk_dim_factor", "v_dim_factor"))
    cap = given.get("gate_soft_cap", 15.0)
    mixer = Mlstm(heads=heads, key_dim=keys, value_dim=values, gate_cap=float(cap), eps=norm.eps)
    block = BlockConfig(mixer=mixer, mlp=Gated(hidden=hidden(given, dim)), norm=norm)
    return TransformerConfig(
        vocab=given["vocab_size"],
        dim=dim,
        decoder=TowerConfig(
            depth=given.get("num_blocks") or given["num_hidden_layers"], pattern=(block,), final_norm=norm
        ),
        tying="target" if given.get("tie_word_embeddings", False) else "none",
        logit_cap=float(given.get("output_logit_soft_cap", 30.0)),
    )


_UNREAD = frozenset({
    "chunkwise_kernel", "sequence_kernel", "step_kernel", "mode", "chunk_size", "return_last_states", "num_blocks",
    "autocast_kernel_dtype", "inference_state_dtype", "max_inference_chunksize", "norm_reduction_force_float32",
    "hidden_size", "embedding_dim",
})  # fmt: skip
"""Fields that say how numbers are computed, or that other fields take the place of."""


def _channels(given: HubConfig, name: str, dim: int, heads: int) -> int:
    """Return the channels of one head, from the factor of the width.

    Raises:
        ConfigError: heads that do not divide them.
    """
    size = int(dim * given.get(name, {"qk_dim_factor": 0.5, "v_dim_factor": 1.0}[name]))
    if size % heads:
        raise ConfigError(f"{given.where}: num_heads: {heads} heads do not divide the {size} channels of {name}")
    return size // heads


def hidden(given: HubConfig, dim: int) -> int:
    """Return the hidden width of the feed-forward: a factor of the width, rounded up."""
    multiple = given.get("ffn_round_up_to_multiple_of", 64)
    return int((dim * given.get("ffn_proj_factor", 2.667) + multiple - 1) // multiple) * multiple


# ---- ours -> config.json ---------------------------------------------------------------------------


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    mixer, mlp = cfg.decoder.pattern[0].mixer, cfg.decoder.pattern[0].mlp
    if not isinstance(mixer, Mlstm):
        raise ConfigError("decoder.pattern.0.mixer: every layer of xlstm is an mlstm")
    keys, values = mixer.channels(cfg.dim)
    return {
        "vocab_size": cfg.vocab,
        "hidden_size": cfg.dim,
        "embedding_dim": cfg.dim,
        "num_hidden_layers": cfg.decoder.depth,
        "num_blocks": cfg.decoder.depth,
        "num_heads": mixer.heads,
        "qk_dim_factor": _factor(keys * mixer.heads, cfg.dim),
        "v_dim_factor": _factor(values * mixer.heads, cfg.dim),
        "ffn_proj_factor": _factor(getattr(mlp, "hidden", 1), cfg.dim),
        "ffn_round_up_to_multiple_of": 1,
        "gate_soft_cap": mixer.gate_cap,
        "output_logit_soft_cap": cfg.logit_cap,
        "norm_eps": mixer.eps,
        "tie_word_embeddings": cfg.tying in ("all", "target"),
    }


def _factor(size: int, dim: int) -> float:
    """Return a factor of ``dim`` that transformers makes ``size`` of, by rounding down."""
    return size / dim if int(size / dim * dim) == size else (size + 0.25) / dim


FAMILY = Family(
    name="xlstm",
    architectures=("xLSTMForCausalLM",),
    model_type="xlstm",
    table=lambda cfg: TABLE,
    config=config,
    describe=describe,
    prefix="backbone.",
    mixers=(Mlstm,),
)
