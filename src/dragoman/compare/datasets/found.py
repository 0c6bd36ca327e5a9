"""Data sets that are found on disk: a file of the user's, and published ones in a folder of data sets."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from dragoman.config import to_dict
from dragoman.errors import ConfigError, DataError
from dragoman.presets import PRESETS
from dragoman.text.formats.labelled import guess_labelled
from dragoman.text.formats.several import guess_sources

VARIABLE = "DRAGOMAN_DATA"
"""Environment variable that names the folder of data sets."""
_STYLES = ("{}.lc.norm.tok.{}", "tok/{}.lc.norm.tok.{}", "{}.{}")


def folder_of(name: str) -> Path:
    """Return the folder of a published data set.

    Raises:
        DataError: it is not there.
    """
    places = [Path(os.environ[VARIABLE]) / name] if os.environ.get(VARIABLE) else []
    for place in (*places, Path(name)):
        if place.is_dir():
            return place
    raise DataError(f"{name}: no such folder here: put the data set into it, or set {VARIABLE} to the folder above it")


def multi30k(
    folder: Path, *, source: str = "en", target: str = "de", tokenized: bool = True, pairs: PositiveInt | None = None
) -> dict[str, Any]:  # fmt: skip
    """Return Multi30k (Elliott et al. 2016): 29,000 captions, validated on val, tested on test_2016_flickr.

    Args:
        folder: where a part of it is written, if ``pairs`` is given.
        source: language of the sources.
        target: language of the targets.
        tokenized: the lowercased files in tokens that tables score, where they are there; else the plain text.
        pairs: number of training pairs, from the beginning; None for all.

    Raises:
        DataError: the files are not there.
    """
    root = folder_of("multi30k")
    styles = _STYLES if tokenized else _STYLES[-1:]
    for style in styles:
        names = {part: [root / style.format(part, side) for side in (source, target)] for part in _PARTS}
        if all(path.exists() for paths in names.values() for path in paths):
            break
    else:
        raise DataError(f"{root}: {styles[-1].format('train', source)} and the files beside it are not there")
    if pairs is not None:
        names["train"] = [_beginning(path, folder, pairs) for path in names["train"]]
    found = {
        part: {"kind": "text_files", "source": str(one), "target": str(other)} for part, (one, other) in names.items()
    }
    return {
        "kind": "pairs",
        "train": [found["train"]],
        "valid": found["val"],
        "test": found["test_2016_flickr"],
        "overlap": "keep",
    }


_PARTS = ("train", "val", "test_2016_flickr")


def _beginning(path: Path, folder: Path, lines: int) -> Path:
    """Write the first lines of a file into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{lines}-{path.name}"
    with path.open("rb") as whole:
        content = b"".join(line for line, _ in zip(whole, range(lines), strict=False))
    if not part.exists() or part.read_bytes() != content:
        part.write_bytes(content)
    return part


def given_file(path: str, run_file: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user's file as the ``data`` of a run file: pairs, text of a language model, or labelled text.

    Raises:
        ConfigError, DataError: no such file, or one of a kind that the task cannot read.
    """
    if not path:
        raise ConfigError("data.path: must be given, the file to learn from")
    preset = PRESETS.get(str(run_file.get("preset")), dict)()
    task = run_file.get("task", preset.get("task", "translation"))
    kind = task.get("kind", "translation") if isinstance(task, dict) else task
    if kind in ("translation", "denoising", "contrastive"):
        return {"kind": "pairs", "train": to_dict(guess_sources(path))}
    if kind in ("language_modelling", "masked_language_modelling"):
        if not Path(path).is_file():
            raise DataError(f"{path}: no such file")
        return {"kind": "texts", "files": [path]}
    if kind == "classification":
        return {"kind": "labelled_texts", "train": [to_dict(guess_labelled(path))]}
    raise ConfigError(f"--data: files are taken for translators, language models and classifiers, not for {kind}")
