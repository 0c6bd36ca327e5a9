"""Prompts of a question after the passages that it is looked up in."""

from collections.abc import Callable

from dragoman.decode.generator import MAX_NEW_TOKENS, Generator
from dragoman.decode.prompt import EncodedPrompt
from dragoman.text.passages import Passages

PromptMaker = Callable[[str], str | EncodedPrompt]
"""Returns the prompt of a question."""


def prompts_with_passages(
    generator: Generator, passages: Passages | None, max_new_tokens: int | None = None
) -> PromptMaker:
    """Return the function that puts passages before a question: as many of the best as leave room for an answer.

    Its prompts are shown as the question alone. Without passages, a question is its own prompt.
    """
    if passages is None:
        return lambda question: question
    ids, longest = generator.prompts.ids, generator.model.max_length
    room = None if longest is None else longest - min(max_new_tokens or MAX_NEW_TOKENS, longest // 2)

    def prompt(question: str) -> EncodedPrompt:
        text = passages.prompt(question, lambda text: room is None or len(ids(text)) <= room)
        return EncodedPrompt(question, tuple(ids(text)))

    return prompt
