"""Parts of multimodal folders: what config.json says of a part, as a folder of that part alone has it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dragoman.errors import ConfigError
from dragoman.interchange.hub_config import named_architectures


class _Part(NamedTuple):
    """The part of a multimodal model that is taken."""

    field: str
    """Name of its settings in config.json."""
    architecture: str
    left_out: str
    """Note on the rest."""
    missing: dict[str, Any]
    """Values of fields that published folders leave out, since they are those of transformers' class."""


_PARTS = {
    "Gemma3ForConditionalGeneration": _Part(
        "text_config",
        "Gemma3ForCausalLM",
        "vision_config: what reads images is left out: the model reads and writes text alone",
        {
            "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
            "num_attention_heads": 8, "max_position_embeddings": 131_072, "hidden_activation": "gelu_pytorch_tanh",
            "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
        },
    ),
    "SiglipVisionModel": _Part(
        "vision_config",
        "SiglipVisionModel",
        "text_config: what reads texts is left out: the model turns images into vectors",
        {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    ),
}  # fmt: skip
"""Architectures of multimodal folders."""


def part_of(content: Mapping[str, Any], where: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the config.json of the part of a folder that is taken, and a note on what is left out.

    A folder with a model of one kind has its own config.json and no note.

    Raises:
        ConfigError: architectures that are no names, or a multimodal folder without the settings of the part.
    """
    part = next((_PARTS[name] for name in named_architectures(content, where) if name in _PARTS), None)
    if part is None or (part.architecture in content.get("architectures", ()) and part.field not in content):
        return dict(content), []
    settings = content.get(part.field)
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}: {part.field}: must be given, with the settings of the part that is read")
    roles = {name: value for name, value in content.items() if name.endswith("_token_id") and value is not None}
    common = {name: content[name] for name in ("quantization_config", "tie_word_embeddings") if name in content}
    taken = part.missing | common | settings | roles | {"architectures": [part.architecture]}
    return taken, [f"{where.name}: {part.left_out}"]
