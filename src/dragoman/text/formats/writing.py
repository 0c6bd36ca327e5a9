"""Writing parallel text to files that ``guess_source`` reads back, pair for pair: .tsv, .jsonl, or two text files.

Names that end in .gz or .zst are compressed. A file appears complete or not at all.
"""

import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from dragoman.errors import ConfigError, DataError
from dragoman.output_file import check_output_file
from dragoman.text.compressed import Writable, create_file, extension
from dragoman.text.formats.columns import is_header
from dragoman.text.lines import Pair


def write_pairs(pairs: Iterable[Pair], output: str | Path) -> int:
    """Write the pairs as they come and return their number; ``a.en,a.de`` names two text files.

    Raises:
        ConfigError: an unknown extension, or a folder that does not exist.
        DataError: a text that the format cannot hold, such as a tab in a .tsv.
    """
    check_output(output)
    names, write = _choose_writer(str(output))
    with ExitStack() as stack:
        return write(pairs, names, [stack.enter_context(create_file(name)) for name in names])


def check_output(output: str | Path) -> None:
    """Check before the work that ``write_pairs`` can write to that name.

    Raises:
        ConfigError: an unknown extension, or a folder that does not exist.
        OutputError: a name that may not be written to.
    """
    for name in _choose_writer(str(output))[0]:
        if not Path(name).parent.is_dir():
            raise ConfigError(f"{name}: there is no folder {Path(name).parent}: create it first")
        check_output_file(name)


Write = Callable[[Iterable[Pair], list[str], list[Writable]], int]


def _choose_writer(output: str) -> tuple[list[str], Write]:
    first, comma, second = output.partition(",")
    if comma:
        if not (first.strip() and second.strip()) or first.strip() == second.strip():
            raise ConfigError(f"{output}: two different text files expected, as in corpus.en,corpus.de")
        return [first.strip(), second.strip()], _write_text_files
    if write := _WRITERS.get(extension(output)):
        return [output], write
    raise ConfigError(
        f"{output}: its name does not show the format: name it {', '.join(_WRITERS)} (or that and .gz or .zst), "
        "or give two text files as in corpus.en,corpus.de"
    )


# ---- formats --------------------------------------------------------------------------------------


def _write_table(pairs: Iterable[Pair], names: list[str], files: list[Writable]) -> int:
    written = 0
    for pair in pairs:
        written += 1
        if written == 1 and is_header(pair):
            files[0].write(b"source\ttarget\n")  # else this pair would be read as a header
        row = "\t".join(_line(text, "\t\n\r", names[0], written) for text in pair)
        files[0].write(f"{row}\n".encode())
    return written


def _write_json_lines(pairs: Iterable[Pair], names: list[str], files: list[Writable]) -> int:
    written = 0
    for pair in pairs:
        written += 1
        files[0].write((json.dumps(pair._asdict(), ensure_ascii=False) + "\n").encode())
    return written


def _write_text_files(pairs: Iterable[Pair], names: list[str], files: list[Writable]) -> int:
    written = 0
    for pair in pairs:
        written += 1
        for text, name, file in zip(pair, names, files, strict=True):
            file.write(_line(text, "\n\r", name, written).encode() + b"\n")
    return written


def _line(text: str, forbidden: str, name: str, row: int) -> str:
    for character in forbidden:
        if character in text:
            what = "a tab" if character == "\t" else "a line end"
            raise DataError(f"{name}:{row}: the text holds {what}: write .jsonl, or clean it first ({text[:40]!r})")
    if row == 1 and text.startswith("\ufeff"):
        return "\ufeff" + text  # a reader drops the first as a byte-order mark
    return text


_WRITERS: dict[str, Write] = {".tsv": _write_table, ".jsonl": _write_json_lines, ".ndjson": _write_json_lines}
