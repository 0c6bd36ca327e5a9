"""Checks of models that generate text: the same answers in every way the model can be run.

The reference is the model as it was trained, run in the obvious way: one example at a time, with the cache that
concatenates. Every other way uses the model prepared for inference, as commands prepare it (``decode/precision.py``).
It must emit the same tokens with the same log-probabilities, and compute the same logits, but for rounding. Caches that
store fewer bits are counted too, but not judged.
Read ``WritingVerifier.questions`` first.

B examples of a batch, S source length, T target length, V vocabulary.
"""

import math
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from itertools import zip_longest

import torch
from torch import Tensor

from dragoman.data.padding import padded
from dragoman.decode.constraints.beginning import Beginning, ForcedBeginning
from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.defaults import BEAM
from dragoman.decode.precision import prepare_for_inference, resolve_auto
from dragoman.decode.search.batching import search_all
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.ranking import first_largest
from dragoman.decode.search.search import SearchBatch, SearchConfig
from dragoman.decode.search.strategy import Hypothesis, LengthLimit
from dragoman.decode.search.task import SearchTask, translation_task
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
    compiled_program,
    largest,
    own_precision,
    shuffled,
    tolerance,
    within,
    written_out,
)
from dragoman.decode.verify.inputs import ContinuationInputs, IdRows, ImageInputs, TranslationInputs, VerifyInputs
from dragoman.errors import ConfigError
from dragoman.model.caches.cache import DEFAULT, Cache, examples, parse_cache
from dragoman.model.interface import SequenceModel
from dragoman.model.prefixed import PrefixedTransformer
from dragoman.model.transformer import Transformer
from dragoman.text.tokens.tokenizer import BOS, EOS, Tokenizer

Answers = Sequence[Hypothesis] | Sequence[CheckIds]

REFERENCE = parse_cache("growing")
CACHES = examples()
"""Caches to check. Those that are exact for the model are judged; of the others only the agreement is reported."""


def random_rows(vocabulary: int, count: int, longest: int | None = None) -> list[list[int]]:
    """Return sources of 2 to 30 random tokens; the same ones every time."""
    draw, most = random.Random(0), min(longest or 30, 30) - 1
    return [[*(draw.randrange(EOS + 1, vocabulary) for _ in range(draw.randint(1, most))), EOS] for _ in range(count)]


