"""Bulk translation: is the output the same after kill -9, and is memory the same for any number of lines?

    python benchmarks/bulk.py [--run RUN] [--kills 20] [--lines 10000000] [--seed 1]

Each kill is a job of its own: `dragoman translate RUN lines.txt -o out.txt.zst --workers 2`, of which the command
(SIGKILL after a random number of shards, then the same command again) or one of its workers is killed. The bytes of the
output are compared with those of a job that was left alone, and its lines with those of the command without --workers.
Without --run the run is a tiny one, trained for this.

Memory is the largest of the command and of any worker, of jobs in which a stand-in spells lines backwards.

Writes ``results/bulk.md`` beside this file and exits with 1 if an output differs.
"""

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from smoke import add_smoke, tiny_run, write_results

from dragoman.serve.bulk.job import check_input, run_bulk
from dragoman.serve.bulk.local import LocalWorkers
from dragoman.serve.bulk.shard import Shard, ShardAnswer, ShardAnswerer, ShardProgress, ShardWork
from dragoman.text.compressed import create_text
from dragoman.text.lines import read_lines

LINES, SHARD = 2500, 64
"""Lines of the jobs that are killed, and of their shards, which are short so that a kill falls between many."""

# ---- kills --------------------------------------------------------------------------------------------


def write_lines(path: Path, count: int) -> Path:
    """Write lines of one to four words, no two the same."""
    colours = ["red", "blue", "green", "small"]
    with create_text(path) as file:
        for i in range(count):
            file.write(f"the {colours[i % 4]} house {i}\n")
    return path


def command(run: Path, path: Path, output: Path, *more: str) -> list[str]:
    start = (
        f"from dragoman.serve.bulk import shard; shard.FEWEST = {SHARD}; from dragoman.cli import command; command()"
    )
    return [sys.executable, "-c", start, "translate", str(run), str(path), "-o", str(output), "--beam", "1", *more]


@dataclass
class Kill:
    """One job, and how it was killed."""

    who: str
    seconds: float
    parts: int
    """Finished parts at that moment."""
    equal: bool


def parts_of(output: Path) -> int:
    folder = Path(f"{output}.parts")
    return sum(part.name.isdigit() for part in folder.iterdir()) if folder.exists() else 0


def workers_of(process: subprocess.Popen) -> list[int]:
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:
        return []


def kill_once(
    run: Path, path: Path, output: Path, whole: bytes, draw: random.Random, shards: int, workers: int
) -> Kill:
    job = [*command(run, path, output, "--workers", str(workers))]
    process = subprocess.Popen(job, stderr=subprocess.DEVNULL)
    who, at_least, began = draw.choice(["command", "worker"]), draw.randint(0, max(0, shards - 4)), time.monotonic()
    while parts_of(output) < at_least and process.poll() is None:
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.3) if at_least else draw.uniform(0, 8 if shards > 4 else 2))
    if process.poll() is not None:
        return kill_once(run, path, output, whole, draw, shards, workers)  # it was done before it could be killed
    parts, victims, seconds = parts_of(output), workers_of(process), time.monotonic() - began
    if who == "worker" and victims:
        os.kill(draw.choice(victims), signal.SIGKILL)
        code = process.wait()
    else:
        who = "command"
        process.kill()
        process.wait()
        code = subprocess.run(job, stderr=subprocess.DEVNULL, check=False).returncode
    return Kill(who, seconds, parts, code == 0 and output.read_bytes() == whole)


