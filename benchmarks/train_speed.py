"""Training speed beside the peers, on the same batches, in one interleaved run.

    OMP_NUM_THREADS=1 python benchmarks/train_speed.py [--rounds 7] [--precisions float32 bfloat16]

Two settings. *Base*: a 3 + 3 layer post-norm encoder-decoder (width 256, feed-forward 1,024, 4 heads, one vocabulary of
8,000) on batches of 4,096 target tokens, 32 a sentence. *Small*: 4 + 4 layers, width 128, feed-forward 256, vocabulary
10,000, on sentences as short and as uneven as image captions, 4 to 30 tokens, in the batches that ``dragoman train``
makes of them. Dropout 0.1, label smoothing 0.1, Adam, gradients clipped; in float32, and in bfloat16 by autocast with
weights in float32, which is what each library's users write. One step of each contestant follows one of the next, so
that a machine that slows down slows all of them; medians over the rounds, in target tokens per CPU second. The losses
after the last step are printed: much unlike, and the work would not have been the same.

Then what bounds all of them: the matrix products of a step alone, counted on the meta device, at the speed at which
this machine multiplies one large matrix.

Expected: 1.3 times the best peer in float32, where products by oneDNN should tell on a CPU that MKL does not know; 1.5
times the best peer's bfloat16.

x-transformers and eole are among them where they are installed: ``pip install x-transformers``, and of eole its model
alone, best into an environment of its own: ``pip install --no-deps eole pyonmttok torch-optimi configargparse``.

Writes ``results/train_speed.md``.
"""

import argparse
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from processor import add_precisions, processor
from smoke import add_smoke, write_results
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from where import time_of_training

from dragoman.data.batch import Batches, PairBatch
from dragoman.data.tasks import TranslationTask
from dragoman.machine import autocast, choose_products, keep_memory, product_seconds
from dragoman.model.linear import multiply_by
from dragoman.presets import rewritten2026, vaswani2017
from dragoman.train import loop
from dragoman.train.distributed.micro_batch import unsplit
from dragoman.train.optimize import Adam

Loss = Callable[[PairBatch], Tensor]
"""Summed over target tokens."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    name: str
    depth: int
    dim: int
    hidden: int
    gated: int
    """Hidden width of the 2026 model's feed-forward, which has three matrices."""
    vocab: int
    heads: int = 4
    dropout: float = 0.1
    tokens: int = 4096

    def __str__(self) -> str:
        shape = f"{self.depth} + {self.depth} layers, width {self.dim}, feed-forward {self.hidden:,}"
        return f"{shape} (2026: SwiGLU, {self.gated}), {self.heads} heads, vocabulary {self.vocab:,}"


BASE = Setting("base", 3, 256, 1024, 768, 8000)
SMALL = Setting("small", 4, 128, 256, 176, 10_000)
TOY = Setting("toy", 1, 32, 64, 64, 100, tokens=128)


def even(setting: Setting, count: int, length: int = 32) -> list[PairBatch]:
    """Sentences of about ``length`` tokens: like lengths together, a few shorter by up to three."""
    draw = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        rows = setting.tokens // length
        short = torch.randint(0, 4, (2, rows), generator=draw)
        made.append(_batch(setting, length - short[0], length - short[1], draw))
    return made


def captions(setting: Setting, count: int) -> list[PairBatch]:
    """Sentences of 14 tokens give or take 4, in the batches of ``dragoman train``."""
    numbers = np.random.default_rng(1)
    target = np.clip(numbers.normal(14.5, 4, 20_000).round(), 4, 30)
    source = np.clip((target + numbers.normal(0, 2, len(target))).round(), 4, 30)
    lengths, draw = np.stack([source, target], axis=1).astype(np.int64), torch.Generator().manual_seed(1)
    plan = Batches(lengths, setting.tokens, seed=1)
    return [_batch(setting, *torch.from_numpy(lengths[plan.at(i)[0]]).T, draw) for i in range(count)]


