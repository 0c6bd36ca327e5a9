"""One core and two: how much faster does a second core make translating, decoding and learning?

    python benchmarks/cores.py RUN [--text FILE] [--lines 40000] [--rounds 3]

*Files*: ``dragoman translate`` of a text file by its whole command, start included: one process with one thread, one
process with two threads, and two workers with one thread each. Beside them two commands at the same time, each with
half of the file: they share nothing, so what they reach is what two cores of this machine give. Every line is another
one (repeats would be searched once); without --text they are made of the run's test set.

*Decoding* and *learning*: the small setting of ``decode.py``, 64 sentences with beam 5, and both settings of
``train_speed.py``, in this process with one and with two threads.

Wall time, interleaved, medians; other work on the machine falsifies all of it.

Expected: two workers share nothing but the memory, so 1.8 times or more once the start of the command (two to three
seconds) is small. Threads inside a step wait for each other at each product: 1.3 to 1.7 times, more with larger models.

Writes ``results/cores.md`` beside this file.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

import torch
from decode import CONTESTANTS, sources, write_run
from processor import processor
from smoke import add_smoke, run_of, write_results
from train_speed import BASE, SMALL, TOY, captions, contestant, even

from dragoman import cli
from dragoman.text.formats.pairs import JsonLines, read_pairs
from dragoman.text.lines import read_lines

LINES = 40_000
WAYS = {"one thread": (1, 1, None), "two threads": (1, 2, None), "two workers": (1, 1, 2), "two commands": (2, 1, None)}
"""Commands at the same time, threads of each, and workers."""


# ---- files --------------------------------------------------------------------------------------------


def write_lines(path: Path, run: Path, given: Path | None, count: int) -> None:
    """Write ``count`` lines, no two the same: those given, or halves of the run's test set put together."""
    if given:
        lines = list(dict.fromkeys(read_lines(given)))[:count]
    else:
        texts = [pair.source for pair in read_pairs(JsonLines(path=str(run / "data" / "test.jsonl")))]
        lines = list(dict.fromkeys(f"{a} {b}" for a in texts for b in texts))[:count]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_halves(path: Path) -> list[Path]:
    """Write the halves of a file beside it."""
    lines = path.read_bytes().splitlines(keepends=True)
    middle, halves = len(lines) // 2, [path.with_suffix(f".{number}.txt") for number in (1, 2)]
    for half, some in zip(halves, (lines[:middle], lines[middle:]), strict=True):
        half.write_bytes(b"".join(some))
    return halves


def translate_seconds(run: Path, paths: list[Path], threads: int, workers: int | None, *, smoke: bool) -> float:
    """Translate files, all at the same time; the output of each lies beside it."""
    began, commands = time.perf_counter(), []
    for path in paths:
        words = ["translate", str(run), str(path), "-o", str(output_of(path))]
        words += [] if workers is None else ["--workers", str(workers)]
        if smoke:
            assert cli.main(words) == 0
        else:
            env = os.environ | {"OMP_NUM_THREADS": str(threads)}
            command = [sys.executable, "-m", "dragoman", *words]
            commands.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    if any([command.wait() for command in commands]):
        sys.exit(f"dragoman translate {run} {' '.join(map(str, paths))} failed")
    return time.perf_counter() - began


def output_of(path: Path) -> Path:
    return path.with_suffix(".out")


def files(run: Path, given: Path | None, count: int, rounds: int, *, smoke: bool) -> Iterator[str]:
    ways = {name: WAYS[name] for name in ("one thread", "two commands")} if smoke else WAYS
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "lines.txt"
        write_lines(path, run, given, count)
        parts = {1: [path], 2: write_halves(path)}
        count, said = sum(1 for _ in read_lines(path)), set[bytes]()
        for _ in range(rounds):
            for name, (commands, threads, workers) in ways.items():
                seconds[name].append(translate_seconds(run, parts[commands], threads, workers, smoke=smoke))
                outputs = [output_of(part) for part in parts[commands]]
                said.add(b"".join(output.read_bytes() for output in outputs))
                for output in outputs:
                    output.unlink()
    same = "the same to the byte" if len(said) == 1 else f"**{len(said)} different files**"
    yield (
        f"`dragoman translate` of {count:,} lines, start included; the output of all ways is {same}. Two commands with "
        "half of the lines each share nothing: they show what two cores give here."
    )
    yield from table("lines a second", {name: count / statistics.median(each) for name, each in seconds.items()})


# ---- steps in this process ----------------------------------------------------------------------------


def by_threads(work: Callable[[int], object], rounds: int) -> dict[str, float]:
    """Return the median seconds of ``work`` with one and with two threads; it is given the number of the round."""
    seconds: dict[str, list[float]] = {"one thread": [], "two threads": []}
    for number in range(rounds + 1):
        for threads, name in enumerate(seconds, 1):
            torch.set_num_threads(threads)
            began = time.perf_counter()
            work(number)
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in seconds.items()}


def decoding(rounds: int, *, smoke: bool) -> Iterator[str]:
    count = 2 if smoke else 64
    with tempfile.TemporaryDirectory() as temporary:
        write_run(Path(temporary) / "run", "toy" if smoke else "small")
        for precision in ("int8", "float32"):
            model = CONTESTANTS[f"dragoman, {precision}"](Path(temporary))
            seconds = by_threads(lambda number, model=model: model.search(sources(count, number), 5), rounds)
            yield f"Decoding {count} sentences with beam 5, {precision}."
            yield from table("sentences a second", {name: count / each for name, each in seconds.items()})


def learning(rounds: int, *, smoke: bool) -> Iterator[str]:
    settings = {"toy": (TOY, even)} if smoke else {"base": (BASE, even), "small": (SMALL, captions)}
    for title, (setting, batches_of) in settings.items():
        batches = batches_of(setting, rounds + 1)
        for precision in ("float32", "bfloat16"):
            step = partial(contestant("dragoman, 2017", setting, precision).step, counted=False)
            seconds = by_threads(lambda number, step=step, batches=batches: step(batches[number]), rounds)
            yield f"Learning, {title} ({setting}), {precision}."
            yield from table("steps a second", {name: 1 / each for name, each in seconds.items()})


# ---- the run ------------------------------------------------------------------------------------------


def table(unit: str, rates: dict[str, float]) -> Iterator[str]:
    first = next(iter(rates.values()))
    yield ""
    yield f"| | {unit} | of one thread |"
    yield "|---|---:|---:|"
    for name, rate in rates.items():
        yield f"| {name} | {rate:,.4g} | {rate / first:.2f} |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--lines", type=int, default=LINES)
    parser.add_argument("--rounds", type=int, default=3)
    add_smoke(parser)
    arguments = parser.parse_args()
    smoke, rounds = arguments.smoke, 1 if arguments.smoke else arguments.rounds
    with run_of(parser, arguments) as run:
        lines = [
            "# One core and two",
            "",
            f"{date.today()}; {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch "
            f"{torch.__version__}; medians of {rounds} interleaved rounds, wall time.",
            "",
            *files(run, arguments.text, 8 if smoke else arguments.lines, rounds, smoke=smoke),
            *decoding(5 * rounds, smoke=smoke),
            *learning(3 * rounds, smoke=smoke),
        ]
    text = "\n".join(lines)
    print(text)
    write_results("cores.md", text, smoke=smoke)


if __name__ == "__main__":
    main()
