"""Languages of the models: names, direction of writing, which model translates between two, and what a text is in."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from dragoman.errors import ConfigError
from dragoman.serve.errors import UnknownModel
from dragoman.serve.http.problems import Problem
from dragoman.serve.served import ServedModel

AUTO = "auto"
"""Source language that is to be detected."""


@dataclass(frozen=True)
class Detected:
    """Language of a text."""

    language: str
    confidence: float
    """Probability, from 0 to 1."""


def normalised(code: str) -> str:
    """Return a code in the form that is compared: ``pt-br`` for ``pt_BR``."""
    return code.strip().lower().replace("_", "-")


def base(code: str) -> str:
    """Return the language of a code without its region or script: ``pt`` for ``pt-BR``."""
    return re.split(r"[-_.@]", code.strip().lower())[0]


@cache
def _names() -> dict[str, str]:
    from weblate_language_data.languages import LANGUAGES  # some 10,000 lines: imported when first needed

    return {normalised(code): name for code, name, *_ in LANGUAGES}


def language_name(code: str) -> str:
    """Return the English name of a language; the code itself where it is not known."""
    return _names().get(normalised(code)) or _names().get(base(code)) or code


def is_written_from_right(code: str) -> bool:
    """Return whether a language is written from right to left."""
    from weblate_language_data.rtl import RTL_LANGS

    known = {normalised(one) for one in RTL_LANGS}
    return normalised(code) in known or ("-" not in normalised(code) and base(code) in known)


@lru_cache(maxsize=4096)
def detect(text: str) -> Detected:
    """Return the language of a text.

    Raises:
        Problem: no library to detect it with is installed.
    """
    from dragoman.text.cleaning.languages import identify_language

    if not any(character.isalpha() for character in text):
        return Detected("en", 0.0)
    try:
        return Detected(*identify_language(text))
    except ConfigError as error:
        raise Problem(501, "cannot_detect", f"{error}; or state the source language") from None


class Directions:
    """Translators by the languages that they translate between."""

    def __init__(self, models: Iterable[ServedModel]):
        self.models = [model for model in models if model.task == "translate"]

    @property
    def sources(self) -> dict[str, list[str]]:
        """Languages that can be translated from, each with those that it can be translated to."""
        found: dict[str, list[str]] = {}
        for model in self.models:
            found.setdefault(model.source, []).append(model.target)
        return found

    def between(self, source: str, target: str) -> ServedModel:
        """Return the model from ``source`` to ``target``; one of the same languages without regard to the region, if
        there is none with it. A model whose languages are not known is taken for any, if it is the only one.

        Raises:
            UnknownModel: there is none; the message lists the pairs.
        """
        if len(self.models) == 1 and not self.models[0].source and not self.models[0].target:
            return self.models[0]
        for compare in (normalised, base):
            for model in self.models:
                pairs = ((source, model.source), (target, model.target))
                if all(compare(wanted) == compare(has) for wanted, has in pairs):
                    return model
        raise UnknownModel(f"translation from {source!r} to {target!r}", self.pairs)

    def for_text(self, text: str, target: str) -> tuple[ServedModel, Detected]:
        """Return the model for a text whose language is to be detected, and what was detected.

        A language that no model translates from is taken for the one that is translated from, if there is just one:
        short texts are often taken for a related language.

        Raises:
            UnknownModel: no model for it.
        """
        found = detect(text)
        into = [model for model in self.models if base(model.target) == base(target)] if target else self.models
        fitting = [model for model in into if base(model.source) == base(found.language)]
        chosen = fitting or (into if len({model.source for model in into}) == 1 else [])
        if not chosen:
            wanted = f"translation from {found.language!r} (detected)" + (f" to {target!r}" if target else "")
            raise UnknownModel(wanted, self.pairs)
        return chosen[0], found

    @property
    def pairs(self) -> str:
        """All pairs of languages, for messages."""
        return ", ".join(f"{model.source or '?'} to {model.target or '?'}" for model in self.models) or "no translator"


def detect_each(texts: Sequence[str]) -> list[Detected]:
    """Return the language of each text by itself."""
    return [detect(text) for text in texts]
