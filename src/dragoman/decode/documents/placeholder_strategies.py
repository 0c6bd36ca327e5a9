# ruff: noqa: RUF001  (full stops of many scripts)
"""Ways to translate a line so that its placeholders survive: some read well and may fail, one cannot."""

import dataclasses
import itertools
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence

from dragoman.decode.documents.source_line import UNTOUCHED, Ask, Require, SourceLine, SourceQuestion, in_one, warned
from dragoman.decode.request import Request
from dragoman.decode.segmentation import TextSegment, glue_after, sentences
from dragoman.decode.translation import Translation
from dragoman.text.invariants import is_wordless, numbers_added
from dragoman.text.placeholders import Placeholder, Role, find_placeholders

IN_PIECES = "translated in pieces, to keep its placeholders: check how it reads"
CHANGED = "numbers or signs are not those of the source: check it"


def translate_lines(
    lines: list[SourceLine], ask: Ask, ways: list["PlaceholderStrategy"]
) -> dict[SourceLine, Translation]:
    """A translation of every line: in the first of these ways that leads to one, or else in pieces.

    One that has other numbers or signs than its source is kept in reserve while further ways are tried, and then given
    with a warning.
    """
    answers: dict[SourceLine, Translation] = {}
    reserve: dict[SourceLine, Translation] = {}
    for way in (NothingToTranslate(), *ways, BySentence(ways), InPieces()):
        todo = [line for line in lines if line not in answers and way.suits(line)]
        if isinstance(way, InPieces):
            todo = [line for line in todo if line not in reserve]
        for line, answer in zip(todo, way.answers(todo, ask) if todo else [], strict=True):
            if answer is None:
                continue
            if changed := line.changes_in(answer.text):
                reserve.setdefault(line, warned(answer, f"{changed}: {CHANGED}"))
            else:
                answers[line] = answer
    return reserve | answers


# ---- asking ----------------------------------------------------------------------------------------


class PlaceholderStrategy(ABC):
    """One way to translate lines."""

    def suits(self, line: SourceLine) -> bool:
        return True

    @abstractmethod
    def answers(self, lines: list[SourceLine], ask: Ask) -> list[Translation | None]:
        """For each line its translation; None where this way does not lead to one."""


class NothingToTranslate(PlaceholderStrategy):
    """A line of nothing but placeholders, numbers and signs is its own translation."""

    def suits(self, line: SourceLine) -> bool:
        return not line.bound and is_wordless(line.text, line.placeholders)

    def answers(self, lines: list[SourceLine], ask: Ask) -> list[Translation | None]:
        return [in_one(1, line.text, line.text, []) for line in lines]


class AskingStrategy(PlaceholderStrategy):
    """A way that asks something for each line, and makes its translation of the replies."""

    def answers(self, lines: list[SourceLine], ask: Ask) -> list[Translation | None]:
        questions = [
            [Request(text, context=line.context) if line.context else text for text in self.questions(line)]
            for line in lines
        ]
        replies = iter(self.put(ask, list(itertools.chain.from_iterable(questions)), lines))
        return [
            self.answer(line, list(itertools.islice(replies, len(asked))))
            for line, asked in zip(lines, questions, strict=True)
        ]

    def put(self, ask: Ask, questions: list[SourceQuestion], lines: list[SourceLine]) -> list[Translation]:
        return ask(questions) if questions else []

    @abstractmethod
    def questions(self, line: SourceLine) -> list[str]: ...

    @abstractmethod
    def answer(self, line: SourceLine, replies: list[Translation]) -> Translation | None: ...


class Verbatim(AskingStrategy):
    """The text itself. Of several candidates, those are left that say something and keep the placeholders."""

    def questions(self, line: SourceLine) -> list[str]:
        return [line.text]

    def answer(self, line: SourceLine, replies: list[Translation]) -> Translation | None:
        (reply,) = replies
        good = tuple(c for c in reply.candidates if c.text and line.is_kept_in(c.text))
        good = tuple(c for c in good if not line.changes_in(c.text)) or good
        return reply.choosing(good) if good else None


class Required(Verbatim):
    """The text itself, to a translator that is told what must come out. However many candidates that offers, the first
    of those that are left is the translation: nobody asked for more."""

    def __init__(self, require: Require):
        self.require = require

    def put(self, ask: Ask, questions: list[SourceQuestion], lines: list[SourceLine]) -> list[Translation]:
        return self.require(questions, [[p.text for p in line.placeholders] for line in lines])

    def answer(self, line: SourceLine, replies: list[Translation]) -> Translation | None:
        found = super().answer(line, replies)
        return found and found.choosing(found.candidates[:1])


