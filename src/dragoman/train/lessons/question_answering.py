"""Question answering as a lesson: questions with their contexts; SQuAD's exact match and F1 on the validation set."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from dragoman.data import answers as answering
from dragoman.data.spans import Asked, Found, Layout, Said, SpanBatch, as_fields, best_span, said
from dragoman.data.tasks.question_answering import span_loss
from dragoman.model import heads
from dragoman.model.interface import EncoderModel
from dragoman.text.formats.questions import Question, QuestionLines, Questions, read_questions
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.train.events import Sample
from dragoman.train.lessons.reading import Reading, ReadingLesson, encoder
from dragoman.train.recipe import RunConfig


class AnsweringLesson(ReadingLesson):
    learns_from, head = (Questions,), heads.Spans
    scores = ("exact match", "F1")
    form: Asked

    @classmethod
    def check(cls, cfg: RunConfig) -> None:
        super().check(cfg)
        layout_of(cfg).check()

    @classmethod
    def form_of(cls, cfg: RunConfig, tokenizer: Tokenizer | None, facts: dict[str, Any]) -> Asked:
        assert tokenizer, "texts are read"
        return Asked(tokenizer, layout_of(cfg))

    @classmethod
    def record(cls, example: Question) -> dict[str, Any]:
        return example.record()

    def settled_task(self) -> dict[str, Any]:
        if self.task.unanswerable is not None:
            return {}
        return {"unanswerable": self.facts["unanswerable"]}

    @property
    def noun(self) -> str:
        return "questions and windows of contexts"

    def examination(self, cfg: RunConfig, device: torch.device) -> "Answering":
        return Answering(self, cfg, device)


def layout_of(cfg: RunConfig) -> Layout:
    data, longest = cfg.data, encoder(cfg).inputs.position.length  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(data, Questions), "checked before a run begins"
    return Layout(min(data.longest, longest or data.longest), data.longest_question, data.stride)


class Answering(Reading):
    """How many answers are right, and how much of their words."""

    lesson: AnsweringLesson

    def __init__(self, lesson: AnsweringLesson, cfg: RunConfig, device: torch.device):
        super().__init__(lesson, cfg, device)
        kept = lesson.folder / "valid.jsonl"
        self.asked = read_questions(QuestionLines(path=str(kept))) if self.questions else []
        self.windows = list(lesson.form.windows([(one.context, one.question) for one in self.asked]))
        self.unanswerable = lesson.settled_task().get("unanswerable", lesson.task.unanswerable)

    def judge(self, model: EncoderModel, batch: SpanBatch) -> tuple[torch.Tensor, float, Sequence[Found]]:
        logits = model(as_fields(batch.ids))
        summed, count = span_loss(logits, batch)
        longest = self.lesson.task.longest_answer
        return summed, float(count), [best_span(*one, longest) for one in zip(logits, batch.ids, strict=True)]

    def sum_up(self, answers: list[Found]) -> tuple[dict[str, float], float, list[Sample]]:
        found = self.said(answers)
        right = [[answer.text for answer in one.answers] for one in self.asked]
        scores = {
            name: float(np.mean([answering.best(measure, *one) for one in zip(found, right, strict=True)]))
            for name, measure in (("exact match", answering.exact), ("F1", answering.f1))
        }
        samples = [
            Sample(one.question, text[0] if text else "(no answer)", guess or "(no answer)")
            for one, text, guess in islice(zip(self.asked, right, found, strict=True), self.shown)
        ]
        return {name: 100 * score for name, score in scores.items()}, 1 - scores["F1"], samples

    def said(self, answers: list[Found]) -> list[str]:
        rest = iter(answers)
        found: list[Said] = []
        for one, cut in zip(self.asked, self.windows, strict=True):
            read = [(window, next(rest)) for window in cut]
            found.append(said(one.context, read, unanswerable=bool(self.unanswerable)))
        return [one.text for one in found]
