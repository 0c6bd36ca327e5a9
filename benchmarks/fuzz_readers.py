"""A million damaged files: does a reader ever crash, put a sentence beside another's translation, or not say where?

    python benchmarks/fuzz_readers.py [--inputs 1000000] [--seed 1]
    python benchmarks/fuzz_readers.py --inputs 100000 --only a.mo      # prints, and leaves the results alone

Files of every format hold numbered pairs; one or more places of each are damaged (bytes changed, inserted, left out at
the end), and the file is read. Counted: *crashes* (anything but pairs or the one line for the user), *misaligned* (a
source and a target that are both whole, of different numbers), and of the refusals those that name a line, row, entry
or column, or else say that the file as a whole is none of its kind. Damage is drawn so that no file can say something
else and be right: of two aligned files one place of one file is damaged. Results are in ``results/fuzz_readers.md``.
"""

import argparse
import gzip
import io
import json
import platform
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow
from pyarrow import parquet
from rich.progress import Progress, TimeRemainingColumn
from smoke import add_smoke, write_results

from dragoman.errors import UserError
from dragoman.text.formats.pairs import Pair, guess_source, read_pairs

sys.path.remove(str(Path(__file__).parent))  # where translate.py is not the package of that name
from translate.storage import mo

JUNK = [b"\n", b"\r", b"\r\n", b"\0", b"\t", b'"', b"\\", b"<", b">", b"&", b",", b"{", b"}", b" ", b"\x85", b"\x1f",
        "\u2028".encode(), "\u2029".encode(), "\ufeff".encode(), b"\xff", b"\xc3", b"\xed\xa0\x80", b"msgid ", b"</tu>",
        b"<seg>", b"]]>", b"&#0;", b"\\ud800", b"\n\n", b"x" * 3000]  # fmt: skip
WHOLE = re.compile(r"[st](\d+)-(\d+) [\w ]*end")
PLACE = re.compile(r":\d+|\b(?:line|row|entry|unit|record|tu|column|character|byte)s?\b", re.IGNORECASE)


def text(side: str, number: int) -> str:
    return f"{side}{number}-{number * 7919 % 10007} some words end"


NUMBERS = range(1, 9)
PAIRS = [(text("s", i), text("t", i)) for i in NUMBERS]


# ---- whole files ----------------------------------------------------------------------------------


def po() -> bytes:
    entries = "\n".join(f'msgid "{s}"\nmsgstr "{t}"\n' for s, t in PAIRS)
    return f'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n{entries}'.encode()


def catalogue() -> bytes:
    store = mo.mofile()
    for source, target in [("", "Content-Type: text/plain; charset=UTF-8\n"), *PAIRS]:
        store.addunit(unit := mo.mounit(source))
        unit.target = target
    return bytes(store)


def xliff() -> bytes:
    units = "".join(
        f'<trans-unit id="{i}"><source>{s}</source><target>{t}</target></trans-unit>\n'
        for i, (s, t) in zip(NUMBERS, PAIRS, strict=True)
    )
    head = '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file original="a" datatype="plaintext" '
    return f'{head}source-language="en" target-language="de"><body>\n{units}</body></file></xliff>'.encode()


def tmx() -> bytes:
    units = "".join(
        f'<tu><tuv xml:lang="en"><seg>{s}</seg></tuv><tuv xml:lang="de"><seg>{t}</seg></tuv></tu>\n' for s, t in PAIRS
    )
    return f'<tmx version="1.4"><header srclang="en"/><body>\n{units}</body></tmx>'.encode()


def columns() -> bytes:
    file = io.BytesIO()
    table = pyarrow.table({"source": [s for s, _ in PAIRS], "target": [t for _, t in PAIRS]})
    parquet.write_table(table, file, compression="none", write_page_checksum=True)
    return file.getvalue()


def lines(side: int) -> bytes:
    return "".join(pair[side] + "\n" for pair in PAIRS).encode()


TSV = "".join(f"{s}\t{t}\n" for s, t in PAIRS).encode()
CSV = "".join(f'"{s}",{t}\n' for s, t in PAIRS).encode()
JSON = "".join(json.dumps({"source": s, "target": t}) + "\n" for s, t in PAIRS).encode()
FILES: dict[str, bytes] = {
    "a.tsv": TSV,
    "a.tsv.gz": gzip.compress(TSV, mtime=0),
    "a.csv": CSV,
    "a.jsonl": JSON,
    "a.parquet": columns(),
    "a.po": po(),
    "a.mo": catalogue(),
    "a.xlf": xliff(),
    "a.tmx": tmx(),
}
TWO_FILES = "a.en,a.de"