def _batch(setting: Setting, source: Tensor, target: Tensor, draw: torch.Generator) -> PairBatch:
    def ids(lengths: Tensor) -> Tensor:
        drawn = torch.randint(3, setting.vocab, (len(lengths), int(lengths.max())), generator=draw)
        return drawn.masked_fill(torch.arange(drawn.shape[1]) >= lengths[:, None], 0)

    answer = ids(target)
    return PairBatch(ids(source), F.pad(answer[:, :-1], (1, 0), value=1), answer)


# ---- the contestants: each a model and its loss -------------------------------------------------------


def ours(s: Setting, *, modern: bool = False) -> tuple[nn.Module, Loss]:
    cfg = vaswani2017(dim=s.dim, heads=s.heads, hidden=s.hidden, depth=s.depth, dropout=s.dropout)
    if modern:
        cfg = rewritten2026(dim=s.dim, heads=s.heads, kv_heads=2, hidden=s.gated, depth=s.depth, dropout=s.dropout)
    model, task = replace(cfg, vocab=s.vocab).build(), TranslationTask()
    return model, lambda batch: task.loss(model, batch)[0]


class TorchTranslator(nn.Module):
    """torch.nn.Transformer as its documentation uses it."""

    def __init__(self, s: Setting) -> None:
        super().__init__()
        self.s, self.embed, self.position = s, nn.Embedding(s.vocab, s.dim), nn.Embedding(512, s.dim)
        nn.init.normal_(self.embed.weight, std=s.dim**-0.5)
        self.body = nn.Transformer(s.dim, s.heads, s.depth, s.depth, s.hidden, s.dropout, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        def embedded(ids: Tensor) -> Tensor:
            return F.dropout(self.embed(ids) * self.s.dim**0.5 + self.position.weight[: ids.shape[1]], self.s.dropout)

        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        hidden = self.body(
            embedded(source), embedded(target), tgt_mask=causal, tgt_is_causal=True,
            src_key_padding_mask=source == 0, memory_key_padding_mask=source == 0,
        )  # fmt: skip
        return hidden @ self.embed.weight.T


def torch_transformer(s: Setting) -> tuple[nn.Module, Loss]:
    model = TorchTranslator(s)
    return model, lambda batch: smoothed(model(batch.source, batch.target_in), batch.target_out)


def marian(s: Setting) -> tuple[nn.Module, Loss]:
    from transformers import MarianConfig, MarianMTModel

    model = MarianMTModel(
        MarianConfig(
            vocab_size=s.vocab, d_model=s.dim, encoder_layers=s.depth, decoder_layers=s.depth,
            encoder_ffn_dim=s.hidden, decoder_ffn_dim=s.hidden, encoder_attention_heads=s.heads,
            decoder_attention_heads=s.heads, dropout=s.dropout, activation_function="relu", pad_token_id=0,
            eos_token_id=2, decoder_start_token_id=1, scale_embedding=True,
        )
    )  # fmt: skip

    def loss(batch: PairBatch) -> Tensor:
        out = model(input_ids=batch.source, attention_mask=batch.source != 0, decoder_input_ids=batch.target_in)
        return smoothed(out.logits, batch.target_out)

    return model, loss


def x_transformers(s: Setting) -> tuple[nn.Module, Loss]:
    from x_transformers import XTransformer

    side: dict[str, Any] = {
        "num_tokens": s.vocab, "depth": s.depth, "heads": s.heads, "max_seq_len": 512, "attn_flash": True,
        "attn_dim_head": s.dim // s.heads, "ff_mult": s.hidden // s.dim, "ff_dropout": s.dropout,
        "emb_dropout": s.dropout,
    }  # fmt: skip
    both = {f"{where}_{name}": value for where in ("enc", "dec") for name, value in side.items()}
    model = XTransformer(dim=s.dim, tie_token_emb=True, **both)

    def loss(batch: PairBatch) -> Tensor:
        real = batch.source != 0
        memory = model.encoder(batch.source, mask=real, return_embeddings=True)
        return smoothed(model.decoder.net(batch.target_in, context=memory, context_mask=real), batch.target_out)

    return model, loss


def eole(s: Setting) -> tuple[nn.Module, Loss]:
    """OpenNMT's successor, whose model wants a vocabulary and a run's settings, of which these are all it reads."""
    from eole.config.models import TransformerModelConfig
    from eole.constants import DefaultTokens
    from eole.models.model import EncoderDecoderModel

    cfg = TransformerModelConfig(
        layers=s.depth, hidden_size=s.dim, word_vec_size=s.dim, heads=s.heads, transformer_ff=s.hidden,
        share_embeddings=True, share_decoder_embeddings=True, generator_bias=False,
        add_qkvbias=True, add_ffnbias=True, add_final_linear_bias=True,
    )  # fmt: skip
    words = {DefaultTokens.PAD: 0} | {str(i): i for i in range(1, s.vocab)}
    vocabularies = {"src": words, "tgt": words, "specials": {}}
    running = SimpleNamespace(dropout=[s.dropout], attention_dropout=[0.0], self_attn_backend="pytorch")
    model = EncoderDecoderModel.build_blocks(cfg, vocabularies, running)
    model.build_generator(cfg, running, vocabularies)
    model.init_weights(SimpleNamespace(param_init_method="xavier_uniform"))

    def loss(batch: PairBatch) -> Tensor:
        # it drops the last column of the target
        out = model(batch.source, F.pad(batch.target_in, (0, 1)), (batch.source != 0).sum(1))
        return smoothed(model.generator(out.dec_out), batch.target_out)

    return model, loss


def smoothed(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=0, reduction="sum", label_smoothing=0.1
    )


CONTESTANTS: dict[str, Callable[[Setting], tuple[nn.Module, Loss]]] = {
    "dragoman, 2017": ours,
    "dragoman, 2026": lambda s: ours(s, modern=True),
    "torch.nn.Transformer": torch_transformer,
    "Hugging Face Marian": marian,
}
if importlib.util.find_spec("x_transformers"):
    CONTESTANTS["x-transformers"] = x_transformers
if importlib.util.find_spec("eole"):
    CONTESTANTS["eole"] = eole


class Contestant:
    """A peer, and the training step as its users write it."""

    def __init__(self, name: str, setting: Setting, precision: str):
        torch.manual_seed(1)
        self.model, self.loss = CONTESTANTS[name](setting)
        self.model.train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-4, betas=(0.9, 0.98), eps=1e-9, fused=True)
        self.precision = autocast(precision, CPU)
        self.speeds: list[float] = []
        self.last = 0.0

    def step(self, batch: PairBatch, *, counted: bool) -> None:
        tokens, began = int((batch.target_out != 0).sum()), time.process_time()
        self.last = self.learn(batch, tokens)
        if counted:
            self.speeds.append(tokens / (time.process_time() - began))

    def learn(self, batch: PairBatch, tokens: int) -> float:
        with self.precision():
            loss = self.loss(batch) / tokens
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


