"""What a task brings to a run: its text made ready in the run directory, the batches of each step, and its examination.

``Run`` knows no task; it asks the lesson. A further task is a file with a ``TaskData`` and a line in ``__init__.py``.

    runs/NAME/data/   what the lesson has prepared, and report.json: what was read, kept and left out

The folder takes its name when all of it is there, so a run that died while preparing begins anew.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from dragoman.checkpoint import RunDirectory
from dragoman.config import kind_of, unknown
from dragoman.errors import ConfigError, VocabularyError
from dragoman.text.tokens.extension import tokens_per_text
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import SMALLEST, Bytes, Loaded, TokenizerConfig
from dragoman.train.events import Notice, Preparing, ValidationSample
from dragoman.train.loop import Diverged
from dragoman.train.recipe import RunConfig
from dragoman.train.warm_start import WarmStart

FOLDER = "data"
SHOWN = 1000
"""Texts of each side by which a vocabulary that has grown is compared with what it was."""


class StepPlan(Protocol):
    """Which rows each step learns from: a function of text, seed and step alone."""

    steps_per_epoch: int

    @property
    def padding_share(self) -> float:
        """Of the positions that the model computes on, how many are padding."""
        ...

    def at(self, step: int) -> Sequence[Any]:
        """What ``TaskData.batch`` makes each of the step's micro-batches of. Steps count from 0."""
        ...


@dataclass(frozen=True)
class ValidationResult:
    """How a model does on the validation set."""

    loss: float
    scores: dict[str, float]
    samples: list[ValidationSample]
    cost: float | None = None
    """What the best checkpoint is chosen by, the lower the better; None for the loss."""

    def by(self, best_by: str | None) -> float:
        """The same, as ``train.best_by`` has it."""
        if best_by is None:
            return self.loss if self.cost is None else self.cost
        return self.loss if best_by == "loss" else 1 - self.scores[best_by] / 100


class TaskData(ABC):
    """A task's data, ready to be learned from. ``prepare`` makes what ``open`` finds."""

    learns_from: tuple[type, ...]
    """The kinds of ``data`` that the task takes."""
    model: type
    """The family of models that it takes."""
    scores: tuple[str, ...] = ()
    """Figures in percent, the higher the better, that ``train.best_by`` may name."""
    gives_fields: bool = False
    """True where tokens are told apart by the part of a row that they stand in."""

    @classmethod
    def check(cls, cfg: RunConfig) -> None:
        """Look for what does not fit, before anything is begun.

        Raises:
            ConfigError: another kind of data or model than the task takes, sizes that do not fit one another, or a
                figure that the task does not have.
        """
        for name, given, wanted in (("data", cfg.data, cls.learns_from), ("model", cfg.model, (cls.model,))):
            if not isinstance(given, wanted):
                task, kinds = kind_of(type(cfg.task)), " or ".join(map(kind_of, wanted))
                raise ConfigError(f"{name}: {task} takes {kinds}, not {kind_of(type(given))}")
        known = ("loss", *cls.scores)
        if cfg.train.best_by not in (None, *known):
            raise ConfigError(unknown("train.best_by", cfg.train.best_by, known))
        model = cls.outline(cfg)
        cls.check_fields(model)
        if cfg.start_from:
            cfg.start_from.check(model)

    @classmethod
    def check_fields(cls, model: nn.Module) -> None:
        """
        Raises:
            ConfigError: attention goes by the fields of tokens, and the task gives them none.
        """
        for name, module in model.named_modules():
            visibility = getattr(module, "visibility", None)
            if not cls.gives_fields and getattr(visibility, "needs_fields", False):
                path = name.replace(".blocks.", ".pattern.")
                raise ConfigError(
                    f"model.{path}.visibility: {kind_of(type(visibility))} goes by the field of each token, and this "
                    "task gives them none: use another visibility"
                )

    @classmethod
    @abstractmethod
    def outline(cls, cfg: RunConfig) -> nn.Module:
        """The model in shape alone, without memory for its weights.

        Raises:
            ConfigError: sizes that do not fit one another, with the path.
        """

    @classmethod
    @abstractmethod
    def prepare(cls, cfg: RunConfig, run: RunDirectory) -> Iterator[Preparing | Notice]:
        """Do what has not been done yet; a line for each stage.

        Raises:
            DataError: text that cannot be read, or too little of it left.
        """

    @classmethod
    @abstractmethod
    def open(cls, cfg: RunConfig, run: RunDirectory) -> "TaskData":
        """What ``prepare`` has left in the run directory."""

    @abstractmethod
    def fill(self, cfg: RunConfig) -> RunConfig:
        """``cfg`` with all that only the data can tell."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """How much there is, for the line that a run begins with."""

    @abstractmethod
    def plan(self, cfg: RunConfig) -> StepPlan: ...

    @abstractmethod
    def batch(self, rows: Any) -> Any:
        """The tensors of a micro-batch, with ``to(device)``."""

    @abstractmethod
    def size(self, rows: Any) -> tuple[int, int]:
        """Positions of the micro-batch that are not padding, and all of them."""

    def origins(self, rows: Any) -> dict[str, int]:
        """How many of the micro-batch's tokens, on either side, are from each source, where there are several."""
        return {}

    @abstractmethod
    def validator(self, cfg: RunConfig, device: torch.device) -> "Validator": ...


