"""Tasks: rows to search, as a searcher sees them.

A searcher decides which rows are searched together, and when. ``batching.search_all`` searches the rows of one task in
batches; the engine of ``dragoman serve`` searches those of many tasks in batches that rows join and leave.

S source length.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from dragoman.data.padding import padded
from dragoman.decode.search.rule import Rule
from dragoman.decode.search.search import SearchBatch, SearchConfig, beams_of, start_batch
from dragoman.decode.search.strategy import Hypothesis
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import KVPolicy
from dragoman.model.interface import SequenceModel

BatchFactory = Callable[[Sequence[int], Int[Tensor, "B S"]], tuple[SearchConfig, list[Rule]]]
"""Returns the search and the rules for the sentences with these indices; their kinds never differ within a task."""
Progress = Callable[[int], None]
"""Called with the number of rows done."""


@dataclass(frozen=True)
class SearchTask:
    """Rows to search, and how to start a batch of some of them."""

    model: SequenceModel
    rows: Sequence[Sequence[int]]
    """Ids that the model reads: a source with its EOS, or a prompt."""
    limits: Sequence[int]
    """Most tokens that the model writes for each row, as far as it is known before the batch starts."""
    beams: int
    """Hypotheses that a row may have at a time."""
    start: Callable[[Sequence[int]], SearchBatch]
    """Returns a batch of the rows with these indices, before its first step."""
    kind: Hashable
    """Batches of tasks of the same kind may be joined, if their search and their rules can be."""
    start_rows: Callable[[Sequence[Sequence[int]]], SearchBatch] | None = None
    """Starts a batch of any rows of tasks of this kind; None where a batch depends on more than its rows."""


@runtime_checkable
class Searcher(Protocol):
    """Searches all rows of a task; returns the hypotheses of each, best first."""

    def __call__(
        self, task: SearchTask, batch_tokens: int, *, progress: Progress = lambda done: None
    ) -> list[list[Hypothesis]]: ...


def translation_task(
    model: SequenceModel,
    rows: Sequence[Sequence[int]],
    batch_factory: BatchFactory,
    policy: KVPolicy = DEFAULT,
    *,
    cfg: SearchConfig | None = None,
    kind: Hashable = None,
    alone: bool = True,
    min_tokens: int = 0,
) -> SearchTask:
    """Return the task of translating sources.

    Args:
        model: any family; it is run without dropout.
        rows: sources in ids, each with its EOS.
        batch_factory: called for each batch that starts.
        policy: what attention layers cache of the past.
        cfg: the search, before a batch of sentences adds to it; from it follow limits and beams.
        kind: what else distinguishes tasks that cannot share a batch.
        min_tokens: fewest tokens that rules ask of a translation.
        alone: False where sentences need nothing of ``batch_factory``, so that those of any task may start together.
    """

    def start(numbers: Sequence[int]) -> SearchBatch:
        if not alone:
            return start_rows([rows[i] for i in numbers])
        source = padded([rows[i] for i in numbers], model.device)
        own, rules = batch_factory(numbers, source)
        return start_batch(model, source, own, policy, rules)

    def start_rows(some: Sequence[Sequence[int]]) -> SearchBatch:
        assert cfg is not None
        return start_batch(model, padded(some, model.device), cfg, policy, lengths=[len(row) for row in some])

    limits = [0 if cfg is None else max(cfg.limit.of(len(row)), min_tokens + 1) for row in rows]
    beams = 1 if cfg is None else beams_of(cfg)
    return SearchTask(model, rows, limits, beams, start, (cfg, policy, kind), None if alone else start_rows)
