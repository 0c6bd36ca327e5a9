"""Classification: texts, images or frames in, labels with their probabilities out."""

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
    """A classified example."""

    text: str
    """The text, or the name of an example that is no text."""
    label: str
    """Most probable label; in a regression, the name of the largest value."""
    probability: float
    """Probability of that label; in a regression, its value."""
    probabilities: dict[str, float]
    """Probability of every label. They add up to 1 unless a text may have several labels. In a regression, values."""


class Classifier(InputReader):
    """A model that labels examples."""

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
        """Return the labels of each text, image or array with their probabilities, in their order.

        An image is a path, the bytes of a file, an image of Pillow or an array of NumPy. ``places`` are the names of
        examples that are no texts.
        """
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
