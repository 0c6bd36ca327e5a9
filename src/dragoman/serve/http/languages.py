"""Languages of the models: names, direction of writing, which model translates between two, and what a text is in."""

import re
from collections.abc import Iterable
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


SEEN = 2_000
"""Characters of a text that its language is detected by."""
SURE = 0.9
"""Probability from which the likeliest language is believed even if no model translates from it."""
LETTERS = 30
"""Letters from which it is; shorter texts are often taken for a related language."""


@lru_cache(maxsize=4096)
def ranked(start: str) -> tuple[Detected, ...]:
    """Return the likely languages of the start of a text, the likeliest first; none where it has no letters.

    Raises:
        Problem: no library to detect them with is installed.
    """
    from dragoman.text.cleaning.languages import rank_languages

    if not any(map(str.isalpha, start)):
        return ()
    try:
        return tuple(Detected(*found) for found in rank_languages(start))
    except ConfigError as error:
        raise Problem(501, "cannot_detect", f"{error}; or state the source language") from None


def detect(text: str, known: Iterable[str] = ()) -> Detected:
    """Return the language of a text.

    Args:
        known: languages of the models. The likeliest of these is taken, unless the text is long and surely in another.
            A text without letters is in the first one.
    """
    known = [one for one in known if one]
    start = text[:SEEN]  # what is cached is bounded
    found = ranked(start)
    if not found:
        return Detected(known[0] if known else "en", 0.0)
    letters = sum(map(str.isalpha, start))
    if found[0].confidence >= SURE and letters >= LETTERS:
        return found[0]
    codes = {base(one): one for one in reversed(known)}
    return next((Detected(codes[one.language], one.confidence) for one in found if one.language in codes), found[0])


@dataclass(frozen=True)
class ChosenModel:
    """A model for a text."""

    model: ServedModel
    detected: Detected | None = None
    """Language of the text, where it was to be detected."""
    unchanged: bool = False
    """True where the text is in the target language already, and stays as it is."""


def check_languages(model: ServedModel, source: str | None, target: str | None) -> None:
    """Check that a model that a request names has the languages that it states beside it; their regions may differ.

    Raises:
        Problem: it has others.
    """
    for field, stated, own in (("source", source, model.source), ("target", target, model.target)):
        if stated and stated != AUTO and own and base(stated) != base(own):
            message = f"{field}: {stated!r}, but that of the model {model.name!r} is {own!r}: leave one of them out"
            raise Problem(422, "invalid_request", message, param=field)


class Directions:
    """Translators by the languages that they translate between."""

    def __init__(self, models: Iterable[ServedModel]):
        self.models = [model for model in models if model.task == "translate"]

    @property
    def codes(self) -> list[str]:
        """All languages, those that can be translated from first."""
        both = [*(model.source for model in self.models), *(model.target for model in self.models)]
        return [code for code in dict.fromkeys(both) if code]

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

    def first(self, source: str | None, target: str | None = None) -> ServedModel:
        """Return the first model; with a source or target language, the first that translates from it or to it.

        Raises:
            UnknownModel: there is none.
        """
        for model in self.models:
            pairs = ((source, model.source), (target, model.target))
            if all(wanted is None or not has or base(has) == base(wanted) for wanted, has in pairs):
                return model
        ends = (("from", source), ("to", target))
        wanted = "".join(f" {word} {code!r}" for word, code in ends if code is not None)
        raise UnknownModel(f"translation{wanted}", self.pairs)

    def for_file(self, source: str | None, target: str | None) -> ServedModel:
        """Return the model for a file, whose language is not detected: where the source language is not stated, the
        first model into the target language.

        Raises:
            UnknownModel: there is none.
        """
        if source in (None, "", AUTO) or not target:
            return self.first(None if source in ("", AUTO) else source, target or None)
        return self.between(source, target)

    def same(self, source: str, target: str) -> "ChosenModel":
        """Return the model for two names of one language: a model that was trained so, else none, and the text stays.

        Raises:
            UnknownModel: no model knows the language.
        """
        try:
            return ChosenModel(self.between(source, target))
        except UnknownModel:
            if not target or base(target) not in map(base, self.codes):
                raise
            return ChosenModel(self.models[0], unchanged=True)

    def for_text(self, text: str, target: str) -> "ChosenModel":
        """Return the model for a text whose language is to be detected. A text that is in the target language already
        stays as it is.

        Raises:
            UnknownModel: no model into the language, or none for the text; the message says what was detected.
        """
        into = [model for model in self.models if not target or base(model.target) == base(target)]
        if not into:
            raise UnknownModel(f"translation to {target!r}" if target else "translation", self.pairs)
        found = detect(text, [*(model.source for model in into), target])
        for model in into:
            if base(model.source) == base(found.language) or not model.source:
                return ChosenModel(model, found)
        if target and base(found.language) == base(target):
            return ChosenModel(into[0], found, unchanged=True)
        wanted = f"translation from {found.language!r} (detected)" + (f" to {target!r}" if target else "")
        raise UnknownModel(wanted, self.pairs)

    @property
    def pairs(self) -> str:
        """All pairs of languages, for messages."""
        return ", ".join(f"{model.source or '?'} to {model.target or '?'}" for model in self.models) or "no translator"
