"""Plural categories of a language (``one``, ``few``, ``other``, ...), as CLDR names them, and the source text of each.

Formats that name plural forms by category differ in their syntax alone: each asks here which categories the target
language needs, and which form of the source is translated for each of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from dragoman.text.formats import plurals

CATEGORIES = ("zero", "one", "two", "few", "many", "other")
"""All categories of CLDR, in its order."""


@dataclass(frozen=True)
class PluralCategories:
    """Plural categories of a target language."""

    names: tuple[str, ...]
    """Categories in CLDR's order, ``other`` among them; empty if the language is unknown."""
    one_is_exact: bool = True
    """True if ``one`` is for the number 1 alone, so that its text need not contain the number."""
    kept: tuple[str, ...] = ()
    """Categories that stay where the source has them, since its reader takes them for the numbers 0, 1 and 2."""

    def missing(self, present: Iterable[str]) -> list[str]:
        """Return the categories that the language has and a plural with these forms lacks."""
        there = set(present)
        return [name for name in self.names if name not in there] if "other" in there else []

    def surplus(self, present: Iterable[str]) -> list[str]:
        """Return the categories of a plural that the language never uses."""
        used = (*self.names, *self.kept)
        return [name for name in present if name in CATEGORIES and self.names and name not in used]

    def form_of(self, category: str, forms: Mapping[str, str], codes: Iterable[str] = ()) -> str:
        """Return the name of the source form that is translated for a category.

        It is the form of the same name, or ``other``. A ``one`` without the number is not used where the language says
        ``one`` for 21 as well.

        Args:
            forms: texts of the source by category.
            codes: texts that are placeholders whatever their form.
        """
        if category not in forms:
            return "other"
        inexact = category == "one" and not self.one_is_exact and "other" in forms
        return "other" if inexact and not plurals.names_number(forms["one"], forms["other"], codes) else category


@cache
def plural_categories(language: str | None) -> PluralCategories:
    """Return the categories of a language named as ``de``, ``pt-BR`` or ``zh-Hans``; none where it is unknown."""
    from weblate_language_data.plural_tags import DECIMAL_PLURAL_TAGS, PLURAL_TAGS

    tags: dict[str, set[str]] = {}
    for name, found in (*PLURAL_TAGS.items(), *DECIMAL_PLURAL_TAGS.items()):  # Czech has "many" for decimals alone
        tags.setdefault(name.lower(), set()).update(found)
    name = (language or "").replace("-", "_").partition(".")[0].partition("@")[0].lower()
    found = tags.get(name) or tags.get(name.partition("_")[0])
    if not found:
        return PluralCategories(())
    rule = plurals.rule_of_language(language or "")
    names = tuple(name for name in CATEGORIES if name in found or name == "other")
    return PluralCategories(names, rule is None or rule.singular is None or rule.singular_is_exact)
