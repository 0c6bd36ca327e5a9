"""Beginnings in, continuations out: text from a language model, whole or as it comes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from dragoman.capabilities import CONTINUES, check
from dragoman.checkpoint import load_model
from dragoman.decode.arguments import check_items, check_text
from dragoman.decode.constraints.repetition import RuleConfig
from dragoman.decode.constraints.utf8 import REPLACEMENT, Utf8Rule, Utf8Table
from dragoman.decode.detokenizer import EndAfter, StopAt, TextStream
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.minimum_risk import MinimumBayesRisk
from dragoman.decode.search.rule import Rule, SearchStart
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import SearchConfig, own_seeds, walk
from dragoman.decode.search.strategy import Choice, Hypothesis, Strategy
from dragoman.decode.search.teacher_forcing import batches_by_length, padded_in_front
from dragoman.errors import ConfigError, DataError
from dragoman.model.caches.cache import DEFAULT, parse_cache
from dragoman.model.caches.state import KVPolicy
from dragoman.model.interface import SequenceModel
from dragoman.text.tokens.tokenizer import BOS, PROMPT_FRAME, Tokenizer

MAX_NEW_TOKENS = 256
BATCH_TOKENS = 8192
"""Tokens of prompts and continuations at a time, times the hypotheses of each."""

EndReason = Literal["end", "stop", "length"]


@dataclass(frozen=True)
class Continuation:
    text: str
    """What follows the prompt, up to its end or to the first stop string."""
    ended: EndReason
    """By itself, at a stop string, or at the limit of tokens."""
    score: float
    """What continuations are ranked by: the log-probability, corrected for length as the search was told to."""
    log_prob: float
    """Natural logarithm of its probability, its end included."""
    tokens: tuple[int, ...]
    """Ends with EOS, or with another token that ends a text of this model."""
    token_log_probs: tuple[float, ...]


@dataclass(frozen=True)
class Generation:
    prompt: str
    continuations: tuple[Continuation, ...]
    """Best first, as many as the search was asked for."""

    @property
    def text(self) -> str:
        return self.continuations[0].text


class Generator:
    """A language model with its tokenizer."""

    def __init__(self, model: SequenceModel, tokenizer: Tokenizer):
        self.model, self.tokenizer = model, tokenizer
        try:
            model.start(None)
        except ValueError as error:
            raise ConfigError(f"{error}: use `dragoman translate`, or Translator") from None

    @classmethod
    def load(
        cls,
        run: str | Path,
        which: str | int = "best",
        *,
        device: str = "auto",
        precision: str = "auto",
        special_tokens: bool = False,
    ) -> "Generator":
        """The language model that a run has trained; as ``Translator.load``.

        Args:
            special_tokens: read special tokens that are spelt out in prompts, such as <|im_start|>, as these tokens.

        Raises:
            CheckpointError: no such run or checkpoint, a damaged one, or one whose model does something else.
            ConfigError: no such device or precision.
        """
        model, _, tokenizer = load_model(run, which)
        check(run, model, CONTINUES)
        if special_tokens:
            tokenizer = tokenizer.with_special_tokens()
        return cls(prepare_for_inference(model, device, precision), tokenizer)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        search: SearchConfig | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        stop: Sequence[str] = (),
        rules: Sequence[RuleConfig] = (),
        seeds: Sequence[int] | None = None,
        cache: str | KVPolicy = DEFAULT,
        batch_tokens: int = BATCH_TOKENS,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Generation]:
        """Continue each prompt, in batches of like length; what a batch holds does not change a continuation.

        Args:
            prompts: beginnings, taken as they are; an empty one begins a text.
            search: how to choose; by default one sample of the model's own distribution. Its ``limit`` does not count.
            max_new_tokens: of each continuation, its end not counted; fewer where the model can read no more.
            stop: a continuation ends before the first of these.
            rules: what else may and may not be said; a prompt counts as said.
            seeds: for each prompt a number that its samples depend on besides the seed of ``search``; without them the
                prompt itself, so that equal prompts have equal samples.
            cache: what attention layers keep of the past, as ``parse_cache`` reads it.
            batch_tokens: tokens of prompts and continuations at a time, times the hypotheses of each.
            progress: called with the prompts done and their number.

        Raises:
            DataError: a prompt that the model cannot read; the message names its row.
            ConfigError: a search that needs to compare whole texts, or settings that make no sense.
            CheckpointError: a model whose output is not numbers.
        """
        if isinstance(prompts, str):
            raise TypeError("prompts: a list of strings is wanted, for one prompt [prompt]")
        prompts = check_items(prompts, "prompts")
        asked = _GenerationJob(self, search or Sample(), max_new_tokens, tuple(stop), rules, cache)
        rows = [asked.encoded(prompt, row) for row, prompt in enumerate(prompts, 1)]
        found: list[Generation | None] = [None] * len(rows)
        done, lengths = 0, [len(row) + max_new_tokens for row in rows]
        for batch in batches_by_length(lengths, batch_tokens // asked.cfg.size):
            own = None if seeds is None else [seeds[i] for i in batch]
            for i, hypotheses in zip(batch, asked.results([rows[i] for i in batch], own), strict=True):
                found[i] = Generation(prompts[i], tuple(asked.readable(rows[i], h) for h in hypotheses))
            done += len(batch)
            if progress:
                progress(done, len(rows))
        return [generation for generation in found if generation is not None]

    def stream(
        self,
        prompt: str,
        *,
        search: SearchConfig | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        stop: Sequence[str] = (),
        rules: Sequence[RuleConfig] = (),
        seed: int | None = None,
        cache: str | KVPolicy = DEFAULT,
    ) -> Iterator[str]:
        """The text of ``generate`` in pieces, each as soon as it is whole: never half a character.

        Raises:
            ConfigError: a search that keeps several hypotheses, whose text is not known until the end.
        """
        asked = _GenerationJob(self, search or Sample(), max_new_tokens, tuple(stop), rules, cache)
        if asked.beams > 1:
            raise ConfigError("search: only greedy search and one sample can be streamed: choose one of them")
        check_text(prompt, "prompt")
        row = asked.encoded(prompt, 1)
        return self._pieces(asked, row, None if seed is None else [seed])

    def _pieces(self, asked: "_GenerationJob", row: list[int], seeds: list[int] | None) -> Iterator[str]:
        text = TextStream(self.tokenizer, row, asked.stops)
        _, choices = asked.walk([row], seeds, not asked.as_original)
        for choice in choices:
            if piece := asked.whole(text.add(int(choice.tokens[0]))):
                yield piece
        if piece := asked.whole(text.rest()):
            yield piece


class _GenerationJob:
    """How to continue; and the steps of doing so."""

    def __init__(
        self,
        generator: Generator,
        cfg: SearchConfig,
        most: int,
        stops: tuple[str, ...],
        rules: Sequence[RuleConfig],
        cache: str | KVPolicy,
    ):
        if most < 1:
            raise ConfigError(f"max_new_tokens: must be at least 1, got {most}")
        if "" in stops:
            raise ConfigError("stop: an empty text stands everywhere; give what a continuation must not contain")
        if isinstance(cfg, MinimumBayesRisk):
            raise ConfigError("search: minimum Bayes risk compares translations; continuations need another search")
        self.model, self.tokenizer = generator.model, generator.tokenizer
        self.cfg, self.most, self.stops, self.rules = cfg, most, stops, rules
        self.policy = parse_cache(cache) if isinstance(cache, str) else cache
        self.device = generator.model.device
        self.as_original = isinstance(cfg, Greedy | Beam) and generator.tokenizer.template is not None
        """An imported model chooses the tokens that it chooses elsewhere, bytes that are no character included; its
        text leaves these out."""

    def whole(self, text: str) -> str:
        return text.replace(REPLACEMENT, "") if self.as_original else text

    @cached_property
    def utf8(self) -> Utf8Table | None:
        return Utf8Table.of(self.tokenizer, self.device)

    @property
    def beams(self) -> int:
        return self.cfg.start([1], self.device, [0]).beams

    def encoded(self, prompt: str, row: int) -> list[int]:
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"prompt {row}: character {error.start + 1} is half of a surrogate pair") from None
        ids = self.tokenizer.frame(PROMPT_FRAME).around(self.tokenizer.encode(prompt)) or [BOS]
        most = self.model.max_length
        if most is not None and len(ids) > most:
            raise DataError(f"prompt {row}: {len(ids)} tokens, and the model reads {most}: shorten it")
        return ids

    def walk(
        self, rows: list[list[int]], seeds: Sequence[int] | None, whole_characters: bool = True
    ) -> tuple[Strategy, Iterator[Choice]]:
        """A strategy for these prompts, and its choices as they are made; see ``results`` for ``whole_characters``."""
        prompt = padded_in_front(rows, self.device)
        ids, begun = prompt.ids, SearchStart(prompt.ids)
        rules: list[Rule] = [rule.start(begun) for rule in self.rules]
        if self.tokenizer.ends:
            rules.append(EndAfter(self.tokenizer.ends))
        if self.stops:
            rules.append(StopAt(self.stops, self.tokenizer, ids))
        limits = [self.limit(len(row)) for row in rows]
        if whole_characters and self.utf8 is not None:
            rules.append(Utf8Rule(self.utf8, len(rows), limits, alone=not rules))
        strategy = self.cfg.start(limits, self.device, own_seeds(ids) if seeds is None else seeds)
        return strategy, walk(self.model, None, prompt, self.cfg, strategy, self.policy, rules)

    def limit(self, length: int) -> int:
        """Tokens of a continuation, its end included, which nobody reads any more."""
        most = self.model.max_length
        return 1 + (self.most if most is None else min(self.most, most - length))

    def results(self, rows: list[list[int]], seeds: Sequence[int] | None) -> list[list[Hypothesis]]:
        """The hypotheses of each prompt. As in ``Job.searched``, the rule of ``utf8`` is only for what would break it;
        samples are drawn under it from the beginning."""
        drawn = not isinstance(self.cfg, Greedy | Beam)
        found = self.found(rows, seeds, drawn)
        broken = [
            i for i, some in enumerate(found) if not (drawn or self.as_original) and any(map(self.is_broken, some))
        ]
        if broken:
            own = None if seeds is None else [seeds[i] for i in broken]
            for i, hypotheses in zip(broken, self.found([rows[i] for i in broken], own, True), strict=True):
                found[i] = hypotheses
        return found

    def is_broken(self, hypothesis: Hypothesis) -> bool:
        return REPLACEMENT in self.tokenizer.decode(hypothesis.tokens)

    def found(self, rows: list[list[int]], seeds: Sequence[int] | None, whole: bool) -> list[list[Hypothesis]]:
        strategy, choices = self.walk(rows, seeds, whole)
        for _ in choices:
            pass
        return strategy.results()

    def readable(self, row: list[int], found: Hypothesis) -> Continuation:
        stream = TextStream(self.tokenizer, row, self.stops)
        text = self.whole("".join(map(stream.add, found.tokens[:-1])) + stream.rest())
        ended: EndReason = "stop" if stream.stopped else "length" if found.truncated else "end"
        tokens, log_probs, total = found.tokens, found.token_log_probs, found.log_prob
        if tokens[-2:-1] and tokens[-2] in self.tokenizer.ends:  # it has ended there; EOS was put behind by a rule
            tokens, log_probs, total, ended = tokens[:-1], log_probs[:-1], total - log_probs[-1], "end"
        return Continuation(text, ended, found.score, total, tokens, log_probs)
