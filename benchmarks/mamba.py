"""Training and decoding Mamba and Mamba-2 beside transformers' PyTorch path, in one interleaved run.

    OMP_NUM_THREADS=1 python benchmarks/mamba.py [--rounds 5]

Both libraries hold the same model: 4 layers of width 256 (for decoding 11, as the preset mamba-small has), the papers'
settings (16 or 64 states, expansion 2), tied embeddings of 8,000 tokens.

Training: a step of AdamW with clipped gradients on 8 rows of 256 tokens, in float32; ours also without its kernel.
Decoding: greedy steps after a prompt of 16 tokens, with the model as each library prepares it, in float32; for 1 and
for 64 rows. transformers has kernels for GPUs alone, and runs this path wherever these are missing.

Then the cost of one decoding step after 50 to 4,000 tokens.

Medians of CPU time. Expected: at least 3 times transformers in training and in decoding, and a step whose cost does not
depend on the length.

Writes ``results/mamba.md`` beside this file.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import date
from typing import Any
from unittest.mock import patch

import torch
from processor import processor
from smoke import add_smoke, write_results
from torch import Tensor, nn

from dragoman.data.packing import TextBatch
from dragoman.data.tasks import LanguageModellingTask
from dragoman.decode.precision import prepare_for_inference
from dragoman.machine import autocast, choose_products, keep_memory
from dragoman.model.linear import multiply_by
from dragoman.model.mamba import Mamba
from dragoman.model.mamba2 import Mamba2
from dragoman.model.ops import native_scan
from dragoman.model.transformer import Transformer
from dragoman.presets.state_space import state_space
from dragoman.train import loop
from dragoman.train.distributed.micro_batch import unsplit
from dragoman.train.optimize import AdamW

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    depth: int = 4
    deep: int = 11
    """Layers of the model that decodes."""
    dim: int = 256
    vocab: int = 8000
    rows: int = 8
    context: int = 256
    steps: int = 32
    prompt: int = 16
    batches: tuple[int, ...] = (1, 64)
    lengths: tuple[int, ...] = (50, 500, 2000, 4000)


TOY = Setting(
    depth=1, deep=1, dim=32, vocab=100, rows=2, context=16, steps=2, prompt=4, batches=(1, 2), lengths=(5, 10)
)


def batch(s: Setting, seed: int) -> TextBatch:
    ids = torch.randint(3, s.vocab, (s.rows, s.context + 1), generator=torch.Generator().manual_seed(seed))
    return TextBatch(ids[:, :-1], ids[:, 1:].contiguous(), None)


def ours(s: Setting, kind: str) -> Transformer:
    mixer = Mamba() if kind == "Mamba" else Mamba2(state=64)
    return replace(state_space(mixer, dim=s.dim, depth=s.depth), vocab=s.vocab).build()


def theirs(s: Setting, kind: str) -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    shape: dict[str, Any] = {
        "vocab_size": s.vocab,
        "hidden_size": s.dim,
        "num_hidden_layers": s.depth,
        "tie_word_embeddings": True,
    }
    if kind == "Mamba":
        return transformers.MambaForCausalLM(transformers.MambaConfig(**shape))
    heads: dict[str, Any] = {"num_heads": 2 * s.dim // 64, "n_groups": 1, "state_size": 64}
    return transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**shape, **heads))


@contextmanager
def without_kernels() -> Iterator[None]:
    with patch.object(native_scan, "supports_scan", lambda *given: False):
        yield


# ---- training ---------------------------------------------------------------------------------------


class Ours:
    def __init__(self, s: Setting, kind: str, around: Callable[[], Any]):
        torch.manual_seed(1)
        self.setting, self.model, self.around = s, ours(s, kind).train(), around
        multiply_by(self.model, choose_products("auto", CPU, "float32"))
        self.task = LanguageModellingTask(context=s.context)
        self.optimizer, self.progress = AdamW().build(self.model), loop.LoopProgress()
        self.rules, self.seconds = loop.StepRules(seed=1, precision=autocast("float32", CPU)), list[float]()

    def learn(self, seed: int) -> None:
        parts = unsplit([batch(self.setting, seed)])
        with self.around():
            loop.train_step(self.model, self.task.loss, parts, self.optimizer, self.progress, lr=3e-4, rules=self.rules)


class Theirs:
    def __init__(self, s: Setting, kind: str):
        torch.manual_seed(1)
        self.setting, self.model = s, theirs(s, kind).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, fused=True)
        self.seconds = list[float]()

    def learn(self, seed: int) -> None:
        given = batch(self.setting, seed)
        logits: Tensor = self.model(input_ids=given.ids).logits
        nn.functional.cross_entropy(logits.flatten(0, 1), given.targets.flatten()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def train(s: Setting, rounds: int) -> list[tuple[str, str, float]]:
    """Return model, library and tokens per second of CPU time."""
    field: dict[tuple[str, str], Any] = {}
    for kind in ("Mamba", "Mamba-2"):
        field[kind, "dragoman"] = Ours(s, kind, nullcontext)
        if kind == "Mamba":
            field[kind, "dragoman, by PyTorch alone"] = Ours(s, kind, without_kernels)
        field[kind, "transformers"] = Theirs(s, kind)
    for i in range(rounds + 1):
        for racer in field.values():
            began = time.process_time()
            racer.learn(i)
            if i:
                racer.seconds.append(time.process_time() - began)
    size = s.rows * s.context
    return [(*entry, size / statistics.median(racer.seconds)) for entry, racer in field.items()]


# ---- decoding ---------------------------------------------------------------------------------------


@torch.inference_mode()
def decode_ours(model: Transformer, s: Setting, rows: int) -> float:
    """Return the seconds of a step."""
    prompt = batch(replace(s, rows=rows, context=s.prompt), 0).ids
    state = model.start(None)
    token = model.decode(prompt, state)[:, -1:].argmax(-1)
    began = time.process_time()
    for _ in range(s.steps):
        token = model.decode(token, state)[:, -1:].argmax(-1)
    return (time.process_time() - began) / s.steps


@torch.inference_mode()
def decode_theirs(model: Any, s: Setting, rows: int) -> float:
    prompt = batch(replace(s, rows=rows, context=s.prompt), 0).ids
    reply = model(input_ids=prompt, use_cache=True)
    token, cache = reply.logits[:, -1:].argmax(-1), reply.cache
    began = time.process_time()
    for _ in range(s.steps):
        token = model(input_ids=token, cache=cache, use_cache=True).logits[:, -1:].argmax(-1)
    return (time.process_time() - began) / s.steps


def decode(s: Setting, rounds: int) -> list[tuple[str, str, int, float]]:
    """Return model, library, rows and seconds of a step."""
    s, found = replace(s, depth=s.deep), []
    for kind in ("Mamba", "Mamba-2"):
        mine, others = prepare_for_inference(ours(s, kind), "cpu", "float32"), theirs(s, kind).eval()
        for rows in s.batches:
            pairs = [(decode_ours(mine, s, rows), decode_theirs(others, s, rows)) for _ in range(rounds + 1)][1:]
            for name, seconds in zip(("dragoman", "transformers"), zip(*pairs, strict=True), strict=True):
                found.append((kind, name, rows, statistics.median(seconds)))
    return found


@torch.inference_mode()
def growth(s: Setting, rounds: int) -> list[tuple[str, int, float]]:
    """Return model, length and seconds of a step after so many tokens."""
    s, found = replace(s, depth=s.deep), []
    for kind in ("Mamba", "Mamba-2"):
        model = prepare_for_inference(ours(s, kind), "cpu", "float32")
        for length in s.lengths:
            seconds = [decode_ours(model, replace(s, prompt=length), 1) for _ in range(rounds)]
            found.append((kind, length, statistics.median(seconds)))
    return found


# ---- the table --------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    add_smoke(parser)
    given = parser.parse_args()
    s, rounds = (TOY, 1) if given.smoke else (Setting(), given.rounds)
    keep_memory()  # for everyone: a setting of the process
    lines = [
        "# Mamba and Mamba-2",
        "",
        f"{s.depth} layers ({s.deep} for decoding), width {s.dim}, vocabulary {s.vocab:,}, float32; medians "
        f"of {rounds} interleaved rounds, in CPU time.",
        "",
        f"{date.today()}; {processor()}, {torch.get_num_threads()} thread(s), "
        f"Python {platform.python_version()}, torch {torch.__version__}.",
        "",
        f"Training: {s.rows} rows of {s.context} tokens a step.",
        "",
        "| model | library | tokens per second | of transformers |",
        "|---|---|---:|---:|",
    ]
    speeds = train(s, rounds)
    base = {kind: speed for kind, library, speed in speeds if library == "transformers"}
    lines += [f"| {kind} | {name} | {speed:,.0f} | {speed / base[kind]:.1f} |" for kind, name, speed in speeds]
    lines += ["", "Decoding: one token for every row.", ""]
    lines += ["| model | library | rows | ms a step | of transformers |", "|---|---|---:|---:|---:|"]
    steps = decode(s, rounds)
    slow = {(kind, rows): seconds for kind, name, rows, seconds in steps if name == "transformers"}
    lines += [
        f"| {kind} | {name} | {rows} | {1000 * seconds:.2f} | {slow[kind, rows] / seconds:.1f} |"
        for kind, name, rows, seconds in steps
    ]
    lines += ["", "A decoding step of one row after some tokens.", "", "| model | tokens before | ms a step |"]
    lines += ["|---|---:|---:|"]
    lines += [f"| {kind} | {length:,} | {1000 * seconds:.2f} |" for kind, length, seconds in growth(s, rounds)]
    text = "\n".join([*lines, ""])
    print(text)
    write_results("mamba.md", text, smoke=given.smoke)


if __name__ == "__main__":
    main()
