"""Fuzzy matches on repetitive text: what a translator gains that reads them, and what it loses elsewhere.

    python benchmarks/fuzzy_matches.py --train OLD.en,OLD.de --test NEW.en,NEW.de

The text is made repetitive by edits whose translation is known: a colour or a number is replaced by another on both
sides. The training pairs that can be edited so are there in both versions. Small translators learn from the
same pairs, equally often: one without matches, the others with candidates by n-grams, by the encoder of the first, and
by both. All translate the test sentences that can be edited; the memory has their edited versions. And they translate
other test sentences: with that memory, which has no match worth the name, and with one of the training pairs, too.
Prints a table in Markdown.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import time
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import sacrebleu
from processor import processor
from smoke import TESTS, add_smoke, write_results

from dragoman import Translator
from dragoman.config import merge
from dragoman.text.formats.pairs import guess_source, read_pairs
from dragoman.text.lines import Pair
from dragoman.text.memory import TranslationMemory
from dragoman.train import recipe
from dragoman.train.run import start

COLOURS = {"red": "rot", "blue": "blau", "green": "grün", "yellow": "gelb", "brown": "braun", "gray": "grau"}
NUMBERS = {"two": "zwei", "three": "drei", "four": "vier", "five": "fünf"}
ENDINGS = "(?:e|en|er|es|em)?"  # of adjectives, which these share
RETRIEVAL = {"kind": "fuzzy_matches", "threshold": 0.7, "without": 0.5}
PLAIN = "without matches"


def edited(pair: Pair, words: dict[str, str], draw: random.Random, endings: str) -> Pair | None:
    """Return the pair with one word replaced on both sides; None where it is not clear which."""
    there = [(ours, theirs) for ours, theirs in words.items() if re.search(rf"\b{ours}\b", pair.source, re.IGNORECASE)]
    if len(there) != 1:
        return None
    ours, theirs = there[0]
    patterns = (rf"\b{ours}\b", rf"\b{theirs}(?={endings}\b)")
    if any(len(re.findall(p, side, re.IGNORECASE)) != 1 for p, side in zip(patterns, pair, strict=True)):
        return None
    new = draw.choice([other for other in words if other != ours])
    replaced = (
        re.sub(p, lambda m, by=by: by.capitalize() if m[0][0].isupper() else by, side, flags=re.IGNORECASE)
        for p, by, side in zip(patterns, (new, words[new]), pair, strict=True)
    )
    return Pair(*replaced)


def any_edit(pair: Pair, tables: list[tuple[dict[str, str], str]], draw: random.Random) -> Pair | None:
    return next((found for words, endings in tables if (found := edited(pair, words, draw, endings))), None)


def score(outputs: list[str], references: list[str]) -> str:
    bleu, chrf = sacrebleu.corpus_bleu(outputs, [references]), sacrebleu.corpus_chrf(outputs, [references])
    return f"{bleu.score:.1f} / {chrf.score:.1f}"


def learn(path: Path, plain: dict[str, Any]) -> float:
    """Train a run; return its CPU seconds."""
    began = time.process_time()
    for _ in start(recipe.load(plain), path).events():
        pass
    return time.process_time() - began


def settings_of(args: argparse.Namespace, encoder: Path) -> dict[str, Any]:
    """Return what is compared, by name, as settings of data.retrieval; ``encoder`` is the run without matches."""
    near = {"run": str(encoder), "checkpoint": "last"}
    return {
        PLAIN: "no_retrieval",
        "n-grams propose": RETRIEVAL,
        "the encoder proposes": RETRIEVAL | {"encoder": near | {"ngrams": False}},
        "both propose": RETRIEVAL | {"encoder": near},
        f"both, and matches by meaning from {args.cosine:g}": RETRIEVAL
        | {"encoder": near | {"threshold": args.cosine}},
    }


def cell(run: Path, pairs: list[Pair], memory: TranslationMemory | None) -> str:
    """Return the scores of a run's translations, and for how many of them it read a match, by meaning alone."""
    found = Translator.load(run, checkpoint="last", memory=memory).translate([pair.source for pair in pairs], beam=1)
    scores = score([each.text for each in found], [pair.target for pair in pairs])
    if memory is None:
        return scores
    some = [each.matches[0] for each in found if each.matches]
    return f"{scores} ({len(some)}, {sum(match.cosine is not None for match in some)})"


