"""A trained classifier: texts in, labels with their probabilities out.

B texts of a batch, K labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.checkpoint import load_reader
from dragoman.data.labels import encode, padded
from dragoman.decode.forced import batches_by_length
from dragoman.decode.precision import made_ready
from dragoman.errors import CheckpointError
from dragoman.model.interface import EncoderModel, Tokens
from dragoman.text.tokenizer import Tokenizer

BATCH_TOKENS = 8192
"""Tokens read at a time, padding included."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Classified:
    """What a classifier says of a text."""

    text: str
    label: str
    """The likeliest."""
    probability: float
    probabilities: dict[str, float]
    """Of every label."""


class Reader:
    """A model that reads whole texts, with its tokenizer."""

    def __init__(self, model: EncoderModel, tokenizer: Tokenizer, config: dict[str, Any]):
        self.model, self.tokenizer, self.config = model, tokenizer, config
        longest = config.get("data", {}).get("longest")
        self.longest = min(filter(None, (longest, model.max_length)), default=512)

    @classmethod
    def load(cls, run: str | Path, which: str | int = "best", *, device: str = "auto"):
        """
        Args:
            run: a run directory, or one of its checkpoints.
            which: ``best``, ``last``, a step, or the name of a checkpoint.
            device: as torch names it; ``auto`` is the GPU if there is one.

        Raises:
            CheckpointError: no such run or checkpoint, a damaged one, or one whose model does something else.
            ConfigError: no such device.
        """
        model, tokenizer, config = load_reader(run, which)
        return cls(made_ready(model, device), tokenizer, config)

    @torch.inference_mode()
    def answers(self, texts: Sequence[str], progress: Progress | None = None) -> Float[Tensor, "B K"]:
        """What ``answer`` makes of each text, in their order, read in batches of like length."""
        rows = encode(self.tokenizer, texts, self.longest)
        device = next(self.model.parameters()).device
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        done = 0
        for batch in batches_by_length([len(row) for row in rows], BATCH_TOKENS):
            answers = self.answer(padded([rows[i] for i in batch]).to(device)).float().cpu()
            for i, answer in zip(batch, answers, strict=True):
                found[i] = answer
            done += len(batch)
            if progress:
                progress(done, len(rows))
        return torch.stack(found) if found else torch.empty(0, 0)

    def answer(self, inputs: Tensor | Tokens) -> Tensor:
        """What the model's head makes of a batch."""
        return self.model(inputs)


class Classifier(Reader):
    """A model that tells the label of a text."""

    def __init__(self, model: EncoderModel, tokenizer: Tokenizer, config: dict[str, Any]):
        super().__init__(model, tokenizer, config)
        labels = config.get("task", {}).get("labels")
        if not labels:
            raise CheckpointError("this run's model was not trained to classify: start one with task: classification")
        self.labels: tuple[str, ...] = tuple(labels)

    def classify(self, texts: Sequence[str], progress: Progress | None = None) -> list[Classified]:
        """The label of each text, and how sure the model is of it; in their order."""
        classified = []
        for text, p in zip(texts, self.answers(texts, progress).softmax(dim=1).tolist(), strict=True):
            probabilities = dict(zip(self.labels, p, strict=True))
            label = max(probabilities, key=probabilities.__getitem__)
            classified.append(Classified(text, label, probabilities[label], probabilities))
        return classified
