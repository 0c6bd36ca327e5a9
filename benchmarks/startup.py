"""How long until something happens: help, import, the first step of a training, and one translated sentence.

    OMP_NUM_THREADS=1 python benchmarks/startup.py [PAIRS] [--run RUN]

Each in a process of its own, the best of a few, in CPU seconds (so that what else the machine does counts little) and
in seconds by the clock. PAIRS as ``dragoman train --pairs`` takes them; without, 29,000 made-up pairs of 4 to 30 words,
the size of Multi30k. The first step comes after reading, cleaning, training a tokenizer of 8,000 entries, and storing.

The sentence is translated by RUN, a translator; without, by the one that has just been trained. Python finds the
package compiled, as it does after an installation.

Expected: help within half a second, ``import dragoman`` within 1.5, a sentence within 1.2, the first step within 10.

Writes ``results/startup.md`` beside this file.
"""

import argparse
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch
from processor import processor
from smoke import add_smoke, write_results

COMMAND = [sys.executable, "-m", "dragoman"]


def seconds(command: list[str], rounds: int) -> tuple[float, float]:
    """CPU and clock, of the round that took least CPU."""
    taken = []
    for _ in range(rounds):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        after, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
        taken.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock))
    return min(taken)


def made_up(path: Path, count: int) -> str:
    """Words by rank as Zipf has them, translated word by word."""
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghiklmnoprstu", k=draw.randint(2, 9))) for _ in range(12_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            sentence = draw.choices(words, weights, k=draw.randint(4, 30))
            file.write(f"{' '.join(sentence)}\t{' '.join(word[::-1] for word in sentence)}\n")
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="?")
    parser.add_argument("--run", help="a translator")
    add_smoke(parser)
    given = parser.parse_args()
    rounds = 1 if given.smoke else 5
    with tempfile.TemporaryDirectory() as folder:
        pairs = given.pairs or made_up(Path(folder) / "pairs.tsv", 300 if given.smoke else 29_000)
        train = [*COMMAND, "train", "--pairs", pairs, "--preset", "transformer-tiny", "--run", f"{folder}/run"]
        once = ["train.budget={kind: steps, steps: 1}", "train.validate_every=1000000", "data.hold_out.valid=0"]
        rows = [
            ("dragoman --help", *seconds([*COMMAND, "--help"], rounds), 0.5),
            ("import dragoman", *seconds([sys.executable, "-c", "import dragoman"], rounds), 1.5),
            ("import torch alone", *seconds([sys.executable, "-c", "import torch"], rounds), None),
            ("dragoman train, first step made and saved", *seconds([*train, *once], 1), 10),
        ]
        translate = [*COMMAND, "translate", given.run or f"{folder}/run", "The cat sat on the mat."]
        rows.append(("dragoman translate, one sentence", *seconds(translate, rounds), 1.2))
    lines = [
        "# Start-up",
        "",
        f"{date.today()}; {processor()}, {os.environ.get('OMP_NUM_THREADS', 'all')} "
        f"thread(s), Python {platform.python_version()}, torch {torch.__version__}.",
        "",
        "| what | CPU seconds | by the clock | wanted |",
        "|---|---:|---:|---:|",
    ]
    for what, cpu, clock, wanted in rows:
        lines.append(f"| {what} | {cpu:.2f} | {clock:.2f} | {'' if wanted is None else f'{wanted:.1f}'} |")
    text = "\n".join([*lines, ""])
    print(text)
    write_results("startup.md", text, smoke=given.smoke)


if __name__ == "__main__":
    main()
