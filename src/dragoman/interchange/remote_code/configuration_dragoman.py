"""Configuration of a model that was exported from Dragoman."""

from typing import Any

from transformers import PretrainedConfig


class DragomanConfig(PretrainedConfig):
    """Configuration of the network, as plain data: ``type`` names the class of each part in network_dragoman.py."""

    model_type = "dragoman"

    def __init__(self, network: dict[str, Any] | None = None, **options: Any):
        """
        Args:
            network: the parts of the network.
            options: fields that all configurations have.
        """
        self.network = network or {}
        self.hidden_size = _first(self.network, "dim")
        self.num_hidden_layers = _first(self.network, "depth")
        self.num_attention_heads = _first(self.network, "heads")
        super().__init__(**options)


def _first(content: Any, name: str) -> int:
    """Return the first number of that name, the decoder's before the encoder's; 0 where there is none."""
    if not isinstance(content, dict):
        return next(filter(None, (_first(part, name) for part in content)), 0) if isinstance(content, list) else 0
    if isinstance(content.get(name), int):
        return content[name]
    parts = [content.get("decoder"), *content.values()]
    return next(filter(None, (_first(part, name) for part in parts)), 0)
