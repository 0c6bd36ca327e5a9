"""What a person may ask of one translation."""

from dataclasses import dataclass, replace
from typing import Any

from dragoman.text.cleaning.clean import normalise
from dragoman.text.lines import Pair, PrecedingSentences, Sourced

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
    context: PrecedingSentences = ()
    """The sentences before the text in its document, the nearest last, for a run that has learnt to read some
    (``data.context``): as many of them as it reads. They are not translated."""

    @property
    def pair(self) -> Sourced:
        """What is read, as a pair whose translation is not known yet."""
        return Sourced(self.text, "", "", " ".join(self.tags), self.context)


def request_for(pair: Pair | Sourced) -> Request:
    """The translation of a pair's source, as a model that has learnt from such pairs is asked for it."""
    source = normalise(pair.source)  # of one line, as in training: a test set is scored line by line
    if not isinstance(pair, Sourced):
        return Request(source)
    return Request(source, tags=tuple(pair.tags.split()), context=pair.context)


def as_request(text: str | Request, **wanted: Any) -> Request:
    """The text, or the request with what is ``wanted`` besides."""
    return replace(Request(text) if isinstance(text, str) else text, **wanted)
