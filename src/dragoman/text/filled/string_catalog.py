"""Apple's string catalogs (``.xcstrings``): one file with all languages; the target's translations are added to it."""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dragoman.errors import DataError
from dragoman.text.document import Edit, FillableDocument, Filling, Slot
from dragoman.text.filled.json_tree import JsonNode, JsonStrings, read_json_tree
from dragoman.text.filled.plural_categories import CATEGORIES, PluralCategories, plural_categories
from dragoman.text.filled.spans import TextFile, key_of
from dragoman.text.lines import check_string

_UNFILLED = ("new", "stale")
_INDENT = "  "
_SET = "stringSet"
"""Name of several strings in the place of one, of which each is a phrase for the same action."""


class CatalogHome(NamedTuple):
    """Place of a slot: its entry, and the path to its string unit in the entry's localization."""

    key: str
    path: tuple[str, ...]


class StringCatalog(FillableDocument):
    """Slots of a string catalog: one per string, or per variation of it."""

    bilingual = True

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a string catalog.

        Args:
            target: language of the translations; a catalog holds many.

        Raises:
            DataError: not JSON, no catalog, or no ``target``; the message names file and line.
        """
        super().__init__()
        self.text_file = TextFile(raw, name)
        self.root = read_json_tree(self.text_file)
        strings, language = self.root.at("strings"), self.root.text_of("sourceLanguage")
        if strings is None or not strings.is_object or language is None:
            raise DataError(f"{name}:1: not a string catalog: it has no strings, or no sourceLanguage")
        if target is None:
            raise DataError(
                f"{name}: a catalog holds many languages: name that of the translations (--target-language)"
            )
        self.strings, self.target, self.language = strings, target, language
        self.categories = plural_categories(target)
        self.localizations: dict[str, dict[str, Any]] = {}
        """Localization of each entry in the target language, as it will be."""
        self.homes: list[CatalogHome] = []
        for member in strings.members or ():
            self.add_entry(member.name, member.node)

    def add_entry(self, key: str, node: JsonNode) -> None:
        """Add the slots of an entry."""
        entry = json.loads(self.text_file.text[node.start : node.end])
        if not isinstance(entry, dict) or entry.get("shouldTranslate") is False:
            return
        if entry.get("extractionState") == "stale":
            return
        place = self.text_file.place(node.start)
        all_languages = _localizations(entry, place)
        source = all_languages.get(self.language) or {"stringUnit": {"state": "new", "value": key}}
        there, comment = all_languages.get(self.target), entry.get("comment")
        if _other_set(source, there):
            return
        whole = _adapted(source, self.categories)
        if there is not None and "stringUnit" in there and "variations" in whole and "stringUnit" not in whole:
            whole = copy.deepcopy(there)  # one text for all variations, as a translator decided
        present = dict(units_of(there or {}))
        for path, unit in list(units_of(whole)):
            text, found = unit.get("value", ""), present.get(path, {})
            if whole.keys() == (there or {}).keys() and there is not None and path not in dict(units_of(source)):
                text = key
            check_string(text, place)
            if not text.strip():
                continue
            translation = found.get("value", "") if found.get("state") not in _UNFILLED else ""
            self.slots.append(
                Slot(
                    place,
                    text,
                    filled=bool(translation.strip()),
                    key=key_of((key, *path)),
                    translation=translation,
                    fuzzy=found.get("state") == "needs_review",
                    notes=(comment.strip(),) if isinstance(comment, str) and comment.strip() else (),
                )
            )
            self.homes.append(CatalogHome(key, path))
        for path, unit in units_of(whole):
            unit.clear()
            unit.update(present.get(path, {"state": "new", "value": ""}))
        self.localizations[key] = whole

    def fill(self, fillings: Mapping[int, Filling]) -> bytes:
        new: dict[str, dict[str, Any]] = {}
        for number, filling in fillings.items():
            key, path = self.homes[number]
            whole = new.setdefault(key, copy.deepcopy(self.localizations[key]))
            unit = dict(units_of(whole))[path]
            unit.clear()
            unit.update({"state": "needs_review" if filling.review else "translated", "value": filling.text})
        return self.text_file.with_edits([edit for key, whole in new.items() for edit in self.edits(key, whole)])

    def edits(self, key: str, whole: Mapping[str, Any]) -> Iterator[Edit]:
        """Yield the edit that writes a localization: in its place, or as a new one in the order of the languages."""
        entry = self.strings.names[key].node
        there = entry.at("localizations")
        name = JsonStrings(self.text_file.text).escaped(self.target)
        if there is None:
            body = self.written({"localizations": {self.target: whole}}, 2)
            inside = body[1:-1].rstrip()  # without the braces
            if entry.members:
                yield Edit(entry.members[-1].node.end, entry.members[-1].node.end, f",{inside}")
            else:
                yield Edit(entry.start, entry.end, body)
            return
        if (old := there.at(self.target)) is not None:
            yield Edit(old.start, old.end, self.written(whole, 4))
            return
        line = self.text_file.line_end + _INDENT * 4
        written = f'"{name}" : {self.written(whole, 4)}'
        later = [member for member in there.members or () if member.name > self.target]
        if later:
            yield Edit(later[0].start, later[0].start, f"{written},{line}")
        elif there.members:
            yield Edit(there.members[-1].node.end, there.members[-1].node.end, f",{line}{written}")
        else:
            end = self.text_file.line_end + _INDENT * 3
            yield Edit(there.start, there.end, f"{{{line}{written}{end}}}")

    def written(self, value: object, depth: int) -> str:
        """Return a value as Xcode writes it, inside of ``depth`` others."""
        lines = json.dumps(_folded(value), indent=_INDENT, ensure_ascii=False, separators=(",", " : ")).split("\n")
        return (self.text_file.line_end + _INDENT * depth).join(lines)


def _localizations(entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the localizations of an entry by language.

    Raises:
        DataError: they are of another type than Xcode writes.
    """
    found = entry.get("localizations") or {}
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise DataError(f"{place}: its localizations are not an object with an object for each language")
    found = {language: _unfolded(one) for language, one in found.items()}
    for language, one in found.items():
        for _, unit in units_of(one):
            if not all(isinstance(unit.get(name, ""), str) for name in ("state", "value")):
                raise DataError(f"{place}: its string unit in {language} has a state or value that is not a string")
    return found


