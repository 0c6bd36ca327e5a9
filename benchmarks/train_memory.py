"""Peak resident memory of training beside the peers, and what takes it.

    OMP_NUM_THREADS=1 python benchmarks/train_memory.py

Three steps of each contestant of ``train_speed.py`` in its base setting, each in a process of its own: the highest
resident size that the system has seen, less that before the model was built. Then the share of each part of ours:
weights, gradients and the optimizer's memory by adding up tensors, what is kept for the backward pass by looking at
every tensor that autograd saves, and one chunk of logits.

Expected: less than the peers by the logits, which are never stored: 4,096 x 8,000 numbers, two or three times.

Writes ``results/train_memory.md`` beside this file.
"""

import argparse
import platform
import resource
import subprocess
import sys
from datetime import date

import torch
from processor import processor
from smoke import add_smoke, write_results
from torch import Tensor
from train_speed import BASE, CONTESTANTS, TOY, Setting, contestant, even

from dragoman.machine import keep_memory
from dragoman.model.chunked_loss import KERNEL_CHUNK

MB = 1e6


def resident() -> float:
    """The highest so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


def one(name: str, precision: str, setting: Setting = BASE) -> float:
    """In this process: what learning takes on top of what was there before."""
    keep_memory()
    batches, before = even(setting, 3), resident()
    racer = contestant(name, setting, precision)
    for batch in batches:
        racer.step(batch, counted=False)
    return resident() - before


def in_a_process(name: str, precision: str) -> float:
    command = [sys.executable, __file__, "--one", name, precision]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def parts(precision: str, setting: Setting) -> dict[str, float]:
    """Of our 2017 model, in MB."""
    racer, saved = contestant("dragoman, 2017", setting, precision), dict[int, int]()
    weights = {p.untyped_storage().data_ptr() for p in racer.model.parameters()}

    def keep(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        racer.step(even(setting, 1)[0], counted=False)
    parameters = sum(p.nbytes for p in racer.model.parameters())
    state = sum(t.nbytes for s in racer.optimizer.state.values() for t in s.values())
    chunk = KERNEL_CHUNK * (2 if precision == "bfloat16" else 4)
    found = {
        "weights": parameters,
        "gradients": parameters,
        "optimizer": state,
        "kept for the backward pass": sum(saved.values()),
    }
    return {name: size / MB for name, size in (found | {"a chunk of logits": chunk}).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, metavar=("LIBRARY", "PRECISION"), help=argparse.SUPPRESS)
    add_smoke(parser)
    given = parser.parse_args()
    if given.one:
        print(one(*given.one))
        return
    setting = TOY if given.smoke else BASE
    lines = [
        "# Memory of training",
        "",
        f"{setting}; batches of {setting.tokens:,} target tokens, 32 a sentence. {date.today()}; "
        f"{processor()}, Python {platform.python_version()}, torch {torch.__version__}.",
        "",
        "| library | float32, MB | bfloat16, MB |",
        "|---|---:|---:|",
    ]
    for name in CONTESTANTS:
        sizes = [
            one(name, precision, setting) if given.smoke else in_a_process(name, precision)
            for precision in ("float32", "bfloat16")
        ]
        lines.append(f"| {name} | {sizes[0]:,.0f} | {sizes[1]:,.0f} |")
        print(lines[-1], flush=True)
    lines += ["", "Of ours, 2017:", "", "| part | float32, MB | bfloat16, MB |", "|---|---:|---:|"]
    exact, rough = parts("float32", setting), parts("bfloat16", setting)
    lines += [f"| {name} | {exact[name]:,.0f} | {rough[name]:,.0f} |" for name in exact]
    text = "\n".join([*lines, ""])
    print(text)
    write_results("train_memory.md", text, smoke=given.smoke)


if __name__ == "__main__":
    main()
