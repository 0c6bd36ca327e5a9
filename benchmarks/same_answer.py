"""Does a model give the same answer every way it can be asked? ``dragoman verify``, written down.

    python benchmarks/same_answer.py runs/demo-es [--sentences 1000]

Writes ``results/same_answer.md`` beside this file and exits with 1 if an answer differs that must not.
"""

import argparse
import platform
import sys
import time
from datetime import date
from pathlib import Path

import torch
from processor import processor
from smoke import add_smoke, run_of, write_results

from dragoman.checkpoint import load_model
from dragoman.decode.verify.checks import Check, run_checks
from dragoman.decode.verify.writing import WritingVerifier
from dragoman.text.formats.pairs import JsonLines, read_pairs
from dragoman.text.tokens.tokenizer import EOS


def line(check: Check) -> str:
    if check.skipped:
        return f"| {check.searched} | {check.name} | left out: {check.skipped} | |"
    judged = "" if check.exact else " (rounds)"
    return f"| {check.searched} | {check.name}{judged} | {check.same:,} of {check.of:,} | {check.difference:.1e} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--sentences", type=int, default=1000)
    add_smoke(parser)
    arguments = parser.parse_args()
    with run_of(parser, arguments) as run:
        text, passed = report(run, arguments.sentences)
    write_results("same_answer.md", text, smoke=arguments.smoke)
    return int(not passed)


def report(run: Path, sentences: int) -> tuple[str, bool]:
    model, tokenizer, target_tokenizer = load_model(run)
    pairs = list(read_pairs(JsonLines(path=str(run / "data" / "test.jsonl"))))[:sentences]
    rows = [[*ids, EOS] for ids in tokenizer.encode_batch([pair.source for pair in pairs])]
    began, checks = time.monotonic(), []
    for check in run_checks(WritingVerifier(model, target_tokenizer, rows, batch=64)):
        checks.append(check)
        print(line(check), flush=True)
    parameters = sum(p.numel() for p in model.parameters())
    lines = [
        "# The same answer every way",
        "",
        "The model as it was trained, asked one sentence at a time with the cache that concatenates, compared with the",
        "model as commands run it: translations identical token by token with log-probabilities within 1e-4 (the",
        "difference is the mean of how far their scores lie apart), logits of all tokens within 1e-5 of the largest,",
        "and scores that one forward finds again (the difference is the largest). float32. Caches and precisions that",
        "round are counted and not judged.",
        "",
        f"{date.today()}; {processor()}, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}; "
        f"{run.name}, {parameters:,} parameters; "
        f"{time.monotonic() - began:.0f} s.",
        "",
        "| compared | asked | the same | difference |",
        "|---|---|---:|---:|",
        *map(line, checks),
        "",
    ]
    return "\n".join(lines), all(check.passed for check in checks)


if __name__ == "__main__":
    sys.exit(main())
