"""load: any run's model, as the class that is for its task."""

from pathlib import Path
from typing import Any

from dragoman.api.run import Run, run_path
from dragoman.capabilities import ANSWERS, CLASSIFIES, CONTINUES, DESCRIBES, TAGS, TRANSCRIBES, TRANSLATES, ability
from dragoman.checkpoint import RunDirectory, run_folder
from dragoman.config import from_dict
from dragoman.decode.generator import Generator
from dragoman.decode.readers.answerer import Answerer
from dragoman.decode.readers.classifier import Classifier
from dragoman.decode.readers.embedder import Embedder
from dragoman.decode.readers.tagger import Tagger
from dragoman.decode.transcriber import Transcriber
from dragoman.decode.translator import Translator
from dragoman.model.families import ModelConfig

LoadedModel = Translator | Generator | Classifier | Tagger | Answerer | Embedder | Transcriber
_CLASSES: dict[Any, type[LoadedModel]] = {
    TRANSLATES: Translator,
    CONTINUES: Generator,
    DESCRIBES: Generator,
    CLASSIFIES: Classifier,
    TAGS: Tagger,
    ANSWERS: Answerer,
    TRANSCRIBES: Transcriber,
}


def load(run: str | Path | Run, checkpoint: str | int = "best", *, device: str = "auto", **options: Any) -> LoadedModel:
    """Load the model of a run as the class for its task.

    A model that translates is a ``Translator``, one that continues text or images a ``Generator``, one that hears
    speech a ``Transcriber``; others are a ``Classifier``, ``Tagger``, ``Answerer`` or ``Embedder``.

    Args:
        run: a run, its directory, or one of its checkpoints.
        checkpoint: ``best``, ``last``, a step number, or the name of a checkpoint.
        device: as torch names it; ``auto`` is the GPU if there is one.
        options: further arguments of ``load`` of that class, such as ``precision``.

    Raises:
        CheckpointError: no such run or checkpoint, or a damaged one.
        ConfigError: no such device.
    """
    path = run_path(run)
    config = RunDirectory.open(run_folder(path)).config
    found = ability(from_dict(ModelConfig, config["model"], where=str(path)))
    return _CLASSES.get(found, Embedder).load(path, checkpoint, device=device, **options)