def units_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield the string units below a localization, with their paths."""
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        if name == "stringUnit" and isinstance(inner, dict):
            yield path, inner
        else:
            yield from units_of(inner, (*path, name))


# ---- sets of strings: several phrases for one action, as Siri knows it ---------------------------------


def _unfolded(value: Any) -> Any:
    """Return a copy of a localization with a string unit for each string of a set."""
    if not isinstance(value, dict):
        return value
    if isinstance(found := value.get(_SET), dict) and isinstance(found.get("values"), list):
        state = found.get("state", "new")
        strings = {str(i): {"stringUnit": {"state": state, "value": one}} for i, one in enumerate(found["values"])}
        value = {**value, _SET: strings}
    return {name: _unfolded(inner) for name, inner in value.items()}


def _folded(value: Any) -> Any:
    """Return a localization with its sets of strings as Xcode has them; strings without a translation are left out."""
    if not isinstance(value, dict):
        return value
    folded = {name: _folded(inner) for name, inner in value.items()}
    if isinstance(found := folded.get(_SET), dict) and "values" not in found:
        strings = [unit for _, unit in units_of(found) if unit["value"].strip()]
        state = "needs_review" if any(unit["state"] == "needs_review" for unit in strings) else "translated"
        folded[_SET] = {"state": state, "values": [unit["value"] for unit in strings]}
    return folded


def _other_set(source: Mapping[str, Any], there: Mapping[str, Any] | None) -> bool:
    """Return True for a translated set of another size: a language may have more phrases than the source, or fewer."""
    sets = [list(units_of((one or {}).get(_SET))) for one in (source, there)]
    translated = [unit for _, unit in sets[1] if unit.get("state") not in _UNFILLED]
    return bool(translated) and len(sets[0]) != len(sets[1])


# ---- plurals -----------------------------------------------------------------------------------------


def _adapted(value: Any, categories: PluralCategories) -> Any:
    """Return a copy of a source localization with the plural categories of the target language."""
    if not isinstance(value, dict):
        return value
    adapted = {name: _adapted(inner, categories) for name, inner in value.items()}
    if "plural" in adapted and isinstance(adapted["plural"], dict) and "other" in adapted["plural"]:
        forms = adapted["plural"]
        needed = [
            name for name in CATEGORIES if name in (categories.names or forms) or (name in forms and name == "zero")
        ]
        texts = {name: "\n".join(unit.get("value", "") for _, unit in units_of(form)) for name, form in forms.items()}
        adapted["plural"] = {name: copy.deepcopy(forms[categories.form_of(name, texts)]) for name in needed}
    return adapted
