"""Prompts and the ids that a model reads for them: of texts, of prompts that are ids already, and after an image."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from dragoman.text.tokens.tokenizer import BOS, PROMPT_FRAME, Tokenizer


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt with the ids that a model reads for it, such as those of a conversation."""

    text: str
    ids: tuple[int, ...]
    """Ids as the model reads them: nothing is put around them."""


@dataclass(frozen=True)
class PromptReader:
    """Reads prompts as the model read them in training."""

    tokenizer: Tokenizer
    between: str = ""
    """Separator between prompt and answer, of a model that learned from instructions."""

    def completed(self, prompt: str) -> str:
        """Return a prompt that ends with the separator; an empty one, which starts a text, stays empty."""
        return prompt if not prompt or prompt.endswith(self.between) else prompt + self.between

    def ids(self, prompt: str | EncodedPrompt) -> list[int]:
        """Return the ids of a completed prompt in its frame, or those that it brings."""
        if isinstance(prompt, EncodedPrompt):
            return list(prompt.ids) or [BOS]
        return self.tokenizer.frame(PROMPT_FRAME).around(self.tokenizer.encode(self.completed(prompt))) or [BOS]


class PromptAfterImage(list[int]):
    """Ids of a prompt that stands after an image."""

    def __init__(self, ids: Iterable[int], image: Tensor):
        super().__init__(ids)
        self.image = image
        """Image as the model reads it (channels, height, width)."""
