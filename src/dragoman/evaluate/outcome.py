"""What a model that reads says on a test set, in figures, with those of a baseline beside; and who finds that out."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dragoman import durable
from dragoman.checkpoint import run_folder
from dragoman.decode.readers.input_reader import Progress
from dragoman.evaluate.metrics import Score


@dataclass(frozen=True)
class EvaluationResult:
    scores: dict[str, Score]
    baseline: dict[str, Score]
    """What something simple does on the same examples; empty where it cannot be had."""
    baseline_name: str
    outputs: tuple[dict[str, Any], ...]
    """One for each example: what the model says, and what is true."""
    details: dict[str, Any] = field(default_factory=dict)
    """More that is kept, such as how often each label was taken for each other."""
    test_set: str = ""
    """See ``folders.corpus_id``."""

    def save(self, folder: str | Path) -> None:
        """Write scores.json and outputs.jsonl, all or nothing; what stood there before gives way."""
        lines = (json.dumps(output, ensure_ascii=False) + "\n" for output in self.outputs)
        with durable.folder(Path(folder)) as new:
            text = json.dumps(self.summary(), indent=1, ensure_ascii=False) + "\n"
            durable.write(new / "scores.json", text.encode())
            durable.write(new / "outputs.jsonl", "".join(lines).encode())

    def summary(self) -> dict[str, Any]:
        """Return everything but the outputs, as plain data."""
        figures = {name: asdict(self)[name] for name in ("scores", "baseline", "baseline_name", "test_set")}
        return figures | self.details | {"sentences": len(self.outputs)}


class Examiner(ABC):
    """A run of one task, about to be examined."""

    verb: str
    """What the model does meanwhile."""

    def __init__(self, run: str | Path, which: str = "best", *, device: str = "auto"):
        self.data = run_folder(run) / "data"
        """What the run has prepared; it may be gone."""
        self.load(run, which, device)

    @abstractmethod
    def load(self, run: str | Path, which: str, device: str) -> None:
        """
        Raises:
            CheckpointError: no such run or checkpoint.
        """

    @abstractmethod
    def examples(self, named: str | None, kept: str = "test") -> Sequence[Any]:
        """The test set that a person names, or the run's own: what it has ``kept`` under this name.

        Raises:
            ConfigError, DataError: one that cannot be read; the message names the place.
        """

    @abstractmethod
    def examine(
        self,
        examples: Sequence[Any],
        *,
        baseline: bool = True,
        folder: str | Path | None = None,
        progress: Progress | None = None,
    ) -> EvaluationResult:
        """Ask the model and, if wanted, the baseline, compare with the truth, and keep what came of it in ``folder``.

        Raises:
            DataError: nothing to examine with, or an example that the model cannot read.
        """