class Dragoman(Contestant):
    """A step of ``dragoman train``."""

    def __init__(self, name: str, setting: Setting, precision: str):
        super().__init__(name, setting, precision)
        multiply_by(self.model, choose_products("auto", CPU, precision))
        self.optimizer, self.progress = Adam().build(self.model), loop.LoopProgress()
        self.rules = loop.StepRules(seed=1, clip=1.0, precision=self.precision)

    def learn(self, batch: PairBatch, tokens: int) -> float:
        parts, task = unsplit([batch]), TranslationTask()
        return loop.train_step(
            self.model, task.loss, parts, self.optimizer, self.progress, lr=3e-4, rules=self.rules
        ).loss


def contestant(name: str, setting: Setting, precision: str) -> Contestant:
    return (Dragoman if name.startswith("dragoman") else Contestant)(name, setting, precision)


# ---- the limit ----------------------------------------------------------------------------------------


def flops(setting: Setting, batch: PairBatch) -> int:
    """Of the matrix products of a step, forward and backward, logits included: counted where there are shapes only."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model, _ = ours(setting)
        ids = [t.to("meta") for t in batch]
        smoothed(model(ids[1], ids[0]), ids[2]).backward()
    return counter.get_total_flops()


# ---- the run ------------------------------------------------------------------------------------------


def compete(setting: Setting, batches: list[PairBatch], rounds: int, precisions: Sequence[str]) -> Iterator[str]:
    entries = [(name, precision) for precision in precisions for name in CONTESTANTS]
    field = {entry: contestant(entry[0], setting, entry[1]) for entry in entries}
    for i in range(rounds + 1):
        for racer in field.values():
            racer.step(batches[i % len(batches)], counted=i > 0)
    speed = {entry: statistics.median(racer.speeds) for entry, racer in field.items()}
    yield f"{setting}; batches of at most {setting.tokens:,} target tokens; medians of {rounds} interleaved steps."
    yield ""
    yield "| library | precision | target tokens per CPU second | of the best peer | lowest to highest | last loss |"
    yield "|---|---|---:|---:|---:|---:|"
    for (name, precision), racer in field.items():
        peers = [v for (n, p), v in speed.items() if p == precision and not n.startswith("dragoman")]
        mine, spread = speed[name, precision], f"{min(racer.speeds):,.0f} to {max(racer.speeds):,.0f}"
        yield f"| {name} | {precision} | {mine:,.0f} | {mine / max(peers):.2f} | {spread} | {racer.last:.2f} |"
    batch, seconds = batches[0], product_seconds()
    count, tokens = flops(setting, batch), int((batch.target_out != 0).sum())
    large = 2 * 256 * 512 * 512
    yield ""
    yield f"The products of a step of the 2017 model, {count / 1e9:.0f} GFLOP for {tokens:,} tokens, would allow:"
    yield ""
    for name, what in (("torch", "float32, torch's"), ("onednn", "float32, oneDNN's"), ("bfloat16", "bfloat16")):
        precision = "bfloat16" if name == "bfloat16" else "float32"
        if name in seconds and precision in precisions:
            rate = large / seconds[name]
            limit = tokens * rate / count
            yield (
                f"- {what} at {rate / 1e9:.0f} GFLOP/s: {limit:,.0f} tokens a second, of which "
                f"dragoman reaches {100 * speed['dragoman, 2017', precision] / limit:.0f}%"
            )
    yield ""
    yield f"Where the time of a step of ours goes, the 2017 model in {precisions[-1]}, by PyTorch's profiler:"
    yield ""
    racer = field["dragoman, 2017", precisions[-1]]
    yield from time_of_training(lambda: racer.step(batch, counted=False))
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=["base", "small"])
    add_precisions(parser)
    add_smoke(parser)
    arguments = parser.parse_args()
    settings = [(BASE, even, "32 tokens a sentence"), (SMALL, captions, "4 to 30 tokens a sentence")]
    if arguments.smoke:
        arguments.rounds, settings = 1, [(TOY, make, title) for _, make, title in settings]
    keep_memory()  # for everyone: a setting of the process
    lines = [
        "# Training speed",
        "",
        f"{date.today()}; {processor()}, "
        f"{torch.get_num_threads()} thread(s), Python {platform.python_version()}, torch {torch.__version__}.",
        "",
    ]
    count = arguments.rounds + 1
    for setting, make, title in settings:
        if arguments.only in (None, setting.name):
            lines += [
                f"## {title}",
                "",
                *compete(setting, make(setting, count), arguments.rounds, arguments.precisions),
            ]
    text = "\n".join(lines)
    print(text)
    if arguments.only is None:
        write_results("train_speed.md", text, smoke=arguments.smoke)


if __name__ == "__main__":
    main()
