"""Training speed beside the peers, on the same batches, in one interleaved run.

    OMP_NUM_THREADS=1 python benchmarks/train_speed.py [--rounds 7] [--length 32]

A 3 + 3 layer post-norm encoder-decoder (width 256, feed-forward 1,024, 4 heads, dropout 0.1, one vocabulary of 8,000)
learns from batches of 4,096 target tokens with label smoothing 0.1 and Adam, in float32. One step of each library
follows one of the next, so that a machine that slows down slows all of them; medians over the rounds, in target tokens
per CPU second. The losses after the last step are printed: much unlike, and the work would not have been the same.

Expected: a loss that never stores its logits and dropout from a quarter of the random numbers should give 1.3 times the
best peer.

Writes ``results/train_speed.md`` beside this file.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dragoman.data.batch import Batch
from dragoman.data.tasks import Translation
from dragoman.machine import keep_memory
from dragoman.presets import rewritten2026, vaswani2017

DIM, HIDDEN, HEADS, DEPTH, VOCAB, TOKENS = 256, 1024, 4, 3, 8000, 4096


def batches(length: int, count: int) -> list[Batch]:
    """Sentences of about ``length`` tokens: like lengths together, a few shorter by up to three."""
    draw = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        rows = TOKENS // length
        source, target = (torch.randint(3, VOCAB, (rows, length), generator=draw) for _ in range(2))
        short = torch.randint(0, 4, (2, rows, 1), generator=draw)
        for ids, cut in zip((source, target), short, strict=True):
            ids[torch.arange(length)[None] >= length - cut] = 0
        made.append(Batch(source, torch.cat([torch.ones(rows, 1, dtype=torch.long), target[:, :-1]], dim=1), target))
    return made


# ---- the contestants: each a model and its loss, summed over target tokens ----------------------------


def ours(modern: bool) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    cfg = vaswani2017(dim=DIM, heads=HEADS, hidden=HIDDEN, depth=DEPTH)
    if modern:
        cfg = rewritten2026(dim=DIM, heads=HEADS, kv_heads=2, hidden=768, depth=DEPTH)
    model, task = replace(cfg, vocab=VOCAB).build(), Translation()
    return model, lambda batch: task.loss(model, batch)[0]


class TorchTranslator(nn.Module):
    """torch.nn.Transformer as its documentation uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, DIM)
        nn.init.normal_(self.embed.weight, std=DIM**-0.5)
        self.position = nn.Embedding(512, DIM)
        self.body = nn.Transformer(DIM, HEADS, DEPTH, DEPTH, HIDDEN, 0.1, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        def embedded(ids: Tensor) -> Tensor:
            return F.dropout(self.embed(ids) * DIM**0.5 + self.position.weight[: ids.shape[1]], 0.1)

        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        hidden = self.body(
            embedded(source), embedded(target), tgt_mask=causal, tgt_is_causal=True,
            src_key_padding_mask=source == 0, memory_key_padding_mask=source == 0,
        )  # fmt: skip
        return hidden @ self.embed.weight.T


def torch_transformer() -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    model = TorchTranslator()
    return model, lambda batch: smoothed(model(batch.source, batch.target_in), batch.target_out)


def marian() -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    from transformers import MarianConfig, MarianMTModel

    model = MarianMTModel(
        MarianConfig(
            vocab_size=VOCAB, d_model=DIM, encoder_layers=DEPTH, decoder_layers=DEPTH, encoder_ffn_dim=HIDDEN,
            decoder_ffn_dim=HIDDEN, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, dropout=0.1,
            activation_function="relu", pad_token_id=0, eos_token_id=2, decoder_start_token_id=1, scale_embedding=True,
        )
    )  # fmt: skip

    def loss(batch: Batch) -> Tensor:
        out = model(input_ids=batch.source, attention_mask=batch.source != 0, decoder_input_ids=batch.target_in)
        return smoothed(out.logits, batch.target_out)

    return model, loss


def smoothed(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=0, reduction="sum", label_smoothing=0.1
    )


CONTESTANTS: dict[str, Callable[[], tuple[nn.Module, Callable[[Batch], Tensor]]]] = {
    "dragoman, 2017": lambda: ours(modern=False),
    "dragoman, 2026": lambda: ours(modern=True),
    "torch.nn.Transformer": torch_transformer,
    "Hugging Face Marian": marian,
}


class Contestant:
    def __init__(self, build: Callable[[], tuple[nn.Module, Callable[[Batch], Tensor]]]):
        torch.manual_seed(1)
        self.model, self.loss = build()
        self.model.train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-4, betas=(0.9, 0.98), eps=1e-9, fused=True)
        self.speeds: list[float] = []
        self.last = 0.0

    def step(self, batch: Batch, *, counted: bool) -> None:
        tokens, began = int((batch.target_out != 0).sum()), time.process_time()
        loss = self.loss(batch) / tokens
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.last = loss.item()
        if counted:
            self.speeds.append(tokens / (time.process_time() - began))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--length", type=int, default=32)
    arguments = parser.parse_args()
    keep_memory()  # for everyone: a setting of the process
    contestants = {name: Contestant(build) for name, build in CONTESTANTS.items()}
    for i, batch in enumerate(batches(arguments.length, arguments.rounds + 1)):
        for contestant in contestants.values():
            contestant.step(batch, counted=i > 0)
    speed = {name: statistics.median(c.speeds) for name, c in contestants.items()}
    best_peer = max(v for name, v in speed.items() if not name.startswith("dragoman"))
    lines = [
        "# Training speed",
        "",
        f"{DEPTH} + {DEPTH} layers, width {DIM}, feed-forward {HIDDEN} (2026: SwiGLU, 768), {HEADS} heads, "
        f"vocabulary {VOCAB:,}; batches of {TOKENS:,} target tokens, {arguments.length} a sentence; float32; "
        f"median of {arguments.rounds} interleaved steps.",
        "",
        f"{date.today()}; {platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s), "
        f"Python {platform.python_version()}, torch {torch.__version__}.",
        "",
        "| library | target tokens per CPU second | of the best peer | lowest to highest step | last loss |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, c in contestants.items():
        spread = f"{min(c.speeds):,.0f} to {max(c.speeds):,.0f}"
        lines.append(f"| {name} | {speed[name]:,.0f} | {speed[name] / best_peer:.2f} | {spread} | {c.last:.2f} |")
    text = "\n".join([*lines, ""])
    print(text)
    (Path(__file__).parent / "results" / "train_speed.md").write_text(text)


if __name__ == "__main__":
    main()
