"""Continuations: how one search for them is set up, and what becomes of its results."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch

from dragoman.decode.brief import quoted
from dragoman.decode.constraints.repetition import RuleConfig
from dragoman.decode.constraints.utf8 import REPLACEMENT, Utf8Rule, Utf8Table, search_whole_characters
from dragoman.decode.detokenizer import StopAt, TextStream
from dragoman.decode.prompt import EncodedPrompt, PromptAfterImage, PromptReader
from dragoman.decode.search.minimum_risk import MinimumBayesRisk
from dragoman.decode.search.rule import Rule, SearchStart
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import SearchBatch, SearchConfig, beams_of, own_seeds
from dragoman.decode.search.strategy import Hypothesis
from dragoman.decode.search.task import Progress, Searcher, SearchTask
from dragoman.decode.search.teacher_forcing import batches_by_length, padded_in_front
from dragoman.errors import ConfigError, DataError
from dragoman.model.caches.cache import parse_cache
from dragoman.model.caches.state import KVPolicy
from dragoman.model.interface import SequenceModel
from dragoman.text.lines import check_surrogates
from dragoman.text.tokens.tokenizer import EOS

EndReason = Literal["end", "stop", "length"]
"""Reason why a continuation ended: the model's end token, a stop string, or the limit of tokens."""


@dataclass(frozen=True, repr=False)
class Continuation:
    """One continuation of a prompt."""

    text: str
    """Text after the prompt, up to its end or to the first stop string."""
    ended: EndReason
    score: float
    """Value that continuations are ranked by: the log-probability, corrected for length by the search."""
    log_prob: float
    """Natural logarithm of the probability of its tokens."""
    tokens: tuple[int, ...]
    """Ends with EOS or another token that ends a text of this model, if the model ended it."""
    token_log_probs: tuple[float, ...]

    def __repr__(self) -> str:
        return f"Continuation({quoted(self.text)}, ended by {self.ended}, score={self.score:.3g})"


