"""Transcriber: recordings of speech in, as many texts out, in the same order.

B windows, T frames, M mel bands, P prompt length, V vocabulary.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.capabilities import TRANSCRIBES, check
from dragoman.checkpoint import load_writer
from dragoman.data.finite import finite_float32
from dragoman.data.log_mel import LogMel
from dragoman.data.wave_files import read_wave
from dragoman.decode.arguments import check_count, check_list
from dragoman.decode.brief import described, quoted
from dragoman.decode.constraints.first_token import ForbiddenFirst
from dragoman.decode.constraints.utf8 import REPLACEMENT
from dragoman.decode.generation_settings import NO_SETTINGS, read_generation_settings
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.length_penalty import Average
from dragoman.decode.search.minimum_risk import MinimumBayesRisk
from dragoman.decode.search.rule import Rule, SearchStart
from dragoman.decode.search.search import SearchBatch, SearchConfig, check_search
from dragoman.decode.search.strategy import Hypothesis
from dragoman.decode.speech_settings import SpeechPrompt, read_log_mel, read_prompt
from dragoman.decode.translation import Candidate
from dragoman.errors import ConfigError, DataError
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.inputs import FrameInput
from dragoman.model.interface import SequenceModel
from dragoman.text.tokens.tokenizer import BOS, Tokenizer

BATCH = 8
"""Windows that are heard at a time."""
_TIMESTAMP = re.compile(r"<\|\d+\.\d+\|>")


@dataclass(frozen=True, repr=False)
class Transcription:
    """The text of one recording."""

    text: str
    language: str | None
    """Code of the language that was heard or chosen; None for a model of one language."""
    seconds: float
    windows: tuple[str, ...]
    """The text of each window."""
    tokens: tuple[tuple[int, ...], ...]
    """The ids of each window's text, behind those that it was made to begin with; the last is EOS."""
    prompt: tuple[int, ...]
    """The ids that each text was made to begin with."""

    def __repr__(self) -> str:
        return f"Transcription({quoted(self.text)}, language={self.language}, seconds={self.seconds:.1f})"


