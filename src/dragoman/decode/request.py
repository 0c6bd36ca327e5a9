"""What a person may ask of one translation."""

from dataclasses import dataclass

from dragoman.text.formats.lines import Pair, Sourced

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
    tags: tuple[str, ...] = ()
    """Those of a source of the training text, such as 2de: they stand before the text as they did there."""


def request_for(pair: Pair | Sourced) -> Request:
    """The translation of a pair's source, as a model that has learnt from such pairs is asked for it."""
    return Request(pair.source, tags=tuple(pair.tags.split()) if isinstance(pair, Sourced) else ())
