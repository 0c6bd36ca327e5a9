"""Result of evaluating a model that reads, with that of a baseline, and the base class of all evaluators."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dragoman import durable
from dragoman.checkpoint import run_folder
from dragoman.decode.readers.input_reader import Progress
from dragoman.evaluate.metrics import CountedScore, Score
from dragoman.json_files import json_text


@dataclass(frozen=True)
class EvaluationResult:
    """Scores and outputs of a model on one test set."""

    scores: dict[str, Score]
    baseline: dict[str, Score]
    """Scores of a simple method on the same examples; empty where it does not apply."""
    baseline_name: str
    outputs: tuple[dict[str, Any], ...]
    """Outputs, one for each example, with the reference."""
    details: dict[str, Any] = field(default_factory=dict)
    """Further results, such as a confusion matrix."""
    test_set: str = ""
    """Test set, as ``folders.corpus_id`` identifies it."""
    counted: dict[str, CountedScore] = field(default_factory=dict, repr=False, compare=False)
    """Counts of each score, an example a row, from which it is computed on resampled test sets; not stored."""

    def save(self, folder: str | Path) -> None:
        """Write scores.json and outputs.jsonl, all or nothing; earlier results are replaced."""
        lines = (json_text(output) + "\n" for output in self.outputs)
        with durable.folder(Path(folder)) as new:
            text = json_text(self.summary(), indent=1) + "\n"
            durable.write(new / "scores.json", text.encode())
            durable.write(new / "outputs.jsonl", "".join(lines).encode())

    def summary(self) -> dict[str, Any]:
        """Return everything but the outputs, as plain data."""
        scores, baseline = ({name: asdict(one) for name, one in of.items()} for of in (self.scores, self.baseline))
        known = {"scores": scores, "baseline": baseline, "baseline_name": self.baseline_name}
        return known | {"test_set": self.test_set} | self.details | {"sentences": len(self.outputs)}


class Evaluator(ABC):
    """The evaluation of one run."""

    verb: str
    """Name of the activity, for the progress bar."""

    def __init__(self, run: str | Path, checkpoint: str = "best", *, device: str = "auto"):
        self.data = run_folder(run) / "data"
        """Folder with the run's prepared data, which may be gone."""
        self.load(run, checkpoint, device)

    @abstractmethod
    def load(self, run: str | Path, checkpoint: str, device: str) -> None:
        """Load the model of a run.
        Raises:
            CheckpointError: no such run or checkpoint.
        """

    @abstractmethod
    def examples(self, named: str | None, kept: str = "test") -> Sequence[Any]:
        """Return the test set that the user names, or the one that the run stores under the name ``kept``.

        Raises:
            ConfigError, DataError: one that cannot be read; the message names the place.
        """

    @abstractmethod
    def evaluate(
        self,
        examples: Sequence[Any],
        *,
        baseline: bool = True,
        folder: str | Path | None = None,
        progress: Progress | None = None,
    ) -> EvaluationResult:
        """Run the model and, if wanted, the baseline; compare with the references, and store the result in ``folder``.

        Raises:
            DataError: nothing to evaluate on, or an example that the model cannot read.
        """
