# ruff: noqa: RUF001  (full stops of many scripts)
"""Strategies that translate a line so that its placeholders survive: most read well and may fail, the last cannot."""

import dataclasses
import itertools
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence

import regex

from dragoman.decode.documents.source_line import (
    ADDED,
    EMPTY,
    UNTOUCHED,
    Ask,
    Require,
    SourceLine,
    SourceQuestion,
    combine,
    with_warning,
)
from dragoman.decode.request import Request
from dragoman.decode.segmentation import TextSegment, glue_after, sentences
from dragoman.decode.translation import Translation
from dragoman.text.invariants import is_wordless, numbers_added
from dragoman.text.placeholders import Placeholder, Role, find_placeholders
from dragoman.text.words import LETTER

IN_PIECES = "translated in pieces, to keep its placeholders: check how it reads"
CHANGED = "numbers or signs are not those of the source: check it"


def translate_lines(
    lines: list[SourceLine], ask: Ask, strategies: list["PlaceholderStrategy"]
) -> dict[SourceLine, Translation]:
    """Translate every line with the first strategy that succeeds, at last in pieces.

    A translation with other numbers or signs than its source is kept in reserve while further strategies are tried. It
    is returned, with a warning, if none of them succeeds.
    """
    answers: dict[SourceLine, Translation] = {}
    reserve: dict[SourceLine, Translation] = {}
    for strategy in (NothingToTranslate(), *strategies, BySentence(strategies), SegmentBySegment()):
        todo = [line for line in lines if line not in answers and strategy.suits(line)]
        if isinstance(strategy, SegmentBySegment):
            todo = [line for line in todo if line not in reserve]
        for line, answer in zip(todo, strategy.answers(todo, ask) if todo else [], strict=True):
            if answer is None:
                continue
            if changed := line.changes_in(answer.text):
                reserve.setdefault(line, with_warning(answer, f"{changed}: {CHANGED}"))
            else:
                answers[line] = answer
    return reserve | answers


# ---- strategies that use the model ----------------------------------------------------------------


class PlaceholderStrategy(ABC):
    """One strategy to translate lines."""

    def suits(self, line: SourceLine) -> bool:
        """Return whether the strategy can be tried on a line."""
        return True

    @abstractmethod
    def answers(self, lines: list[SourceLine], ask: Ask) -> list[Translation | None]:
        """Return the translation of each line; None where the strategy fails."""


class NothingToTranslate(PlaceholderStrategy):
    """Leave a line of nothing but placeholders, numbers and signs as it is."""

    def suits(self, line: SourceLine) -> bool:
        return not line.bound and is_wordless(line.text, line.placeholders)

    def answers(self, lines: list[SourceLine], ask: Ask) -> list[Translation | None]:
        return [combine(1, line.text, line.text, []) for line in lines]


class AskingStrategy(PlaceholderStrategy):
    """A strategy that sends texts for each line to the model, and makes a translation of the replies."""

    def answers(self, lines: list[SourceLine], ask: Ask) -> list[Translation | None]:
        questions = [
            [Request(text, context=line.context) if line.context else text for text in self.questions(line)]
            for line in lines
        ]
        replies = iter(self.send(ask, list(itertools.chain.from_iterable(questions)), lines))
        return [
            self.answer(line, list(itertools.islice(replies, len(texts))))
            for line, texts in zip(lines, questions, strict=True)
        ]

    def send(self, ask: Ask, questions: list[SourceQuestion], lines: list[SourceLine]) -> list[Translation]:
        """Translate the questions of all lines in one call."""
        return ask(questions) if questions else []

    @abstractmethod
    def questions(self, line: SourceLine) -> list[str]:
        """Return the texts to translate for a line."""

    @abstractmethod
    def answer(self, line: SourceLine, replies: list[Translation]) -> Translation | None:
        """Return the translation of a line from the replies to its questions; None where they do not make one."""


class Verbatim(AskingStrategy):
    """Translate the text itself; candidates that are empty or lose a placeholder are dropped."""

    def questions(self, line: SourceLine) -> list[str]:
        return [line.text]

    def answer(self, line: SourceLine, replies: list[Translation]) -> Translation | None:
        (reply,) = replies
        good = tuple(c for c in reply.candidates if c.text and line.is_kept_in(c.text))
        good = tuple(c for c in good if not line.changes_in(c.text)) or good
        return reply.choosing(good) if good else None


class Required(Verbatim):
    """Translate the text itself with a translator that knows which strings are required.

    However many candidates it offers, only the best of the usable ones is returned.
    """

    def __init__(self, require: Require):
        self.require = require

    def send(self, ask: Ask, questions: list[SourceQuestion], lines: list[SourceLine]) -> list[Translation]:
        return self.require(questions, [[p.text for p in line.placeholders] for line in lines])

    def answer(self, line: SourceLine, replies: list[Translation]) -> Translation | None:
        found = super().answer(line, replies)
        return found and found.choosing(found.candidates[:1])


