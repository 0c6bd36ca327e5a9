"""Does a model that writes give the same answer every way it can be asked?

The reference is the model as it was trained, asked the obvious way: one example at a time, with the cache that
concatenates. Every other way asks the model made ready as commands make it (``decode/precision.py``), and must say the
same tokens with the same log-probabilities, and find the same logits, but for rounding. Caches that keep fewer bits are
counted too, but not judged.
Read ``WritingVerifier.questions`` first.

B examples of a batch, S source length, T target length, V vocabulary.
"""

import math
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache, partial

import torch
from torch import Tensor

from dragoman.decode.constraints.beginning import Beginning, ForcedBeginning
from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.precision import prepare_for_inference, resolve_auto
from dragoman.decode.search.batching import search_all
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.ranking import first_largest
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.search.strategy import Hypothesis
from dragoman.decode.search.teacher_forcing import padded
from dragoman.decode.verify.checks import (
    COMPILED,
    PADDING,
    PRECISIONS,
    Check,
    CheckFailure,
    CheckIds,
    CheckQuestion,
    Verifier,
    batches,
    compiling,
    own_precision,
    shuffled,
    tolerance,
    within,
    written_out,
)
from dragoman.decode.verify.inputs import ContinuationInputs, IdRows, TranslationInputs, VerifyInputs
from dragoman.model.caches.cache import DEFAULT, Cache, examples, parse_cache
from dragoman.model.interface import SequenceModel
from dragoman.model.transformer import Transformer
from dragoman.text.tokens.tokenizer import BOS, EOS, Tokenizer

Answers = Sequence[Hypothesis] | Sequence[CheckIds]

REFERENCE = parse_cache("growing")
CACHES = examples()
"""Whichever of them are exact for the model are judged; of the others it is told how often they agree."""


def random_rows(vocabulary: int, count: int, longest: int | None = None) -> list[list[int]]:
    """Sources of 2 to 30 random tokens, for who has no text; the same ones every time."""
    draw, most = random.Random(0), min(longest or 30, 30) - 1
    return [[*(draw.randrange(EOS + 1, vocabulary) for _ in range(draw.randint(1, most))), EOS] for _ in range(count)]


