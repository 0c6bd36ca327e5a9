"""Which attention kernel is fastest on this machine: ours, PyTorch's fused one, or the same written out as products?

    OMP_NUM_THREADS=1 python benchmarks/attention_kernels.py

Times an attention layer of width 256 with 4 heads, projections included, on 4,096 tokens cut into texts of 16 to 512:
with each kernel that can, in float32 and under bfloat16 autocast, with and without dropout of weights, learning or not.
Prints CPU milliseconds, and how many times as long PyTorch's takes as the written-out one: above 1 that is faster, and
``attention.explicit_is_faster`` follows from it. Ours, flash, learns in bfloat16 without dropout of weights.

Writes ``results/attention_kernels.md`` beside this file.
"""

import argparse
import time
from collections.abc import Callable
from datetime import date
from itertools import product

import torch
from processor import processor
from smoke import add_smoke, write_results
from torch import Tensor

from dragoman.model import attention as kernels
from dragoman.model.attention import AttentionConfig, AttentionContext
from dragoman.model.caches.state import Stateless
from dragoman.model.masks.visibility import AttentionMask, Causal
from dragoman.model.positions.effect import PositionEffect

TOKENS, WIDTH, HEADS = 4096, 256, 4


def milliseconds(run: Callable[[], object], rounds: int = 5) -> float:
    run()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def measure(tokens: int, length: int, *, precision: torch.dtype, dropout: float, learn: bool) -> dict[str, float]:
    """CPU time with each kernel that can."""
    attention = AttentionConfig(heads=HEADS, visibility=Causal(), dropout=dropout).build(WIDTH).train(learn)
    view = AttentionContext(AttentionMask(causal=True), PositionEffect(), None)
    x, upstream = torch.randn(2, tokens // length, length, WIDTH)
    wanted = [x.requires_grad_(learn), *attention.parameters()]

    def run() -> Tensor | tuple[Tensor, ...]:
        with torch.autocast("cpu", precision, enabled=precision != torch.float32), torch.set_grad_enabled(learn):
            out = attention(x, view, Stateless())
        return torch.autograd.grad(out, wanted, upstream.to(out.dtype)) if learn else out

    able = [kernels.fused, kernels.explicit]
    if learn and not dropout and precision == torch.bfloat16:
        able.append(kernels.flash)
    times = {}
    for kernel in able:
        attention.kernel = lambda *given, chosen=kernel: chosen
        times[kernel.__name__] = milliseconds(run)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_smoke(parser)
    smoke = parser.parse_args().smoke
    tokens, lengths = (32, (8, 16)) if smoke else (TOKENS, (16, 32, 64, 128, 256, 512))
    lines = [
        "# Attention kernels",
        "",
        f"{date.today()}, {processor()}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads. CPU ms of a layer, {tokens:,} tokens.",
        "",
        "| precision | dropout | pass | length | fused | explicit | fused / explicit | flash |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for precision, dropout, learn in product((torch.float32, torch.bfloat16), (0.0, 0.1), (True, False)):
        if dropout and not learn:
            continue
        for length in lengths:
            took = measure(tokens, length, precision=precision, dropout=dropout, learn=learn)
            both = "forward and backward" if learn else "forward"
            row = (
                str(precision)[6:],
                dropout,
                both,
                length,
                f"{took['fused']:.0f}",
                f"{took['explicit']:.0f}",
                f"{took['fused'] / took['explicit']:.2f}",
                f"{took['flash']:.0f}" if "flash" in took else "",
            )
            lines.append(f"| {' | '.join(map(str, row))} |")
            print(lines[-1])
    write_results("attention_kernels.md", "\n".join(lines), smoke=smoke)


if __name__ == "__main__":
    main()
