"""Text models inside multimodal folders: their part of config.json, as a folder of the text model alone has it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman.errors import ConfigError

_GEMMA3 = {
    "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "max_position_embeddings": 131_072, "hidden_activation": "gelu_pytorch_tanh",
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
}  # fmt: skip
"""Sizes that published folders leave out, since they are those of transformers' class."""
_TEXT: dict[str, tuple[str, dict[str, Any]]] = {"Gemma3ForConditionalGeneration": ("Gemma3ForCausalLM", _GEMMA3)}
"""Architectures of multimodal folders: that of their text model, and values of missing fields."""


def text_part(content: Mapping[str, Any], where: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the config.json of the text model in a folder, and a note on what is left out.

    A folder that holds a text model alone has its own config.json and no note.

    Raises:
        ConfigError: a multimodal folder without a text part.
    """
    named = content.get("architectures") or []
    known = next((_TEXT[name] for name in named if name in _TEXT), None) if isinstance(named, list) else None
    if known is None:
        return dict(content), []
    text = content.get("text_config")
    if not isinstance(text, dict):
        raise ConfigError(f"{where}: text_config: must be given, with the settings of the text model")
    architecture, missing = known
    roles = {name: value for name, value in content.items() if name.endswith("_token_id") and value is not None}
    common = {name: content[name] for name in ("quantization_config", "tie_word_embeddings") if name in content}
    note = f"{where.name}: vision_config: what reads images is left out: the model reads and writes text alone"
    return missing | common | text | roles | {"architectures": [architecture]}, [note]
