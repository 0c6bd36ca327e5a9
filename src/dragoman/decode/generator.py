"""Generator: text from a language model that continues a prompt, complete or as a stream."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from dragoman.capabilities import CONTINUES, check
from dragoman.checkpoint import load_model
from dragoman.decode.arguments import check_items, check_text
from dragoman.decode.brief import described, html_table, quoted
from dragoman.decode.constraints.repetition import RuleConfig
from dragoman.decode.constraints.utf8 import REPLACEMENT, Utf8Rule, Utf8Table
from dragoman.decode.detokenizer import EndAfter, StopAt, TextStream
from dragoman.decode.generation_settings import NO_SETTINGS, read_generation_settings
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.prompt import EncodedPrompt
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
"""Default limit of a continuation's tokens."""
BATCH_TOKENS = 8192
"""Tokens of prompts and continuations at a time, times the hypotheses of each."""

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
    """Natural logarithm of its probability, its end included."""
    tokens: tuple[int, ...]
    """Ends with EOS, or with another token that ends a text of this model."""
    token_log_probs: tuple[float, ...]

    def __repr__(self) -> str:
        return f"Continuation({quoted(self.text)}, ended by {self.ended}, score={self.score:.3g})"


@dataclass(frozen=True, repr=False)
class Generation:
    """A prompt with its continuations."""

    prompt: str
    continuations: tuple[Continuation, ...]
    """Continuations, best first, as many as the search returns."""

    @property
    def text(self) -> str:
        """Text of the best continuation."""
        return self.continuations[0].text

    def __repr__(self) -> str:
        more = f", {len(self.continuations)} continuations" if len(self.continuations) > 1 else ""
        return f"Generation({quoted(self.prompt)} -> {quoted(self.text)}{more})"

    def _repr_html_(self) -> str:
        head, prompts = ("prompt", "continuation", "score", "ended by"), [self.prompt, *[""] * len(self.continuations)]
        rows = zip(prompts, self.continuations, strict=False)
        return html_table(head, ((p, c.text, f"{c.score:.3f}", c.ended) for p, c in rows))


