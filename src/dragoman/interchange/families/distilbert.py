"""DistilBERT: BERT with half of the layers, no token types and no pooler (arXiv:1910.01108)."""

from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.families import bert
from dragoman.interchange.family import Family, HubConfig, their_activation
from dragoman.interchange.names import NameTable
from dragoman.model.attention import AttentionConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import ClassificationHead
from dragoman.model.inputs import TokenInput
from dragoman.model.masks.visibility import Full
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import Learned
from dragoman.model.tower import BlockConfig, TowerConfig

_LAYER, _OURS = "distilbert.transformer.layer.{i}", "tower.blocks.{i}"
_BODY: NameTable = {
    "distilbert.embeddings.word_embeddings.weight": "inputs.tokens.weight",
    "distilbert.embeddings.position_embeddings.weight": "inputs.position.weight",
    "distilbert.embeddings.LayerNorm.{leaf}": "inputs.norm.{leaf}",
    f"{_LAYER}.attention.q_lin.{{leaf}}": f"{_OURS}.mixer.q.{{leaf}}",
    f"{_LAYER}.attention.k_lin.{{leaf}}": f"{_OURS}.mixer.k.{{leaf}}",
    f"{_LAYER}.attention.v_lin.{{leaf}}": f"{_OURS}.mixer.v.{{leaf}}",
    f"{_LAYER}.attention.out_lin.{{leaf}}": f"{_OURS}.mixer.out.{{leaf}}",
    f"{_LAYER}.sa_layer_norm.{{leaf}}": f"{_OURS}.mixer_residual.after.{{leaf}}",
    f"{_LAYER}.ffn.lin1.{{leaf}}": f"{_OURS}.mlp.up.{{leaf}}",
    f"{_LAYER}.ffn.lin2.{{leaf}}": f"{_OURS}.mlp.out.{{leaf}}",
    f"{_LAYER}.output_layer_norm.{{leaf}}": f"{_OURS}.mlp_residual.after.{{leaf}}",
}
_HEADS: dict[str, NameTable] = {
    "masked_language": {
        "vocab_transform.{leaf}": "head.dense.{leaf}",
        "vocab_layer_norm.{leaf}": "head.norm.{leaf}",
        "vocab_projector.{leaf}": "head.output.{leaf}",
    },
    "classification": {"pre_classifier.{leaf}": "head.dense.{leaf}", "classifier.{leaf}": "head.output.{leaf}"},
    "tagging": {"classifier.{leaf}": "head.output.{leaf}"},
    "spans": {"qa_outputs.{leaf}": "head.output.{leaf}"},
}


def table(cfg: EncoderConfig) -> NameTable:
    return _BODY | _HEADS.get(cfg.head.kind, {})  # pyright: ignore[reportAttributeAccessIssue]


def config(given: HubConfig) -> EncoderConfig:
    norm = LayerNorm(eps=1e-12)
    block = BlockConfig(
        mixer=AttentionConfig(heads=given["n_heads"], visibility=Full(), bias=True),
        mlp=FeedForward(hidden=given["hidden_dim"], activation=given.activation("activation")),
        norm=norm,
        placement="post",
    )
    given.read |= {"sinusoidal_pos_embds", "tie_weights_"}  # the table of positions is stored either way
    return EncoderConfig(
        inputs=TokenInput(
            vocab=given["vocab_size"], position=Learned(length=given["max_position_embeddings"]), norm=norm
        ),
        dim=given["dim"],
        tower=TowerConfig(depth=given["n_layers"], pattern=(block,)),
        head=bert.head(given, norm, activation="activation", pooler="relu"),
    )


def describe(cfg: EncoderConfig) -> dict[str, Any]:
    block, kind = cfg.blocks.pattern[0], str(cfg.head.kind)  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(cfg.inputs, TokenInput):
        raise ConfigError("model.inputs: this layout reads token ids")
    classes = getattr(cfg.head, "classes", None) or 2
    if isinstance(cfg.head, ClassificationHead) and cfg.head.activation is None:
        raise ConfigError("model.head.activation: this layout has a layer with relu before the classes")
    return {
        "architectures": [f"DistilBertFor{bert.AS[kind]}" if kind in bert.AS else "DistilBertModel"],
        "vocab_size": cfg.inputs.vocab,
        "dim": cfg.dim,
        "n_layers": cfg.blocks.depth,
        "n_heads": block.attention.heads,
        "hidden_dim": getattr(block.mlp, "hidden", 1),
        "activation": their_activation(getattr(block.mlp, "activation", "gelu")),
        "max_position_embeddings": cfg.inputs.position.length or 512,
        "id2label": {str(i): f"LABEL_{i}" for i in range(classes)},
    }


FAMILY = Family(
    name="distilbert",
    architectures=(
        "DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification",
        "DistilBertForTokenClassification", "DistilBertForQuestionAnswering",
    ),
    model_type="distilbert",
    table=table,
    config=config,
    describe=describe,
    prefix="distilbert.",
    shape="encoder",
    tables=bert.tables,
)  # fmt: skip
