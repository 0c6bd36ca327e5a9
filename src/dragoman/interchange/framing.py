"""The special tokens that a folder's tokenizer puts around a text, found as transformers finds them.

Where its sources disagree, transformers takes the tokenizer's class first (BERT, RoBERTa and T5 write their own
template), then ``add_bos_token`` and ``add_eos_token`` of tokenizer_config.json, then the post-processor of
tokenizer.json.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dragoman.errors import DataError
from dragoman.interchange.languages import language_frame
from dragoman.interchange.tokenizer_kinds import tokenizer_kind
from dragoman.interchange.vocabulary import entries, named_ids
from dragoman.json_files import read_json
from dragoman.text.tokens.framing import between_texts, split_template


class TheirFrame(NamedTuple):
    """Ids of their vocabulary before and after each text, and between the two of a pair."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    between: tuple[int, ...] = ()


_OWN = {
    "Bert": (("cls", "bos"), ("sep", "eos")),
    "DistilBert": (("cls", "bos"), ("sep", "eos")),
    "Roberta": (("cls", "bos"), ("sep", "eos")),
    "Bart": (("cls", "bos"), ("sep", "eos")),
    "XLMRoberta": (("cls", "bos"), ("sep", "eos")),
    "T5": ((), ("eos",)),
    "Electra": (("cls", "bos"), ("sep", "eos")),
    "Albert": (("cls", "bos"), ("sep", "eos")),
    "DebertaV2": (("cls", "bos"), ("sep", "eos")),
    "Marian": ((), ("eos",)),
    "Pegasus": ((), ("eos",)),
    "ByT5": ((), ("eos",)),
    "Siglip": ((), ("eos",)),
}
_TWICE = ("Roberta", "Bart", "XLMRoberta")
"""Classes that write the end token twice between the texts of a pair."""
"""Classes that write their template themselves: the roles before and after a text, by the first that is there."""


def read_frame(folder: Path, content: Mapping[str, Any], config: Mapping[str, Any]) -> TheirFrame:
    """Return the tokens around a text; ``content`` is that of tokenizer.json, ``config`` that of config.json."""
    settings = read_json(folder / "tokenizer_config.json")
    kind = tokenizer_kind(folder, config)
    ids = _roles(config) | named_ids(folder, content)
    if "eos_token_id" in ids and (
        framed := language_frame(kind, settings, entries(folder, content), ids["eos_token_id"])
    ):
        return TheirFrame(*framed)
    found = _frame_of_processor(content.get("post_processor"))
    if kind in _OWN:
        return found if found != TheirFrame() else _own_frame(kind, ids)
    if "add_bos_token" not in settings and "add_eos_token" not in settings:
        return found
    sides = (("bos", settings.get("add_bos_token")), ("eos", settings.get("add_eos_token")))
    before, after = ((ids[f"{role}_token_id"],) if add and f"{role}_token_id" in ids else () for role, add in sides)
    return TheirFrame(before, after)


def _roles(config: Mapping[str, Any]) -> dict[str, int]:
    return {key: value for key, value in config.items() if key.endswith("_token_id") and isinstance(value, int)}


def _own_frame(kind: str, ids: Mapping[str, int]) -> TheirFrame:
    def first(roles: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(ids[f"{role}_token_id"] for role in roles if f"{role}_token_id" in ids)[:1]

    before, after = _OWN[kind]
    end = first(after)
    return TheirFrame(first(before), end, 2 * end if kind in _TWICE else end)


def _frame_of_processor(processor: Mapping[str, Any] | None) -> TheirFrame:
    """Return the tokens that a post-processor puts around one text; none if it only moves offsets."""
    match (processor or {}).get("type"), processor or {}:
        case "Sequence", {"processors": several}:
            frames = [_frame_of_processor(one) for one in several]
            before = tuple(i for frame in reversed(frames) for i in frame.before)
            between = tuple(i for frame in frames for i in frame.between)
            return TheirFrame(before, tuple(i for frame in frames for i in frame.after), between)
        case "BertProcessing" | "RobertaProcessing" as kind, {"cls": cls, "sep": sep}:
            return TheirFrame((cls[1],), (sep[1],), (sep[1],) * (2 if kind == "RobertaProcessing" else 1))
        case "TemplateProcessing", {"single": single, "special_tokens": table} as content:
            names = (*split_template(single), between_texts(content.get("pair") or ()))
            if missing := {name for part in names for name in part} - table.keys():
                raise DataError(
                    f"the template of the tokenizer names {min(missing)}, which its special_tokens do not have"
                )
            return TheirFrame(*(tuple(i for name in part for i in table[name]["ids"]) for part in names))
    return TheirFrame()
