"""Translator: a list of texts in, as many translations out, in the same order."""

import copy
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, get_args

from dragoman.capabilities import TRANSLATES, check
from dragoman.checkpoint import load_writer, run_folder
from dragoman.decode.arguments import check_choice, check_count, check_items, check_iterable, check_list, check_pair
from dragoman.decode.brief import described
from dragoman.decode.calibration import NONE, Calibration
from dragoman.decode.constraints.first_token import FirstToken
from dragoman.decode.constraints.glossary import Glossary
from dragoman.decode.constraints.repetition import RuleConfig, check_rules
from dragoman.decode.defaults import BEAM
from dragoman.decode.generation_settings import NO_SETTINGS, GenerationSettings, read_generation_settings
from dragoman.decode.job import Job, Progress
from dragoman.decode.knn import NearestNeighbours, model_identity
from dragoman.decode.languages import NO_LANGUAGES, LanguageTokens, read_languages
from dragoman.decode.memory_vectors import load_matcher
from dragoman.decode.multiline import translate_lines
from dragoman.decode.precision import prepare_for_inference, prepare_with_states
from dragoman.decode.request import Request, as_requests
from dragoman.decode.scoring import ScoredPair, score_pairs
from dragoman.decode.search.batching import search_all
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import SearchConfig, check_search
from dragoman.decode.search.task import Searcher
from dragoman.decode.sentence_splitting import (
    LANGUAGE,
    NO_SPLITTING,
    BySentences,
    NoSplitting,
    SentenceCount,
    Splitting,
)
from dragoman.decode.translation import Candidate, Translation
from dragoman.errors import ConfigError
from dragoman.model.caches.cache import DEFAULT, parse_cache
from dragoman.model.caches.state import KVPolicy
from dragoman.model.interface import SequenceModel
from dragoman.text.context import NO_CONTEXT, ReadContext, context_of_run
from dragoman.text.grouping import Grouping, in_groups
from dragoman.text.lines import Pair, Sourced, check_surrogates
from dragoman.text.memory import TranslationMemory
from dragoman.text.retrieval import NO_MATCHER
from dragoman.text.tokens.tokenizer import Tokenizer

__all__ = ["Candidate", "Progress", "Request", "Translation", "Translator", "search_for_beam"]

LONGEST = 1000
"""Most characters of a text translated at once, where no run states how long its training texts were."""
BATCH_TOKENS = 8192
"""Source tokens translated at a time, padding included, times the hypotheses of each."""
CHUNK = 4096
"""Texts read at a time from a stream, and translated in batches of similar length."""

# ---- the translator --------------------------------------------------------------------------------


