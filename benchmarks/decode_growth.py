"""Does the cost of decoding grow as it should? Of a token by how many came before, and by how many are made at once.

    OMP_NUM_THREADS=1 python benchmarks/decode_growth.py

A model of 3 + 3 layers, width 256, with random weights, is told random tokens one by one. With a cache a token should
cost the same wherever it stands, but for what attention over a longer past takes, which a window takes away; without
one, each token reads all before it anew. Rows made together should cost as much as their number. CPU microseconds, one
thread; writes ``results/decode_growth.md`` beside this file.
"""

import argparse
import platform
import statistics
import time
from datetime import date

import torch
from processor import processor
from smoke import add_smoke, write_results

from dragoman.config import from_dict, merge
from dragoman.decode.precision import prepare_for_inference
from dragoman.machine import keep_memory
from dragoman.model.caches.cache import parse_cache
from dragoman.model.interface import SequenceModel
from dragoman.model.transformer import TransformerConfig
from dragoman.presets import PRESETS
from dragoman.text.tokens.tokenizer import BOS

VOCAB, SOURCE = 8000, 16
PLACES = (50, 100, 200, 500, 1000, 2000)
AROUND = 20  # tokens timed at each place
UNCACHED_TO = 500
BATCHES = (1, 4, 16, 64, 256)
BY_KERNELS = "our kernels"


def small() -> SequenceModel:
    three = {"vocab": VOCAB, "encoder": {"depth": 3}, "decoder": {"depth": 3}}
    return from_dict(TransformerConfig, merge(PRESETS["transformer-small"]()["model"], three)).build().eval()


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(BOS + 2, VOCAB, (rows, length))


def by_place(model: SequenceModel, cache: str, places: tuple[int, ...]) -> dict[int, float]:
    """Microseconds of a token that follows so many."""
    state, said, spent = model.start(tokens(1, SOURCE), parse_cache(cache)), tokens(1, places[-1] + 1), []
    for token in said.split(1, dim=1):
        began = time.process_time_ns()
        model.decode(token, state)
        spent.append((time.process_time_ns() - began) / 1e3)
    return {place: statistics.median(spent[max(0, place - AROUND) : place]) for place in places}


def uncached(model: SequenceModel, places: tuple[int, ...]) -> dict[int, float]:
    found, source = {}, tokens(1, SOURCE)
    for place in places:
        if place <= UNCACHED_TO:
            said, spent = tokens(1, place), []
            for _ in range(5):
                began = time.process_time_ns()
                model(said, source)
                spent.append((time.process_time_ns() - began) / 1e3)
            found[place] = statistics.median(spent)
    return found


def by_batch(model: SequenceModel, cache: str, batches: tuple[int, ...], length: int = 32) -> dict[int, float]:
    """Microseconds of a step of so many rows, on average over a text."""
    found = {}
    for rows in batches:
        rounds = []
        for _ in range(3):
            state, said = model.start(tokens(rows, SOURCE), parse_cache(cache)), tokens(rows, length)
            began = time.process_time_ns()
            for token in said.split(1, dim=1):
                model.decode(token, state)
            rounds.append((time.process_time_ns() - began) / 1e3 / length)
        found[rows] = statistics.median(rounds)
    return found


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_smoke(parser)
    smoke = parser.parse_args().smoke
    at, rows = ((8, 16), (1, 2)) if smoke else (PLACES, BATCHES)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    keep_memory()
    model = small()
    model.decode(tokens(1, 1), model.start(tokens(1, SOURCE)))
    places = {cache: by_place(model, cache, at) for cache in ("preallocated", "growing", "window:64:4")}
    places["none"] = uncached(model, at)
    batches = by_batch(model, "preallocated", rows)
    ready = prepare_for_inference(small(), "cpu", "float32")  # as ``translate`` and ``generate`` run it
    ready.decode(tokens(1, 1), ready.start(tokens(1, SOURCE)))
    places = {f"{BY_KERNELS}, preallocated": by_place(ready, "preallocated", at)} | places
    by_kernels = by_batch(ready, "preallocated", rows)
    parameters = sum(p.numel() for p in model.parameters())
    lines = [
        "# How the cost of decoding grows",
        "",
        f"{date.today()}; {processor()}, 1 thread, Python {platform.python_version()}, torch {torch.__version__}; "
        f"`transformer-small` with 3 + 3 layers and {parameters:,} random parameters, float32; CPU microseconds.",
        "",
        f"A token after so many others (one row; median of {AROUND} tokens), by PyTorch where nothing else is said:",
        "",
        f"| cache | {' | '.join(f'{place:,}' for place in at)} |",
        "|---|" + "---:|" * len(at),
        *(
            f"| {name} | " + " | ".join(f"{found[p]:,.0f}" if p in found else "" for p in at) + " |"
            for name, found in places.items()
        ),
        "",
        "A step of so many rows (mean over 32 tokens), and a token of it:",
        "",
        f"| rows | step, {BY_KERNELS} | token | step, PyTorch | token |",
        "|---:|---:|---:|---:|---:|",
        *(
            f"| {n} | {by_kernels[n]:,.0f} | {by_kernels[n] / n:,.0f} | {batches[n]:,.0f} | {batches[n] / n:,.0f} |"
            for n in rows
        ),
        "",
    ]
    print("\n".join(lines))
    write_results("decode_growth.md", "\n".join(lines), smoke=smoke)


if __name__ == "__main__":
    main()