class PlaceholderSubstitution(AskingStrategy):
    """Replace placeholders by stand-ins that models copy well: words, or marks such as quotes for pairs of tags.

    The second translator is used if there is one, since the stand-ins are required in the translation.
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
            marks: pairs of marks for opening and closing tags.
            edge: pattern of characters that must not come right before or after a stand-in.
        """
        self.words, self.links, self.marks, self.edge, self.require = words, links, marks, edge, require

    def suits(self, line: SourceLine) -> bool:
        return bool(self.swaps(line))

    def swaps(self, line: SourceLine) -> list[tuple[Placeholder, str]]:
        """Return the placeholders and their stand-ins; empty where there are too few stand-ins."""
        words, links = ([w for w in kind if w not in line.text] for kind in (self.words, self.links))
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

    def send(self, ask: Ask, questions: list[SourceQuestion], lines: list[SourceLine]) -> list[Translation]:
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
                return combine(1, line.text, text, [reply.choosing((candidate,))])
        return None

    def left_over(self, line: SourceLine, rest: str) -> bool:
        """Return whether a reply has remnants of stand-ins besides those put back.

        These are marks, braces or digits that the words of the line do not have.
        """
        ours = {char for pair in self.marks for mark in pair for char in mark} | set("{}")
        return any(char in ours and char not in line.words for char in rest) or numbers_added(line.words, rest)


def _merged(line: SourceLine) -> Iterator[Placeholder]:
    """Yield the placeholders, where a pair of tags without a letter between them is one."""
    rest = iter(line.placeholders)
    for p in rest:
        if p.role is Role.OPENS and (pair := _wordless_pair(line, p)):
            yield pair
            while next(rest).end < pair.end:
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
    """Return ``text`` with the originals in place of their stand-ins, and ``text`` without either.

    The first is None if a stand-in is missing or occurs too often.
    """
    unused: dict[str, list[str]] = defaultdict(list)
    for p, word in swaps:
        unused[word].append(p.text)
    parts, rest, at = [], [], 0
    for found in pattern.finditer(text):
        if not unused[found[0]]:
            return None, ""
        rest.append(text[at : found.start()])
        parts += [rest[-1], unused[found[0]].pop(0)]
        at = found.end()
    rest.append(text[at:])
    return None if any(unused.values()) else "".join([*parts, rest[-1]]), " ".join(rest)


def placeholder_strategies(require: Require | None) -> list[PlaceholderStrategy]:
    """Return all strategies that may fail, the best first."""
    marks = (("**", "**"), ('"', '"'), ("(", ")"))
    names, links = ("{name}", "{value}", "{count}", "{time}", "{error}"), ("{url}", "{docs_url}")
    numbers = ("17", "23", "38", "46", "59", "64", "71", "82", "93")
    return [
        Verbatim(),
        *([Required(require)] if require else []),
        PlaceholderSubstitution(names, links, marks, edge=r"[{}*]", require=require),
        PlaceholderSubstitution(numbers, (), marks[1:], edge=r"\d", require=require),
    ]


class BySentence(PlaceholderStrategy):
    """Translate each sentence by itself with the first strategy that succeeds, so that one failure spoils no other."""

    def __init__(self, strategies: list[PlaceholderStrategy]):
        self.strategies = strategies

    def suits(self, line: SourceLine) -> bool:
        return len(self.sentences(line)) > 1

    def sentences(self, line: SourceLine) -> list[tuple[SourceLine, TextSegment]]:
        """Return each sentence with its segment; empty where a placeholder crosses a sentence's end."""
        parts = [(dataclasses.replace(line, text=part.text), part) for part in sentences(line.text) if part.text]
        found = [p.text for sentence, _ in parts for p in sentence.placeholders]
        return parts if found == [p.text for p in line.placeholders] else []

    def answers(self, lines: list[SourceLine], ask: Ask) -> list[Translation | None]:
        split = [self.sentences(line) for line in lines]
        every = dict.fromkeys(sentence for parts in split for sentence, _ in parts)
        found = translate_lines(list(every), ask, self.strategies)
        return [self.combine_sentences(line, parts, found) for line, parts in zip(lines, split, strict=True)]

    def combine_sentences(
        self, line: SourceLine, parts: list[tuple[SourceLine, TextSegment]], found: dict[SourceLine, Translation]
    ) -> Translation | None:
        text = "".join(found[sentence].text + glue_after(part, found[sentence].text) for sentence, part in parts)
        replies = [found[sentence] for sentence, _ in parts]
        return combine(1, line.text, text, replies) if line.is_kept_in(text) else None


class SegmentBySegment(AskingStrategy):
    """Translate each stretch of words between the placeholders by itself; the placeholders stay where they are."""

    def questions(self, line: SourceLine) -> list[str]:
        return [words for words, _ in self.stretches(line) if words]

    def stretches(self, line: SourceLine) -> Iterator[tuple[str, str]]:
        """Yield pairs: words to translate, which may be empty, and the text after them that stays as it is."""
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
        remaining, parts, used = iter(replies), [], []
        for words, rest in self.stretches(line):
            reply = next(remaining) if words else None
            if reply and reply.text and not find_placeholders(reply.text) and not numbers_added(words, reply.text):
                used.append(reply)
                words = _ended_alike(reply.text, words)
            parts += [words, rest]
        text, said = "".join(parts), IN_PIECES
        if not line.is_kept_in(text):
            text, used, said = line.text, [], UNTOUCHED
        elif len(used) < len(replies):
            said = EMPTY if not all(reply.text for reply in replies) else UNTOUCHED if line.placeholders else ADDED
        return combine(1, line.text, text, used, said, untranslated=said != IN_PIECES)


_WORDS = regex.compile(rf"{LETTER}.*{LETTER}|{LETTER}", regex.DOTALL)


def _ended_alike(reply: str, words: str) -> str:
    """Return ``reply`` without the full stop that a model tends to add, since ``words`` never end with one."""
    return reply.rstrip(".。!?！？…").rstrip() or reply
