"""Translation around placeholders: each occurs in the translation exactly as often as in the source.

Strategies are tried one after the other on the texts that are not done yet, from the one that reads best to the one
that cannot fail (``placeholder_strategies.py``): the text as it is, which a model trained on such texts mostly gets
right; the text by a second translator; the text with stand-ins for the placeholders that models copy well; sentence by
sentence; and at last the words between the placeholders, each stretch by itself.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from dragoman.decode.constraints.glossary import Glossary
from dragoman.decode.documents.icu import ICU_KEPT, holds_icu_message
from dragoman.decode.documents.number_strategy import NumbersHeld
from dragoman.decode.documents.placeholder_strategies import (
    PlaceholderStrategy,
    placeholder_strategies,
    translate_lines,
)
from dragoman.decode.documents.source_line import UNTOUCHED, Ask, Require, SourceLine, about, combine
from dragoman.decode.documents.spaces import NO_BREAK, with_no_break_spaces
from dragoman.decode.multiline import LINE_END, joined_lines
from dragoman.decode.translation import Translation
from dragoman.text.accelerators import Accelerator, find_accelerator, restore_accelerator
from dragoman.text.cleaning.clean import normalise
from dragoman.text.context import NO_CONTEXT, ReadContext
from dragoman.text.grouping import Grouping, in_groups
from dragoman.text.invariants import is_wordless, keep_verbatim
from dragoman.text.lines import PrecedingSentences
from dragoman.text.placeholders import find_placeholders, placeholders_preserved

CHUNK = 4096
"""Texts of a stream read at a time."""


def translate(
    texts: Sequence[str],
    ask: Ask,
    *,
    codes: Sequence[Sequence[str]] | None = None,
    contexts: Sequence[PrecedingSentences] | None = None,
    require: Require | None = None,
    first_row: int = 1,
    check_numbers: bool = True,
    glossary: Glossary | None = None,
) -> list[Translation]:
    """Translate texts so that their placeholders survive, and their line ends, tabs and outer white space as well.

    Args:
        ask: translates; several candidates for a text are made use of.
        codes: pieces of each text that are placeholders whatever they look like.
        contexts: what stands before each text in its document; ``ask`` gets such texts as requests.
        require: a second translator, asked for what the first has got wrong: one that is told what must come out, or
            that just offers more candidates.
        first_row: number of the first text.
        check_numbers: numbers and signs of a text are to come out too; where no way leads there, a warning says so.
        glossary: the one that ``ask`` obeys. Its terms are translated even where they are numbers and signs alone.

    Returns:
        A translation for each text. One combined from several answers has a single candidate, the sum of the answers'
        log-probabilities, the lowest of their confidences, and a warning if it was translated in pieces.
    """
    given, before = codes or [()] * len(texts), contexts or [()] * len(texts)
    split = [
        _split(text, tuple(some), context, check_numbers, glossary)
        for text, some, context in zip(texts, given, before, strict=True)
    ]
    lines = list(dict.fromkeys(line for _, parts in split for line in parts if line))
    strategies = placeholder_strategies(require)
    answers = _translate_lines(lines, ask, [*strategies, NumbersHeld(strategies)])
    return [
        _assemble(row, text, tuple(own), spaces, [answers.get(line) for line in lines])
        for row, (text, own, (spaces, lines)) in enumerate(zip(texts, given, split, strict=True), first_row)
    ]


def stream(
    texts: Iterable[str],
    ask: Ask,
    *,
    context: ReadContext = NO_CONTEXT,
    require: Require | None = None,
    chunk: int = CHUNK,
    check_numbers: bool = True,
    grouping: Grouping = in_groups,
    glossary: Glossary | None = None,
    first_row: int = 1,
) -> Iterator[Translation]:
    """Translate lines of text from an iterable that may never end; see ``translate``.

    White space counts as single spaces. ``context`` decides how many earlier lines are read with each line, and
    ``grouping`` which lines are translated together.
    """
    row = first_row
    for group in grouping(context.in_lines(texts), chunk):
        tidy, contexts = [normalise(text) for text, _ in group], [before for _, before in group]
        options = {"contexts": contexts, "require": require, "check_numbers": check_numbers, "glossary": glossary}
        for answer, (text, _) in zip(translate(tidy, ask, first_row=row, **options), group, strict=True):
            yield _as_given(text, answer)
        row += len(group)


def translate_texts(
    texts: Sequence[str],
    ask: Ask,
    *,
    context: ReadContext = NO_CONTEXT,
    require: Require | None = None,
    check_numbers: bool = True,
    glossary: Glossary | None = None,
) -> list[Translation]:
    """Translate texts of one or several lines, each line as ``stream`` does, with the lines before it in its text."""
    split = [list(context.in_lines(LINE_END.split(text))) for text in texts]
    lines = [line for each in split for line in each]
    tidy, contexts = [normalise(line) for line, _ in lines], [before for _, before in lines]
    options = {"contexts": contexts, "require": require, "check_numbers": check_numbers, "glossary": glossary}
    answers = translate(tidy, ask, **options)
    found = (_as_given(line, answer) for answer, (line, _) in zip(answers, lines, strict=True))
    return [
        joined_lines(row, text, [next(found) for _ in each], LINE_END.findall(text))
        for row, (text, each) in enumerate(zip(texts, split, strict=True), 1)
    ]


def _as_given(text: str, answer: Translation) -> Translation:
    """The answer to a text that was normalised, as one to the text; where there was no word to translate, with its own
    white space."""
    if answer.source != text and not answer.candidates[0].tokens and is_wordless(text):
        whole = dataclasses.replace(answer.candidates[0], text=keep_verbatim(text))
        answer = dataclasses.replace(answer, candidates=(whole,))
    return dataclasses.replace(answer, source=text)


def _translate_lines(
    lines: list[SourceLine], ask: Ask, strategies: list[PlaceholderStrategy]
) -> dict[SourceLine, Translation]:
    """Translate every line; an accelerator is removed before and put back after."""
    keys = {line: key for line in lines if (key := find_accelerator(line.text, line.codes)) is not None}
    bare = {line: dataclasses.replace(line, text=keys[line].bare) if line in keys else line for line in lines}
    answers = translate_lines(list(dict.fromkeys(bare.values())), ask, strategies)
    return {line: _with_key(line, keys[line], answers[bare[line]]) if line in keys else answers[line] for line in lines}


def _with_key(line: SourceLine, key: Accelerator, answer: Translation) -> Translation:
    candidates = (
        dataclasses.replace(c, text=restore_accelerator(key, c.text, line.codes), parts=c.answers(answer.source))
        for c in answer.candidates
    )
    return dataclasses.replace(answer, source=line.text, candidates=tuple(candidates))


# ---- texts and their lines ------------------------------------------------------------------------


_SPACE = re.compile(r"^\s+|\s+$|[ ]*[\t\n\r\f\v]\s*")


def _split(
    text: str, codes: tuple[str, ...], context: PrecedingSentences, checked: bool, glossary: Glossary | None
) -> tuple[list[str], list[SourceLine]]:
    """The white space that stays as it is, and the lines between: one more of them."""

    def line(part: str) -> SourceLine:
        if glossary is None:
            return SourceLine(part, codes, context, checked)
        bound = bool(glossary.of(part)[0])
        return SourceLine(part, codes, context, checked and not glossary.changes_numbers(part), bound)

    inside = [(p.start, p.end) for p in find_placeholders(text, codes)]
    spaces, lines, at = [], [], 0
    for match in _SPACE.finditer(text):
        if not any(start < match.end() and match.start() < end for start, end in inside):
            lines.append(line(text[at : match.start()]))
            spaces.append(match[0])
            at = match.end()
    return spaces, [*lines, line(text[at:])]


def _assemble(
    row: int, text: str, codes: tuple[str, ...], spaces: list[str], answers: list[Translation | None]
) -> Translation:
    translation = _with_no_break_spaces(_join(row, text, codes, spaces, answers), codes)
    if not holds_icu_message(text, codes):
        return translation
    best = dataclasses.replace(translation.candidates[0], confidence=0.0)
    return dataclasses.replace(
        translation, candidates=(best,), warnings=(*translation.warnings, about(row, ICU_KEPT)), confidence=0.0
    )


def _with_no_break_spaces(translation: Translation, codes: tuple[str, ...]) -> Translation:
    if not any(space in translation.source for space in NO_BREAK):
        return translation
    texts = [with_no_break_spaces(translation.source, candidate.text) for candidate in translation.candidates]
    candidates = [
        dataclasses.replace(c, text=text, parts=c.answers(translation.source) if text != c.text else c.parts)
        if placeholders_preserved(
            find_placeholders(c.text, codes), find_placeholders(text, codes)
        )  # not inside of a tag
        else c
        for c, text in zip(translation.candidates, texts, strict=True)
    ]
    return dataclasses.replace(translation, candidates=tuple(candidates))


def _join(
    row: int, text: str, codes: tuple[str, ...], spaces: list[str], answers: list[Translation | None]
) -> Translation:
    given = [answer for answer in answers if answer is not None]
    if len(given) == 1 and not any(spaces):
        warnings = tuple(about(row, warning) for warning in given[0].warnings)
        return dataclasses.replace(given[0], row=row, source=text, warnings=warnings)
    written = [answer.text if answer else "" for answer in answers]
    translation = "".join(itertools.chain.from_iterable(zip(written, [*spaces, ""], strict=True)))
    if placeholders_preserved(find_placeholders(text, codes), find_placeholders(translation, codes)):
        return combine(row, text, translation, given)
    # for example, a brace opens on one line and closes on another
    return combine(row, text, text, [], UNTOUCHED, untranslated=True)
