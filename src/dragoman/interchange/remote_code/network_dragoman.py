"""The network of modeling_dragoman.py: in this package its parts are imported, in an export they are written out."""

from typing import Any

from dragoman.model.caches.cache import KVCache
from dragoman.model.caches.layout import GrowingLayout
from dragoman.model.caches.state import KVPolicy, KVState
from dragoman.model.caches.storage import Unchanged
from dragoman.model.interface import DecodingState
from dragoman.model.masks.visibility import VisibilityRule
from dragoman.model.positions.tokens import Frames, Tokens

__all__ = ["DecodingState", "ExportedCache", "Frames", "Tokens", "read_part"]

PARTS: dict[str, type] = {}
"""The classes of a configuration, by their names."""


class ExportedCache(KVPolicy):
    """Caches that grow by concatenation."""

    def new_state(self, visibility: VisibilityRule) -> KVState:
        return KVCache(Unchanged(), GrowingLayout())


def read_part(content: Any) -> Any:
    """Return the configuration that plain data describe: ``type`` names the class of each part."""
    if isinstance(content, dict):
        fields = {name: read_part(value) for name, value in content.items() if name != "type"}
        return PARTS[content["type"]](**fields)
    return tuple(map(read_part, content)) if isinstance(content, list) else content
