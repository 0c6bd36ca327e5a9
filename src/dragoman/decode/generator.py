"""Generator: text from a language model that continues a prompt, complete or as a stream."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.capabilities import CONTINUES, DESCRIBES, check
from dragoman.checkpoint import load_writer
from dragoman.data.material import ImageMaterial
from dragoman.decode.arguments import check_count, check_integer, check_integers, check_items, check_strings, check_text
from dragoman.decode.brief import described, html_table, quoted
from dragoman.decode.constraints.repetition import RuleConfig, check_rules
from dragoman.decode.continuation import Continuation, GenerationJob, search_by_length, text_of
from dragoman.decode.detokenizer import TextStream
from dragoman.decode.generation_settings import NO_SETTINGS, read_generation_settings
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.prompt import EncodedPrompt, PromptAfterImage, PromptReader
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import SearchConfig, can_stream, check_search
from dragoman.decode.search.task import Searcher
from dragoman.errors import ConfigError
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import KVPolicy
from dragoman.model.inputs import PatchInput
from dragoman.model.interface import SequenceModel
from dragoman.model.prefixed import PrefixedTransformer
from dragoman.text.formats.instructions import between_of_run
from dragoman.text.tokens.tokenizer import Tokenizer

MAX_NEW_TOKENS = 256
"""Default limit of a continuation's tokens."""
BATCH_TOKENS = 8192
"""Tokens of prompts and continuations at a time, times the hypotheses of each."""


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
        self.prompts = PromptReader(tokenizer)
        """Reader of prompts: it completes those of a model that learned from instructions."""
        self.searcher: Searcher = search_by_length
        """Decides which prompts are searched together."""
        self.defaults = NO_SETTINGS
        """Settings that hold where none are chosen: those that came with an imported model."""
        self.images: ImageMaterial | None = None
        """Converter of the images that the model reads before its text; None where it reads none."""
        if isinstance(model, PrefixedTransformer):
            self.images = _images_of(model, resize=False)
            return
        try:
            model.start(None)
        except ValueError as error:
            raise ConfigError(f"{error}: use `dragoman translate`, or Translator") from None

    def __repr__(self) -> str:
        return described(self, self.model, {"vocabulary": len(self.tokenizer)})

    @classmethod
    def load(
        cls,
        run: str | Path,
        checkpoint: str | int = "best",
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
        model, _, tokenizer, config = load_writer(run, checkpoint)
        check(run, model, DESCRIBES if isinstance(model, PrefixedTransformer) else CONTINUES)
        defaults = read_generation_settings(run, tokenizer)
        if special_tokens:
            tokenizer = tokenizer.with_special_tokens()
        generator = cls(prepare_for_inference(model, device, precision), tokenizer)
        generator.defaults, generator.prompts = defaults, PromptReader(tokenizer, between_of_run(config))
        if isinstance(model, PrefixedTransformer):
            data = config.get("data") or {}
            generator.images = _images_of(model, resize=data.get("other_sizes") == "resize")
        return generator

    def generate(
        self,
        prompts: Sequence[str | EncodedPrompt],
        *,
        images: Sequence[Any] | None = None,
        search: SearchConfig | None = None,
        max_new_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        ends: Sequence[int] = (),
        rules: Sequence[RuleConfig] | None = None,
        seeds: Sequence[int] | None = None,
        cache: str | KVPolicy = DEFAULT,
        batch_tokens: int = BATCH_TOKENS,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Generation]:
        """Continue each prompt, in batches of similar length; the batch never changes a continuation.

        Args:
            prompts: beginnings, taken as they are; an empty one starts a text. A model that learned from instructions
                reads ``data.between`` after each that does not end with it. An ``EncodedPrompt``, such as a
                conversation (``ChatTemplate.encode``), gives its ids itself.
            images: an image before each prompt, as a path, the bytes of a file, an image of Pillow or an array
                (``ImageMaterial``), for a model that was trained to read one; the prompts may be empty.
            search: how to choose tokens; its ``limit`` is ignored. By default as ``defaults`` says, or else one sample
                of the model's own distribution.
            max_new_tokens: most tokens of each continuation, its end included; fewer where the model can read no
                more. By default as ``defaults`` says, or else 256.
            stop: a string before which a continuation ends, or several.
            ends: ids of tokens that end a continuation, besides those that end every text of the model; unknown ones
                end none.
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
            TypeError: a prompt, search, rule, stop string, ... that is none.
        """
        if isinstance(prompts, str):
            raise TypeError("prompts: a list of strings is wanted, for one prompt [prompt]")
        prompts = check_items(prompts, "prompts", kinds=(str, EncodedPrompt))
        job = self.job(search, max_new_tokens, (stop, ends), rules, cache)
        batch_tokens = check_count(batch_tokens, "batch_tokens")
        if seeds is not None:
            seeds = check_integers(seeds, "seeds", what="whole numbers")
            if len(seeds) != len(prompts):
                raise ConfigError(f"seeds: {len(seeds)} for {len(prompts)} prompts: give one for each")
        rows = self._after_images([job.encode(prompt, row) for row, prompt in enumerate(prompts, 1)], images)

        def report(done: int) -> None:
            if progress:
                progress(done, len(rows))

        results = job.results(rows, seeds, batch_tokens // job.cfg.size, report)
        return [
            Generation(text_of(prompt), tuple(job.to_continuation(row, h) for h in hypotheses))
            for prompt, row, hypotheses in zip(prompts, rows, results, strict=True)
        ]

    def stream(
        self,
        prompt: str | EncodedPrompt,
        *,
        search: SearchConfig | None = None,
        max_new_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        ends: Sequence[int] = (),
        rules: Sequence[RuleConfig] | None = None,
        seed: int | None = None,
        cache: str | KVPolicy = DEFAULT,
        image: Any = None,
    ) -> Iterator[str]:
        """Yield the text of ``generate`` in pieces, each as soon as it is complete: never half a character.

        Raises:
            ConfigError: a search with several hypotheses, whose text is not known until the end.
        """
        job = self.job(search, max_new_tokens, (stop, ends), rules, cache)
        if not can_stream(job.cfg):
            raise ConfigError("search: only greedy search and one sample can be streamed: choose one of them")
        check_text(text_of(prompt), "prompt")
        row = self._after_images([job.encode(prompt, 1)], None if image is None else [image])[0]
        return self._stream_pieces(job, row, None if seed is None else [check_integer(seed, "seed")])

    def _after_images(self, rows: list[list[int]], images: Sequence[Any] | None) -> list[list[int]]:
        """Return the rows, each with the image before it.

        Raises:
            ConfigError: images for a model that reads none, or none for one that does.
            DataError: an image that the model cannot read.
        """
        if self.images is None:
            if images is not None:
                raise ConfigError("images: this model reads text alone: leave them out")
            return rows
        if images is None:
            raise ConfigError("images: this model reads an image before its text: give one (--image)")
        if len(images) != len(rows):
            raise ConfigError(f"images: {len(images)} for {len(rows)} prompts: give one for each")
        places = [str(one) if isinstance(one, str | Path) else f"image {i}" for i, one in enumerate(images, 1)]
        batch = self.images.collate(self.images.rows(images, places))
        return [PromptAfterImage(row, image) for row, image in zip(rows, batch, strict=True)]

    def using(self, searcher: Searcher) -> "Generator":
        """Return a generator with the same model that leaves it to ``searcher`` which prompts are searched together."""
        other = copy.copy(self)
        other.searcher = searcher
        return other

    def job(
        self,
        search: SearchConfig | None,
        max_new_tokens: int | None,
        endings: tuple[str | Sequence[str], Sequence[int]],
        rules: Sequence[RuleConfig] | None,
        cache: str | KVPolicy,
    ) -> GenerationJob:
        """Return a job with ``defaults`` where nothing is given.

        Raises:
            TypeError, ConfigError: as ``generate``.
        """
        defaults = self.defaults
        stop, ends = check_strings(endings[0], "stop"), check_integers(endings[1], "ends", what="ids of tokens")
        rules = None if rules is None else check_rules(rules)
        parts = self.model, self.prompts, self.searcher
        if max_new_tokens is None:
            most = defaults.max_new_tokens or MAX_NEW_TOKENS
        else:
            most = check_count(max_new_tokens, "max_new_tokens")
        if search is None:
            stop, rules = (*stop, *defaults.stop), defaults.rules if rules is None else rules
        cfg = defaults.search or Sample() if search is None else check_search(search)
        return GenerationJob(*parts, cfg, most, (stop, ends), rules or (), cache)

    def _stream_pieces(self, job: GenerationJob, row: list[int], seeds: list[int] | None) -> Iterator[str]:
        text = TextStream(self.tokenizer, row, job.stops)
        batch, goes_on = job.batch([row], seeds, not job.as_original), True
        with self.model.without_dropout():
            while goes_on:
                goes_on = batch.step() is not None
                tokens = [new.token for new in batch.strategy.newest(1)]
                if piece := job.readable_text("".join(text.add(t) for t in tokens if t not in batch.strategy.ends)):
                    yield piece
        batch.strategy.results()  # which raises where the text is no answer
        if piece := job.readable_text(text.rest()):
            yield piece


def _images_of(model: PrefixedTransformer, *, resize: bool) -> ImageMaterial:
    inputs = model.cfg.encoder.inputs
    if not isinstance(inputs, PatchInput):
        raise ConfigError("this model reads frames before its text, and only images can be given here")
    return ImageMaterial(inputs, resize=resize)
