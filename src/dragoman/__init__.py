"""Dragoman trains, runs and explains Transformers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dragoman.decode.translator import Translator

__version__ = "0.1.0"
__all__ = ["Translator", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Translator":  # torch takes a second to import: only who translates waits for it
        from dragoman.decode.translator import Translator

        return Translator
    raise AttributeError(f"module 'dragoman' has no attribute {name!r}")
