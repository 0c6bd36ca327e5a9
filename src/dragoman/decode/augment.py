"""More pairs to train on, made by a model from text in one language.

Back-translation (Sennrich et al., arXiv:1511.06709): a model of the other direction translates text of the target
language, whose original becomes the target, so that what is learned to be written was written by people. Distillation
(Kim & Rush, arXiv:1606.07947, section 3.2): a large model translates sources, whose translations a smaller one learns.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from dragoman.checkpoint import checkpoint_at
from dragoman.config import to_dict
from dragoman.decode.constraints.repetition import RuleConfig
from dragoman.decode.documents import placeholders
from dragoman.decode.documents.icu import ICU_KEPT
from dragoman.decode.documents.source_line import UNTOUCHED, SourceQuestion
from dragoman.decode.job import Progress
from dragoman.decode.precision import resolve_auto
from dragoman.decode.request import as_request
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.sentence_splitting import BySentences
from dragoman.decode.translation import Translation
from dragoman.decode.translator import Translator
from dragoman.errors import DataError
from dragoman.text.cleaning.clean import normalise
from dragoman.text.context import NoContext, SentencesBefore
from dragoman.text.formats.kinds import read_plain_lines
from dragoman.text.formats.writing import check_output, write_pairs
from dragoman.text.lines import Pair, PrecedingSentences
from dragoman.text.unfinished import FinishedLine, UnfinishedFile, open_unfinished

LOT = 1024
"""Lines translated together: the most that an interruption costs."""

Making = Callable[[str, str], Pair]
"""Of an original and its translation."""
Lines = list[tuple[str, PrecedingSentences]]
"""Some lines of a text, with what the run reads of those before each."""
Translate = Callable[[Lines, Progress], list[Translation]]
"""As many translations as lines, in their order."""


def back_translated(original: str, translation: str) -> Pair:
    return Pair(translation, original)


def distilled(original: str, translation: str) -> Pair:
    return Pair(original, translation)


@dataclass
class Augmented:
    """What came of a text."""

    lines: int = 0
    pairs: int = 0
    empty: int = 0
    """Lines that say nothing."""
    refused: int = 0
    """Lines whose every translation was empty, was ended by force at the length limit, or lost a placeholder."""

    def count(self, made: FinishedLine) -> None:
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
    """How a run is asked; all that decides what comes of a text."""

    run: str | Path
    """A run directory, or one of its checkpoints."""
    making: Making
    search: SearchConfig
    """Of several answers each makes a pair."""
    rules: Sequence[RuleConfig] = ()
    tags: tuple[str, ...] = ()
    """Before each text, as in training."""
    which: str | int = "best"
    device: str = "auto"
    precision: str = "auto"

    def apply(
        self, text: str | Path, output: str | Path, *, progress: Progress = lambda done, total: None
    ) -> Augmented:
        """Translate each line of ``text``, and write the pairs to ``output`` once all are done.

        What is done is kept beside it (``text/unfinished.py``), ``LOT`` lines in memory: after a crash or an
        interruption the same call goes on there, and the outcome is the same to the byte.

        Args:
            text: a file of lines, plain, .gz or .zst.
            output: .tsv or .jsonl, or what else ``write_pairs`` takes.
            progress: called with the lines done and their number.

        Raises:
            DataError: text that is not text, has no lines, or has changed since its first ones were translated; or no
                pair came of it.
            ConfigError: an output that cannot be written to, or an unfinished one that was begun in another way; a tag,
                device or precision that there is not.
            CheckpointError: no such run or checkpoint, or a damaged one.
        """
        check_output(output)
        total = sum(1 for _ in read_plain_lines(text))  # and each of them can be read
        if not total:
            raise DataError(f"{text}: no lines in it")
        with open_unfinished(output) as kept:
            translate, context = self._ready(kept)
            for lines in _lots(text, kept, context):

                def tell(now: int, of: int, before: int = kept.lines, lot: int = len(lines)) -> None:
                    progress(before + lot * now // max(of, 1), total)

                answers = translate(lines, tell)
                kept.append([_made(line, answer) for (line, _), answer in zip(lines, answers, strict=True)])
                progress(kept.lines, total)
            done = self._finished(kept, output)
            kept.path.unlink()
        if not done.pairs:
            raise DataError(f"{text}: no pair came of it ({done}): see what dragoman translate makes of it")
        return done

    def _ready(self, kept: UnfinishedFile) -> tuple[Translate, NoContext | SentencesBefore]:
        """The translator and the context it reads, and ``kept`` taken up: what is chosen by the machine stays as it was
        first chosen."""
        before = kept.settings or {}
        wanted = {"device": self.device, "precision": self.precision}
        device, precision = resolve_auto(*(before.get(name, it) if it == "auto" else it for name, it in wanted.items()))
        checkpoint = checkpoint_at(self.run, self.which)
        translator = Translator.load(checkpoint.path, device=device, precision=precision)
        translator.check_tags(self.tags)
        splitter = translator.splitter
        kept.resume(
            {
                "pairs": self.making.__name__,
                "checkpoint": checkpoint.path.name,
                "weights": checkpoint.seal(),
                "search": to_dict(self.search),
                "rules": [to_dict(rule) for rule in self.rules],
                "tags": list(self.tags),
                "device": device,
                "precision": precision,
                **({"sentences": splitter.language} if isinstance(splitter, BySentences) else {}),
            },
            LOT,
        )

        def translate(lines: Lines, progress: Progress) -> list[Translation]:
            def ask(questions: list[SourceQuestion]) -> list[Translation]:
                asked = [as_request(question, tags=self.tags) for question in questions]
                return translator.translate(asked, search=self.search, rules=self.rules, progress=progress)

            texts, contexts = [text for text, _ in lines], [before for _, before in lines]
            options = {"contexts": contexts, "first_row": kept.lines + 1}
            return placeholders.translate(texts, ask, check_numbers=False, **options)  # for that is data clean numbers=

        return translate, translator.context

    def _finished(self, kept: UnfinishedFile, output: str | Path) -> Augmented:
        done = Augmented()

        def pairs() -> Iterator[Pair]:
            for made in kept:
                done.count(made)
                yield from (self.making(made.text, answer) for answer in made.answers)

        found = pairs()
        if (first := next(found, None)) is not None:
            write_pairs(chain([first], found), output)
        return done


def _lots(text: str | Path, kept: UnfinishedFile, context: NoContext | SentencesBefore) -> Iterator[Lines]:
    """The lines that are not done yet.

    Raises:
        DataError: those that are done are not those of the text.
    """
    lines = context.in_lines(map(normalise, read_plain_lines(text)))
    for row, made in enumerate(kept, 1):
        if next(lines, (None, ()))[0] != made.text:
            raise DataError(
                f"{text}:{row}: is not what it was when {kept.path} was begun: remove that file to begin anew"
            )
    while lot := list(islice(lines, LOT)):
        yield lot


def _made(line: str, translation: Translation) -> FinishedLine:
    if not line or any(w.endswith((UNTOUCHED, ICU_KEPT)) for w in translation.warnings):
        return FinishedLine(line, ())
    return FinishedLine(line, tuple(c.text for c in translation.candidates if c.text and not c.truncated))
