"""Losses and a run with ``train.compile=on``, told as lines of JSON, for ``test_compiling.py``.

In a process of its own, because the compiler would trace the checks of shapes that are in force in tests.

    python compiled.py FOLDER
"""

import gc
import itertools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import tiny_run
import torch
from torch import Tensor, nn
from torch._dynamo import lookup_backend

from dragoman.data import tasks
from dragoman.data.augment import ShiftAndFlip
from dragoman.data.batch import PairBatch
from dragoman.data.labels import LabelledBatch
from dragoman.data.matches import MatchedBatch
from dragoman.data.packing import TextBatch
from dragoman.data.spans import SpanBatch
from dragoman.data.tags import TaggedBatch
from dragoman.model import heads
from dragoman.model.attention import AttentionConfig
from dragoman.model.bidirectional import Bidirectional
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.feature_maps import FavorFeatures
from dragoman.model.gated_delta_net import GatedDeltaNet
from dragoman.model.inputs import FrameInput, PatchInput, TokenInput
from dragoman.model.linear import multiply_by
from dragoman.model.linear_attention import LinearAttention
from dragoman.model.lora import Lora
from dragoman.model.mamba import Mamba
from dragoman.model.mamba2 import Mamba2
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.min_gru import MinGru
from dragoman.model.mlp import FeedForward, Gated, NoFeedForward
from dragoman.model.mlstm import Mlstm
from dragoman.model.norm import LayerNorm, NoNorm, RmsNorm
from dragoman.model.positions.position import NoPosition
from dragoman.model.positions.rotary import Rotary
from dragoman.model.positions.tokens import Frames
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.train import compiling
from dragoman.train.compiling import Compiled
from dragoman.train.events import Preparing, Saved
from dragoman.train.run import resume, start

V, D = 30, 8
SIZES = [(4, 6, 5), (5, 7, 7), (8, 3, 9), (2, 20, 4), (3, 4, 40)]
"""Rows, and lengths of both sides."""

# ---- models -----------------------------------------------------------------------------------------


FULL, NOWHERE = Full(), NoPosition()


def tower(visibility: Any = FULL, position: Any = NOWHERE, cross: bool = False, **block: Any) -> TowerConfig:
    one = BlockConfig(
        mixer=AttentionConfig(heads=2, visibility=visibility, position=position),
        cross=AttentionConfig(heads=2, visibility=FULL) if cross else None,
        **{"mlp": FeedForward(hidden=8), "norm": NoNorm(), "dropout": 0.1} | block,
    )
    return TowerConfig(depth=1, pattern=(one,))


def writer() -> nn.Module:
    modern = tower(Causal(window=6), position=Rotary(), mlp=Gated(hidden=8), norm=RmsNorm())
    model = TransformerConfig(vocab=V, dim=D, decoder=modern).build()
    multiply_by(model, "onednn")
    return model


def state_spaces() -> nn.Module:
    mixers = (Mamba(state=3), Mamba2(state=3, head_dim=4, chunk=4))
    pattern = tuple(BlockConfig(mixer=mixer, mlp=NoFeedForward(), norm=RmsNorm()) for mixer in mixers)
    return TransformerConfig(vocab=V, dim=D, decoder=TowerConfig(depth=2, pattern=pattern)).build()


def both_directions() -> nn.Module:
    block = BlockConfig(mixer=Bidirectional(mixer=Mamba(state=3)), mlp=NoFeedForward(), norm=RmsNorm())
    tower = TowerConfig(depth=1, pattern=(block,))
    return EncoderConfig(dim=D, inputs=TokenInput(vocab=V), tower=tower, head=heads.TaggingHead(classes=3)).build()


def linear_writer(*mixers: Any) -> nn.Module:
    blocks = tuple(BlockConfig(mixer=mixer, mlp=Gated(hidden=8), norm=RmsNorm()) for mixer in mixers)
    return TransformerConfig(vocab=V, dim=D, decoder=TowerConfig(depth=len(blocks), pattern=blocks)).build()


def encoder(head: Any, inputs: Any = None) -> EncoderConfig:
    return EncoderConfig(dim=D, inputs=inputs or TokenInput(vocab=V), tower=tower(dropout=0.0), head=head)


def adapted() -> nn.Module:
    sides = {"encoder": tower(norm=LayerNorm()), "decoder": tower(Causal(), cross=True, norm=LayerNorm())}
    model = TransformerConfig(vocab=V, dim=D, dropout=0.1, **sides).build()
    Lora(rank=2, dropout=0.3).adapt(model)
    return model


# ---- batches ----------------------------------------------------------------------------------------


