"""YAML files of strings, such as Rails' locales: comments, order, anchors and styles stay.

Each string is written in the style that it had: plain, quoted, or a block. Where the translation cannot be plain, it is
quoted. Numbers, true, false and dates are no strings, and neither are the words that YAML 1.1 takes for truth values.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from dragoman.errors import DataError
from dragoman.text.document import Edit
from dragoman.text.filled.comments import comment_lines_above
from dragoman.text.filled.language_at_top import names_language, names_source
from dragoman.text.filled.plural_categories import CATEGORIES, plural_categories
from dragoman.text.filled.spans import SpannedDocument, TextFile, key_of

_STRING = "tag:yaml.org,2002:str"
_SPACE = " \t\r\n"
"""White space of YAML; no-break and ideographic spaces are characters of a text."""
_SPECIAL = re.compile(
    r"(?i)(?:y|yes|n|no|true|false|on|off|null|~|=|<<|\.inf|\.nan"
    r"|[-+]?[1-9][\d_]*(?::[0-5]?\d)+(?:\.[\d_]*)?)"  # 10:30 is a number to the base 60 in YAML 1.1, which Ruby reads
)
_PLAIN = re.compile(
    r"""(?:[^\s\-?:,\[\]{}#&*!|>'"%@`\d+.~=<\x00-\x1f]|\d+\ (?=[^\W\d_]))"""  # no indicator, and no number
    r"(?:[^\x00-\x1f\x7f\u0085\u2028\u2029\ufeff:#]|:(?!\s|$)|(?<!\s)#)*(?<!\s)"
)
_SYMBOL = re.compile(r""":(?:[A-Za-z_]\w*[?!=]?|"[^"]*"|'[^']*')""")
"""Symbol of Ruby's, such as the ``:year`` of a date's order."""
_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*")
_HEADER = re.compile(r"(?P<style>[|>])(?P<rest>[-+\d]*[ \t]*(?:#[^\n]*)?\r?\n)")


class YamlDocument(SpannedDocument):
    """Slots of a YAML file: one per string, or per branch of an ICU message."""

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a YAML file.

        Args:
            source, target: languages. Plurals get the categories of ``target``; the name of ``source`` is replaced
                where it is the only name at the top, as in Rails.

        Raises:
            DataError: not YAML; the message names file and line.
        """
        self.text_file = TextFile(raw, name)
        super().__init__(self.text_file)
        self.source, self.target, self.categories = source, target, plural_categories(target)
        self.seen: set[int] = set()
        """Nodes that were read, since an alias leads to the same node again."""
        for root in self.compose():
            self.numbered = self.numbered or root.id == "sequence"
            top = self.language_at_top(root)
            self.read(root if top is None else top, ())

    def compose(self) -> list[Any]:
        """Return the root node of each document in the file."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        try:
            return [root for root in YAML(typ="safe", pure=True).compose_all(self.text_file.text) if root is not None]
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            raise DataError(f"{self.text_file.name}{line}: not YAML: {error.problem or error.context}") from None
        except (YAMLError, RecursionError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(f"{self.text_file.name}: not YAML that can be read: {reason}") from None

    def language_at_top(self, root: Any) -> Any:
        """Return what is under the name of a language, if that is the only name; the source's becomes the target's."""
        if root.id != "mapping" or len(root.value) != 1:
            return None
        label, node = root.value[0]
        if label.id != "scalar" or node.id != "mapping" or not names_language(label.value, self.source, self.target):
            return None
        if self.target and names_source(label.value, self.source, self.target):
            start, end = label.start_mark.index, label.end_mark.index
            quote = label.style if label.style in ("'", '"') else ""
            safe = self.target if _SPECIAL.fullmatch(self.target) is None or quote else f'"{self.target}"'
            self.declarations.append(Edit(start, end, f"{quote}{safe}{quote}"))
        return node

    def read(self, node: Any, path: tuple[str, ...], *, flow: bool = False) -> None:
        """Add every string below a node; ``flow`` inside of brackets or braces."""
        if id(node) in self.seen:
            return
        self.seen.add(id(node))
        flow = flow or (node.id != "scalar" and bool(node.flow_style))
        if node.id == "scalar":
            self.add_scalar(node, path, node.value, flow=flow)
        elif node.id == "sequence":
            for number, item in enumerate(node.value):
                self.read(item, (*path, str(number)), flow=flow)
        else:
            forms = _plural_forms(node)
            for label, value in node.value:
                name = label.value if label.id == "scalar" else "?"
                if forms and value.id == "scalar":
                    self.seen.add(id(value))
                    self.add_scalar(value, (*path, name), forms[self.categories.form_of(name, forms)], flow=flow)
                elif name != "<<":
                    self.read(value, (*path, name), flow=flow)
            for category in self.categories.missing(forms):
                self.add_form(node, path, category, forms["other"])

    def add_scalar(self, node: Any, path: tuple[str, ...], text: str, *, flow: bool) -> None:
        """Add the slots of a string; what is no text is a value."""
        if node.style in ("|", ">"):
            if node.tag in (_STRING, "!"):
                self.add_block(node, path, text)
            return
        plain = not node.style
        start = _after_properties(self.text_file.text, node.start_mark.index)
        raw = self.text_file.text[start : node.end_mark.index]
        raw = raw.rstrip(_SPACE) if plain else raw
        end = start + len(raw)
        special = plain and (_SPECIAL.fullmatch(node.value) or _SYMBOL.fullmatch(node.value))
        if node.tag not in (_STRING, "!") or special:
            if raw:
                self.values[key_of(path)] = Edit(start, end, raw)
            return
        self.add(
            (start, end),
            text,
            place=self.text_file.place(start),
            key=key_of(path),
            write=lambda new, _: raw if new == node.value else scalar(new, "" if plain else node.style, flow=flow),
            icu=self.categories,
            notes=comment_lines_above(self.text_file.text, start, "#"),
        )

    def add_block(self, node: Any, path: tuple[str, ...], text: str) -> None:
        """Add the slot of a block: its lines, indented as they are."""
        file = self.text_file.text
        start = _after_properties(file, node.start_mark.index)
        header = _HEADER.match(file, start)
        if not header:
            return
        body = file[header.end() : node.end_mark.index]
        indent = _first_spaces(body) - _first_spaces(text)  # spaces beyond it belong to the text
        if not indent:
            return
        inside = text.strip("\n")
        lines = body.split("\n")
        first = len(text) - len(text.lstrip("\n"))  # number of the first line that is not empty
        while len(lines[-1].rstrip("\r")) <= indent and not lines[-1].strip():
            del lines[-1]
        lead = "".join(line + "\n" for line in lines[:first])
        end = header.end() + len("\n".join(lines).rstrip("\r"))
        folded = header["style"] == ">" and not re.search(r"(?m)^[ \t]", inside)

        def write(new: str, _: Sequence[str]) -> str:
            lines = (_with_folds(new) if folded else new).split("\n")
            written = "\n".join(" " * indent + line if line else "" for line in lines)
            return lead + written.replace("\n", self.text_file.line_end)

        if folded or header["style"] == "|":
            self.add(
                (header.end(), end),
                inside,
                place=self.text_file.place(start),
                key=key_of(path),
                write=write,
                notes=comment_lines_above(file, start, "#"),
            )

    def add_form(self, node: Any, path: tuple[str, ...], category: str, text: str) -> None:
        """Add a plural form that the file does not have, after the last one."""
        file, (label, last) = self.text_file.text, node.value[-1]
        end = last.end_mark.index
        end = last.start_mark.index + len(file[last.start_mark.index : end].rstrip(_SPACE))
        flow = bool(node.flow_style)
        start = file.rfind("\n", 0, label.start_mark.index) + 1
        indent = file[start : label.start_mark.index]
        before = ", " if flow else self.text_file.line_end + " " * len(indent)
        in_block = last.style in ("|", ">")  # the next entry follows the line end of the block
        style = '"' if in_block else last.style or ""
        self.add(
            (end, end),
            text,
            place=self.text_file.place(end),
            key=key_of((*path, category)),
            write=lambda new, _: scalar(new, style, flow=flow),
            around=(f"{before}{category}: ", ""),
        )


def _plural_forms(node: Any) -> dict[str, str]:
    """Return the forms of a mapping that is a plural: its names are categories, and ``other`` is one."""
    forms = {
        label.value: value.value
        for label, value in node.value
        if label.id == "scalar" and value.id == "scalar" and value.tag in (_STRING, "!")
    }
    plural = len(forms) == len(node.value) and set(forms) <= set(CATEGORIES) and "other" in forms and len(forms) > 1
    return forms if plural else {}


def _after_properties(text: str, at: int) -> int:
    """Return the position after the anchor and tag of a value."""
    found = _PROPERTIES.match(text, at)
    assert found
    return found.end()


def _first_spaces(text: str) -> int:
    """Return the number of spaces before the first line that is not blank."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    return len(first) - len(first.lstrip(" "))


def _with_folds(text: str) -> str:
    """Return a text as it is written in a folded block: each run of line ends has one more, except beside a line that
    begins with white space."""
    parts = re.split(r"(\n+)", text)
    for number in range(1, len(parts), 2):
        if not any(part[:1].isspace() for part in (parts[number - 1], parts[number + 1])):
            parts[number] += "\n"
    return "".join(parts)


def scalar(text: str, style: str, *, flow: bool) -> str:
    """Return a text as a scalar in a style (plain: empty, ``'`` or ``"``), or in quotes where that cannot hold it."""
    plain = _PLAIN.fullmatch(text) and not _SPECIAL.fullmatch(text) and not (flow and re.search(r"[,\[\]{}?:]", text))
    if not style and plain:
        return text
    if style == "'" and re.search(r"[\x00-\x1f\x7f\u0085\u2028\u2029\ufeff]", text) is None:
        return "'" + text.replace("'", "''") + "'"
    return re.sub(
        "[\x7f\u0085\u2028\u2029\ufeff]", lambda c: f"\\u{ord(c[0]):04x}", json.dumps(text, ensure_ascii=False)
    )
