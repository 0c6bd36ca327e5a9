"""Question answering: a context and a question in, the part of the context that answers it out."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dragoman.capabilities import ANSWERS
from dragoman.config import from_dict
from dragoman.data.spans import ContextLayout, ContextWindow, EncodedQuestions, as_fields, best_answer, best_span
from dragoman.data.tasks.question_answering import QuestionAnsweringTask
from dragoman.decode.arguments import check_list, check_pair
from dragoman.decode.readers.input_reader import InputReader, Progress
from dragoman.errors import CheckpointError
from dragoman.model.encoder import Encoder
from dragoman.model.positions.tokens import Frames
from dragoman.text.formats.questions import Questions
from dragoman.text.lines import check_surrogates
from dragoman.text.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Answered:
    """A question with its answer."""

    question: str
    answer: str
    """Text of the answer; empty where the context holds none."""
    start: int | None
    """Index of its first character in the context; None without an answer."""
    probability: float
    """Probability of this start and end, within the window that contains them; without an answer, that of none against
    the best span."""


class Answerer(InputReader):
    """A model that finds the answer to a question in a text."""

    ability = ANSWERS

    def __init__(self, model: Encoder, tokenizer: Tokenizer | None, config: dict[str, Any]):
        super().__init__(model, tokenizer, config)
        task, data = config.get("task", {}), config.get("data", {})
        if task.get("kind") != "question_answering" or tokenizer is None:
            raise CheckpointError(
                "this run's model was not trained to answer questions: start one with task: question_answering"
            )
        self.form = EncodedQuestions(tokenizer, self._layout(data))
        self.longest_answer = int(task["longest_answer"])
        self.null_threshold: float | None = float(task.get("null_threshold", 0)) if task["unanswerable"] else None
        """Amount by which the score of no answer must exceed that of the best span; None where there is always one."""

    @classmethod
    def load(cls, run: str | Path, checkpoint: str | int = "best", *, null_threshold: float | None = None, **how: Any):
        """Load the model of a run.

        Args:
            run: a run directory, or one of its checkpoints.
            checkpoint: ``best``, ``last``, a step number, or the name of a checkpoint.
            null_threshold: amount by which the score of no answer must exceed that of the best span, so that there is
                none; None for as in training, usually 0, or always an answer.
            how: ``device``, ``special_tokens`` and ``precision``, as ``InputReader.load`` has them.

        Raises:
            CheckpointError: no such run or checkpoint, a damaged one, or one whose model answers no questions.
            ConfigError: no such device or precision, or a threshold that is no finite number.
        """
        if null_threshold is not None:  # by the rule of run files
            null_threshold = from_dict(QuestionAnsweringTask, {"null_threshold": null_threshold}).null_threshold
        answerer = super().load(run, checkpoint, **how)
        if null_threshold is not None:
            answerer.null_threshold = null_threshold
        return answerer

    def _layout(self, data: Mapping[str, Any]) -> ContextLayout:
        """Return the layout that the model was trained with; for an import, which names none, the usual one."""
        longest: int = self.material.longest  # pyright: ignore[reportAttributeAccessIssue]
        if "longest_question" in data:
            return ContextLayout(longest, data["longest_question"], data["stride"])
        usual: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Questions)}
        longest = min(longest, usual["longest"])
        return ContextLayout(longest, min(usual["longest_question"], longest // 2), usual["stride"])

    def ask(self, questions: Sequence[tuple[str, str]], progress: Progress | None = None) -> list[Answered]:
        """Return the answer to each pair of context and question, in their order.

        Raises:
            DataError: half of a surrogate pair; the message names the question.
            TypeError: no list of pairs of texts.
        """
        given = check_list(questions, "questions", what="pairs of context and question")
        checked = (check_pair(one, "questions", i) for i, one in enumerate(given, 1))
        questions = [(one[0], one[1]) for one in checked]
        for i, (context, question) in enumerate(questions, 1):
            check_surrogates(context, f"question {i}: its context")
            check_surrogates(question, f"question {i}")
        windows = list(self.form.windows(questions))
        rows = [np.array(window.ids) for group in windows for window in group]
        logits = iter(self.outputs(rows, progress))
        return [
            self._answered(context, question, [(window, next(logits)) for window in group])
            for (context, question), group in zip(questions, windows, strict=True)
        ]

    def _answered(self, context: str, question: str, read: Sequence[tuple[ContextWindow, Tensor]]) -> Answered:
        found = [
            (window, best_span(logits[: len(window.ids)], logits.new_tensor(window.ids).long(), self.longest_answer))
            for window, logits in read
        ]
        return Answered(question, *best_answer(context, found, null_threshold=self.null_threshold))

    def answer(self, inputs: Tensor | Frames) -> Tensor:
        assert isinstance(inputs, Tensor), "ids are read"
        return self.model(as_fields(inputs))
