"""dragoman import: a checkpoint from elsewhere becomes a run."""

from pathlib import Path
from typing import Annotated

import typer

from dragoman.cli.options import writable_folder


def import_(
    folder: Annotated[Path, typer.Argument(help="A Hugging Face folder: config.json, safetensors, tokenizer.json.")],
    run: Annotated[
        Path | None,
        typer.Option(
            help="The run directory to make; default: imported/ and the folder's name.", callback=writable_folder
        ),
    ] = None,
) -> None:
    """Make a run directory of a Hugging Face folder; every command opens it like one that was trained."""
    from dragoman.capabilities import ability
    from dragoman.config import from_dict
    from dragoman.interchange.importing import import_checkpoint, import_notes
    from dragoman.model.families import ModelConfig

    run = run or Path("imported") / folder.resolve().name
    imported = import_checkpoint(folder, run)
    print(f"{folder} is now the run {imported.path}")
    for note in import_notes(imported):
        print(f"note: {note}")
    if found := ability(from_dict(ModelConfig, imported.config["model"])):
        asks = [f"`dragoman {command} {imported.path}`" for command in (found.command, "verify")]
        print(f"its model {found.does}: try {', or '.join(asks)}")