class GenerationJob:
    """The settings of continuations and their steps, for those who search by themselves."""

    def __init__(
        self,
        model: SequenceModel,
        prompts: PromptReader,
        searcher: Searcher,
        cfg: SearchConfig,
        max_tokens: int,
        endings: tuple[tuple[str, ...], tuple[int, ...]],
        rules: Sequence[RuleConfig],
        cache: str | KVPolicy,
    ):
        if max_tokens < 1:
            raise ConfigError(f"max_new_tokens: must be at least 1, got {max_tokens}")
        stops, ends = endings
        if "" in stops:
            raise ConfigError("stop: an empty text occurs everywhere; give texts that a continuation must not contain")
        if isinstance(cfg, MinimumBayesRisk):
            raise ConfigError("search: minimum Bayes risk compares translations; continuations need another search")
        self.model, self.prompts, self.searcher = model, prompts, searcher
        self.tokenizer = tokenizer = prompts.tokenizer
        self.cfg, self.max_tokens, self.stops, self.rules = cfg, max_tokens, stops, rules
        self.ends = tuple(dict.fromkeys((*tokenizer.ends, *ends)))
        """Tokens that end a continuation, besides EOS."""
        self.policy = parse_cache(cache) if isinstance(cache, str) else cache
        self.device = model.device
        self.as_original = not cfg.draws and tokenizer.template is not None
        """An imported model chooses the tokens that it chooses elsewhere, bytes that are no character included; its
        text leaves these out."""

    def readable_text(self, text: str) -> str:
        """Return ``text`` without bytes that are no character, where the model may have chosen such."""
        return text.replace(REPLACEMENT, "") if self.as_original else text

    @cached_property
    def utf8(self) -> Utf8Table | None:
        """Table of the UTF-8 rule; None where the vocabulary is not of bytes."""
        return Utf8Table.of(self.tokenizer, self.device)

    @property
    def beams(self) -> int:
        """Rows of each prompt."""
        return beams_of(self.cfg)

    def encode(self, prompt: str | EncodedPrompt, row: int) -> list[int]:
        """Return the ids of a prompt, as ``PromptReader.ids``.

        Raises:
            DataError: half of a surrogate pair, or more tokens than the model reads.
        """
        check_surrogates(text_of(prompt), f"prompt {row}")
        ids = self.prompts.ids(prompt)
        max_tokens = self.model.max_length
        if max_tokens is not None and len(ids) > max_tokens:
            raise DataError(f"prompt {row}: {len(ids)} tokens, and the model reads {max_tokens}: shorten it")
        return ids

    def batch(
        self, rows: Sequence[Sequence[int]], seeds: Sequence[int] | None, whole_characters: bool = True
    ) -> SearchBatch:
        """Return a batch of these prompts before its first step.

        ``whole_characters`` adds the rule of ``utf8``, as ``results`` describes.
        """
        prompt = padded_in_front(rows, self.device)
        ids, start = prompt.ids, SearchStart(prompt.ids, ends=self.ends)
        rules: list[Rule] = [rule.start(start) for rule in self.rules]
        if self.stops:
            rules.append(StopAt(self.stops, self.tokenizer, ids))
        limits = [self.limit(len(row)) for row in rows]
        if whole_characters and self.utf8 is not None:
            rules.append(Utf8Rule(self.utf8, len(rows), [1 + most for most in limits], alone=not rules))
        own = own_seeds(ids) if seeds is None and self.cfg.draws else seeds or ()
        strategy = self.cfg.start(limits, self.device, own)
        strategy.continue_text(self.ends)
        images = [row.image for row in rows if isinstance(row, PromptAfterImage)]
        source = torch.stack(images).to(self.device) if images else None
        return SearchBatch(self.model, source, prompt, self.cfg, strategy, self.policy, rules)

    def limit(self, length: int) -> int:
        """Return the most tokens of a continuation, its end included, where the model gives one."""
        max_tokens = self.model.max_length
        return self.max_tokens if max_tokens is None else max(1, min(self.max_tokens, max_tokens - length))

    def results(
        self,
        rows: Sequence[Sequence[int]],
        seeds: Sequence[int] | None,
        batch_tokens: int,
        progress: Progress = lambda done: None,
    ) -> list[list[Hypothesis]]:
        """Return the hypotheses of each prompt, searched again under the rule of ``utf8`` where it was broken."""

        def search(numbers: Sequence[int], whole_characters: bool, progress: Progress) -> list[list[Hypothesis]]:
            own = None if seeds is None else [seeds[i] for i in numbers]
            task = self.task([rows[i] for i in numbers], own, whole_characters)
            return self.searcher(task, batch_tokens, progress=progress)

        return search_whole_characters(search, len(rows), self.is_broken, draws=self.cfg.draws, progress=progress)

    def is_broken(self, hypotheses: Sequence[Hypothesis]) -> bool:
        """Return whether tokens spell bytes that form no character, where these are not to be kept."""
        return not self.as_original and any(REPLACEMENT in self.tokenizer.decode(h.tokens) for h in hypotheses)

    def task(
        self, rows: Sequence[Sequence[int]], seeds: Sequence[int] | None, whole_characters: bool = True
    ) -> SearchTask:
        """Return the task of continuing these prompts once."""

        def start(numbers: Sequence[int]) -> SearchBatch:
            own = None if seeds is None else [seeds[i] for i in numbers]
            return self.batch([rows[i] for i in numbers], own, whole_characters)

        kind = (_without_seed(self.cfg), tuple(self.rules), self.stops, self.ends, whole_characters, self.policy)
        return SearchTask(self.model, rows, [self.limit(len(row)) for row in rows], self.beams, start, kind)

    def to_continuation(self, row: list[int], found: Hypothesis) -> Continuation:
        """Decode a hypothesis, up to its end or a stop string."""
        stream, has_end = TextStream(self.tokenizer, row, self.stops), found.tokens[-1] in (EOS, *self.ends)
        text = "".join(map(stream.add, found.tokens[:-1] if has_end else found.tokens)) + stream.rest()
        ended: EndReason = "stop" if stream.stopped else "end" if has_end else "length"
        log_probs = found.token_log_probs
        return Continuation(self.readable_text(text), ended, found.score, found.log_prob, found.tokens, log_probs)


def search_by_length(
    task: SearchTask, batch_tokens: int, *, progress: Progress = lambda done: None
) -> list[list[Hypothesis]]:
    """Search prompts in batches of similar length, one batch after the other; see ``Searcher``."""
    found: list[list[Hypothesis]] = [[] for _ in task.rows]
    lengths, done = [len(row) + limit for row, limit in zip(task.rows, task.limits, strict=True)], 0
    with task.model.without_dropout():
        for numbers in batches_by_length(lengths, batch_tokens):
            batch = task.start(numbers)
            while batch.step():
                pass
            for i, hypotheses in zip(numbers, batch.strategy.results(), strict=True):
                found[i] = hypotheses
            done += len(numbers)
            progress(done)
    return found


def _without_seed(cfg: SearchConfig) -> SearchConfig:
    """Return the search without its seed: each row carries its own."""
    return replace(cfg, seed=0) if isinstance(cfg, Sample) else cfg


def text_of(prompt: str | EncodedPrompt) -> str:
    return prompt.text if isinstance(prompt, EncodedPrompt) else prompt
