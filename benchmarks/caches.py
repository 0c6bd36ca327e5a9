"""What each cache takes: bytes a token, time, and how often its answers are those of the reference. On a run of yours.

    OMP_NUM_THREADS=1 python benchmarks/caches.py runs/demo-es [--sentences 128] [--rounds 3]

Two tables, in ``results/caches.md`` beside this file: whole translations by the run's model, caches taking turns
within a round; and one layer's step by itself (320 rows of 8 heads with 32 channels, all reordered at each step), where
the layout is nearly all there is. CPU seconds, medians over the rounds, so that what else runs on the machine
matters little.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TypeVar

import torch
from processor import processor
from smoke import add_smoke, run_of, write_results

from dragoman.checkpoint import load_model
from dragoman.data.padding import padded
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import search
from dragoman.decode.search.teacher_forcing import batches_by_length
from dragoman.decode.translator import Translator
from dragoman.machine import keep_memory
from dragoman.model.caches.cache import parse_cache
from dragoman.model.caches.storage import KV
from dragoman.model.interface import SequenceModel
from dragoman.model.masks.visibility import Causal
from dragoman.text.formats.pairs import JsonLines, read_pairs
from dragoman.text.tokens.tokenizer import EOS

CACHES = ["growing", "preallocated", "paged:16", "window:32:4", "bfloat16", "float8", "int8", "int4", "paged:16+int8"]
LENGTHS = (16, 64)
ROWS, HEADS, CHANNELS = 320, 8, 32


T = TypeVar("T")


def cpu_seconds(do: Callable[[], T]) -> tuple[float, T]:
    began = time.process_time()
    result = do()
    return time.process_time() - began, result


def bytes_a_token(model: SequenceModel, cache: str, tokens: int = 64) -> tuple[float, float]:
    """Of one row's self-attention, for each token remembered; and of a source, for each of its own."""
    state = model.start(torch.full((1, tokens), EOS + 1), parse_cache(cache))
    source = sum(layer.nbytes for layer in state.memory.layers) / tokens
    model.decode(torch.full((1, tokens), EOS + 1), state)
    return sum(layer.nbytes for layer in state.tower.layers) / tokens, source


def translations(model: SequenceModel, plain: SequenceModel, rows: list[list[int]], rounds: int) -> list[str]:
    searches = {"greedy": Greedy(), "beam 5": Beam(size=5)}
    spent = {(cache, name): [] for cache in CACHES for name in searches}
    said = {}
    batches = [padded([rows[i] for i in some], torch.device("cpu")) for some in batches_by_length([1] * len(rows), 64)]
    for _ in range(rounds):
        for cache, name in spent:
            policy = parse_cache(cache)
            seconds, found = cpu_seconds(
                lambda cfg=searches[name], policy=policy: [h[0] for b in batches for h in search(model, b, cfg, policy)]
            )
            spent[cache, name].append(seconds)
            said[cache, name] = [h.tokens for h in found]
    lines = [
        "| cache | bytes a token | of the source | sentences a CPU second: greedy | beam 5 "
        "| same answers: greedy | beam 5 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for cache in CACHES:
        own, source = bytes_a_token(plain, cache)
        speeds = [f"{len(rows) / statistics.median(spent[cache, name]):.0f}" for name in searches]
        same = [
            f"{sum(a == b for a, b in zip(said[cache, name], said['growing', name], strict=True))} of {len(rows)}"
            for name in searches
        ]
        lines.append(f"| `{cache}` | {own:,.0f} | {source:,.0f} | {' | '.join(speeds)} | {' | '.join(same)} |")
    return lines


def steps(rounds: int, rows: int = ROWS) -> list[str]:
    caches = [cache for cache in CACHES if not cache.startswith("window")]
    lines = [f"| cache | {' | '.join(f'at {n} tokens' for n in LENGTHS)} |", "|---|" + "---:|" * len(LENGTHS)]
    order = (torch.randint(0, 5, (rows // 5, 5)) + 5 * torch.arange(rows // 5)[:, None]).flatten()
    for cache in caches:
        cells = []
        for length in LENGTHS:
            found = []
            for _ in range(rounds):
                state = parse_cache(cache).new_state(Causal())
                state.extend(KV(*(torch.randn(rows, HEADS, length, CHANNELS) for _ in range(2))))
                new = KV(*(torch.randn(rows, HEADS, 1, CHANNELS) for _ in range(2)))

                def some(state=state, new=new) -> None:
                    for _ in range(8):
                        state.reorder(order)
                        state.extend(new)

                found.append(cpu_seconds(some)[0] / 8)
            cells.append(f"{1e6 * statistics.median(found):,.0f}")
        lines.append(f"| `{cache}` | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--sentences", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    add_smoke(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with run_of(parser, arguments) as run:
        text = report(run, arguments.sentences, 1 if arguments.smoke else arguments.rounds, smoke=arguments.smoke)
    print(text)
    write_results("caches.md", text, smoke=arguments.smoke)


@torch.inference_mode()
def report(run: Path, sentences: int, rounds: int, *, smoke: bool) -> str:
    keep_memory()
    translator = Translator.load(run, device="cpu", precision="float32")
    pairs = list(read_pairs(JsonLines(path=str(run / "data" / "test.jsonl"))))[:sentences]
    rows = [[*ids, EOS] for ids in translator.source_tokenizer.encode_batch([pair.source for pair in pairs])]
    plain = load_model(run)[0]
    parameters = sum(p.numel() for p in plain.parameters())
    lines = [
        "# Caches",
        "",
        f"{date.today()}; {processor()}, 1 thread, Python {platform.python_version()}, torch {torch.__version__}; "
        f"CPU seconds, median of {rounds} rounds.",
        "",
        f"Translations by {run.name} ({parameters:,} parameters, float32), {len(rows)} sentences of its test "
        "set in batches of 64; the same answers as `growing`, token by token. `preallocated` is run by kernels of our "
        "own, where there is a C compiler, the others by PyTorch:",
        "",
        *translations(translator.model, plain, rows, rounds),
        "",
        f"One layer's cache by itself, {ROWS} rows, {HEADS} heads of {CHANNELS} channels, microseconds to reorder all "
        "rows, add a token, and read everything back:",
        "",
        *(steps(1, rows=10) if smoke else steps(max(5, rounds))),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