def ids(rows: int, length: int) -> Tensor:
    """The last row is padded, in every other batch."""
    found = torch.randint(3, V, (rows, length))
    found[rows - 1, length - length // 3 * (length % 2) :] = 0
    return found


def pairs(rows: int, source: int, target: int) -> PairBatch:
    out = ids(rows, target)
    return PairBatch(ids(rows, source), torch.where(out == 0, 0, 1), out)


def text(rows: int, length: int, packed: int) -> TextBatch:
    read = ids(rows, length)
    segment = torch.arange(length).expand(rows, -1) // packed if packed % 2 else None
    return TextBatch(read, torch.where((read == 0) | (read % 3 == 0), -1, read), segment)


def labels(rows: int) -> Tensor:
    return torch.arange(rows) % 3


CASES: dict[str, tuple[Any, Any, Any]] = {
    "translation, R-Drop, adapters": (tasks.TranslationTask(r_drop=2.0), adapted, pairs),
    "language modelling": (tasks.LanguageModellingTask(), writer, text),
    "state spaces": (tasks.LanguageModellingTask(), state_spaces, text),
    "state spaces in both directions": (
        tasks.TaggingTask(),
        both_directions,
        lambda rows, length, _: TaggedBatch(ids(rows, length), torch.randint(-1, 3, (rows, length))),
    ),
    "language modelling, linear attention": (
        tasks.LanguageModellingTask(),
        lambda: linear_writer(LinearAttention(heads=2, position=Rotary()), GatedDeltaNet(heads=2)),
        text,
    ),
    "language modelling, exponential gates": (
        tasks.LanguageModellingTask(),
        lambda: linear_writer(LinearAttention(heads=2, features=FavorFeatures(redraw=True)), Mlstm(heads=2)),
        text,
    ),
    "language modelling, minGRU": (tasks.LanguageModellingTask(), lambda: linear_writer(MinGru()), text),
    "masked language modelling": (
        tasks.MaskedLanguageModellingTask(),
        lambda: encoder(heads.MaskedLanguageHead()).build(),
        text,
    ),
    "tagging": (
        tasks.TaggingTask(),
        lambda: encoder(heads.TaggingHead(classes=3)).build(),
        lambda rows, length, _: TaggedBatch(ids(rows, length), torch.randint(-1, 3, (rows, length))),
    ),
    "question answering": (
        tasks.QuestionAnsweringTask(),
        lambda: encoder(heads.SpansHead(), TokenInput(vocab=V, types=2)).build(),
        lambda rows, length, _: SpanBatch(ids(rows, length), torch.zeros(rows, 2).long()),
    ),
    "classification of texts, R-Drop": (
        tasks.ClassificationTask(r_drop=0.5),
        lambda: encoder(heads.ClassificationHead(classes=3, dropout=0.2)).build(),
        lambda rows, length, _: LabelledBatch(ids(rows, length), labels(rows)),
    ),
    "classification of images": (
        tasks.ClassificationTask(augment=ShiftAndFlip(flip=True)),
        lambda: encoder(heads.ClassificationHead(classes=3), PatchInput(size=(4, 4), patch=2)).build(),
        lambda rows, *_: LabelledBatch(torch.randn(rows, 3, 4, 4), labels(rows)),
    ),
    "classification of frames": (
        tasks.ClassificationTask(),
        lambda: encoder(heads.ClassificationHead(classes=3, pooling=heads.Mean()), FrameInput(channels=5)).build(),
        lambda rows, length, _: LabelledBatch(frames(rows, length), labels(rows)),
    ),
    "two towers": (
        tasks.ContrastiveTask(),
        lambda: TwoTowersConfig(first=encoder(heads.SentenceHead())).build(),
        lambda rows, source, target: MatchedBatch(ids(rows, source), ids(rows, target)),
    ),
}


def frames(rows: int, length: int) -> Frames:
    """Padded in every other batch, which the others do not mention."""
    keep = (torch.arange(length) < length - 1).repeat(rows, 1) if length % 2 else None
    return Frames(torch.randn(rows, length, 5), keep)


# ---- what comes out ---------------------------------------------------------------------------------


class Graphs:
    """A backend that counts what it is given."""

    def __init__(self, name: str):
        self.made, self.name = 0, name

    def __call__(self, graph: Any, inputs: Any, **_: Any) -> Any:
        self.made += 1
        return lookup_backend(self.name)(graph, inputs)


def learned(loss: Any, model: nn.Module, batch: Any) -> list[Tensor]:
    """The loss, the count, and the gradients."""
    torch.manual_seed(1)
    model.zero_grad()
    summed, count = loss(model, batch)
    summed.backward()
    return [summed.detach(), count, *(p.grad for p in model.parameters() if p.grad is not None)]


def losses() -> Iterator[dict[str, Any]]:
    for name, (task, build, make) in CASES.items():
        torch.manual_seed(0)
        model, batches = build(), [make(*size) for size in SIZES]
        graphs = Graphs(
            "aot_eager" if name in ("language modelling", "state spaces") else "eager"
        )  # the first takes longer to make
        compiled = Compiled(task.loss, graphs)
        list(compiled.prepare(model, batches, nullcontext))
        found = [(learned(compiled, model, batch), learned(task.loss, model, batch)) for batch in batches]
        apart = [(a - b).abs().max() / b.abs().max().clamp(min=1) for pair in found for a, b in zip(*pair, strict=True)]
        row = {"name": name, "graphs": graphs.made, "missed": compiled.missed, "apart": float(max(apart))}
        learned(compiled, model, make(1, 4, 4))
        yield row | {"graphs after": graphs.made, "missed after": compiled.missed}


def run(folder: Path) -> dict[str, Any]:
    """One that is compiled, stopped after its first checkpoint and resumed, beside one that is not."""
    compiling.On.build = lambda self, loss, device: Compiled(loss, "eager")
    pairs, os.fsync = tiny_run.write_pairs(folder / "pairs.tsv"), lambda handle: None
    for _ in start(tiny_run.config(pairs, samples=2), folder / "plain").events():
        pass
    events = start(tiny_run.config(pairs, samples=2, compile="on"), folder / "compiled").events()
    said = list(itertools.takewhile(lambda event: not isinstance(event, Saved), events))
    events.close()
    said += resume(folder / "compiled").events()
    plain, compiled = (tiny_run.outcome(folder / name) for name in ("plain", "compiled"))
    said = [event.stage if isinstance(event, Preparing) else getattr(event, "text", "") for event in said]
    return {"name": "run", "said": said, "differs": [part for part in plain if plain[part] != compiled[part]]}


if __name__ == "__main__":
    gc.freeze()
    gc.disable()  # tracing makes millions of small objects, and this process ends soon
    for row in itertools.chain(losses(), [run(Path(sys.argv[1]))]):
        print(json.dumps(row), flush=True)