# ---- damage and what comes of it ------------------------------------------------------------------


def damaged(content: bytes, pick: random.Random, times: int) -> bytes:
    for _ in range(times):
        at, way = pick.randrange(len(content) + 1), pick.random()
        if way < 0.6:
            content = content[:at] + pick.choice(JUNK) + content[at:]
        elif way < 0.9:
            content = content[:at] + bytes([pick.randrange(256)]) + content[at + 1 :]
        else:
            content = content[:at]
    return content


@dataclass
class Outcome:
    inputs: int = 0
    read: int = 0
    pairs: int = 0
    refused: int = 0
    placed: int = 0
    whole: Counter[str] | None = None
    misaligned: int = 0
    crashed: int = 0


def read(name: str, path: str, outcome: Outcome) -> None:
    outcome.inputs += 1
    try:
        pairs = list(read_pairs(guess_source(path)))
        outcome.read += 1
        outcome.pairs += len(pairs)
        outcome.misaligned += sum(map(misaligned, pairs))
    except UserError as error:
        outcome.refused += 1
        said = str(error).replace(path, "").replace(str(Path(path.split(",")[0]).parent), "")
        if PLACE.search(said):
            outcome.placed += 1
        else:
            outcome.whole = outcome.whole or Counter()
            outcome.whole[re.sub(r"[\d']+", "#", said)[:80]] += 1
    except Exception as error:
        outcome.crashed += 1
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)


def misaligned(pair: Pair) -> bool:
    source, target = (WHOLE.fullmatch(side) for side in pair[:2])
    whole = source and target and all(int(m[1]) * 7919 % 10007 == int(m[2]) for m in (source, target))
    return bool(whole and source[1] != target[1])


def case(name: str, folder: Path, pick: random.Random) -> str:
    """A damaged file in ``folder``; what names it."""
    if name != TWO_FILES:
        path = folder / name
        path.write_bytes(damaged(FILES[name], pick, pick.choice((1, 1, 2, 3))))
        return str(path)
    hurt = pick.randrange(2)
    for side, ending in enumerate(("en", "de")):
        (folder / f"a.{ending}").write_bytes(damaged(lines(side), pick, 1) if side == hurt else lines(side))
    return f"{folder / 'a.en'},{folder / 'a.de'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=[*FILES, TWO_FILES])
    add_smoke(parser)
    given = parser.parse_args()
    given.inputs = 200 if given.smoke else given.inputs
    pick, names = random.Random(given.seed), [given.only] if given.only else [*FILES, TWO_FILES]
    outcomes = {name: Outcome() for name in names}
    began = time.process_time()
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(*Progress.get_default_columns(), TimeRemainingColumn()) as bar,
    ):
        task = bar.add_task("reading", total=given.inputs)
        for i in range(given.inputs):
            name = names[i % len(names)]
            read(name, case(name, Path(folder), pick), outcomes[name])
            if i % 1000 == 0:
                bar.update(task, completed=i)
    report(outcomes, given, time.process_time() - began)


def report(outcomes: dict[str, Outcome], given: argparse.Namespace, seconds: float) -> None:
    rows = [
        "# Damaged files",
        "",
        f"{date.today()}; {platform.machine()}, Python {platform.python_version()}; {given.inputs:,} inputs, seed "
        f"{given.seed}, {seconds:,.0f} CPU seconds.",
        "",
        "| file | inputs | read | pairs | refused | of these with a place | crashes | misaligned |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    total: Callable[[str], int] = lambda field: sum(getattr(o, field) for o in outcomes.values())  # noqa: E731
    fields = ("inputs", "read", "pairs", "refused", "placed", "crashed", "misaligned")
    rows += [f"| {name} | " + " | ".join(f"{getattr(o, f):,}" for f in fields) + " |" for name, o in outcomes.items()]
    rows += ["| all | " + " | ".join(f"**{total(f):,}**" for f in fields) + " |", ""]
    rows += ["Refusals without a place, which are of the file as a whole:", ""]
    for name, outcome in outcomes.items():
        for said, count in (outcome.whole or Counter()).most_common(4):
            rows.append(f"- {name}: {count:,} like `{said.strip(': ')}`")
    if not given.only:
        write_results("fuzz_readers.md", "\n".join(rows), smoke=given.smoke)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
