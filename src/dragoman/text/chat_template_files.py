"""Files that hold chat templates: those of a Hugging Face folder, and a run's own."""

from pathlib import Path
from typing import Any, NamedTuple

from dragoman.errors import CheckpointError
from dragoman.json_files import read_json

FILE = "chat_template.jinja"
"""Name of the file in a run, or in the folder that it was imported from."""
ADDITIONAL = "additional_chat_templates"
"""Folder beside it, of templates for other purposes, each named after its file."""
DEFAULT = "default"
"""Name of the template for all other purposes."""


class TemplateSources(NamedTuple):
    """Templates by name, and the file that holds the default one."""

    path: Path
    sources: dict[str, str]


def read_template_sources(*folders: Path) -> TemplateSources | None:
    """Return the templates of the first folder that has some; None if none has.

    The order in a folder is that of transformers: files before tokenizer_config.json.

    Raises:
        CheckpointError: a file that cannot be read.
    """
    for folder in folders:
        for name, read in ((FILE, _read_files), ("tokenizer_config.json", _stated), ("chat_template.json", _stated)):
            path = folder / name
            if path.is_file() and (sources := read(path)):
                return TemplateSources(path, sources)
    return None


def write_template_sources(folder: Path, sources: dict[str, str]) -> None:
    """Write templates, the default one among them, as files of their own."""
    for name, source in sources.items():
        path = folder / FILE if name == DEFAULT else folder / ADDITIONAL / f"{name}.jinja"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")


def _read_files(path: Path) -> dict[str, str]:
    several = {file.stem: file for file in sorted((path.parent / ADDITIONAL).glob("*.jinja"))} | {DEFAULT: path}
    try:
        return {name: file.read_text(encoding="utf-8") for name, file in several.items()}
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


def _stated(path: Path) -> dict[str, str]:
    stated = read_json(path).get("chat_template")
    pairs: list[Any] = []
    if isinstance(stated, str):
        pairs = [(DEFAULT, stated)]
    elif isinstance(stated, list):
        pairs = [(one.get("name"), one.get("template")) if isinstance(one, dict) else () for one in stated]
    elif stated:
        pairs = list(stated.items()) if isinstance(stated, dict) else [()]
    if not all(pair and all(isinstance(text, str) for text in pair) for pair in pairs):
        raise CheckpointError(f"{path}: chat_template: a text, or a list of names and templates, is expected")
    return dict(pairs)
