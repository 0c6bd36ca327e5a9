"""Merge the adapters of a run into its weights, in a run directory of its own."""

import shutil
from itertools import chain
from pathlib import Path

from dragoman import durable
from dragoman.checkpoint import BASE, RunDirectory
from dragoman.decode.calibration import NAME as CALIBRATION
from dragoman.decode.memory_vectors import ENCODER
from dragoman.errors import CheckpointError
from dragoman.interchange.importing import ORIGIN
from dragoman.text.chat_template_files import FILE as CHAT_TEMPLATE
from dragoman.train.tasks.task_data import FOLDER


def merge_adapters(run: str | Path, merged: str | Path, checkpoint: str | int = "best") -> RunDirectory:
    """Create the run directory ``merged``: one checkpoint of weights alone, which every command opens without ``run``.

    The texts to validate and test with are copied, as are the calibration and the files that an export needs.

    Raises:
        CheckpointError: a run without adapters, one that cannot be read, or ``merged`` exists.
    """
    earlier, merged = RunDirectory.open(run), Path(merged)
    if not (earlier.path / BASE).exists():
        raise CheckpointError(f"{run}: has no adapters: its checkpoints are whole already")
    if merged.exists():
        raise CheckpointError(f"{merged}: exists already: choose another folder with -o")
    content = earlier.weights(checkpoint)
    config = content.config | {"start_from": content.config["start_from"] | {"lora": None}}
    try:
        merged.parent.mkdir(parents=True, exist_ok=True)
        with durable.folder(merged) as partial:
            made = RunDirectory(partial)
            made.write_config(config)
            folders = (earlier.path / name for name in (FOLDER, ORIGIN, f"{FOLDER}/{ENCODER}"))
            single = filter(Path.is_file, (earlier.path / CHAT_TEMPLATE, earlier.path / CALIBRATION))
            for file in (*earlier.tokenizer_files(), *single, *chain(*map(_small, folders))):
                target = partial / file.relative_to(earlier.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
            made.save(content.progress["step"], tensors=content.tensors, progress=content.progress, config=config)
    except OSError as error:
        raise CheckpointError(f"{error.filename or merged}: cannot create the run: {error.strerror}") from None
    return RunDirectory.open(merged)


def _small(folder: Path) -> list[Path]:
    """Return the folder's JSON files; all files of an import, and of an encoder that finds matches."""
    whole = folder.name in (ORIGIN, ENCODER)
    return [path for path in folder.rglob("*") if path.is_file()] if whole else [*folder.glob("*.json*")]
