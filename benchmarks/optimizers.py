"""AdamW, Muon and Adafactor on the same batches from the same weights: validation loss after steps and CPU seconds.

    OMP_NUM_THREADS=1 python benchmarks/optimizers.py runs/multi30k [--steps 300] [--batch-tokens 1024]

Takes text, tokenizer and model of a run that exists. Every optimizer begins with the same weights and sees the same
batches with the same dropout; its learning rate rises for a tenth of the steps and then falls along a half cosine. Each
is tried with three peaks. One step of each follows one of the next, so that a machine that slows
down slows all of them. CPU seconds are those of learning alone.

Expected: Muon needs fewer steps than AdamW for the same loss, at a few percent more time a step (its matrix products
are as many as parameters times width, the forward and backward passes' as parameters times tokens); Adafactor, which
remembers a hundredth, needs more.

Writes ``results/optimizers.md`` beside this file.
"""

import argparse
import dataclasses
import platform
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from smoke import add_smoke, run_of, write_results

from dragoman.checkpoint import RunDirectory
from dragoman.config import from_dict
from dragoman.machine import autocast, keep_memory
from dragoman.train.distributed.micro_batch import unsplit
from dragoman.train.loop import LoopProgress, StepRules, train_step
from dragoman.train.optimize import Adafactor, AdamW, Muon, Optimizer, state_tensors
from dragoman.train.recipe import RunConfig
from dragoman.train.schedule import Cosine
from dragoman.train.tasks import task_data_for
from dragoman.train.tasks.translation import TranslationTaskData
from dragoman.train.validate import validate

CONTESTANTS: list[tuple[Optimizer, tuple[float, ...]]] = [
    (AdamW(weight_decay=0.01), (1.5e-3, 3e-3, 6e-3)),
    (Muon(weight_decay=0.01, others=AdamW(weight_decay=0.01)), (5e-3, 1e-2, 3e-2)),
    (Adafactor(), (5e-2, 1e-1, 3e-1)),
]
"""And the peaks they are tried with, chosen after a first run over wider ones."""


class Contestant:
    def __init__(self, cfg: RunConfig, choice: Any, peak: float, steps: int):
        torch.manual_seed(cfg.train.seed)
        self.choice, self.peak, self.model = choice, peak, cfg.model.build()
        self.optimizer, self.progress = choice.build(self.model), LoopProgress()
        self.schedule, self.steps = Cosine(peak=peak, warmup=steps // 10), steps
        self.loss, self.seconds = cfg.task.loss, 0.0
        self.seen: dict[int, tuple[float, float]] = {}

    def step(self, batches: list[Any], rules: StepRules) -> None:
        began, step = time.process_time(), self.progress.step + 1
        lr = self.schedule.rate(step, self.steps)
        train_step(self.model, self.loss, unsplit(batches), self.optimizer, self.progress, lr=lr, rules=rules)
        self.seconds += time.process_time() - began

    @property
    def remembered(self) -> float:
        """Numbers of optimizer state for each weight."""
        state = sum(tensor.numel() for tensor in state_tensors(self.optimizer, self.model).values())
        return state / sum(p.numel() for p in self.model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--every", type=int, default=50)
    add_smoke(parser)
    given = parser.parse_args()
    if given.smoke:
        given.steps, given.every, given.batch_tokens = 2, 1, 100
    with run_of(parser, given) as run:
        text = compare(run, given)
    write_results("optimizers.md", text, smoke=given.smoke)
    print(text)


def compare(run: Path, given: argparse.Namespace) -> str:
    keep_memory()
    directory = RunDirectory.open(run)
    cfg = from_dict(RunConfig, directory.config, where=str(run))
    train = dataclasses.replace(cfg.train, batch_tokens=given.batch_tokens, accumulate=1, samples=0, scored=0)
    cfg = dataclasses.replace(cfg, train=train)
    task_data = task_data_for(cfg).open(cfg, directory)
    assert isinstance(task_data, TranslationTaskData)
    precision = autocast(cfg.train.precision, torch.device("cpu"))
    rules, plan = StepRules(seed=cfg.train.seed, clip=cfg.train.clip, precision=precision), task_data.plan(cfg)
    validator = task_data.validator(cfg, torch.device("cpu"))
    contestants = [Contestant(cfg, choice, peak, given.steps) for choice, peaks in CONTESTANTS for peak in peaks]
    for step in range(1, given.steps + 1):
        batches = [task_data.batch(rows) for rows in plan.at(step - 1)]
        for contestant in contestants:
            contestant.step(batches, rules)
            if step % given.every == 0:
                seen = validate(contestant.model, validator, precision, stop=lambda: False)
                assert seen is not None
                contestant.seen[step] = seen.loss, contestant.seconds
                print(f"{step}  {contestant.choice.kind} {contestant.peak:g}: {seen.loss:.3f}", flush=True)
    return report(contestants, cfg, given)


def report(contestants: list[Contestant], cfg: RunConfig, given: argparse.Namespace) -> str:
    steps = list(contestants[0].seen)
    lines = [
        "# Optimizers beside each other",
        "",
        f"{date.today()}, {platform.machine()} with {torch.get_num_threads()} thread, torch {torch.__version__}, "
        f"{cfg.train.precision}; batches of {given.batch_tokens:,} tokens, model of width {cfg.model.dim} and "
        f"{sum(p.numel() for p in contestants[0].model.parameters()) / 1e6:.1f}M parameters, one seed. "
        "`benchmarks/optimizers.py`.",
        "",
        "Validation loss after so many steps; CPU seconds of learning, of all steps; state for each weight.",
        "",
        f"| optimizer | peak | {' | '.join(f'{step:,}' for step in steps)} | CPU seconds | state |",
        f"|---|---|{'---|' * len(steps)}---|---|",
    ]
    for c in contestants:
        losses = " | ".join(f"{loss:.3f}" for loss, _ in c.seen.values())
        lines.append(f"| {c.choice.kind} | {c.peak:g} | {losses} | {c.seconds:.0f} | {c.remembered:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
