"""Every benchmark still runs: at toy size, in a process of its own, as ``python benchmarks/NAME.py --smoke``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
NEEDS_A_CORPUS = {"domain_adaptation"}
"""Left out of ``make bench``, because they ask for text of yours."""
BENCHMARKS = sorted(path for path in FOLDER.glob("*.py") if 'if __name__ == "__main__"' in path.read_text())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_prints_its_table_at_toy_size_and_leaves_the_results_alone(path):
    before = contents(FOLDER / "results")
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(path), "--smoke"], capture_output=True, text=True, encoding="utf-8", env=env
    )
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) >= 3, done.stdout  # a head, a rule, a row
    assert contents(FOLDER / "results") == before


def test_make_bench_runs_every_benchmark():
    makefile = (FOLDER.parent / "Makefile").read_text()
    assert {path.stem for path in BENCHMARKS if f"benchmarks/{path.name}" not in makefile} == NEEDS_A_CORPUS
