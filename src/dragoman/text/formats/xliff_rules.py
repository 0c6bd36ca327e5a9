"""Rules of XLIFF 2 on translations: its modules for size restriction (``slr``) and for validation (``val``).

Sizes are counted in code points (``xliff:codepoints``), or in storage of UTF-8, UTF-16 or UTF-32 (``xliff:utf8``, ...),
inline codes left out. Other profiles are of tools of their own: their restrictions stay in the file and are not
checked.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dragoman.text.document import SlotRule
from dragoman.text.formats.markup import Element, Unit
from dragoman.text.placeholders import without_codes

MODULES = ("profiles", "validation")
"""Elements of the modules that stand beside units."""
_CODEPOINTS = "xliff:codepoints"
_STORAGE = {"xliff:utf8": ("utf-8", 1, "bytes"), "xliff:utf16": ("utf-16-le", 2, "units of UTF-16")}
_STORAGE["xliff:utf32"] = ("utf-32-le", 4, "units of UTF-32")
_UNBOUND = 1 << 62


@dataclass(frozen=True)
class SizeRestriction:
    """Smallest and largest size of a translation."""

    profile: str
    least: int
    most: int
    used: int = 0
    """Size of the other segments of the unit, which share the restriction."""
    check: str = "length"

    def problem(self, source: str, translation: str, codes: Sequence[str]) -> str | None:
        """Return what is wrong with a translation; None if nothing is."""
        size, unit = size_of(without_codes(translation, codes), self.profile)
        size += self.used
        shared = ", with the other segments of its unit" if self.used else ""
        if size > self.most:
            return f"has {size} {unit}{shared}, {self.most} are allowed"
        return f"has {size} {unit}{shared}, {self.least} are needed" if size < self.least else None


def size_of(text: str, profile: str) -> tuple[int, str]:
    """Return the size of a text, and its unit."""
    text = unicodedata.normalize("NFC", text)
    if profile == _CODEPOINTS:
        return len(text), "characters"
    encoding, width, unit = _STORAGE[profile]
    return len(text.encode(encoding)) // width, unit


@dataclass(frozen=True)
class ValidationRule:
    """Condition on a translation: that it holds a text, does not, or begins or ends with it."""

    kind: str
    """``isPresent``, ``isNotPresent``, ``startsWith`` or ``endsWith``."""
    text: str
    occurs: int | None = None
    """How often the text must be present; None for at least once."""
    in_source: bool = False
    """The condition is only meant where it is true of the source."""
    match_case: bool = True
    check: str = "validation"

    def problem(self, source: str, translation: str, codes: Sequence[str]) -> str | None:
        """Return what is wrong with a translation; None if nothing is."""
        held, in_source = self.holds(translation), self.holds(source)
        if self.in_source:
            if held == in_source:
                return None
            return f"{_WORDS[self.kind]} {self.text!r}: " + ("the source is not so" if held else "the source is so")
        often = f" {self.occurs} times" if self.occurs is not None else ""
        return None if held else f"must {_MUST[self.kind]} {self.text!r}{often} (a rule of the file)"

    def holds(self, text: str) -> bool:
        """Return True if the condition is true of a text."""
        text, wanted = (unicodedata.normalize("NFC", one) for one in (text, self.text))
        if not self.match_case:
            text, wanted = text.casefold(), wanted.casefold()
        match self.kind:
            case "startsWith":
                return text.startswith(wanted)
            case "endsWith":
                return text.endswith(wanted)
            case "isNotPresent":
                return wanted not in text
            case _:
                count = text.count(wanted)
                return count > 0 if self.occurs is None else count == self.occurs


_MUST = {"isPresent": "hold", "isNotPresent": "not hold", "startsWith": "begin with", "endsWith": "end with"}
_WORDS = {"isPresent": "holds", "isNotPresent": "is without", "startsWith": "begins with", "endsWith": "ends with"}
_WORDS = {kind: f"differs in whether it {words}" for kind, words in _WORDS.items()}


class ModuleRules:
    """Rules of the modules in a file, by the elements that they stand in."""

    def __init__(self) -> None:
        self.profiles: dict[int, Element] = {}
        self.validations: dict[int, Element] = {}

    def add(self, module: Unit) -> None:
        """Take in the element of a module that stands in a file or a group."""
        known = self.profiles if module.element.name == MODULES[0] else self.validations
        known[module.around[-1].start] = module.element

    def of(self, unit: Unit, texts: Sequence[str], own: int) -> tuple[SlotRule, ...]:
        """Return the rules on a segment of a unit.

        Args:
            texts: translations of all segments of the unit, without codes.
            own: number of the segment.
        """
        around = (*unit.around, unit.element)
        found = [self.validations.get(element.start) for element in unit.around]
        found.append(unit.element.find(MODULES[1]))
        rules: dict[tuple[str, str], ValidationRule] = {}
        for element in filter(None, found):
            _take_in(element.all("rule"), rules)
        return (*self.sizes(around, texts, own), *rules.values())

    def sizes(self, around: Sequence[Element], texts: Sequence[str], own: int) -> Iterator[SizeRestriction]:
        """Yield the size restrictions of a unit: the innermost of each kind."""
        profiles = next((self.profiles[e.start] for e in reversed(around) if e.start in self.profiles), None)
        for restriction, name in (("sizeRestriction", "generalProfile"), ("storageRestriction", "storageProfile")):
            stated = next((found for e in reversed(around) if (found := _attribute(e, restriction))), None)
            profile = (profiles and _attribute(profiles, name)) or ""
            bounds = _bounds(stated or "")
            if bounds and (profile == _CODEPOINTS or profile in _STORAGE):
                used = sum(size_of(text, profile)[0] for number, text in enumerate(texts) if number != own)
                yield SizeRestriction(profile, *bounds, used)


def _take_in(rules: Iterable[Element], known: dict[tuple[str, str], ValidationRule]) -> None:
    """Add rules to those of the elements around them: one of the same text replaces, or removes, an outer one."""
    for element in rules:
        values = {name.rpartition(":")[2]: value for name, value in element.attributes.items()}
        kind = next((kind for kind in _MUST if values.get(kind)), None)
        if kind is None:
            continue  # a rule of another tool
        key = (kind, values[kind])
        if values.get("disabled") == "yes":
            known.pop(key, None)
            continue
        occurs = values.get("occurs", "")
        known[key] = ValidationRule(
            kind,
            values[kind],
            int(occurs) if occurs.isdecimal() and len(occurs) < 10 else None,
            values.get("existsInSource") == "yes",
            values.get("caseSensitive") != "no",
        )


def _attribute(element: Element, name: str) -> str | None:
    """Return an attribute, whatever prefix its module has in the file."""
    attributes: Mapping[str, str] = element.attributes
    return next((value for key, value in attributes.items() if key.rpartition(":")[2] == name), None)


def _bounds(stated: str) -> tuple[int, int] | None:
    """Return the smallest and largest size that ``255`` or ``10,255`` states; None for what is neither."""
    parts = [part.strip() for part in stated.split(",")]
    if not 1 <= len(parts) <= 2 or not all(part.isdecimal() and len(part) < 10 for part in parts if part):
        return None
    least, most = (parts[0], parts[1]) if len(parts) == 2 else ("", parts[0])
    return (int(least or 0), int(most) if most else _UNBOUND) if least or most else None
