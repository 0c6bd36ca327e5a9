"""Resource files of .NET (``.resx``) and Windows (``.resw``): the values of strings; other data stays.

Other data has a type, such as the size of a control, or a name that begins with ``>>``.
"""

from dragoman.text.filled.spans import SpannedDocument
from dragoman.text.formats.inline import Inline, read_inline, to_xml
from dragoman.text.formats.markup import MarkupSource, check_root, units


class ResxDocument(SpannedDocument):
    """Slots of a resource file: one per string."""

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a resource file.

        Raises:
            DataError: not XML, or another kind of XML; the message names file and line.
        """
        self.markup = MarkupSource(raw, name)
        super().__init__(self.markup)
        check_root(self.markup, "root", "a .NET resource file")
        for unit in units([self.markup.utf8], name, "root", "data"):
            value, key = unit.element.find("value"), unit.element.attributes.get("name", "")
            other = {"type", "mimetype"} & unit.element.attributes.keys() or key.startswith(">>")
            if value is None or other or value.is_one_tag:
                continue
            inline = read_inline(value, unit, keep_space=True)
            comment = unit.element.find("comment")
            self.add(
                (value.inside, value.outside),
                inline.text,
                place=f"{name}:{value.line}",
                key=key,
                write=lambda text, codes, inline=inline: to_xml(text, Inline(text, tuple(codes), inline.spellings)),
                codes=inline.codes,
                notes=(comment.text.strip(),) if comment and comment.text.strip() else (),
            )
