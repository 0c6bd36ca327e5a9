"""Peak memory of cleaning a generated corpus, by its size: what must be remembered is on disk, so it should not grow.

    python benchmarks/clean_memory.py [--pairs 10000 1000000 10000000] [--ways duplicates whole dedupe]

Each measurement is a process of its own, which generates the pairs as it reads them, one in twenty a repetition of an
earlier one. Ways: ``duplicates`` is the default cleaning; ``whole`` also has the rules that must see the whole text
first (fitted ratio, conflicts); ``stats`` and ``dedupe`` are those commands; ``set`` remembers pairs in a Python set of
hashes, for comparison. Results are in ``results/clean_memory.md`` beside this file.
"""

import argparse
import platform
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from hashlib import blake2b

from smoke import add_smoke, write_results

from dragoman.text.cleaning.clean import Cleaning, clean, normalise
from dragoman.text.cleaning.dedupe import Deduplication, dedupe
from dragoman.text.cleaning.remembered import text_hash
from dragoman.text.cleaning.summary import summarise
from dragoman.text.lines import Pair

SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sta", "tre", "vil", "won", "xy", "zu")
WORDS = ["".join(random.Random(i).choices(SYLLABLES, k=1 + i % 4)) for i in range(2**12)]
REPEATED = 20
"""One pair in so many came before."""


def generated(count: int) -> Iterator[Pair]:
    """Sentences of 6 to 14 words, the same in every run; every ``REPEATED``th is the one half as far in."""
    for i in range(count):
        yield _pair(i // 2 if i % REPEATED == REPEATED - 1 else i)


def _pair(number: int) -> Pair:
    chance = blake2b(number.to_bytes(8, "little"), digest_size=29).digest()
    words = [WORDS[chance[2 * i] << 4 | chance[2 * i + 1] >> 4] for i in range(6 + chance[-1] % 9)]
    return Pair(f"{' '.join(words)}.", f"{' '.join(reversed(words))} {number % 7}.")


def with_a_set(pairs: Iterator[Pair]) -> Iterator[Pair]:
    seen: set[int] = set()
    for pair in pairs:
        tidy = Pair(normalise(pair.source), normalise(pair.target))
        if (key := text_hash(*tidy)) not in seen:
            seen.add(key)
            yield tidy


def count(pairs: Iterator[Pair]) -> int:
    return sum(1 for _ in pairs)


WAYS: dict[str, Callable[[Iterator[Pair]], int]] = {
    "generate": count,
    "duplicates": lambda pairs: count(clean(pairs, Cleaning())),
    "whole": lambda pairs: count(clean(pairs, Cleaning(max_deviations=3.0, conflicts="drop_rarer"))),
    "stats": lambda pairs: summarise(pairs).pairs,
    "dedupe": lambda pairs: count(dedupe(pairs, Deduplication())),
    "set": lambda pairs: count(with_a_set(pairs)),
}


def measured(way: str, pairs: int) -> str:
    """The row of the table, made in a fresh process."""
    command = [sys.executable, __file__, "--one", way, str(pairs)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def measure(way: str, pairs: int) -> str:
    began = time.process_time()
    kept = WAYS[way](generated(pairs))
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    return f"| {way} | {pairs:,} | {kept:,} | {peak:.0f} | {seconds:.1f} | {1e6 * seconds / pairs:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--one", nargs=2, metavar=("WAY", "PAIRS"), help=argparse.SUPPRESS)
    add_smoke(parser)
    given = parser.parse_args()
    if given.one:
        print(measure(given.one[0], int(given.one[1])))
        return
    lines = [
        "# Memory of cleaning",
        "",
        f"{date.today()}, {platform.machine()}, Python {platform.python_version()}. Peak resident memory of the whole "
        "process; CPU seconds, in which those of `generate` are contained.",
        "",
        "| way | pairs | kept | peak MiB | CPU s | µs a pair |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines), flush=True)
    row = measure if given.smoke else measured  # a process each takes seconds to begin
    for pairs in [200] if given.smoke else given.pairs:
        for way in given.ways:
            lines.append(row(way, pairs))
            print(lines[-1], flush=True)
    write_results("clean_memory.md", "\n".join(lines), smoke=given.smoke)


if __name__ == "__main__":
    main()
