"""Page of a study."""

from typing import Any


def study_page(found: dict[str, Any]) -> str:
    return "<!doctype html>"
