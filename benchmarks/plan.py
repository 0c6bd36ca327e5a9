"""Predicted against measured: memory and time of a training step, on a grid of models, sizes and settings.

    OMP_NUM_THREADS=1 python benchmarks/plan.py            # --part 3 for every third row

In one process the step of a row is counted on shapes and its operations are timed one by one (``dragoman.plan``); in
another the model is built and makes five steps on one thread, after a step of a tiny model. Memory is the highest
resident size less that before the model was built; time is the processor's, the median of the last four steps. How
long small objects live in the heap (two numbers in ``plan/heap.py``) was chosen by such rows; nothing else of the
prediction is fitted.

Expected: memory within 10% and time within 20%.

Writes ``results/plan.md`` beside this file.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import date
from typing import Any

import torch
from processor import processor
from smoke import add_smoke, output_of, write_results

from dragoman.config import from_dict
from dragoman.machine import autocast, keep_memory, return_memory
from dragoman.model.families import ModelConfig
from dragoman.model.interface import SequenceConfig
from dragoman.model.layer_stack import LayerStack
from dragoman.model.linear import multiply_by
from dragoman.model.moe import Mixture
from dragoman.plan.here import kept_code, step_here
from dragoman.plan.measured import MemoryMeter
from dragoman.plan.replay import RecordedStep
from dragoman.plan.synthetic import batch_for, task_for
from dragoman.plan.training import count_training
from dragoman.plan.training_memory import training_memory
from dragoman.presets import PRESETS
from dragoman.presets.small import gpt2_style, llama_style
from dragoman.presets.translation import rewritten2026, vaswani2017
from dragoman.train.distributed.micro_batch import unsplit
from dragoman.train.loop import LoopProgress, StepRules, train_step
from dragoman.train.optimize import AdamW
from dragoman.train.prediction import update_seconds

MEMORY, TIME = 0.10, 0.20
"""Distances from 1 within which a prediction has held."""
STEPS = 5


@dataclasses.dataclass(frozen=True)
class Row:
    """One model and setting."""

    family: str
    name: str
    vocab: int
    rows: int
    length: int
    precision: str = "float32"
    recompute: bool = False


def model_of(row: Row) -> Any:
    """Return the configuration of the row's model."""
    if row.name in PRESETS:
        return _sized(from_dict(ModelConfig, PRESETS[row.name]()["model"]), row.vocab)
    kind, *numbers = row.name.split("-")
    dim, depth = map(int, numbers)
    heads = max(2, dim // 64)
    made = {
        "today": lambda: rewritten2026(dim=dim, heads=heads, kv_heads=2, hidden=3 * dim, depth=depth),
        "2017": lambda: vaswani2017(dim=dim, heads=heads, hidden=4 * dim, depth=depth),
        "llama": lambda: llama_style(dim=dim, depth=depth, heads=heads, hidden=dim * 11 // 4, dropout=0.1),
        "gpt2": lambda: gpt2_style(dim=dim, depth=depth, heads=heads, length=row.length, dropout=0.1),
        "experts": lambda: _with_experts(rewritten2026(dim=dim, heads=heads, kv_heads=2, hidden=dim, depth=depth)),
        "bert": lambda: _encoder(dim, depth),
    }[kind]()
    return _sized(made, row.vocab)


def _with_experts(model: Any) -> Any:
    def tower(stack: Any) -> Any:
        blocks = (dataclasses.replace(b, mlp=Mixture(expert=b.mlp, experts=4, active=2)) for b in stack.pattern)
        return dataclasses.replace(stack, pattern=tuple(blocks))

    return dataclasses.replace(model, encoder=tower(model.encoder), decoder=tower(model.decoder))


def _encoder(dim: int, depth: int) -> Any:
    plain = PRESETS["encoder-small"]()["model"]
    model = from_dict(ModelConfig, plain)
    (block,) = model.tower.pattern
    heads = max(2, dim // 64)
    block = dataclasses.replace(
        block,
        mixer=dataclasses.replace(block.mixer, heads=heads),
        mlp=dataclasses.replace(block.mlp, hidden=dim * 11 // 4 // 16 * 16),
    )
    return dataclasses.replace(model, dim=dim, tower=dataclasses.replace(model.tower, depth=depth, pattern=(block,)))


def _sized(model: Any, vocab: int) -> Any:
    if isinstance(model, SequenceConfig):
        return model.sized(vocab=vocab, source_vocab=None)
    return dataclasses.replace(model, inputs=dataclasses.replace(model.inputs, vocab=vocab))


def _each(row: Row, *settings: str) -> Iterator[Row]:
    """Yield the row in each setting: f, b for float32 and bfloat16; with r, activation checkpointing."""
    for setting in settings:
        precision = "bfloat16" if setting[0] == "b" else "float32"
        yield dataclasses.replace(row, precision=precision, recompute=setting.endswith("r"))


TRANSLATOR, WRITER, READER, EXPERTS, OTHER = "encoder-decoder", "decoder", "encoder", "experts", "other"
GRID = [
    *_each(Row(TRANSLATOR, "today-96-2", 2000, 64, 16), "f", "b"),
    *_each(Row(TRANSLATOR, "today-128-3", 4000, 64, 16), "f", "b", "fr", "br"),
    *_each(Row(TRANSLATOR, "today-256-4", 8000, 64, 24), "f", "b", "fr", "br"),
    *_each(Row(TRANSLATOR, "today-512-6", 8000, 16, 32), "f", "b", "br"),
    *_each(Row(TRANSLATOR, "today-768-8", 16_000, 8, 32), "f", "b"),
    *_each(Row(TRANSLATOR, "today-1024-9", 16_000, 8, 32), "f", "b", "fr"),
    *_each(Row(TRANSLATOR, "2017-256-3", 8000, 64, 24), "f", "b", "fr"),
    *_each(Row(TRANSLATOR, "2017-512-6", 16_000, 16, 32), "f"),
    *_each(Row(WRITER, "llama-128-4", 2000, 16, 64), "f", "b"),
    *_each(Row(WRITER, "llama-256-6", 8000, 16, 128), "f", "b", "fr", "br"),
    *_each(Row(WRITER, "llama-512-8", 16_000, 4, 256), "f", "b"),
    *_each(Row(WRITER, "llama-1024-12", 16_000, 1, 256), "f", "b"),
    *_each(Row(WRITER, "gpt2-256-6", 8000, 16, 128), "f", "b"),
    *_each(Row(READER, "bert-128-3", 8000, 16, 128), "f", "b"),
    *_each(Row(READER, "bert-256-6", 8000, 16, 128), "f", "b", "fr"),
    *_each(Row(READER, "bert-768-12", 16_000, 2, 128), "f", "b"),
    *_each(Row(EXPERTS, "experts-128-3", 4000, 64, 16), "f", "b"),
    *_each(Row(EXPERTS, "experts-256-4", 8000, 64, 16), "f", "b", "fr"),
    *_each(Row(OTHER, "lstm-luong", 8000, 32, 24), "f"),
    *_each(Row(OTHER, "gru", 8000, 32, 24), "f"),
    *_each(Row(OTHER, "convs2s", 8000, 32, 24), "f"),
    *_each(Row(OTHER, "cnn-9", 8000, 32, 24), "f"),
    *_each(Row(OTHER, "mamba-small", 8000, 8, 128), "f"),
    *_each(Row(OTHER, "mamba2-small", 8000, 8, 128), "f"),
]
SMOKE = [*_each(Row(TRANSLATOR, "today-64-1", 200, 4, 8), "b"), *_each(Row(WRITER, "llama-64-1", 200, 2, 8), "fr")]


def built(row: Row, device: str) -> Any:
    """Return the row's model on a device, set as a run sets it."""
    with torch.device(device):
        model = model_of(row).build().train()
    multiply_by(model, products(row.precision))
    for module in model.modules():
        if isinstance(module, LayerStack):
            module.recompute = row.recompute
    return model


def products(precision: str) -> Any:
    """Return the library that multiplies: oneDNN's float32, as `auto` chooses on this machine."""
    return "onednn" if precision == "float32" and torch.backends.mkldnn.is_available() else "torch"


def predict(row: Row) -> dict[str, float]:
    """In this process: predict the row."""
    keep_memory()
    model, optimizer = model_of(row), AdamW()
    task = task_for(model)
    batch = batch_for(model, task, rows=row.rows, length=row.length).content
    recording, began = RecordedStep.empty(), time.process_time()
    counted = count_training(
        built(row, "meta"),
        task.loss,
        [batch],
        precision=getattr(torch, row.precision),
        optimizer=optimizer.build,
        observe=recording.observe,
    )
    precision: Any = row.precision
    step = step_here(recording, precision, within=10.0)
    return {
        "memory": training_memory(counted).total + kept_code(recording, precision, 0),
        "seconds": step.seconds + update_seconds(counted, averaged=False),
        "planning": time.process_time() - began,
    }


def train(row: Row) -> dict[str, float]:
    """In this process: train the row. A step of a small model before imports what only a step imports."""
    keep_memory()
    small = dataclasses.replace(SMOKE[0], precision=row.precision, recompute=row.recompute)
    _train(small)
    return_memory()
    meter = MemoryMeter()
    parameters, seconds = _train(row)
    return {"parameters": parameters, "memory_measured": meter.peak() or 0, "seconds_measured": seconds}


def _train(row: Row) -> tuple[int, float]:
    """Train a row; return its parameters and the seconds of a step."""
    torch.manual_seed(1)
    model, optimizer = model_of(row), AdamW()
    task, trained = task_for(model), built(row, "cpu")
    batch = batch_for(model, task, rows=row.rows, length=row.length).content
    updates, progress, times = optimizer.build(trained), LoopProgress(), list[float]()
    precision: Any = row.precision
    rules = StepRules(seed=1, precision=autocast(precision, torch.device("cpu")))
    for _ in range(STEPS):
        start = time.thread_time()
        train_step(trained, task.loss, unsplit([batch]), updates, progress, lr=1e-4, rules=rules)
        times.append(time.thread_time() - start)
    return sum(p.numel() for p in trained.parameters()), statistics.median(times[1:])


def in_processes(row: Row, *, smoke: bool) -> dict[str, float]:
    """Predict and train the row, each in a process of its own."""
    found: dict[str, float] = {}
    for what in ("--predict", "--train"):
        command = [sys.executable, __file__, what, json.dumps(dataclasses.asdict(row))]
        found |= json.loads(output_of(command, smoke=smoke).splitlines()[-1])
    return found


def line(row: Row, found: dict[str, float]) -> str:
    """Return a row of the table."""
    memory, seconds = found["memory"] / found["memory_measured"], found["seconds"] / found["seconds_measured"]
    setting = f"{row.precision}{', checkpointing' if row.recompute else ''}"
    return (
        f"| {row.family} | {row.name} | {found['parameters'] / 1e6:.1f} | {setting} | {row.rows} x {row.length} "
        f"| {found['memory'] / 1e6:,.0f} | {found['memory_measured'] / 1e6:,.0f} | {memory:.2f} "
        f"| {1e3 * found['seconds']:,.0f} | {1e3 * found['seconds_measured']:,.0f} | {seconds:.2f} |"
    )


COLUMNS = ("family", "model", "M parameters", "setting", "rows x tokens", *("MB predicted", "measured", "ratio"))
COLUMNS += ("ms predicted", "measured", "ratio")
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def report(rows: list[Row], found: list[dict[str, float]]) -> str:
    """Return the page."""
    held = [abs(f["memory"] / f["memory_measured"] - 1) <= MEMORY for f in found]
    on_time = [abs(f["seconds"] / f["seconds_measured"] - 1) <= TIME for f in found]
    planning = statistics.median(f["planning"] for f in found)
    table = "\n".join(line(row, f) for row, f in zip(rows, found, strict=True))
    return f"""# Predicted against measured

{date.today()}, {processor()}, one thread, load {os.getloadavg()[0]:.1f} at the end, torch {torch.__version__}.
`python benchmarks/plan.py` repeats it. Each row is predicted in one process and trained in another. How long
small objects live in the heap (two numbers in `plan/heap.py`) was chosen by such rows; nothing else of the prediction
is fitted.

- memory within {MEMORY:.0%}: **{sum(held)} of {len(held)}**
- time within {TIME:.0%}: **{sum(on_time)} of {len(on_time)}**
- predicting one took {planning:.1f} processor seconds (median)

{HEAD}
{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predict", help="a row as JSON, to be predicted in this process")
    parser.add_argument("--train", help="a row as JSON, to be trained in this process")
    parser.add_argument("--part", type=int, default=1, help="measure every so many rows only, and write nothing")
    parser.add_argument("--only", default="", help="measure rows with this text in them only, and write nothing")
    add_smoke(parser)
    args = parser.parse_args()
    for given, what in ((args.predict, predict), (args.train, train)):
        if given:
            print(json.dumps(what(Row(**json.loads(given)))))
            return
    rows = [row for row in (SMOKE if args.smoke else GRID)[:: args.part] if args.only in str(row)]
    found = []
    print(HEAD, flush=True)
    for row in rows:
        found.append(in_processes(row, smoke=args.smoke))
        print(line(row, found[-1]), flush=True)
    page = report(rows, found)
    if args.part == 1 and not args.only:
        write_results("plan.md", page, smoke=args.smoke)
    else:
        print(page.split("| family")[0])


if __name__ == "__main__":
    main()
