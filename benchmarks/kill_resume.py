"""kill -9 at random moments, resume, compare: is the run that was killed the run that was not?

    python benchmarks/kill_resume.py [--trials 50] [--seed 1]

Each trial trains a small Transformer in a process of its own, which is killed (SIGKILL) several times and resumed each
time until it is done. Half of the kills come after a random time, the other half between or in the middle of the system
calls that change the disk, so that every part of a save is hit. What the run leaves at its end (weights, optimizer,
moving average, progress, metrics, samples) is compared with what the uninterrupted run leaves, to the bit.

Writes ``results/kill_resume.md`` beside this file and exits with 1 if a trial differs.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the processes are forked

import torch
import torch._dynamo  # optimizers import it: once, before the forks
from processor import processor
from smoke import add_smoke, write_results

from dragoman.checkpoint import RunDirectory
from dragoman.train.events import Finished
from dragoman.train.recipe import RunConfig, load
from dragoman.train.run import resume, start

STEPS = 60
TIMES = ("seconds", "seconds_left", "cpu_seconds", "tokens_per_second", "utilisation")
CHANGES = ("open", "write", "fsync", "rename", "symlink", "mkdir", "unlink", "rmdir")
"""System calls of which one may be the last."""

# ---- the run --------------------------------------------------------------------------------------


def write_pairs(path: Path) -> None:
    """Six hundred sentences of up to eight made-up words, and the same with each word backwards."""
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 8))) for _ in range(300)]
    sentences = {" ".join(draw.choices(words, k=draw.randint(1, 8))) for _ in range(600)}
    path.write_text("".join(f"{s}\t{' '.join(w[::-1].upper() for w in s.split())}\n" for s in sorted(sentences)))


def config(pairs: Path, steps: int) -> RunConfig:
    """Accumulates, averages, and validates and saves at unlike times in the middle of epochs of 11 steps."""
    return load(
        {
            "preset": "transformer-tiny",
            "data": {
                "train": [{"kind": "table", "path": str(pairs)}],
                "hold_out": {"test": 10, "valid": 40, "near": None},
            },
            "tokenizer": {"kind": "bpe", "vocab": 400},
            "train": {
                "budget": {"kind": "steps", "steps": steps},
                "schedule": {"warmup": 10},
                "batch_tokens": 400,
                "accumulate": 2,
                "average": 0.95,
                "validate_every": 12,
                "save_every": 5,
                "report_every": 4,
                "keep": {"last": 2, "every": 20},
                "samples": 2,
                "precision": "float32",
                "products": "torch",  # a run killed before its configuration is stored would measure anew
            },
        },
        ["model.dim=32", "model.encoder.depth=1", "model.decoder.depth=1"],
    )


def fingerprint(path: Path) -> dict[str, str]:
    """A hash of each thing that a run leaves, but for what a clock says."""
    run = RunDirectory.open(path)
    content = run.load("last")
    del content.progress["seconds"], content.progress["cpu_seconds"], content.progress["window"]["seconds"]
    parts = {
        part: b"".join(name.encode() + value.numpy().tobytes() for name, value in sorted(named.items()))
        for part, named in content.tensors.items()
    }
    parts["progress"] = json.dumps(content.progress).encode()
    for name in ("metrics", "samples"):
        rows = map(json.loads, (path / f"{name}.jsonl").read_text().splitlines())
        timeless = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
        parts[name] = json.dumps(timeless).encode()
    parts["checkpoints"] = " ".join(c.path.name for c in run.checkpoints()).encode()
    parts["best"] = os.readlink(path / "best").encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}


# ---- killing --------------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(call: int) -> None:
    """Let this process be killed at its ``call``-th change of the disk: before it, or in the middle of a write."""
    made = 0

    def dying(name: str, real):
        def change(*given, **named):
            nonlocal made
            if name != "open" or given[1] & (os.O_WRONLY | os.O_RDWR):
                made += 1
                if made == call:
                    if name == "write":
                        real(given[0], given[1][: len(given[1]) // 2])
                    die()
            return real(*given, **named)

        return change

    for name in CHANGES:
        setattr(os, name, dying(name, getattr(os, name)))


def train(pairs: Path, path: Path, steps: int, call: int | None = None) -> int:
    """Fork a process that begins or resumes the run, to be killed at that change of the disk; its id."""
    child = os.fork()
    if child:
        return child
    try:
        run = resume(path) if (path / "config.yaml").exists() else start(config(pairs, steps), path)
        if call is not None:
            die_at(call)
        finished = [event for event in run.events() if isinstance(event, Finished)]
        os._exit(0 if finished and finished[-1].complete else 3)
    except BaseException:
        traceback.print_exc()
        os._exit(4)


@dataclass
class Trial:
    kills: list[str] = field(default_factory=list)
    """How, and the step of the checkpoint that was left."""
    differs: list[str] = field(default_factory=list)


def attempt(pairs: Path, path: Path, steps: int, draw: random.Random, length: float, expected: dict[str, str]) -> Trial:
    trial, wanted = Trial(), draw.randint(2, 5)
    while True:
        killing = len(trial.kills) < wanted
        by_time = killing and draw.random() < 0.5
        child = train(pairs, path, steps, draw.randint(1, 150) if killing and not by_time else None)
        if by_time:
            time.sleep(draw.uniform(0, 0.7 * length))
            os.kill(child, signal.SIGKILL)  # a zombie, if it is done already
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            trial.kills.append(f"{'time' if by_time else 'disk'} {last_step(path)}")
        elif status:
            trial.differs.append(f"the process ended with {os.waitstatus_to_exitcode(status)}")
            return trial
        else:
            found = fingerprint(path)
            trial.differs += [name for name in expected if found.get(name) != expected[name]]
            return trial


def last_step(path: Path) -> int:
    steps = [int(p.name.removeprefix("step-")) for p in path.glob("checkpoints/step-*")]
    return max(steps, default=0)


# ---- the report -----------------------------------------------------------------------------------


def machine() -> str:
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()}, {versions}"


def report(trials: list[Trial], steps: int, seed: int, minutes: float) -> list[str]:
    kills = [kill for trial in trials for kill in trial.kills]
    how = Counter(kill.split()[0] for kill in kills)
    equal = sum(not trial.differs for trial in trials)
    lines = [
        "# kill -9, resume, compare",
        "",
        f"**{equal} of {len(trials)} runs equal the uninterrupted one to the bit**: weights, optimizer, average, "
        "progress, metrics, samples, the checkpoints that are kept and the best of them.",
        "",
        f"{date.today()}; {machine()}; seed {seed}; {minutes:.0f} minutes.",
        "",
        f"{len(kills)} kills: {how['time']} after a random time, {how['disk']} at a random change of the disk. "
        f"Each run was resumed until its {steps} steps were made.",
        "",
        "| trial | killed by, and the step it fell back to | result |",
        "|---:|---|---|",
    ]
    for number, trial in enumerate(trials, start=1):
        result = "differs: " + ", ".join(trial.differs) if trial.differs else "equal"
        lines.append(f"| {number} | {', '.join(trial.kills)} | {result} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    add_smoke(parser)
    given = parser.parse_args()
    steps, count = (12, 1) if given.smoke else (STEPS, given.trials)
    draw, began, trials = random.Random(given.seed), time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.tsv"
        write_pairs(pairs)
        quick = time.monotonic()
        assert os.waitpid(train(pairs, Path(folder) / "whole", steps), 0)[1] == 0
        length, expected = time.monotonic() - quick, fingerprint(Path(folder) / "whole")
        print(f"the uninterrupted run takes {length:.1f} s")
        for number in range(1, count + 1):
            trial = attempt(pairs, Path(folder) / f"trial-{number}", steps, draw, length, expected)
            trials.append(trial)
            print(f"{number:3}  {', '.join(trial.kills)}  {trial.differs or 'equal'}", flush=True)
    lines = report(trials, steps, given.seed, (time.monotonic() - began) / 60)
    print("\n".join(lines) if given.smoke else lines[2].replace("*", ""))
    write_results("kill_resume.md", "\n".join(lines), smoke=given.smoke)
    return int(any(trial.differs for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