class StandIns(AskingStrategy):
    """The text with what models copy well in place of placeholders: words, or marks such as quotes for pairs of tags.

    It is put to the second translator if there is one, since it must bring the stand-ins out again.
    """

    def __init__(
        self,
        words: Sequence[str],
        links: Sequence[str],
        marks: Sequence[tuple[str, str]],
        edge: str,
        require: Require | None,
    ):
        """
        Args:
            links: words for links.
            marks: for what opens and what closes.
            edge: pattern of what may not come right before or after a word.
        """
        self.words, self.links, self.marks, self.edge, self.require = words, links, marks, edge, require

    def suits(self, line: SourceLine) -> bool:
        return bool(self.swaps(line))

    def swaps(self, line: SourceLine) -> list[tuple[Placeholder, str]]:
        """What is to be replaced, and by what; nothing where the stand-ins do not suffice."""
        words, links = ([w for w in some if w not in line.text] for some in (self.words, self.links))
        marks = [pair for pair in self.marks if not any(mark in line.text for mark in pair)]
        swaps, closing = [], []
        for p in _merged(line):
            try:
                if p.role is Role.ALONE:
                    swaps.append((p, (links if links and "://" in p.text else words).pop(0)))
                elif p.role is Role.OPENS:
                    opens, closes = marks.pop(0)
                    swaps.append((p, opens))
                    closing.append(closes)
                elif p.role is Role.CLOSES:
                    swaps.append((p, closing.pop()))
            except IndexError:
                return []
        return swaps

    def questions(self, line: SourceLine) -> list[str]:
        parts, at = [], 0
        for p, word in self.swaps(line):
            parts += [line.text[at : p.start], word]
            at = p.end
        return ["".join([*parts, line.text[at:]])]

    def put(self, ask: Ask, questions: list[SourceQuestion], lines: list[SourceLine]) -> list[Translation]:
        if self.require is None:
            return ask(questions)
        return self.require(questions, [[word for _, word in self.swaps(line)] for line in lines])

    def answer(self, line: SourceLine, replies: list[Translation]) -> Translation | None:
        (reply,) = replies
        swaps = self.swaps(line)
        longest_first = sorted({word for _, word in swaps}, key=len, reverse=True)
        pattern = re.compile(rf"(?<!{self.edge})(?:{'|'.join(map(re.escape, longest_first))})(?!{self.edge})")
        for candidate in reply.candidates:
            text, rest = _swapped_back(candidate.text, pattern, swaps)
            if text is not None and line.is_kept_in(text) and not self.left_over(line, rest):
                return in_one(1, line.text, text, [reply.choosing((candidate,))])
        return None

    def left_over(self, line: SourceLine, rest: str) -> bool:
        """Return whether a reply has something of the stand-ins besides those put back: marks, braces or digits that
        the words of the line do not have."""
        ours = {char for pair in self.marks for mark in pair for char in mark} | set("{}")
        return any(char in ours and char not in line.words for char in rest) or numbers_added(line.words, rest)


def _merged(line: SourceLine) -> Iterator[Placeholder]:
    """The placeholders, where a pair of tags without a letter between them is one."""
    rest = iter(line.placeholders)
    for p in rest:
        if p.role is Role.OPENS and (whole := _wordless_pair(line, p)):
            yield whole
            while next(rest).end < whole.end:
                pass
        else:
            yield p


def _wordless_pair(line: SourceLine, opening: Placeholder) -> Placeholder | None:
    depth, at = 0, opening.start
    for p in line.placeholders:
        if p.start < opening.start:
            continue
        if any(map(str.isalpha, line.text[at : p.start])):
            return None
        depth, at = depth + (p.role is Role.OPENS) - (p.role is Role.CLOSES), p.end
        if not depth:
            return Placeholder(opening.start, p.end, line.text[opening.start : p.end], Role.ALONE, "")
    return None


