"""Synthetic training pairs, made by a model from text in one language.

Back-translation (Sennrich et al., arXiv:1511.06709): a model of the other direction translates text in the target
language. The original becomes the target, so that the text to be learnt was written by people. Distillation (Kim &
Rush, arXiv:1606.07947, section 3.2): a large model translates sources, and a smaller one learns the translations.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from dragoman.checkpoint import checkpoint_at
from dragoman.config import to_dict
from dragoman.decode.constraints.repetition import RuleConfig
from dragoman.decode.documents import placeholders
from dragoman.decode.documents.source_line import LEFT_ALONE, SourceQuestion
from dragoman.decode.job import Progress
from dragoman.decode.precision import resolve_auto
from dragoman.decode.request import as_request
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.sentence_splitting import BySentences
from dragoman.decode.translation import Translation
from dragoman.decode.translator import Translator
from dragoman.errors import DataError
from dragoman.text.cleaning.clean import normalise
from dragoman.text.context import ReadContext
from dragoman.text.formats.kinds import read_plain_lines
from dragoman.text.formats.writing import check_output, write_pairs
from dragoman.text.lines import Pair, PrecedingSentences
from dragoman.text.unfinished import FinishedLine, UnfinishedFile, open_unfinished

CHUNK = 1024
"""Lines translated together: the most that an interruption loses."""

Making = Callable[[str, str], Pair]
"""Makes a pair from an original and its translation."""
Lines = list[tuple[str, PrecedingSentences]]
"""Lines of a text, each with the context that the run reads before it."""
Translate = Callable[[Lines, Progress], list[Translation]]
"""Returns as many translations as lines, in their order."""


def back_translated(original: str, translation: str) -> Pair:
    """Return the pair that back-translation learns from."""
    return Pair(translation, original)


def distilled(original: str, translation: str) -> Pair:
    """Return the pair that distillation learns from."""
    return Pair(original, translation)


@dataclass
class Augmented:
    """Counts of the lines of a text and of the pairs made from them."""

    lines: int = 0
    pairs: int = 0
    empty: int = 0
    """Number of blank lines."""
    refused: int = 0
    """Number of lines whose every translation was empty, hit the length limit, or lost a placeholder."""

    def count(self, made: FinishedLine) -> None:
        """Add one line."""
        self.lines += 1
        self.pairs += len(made.answers)
        self.empty += not made.text
        self.refused += bool(made.text) and not made.answers

    def __str__(self) -> str:
        return (
            f"{self.pairs:,} pairs from {self.lines:,} lines; left out: {self.empty:,} empty, {self.refused:,} without "
            "a translation to learn from"
        )


@dataclass(frozen=True)
class Augmentation:
    """The settings that decide which pairs are made from a text."""

    run: str | Path
    """Run directory, or one of its checkpoints."""
    making: Making
    search: SearchConfig | None = None
    """Search for translations, by default as ``Translator.translate`` has it; each of several candidates makes a
    pair."""
    rules: Sequence[RuleConfig] | None = None
    """Constraints on the translations; by default those that came with an imported model."""
    tags: tuple[str, ...] = ()
    """Tags before each text, as in training."""
    checkpoint: str | int = "best"
    device: str = "auto"
    precision: str = "auto"
    source_language: str | None = None
    target_language: str | None = None
    """Languages of an imported model for many."""

    def apply(
        self, text: str | Path, output: str | Path, *, progress: Progress = lambda done, total: None
    ) -> Augmented:
        """Translate each line of ``text``, and write the pairs to ``output`` once all are done.

        Progress is stored beside the output (``text/unfinished.py``), ``CHUNK`` lines at a time. After a crash or an
        interruption the same call continues there, and the result is the same to the byte.

        Args:
            text: a file of lines, plain, .gz or .zst.
            output: .tsv or .jsonl, or another format that ``write_pairs`` takes.
            progress: called with the lines done and their number.

        Raises:
            DataError: a file that is no text, has no lines, or has changed since its first lines were translated; or
                no pair resulted.
            ConfigError: an output that cannot be written to, or an unfinished one that was started with other
                settings; an unknown tag, language, device or precision.
            CheckpointError: no such run or checkpoint, or a damaged one.
        """
        check_output(output)
        total = sum(1 for _ in read_plain_lines(text))  # also checks that each line can be read
        if not total:
            raise DataError(f"{text}: no lines in it")
        with open_unfinished(output) as store:
            translate, context = self._ready(store)
            for lines in _chunks(text, store, context):

                def report(now: int, of: int, before: int = store.lines, chunk: int = len(lines)) -> None:
                    progress(before + chunk * now // max(of, 1), total)

                answers = translate(lines, report)
                store.append([_finished_line(line, answer) for (line, _), answer in zip(lines, answers, strict=True)])
                progress(store.lines, total)
            done = self._finished(store, output)
            store.path.unlink()
        if not done.pairs:
            raise DataError(f"{text}: no pair came of it ({done}): see what dragoman translate makes of it")
        return done

    def _ready(self, store: UnfinishedFile) -> tuple[Translate, ReadContext]:
        """Open ``store``, and return the translator and the context it reads.

        Settings that were ``auto`` keep the values first chosen, so that a resumed file is the same.
        """
        before = store.settings or {}
        wanted = {"device": self.device, "precision": self.precision}
        device, precision = resolve_auto(*(before.get(name, it) if it == "auto" else it for name, it in wanted.items()))
        found = checkpoint_at(self.run, self.checkpoint)
        languages: dict[str, Any] = {"source_language": self.source_language, "target_language": self.target_language}
        translator = Translator.load(found.path, device=device, precision=precision, **languages)
        translator.languages.check(self.source_language, self.target_language)
        translator.check_tags(self.tags)
        splitter = translator.splitter
        search, rules = translator.search_of(self.search, None), translator.rules_of(self.rules)
        store.resume(
            {
                "pairs": self.making.__name__,
                "checkpoint": found.path.name,
                "weights": found.seal(),
                "search": to_dict(search),
                "rules": [to_dict(rule) for rule in rules],
                "tags": list(self.tags),
                "device": device,
                "precision": precision,
                **({"sentences": splitter.language} if isinstance(splitter, BySentences) else {}),
                **{name: language for name, language in languages.items() if language is not None},
            },
            CHUNK,
        )

        def translate(lines: Lines, progress: Progress) -> list[Translation]:
            def ask(questions: list[SourceQuestion]) -> list[Translation]:
                requests = [as_request(question, tags=self.tags) for question in questions]
                return translator.translate(requests, search=search, rules=rules, progress=progress)

            texts, contexts = [text for text, _ in lines], [before for _, before in lines]
            options = {"contexts": contexts, "first_row": store.lines + 1}
            return placeholders.translate(texts, ask, check_numbers=False, **options)  # for that is data clean numbers=

        return translate, translator.context

    def _finished(self, store: UnfinishedFile, output: str | Path) -> Augmented:
        done = Augmented()

        def pairs() -> Iterator[Pair]:
            for made in store:
                done.count(made)
                yield from (self.making(made.text, answer) for answer in made.answers)

        found = pairs()
        if (first := next(found, None)) is not None:
            write_pairs(chain([first], found), output)
        return done


def _chunks(text: str | Path, store: UnfinishedFile, context: ReadContext) -> Iterator[Lines]:
    """Yield the lines that are not done yet, a chunk at a time.

    Raises:
        DataError: the finished lines are not those of the text.
    """
    lines = context.in_lines(map(normalise, read_plain_lines(text)))
    for row, made in enumerate(store, 1):
        if next(lines, (None, ()))[0] != made.text:
            raise DataError(
                f"{text}:{row}: is not what it was when {store.path} was begun: remove that file to start again"
            )
    while chunk := list(islice(lines, CHUNK)):
        yield chunk


def _finished_line(line: str, translation: Translation) -> FinishedLine:
    if not line or any(w.endswith(LEFT_ALONE) for w in translation.warnings):
        return FinishedLine(line, ())
    return FinishedLine(line, tuple(c.text for c in translation.candidates if c.text and not c.truncated))
