"""Language identification with py3langid: the extra ``language``, which brings a model of 97 languages."""

from collections.abc import Callable
from functools import cache
from typing import Any

from dragoman.errors import ConfigError

SURE = 0.9
"""Probability from which another language is accepted: short texts rarely reach it, and so they are kept."""


def identify_language(text: str) -> tuple[str, float]:
    """Return the code of two letters of the likeliest language of ``text``, and its probability.

    Raises:
        ConfigError: py3langid is not installed.
    """
    language, probability = _identifier().classify(text)
    return str(language), float(probability)


def rank_languages(text: str) -> list[tuple[str, float]]:
    """Return the codes of all languages with their probabilities for ``text``, the likeliest first.

    Raises:
        ConfigError: py3langid is not installed.
    """
    return [(str(language), float(probability)) for language, probability in _identifier().rank(text)]


def is_other_language(language: str) -> Callable[[str], bool]:
    """Return a predicate that is True for a text surely not in ``language``.

    Raises:
        ConfigError: no such code, or py3langid is not installed.
    """
    known = sorted(set(_identifier().nb_classes))
    if language not in known:
        raise ConfigError(
            f"data.cleaning: the language {language!r} cannot be identified; known are {', '.join(known)}"
        )

    def another(text: str) -> bool:
        found, probability = identify_language(text)
        return found != language and probability >= SURE

    return another


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError("identifying languages needs py3langid: pip install py3langid (the extra language)") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
