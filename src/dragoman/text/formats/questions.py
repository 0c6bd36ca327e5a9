"""Questions on texts, answered by spans of these texts: SQuAD files or JSON lines."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, NamedTuple

from pydantic import PositiveInt

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError, DataError
from dragoman.text.cleaning.split import HoldOut, PairSplit
from dragoman.text.compressed import extension, read_bytes
from dragoman.text.lines import check_string, parse_json, read_lines
from dragoman.text.splits import Overlapping, SplitExamples, count_sets, split_examples


class Answer(NamedTuple):
    """Answer as a span of the context."""

    text: str
    start: int
    """Index of its first character in the context."""


class Question(NamedTuple):
    """Question on a context, with its right answers."""

    context: str
    question: str
    answers: tuple[Answer, ...]
    """Right answers, of which the first is learned; empty where the context holds no answer."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the texts that a tokenizer is trained on."""
        return (self.context, self.question)

    @property
    def source(self) -> str:
        """Return the text that near duplicates are found by."""
        return self.context

    target = source

    def record(self) -> dict[str, Any]:
        """Return the object that ``QuestionLines`` reads."""
        return self._asdict() | {"answers": [answer._asdict() for answer in self.answers]}


class Passage(NamedTuple):
    """Context with all questions on it: they are held out together."""

    context: str
    questions: tuple[Question, ...]

    @property
    def source(self) -> str:
        """Return the text that near duplicates are found by."""
        return self.context

    target = source


# ---- files ----------------------------------------------------------------------------------------


@config
class Squad:
    """SQuAD file."""

    path: str
    """Path of a JSON file in the format of SQuAD 1.1 or 2.0 (data, paragraphs, qas, answers), plain, .gz or .zst."""

    def read(self) -> Iterator[Question]:
        """Yield the questions."""
        record = parse_json(_decoded(self.path), self.path)
        for i, article in enumerate(_list(record, "data", self.path)):
            inside = f"{self.path}: data.{i}"
            for j, paragraph in enumerate(_list(article, "paragraphs", inside)):
                yield from self._paragraph(paragraph, f"{inside}.paragraphs.{j}")

    def _paragraph(self, paragraph: Any, where: str) -> Iterator[Question]:
        context = text_at(paragraph, "context", where)
        for i, record in enumerate(_list(paragraph, "qas", where)):
            inside = f"{where}.qas.{i}"
            none = isinstance(record, dict) and record.get("is_impossible") is True
            answers = [] if none else _list(record, "answers", inside)
            yield _question(context, text_at(record, "question", inside), answers, inside)


@config
class QuestionLines:
    """JSON lines with a question each."""

    path: str
    """Path of a file with one JSON object a line, plain, .gz or .zst. Answers are a list of objects with text and start
    or, as in data sets of Hugging Face, one object of two lists, text and answer_start."""
    context: str = "context"
    """Key of the text that holds the answer."""
    question: str = "question"
    """Key of the question."""
    answers: str = "answers"
    """Key of the answers, an empty list where the context holds none."""

    def read(self) -> Iterator[Question]:
        """Yield the questions."""
        for number, line in enumerate(read_lines(self.path), 1):
            if line and not line.isspace():
                where = f"{self.path}:{number}"
                record = parse_json(line, where)
                context, question = (text_at(record, key, where) for key in (self.context, self.question))
                yield _question(context, question, self._answers(record, where), where)

    def _answers(self, record: dict[str, Any], where: str) -> list[Any]:
        found = record.get(self.answers)
        if not isinstance(found, dict):
            return _list(record, self.answers, where)
        texts, starts = (_list(found, key, where) for key in ("text", "answer_start"))
        if len(texts) != len(starts):
            raise DataError(f"{where}: {len(texts)} answers and {len(starts)} starts: each answer needs its own")
        return [{"text": text, "start": start} for text, start in zip(texts, starts, strict=True)]


QuestionSource = Annotated[Squad | QuestionLines, OneOf()]


def _decoded(path: str) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start + 1}: convert the file") from None


def _list(record: Any, key: str, where: str) -> list[Any]:
    found = record.get(key) if isinstance(record, dict) else None
    if not isinstance(found, list):
        raise DataError(f"{where}: expected an object with {key!r}: a list")
    return found