class Generator:
    """A language model with its tokenizer."""

    def __init__(self, model: SequenceModel, tokenizer: Tokenizer):
        """
        Raises:
            ConfigError: a model that translates.
        """
        self.model, self.tokenizer = model, tokenizer
        self.defaults = NO_SETTINGS
        """Settings that hold where none are chosen: those that came with an imported model."""

    def __repr__(self) -> str:
        return described(self, self.model, {"vocabulary": len(self.tokenizer)})
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
        """Load the language model of a run; the other arguments are those of ``Translator.load``.

        Args:
            special_tokens: read the spelling of a special token in a prompt, such as <|im_start|>, as this token.

        Raises:
            CheckpointError: no such run or checkpoint, a damaged one, or one whose model continues no text.
            ConfigError: no such device or precision.
        """
        model, _, tokenizer = load_model(run, which)
        check(run, model, CONTINUES)
        defaults = read_generation_settings(run, tokenizer)
        if special_tokens:
            tokenizer = tokenizer.with_special_tokens()
        generator = cls(prepare_for_inference(model, device, precision), tokenizer)
        generator.defaults = defaults
        return generator

    def generate(
        self,
        prompts: Sequence[str | EncodedPrompt],
        *,
        search: SearchConfig | None = None,
        max_new_tokens: int | None = None,
        stop: Sequence[str] = (),
        ends: Sequence[int] = (),
        rules: Sequence[RuleConfig] | None = None,
        seeds: Sequence[int] | None = None,
        cache: str | KVPolicy = DEFAULT,
        batch_tokens: int = BATCH_TOKENS,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Generation]:
        """Continue each prompt, in batches of similar length; the batch never changes a continuation.

        Args:
            prompts: beginnings, taken as they are; an empty one starts a text. An ``EncodedPrompt``, such as a
                conversation (``ChatTemplate.encode``), gives its ids itself.
            search: how to choose tokens; its ``limit`` is ignored. By default as ``defaults`` says, or else one sample
                of the model's own distribution.
            max_new_tokens: most tokens of each continuation, its end not counted; fewer where the model can read no
                more. By default as ``defaults`` says, or else 256.
            stop: strings before the first of which a continuation ends.
            ends: ids of tokens that end a continuation, besides those that end every text of the model.
            rules: constraints on the tokens; the prompt counts as emitted. By default those of ``defaults`` where no
                search is given, or else none.
            seeds: a number for each prompt, which its samples depend on besides the seed of ``search``. By default it
                is derived from the prompt, so that equal prompts have equal samples.
            cache: what attention layers cache of the past, as ``parse_cache`` reads it.
            batch_tokens: tokens of prompts and continuations at a time, times the hypotheses of each.
            progress: called with the prompts done and their number.

        Raises:
            DataError: a prompt that the model cannot read; the message names its row.
            ConfigError: a search that needs to compare complete texts, or invalid settings.
            CheckpointError: the model's output is NaN or infinite.
        """
        if isinstance(prompts, str):
            raise TypeError("prompts: a list of strings is wanted, for one prompt [prompt]")
        prompts = check_items(prompts, "prompts", kinds=(str, EncodedPrompt))
        job = self._job(search, max_new_tokens, (tuple(stop), tuple(ends)), rules, cache)
        rows = [job.encode(prompt, row) for row, prompt in enumerate(prompts, 1)]
        found: list[Generation | None] = [None] * len(rows)
        done, lengths = 0, [len(row) + job.max_tokens for row in rows]
        for batch in batches_by_length(lengths, batch_tokens // job.cfg.size):
            own = None if seeds is None else [seeds[i] for i in batch]
            for i, hypotheses in zip(batch, job.results([rows[i] for i in batch], own), strict=True):
                found[i] = Generation(_text_of(prompts[i]), tuple(job.to_continuation(rows[i], h) for h in hypotheses))
            done += len(batch)
            if progress:
                progress(done, len(rows))
        return [generation for generation in found if generation is not None]

    def stream(
        self,
        prompt: str | EncodedPrompt,
        *,
        search: SearchConfig | None = None,
        max_new_tokens: int | None = None,
        stop: Sequence[str] = (),
        ends: Sequence[int] = (),
        rules: Sequence[RuleConfig] | None = None,
        seed: int | None = None,
        cache: str | KVPolicy = DEFAULT,
    ) -> Iterator[str]:
        """Yield the text of ``generate`` in pieces, each as soon as it is complete: never half a character.

        Raises:
            ConfigError: a search with several hypotheses, whose text is not known until the end.
        """
        job = self._job(search, max_new_tokens, (tuple(stop), tuple(ends)), rules, cache)
        if job.beams > 1:
            raise ConfigError("search: only greedy search and one sample can be streamed: choose one of them")
        check_text(_text_of(prompt), "prompt")
        row = job.encode(prompt, 1)
        return self._stream_pieces(job, row, None if seed is None else [seed])

    def _job(
        self,
        search: SearchConfig | None,
        max_new_tokens: int | None,
        endings: tuple[tuple[str, ...], tuple[int, ...]],
        rules: Sequence[RuleConfig] | None,
        cache: str | KVPolicy,
    ) -> "_GenerationJob":
        """Return a job with ``defaults`` where nothing is given."""
        defaults, (stop, ends) = self.defaults, endings
        most = defaults.max_new_tokens or MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        if search is None:
            stop, rules = (*stop, *defaults.stop), defaults.rules if rules is None else rules
        return _GenerationJob(self, search or defaults.search or Sample(), most, (stop, ends), rules or (), cache)

    def _stream_pieces(self, job: "_GenerationJob", row: list[int], seeds: list[int] | None) -> Iterator[str]:
        text = TextStream(self.tokenizer, row, job.stops)
        _, choices = job.walk([row], seeds, not job.as_original)
        for choice in choices:
            if piece := job.readable_text(text.add(int(choice.tokens[0]))):
                yield piece
        if piece := job.readable_text(text.rest()):
            yield piece


class _GenerationJob:
    """The settings of a continuation and its steps."""

    def __init__(
        self,
        generator: Generator,
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
        self.model, self.tokenizer = generator.model, generator.tokenizer
        self.cfg, self.max_tokens, self.stops, self.rules = cfg, max_tokens, stops, rules
        self.ends = tuple(dict.fromkeys((*generator.tokenizer.ends, *ends)))
        """Tokens that end a continuation, besides EOS."""
        self.policy = parse_cache(cache) if isinstance(cache, str) else cache
        self.device = generator.model.device
        self.as_original = isinstance(cfg, Greedy | Beam) and generator.tokenizer.template is not None
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
        return self.cfg.start([1], self.device, [0]).beams

    def encode(self, prompt: str | EncodedPrompt, row: int) -> list[int]:
        """Return the ids of a prompt with its frame, or those that it brings.

        Raises:
            DataError: half of a surrogate pair, or more tokens than the model reads.
        """
        try:
            _text_of(prompt).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"prompt {row}: character {error.start + 1} is half of a surrogate pair") from None
        if isinstance(prompt, str):
            ids = self.tokenizer.frame(PROMPT_FRAME).around(self.tokenizer.encode(prompt)) or [BOS]
        else:
            ids = list(prompt.ids) or [BOS]
        max_tokens = self.model.max_length
        if max_tokens is not None and len(ids) > max_tokens:
            raise DataError(f"prompt {row}: {len(ids)} tokens, and the model reads {max_tokens}: shorten it")
        return ids

    def walk(
        self, rows: list[list[int]], seeds: Sequence[int] | None, whole_characters: bool = True
    ) -> tuple[Strategy, Iterator[Choice]]:
        """Return a strategy for these prompts, and its choices as they are made.

        ``whole_characters`` adds the rule of ``utf8``, as ``results`` describes.
        """
        prompt = padded_in_front(rows, self.device)
        ids, start = prompt.ids, SearchStart(prompt.ids)
        rules: list[Rule] = [rule.start(start) for rule in self.rules]
        if self.ends:
            rules.append(EndAfter(self.ends))
        if self.stops:
            rules.append(StopAt(self.stops, self.tokenizer, ids))
        limits = [self.limit(len(row)) for row in rows]
        if whole_characters and self.utf8 is not None:
            rules.append(Utf8Rule(self.utf8, len(rows), limits, alone=not rules))
        strategy = self.cfg.start(limits, self.device, own_seeds(ids) if seeds is None else seeds)
        return strategy, walk(self.model, None, prompt, self.cfg, strategy, self.policy, rules)

    def limit(self, length: int) -> int:
        """Return the most tokens of a continuation, its end included, which the model never reads."""
        max_tokens = self.model.max_length
        return 1 + (self.max_tokens if max_tokens is None else min(self.max_tokens, max_tokens - length))

    def results(self, rows: list[list[int]], seeds: Sequence[int] | None) -> list[list[Hypothesis]]:
        """Return the hypotheses of each prompt.

        As in ``Job.search``, only searches that would break the rule of ``utf8`` are repeated under it; samples are
        drawn under it at once.
        """
        drawn = not isinstance(self.cfg, Greedy | Beam)
        found = self.search(rows, seeds, drawn)
        broken = [
            i
            for i, some in enumerate(found)
            if not (drawn or self.as_original) and any(map(self.is_invalid_utf8, some))
        ]
        if broken:
            own = None if seeds is None else [seeds[i] for i in broken]
            for i, hypotheses in zip(broken, self.search([rows[i] for i in broken], own, True), strict=True):
                found[i] = hypotheses
        return found

    def is_invalid_utf8(self, hypothesis: Hypothesis) -> bool:
        """Return whether the tokens spell bytes that form no character."""
        return REPLACEMENT in self.tokenizer.decode(hypothesis.tokens)

    def search(
        self, rows: list[list[int]], seeds: Sequence[int] | None, whole_characters: bool
    ) -> list[list[Hypothesis]]:
        """Search once; return the hypotheses of each prompt."""
        strategy, choices = self.walk(rows, seeds, whole_characters)
        for _ in choices:
            pass
        return strategy.results()

    def to_continuation(self, row: list[int], found: Hypothesis) -> Continuation:
        """Decode a hypothesis, up to its end or a stop string."""
        stream = TextStream(self.tokenizer, row, self.stops)
        text = self.readable_text("".join(map(stream.add, found.tokens[:-1])) + stream.rest())
        ended: EndReason = "stop" if stream.stopped else "length" if found.truncated else "end"
        tokens, log_probs, total = found.tokens, found.token_log_probs, found.log_prob
        if tokens[-2:-1] and tokens[-2] in self.ends:  # the text ended there; a rule then forced EOS
            tokens, log_probs, total, ended = tokens[:-1], log_probs[:-1], total - log_probs[-1], "end"
        return Continuation(text, ended, found.score, total, tokens, log_probs)


def _text_of(prompt: str | EncodedPrompt) -> str:
    return prompt.text if isinstance(prompt, EncodedPrompt) else prompt
