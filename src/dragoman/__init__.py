"""Dragoman trains, runs and explains Transformers.

    from dragoman import train

    run = train(pairs=[("Door", "Puerta"), ...], minutes=10)
    run.translator().translate(["The door is open."])[0].text

The names below are the library's public ones; each is imported when it is first used.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dragoman.api.arrays import AttentionWeights, TokenStates, attention_weights, encoder_states
    from dragoman.api.exchange import Exported, export, import_checkpoint, import_notes
    from dragoman.api.models import load
    from dragoman.api.results import Verification, calibrate, evaluate, verify
    from dragoman.api.run import Run
    from dragoman.api.training import resume, train
    from dragoman.decode.chat import ChatModel
    from dragoman.decode.chat_template import ChatTemplate
    from dragoman.decode.constraints.first_token import FirstToken
    from dragoman.decode.constraints.glossary import Glossary, GlossaryEntry
    from dragoman.decode.constraints.repetition import (
        CountPenalty,
        Forbidden,
        MinimumLength,
        NoRepeat,
        RepetitionPenalty,
    )
    from dragoman.decode.generator import Generation, Generator
    from dragoman.decode.knn import NearestNeighbours, build_datastore
    from dragoman.decode.readers.answerer import Answerer
    from dragoman.decode.readers.classifier import Classifier
    from dragoman.decode.readers.embedder import Embedder
    from dragoman.decode.readers.tagger import Tagger
    from dragoman.decode.request import Request
    from dragoman.decode.search.beam import Beam
    from dragoman.decode.search.coverage import CoveringBeam
    from dragoman.decode.search.diverse import DiverseBeam
    from dragoman.decode.search.greedy import Greedy
    from dragoman.decode.search.length_penalty import Average, Gnmt, NoPenalty
    from dragoman.decode.search.minimum_risk import MinimumBayesRisk
    from dragoman.decode.search.sample import Sample
    from dragoman.decode.search.speculative import DraftModel, PromptLookup, Speculative
    from dragoman.decode.search.strategy import LengthLimit
    from dragoman.decode.transcriber import Transcriber, Transcription
    from dragoman.decode.translation import Candidate, Translation
    from dragoman.decode.translator import Translator
    from dragoman.errors import CheckpointError, ConfigError, DataError, StoppedEarly, UserError
    from dragoman.evaluate.calibrate import Calibrated
    from dragoman.evaluate.evaluation import Evaluation
    from dragoman.evaluate.language_modelling import LanguageModelEvaluation
    from dragoman.evaluate.outcome import EvaluationResult
    from dragoman.text.memory import TranslationMemory

__version__ = "0.1.0"
__all__ = [
    "Answerer",
    "AttentionWeights",
    "Average",
    "Beam",
    "Calibrated",
    "Candidate",
    "ChatModel",
    "ChatTemplate",
    "CheckpointError",
    "Classifier",
    "ConfigError",
    "CountPenalty",
    "CoveringBeam",
    "DataError",
    "DiverseBeam",
    "DraftModel",
    "Embedder",
    "Evaluation",
    "EvaluationResult",
    "Exported",
    "FirstToken",
    "Forbidden",
    "Generation",
    "Generator",
    "Glossary",
    "GlossaryEntry",
    "Gnmt",
    "Greedy",
    "LanguageModelEvaluation",
    "LengthLimit",
    "MinimumBayesRisk",
    "MinimumLength",
    "NearestNeighbours",
    "NoPenalty",
    "NoRepeat",
    "PromptLookup",
    "RepetitionPenalty",
    "Request",
    "Run",
    "Sample",
    "Speculative",
    "StoppedEarly",
    "Tagger",
    "TokenStates",
    "Transcriber",
    "Transcription",
    "Translation",
    "TranslationMemory",
    "Translator",
    "UserError",
    "Verification",
    "__version__",
    "attention_weights",
    "build_datastore",
    "calibrate",
    "encoder_states",
    "evaluate",
    "export",
    "import_checkpoint",
    "import_notes",
    "load",
    "resume",
    "train",
    "verify",
]

_HOMES = {
    "api.arrays": "AttentionWeights TokenStates attention_weights encoder_states",
    "api.exchange": "Exported export import_checkpoint import_notes",
    "api.models": "load",
    "api.results": "Verification calibrate verify",
    "api.run": "Run",
    "api.training": "resume",
    "decode.chat": "ChatModel",
    "decode.chat_template": "ChatTemplate",
    "decode.constraints.first_token": "FirstToken",
    "decode.constraints.glossary": "Glossary GlossaryEntry",
    "decode.constraints.repetition": "CountPenalty Forbidden MinimumLength NoRepeat RepetitionPenalty",
    "decode.generator": "Generation Generator",
    "decode.knn": "NearestNeighbours build_datastore",
    "decode.readers.answerer": "Answerer",
    "decode.readers.classifier": "Classifier",
    "decode.readers.embedder": "Embedder",
    "decode.readers.tagger": "Tagger",
    "decode.request": "Request",
    "decode.search.beam": "Beam",
    "decode.search.length_penalty": "Average Gnmt NoPenalty",
    "decode.search.coverage": "CoveringBeam",
    "decode.search.diverse": "DiverseBeam",
    "decode.search.greedy": "Greedy",
    "decode.search.minimum_risk": "MinimumBayesRisk",
    "decode.search.sample": "Sample",
    "decode.search.speculative": "DraftModel PromptLookup Speculative",
    "decode.search.strategy": "LengthLimit",
    "decode.transcriber": "Transcriber Transcription",
    "decode.translation": "Candidate Translation",
    "decode.translator": "Translator",
    "errors": "CheckpointError ConfigError DataError StoppedEarly UserError",
    "evaluate.calibrate": "Calibrated",
    "evaluate.evaluation": "Evaluation",
    "evaluate.language_modelling": "LanguageModelEvaluation",
    "evaluate.outcome": "EvaluationResult",
    "text.memory": "TranslationMemory",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}
_FUNCTIONS = {"train": "api.training", "evaluate": "api.results"}
"""Packages that are called like the function of the same name, and where that function is."""


class _CallablePackage(ModuleType):
    """A package such as ``dragoman.train``, which may also be called as the public function of its name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    @property
    def _function(self) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(f"dragoman.{_FUNCTIONS[name]}"), name)

    @property
    def __signature__(self) -> Any:
        import inspect

        return inspect.signature(self._function)


class _Package(ModuleType):
    """This package. Importing ``dragoman.train`` or one of its modules puts the package here, and makes it callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FUNCTIONS and type(value) is ModuleType:
            value.__class__ = _CallablePackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return importlib.import_module(f"dragoman.{name}")
    if name in _HOME:  # torch takes a second to import: only who uses a name waits for it
        return getattr(importlib.import_module(f"dragoman.{_HOME[name]}"), name)
    raise AttributeError(f"module 'dragoman' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
