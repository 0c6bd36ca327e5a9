"""Predictions for published runs beside what their authors report, with the error of each.

    python benchmarks/plan_published.py

Nothing is trained: models are counted on shapes. Writes ``results/plan_published.md`` beside this file.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from smoke import add_smoke, write_results

from dragoman.config import from_dict
from dragoman.model.families import ModelConfig
from dragoman.plan import envelope
from dragoman.plan.parameters import Parameters, count_parameters
from dragoman.plan.synthetic import batch_for, task_for
from dragoman.plan.training import count_training
from dragoman.presets import PRESETS

A100, H100, TPU_V4, P100 = 312e12, 989e12, 275e12, 9.5e12
"""FLOP/s of a device, dense, in 16 bits; of P100 what the paper of 2017 assumes that it sustains."""
MFU = 0.4
"""One share of the peak for all runs whose report states none."""


@dataclass(frozen=True)
class Row:
    """A figure of a published run."""

    run: str
    figure: str
    published: float
    predicted: float
    how: str

    def cells(self) -> list[str]:
        error = self.predicted / self.published - 1
        return [self.run, self.figure, f"{self.published:.4g}", f"{self.predicted:.4g}", f"{error:+.1%}", self.how]


def outline(name: str, vocab: int | None = None):
    plain = PRESETS[name]()
    cfg = from_dict(ModelConfig, plain["model"]).sized(vocab=vocab or plain["tokenizer"]["vocab"])
    with torch.device("meta"):
        return cfg, cfg.build()


@cache
def parameters(name: str) -> Parameters:
    return count_parameters(outline(name)[1])


def flops_of_a_token(name: str, length: int) -> float:
    """FLOPs of learning from a token, counted on one text of that length."""
    cfg, model = outline(name)
    task = task_for(cfg)
    batch = batch_for(cfg, task, rows=1, length=length)
    found = count_training(model, task.loss, [batch.content], device=torch.device("cuda"))
    return found.counted.learned_flops / length


def six(name: str, tokens: float) -> float:
    return envelope.training_flops(parameters(name).active, tokens)


def hours(flops: float, peak: float, mfu: float = MFU) -> float:
    return envelope.seconds(flops, speed=peak, mfu=mfu) / 3600


def rows() -> Iterator[Row]:
    million, billion = 1e6, 1e9
    yield Row("GPT-3 175B", "parameters, billions", 174.6, parameters("gpt3-175b").total / billion, "counted")
    yield Row("GPT-3 175B", "FLOPs of training", 3.14e23, six("gpt3-175b", 300e9), "6 N D, 300 billion tokens")
    counted = flops_of_a_token("gpt3-175b", 2048)
    yield Row("GPT-3 175B", "FLOPs of training", 3.14e23, counted * 300e9, "counted, attention included")
    for size, billions, reported in (("7b", 6.74, 184_320), ("13b", 13.02, 368_640), ("70b", 68.98, 1_720_320)):
        name, title = f"llama-2-{size}", f"Llama 2 {size.upper()}"
        yield Row(title, "parameters, billions", billions, parameters(name).total / billion, "counted")
        found = hours(six(name, 2e12), A100)
        yield Row(title, "A100 hours", reported, found, f"6 N D, 2 trillion tokens at {MFU:.0%}")
    yield Row("Llama 3 405B", "FLOPs of training", 3.8e25, six("llama-3-405b", 15.6e12), "6 N D, 15.6 trillion tokens")
    for size, reported, tokens in (("8b", 1.46e6, 15e12), ("70b", 7.0e6, 15e12), ("405b", 30.84e6, 15.6e12)):
        name = f"llama-3-{size}"
        found = hours(six(name, tokens), H100)
        how = f"6 N D, {tokens / 1e12:g} trillion tokens at {MFU:.0%}"
        yield Row(f"Llama 3.1 {size.upper()}", "H100 hours, millions", reported / million, found / million, how)
    yield Row("Chinchilla 70B", "FLOPs of training", 5.76e23, envelope.training_flops(70_000_000_000, 1.4e12), "6 N D")
    found = six("chinchilla", 1.4e12)
    yield Row("Chinchilla 70B", "FLOPs of training", 5.76e23, found, "6 N D, preset without relative positions")
    yield Row("PaLM 540B", "parameters, billions", 540.35, parameters("palm").total / billion, "counted")
    each = envelope.palm_flops_per_token(parameters("palm").total, layers=118, heads=48, channels=256, length=2048)
    found = 238_300 * each / (6144 * TPU_V4)
    yield Row("PaLM 540B", "MFU", 0.462, found, "6 N + 12 L H C T, 238,300 tokens/s on 6,144 TPU v4")
    yield Row("PaLM 540B", "FLOPs of training", 2.527e24, six("palm", 780e9), "6 N D, 780 billion tokens")
    yield from torchtitan()
    yield from vaswani()


def torchtitan() -> Iterator[Row]:
    """benchmarks/llama3_h100_202412_torchtitan.md of pytorch/torchtitan: FSDP on 8 H100, 2 texts of 8,192 tokens each,
    without torch.compile."""
    found = parameters("llama-3-8b")
    looked_up = found.by_part["embedding"]
    each = envelope.palm_flops_per_token(found.total - looked_up, layers=32, heads=32, channels=128, length=8192)
    yield Row("torchtitan, Llama 3.1 8B", "MFU", 0.33, 5762 * each / H100, "6 N + 12 L H C T, N without the embedding")
    counted = flops_of_a_token("llama-3-8b", 8192)
    yield Row(
        "torchtitan, Llama 3.1 8B", "FLOPs of a token", each, counted, "counted; their formula is the published one"
    )


def vaswani() -> Iterator[Row]:
    """Table 2 and section 5.2 of arXiv:1706.03762: 25,000 tokens a side and step; its FLOPs are time x 8 x 9.5e12, so
    the second row of each says which share of that the products were."""
    for size, steps, flops, days in (("base", 100_000, 3.3e18, 0.5), ("big", 300_000, 2.3e19, 3.5)):
        name = f"transformer-{size}"
        yield Row(f"Transformer {size}, 2017", "days on 8 P100", days, hours(flops, 8 * P100, 1.0) / 24, "their FLOPs")
        counted = steps * 25_000 * flops_of_a_token(name, 32)
        yield Row(f"Transformer {size}, 2017", "FLOPs of training", flops, counted, "counted, sentences of 32 tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_smoke(parser)
    smoke = parser.parse_args().smoke
    heading = ["run", "figure", "published", "predicted", "error", "how"]
    found = vaswani() if smoke else rows()
    lines = ["| " + " | ".join(cells) + " |" for cells in (heading, ["---"] * 6, *(row.cells() for row in found))]
    print("\n".join(lines))
    title = "# Published runs\n\nPredictions of `dragoman.plan` beside what the authors report."
    write_results("plan_published.md", "\n\n".join([title, "\n".join(lines), NOTES]), smoke=smoke)


NOTES = """\
Where they differ:

- **Hours of Llama 3.1.** The 405B model reached 38 to 43% of its peak (arXiv:2407.21783, table 4); the hours of the
  smaller models are of all their training, of longer contexts and on fewer tokens a device, and are far more than
  their products at 40%. Work is predicted here to a percent; a share of the peak that nobody measured is a guess.
- **Chinchilla.** The paper's 5.76e23 counts each product; 6 N D with 70 billion is 2% more. The preset has rotary
  positions, 5.4 billion parameters fewer.
- **2017.** The paper multiplies time, devices and an assumed 9.5 TFLOP/s, so its figure is an upper bound: the
  products counted are the share of it that the devices spent on them.
- **GPT-3 in days.** On 1,024 A100 at 45% of their peak, 300 billion tokens are 25.3 days by 6 N D and 33.7 by 8 N D.
  Write-ups that print 34 days beside the formula 6 N D have computed 8 N D: with activations computed again.
"""

if __name__ == "__main__":
    main()
