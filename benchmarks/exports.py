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
from pathlib import Path
from typing import Any

from smoke import TESTS, add_smoke, write_results

sys.path.append(str(TESTS))
import exported

import dragoman
from dragoman.errors import CheckpointError, ConfigError
from dragoman.interchange.exportable import EXPORTS, FORMATS
from dragoman.presets import PRESETS

ALL: tuple[Any, ...] = ("huggingface", *FORMATS)
SMOKE = ("lm-tiny", "classifier-tiny")


def attempt(run: Path, to: Any, folder: Path) -> str:
    """Export a run, which compares the answers, and return what came of it."""
    try:
        return "same" if dragoman.export(run, to, folder).compared else "not compared"
    except ConfigError:
        return "refused"
    except CheckpointError as error:
        return f"wrong: {error}"


def count(name: str, base: Path) -> dict[str, str]:
    """Return what came of each format for a preset."""
    run = exported.save_preset(name, base / "run")
    return {to: attempt(run.path, to, base / to) for to in ALL}


def wrong(name: str, found: dict[str, str]) -> list[str]:
    """Return the formats that hold, refuse or answer a preset other than declared."""
    declared = {"huggingface", *EXPORTS[name][1:]}
    return [to for to, came in found.items() if (came == "same") != (to in declared)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", help="presets to try; default: all that differ")
    add_smoke(parser)
    given = parser.parse_args()
    first = exported.distinct()
    names = given.only or (SMOKE if given.smoke else [name for name in PRESETS if first[name] == name])
    lines, failed, begun, totals = [], [], time.monotonic(), dict.fromkeys(ALL, 0)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found = count(name, Path(folder))
        failed += [f"{name} {to}: {found[to]}" for to in wrong(name, found)]
        for to, came in found.items():
            totals[to] += came == "same"
        cells = [EXPORTS[name][0], *(came.split(":")[0] for came in found.values())]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    held = ", ".join(f"{to} {n} of {len(names)}" for to, n in totals.items())
    text = [
        "# Exports of every preset",
        "",
        f"{date.today()}, {platform.machine()}, toy sizes, {len(names)} presets that differ, "
        f"{time.monotonic() - begun:.0f} s. Exported, opened and with the same answers: {held}. "
        f"Other than declared: {len(failed)}.",
        "",
        "`same`: exported, and the answers are those of the run. `refused`: one line names the setting to blame.",
        "",
        "| preset | layout | huggingface | ctranslate2 | onnx | gguf |",
        "|---|---|---|---|---|---|",
        *lines,
    ]
    write_results("exports.md", "\n".join(text), smoke=given.smoke or bool(given.only))
    print(held, *failed, sep="\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