def random_beginnings(vocabulary: int, count: int, longest: int | None = None) -> list[list[int]]:
    """The same for models that continue texts, with room for more."""
    return [[BOS, *row[:-1]] for row in random_rows(vocabulary, count, longest and longest // 2)]


class WritingVerifier(Verifier):
    """A model that translates or continues texts, and what it is asked.

    Args:
        model: it is left in evaluation mode.
        tokenizer: of its target side.
        rows: ids: sources, each with its EOS; of a model without an encoder, beginnings, each from BOS on.
        beam: hypotheses kept in beam search; with 1 there is only greedy search.
        batch: examples asked at a time, but in the reference.
        compiled: compile the model, too, which takes a minute.
    """

    def __init__(
        self,
        model: SequenceModel,
        tokenizer: Tokenizer,
        rows: IdRows,
        *,
        beam: int = 5,
        batch: int = 32,
        compiled: bool = False,
    ):
        self.model, self.batch, self.compiled = model.eval(), batch, compiled
        self.asked: VerifyInputs = (TranslationInputs if translates(model) else ContinuationInputs)(rows, model.device)
        self.rows, self.dtype = self.asked.rows, next(model.parameters()).dtype
        self.vocabulary = SpelledVocabulary(tokenizer)
        self.beams = Beam(size=beam, nbest=beam) if beam > 1 else Greedy()
        self.searches: dict[str, SearchConfig] = {"greedy": Greedy()}
        if beam > 1:
            self.searches[f"beam {beam}"] = Beam(size=beam)
        self.prepare_for_inference = cache(
            lambda precision: prepare_for_inference(deepcopy(model), str(model.device), precision)
        )
        self.used = self.prepare_for_inference(own_precision(self.dtype))
        self.closeness = 10 * max(tolerance(self.dtype), 1e-5)
        """How far log-probabilities of the same token may lie apart, see ``log_probs_apart``."""
        self.reference = cache(
            lambda searched: self.answers(self.searches[searched], policy=REFERENCE, batch=1, model=self.model)
        )

    @property
    def examples(self) -> int:
        return len(self.rows)

    def questions(self) -> list[CheckQuestion]:
        found = []
        for searched, cfg in self.searches.items():
            ways = {
                f"in batches of {self.batch}": partial(self.answers, cfg),
                "in another order": partial(self.shuffled, cfg),
                "batches put together": partial(self.put_together, cfg),
                f"with {PADDING} more columns of padding": partial(self.answers, cfg, extra=PADDING),
                "attention written out": partial(self.written_out, cfg),
            }
            if isinstance(self.asked, ContinuationInputs):
                del ways["batches put together"]  # continuations are not
            found += [
                CheckQuestion(name, searched, partial(self.compare, name, searched, ask)) for name, ask in ways.items()
            ]
            found += [CheckQuestion(f"cache {text}", searched, partial(self.cached, text, searched)) for text in CACHES]
            found += [
                CheckQuestion(f"run in {name}", searched, partial(self.run_in, name, searched)) for name in PRECISIONS
            ]
            for name, policy in {"asked twice": DEFAULT, "asked twice, cache growing": REFERENCE}.items():
                found.append(CheckQuestion(name, searched, partial(self.asked_twice, name, searched, policy)))
        for name, ask in {"without a cache": self.uncached, "beginnings forced": self.forced}.items():
            found.append(CheckQuestion(name, "greedy", partial(self.compare, name, "greedy", ask)))
        found += [CheckQuestion(f"cache {text}", "logits", partial(self.logits, text)) for text in ["growing", *CACHES]]
        found.append(CheckQuestion("n-best lists", "scores", self.scores))
        found.append(CheckQuestion("compiled", "logits", self.compiled_forward))
        return found

    # ---- ways of asking ----

    def answers(
        self,
        cfg: SearchConfig,
        *,
        rows: IdRows | None = None,
        policy: Cache = DEFAULT,
        batch: int | None = None,
        extra: int = 0,
        model: SequenceModel | None = None,
    ) -> list[Hypothesis]:
        """The best answer to each row, by default from the model as it is used; adds ``extra`` columns of padding."""
        found, rows = [], self.rows if rows is None else rows
        for some in batches(rows, batch or self.batch):
            found += self.asked.search(model or self.used, some, cfg, policy, extra=extra)
        return [hypotheses[0] for hypotheses in found]

    def shuffled(self, cfg: SearchConfig) -> list[Hypothesis]:
        return shuffled(self.rows, lambda rows: self.answers(cfg, rows=rows))

    def put_together(self, cfg: SearchConfig) -> list[Hypothesis]:
        """In small batches, of which those that are half done go on together."""
        room = max(1, self.batch // 4) * max(map(len, self.rows))
        return [hypotheses[0] for hypotheses in search_all(self.used, self.rows, lambda *_: (cfg, []), room)]

    def written_out(self, cfg: SearchConfig) -> list[Hypothesis]:
        with written_out(self.used):
            return self.answers(cfg)

    def forced(self) -> list[Hypothesis]:
        """Greedy answers whose first half is forced upon the model."""
        found, half = [], [h.tokens[: len(h.tokens) // 2] for h in self.reference("greedy")]
        for some, begins in zip(batches(self.rows, self.batch), batches(half, self.batch), strict=True):
            rule = ForcedBeginning([Beginning(ids) for ids in begins], self.vocabulary, self.asked.device)
            found += self.asked.search(self.used, some, self.searches["greedy"], rules=[rule])
        return [hypotheses[0] for hypotheses in found]

    def uncached(self) -> list[CheckIds]:
        """Greedy search that reads everything anew for each token."""
        found = []
        for some in batches(self.rows, self.batch):
            limits = self.asked.limits(self.model, some, self.searches["greedy"])
            most = torch.tensor(limits, device=self.asked.device)
            said, next_one = most.new_empty((len(some), 0)), most.new_full((len(some), 1), EOS)
            ended = torch.zeros_like(most, dtype=torch.bool)
            while not ended.all():
                logits = self.asked.at_once(self.used, some, torch.cat([said, next_one], dim=1))
                token = first_largest(logits[:, -1, EOS:]) + EOS
                token = token.masked_fill(ended | (most <= said.shape[1] + 1), EOS)
                said, ended = torch.cat([said, token[:, None]], dim=1), ended | (token == EOS)
            found += [tuple(row[: row.index(EOS) + 1]) for row in said.tolist()]
        return found

    # ---- comparing ----

    def compare(
        self,
        name: str,
        searched: str,
        ask: Callable[[], Answers],
        exact: bool = True,
        wanted: Sequence[Hypothesis] | None = None,
    ) -> Check:
        """Whether what ``ask`` finds is what is ``wanted``, by default what the reference found: the same tokens and,
        unless the way of asking rounds, the same log-probability of each."""
        wanted = wanted or self.reference(searched)
        pairs = list(zip(wanted, ask(), strict=True))
        found = [self.failure(row, *pair, most=self.closeness if exact else None) for row, pair in enumerate(pairs, 1)]
        apart = [abs(w.score - g.score) for w, g in pairs if isinstance(g, Hypothesis)]
        return Check(
            name,
            searched,
            same=found.count(None),
            of=len(found),
            exact=exact,
            difference=sum(apart) / max(1, len(apart)),
            failure=next(filter(None, found), None),
        )

    def failure(
        self, row: int, wanted: Hypothesis, got: Hypothesis | CheckIds, most: float | None
    ) -> CheckFailure | None:
        """None for the same tokens whose log-probabilities, where they are known, lie ``most`` apart or less."""
        ids = got if isinstance(got, tuple) else got.tokens
        if wanted.tokens != ids:
            return CheckFailure(row, wanted.tokens, ids)
        if most is None or isinstance(got, tuple):
            return None
        apart = log_probs_apart(wanted.token_log_probs, got.token_log_probs)
        return None if apart <= most else CheckFailure(row, wanted.tokens, ids, apart)

    def asked_twice(self, name: str, searched: str, policy: Cache) -> Check:
        """The model as commands run it unasked, in whatever precision that is, against itself."""
        model = self.prepare_for_inference(resolve_auto(str(self.model.device), "auto")[1])
        ask = partial(self.answers, self.searches[searched], policy=policy, model=model)
        return self.compare(name, searched, ask, wanted=ask())

    def cached(self, text: str, searched: str) -> Check:
        ask = partial(self.answers, self.searches[searched], policy=parse_cache(text))
        return self.compare(f"cache {text}", searched, ask, self.is_exact(text))

    def run_in(self, precision: str, searched: str) -> Check:
        """As ``Translator`` and ``Generator`` run the model."""
        exact = getattr(torch, precision) == self.dtype
        ask = partial(self.answers, self.searches[searched], model=self.prepare_for_inference(precision))
        return self.compare(f"run in {precision}", searched, ask, exact)

    def logits(self, text: str) -> Check:
        """Of the greedy answers, told token by token, against one forward over all of them."""
        policy = parse_cache(text)
        told = partial(self.asked.one_by_one, self.used, policy=policy)
        return self.compare_logits(f"cache {text}", told, self.is_exact(text))

    def compiled_forward(self) -> Check:
        with compiling(self.compiled):  # one program for one batch: of another size it would be compiled anew
            told = partial(self.asked.at_once, torch.compile(self.model.forward, fullgraph=True))
            return self.compare_logits("compiled", told, exact=True, rows=COMPILED)

    def compare_logits(self, name: str, told: Callable[..., Tensor], exact: bool, rows: int | None = None) -> Check:
        """Of all answers; or of so many ``rows``, in one batch."""
        answers, batch = [h.tokens for h in self.reference("greedy")][:rows], rows or self.batch
        apart: list[float] = []
        for some, said in zip(batches(self.rows[:rows], batch), batches(answers, batch), strict=True):
            target = padded(said, self.asked.device)
            wanted = self.asked.at_once(self.model, some, target).double()
            size = wanted.abs().amax(dim=2).clamp(min=1.0)
            relative = (told(some, target).double() - wanted).abs().amax(dim=2) / size  # (B, T)
            apart += [float(row[: len(ids)].max()) for row, ids in zip(relative, said, strict=True)]
        return within(name, "logits", answers, apart, tolerance(self.dtype), exact)

    def scores(self) -> Check:
        """What search says of each answer of its n-best lists, against reading it in one forward."""
        lists = [some for rows in batches(self.rows, self.batch) for some in self.lists(rows)]
        flat = [(row, h) for row, some in zip(self.rows, lists, strict=True) for h in some]
        read = iter(self.asked.log_probs(self.used, [row for row, _ in flat], [h.tokens for _, h in flat]))
        apart, best = [], [some[0].tokens for some in lists]
        for some in lists:
            apart.append(max(log_probs_apart(h.token_log_probs, next(read)) for h in some))
        return within("n-best lists", "scores", best, apart, self.closeness, exact=True)

    def lists(self, rows: IdRows) -> list[list[Hypothesis]]:
        return self.asked.search(self.used, rows, self.beams)

    def is_exact(self, text: str) -> bool:
        chosen = parse_cache(text)
        sees_as_trained = not isinstance(self.model, Transformer) or self.model.decoder.sees_as_trained(chosen)
        return chosen.storage.is_exact(self.dtype) and sees_as_trained


def log_probs_apart(wanted: Sequence[float], got: Sequence[float]) -> float:
    """The largest difference of a token's; of one that is far below 1, relative to it, as its logits round so."""
    apart = [abs(w - g) / max(1.0, abs(w)) for w, g in zip(wanted, got, strict=True)]
    return math.nan if any(map(math.isnan, apart)) else max(apart)


def translates(model: SequenceModel) -> bool:
    """Whether it is given a source; else it continues a text."""
    try:
        model.start(None)
    except ValueError:
        return True
    return False
