"""Prompts that are ids already, and rows of ids after an image."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt with the ids that a model reads for it, such as those of a conversation."""

    text: str
    ids: tuple[int, ...]
    """Ids as the model reads them: nothing is put around them."""


class PromptAfterImage(list[int]):
    """Ids of a prompt that stands after an image."""

    def __init__(self, ids: Iterable[int], image: Tensor):
        super().__init__(ids)
        self.image = image
        """Image as the model reads it (channels, height, width)."""
