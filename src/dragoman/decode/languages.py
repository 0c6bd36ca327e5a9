"""Languages of an imported translator for many languages, which tokens of its vocabulary stand for.

The source's language is a token around the source, and the target's the first token of the translation. Marian's is
different: its sources begin with the language of the target, as in ``>>fra<< Good morning.``
"""

import dataclasses
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from dragoman.decode.constraints.first_token import FirstToken
from dragoman.decode.origin import origin_folder
from dragoman.errors import ConfigError
from dragoman.json_files import read_json
from dragoman.text.tokens.framing import FrameTemplate
from dragoman.text.tokens.tokenizer import Tokenizer

_SPELLINGS = {
    "mbart": r"([a-z]{2}_[A-Z]{2})",
    "m2m_100": r"__([a-z]{2,3})__|([a-z]{3}_[A-Z][a-z]{3})",
    "marian": r">>([^<>]+)<<",
}
"""How each family spells the tokens of its languages; a group is the language."""
_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class LanguageTokens:
    """The languages of one translator."""

    tokens: Mapping[str, str]
    """The token of each language; empty for a translator of one pair of languages."""
    before_source: bool = False
    """True where the target's language stands before the source, and nothing tells the source's."""

    def __bool__(self) -> bool:
        return bool(self.tokens)

    def __str__(self) -> str:
        """Say how the languages are chosen, with a few of them."""
        some = ", ".join(sorted(self.tokens)[:_SHOWN])
        options = "--to" if self.before_source else "--from and --to"
        more = ", ..." if len(self.tokens) > _SHOWN else ""
        return f"it knows {len(self.tokens)} languages, chosen by {options}: {some}{more}"

    def token(self, language: str, option: str) -> str:
        """Return the token of a language: by its code here, or by one that means the same, as de for de_DE.

        Raises:
            ConfigError: none, or several that fit; the message names ``option``.
        """
        if language in self.tokens:
            return self.tokens[language]
        found = self._alike(language)
        if len(found) == 1:
            return self.tokens[found[0]]
        if found:
            raise ConfigError(f"{option}: {language} may be {' or '.join(found)} here: say which")
        close = get_close_matches(language, self.tokens, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        some = sorted(self.tokens)
        more = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
        raise ConfigError(f"{option}: no {language!r} here.{meant} Known: {', '.join(some[:_SHOWN])}{more}")

    def _alike(self, language: str) -> list[str]:
        wanted = _parts(language)
        same = [code for code in sorted(self.tokens) if _parts(code)[0] == wanted[0]]
        exact = [code for code in same if wanted[1:] == _parts(code)[1:]]
        return exact if len(exact) == 1 else same

    def check(self, source: str | None, target: str | None) -> None:
        """Check that languages are chosen only where the model has some.

        Raises:
            ConfigError: they are for a model without.
        """
        for option, given in (("--from", source), ("--to", target)):
            if given is not None and not self:
                raise ConfigError(f"{option}: this model has no languages to choose from: leave it out")

    def framed(self, tokenizer: Tokenizer, source: str | None, target: str | None) -> Tokenizer:
        """Return a source's tokenizer with the tokens of these languages around each text.

        Raises:
            ConfigError: no such language.
        """
        template = tokenizer.template
        if template is None or not self:
            return tokenizer
        if self.before_source:
            return (
                tokenizer if target is None else tokenizer.with_template(_begun(template, self.token(target, "--to")))
            )
        if source is None:
            return tokenizer
        token, known = self.token(source, "--from"), set(self.tokens.values())
        sides = (tuple(token if name in known else name for name in side) for side in (template.before, template.after))
        before, after = sides
        return tokenizer.with_template(dataclasses.replace(template, before=before, after=after))

    def first(self, tokenizer: Tokenizer, target: str | None) -> FirstToken | None:
        """Return the token with which a translation into ``target`` begins; None where the model is to choose.

        Raises:
            ConfigError: no such language.
        """
        if target is None or not self or self.before_source:
            return None
        return FirstToken(token=tokenizer.token_id(self.token(target, "--to")))


NO_LANGUAGES = LanguageTokens({})


def read_languages(run: str | Path, tokenizer: Tokenizer) -> LanguageTokens:
    """Return the languages of an imported run; none for any other, or where its vocabulary has fewer than two."""
    family = read_json(origin_folder(run) / "dragoman.json").get("family")
    if family not in _SPELLINGS:
        return NO_LANGUAGES
    spelling, found = re.compile(_SPELLINGS[family]), {}
    for name in tokenizer.original_names:
        if matched := spelling.fullmatch(name):
            found[next(filter(None, matched.groups()))] = name
    if len(found) < 2:
        return NO_LANGUAGES
    return LanguageTokens(found, before_source=family == "marian")


def _begun(template: FrameTemplate, token: str) -> FrameTemplate:
    return dataclasses.replace(template, before=(token, *template.before))


@lru_cache(maxsize=512)
def _parts(code: str) -> tuple[str, str]:
    """Return the language in two letters where it has such a code, and its script or territory; empty for none."""
    from babel.core import get_global

    language, _, rest = code.replace("-", "_").partition("_")
    return get_global("language_aliases").get(language.lower(), language.lower()), rest.lower()
