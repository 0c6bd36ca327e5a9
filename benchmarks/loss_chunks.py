"""How large should a chunk of logits be? ``chunks.CHUNK_BYTES`` follows from this.

    OMP_NUM_THREADS=1 python benchmarks/loss_chunks.py

Times loss and gradients of 4,096 tokens over a vocabulary of 8,000 (width 256), for chunks from half a megabyte to all
logits at once, beside the plain loss. Prints CPU milliseconds; writes ``results/loss_chunks.md`` beside this file.
"""

import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

from dragoman.model import chunked_loss as chunks
from dragoman.model import loss

TOKENS, DIM, VOCAB = 4096, 256, 8000


def milliseconds(function: Callable[..., torch.Tensor], dtype: torch.dtype, rounds: int = 3) -> float:
    hidden, weight = torch.randn(TOKENS, DIM, requires_grad=True), torch.randn(VOCAB, DIM, requires_grad=True)
    targets, times = torch.randint(1, VOCAB, (TOKENS,)), []
    for _ in range(rounds + 1):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = function(hidden, weight, None, targets, smoothing=0.1)
        torch.autograd.grad(value, (hidden, weight))
        times.append(time.process_time() - start)
    return 1000 * min(times[1:])


def main() -> None:
    lines = [
        "# Chunks of logits",
        "",
        f"{date.today()}, {platform.processor() or platform.machine()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads. CPU ms of loss and gradients: {TOKENS:,} tokens, {VOCAB:,} entries.",
        "",
        "| chunk | float32 | bfloat16 |",
        "|---|---|---|",
    ]
    for megabytes in (0.5, 1, 2, 4, 8, 16, 32, 128):
        chunks.CHUNK_BYTES = int(megabytes * 2**20)
        times = [milliseconds(loss.linear_cross_entropy, dtype) for dtype in (torch.float32, torch.bfloat16)]
        lines.append(f"| {megabytes} MB | {times[0]:.0f} | {times[1]:.0f} |")
        print(lines[-1])
    times = [milliseconds(loss.plain_cross_entropy, dtype) for dtype in (torch.float32, torch.bfloat16)]
    lines.append(f"| plain loss | {times[0]:.0f} | {times[1]:.0f} |")
    print(lines[-1])
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "loss_chunks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
