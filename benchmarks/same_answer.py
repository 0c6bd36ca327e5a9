"""Does a model give the same answer every way it can be asked? Counted on a run of your own.

    python benchmarks/same_answer.py runs/demo-es [--sentences 1000]

Translates the run's test set one sentence at a time, and again in batches, padded, in another order, without a cache,
with another cache and another kernel; counts the translations that are identical token by token. Writes
``results/same_answer.md`` beside this file and exits with 1 if one differs.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import torch

from dragoman.checkpoint import load_model
from dragoman.decode.beam import Beam
from dragoman.decode.greedy import Greedy
from dragoman.decode.search import SearchConfig, search
from dragoman.model.cache import DEFAULT, Cache, Growing
from dragoman.model.interface import PAD
from dragoman.model.transformer import Transformer
from dragoman.text.formats import JsonLines, read_pairs
from dragoman.text.tokenizer import BOS, EOS

Rows = Sequence[list[int]]
Answer = tuple[int, ...]


def padded(rows: Rows, extra: int = 0) -> torch.Tensor:
    longest = max(map(len, rows)) + extra
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def answers(
    model: Transformer, rows: Rows, cfg: SearchConfig, batch: int, *, extra: int = 0, policy=DEFAULT
) -> list[Answer]:
    found = []
    for start in range(0, len(rows), batch):
        found += search(model, padded(rows[start : start + batch], extra), cfg, policy)
    return [hypotheses[0].tokens for hypotheses in found]


def uncached(model: Transformer, row: list[int], length: int) -> Answer:
    """Greedy search that reads the whole beginning anew for each token; the last one allowed is EOS."""
    tokens = [BOS]
    while tokens[-1] != EOS:
        logits = model(torch.tensor([tokens]), torch.tensor([row]))[0, -1]
        tokens.append(int(logits[EOS:].argmax()) + EOS if len(tokens) < length else EOS)
    return tuple(tokens[1:])


def listened(model: Transformer, ask: Callable[[], list[Answer]]) -> list[Answer]:
    """With a hook on every attention's weights, which then runs written out instead of fused."""
    taps = [module for name, module in model.named_modules() if name.endswith(".weights")]
    hooks = [tap.register_forward_hook(lambda *_: None) for tap in taps]
    try:
        return ask()
    finally:
        for hook in hooks:
            hook.remove()


def ways(model: Transformer, rows: Rows, cfg: SearchConfig) -> dict[str, Callable[[], list[Answer]]]:
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))

    def shuffled() -> list[Answer]:
        got = answers(model, [rows[i] for i in by_length], cfg, 64)
        return [answer for _, answer in sorted(zip(by_length, got, strict=True))]

    return {
        "in batches of 7": lambda: answers(model, rows, cfg, 7),
        "in batches of 64": lambda: answers(model, rows, cfg, 64),
        "in batches of 64, by length": shuffled,
        "with 13 more columns of padding": lambda: answers(model, rows, cfg, 64, extra=13),
        "with a growing cache": lambda: answers(model, rows, cfg, 64, policy=Cache(arrangement=Growing())),
        "with attention written out": lambda: listened(model, lambda: answers(model, rows, cfg, 64)),
    }


@torch.inference_mode()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--sentences", type=int, default=1000)
    arguments = parser.parse_args()
    model, tokenizer, _ = load_model(arguments.run)
    pairs = list(read_pairs(JsonLines(path=str(arguments.run / "data" / "test.jsonl"))))[: arguments.sentences]
    rows = [[*ids, EOS] for ids in tokenizer.encode_batch([pair.source for pair in pairs])]
    began, table, wrong = time.monotonic(), [], 0
    for name, cfg in {"greedy": Greedy(), "beam 5": Beam(size=5)}.items():
        alone = answers(model, rows, cfg, 1)
        asked = ways(model, rows, cfg)
        if name == "greedy":
            asked["without a cache"] = lambda: [uncached(model, r, cfg.limit.of(len(r))) for r in rows]  # noqa: B023
        for way, ask in asked.items():
            same = sum(a == b for a, b in zip(alone, ask(), strict=True))
            wrong += len(rows) - same
            table.append(f"| {name} | {way} | {same:,} of {len(rows):,} |")
            print(table[-1], flush=True)
    parameters = sum(p.numel() for p in model.parameters())
    lines = [
        "# The same answer every way",
        "",
        "Translations that are identical, token by token, to those of one sentence at a time (float32).",
        "",
        f"{date.today()}; {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}; "
        f"{arguments.run.name}, {parameters:,} parameters; "
        f"{time.monotonic() - began:.0f} s.",
        "",
        "| search | asked | identical |",
        "|---|---|---:|",
        *table,
        "",
    ]
    (Path(__file__).parent / "results" / "same_answer.md").write_text("\n".join(lines))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
