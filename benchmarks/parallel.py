"""One process and two on the same steps: the same loss, the speed, and what talking costs; and does prefetching pay?

    python benchmarks/parallel.py [--rounds 3]

A 3 + 3 layer encoder-decoder (width 256, vocabulary 8,000, 8.5 million weights, dropout 0.1) learns from steps of two
micro-batches of 2,048 tokens, in float32, one thread a process: alone, as two replicas, and as two shards. The three
follow one another in each round; medians over rounds of the steps after the first. The share of talking is the wall
time in the exchange (of shards: it is spread over forward and backward pass, and not told apart). The time for making
batches from the memory-mapped store is told as a share of the step of one process: what prefetching could save.

Expected: on two free cores 1.9 times the tokens a second for replicas (one message of 34 MB a step), less for shards,
which put weights together four times a step; batches in well under a hundredth of a step.

Writes ``results/parallel.md`` beside this file.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from processor import processor
from smoke import add_smoke, forked, output_of, write_results

from dragoman.data.batch import Batches, collate
from dragoman.data.tasks import TranslationTask
from dragoman.machine import keep_memory
from dragoman.presets import vaswani2017
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.lines import Pair
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bytes
from dragoman.train.distributed.launch import launch
from dragoman.train.distributed.micro_batch import split_between_processes
from dragoman.train.distributed.parallel import Replicated, Sharded
from dragoman.train.distributed.processes import join_group
from dragoman.train.loop import LoopProgress, StepRules, train_step
from dragoman.train.optimize import Adam

STEPS, TOKENS = 4, 2048
SHAPE = {"dim": 256, "heads": 4, "hidden": 1024, "depth": 3}
TOY = {"dim": 16, "heads": 4, "hidden": 32, "depth": 1}
WAYS = {"one process": (1, Replicated()), "two replicas": (2, Replicated()), "two shards": (2, Sharded())}


def store(folder: Path) -> None:
    """Sentences of 10 to 60 bytes."""
    draw = torch.Generator().manual_seed(1)
    pairs = []
    for _ in range(2000):
        letters = torch.randint(97, 123, (2, int(torch.randint(10, 60, (), generator=draw))), generator=draw)
        pairs.append(Pair(*("".join(map(chr, row.tolist())) for row in letters)))
    tokenizer = Tokenizer.train(Bytes(), [])
    ParallelCorpus.build(folder, pairs, tokenizer, tokenizer, longest=None)


def worker(way: str, folder: Path, *, smoke: bool) -> None:
    """Make the steps; the first process tells losses and seconds on standard output."""
    torch.set_num_threads(1)
    keep_memory()
    with join_group() as group:
        torch.manual_seed(1)
        corpus = ParallelCorpus.open(folder)
        plan, task = Batches(corpus.lengths, 200 if smoke else TOKENS, 1, 2), TranslationTask()
        model = replace(vaswani2017(**(TOY if smoke else SHAPE)), vocab=8000).build()
        exchange = WAYS[way][1].build(group)
        exchange.place(model, torch.device("cpu"))
        optimizer, progress, told = Adam().build(model), LoopProgress(), []
        talking, all_reduce = [0.0], exchange.all_reduce

        def timed(*given: Any) -> Any:
            began = time.perf_counter()
            sums = all_reduce(*given)
            talking[0] += time.perf_counter() - began
            return sums

        exchange.all_reduce = timed
        for number in range(STEPS):
            began, talking[0] = time.perf_counter(), 0.0
            rows = plan.at(number)
            parts = [
                part._replace(batch=collate(corpus, part.batch))
                for part in split_between_processes(rows, group.count)[group.rank]
            ]
            made = time.perf_counter() - began
            rules = StepRules(seed=1, exchange=exchange)
            report = train_step(model, task.loss, parts, optimizer, progress, lr=1e-4, rules=rules)
            seconds = time.perf_counter() - began
            told.append({"loss": report.loss, "tokens": report.tokens, "seconds": seconds, "talking": talking[0]})
            told[-1]["made"] = made
        if group.first:
            print(json.dumps(told))


def measured(way: str, folder: Path, *, smoke: bool) -> list[dict[str, float]]:
    command = [sys.executable, __file__, "--way", way, "--store", str(folder), *(["--smoke"] if smoke else [])]
    if WAYS[way][0] == 1:
        return json.loads(output_of(command, smoke=smoke))
    if smoke:
        forked().fork_what_is_launched()
    with tempfile.TemporaryFile("w+") as out:
        kept = os.dup(1)
        os.dup2(out.fileno(), 1)
        try:
            codes = launch(command, WAYS[way][0])
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        assert codes == [0, 0], codes
        out.seek(0)
        return json.loads(out.read())


def main(rounds: int, *, smoke: bool) -> None:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    last = {}
    with tempfile.TemporaryDirectory() as place:
        store(Path(place) / "store")
        for _ in range(rounds):
            for way in WAYS:
                steps = measured(way, Path(place) / "store", smoke=smoke)
                last[way] = steps[-1]["loss"]
                found[way] += steps[1:]
    speed = {way: statistics.median(s["tokens"] / s["seconds"] for s in steps) for way, steps in found.items()}
    lines = [
        "# One process and two on the same steps",
        "",
        f"{date.today()}; {processor()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {torch.__version__}; one thread a process; {rounds} rounds.",
        "",
        f"| | loss after {STEPS} steps | target tokens a second | of one | share of the step spent talking |",
        "|---|---:|---:|---:|---:|",
    ]
    for way, steps in found.items():
        share = statistics.median(s["talking"] / s["seconds"] for s in steps)
        told = "" if way == "one process" else f"{100 * share:.1f}%" if way == "two replicas" else "not told apart"
        lines.append(
            f"| {way} | {last[way]:.6f} | {speed[way]:,.0f} | {speed[way] / speed['one process']:.2f} | {told} |"
        )
    made = statistics.median(s["made"] / s["seconds"] for s in found["one process"])
    lines += ["", f"Making the batches of a step takes {100 * made:.2f}% of it: what prefetching could save on a CPU."]
    text = "\n".join(lines) + "\n"
    write_results("parallel.md", text, smoke=smoke)
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=list(WAYS))
    parser.add_argument("--store", type=Path)
    add_smoke(parser)
    given = parser.parse_args()
    if given.way:
        worker(given.way, given.store, smoke=given.smoke)
    else:
        main(1 if given.smoke else given.rounds, smoke=given.smoke)