def _swapped_back(text: str, pattern: re.Pattern[str], swaps: list[tuple[Placeholder, str]]) -> tuple[str | None, str]:
    """``text`` with the originals in place of their stand-ins, None if those are not all there or are too many; and
    without either."""
    left: dict[str, list[str]] = defaultdict(list)
    for p, word in swaps:
        left[word].append(p.text)
    parts, rest, at = [], [], 0
    for found in pattern.finditer(text):
        if not left[found[0]]:
            return None, ""
        rest.append(text[at : found.start()])
        parts += [rest[-1], left[found[0]].pop(0)]
        at = found.end()
    rest.append(text[at:])
    return None if any(left.values()) else "".join([*parts, rest[-1]]), " ".join(rest)


def placeholder_strategies(require: Require | None) -> list[PlaceholderStrategy]:
    """All that may fail, the best first."""
    marks = (("**", "**"), ('"', '"'), ("(", ")"))
    names, links = ("{name}", "{value}", "{count}", "{time}", "{error}"), ("{url}", "{docs_url}")
    numbers = ("17", "23", "38", "46", "59", "64", "71", "82", "93")
    return [
        Verbatim(),
        *([Required(require)] if require else []),
        StandIns(names, links, marks, edge=r"[{}*]", require=require),
        StandIns(numbers, (), marks[1:], edge=r"\d", require=require),
    ]


class BySentence(PlaceholderStrategy):
    """Each sentence by itself, in the first way that leads to a translation: one that is difficult spoils no other."""

    def __init__(self, ways: list[PlaceholderStrategy]):
        self.ways = ways

    def suits(self, line: SourceLine) -> bool:
        return len(self.sentences(line)) > 1

    def sentences(self, line: SourceLine) -> list[tuple[SourceLine, TextSegment]]:
        """Return each with its segment; none where a placeholder goes over a sentence's end."""
        parts = [(dataclasses.replace(line, text=part.text), part) for part in sentences(line.text) if part.text]
        found = [p.text for sentence, _ in parts for p in sentence.placeholders]
        return parts if found == [p.text for p in line.placeholders] else []

    def answers(self, lines: list[SourceLine], ask: Ask) -> list[Translation | None]:
        split = [self.sentences(line) for line in lines]
        every = dict.fromkeys(sentence for some in split for sentence, _ in some)
        found = translate_lines(list(every), ask, self.ways)
        return [self.joined(line, some, found) for line, some in zip(lines, split, strict=True)]

    def joined(
        self, line: SourceLine, parts: list[tuple[SourceLine, TextSegment]], found: dict[SourceLine, Translation]
    ) -> Translation | None:
        text = "".join(found[sentence].text + glue_after(part, found[sentence].text) for sentence, part in parts)
        replies = [found[sentence] for sentence, _ in parts]
        return in_one(1, line.text, text, replies) if line.is_kept_in(text) else None


class InPieces(AskingStrategy):
    """What stands between the placeholders, each stretch of words by itself; they stay where they are."""

    def questions(self, line: SourceLine) -> list[str]:
        return [words for words, _ in self.stretches(line) if words]

    def stretches(self, line: SourceLine) -> Iterator[tuple[str, str]]:
        """Words to be translated, if any, and what follows them as it is, in turns."""
        at = 0
        for start, end in [*((p.start, p.end) for p in line.placeholders), (len(line.text), len(line.text))]:
            between = line.text[at:start]
            words = _WORDS.search(between)
            if words and any(map(str.isalpha, words[0])):
                yield "", between[: words.start()]
                yield words[0], between[words.end() :] + line.text[start:end]
            else:
                yield "", between + line.text[start:end]
            at = end

    def answer(self, line: SourceLine, replies: list[Translation]) -> Translation:
        asked, parts, used = iter(replies), [], []
        for words, rest in self.stretches(line):
            reply = next(asked) if words else None
            if reply and reply.text and not find_placeholders(reply.text) and not numbers_added(words, reply.text):
                used.append(reply)
                words = _ended_alike(reply.text, words)
            parts += [words, rest]
        text, damaged = "".join(parts), len(used) < len(replies)
        if not line.is_kept_in(text):
            text, used, damaged = line.text, [], True
        return in_one(1, line.text, text, used, UNTOUCHED if damaged else IN_PIECES, untranslated=damaged)


_WORDS = re.compile(r"\w.*\w|\w", re.DOTALL)


def _ended_alike(reply: str, words: str) -> str:
    """``reply`` without the full stop that a model likes to end on, since ``words`` never do."""
    return reply.rstrip(".。!?！？…").rstrip() or reply
