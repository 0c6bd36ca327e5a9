"""ModernBERT: norms before sublayers, rotary positions, GeGLU, and a window in two of three layers (arXiv:2412.13663).

The first layer's mixer reads the embeddings, which have a norm of their own.
"""

import dataclasses
from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.families import bert, llama
from dragoman.interchange.family import Family, class_count, their_activation
from dragoman.interchange.hub_config import HubConfig
from dragoman.interchange.names import NameTable, TensorForm
from dragoman.interchange.rope import read_rotary, rope_settings, their_rotary
from dragoman.model.attention import AttentionConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import (
    ClassificationHead,
    First,
    Head,
    MaskedLanguageHead,
    Mean,
    NoHead,
    SpansHead,
    TaggingHead,
)
from dragoman.model.inputs import TokenInput
from dragoman.model.masks.visibility import Full, SlidingWindow
from dragoman.model.mlp import Gated
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.rotary import Rotary
from dragoman.model.tower import BlockConfig, TowerConfig

_LAYER, _OURS = "model.layers.{i}", "tower.blocks.{i}"
_HEAD: NameTable = {"head.dense.{leaf}": "head.dense.{leaf}", "head.norm.{leaf}": "head.norm.{leaf}"}
_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
_THETA = {_LOCAL: ("local_rope_theta", 10_000.0), _GLOBAL: ("global_rope_theta", 160_000.0)}


def _joined(*ours: str) -> TensorForm:
    return TensorForm(tuple(f"{_OURS}.{name}.{{leaf}}" for name in ours))


def table(cfg: EncoderConfig) -> NameTable:
    output = "decoder" if isinstance(cfg.head, MaskedLanguageHead) else "classifier"
    return {
        "model.embeddings.tok_embeddings.weight": "inputs.tokens.weight",
        "model.embeddings.norm.{leaf}": "inputs.norm.{leaf}",
        f"{_LAYER}.attn_norm.{{leaf}}": f"{_OURS}.mixer_residual.before.{{leaf}}",
        f"{_LAYER}.attn.Wqkv.{{leaf}}": _joined("mixer.q", "mixer.k", "mixer.v"),
        f"{_LAYER}.attn.Wo.{{leaf}}": f"{_OURS}.mixer.out.{{leaf}}",
        f"{_LAYER}.mlp_norm.{{leaf}}": f"{_OURS}.mlp_residual.before.{{leaf}}",
        f"{_LAYER}.mlp.Wi.{{leaf}}": _joined("mlp.gate", "mlp.up"),
        f"{_LAYER}.mlp.Wo.{{leaf}}": f"{_OURS}.mlp.out.{{leaf}}",
        "model.final_norm.{leaf}": "tower.final_norm.{leaf}",
        f"{output}.{{leaf}}": "head.output.{leaf}",
    } | _HEAD


# ---- config.json -> ours ---------------------------------------------------------------------------


def kinds(given: HubConfig) -> list[str]:
    """Return the kind of each layer: every third sees all, where nothing else is said."""
    depth, every = given["num_hidden_layers"], given.get("global_attn_every_n_layers", 3)
    listed = given.get("layer_types", [_LOCAL if i % every else _GLOBAL for i in range(depth)])
    if not isinstance(listed, list) or len(listed) != depth or set(listed) - {_LOCAL, _GLOBAL}:
        raise ConfigError(f"{given.where}: layer_types: {_LOCAL} or {_GLOBAL} for each of {depth} layers is wanted")
    return listed


def _rotary(given: HubConfig, kind: str) -> Rotary:
    old, theta = _THETA[kind]
    theta = given.get(old, theta)
    if given.get("rope_scaling"):
        raise ConfigError(f"{given.where}: rope_scaling: {given.content['rope_scaling']!r} is not supported here")
    stated = rope_settings(given, "rope_parameters").get(kind)
    return read_rotary(given, kind, theta) if stated else Rotary(theta=float(theta))


def _blocks(given: HubConfig, norm: LayerNorm) -> list[BlockConfig]:
    reach = given.get("local_attention", 128) // 2
    bias = bool(given.get("attention_bias", False))
    mlp = Gated(
        hidden=given["intermediate_size"],
        activation=given.activation("hidden_activation"),
        bias=bool(given.get("mlp_bias", False)),
    )
    found = []
    for kind in kinds(given):
        sees = SlidingWindow(reach=reach) if kind == _LOCAL else Full()
        mixer = AttentionConfig(
            heads=given["num_attention_heads"], visibility=sees, position=_rotary(given, kind), bias=bias
        )
        found.append(BlockConfig(mixer=mixer, mlp=mlp, norm=norm, placement="pre"))
    return [dataclasses.replace(found[0], placement="pre_mlp"), *found[1:]]


