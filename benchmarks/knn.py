"""Nearest-neighbour translation on a new domain: what votes of stored states gain, what they lose elsewhere, and cost.

    python benchmarks/knn.py RUN --domain PAIRS [PAIRS ...] --other PAIRS [--sentences 150]

The domain is text that repeats itself, such as the messages of one program. Of its pairs every fifth is translated and
the others are stored; pairs with the same source are on one side only. The other text is of any other kind, such as
the run's own test set. Both are translated greedily, without a datastore and with one at several weights. Prints a
table in Markdown.
"""

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path

import sacrebleu
from smoke import add_smoke, tiny_run, write_results

from dragoman import Translator
from dragoman.decode.knn import NearestNeighbours, build_datastore
from dragoman.text.formats.pairs import guess_source, read_pairs
from dragoman.text.lines import Pair

SETTINGS = ((0.25, 10.0), (0.5, 10.0), (0.75, 10.0), (0.5, 100.0))
"""Weights of the votes, and temperatures; the second is the default of the package."""
EVERY = 5
"""One pair of so many is translated."""


def score(outputs: list[str], references: list[str]) -> str:
    bleu, chrf = sacrebleu.corpus_bleu(outputs, [references]), sacrebleu.corpus_chrf(outputs, [references])
    return f"{bleu.score:.1f} / {chrf.score:.1f}"


def split(pairs: list[Pair], sentences: int) -> tuple[list[Pair], list[Pair]]:
    """Return what is stored, and what is translated."""
    distinct = list({pair.source: pair for pair in pairs if pair.source.strip() and pair.target.strip()}.values())
    tested = distinct[::EVERY][:sentences]
    return [pair for i, pair in enumerate(distinct) if i % EVERY], tested


def row(name: str, run: Path, sets: list[list[Pair]], knn: NearestNeighbours | None) -> str:
    translator = Translator.load(run, knn=knn)
    cells = []
    for pairs in sets:
        translator.translate(["warm up"], beam=1)
        began = time.process_time()
        said = [t.text for t in translator.translate([pair.source for pair in pairs], beam=1)]
        cost = 1000 * (time.process_time() - began) / len(pairs)
        cells += [score(said, [pair.target for pair in pairs]), f"{cost:.1f}"]
    print(f"{name}: {cells}", flush=True)
    return f"| {name} | {' | '.join(cells)} |"


def compare(run: Path, domain: list[Pair], other: list[Pair], sentences: int, folder: Path) -> str:
    """Build the datastore, translate, and return the page."""
    stored, tested = split(domain, sentences)
    began = time.process_time()
    count = build_datastore(run, stored, folder / "store")
    built = time.process_time() - began
    size = sum(path.stat().st_size for path in (folder / "store").rglob("*") if path.is_file())
    sets = [tested, other[:sentences]]
    rows = [row("without", run, sets, None)]
    for weight, temperature in SETTINGS:
        knn = NearestNeighbours(store=str(folder / "store"), weight=weight, temperature=temperature)
        rows.append(row(f"weight {weight:g}, temperature {temperature:g}", run, sets, knn))
    return "\n".join(
        [
            "# Nearest-neighbour translation on a new domain (benchmarks/knn.py)",
            "",
            f"{run.name}; {len(stored):,} stored pairs, {count:,} states, {size / 1e6:.1f} MB, built in {built:.0f} "
            "CPU seconds; 8 neighbours, exact search. BLEU / chrF of greedy translations, and CPU milliseconds a "
            "sentence on one core of a shared machine.",
            "",
            f"| votes | {len(sets[0])} of the domain | ms | {len(sets[1])} others | ms |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def pairs_of(named: list[str]) -> list[Pair]:
    return [pair for name in named for pair in read_pairs(guess_source(name))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--domain", nargs="*", help="pairs of the domain, as dragoman train takes them")
    parser.add_argument("--other", nargs="*", help="pairs of other text")
    parser.add_argument("--sentences", type=int, default=150, help="of each kind that are translated, at most")
    add_smoke(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.smoke:
            args.run, args.sentences = tiny_run(Path(folder)), 2
            args.domain = args.other = [str(Path(folder) / "pairs.tsv")]
        elif not (args.run and args.domain and args.other):
            parser.error("name a run, --domain and --other, or give --smoke")
        other = list(islice(pairs_of(args.other), args.sentences))
        page = compare(args.run, pairs_of(args.domain), other, args.sentences, Path(folder))
    print(page)
    write_results("knn.md", page, smoke=args.smoke)


if __name__ == "__main__":
    main()
