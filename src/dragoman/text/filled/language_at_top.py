"""Names of languages at the top of files of strings, as Rails has them: ``en: {menu: ...}``.

Such a name is no part of the keys, so that files of two languages have the same keys.
"""

from dragoman.text.formats.localized_paths import is_language, same


def names_language(name: str, source: str | None, target: str | None) -> bool:
    """Return True if the only name at the top of a file is that of a language: of any, or as the user wrote it."""
    return name in (source, target) or is_language(name)


def names_source(name: str, source: str | None, target: str | None) -> bool:
    """Return True if a name at the top is that of the source language, English if none is given, and not the target's:
    the target's takes its place in a translation."""
    return name != target and (name == source or same(name, source or "en"))
