"""Lines in and lines out: what commands that answer each line of a text have in common."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman.errors import ConfigError, DataError

if TYPE_CHECKING:
    from dragoman.data.material import Material


INSIST = "text"
"""What --as takes to have a file of another kind read line by line."""


def given_lines(
    text: str | Sequence[str] | None, *, column: str | None = None, as_kind: str | None = None
) -> Iterable[str]:
    """The lines of the files that ``text`` names, one after the other, or ``text`` itself if it names none; standard
    input without it. See ``cli/argument.py``.

    Args:
        column: of tables, JSON lines and Parquet files: the column whose cells are the lines.
        as_kind: ``text`` to read files line by line whatever they are.

    Raises:
        ConfigError: --as with something else, or several arguments that are not all files.
        DataError: what looks like the name of a file, and is none; or a file of a kind that has no lines of text.
    """
    from dragoman.cli.argument import STDIN, check_several, is_file, text_of
    from dragoman.cli.live_input import standard_input

    if as_kind not in (None, INSIST):
        raise ConfigError(f"--as {as_kind}: only {INSIST} is known here: lines of text, whatever the file is called")
    given = [STDIN] if text is None else [text] if isinstance(text, str) else list(text) or [STDIN]
    if len(given) > 1:
        check_several(given)
    if given == [STDIN]:
        if column is not None:
            raise ConfigError("--column: is for files with columns: name one")
        return standard_input()
    if len(given) == 1 and not is_file(given[0]):
        return text_of(given[0])
    opened = [given_lines(None) if name == STDIN else _file_lines(name, column, as_kind) for name in given]
    return chain.from_iterable(opened)


def _file_lines(path: str, column: str | None, as_kind: str | None) -> Iterable[str]:
    from dragoman.cli.live_input import pipe_lines
    from dragoman.text.formats.cells import read_column
    from dragoman.text.formats.kinds import TABLES, kind_of_file, plain_lines
    from dragoman.text.lines import read_lines

    if column is not None:
        if as_kind is not None:
            raise ConfigError("--column and --as: one of them")
        return read_column(path, column)
    if as_kind == INSIST:
        return read_lines(path)
    kind = kind_of_file(path)
    if kind in TABLES.values():
        raise DataError(
            f"{path}: {kind}: say with --column which column to read, by name or number (from 0); {_INSISTING}"
        )
    if kind is not None:
        raise DataError(f"{path}: {kind}, which this command cannot read: {_SUPPORTED}; {_INSISTING}")
    return pipe_lines(path) or plain_lines(read_lines(path), path, f"; {_INSISTING}")


def checked_lines(lines: Iterable[str], as_kind: str | None) -> Iterable[str]:
    """Standard input, unless it begins as a file does that has no lines of text; ``as_kind`` may insist."""
    from dragoman.text.formats.kinds import plain_lines

    return lines if as_kind == INSIST else plain_lines(lines, "standard input", f"; {_INSISTING}")


_SUPPORTED = (
    "it reads lines of text (.txt and the like) and, with --column, .csv, .tsv, .jsonl and .parquet; translate "
    "fills .po, .pot, .xlf, .xliff and .tmx"
)
_INSISTING = f"--as {INSIST} reads its lines as they stand"


def given_inputs(
    named: str | Sequence[str] | None,
    material: "Material",
    *,
    column: str | None = None,
    as_kind: str | None = None,
) -> tuple[list[Any], list[str]]:
    """What a model that reads ``material`` is asked about, and what each is called: lines as in ``given_lines``; image
    files, one or all of a folder; or the entries of an array in a .npy file.

    Raises:
        ConfigError, DataError: as ``given_lines``; or no such file, or none that could be read so.
    """
    from dragoman.data.material import IdMaterial

    if isinstance(material, IdMaterial):
        return (lines := list(given_lines(named, column=column, as_kind=as_kind))), lines
    if not named:
        raise DataError(f"this model reads {material.what}: name a file, standard input is for texts")
    found = [_entries(Path(name), material) for name in ([named] if isinstance(named, str) else named)]
    return [entry for entries, _ in found for entry in entries], [name for _, names in found for name in names]


def input_batches(
    named: str | Sequence[str] | None,
    material: "Material",
    *,
    column: str | None = None,
    as_kind: str | None = None,
) -> Iterator[tuple[list[Any], list[str]]]:
    """As ``given_inputs``, in groups of what is to be answered together."""
    from dragoman.cli.live_input import line_batches
    from dragoman.data.material import IdMaterial

    if isinstance(material, IdMaterial):
        lines = given_lines(named, column=column, as_kind=as_kind)
        yield from ((some, some) for some in line_batches(lines))
    else:
        yield given_inputs(named, material, column=column, as_kind=as_kind)


def _entries(path: Path, material: "Material") -> tuple[list[Any], list[str]]:
    from dragoman.data.arrays import image_files, read_array
    from dragoman.data.material import ImageMaterial

    if path.suffix.lower() == ".npy":
        arrays = read_array(path)
        return list(arrays), [f"{path}: entry {i}" for i in range(1, len(arrays) + 1)]
    if not isinstance(material, ImageMaterial):
        raise DataError(f"{path}: this model reads frames: name an array of N x length x channels in a .npy file")
    files = image_files(path) if os.path.isdir(path) else [path]
    if not files:
        raise DataError(f"{path}: no image files in it")
    return files, [str(file) for file in files]


def write_lines(lines: Iterable[str], output: Path | None) -> None:
    """To the file ``output``, compressed as its name says, or to standard output; each line as soon as it is there."""
    from dragoman.text.compressed import create_text

    if output is None:
        for line in lines:
            print(line, flush=True)
        return
    with create_text(output) as file:
        file.writelines(f"{line}\n" for line in lines)
