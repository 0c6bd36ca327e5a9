"""Training a language model beside Hugging Face transformers, on the same rows, in one interleaved run.

    OMP_NUM_THREADS=1 python benchmarks/lm_train.py [--rounds 5] [--precisions float32 bfloat16]

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
from dataclasses import dataclass, replace
from datetime import date

import torch
from processor import add_precisions, processor
from smoke import add_smoke, write_results
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from where import time_of_training

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

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    depth: int = 6
    dim: int = 384
    heads: int = 6
    hidden: int = 1024
    vocab: int = 8000
    rows: int = 16
    context: int = 256

    @property
    def task(self) -> LanguageModellingTask:
        return LanguageModellingTask(context=self.context)


TOY = Setting(depth=1, dim=32, heads=4, hidden=64, vocab=100, rows=2, context=16)


def batch(s: Setting, seed: int, documents: int) -> TextBatch:
    ids = torch.randint(3, s.vocab, (s.rows, s.context + 1), generator=torch.Generator().manual_seed(seed))
    segment = (torch.arange(s.context) * documents // s.context).expand(s.rows, -1) if documents > 1 else None
    return TextBatch(ids[:, :-1], ids[:, 1:].contiguous(), segment)


def ours(s: Setting) -> Transformer:
    mlp, position = Gated(hidden=s.hidden), Rotary()
    cfg = llama(
        dim=s.dim, depth=s.depth, heads=s.heads, kv_heads=s.heads, mlp=mlp, position=position, tied=True, eps=1e-6
    )
    return replace(cfg, vocab=s.vocab).build()


class Ours:
    def __init__(self, s: Setting, precision: str, documents: int = 1):
        torch.manual_seed(1)
        self.setting, self.model, self.documents = s, ours(s).train(), documents
        multiply_by(self.model, choose_products("auto", CPU, precision))
        self.optimizer, self.progress = AdamW().build(self.model), loop.LoopProgress()
        self.rules = loop.StepRules(seed=1, precision=autocast(precision, CPU))
        self.speeds: list[float] = []

    def learn(self, seed: int) -> float:
        parts = unsplit([batch(self.setting, seed, self.documents)])
        return loop.train_step(
            self.model, self.setting.task.loss, parts, self.optimizer, self.progress, lr=3e-4, rules=self.rules
        ).loss


class HuggingFace:
    def __init__(self, s: Setting, precision: str):
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(1)
        shape = LlamaConfig(
            vocab_size=s.vocab, hidden_size=s.dim, intermediate_size=s.hidden, num_hidden_layers=s.depth,
            num_attention_heads=s.heads, num_key_value_heads=s.heads, max_position_embeddings=s.context,
            tie_word_embeddings=True, use_cache=False,
        )  # fmt: skip
        self.setting = s
        self.model = LlamaForCausalLM(shape).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, betas=(0.9, 0.98), fused=True)
        self.precision, self.speeds = autocast(precision, CPU), list[float]()

    def learn(self, seed: int) -> float:
        given = batch(self.setting, seed, 1)
        with self.precision():
            logits: Tensor = self.model(input_ids=given.ids).logits
            loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), given.targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def flops(s: Setting) -> int:
    given = batch(s, 1, 1)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        s.task.loss(ours(s), TextBatch(given.ids.to("meta"), given.targets.to("meta"), None))[0].backward()
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    add_precisions(parser)
    add_smoke(parser)
    given = parser.parse_args()
    s, rounds = (TOY, 1) if given.smoke else (Setting(), given.rounds)
    keep_memory()  # for everyone: a setting of the process
    field = {
        (name, precision): build(s, precision)
        for precision in given.precisions
        for name, build in (
            ("dragoman", Ours),
            ("dragoman, five documents a row kept apart", lambda s, precision: Ours(s, precision, documents=5)),
            ("Hugging Face LlamaForCausalLM", HuggingFace),
        )
    }
    losses = {}
    for i in range(rounds + 1):
        for entry, racer in field.items():
            began = time.process_time()
            losses[entry] = racer.learn(i)
            if i:
                racer.speeds.append(s.rows * s.context / (time.process_time() - began))
    lines = [
        "# Training a language model",
        "",
        f"{s.depth} layers, width {s.dim}, {s.heads} heads, SwiGLU {s.hidden:,}, vocabulary {s.vocab:,}; {s.rows} rows "
        f"of {s.context} tokens a step; medians of {rounds} interleaved steps.",
        "",
        f"{date.today()}; {processor()}, {torch.get_num_threads()} thread(s), "
        f"Python {platform.python_version()}, torch {torch.__version__}.",
        "",
        "| library | precision | tokens per CPU second | of Hugging Face | MFU | last loss |",
        "|---|---|---:|---:|---:|---:|",
    ]
    work = flops(s) / (s.rows * s.context)
    for (name, precision), racer in field.items():
        speed = statistics.median(racer.speeds)
        theirs = statistics.median(field["Hugging Face LlamaForCausalLM", precision].speeds)
        best = peak(precision, choose_products("auto", CPU, precision), CPU)
        share = f"{100 * speed * work / best:.0f}%"
        loss = losses[name, precision]
        lines.append(f"| {name} | {precision} | {speed:,.0f} | {speed / theirs:.2f} | {share} | {loss:.2f} |")
    racer = field["dragoman", last := given.precisions[-1]]
    lines += ["", f"Where the time of a step of ours goes, in {last}, by PyTorch's profiler:", ""]
    lines += time_of_training(lambda: racer.learn(0))
    text = "\n".join([*lines, ""])
    print(text)
    write_results("lm_train.md", text, smoke=given.smoke)


if __name__ == "__main__":
    main()
