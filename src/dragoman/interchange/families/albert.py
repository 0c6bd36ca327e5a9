"""ALBERT: layers that share their weights, and embeddings narrower than the layers (arXiv:1909.11942)."""

import dataclasses
from typing import Any

from dragoman.interchange.families import bert
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import ClassificationHead
from dragoman.model.inputs import TokenInput
from dragoman.model.positions.position import Learned
from dragoman.model.tower import SharedTower

_LAYER = {
    "attention.query": "mixer.q",
    "attention.key": "mixer.k",
    "attention.value": "mixer.v",
    "attention.dense": "mixer.out",
    "attention.LayerNorm": "mixer_residual.after",
    "ffn": "mlp.up",
    "ffn_output": "mlp.out",
    "full_layer_layer_norm": "mlp_residual.after",
}
_EMBEDDINGS: NameTable = {
    "albert.embeddings.word_embeddings.weight": "inputs.tokens.weight",
    "albert.embeddings.position_embeddings.weight": "inputs.position.weight",
    "albert.embeddings.token_type_embeddings.weight": "inputs.types.weight",
    "albert.embeddings.LayerNorm.{leaf}": "inputs.norm.{leaf}",
    "albert.encoder.embedding_hidden_mapping_in.{leaf}": "inputs.project.{leaf}",
}
HEADS: dict[str, NameTable] = {
    "masked_language": {
        "predictions.dense.{leaf}": "head.dense.{leaf}",
        "predictions.LayerNorm.{leaf}": "head.norm.{leaf}",
        "predictions.bias": "head.output.bias",
        "predictions.decoder.weight": "head.output.weight",
    },
    "classification": {"albert.pooler.{leaf}": "head.dense.{leaf}", "classifier.{leaf}": "head.output.{leaf}"},
    "tagging": {"classifier.{leaf}": "head.output.{leaf}"},
    "spans": {"qa_outputs.{leaf}": "head.output.{leaf}"},
}


def table(cfg: EncoderConfig) -> NameTable:
    """Return their names and ours; a group of layers is stored once, where its first layer stands."""
    rows: NameTable = dict(_EMBEDDINGS)
    owners = sorted({cfg.blocks.owner(layer) for layer in range(cfg.blocks.depth)})
    for group, owner in enumerate(owners):
        theirs = f"albert.encoder.albert_layer_groups.{group}.albert_layers.0"
        rows |= {f"{theirs}.{old}.{{leaf}}": f"tower.blocks.{owner}.{new}.{{leaf}}" for old, new in _LAYER.items()}
    return rows | HEADS.get(cfg.head.kind, {})  # pyright: ignore[reportAttributeAccessIssue]


def config(given: HubConfig) -> EncoderConfig:
    given.only("inner_group_num", 1)
    given.read |= {"net_structure_type", "gap_size", "num_memory_blocks", "down_scale_factor"}  # of the first release
    cfg = bert.model(given, Learned(length=given["max_position_embeddings"]))
    inputs = cfg.inputs
    assert isinstance(inputs, TokenInput)
    tower = SharedTower(depth=cfg.blocks.depth, pattern=cfg.blocks.pattern, groups=given.get("num_hidden_groups", 1))
    head = cfg.head
    if isinstance(head, ClassificationHead):
        head = dataclasses.replace(head, activation="tanh")
    inputs = dataclasses.replace(inputs, width=given.get("embedding_size", 128))
    return dataclasses.replace(cfg, inputs=inputs, tower=tower, head=head)


def describe(cfg: EncoderConfig) -> dict[str, Any]:
    return bert.describe(cfg, "Albert") | {
        "embedding_size": getattr(cfg.inputs, "width", None) or cfg.dim,
        "num_hidden_groups": len({cfg.blocks.owner(layer) for layer in range(cfg.blocks.depth)}),
        "inner_group_num": 1,
    }


FAMILY = Family(
    name="albert",
    architectures=(
        "AlbertModel", "AlbertForMaskedLM", "AlbertForPreTraining", "AlbertForSequenceClassification",
        "AlbertForTokenClassification", "AlbertForQuestionAnswering",
    ),
    model_type="albert",
    table=table,
    config=config,
    describe=describe,
    prefix="albert.",
    aliases={"predictions.bias": ("predictions.decoder.bias",)},
    shape="encoder",
    tables=bert.tables,
)  # fmt: skip
