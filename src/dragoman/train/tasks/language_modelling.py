"""Language-modelling task: bits per byte of the validation text, and continuations."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from dragoman.checkpoint import RunDirectory
from dragoman.data.packing import Packed, PackedRow, RowBatches, RowLayout, Stretches, TextBatch, collate
from dragoman.data.tasks import LanguageModellingTask
from dragoman.decode.search.sample import Sample as Sampling
from dragoman.decode.search.search import walk
from dragoman.errors import ConfigError
from dragoman.model.interface import SequenceConfig, SequenceModel
from dragoman.text.formats.documents import Texts
from dragoman.text.formats.instructions import Instructions
from dragoman.text.store import Column, Store
from dragoman.text.tokens.tokenizer import BOS, EOS
from dragoman.train.events import ValidationSample
from dragoman.train.recipe import RunConfig, fill, outline
from dragoman.train.tasks.task_data import Spent, ValidationResult, Validator, mean_nll
from dragoman.train.tasks.texts import TextTaskData

SHOWN = 64
"""Maximum number of tokens of a shown continuation."""


class LanguageModellingTaskData(TextTaskData):
    """Token stream for language modelling."""

    learns_from, model = (Texts, Instructions), SequenceConfig

    def __init__(self, cfg: RunConfig, run: RunDirectory):
        super().__init__(cfg, run)
        self.task = _task(cfg)

    @classmethod
    def outline(cls, cfg: RunConfig) -> SequenceModel:
        model, context = outline(cfg), _task(cfg).context
        if model.max_length is not None and model.max_length < context:
            raise ConfigError(f"task.context: {context} tokens, and model.position is made for {model.max_length}")
        return model

    def fill(self, cfg: RunConfig) -> RunConfig:
        return fill(cfg, vocab=len(self.tokenizer), source_vocab=None)

    def plan(self, cfg: RunConfig, spent: Spent | None = None) -> RowBatches:
        return self.batches(cfg, self.train, cfg.train.accumulate)

    def batches(self, cfg: RunConfig, store: Store, accumulate: int = 1) -> RowBatches:
        layout: type[RowLayout] = Stretches if self.task.across_documents else Packed
        rows = cfg.train.batch_tokens // self.task.context
        return RowBatches(layout(store.columns["text"], self.task.context), rows, cfg.train.seed, accumulate)

    def batch(self, rows: Sequence[PackedRow]) -> TextBatch:
        return batch_of(self.train, rows)

    def size(self, rows: Sequence[PackedRow]) -> tuple[int, int]:
        lengths = [int(row[:, 1].sum()) for row in rows]
        return sum(lengths), len(rows) * max(lengths)

    def validator(self, cfg: RunConfig, device: torch.device) -> "LanguageModellingValidator":
        return LanguageModellingValidator(self, cfg, device)


def batch_of(store: Store, rows: Sequence[PackedRow]) -> TextBatch:
    """Return the batch of these rows, without targets where a prompt is not to be learned."""
    return collate(store.columns["text"], rows, store.columns.get("counted"))


def _task(cfg: RunConfig) -> LanguageModellingTask:
    assert isinstance(cfg.task, LanguageModellingTask), "the task data was chosen by it"
    return cfg.task


# ---- validation -----------------------------------------------------------------------------------


class LanguageModellingValidator(Validator):
    """Validator of language modelling: the loss on all of the validation text, also in bits, and sampled
    continuations."""

    def __init__(self, task_data: LanguageModellingTaskData, cfg: RunConfig, device: torch.device):
        self.task_data, self.cfg, self.device = task_data, cfg, device
        self.batches = task_data.validation_batches(cfg)
        self.num_batches = len(self.batches)

    def validate(self, model: SequenceModel, stop: Callable[[], bool]) -> ValidationResult | None:
        batches = (batch_of(self.task_data.valid, rows).to(self.device) for rows in self.batches)
        loss = mean_nll(lambda batch: self.task_data.task.nll(model, batch), batches, stop)
        return (
            None if loss is None or stop() else ValidationResult(loss, self.bits(loss), list(self.continuations(model)))
        )

    def bits(self, loss: float) -> dict[str, float]:
        facts = self.task_data.valid.facts
        if "bytes" not in facts:
            return {}
        total = loss / math.log(2) * sum(int(row[:, 1].sum()) for rows in self.batches for row in rows)
        return {"bits/byte": total / facts["bytes"], "bits/character": total / facts["characters"]}

    def continuations(self, model: SequenceModel) -> Iterator[ValidationSample]:
        text, tokenizer, count = self.task_data.valid.columns["text"], self.task_data.tokenizer, self.cfg.train.samples
        length = min(SHOWN, max(1, self.task_data.task.context // 2))
        prompt = min(length, 32)
        for number, begin in enumerate(_places(text, count)):
            ids = np.array(text.ids[begin : begin + self.prompt_length(begin, prompt)], np.int64)
            if EOS in ids:
                ids = ids[: ids.tolist().index(EOS)]
            answer = text.ids[begin + len(ids) : begin + len(ids) + length].tolist()
            answer = answer[: answer.index(EOS)] if EOS in answer else answer
            sampling = Sampling()
            strategy = sampling.start([length], self.device, [number])
            beginning = ids if len(ids) else np.array([BOS])  # where a text ends at once
            for _ in walk(model, None, torch.from_numpy(beginning)[None].to(self.device), sampling, strategy):
                pass
            output = strategy.results()[0][0].tokens
            yield ValidationSample(tokenizer.decode(ids), tokenizer.decode(answer), tokenizer.decode(output))

    def prompt_length(self, begin: int, usual: int) -> int:
        """Return the number of prompt tokens at ``begin``: where only answers are learned, everything before the
        answer."""
        counted = self.task_data.valid.columns.get("counted")
        if counted is None:
            return usual
        return max(1, min(int(counted.ids[begin:].argmax()), self.task_data.task.context - 1))


def _places(text: Column, count: int) -> list[int]:
    """Return the starts of documents, or evenly spaced positions if there are too few documents."""
    if len(text) >= count:
        return text.starts[np.linspace(0, len(text) - 1, count).astype(int)].tolist() if count else []
    return [int(place) for place in np.linspace(0, len(text.ids), count, endpoint=False)]
