"""Run: a run directory as a value, with everything that one does with it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman.capabilities import (
    ANSWERS,
    CLASSIFIES,
    CONTINUES,
    DESCRIBES,
    EMBEDS,
    TAGS,
    TRANSCRIBES,
    TRANSLATES,
    ability,
)
from dragoman.checkpoint import RunDirectory
from dragoman.config import from_dict
from dragoman.decode.brief import html_table
from dragoman.errors import ConfigError
from dragoman.journal import Journal
from dragoman.model.families import ModelConfig

if TYPE_CHECKING:
    from dragoman.decode.chat import ChatModel
    from dragoman.decode.generator import Generator
    from dragoman.decode.readers.answerer import Answerer
    from dragoman.decode.readers.classifier import Classifier
    from dragoman.decode.readers.embedder import Embedder
    from dragoman.decode.readers.tagger import Tagger
    from dragoman.decode.transcriber import Transcriber
    from dragoman.decode.translator import Translator
    from dragoman.train.events import Finished

TASKS = {
    TRANSLATES: "translation", CONTINUES: "language model", CLASSIFIES: "classification", TAGS: "tagging",
    ANSWERS: "question answering", EMBEDS: "embedding", DESCRIBES: "captioning", TRANSCRIBES: "speech recognition",
}  # fmt: skip


class Run:
    """A run directory: what was trained or imported, and what became of it. It may be passed to other processes."""

    def __init__(self, path: str | Path, finished: "Finished | None" = None):
        """
        Args:
            finished: how training ended, where it ended in this program.

        Raises:
            CheckpointError: no such run.
        """
        self.path, self.finished = Path(path), finished
        RunDirectory.open(path)

    @property
    def config(self) -> dict[str, Any]:
        """Configuration as plain data."""
        return RunDirectory.open(self.path).config

    @property
    def task(self) -> str:
        """Task of the model: translation, language model, classification, tagging, ..."""
        found = ability(from_dict(ModelConfig, self.config["model"]))
        return TASKS[found] if found else "other"

    @property
    def checkpoints(self) -> list[str]:
        """Names of the checkpoints, oldest first."""
        return [checkpoint.path.name for checkpoint in RunDirectory.open(self.path).checkpoints()]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Figures of training and validation, a mapping for each report; see metrics.jsonl."""
        return list(Journal(self.path / "metrics.jsonl").lines())

    @property
    def report(self) -> Path:
        """File with the report page; it is there once the run has been validated."""
        return self.path / "report.html"

    # ---- its model ----

    def translator(self, checkpoint: str | int = "best", **options: Any) -> "Translator":
        """Load the model to translate; see ``Translator.load``."""
        from dragoman.decode.translator import Translator

        return Translator.load(self.path, checkpoint, **options)

    def generator(self, checkpoint: str | int = "best", **options: Any) -> "Generator":
        """Load the model to continue text; see ``Generator.load``."""
        from dragoman.decode.generator import Generator

        return Generator.load(self.path, checkpoint, **options)

    def chat_model(self, checkpoint: str | int = "best", **options: Any) -> "ChatModel":
        """Load the model to answer conversations; see ``ChatModel.load``."""
        from dragoman.decode.chat import ChatModel

        return ChatModel.load(self.path, checkpoint, **options)

    def classifier(self, checkpoint: str | int = "best", **options: Any) -> "Classifier":
        """Load the model to classify; see ``Classifier.load``."""
        from dragoman.decode.readers.classifier import Classifier

        return Classifier.load(self.path, checkpoint, **options)

    def tagger(self, checkpoint: str | int = "best", **options: Any) -> "Tagger":
        """Load the model to tag words; see ``Tagger.load``."""
        from dragoman.decode.readers.tagger import Tagger

        return Tagger.load(self.path, checkpoint, **options)

    def answerer(self, checkpoint: str | int = "best", **options: Any) -> "Answerer":
        """Load the model to answer questions; see ``Answerer.load``."""
        from dragoman.decode.readers.answerer import Answerer

        return Answerer.load(self.path, checkpoint, **options)

    def embedder(self, checkpoint: str | int = "best", **options: Any) -> "Embedder":
        """Load the model to embed; see ``Embedder.load``."""
        from dragoman.decode.readers.embedder import Embedder

        return Embedder.load(self.path, checkpoint, **options)

    def transcriber(self, checkpoint: str | int = "best", **options: Any) -> "Transcriber":
        """Load the model to write down speech; see ``Transcriber.load``."""
        from dragoman.decode.transcriber import Transcriber

        return Transcriber.load(self.path, checkpoint, **options)

    # ---- notebooks ----

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {', '.join(f'{name}: {value}' for name, value in self._facts())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.path.resolve() == other.path.resolve()

    def __hash__(self) -> int:
        return hash(self.path.resolve())

    def _facts(self) -> Iterable[tuple[str, str]]:
        yield "task", self.task
        if names := self.checkpoints:
            yield "last checkpoint", names[-1]
        losses = [row["loss"] for row in self.metrics if row.get("kind") == "valid" and row.get("loss") is not None]
        if losses:
            yield "best validation loss", f"{min(losses):.3f}"
        if self.finished is not None:
            yield "ended", self.finished.reason

    def _repr_html_(self) -> str:
        return html_table(("run", str(self.path)), self._facts())


def run_path(run: "str | Path | Run") -> Path:
    """Return the directory of a run that is given as such or by its path.

    Raises:
        ConfigError: something else is given.
    """
    if isinstance(run, Run):
        return run.path
    if not isinstance(run, str | Path):
        raise ConfigError(f"run: a path or a Run is expected, got {type(run).__name__}")
    return Path(run)
