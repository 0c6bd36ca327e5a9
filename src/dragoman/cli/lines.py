"""Lines in and lines out: what commands that answer each line of a text have in common."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman.errors import DataError

if TYPE_CHECKING:
    from dragoman.data.material import Material


def given_lines(text: str | None) -> Iterable[str]:
    """The lines of the file ``text``, or ``text`` itself if it names none; standard input without it.

    Raises:
        DataError: what looks like the name of a file, and is none.
    """
    from dragoman.cli.live_input import standard_input
    from dragoman.text.formats.lines import read_lines

    if text is None:
        return standard_input()
    if Path(text).is_file():
        return read_lines(text)
    if text.endswith((".txt", ".gz", ".zst")) or ("/" in text and " " not in text):
        raise DataError(f"{text}: no such file")
    return [text]


def given_inputs(named: str | None, material: "Material") -> tuple[list[Any], list[str]]:
    """What a model that reads ``material`` is asked about, and what each is called: lines as in ``given_lines``; image
    files, one or all of a folder; or the entries of an array in a .npy file.

    Raises:
        DataError: no such file, or none that could be read so.
    """
    from dragoman.data.arrays import image_files, read_array
    from dragoman.data.material import Ids, Images

    if isinstance(material, Ids):
        return (lines := list(given_lines(named))), lines
    if named is None:
        raise DataError(f"this model reads {material.what}: name a file, standard input is for texts")
    path = Path(named)
    if path.suffix.lower() == ".npy":
        arrays = read_array(path)
        return list(arrays), [f"{path}: entry {i}" for i in range(1, len(arrays) + 1)]
    if not isinstance(material, Images):
        raise DataError(f"{path}: this model reads frames: name an array of N x length x channels in a .npy file")
    files = image_files(path) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no image files in it")
    return files, [str(file) for file in files]


def write_lines(lines: Iterable[str], output: Path | None) -> None:
    """To the file ``output``, compressed as its name says, or to standard output; each line as soon as it is there."""
    from dragoman.text.formats.compressed import create_text

    if output is None:
        for line in lines:
            print(line, flush=True)
        return
    with create_text(output) as file:
        file.writelines(f"{line}\n" for line in lines)
