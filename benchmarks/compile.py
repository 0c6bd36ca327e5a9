"""A training step as one compiled program: what making it takes, and whether it pays on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/compile.py [--rounds 3] [--precision float32]

The 3 + 3 layer encoder-decoder of ``train_speed.py``'s base setting (width 256, feed-forward 1,024, vocabulary 8,000,
dropout 0.1), with ``train.compile`` off and on, in one precision. Steps of 1,024 target tokens of sentences of 8, 16,
24, 32 and 48 tokens, which the program has not seen but for one; a step of one way follows a step of the other. Medians
over rounds in target tokens per CPU second; the losses after the last step should be equal. A second compilation is one
where the compiler finds its files of before.

Expected: some minutes to compile; no gain in float32, where products are most of the step and stay what they are; less
than nothing in bfloat16, where kernels of our own do by hand what the program would.

Writes ``results/compile-PRECISION.md`` beside this file.
"""

import argparse
import statistics
import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import date

import torch
from processor import processor
from smoke import add_smoke, write_results
from torch import nn
from train_speed import BASE, CPU, TOY, Setting, even, ours

from dragoman.data.tasks import TranslationTask
from dragoman.machine import autocast, choose_products, keep_memory
from dragoman.model.linear import multiply_by
from dragoman.train import loop
from dragoman.train.compiling import Compiled, Off, On, Uncompiled
from dragoman.train.distributed.micro_batch import unsplit
from dragoman.train.optimize import Adam

LENGTHS = (8, 16, 24, 32, 48)


class Way:
    """A learner, with its own model."""

    def __init__(self, setting: Setting, loss: Uncompiled, precision: str):
        torch.manual_seed(1)
        self.model: nn.Module = ours(setting)[0]
        multiply_by(self.model, choose_products("auto", CPU, precision))
        self.loss, self.optimizer, self.progress = loss, Adam().build(self.model), loop.LoopProgress()
        self.rules = loop.StepRules(
            seed=1, precision=autocast(precision, CPU) if precision != "float32" else nullcontext
        )
        self.speeds: list[float] = []

    def step(self, batch) -> float:
        began = time.process_time()
        report = loop.train_step(
            self.model, self.loss, unsplit([batch]), self.optimizer, self.progress, lr=3e-4, rules=self.rules
        )
        self.speeds.append(report.tokens / (time.process_time() - began))
        return report.loss


def main(rounds: int, precision: str, *, smoke: bool) -> None:
    keep_memory()
    setting, task = replace(TOY if smoke else BASE, tokens=96 if smoke else 1024), TranslationTask()
    batches = [batch for length in (LENGTHS[:2] if smoke else LENGTHS) for batch in even(setting, 1, length)]
    # at toy size the program is traced and then run by PyTorch: a compiler would take minutes
    program = Compiled(task.loss, backend="aot_eager") if smoke else On().build(task.loss, CPU)
    ways = {
        "off": Way(setting, Off().build(task.loss, CPU), precision),
        "on": Way(setting, program, precision),
    }
    on, seconds = ways["on"], []
    for _ in range(2):
        began = time.perf_counter()
        for event in on.loss.prepare(on.model, batches[3:4], on.rules.precision):
            print(event)
        seconds.append(time.perf_counter() - began)
    losses = {}
    for turn in range(rounds + 1):
        for batch in batches:
            for name, way in ways.items():
                losses[name] = way.step(batch)
        if turn == 0:
            for way in ways.values():
                way.speeds.clear()
    lines = [
        f"# A step as one compiled program, {precision}",
        "",
        f"{setting}; batches of {setting.tokens:,} target tokens, {', '.join(map(str, LENGTHS))} a sentence.",
        f"{date.today()}; {processor()}, torch {torch.__version__}, {torch.get_num_threads()} thread; {rounds} rounds.",
        "",
        "| train.compile | target tokens per CPU second | of off | loss after the last step |",
        "|---|---:|---:|---:|",
    ]
    speeds = {name: statistics.median(way.speeds) for name, way in ways.items()}
    lines += [f"| {name} | {v:,.0f} | {v / speeds['off']:.2f} | {losses[name]:.6f} |" for name, v in speeds.items()]
    lines += [
        "",
        f"Made in {seconds[0]:.0f} s, and again in {seconds[1]:.0f} s with the compiler's files of before; "
        f"{on.loss.missed} of {len(on.speeds) + len(batches)} batches missed.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    write_results(f"compile-{precision}.md", text, smoke=smoke)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    add_smoke(parser)
    given = parser.parse_args()
    main(1 if given.smoke else given.rounds, given.precision, smoke=given.smoke)
