"""What every preset can be exported to, and whether the exports answer as the run does. Counted, a row a preset.

    python benchmarks/exports.py [--only NAME ...]

Makes each preset at toy size with random weights, exports it to every format, opens the export with its program
(`transformers`, CTranslate2, ONNX Runtime, llama.cpp), and compares the answers. Presets whose models are the same at
this size are counted once. Writes ``results/exports.md`` beside this file, and exits with 1 if an export answers
otherwise, or if a format holds or refuses a preset other than the package declares.
"""

import argparse
import platform
import sys
import tempfile
import time
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from smoke import RESULTS, TESTS, add_smoke, write_results

sys.path.append(str(TESTS))
import exported

import dragoman
from dragoman.errors import CheckpointError, ConfigError
from dragoman.interchange.exportable import EXPORTS, FORMATS
from dragoman.presets import PRESETS

ALL: tuple[Any, ...] = ("huggingface", *FORMATS)
SMOKE = ("lm-tiny",)


def attempt(run: Path, to: Any, folder: Path) -> str:
    """Export a run, which compares the answers, and return what came of it."""
    try:
        return "same" if dragoman.export(run, to, folder).compared else "not compared"
    except ConfigError:
        return "refused"
    except CheckpointError as error:
        return f"wrong: {error}"


def wrong(name: str, found: dict[str, str]) -> list[str]:
    """Return what holds, refuses or answers a preset other than declared, or was not compared.

    Without llama-cpp-python, which is compiled from source, no GGUF file can be opened: that is no difference.
    """
    declared = {*EXPORTS[name][1:]} | ({"huggingface"} if EXPORTS[name][0] != "none" else set())
    opened = {"same"} if find_spec("llama_cpp") else {"same", "not compared"}
    differ = [to for to, came in found.items() if (came in (opened if to == "gguf" else {"same"})) != (to in declared)]
    return [f"{name} {to}: {found[to]}" for to in differ]


def written(found: dict[str, dict[str, str]], seconds: float) -> str:
    """Return the page of results."""
    tried = {to: [came[to] for came in found.values() if to in came] for to in ALL}
    held = ", ".join(f"{to} {came.count('same')} of {len(came)}" for to, came in tried.items())
    differ = [line for name, came in found.items() for line in wrong(name, came)]
    rows = [
        f"| {name} | {EXPORTS[name][0]} | {' | '.join(came.get(to, 'not tried').split(':')[0] for to in ALL)} |"
        for name, came in found.items()
    ]
    return "\n".join(
        [
            "# Exports of every preset",
            "",
            f"{date.today()}, {platform.machine()}, toy sizes, {len(found)} presets that differ, {seconds:.0f} s. "
            f"Exported, opened and with the same answers: {held}. Other than declared: {len(differ)}.",
            "",
            "`same`: exported, and the answers are those of the run. `refused`: one line names the setting to blame.",
            "",
            f"| preset | layout | {' | '.join(ALL)} |",
            "|---|---|---|---|---|---|",
            *rows,
            *differ,
        ]
    )


def columns_of_before(formats: list[str]) -> dict[str, dict[str, str]]:
    """Return what the results say of the other formats, so that a part can be tried again."""
    rows = [line.strip("| ").split(" | ") for line in (RESULTS / "exports.md").read_text().splitlines()]
    head = next(row for row in rows if row[0] == "preset")
    tables = [dict(zip(head, row, strict=True)) for row in rows if row[0] in PRESETS and len(row) == len(head)]
    return {
        row["preset"]: {to: row[to] for to in ALL if to not in formats and row[to] != "not tried"} for row in tables
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", help="presets to try; default: all that differ")
    parser.add_argument("--formats", nargs="*", help="formats to try, the others as in the results; default: all")
    parser.add_argument("--minutes", type=float, help="stop after so long; graphs, which take longest, come last")
    add_smoke(parser)
    given = parser.parse_args()
    first = exported.distinct()
    names = given.only or (SMOKE if given.smoke else [name for name in PRESETS if first[name] == name])
    begun, found = time.monotonic(), {name: dict[str, str]() for name in names}
    if given.formats:
        before = columns_of_before(given.formats)
        found = {name: before.get(name, {}) for name in names}
    for to in sorted(given.formats or ALL, key=lambda to: to == "onnx"):
        for name in names:
            if given.minutes and time.monotonic() - begun > 60 * given.minutes:
                break
            with tempfile.TemporaryDirectory() as folder:
                run = exported.save_preset(name, Path(folder) / "run")
                found[name][to] = attempt(run.path, to, Path(folder) / to)
            print(f"{to} {name}: {found[name][to]}", flush=True)
            page = written(found, time.monotonic() - begun)
            write_results("exports.md", page, smoke=given.smoke or bool(given.only))
    print(page)
    sys.exit(any(wrong(name, came) for name, came in found.items()))


if __name__ == "__main__":
    main()
