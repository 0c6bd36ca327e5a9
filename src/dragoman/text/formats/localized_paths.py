"""Where the translation of a file goes: names of files and folders by language, as the formats have them.

``locales/en/app.json`` becomes ``locales/de/app.json``, ``app_en.arb`` ``app_de.arb``, ``values/strings.xml``
``values-de/strings.xml``, ``en.lproj`` and ``Base.lproj`` ``de.lproj``, and ``App.resx`` ``App.de.resx``.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from dragoman.text.formats import plurals

NEUTRAL = (".resx", ".resw", ".properties")
"""Formats in which a name without a language is the source's."""
_CODE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Z][a-z]{3})?(?:[-_](?:[A-Za-z]{2}|\d{3}))?")


def localized_path(path: str, source: str, target: str) -> str:
    """Return a file's path in the target language; the same path if no part of it names the source language.

    Args:
        path: with forward slashes, relative to the folder that is translated.
        source, target: languages, such as ``en`` and ``pt-BR``.
    """
    *folders, name = PurePosixPath(path).parts
    return "/".join([*(_folder(folder, source, target) for folder in folders), _file(name, source, target)])


def neutral_path(path: str, target: str) -> str:
    """Return the path beside a file whose name has no language: ``App.de.resx``, ``app_de.properties``."""
    found = PurePosixPath(path)
    mark = "_" if found.suffix == ".properties" else "."
    language = target.replace("-", "_") if found.suffix == ".properties" else target
    return str(found.with_name(f"{found.stem}{mark}{language}{found.suffix}"))


def language_in(path: str) -> str | None:
    """Return the language that a path names by its form; None if it names none, or is of the source."""
    for part in PurePosixPath(path).parts[:-1]:
        if part.startswith("values-") and is_language(_of_android(part[7:])):
            return _of_android(part[7:])
        if part.endswith(".lproj") and part != "Base.lproj":
            return part.removesuffix(".lproj")
    return next((end for _, end in _ends(PurePosixPath(path).stem) if is_language(end)), None)


def is_language(name: str) -> bool:
    """Return True for the code of a known language, with or without a region."""
    return _CODE.fullmatch(name) is not None and plurals.field_of(name) is not None


def same(one: str, other: str) -> bool:
    """Return True if two names are of one language, region left aside."""
    return plurals.same_language(one, other)


def _folder(name: str, source: str, target: str) -> str:
    if name == "values" or (name.startswith("values-") and _is(_of_android(name[7:]), source)):
        return f"values-{_for_android(target)}"
    if name == "Base.lproj" or (name.endswith(".lproj") and _is(name[:-6], source)):
        return f"{target}.lproj"
    return _written(name, target) if _is(name, source) else name


def _file(name: str, source: str, target: str) -> str:
    stem, dot, rest = name.partition(".")
    while dot and not _ends_in(stem, source) and "." in rest:  # app.en.yml
        more, dot, rest = rest.partition(".")
        stem += "." + more
    found = _ends_in(stem, source)
    return name if found is None or not dot else f"{found[0]}{_written(found[0][-1:] + found[1], target)}.{rest}"


def _ends_in(stem: str, source: str) -> tuple[str, str] | None:
    """Return what stands before the language at the end of a name, and the language; None if it is not there."""
    return next(((start, end) for start, end in _ends(stem) if _is(end, source)), None)


def _ends(stem: str) -> Iterator[tuple[str, str]]:
    """Yield the ways to divide a name at a separator before a language, or before all of it: longest ends first."""
    for found in re.finditer(r"(?:^|(?<=[._-]))(?=[A-Za-z]{2})", stem):
        yield stem[: found.start()], stem[found.start() :]


def _is(name: str, source: str) -> bool:
    return _CODE.fullmatch(name) is not None and (
        name.lower() == source.lower() or (same(name, source) and len(re.split("[-_]", name)) == 2)
    )


def _written(name: str, target: str) -> str:
    """Return the target language with the separator that the name in its place has."""
    return target.replace("-", "_") if "_" in name else target.replace("_", "-") if "-" in name else target


def _of_android(qualifier: str) -> str:
    return re.sub(r"-r(?=[A-Z]{2}$)", "-", qualifier).replace("b+", "").replace("+", "-")


def _for_android(language: str) -> str:
    first, *rest = re.split("[-_]", language)
    if not rest:
        return first
    return f"{first}-r{rest[0].upper()}" if len(rest) == 1 and len(rest[0]) == 2 else "b+" + "+".join([first, *rest])
