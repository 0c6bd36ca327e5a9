"""ELECTRA: BERT whose embeddings may be narrower than its layers (arXiv:2003.10555).

A discriminator of pretraining is imported as an encoder without a head: whether a token was replaced is of no use
afterwards.
"""

import dataclasses
from typing import Any

from dragoman.interchange.families import bert
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import ClassificationHead, MaskedLanguageHead, NoHead
from dragoman.model.inputs import TokenInput
from dragoman.model.positions.position import Learned

HEADS: dict[str, NameTable] = {
    "masked_language": {
        "generator_predictions.dense.{leaf}": "head.dense.{leaf}",
        "generator_predictions.LayerNorm.{leaf}": "head.norm.{leaf}",
        "generator_lm_head.{leaf}": "head.output.{leaf}",
    },
    "classification": {
        "classifier.dense.{leaf}": "head.dense.{leaf}",
        "classifier.out_proj.{leaf}": "head.output.{leaf}",
    },
    "tagging": {"classifier.{leaf}": "head.output.{leaf}"},
    "spans": {"qa_outputs.{leaf}": "head.output.{leaf}"},
}


def table(cfg: EncoderConfig) -> NameTable:
    project: NameTable = {"electra.embeddings_project.{leaf}": "inputs.project.{leaf}"}
    head = HEADS.get(cfg.head.kind, {})  # pyright: ignore[reportAttributeAccessIssue]
    return bert.body("electra") | project | head


def config(given: HubConfig) -> EncoderConfig:
    """Return our configuration; the heads have gelu, whatever the layers have."""
    cfg = bert.model(given, Learned(length=given["max_position_embeddings"]))
    width, inputs, head = given.get("embedding_size", 128), cfg.inputs, cfg.head
    assert isinstance(inputs, TokenInput)
    if isinstance(head, MaskedLanguageHead | ClassificationHead):
        head = dataclasses.replace(head, activation="gelu")
    if "ElectraForPreTraining" in given.get("architectures", []):
        head = NoHead()
    inputs = dataclasses.replace(inputs, width=None if width == cfg.dim else width)
    return dataclasses.replace(cfg, inputs=inputs, head=head)


def describe(cfg: EncoderConfig) -> dict[str, Any]:
    return bert.describe(cfg, "Electra") | {"embedding_size": getattr(cfg.inputs, "width", None) or cfg.dim}


FAMILY = Family(
    name="electra",
    architectures=(
        "ElectraModel", "ElectraForPreTraining", "ElectraForMaskedLM", "ElectraForSequenceClassification",
        "ElectraForTokenClassification", "ElectraForQuestionAnswering",
    ),
    model_type="electra",
    table=table,
    config=config,
    describe=describe,
    prefix="electra.",
    shape="encoder",
    tables=bert.tables,
)  # fmt: skip
