"""JSON: the text of results, and small files that hold a mapping, such as those of a Hugging Face folder."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman.errors import CheckpointError


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return plain data as JSON. A number that is infinite or NaN is ``null``, since JSON has no such numbers."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict[str, Any]:
    """Return the file's mapping; empty if there is no such file.

    Raises:
        CheckpointError: not JSON, or no mapping.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON mapping")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
