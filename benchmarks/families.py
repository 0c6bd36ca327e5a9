"""Every model family at equal parameters, on the same batches, in one interleaved run: training and decoding.

    OMP_NUM_THREADS=1 python benchmarks/families.py [--rounds 3]

Translators have the size of ``transformer-small`` with 8,000 tokens, language models that of ``lm-small``: within 2%.
A training step of a translator reads 64 pairs of about 24 tokens a side, one of a language model 8 rows of 256 tokens.
Decoding continues 64 tokens, for one text and for 64 at a time, by the model as commands run it; the peers decode with
the cache of their library.

Beside them stand an LSTM and a GRU written as everybody writes them (``nn.Embedding``, ``nn.LSTM``, ``nn.Linear``,
``cross_entropy``, AdamW), and ``transformers``' MambaForCausalLM in PyTorch. float32, dropout off.

Medians of tokens per CPU second. Writes ``results/families.md`` beside this file.
"""

import argparse
import dataclasses
import logging
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import torch
import torch.nn.functional as F
from smoke import add_smoke, write_results
from torch import Tensor, nn

from dragoman.config import from_dict
from dragoman.data.batch import PairBatch
from dragoman.data.packing import TextBatch
from dragoman.data.tasks import LanguageModellingTask, TranslationTask
from dragoman.decode.precision import prepare_for_inference
from dragoman.machine import choose_products, keep_memory
from dragoman.model.families import ModelConfig
from dragoman.model.interface import SequenceModel
from dragoman.model.linear import multiply_by
from dragoman.presets import PRESETS
from dragoman.train import loop
from dragoman.train.distributed.micro_batch import unsplit
from dragoman.train.optimize import AdamW

CPU = torch.device("cpu")
V = 8000
TRANSLATORS = (
    "transformer-small", "lstm-bahdanau", "lstm-luong", "lstm-sutskever", "gru", "rnn", "gnmt-small", "convs2s",
    "bytenet", "cnn-9", "mamba-translator-small",
)  # fmt: skip
LANGUAGE_MODELS = (
    "lm-small", "lstm-lm-small", "gated-cnn-lm-small", "lm-hybrid-small", "mamba-small", "mamba2-small",
    "mamba2-hybrid-small", "linear-small", "performer-small", "gated-deltanet-small", "deltanet-hybrid-small",
    "mlstm-small", "min-gru-small", "longformer-small", "bigbird-small", "sparse-transformer-small",
    "reformer-small",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Work:
    """Sizes of the batches."""

    pairs: int = 64
    length: int = 24
    rows: int = 8
    context: int = 256
    continued: int = 64
    batches: tuple[int, ...] = (1, 64)


TOY = Work(pairs=2, length=4, rows=1, context=8, continued=2, batches=(1, 2))


def drawn(seed: int, *size: int) -> Tensor:
    return torch.randint(4, V, size, generator=torch.Generator().manual_seed(seed))


def pair_batch(work: Work, seed: int) -> PairBatch:
    """Pairs of lengths between half and three halves of ``length``, padded on the right."""
    longest = work.length * 3 // 2
    lengths = torch.randint(
        max(1, work.length // 2), longest + 1, (work.pairs, 2), generator=torch.Generator().manual_seed(seed)
    )
    source, target = (
        drawn(seed + side, work.pairs, longest).where(torch.arange(longest) < lengths[:, side, None], 0)
        for side in (0, 1)
    )
    beginning = torch.ones(work.pairs, 1, dtype=torch.long)
    return PairBatch(source, torch.cat([beginning, target[:, :-1]], dim=1), target)


def text_batch(work: Work, seed: int) -> TextBatch:
    ids = drawn(seed, work.rows, work.context + 1)
    return TextBatch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), None)


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        for name in ("rate", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


class Ours:
    """A preset's model: trained by the loop of a run, decoded as commands run it."""

    def __init__(self, preset: str, work: Work):
        torch.manual_seed(1)
        self.work, data = work, PRESETS[preset]()
        self.translates = preset in TRANSLATORS
        self.model: Any = without_dropout(from_dict(ModelConfig, data["model"]).sized(vocab=V).build()).train()
        multiply_by(self.model, choose_products("auto", CPU, "float32"))
        self.task = TranslationTask() if self.translates else LanguageModellingTask(context=work.context)
        self.optimizer, self.progress = AdamW().build(self.model), loop.LoopProgress()
        self.rules = loop.StepRules(seed=1)
        self.ready: SequenceModel | None = None

    def learn(self, seed: int) -> None:
        part: Any = pair_batch(self.work, seed) if self.translates else text_batch(self.work, seed)
        loop.train_step(
            self.model, self.task.loss, unsplit([part]), self.optimizer, self.progress, lr=3e-4, rules=self.rules
        )

    def prepare(self) -> None:
        self.ready = prepare_for_inference(self.model.eval(), "cpu", "float32")

    @torch.inference_mode()
    def decode(self, rows: int) -> None:
        assert self.ready is not None
        state = self.ready.start(drawn(1, rows, self.work.length) if self.translates else None)
        token = drawn(2, rows, 1)
        for _ in range(self.work.continued):
            token = self.ready.decode(token, state)[:, -1].argmax(-1, keepdim=True)


class Plain(nn.Module):
    """A language model of ``nn.LSTM`` or ``nn.GRU`` as everybody writes it, with as many parameters as ours."""

    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU], work: Work, wanted: int):
        super().__init__()
        self.work, layers = work, 2
        gates = 4 if cell is nn.LSTM else 3
        width = next(w for w in range(64, 4096, 8) if V * w + layers * gates * (2 * w * w + 2 * w) >= wanted)
        self.embed, self.cell = nn.Embedding(V, width), cell(width, width, layers, batch_first=True)
        self.output = nn.Linear(width, V, bias=False)
        self.output.weight = self.embed.weight
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=3e-4)

    @property
    def model(self) -> nn.Module:
        return self

    def learn(self, seed: int) -> None:
        part = text_batch(self.work, seed)
        logits = self.output(self.cell(self.embed(part.ids))[0])
        F.cross_entropy(logits.flatten(0, 1), part.targets.flatten()).backward()
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def prepare(self) -> None:
        self.eval()

    @torch.inference_mode()
    def decode(self, rows: int) -> None:
        token, state = drawn(2, rows, 1), None
        for _ in range(self.work.continued):
            hidden, state = self.cell(self.embed(token), state)
            token = self.output(hidden)[:, -1].argmax(-1, keepdim=True)


