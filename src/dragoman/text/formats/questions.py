"""Questions on texts, answered by parts of these texts: files as SQuAD has them, or JSON lines."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, NamedTuple

from pydantic import PositiveInt

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError, DataError
from dragoman.text.cleaning.split import HoldOut, PairSplit
from dragoman.text.compressed import extension, read_bytes
from dragoman.text.lines import check_string, parse_json, read_lines
from dragoman.text.splits import Overlapping, SplitExamples, set_apart


class Answer(NamedTuple):
    text: str
    start: int
    """Its first character in the context, counted from 0."""


class Question(NamedTuple):
    context: str
    question: str
    answers: tuple[Answer, ...]
    """All that are right, the first to be learned; none where the context holds no answer."""

    @property
    def texts(self) -> tuple[str, ...]:
        """What a tokenizer learns from."""
        return (self.context, self.question)

    @property
    def source(self) -> str:
        """What it is told apart by when some are held out."""
        return self.context

    target = source

    def record(self) -> dict[str, Any]:
        """As ``QuestionLines`` reads it."""
        return self._asdict() | {"answers": [answer._asdict() for answer in self.answers]}


class Passage(NamedTuple):
    """A context with all questions on it: they are held out together."""

    context: str
    questions: tuple[Question, ...]

    @property
    def source(self) -> str:
        return self.context

    target = source


# ---- files ----------------------------------------------------------------------------------------


@config
class Squad:
    path: str
    """A JSON file as SQuAD 1.1 and 2.0 have it (data, paragraphs, qas, answers), plain, .gz or .zst."""

    def read(self) -> Iterator[Question]:
        record = parse_json(_decoded(self.path), self.path)
        for i, article in enumerate(_list(record, "data", self.path)):
            inside = f"{self.path}: data.{i}"
            for j, paragraph in enumerate(_list(article, "paragraphs", inside)):
                yield from self._paragraph(paragraph, f"{inside}.paragraphs.{j}")

    def _paragraph(self, paragraph: Any, where: str) -> Iterator[Question]:
        context = text_at(paragraph, "context", where)
        for i, asked in enumerate(_list(paragraph, "qas", where)):
            inside = f"{where}.qas.{i}"
            none = isinstance(asked, dict) and asked.get("is_impossible") is True
            answers = [] if none else _list(asked, "answers", inside)
            yield _question(context, text_at(asked, "question", inside), answers, inside)


@config
class QuestionLines:
    path: str
    """One JSON object a line, plain, .gz or .zst. Answers are a list of objects with text and start; or, as data sets
    of Hugging Face have them, one object of two lists, text and answer_start."""
    context: str = "context"
    """Key of the text that holds the answer."""
    question: str = "question"
    """Key of the question."""
    answers: str = "answers"
    """Key of the answers, an empty list where the context holds none."""

    def read(self) -> Iterator[Question]:
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
            raise DataError(f"{where}: {len(texts)} answers and {len(starts)} beginnings: each answer needs its own")
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
    """
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
        raise DataError(f"{where}: an answer is an object with 'text' and 'start' (or 'answer_start'), a whole number")
    text = text_at(answer, "text", where)
    if start < 0 or context[start : start + len(text)] != text:
        there = f"{context[start : start + len(text)]!r}" if 0 <= start < len(context) else "nothing"
        at = context.find(text)
        hint = f"it stands at {at}" if at >= 0 else "it is nowhere in the context, and answers must be, to the letter"
        raise DataError(f"{where}: answer {text!r} should begin at character {start}, where {there} stands; {hint}")
    return Answer(text, start)


def read_questions(source: QuestionSource) -> list[Question]:
    """
    Raises:
        DataError: a file that cannot be read or holds no question, or an answer that is not where it is said to be.
    """
    if not (questions := list(source.read())):
        raise DataError(f"{source.path}: no questions in it")
    return questions


def guess_questions(path: str) -> QuestionSource:
    """What ``path`` must be by its name.

    Raises:
        ConfigError: the name does not tell.
    """
    match extension(path):
        case ".jsonl" | ".ndjson":
            return QuestionLines(path=path)
        case ".json":
            return Squad(path=path)
    raise ConfigError(f"{path}: its name does not tell what it is: name it .json (as SQuAD has it) or .jsonl")


# ---- a run's examples -----------------------------------------------------------------------------


@config
class Questions:
    train: tuple[QuestionSource, ...]
    """Read one after the other."""
    valid: QuestionSource | None = None
    """Chooses the best checkpoint; without it, some of the training contexts are held out with all their questions."""
    test: QuestionSource | None = None
    """Only for the final figures; without it, some of the training contexts are held out with all their questions."""
    hold_out: HoldOut = HoldOut(test=200, valid=200)
    """How many contexts become test and validation set, where none is given above."""
    overlap: Overlapping = "drop"
    """What to do with questions of training whose context is like one of a given validation or test set."""
    longest: PositiveInt = 384
    """Tokens of question and context that are read together; a longer context is read in windows."""
    longest_question: PositiveInt = 64
    """Tokens of a question that are read; what follows is cut off."""
    stride: PositiveInt = 128
    """Tokens of the context from the beginning of a window to that of the next; all that a window holds at most."""

    def split(self) -> SplitExamples[Question]:
        """
        Raises:
            DataError: a file that cannot be read, no question with an answer, or too few contexts.
        """
        train = passages(chain.from_iterable(map(read_questions, self.train)))
        valid, test = (
            None if source is None else passages(read_questions(source)) for source in (self.valid, self.test)
        )
        found = set_apart(train, valid, test, self.hold_out, self.overlap)
        split = PairSplit(
            *(_flat(some) for some in (found.split.train, found.split.valid, found.split.test)), removed={}
        )
        if not any(question.answers for question in split.train):
            raise DataError("data: no question to train on has an answer: nothing to learn")
        counts = [
            (f"questions {use}", len(some))
            for use, some in (("for training", split.train), ("for validation", split.valid), ("for test", split.test))
        ]
        table = [(name.replace("examples", "contexts"), count) for name, count in found.table]
        facts = {"unanswerable": not all(question.answers for question in split.train)}
        return SplitExamples(split, facts, table + counts, found.note.replace("examples", "contexts"))


def passages(questions: Iterable[Question]) -> list[Passage]:
    """In the order in which their contexts come first."""
    by_context: dict[str, list[Question]] = {}
    for question in questions:
        by_context.setdefault(question.context, []).append(question)
    return [Passage(context, tuple(some)) for context, some in by_context.items()]


def _flat(some: Iterable[Passage]) -> list[Question]:
    return [question for passage in some for question in passage.questions]
