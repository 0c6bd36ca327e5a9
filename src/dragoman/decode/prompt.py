"""Prompts that are ids already."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt with the ids that a model reads for it, such as those of a conversation."""

    text: str
    ids: tuple[int, ...]
    """Ids as the model reads them: nothing is put around them."""
