"""RoBERTa: BERT with other names for its heads; its positions start behind two rows (arXiv:1907.11692)."""

from typing import Any

from dragoman.interchange.families import bert
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable
from dragoman.model.encoder import EncoderConfig
from dragoman.model.positions.position import Learned

HEADS: dict[str, NameTable] = {
    "masked_language": {
        "lm_head.dense.{leaf}": "head.dense.{leaf}",
        "lm_head.layer_norm.{leaf}": "head.norm.{leaf}",
        "lm_head.bias": "head.output.bias",
        "lm_head.decoder.weight": "head.output.weight",
    },
    "classification": {
        "classifier.dense.{leaf}": "head.dense.{leaf}",
        "classifier.out_proj.{leaf}": "head.output.{leaf}",
    },
    "tagging": {"classifier.{leaf}": "head.output.{leaf}"},
    "spans": {"qa_outputs.{leaf}": "head.output.{leaf}"},
}


def table(cfg: EncoderConfig) -> NameTable:
    return bert.body("roberta") | HEADS.get(cfg.head.kind, {})  # pyright: ignore[reportAttributeAccessIssue]


def config(given: HubConfig) -> EncoderConfig:
    before = given.get("pad_token_id", 1) + 1
    return bert.model(given, Learned(length=given["max_position_embeddings"] - before, offset=before))


def describe(cfg: EncoderConfig) -> dict[str, Any]:
    described = bert.describe(cfg, "Roberta")
    offset = getattr(getattr(cfg.inputs, "position", None), "offset", 2)
    return described | {
        "max_position_embeddings": described["max_position_embeddings"] + offset,
        "pad_token_id": offset - 1,
    }


FAMILY = Family(
    name="roberta",
    architectures=(
        "RobertaForMaskedLM", "RobertaModel", "RobertaForSequenceClassification", "RobertaForTokenClassification",
        "RobertaForQuestionAnswering", "XLMRobertaForMaskedLM", "XLMRobertaModel",
    ),
    model_type="roberta",
    table=table,
    config=config,
    describe=describe,
    prefix="roberta.",
    aliases={"lm_head.bias": ("lm_head.decoder.bias",)},
    shape="encoder",
    tables=bert.tables,
)  # fmt: skip
