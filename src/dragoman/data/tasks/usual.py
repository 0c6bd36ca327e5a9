"""Usual task of a model: the task of an import, which states none, and of a configuration without a run."""

from collections.abc import Mapping
from typing import Any

from dragoman.config import from_dict, kind_of
from dragoman.data.tasks import (
    CaptioningTask,
    ClassificationTask,
    ContrastiveTask,
    LanguageModellingTask,
    MaskedLanguageModellingTask,
    QuestionAnsweringTask,
    TaggingTask,
    TranslationTask,
)
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.families import ModelConfig
from dragoman.model.heads import ClassificationHead, MaskedLanguageHead, SpansHead, TaggingHead
from dragoman.model.interface import SequenceConfig
from dragoman.model.prefixed import PrefixedTransformerConfig

_OF_HEADS: dict[type, type] = {
    MaskedLanguageHead: MaskedLanguageModellingTask,
    ClassificationHead: ClassificationTask,
    TaggingHead: TaggingTask,
    SpansHead: QuestionAnsweringTask,
}


def usual_task(model: object) -> type | None:
    """Return the class of the task that models of this configuration learn; None for an encoder whose head has none."""
    if isinstance(model, PrefixedTransformerConfig):
        return CaptioningTask
    if isinstance(model, SequenceConfig):
        return TranslationTask if model.translates else LanguageModellingTask
    if isinstance(model, TwoTowersConfig):
        return ContrastiveTask
    return _OF_HEADS.get(type(model.head)) if isinstance(model, EncoderConfig) else None


def task_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task in the configuration of a run, as plain data: the one it states, else the usual one of its model.

    Empty where the model has none.
    """
    if stated := config.get("task"):
        return stated if isinstance(stated, dict) else {"kind": stated}
    found = usual_task(from_dict(ModelConfig, config["model"], where="model")) if config.get("model") else None
    return {} if found is None else {"kind": kind_of(found)}
