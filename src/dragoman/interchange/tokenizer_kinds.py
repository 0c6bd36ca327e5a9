"""Kinds of tokenizers: the class that a folder names or that its family has, and the usual names of its roles."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman.json_files import read_json

GENERIC = ("PreTrained", "Backend", "TokenizersBackend")
"""Names of classes that take tokenizer.json as it is, without the endings that ``tokenizer_kind`` removes."""
_BY_MODEL = {
    "bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "bart": "Roberta", "t5": "T5", "mt5": "T5",
    "umt5": "T5", "marian": "Marian", "distilbert": "Bert", "electra": "Bert", "albert": "Albert",
    "deberta-v2": "DebertaV2", "mbart": "MBart", "m2m_100": "M2M100", "pegasus": "Pegasus", "siglip": "Siglip",
}  # fmt: skip
_SQUARE = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
_POINTED = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
_ENDED = {"pad_token": "<pad>", "eos_token": "</s>"}
_ROLES = {
    "T5": _ENDED,
    "Pegasus": _ENDED,
    "ByT5": _ENDED,
    "Siglip": {"pad_token": "</s>", "eos_token": "</s>"},
    "Marian": _ENDED,
    "Albert": _SQUARE | {"pad_token": "<pad>"},
    "Llama": {"bos_token": "<s>", "eos_token": "</s>"},
} | dict.fromkeys(("Roberta", "Bart", "XLMRoberta", "MBart", "MBart50", "Nllb", "M2M100"), _POINTED)
"""Tokens of the roles by the tokenizer's class, where they are not BERT's."""


def tokenizer_kind(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the name of the tokenizer's class without common endings; "" where none is known.

    ``config`` is config.json, which may name the class itself or a family that has one.
    """
    named = read_json(folder / "tokenizer_config.json").get("tokenizer_class") or config.get("tokenizer_class")
    name = str(named or "")
    kind = name if name in GENERIC else name.removesuffix("Fast").removesuffix("Tokenizer")
    return kind or _BY_MODEL.get(config.get("model_type", ""), "")


def usual_roles(kind: str) -> Mapping[str, str]:
    """Return the tokens that have a role where a folder names none."""
    return _ROLES.get(kind, _SQUARE)
