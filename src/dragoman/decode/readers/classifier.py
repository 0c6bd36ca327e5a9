"""A trained classifier: texts, images or frames in, labels with their probabilities out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dragoman.capabilities import CLASSIFIES
from dragoman.decode.readers.input_reader import InputReader, Progress
from dragoman.errors import CheckpointError
from dragoman.model.encoder import Encoder
from dragoman.text.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Classified:
    """What a classifier says of an example."""

    text: str
    """The text, or what else was given is called."""
    label: str
    """The likeliest; of values, the name of the largest."""
    probability: float
    """Of that label; its value in a regression."""
    probabilities: dict[str, float]
    """Of every label: together 1, or each by itself where a text may have several; the values in a regression."""


class Classifier(InputReader):
    """A model that tells the label of an example."""

    ability = CLASSIFIES

    def __init__(self, model: Encoder, tokenizer: Tokenizer | None, config: dict[str, Any]):
        super().__init__(model, tokenizer, config)
        task = config.get("task", {})
        if not task.get("labels") or task.get("kind", "classification") != "classification":
            raise CheckpointError("this run's model was not trained to classify: start one with task: classification")
        self.labels: tuple[str, ...] = tuple(task["labels"])
        self.problem_type: str = task.get("problem_type", "single_label")

    def classify(
        self, given: Sequence[Any], progress: Progress | None = None, places: Sequence[str] | None = None
    ) -> list[Classified]:
        """The label of each text, image or array, and how sure the model is of it; in their order. ``places`` is what
        those that are no texts are called."""
        given, classified = self.checked(given, "given"), []
        names = [one if isinstance(one, str) else f"example {i}" for i, one in enumerate(given, 1)]
        for name, logits in zip(places or names, self.answers(given, progress, places), strict=True):
            probabilities = dict(zip(self.labels, self._meaning(logits).tolist(), strict=True))
            label = max(probabilities, key=probabilities.__getitem__)
            classified.append(Classified(name, label, probabilities[label], probabilities))
        return classified

    def _meaning(self, logits: Tensor) -> Tensor:
        match self.problem_type:
            case "multi_label":
                return logits.sigmoid()
            case "regression":
                return logits
        return logits.softmax(dim=0)
