"""The preset most like a model among those that a format can hold, for errors that say what to do."""

from collections.abc import Iterator
from typing import Any

from dragoman.config import from_dict, to_dict
from dragoman.interchange.exportable import EXPORTS
from dragoman.model.families import ModelConfig
from dragoman.presets import PRESETS


def nearest_preset(cfg: ModelConfig, layout: str) -> str:
    """Return half a sentence that names the preset most like a model that ``layout`` can hold."""
    ours, presets = to_dict(cfg), {name: _model(name) for name, formats in EXPORTS.items() if layout in formats}
    shape, leaves = _shape(ours), set(_leaves(ours))

    def alike(name: str) -> float:
        theirs = set(_leaves(presets[name]))
        return len(leaves & theirs) / len(leaves | theirs)

    same = [name for name, plain in presets.items() if _shape(plain) == shape]
    if not same:
        return f"presets that can be exported so: {', '.join(list(presets)[:4])}"
    return f"the nearest preset that can be exported so is {max(same, key=alike)}"


def _model(name: str) -> dict[str, Any]:
    return to_dict(from_dict(ModelConfig, PRESETS[name]()["model"]))


def _shape(plain: dict[str, Any]) -> tuple[bool, bool, bool]:
    """Return whether a model writes text, whether it reads a source for that, and whether it reads images."""
    return "decoder" in plain, plain.get("encoder") is not None, "patch_input" in str(plain)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting with its path, sizes left out."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _leaves(below, f"{path}.{name}")
    elif isinstance(value, list):
        for below in value:
            yield from _leaves(below, path)
    elif isinstance(value, bool | str | None):
        yield path, str(value)
