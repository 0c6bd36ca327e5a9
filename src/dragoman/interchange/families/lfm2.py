"""LFM2: gated short convolutions, and attention with norms on queries and keys in a few layers (arXiv:2511.23404)."""

from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.families import llama
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable
from dragoman.interchange.rope import LONGEST, read_rotary, their_rotary
from dragoman.model.attention import AttentionConfig
from dragoman.model.mlp import Gated
from dragoman.model.norm import RmsNorm
from dragoman.model.short_convolution import ShortConvolution
from dragoman.model.transformer import BlockConfig, TransformerConfig

_ENDS: NameTable = {
    "model.embed_tokens.weight": "embed.tokens.weight",
    "model.embedding_norm.weight": "decoder.final_norm.weight",
    "lm_head.weight": "output.weight",
}
_BLOCK = {
    "operator_norm.weight": "mixer_residual.before.weight",
    "ffn_norm.weight": "mlp_residual.before.weight",
    "feed_forward.w1.weight": "mlp.gate.weight",
    "feed_forward.w3.weight": "mlp.up.weight",
    "feed_forward.w2.weight": "mlp.out.weight",
}
_ATTENTION = {
    "self_attn.q_proj.weight": "mixer.q.weight",
    "self_attn.k_proj.weight": "mixer.k.weight",
    "self_attn.v_proj.weight": "mixer.v.weight",
    "self_attn.out_proj.weight": "mixer.out.weight",
    "self_attn.q_layernorm.weight": "mixer.q_norm.weight",
    "self_attn.k_layernorm.weight": "mixer.k_norm.weight",
}
_CONVOLUTION = {
    "conv.in_proj.{leaf}": "mixer.inputs.{leaf}",
    "conv.conv.{leaf}": "mixer.convolution.{leaf}",
    "conv.out_proj.{leaf}": "mixer.out.{leaf}",
}


def table(cfg: TransformerConfig) -> NameTable:
    """Return their names and ours; layers of both kinds end in a matrix of the same name here, so each has rows of its
    own."""
    rows: NameTable = dict(_ENDS)
    for i in range(cfg.decoder.depth):
        mixer = cfg.decoder.pattern[i % len(cfg.decoder.pattern)].mixer
        part = _BLOCK | (_CONVOLUTION if isinstance(mixer, ShortConvolution) else _ATTENTION)
        rows |= {f"model.layers.{i}.{theirs}": f"decoder.blocks.{i}.{ours}" for theirs, ours in part.items()}
    return rows


# ---- config.json -> ours ---------------------------------------------------------------------------


def config(given: HubConfig) -> TransformerConfig:
    norm = RmsNorm(eps=given.get("norm_eps", 1e-5))
    given.only("use_pos_enc", True)
    given.only("block_use_swiglu", True)
    given.read |= _UNREAD
    kernel, bias = given.get("conv_L_cache", 3), bool(given.get("conv_bias", False))
    mixers = {
        "conv": lambda: ShortConvolution(kernel=kernel, bias=bias),
        "full_attention": lambda: llama.attention(
            given, bias=False, qk_norm=norm, position=read_rotary(given, theta=1_000_000.0)
        ),
    }
    mlp = Gated(hidden=hidden(given))
    blocks = [BlockConfig(mixer=mixers[kind](), mlp=mlp, norm=norm) for kind in kinds(given)]
    tied = given.get("tie_embedding", given.get("tie_word_embeddings", True))
    return llama.model(given.changed(tie_word_embeddings=bool(tied)), blocks, norm)


_UNREAD = frozenset({
    "block_dim", "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale", "block_use_xavier_init", "conv_dim",
    "conv_dim_out", "conv_use_xavier_init", "num_heads", "full_attn_idxs", "layer_types", "rope_theta", "theta",
})  # fmt: skip
"""Fields of published files that transformers does not read, or that other fields take the place of."""


def kinds(given: HubConfig) -> list[str]:
    """Return the kind of each layer."""
    depth, listed = given["num_hidden_layers"], given.get("layer_types")
    if listed is None:
        attending = given.get("full_attn_idxs", list(range(depth)))
        listed = ["full_attention" if i in attending else "conv" for i in range(depth)]
    strange = [kind for kind in listed if kind not in KINDS] if isinstance(listed, list) else [listed]
    if strange:
        raise ConfigError(
            f"{given.where}: layer_types: {strange[0]!r} is not supported here, only {' or '.join(KINDS)}"
        )
    if len(listed) != depth:
        raise ConfigError(f"{given.where}: layer_types: {len(listed)} of them for {depth} layers")
    return listed


KINDS = ("conv", "full_attention")


def hidden(given: HubConfig) -> int:
    """Return the hidden width of the feed-forward, which transformers may derive from the one that is given."""
    size = given.get("block_ff_dim") or given["intermediate_size"]
    multiplier, multiple = given.get("block_ffn_dim_multiplier", 1.0), given.get("block_multiple_of", 256)
    if not given.get("block_auto_adjust_ff_dim", True):
        return size
    return -(-int(multiplier * int(2 * size / 3)) // multiple) * multiple


# ---- ours -> config.json ---------------------------------------------------------------------------


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    mixers = [cfg.decoder.pattern[i % len(cfg.decoder.pattern)].mixer for i in range(cfg.decoder.depth)]
    convolution = next((mixer for mixer in mixers if isinstance(mixer, ShortConvolution)), None)
    attention = next((mixer for mixer in mixers if isinstance(mixer, AttentionConfig)), None)
    if convolution is None:  # models of attention alone have layouts that more tools know
        raise ConfigError("decoder.pattern: no short_convolution, which some layers of lfm2 have")
    attention = attention or AttentionConfig(heads=1, visibility=llama.Causal())
    mlp = cfg.decoder.pattern[0].mlp
    return {
        "vocab_size": cfg.vocab,
        "hidden_size": cfg.dim,
        "num_hidden_layers": cfg.decoder.depth,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.key_value_heads,
        "head_dim": attention.head_dim or cfg.dim // attention.heads,
        "intermediate_size": getattr(mlp, "hidden", 1),
        "block_auto_adjust_ff_dim": False,
        "norm_eps": getattr(cfg.decoder.final_norm, "eps", 1e-5),
        "rope_parameters": their_rotary(attention.position),
        "max_position_embeddings": LONGEST,
        "tie_word_embeddings": cfg.tying in ("all", "target"),
        "conv_L_cache": convolution.kernel,
        "conv_bias": convolution.bias,
        "layer_types": ["conv" if isinstance(mixer, ShortConvolution) else "full_attention" for mixer in mixers],
    }


FAMILY = Family(
    name="lfm2",
    architectures=("Lfm2ForCausalLM",),
    model_type="lfm2",
    table=table,
    config=config,
    describe=describe,
    prefix="model.",
    mixers=(AttentionConfig, ShortConvolution),
)