def text_at(record: Any, key: str, where: str) -> str:
    """Return the text under a key.

    Raises:
        DataError: no text there.
    """
    found = record.get(key) if isinstance(record, dict) else None
    if not isinstance(found, str) or not found.strip():
        raise DataError(f"{where}: expected an object with {key!r}: a text")
    return check_string(found, where)


def _question(context: str, question: str, answers: Sequence[Any], where: str) -> Question:
    return Question(context, question, tuple(_answer(context, answer, where) for answer in answers))


def _answer(context: str, answer: Any, where: str) -> Answer:
    start = answer.get("start", answer.get("answer_start")) if isinstance(answer, dict) else None
    if isinstance(start, bool) or not isinstance(start, int):
        raise DataError(f"{where}: an answer is an object with 'text' and 'start' (or 'answer_start'), an integer")
    text = text_at(answer, "text", where)
    if start < 0 or context[start : start + len(text)] != text:
        found = f"{context[start : start + len(text)]!r}" if 0 <= start < len(context) else "nothing"
        at = context.find(text)
        hint = f"it is at {at}" if at >= 0 else "it is not in the context, and answers must be, to the letter"
        raise DataError(f"{where}: answer {text!r} should begin at character {start}, where there is {found}; {hint}")
    return Answer(text, start)


def read_questions(source: QuestionSource) -> list[Question]:
    """Read the questions of a file.

    Raises:
        DataError: a file that cannot be read or holds no question, or an answer that is not at its given position.
    """
    if not (questions := list(source.read())):
        raise DataError(f"{source.path}: holds no questions")
    return questions


def guess_questions(path: str) -> QuestionSource:
    """Choose the format of ``path`` by its extension.

    Raises:
        ConfigError: an unknown extension.
    """
    match extension(path):
        case ".jsonl" | ".ndjson":
            return QuestionLines(path=path)
        case ".json":
            return Squad(path=path)
    raise ConfigError(f"{path}: its name does not show its format: name it .json (the format of SQuAD) or .jsonl")


# ---- a run's examples -----------------------------------------------------------------------------


@config
class Questions:
    """Questions to train, validate and test a reader on."""

    train: tuple[QuestionSource, ...]
    """Sources of training questions, read in order."""
    valid: QuestionSource | None = None
    """Questions to choose the best checkpoint by; without them, some of the training contexts are held out with all
    their questions."""
    test: QuestionSource | None = None
    """Questions for the final figures only; without them, some of the training contexts are held out with all their
    questions."""
    hold_out: HoldOut = HoldOut(test=200, valid=200)
    """Number of contexts to hold out as test and validation set, where none is given above."""
    overlap: Overlapping = "drop"
    """Treatment of questions of training whose context is like one of a given validation or test set."""
    longest: PositiveInt = 384
    """Largest number of tokens of question and context that are read together; a longer context is read in windows."""
    longest_question: PositiveInt = 64
    """Largest number of tokens of a question that are read; the rest is truncated."""
    stride: PositiveInt = 128
    """Tokens of the context from the start of one window to the next; at most all that a window holds."""

    def split(self) -> SplitExamples[Question]:
        """Read the sources and split them.

        Raises:
            DataError: a file that cannot be read, no question with an answer, or too few contexts.
        """
        train = group_by_context(chain.from_iterable(map(read_questions, self.train)))
        valid, test = (
            None if source is None else group_by_context(read_questions(source)) for source in (self.valid, self.test)
        )
        found = split_examples(train, valid, test, self.hold_out, self.overlap)
        of = found.split
        split = PairSplit(_flat(of.train), _flat(of.valid), _flat(of.test), removed={}, hard=_flat(of.hard))
        if not any(question.answers for question in split.train):
            raise DataError("data: no question to train on has an answer: nothing to learn")
        table = [(name.replace("examples", "contexts"), count) for name, count in found.table]
        facts = {"unanswerable": not all(question.answers for question in split.train)}
        return SplitExamples(
            split, facts, table + count_sets(split, "questions "), found.note.replace("examples", "contexts")
        )


def group_by_context(questions: Iterable[Question]) -> list[Passage]:
    """Group questions by context, in the order of first occurrence."""
    by_context: dict[str, list[Question]] = {}
    for question in questions:
        by_context.setdefault(question.context, []).append(question)
    return [Passage(context, tuple(grouped)) for context, grouped in by_context.items()]


def _flat(contexts: Iterable[Passage]) -> list[Question]:
    return [question for passage in contexts for question in passage.questions]
