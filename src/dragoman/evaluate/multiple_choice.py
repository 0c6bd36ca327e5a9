"""Multiple choice for language models: the choice that continues the prompt with the largest likelihood.

Each choice is scored as a continuation of its prompt, by the sum of the log-probabilities of its tokens, as in the
evaluation harness of EleutherAI (Gao et al. 2021): ``accuracy`` takes the largest sum, ``accuracy_per_byte`` the
largest sum divided by the choice's length in bytes, so that long choices are not at a disadvantage.

N questions, Q counts of each.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dragoman import __version__
from dragoman.data.padding import padded
from dragoman.decode.generator import Generator
from dragoman.decode.search.ranking import log_prob_of
from dragoman.decode.search.strategy import not_numbers
from dragoman.decode.search.teacher_forcing import batches_by_length
from dragoman.errors import DataError
from dragoman.evaluate.classification import Accuracy
from dragoman.evaluate.language_modelling import BATCH_TOKENS, CONTEXT, Progress
from dragoman.evaluate.metrics import CountedScore, Metric, Score, score_of, scores_of
from dragoman.evaluate.outcome import EvaluationResult
from dragoman.model.interface import Tokens
from dragoman.text.lines import check_string, parse_json, read_lines
from dragoman.text.tokens.tokenizer import BOS, PROMPT_FRAME, Tokenizer

BETWEEN = " "
"""Text between a prompt and a choice, where neither has white space there."""
_PROMPTS = ("prompt", "question", "query", "ctx", "context")
_CHOICES = ("choices", "options", "endings")
_ANSWERS = ("answer", "gold", "label", "answerKey")
_AT_ONCE = 512
"""Positions whose logits are held at a time."""


@dataclass(frozen=True)
class MultipleChoiceQuestion:
    """A prompt with possible continuations."""

    prompt: str
    choices: tuple[str, ...]
    answer: int
    """Index of the right choice."""


class Likelihood(NamedTuple):
    """Score of a continuation."""

    log_prob: float
    """Sum of the natural logarithms of its tokens' probabilities."""
    greedy: bool
    """True where greedy search would continue so."""


class ChoiceAccuracy(Accuracy):
    """Fraction of questions whose right choice has the largest score, in percent."""

    def __init__(self, name: str, signature: str):
        self.name, self.signature = name, f"percent|{signature}|version:{__version__}"


METRICS: dict[str, Metric] = {
    "accuracy": ChoiceAccuracy("accuracy", "by:log-likelihood"),
    "accuracy_per_byte": ChoiceAccuracy("accuracy per byte", "by:log-likelihood per byte"),
}


def evaluate(
    generator: Generator,
    questions: Sequence[MultipleChoiceQuestion],
    *,
    progress: Progress | None = None,
    test_set: str = "",
) -> EvaluationResult:
    """Choose an answer to each question; return accuracies with intervals, beside those of guessing.

    Raises:
        DataError: no questions.
        CheckpointError: a model whose output is not numbers.
    """
    if not questions:
        raise DataError("nothing to evaluate on: the test set has no questions")
    pairs = [(one.prompt, _joined(one.prompt, choice)) for one in questions for choice in one.choices]
    scores = iter(likelihoods(generator, pairs, progress=progress))
    outputs, chosen = [], {name: list[int]() for name in METRICS}
    for one in questions:
        found = np.array([each.log_prob for each in itertools.islice(scores, len(one.choices))])
        lengths = np.array([max(1, len(choice.encode())) for choice in one.choices])
        for name, values in (("accuracy", found), ("accuracy_per_byte", found / lengths)):
            chosen[name].append(int(values.argmax()))
        outputs.append(
            {
                "prompt": one.prompt,
                "choices": list(one.choices),
                "log_probs": found.tolist(),
                "choice": chosen["accuracy"][-1],
                "choice_per_byte": chosen["accuracy_per_byte"][-1],
                "reference": one.answer,
            }
        )
    right = [one.answer for one in questions]
    counted = {name: CountedScore(metric, metric.counts(chosen[name], right)) for name, metric in METRICS.items()}
    return EvaluationResult(
        scores=scores_of(counted),
        baseline={"accuracy": _of_chance(questions)},
        baseline_name="guessing",
        outputs=tuple(outputs),
        test_set=test_set,
        counted=counted,
    )


def _of_chance(questions: Sequence[MultipleChoiceQuestion]) -> Score:
    chance = np.array([[1 / len(one.choices), 1] for one in questions])
    return score_of(METRICS["accuracy"], chance)


def _joined(prompt: str, choice: str) -> str:
    """Return a choice with the space that separates it from its prompt."""
    return choice if not prompt or prompt[-1].isspace() or choice[:1].isspace() else BETWEEN + choice


# ---- likelihoods ----------------------------------------------------------------------------------------


@torch.inference_mode()
def likelihoods(
    generator: Generator, pairs: Sequence[tuple[str, str]], *, progress: Progress | None = None
) -> list[Likelihood]:
    """Return the score of each continuation, given the text before it; texts too long for the model lose their
    beginning.

    Args:
        generator: a language model.
        pairs: texts, each with its continuation, which is appended as it is.
        progress: called with the pairs done and their number.

    Raises:
        CheckpointError: a model whose output is not numbers.
    """
    model, limit = generator.model, generator.model.max_length or CONTEXT
    rows = [_encoded(generator.tokenizer, *pair, limit) for pair in pairs]
    found, done = [Likelihood(0.0, True)] * len(rows), 0
    with model.without_dropout():
        for batch in batches_by_length([len(ids) for ids, _ in rows], BATCH_TOKENS):
            ids = padded([rows[i][0] for i in batch], model.device)
            hidden, wanted = model.hidden(Tokens(ids[:, :-1])).flatten(0, 1), ids[:, 1:].flatten()
            parts = [
                (log_prob_of(logits := model.logits(some), targets), logits.argmax(dim=-1) == targets)
                for some, targets in zip(hidden.split(_AT_ONCE), wanted.split(_AT_ONCE), strict=True)
            ]
            values, likeliest = (torch.cat(part).view(len(batch), -1).cpu() for part in zip(*parts, strict=True))
            for i, row, best in zip(batch, values.double(), likeliest, strict=True):
                scored = slice(len(rows[i][0]) - 1 - rows[i][1], len(rows[i][0]) - 1)
                found[i] = Likelihood(float(row[scored].sum()), bool(best[scored].all()))
            done += len(batch)
            if progress:
                progress(done, len(rows))
    if not all(np.isfinite(each.log_prob) for each in found):
        raise not_numbers()
    return found