def random_beginnings(vocabulary: int, count: int, longest: int | None = None) -> list[list[int]]:
    """Return random prompts, with room for a continuation; the same ones every time."""
    return [[BOS, *row[:-1]] for row in random_rows(vocabulary, count, longest and longest // 2)]


class WritingVerifier(Verifier):
    """The checks of a model that translates or continues texts.

    Args:
        model: it is left in evaluation mode.
        tokenizer: tokenizer of the target side.
        rows: ids of sources, each with its EOS; for a model without an encoder, of prompts, each from BOS on.
        beam: hypotheses kept in beam search; with 1 there is only greedy search.
        batch: examples run at a time, except in the reference.
        compiled: also compile the model, which takes a minute.
        max_new_tokens: most tokens of an answer; None for what the search allows, or ``LONGEST`` of a continuation.
    """

    def __init__(
        self,
        model: SequenceModel,
        tokenizer: Tokenizer,
        rows: IdRows,
        *,
        beam: int = BEAM,
        batch: int = 32,
        compiled: bool = False,
        max_new_tokens: int | None = None,
    ):
        self.model, self.batch, self.compiled = model.eval(), batch, compiled
        self.inputs = _inputs_of(model)(rows, model.device)
        self.rows, self.dtype = self.inputs.rows, next(model.parameters()).dtype
        self.vocabulary = SpelledVocabulary(tokenizer)
        limit = self.inputs.limit if max_new_tokens is None else LengthLimit(tokens=max_new_tokens)
        self.beams = Beam(size=beam, nbest=beam, limit=limit) if beam > 1 else Greedy(limit=limit)
        self.searches: dict[str, SearchConfig] = {"greedy": Greedy(limit=limit)}
        if beam > 1:
            self.searches[f"beam {beam}"] = Beam(size=beam, limit=limit)
        self.prepare_for_inference = cache(
            lambda precision: prepare_for_inference(deepcopy(model), str(model.device), precision)
        )
        self.prepared = self.prepare_for_inference(own_precision(self.dtype))
        self.closeness = 10 * max(tolerance(self.dtype), 1e-5)
        """Largest allowed difference of a token's log-probabilities, see ``log_prob_difference``."""
        self.reference = cache(
            lambda searched: self.answers(self.searches[searched], policy=REFERENCE, batch=1, model=self.model)
        )

    @property
    def examples(self) -> int:
        return len(self.rows)

    def questions(self) -> list[CheckQuestion]:
        found = []
        for searched, cfg in self.searches.items():
            strategies = {
                f"in batches of {self.batch}": partial(self.answers, cfg),
                "in another order": partial(self.shuffled, cfg),
                "merged batches": partial(self.merged_batches, cfg),
                f"with {PADDING} more columns of padding": partial(self.answers, cfg, extra=PADDING),
                "explicit attention": partial(self.written_out, cfg),
            }
            if isinstance(self.inputs, ContinuationInputs):
                del strategies["merged batches"]  # batches of continuations are never merged
            found += [
                CheckQuestion(name, searched, partial(self.compare, name, searched, ask))
                for name, ask in strategies.items()
            ]
            found += [CheckQuestion(f"cache {text}", searched, partial(self.cached, text, searched)) for text in CACHES]
            found += [
                CheckQuestion(f"run in {name}", searched, partial(self.run_in, name, searched)) for name in PRECISIONS
            ]
            for name, policy in {"repeated": DEFAULT, "repeated, cache growing": REFERENCE}.items():
                found.append(CheckQuestion(name, searched, partial(self.repeated_run, name, searched, policy)))
        for name, ask in {"without a cache": self.without_cache, "forced prefix": self.forced_prefixes}.items():
            found.append(CheckQuestion(name, "greedy", partial(self.compare, name, "greedy", ask)))
        found += [CheckQuestion(f"cache {text}", "logits", partial(self.logits, text)) for text in ["growing", *CACHES]]
        found.append(CheckQuestion("n-best lists", "scores", self.scores))
        found.append(CheckQuestion("compiled", "logits", self.compiled_forward))
        return found

    # ---- ways of running the model ----

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
        """Return the best answer to each row, by default of the prepared model; add ``extra`` columns of padding."""
        found, rows = [], self.rows if rows is None else rows
        for group in batches(rows, batch or self.batch):
            found += self.inputs.search(model or self.prepared, group, cfg, policy, extra=extra)
        return [hypotheses[0] for hypotheses in found]

    def shuffled(self, cfg: SearchConfig) -> list[Hypothesis]:
        return shuffled(self.rows, lambda rows: self.answers(cfg, rows=rows))

    def merged_batches(self, cfg: SearchConfig) -> list[Hypothesis]:
        """Search in small batches that are merged when half of their sentences are done.

        Where all sentences end together, as those of an untrained model do at the limit, batches of a sentence or two
        are joined that began one after the other.

        Raises:
            ConfigError: no batches were merged, because there is one sentence, or each ends at once.
        """
        merged: list[SearchBatch] = []
        task = translation_task(self.prepared, self.rows, lambda *_: (cfg, []))
        counted = replace(task, start=partial(_start_counting, task.start, merged))
        few = max(2, min(self.batch // 4, len(self.rows) // 3))
        found = [hypotheses[0] for hypotheses in search_all(counted, few * max(map(len, self.rows)))]
        if not merged:
            pairs = batches(range(len(self.rows)), max(1, min(2, len(self.rows) // 2)))
            found = [
                h for older, younger in zip_longest(pairs[::2], pairs[1::2]) for h in _joined(counted, older, younger)
            ]
        if not merged:
            raise ConfigError("no batches were merged: it takes more sentences")
        return found

    def written_out(self, cfg: SearchConfig) -> list[Hypothesis]:
        with written_out(self.prepared):
            return self.answers(cfg)

    def forced_prefixes(self) -> list[Hypothesis]:
        """Search greedily, with the first half of each reference answer as a forced prefix."""
        found, half = [], [h.tokens[: len(h.tokens) // 2] for h in self.reference("greedy")]
        for group, begins in zip(batches(self.rows, self.batch), batches(half, self.batch), strict=True):
            rule = ForcedBeginning([Beginning(ids) for ids in begins], self.vocabulary, self.inputs.device)
            found += self.inputs.search(self.prepared, group, self.searches["greedy"], rules=[rule])
        return [hypotheses[0] for hypotheses in found]

    def without_cache(self) -> list[CheckIds]:
        """Search greedily without a cache: each token reads everything again."""
        found = []
        for group in batches(self.rows, self.batch):
            limits = self.inputs.limits(self.model, group, self.searches["greedy"])
            most = torch.tensor(limits, device=self.inputs.device)
            emitted, next_one = most.new_empty((len(group), 0)), most.new_full((len(group), 1), EOS)
            ended = torch.zeros_like(most, dtype=torch.bool)
            while not ended.all():
                logits = self.inputs.at_once(self.prepared, group, torch.cat([emitted, next_one], dim=1))
                token = first_largest(logits[:, -1, EOS:]) + EOS
                token = token.masked_fill(ended | (most <= emitted.shape[1] + 1), EOS)
                emitted, ended = torch.cat([emitted, token[:, None]], dim=1), ended | (token == EOS)
            found += [tuple(row[: row.index(EOS) + 1]) for row in emitted.tolist()]
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
        """Compare the answers of ``ask`` with ``wanted``, by default the reference's.

        The tokens must be the same and, unless this way rounds more, the log-probability of each token.
        """
        wanted = wanted or self.reference(searched)
        pairs = list(zip(wanted, ask(), strict=True))
        found = [self.failure(row, *pair, most=self.closeness if exact else None) for row, pair in enumerate(pairs, 1)]
        differences = [abs(w.score - g.score) for w, g in pairs if isinstance(g, Hypothesis)]
        return Check(
            name,
            searched,
            same=found.count(None),
            of=len(found),
            exact=exact,
            difference=sum(differences) / max(1, len(differences)),
            failure=next(filter(None, found), None),
        )

    def failure(
        self, row: int, wanted: Hypothesis, got: Hypothesis | CheckIds, most: float | None
    ) -> CheckFailure | None:
        """Return None for the same tokens whose log-probabilities, where known, differ by ``most`` or less."""
        ids = got if isinstance(got, tuple) else got.tokens
        if wanted.tokens != ids:
            return CheckFailure(row, wanted.tokens, ids)
        if most is None or isinstance(got, tuple):
            return None
        difference = log_prob_difference(wanted.token_log_probs, got.token_log_probs)
        return None if difference <= most else CheckFailure(row, wanted.tokens, ids, difference)

    def repeated_run(self, name: str, searched: str, policy: Cache) -> Check:
        """Check that the model gives the same answers twice, in the precision that commands choose by default."""
        model = self.prepare_for_inference(resolve_auto(str(self.model.device), "auto")[1])
        ask = partial(self.answers, self.searches[searched], policy=policy, model=model)
        return self.compare(name, searched, ask, wanted=ask())

    def cached(self, text: str, searched: str) -> Check:
        self.check_keys()
        ask = partial(self.answers, self.searches[searched], policy=parse_cache(text))
        return self.compare(f"cache {text}", searched, ask, self.is_exact(text))

    def run_in(self, precision: str, searched: str) -> Check:
        """Check the model as ``Translator`` and ``Generator`` prepare it."""
        exact = getattr(torch, precision) == self.dtype
        ask = partial(self.answers, self.searches[searched], model=self.prepare_for_inference(precision))
        return self.compare(f"run in {precision}", searched, ask, exact)

    def logits(self, text: str) -> Check:
        """Compare the logits of the greedy answers, computed token by token, with those of one forward pass."""
        if text != "growing":
            self.check_keys()
        policy = parse_cache(text)
        compute = partial(self.inputs.one_by_one, self.prepared, policy=policy)
        return self.compare_logits(f"cache {text}", compute, self.is_exact(text))

    def compiled_forward(self) -> Check:
        compute = partial(self.inputs.at_once, compiled_program(self.compiled, self.model.forward, fullgraph=True))
        # one batch size alone: every other one would be compiled again
        return self.compare_logits("compiled", compute, exact=True, rows=COMPILED)

    def compare_logits(self, name: str, compute: Callable[..., Tensor], exact: bool, rows: int | None = None) -> Check:
        """Compare the logits of all answers, or of the first ``rows`` in one batch.

        The difference is infinite for another shape.
        """
        answers, batch = [h.tokens for h in self.reference("greedy")][:rows], rows or self.batch
        differences: list[float] = []
        for group, target_ids in zip(batches(self.rows[:rows], batch), batches(answers, batch), strict=True):
            target = padded(target_ids, self.inputs.device)
            wanted = self.inputs.at_once(self.model, group, target).double()
            got, size = compute(group, target).double(), wanted.abs().amax(dim=2).clamp(min=1.0)
            if got.shape != wanted.shape:
                differences += [math.inf] * len(group)
                continue
            relative = (got - wanted).abs().amax(dim=2) / size  # (B, T)
            differences += [float(row[: len(ids)].max()) for row, ids in zip(relative, target_ids, strict=True)]
        return within(name, "logits", answers, differences, tolerance(self.dtype), exact)

    def scores(self) -> Check:
        """Compare the log-probabilities in n-best lists with those of reading the answers in one forward pass."""
        lists = [group for rows in batches(self.rows, self.batch) for group in self.lists(rows)]
        flat = [(row, h) for row, group in zip(self.rows, lists, strict=True) for h in group]
        read = iter(self.inputs.log_probs(self.prepared, [row for row, _ in flat], [h.tokens for _, h in flat]))
        differences, best = [], [group[0].tokens for group in lists]
        for group in lists:
            differences.append(largest(log_prob_difference(h.token_log_probs, next(read)) for h in group))
        return within("n-best lists", "scores", best, differences, self.closeness, exact=True)

    def lists(self, rows: IdRows) -> list[list[Hypothesis]]:
        return self.inputs.search(self.prepared, rows, self.beams)

    def check_keys(self) -> None:
        """Check that the kind of cache makes a difference.

        Raises:
            ConfigError: the model keeps no keys and values.
        """
        if not self.model.keeps_keys:
            raise ConfigError("it keeps no keys and values")

    def is_exact(self, text: str) -> bool:
        chosen = parse_cache(text)
        writer = self.model.decoder if isinstance(self.model, PrefixedTransformer) else self.model
        sees_as_trained = not isinstance(writer, Transformer) or writer.decoder.sees_as_trained(chosen)
        return chosen.storage.is_exact(self.dtype) and sees_as_trained


def _start_counting(
    start: Callable[[Sequence[int]], SearchBatch], merged: list[SearchBatch], numbers: Sequence[int]
) -> SearchBatch:
    """Return a batch that notes in ``merged`` each batch that joins it."""
    batch = start(numbers)
    join = batch.join

    def counted(other: SearchBatch) -> None:
        join(other)
        merged.append(other)

    batch.join = counted
    return batch


def _joined(task: SearchTask, older: Sequence[int], younger: Sequence[int] | None) -> list[Hypothesis]:
    """Return the best answers to two batches that are joined when one has made two steps and the other one."""
    running = [task.start(numbers) for numbers in (older, younger) if numbers]
    with task.model.without_dropout():
        for batch, steps in zip(running, (2, 1), strict=False):
            while batch.steps < steps and batch.step():
                pass
        if len(running) == 2 and all(batch.choice is not None for batch in running):
            running[0].join(running.pop())
        for batch in running:
            while batch.choice is not None and batch.step():
                pass
    return [hypotheses[0] for batch in running for hypotheses in batch.strategy.results()]


def log_prob_difference(wanted: Sequence[float], got: Sequence[float]) -> float:
    """Return the largest difference of a token's log-probabilities.

    It is relative to log-probabilities far below -1, whose logits round more.
    """
    return largest(abs(w - g) / max(1.0, abs(w)) for w, g in zip(wanted, got, strict=True))


def _inputs_of(model: SequenceModel) -> Callable[..., VerifyInputs]:
    if isinstance(model, PrefixedTransformer):
        return ImageInputs
    return TranslationInputs if translates(model) else ContinuationInputs


def translates(model: SequenceModel) -> bool:
    """Return whether the model needs a source; else it continues texts."""
    try:
        model.start(None)
    except ValueError:
        return True
    return False
