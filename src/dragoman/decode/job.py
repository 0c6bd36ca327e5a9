"""From texts to translations: cut into parts, in batches of like length, and joined again in their order."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

from torch import Tensor

from dragoman.decode.alignment import Aligner, Links
from dragoman.decode.calibration import NONE, Calibration
from dragoman.decode.constraints.builder import ConstraintBuilder
from dragoman.decode.constraints.constrained import STAGES
from dragoman.decode.constraints.glossary import Glossary
from dragoman.decode.constraints.repetition import RuleConfig
from dragoman.decode.constraints.utf8 import REPLACEMENT, Utf8Rule, Utf8Table
from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.request import Request, as_request
from dragoman.decode.search.batching import search_all
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.diverse import DiverseBeam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.minimum_risk import MinimumBayesRisk
from dragoman.decode.search.rule import Rule, SearchStart
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.search.strategy import Hypothesis
from dragoman.decode.segmentation import TextSegment, glue_after, segment
from dragoman.decode.sentence_splitting import NO_SPLITTING, BySentences, NoSplitting
from dragoman.decode.translation import TRUNCATED, Candidate, PartAnswer, Translation
from dragoman.errors import ConfigError, DataError
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import KVPolicy
from dragoman.model.interface import SequenceModel
from dragoman.text.cleaning.clean import normalise
from dragoman.text.context import NO_CONTEXT, NoContext, SentencesBefore
from dragoman.text.corpus import source_rows
from dragoman.text.invariants import is_wordless, keep_verbatim
from dragoman.text.tokens.tokenizer import BOS, SOURCE_FRAME, Tokenizer

Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do."""

LOT = 4096
"""Texts searched in one go: until its end, all that was said in any beam is kept."""


