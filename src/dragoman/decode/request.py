"""What a person may ask of one translation."""

from dataclasses import dataclass

Alternatives = tuple[str, ...]
"""Of which one will do: a term and its inflected forms."""


@dataclass(frozen=True)
class Request:
    """A text to be translated, and what its translation must and must not say."""

    text: str
    prefix: str = ""
    """The translation begins with these characters. Where they end inside a word it may go on with any ending. They are
    normalised as all text is; a space at their end means that a word is complete."""
    prefix_ids: tuple[int, ...] = ()
    """The same in ids of the target vocabulary: exactly these tokens come first, before anything of ``prefix``."""
    required: tuple[Alternatives, ...] = ()
    """Terms that it contains, as whole words; see ``constrained``."""
    forbidden: tuple[str, ...] = ()
    """Terms that it does not contain."""
