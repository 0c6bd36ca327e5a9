"""Texts of several lines: each line is translated by itself, and the line ends between them are kept."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

from dragoman.decode.job import Job, Progress
from dragoman.decode.request import Request
from dragoman.decode.translation import Candidate, Translation
from dragoman.errors import DataError

LINE_END = re.compile(r"\r\n|\n|\r")
_ROW = re.compile(r"^row (\d+)")


def translate_lines(
    requests: Sequence[Request], first_row: int, job: Job, progress: Progress | None = None
) -> list[Translation]:
    """Translate each line of each text.

    The first line that is not blank gets the request's prefix and required terms. Each line has those before it as its
    context.
    """
    ends = [LINE_END.findall(request.text) for request in requests]
    if not any(ends):
        return job.translate(requests, first_row, progress)
    lines = [_lines_of(each, job) if found else [each] for each, found in zip(requests, ends, strict=True)]
    rows = [row for row, group in enumerate(lines, first_row) for _ in group]
    try:
        answers = iter(job.translate([line for group in lines for line in group], 1, progress))
    except DataError as error:
        raise DataError(_ROW.sub(lambda found: f"row {rows[int(found[1]) - 1]}", str(error))) from None
    found = []
    for row, (request, group, between) in enumerate(zip(requests, lines, ends, strict=True), first_row):
        found.append(joined_lines(row, request.text, [next(answers) for _ in group], between))
    return found


def joined_lines(row: int, text: str, answers: list[Translation], ends: list[str]) -> Translation:
    """Return the translation of a text, given those of its lines and the line ends between them."""
    warnings = dict.fromkeys(_ROW.sub(f"row {row}", warning) for answer in answers for warning in answer.warnings)
    candidates = (_joined(text, answers, ends),) if ends else answers[0].candidates
    matches = tuple(match for answer in answers for match in answer.matches)
    return Translation(row, text, candidates, tuple(warnings), min(answer.confidence for answer in answers), matches)


def _lines_of(request: Request, job: Job) -> list[Request]:
    found, before, started = list[Request](), list(request.context), False
    for text in LINE_END.split(request.text):
        if not text.strip():
            found.append(Request(""))
        elif not started:
            found.append(replace(request, text=text))
            started = True
        else:
            context = job.context.select(before)
            found.append(Request(text, forbidden=request.forbidden, tags=request.tags, context=context))
        before.append(text)
    return found


def _joined(source: str, answers: list[Translation], ends: list[str]) -> Candidate:
    """Return one candidate for all lines; its score is the mean of those of the lines that the model translated."""
    best = [answer.candidates[0] for answer in answers]
    scores = [c.score for c in best if c.tokens]
    return Candidate(
        text="".join(part for c, end in zip(best, [*ends, ""], strict=True) for part in (c.text, end)),
        score=sum(scores) / max(1, len(scores)),
        log_prob=sum((c.log_prob for c in best), 0.0),
        tokens=tuple(chain.from_iterable(c.tokens for c in best)),
        token_log_probs=tuple(chain.from_iterable(c.token_log_probs for c in best)),
        truncated=any(c.truncated for c in best),
        alignment=_alignment(source, best),
        confidence=min(answer.confidence for answer in answers),
        parts=tuple(part for answer in answers for part in answer.candidates[0].answers(answer.source)),
    )


def _alignment(source: str, best: Iterable[Candidate]) -> tuple[tuple[int, int], ...] | None:
    """Join the alignments of all lines, counting words from line to line; None where no line has been aligned."""
    words, written, links, any_aligned = 0, 0, list[tuple[int, int]](), False
    for line, candidate in zip(LINE_END.split(source), best, strict=True):
        any_aligned |= candidate.alignment is not None
        links += [(s + words, t + written) for s, t in candidate.alignment or ()]
        words, written = words + len(line.split()), written + len(candidate.text.split())
    return tuple(links) if any_aligned else None
