"""Question-answering task: questions with their contexts; SQuAD's exact match and F1 on the validation set."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dragoman.data import answers as answering
from dragoman.data.spans import (
    BestAnswer,
    ContextLayout,
    EncodedQuestions,
    SpanBatch,
    SpanScore,
    as_fields,
    best_answer,
    best_span,
)
from dragoman.data.tasks.question_answering import span_loss
from dragoman.model import heads
from dragoman.model.interface import EncoderModel
from dragoman.text.formats.questions import Question, QuestionLines, Questions, read_questions
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.train.events import ValidationSample
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks.reading import ReaderTaskData, ReaderValidator, encoder


class QuestionAnsweringTaskData(ReaderTaskData):
    """Questions and windows of their contexts."""

    learns_from, head = (Questions,), heads.SpansHead
    scores = ("exact match", "F1")
    form: EncodedQuestions
    gives_fields = True

    @classmethod
    def check(cls, cfg: RunConfig) -> None:
        super().check(cfg)
        layout_of(cfg).check()

    @classmethod
    def store_for(cls, cfg: RunConfig, tokenizer: Tokenizer | None, facts: dict[str, Any]) -> EncodedQuestions:
        assert tokenizer, "texts are read"
        return EncodedQuestions(tokenizer, layout_of(cfg))

    @classmethod
    def read_held_out(cls, path: Path, labels: Sequence[str]) -> Sequence[Question]:
        return read_questions(QuestionLines(path=str(path)))

    @classmethod
    def record(cls, example: Question) -> dict[str, Any]:
        return example.record()

    def determined_fields(self) -> dict[str, Any]:
        if self.task.unanswerable is not None:
            return {}
        return {"unanswerable": self.facts["unanswerable"]}

    @property
    def unit(self) -> str:
        return "questions and windows of contexts"

    def validator(self, cfg: RunConfig, device: torch.device) -> "QuestionAnsweringValidator":
        return QuestionAnsweringValidator(self, cfg, device)


def layout_of(cfg: RunConfig) -> ContextLayout:
    """Return the lengths of questions, windows and strides that data and model allow."""
    data, longest = cfg.data, encoder(cfg).inputs.position.length  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(data, Questions), "checked before a run begins"
    return ContextLayout(min(data.longest, longest or data.longest), data.longest_question, data.stride)


class QuestionAnsweringValidator(ReaderValidator):
    """Validator of question answering: exact match and F1."""

    task_data: QuestionAnsweringTaskData

    def __init__(self, task_data: QuestionAnsweringTaskData, cfg: RunConfig, device: torch.device):
        super().__init__(task_data, cfg, device)
        kept = task_data.folder / "valid.jsonl"
        self.examples = read_questions(QuestionLines(path=str(kept))) if self.num_batches else []
        self.windows = list(task_data.form.windows([(one.context, one.question) for one in self.examples]))
        unanswerable = task_data.determined_fields().get("unanswerable", task_data.task.unanswerable)
        self.null_threshold = task_data.task.null_threshold if unanswerable else None

    def predict(self, model: EncoderModel, batch: SpanBatch) -> tuple[torch.Tensor, float, Sequence[SpanScore]]:
        logits = model(as_fields(batch.ids))
        summed, count = span_loss(logits, batch)
        longest = self.task_data.task.longest_answer
        return summed, float(count), [best_span(*one, longest) for one in zip(logits, batch.ids, strict=True)]

    def summarize(self, answers: list[SpanScore]) -> tuple[dict[str, float], float, list[ValidationSample]]:
        found = self.best_answers(answers)
        right = [[answer.text for answer in one.answers] for one in self.examples]
        scores = {
            name: float(np.mean([answering.best(measure, *one) for one in zip(found, right, strict=True)]))
            for name, measure in (("exact match", answering.exact), ("F1", answering.f1))
        }
        samples = [
            ValidationSample(one.question, text[0] if text else "(no answer)", guess or "(no answer)")
            for one, text, guess in islice(zip(self.examples, right, found, strict=True), self.shown)
        ]
        return {name: 100 * score for name, score in scores.items()}, 1 - scores["F1"], samples

    def best_answers(self, answers: list[SpanScore]) -> list[str]:
        rest = iter(answers)
        found: list[BestAnswer] = []
        for one, windows in zip(self.examples, self.windows, strict=True):
            read = [(window, next(rest)) for window in windows]
            found.append(best_answer(one.context, read, null_threshold=self.null_threshold))
        return [one.text for one in found]
