"""Form of a preset: plain data that a run file is merged over, so that each value can be changed by itself."""

from typing import Any

from dragoman.config import to_dict
from dragoman.model.families import ModelConfig

Plain = dict[str, Any]


def architecture(model: ModelConfig, *, vocab: int | None = None) -> Plain:
    """Return the preset of a published model without a recipe.

    The vocabulary's size is under the tokenizer, since a model trained here has its own, with its own special ids.
    """
    return {"model": to_dict(model)} | ({} if vocab is None else {"tokenizer": {"kind": "bpe", "vocab": vocab}})
