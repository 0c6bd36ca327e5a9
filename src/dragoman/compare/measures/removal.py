"""Measures of a trained model with one layer left out, and of trees that it writes.

N sentences, L layers, Q counts of each sentence.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from pydantic import PositiveInt
from torch import Tensor, nn

from dragoman.checkpoint import load_writer
from dragoman.compare.figure import Figure, FigureCurve, StudySubject, mean_of, scored
from dragoman.decode.request import request_for
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError
from dragoman.evaluate.brackets import BracketF1
from dragoman.evaluate.metrics import METRICS, Metric
from dragoman.model.norm import NoResidual
from dragoman.model.tower import Tower
from dragoman.text.held_out import read_held_out
from dragoman.train.tasks.task_data import FOLDER

Sublayer = Literal["attention", "cross-attention", "feed-forward"]
_RESIDUALS: dict[str, str] = {
    "attention": "mixer_residual",
    "cross-attention": "cross_residual",
    "feed-forward": "mlp_residual",
}


class ScoreLost(Metric):
    """Part of a score that is lost without a sublayer, in percent: its mean over layers, or another summary."""

    higher_is_better = False

    def __init__(self, metric: Metric, signature: str, over: Callable[[Sequence[float]], Any] = np.mean):
        self.name, self.metric, self.over = f"{metric.name} lost", metric, over
        self.signature = f"{signature}|{metric.signature}"

    def counts(self, outputs: Sequence[Sequence[str]], references: Sequence[str]) -> np.ndarray:
        """Return counts (N, 1 + L, Q) of the texts of the whole model, and then of those without each layer."""
        return np.stack([self.metric.counts(texts, references) for texts in outputs], axis=1)

    def by_layer(self, counts: np.ndarray) -> list[float]:
        """Return the part that is lost without each layer for counts (1 + L, Q) summed over sentences."""
        whole, *left = map(self.metric.value, counts)
        return [100 * (whole - one) / max(whole, 1e-9) for one in left]

    def value(self, counts: np.ndarray) -> float:
        return float(self.over(self.by_layer(counts)))


def layer_removal(
    subject: StudySubject, *, sublayer: Sublayer = "attention", sentences: PositiveInt = 200
) -> Mapping[str, Figure]:
    """Return how much BLEU a translator loses when one of its sublayers is left out, the mean over layers.

    Args:
        subject: the run of a Transformer that translates.
        sublayer: kind of sublayer that is left out, with its norm, in one layer at a time.
        sentences: validation sentences that are translated.

    Raises:
        ConfigError: no translator with such sublayers.
    """
    if sublayer not in _RESIDUALS:
        raise ConfigError(f"measures.layer_removal.sublayer: {sublayer!r} is none of {', '.join(_RESIDUALS)}")
    translator, sources, references = _translator(subject, sentences)

    def written() -> list[str]:
        return [found.text for found in translator.translate(sources, beam=1, longest=None)]

    outputs, names = [written()], []
    for name, block in _blocks(translator.model):
        with _without(block, _RESIDUALS[sublayer]) as found:
            if found:
                names.append(name)
                outputs.append(written())
    if not names:
        raise ConfigError(f"measures.layer_removal: the model has no {sublayer} to leave out")
    bleu, signature = METRICS["bleu"], f"{sublayer} of one layer|greedy"
    lost, most = ScoreLost(bleu, signature), ScoreLost(bleu, signature, max)
    counts = lost.counts(outputs, references)
    curve = FigureCurve("layer", tuple(names), tuple(lost.by_layer(counts.sum(axis=0))))
    return {
        "BLEU lost": scored(lost, counts, unit="%", curve=curve),
        "BLEU lost at most": scored(most, counts, unit="%"),
        "BLEU of the whole": scored(bleu, counts[:, 0]),
    }


def _translator(subject: StudySubject, sentences: int) -> tuple[Translator, list[Any], list[str]]:
    if subject.run is None:
        raise ConfigError("measures: needs trained runs, and this study trains nothing")
    model, source, target, _ = load_writer(subject.run, subject.checkpoint)
    pairs = read_held_out(subject.run / FOLDER / "valid.jsonl")[:sentences]
    return Translator(model, source, target), list(map(request_for, pairs)), [pair.target for pair in pairs]


def _blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for side, tower in model.named_children():
        if isinstance(tower, Tower):
            for number, block in enumerate(tower.blocks, 1):
                yield f"{side} {number}", block


class _ResultUnused(nn.Module):
    """x -> x where the sublayer is computed all the same, so that its cache holds what those of other layers do."""

    def forward(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        f(x)
        return x


@contextmanager
def _without(block: nn.Module, residual: str) -> Iterator[bool]:
    """Leave out a sublayer inside the block; yield whether there is one."""
    kept = getattr(block, residual, None)
    if kept is None or isinstance(kept, NoResidual):
        yield False
        return
    setattr(block, residual, _ResultUnused())
    try:
        yield True
    finally:
        setattr(block, residual, kept)


def brackets(subject: StudySubject, *, sentences: PositiveInt = 200, beam: PositiveInt = 1) -> Mapping[str, Figure]:
    """Return the F1 of labelled brackets in the trees that a translator writes for validation sentences.

    Args:
        subject: the run of a translator from sentences to trees.
        sentences: number of sentences.
        beam: hypotheses kept.
    """
    translator, sources, references = _translator(subject, sentences)
    outputs = [found.text for found in translator.translate(sources, beam=beam)]
    metric = BracketF1()
    exact = [100.0 * (a == b) for a, b in zip(outputs, references, strict=True)]
    return {
        "bracket F1": scored(metric, metric.counts(outputs, references), unit="%"),
        "trees that are right": mean_of(exact, unit="%"),
    }
