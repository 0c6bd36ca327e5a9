"""Measure of a language model on longer texts than it was trained on.

N texts, L lengths.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from dragoman.checkpoint import RunDirectory
from dragoman.compare.figure import Figure, FigureCurve, StudySubject, scored
from dragoman.config import from_dict
from dragoman.data.tasks import LanguageModellingTask
from dragoman.errors import ConfigError, DataError
from dragoman.evaluate.metrics import Metric
from dragoman.model.families import ModelConfig
from dragoman.model.interface import SequenceModel
from dragoman.model.loading import load
from dragoman.text.store import Store
from dragoman.train.tasks.task_data import FOLDER

WORST = 50.0
"""Largest mean negative log-likelihood that is told apart, in nats: results are finite."""
COLLAPSE = 1.5
"""Perplexity, relative to that of the run's own model at the trained length, from which it counts as collapsed."""


def length_extrapolation(
    subject: StudySubject,
    *,
    multiples: Annotated[Sequence[PositiveFloat], Field(min_length=1)] = (1, 2, 4, 8),
    texts: PositiveInt = 8,
    scaling: Mapping[str, Any] | None = None,
) -> Mapping[str, Figure]:
    """Return the perplexity of the last trained-length tokens of texts of 1, 2, 4 and 8 times the trained length.

    Where a model makes use of what it can see, the perplexity falls with length; where positions fail, it rises. What
    it rises from is always the model as it was trained, at the trained length: a scaling that harms the model at all
    lengths reaches nowhere.

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
    ids = np.asarray(Store.open(subject.run / FOLDER / "valid").columns["text"].ids)
    own = model = _model(subject, None)
    if scaling is not None:
        model = _model(subject, _completed(scaling, trained, max(multiples)))
    base = _counts(own, ids, trained, trained, texts)
    at = [_counts(model, ids, int(multiple * trained), trained, texts) for multiple in multiples]
    if base is None or at[0] is None:
        raise ConfigError(
            f"measures.length_extrapolation.multiples: the model does not read {multiples[0]:g} times its length"
        )
    counts = np.stack([base, *(one for one in at if one is not None)], axis=1)  # (N, 1 + L, 2)
    read = [multiple for multiple, one in zip(multiples, at, strict=True) if one is not None]

    def curve(values: Sequence[float]) -> FigureCurve:
        known = dict(zip(read, values, strict=True))
        lengths = tuple(float(multiple * trained) for multiple in multiples)
        return FigureCurve("tokens", lengths, tuple(known.get(multiple) for multiple in multiples))

    def reach(found: Sequence[float]) -> float:
        return max((m for m, one in zip(read, growth(found), strict=True) if one < COLLAPSE), default=0.0)

    found = perplexities(counts.sum(axis=0))
    usual = f"that of the run's own model at the trained length, {trained} tokens"
    signature = f"last {trained} tokens|trained on {trained}"
    first = OfPerplexities("perplexity", lambda found: found[1], signature)
    furthest = OfPerplexities(
        "reach", reach, f"longest length with a perplexity of less than {COLLAPSE} x {usual}", higher_is_better=True
    )
    figures = {
        "perplexity": scored(first, counts, curve=curve(found[1:])),
        "reach": scored(furthest, counts, unit="x"),
    }
    if at[-1] is not None:  # learned positions end with their table
        what = f"perplexity at {multiples[-1]:g} times the trained length over {usual}"
        last = OfPerplexities("growth", lambda found: growth(found)[-1], what)
        figures["growth"] = scored(last, counts, unit="x", curve=curve(growth(found)))
    return figures


class OfPerplexities(Metric):
    """Figure made of perplexities (1 + L): that of the run's own model at the trained length, and one at each length.

    Counts (N, 1 + L, 2) hold the negative log-likelihood and the number of tokens of each text.
    """

    def __init__(
        self, name: str, of: Callable[[Sequence[float]], float], signature: str, *, higher_is_better: bool = False
    ):
        self.name, self.of, self.signature, self.higher_is_better = name, of, signature, higher_is_better

    def counts(self, outputs: Sequence[Any], references: Sequence[Any]) -> np.ndarray:
        raise NotImplementedError("perplexity is counted from log-probabilities, not from outputs")

    def value(self, counts: np.ndarray) -> float:
        return self.of(perplexities(counts))


def perplexities(counts: Float[np.ndarray, "L 2"]) -> list[float]:
    """Return the perplexity of each negative log-likelihood with its number of tokens."""
    return [math.exp(min(nll / tokens, WORST)) for nll, tokens in counts]


def growth(found: Sequence[float]) -> list[float]:
    """Return all but the first of the perplexities, over the first."""
    return [one / found[0] for one in found[1:]]


def _counts(
    model: SequenceModel, ids: np.ndarray, length: int, last: int, texts: int
) -> Float[np.ndarray, "N 2"] | None:
    """Return the negative log-likelihood of the last tokens of texts of ``length``, with their number, for each text;
    None where the model cannot read them.

    All lengths are measured on the same last tokens, so that they differ in what stands before them alone.
    """
    if model.max_length is not None and length > model.max_length:
        return None
    ends = np.linspace(len(ids) * 0.6, len(ids) - 1, texts).astype(int)
    if length > ends[0]:
        raise DataError(
            f"measures.length_extrapolation: validation text of {len(ids):,} tokens, too little for {length}"
        )
    rows = (torch.from_numpy(ids[end - length : end + 1].astype(np.int64))[None] for end in ends)
    found = [_token_nll(model, row)[-last:] for row in rows]
    return np.array([[float(nll.sum()), len(nll)] for nll in found])


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
