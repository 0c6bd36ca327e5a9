"""Which language a text is in, as py3langid tells: the extra ``language``, a model of 97 languages that it brings."""

from collections.abc import Callable
from functools import cache
from typing import Any

from dragoman.errors import ConfigError

SURE = 0.9
"""Probability from which another language is believed: short texts are rarely that clear, and so they stay."""


def spoken(text: str) -> tuple[str, float]:
    """The likeliest language of ``text``, by its code of two letters, and its probability.

    Raises:
        ConfigError: py3langid is not installed.
    """
    language, probability = _identifier().classify(text)
    return str(language), float(probability)


def speaks_another(language: str) -> Callable[[str], bool]:
    """Whether a text is surely not in ``language``.

    Raises:
        ConfigError: no such code, or py3langid is not installed.
    """
    known = sorted(set(_identifier().nb_classes))
    if language not in known:
        raise ConfigError(f"data.cleaning: no language {language!r} is told from others; known are {', '.join(known)}")

    def another(text: str) -> bool:
        found, probability = spoken(text)
        return found != language and probability >= SURE

    return another


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError("telling languages apart needs py3langid: pip install 'dragoman[language]'") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
