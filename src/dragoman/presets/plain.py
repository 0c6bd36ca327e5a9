"""What a preset is: plain data that a run file is laid over, so that any line of it can be changed by itself."""

from typing import Any

from dragoman.config import to_dict
from dragoman.model.families import ModelConfig

Plain = dict[str, Any]


def architecture(model: ModelConfig, *, vocab: int | None = None) -> Plain:
    """A published model without a recipe. The size of its vocabulary stands with the tokenizer, since what is trained
    here has one of its own, with its own special ids."""
    return {"model": to_dict(model)} | ({} if vocab is None else {"tokenizer": {"kind": "bpe", "vocab": vocab}})
