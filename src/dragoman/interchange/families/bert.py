"""BERT and the sentence encoders of its shape, MiniLM among them (arXiv:1810.04805, arXiv:2002.10957)."""

from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.family import Family, HubConfig, class_count, their_activation
from dragoman.interchange.names import NameTable
from dragoman.model.attention import AttentionConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import ClassificationHead, Head, MaskedLanguageHead, NoHead, SpansHead, TaggingHead
from dragoman.model.inputs import TokenInput
from dragoman.model.masks.visibility import Full
from dragoman.model.mlp import Activation, FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import Learned
from dragoman.model.tower import BlockConfig, TowerConfig

_OURS = "tower.blocks.{i}"


def body(base: str) -> NameTable:
    """Return the names of embeddings and layers, which have the prefix ``base``."""
    layer = f"{base}.encoder.layer.{{i}}"
    return {
        f"{base}.embeddings.word_embeddings.weight": "inputs.tokens.weight",
        f"{base}.embeddings.position_embeddings.weight": "inputs.position.weight",
        f"{base}.embeddings.token_type_embeddings.weight": "inputs.types.weight",
        f"{base}.embeddings.LayerNorm.{{leaf}}": "inputs.norm.{leaf}",
        f"{layer}.attention.self.query.{{leaf}}": f"{_OURS}.mixer.q.{{leaf}}",
        f"{layer}.attention.self.key.{{leaf}}": f"{_OURS}.mixer.k.{{leaf}}",
        f"{layer}.attention.self.value.{{leaf}}": f"{_OURS}.mixer.v.{{leaf}}",
        f"{layer}.attention.output.dense.{{leaf}}": f"{_OURS}.mixer.out.{{leaf}}",
        f"{layer}.attention.output.LayerNorm.{{leaf}}": f"{_OURS}.mixer_residual.after.{{leaf}}",
        f"{layer}.intermediate.dense.{{leaf}}": f"{_OURS}.mlp.up.{{leaf}}",
        f"{layer}.output.dense.{{leaf}}": f"{_OURS}.mlp.out.{{leaf}}",
        f"{layer}.output.LayerNorm.{{leaf}}": f"{_OURS}.mlp_residual.after.{{leaf}}",
    }


HEADS: dict[str, NameTable] = {
    "masked_language": {
        "cls.predictions.transform.dense.{leaf}": "head.dense.{leaf}",
        "cls.predictions.transform.LayerNorm.{leaf}": "head.norm.{leaf}",
        "cls.predictions.bias": "head.output.bias",
        "cls.predictions.decoder.weight": "head.output.weight",
    },
    "classification": {"bert.pooler.dense.{leaf}": "head.dense.{leaf}", "classifier.{leaf}": "head.output.{leaf}"},
    "tagging": {"classifier.{leaf}": "head.output.{leaf}"},
    "spans": {"qa_outputs.{leaf}": "head.output.{leaf}"},
}


def table(cfg: EncoderConfig) -> NameTable:
    return body("bert") | HEADS.get(cfg.head.kind, {})  # pyright: ignore[reportAttributeAccessIssue]


def tables(cfg: EncoderConfig) -> frozenset[str]:
    if isinstance(cfg.head, MaskedLanguageHead):
        return frozenset({"inputs.tokens.weight", "head.output.weight", "head.output.bias"})
    return frozenset({"inputs.tokens.weight"})


# ---- config.json -> ours ---------------------------------------------------------------------------


def head(given: HubConfig, norm: LayerNorm, activation: str = "hidden_act", pooler: Activation | None = "tanh") -> Head:
    """Return the head that the architecture implies.

    Args:
        norm: norm of a head that predicts tokens.
        activation: name of the field with the activation of that head.
        pooler: activation of the layer before the classes of a text; None for no such layer.
    """
    given.read.add("tie_word_embeddings")  # irrelevant where no tokens are predicted
    name = str(next(iter(given.get("architectures", [])), ""))
    classes = class_count(given)
    match name.partition("For")[2]:
        case "MaskedLM" | "PreTraining":
            tied = bool(given.get("tie_word_embeddings", True))
            return MaskedLanguageHead(activation=given.activation(activation), norm=norm, tied=tied)
        case "SequenceClassification":
            return ClassificationHead(classes=classes, activation=pooler)
        case "TokenClassification":
            return TaggingHead(classes=classes)
        case "QuestionAnswering":
            return SpansHead()
    return NoHead()


def model(given: HubConfig, positions: Learned) -> EncoderConfig:
    given.only("position_embedding_type", "absolute")
    given.only("is_decoder", False)
    given.only("add_cross_attention", False)
    norm = LayerNorm(eps=given.get("layer_norm_eps", 1e-12))
    block = BlockConfig(
        mixer=AttentionConfig(heads=given["num_attention_heads"], visibility=Full(), bias=True),
        mlp=FeedForward(hidden=given["intermediate_size"], activation=given.activation("hidden_act")),
        norm=norm,
        placement="post",
    )
    return EncoderConfig(
        inputs=TokenInput(
            vocab=given["vocab_size"], position=positions, types=given.get("type_vocab_size", 2), norm=norm
        ),
        dim=given["hidden_size"],
        tower=TowerConfig(depth=given["num_hidden_layers"], pattern=(block,)),
        head=head(given, norm),
    )


def config(given: HubConfig) -> EncoderConfig:
    return model(given, Learned(length=given["max_position_embeddings"]))


# ---- ours -> config.json ---------------------------------------------------------------------------

AS = {
    "masked_language": "MaskedLM",
    "classification": "SequenceClassification",
    "tagging": "TokenClassification",
    "spans": "QuestionAnswering",
}
"""Endings of the names of architectures, by the kind of head."""


def describe(cfg: EncoderConfig, name: str = "Bert") -> dict[str, Any]:
    block, kind = cfg.blocks.pattern[0], str(cfg.head.kind)  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(cfg.inputs, TokenInput):
        raise ConfigError("model.inputs: this layout reads token ids")
    classes = getattr(cfg.head, "classes", None) or 2
    return {
        "architectures": [f"{name}For{AS[kind]}" if kind in AS else f"{name}Model"],
        "vocab_size": cfg.inputs.vocab,
        "hidden_size": cfg.dim,
        "num_hidden_layers": cfg.blocks.depth,
        "num_attention_heads": block.attention.heads,
        "intermediate_size": getattr(block.mlp, "hidden", 1),
        "hidden_act": their_activation(getattr(block.mlp, "activation", "gelu")),
        "layer_norm_eps": getattr(block.norm, "eps", 1e-12),
        "max_position_embeddings": cfg.inputs.position.length or 512,
        "type_vocab_size": cfg.inputs.types,
        "id2label": {str(i): f"LABEL_{i}" for i in range(classes)},
    }


FAMILY = Family(
    name="bert",
    architectures=(
        "BertModel", "BertForMaskedLM", "BertForPreTraining", "BertForSequenceClassification",
        "BertForTokenClassification", "BertForQuestionAnswering",
    ),
    model_type="bert",
    table=table,
    config=config,
    describe=describe,
    prefix="bert.",
    aliases={"cls.predictions.bias": ("cls.predictions.decoder.bias",)},
    shape="encoder",
    tables=tables,
)  # fmt: skip
