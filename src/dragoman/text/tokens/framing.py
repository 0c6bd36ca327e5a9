"""Special tokens around a text, as an imported tokenizer adds them.

An imported tokenizer keeps them as the post-processor of its file: a template in the library's own format, marked by an
entry for the end token. Besides the tokens before and after a text, its table of special tokens holds the original
spelling of those that have a name of ours, and further tokens that end a text.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers

from dragoman.text.tokens.training import SPECIALS

_ENDS = "⟨ends⟩"
_MARKER = SPECIALS[2]


@dataclass(frozen=True)
class TextFrame:
    """Ids before and after the tokens of each text, and between the two of a pair."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    between: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.before) + len(self.after)

    def around(self, ids: Iterable[int]) -> list[int]:
        """Return ``ids`` with the frame."""
        return [*self.before, *ids, *self.after]


@dataclass(frozen=True)
class FrameTemplate:
    """Frame by the names of its tokens in the tokenizer."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    originals: Mapping[str, str]
    """Original names of tokens by our names."""
    ends: tuple[str, ...] = ()
    """Tokens that end a text besides the end token."""
    between: tuple[str, ...] = ()
    """Tokens between the two texts of a pair; none where pairs are not known to be read."""

    def to_processor(self, inner: tokenizers.Tokenizer) -> dict[str, Any]:
        """Return the post-processor that stores this template in a tokenizer's file."""
        sequence = [{"Sequence": {"id": "A", "type_id": 0}}]
        before, after, between = (
            [{"SpecialToken": {"id": name, "type_id": 0}} for name in names]
            for names in (self.before, self.after, self.between)
        )
        named = (*SPECIALS, *self.before, *self.after, *self.between)
        table = {name: [name] for name in named if inner.token_to_id(name) is not None}
        table |= {_ENDS: list(self.ends)} if self.ends else {}
        special = {
            key: {
                "id": key,
                "ids": [inner.token_to_id(name) for name in names],
                "tokens": [name if key == _ENDS else self.originals.get(name, name) for name in names],
            }
            for key, names in table.items()
        }
        pair = [*before, *sequence, *between, {"Sequence": {"id": "B", "type_id": 1}}, *after]
        single = [*before, *sequence, *after]
        return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}


def read_template(inner: tokenizers.Tokenizer) -> FrameTemplate | None:
    """Return the template that an imported tokenizer stores; None for a tokenizer that was not imported."""
    processor = inner.post_processor
    content = json.loads(processor.__getstate__()) if processor is not None else {}
    table = content.get("special_tokens") or {}
    if content.get("type") != "TemplateProcessing" or _MARKER not in table:
        return None
    before, after = split_template(content["single"])
    originals = {name: entry["tokens"][0] for name, entry in table.items() if name != _ENDS}
    ends = tuple(table.get(_ENDS, {}).get("tokens", ()))
    return FrameTemplate(before, after, originals, ends, between_texts(content.get("pair") or ()))


def split_template(single: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the special tokens before and after the text in a template for one text."""
    at = next((i for i, piece in enumerate(single) if "Sequence" in piece), len(single))
    names = [piece["SpecialToken"]["id"] if "SpecialToken" in piece else None for piece in single]
    return tuple(name for name in names[:at] if name), tuple(name for name in names[at:] if name)


def between_texts(pair: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of the special tokens between the two texts in a template for a pair."""
    texts = [i for i, piece in enumerate(pair) if "Sequence" in piece]
    inside = pair[texts[0] + 1 : texts[1]] if len(texts) == 2 else ()
    return tuple(piece["SpecialToken"]["id"] for piece in inside)
