"""Every benchmark still runs: at toy size, in a process of its own, as ``python benchmarks/NAME.py --smoke``."""

import os
import sys
from pathlib import Path

import forked
import pytest
import torch._dynamo

FOLDER = Path(__file__).parents[1] / "benchmarks"
NEEDS_A_CORPUS = {"domain_adaptation", "fuzzy_matches", "knn", "onnx_ids", "risk_coverage", "scaling_laws"}
"""Left out of ``make bench``, because they ask for text of yours."""
BENCHMARKS = sorted(path for path in FOLDER.glob("*.py") if 'if __name__ == "__main__"' in path.read_text())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run_smoke(path: Path, printed: Path) -> None:
    """Run a benchmark in this process as its command line does, and leave with its exit code."""
    with printed.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch._dynamo.config.fake_tensor_cache_enabled = False  # graphs are traced sooner, and are the same
    forked.interpret([sys.executable, str(path), "--smoke"], os.environ)


@pytest.fixture(scope="module")
def forkserver():
    """A process that has imported torch, and begins each benchmark by a fork: so torch is imported once."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    yield forked.server()
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = before


@pytest.mark.slow
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_prints_its_table_at_toy_size_and_leaves_the_results_alone(path, forkserver, tmp_path):
    before, printed = contents(FOLDER / "results"), tmp_path / "printed.txt"
    process = forkserver.Process(target=run_smoke, args=(path, printed))
    process.start()
    process.join()
    text = printed.read_text(encoding="utf-8")
    assert process.exitcode == 0, text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) >= 3, text  # a head, a rule, a row
    assert contents(FOLDER / "results") == before


def test_make_bench_runs_every_benchmark():
    makefile = (FOLDER.parent / "Makefile").read_text()
    assert {path.stem for path in BENCHMARKS if f"benchmarks/{path.name}" not in makefile} == NEEDS_A_CORPUS
