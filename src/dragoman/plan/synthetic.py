"""Batches without data: what a step reads, of any size, for models and presets that have no text yet."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dragoman.data.batch import PairBatch
from dragoman.data.captioning import CaptionBatch
from dragoman.data.labels import LabelledBatch
from dragoman.data.matches import MatchedBatch
from dragoman.data.packing import IGNORE, TextBatch
from dragoman.data.spans import SpanBatch
from dragoman.data.tags import TaggedBatch
from dragoman.data.tasks import (
    ClassificationTask,
    MaskedLanguageModellingTask,
    QuestionAnsweringTask,
    TaggingTask,
)
from dragoman.data.tasks.usual import usual_task
from dragoman.errors import ConfigError
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.inputs import FrameInput, PatchInput
from dragoman.model.interface import SequenceConfig
from dragoman.model.meta_device import on_meta_device
from dragoman.model.positions.tokens import Frames
from dragoman.model.prefixed import PrefixedTransformerConfig

ID, EOS = 7, 2
"""An ordinary token, and the one that ends a text."""
MASKED = 0.15
"""Share of the tokens that a masked language model predicts (BERT)."""


class OutputTask:
    """Task of models that are published without one: the sum of their outputs."""

    def loss(self, model: Any, inputs: Any) -> tuple[Tensor, Tensor]:
        """Return the sum of the outputs, and their number of rows."""
        output = model(inputs)
        return output.float().sum(), torch.tensor(float(len(output)))


@dataclass(frozen=True)
class SyntheticBatch:
    """Batch of a task."""

    content: Any
    """Tensors, as the task's loss function takes them."""
    rows: int
    tokens: int
    """Tokens of the larger side, or patches, that the batch holds."""


def task_for(model: Any) -> Any:
    """Return the task that models of this configuration learn, where no run says so."""
    return (usual_task(model) or OutputTask)()


def batch_for(model: Any, task: Any, *, rows: int, length: int, source_length: int | None = None) -> SyntheticBatch:
    """Return a batch of full rows, without padding.

    Args:
        model: configuration of the model.
        task: what it learns.
        rows: examples B.
        length: tokens of each, on the target's side where there are two; images have the size of the model's own, and
            frames are as many as their convolutions shorten to it.
        source_length: tokens of each source, where there is one; None for ``length``.

    Raises:
        ConfigError: the model takes no text of that length.
    """
    _check(model, length, source_length)
    ids = torch.full((rows, length), ID)
    if isinstance(model, SequenceConfig):
        if not model.translates:
            return SyntheticBatch(TextBatch(ids, ids, None), rows, rows * length)
        if isinstance(model, PrefixedTransformerConfig):
            images = _inputs(model.encoder.inputs, rows, source_length or length)
            return SyntheticBatch(CaptionBatch(images, ids, ids), rows, rows * length)
        source = _inputs(getattr(model, "source", None), rows, source_length or length)
        larger = max(length, source.shape[1]) if isinstance(source, Tensor) and source.dim() == 2 else length
        return SyntheticBatch(PairBatch(source, ids, ids), rows, rows * larger)
    if isinstance(model, TwoTowersConfig):
        first, second = (_inputs(tower.inputs, rows, length) for tower in (model.first, model.second or model.first))
        return SyntheticBatch(MatchedBatch(first, second), rows, rows * length)
    content = _encoded(task, _inputs(model.inputs, rows, length), ids)
    return SyntheticBatch(content, rows, rows * _positions(model, length))


def _positions(model: EncoderConfig, length: int) -> int:
    inputs = model.inputs
    return (
        (inputs.size[0] // inputs.patch) * (inputs.size[1] // inputs.patch)
        if isinstance(inputs, PatchInput)
        else length
    )


def _encoded(task: Any, inputs: Any, ids: Tensor) -> Any:
    """Return the batch of a task that reads a whole input."""
    if isinstance(task, MaskedLanguageModellingTask):
        targets = torch.full_like(ids, IGNORE)
        targets.view(-1)[: max(1, round(MASKED * ids.numel()))] = ID
        return TextBatch(ids, targets, None)
    if isinstance(task, ClassificationTask):
        return LabelledBatch(inputs, torch.zeros(len(ids), dtype=torch.int64))
    if isinstance(task, TaggingTask):
        return TaggedBatch(ids, torch.zeros_like(ids))
    if isinstance(task, QuestionAnsweringTask):
        asked = ids.clone()
        asked[:, [ids.shape[1] // 8, -1]] = EOS  # a question, and its context
        return SpanBatch(asked, torch.full((len(ids), 2), ids.shape[1] // 2))
    return inputs


def _inputs(kind: Any, rows: int, length: int) -> Any:
    """Return what an input layer of this ``kind`` reads."""
    if isinstance(kind, PatchInput):
        return torch.zeros(1).expand(rows, kind.channels, *kind.size)
    if isinstance(kind, FrameInput):
        return Frames(torch.zeros(1).expand(rows, length * kind.stride, kind.channels))
    return torch.full((rows, length), ID)


def _check(model: Any, length: int, source_length: int | None) -> None:
    longest = longest_text(model)
    if longest is not None and (asked := max(length, source_length or 0)) > longest:
        raise ConfigError(f"--length: {asked:,} tokens, and this model takes at most {longest:,}")


def longest_text(model: Any) -> int | None:
    """Return the longest text in tokens that the model's configuration takes; None for no limit."""
    with on_meta_device():
        return getattr(model.build(), "max_length", None)
