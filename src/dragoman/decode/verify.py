"""Does a model give the same answer every way it can be asked? Counted, sentence by sentence.

The reference is the obvious way: one sentence at a time, with the cache that concatenates. Every other way must say the
same tokens, and find the same logits but for rounding. Caches that keep fewer bits are counted too, but not judged.
Read ``Verifier.questions`` first.

B sentences of a batch, S source length, T target length, V vocabulary.
"""

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dragoman.decode.forced import padded, shifted, token_log_probs
from dragoman.decode.precision import made_ready
from dragoman.decode.rules.beginning import Beginning, ForcedBeginning
from dragoman.decode.rules.vocabulary import Vocabulary
from dragoman.decode.search.batching import search_all
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.ranking import first_largest
from dragoman.decode.search.search import SearchConfig, search
from dragoman.decode.search.strategy import Hypothesis
from dragoman.errors import ConfigError
from dragoman.machine import compiler_said
from dragoman.model.attention import Attention
from dragoman.model.caches.cache import DEFAULT, Cache, parse_cache
from dragoman.model.interface import SequenceModel
from dragoman.model.transformer import Transformer
from dragoman.text.tokens.tokenizer import BOS, EOS, PAD, Tokenizer

Ids = tuple[int, ...]
Rows = Sequence[Sequence[int]]
Answers = Sequence[Hypothesis] | Sequence[Ids]
T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with the questions answered and their number."""

REFERENCE = parse_cache("growing")
CACHES = ["preallocated", "preallocated:1", "paged:16", "paged:3", "growing+float32", "window:32:4"]
CACHES += ["bfloat16", "float8", "int8", "int4", "paged:16+int8"]
"""Whichever of them are exact for the model are judged; of the others it is told how often they agree."""
PRECISIONS = ["float32", "bfloat16", "int8"]
"""In which translation runs a model, its weights laid out anew; in its own it must say the same."""
PADDING = 13
"""Columns added where padding is to make no difference."""
COMPILED = 4
"""Sentences that a compiled model is asked."""

# ---- what comes out --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    row: int
    """Of the sentences given, counted from 1."""
    wanted: Ids
    """What the reference says, in ids of the target vocabulary."""
    got: Ids
    difference: float | None = None
    """Where numbers were compared: by how much they differ."""


@dataclass(frozen=True)
class Check:
    """One row of the table."""

    name: str
    searched: str
    """``greedy``, ``beam 5``, ``scores`` or ``logits``: what was compared."""
    same: int
    of: int
    exact: bool
    """Whether it must be the same, every time."""
    difference: float = 0.0
    """Of answers: the mean of how far their scores lie apart. Of scores and logits: the largest, see ``tolerance``."""
    failure: Failure | None = None
    """The first."""
    skipped: str | None = None
    """Why it was not asked."""

    @property
    def passed(self) -> bool:
        return not self.exact or self.same == self.of


def tolerance(dtype: torch.dtype) -> float:
    """How far logits may lie apart that are equal but for the order of sums; relative to the largest of them, or to 1.
    Logarithms of probabilities, which searches add up in float32: ten times as far as float32 logits, or these."""
    return {torch.float64: 1e-9, torch.float32: 1e-5}.get(dtype, 3e-2)


class Question(NamedTuple):
    name: str
    searched: str
    ask: Callable[[], Check]


def answered(verifier: "Verifier", progress: Progress | None = None) -> Iterator[Check]:
    """Ask everything; yield each row of the table as it is known."""
    questions = verifier.questions()
    for done, question in enumerate(questions, 1):
        with torch.inference_mode():
            check = question.ask()
        if progress:
            progress(done, len(questions))
        yield check


def random_rows(vocabulary: int, count: int, longest: int | None = None) -> list[list[int]]:
    """Sources of 2 to 30 random tokens, for who has no text; the same ones every time."""
    draw, most = random.Random(0), min(longest or 30, 30) - 1
    return [[*(draw.randrange(EOS + 1, vocabulary) for _ in range(draw.randint(1, most))), EOS] for _ in range(count)]


# ---- asking ---------------------------------------------------------------------------------------


class Verifier:
    """A model and the sentences it is asked.

    Args:
        model: one that translates; it is left in evaluation mode.
        tokenizer: of its target side.
        rows: sources in ids, each with its EOS.
        beam: hypotheses kept in beam search; with 1 there is only greedy search.
        batch: sentences translated at a time, but in the reference.
        compiled: compile the model, too, which takes a minute.
    """

    def __init__(
        self,
        model: SequenceModel,
        tokenizer: Tokenizer,
        rows: Rows,
        *,
        beam: int = 5,
        batch: int = 32,
        compiled: bool = False,
    ):
        self.model, self.rows, self.batch, self.compiled = model.eval(), [list(row) for row in rows], batch, compiled
        self.vocabulary = Vocabulary(tokenizer)
        self.beams = Beam(size=beam, nbest=beam) if beam > 1 else Greedy()
        self.searches: dict[str, SearchConfig] = {"greedy": Greedy()}
        if beam > 1:
            self.searches[f"beam {beam}"] = Beam(size=beam)
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.made_ready = cache(lambda precision: made_ready(deepcopy(model), str(self.device), precision))
        self.reference = cache(lambda searched: self.answers(self.searches[searched], policy=REFERENCE, batch=1))

    def questions(self) -> list[Question]:
        """Everything that is asked, in this order."""
        found = []
        for searched, cfg in self.searches.items():
            ways = {
                f"in batches of {self.batch}": partial(self.answers, cfg),
                "in another order": partial(self.shuffled, cfg),
                "batches put together": partial(self.put_together, cfg),
                f"with {PADDING} more columns of padding": partial(self.answers, cfg, extra=PADDING),
                "attention written out": partial(self.written_out, cfg),
            }
            found += [
                Question(name, searched, partial(self.compare, name, searched, ask)) for name, ask in ways.items()
            ]
            found += [Question(f"cache {text}", searched, partial(self.cached, text, searched)) for text in CACHES]
            found += [Question(f"run in {name}", searched, partial(self.run_in, name, searched)) for name in PRECISIONS]
        for name, ask in {"without a cache": self.uncached, "beginnings forced": self.forced}.items():
            found.append(Question(name, "greedy", partial(self.compare, name, "greedy", ask)))
        found += [Question(f"cache {text}", "logits", partial(self.logits, text)) for text in ["growing", *CACHES]]
        found.append(Question("n-best lists", "scores", self.scores))
        found.append(Question("compiled", "logits", self.compiled_forward))
        return found

    # ---- ways of asking ----

    def answers(
        self,
        cfg: SearchConfig,
        *,
        rows: Rows | None = None,
        policy: Cache = DEFAULT,
        batch: int | None = None,
        extra: int = 0,
        model: SequenceModel | None = None,
    ) -> list[Hypothesis]:
        """The best translation of each row; ``extra`` columns of padding are added."""
        found, rows = [], self.rows if rows is None else rows
        for some in _batches(rows, batch or self.batch):
            source = F.pad(padded(some, self.device), (0, extra), value=PAD)
            found += search(model or self.model, source, cfg, policy)
        return [hypotheses[0] for hypotheses in found]

    def shuffled(self, cfg: SearchConfig) -> list[Hypothesis]:
        order = list(range(len(self.rows)))
        random.Random(0).shuffle(order)
        moved = self.answers(cfg, rows=[self.rows[i] for i in order])
        return [answer for _, answer in sorted(zip(order, moved, strict=True), key=lambda pair: pair[0])]

    def put_together(self, cfg: SearchConfig) -> list[Hypothesis]:
        """In small batches, of which those that are half done go on together."""
        room = max(1, self.batch // 4) * max(map(len, self.rows))
        return [hypotheses[0] for hypotheses in search_all(self.model, self.rows, lambda *_: (cfg, []), room)]

    def written_out(self, cfg: SearchConfig) -> list[Hypothesis]:
        with listening(self.model):
            return self.answers(cfg)

    def forced(self) -> list[Hypothesis]:
        """Greedy answers whose first half is forced upon the model."""
        found, half = [], [h.tokens[: len(h.tokens) // 2] for h in self.reference("greedy")]
        for some, begins in zip(_batches(self.rows, self.batch), _batches(half, self.batch), strict=True):
            rule = ForcedBeginning([Beginning(ids) for ids in begins], self.vocabulary, self.device)
            found += search(self.model, padded(some, self.device), self.searches["greedy"], rules=[rule])
        return [hypotheses[0] for hypotheses in found]

    def uncached(self) -> list[Ids]:
        """Greedy search that reads everything anew for each token."""
        found, limit = [], self.searches["greedy"].limit
        for some in _batches(self.rows, self.batch):
            source = padded(some, self.device)
            limits = torch.tensor([limit.of(len(row)) for row in some], device=self.device)
            limits = limits.clamp(max=self.model.max_length or sys.maxsize)
            tokens, ended = source.new_full((len(some), 1), BOS), torch.zeros_like(limits, dtype=torch.bool)
            while not ended.all():
                token = first_largest(self.model(tokens, source)[:, -1, EOS:]) + EOS
                token = token.masked_fill(ended | (limits <= tokens.shape[1]), EOS)
                tokens, ended = torch.cat([tokens, token[:, None]], dim=1), ended | (token == EOS)
            found += [tuple(row[: row.index(EOS) + 1]) for row in tokens[:, 1:].tolist()]
        return found

    # ---- comparing ----

    def compare(self, name: str, searched: str, ask: Callable[[], Answers], exact: bool = True) -> Check:
        """Whether what ``ask`` finds is what the reference found."""
        wanted = self.reference(searched)
        got = ask()
        pairs = [(w.tokens, g if isinstance(g, tuple) else g.tokens) for w, g in zip(wanted, got, strict=True)]
        failures = (Failure(row, *pair) for row, pair in enumerate(pairs, 1) if pair[0] != pair[1])
        apart = [abs(w.score - g.score) for w, g in zip(wanted, got, strict=True) if isinstance(g, Hypothesis)]
        return Check(
            name,
            searched,
            same=sum(w == g for w, g in pairs),
            of=len(pairs),
            exact=exact,
            difference=sum(apart) / max(1, len(apart)),
            failure=next(failures, None),
        )

    def cached(self, text: str, searched: str) -> Check:
        ask = partial(self.answers, self.searches[searched], policy=parse_cache(text))
        try:
            return self.compare(f"cache {text}", searched, ask, self.is_exact(text))
        except ConfigError as unfit:
            return self.skipped(f"cache {text}", searched, unfit)

    def run_in(self, precision: str, searched: str) -> Check:
        """As ``Translator`` runs the model."""
        exact = getattr(torch, precision) == self.dtype
        try:
            ask = partial(self.answers, self.searches[searched], model=self.made_ready(precision))
        except ConfigError as unfit:
            return self.skipped(f"run in {precision}", searched, unfit)
        return self.compare(f"run in {precision}", searched, ask, exact)

    def logits(self, text: str) -> Check:
        """Of the greedy answers, told token by token, against one forward over all of them."""

        def told(target: Tensor, source: Tensor) -> Tensor:
            state = self.model.start(source, parse_cache(text))
            return torch.cat([self.model.decode(tokens, state) for tokens in target.split(1, dim=1)], dim=1)

        try:
            return self.compare_logits(f"cache {text}", told, self.is_exact(text))
        except ConfigError as unfit:
            return self.skipped(f"cache {text}", "logits", unfit)

    def compare_logits(
        self, name: str, told: Callable[[Tensor, Tensor], Tensor], exact: bool, rows: int | None = None
    ) -> Check:
        """Of all sentences; or of so many ``rows``, in one batch."""
        answers, batch = [h.tokens for h in self.reference("greedy")][:rows], rows or self.batch
        apart: list[float] = []
        for some, said in zip(_batches(self.rows[:rows], batch), _batches(answers, batch), strict=True):
            source, target = padded(some, self.device), shifted(padded(said, self.device))
            wanted, got = self.model(target, source).double(), told(target, source).double()
            size = wanted.abs().amax(dim=2).clamp(min=1.0)
            relative = (got - wanted).abs().amax(dim=2) / size  # (B, T)
            apart += [float(row[: len(ids)].max()) for row, ids in zip(relative, said, strict=True)]
        return _within(name, "logits", answers, apart, tolerance(self.dtype), exact)

    def scores(self) -> Check:
        """What search says of each translation of its n-best lists, against reading it in one forward."""
        lists = [some for rows in _batches(self.rows, self.batch) for some in self.lists(rows)]
        flat = [(row, h) for row, some in zip(self.rows, lists, strict=True) for h in some]
        read = iter(token_log_probs(self.model, [row for row, _ in flat], [h.tokens for _, h in flat]))
        apart, best = [], [some[0].tokens for some in lists]
        for some in lists:
            pairs = [(a, b) for h in some for a, b in zip(h.token_log_probs, next(read), strict=True)]
            apart.append(max(abs(a - b) for a, b in pairs))
        return _within("n-best lists", "scores", best, apart, 10 * max(tolerance(self.dtype), 1e-5), exact=True)

    def lists(self, rows: Rows) -> list[list[Hypothesis]]:
        return search(self.model, padded(rows, self.device), self.beams)

    def compiled_forward(self) -> Check:
        if not self.compiled:
            return self.skipped("compiled", "logits", "it takes a minute: ask for it")
        try:  # one program for one batch: of another size it would be compiled anew
            program = torch.compile(self.model.forward, fullgraph=True)
            return self.compare_logits("compiled", program, exact=True, rows=COMPILED)
        except (RuntimeError, ImportError, OSError) as error:  # torch raises these where it cannot compile
            return self.skipped("compiled", "logits", compiler_said(error))

    def skipped(self, name: str, searched: str, why: object) -> Check:
        return Check(name, searched, 0, len(self.rows), exact=False, skipped=str(why))

    def is_exact(self, text: str) -> bool:
        chosen = parse_cache(text)
        kinds = self.model.decoder.kinds if isinstance(self.model, Transformer) else []
        return chosen.storage.is_exact(self.dtype) and all(chosen.narrowed(v) == v for _, v in kinds)


def _batches(rows: Sequence[T], size: int) -> list[Sequence[T]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _within(name: str, searched: str, answers: list[Ids], apart: list[float], most: float, exact: bool) -> Check:
    failures = (Failure(i + 1, answers[i], answers[i], d) for i, d in enumerate(apart) if not d <= most)
    same = sum(d <= most for d in apart)
    return Check(name, searched, same, len(apart), exact, max(apart, default=0.0), next(failures, None))


@contextmanager
def listening(model: nn.Module) -> Iterator[None]:
    """Hooks on every attention's weights, which then runs written out instead of fused."""
    hooks = [m.weights.register_forward_hook(lambda *_: None) for m in model.modules() if isinstance(m, Attention)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
