"""dragoman import: a run from a checkpoint of another program."""

from pathlib import Path
from typing import Annotated

import typer

from dragoman.cli.options import writable_folder


def import_(
    folder: Annotated[Path, typer.Argument(help="A Hugging Face folder: config.json, safetensors, tokenizer.json.")],
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            "-o",
            help="The run directory to create; default: imported/ and the folder's name.",
            callback=writable_folder,
        ),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="The architecture, where config.json names none or one with another head: BertForMaskedLM, ...",
        ),
    ] = None,
) -> None:
    """Make a run directory from a Hugging Face folder; every command opens it like a trained one."""
    from dragoman.capabilities import TRANSCRIBES, ability
    from dragoman.config import from_dict
    from dragoman.decode.languages import read_languages
    from dragoman.interchange.importing import import_checkpoint, import_notes
    from dragoman.model.families import ModelConfig

    run = run or Path("imported") / folder.resolve().name
    imported = import_checkpoint(folder, run, architecture=architecture)
    print(f"{folder} is now the run {imported.path}")
    for note in import_notes(imported):
        print(f"note: {note}")
    found = ability(from_dict(ModelConfig, imported.config["model"]))
    if found is not None:
        further = () if found is TRANSCRIBES else ("verify",)
        commands = [f"`dragoman {command} {imported.path}`" for command in (found.command, *further)]
        print(f"its model {found.does}: try {', or '.join(commands)}")
        if found.command == "translate" and (languages := read_languages(imported.path, imported.tokenizers()[0])):
            print(languages)
