"""How large should a chunk of logits be? ``chunks.CHUNK_BYTES`` and ``KERNEL_CHUNK`` follow from this.

    OMP_NUM_THREADS=1 python benchmarks/loss_chunks.py

Times loss and gradients of 4,096 tokens over a vocabulary of 8,000 (width 256), for chunks from half a megabyte to all
logits at once, beside the plain loss. Prints CPU milliseconds; writes ``results/loss_chunks.md`` beside this file.
"""

import argparse
import time
from collections.abc import Callable
from datetime import date

import torch
from processor import processor
from smoke import add_smoke, write_results

from dragoman.model import chunked_loss as chunks
from dragoman.model import loss

TOKENS, DIM, VOCAB = 4096, 256, 8000


def milliseconds(tokens: int, function: Callable[..., torch.Tensor], dtype: torch.dtype, rounds: int = 3) -> float:
    hidden, weight = torch.randn(tokens, DIM, requires_grad=True), torch.randn(VOCAB, DIM, requires_grad=True)
    targets, times = torch.randint(1, VOCAB, (tokens,)), []
    for _ in range(rounds + 1):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = function(hidden, weight, None, targets, smoothing=0.1)
        torch.autograd.grad(value, (hidden, weight))
        times.append(time.process_time() - start)
    return 1000 * min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_smoke(parser)
    smoke = parser.parse_args().smoke
    tokens = 16 if smoke else TOKENS
    lines = [
        "# Chunks of logits",
        "",
        f"{date.today()}, {processor()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads. CPU ms of loss and gradients: {tokens:,} tokens, {VOCAB:,} entries.",
        "",
        "| chunk | float32 | bfloat16 |",
        "|---|---|---|",
    ]
    for megabytes in (0.5, 1, 2, 4, 8, 16, 32, 128):
        times = []
        for dtype in (torch.float32, torch.bfloat16):
            chunks.CHUNK_BYTES = int(megabytes * 2**20)
            chunks.KERNEL_CHUNK = chunks.CHUNK_BYTES // dtype.itemsize
            times.append(milliseconds(tokens, loss.linear_cross_entropy, dtype))
        lines.append(f"| {megabytes} MB | {times[0]:.0f} | {times[1]:.0f} |")
        print(lines[-1])
    times = [milliseconds(tokens, loss.plain_cross_entropy, dtype) for dtype in (torch.float32, torch.bfloat16)]
    lines.append(f"| plain loss | {times[0]:.0f} | {times[1]:.0f} |")
    print(lines[-1])
    write_results("loss_chunks.md", "\n".join(lines), smoke=smoke)


if __name__ == "__main__":
    main()
