"""Translating around placeholders: each comes out exactly as often as it went in, whatever the model answers.

Ways are tried one after the other on the texts that are not done yet, from the one that reads best to the one that
cannot fail (``ways.py``): the text as it is, which a model that has learnt from such texts will mostly get right; what
a second translator makes of it; the text with something in place of each placeholder that models are good at copying;
sentence by sentence; and at last the words between the placeholders, each stretch by itself.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from dragoman.decode.documents.ways import UNTOUCHED, Ask, Line, Require, about, answered, in_one, ways_to_ask
from dragoman.decode.translation import Translation
from dragoman.text.cleaning.clean import normalise
from dragoman.text.context import NO_CONTEXT, NoContext, SentencesBefore
from dragoman.text.formats.lines import Before
from dragoman.text.grouping import Grouping, in_groups
from dragoman.text.placeholders import find, kept

CHUNK = 4096
"""Texts of a stream read at a time."""


def translate(
    texts: Sequence[str],
    ask: Ask,
    *,
    codes: Sequence[Sequence[str]] | None = None,
    contexts: Sequence[Before] | None = None,
    require: Require | None = None,
    first_row: int = 1,
) -> list[Translation]:
    """Translate texts so that their placeholders survive, and their line ends, tabs and outer white space as well.

    Args:
        ask: translates; several candidates for a text are made use of.
        codes: pieces of each text that are placeholders whatever they look like.
        contexts: what stands before each text in its document; ``ask`` gets such texts as requests.
        require: a second translator, asked for what the first has got wrong: one that is told what must come out, or
            that just offers more candidates.
        first_row: number of the first text.

    Returns:
        A translation for each text. One that needed more than one question has a single candidate, the sum of the
        answers, the lowest of their confidences, and a warning if it was translated in pieces.
    """
    given, before = codes or [()] * len(texts), contexts or [()] * len(texts)
    split = [_split(text, tuple(some), context) for text, some, context in zip(texts, given, before, strict=True)]
    lines = list(dict.fromkeys(line for _, some in split for line in some if line))
    answers = answered(lines, ask, ways_to_ask(require))
    return [
        _assembled(row, text, tuple(some), spaces, [answers.get(line) for line in lines])
        for row, (text, some, (spaces, lines)) in enumerate(zip(texts, given, split, strict=True), first_row)
    ]


def stream(
    texts: Iterable[str],
    ask: Ask,
    *,
    context: NoContext | SentencesBefore = NO_CONTEXT,
    require: Require | None = None,
    chunk: int = CHUNK,
    grouping: Grouping = in_groups,
) -> Iterator[Translation]:
    """As ``translate``, for lines of text without end, whose white space counts as single spaces. With each is read as
    much of those before it as ``context`` says. ``grouping`` says which are translated together."""
    row = 1
    for some in grouping(context.in_lines(texts), chunk):
        tidy, contexts = [normalise(text) for text, _ in some], [before for _, before in some]
        answers = translate(tidy, ask, contexts=contexts, require=require, first_row=row)
        yield from (dataclasses.replace(answer, source=text) for answer, (text, _) in zip(answers, some, strict=True))
        row += len(some)


# ---- texts and their lines ------------------------------------------------------------------------


_SPACE = re.compile(r"^\s+|\s+$|[ ]*[\t\n\r\f\v]\s*")


def _split(text: str, codes: tuple[str, ...], context: Before) -> tuple[list[str], list[Line]]:
    """The white space that stays as it is, and the lines between: one more of them."""
    inside = [(p.start, p.end) for p in find(text, codes)]
    spaces, lines, at = [], [], 0
    for match in _SPACE.finditer(text):
        if not any(start < match.end() and match.start() < end for start, end in inside):
            lines.append(Line(text[at : match.start()], codes, context))
            spaces.append(match[0])
            at = match.end()
    return spaces, [*lines, Line(text[at:], codes, context)]


def _assembled(
    row: int, text: str, codes: tuple[str, ...], spaces: list[str], answers: list[Translation | None]
) -> Translation:
    given = [answer for answer in answers if answer is not None]
    if len(given) == 1 and not any(spaces):
        warnings = tuple(about(row, warning) for warning in given[0].warnings)
        return dataclasses.replace(given[0], row=row, source=text, warnings=warnings)
    written = [answer.text if answer else "" for answer in answers]
    whole = "".join(itertools.chain.from_iterable(zip(written, [*spaces, ""], strict=True)))
    if kept(find(text, codes), find(whole, codes)):
        return in_one(row, text, whole, given)
    return in_one(row, text, text, given, UNTOUCHED)  # such as a brace that opens on one line and closes on another
