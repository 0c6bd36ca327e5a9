"""Measure of a language model on longer texts than it was trained on."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from dragoman.checkpoint import RunDirectory
from dragoman.compare.figure import Figure, FigureCurve, StudySubject
from dragoman.config import from_dict
from dragoman.data.tasks import LanguageModellingTask
from dragoman.errors import ConfigError, DataError
from dragoman.model.families import ModelConfig
from dragoman.model.interface import SequenceModel
from dragoman.model.loading import load
from dragoman.text.store import Store
from dragoman.train.tasks.task_data import FOLDER

WORST = 50.0
"""Largest mean negative log-likelihood that is told apart, in nats: results are finite."""
COLLAPSE = 1.5
"""Perplexity at a greater length, relative to that at the trained one, from which a model counts as collapsed."""


def length_extrapolation(
    subject: StudySubject,
    *,
    multiples: Annotated[Sequence[PositiveFloat], Field(min_length=1)] = (1, 2, 4, 8),
    texts: PositiveInt = 8,
    scaling: Mapping[str, Any] | None = None,
) -> Mapping[str, Figure]:
    """Return the perplexity of the last trained-length tokens of texts of 1, 2, 4 and 8 times the trained length.

    Where a model makes use of what it can see, the perplexity falls with length; where positions fail, it rises.

    Args:
        subject: the run of a language model.
        multiples: lengths, in multiples of the length that it was trained on.
        texts: number of texts of each length, from the validation text.
        scaling: scaling of rotary positions that replaces the model's own, as ``positions.rotary`` has them; a missing
            ``trained`` or ``factor`` is the trained length or the largest multiple.

    Raises:
        ConfigError: a run of another task.
        DataError: too little validation text.
    """
    if subject.cfg is None or subject.run is None or not isinstance(subject.cfg.task, LanguageModellingTask):
        raise ConfigError("measures.length_extrapolation: needs a run of language_modelling")
    trained = subject.cfg.task.context
    model = _model(subject, None if scaling is None else _completed(scaling, trained, max(multiples)))
    ids = np.asarray(Store.open(subject.run / FOLDER / "valid").columns["text"].ids)
    found = [_perplexity(model, ids, int(multiple * trained), trained, texts) for multiple in multiples]
    base = found[0]
    if base is None:
        raise ConfigError(
            f"measures.length_extrapolation.multiples: the model does not read {multiples[0]:g} times its length"
        )
    growth = [None if one is None else one / base for one in found]
    reached = [m for m, one in zip(multiples, growth, strict=True) if one is not None and one < COLLAPSE]
    lengths = tuple(float(multiple * trained) for multiple in multiples)
    signature = f"last {trained} tokens|trained on {trained}"
    figures = {
        "perplexity": Figure(base, False, "", signature, FigureCurve("tokens", lengths, tuple(found))),
        "reach": Figure(
            max(reached, default=0.0), unit="x", signature=f"longest length with less than {COLLAPSE} x the perplexity"
        ),
    }
    if (last := growth[-1]) is not None:  # learned positions end with their table
        what = f"perplexity at {multiples[-1]:g} times the trained length over that at the trained length"
        figures["growth"] = Figure(last, False, "x", what, FigureCurve("tokens", lengths, tuple(growth)))
    return figures


def _perplexity(model: SequenceModel, ids: np.ndarray, length: int, last: int, texts: int) -> float | None:
    """Return the perplexity of the last tokens of texts of ``length``; None where the model cannot read them.

    All lengths are measured on the same last tokens, so that they differ in what stands before them alone.
    """
    if model.max_length is not None and length > model.max_length:
        return None
    ends = np.linspace(len(ids) * 0.6, len(ids) - 1, texts).astype(int)
    if length > ends[0]:
        raise DataError(
            f"measures.length_extrapolation: validation text of {len(ids):,} tokens, too little for {length}"
        )
    summed, count = 0.0, 0
    for end in ends:
        row = torch.from_numpy(ids[end - length : end + 1].astype(np.int64))[None]
        nll = _token_nll(model, row)[-last:]
        summed, count = summed + float(nll.sum()), count + len(nll)
    return math.exp(min(summed / count, WORST))


@torch.inference_mode()
def _token_nll(model: SequenceModel, row: Tensor) -> Tensor:
    return F.cross_entropy(model(row[:, :-1])[0].float(), row[0, 1:], reduction="none")


def _model(subject: StudySubject, scaling: dict[str, Any] | None) -> SequenceModel:
    assert subject.run is not None, "checked before"
    content = RunDirectory.open(subject.run).weights(subject.checkpoint)
    described = content.config["model"]
    if scaling is not None:
        for position in _rotary(described):
            position["scaling"] = scaling
    model = load(from_dict(ModelConfig, described).build, content.tensors["model"]).eval()
    assert isinstance(model, SequenceModel), "a run of language_modelling"
    return model


def _rotary(plain: Any) -> Iterator[dict[str, Any]]:
    """Yield the rotary positions of a model's plain configuration."""
    if isinstance(plain, dict):
        if plain.get("kind") == "rotary":
            yield plain
        for value in plain.values():
            yield from _rotary(value)
    elif isinstance(plain, list):
        for value in plain:
            yield from _rotary(value)


def _completed(scaling: Mapping[str, Any], trained: int, factor: float) -> dict[str, Any]:
    made, kind = dict(scaling), scaling.get("kind")
    if kind in ("yarn", "dynamic_ntk_scaling", "llama3_scaling"):
        made.setdefault("trained", trained)
    if kind in ("yarn", "ntk_scaling", "linear_scaling", "llama3_scaling"):
        made.setdefault("factor", factor)
    return made
