"""Do imported checkpoints say what their own library says? Counted, a row a family.

    python benchmarks/parity.py [--texts 20]

Makes models of `transformers` with random weights (two sizes of each family, float32), imports them, and compares with
them: the logits of texts in padded batches and token by token with a cache (to 1e-5), greedy and beam search token by
token, and what import, export and import again give back, bit by bit. Writes ``results/parity.md`` beside this file and
exits with 1 if anything differs.
"""

import argparse
import platform
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch
import transformers
from smoke import TESTS, add_smoke, write_results

sys.path.append(str(TESTS))
import foreign
import foreign_speech
import foreign_text

from dragoman.decode.precision import prepare_for_inference

TOLERANCE = 1e-5


class Count:
    """So many of so many."""

    def __init__(self) -> None:
        self.good = self.all = 0

    def add(self, good: int, everything: int) -> None:
        self.good, self.all = self.good + good, self.all + everything

    def __str__(self) -> str:
        return f"{self.good} of {self.all}"


def count(name: str, texts: int) -> tuple[list[Count], float]:
    """Logits padded left, padded right, cached, greedy, beam 4, bits; and the largest difference of a logit."""
    counts, worst = [Count() for _ in range(6)], 0.0
    for size in range(len((foreign.MODELS | foreign.ENCODERS)[name])):
        with tempfile.TemporaryDirectory() as folder:
            pair = foreign.pair(name, size, Path(folder))
            pair.ours = prepare_for_inference(pair.ours, "cpu", "float32")  # as commands run it
            if name in foreign.MODELS:
                errors = [
                    foreign.logit_errors(pair, "left", texts),
                    foreign.logit_errors(pair, "right", texts),
                    foreign.cached_errors(pair, texts),
                ]
            else:
                sides = ("left",) if name in foreign.IMAGES else ("left", "right")
                errors = [foreign.encoder_errors(pair, side, texts) for side in sides]
            for found, one in zip(errors, counts, strict=False):
                one.add(sum(error < TOLERANCE for error in found), len(found))
                worst = max(worst, *found)
            if name in foreign.MODELS:
                counts[3].add(*foreign.identical(pair, 1, texts))
                counts[4].add(*foreign.identical(pair, 4, texts))
            counts[5].add(int(foreign.comes_back(pair, Path(folder))), 1)
    return counts, worst


def count_speech(texts: int) -> tuple[list[Count], float]:
    """Whisper's row: logits after frames, and text ids from sound; ``padded left`` is a window of sound."""
    counts, worst = [Count() for _ in range(6)], 0.0
    for size in range(len(foreign_speech.SIZES)):
        with tempfile.TemporaryDirectory() as folder:
            made = foreign_speech.Made(Path(folder), size)
            for one, cached in ((counts[0], False), (counts[2], True)):
                errors = made.logit_errors(texts, cached=cached)
                one.add(sum(error < TOLERANCE for error in errors), len(errors))
                worst = max(worst, *errors)
            counts[3].add(*made.identical(1, texts))
            counts[4].add(*made.identical(4, texts))
            counts[5].add(int(made.comes_back(Path(folder))), 1)
    return counts, worst


def count_from_text(cases: list[foreign_text.Case], texts: tuple[str, ...]) -> tuple[list[str], int]:
    """Return a line for each family and tokenizer, and how much differs that is not known to."""
    lines, wrong = [], 0
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            found = foreign_text.count(case, Path(folder), texts)
        cells = [f"{found[name][0]} of {found[name][1]}" if name in found else "" for name in FROM_TEXT]
        lines.append(f"| {case.name} | {'with' if case.begins else 'without'} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
        known = foreign_text.TIES if case.name.startswith("Marian") else 0
        wrong += sum(max(0, everything - good - known) for good, everything in found.values())
    return lines, wrong


SPEECH = "Whisper"
FROM_TEXT = ("ids", "answers", "given back", "written anew")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=20)
    parser.add_argument("--only", nargs="+", help="Families to count; nothing is written then.")
    add_smoke(parser)
    arguments = parser.parse_args()
    names, cases, texts = [*foreign.MODELS, *foreign.ENCODERS], foreign_text.CASES, foreign_text.TEXTS
    if arguments.only:
        names = [name for name in names if name in arguments.only]
        cases = [case for case in cases if case.name in arguments.only]
    if arguments.smoke:
        arguments.texts, names, cases, texts = 2, names[:1], cases[:1], texts[:2]
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    began, table, wrong = time.monotonic(), [], 0
    speech = [SPEECH] if not arguments.smoke and SPEECH in (arguments.only or [SPEECH]) else []
    for name in [*names, *speech]:
        counts, worst = count_speech(arguments.texts) if name == SPEECH else count(name, arguments.texts)
        wrong += sum(one.all - one.good for one in counts)
        cells = [str(one) if one.all else "" for one in counts]
        table.append(f"| {name} | {' | '.join(cells)} | {worst:.1e} |")
        print(table[-1], flush=True)
    from_text, differing = count_from_text(cases, texts)
    wrong += differing
    lines = [
        "# The same numbers and words as their own library",
        "",
        "Models of `transformers` with random weights, imported and made ready as commands make them: logits of texts",
        "in a batch padded on the left and on the right, and token by token with a cache, within 1e-5 of theirs for",
        "each text alone; greedy and beam search (4) identical token by token to `generate`, of the texts that it",
        f"ends within {foreign.LONGEST} tokens; and",
        "import, export, import again identical bit by bit, as are their own tensors. Two sizes or more, float32.",
        "Images (ViT, DINOv2, SigLIP) stand in the first column; nothing is padded there. SigLIP's similarities are",
        "logits of a text and three images. Whisper: logits after log-mel frames, and answers to sound as `generate`",
        "gives them.",
        "",
        f"{date.today()}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}; {time.monotonic() - began:.0f} s.",
        "",
        "| family | padded left | padded right | cached | greedy | beam | bits | largest difference |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *table,
        "",
        "## From text",
        "",
        f"{len(texts)} texts (spaces, line ends, contractions, numbers, code, scripts, emoji, none) read",
        "as `AutoTokenizer` reads the folder, by the tokenizer of a family's own class, with and without a token that",
        "begins a text (where a class leaves the choice: BERT, RoBERTa, BART, T5 and Marian do not); greedy answers as",
        "`generate`'s (an empty prompt has none there; of encoders: outputs within 1e-4); and the same texts read by",
        "`AutoTokenizer` of our export, given back as it came and written anew. Marian: SentencePiece and we break",
        "a tie between two equally likely segmentations of `***` differently.",
        "",
        "| family | beginning | ids | answers | given back | written anew |",
        "|---|---|---:|---:|---:|---:|",
        *from_text,
        "",
    ]
    if arguments.smoke:
        print("\n".join(lines))
    if arguments.only:
        return int(wrong > 0)
    write_results("parity.md", "\n".join(lines), smoke=arguments.smoke)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
