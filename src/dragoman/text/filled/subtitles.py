"""Subtitles, SubRip (``.srt``) and WebVTT (``.vtt``): times stay, and sentences across cues are translated as a whole.

A sentence that runs over several cues is joined, translated, and divided among the same cues by their shares of the
source. Where the translation has fewer words than there are cues, neighbouring cues become one. It lasts from the start
of the first to the end of the last. Lines are wrapped again to the width that the file has. Settings, notes, styles and
formatting tags stay; tags around the whole of a cue, such as voices and italics, stay in that cue. Character references
of WebVTT are read, and written again.
"""

import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import regex

from dragoman.errors import DataError
from dragoman.text.amount import SPACELESS
from dragoman.text.compressed import extension
from dragoman.text.filled.html_characters import with_characters
from dragoman.text.filled.spans import SpannedDocument, TextFile
from dragoman.text.formats.inline import InlinePart, joined, spelled, with_references

_TIME = re.compile(r"(?:\d+:)?\d{1,2}:\d{1,2}[.,]\d{1,3}")
_TIMES = re.compile(rf"(?m)^[ \t]*{_TIME.pattern}[ \t]*-->[ \t]*(?P<until>{_TIME.pattern})[^\n]*(?:\n|\Z)")
_LIKE_TIMES = re.compile(r"(?m)^.*-->.*$|^[ \t]*\d+:\d\d:\d\d[.,:]\d+\b.*$")
_BLOCK = re.compile(r"(?:[^\n]*\S[^\n]*(?:\n|\Z))+")
"""Lines of WebVTT up to a blank one."""
_NO_CUE = re.compile(r"(?:NOTE|STYLE|REGION)\b")
_FIRST = re.compile(rf"\s*(?:\d+[ \t]*\r?\n\s*)?{_TIME.pattern}")
"""Beginning of subtitles: a time, perhaps with its number."""
_NUMBER = re.compile(r"(?P<blank>(?:\A|\n)[ \t]*\r?)?\n[ \t]*(?P<number>\d{1,9})[ \t]*\r?\n\Z")
"""Number above a time, perhaps with the blank line before it."""
_EXAMPLE = "00:00:01,000 --> 00:00:02,500"
_END = re.compile(r"""[.!?…。！？♪][)\]"'”’»]*$|[:;]$""")  # noqa: RUF001
_TAG = re.compile(r"</?[A-Za-z][^<>\n]*>|<\d[\d:.]*>|\{\\[^{}\n]*\}")
_SPEAKER = re.compile(r"\s*(?:[-–—]|>>)\s*\S")  # noqa: RUF001
_OPENING = re.compile(r"<(?P<name>[A-Za-z]+)[^<>\n]*>|\{\\[^{}\n]*\}")
_VOICE, _PLACED = re.compile(r"<v[.\s][^<>\n]*>"), re.compile(r"<v[.\s>]|<\d")
"""A voice of WebVTT; tags inside of a text that cannot move to another cue: voices and times."""
_WORD = re.compile(r"(?:<[^<>]*>|\{[^{}]*\}|[^ \t\n<{]|[<{])+[ \t\n]*")
_LETTER = regex.compile(
    rf"""(?:<[^/<>][^<>]*>|\{{[^{{}}]*\}}|[\p{{Ps}}\p{{Pi}}])*
    (?:&[\#\w]+;|{SPACELESS}\p{{M}}*|(?:(?!{SPACELESS})[^\ \t\n<&{{])+|[<&{{])
    (?:</[^<>]*>|(?!&)[\p{{Pe}}\p{{Pf}}\p{{Po}}\p{{Lm}}])*[ \t\n]*""",
    regex.VERBOSE,
)
"""Word, or letter of a script without spaces, with the signs that belong to it and the white space after it."""
_MARK = regex.compile(r"(?<!&[#\w]{1,31})[,.;:!?]$")
WIDTH = 42
"""Characters of a line at least, as subtitlers count them."""
MOST = 6
"""Largest number of cues that a sentence is taken to run over."""


