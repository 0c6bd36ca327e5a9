"""``--smoke``: a benchmark at toy size, to see that it still runs.

With ``--smoke`` a benchmark does the same work on the smallest sizes, once, prints its table, and leaves the results
beside this file alone: its numbers say nothing about speed. Peers that are slow to load or have to be installed are
left out. ``tests/test_benchmarks.py`` runs every benchmark so.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TESTS = Path(__file__).parents[1] / "tests"


def add_smoke(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--smoke", action="store_true", help="toy sizes, once; prints, and leaves the results alone")


def write_results(name: str, text: str, *, smoke: bool) -> None:
    """Write a table into the results, unless it was made at toy size."""
    if not smoke:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")


@contextmanager
def run_of(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Iterator[Path]:
    """Give the run that was named, or with ``--smoke`` a translator that the tests train within a second."""
    if given.run:
        yield given.run
    elif given.smoke:
        with tempfile.TemporaryDirectory() as folder:
            yield tiny_run(Path(folder))
    else:
        parser.error("name a run, or give --smoke")


def output_of(command: list[str], *, smoke: bool) -> str:
    """Return what a Python command prints: in a new interpreter, or with ``--smoke`` in a fork of this one."""
    if not smoke:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return forked().output_of(command)


def forked() -> Any:
    """Return the tests' commands that are forks."""
    sys.path.append(str(TESTS))
    import forked as module

    return module


def tiny_run(folder: Path) -> Path:
    """Train the tests' smallest translator on their toy language."""
    sys.path.append(str(TESTS))
    import tiny_run as tiny

    from dragoman.model.norm import LayerNorm
    from dragoman.train.run import start

    cfg = tiny.config(tiny.write_pairs(folder / "pairs.tsv"))
    towers = {side: replace(getattr(cfg.model, side), final_norm=LayerNorm()) for side in ("encoder", "decoder")}
    cfg = replace(cfg, model=replace(cfg.model, **towers))  # CTranslate2 knows no other pre-norm model
    for _ in start(cfg, folder / "run").events():
        pass
    return folder / "run"
