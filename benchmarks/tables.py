"""Tables in bulk: is memory the same for any number of rows, and is the file the same after kill -9?

    python benchmarks/tables.py [--rows 1000000] [--kills 3]

A table of so many rows, as CSV and as Parquet, is translated by a stand-in that writes in capitals, in one worker
process. Memory is the largest that the command and its worker occupied. Then the same job is killed (SIGKILL) after a
random time and begun again, and its bytes are compared.

Writes ``results/tables.md`` beside this file and exits with 1 if an output differs.
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
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

from smoke import add_smoke, write_results

from dragoman.serve.bulk.job import check_input, run_bulk
from dragoman.serve.bulk.local import LocalWorkers
from dragoman.serve.bulk.parquet_rows import ParquetTable
from dragoman.serve.bulk.shard import Shard, ShardAnswer, ShardAnswerer, ShardProgress, ShardWork
from dragoman.serve.bulk.table_rows import TableRow, read_table_rows


@dataclass(frozen=True)
class Capitals(ShardWork):
    """Stand-in for a translator, which costs no time."""

    def open(self) -> "CapitalsAnswerer":
        return CapitalsAnswerer()


class CapitalsAnswerer(ShardAnswerer):
    """Writes the source of each row in capitals."""

    def answer(self, shard: Shard, progress: ShardProgress) -> ShardAnswer:
        rows = map(TableRow.read, shard.lines)
        return ShardAnswer([], content="".join(row.written(row.source.upper()) for row in rows))


def write_table(path: Path, rows: int) -> Path:
    """Write a table of three columns, a tenth of whose rows is translated already."""
    if path.suffix == ".csv":
        with path.open("w") as file:
            file.write("id,en,de\n")
            for i in range(rows):
                file.write(f'{i},"the house, number {i}, is red",{"da" if i % 10 == 0 else ""}\n')
        return path
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([("id", pyarrow.int64()), ("en", pyarrow.string()), ("de", pyarrow.string())])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 50_000):
            numbers = range(start, min(start + 50_000, rows))
            texts = [f"the house, number {i}, is red" for i in numbers]
            there = ["da" if i % 10 == 0 else None for i in numbers]
            writer.write_batch(pyarrow.record_batch([list(numbers), texts, there], schema=schema))
    return path


def translate(path: Path, output: Path) -> None:
    """Run the job; print seconds and the largest memory of this process and of its worker, in MB."""
    began = time.monotonic()
    table = ParquetTable(str(path), "en", "de")
    read = table.rows if path.suffix == ".parquet" else partial(read_table_rows, str(path), "en", "de")
    assemble = table.assemble if path.suffix == ".parquet" else None
    with LocalWorkers(Capitals(), 1) as workers:
        run_bulk(read, check_input(read), workers, output, model={}, options={}, assemble=assemble)
    peaks = [resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"{time.monotonic() - began:.0f}", *peaks)


def job(path: Path, output: Path) -> subprocess.Popen:
    command = [sys.executable, __file__, "--job", str(path), str(output)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def measured(path: Path, output: Path) -> list[str]:
    process = job(path, output)
    out, _ = process.communicate()
    assert process.returncode == 0
    return out.split()


def survives(path: Path, whole: Path, seconds: float) -> bool:
    """Kill a job after so many seconds, begin it again, and compare the bytes."""
    output = whole.with_name(f"again{path.suffix}")
    process = job(path, output)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    measured(path, output)
    equal = output.read_bytes() == whole.read_bytes()
    output.unlink()
    return equal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--job", nargs=2, type=Path, help=argparse.SUPPRESS)
    add_smoke(parser)
    given = parser.parse_args()
    if given.job:
        translate(*given.job)
        return 0
    sizes = [200] if given.smoke else [given.rows // 10, given.rows]
    draw, lines, equal, kills = random.Random(1), [], 0, 1 if given.smoke else given.kills
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".csv", ".parquet"):
            for rows in sizes:
                path = write_table(Path(folder) / f"in{suffix}", rows)
                whole = Path(folder) / f"out{suffix}"
                seconds, command, worker = measured(path, whole)
                size = path.stat().st_size / 1e6
                lines.append(f"| {suffix} | {rows:,} | {size:.1f} | {seconds} | {command} | {worker} |")
                print(lines[-1], flush=True)
                if rows == sizes[0]:
                    spans = [draw.uniform(0.5, 1 + 0.8 * float(seconds)) for _ in range(kills)]
                    equal += sum(survives(path, whole, span) for span in spans)
    text = f"""# Tables in bulk

`python benchmarks/tables.py`, {date.today()}: rows of a table translated by a stand-in, in one worker process.

| format | rows | MB of the file | seconds | MB of the command | MB of its worker |
|---|---|---|---|---|---|
{chr(10).join(lines)}

Jobs killed with SIGKILL and begun again: {equal} of {2 * kills} outputs equal to the byte.
"""
    print(text)
    write_results("tables.md", text, smoke=given.smoke)
    return int(equal != 2 * kills)


if __name__ == "__main__":
    sys.exit(main())
