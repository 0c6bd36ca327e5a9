"""Tagging task: sentences with a label for each word; accuracy, and F1 of spans or of labels."""

from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dragoman.data.labels import accuracy, confusion, macro_f1
from dragoman.data.tags import IGNORE, TaggedBatch, TaggedExamples, mark_spans, spans
from dragoman.data.tasks.tagging import word_loss
from dragoman.model import heads
from dragoman.model.interface import EncoderModel
from dragoman.text.formats.tagged import TaggedLines, TaggedText, TaggedTexts, read_tagged
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.train.events import ValidationSample
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks.reading import ReaderTaskData, ReaderValidator, encoder


class TaggingTaskData(ReaderTaskData):
    """Sentences with a label for each word."""

    learns_from, head = (TaggedTexts,), heads.TaggingHead
    scores = ("accuracy",)

    @classmethod
    def store_for(cls, cfg: RunConfig, tokenizer: Tokenizer | None, facts: dict[str, Any]) -> TaggedExamples:
        data, longest = cfg.data, encoder(cfg).inputs.position.length  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(data, TaggedTexts) and tokenizer, "checked before a run begins"
        return TaggedExamples(tokenizer, facts["labels"], min(data.longest, longest or data.longest))

    @classmethod
    def read_held_out(cls, path: Path, labels: Sequence[str]) -> Sequence[TaggedText]:
        return read_tagged(TaggedLines(path=str(path)), labels)

    @property
    def unit(self) -> str:
        return "sentences"

    def validator(self, cfg: RunConfig, device: torch.device) -> "TaggingValidator":
        return TaggingValidator(self, cfg, device)


class TaggingValidator(ReaderValidator):
    """Validator of tagging: accuracy of word labels, and F1 of spans or of labels, of whole sentences."""

    def __init__(self, task_data: ReaderTaskData, cfg: RunConfig, device: torch.device):
        super().__init__(task_data, cfg, device)
        path = task_data.folder / "valid.jsonl"
        self.sentences = task_data.read_held_out(path, task_data.labels) if self.num_batches else ()

    @cached_property
    def true(self) -> list[np.ndarray]:
        """Return the true labels of each sentence."""
        column = self.task_data.valid.columns["label"]
        return self.joined([row[row > 0] - 1 for row in (column[i] for i in range(len(column)))])

    def joined(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the labels of each sentence, given those of the parts that long sentences are read in."""
        ends = np.cumsum([len(sentence.tokens) for sentence in self.sentences])
        return np.split(np.concatenate(parts), ends[:-1])

    def predict(self, model: EncoderModel, batch: TaggedBatch) -> tuple[torch.Tensor, float, Sequence[np.ndarray]]:
        logits = model(batch.ids)
        summed, count = word_loss(logits, batch)
        labelled = batch.labels != IGNORE
        rows = [row[labelled[i]].cpu().numpy() for i, row in enumerate(logits.argmax(dim=2))]
        return summed, float(count), rows

    def summarize(self, answers: list[np.ndarray]) -> tuple[dict[str, float], float, list[ValidationSample]]:
        labels, true, answers = self.task_data.labels, self.true, self.joined(answers)
        matrix = confusion(np.concatenate(true), np.concatenate(answers), len(labels))
        right = accuracy(matrix)
        if mark_spans(labels):
            score = span_f1([[labels[i] for i in row] for row in true], [[labels[i] for i in row] for row in answers])
            scores, cost = {"span F1": 100 * score}, 1 - score
        else:
            scores, cost = {"macro F1": 100 * macro_f1(matrix)}, 1 - right
        return {"accuracy": 100 * right} | scores, cost, self.samples(answers)

    def samples(self, answers: list[np.ndarray]) -> list[ValidationSample]:
        labels = self.task_data.labels
        shown = islice(zip(self.sentences, self.true, answers, strict=True), self.shown)
        return [
            ValidationSample(" ".join(sentence.tokens), *(" ".join(labels[i] for i in side) for side in sides))
            for sentence, *sides in shown
        ]


def span_f1(true: Sequence[Sequence[str]], guessed: Sequence[Sequence[str]]) -> float:
    """Return the harmonic mean of precision and recall of spans, all kinds together; 0 where there are none."""
    pairs = [(spans(t), spans(g)) for t, g in zip(true, guessed, strict=True)]
    right, total = sum(len(t & g) for t, g in pairs), sum(len(t) + len(g) for t, g in pairs)
    return 2 * right / total if total else 0.0
