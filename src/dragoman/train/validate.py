"""Looking at a model in the middle of its training: its loss on all of the validation set, and a few translations."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sacrebleu
import torch

from dragoman.data.batch import collate
from dragoman.decode.translator import Translator
from dragoman.model.interface import SequenceModel
from dragoman.train.events import Sample
from dragoman.train.loop import Diverged
from dragoman.train.prepare import Prepared
from dragoman.train.recipe import RunConfig


@dataclass(frozen=True)
class Seen:
    loss: float
    """Mean negative log-likelihood of a target token."""
    scores: dict[str, float]
    samples: list[Sample]


class Validator:
    """The same sentences in the same batches each time."""

    def __init__(
        self,
        cfg: RunConfig,
        data: Prepared,
        device: torch.device,
        precision: Callable[[], AbstractContextManager[Any]],
    ):
        self.cfg, self.data, self.device, self.precision = cfg, data, device, precision
        self.batches = list(in_order(data.valid.lengths, cfg.train.batch_tokens))

    def look(self, model: SequenceModel, stop: Callable[[], bool]) -> Seen | None:
        """None if ``stop`` said so meanwhile.

        Raises:
            Diverged: the loss is not a number.
        """
        model.eval()
        try:
            with torch.inference_mode(), self.precision():
                loss = self.loss(model, stop)
                if loss is None or stop():
                    return None
                if not math.isfinite(loss):
                    raise Diverged(f"the validation loss is {loss}: lower the learning rate, or train in float32")
                return Seen(loss, *self.translations(model))
        finally:
            model.train()

    def loss(self, model: SequenceModel, stop: Callable[[], bool]) -> float | None:
        summed, count = 0.0, 0.0
        for rows in self.batches:
            if stop():
                return None
            s, n = self.cfg.task.surprise(model, collate(self.data.valid, rows).to(self.device))
            summed, count = summed + s.item(), count + n.item()
        return summed / count

    def translations(self, model: SequenceModel) -> tuple[dict[str, float], list[Sample]]:
        shown, scored = self.cfg.train.samples, self.cfg.train.scored
        pairs = self.data.valid_pairs[: max(shown, scored)]
        if not pairs:
            return {}, []
        sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
        translator = Translator(model, self.data.source_tokenizer, self.data.target_tokenizer)
        outputs = [translation.text for translation in translator.translate(sources, beam=1)]
        samples = [Sample(*row) for row in zip(sources, references, outputs, strict=True)][:shown]
        if not scored:
            return {}, samples
        outputs, references = outputs[:scored], references[:scored]
        bleu, chrf = sacrebleu.corpus_bleu(outputs, [references]), sacrebleu.corpus_chrf(outputs, [references])
        return {"BLEU": bleu.score, "chrF": chrf.score}, samples


def in_order(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """All rows, shortest first, in batches of at most ``tokens`` tokens on either side, padding included."""
    order = np.argsort(lengths.max(axis=1), kind="stable")
    start = 0
    for i, longest in enumerate(lengths.max(axis=1)[order], start=1):
        if (i - start) * longest > tokens and i - 1 > start:
            yield order[start : i - 1]
            start = i - 1
    if start < len(order):
        yield order[start:]