class Transcriber:
    """A model of speech with its tokenizer.

    A recording is heard in successive windows, of 30 s in Whisper, each by itself.
    """

    def __init__(self, model: SequenceModel, tokenizer: Tokenizer, log_mel: LogMel, prompt: SpeechPrompt, frames: int):
        """
        Args:
            frames: frames T of a window.
        """
        self.model, self.tokenizer, self.log_mel, self.prompt, self.frames = model, tokenizer, log_mel, prompt, frames
        self.defaults = NO_SETTINGS
        """Settings that hold where none are chosen: those that came with the model."""

    def __repr__(self) -> str:
        return described(self, self.model, {"vocabulary": len(self.tokenizer)})

    @classmethod
    def load(
        cls, run: str | Path, checkpoint: str | int = "best", *, device: str = "auto", precision: str = "auto"
    ) -> "Transcriber":
        """Load the model of speech of a run; the arguments are those of ``Translator.load``.

        Raises:
            CheckpointError: no such run or checkpoint, a damaged one, or one whose model hears no speech.
            ConfigError: no such device or precision, or features that are not supported.
        """
        model, _, tokenizer, _ = load_writer(run, checkpoint)
        check(run, model, TRANSCRIBES)
        source = model.cfg.source  # pyright: ignore[reportAttributeAccessIssue] - it transcribes
        assert isinstance(source, FrameInput)
        if source.longest is None:
            raise ConfigError(f"{run}: model.source.position: has no length, so a window of speech has none either")
        settings = read_log_mel(run, source.channels), read_prompt(run, tokenizer)
        transcriber = cls(prepare_for_inference(model, device, precision), tokenizer, *settings, source.longest)
        transcriber.defaults = read_generation_settings(run, tokenizer, translates=True)
        return transcriber

    def transcribe(
        self,
        recordings: Sequence[Any],
        *,
        language: str | None = None,
        task: str | None = None,
        beam: int | None = None,
        search: SearchConfig | None = None,
        max_new_tokens: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Transcription]:
        """Write down what is said in each recording.

        Args:
            recordings: WAV files, or arrays (N) of samples from -1 to 1 at the model's rate.
            language: code of the language that is spoken; None for the model's own default, or to hear it from the
                first window.
            task: ``transcribe``, or ``translate`` for a translation into English; None for the model's own default.
            beam: hypotheses kept; 1 is greedy search. By default the search that came with the model, or 1.
            search: a complete search configuration, instead of ``beam``; its ``limit`` is ignored.
            max_new_tokens: most tokens of a window; None for as many as the model can write.
            progress: called with the windows done and their number.

        Raises:
            ConfigError: a language or a task that the model does not have.
            DataError: a file that cannot be read, or samples that are no numbers; the message names it.
            TypeError: ``recordings`` is no list.
        """
        given = check_list(recordings, "recordings", what="WAV files or arrays of samples")
        max_new_tokens = None if max_new_tokens is None else check_count(max_new_tokens, "max_new_tokens")
        wanted = self.prompt.tokens(language, task)
        samples = [self._samples(one, i) for i, one in enumerate(given, 1)]
        windows = [torch.from_numpy(self.log_mel.windows(one, self.frames)) for one in samples]
        prompts = [[self._heard(some[:1]) if token is None else token for token in wanted] for some in windows]
        rows = [prompt for prompt, some in zip(prompts, windows, strict=True) for _ in some]
        candidates = self._searched(windows, rows, self._search(search, beam), max_new_tokens, progress)
        names, found = {token: name for name, token in self.prompt.languages.items()}, []
        for prompt, some, heard in zip(prompts, windows, samples, strict=True):
            best = [next(candidates) for _ in some]
            said = tuple(one.text for one in best)
            language, seconds = names.get(prompt[1]) if len(prompt) > 1 else None, len(heard) / self.log_mel.rate
            tokens = tuple(one.tokens for one in best)
            found.append(Transcription(" ".join(filter(None, said)), language, seconds, said, tokens, tuple(prompt)))
        return found

    def _samples(self, given: Any, number: int) -> Float[np.ndarray, " N"]:
        if isinstance(given, str | Path):
            return read_wave(given, self.log_mel.rate)
        samples, place = np.asarray(given), f"recording {number}: expected one row of finite float samples"
        if samples.ndim != 1 or samples.dtype.kind not in "f":
            raise DataError(f"{place}, got {samples.dtype} {samples.shape}")
        return finite_float32(samples, place, ("sample",))

    @torch.inference_mode()
    def _heard(self, window: Float[Tensor, "1 T M"]) -> int:
        """Return the token of the language that is most likely spoken in a window."""
        with self.model.without_dropout():
            state = self.model.start(window.to(self.model.device))
            start = torch.tensor([[BOS]], device=self.model.device)
            logits = self.model.decode(start, state)[0, -1]
        languages = list(self.prompt.languages.values())
        return languages[int(logits[languages].argmax())]

    def _search(self, search: SearchConfig | None, beam: int | None) -> SearchConfig:
        if search is not None:
            return check_search(search)
        if beam is None:
            return self.defaults.search or Greedy()
        beam = check_count(beam, "beam")
        return Greedy() if beam == 1 else Beam(size=beam, penalty=Average(), stop="heuristic")

    def _searched(
        self,
        windows: Sequence[Tensor],
        prompts: Sequence[Sequence[int]],
        cfg: SearchConfig,
        most: int | None,
        progress: Callable[[int, int], None] | None,
    ) -> Iterator[Candidate]:
        """Yield the best text of each window (B, T, M); ``prompts`` has one for each, all of one length."""
        frames = torch.cat(list(windows)) if windows else torch.empty(0, self.frames, self.log_mel.bands)
        for first in range(0, len(frames), BATCH):
            part = slice(first, first + BATCH)
            some = self._hypotheses(frames[part], torch.tensor(prompts[part]), cfg, most, first)
            if progress:
                progress(first + len(some), len(frames))
            for hypotheses in some:
                candidates = tuple(map(self._candidate, hypotheses))
                yield (cfg.ranked(candidates) if isinstance(cfg, MinimumBayesRisk) else candidates)[0]

    def _hypotheses(
        self, frames: Float[Tensor, "B T M"], prompt: Tensor, cfg: SearchConfig, most: int | None, first: int
    ) -> list[list[Hypothesis]]:
        device, most = self.model.device, most or self.defaults.max_new_tokens
        frames, prompt = frames.to(device), prompt.to(device)
        room = None if self.model.max_length is None else self.model.max_length - prompt.shape[1]
        limit = 1 + min(number for number in (most, room, 10**6) if number is not None)
        start = SearchStart(prompt)
        rules: list[Rule] = [rule.start(start) for rule in self.defaults.rules]
        if self.prompt.suppressed:
            rules.append(ForbiddenFirst(self.prompt.suppressed))
        strategy = cfg.start([limit] * len(frames), device, list(range(first, first + len(frames))))
        batch = SearchBatch(self.model, frames, prompt, cfg, strategy, DEFAULT, rules)
        with self.model.without_dropout():
            while batch.step():
                pass
        return strategy.results()

    def _candidate(self, found: Hypothesis) -> Candidate:
        text = self.tokenizer.decode(found.tokens[:-1])
        text = _TIMESTAMP.sub("", text).replace(REPLACEMENT, "").strip()
        return Candidate(text, found.score, found.log_prob, found.tokens, found.token_log_probs, found.truncated)
