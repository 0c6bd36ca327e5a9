"""From texts to translations: cut into parts, in batches of like length, and joined again in their order."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property

from dragoman.decode.beginning import Beginning, ForcedBeginning
from dragoman.decode.forced import batches_by_length, padded
from dragoman.decode.minimum_risk import MinimumBayesRisk
from dragoman.decode.repetition import RuleConfig
from dragoman.decode.request import Request
from dragoman.decode.rules import Begun, Rule
from dragoman.decode.search import SearchConfig, search
from dragoman.decode.segment import Part, segment
from dragoman.decode.strategy import Hypothesis
from dragoman.decode.translation import Candidate, Translation
from dragoman.decode.vocabulary import Vocabulary
from dragoman.errors import ConfigError, DataError
from dragoman.model.cache import DEFAULT
from dragoman.model.interface import SequenceModel
from dragoman.model.state import KVPolicy
from dragoman.text.clean import normalise
from dragoman.text.tokenizer import BOS, EOS, Tokenizer

Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do."""


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
        batch_tokens: int,
        longest: int,
        policy: KVPolicy = DEFAULT,
    ):
        self.model, self.source_tokenizer, self.target_tokenizer = model, source_tokenizer, target_tokenizer
        self.cfg, self.general, self.batch_tokens, self.longest = cfg, rules, batch_tokens, longest
        self.policy = policy
        self.device = next(model.parameters()).device

    def translate(
        self, given: Sequence[str | Request], first_row: int, progress: Progress | None = None
    ) -> list[Translation]:
        requests = [Request(one) if isinstance(one, str) else one for one in given]
        parts = [self.parts(request.text, row) for row, request in enumerate(requests, first_row)]
        asked = [
            [self.asked(request, part, row, first=i == 0) for i, part in enumerate(some)]
            for row, (request, some) in enumerate(zip(requests, parts, strict=True), first_row)
        ]
        distinct = list(dict.fromkeys(request for some in asked for request in some))  # what recurs is done once
        answers = dict(zip(distinct, self.answers(distinct, progress), strict=True))
        return [
            self.joined(row, request.text, some, [answers[one] for one in wanted])
            for row, (request, some, wanted) in enumerate(zip(requests, parts, asked, strict=True), first_row)
        ]

    def parts(self, text: str, row: int) -> list[Part]:
        """What is translated of a text: all of it at once, if it is not too long; nothing, if it says nothing."""
        if half := _SURROGATE.search(text):
            raise DataError(
                f"row {row}: character {half.start() + 1} is \\u{ord(half[0]):04x}, half of a surrogate pair: "
                "read the text as UTF-8 (or UTF-16), without the error handler 'surrogateescape'"
            )
        tidy = normalise(text)
        return segment(tidy, self.fits) if tidy else []

    def asked(self, request: Request, part: Part, row: int, *, first: bool) -> Request:
        """What is asked of a part of a text: only its first one begins as the whole is to begin."""
        asked = replace(request, text=part.text) if first else Request(part.text)
        try:
            beginning = self.beginning(asked)
        except ConfigError as error:
            raise DataError(f"row {row}: prefix {error}") from None
        if unknown := [i for i in beginning.ids if not EOS <= i < len(self.target_tokenizer)]:
            raise DataError(f"row {row}: prefix_ids: {unknown[0]} is no token of the target vocabulary")
        tokens, most = len(beginning.ids) + len(beginning.rest), self.model.max_length
        if most is not None and tokens >= most:
            raise DataError(f"row {row}: a prefix of {tokens} bytes is too long for a model that takes {most} tokens")
        return asked

    def fits(self, text: str) -> bool:
        most = self.model.max_length
        if len(text) > self.longest or most is None:
            return len(text) <= self.longest
        return len(self.source_tokenizer.encode(text)) < most  # one place is for EOS

    def answers(self, asked: list[Request], progress: Progress | None) -> list[tuple[Candidate, ...]]:
        """The translations of each text, translated in batches of like length, the longest first."""
        rows = [[*ids, EOS] for ids in self.source_tokenizer.encode_batch([request.text for request in asked])]
        found: list[tuple[Candidate, ...]] = [()] * len(rows)
        done = 0
        for batch in batches_by_length([len(row) for row in rows], self.batch_tokens // self.cfg.size):
            source = padded([rows[i] for i in batch], self.device)
            begun = Begun(source.new_full((len(batch), 1), BOS), source)
            rules = [*(rule.start(begun) for rule in self.general), *self.rules([asked[i] for i in batch])]
            results = search(self.model, source, self.cfg, self.policy, rules)
            for i, candidates in zip(batch, self.readable(results), strict=True):
                found[i] = candidates
            done += len(batch)
            if progress:
                progress(done, len(rows))
        return found

    def rules(self, asked: Sequence[Request]) -> list[Rule]:
        beginnings = [self.beginning(request) for request in asked]
        return [ForcedBeginning(beginnings, self.vocabulary, self.device)] if any(beginnings) else []

    def beginning(self, request: Request) -> Beginning:
        return Beginning(request.prefix_ids, self.vocabulary.spelt(request.prefix) if request.prefix else b"")

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.target_tokenizer)

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

    def joined(self, row: int, source: str, parts: list[Part], answers: list[tuple[Candidate, ...]]) -> Translation:
        if not parts:
            return Translation(row, source, (Candidate("", 0.0, 0.0, (), (), cut=False),))
        warnings = []
        if len(parts) > 1:
            answers = [(self.in_one(parts, [candidates[0] for candidates in answers]),)]
            warnings.append(f"row {row}: too long to be translated at once: cut into {len(parts)} parts")
        if answers[0][0].cut:
            warnings.append(f"row {row}: the translation was ended by force at the length limit")
        return Translation(row, source, answers[0], tuple(warnings), answers[0][0].mean_probability)

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
        )


def _distinct(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """The same text may be found in several tokenisations: the best of them stands for it."""
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.text, candidate)
    return tuple(first.values())


_SURROGATE = re.compile("[\ud800-\udfff]")
