"""One table of recurrent models for every test of them: tiny, in float64, with weights that are shaken."""

from typing import Any

import torch

from dragoman.model.recurrent.bridge import CopyStates, NoBridge, ProjectOutputs
from dragoman.model.recurrent.cells import Gru, Lstm, VanillaRnn
from dragoman.model.recurrent.model import RecurrentConfig, RecurrentModel
from dragoman.model.recurrent.source_attention import Bahdanau, Concat, General, GnmtAttention, Luong, NoSourceAttention
from dragoman.model.recurrent.stack import (
    Backward,
    BidirectionalLayers,
    FirstBidirectional,
    Forward,
    RecurrentStackConfig,
    Shortcut,
    Variational,
)
from dragoman.model.scorer import Dot

V, D = 29, 12


def translator(attention: Any, cell: Any = Lstm(), **options: Any) -> RecurrentConfig:  # noqa: B008
    """A translator with two layers on either side; ``encoder`` and ``decoder`` hold what differs in each."""
    of = {side: {"cell": cell, "depth": 2} | options.pop(side, {}) for side in ("encoder", "decoder")}
    encoder = RecurrentStackConfig(**{"direction": BidirectionalLayers()} | of["encoder"])
    base = {"vocab": V, "dim": D, "bridge": ProjectOutputs(), "attention": attention}
    return RecurrentConfig(**base | options, encoder=encoder, decoder=RecurrentStackConfig(**of["decoder"]))


TRANSLATORS: dict[str, RecurrentConfig] = {
    "bahdanau": translator(Bahdanau()),
    "bahdanau, gru, size": translator(Bahdanau(size=5), Gru(), scale_embedding=True),
    "bahdanau, rnn, one layer": translator(Bahdanau(), VanillaRnn(), encoder={"depth": 1}, decoder={"depth": 1}),
    "bahdanau, wide encoder": translator(Bahdanau(), encoder={"hidden": 7}, decoder={"hidden": 10}, tying="none"),
    "luong": translator(Luong()),
    "luong, gru, concat": translator(Luong(score=Concat()), Gru(), logit_cap=3.0),
    "luong, dot, rnn": translator(Luong(score=Dot()), VanillaRnn(activation="relu"), output_bias=True),
    "luong, no feeding": translator(Luong(input_feeding=False)),
    "luong, no feeding, concat, gru": translator(Luong(score=Concat(size=4), input_feeding=False), Gru()),
    "luong, one way, no bridge": translator(Luong(), encoder={"direction": Forward()}, bridge=NoBridge()),
    "sutskever": translator(NoSourceAttention(), encoder={"direction": Backward()}, bridge=CopyStates()),
    "sutskever, forward, gru": translator(
        NoSourceAttention(),
        Gru(),
        encoder={"direction": Forward(), "hidden": 9},
        decoder={"hidden": 9},
        bridge=CopyStates(),
    ),
    "fixed vector, rnn": translator(NoSourceAttention(), VanillaRnn(), source_vocab=17, tying="target"),
    "gnmt": translator(
        GnmtAttention(),
        encoder={"depth": 3, "direction": FirstBidirectional(), "shortcut": Shortcut()},
        decoder={"depth": 3, "shortcut": Shortcut()},
        bridge=NoBridge(),
    ),
    "unlike sides": translator(
        Luong(score=General()),
        encoder={"cell": Gru(), "depth": 1, "hidden": 5},
        decoder={"cell": Lstm(forget_bias=2.0), "depth": 3, "shortcut": Shortcut(first=1)},
        suppressed=(5,),
    ),
    "copied, fed": translator(Luong(), encoder={"direction": Backward()}, bridge=CopyStates()),
}


def language_model(cell: Any, **options: Any) -> RecurrentConfig:
    stack = RecurrentStackConfig(cell=cell, depth=2, **options)
    return RecurrentConfig(vocab=V, dim=D, decoder=stack)


LANGUAGE_MODELS: dict[str, RecurrentConfig] = {
    "rnn": language_model(VanillaRnn()),
    "relu": language_model(VanillaRnn(activation="relu")),
    "gru": language_model(Gru(), shortcut=Shortcut(first=1)),
    "lstm": language_model(Lstm()),
    "lstm, hidden, variational": language_model(Lstm(), hidden=9, dropout=0.3, dropout_mask=Variational()),
}
EVERY = TRANSLATORS | LANGUAGE_MODELS


def build(cfg: RecurrentConfig, *, training: bool = False) -> RecurrentModel:
    torch.manual_seed(0)
    model = cfg.build().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.train(training)


def sources(cfg: RecurrentConfig, rows: int, length: int, seed: int = 1) -> torch.Tensor | None:
    if not cfg.translates:
        return None
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(3, cfg.source_vocab or V, (rows, length), generator=draw)


def targets(rows: int, length: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(3, V, (rows, length), generator=torch.Generator().manual_seed(seed))