class HuggingFaceMamba:
    """``transformers``' Mamba in PyTorch ("the slow path"), in the sizes of ``mamba-small``."""

    def __init__(self, work: Work):
        from transformers import MambaConfig, MambaForCausalLM

        cfg = PRESETS["mamba-small"]()["model"]
        mixer = cfg["decoder"]["pattern"][0]["mixer"]
        torch.manual_seed(1)
        shape = MambaConfig(
            vocab_size=V, hidden_size=cfg["dim"], num_hidden_layers=cfg["decoder"]["depth"], use_cache=False,
            state_size=mixer.get("state", 16), expand=mixer.get("expand", 2), conv_kernel=mixer.get("kernel", 4),
        )  # fmt: skip
        self.work, self.model = work, MambaForCausalLM(shape).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4)

    def learn(self, seed: int) -> None:
        part = text_batch(self.work, seed)
        logits = self.model(input_ids=part.ids).logits
        F.cross_entropy(logits.flatten(0, 1).float(), part.targets.flatten()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def prepare(self) -> None:
        self.model.eval()

    @torch.inference_mode()
    def decode(self, rows: int) -> None:
        token, cache = drawn(2, rows, 1), None
        for _ in range(self.work.continued):
            found = self.model(input_ids=token, cache_params=cache, use_cache=True)
            token, cache = found.logits[:, -1].argmax(-1, keepdim=True), found.cache_params


def racers(work: Work, *, smoke: bool) -> dict[str, Any]:
    step = 4 if smoke else 1
    field: dict[str, Any] = {name: Ours(name, work) for name in (*TRANSLATORS[::step], *LANGUAGE_MODELS[::step])}
    wanted = size(field["lm-small"].model)
    field |= {f"plain torch.nn.{cell.__name__}": Plain(cell, work, wanted) for cell in (nn.LSTM, nn.GRU)}
    return field if smoke else field | {"transformers MambaForCausalLM": HuggingFaceMamba(work)}


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def race(field: dict[str, Any], work: Callable[[Any, int], None], tokens: int, rounds: int) -> dict[str, float]:
    """Return the median of tokens per CPU second of each; one round more comes first and is not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in field}
    for i in range(rounds + 1):
        for name, racer in field.items():
            began = time.process_time()
            work(racer, i)
            if i or rounds == 0:
                speeds[name].append(tokens / (time.process_time() - began))
    return {name: statistics.median(found) for name, found in speeds.items()}


def table(title: str, field: dict[str, Any], reference: str, work: Work, rounds: int) -> list[str]:
    translates = getattr(field[reference], "translates", False)
    sizes = {name: size(racer.model) for name, racer in field.items()}  # before weights are laid out for decoding
    tokens = sum(int((x != 0).sum()) for x in pair_batch(work, 0)[::2]) if translates else work.rows * work.context
    training = race(field, lambda racer, i: racer.learn(i), tokens, rounds)
    for racer in field.values():
        racer.prepare()
    decoding = {
        rows: race(field, lambda racer, _, rows=rows: racer.decode(rows), rows * work.continued, rounds)
        for rows in work.batches
    }
    batches = "".join(f" | decoding, {rows} | ratio" for rows in work.batches)
    lines = [f"## {title}", "", f"Tokens per CPU second; ratios to `{reference}`.", ""]
    lines += [f"| | parameters | training | ratio{batches} |", "|---|" + "---:|" * (3 + 2 * len(work.batches))]
    for name in field:
        columns = [training, *decoding.values()]
        figures = "".join(f" | {c[name]:,.0f} | {c[name] / c[reference]:.2f}" for c in columns)
        lines.append(f"| {name} | {sizes[name] / 1e6:.2f}M{figures} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    add_smoke(parser)
    given = parser.parse_args()
    work, rounds = (TOY, 0) if given.smoke else (Work(), given.rounds)
    logging.disable()
    keep_memory()  # for everyone: a setting of the process
    field = racers(work, smoke=given.smoke)
    translators = {name: racer for name, racer in field.items() if name in TRANSLATORS}
    others = {name: racer for name, racer in field.items() if name not in TRANSLATORS}
    lines = [
        "# Model families, side by side",
        "",
        f"{date.today()}; {platform.machine()}, {torch.get_num_threads()} thread(s), Python "
        f"{platform.python_version()}, torch {torch.__version__}; float32, medians of {max(rounds, 1)} interleaved "
        "rounds.",
        "",
        *table("Translators", translators, "transformer-small", work, rounds),
        *table("Language models", others, "lm-small", work, rounds),
    ]
    print("\n".join(lines))
    write_results("families.md", "\n".join(lines), smoke=given.smoke)


if __name__ == "__main__":
    main()
