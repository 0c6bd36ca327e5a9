"""Training a language model beside Hugging Face transformers, on the same rows, in one interleaved run.

    OMP_NUM_THREADS=1 python benchmarks/lm_train.py [--rounds 5]

A LLaMA-shaped decoder (6 layers, width 384, 6 heads, SwiGLU of 1,024, RMSNorm, rotary positions, tied output, 8,000
tokens) learns 16 rows of 256 tokens a step, with AdamW and clipped gradients; in float32, and in bfloat16 by autocast
with weights in float32. transformers has no dropout there and stores its logits. Rows are stretches of text for both;
a further row has ours keep five documents in each row apart, which Hugging Face's model does not.

Medians of tokens per CPU second, and model FLOP utilisation: the products of a step, counted on shapes, of the peak of
this machine in that precision, one large product.

Expected: 1.5 times Hugging Face at equal precision.

Writes ``results/lm_train.md`` beside this file.
"""

import argparse
import platform
import statistics
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dragoman.data.packing import TextBatch
from dragoman.data.tasks import LanguageModellingTask
from dragoman.machine import autocast, choose_products, keep_memory, peak
from dragoman.model.linear import multiply_by
from dragoman.model.mlp import Gated
from dragoman.model.positions.position import Rotary
from dragoman.model.transformer import Transformer
from dragoman.presets.language import llama
from dragoman.train import loop
from dragoman.train.distributed.micro_batch import unsplit
from dragoman.train.optimize import AdamW

DEPTH, DIM, HEADS, HIDDEN, VOCAB, ROWS, CONTEXT = 6, 384, 6, 1024, 8000, 16, 256
CPU, TASK = torch.device("cpu"), LanguageModellingTask(context=CONTEXT)


def batch(seed: int, documents: int) -> TextBatch:
    ids = torch.randint(3, VOCAB, (ROWS, CONTEXT + 1), generator=torch.Generator().manual_seed(seed))
    segment = (torch.arange(CONTEXT) * documents // CONTEXT).expand(ROWS, -1) if documents > 1 else None
    return TextBatch(ids[:, :-1], ids[:, 1:].contiguous(), segment)


def ours() -> Transformer:
    mlp, position = Gated(hidden=HIDDEN), Rotary()
    cfg = llama(dim=DIM, depth=DEPTH, heads=HEADS, kv_heads=HEADS, mlp=mlp, position=position, tied=True, eps=1e-6)
    return replace(cfg, vocab=VOCAB).build()


class Ours:
    def __init__(self, precision: str, documents: int = 1):
        torch.manual_seed(1)
        self.model, self.documents = ours().train(), documents
        multiply_by(self.model, choose_products("auto", CPU, precision))
        self.optimizer, self.progress = AdamW().build(self.model), loop.LoopProgress()
        self.rules = loop.StepRules(seed=1, precision=autocast(precision, CPU))
        self.speeds: list[float] = []

    def learn(self, seed: int) -> float:
        parts = unsplit([batch(seed, self.documents)])
        return loop.train_step(
            self.model, TASK.loss, parts, self.optimizer, self.progress, lr=3e-4, rules=self.rules
        ).loss


class HuggingFace:
    def __init__(self, precision: str):
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(1)
        shape = LlamaConfig(
            vocab_size=VOCAB, hidden_size=DIM, intermediate_size=HIDDEN, num_hidden_layers=DEPTH,
            num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=CONTEXT,
            tie_word_embeddings=True, use_cache=False,
        )  # fmt: skip
        self.model = LlamaForCausalLM(shape).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, betas=(0.9, 0.98), fused=True)
        self.precision, self.speeds = autocast(precision, CPU), list[float]()

    def learn(self, seed: int) -> float:
        given = batch(seed, 1)
        with self.precision():
            logits: Tensor = self.model(input_ids=given.ids).logits
            loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), given.targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def flops() -> int:
    given = batch(1, 1)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        TASK.loss(ours(), TextBatch(given.ids.to("meta"), given.targets.to("meta"), None))[0].backward()
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    keep_memory()  # for everyone: a setting of the process
    field = {
        (name, precision): build(precision)
        for precision in ("float32", "bfloat16")
        for name, build in (
            ("dragoman", Ours),
            ("dragoman, five documents a row kept apart", lambda precision: Ours(precision, documents=5)),
            ("Hugging Face LlamaForCausalLM", HuggingFace),
        )
    }
    losses = {}
    for i in range(rounds + 1):
        for entry, racer in field.items():
            began = time.process_time()
            losses[entry] = racer.learn(i)
            if i:
                racer.speeds.append(ROWS * CONTEXT / (time.process_time() - began))
    lines = [
        "# Training a language model",
        "",
        f"{DEPTH} layers, width {DIM}, {HEADS} heads, SwiGLU {HIDDEN:,}, vocabulary {VOCAB:,}; {ROWS} rows of "
        f"{CONTEXT} tokens a step; medians of {rounds} interleaved steps.",
        "",
        f"{date.today()}; {platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s), "
        f"Python {platform.python_version()}, torch {torch.__version__}.",
        "",
        "| library | precision | tokens per CPU second | of Hugging Face | MFU | last loss |",
        "|---|---|---:|---:|---:|---:|",
    ]
    work = flops() / (ROWS * CONTEXT)
    for (name, precision), racer in field.items():
        speed = statistics.median(racer.speeds)
        theirs = statistics.median(field["Hugging Face LlamaForCausalLM", precision].speeds)
        best = peak(precision, choose_products("auto", CPU, precision), CPU)
        share = f"{100 * speed * work / best:.0f}%"
        loss = losses[name, precision]
        lines.append(f"| {name} | {precision} | {speed:,.0f} | {speed / theirs:.2f} | {share} | {loss:.2f} |")
    text = "\n".join([*lines, ""])
    print(text)
    (Path(__file__).parent / "results" / "lm_train.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
