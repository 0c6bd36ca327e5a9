"""Translation jobs: texts are split into parts, searched in batches, and joined again in their order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from typing import NamedTuple

from torch import Tensor

from dragoman.decode.alignment import Aligner, Links
from dragoman.decode.arguments import check_kind
from dragoman.decode.calibration import NONE, Calibration
from dragoman.decode.constraints.builder import ConstraintBuilder
from dragoman.decode.constraints.constrained import STAGES
from dragoman.decode.constraints.first_token import FirstToken
from dragoman.decode.constraints.glossary import Glossary
from dragoman.decode.constraints.repetition import MinimumLength, RuleConfig
from dragoman.decode.constraints.utf8 import REPLACEMENT, Utf8Rule, Utf8Table, search_whole_characters
from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.request import Request, as_request
from dragoman.decode.search.batching import search_all
from dragoman.decode.search.minimum_risk import MinimumBayesRisk
from dragoman.decode.search.rule import Rule, SearchStart
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.search.strategy import Hypothesis
from dragoman.decode.search.task import Searcher, translation_task
from dragoman.decode.segmentation import TextSegment, glue_after, segment
from dragoman.decode.sentence_splitting import NO_SPLITTING, BySentences, NoSplitting
from dragoman.decode.translation import TRUNCATED, Candidate, PartAnswer, Translation, mean_probability
from dragoman.errors import ConfigError, DataError
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import KVPolicy
from dragoman.model.interface import SequenceModel
from dragoman.text.cleaning.clean import normalise
from dragoman.text.context import NO_CONTEXT, ReadContext
from dragoman.text.corpus import source_rows
from dragoman.text.invariants import is_wordless, keep_verbatim
from dragoman.text.lines import check_surrogates
from dragoman.text.retrieval import NO_MATCHER, NoMatcher
from dragoman.text.tokens.tokenizer import BOS, SOURCE_FRAME, Tokenizer

Progress = Callable[[int, int], None]
"""Called with the number done and the number in all."""
Candidates = tuple[Candidate, ...]
"""Distinct candidates for one text, best first."""

SEARCH_CHUNK = 4096
"""Most texts searched in one call: until it ends, every token emitted in any beam stays in memory."""


class Job:
    """The settings of a translation and its steps."""

    def __init__(
        self,
        model: SequenceModel,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        *,
        cfg: SearchConfig,
        rules: Sequence[RuleConfig] = (),
        glossary: Glossary | None = None,
        batch_tokens: int,
        longest: int,
        policy: KVPolicy = DEFAULT,
        calibration: Calibration = NONE,
        alignments: bool = False,
        context: ReadContext = NO_CONTEXT,
        splitter: NoSplitting | BySentences = NO_SPLITTING,
        matcher: NoMatcher = NO_MATCHER,
        searcher: Searcher = search_all,
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    ):
        self.model, self.source_tokenizer, self.target_tokenizer = model, source_tokenizer, target_tokenizer
        if glossary is not None:
            check_kind(glossary, "glossary", Glossary, what="a Glossary such as Glossary.read(PATH)")
        self.cfg, self.general, self.glossary, self.policy = cfg, rules, glossary, policy
        self.batch_tokens, self.longest, self.splitter, self.searcher = batch_tokens, longest, splitter, searcher
        self.device, self.calibration, self.context = model.device, calibration, context
        self.matcher = matcher
        sides = source_tokenizer, target_tokenizer
        self.aligner = Aligner(model, *sides, calibration.heads, turn=turn) if alignments else None

    def translate(
        self, given: Sequence[str | Request], first_row: int, progress: Progress | None = None
    ) -> list[Translation]:
        """Translate each text; rows are counted from ``first_row``.

        Raises:
            DataError: a text or its constraints cannot be used; the message names the row.
        """
        requests = list(map(as_request, given))
        parts = [self.parts(request, row) for row, request in enumerate(requests, first_row)]
        questions = [
            self.part_requests(request, segments, row)
            for row, (request, segments) in enumerate(zip(requests, parts, strict=True), first_row)
        ]
        distinct = list(dict.fromkeys(question for row in questions for question in row))  # repeats are searched once
        answers = dict(zip(distinct, self.translate_requests(distinct, progress), strict=True))
        return [
            self.assemble(row, request.text, segments, [answers[question] for question in asked])
            for row, (request, segments, asked) in enumerate(zip(requests, parts, questions, strict=True), first_row)
        ]

    def parts(self, request: Request, row: int) -> list[TextSegment]:
        """Return the segments of a text that are translated by themselves: one if it is short, none if it has no word.

        Raises:
            DataError: half of a surrogate pair.
        """
        said = request.text, request.prefix, *request.context, *request.forbidden, *chain(*request.required)
        for text in said:
            check_surrogates(text, f"row {row}")
        self.context.check(request.context)
        tidy = normalise(request.text)
        if not tidy or (self.is_unconstrained(request) and is_wordless(tidy)):
            return []
        fits, parts = partial(self.fits, len(request.tags)), list[TextSegment]()
        bound = request.prefix or request.prefix_ids or request.required  # any sentence could be the one that is meant
        for sentence in (NO_SPLITTING if bound else self.splitter).parts(tidy):
            segments = segment(sentence.text, fits)
            parts += [each._replace(split=len(segments) > 1) for each in segments]
            parts[-1] = parts[-1]._replace(glue=sentence.glue)
        return parts

    def is_unconstrained(self, request: Request) -> bool:
        """Return whether the translation has no prefix and no required term."""
        wanted = request.prefix or request.prefix_ids or request.required
        return not wanted and (self.glossary is None or not self.glossary.of(request.text)[0])

    def part_requests(self, request: Request, parts: list[TextSegment], row: int) -> list[Request]:
        """Return a request for each part of a text.

        The first part gets the prefix and the required terms of the text. Each further part gets the parts before it as
        its context.
        """
        found, before = list[Request](), list(request.context)
        for part in parts:
            context = self.context.select(before)
            plain = Request("", forbidden=request.forbidden, tags=request.tags) if found else request
            given = request.matches if len(parts) == 1 else ()  # those of a whole text are not like its parts
            if (part.text, context, given) != (plain.text, plain.context, plain.matches):
                plain = replace(plain, text=part.text, context=context, matches=given)
            found.append(self.with_terms(self.with_matches(plain), row))
            before = list(self.context.after(context, part.text))
        return found

    def with_matches(self, request: Request) -> Request:
        """Return the request with the matches that the memory has for its text, unless it has some."""
        if request.matches or not (found := self.matcher.find(request.text)):
            return request
        return replace(request, matches=self.matcher.shown(found))

    def with_terms(self, request: Request, row: int) -> Request:
        """Return the request with the glossary's terms for its text added.

        Raises:
            DataError: the constraints cannot be met; the message names the row.
        """
        if self.glossary is not None:
            required, forbidden = self.glossary.of(request.text)
            request = replace(request, required=request.required + required, forbidden=request.forbidden + forbidden)
        if not request.constrained:
            return request
        try:
            self.constraints.check(request, self.model.max_length)
        except ConfigError as error:
            raise DataError(f"row {row}: {error}") from None
        return request

    def fits(self, tags: int, text: str) -> bool:
        """Return whether a text with this many tags can be translated at once."""
        most = self.model.max_length
        if len(text) > self.longest or most is None:
            return len(text) <= self.longest
        return tags + len(self.source_tokenizer.encode(text)) + len(self.source_tokenizer.frame(SOURCE_FRAME)) <= most

    def translate_requests(self, requests: list[Request], progress: Progress | None) -> list[Candidates]:
        """Return the candidates of each request, in the order of the requests."""
        rows = source_rows(self.source_tokenizer, [request.pair for request in requests], self.model.max_length)
        found: list[Candidates] = [()] * len(rows)
        done = 0
        for batch, batch_tokens in self.batches(requests):

            def report(now: int, before: int = done) -> None:
                if progress:
                    progress(before + now, len(rows))

            sources = [rows[i] for i in batch]
            results = self.search(sources, [requests[i] for i in batch], batch_tokens, report)
            for i, candidates in zip(batch, self.with_alignments(sources, results), strict=True):
                found[i] = candidates
            done += len(batch)
        return found

    def search(
        self, rows: list[list[int]], requests: list[Request], batch_tokens: int, report: Callable[[int], None]
    ) -> list[Candidates]:
        """Search, again under the rule of ``utf8`` where a candidate is not valid UTF-8."""

        def search(numbers: Sequence[int], whole_characters: bool, report: Callable[[int], None]) -> list[Candidates]:
            inputs = [rows[i] for i in numbers], [requests[i] for i in numbers]
            return self.search_under_rules(*inputs, batch_tokens, whole_characters, report)

        return search_whole_characters(search, len(rows), _is_broken, draws=self.cfg.draws, progress=report)

    def search_under_rules(
        self,
        rows: list[list[int]],
        requests: list[Request],
        batch_tokens: int,
        whole_characters: bool,
        report: Callable[[int], None],
    ) -> list[Candidates]:
        """Search once, under all rules; ``whole_characters`` adds that of ``utf8``."""
        table = self.utf8 if whole_characters else None

        def make_search(numbers: Sequence[int], source: Tensor) -> tuple[SearchConfig, list[Rule]]:
            start = SearchStart(source.new_full((len(source), 1), BOS), source)
            cfg, rules = self.constraints.start([requests[i] for i in numbers], self.cfg, self.device)
            rules = [*(rule.start(start) for rule in self.general), *rules]
            return cfg, rules if table is None else [*rules, Utf8Rule(table, len(source), alone=not rules)]

        alone = bool(table or self.general) or any(request.constrained for request in requests)
        min_tokens = max((rule.tokens for rule in self.general if isinstance(rule, MinimumLength)), default=0)
        options = {"cfg": self.cfg, "kind": (tuple(self.general), whole_characters), "alone": alone}
        task = translation_task(self.model, rows, make_search, self.policy, min_tokens=min_tokens, **options)
        return self.to_candidates(self.searcher(task, batch_tokens, progress=report))

    def batches(self, requests: list[Request]) -> Iterator[tuple[list[int], int]]:
        """Yield the indices of requests that are searched in one call, and the source tokens of its batches.

        Requests in one call have constraints of the same kind. The number of required terms is equal, because the beam
        grows with it. Unconstrained requests, and those with a prefix alone, are searched by themselves.
        """
        kinds = [(bool(r.required or r.forbidden), len(r.required), bool(r.prefix or r.prefix_ids)) for r in requests]
        for kind in sorted(set(kinds)):
            members = [i for i in range(len(requests)) if kinds[i] == kind]
            batch_tokens = self.batch_tokens // (self.cfg.size * (STAGES * kind[1] + 1))
            for start in range(0, len(members), SEARCH_CHUNK):
                yield members[start : start + SEARCH_CHUNK], batch_tokens

    @cached_property
    def constraints(self) -> ConstraintBuilder:
        """Builder of the rules for prefixes and terms."""
        given = (rule.token for rule in self.general if isinstance(rule, FirstToken))
        first = next((token for token in given if token < len(self.target_tokenizer)), None)
        return ConstraintBuilder(SpelledVocabulary.of(self.target_tokenizer), first)

    @cached_property
    def utf8(self) -> Utf8Table | None:
        """Table of the UTF-8 rule; None where the vocabulary is not of bytes."""
        return Utf8Table.of(self.target_tokenizer, self.device)

    def to_candidates(self, results: list[list[Hypothesis]]) -> list[Candidates]:
        """Decode hypotheses into distinct candidate texts, best first."""
        hypotheses = [h for each in results for h in each]
        texts = iter(self.target_tokenizer.decode_batch([h.tokens[:-1] for h in hypotheses]))
        choose = self.cfg.ranked if isinstance(self.cfg, MinimumBayesRisk) else _distinct
        return [
            choose(
                Candidate(
                    *(normalise(next(texts)), h.score, h.log_prob, h.tokens, h.token_log_probs, h.truncated),
                    confidence=mean_probability(h.log_prob, len(h.tokens)),
                )
                for h in each
            )
            for each in results
        ]

    def with_alignments(self, sources: list[list[int]], found: list[Candidates]) -> list[Candidates]:
        """Return the candidates of each source with word alignments, where these are wanted."""
        if self.aligner is None:
            return found
        pairs = [(ids, c.tokens) for ids, candidates in zip(sources, found, strict=True) for c in candidates]
        links = iter(self.aligner.align(pairs))
        return [tuple(replace(c, alignment=next(links)) for c in candidates) for candidates in found]

    def assemble(self, row: int, source: str, parts: list[TextSegment], answers: list[Candidates]) -> Translation:
        """Join the answers to the parts of a text; a text without parts is its own translation."""
        if not parts:
            text = keep_verbatim(source) if source.strip() else ""
            return Translation(row, source, (Candidate(text, 0.0, 0.0, (), (), truncated=False, confidence=1.0),))
        warnings: list[str] = []
        if judge := self.calibration.confidence:
            answers = [tuple(judge.judged(p.text, c) for c in a) for p, a in zip(parts, answers, strict=True)]
        if any(part.split for part in parts):
            warnings.append(f"row {row}: too long to be translated at once: split into {len(parts)} parts")
        candidates = answers[0] if len(parts) == 1 else self.best_combinations(parts, answers)
        if candidates[0].truncated:
            warnings.append(f"row {row}: {TRUNCATED}")
        matches = tuple(match for part in parts for match in self.matcher.find(part.text))
        return Translation(row, source, candidates, tuple(warnings), candidates[0].estimated_confidence, matches)

    def best_combinations(self, parts: list[TextSegment], answers: list[Candidates]) -> Candidates:
        """Return the best combinations of the parts' candidates, at most ``nbest``; a beam over the parts."""
        prefixes = [_Chosen(c, None, c.score) for c in answers[0]]
        for candidates in answers[1:]:
            longer = [_Chosen(c, prefix, prefix.score + c.score) for prefix in prefixes for c in candidates]
            prefixes = sorted(longer, key=lambda prefix: -prefix.score)[: max(1, self.cfg.nbest)]
        return _distinct(self.concatenate(parts, prefix.candidates()) for prefix in prefixes)

    def concatenate(self, parts: list[TextSegment], best: list[Candidate]) -> Candidate:
        """Return one candidate made of the parts' candidates; its score is the mean of theirs."""
        text = "".join(c.text + glue_after(part, c.text) for part, c in zip(parts, best, strict=True))
        return Candidate(
            text=normalise(text),
            score=sum(c.score for c in best) / len(best),
            log_prob=sum(c.log_prob for c in best),
            tokens=tuple(chain.from_iterable(c.tokens for c in best)),
            token_log_probs=tuple(chain.from_iterable(c.token_log_probs for c in best)),
            truncated=any(c.truncated for c in best),
            confidence=min(c.estimated_confidence for c in best),
            alignment=_concatenated_links(parts, best) if self.aligner else None,
            parts=tuple(PartAnswer(part.text, c.text) for part, c in zip(parts, best, strict=True)),
        )