def run_kills(
    folder: Path, run: Path, count: int, lines: int, draw: random.Random, workers: int
) -> tuple[list[Kill], bool]:
    """Return every kill, and whether the job that was left alone has the lines of the command without workers."""
    path = write_lines(folder / "lines.txt", lines)
    began = time.monotonic()
    subprocess.run(
        command(run, path, folder / "whole.txt.zst", "--workers", str(workers)), stderr=subprocess.DEVNULL, check=True
    )
    seconds, whole = time.monotonic() - began, (folder / "whole.txt.zst").read_bytes()
    subprocess.run(command(run, path, folder / "alone.txt"), stderr=subprocess.DEVNULL, check=True)
    same = list(read_lines(folder / "alone.txt")) == list(read_lines(folder / "whole.txt.zst"))
    print(f"the job takes {seconds:.1f} s; the same lines as without --workers: {same}", flush=True)
    kills = []
    for number in range(count):
        output = folder / f"out-{number}.txt.zst"
        kills.append(kill_once(run, path, output, whole, draw, -(-lines // SHARD), workers))
        print(number + 1, kills[-1], flush=True)
    return kills, same


# ---- memory -------------------------------------------------------------------------------------------


class Backwards(ShardWork):
    """Stand-in for a translator."""

    def open(self) -> "Speller":
        return Speller()


class Speller(ShardAnswerer):
    def answer(self, shard: Shard, progress: ShardProgress) -> ShardAnswer:
        return ShardAnswer([line[::-1] for line in shard.lines])


def own_peak() -> float:
    """Return the largest memory of this process in MB; getrusage would count that of its parent too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def stand_in_job(folder: Path, lines: int) -> None:
    """Print seconds, and megabytes of the command and of the largest worker."""
    path, output = write_lines(folder / "lines.txt.zst", lines), folder / "out.txt.zst"

    def read() -> Iterator[str]:
        return read_lines(path)

    began = time.monotonic()
    with LocalWorkers(Backwards(), 2) as workers:
        run_bulk(read, check_input(read), workers, output, model={}, options={})
    seconds = time.monotonic() - began
    own, largest = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    assert all(a == b[::-1] for a, b in zip(read_lines(path), read_lines(output), strict=True)), (
        "each line, in its place"
    )
    print(seconds, own, largest)


def measure_memory(lines: int) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        job = [sys.executable, __file__, "--stand-in", folder, "--lines", str(lines)]
        done = subprocess.run(job, capture_output=True, text=True, check=True)
    seconds, own, largest = map(float, done.stdout.split())
    return seconds, own, largest


# ---- the report ---------------------------------------------------------------------------------------


def report(kills: list[Kill], same: bool, memory: dict[int, tuple[float, float, float]], given, name: str) -> list[str]:
    equal = sum(kill.equal for kill in kills)
    cores = f"{os.cpu_count()} cores, shared with other work"
    lines = [
        "# Bulk: kills and memory",
        "",
        f"**{equal} of {len(kills)} outputs are byte-identical after kill -9**; the lines are "
        f"{'those' if same else 'NOT those'} of the command without --workers.",
        "",
        f"{date.today()}; {cores}; seed {given.seed}; {name}; {30 if given.smoke else LINES} lines in shards of "
        f"{SHARD}, {'one worker' if given.smoke else 'two workers'}.",
        "",
        "| kill | of | after s | finished parts | output |",
        "|---:|---|---:|---:|---|",
        *(
            f"| {i} | {kill.who} | {kill.seconds:.1f} | {kill.parts} | {'equal' if kill.equal else 'DIFFERS'} |"
            for i, kill in enumerate(kills, 1)
        ),
        "",
        "Memory with a stand-in that spells lines backwards, from .zst to .zst, two workers:",
        "",
        "| lines | s | command, MB | largest worker, MB |",
        "|---:|---:|---:|---:|",
        *(f"| {count:,} | {s:.0f} | {own:.0f} | {largest:.0f} |" for count, (s, own, largest) in memory.items()),
    ]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stand-in", type=Path, help=argparse.SUPPRESS)
    add_smoke(parser)
    given = parser.parse_args()
    if given.stand_in:
        stand_in_job(given.stand_in, given.lines)
        return 0
    count, lines, most, workers = (1, 30, 3000, 1) if given.smoke else (given.kills, LINES, given.lines, 2)
    # first, before this process has grown by training a run: some systems count that in its children too
    sizes = {most} if given.smoke else {max(1, most // 100), max(1, most // 10), most}
    memory = {number: measure_memory(number) for number in sorted(sizes)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = given.run or tiny_run(folder)
        kills, same = run_kills(folder, run, count, lines, random.Random(given.seed), workers)
    text = report(kills, same, memory, given, given.run.name if given.run else "a tiny run")
    print("\n".join(text) if given.smoke else text[2].replace("*", ""))
    write_results("bulk.md", "\n".join(text), smoke=given.smoke)
    return int(not same or any(not kill.equal for kill in kills))


if __name__ == "__main__":
    sys.exit(main())