class Job:
    """How to translate; and the steps of doing so."""

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
        context: NoContext | SentencesBefore = NO_CONTEXT,
        splitter: NoSplitting | BySentences = NO_SPLITTING,
    ):
        self.model, self.source_tokenizer, self.target_tokenizer = model, source_tokenizer, target_tokenizer
        self.cfg, self.general, self.glossary, self.policy = cfg, rules, glossary, policy
        self.batch_tokens, self.longest, self.splitter = batch_tokens, longest, splitter
        self.device, self.calibration, self.context = model.device, calibration, context
        sides = source_tokenizer, target_tokenizer
        self.aligner = Aligner(model, *sides, calibration.heads) if alignments else None

    def translate(
        self, given: Sequence[str | Request], first_row: int, progress: Progress | None = None
    ) -> list[Translation]:
        requests = list(map(as_request, given))
        parts = [self.parts(request, row) for row, request in enumerate(requests, first_row)]
        asked = [
            self.asked(request, some, row)
            for row, (request, some) in enumerate(zip(requests, parts, strict=True), first_row)
        ]
        distinct = list(dict.fromkeys(request for some in asked for request in some))  # what recurs is done once
        answers = dict(zip(distinct, self.answers(distinct, progress), strict=True))
        return [
            self.joined(row, request.text, some, [answers[one] for one in wanted])
            for row, (request, some, wanted) in enumerate(zip(requests, parts, asked, strict=True), first_row)
        ]

    def parts(self, request: Request, row: int) -> list[TextSegment]:
        """What is translated of a text: all of it at once, if it is not too long; nothing, if it has no word."""
        for text in (*request.context, request.text):
            if half := _SURROGATE.search(text):
                raise DataError(
                    f"row {row}: character {half.start() + 1} is \\u{ord(half[0]):04x}, half of a surrogate pair: "
                    "read the text as UTF-8 (or UTF-16), without the error handler 'surrogateescape'"
                )
        self.context.check(request.context)
        tidy = normalise(request.text)
        if not tidy or (self.is_free(request) and is_wordless(tidy)):
            return []
        fits, parts = partial(self.fits, len(request.tags)), list[TextSegment]()
        bound = request.prefix or request.prefix_ids or request.required  # which may be of any of the sentences
        for sentence in (NO_SPLITTING if bound else self.splitter).parts(tidy):
            pieces = segment(sentence.text, fits)
            parts += [piece._replace(cut=len(pieces) > 1) for piece in pieces]
            parts[-1] = parts[-1]._replace(glue=sentence.glue)
        return parts

    def is_free(self, request: Request) -> bool:
        """Return whether nothing has to be in the translation."""
        wanted = request.prefix or request.prefix_ids or request.required
        return not wanted and (self.glossary is None or not self.glossary.of(request.text)[0])

    def asked(self, request: Request, parts: list[TextSegment], row: int) -> list[Request]:
        """What is asked of the parts of a text: the first one begins as the whole is to begin, and holds its terms; a
        further one has those before it as its context."""
        found, before = list[Request](), list(request.context)
        for part in parts:
            context = self.context.select(before)
            plain = Request("", forbidden=request.forbidden, tags=request.tags) if found else request
            found.append(self.with_terms(replace(plain, text=part.text, context=context), row))
            before = [*context, part.text]
        return found

    def with_terms(self, asked: Request, row: int) -> Request:
        """With those that the glossary has for its text."""
        if self.glossary is not None:
            required, forbidden = self.glossary.of(asked.text)
            asked = replace(asked, required=asked.required + required, forbidden=asked.forbidden + forbidden)
        try:
            self.constraints.check(asked, self.model.max_length)
        except ConfigError as error:
            raise DataError(f"row {row}: {error}") from None
        return asked

    def fits(self, tags: int, text: str) -> bool:
        most = self.model.max_length
        if len(text) > self.longest or most is None:
            return len(text) <= self.longest
        return tags + len(self.source_tokenizer.encode(text)) + len(self.source_tokenizer.frame(SOURCE_FRAME)) <= most

    def answers(self, asked: list[Request], progress: Progress | None) -> list[tuple[Candidate, ...]]:
        """The translations of each text, in its place."""
        rows = source_rows(self.source_tokenizer, [request.pair for request in asked], self.model.max_length)
        found: list[tuple[Candidate, ...]] = [()] * len(rows)
        done = 0
        for lot, room in self.lots(asked):

            def tell(now: int, before: int = done) -> None:
                if progress:
                    progress(before + now, len(rows))

            results = self.searched([rows[i] for i in lot], [asked[i] for i in lot], room, tell)
            for i, candidates in zip(lot, results, strict=True):
                found[i] = self.aligned(rows[i], candidates)
            done += len(lot)
        return found

    def searched(
        self, rows: list[list[int]], asked: list[Request], room: int, tell: Callable[[int], None]
    ) -> list[tuple[Candidate, ...]]:
        """Search, and search anew under the rule of ``utf8`` where a candidate is no text.

        The rule would cost every step of every search, and bytes that are no character are rarely the likeliest. A
        greedy search comes to the same either way. Samples are drawn under it from the beginning, because it changes
        what they are drawn from.
        """
        drawn = not isinstance(self.cfg, Greedy | Beam | DiverseBeam)
        results = self.under_rules(rows, asked, room, drawn, tell)
        broken = [i for i, some in enumerate(results) if any(REPLACEMENT in c.text for c in some)]
        if broken and not drawn:
            some = [rows[i] for i in broken], [asked[i] for i in broken]
            for i, candidates in zip(broken, self.under_rules(*some, room, True), strict=True):
                results[i] = candidates
        return results

    def under_rules(
        self,
        rows: list[list[int]],
        asked: list[Request],
        room: int,
        whole_characters: bool,
        tell: Callable[[int], None] = lambda done: None,
    ) -> list[tuple[Candidate, ...]]:
        table = self.utf8 if whole_characters else None

        def started(numbers: list[int], source: Tensor) -> tuple[SearchConfig, list[Rule]]:
            begun = SearchStart(source.new_full((len(source), 1), BOS), source)
            cfg, rules = self.constraints.start([asked[i] for i in numbers], self.cfg, self.device)
            rules = [*(rule.start(begun) for rule in self.general), *rules]
            return cfg, rules if table is None else [*rules, Utf8Rule(table, len(source), alone=not rules)]

        return self.readable(search_all(self.model, rows, started, room, self.policy, progress=tell))

    def lots(self, asked: list[Request]) -> Iterator[tuple[list[int], int]]:
        """Together those of which the like is asked, with room for so many source tokens at a time: equally many
        required terms, for each needs a wider beam the more there are; and by themselves those that may say what they
        like, or begin as they like."""
        kinds = [(bool(r.required or r.forbidden), len(r.required), bool(r.prefix or r.prefix_ids)) for r in asked]
        for kind in sorted(set(kinds)):
            some = [i for i in range(len(asked)) if kinds[i] == kind]
            room = self.batch_tokens // (self.cfg.size * (STAGES * kind[1] + 1))
            for start in range(0, len(some), LOT):
                yield some[start : start + LOT], room

    @cached_property
    def constraints(self) -> ConstraintBuilder:
        return ConstraintBuilder(SpelledVocabulary(self.target_tokenizer))

    @cached_property
    def utf8(self) -> Utf8Table | None:
        return Utf8Table.of(self.target_tokenizer, self.device)

    def readable(self, results: list[list[Hypothesis]]) -> list[tuple[Candidate, ...]]:
        hypotheses = [h for some in results for h in some]
        texts = iter(self.target_tokenizer.decode_batch([h.tokens[:-1] for h in hypotheses]))
        choose = self.cfg.ranked if isinstance(self.cfg, MinimumBayesRisk) else _distinct
        return [
            choose(
                Candidate(normalise(next(texts)), h.score, h.log_prob, h.tokens, h.token_log_probs, h.truncated)
                for h in some
            )
            for some in results
        ]

    def aligned(self, source: list[int], candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        if self.aligner is None:
            return candidates
        alignments = self.aligner.align([(source, candidate.tokens) for candidate in candidates])
        return tuple(replace(c, alignment=links) for c, links in zip(candidates, alignments, strict=True))

    def joined(
        self, row: int, source: str, parts: list[TextSegment], answers: list[tuple[Candidate, ...]]
    ) -> Translation:
        if not parts:
            text = keep_verbatim(source) if source.strip() else ""
            links = None if self.aligner is None or not text else tuple((i, i) for i in range(len(text.split())))
            return Translation(row, source, (Candidate(text, 0.0, 0.0, (), (), truncated=False, alignment=links),))
        warnings: list[str] = []
        answers = [tuple(self.judged(p.text, c) for c in some) for p, some in zip(parts, answers, strict=True)]
        if any(part.cut for part in parts):
            warnings.append(f"row {row}: too long to be translated at once: cut into {len(parts)} parts")
        candidates = answers[0] if len(parts) == 1 else self.whole(parts, answers)
        if candidates[0].truncated:
            warnings.append(f"row {row}: {TRUNCATED}")
        return Translation(row, source, candidates, tuple(warnings), candidates[0].confidence or 0.0)

    def judged(self, source: str, candidate: Candidate) -> Candidate:
        """Return ``candidate`` with how far it can be trusted as a translation of ``source``."""
        judge = self.calibration.confidence
        return replace(candidate, confidence=judge.of(source, candidate) if judge else candidate.mean_probability)

    def whole(self, parts: list[TextSegment], answers: list[tuple[Candidate, ...]]) -> tuple[Candidate, ...]:
        """Return the best ways to put candidates of the parts together, at most as many as were asked for."""
        ways = [([c], c.score) for c in answers[0]]
        for candidates in answers[1:]:
            longer = [([*chosen, c], score + c.score) for chosen, score in ways for c in candidates]
            ways = sorted(longer, key=lambda way: -way[1])[: max(1, self.cfg.nbest)]
        return _distinct(self.in_one(parts, chosen) for chosen, _ in ways)

    def in_one(self, parts: list[TextSegment], best: list[Candidate]) -> Candidate:
        """One candidate that is made of several; its score is the mean of theirs."""
        text = "".join(c.text + glue_after(part, c.text) for part, c in zip(parts, best, strict=True))
        return Candidate(
            text=normalise(text),
            score=sum(c.score for c in best) / len(best),
            log_prob=sum(c.log_prob for c in best),
            tokens=sum((c.tokens for c in best), ()),
            token_log_probs=sum((c.token_log_probs for c in best), ()),
            truncated=any(c.truncated for c in best),
            confidence=min(c.confidence or 0.0 for c in best),
            alignment=_end_to_end(parts, best) if self.aligner else None,
            parts=tuple(PartAnswer(part.text, c.text) for part, c in zip(parts, best, strict=True)),
        )


def _end_to_end(parts: list[TextSegment], best: list[Candidate]) -> Links:
    """The links of the whole: words are counted on from part to part, those that a part's end cuts counted once."""
    source = target = 0
    links: list[tuple[int, int]] = []
    for part, candidate in zip(parts, best, strict=True):
        links += [(s + source, t + target) for s, t in candidate.alignment or ()]
        source, target = source + len(part.text.split()), target + len(candidate.text.split())
        together = not glue_after(part, candidate.text)
        source, target = source - (not part.glue), target - (together and bool(candidate.text))
    return tuple(dict.fromkeys(links))


def _distinct(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """The same text may be found in several tokenisations: the best of them stands for it."""
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.text, candidate)
    return tuple(first.values())


_SURROGATE = re.compile("[\ud800-\udfff]")
