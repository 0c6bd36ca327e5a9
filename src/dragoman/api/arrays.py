"""Inner states of a model as NumPy arrays: encoder states, attention weights, and alignments by attention.

T target tokens, S source tokens, D width, H heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dragoman.api.run import Run, run_path
from dragoman.decode.arguments import check_list
from dragoman.errors import ConfigError
from dragoman.inspect.places import places
from dragoman.inspect.subject import Subject
from dragoman.inspect.trace import Trace, trace

Looked = str | Path | Run | Subject
"""A run, its directory, or a ``Subject``, which is opened once for many calls."""


@dataclass(frozen=True)
class TokenStates:
    """Vectors of the tokens of one text."""

    tokens: tuple[str, ...]
    """Spelling of each token, the end included."""
    states: Float[np.ndarray, "S D"]


@dataclass(frozen=True)
class AttentionWeights:
    """Attention in one forward pass: an array for each layer, the first layer first; empty where there is none."""

    source_tokens: tuple[str, ...]
    """Spelling of the tokens that an encoder reads."""
    tokens: tuple[str, ...]
    """Spelling of the tokens that a decoder reads, from the beginning mark on."""
    encoder: tuple[Float[np.ndarray, "H S S"], ...]
    """Attention of each source token to each."""
    decoder: tuple[Float[np.ndarray, "H T T"], ...]
    """Attention of each target token to those up to itself."""
    cross: tuple[Float[np.ndarray, "H T S"], ...]
    """Attention of each target token to the source."""

    @property
    def alignment(self) -> Float[np.ndarray, "T S"]:
        """Mean of all heads of the last two layers that attend to the source, as ``--alignments`` uses by default.

        Raises:
            ConfigError: a model that attends to no source.
        """
        if not self.cross:
            raise ConfigError("alignment: this model does not attend to a source")
        return np.concatenate(self.cross[-2:]).mean(axis=0)


def encoder_states(run: Looked, texts: Sequence[str]) -> list[TokenStates]:
    """Return the encoder's output for each text: what a decoder attends to, or a head reads.

    Args:
        run: a run whose model has an encoder.
        texts: texts that it reads.

    Raises:
        CheckpointError: no such run.
        ConfigError: a model without an encoder.
        DataError: a text that the model cannot read.
    """
    texts = check_list(texts, "texts", what="texts")
    subject = _subject(run)
    last = _last_of(subject, "encoder")
    found = []
    for text in texts:
        seen = trace(subject, text, read=last)
        found.append(TokenStates(seen.source_tokens or seen.tokens, seen[last][0]))
    return found


def attention_weights(run: Looked, source: str, target: str | None = None) -> AttentionWeights:
    """Return the attention weights of one text or pair.

    Args:
        run: a run whose model has attention.
        source: what the model reads; of a language model the text.
        target: the translation to look at; by default the model's own. Of a language model a continuation.

    Raises:
        CheckpointError: no such run.
        ConfigError: a model without attention.
        DataError: a text that the model cannot read.
    """
    subject = _subject(run)
    weights = [name for name in places(subject.model) if name.endswith(".weights")]
    if not weights:
        raise ConfigError(f"{run}: its model has no attention")
    seen = trace(subject, source, target=target, read=weights)
    parts = (_layers(seen, "encoder", "mixer"), _layers(seen, "decoder", "mixer"), _layers(seen, "decoder", "cross"))
    encodes = subject.kind == "encoder"
    return AttentionWeights(
        seen.source_tokens or (seen.tokens if encodes else ()), () if encodes else seen.tokens, *parts
    )


def _subject(run: Looked) -> Subject:
    return run if isinstance(run, Subject) else Subject.open(run_path(run))


def _layers(seen: Trace, tower: str, part: str) -> tuple[np.ndarray, ...]:
    wanted = [name for name in seen if name.startswith(f"{tower}.") and f".{part}." in name]
    return tuple(seen[name][0] for name in wanted)


def _last_of(subject: Subject, tower: str) -> str:
    known = places(subject.model)
    if f"{tower}.output" in known:
        return f"{tower}.output"
    raise ConfigError(f"this model has no {tower}: its places are {', '.join(list(known)[:4])}, ...")
