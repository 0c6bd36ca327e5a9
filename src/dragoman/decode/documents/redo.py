"""Choice of the existing translations that are replaced."""

from enum import StrEnum


class Redo(StrEnum):
    """Existing translations that are replaced."""

    nothing = "nothing"
    fuzzy = "fuzzy"
    """Those that are marked for review."""
    all = "all"
    """All but approved ones."""
