"""Settings that came with an imported model of speech: how a sound becomes frames, and how a text begins.

A text begins with the tokens  start  language  task  no timestamps  as generation_config.json numbers them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dragoman.data.log_mel import LogMel
from dragoman.decode.origin import origin_folder
from dragoman.errors import CheckpointError, ConfigError
from dragoman.json_files import read_json
from dragoman.text.tokens.tokenizer import BOS, Tokenizer

GENERATION, FEATURES = "generation_config.json", "preprocessor_config.json"
_OTHER = ("do_normalize", "dither", "padding_value")
"""Settings of features that change them and are not supported, unless they are 0 or false."""


@dataclass(frozen=True)
class SpeechPrompt:
    """The tokens that a text begins with, in our ids."""

    languages: Mapping[str, int] = field(default_factory=dict)
    """The token of each language, by its code; none for a model of one language."""
    tasks: Mapping[str, int] = field(default_factory=dict)
    """The tokens of ``transcribe`` and ``translate``; none for a model that only transcribes."""
    forced: tuple[int | None, ...] = ()
    """Tokens behind the first, where neither language nor task are chosen; None for a language that is to be heard."""
    without_times: int | None = None
    """Token that asks for a text without timestamps."""
    suppressed: tuple[int, ...] = ()
    """Tokens that no text begins with."""
    language: str | None = None
    """Language where none is chosen."""
    task: str | None = None
    """Task where none is chosen."""

    def tokens(self, language: str | None, task: str | None) -> list[int | None]:
        """Return the tokens of a prompt; None stands for the language that is to be heard.

        The order and the defaults are those of ``generate`` in transformers.

        Raises:
            ConfigError: a language or a task that the model does not have.
        """
        language, task = language or self.language, task or self.task
        found: list[int | None] = [BOS]
        if language is None and task is None:
            found += self.forced
        if language is not None:
            found[1:2] = [self.language_token(language)]
        elif self.languages and (len(found) == 1 or found[1] is None):
            found[1:2] = [None]
        if task is not None:
            found.append(self._task_token(task))
        elif language is not None and self.tasks:
            found.append(self.tasks["transcribe"])
        if self.without_times is not None and found[-1] != self.without_times:
            found.append(self.without_times)
        return [token for i, token in enumerate(found) if token is not None or i == 1]

    def language_token(self, language: str) -> int:
        """Return the token of a language.

        Raises:
            ConfigError: the model has none of this name.
        """
        if (token := self.languages.get(language.lower())) is None:
            some = ", ".join(sorted(self.languages)) or "none: it hears one language, so leave this out"
            raise ConfigError(f"--language: no {language!r} here. Known: {some}")
        return token

    def _task_token(self, task: str) -> int:
        if task not in self.tasks:
            known = ", ".join(sorted(self.tasks)) or "none: it only transcribes, so leave this out"
            raise ConfigError(f"--task: no {task!r} here. Known: {known}")
        return self.tasks[task]


def read_prompt(run: str | Path, tokenizer: Tokenizer) -> SpeechPrompt:
    """Return the prompt that came with an imported run; that of one language for any other.

    Raises:
        CheckpointError: settings of the wrong type, or ids outside of the vocabulary.
    """
    path = origin_folder(run) / GENERATION
    stated = read_json(path)
    forced = stated.get("forced_decoder_ids") or read_json(path.with_name("config.json")).get("forced_decoder_ids")

    def ours(value: Any) -> int:
        if not isinstance(value, int) or not 0 <= value < len(tokenizer):
            raise ValueError(f"expected the id of a token, got {value!r}")
        return tokenizer.to_our_ids([value])[0]

    try:
        return SpeechPrompt(
            languages={name.strip("<|>"): ours(i) for name, i in (stated.get("lang_to_id") or {}).items()},
            tasks={name: ours(i) for name, i in (stated.get("task_to_id") or {}).items()},
            forced=_forced(forced or [], ours),
            without_times=None if (i := stated.get("no_timestamps_token_id")) is None else ours(i),
            suppressed=tuple(ours(i) for i in stated.get("begin_suppress_tokens") or ()),
            language=_code(stated.get("language")),
            task=stated.get("task"),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}: mend the file, or import the folder again") from None


def _code(language: Any) -> str | None:
    return language.strip("<|>") if isinstance(language, str) else None


def _forced(given: list[Any], ours: Any) -> tuple[int | None, ...]:
    """Return the tokens behind the first, which forced_decoder_ids numbers from 1."""
    if not given or given[0][0] != 1:
        return ()
    if [number for number, _ in given] != list(range(1, len(given) + 1)):
        raise ValueError(f"forced_decoder_ids: expected the numbers from 1 up, got {given!r}")
    return tuple(None if token is None else ours(token) for _, token in given)


def read_log_mel(run: str | Path, bands: int) -> LogMel:
    """Return how a sound becomes frames of this many ``bands``, as an imported run states it.

    Raises:
        ConfigError: a setting that is not supported.
    """
    path = origin_folder(run) / FEATURES
    stated = read_json(path)
    named = stated.get("feature_extractor_type", "WhisperFeatureExtractor")
    if named != "WhisperFeatureExtractor":
        raise ConfigError(f"{path}: feature_extractor_type: no {named!r} here, only WhisperFeatureExtractor")
    if wrong := next((name for name in _OTHER if stated.get(name)), None):
        raise ConfigError(f"{path}: {wrong}: {stated[wrong]!r} is not supported here")
    sizes = {"feature_size": bands, "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400}
    for name, usual in sizes.items():
        value = stated.get(name, usual)
        if type(value) is not int or value < 1:
            raise ConfigError(f"{path}: {name}: expected a whole number above 0, got {value!r}")
        sizes[name] = value
    if sizes["feature_size"] != bands:
        raise ConfigError(f"{path}: feature_size: {sizes['feature_size']} bands, and the model hears {bands}")
    return LogMel(bands=bands, rate=sizes["sampling_rate"], hop=sizes["hop_length"], length=sizes["n_fft"])
