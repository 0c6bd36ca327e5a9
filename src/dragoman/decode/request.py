"""Requests: a text to translate, with constraints on its translation."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from dragoman.decode.arguments import check_items, check_list, check_text
from dragoman.text.cleaning.clean import normalise
from dragoman.text.lines import MatchTexts, Pair, PrecedingSentences, Sourced

Alternatives = tuple[str, ...]
"""A term and its inflected forms, any one of which will do."""


@dataclass(frozen=True)
class Request:
    """A text to translate, with what its translation must and must not contain."""

    text: str
    prefix: str = ""
    """Beginning of the translation in characters, normalised as all text is. If it ends inside a word, any ending may
    follow; a space at its end completes the word."""
    prefix_ids: tuple[int, ...] = ()
    """Beginning of the translation in ids of the target vocabulary: these tokens come first, before ``prefix``."""
    required: tuple[Alternatives, ...] = ()
    """Terms that the translation must contain, as whole words; see ``constrained``."""
    forbidden: tuple[str, ...] = ()
    """Terms that the translation must not contain."""
    tags: tuple[str, ...] = ()
    """Those of a source of the training text, such as 2de: they stand before the text as they did there."""
    context: PrecedingSentences = ()
    """The sentences before the text in its document, the nearest last, for a run that has learnt to read some
    (``data.context``): as many of them as it reads. They are not translated."""
    matches: tuple[MatchTexts, ...] = ()
    """Texts of retrieved matches, the best one last, for a run that has learnt to read some (``data.retrieval``)."""

    @property
    def constrained(self) -> bool:
        """True where something is said of what the translation contains."""
        return bool(self.required or self.forbidden or self.prefix or self.prefix_ids)

    @property
    def pair(self) -> Sourced:
        """The input of the model, as a pair whose translation is not known yet."""
        return Sourced(self.text, "", "", " ".join(self.tags), self.context, self.matches)


def request_for(pair: Pair | Sourced) -> Request:
    """Return the request for a pair's source, as a model trained on such pairs expects it."""
    source = normalise(pair.source)  # on one line, as in training: a test set is scored line by line
    if not isinstance(pair, Sourced):
        return Request(source)
    return Request(source, tags=tuple(pair.tags.split()), context=pair.context, matches=pair.matches)


def as_request(text: str | Request, **wanted: Any) -> Request:
    """Return the text as a request, with the fields ``wanted`` set."""
    request = Request(text) if isinstance(text, str) else text
    return replace(request, **wanted) if wanted else request


def as_requests(texts: Iterable[str | Request]) -> list[Request]:
    """Return a list of texts and requests as requests.

    Raises:
        TypeError: no list, an entry that is neither, or a request whose texts are no strings.
    """
    given = check_items(texts, "texts", what="strings or requests", kinds=(str, Request))
    for number, one in enumerate(given, 1):
        if isinstance(one, Request):
            _check_request(one, number)
    return list(map(as_request, given))


def _check_request(request: Request, number: int) -> None:
    """Check the types of what entry ``number`` says.

    Raises:
        TypeError: a text that is no string, or one text where several are expected.
    """
    check_text(request.text, f"texts: text of entry {number}")
    for name in ("tags", "context", "forbidden"):
        check_items(getattr(request, name), f"texts: {name} of entry {number}")
    for alternatives in check_list(request.required, f"texts: required of entry {number}", what="alternatives"):
        check_items(alternatives, f"texts: required of entry {number}")