class Validator(ABC):
    """The same questions each time; none of them changes the model."""

    questions: int
    """Batches; 0 where there is nothing to validate with."""

    @abstractmethod
    def validate(self, model: Any, stop: Callable[[], bool]) -> ValidationResult | None:
        """None if ``stop`` said so meanwhile."""


def earlier_tokenizers(
    init: WarmStart, sources: Iterable[str], targets: Iterable[str] = ()
) -> Generator[Notice, None, tuple[Tokenizer, Tokenizer]]:
    """Those of the run that this one begins with, which learn from the texts if they are to grow; a line says what that
    does for the first few of these."""
    sides = [_Remembering(sources), _Remembering(targets)]
    made = init.tokenizers(*sides)
    for old, new in zip(RunDirectory.open(init.run).tokenizers(), made, strict=True):
        if len(new) > len(old):
            joint = made[0] is made[1]
            some = [text for side in (sides if joint else [sides[made.index(new)]]) for text in side.first]
            before, after = tokens_per_text(old, some), tokens_per_text(new, some)
            yield Notice(
                f"vocabulary: {len(old):,} -> {len(new):,} entries; tokens in one of these texts "
                f"{before:.1f} -> {after:.1f}"
            )
            if joint:
                break
    return made


def learned_tokenizer(
    cfg: TokenizerConfig, texts: Callable[[], Iterable[str]], marks: Sequence[str] = (), setting: str = "tokenizer"
) -> Generator[Notice, None, Tokenizer]:
    """A tokenizer for ``texts``, as large as ``cfg`` has it, or as they yield; a line says where that is less."""
    wanted = cfg
    while True:
        try:
            tokenizer = Tokenizer.train(cfg, texts(), marks)
        except VocabularyError as error:
            if error.found < SMALLEST or isinstance(cfg, Loaded | Bytes):
                raise
            cfg = replace(cfg, vocab=error.found)
        else:
            break
    if cfg != wanted:
        yield Notice(
            f"small text: it yields fewer tokens than the {getattr(wanted, 'vocab', 0):,} asked for; trained with "
            f"{setting}.vocab={getattr(cfg, 'vocab', 0)}"
        )
    return tokenizer


class _Remembering:
    """Texts that pass by, and the first few of them."""

    def __init__(self, texts: Iterable[str]):
        self.texts, self.first = texts, list[str]()

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            if len(self.first) < SHOWN:
                self.first.append(text)
            yield text


def mean_nll(nll: Callable[[Any], tuple[Any, Any]], batches: Any, stop: Callable[[], bool]) -> float | None:
    """Over all tokens of all ``batches``; None if ``stop`` said so meanwhile.

    Raises:
        Diverged: it is not a number.
    """
    summed, count = 0.0, 0.0
    for batch in batches:
        if stop():
            return None
        s, n = nll(batch)
        summed, count = summed + s.item(), count + n.item()
    return finite(summed / max(count, 1.0))


def finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise Diverged(f"the validation loss is {loss}: lower the learning rate, or train in float32")
    return loss
