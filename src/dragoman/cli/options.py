"""Arguments and options shared by several commands."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dragoman.cli.argument import RULE
from dragoman.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from dragoman.text.passages import Passages

SHOWN = 5
"""Number of runs that a message names."""


def resolve_run(path: Path) -> Path:
    """Return ``path``, or the only run in it where it is a folder of runs.

    Raises:
        CheckpointError: it holds several.
    """
    from dragoman.config import CONFIG

    if not os.path.isdir(path) or (path / CONFIG).is_file():
        return path
    try:
        runs = sorted(below for below in path.iterdir() if (below / CONFIG).is_file())
    except OSError:  # reported when the run is opened
        return path
    if len(runs) > 1:
        named = ", ".join(map(str, runs[:SHOWN])) + (", ..." if len(runs) > SHOWN else "")
        raise CheckpointError(f"{path}: a folder of {len(runs)} runs, name one of them: {named}")
    return runs[0] if runs else path


def refuse_options(options: Mapping[str, Any], why: str) -> None:
    """Refuse options that are given: those whose value is not None, false or empty.

    Args:
        options: values by name, as in ``{"--beam": beam}``.

    Raises:
        ConfigError: one is.
    """
    for name, value in options.items():
        if value:
            raise ConfigError(f"{name}: {why}")


def writable_file(path: Path | None) -> Path | None:
    """Return ``path`` after checking that it can be written to, before a model is loaded.

    Raises:
        OutputError: it cannot.
    """
    from dragoman.output_file import check_output_file

    if path is not None:
        check_output_file(path)
    return path


def writable_folder(path: Path | None) -> Path | None:
    """Return ``path`` after checking that a folder can be created there."""
    from dragoman.output_file import check_output_folder

    if path is not None:
        check_output_folder(path)
    return path


def read_passages(path: str | None, top: int | None) -> "Passages | None":
    """Return the passages of --passages, of which --top-passages are read with a question.

    Raises:
        ConfigError: --top-passages without --passages.
        DataError: a file that cannot be read, or without text.
    """
    from dragoman.text.passages import PASSAGES, Passages

    if path is not None:
        return Passages.read(path, top or PASSAGES)
    refuse_options({"--top-passages": top}, "is for --passages: name a file there")
    return None


def folder_name(name: str | None) -> str | None:
    """Return ``name`` after checking that it can name a folder within another; an existing one is replaced.

    Raises:
        ConfigError: it leads elsewhere.
    """
    from dragoman.evaluate.folders import check_folder_name

    return None if name is None else check_folder_name(name, "--name")


PassagesOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Passages to look the question up in: text with blank lines between them, or JSON lines with a text each.",
    ),
]
TopPassagesOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="With --passages: passages that are read with a question; default: 3."),
]
RunArgument = Annotated[Path, typer.Argument(help="The directory of a run.", callback=resolve_run)]
"""Argument of commands that only read a run: the only run in a folder need not be named."""
OwnRunArgument = Annotated[Path, typer.Argument(help="The directory of a run.")]
"""Argument of commands that write into a run, which must be named itself."""
TextArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE | SENTENCE",
        help=f"Text files, a file with --column, or one sentence; default: standard input. {RULE}",
    ),
]
ColumnOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|N",
        help="The column to read of a .csv, .tsv, .jsonl or .parquet file, by its name or number, counted from 0.",
    ),
]
AsOption = Annotated[
    str | None,
    typer.Option("--as", metavar="KIND", help="text: read lines of text, whatever the extension of the file."),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The file to write, compressed where the name ends in .gz, .zst, .bz2 or .xz; default: standard output.",
        callback=writable_file,
    ),
]
OutputOrFolderOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Where to write, compressed where the name ends in .gz, .zst, .bz2 or .xz; of documents, or of "
        "several files, a folder will do too. Default: standard output.",
    ),
]
CheckpointOption = Annotated[str, typer.Option(help="best, last, a step, or the name of a checkpoint.")]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--source-language", "--from", metavar="LANGUAGE", help="Source of an imported model for many languages."
    ),
]
ToOption = Annotated[
    str | None,
    typer.Option(
        "--target-language", "--to", metavar="LANGUAGE", help="Target of an imported model for many languages."
    ),
]
SpecialTokensOption = Annotated[
    bool,
    typer.Option(
        "--special-tokens", help="Read special tokens that are spelt out in the text, such as <|im_start|>, as tokens."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
PrecisionOption = Annotated[
    str, typer.Option(help="float32, bfloat16 (or bf16), int8 (CPUs: fastest, nearly the same), or auto.")
]
