"""Models that a service has loaded: what each is for, and the object that answers."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dragoman.capabilities import ANSWERS, CLASSIFIES, CONTINUES, EMBEDS, TAGS, TRANSLATES, ability
from dragoman.checkpoint import checkpoint_at, run_config
from dragoman.config import from_dict
from dragoman.decode.generator import Generator
from dragoman.decode.readers.answerer import Answerer
from dragoman.decode.readers.classifier import Classifier
from dragoman.decode.readers.embedder import Embedder
from dragoman.decode.readers.tagger import Tagger
from dragoman.decode.sentence_splitting import BySentences
from dragoman.decode.translator import Translator
from dragoman.errors import CheckpointError
from dragoman.model.families import ModelConfig
from dragoman.model.interface import SequenceModel
from dragoman.model.meta_device import on_meta_device
from dragoman.plan.parameters import count_parameters

Task = Literal["translate", "generate", "classify", "tag", "answer", "embed"]
AnyModel = Translator | Generator | Classifier | Tagger | Answerer | Embedder

_LOADERS = {
    TRANSLATES: ("translate", Translator),
    CONTINUES: ("generate", Generator),
    CLASSIFIES: ("classify", Classifier),
    TAGS: ("tag", Tagger),
    ANSWERS: ("answer", Answerer),
    EMBEDS: ("embed", Embedder),
}


@dataclass(frozen=True)
class ServedModel:
    """A loaded run."""

    name: str
    """Name that requests use."""
    path: Path
    task: Task
    model: AnyModel
    source: str
    """Language that it translates from, as a code such as ``en``; "" where it is not known."""
    target: str
    """Language that it translates to; "" where it is not known."""
    tags: tuple[str, ...]
    """Tags of texts that it has learnt."""
    parameters: int
    checkpoint: str
    """Name of the checkpoint."""

    @property
    def writer(self) -> SequenceModel | None:
        """Model that the engine searches; None where it does not write."""
        return self.model.model if isinstance(self.model, Translator | Generator) else None

    @classmethod
    def load(
        cls,
        name: str,
        path: str | Path,
        *,
        device: str = "auto",
        precision: str = "auto",
        checkpoint: str | int = "best",
    ) -> "ServedModel":
        """Load a run under a name; a name such as ``en-es`` states the languages, also those between which an imported
        model for many languages translates.

        Raises:
            CheckpointError: no such run or checkpoint, a damaged one, or a model that answers no requests.
            ConfigError: no such device or precision, or a language of the name that an imported model does not have.
        """
        config = run_config(path)
        cfg = from_dict(ModelConfig, config["model"], where=str(path))
        found = ability(cfg)
        if found not in _LOADERS:
            raise CheckpointError(f"{path}: its model cannot be served: choose another run")
        task, loader = _LOADERS[found]
        options = {"device": device, "precision": precision}
        if found is TRANSLATES and (named := languages_of_name(name)):
            options |= {"source_language": named[0], "target_language": named[1]}
        model = loader.load(path, checkpoint, **options)
        source, target = languages(name, config) if found is TRANSLATES else ("", "")
        tags = tuple(model.source_tokenizer.tags) if isinstance(model, Translator) else ()
        opened = checkpoint_at(path, checkpoint).path.name
        with on_meta_device():  # the loaded model is laid out for inference
            parameters = count_parameters(cfg.build()).total
        return cls(name, Path(path), task, model, source, target, tags, parameters, opened)

    @property
    def splits(self) -> bool:
        """True where each sentence of a text is translated by itself."""
        return isinstance(self.model, Translator) and isinstance(self.model.splitter, BySentences)


def languages(name: str, config: dict[str, Any]) -> tuple[str, str]:
    """Return the languages of a translator, "" where nothing states them.

    A name such as ``en-es`` states both; else the run's cleaning does, else the names of its training files.
    """
    if named := languages_of_name(name):
        return named
    data = config.get("data") or {}
    cleaning, (source, target) = data.get("cleaning") or {}, _languages_of_files(data.get("train") or ())
    return cleaning.get("source_language") or source, cleaning.get("target_language") or target


def languages_of_name(name: str) -> tuple[str, str] | None:
    """Return the languages that a name such as ``en-es`` states; None for other names."""
    first, _, second = name.partition("-")
    return (first, second) if is_language(first) and is_language(second) else None


def is_language(code: str) -> bool:
    """Return whether ``code`` is a language code such as de, pt-BR or zh_Hans."""
    from weblate_language_data.languages import LANGUAGES

    wanted = code.replace("-", "_").lower()
    return any(wanted == language[0].lower() for language in LANGUAGES)


def _languages_of_files(sources: Iterable[Any]) -> tuple[str, str]:
    """Return the languages that the names of both sides end in, such as corpus.en and corpus.de, or en.json."""
    for source in sources:
        sides = [source.get(side) for side in ("source", "target")] if isinstance(source, dict) else []
        codes = [_language_of_file(side) if isinstance(side, str) else "" for side in sides]
        if all(codes) and codes[:1] != codes[1:]:
            return codes[0], codes[1]
    return "", ""


def _language_of_file(name: str) -> str:
    parts = name.rpartition("/")[2].split(".")
    return next((part for part in reversed(parts) if len(part) in (2, 5) and is_language(part)), "")
