"""Translation of lines of text, with settings from which every process opens the same translator.

lines = LineSettings(run=Path("runs/de-en"), search=Greedy()).open()
for translation in lines.stream(["Guten Tag.", "Bis bald."]):
    print(translation.text)
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, tee
from pathlib import Path
from typing import Any

from dragoman.checkpoint import run_config
from dragoman.config import to_dict
from dragoman.decode.constraints.glossary import Glossary
from dragoman.decode.constraints.repetition import RuleConfig
from dragoman.decode.defaults import BEAM
from dragoman.decode.documents import placeholders
from dragoman.decode.documents.source_line import SourceQuestion
from dragoman.decode.knn import NearestNeighbours
from dragoman.decode.request import Request, as_request
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.sentence_splitting import Splitting
from dragoman.decode.translation import Candidate, Translation
from dragoman.decode.translator import Progress, Translator
from dragoman.model.caches.cache import parse_cache
from dragoman.model.caches.state import KVPolicy
from dragoman.text.cleaning.clean import normalise
from dragoman.text.context import ReadContext, SentencesBefore, context_of_run
from dragoman.text.document import Slot
from dragoman.text.fuzzy import FuzzyMatch
from dragoman.text.grouping import Grouping, in_groups
from dragoman.text.lines import PrecedingSentences
from dragoman.text.memory import TranslationMemory


@dataclass(frozen=True, kw_only=True)
class LineSettings:
    """Everything that the translation of a line depends on, except the line and those before it."""

    run: Path
    search: SearchConfig | None
    """None for the search that came with an imported model, or else a beam of 5."""
    checkpoint: str = "best"
    device: str = "auto"
    precision: str = "auto"
    beam: int = BEAM
    """Fewest candidates asked for where the best one has lost a placeholder; 5 at least."""
    rules: tuple[RuleConfig, ...] | None = None
    """None for the rules that came with an imported model."""
    cache: str | KVPolicy = "preallocated"
    glossary: Glossary | None = None
    tags: tuple[str, ...] = ()
    alignments: bool = False
    check_numbers: bool = True
    prefix_column: bool = False
    """Each line holds a text, a tab, and the beginning of its translation."""
    context: int | None = None
    memory: TranslationMemory | None = None
    """Asked before the model; its fuzzy matches are read by a run that has learnt it."""
    knn: NearestNeighbours | None = None
    """Datastore whose nearest states vote."""
    special_tokens: bool = False
    source_language: str | None = None
    target_language: str | None = None
    """The language to translate to, for an imported model that has several."""
    split_sentences: Splitting = "auto"

    def check(self) -> None:
        """Check what can be checked before a model is loaded.

        Raises:
            ConfigError: an unknown cache.
        """
        _policy(self.cache)

    def open(self) -> "LineTranslator":
        """Load the translator.

        Raises:
            CheckpointError, ConfigError: as ``Translator.load``; or a tag that the run does not know.
        """
        translator = Translator.load(
            self.run,
            checkpoint=self.checkpoint,
            device=self.device,
            precision=self.precision,
            context=self.context,
            split_sentences=self.split_sentences,
            source_language=self.source_language,
            target_language=self.target_language,
            special_tokens=self.special_tokens,
            memory=self.memory,
            knn=self.knn,
        )
        translator.check_tags(self.tags)
        return LineTranslator(self, translator)

    def lines_before(self) -> int:
        """Return how many lines before a line its translation may depend on.

        Raises:
            CheckpointError: no such run.
            ConfigError: more context than in training.
        """
        context = context_of_run(run_config(self.run)).limited(self.context)
        return context.sentences if isinstance(context, SentencesBefore) else 0

    def plain(self) -> dict[str, Any]:
        """Return the settings as plain data that are equal for equal translations; the run is left out."""
        kept = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del kept["run"], kept["checkpoint"], kept["memory"]
        if self.knn is None:
            del kept["knn"]
        memory = {} if self.memory is None else {"memory": _digest(list(self.memory.pairs()))}
        return to_dict(kept | {"glossary": _fingerprint(self.glossary)} | memory)


def _fingerprint(glossary: Glossary | None) -> str | None:
    if glossary is None:
        return None
    entries = [dataclasses.astuple(entry) for each in glossary.entries.values() for _, entry in each]
    return _digest((entries, glossary.forbidden))


def _digest(content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


class LineTranslator:
    """Translator that is asked line by line, as ``dragoman translate`` asks it."""

    def __init__(self, settings: LineSettings, translator: Translator):
        self.settings, self.translator = settings, translator
        self.cache = _policy(settings.cache)

    def stream(
        self,
        lines: Iterable[str],
        *,
        first_row: int = 1,
        before: PrecedingSentences = (),
        contexts: Sequence[PrecedingSentences] | None = None,
        grouping: Grouping = in_groups,
        progress: Progress | None = None,
    ) -> Iterator[Translation]:
        """Yield a translation of each line, as it comes.

        Args:
            first_row: number of the first line.
            before: the lines of the text that precede ``lines``, for a run that reads them.
            contexts: sentences that are read before each line; None for the lines before it.
            grouping: which lines are translated together.
            progress: called with the number of lines, or parts of long ones, that are done, and of all, of each group.

        Raises:
            DataError: a line that cannot be translated; the message names its row.
        """
        if self.settings.prefix_column:
            requests = islice(self._with_prefixes(chain(before, lines)), len(before), None)
            options = self._options() | {"grouping": grouping, "first_row": first_row}
            return self.translator.stream(requests, search=self.settings.search, **options)
        context = self.translator.context if contexts is None else _Given(contexts)
        return placeholders.stream(
            lines,
            lambda questions: self.ask(questions, progress),
            context=_Preceded(context, before) if before else context,  # pyright: ignore[reportArgumentType]
            require=self.ask_nbest,
            check_numbers=self.settings.check_numbers,
            glossary=self.settings.glossary,
            grouping=grouping,
            first_row=first_row,
        )

    def translate(self, texts: Sequence[str | Request]) -> list[Translation]:
        """Translate texts of one or several lines, each by itself.

        Placeholders survive in texts that are strings. A ``Request``, whose translation is constrained, goes to the
        model as it is.
        """
        options = {"check_numbers": self.settings.check_numbers, "glossary": self.settings.glossary}
        options |= {"context": self.translator.context, "require": self.ask_nbest}
        plain = [text for text in texts if isinstance(text, str)]
        bound = [text for text in texts if not isinstance(text, str)]
        answers = iter(placeholders.translate_texts(plain, self.ask, **options))
        answers_of_bound = iter(self.ask(bound) if bound else [])
        return [next(answers if isinstance(text, str) else answers_of_bound) for text in texts]

    def translate_slots(self, documents: Sequence[Sequence[Slot]]) -> list[Translation]:
        """Translate the slots of documents, whose codes survive; return the translations of all, in order."""
        slots = [slot for document in documents for slot in document]
        return placeholders.translate(
            [slot.text for slot in slots],
            self.ask,
            codes=[slot.codes for slot in slots],
            contexts=[before for document in documents for before in self.translator.context.of_entries(document)],
            require=self.ask_nbest,
            check_numbers=self.settings.check_numbers,
            glossary=self.settings.glossary,
        )

    def ask(self, questions: Sequence[SourceQuestion], progress: Progress | None = None) -> list[Translation]:
        """Translate texts, with the settings; a text that the memory has is not translated again."""
        remembered = {i: found for i, text in enumerate(questions) if (found := self._remembered(text)) is not None}
        rest = [text for i, text in enumerate(questions) if i not in remembered]
        answers = iter(self._ask(rest, self.settings.search, progress) if rest else [])
        return [remembered[i] if i in remembered else next(answers) for i in range(len(questions))]

    def _remembered(self, question: SourceQuestion) -> Translation | None:
        if self.settings.memory is None or not (question if isinstance(question, str) else question.text).strip():
            return None
        text = question if isinstance(question, str) else question.text
        if (found := self.settings.memory.find(text)) is None:
            return None
        candidate = Candidate(found, 0.0, 0.0, (), (), truncated=False)
        return Translation(1, text, (candidate,), matches=(FuzzyMatch(text, found, 1.0),))

    def ask_nbest(self, questions: Sequence[SourceQuestion], _: object = None) -> list[Translation]:
        """Return several candidates, for texts whose best one has lost a placeholder."""
        several = max(self.settings.beam, BEAM)
        return self._ask(questions, Beam(size=several, nbest=several))

    def _ask(
        self, questions: Sequence[SourceQuestion], search: SearchConfig | None, progress: Progress | None = None
    ) -> list[Translation]:
        requests = [as_request(question, tags=self.settings.tags) for question in questions]
        return self.translator.translate(requests, search=search, progress=progress, **self._options())

    def _options(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "rules": settings.rules,
            "cache": self.cache,
            "glossary": settings.glossary,
            "alignments": settings.alignments,
        }

    def _with_prefixes(self, lines: Iterable[str]) -> Iterator[Request]:
        texts, prefixes = tee(line.partition("\t")[::2] for line in lines)
        questions = self.translator.document(normalise(text) for text, _ in texts)
        for question, (_, prefix) in zip(questions, prefixes, strict=True):
            yield as_request(question, prefix=prefix, tags=self.settings.tags)


@dataclass(frozen=True)
class _Given:
    """Contexts of lines that do not follow one another."""

    contexts: Sequence[PrecedingSentences]

    def in_lines(self, lines: Iterable[str]) -> Iterator[tuple[str, PrecedingSentences]]:
        return zip(lines, self.contexts, strict=True)


@dataclass(frozen=True)
class _Preceded:
    """A context whose text has begun before: with ``before``, which is not translated again."""

    context: ReadContext | _Given
    before: PrecedingSentences

    def in_lines(self, lines: Iterable[str]) -> Iterator[tuple[str, PrecedingSentences]]:
        return islice(self.context.in_lines(chain(self.before, lines)), len(self.before), None)


def _policy(cache: str | KVPolicy) -> KVPolicy:
    return parse_cache(cache) if isinstance(cache, str) else cache
