"""From texts to translations: cut into parts, in batches of like length, and joined again in their order."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

from torch import Tensor

from dragoman.decode.alignment import Aligner, Links
from dragoman.decode.calibration import NONE, Calibration
from dragoman.decode.documents.segment import Part, segment
from dragoman.decode.request import Request, as_request
from dragoman.decode.rules.constrained import STAGES
from dragoman.decode.rules.demands import Demands
from dragoman.decode.rules.glossary import Glossary
from dragoman.decode.rules.repetition import RuleConfig
from dragoman.decode.rules.rules import Begun, Rule
from dragoman.decode.rules.vocabulary import Vocabulary
from dragoman.decode.search.batching import search_all
from dragoman.decode.search.minimum_risk import MinimumBayesRisk
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.search.strategy import Hypothesis
from dragoman.decode.translation import Candidate, Translation
from dragoman.errors import ConfigError, DataError
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.interface import SequenceModel
from dragoman.model.state import KVPolicy
from dragoman.text.cleaning.clean import normalise
from dragoman.text.context import NO_CONTEXT, NoContext, SentencesBefore
from dragoman.text.corpus import source_rows
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
    ):
        self.model, self.source_tokenizer, self.target_tokenizer = model, source_tokenizer, target_tokenizer
        self.cfg, self.general, self.glossary, self.policy = cfg, rules, glossary, policy
        self.batch_tokens, self.longest = batch_tokens, longest
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

    def parts(self, request: Request, row: int) -> list[Part]:
        """What is translated of a text: all of it at once, if it is not too long; nothing, if it says nothing."""
        for text in (*request.context, request.text):
            if half := _SURROGATE.search(text):
                raise DataError(
                    f"row {row}: character {half.start() + 1} is \\u{ord(half[0]):04x}, half of a surrogate pair: "
                    "read the text as UTF-8 (or UTF-16), without the error handler 'surrogateescape'"
                )
        self.context.check(request.context)
        tidy = normalise(request.text)
        return segment(tidy, partial(self.fits, len(request.tags))) if tidy else []

    def asked(self, request: Request, parts: list[Part], row: int) -> list[Request]:
        """What is asked of the parts of a text: the first one begins as the whole is to begin, and holds its terms; a
        further one has those before it as its context."""
        found, before = list[Request](), list(request.context)
        for part in parts:
            context = self.context.chosen(before)
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
            self.demands.check(asked, self.model.max_length)
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

            def started(numbers: list[int], source: Tensor, lot: list[int] = lot) -> tuple[SearchConfig, list[Rule]]:
                begun = Begun(source.new_full((len(source), 1), BOS), source)
                cfg, rules = self.demands.start([asked[lot[i]] for i in numbers], self.cfg, self.device)
                return cfg, [*(rule.start(begun) for rule in self.general), *rules]

            def tell(now: int, before: int = done) -> None:
                if progress:
                    progress(before + now, len(rows))

            results = search_all(self.model, [rows[i] for i in lot], started, room, self.policy, progress=tell)
            for i, candidates in zip(lot, self.readable(results), strict=True):
                found[i] = self.aligned(rows[i], candidates)
            done += len(lot)
        return found

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
    def demands(self) -> Demands:
        return Demands(Vocabulary(self.target_tokenizer))

    def readable(self, results: list[list[Hypothesis]]) -> list[tuple[Candidate, ...]]:
        hypotheses = [h for some in results for h in some]
        texts = iter(self.target_tokenizer.decode_batch([h.tokens[:-1] for h in hypotheses]))
        choose = self.cfg.ranked if isinstance(self.cfg, MinimumBayesRisk) else _distinct
        return [
            choose(
                Candidate(normalise(next(texts)), h.score, h.log_prob, h.tokens, h.token_log_probs, h.cut) for h in some
            )
            for some in results
        ]

    def aligned(self, source: list[int], candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        if self.aligner is None:
            return candidates
        alignments = self.aligner.align([(source, candidate.tokens) for candidate in candidates])
        return tuple(replace(c, alignment=links) for c, links in zip(candidates, alignments, strict=True))

    def joined(self, row: int, source: str, parts: list[Part], answers: list[tuple[Candidate, ...]]) -> Translation:
        if not parts:
            return Translation(row, source, (Candidate("", 0.0, 0.0, (), (), cut=False),))
        warnings = []
        if len(parts) > 1:
            answers = [(self.in_one(parts, [candidates[0] for candidates in answers]),)]
            warnings.append(f"row {row}: too long to be translated at once: cut into {len(parts)} parts")
        if answers[0][0].cut:
            warnings.append(f"row {row}: the translation was ended by force at the length limit")
        judge, best = self.calibration.confidence, answers[0][0]
        confidence = judge.of(source, best) if judge else best.mean_probability
        return Translation(row, source, answers[0], tuple(warnings), confidence)

    def in_one(self, parts: list[Part], best: list[Candidate]) -> Candidate:
        text = "".join(c.text + part.glue for part, c in zip(parts, best, strict=True))
        log_prob, tokens = sum(c.log_prob for c in best), sum((c.tokens for c in best), ())
        return Candidate(
            text=normalise(text),
            score=self.cfg.score(log_prob, len(tokens)),
            log_prob=log_prob,
            tokens=tokens,
            token_log_probs=sum((c.token_log_probs for c in best), ()),
            cut=any(c.cut for c in best),
            alignment=_end_to_end(parts, best) if self.aligner else None,
        )


def _end_to_end(parts: list[Part], best: list[Candidate]) -> Links:
    """The links of the whole: words are counted on from part to part, those that a part's end cuts counted once."""
    source = target = 0
    links: list[tuple[int, int]] = []
    for part, candidate in zip(parts, best, strict=True):
        links += [(s + source, t + target) for s, t in candidate.alignment or ()]
        apart = bool(part.glue)
        source, target = source + len(part.text.split()), target + len(candidate.text.split())
        source, target = source - (not apart), target - (not apart and bool(candidate.text))
    return tuple(dict.fromkeys(links))


def _distinct(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """The same text may be found in several tokenisations: the best of them stands for it."""
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.text, candidate)
    return tuple(first.values())


_SURROGATE = re.compile("[\ud800-\udfff]")