def _head(given: HubConfig, norm: LayerNorm) -> Head:
    layer: dict[str, Any] = {
        "activation": given.activation("classifier_activation"),
        "norm": norm,
        "bias": bool(given.get("classifier_bias", False)),
    }
    pooling = given.only("classifier_pooling", "cls", "mean")
    given.only("decoder_bias", True)
    tied = bool(given.get("tie_word_embeddings", True))
    classes = class_count(given)
    match str(next(iter(given.get("architectures", [])), "")).partition("For")[2]:
        case "MaskedLM":
            return MaskedLanguageHead(tied=tied, **layer)
        case "SequenceClassification":
            return ClassificationHead(classes=classes, pooling=Mean() if pooling == "mean" else First(), **layer)
        case "TokenClassification":
            return TaggingHead(classes=classes, **layer)
        case "QuestionAnswering":
            return SpansHead(**layer)
    return NoHead()


def config(given: HubConfig) -> EncoderConfig:
    given.only("position_embedding_type", "absolute", "sans_pos")
    given.read |= _UNREAD
    norm = LayerNorm(eps=given.get("norm_eps", 1e-5), bias=bool(given.get("norm_bias", False)))
    blocks = _blocks(given, norm)
    return EncoderConfig(
        inputs=TokenInput(vocab=given["vocab_size"], norm=norm),
        dim=given["hidden_size"],
        tower=TowerConfig(depth=len(blocks), pattern=llama.repeated(blocks), final_norm=norm),
        head=_head(given, norm),
    )


_UNREAD = frozenset({
    "layer_norm_eps", "reference_compile", "repad_logits_with_grad", "sparse_prediction", "sparse_pred_ignore_index",
    "deterministic_flash_attn", "initializer_cutoff_factor", "embedding_dropout", "mlp_dropout",
    "position_embedding_type",
})  # fmt: skip
"""Fields of published files that transformers does not read, or that change only how something is computed."""


# ---- ours -> config.json ---------------------------------------------------------------------------


def describe(cfg: EncoderConfig) -> dict[str, Any]:
    if not isinstance(cfg.inputs, TokenInput):
        raise ConfigError("model.inputs: this layout reads token ids")
    blocks = [cfg.blocks.pattern[i % len(cfg.blocks.pattern)] for i in range(cfg.blocks.depth)]
    sees = [block.attention.visibility for block in blocks]
    types = [_LOCAL if isinstance(one, SlidingWindow) else _GLOBAL for one in sees]
    rotary = {kind: {"rope_type": "default", "rope_theta": theta} for kind, (_, theta) in _THETA.items()}
    rotary |= {kind: their_rotary(block.attention.position) for kind, block in zip(types, blocks, strict=True)}
    reach = next((one.reach for one in sees if isinstance(one, SlidingWindow)), 64)
    first, kind = blocks[0], str(cfg.head.kind)  # pyright: ignore[reportAttributeAccessIssue]
    pooling = "mean" if isinstance(getattr(cfg.head, "pooling", None), Mean) else "cls"
    return {
        "architectures": [f"ModernBertFor{bert.AS[kind]}" if kind in bert.AS else "ModernBertModel"],
        "vocab_size": cfg.inputs.vocab,
        "hidden_size": cfg.dim,
        "num_hidden_layers": cfg.blocks.depth,
        "num_attention_heads": first.attention.heads,
        "intermediate_size": getattr(first.mlp, "hidden", 1),
        "hidden_activation": their_activation(getattr(first.mlp, "activation", "gelu")),
        "norm_eps": getattr(cfg.blocks.final_norm, "eps", 1e-5),
        "norm_bias": getattr(cfg.blocks.final_norm, "bias", False),
        "attention_bias": first.attention.bias,
        "mlp_bias": getattr(first.mlp, "bias", False),
        "layer_types": types,
        "local_attention": 2 * reach,
        "rope_parameters": rotary,
        "classifier_pooling": pooling,
        "classifier_activation": their_activation(getattr(cfg.head, "activation", None) or "gelu"),
        "classifier_bias": getattr(cfg.head, "bias", False),
        "tie_word_embeddings": getattr(cfg.head, "tied", True),
        "id2label": {str(i): f"LABEL_{i}" for i in range(getattr(cfg.head, "classes", None) or 2)},
    }


FAMILY = Family(
    name="modernbert",
    architectures=(
        "ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification",
        "ModernBertForTokenClassification", "ModernBertForQuestionAnswering",
    ),
    model_type="modernbert",
    table=table,
    config=config,
    describe=describe,
    prefix="model.",
    shape="encoder",
    tables=bert.tables,
)  # fmt: skip
