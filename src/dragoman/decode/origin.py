"""Small files of the folder that a run was imported from, which the run keeps as they were."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman.checkpoint import run_folder
from dragoman.errors import CheckpointError
from dragoman.json_files import read_json

FOLDER = "origin"
SENTENCES = "sentence_bert_config.json"
"""Settings of a sentence encoder of the sentence-transformers library."""


def origin_folder(run: str | Path) -> Path:
    """Return the folder of a run, or of one of its checkpoints, that holds these files; it need not exist."""
    return run_folder(run) / FOLDER


def with_stated_length(config: dict[str, Any], run: str | Path) -> dict[str, Any]:
    """Return a run's configuration with the longest text that its folder states for a sentence encoder.

    The sentence-transformers library cuts texts there, although the model may have positions for longer ones.

    Raises:
        CheckpointError: the statement is no number of tokens.
    """
    path = origin_folder(run) / SENTENCES
    data: Mapping[str, Any] = config.get("data") or {}
    if "longest" in data or not path.is_file():
        return config
    stated = read_json(path).get("max_seq_length")
    if stated is None:
        return config
    if not isinstance(stated, int) or isinstance(stated, bool) or stated < 1:
        raise CheckpointError(f"{path}: max_seq_length must be a number of tokens, and is {stated!r}")
    return {**config, "data": {**data, "longest": stated}}