class Cue(NamedTuple):
    """Cue with the span of its text."""

    start: int
    end: int
    text: str
    shown: str
    """Text as viewers see it: without tags, and with the characters that references stand for."""
    until: tuple[int, int]
    """Span of the time at which it ends."""


class Framed(NamedTuple):
    """Text of a cue without the tags around all of it."""

    before: str
    text: str
    after: str


class SubtitleDocument(SpannedDocument):
    """Slots of a subtitle file: one per cue, or per sentence that runs over several."""

    numbered = True

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a subtitle file, in UTF-8 or, with a byte-order mark, UTF-16.

        Raises:
            DataError: no times in it, or text where a time is expected; the message names the line.
        """
        self.text_file = TextFile(raw, name)
        super().__init__(self.text_file)
        self.is_vtt = self.text_file.text.startswith("WEBVTT")
        cues = self.cues()
        self.width = max([WIDTH, *(len(line) for cue in cues for line in cue.shown.split("\n"))])
        number = 0
        while number < len(cues):
            group = _sentence(cues[number:])
            self.add_group(group, number)
            number += len(group)

    def cues(self) -> list[Cue]:
        """Return all cues that have a text.

        Raises:
            DataError: no times, or a line like them that is none.
        """
        text = self.text_file.text
        times = list(_TIMES.finditer(text))
        if self.is_vtt:
            self.check_blocks(text, empty=not times)
        elif not times or (extension(self.text_file.name) == ".vtt" and not _FIRST.match(text)):
            if not times:
                self.check_times(0, text)
            raise DataError(f"{self.text_file.name}:1: no times of subtitles in it, as in {_EXAMPLE}")
        found, counted = [], None if self.is_vtt else _next_number("\n\n" + text[: times[0].start()], None)
        for number, (time, following) in enumerate(zip(times, [*times[1:], None], strict=False)):
            end = len(text) if following is None else following.start()
            body = text[time.end() : end]
            if self.is_vtt:
                body = re.split(r"\r?\n\r?\n", body, maxsplit=1)[0]
            elif following is not None:
                counted = _next_number(body, counted)
                body = body if counted is None else _NUMBER.sub("", body)
            start = time.end() + len(body) - len(body.lstrip())
            self.check_times(time.end(), body)
            if raw := body.strip():
                raw = raw.replace("\r\n", "\n")
                shown = self.characters(_TAG.sub("", raw), {})
                found.append(Cue(start, start + len(body.strip()), raw, shown, time.span("until")))
            if number == 0 and not self.is_vtt:
                self.check_times(0, text[: time.start()])
        return found

    def check_blocks(self, text: str, *, empty: bool) -> None:
        """Check the blocks of WebVTT between blank lines, those left out that are no cues.

        Args:
            empty: there are no cues, so that any text is out of place.

        Raises:
            DataError: a line looks like times, and is none, or there is a text without times.
        """
        _, *blocks = _BLOCK.finditer(text)  # the first is the header
        for block in [found for found in blocks if not _NO_CUE.match(found[0])]:
            if not _TIMES.search(block[0]):
                self.check_times(block.start(), block[0])
                if empty:
                    place = self.text_file.place(block.start())
                    raise DataError(f"{place}: a text without times, as in {_EXAMPLE}")

    def check_times(self, start: int, text: str) -> None:
        """
        Raises:
            DataError: a line of a text looks like times, and is none.
        """
        if found := _LIKE_TIMES.search(text):
            place = self.text_file.place(start + found.start())
            raise DataError(f"{place}: {found[0].strip()[:40]!r} is no time of a subtitle, as in {_EXAMPLE}")

    def add_group(self, cues: Sequence[Cue], number: int) -> None:
        """Add the slot of cues that hold one sentence."""
        frames = [framed(cue.text) if len(cues) > 1 else Framed("", cue.text, "") for cue in cues]
        whole = " ".join(_joined(frame.text, cue.shown) for frame, cue in zip(frames, cues, strict=True))
        spellings: dict[str, str] = {}
        pieces = enumerate(re.split(f"({_TAG.pattern})", whole))
        parts = [InlinePart(x, True) if i % 2 else InlinePart(self.characters(x, spellings)) for i, x in pieces]
        text, codes = joined(parts, self.references)
        shares = [len(cue.shown) for cue in cues]

        def write(new: str, codes: Sequence[str]) -> str:
            raw = spelled(new, codes, lambda plain: self.references(plain, spellings))
            runs, parts = divided(raw, shares)
            parts = _closed(parts, ["".join(frame.text for frame in frames[run.start : run.stop]) for run in runs])
            return self.rewritten(cues, frames, runs, parts)

        place = self.text_file.place(cues[0].start)
        self.add((cues[0].until[0], cues[-1].end), text, place=place, key=str(number), codes=codes, write=write)

    def characters(self, raw: str, spellings: dict[str, str]) -> str:
        """Return a text without tags as viewers see it; see ``with_characters``. SubRip has no references."""
        return with_characters(raw, spellings) if self.is_vtt else raw

    def references(self, text: str, spellings: Mapping[str, str] = {}) -> str:
        """Return characters as the file spells them."""
        return with_references(text, spellings) if self.is_vtt else text

    def rewritten(
        self, cues: Sequence[Cue], frames: Sequence[Framed], runs: Sequence[range], parts: Sequence[str]
    ) -> str:
        """Return cues with new texts, from the time at which the first one ends. Those of a run are one, which lasts
        until the last of them ends; comments between them stay."""
        file, at, written = self.text_file.text, cues[0].until[0], list[str]()
        for run, part in zip(runs, parts, strict=True):
            first, last, frame = cues[run.start], cues[run[-1]], frames[run.start]
            written += [file[at : first.until[0]], file[slice(*last.until)], file[first.until[1] : first.start]]
            written += [frame.before, self.wrapped(part, first), frame.after]
            for one, following in itertools.pairwise(cues[run.start : run.stop]):
                gap = file[one.end : following.until[0]]
                written.append(gap[: max(gap.rfind(self.text_file.line_end * 2), 0)].rstrip())
            at = last.end
        return "".join(written)

    def wrapped(self, text: str, cue: Cue) -> str:
        """Return the text of a cue in lines: as many as it had, or more where they would be too wide."""
        if "\n" in text:
            return text.replace("\n", self.text_file.line_end)
        lines = cue.text.count("\n") + 1
        narrowest = max(-(-len(text) // lines), 1) if lines > 1 else self.width
        found = [text]
        for width in range(min(narrowest, self.width), self.width + 1):  # lines of about equal length
            found = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
            if len(found) <= lines:
                break
        return self.text_file.line_end.join(found)


def _next_number(text: str, counted: int | None) -> int | None:
    """Return the number of the next cue at the end of the text before its time; None if that has no number.

    Digits directly below a text are its last line, such as a year, unless they go on counting.

    Args:
        counted: number of the cue with this text, if it has one.
    """
    found = _NUMBER.search(text)
    if found is None:
        return None
    number = int(found["number"])
    return number if found["blank"] is not None or (counted is not None and number == counted + 1) else None


def _joined(text: str, shown: str) -> str:
    """Return the lines of a cue as one; lines of several speakers stay lines.

    Args:
        shown: the text as viewers see it.
    """
    lines = text.split("\n")
    if "" in map(str.strip, lines):
        return text
    if len(lines) > 1 and all(map(_SPEAKER.match, shown.split("\n"))):
        return text
    return " ".join(line.strip() for line in lines)


def _sentence(cues: Sequence[Cue]) -> Sequence[Cue]:
    """Return the first cues: those that hold the first sentence."""
    for count, cue in enumerate(cues[:MOST], 1):
        bare = cue.shown.strip()
        following = cues[count].shown.strip() if count < len(cues) else ""
        goes_on = following[:1].islower() and not _SPEAKER.match(following) and _may_join(cue, cues[count])
        if _END.search(bare) or not goes_on or _SPEAKER.match(bare):
            return cues[:count]
    return cues[:1]


def _may_join(cue: Cue, following: Cue) -> bool:
    """Return True if one voice says both, and no tag inside of them belongs to its cue."""
    one, other = framed(cue.text), framed(following.text)
    same = _VOICE.findall(one.before) == _VOICE.findall(other.before)
    return same and not _PLACED.search(one.text) and not _PLACED.search(other.text)


def framed(text: str) -> Framed:
    """Take off the tags around all of a cue: voices and positions, which nothing need close, and pairs of tags."""
    before, after = "", ""
    while tag := _OPENING.match(text):
        closing = _closing(tag[0])
        open_to_the_end = closing and text.endswith(closing) and tag[0] in _unclosed(text.removesuffix(closing))[:1]
        if open_to_the_end and not _unclosed(text):
            text, after = text.removesuffix(closing), closing + after
        elif closing and not _VOICE.match(tag[0]):
            break
        before, text = before + tag[0], text[tag.end() :]
    return Framed(before, text, after)


def _unclosed(text: str) -> list[str]:
    """Return the tags of a text that nothing in it closes."""
    opened: list[str] = []
    for tag in _TAG.findall(text):
        if tag.startswith("</"):
            at = next((i for i in reversed(range(len(opened))) if _closing(opened[i]) == tag), None)
            opened = opened if at is None else opened[:at]
        elif _closing(tag):
            opened.append(tag)
    return opened


def _closing(tag: str) -> str:
    """Return the tag that closes another; empty for one that nothing closes."""
    found = _OPENING.match(tag)
    return f"</{found['name']}>" if found and found["name"] else ""


def _closed(parts: Sequence[str], sources: Sequence[str]) -> list[str]:
    """Return the parts of a divided text with each tag closed that is open at a division, and opened again after it:
    unless the source has it open there as well."""
    done = list(parts)
    for number in range(1, len(parts)):
        tags = _unclosed("".join(parts[:number]))
        if tags != _unclosed("".join(sources[:number])):
            done[number - 1] += "".join(map(_closing, reversed(tags)))
            done[number] = "".join(tags) + done[number]
    return done


def divided(text: str, shares: Sequence[int]) -> tuple[list[range], list[str]]:
    """Divide a text among cues by their shares of the source, between words and outside of tags, best after a comma.

    Returns:
        Runs of cues, by number, and the part of the text for each. A run has more than one where there are fewer words
        than cues.
    """
    words = _words(text, len(shares))
    runs = _runs(shares, len(words))
    if len(runs) == 1:
        return runs, [text]
    ends, total, done = [0], sum(shares), 0
    length = sum(map(len, words))
    for number, run in enumerate(runs[:-1], 1):
        done += sum(shares[run.start : run.stop])
        wanted, most = length * done / total, len(words) - len(runs) + number
        ends.append(_best_break(words, wanted, range(ends[-1] + 1, most + 1)))
    return runs, ["".join(words[at:end]).strip(" \t\n") for at, end in itertools.pairwise([*ends, len(words)])]


def _words(text: str, wanted: int) -> list[str]:
    """Return the words of a text, each with the white space after it; a tag belongs to the word beside it.

    Letters of a script without spaces are words where there are fewer others than ``wanted``.
    """
    found = _WORD.findall(text)
    if len(found) < wanted and regex.search(SPACELESS, text):
        found = _LETTER.findall(text)
    words, tags = [], ""
    for word in found:
        tags += word
        if _TAG.sub("", tags).strip():
            words.append(tags)
            tags = ""
    return [*words[:-1], words[-1] + tags] if words else [text]


def _runs(shares: Sequence[int], most: int) -> list[range]:
    """Return the numbers of cues in ``most`` runs, or in fewer if there are fewer; those with little text are one."""
    runs = [range(number, number + 1) for number in range(len(shares))]
    while len(runs) > most:
        at = min(range(len(runs) - 1), key=lambda at: sum(shares[runs[at].start : runs[at + 1].stop]))
        runs[at : at + 2] = [range(runs[at].start, runs[at + 1].stop)]
    return runs


def _best_break(words: Sequence[str], wanted: float, ends: range) -> int:
    """Return the number of words whose length is nearest to ``wanted``; a mark at the end counts as nearer."""
    lengths = list(itertools.accumulate(map(len, words), initial=0))
    return min(ends, key=lambda end: abs(lengths[end] - wanted) - (6 if _MARK.search(words[end - 1].rstrip()) else 0))