class Translator:
    """A trained model with its tokenizers."""

    def __init__(
        self,
        model: SequenceModel,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        longest: int = LONGEST,
        context: ReadContext = NO_CONTEXT,
    ):
        """
        Args:
            longest: most characters of a text translated at once; a longer one is translated in parts.
            context: how much of a document the model reads before each text.
        """
        self.model, self.longest, self.context = model, longest, context
        self.source_tokenizer, self.target_tokenizer = source_tokenizer, target_tokenizer
        self.calibration = NONE
        self.defaults: GenerationSettings = NO_SETTINGS
        """Settings that hold where none are chosen: those that came with an imported model."""
        self.languages: LanguageTokens = NO_LANGUAGES
        """Languages that the model chooses between by a token."""
        self.first: FirstToken | None = None
        """First token of every translation: the language that is translated to; None for that of ``defaults``."""
        self.splitter: NoSplitting | BySentences = NO_SPLITTING
        """Splits a text into the sentences that are translated by themselves."""
        self.matcher = NO_MATCHER
        """Finds matches of a translation memory for each text."""
        self.searcher: Searcher = search_all
        """Decides which sentences are searched together."""
        self.turn: Callable[[], AbstractContextManager[object]] = nullcontext
        """Entered around every other computation of the model."""

    def __repr__(self) -> str:
        return described(self, self.model, {"vocabulary": len(self.target_tokenizer)})

    @classmethod
    def load(
        cls,
        run: str | Path,
        checkpoint: str | int = "best",
        *,
        device: str = "auto",
        precision: str = "auto",
        context: int | None = None,
        split_sentences: Splitting = "auto",
        source_language: str | None = None,
        target_language: str | None = None,
        special_tokens: bool = False,
        memory: TranslationMemory | None = None,
        knn: NearestNeighbours | None = None,
    ) -> "Translator":
        """Load the translator of a run.

        Args:
            run: a run directory, or one of its checkpoints.
            checkpoint: ``best``, ``last``, a step number, or the name of a checkpoint.
            device: as torch names it; ``auto`` is the GPU if there is one.
            precision: ``float32``, ``bfloat16``, ``int8`` or ``auto``; see ``decode/precision.py``.
            context: most sentences that are read before each text; None for as many as in training.
            split_sentences: ``on`` translates each sentence of a text by itself; ``auto`` does so where four of five
                training texts or more were a single sentence.
            source_language: a code such as de, which selects the abbreviations that end no sentence; None for
                ``data.cleaning.source_language``. An imported model for many languages reads its sources as this one.
            target_language: the language that an imported model for many languages translates to; others ignore it.
            special_tokens: read the spelling of a special token in a text as this token.
            knn: a datastore whose nearest states vote on each token; see ``decode/knn.py``.
            memory: its fuzzy matches are read with each text, by a run that has learnt it (``data.retrieval``).

        Raises:
            CheckpointError: no such run or checkpoint, a damaged one, or one whose model is no translator.
            ConfigError: no such device, precision or ``split_sentences``, more context than in training, or a language
                that the model does not have.
        """
        check_choice(split_sentences, "split_sentences", get_args(Splitting))
        model, source_tokenizer, target_tokenizer, config = load_writer(run, checkpoint)
        check(run, model, TRANSLATES)
        if special_tokens:
            source_tokenizer = source_tokenizer.with_special_tokens()
        before = context_of_run(config).limited(context)
        cleaning = (config.get("data") or {}).get("cleaning") or {}
        longest = cleaning.get("max_characters", LONGEST) or sys.maxsize
        if knn is None:
            prepared = prepare_for_inference(model, device, precision)
        else:
            identity = model_identity(model)  # before it is laid out
            read = {"tags": source_tokenizer.tags, "context": before.marks if context != 0 else ()}
            in_front = [what for what, marks in read.items() if marks]
            prepared = knn.attach(prepare_with_states(model, device, precision), identity, str(run), in_front)
        translator = cls(prepared, source_tokenizer, target_tokenizer, longest, before)
        translator.follow_import(run, source_language, target_language)
        translator.matcher = load_matcher(run, config, memory, device)
        translator.calibration = Calibration.read(run_folder(run))
        language = source_language or cleaning.get("source_language")
        if split_sentences == "on" or (
            split_sentences == "auto" and SentenceCount.read(run_folder(run) / "data", language).mostly_single
        ):
            translator.splitter = BySentences(language or LANGUAGE)
        return translator

    def follow_import(
        self, run: str | Path, source_language: str | None = None, target_language: str | None = None
    ) -> None:
        """Translate as the folder says that a run was imported from, between the languages that are chosen.

        Raises:
            CheckpointError: settings of generation that cannot be read.
            ConfigError: a language that the model does not have.
        """
        self.languages = read_languages(run, self.source_tokenizer)
        self.source_tokenizer = self.languages.framed(self.source_tokenizer, source_language, target_language)
        self.defaults = read_generation_settings(run, self.target_tokenizer, translates=True).without_limit()
        self.first = self.languages.first(self.target_tokenizer, target_language)

    def using(self, searcher: Searcher, turn: Callable[[], AbstractContextManager[object]]) -> "Translator":
        """Return a translator with the same model that others use as well: ``searcher`` decides which sentences are
        searched together, and ``turn`` is entered around every other computation."""
        other = copy.copy(self)
        other.searcher, other.turn = searcher, turn
        return other

    def check_tags(self, tags: Iterable[str]) -> None:
        """Check that the model knows these tags.

        Raises:
            ConfigError: a tag that no source of the run's training text had; the message lists the known ones.
            TypeError: no list of tags.
        """
        for tag in check_items(tags, "tags"):
            self.source_tokenizer.tag(tag)

    def document(self, lines: Iterable[str]) -> Iterator[Request]:
        """Yield each line of a document as a request, with as many lines before it as the run has learnt to read.

        A blank line ends a document.
        """
        return (Request(line, context=before) for line, before in self.context.in_lines(lines))

    def translate(
        self,
        texts: Sequence[str | Request],
        *,
        beam: int | None = None,
        nbest: int = 1,
        search: SearchConfig | None = None,
        rules: Sequence[RuleConfig] | None = None,
        glossary: Glossary | None = None,
        alignments: bool = False,
        batch_tokens: int = BATCH_TOKENS,
        longest: int | None = None,
        cache: str | KVPolicy = DEFAULT,
        progress: Progress | None = None,
    ) -> list[Translation]:
        """Translate each text; return as many translations as texts, in their order.

        Each line of a text is translated by itself, and its line ends are kept. Other white space and control
        characters count as one space, as in training; a blank line has the translation "". A line without a word, such
        as 12:30, is its own translation. A line that is too long is translated in parts, with a note in its
        ``warnings``. ``load`` decides whether the sentences of a line are translated one by one. No text influences
        another. A ``Request`` passes on the sentences that stand before a text; ``document`` makes requests of the
        lines of a document.

        Args:
            texts: sentences or longer texts; a ``Request`` adds constraints.
            beam: hypotheses kept; 1 is greedy search. By default 5, or the search that came with an imported model.
            nbest: candidates of each translation; the beam is at least as large.
            search: a complete search configuration, instead of ``beam``. Samples depend on its seed and on the text
                alone, not on row or batch: for other samples of a text ask for more of them, or change the seed.
            rules: constraints on the tokens, in any search. By default those that came with an imported model.
            glossary: terms that translations must contain, and terms that they must not.
            alignments: link the words of each candidate to those of its source.
            batch_tokens: source tokens translated at a time, padding included, times the hypotheses of each.
            longest: most characters of a text translated at once; None for the longest training text. A limit of the
                model itself also holds.
            cache: what attention layers cache of the past, and how; a text such as "paged:16+int8" is read by
                ``model.caches.cache.parse_cache``.
            progress: called with the number of distinct texts, or parts of long ones, that are done, and of all.

        Raises:
            DataError: half of a surrogate pair in a text, which no tokenizer can take, a prefix or a term that the
                vocabulary cannot express, or constraints that contradict each other; the message names the row.
            ConfigError: an unknown cache, one that does not fit the model, or a tag that the run has not learnt.
            CheckpointError: the model's output is NaN or infinite.
            TypeError: ``texts`` is no list, an entry neither a string nor a ``Request``, a count no whole number, or a
                search, a rule or a glossary that is none.
        """
        requests = as_requests(texts)
        options = {"glossary": glossary, "alignments": alignments, "batch_tokens": batch_tokens}
        job = self._job(self.search_of(search, beam, nbest), rules, cache, longest, **options)
        return translate_lines(requests, 1, job, progress)

    def stream(
        self,
        texts: Iterable[str | Request],
        *,
        beam: int | None = None,
        nbest: int = 1,
        search: SearchConfig | None = None,
        rules: Sequence[RuleConfig] | None = None,
        glossary: Glossary | None = None,
        alignments: bool = False,
        batch_tokens: int = BATCH_TOKENS,
        longest: int | None = None,
        cache: str | KVPolicy = DEFAULT,
        chunk: int = CHUNK,
        grouping: Grouping = in_groups,
        first_row: int = 1,
    ) -> Iterator[Translation]:
        """Translate texts from an iterable that may never end; the arguments are those of ``translate``.

        Reads ``chunk`` texts, or the groups that ``grouping`` makes of as many, yields their translations, and goes on.
        Rows are counted from ``first_row``.
        """
        chunk = check_count(chunk, "chunk")
        options = {"glossary": glossary, "alignments": alignments, "batch_tokens": batch_tokens}
        job = self._job(self.search_of(search, beam, nbest), rules, cache, longest, **options)
        row = first_row
        for group in grouping(iter(check_iterable(texts, "texts", what="strings or requests")), chunk):
            yield from translate_lines(as_requests(group), row, job)
            row += len(group)

    def translate_ids(self, source: Sequence[int], beam: int | None = None) -> Candidate:
        """Return the best translation of one source in ids, as ``translate`` searches for that of a whole text."""
        job = self._job(self.search_of(None, beam), None, DEFAULT, None, BATCH_TOKENS)
        return job.search([list(source)], [Request("")], BATCH_TOKENS, lambda done: None)[0][0]

    def search_of(self, search: SearchConfig | None, beam: int | None, nbest: int = 1) -> SearchConfig:
        """Return the search that is chosen, or else the one that came with an imported model, or else a beam of 5.

        Args:
            search, beam, nbest: as for ``translate``.

        Raises:
            ConfigError: both a search and a beam; one below 1; or ``nbest`` is not that of the search.
            TypeError: ``beam`` or ``nbest`` is no whole number, or ``search`` no search.
        """
        beam, nbest = None if beam is None else check_count(beam, "beam"), check_count(nbest, "nbest")
        search = None if search is None else check_search(search)
        if search is not None and beam is not None:
            raise ConfigError("beam: search is given, which says its own: leave one of them out")
        if search is None and beam is None and nbest == 1 and self.defaults.search is not None:
            return self.defaults.search
        return _search_of(search, BEAM if beam is None else beam, nbest)

    def rules_of(self, rules: Sequence[RuleConfig] | None = None) -> list[RuleConfig]:
        """Return the rules of a translation: those that are asked for, or else those that came with an imported model.

        The first token is the one that is asked for, or else that of the language, or else the model's own.
        """
        chosen = self.defaults.rules if rules is None else check_rules(rules)
        asked = next((rule for rule in (() if rules is None else chosen) if isinstance(rule, FirstToken)), None)
        first = asked or self.first or self.defaults.first_token
        others: list[RuleConfig] = [rule for rule in chosen if not isinstance(rule, FirstToken)]
        return others if first is None else [*others, first]

    def _job(
        self,
        cfg: SearchConfig,
        rules: Sequence[RuleConfig] | None,
        cache: str | KVPolicy,
        longest: int | None,
        batch_tokens: int,
        **options,
    ) -> Job:
        sides = self.source_tokenizer, self.target_tokenizer
        policy = parse_cache(cache) if isinstance(cache, str) else cache
        most = self.longest if longest is None else check_count(longest, "longest")
        options |= {
            "batch_tokens": check_count(batch_tokens, "batch_tokens"),
            "rules": self.rules_of(rules),
            "calibration": self.calibration,
            "context": self.context,
            "splitter": self.splitter,
            "matcher": self.matcher,
            "searcher": self.searcher,
            "turn": self.turn,
        }
        return Job(self.model, *sides, cfg=cfg, policy=policy, longest=most, **options)

    def score(
        self,
        pairs: Sequence[Pair | Sourced | tuple[str, str]],
        *,
        batch_tokens: int = BATCH_TOKENS,
        progress: Progress | None = None,
    ) -> list[ScoredPair]:
        """Score each target as the translation of its source; return the scores in the order of ``pairs``.

        Both sides are normalised as texts are before they are translated, and tokenized as in training. A translation
        that a beam found gets the same log-probability here, if it has the same tokens. Where every translation begins
        with a given token, such as that of its language, the model reads it before the target, and it has no
        log-probability.

        Args:
            pairs: source and target of each, for example as tuples; a ``Sourced`` one may have tags and context.
            batch_tokens: tokens of both sides read at a time, padding included.
            progress: called with the pairs done and their number.

        Raises:
            DataError: a pair with a side that is longer than the model can take, or half of a surrogate pair; the
                message names the row.
            CheckpointError: the model's output is NaN or infinite.
            TypeError: ``pairs`` is no list, or an entry is no pair of strings.
        """
        given = check_list(pairs, "pairs", what="pairs of strings")
        read = [self._read(check_pair(pair, "pairs", number), f"row {number}") for number, pair in enumerate(given, 1)]
        sides = self.source_tokenizer, self.target_tokenizer
        with self.turn():
            options = {"batch_tokens": batch_tokens, "progress": progress}
            return score_pairs(self.model, *sides, read, self.first or self.defaults.first_token, **options)

    def _read(self, pair: Any, where: str) -> Pair | Sourced:
        for text in (*pair[:2], *(pair.context if isinstance(pair, Sourced) else ())):
            check_surrogates(text, where)
        if not isinstance(pair, Sourced):
            return Pair(*pair[:2])
        self.context.check(pair.context)
        return pair._replace(context=self.context.select(pair.context))


def _search_of(search: SearchConfig | None, beam: int, nbest: int) -> SearchConfig:
    if search is None:
        return search_for_beam(beam) if nbest == 1 else Beam(size=max(beam, nbest), nbest=nbest)
    if nbest not in (1, search.nbest):
        raise ConfigError(f"nbest: {nbest} candidates are wanted, and the search returns {search.nbest}: set it there")
    return search


def search_for_beam(beam: int) -> SearchConfig:
    """Return the search for a beam of this size: greedy search for 1."""
    return Greedy() if beam == 1 else Beam(size=beam)
