"""Layers, models and tiny runs of mixers that sum up the past, and what holds of each of them."""

from pathlib import Path
from typing import Any

import torch
from tiny_run import BLOCK
from variants import D, assert_equal, ids

from dragoman.model.caches.state import VisibleKeys, stateless
from dragoman.model.interface import SequenceModel
from dragoman.model.mixer import MixerLayer
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions
from dragoman.train import recipe
from dragoman.train.run import start

# ---- layers ----------------------------------------------------------------------------------------------


def positions(length: int) -> Positions:
    return Positions(torch.arange(length)[None])


def mixed(layer: MixerLayer, x: torch.Tensor, where: Positions) -> torch.Tensor:
    """What the layer makes of whole texts."""
    seen = VisibleKeys(where, None, layer.visibility)
    context = layer.context(where, seen, RelativeScheme(), where.keep, torch.float64)
    return layer(x, context, layer.new_state(stateless))


APART = Positions(
    torch.tensor([[-1, 0, 1, 1, 1, 2, 3, 4, 4], [0, 1, 2, 0, 1, 2, 3, 0, 1]]),
    keep=torch.tensor([[0, 1, 1, 0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1]]).bool(),
    segment=torch.tensor([[4, 4, 4, 4, 4, 4, 4, 4, 4], [1, 1, 1, 2, 2, 2, 2, 1, 1]]),
)
"""Padding in front of a text, within it and behind it; and a row of three texts."""
TEXTS = ((0, [1, 2, 5, 6, 7]), (1, [0, 1, 2]), (1, [3, 4, 5, 6]), (1, [7, 8]))
"""The row and the columns of each text."""


def texts_are_as_alone(layer: MixerLayer) -> None:
    """In rows with padding and of several texts, padding with any numbers in it, each text is as it is alone."""
    for scale in (1.0, 1e6):
        x = torch.randn(2, 9, D, dtype=torch.float64)
        x[0, [0, 3, 4, 8]] *= scale
        got = mixed(layer, x, APART)
        for row, columns in TEXTS:
            assert_equal(got[row, columns], mixed(layer, x[row : row + 1, columns], positions(len(columns)))[0])
    one = x[1:, :3]
    padded = Positions(torch.tensor([[-1, -1, 0, 1, 2]]), torch.tensor([[0, 0, 1, 1, 1]]).bool())
    wide = torch.cat([torch.randn(1, 2, D, dtype=torch.float64), one], dim=1)
    assert_equal(mixed(layer, wide, padded)[:, 2:], mixed(layer, one, positions(3)))


# ---- models ----------------------------------------------------------------------------------------------


@torch.no_grad()
def ages_are_joined(model: SequenceModel) -> None:
    """Rows of other ages that go on in one batch go on as they would have alone, in any order of rows."""
    old, young, new = ids(1, 8), ids(2, 3), ids(3, 5)
    first, second = model.start(None), model.start(None)
    model.decode(old, first)
    model.decode(young, second)
    first.join(second)
    order = torch.tensor([2, 0, 1])
    first.select(order)
    got = torch.cat([model.decode(token, first) for token in new[order].split(1, dim=1)], dim=1)[order.argsort()]
    assert_equal(got[:1], model(torch.cat([old, new[:1]], dim=1))[:, 8:])
    assert_equal(got[1:], model(torch.cat([young, new[1:]], dim=1))[:, 3:])


# ---- runs ------------------------------------------------------------------------------------------------

MIXERS: dict[str, dict[str, Any]] = {
    "mamba": {"kind": "mamba", "state": 4},
    "mamba2": {"kind": "mamba2", "state": 4, "head_dim": 4, "chunk": 8},
}


def hybrid(mixer: dict[str, Any]) -> Any:
    """Change a model's configuration: each tower's first block has the mixer, in encoders both ways, the second
    attends."""

    def changed(model: dict[str, Any]) -> dict[str, Any]:
        found = dict(model)
        for name in ("encoder", "decoder"):
            if tower := model.get(name):
                (block,) = tower["pattern"]
                own = mixer if name == "decoder" else {"kind": "bidirectional", "mixer": mixer}
                found[name] = tower | {"depth": 2, "pattern": [block | {"mixer": own}, block]}
        return found

    return changed


CHANGES = {name: hybrid(mixer) for name, mixer in MIXERS.items()}


def writer(kind: str, folder: Path) -> Path:
    """A language model that has learned four steps: ``mamba`` a hybrid, ``mamba, alone`` as published."""
    texts = [f"the {word} house sees {word} {i}\n\n" for i, word in enumerate(["red", "big"] * 40)]
    (folder / "text.txt").write_text("".join(texts))
    name, _, alone = kind.partition(", ")
    block = {key: value for key, value in BLOCK.items() if key != "cross"}
    model: dict[str, Any] = {"dim": 8, "encoder": None, "decoder": {"depth": 1, "pattern": [block]}}
    if alone:
        norm = {"kind": "rms_norm", "eps": 1e-5}
        only = {"mixer": MIXERS[name], "mlp": "no_feed_forward", "norm": norm}
        model = model | {"decoder": {"depth": 2, "pattern": [only], "final_norm": norm}}
    else:
        model = CHANGES[name](model)
    cfg = recipe.load(
        {
            "task": {"kind": "language_modelling", "context": 24},
            "data": {"kind": "texts", "files": [str(folder / "text.txt")], "documents": "blank_lines"},
            "tokenizer": "characters",
            "model": model,
            "train": {
                "budget": {"kind": "steps", "steps": 4},
                "batch_tokens": 200,
                "schedule": {"kind": "constant", "peak": 1e-2},
            },
        }
    )
    list(start(cfg, folder / "writer").events())
    return folder / "writer"
