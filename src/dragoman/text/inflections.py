"""Inflected forms of words and terms, from the dictionaries of ``simplemma`` (the extra ``inflections``).

The forms of a word are those with its dictionary form: ``battery``, ``batteries``; ``rojo``, ``roja``, ``rojos``,
``rojas``. A compound that the dictionary does not have inflects as its last part does: ``Sprachmodellbatterien``. Those
of a term of several words are all combinations; which of them fit together is left to the model.
"""

import functools
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, product
from typing import Any

from dragoman.errors import ConfigError

MOST = 100
"""Most forms of one term."""
_CONTENT = 3
"""Fewest letters of a word that inflects inside a term of several: shorter ones, such as ``de``, only join others."""
_SUFFIX = 4
"""Fewest letters of the last part of a compound."""


def inflected_terms(terms: Iterable[str], language: str) -> dict[str, tuple[str, ...]]:
    """Return the inflected forms of each term, the term itself first.

    Args:
        terms: words, or several with spaces between; an asterisk or circumflex at an edge is kept on each form.
        language: code such as ``es`` or ``pt-BR``.

    Raises:
        ConfigError: ``simplemma`` is not installed, or has no dictionary of the language.
    """
    known = list(dict.fromkeys(terms))
    forms = inflected_words({word for term in known for word in _bare(term).split()}, language)
    return {term: _combined(term, forms) for term in known}


def inflected_words(words: Iterable[str], language: str) -> dict[str, tuple[str, ...]]:
    """Return the forms of each word in one pass over a dictionary, the word itself first.

    Raises:
        ConfigError: as ``inflected_terms``.
    """
    dictionary = _dictionary(language)
    bases = {word: _base(word, dictionary) for word in words}
    wanted = {lemma for _, lemma in bases.values() if lemma}
    by_lemma: dict[str, list[str]] = {lemma: [lemma] for lemma in wanted}
    if wanted:
        for form, lemma in dictionary.items():
            if lemma in wanted:
                by_lemma[lemma].append(form)
    return {
        word: tuple(dict.fromkeys([word, *(_in_case(word, start + form) for form in by_lemma.get(lemma, ()))]))
        for word, (start, lemma) in bases.items()
    }


def _dictionary(language: str) -> Mapping[str, str]:
    try:
        from simplemma.strategies.dictionaries.dictionary_factory import DefaultDictionaryFactory
    except ImportError:
        raise ConfigError("inflected forms need simplemma: pip install simplemma (the extra inflections)") from None
    code = language.replace("_", "-").partition("-")[0].lower()
    code = {"no": "nb", "hr": "hbs", "sr": "hbs", "bs": "hbs"}.get(code, code)
    try:
        return _keeping_two(DefaultDictionaryFactory).get_dictionary(code)
    except ValueError:
        raise ConfigError(
            f"{language}: there is no dictionary of its inflected forms: list them, as in battery|batteries"
        ) from None


@functools.cache
def _keeping_two(factory: Callable[..., Any]) -> Any:
    """Return what reads dictionaries and keeps those of the source and the target: reading one takes a second."""
    return factory(cache_max_size=2)


def _base(word: str, dictionary: Mapping[str, str]) -> tuple[str, str]:
    """Return the beginning of a compound, empty for other words, and the dictionary form of the rest; no form for what
    does not inflect: acronyms, numbers, unknown words."""
    if any(unicodedata.category(char)[0] not in "LM" for char in word) or (word.isupper() and len(word) > 1):
        return "", ""
    for at in (0, *range(2, len(word) - _SUFFIX + 1)):
        rest = word[at:]
        spellings = (rest, rest.lower()) if at == 0 else (rest, rest.capitalize())
        lemma = next((found for spelling in spellings if (found := dictionary.get(spelling))), None)
        if lemma is not None:
            return word[:at], lemma
    return "", ""


def _in_case(word: str, form: str) -> str:
    """Return a form with the first letter in the case of the word, and the rest of a compound in lower case."""
    first = form[:1].upper() if word[0].isupper() else form[:1].lower()
    return first + (form[1:].lower() if word[1:].islower() else form[1:])


def _combined(term: str, forms: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    before, bare, after = _edges(term)
    words = bare.split()
    of_words = [forms[word] if len(words) == 1 or len(word) >= _CONTENT else (word,) for word in words]
    one_changed = [
        " ".join([*words[:at], form, *words[at + 1 :]]) for at in range(len(words)) for form in of_words[at][1:]
    ]
    several = (" ".join(choice) for choice in product(*of_words))
    found = dict.fromkeys([" ".join(words), *one_changed, *islice(several, MOST)])
    return tuple(f"{before}{form}{after}" for form in islice(found, MOST))


def _edges(term: str) -> tuple[str, str, str]:
    bare = _bare(term)
    start = term.index(bare) if bare else 0
    return term[:start], bare, term[start + len(bare) :]


def _bare(term: str) -> str:
    return term.removeprefix("^").removeprefix("*").removesuffix("*").strip()
