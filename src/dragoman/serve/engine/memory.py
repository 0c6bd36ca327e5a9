"""Memory of a service: how much is left for caches beside the models and their computations."""

from collections.abc import Iterable
from typing import Any

from dragoman.decode.generator import Generator
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError
from dragoman.plan.memory_here import available_memory, resident_memory
from dragoman.serve.engine.limits import CHUNK, MOST_ROWS

SHARE_OF_FREE = 0.75
"""Share of the free memory that a service takes where nobody says how much it may."""
FIXED = 64 << 20
"""Bytes for requests and responses, buffers of libraries, and tables."""
SMALLEST = 4 << 20
"""Fewest bytes of caches that make a service of use."""


def cache_memory(memory: int | None, models: Iterable[Any]) -> int:
    """Return the bytes that caches may take, after the models are loaded.

    Args:
        memory: most bytes of the process; None for most of what is free.
        models: the loaded translators, generators and readers.

    Raises:
        ConfigError: ``memory`` does not suffice; the message says how much does.
    """
    held = resident_memory() or 0
    working = FIXED + max(map(_logits, models), default=0)
    if memory is None:
        return max(SMALLEST, int(SHARE_OF_FREE * available_memory()) - working)
    if memory - held - working < SMALLEST:
        least = (held + working + SMALLEST + (1 << 20) - 1) >> 20
        raise ConfigError(
            f"--memory: {memory >> 20} MiB do not suffice: the models take {held >> 20} MiB and their computations up "
            f"to {working >> 20} MiB: give at least {least} MiB"
        )
    return memory - held - working


def _logits(model: Any) -> int:
    """Return the bytes of the logits of a step and of a chunk of a prompt, with two copies that searches make."""
    match model:
        case Translator():
            vocab = len(model.target_tokenizer)
        case Generator():
            vocab = len(model.tokenizer)
        case _:
            return 0
    return 3 * 4 * vocab * (MOST_ROWS + CHUNK)
