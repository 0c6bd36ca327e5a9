"""Training speed of recurrent translators beside plain loops over ``torch.nn.LSTM``, in one interleaved run.

    OMP_NUM_THREADS=1 python benchmarks/recurrent.py [--rounds 9]

Two-layer LSTMs of width 256 (encoder two-way, 128 channels each way), vocabulary 8,000 with tied embeddings, dropout
0.2, label smoothing 0.1, on sentences as short and as uneven as image captions, in the batches that ``dragoman train``
makes of them. Forward and backward pass in target tokens per CPU second, medians over the rounds; one step of each
contestant follows one of the next. The plain loops have the same layers and sizes, and are what a user of PyTorch
writes: ``nn.LSTM`` over padded batches, ``nn.LSTMCell`` where a step needs the last one's attention, and
``F.cross_entropy`` of all logits. In float32, and in bfloat16 by autocast.

Then decoding: seconds of a step at batch 1, after 50 tokens and after 4,000: a state does not grow.

Expected: at least 0.95 of the plain loop's speed for each, and a step whose cost is flat.

Writes ``results/recurrent.md``.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import torch
import torch.nn.functional as F
from processor import add_precisions
from smoke import add_smoke, write_results
from torch import Tensor, nn
from train_speed import Setting, captions

from dragoman.data.batch import PairBatch
from dragoman.data.tasks import TranslationTask
from dragoman.machine import Precision, autocast, choose_products, keep_memory
from dragoman.model.linear import multiply_by
from dragoman.model.recurrent.bridge import ProjectOutputs
from dragoman.model.recurrent.cells import Lstm
from dragoman.model.recurrent.model import RecurrentConfig
from dragoman.model.recurrent.source_attention import Bahdanau, Luong, NoSourceAttention
from dragoman.model.recurrent.stack import BidirectionalLayers, RecurrentStackConfig

CPU = torch.device("cpu")
CAPTIONS = Setting("captions", 2, 256, 128, 0, 8000, dropout=0.2, tokens=2048)
TOY = Setting("toy", 2, 32, 16, 0, 100, dropout=0.2, tokens=64)
Loss = Callable[[PairBatch], Tensor]
"""Summed over target tokens."""


# ---- contestants: each a model and its loss ---------------------------------------------------------


def ours(s: Setting, attention: Any, precision: Precision) -> tuple[nn.Module, Loss]:
    options: dict[str, Any] = {"cell": Lstm(), "depth": s.depth, "dropout": s.dropout}
    model = RecurrentConfig(
        vocab=s.vocab,
        dim=s.dim,
        encoder=RecurrentStackConfig(direction=BidirectionalLayers(), **options),
        decoder=RecurrentStackConfig(**options),
        attention=attention,
        bridge=ProjectOutputs(),
        dropout=s.dropout,
    ).build()
    multiply_by(model, choose_products("auto", CPU, precision))
    task = TranslationTask(label_smoothing=0.1)
    return model, lambda batch: task.loss(model, batch)[0]


class PlainTranslator(nn.Module):
    """Encoder and decoder by ``nn.LSTM``; subclasses add attention."""

    extra = 0
    """Width of what the decoder reads with each token."""

    def __init__(self, s: Setting) -> None:
        super().__init__()
        D = s.dim
        self.s, self.embed = s, nn.Embedding(s.vocab, D)
        nn.init.normal_(self.embed.weight, std=D**-0.5)
        self.encoder = nn.LSTM(D, D // 2, s.depth, batch_first=True, dropout=s.dropout, bidirectional=True)
        self.bridge = nn.Linear(D, 2 * s.depth * D)
        self.build_decoder(D)

    def build_decoder(self, D: int) -> None:
        self.decoder = nn.LSTM(D, D, self.s.depth, batch_first=True, dropout=self.s.dropout)

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.s.dropout)

    def forward(self, batch: PairBatch) -> Tensor:
        memory, _ = self.encoder(self.drop(self.embed(batch.source)))
        first = self.bridge(memory[:, -1]).view(len(memory), 2, self.s.depth, -1).permute(1, 2, 0, 3).contiguous()
        hidden = self.decode(self.drop(self.embed(batch.target_in)), memory, first, batch.source == 0)
        logits = F.linear(self.drop(hidden), self.embed.weight).float()
        targets = batch.target_out.flatten()
        return F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=0, reduction="sum", label_smoothing=0.1)

    def decode(self, x: Tensor, memory: Tensor, first: Tensor, padding: Tensor) -> Tensor:
        return self.decoder(x, (first[0].to(x.dtype), first[1].to(x.dtype)))[0]


class PlainLuong(PlainTranslator):
    """Attention after all steps, "general"."""

    def build_decoder(self, D: int) -> None:
        super().build_decoder(D)
        self.score, self.readout = nn.Linear(D, D, bias=False), nn.Linear(2 * D, D, bias=False)

    def decode(self, x: Tensor, memory: Tensor, first: Tensor, padding: Tensor) -> Tensor:
        hidden = super().decode(x, memory, first, padding)
        scores = torch.bmm(hidden, self.score(memory).transpose(1, 2)).masked_fill(padding[:, None], -1e4)
        context = torch.bmm(scores.softmax(dim=-1).to(memory.dtype), memory)
        return torch.tanh(self.readout(torch.cat([context, hidden.to(context.dtype)], dim=-1)))


class PlainBahdanau(PlainTranslator):
    """Attention before each step: a loop over cells, then the second layer."""

    def build_decoder(self, D: int) -> None:
        self.cell, self.decoder = nn.LSTMCell(2 * D, D), nn.LSTM(D, D, self.s.depth - 1, batch_first=True)
        self.q, self.k, self.v = nn.Linear(D, D, bias=False), nn.Linear(D, D), nn.Linear(D, 1, bias=False)
        self.readout = nn.Linear(3 * D, D)

    def decode(self, x: Tensor, memory: Tensor, first: Tensor, padding: Tensor) -> Tensor:
        keys, (h, c), outputs, contexts = self.k(memory), first[:, 0].to(x.dtype), [], []
        for t in range(x.shape[1]):
            scores = self.v(torch.tanh(self.q(h)[:, None] + keys)).squeeze(-1).masked_fill(padding, -1e4)
            context = torch.bmm(scores.softmax(dim=-1)[:, None].to(memory.dtype), memory)[:, 0]
            h, c = self.cell(torch.cat([x[:, t], context], dim=-1), (h, c))
            outputs.append(h)
            contexts.append(context)
        below, context = torch.stack(outputs, dim=1), torch.stack(contexts, dim=1)
        upper = tuple(part[1:].contiguous().to(below.dtype) for part in first)
        hidden, _ = self.decoder(self.drop(below), upper)
        return torch.tanh(self.readout(torch.cat([hidden, context, x], dim=-1)))


KINDS: dict[str, tuple[Any, type[PlainTranslator]]] = {
    "no attention": (NoSourceAttention(), PlainTranslator),
    "Luong, no feeding": (Luong(input_feeding=False), PlainLuong),
    "Bahdanau": (Bahdanau(), PlainBahdanau),
}

# ---- measuring --------------------------------------------------------------------------------------


def speeds(s: Setting, precision: Precision, rounds: int) -> dict[str, tuple[float, float]]:
    """Return target tokens per CPU second of ours and of the plain loop, for each kind of attention."""
    batches, context = captions(s, rounds + 1), autocast(precision, CPU)
    contestants: dict[str, list[tuple[nn.Module, Loss]]] = {}
    for name, (attention, plain) in KINDS.items():
        torch.manual_seed(1)
        theirs = plain(s)
        contestants[name] = [ours(s, attention, precision), (theirs, theirs)]
    taken: dict[tuple[str, int], list[float]] = {}
    for batch in batches:
        for name, pair in contestants.items():
            for i, (model, loss) in enumerate(pair):
                began = time.process_time()
                model.zero_grad()
                with context():
                    summed = loss(batch)
                summed.backward()
                seconds = time.process_time() - began
                taken.setdefault((name, i), []).append(int((batch.target_out != 0).sum()) / seconds)
    return {name: tuple(statistics.median(taken[name, i][1:]) for i in range(2)) for name in KINDS}  # pyright: ignore[reportReturnType]


def step_seconds(s: Setting, lengths: list[int], steps: int) -> dict[str, list[float]]:
    """Return the median seconds of a step of decoding after so many tokens."""
    found = {}
    for name, (attention, _) in KINDS.items():
        model, source = ours(s, attention, "float32")[0].eval(), torch.full((1, 20), 5)
        state, token, at, medians = model.start(source), torch.full((1, 1), 5), 0, []  # pyright: ignore[reportCallIssue]
        with torch.inference_mode():
            for length in lengths:
                while at < length:
                    model.decode(torch.full((1, min(500, length - at)), 5), state)  # pyright: ignore[reportCallIssue]
                    at += min(500, length - at)
                seconds = []
                for _ in range(steps):
                    began = time.perf_counter()
                    model.decode(token, state)  # pyright: ignore[reportCallIssue]
                    seconds.append(time.perf_counter() - began)
                at += steps
                medians.append(statistics.median(seconds))
        found[name] = medians
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    add_precisions(parser)
    add_smoke(parser)
    given = parser.parse_args()
    s, rounds = (TOY, 1) if given.smoke else (CAPTIONS, given.rounds)
    keep_memory()
    machine = f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"
    lines = [
        "# Recurrent translators beside plain loops over torch.nn.LSTM",
        "",
        f"{date.today()}, {machine}; `python benchmarks/recurrent.py`. {s}; target tokens per CPU second, forward and "
        f"backward, medians of {rounds}.",
        "",
        "| attention | precision | plain loop | ours | ratio |",
        "|---|---|---|---|---|",
    ]
    for precision in given.precisions:
        for name, (mine, plain) in speeds(s, precision, rounds).items():
            lines.append(f"| {name} | {precision} | {plain:,.0f} | {mine:,.0f} | {mine / plain:.2f} |")
    lengths, steps = ([4, 8], 3) if given.smoke else ([50, 500, 4000], 60)
    head = " | ".join(f"after {length:,}" for length in lengths)
    lines += [
        "",
        f"Milliseconds of a step of decoding at batch 1 after so many tokens, float32, medians of {steps}.",
        "",
    ]
    lines += [f"| attention | {head} |", "|---" * (1 + len(lengths)) + "|"]
    for name, medians in step_seconds(s, lengths, steps).items():
        lines.append(f"| {name} | " + " | ".join(f"{1000 * seconds:.2f}" for seconds in medians) + " |")
    text = "\n".join(lines)
    print(text)
    write_results("recurrent.md", text, smoke=given.smoke)


if __name__ == "__main__":
    main()
