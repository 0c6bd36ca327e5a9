"""Lines in and lines out: shared by the commands that answer each line of a text."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman.errors import ConfigError, DataError

if TYPE_CHECKING:
    from dragoman.data.material import Material


INSIST = "text"
"""Value of --as that reads any file line by line."""


def input_lines(
    text: str | Sequence[str] | None, *, column: str | None = None, as_kind: str | None = None
) -> Iterable[str]:
    """Return the lines of the files that ``text`` names, in order, or of ``text`` itself if it names none; without it,
    standard input. See ``cli/argument.py``.

    Args:
        column: column of tables, JSON lines and Parquet files whose cells are the lines.
        as_kind: ``text`` to read files line by line whatever their format.

    Raises:
        ConfigError: --as with another value, or several arguments that are not all files.
        DataError: no file of a name that looks like one, or a file of a format without lines of text.
    """
    from dragoman.cli.argument import STDIN, check_several, is_file, lines_of_text
    from dragoman.cli.live_input import standard_input

    if as_kind not in (None, INSIST):
        raise ConfigError(
            f"--as {as_kind}: only {INSIST} is supported here: lines of text, whatever the file is called"
        )
    given = [STDIN] if text is None else [text] if isinstance(text, str) else list(text) or [STDIN]
    if len(given) > 1:
        check_several(given)
    written = len(given) == 1 and not is_file(given[0])
    if column is not None and (given == [STDIN] or written):
        raise ConfigError("--column: is for files with columns: name one")
    if given == [STDIN]:
        return standard_input()
    if written:
        return lines_of_text(given[0])
    opened = [input_lines(None) if name == STDIN else _file_lines(name, column, as_kind) for name in given]
    return chain.from_iterable(opened)


def _file_lines(path: str, column: str | None, as_kind: str | None) -> Iterable[str]:
    from dragoman.cli.live_input import pipe_lines
    from dragoman.text.formats.cells import read_column
    from dragoman.text.formats.kinds import TABLES, kind_of_file, plain_lines
    from dragoman.text.lines import read_lines

    if column is not None:
        if as_kind is not None:
            raise ConfigError("--column and --as: give only one of them")
        return read_column(path, column)
    if as_kind == INSIST:
        return read_lines(path)
    kind = kind_of_file(path)
    if kind in TABLES.values():
        raise DataError(
            f"{path}: {kind}: name the column to read with --column, by name or number (from 0); {_INSISTING}"
        )
    if kind is not None:
        raise DataError(f"{path}: {kind}, which this command cannot read: {_SUPPORTED}; {_INSISTING}")
    return pipe_lines(path) or plain_lines(read_lines(path), path, f"; {_INSISTING}")


def checked_lines(lines: Iterable[str], as_kind: str | None) -> Iterable[str]:
    """Return the lines of standard input, but refuse a format without lines of text, unless ``as_kind`` is ``text``."""
    from dragoman.text.formats.kinds import plain_lines

    return lines if as_kind == INSIST else plain_lines(lines, "standard input", f"; {_INSISTING}")


_SUPPORTED = (
    "it reads lines of text (.txt and the like) and, with --column, .csv, .tsv, .jsonl and .parquet; translate "
    "fills .po, .pot, .xlf, .xliff and .tmx"
)
_INSISTING = f"--as {INSIST} reads it as lines of text"


def model_inputs(
    named: str | Sequence[str] | None,
    material: "Material",
    *,
    column: str | None = None,
    as_kind: str | None = None,
) -> tuple[list[Any], list[str]]:
    """Return the inputs for a model that reads ``material``, and their names: lines as in ``input_lines``; image files,
    one or all of a folder; or the entries of an array in a .npy file.

    Raises:
        ConfigError, DataError: as ``input_lines``; or no such file, or one that cannot be read so.
    """
    from dragoman.data.material import IdMaterial

    if isinstance(material, IdMaterial):
        return (lines := list(input_lines(named, column=column, as_kind=as_kind))), lines
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
    """Yield the inputs and names of ``model_inputs`` in batches."""
    from dragoman.cli.live_input import line_batches
    from dragoman.data.material import IdMaterial

    if isinstance(material, IdMaterial):
        lines = input_lines(named, column=column, as_kind=as_kind)
        yield from ((batch, batch) for batch in line_batches(lines))
    else:
        yield model_inputs(named, material, column=column, as_kind=as_kind)


def _entries(path: Path, material: "Material") -> tuple[list[Any], list[str]]:
    from dragoman.data.arrays import read_array
    from dragoman.data.material import ImageMaterial

    if path.suffix.lower() == ".npy":
        arrays = read_array(path)
        return list(arrays), [f"{path}: entry {i}" for i in range(1, len(arrays) + 1)]
    if not isinstance(material, ImageMaterial):
        raise DataError(f"{path}: this model reads frames: name an array of N x length x channels in a .npy file")
    if path.suffix.lower() in (".npz", ".parquet"):
        raise DataError(
            f"{path}: this model reads images: name image files, a folder of them, or an array of N x height x width "
            "(x channels) in a .npy file"
        )
    files = image_paths([path])
    return files, [str(file) for file in files]


def image_paths(named: Iterable[Path]) -> list[Path]:
    """Return the image files that are named, and all of the folders that are.

    Raises:
        DataError: a folder without image files.
    """
    from dragoman.data.arrays import image_files

    return [file for path in named for file in (image_files(path) if os.path.isdir(path) else [path])]


def write_lines(lines: Iterable[str], output: Path | None) -> None:
    """Write lines to the file ``output``, compressed by its extension, or to standard output; each line at once."""
    from dragoman.text.compressed import create_text

    if output is None:
        for line in lines:
            print(line, flush=True)
        return
    with create_text(output) as file:
        file.writelines(f"{line}\n" for line in lines)