def _encoded(tokenizer: Tokenizer, before: str, after: str, limit: int) -> tuple[list[int], int]:
    """Return the ids of both texts together, and how many of them are the continuation's.

    White space at the end of ``before`` counts as the beginning of the continuation, as tokenizers see it.
    """
    stripped = before.rstrip()
    before, after = stripped, before[len(stripped) :] + after
    first, whole = tokenizer.encode_batch([before, before + after])
    frame = list(tokenizer.frame(PROMPT_FRAME).before) or ([] if first else [BOS])  # something must stand before
    scored = max(1, len(whole) - len(first)) if whole else 0
    ids = [*frame, *whole]
    return ids[-(limit + 1) :], min(scored, limit)


# ---- files ----------------------------------------------------------------------------------------------


def read_questions(path: str | Path) -> list[MultipleChoiceQuestion]:
    """Read questions from JSON lines: a prompt, its choices, and the right one by number (from 0), letter or text.

    Usual names are known: prompt, or one of question, query, ctx or context; choices, options or endings; answer, gold,
    label or answerKey. Choices may be a mapping with ``text`` and ``label``. The right one is then given by its label,
    and where labels are numbers, a number is always a label.

    Raises:
        DataError: a line that is no such question; the message names the place.
    """
    found = [_question(line, f"{path}:{number}") for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if not found:
        raise DataError(f"{path}: holds no questions")
    return found


def _question(line: str, where: str) -> MultipleChoiceQuestion:
    return question_of(parse_json(line, where), where)


def question_of(record: Any, where: str) -> MultipleChoiceQuestion:
    """Return the question in a mapping.

    Raises:
        DataError: it holds none; the message begins with ``where``.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: a JSON object with prompt, choices and answer, or such a mapping, is expected")
    prompt, choices = _prompt(record, where), _field(record, _CHOICES, where)
    answer, labels = _field(record, _ANSWERS, where), None
    if isinstance(choices, Mapping):
        choices, labels = choices.get("text"), choices.get("label")
    if not isinstance(choices, list | tuple) or len(choices) < 2:
        raise DataError(f"{where}: choices: a list of two or more texts is expected, got {choices!r:.60}")
    texts = [_text(choice, f"{where}: choice {number}") for number, choice in enumerate(choices, 1)]
    index = _index(answer, texts, _labels(labels, texts, where), where)
    return MultipleChoiceQuestion(_text(prompt, f"{where}: prompt"), tuple(texts), index)


def _prompt(record: Mapping[str, Any], where: str) -> Any:
    """Return what stands before the choices.

    Raises:
        DataError: nothing, or different texts under several names, such as a context and a question on it.
    """
    found = {name: record[name] for name in _PROMPTS if name in record}
    if "prompt" not in found and any(value != next(iter(found.values())) for value in found.values()):
        raise DataError(f"{where}: {' and '.join(found)}: give all that stands before the choices as one text, prompt")
    return _field(record, _PROMPTS, where)


def _field(record: Mapping[str, Any], names: Sequence[str], where: str) -> Any:
    for name in names:
        if name in record:
            return record[name]
    raise DataError(
        f"{where}: no {names[0]} (or {', '.join(names[1:])}) among {', '.join(map(repr, record)) or 'none'}"
    )


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: a text is expected, got {value!r:.60} ({type(value).__name__})")
    return check_string(value, where)


def _index(answer: Any, texts: Sequence[str], labels: Sequence[str] | None, where: str) -> int:
    """Return the number of the right choice.

    Where labels are stated and one is a number, numbers are labels; else they count the choices from 0.
    """
    names = labels or [chr(ord("A") + i) for i in range(len(texts))]
    numbers = [] if any(name.isdecimal() for name in names) else [str(i) for i in range(len(texts))]
    is_number = isinstance(answer, int) and not isinstance(answer, bool)
    if is_number or isinstance(answer, str):
        said = str(answer)
        for known in (names, numbers) if is_number else (names, texts, numbers):
            if known.count(said) == 1:
                return known.index(said)
    raise DataError(
        f"{where}: answer: {answer!r:.60} is none of the choices: give its number from 0 to {len(texts) - 1}, its "
        "letter or its text"
        if labels is None
        else f"{where}: answer: {answer!r:.60} is none of the choices: give its label ({', '.join(labels)}) or its text"
    )


def _labels(stated: Any, texts: Sequence[str], where: str) -> list[str] | None:
    """Return the labels of choices as texts; None where there are none.

    Raises:
        DataError: they are not one for each choice, or two are alike.
    """
    if stated is None:
        return None
    labels = list(map(str, stated)) if isinstance(stated, list | tuple) else []
    if len(labels) != len(texts) or len(set(labels)) < len(labels):
        raise DataError(
            f"{where}: choices: label: a label of its own for each of {len(texts)} choices is expected, "
            f"got {stated!r:.60}"
        )
    return labels
