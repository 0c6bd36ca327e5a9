"""Language identification with py3langid: the extra ``language``, which brings a model of 140 languages."""

from collections.abc import Callable
from functools import cache
from typing import Any

from dragoman.errors import ConfigError

LIKELIER = 100
"""Factor by which a text is likelier in another language where it is surely not in the one that is expected.

A factor is the same for languages that resemble others, which share their probability, and for those that do not. Of
interface texts of 40 characters and more in English and Spanish, it finds 95 of 100 that are in the other language, and
takes none for one that is not; of shorter ones it finds fewer."""


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
        ranked = _identifier().rank(text)
        return ranked[0][1] >= LIKELIER * next(probability for code, probability in ranked if code == language)

    return another


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError("identifying languages needs py3langid: pip install py3langid (the extra language)") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