class _Chosen(NamedTuple):
    """Candidates of the first parts of a text: that of the last of them, and those before it."""

    last: Candidate
    before: "_Chosen | None"
    score: float
    """Sum of their scores."""

    def candidates(self) -> list[Candidate]:
        """Return the candidates in the order of the parts."""
        found, here = list[Candidate](), self
        while here is not None:
            found.append(here.last)
            here = here.before
        return found[::-1]


def _concatenated_links(parts: list[TextSegment], best: list[Candidate]) -> Links:
    """Return the links of the joined text: words are counted on from part to part.

    A word that the end of a part divides is counted once.
    """
    source = target = 0
    links: list[tuple[int, int]] = []
    for part, candidate in zip(parts, best, strict=True):
        links += [(s + source, t + target) for s, t in candidate.alignment or ()]
        source, target = source + len(part.text.split()), target + len(candidate.text.split())
        together = not glue_after(part, candidate.text)
        source, target = source - (not part.glue), target - (together and bool(candidate.text))
    return tuple(dict.fromkeys(links))


def _is_broken(candidates: Candidates) -> bool:
    """Return whether a candidate is not valid UTF-8."""
    return any(REPLACEMENT in candidate.text for candidate in candidates)


def _distinct(candidates: Iterable[Candidate]) -> Candidates:
    """Return the first candidate of each text: search may find one text in several tokenisations."""
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.text, candidate)
    return tuple(first.values())