def compare(args: argparse.Namespace, folder: Path) -> str:
    """Train all translators, and return the table."""
    draw, tables = random.Random(1), args.tables
    short = [p for p in read_pairs(guess_source(args.train)) if len(p.source.split()) <= args.words][: args.pairs]
    twins = [twin for pair in short if (twin := any_edit(pair, tables, draw))]
    write(folder / "train.tsv", [*short, *twins])
    test = [p for p in read_pairs(guess_source(args.test)) if len(p.source.split()) <= args.words]
    found = [(pair, any_edit(pair, tables, draw)) for pair in test]
    repeated = [(pair, twin) for pair, twin in found if twin][: args.sentences]
    plain = list(islice((pair for pair, twin in found if not twin), args.sentences))
    data = {
        "train": [{"kind": "table", "path": str(folder / "train.tsv")}],
        "hold_out": {"test": 1, "valid": args.valid, "near": None},
    }
    settings = merge({"preset": "transformer-tiny", "data": data}, args.settings)
    edits = TranslationMemory(twin for _, twin in repeated)
    past = TranslationMemory([*(twin for _, twin in repeated), *short, *twins])
    asked = [pair for pair, _ in repeated]
    rows = []
    for name, retrieval in settings_of(args, folder / "0").items():
        run = folder / str(len(rows))
        cost = learn(run, merge(settings, {"data": {"retrieval": retrieval}}))
        known = json.loads((run / "data" / "report.json").read_text()).get("matches", {}).get("train", {})
        matched = f"{known['with matches']:,}, {known.get('by meaning alone', 0):,}" if known else "none"
        cells = [cell(run, asked, None), cell(run, plain, None)]
        if name != PLAIN:
            cells += [cell(run, asked, edits), cell(run, plain, edits), cell(run, plain, past)]
        cells += [""] * (5 - len(cells))
        rows.append(f"| {name} | {cost:.0f} | {matched} | " + " | ".join(cells) + " |")
        print(rows[-1], file=sys.stderr, flush=True)
    copied = score([twin.target for _, twin in repeated], [pair.target for pair in asked])
    rows.append(f"| the match itself, unchanged | | | | | {copied} | | |")
    return "\n".join(
        [
            "# Fuzzy matches from a translation memory (benchmarks/fuzzy_matches.py)",
            "",
            f"{processor()}, one thread, {date.today()}. {len(short):,} captions of at most {args.words} words and "
            f"{len(twins):,} edited ones to train on; {args.epochs:g} passes of `transformer-tiny`, in batches "
            f"of {args.settings['train']['batch_tokens']:,} tokens. Matches make sources longer and batches smaller. "
            f"Similarity at least {RETRIEVAL['threshold']}; the encoder is that of the first translator; "
            f"{RETRIEVAL['without']:.0%} of the sentences with matches are read without them at each "
            "step. BLEU / chrF of greedy translations; in brackets how many had a match, and how many of these by "
            "meaning alone.",
            "",
            f"R: {len(asked)} sentences whose edited version is in the memory. O: {len(plain)} others. The memory has "
            "the edited versions of R, and in the last column the training pairs too.",
            "",
            "| trained | CPU s | training pairs with matches | R, no memory | O, no memory | R, memory | O, memory | "
            "O, memory and training pairs |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def write(path: Path, pairs: list[Pair]) -> None:
    rows = ([" ".join(side.split()) for side in pair] for pair in pairs)
    path.write_text("".join("\t".join(row) + "\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name in ("train", "test"):
        parser.add_argument(f"--{name}", help="English and German captions, as dragoman train takes pairs")
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--pairs", type=int, default=10_000, help="training captions, before the edited ones are added")
    parser.add_argument("--words", type=int, default=12, help="of the longest source")
    parser.add_argument("--sentences", type=int, default=200, help="of each test set")
    parser.add_argument("--cosine", type=float, default=0.65, help="least of a match by meaning")
    add_smoke(parser)
    args = parser.parse_args()
    args.tables, args.valid = [(COLOURS, ENDINGS), (NUMBERS, "")], 100
    with tempfile.TemporaryDirectory() as folder:
        if args.smoke:
            toy(args, Path(folder))
        elif not (args.train and args.test):
            parser.error("name --train and --test, or give --smoke")
        args.settings = {
            "tokenizer": {"kind": "bpe", "vocab": 2500} if not args.smoke else "bytes",
            "train": {
                "budget": {"kind": "epochs", "epochs": args.epochs},
                "schedule": {"kind": "cosine", "peak": 3e-3, "warmup": 50},
                "batch_tokens": 2048 if not args.smoke else 200,
                "validate_every": 10_000,
                "save_every": 10_000,
                "samples": 0,
            },
        }
        table = compare(args, Path(folder))
    print(table)
    write_results("fuzzy_matches.md", table, smoke=args.smoke)


def toy(args: argparse.Namespace, folder: Path) -> None:
    """Set the smallest sizes, on the toy language of the tests."""
    sys.path.append(str(TESTS))
    from tiny_run import write_pairs

    args.train = args.test = str(write_pairs(folder / "pairs.tsv", 120))
    args.epochs, args.sentences, args.valid = 0.1, 3, 4
    args.tables = [({word: word[::-1].upper() for word in ("red", "blue", "green", "big", "small")}, "")]


if __name__ == "__main__":
    main()
