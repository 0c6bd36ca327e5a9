"""Task data: a task's prepared text in the run directory, the batches of each step, and its validator.

``Trainer`` knows no task; it calls a ``TaskData``. To add a task, add a file with a ``TaskData`` and a line in
``__init__.py``.

    runs/NAME/data/   prepared text, and report.json: what was read, kept and left out

The folder gets its name once it is complete, so a run that died while preparing starts over.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from dragoman.checkpoint import RunDirectory
from dragoman.config import choices, kind_of, unknown
from dragoman.errors import ConfigError, VocabularyError
from dragoman.model.families import ModelConfig
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.tokens.extension import tokens_per_text
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import SMALLEST, Bytes, Loaded, TokenizerConfig
from dragoman.train.events import Notice, Preparing, ValidationSample
from dragoman.train.loop import Diverged
from dragoman.train.recipe import RunConfig
from dragoman.train.warm_start import WarmStart

FOLDER = "data"
SHOWN = 1000
"""Texts per side on which a vocabulary that has grown is compared with the earlier one."""


Spent = Callable[[int], float]
"""Returns the fraction of a run's budget that is spent after a step."""


class StepPlan(Protocol):
    """Plan of the rows that each step learns from: a function of text, seed and step alone."""

    steps_per_epoch: int

    @property
    def padding_share(self) -> float:
        """Fraction of the positions that the model computes that are padding."""
        ...

    def at(self, step: int) -> Sequence[Any]:
        """Return the rows of each of the step's micro-batches, for ``TaskData.batch``. Steps count from 0."""
        ...


@dataclass(frozen=True)
class ValidationResult:
    """Result of a validation."""

    loss: float
    scores: dict[str, float]
    samples: list[ValidationSample]
    cost: float | None = None
    """Value that the best checkpoint is chosen by, lower is better; None for the loss."""

    def by(self, best_by: str | None) -> float:
        """Return the value to minimise under ``train.best_by``."""
        if best_by is None:
            return self.loss if self.cost is None else self.cost
        return self.loss if best_by == "loss" else 1 - self.scores[best_by] / 100


class TaskData(ABC):
    """A task's data, ready to be learned from. ``prepare`` writes what ``open`` reads."""

    learns_from: tuple[type, ...]
    """Classes of ``data`` that the task takes."""
    model: type
    """Class of model configuration that the task takes."""
    scores: tuple[str, ...] = ()
    """Scores in percent, higher is better, that ``train.best_by`` may name."""
    rows_are_independent: bool = True
    """True where a batch's loss is the sum of its rows' losses, so that a batch can be cut by rows."""
    gives_fields: bool = False
    """True where each token has a field: the part of a row that it belongs to."""

    @classmethod
    def check(cls, cfg: RunConfig) -> None:
        """Check the configuration before anything is written.

        Raises:
            ConfigError: the task takes another kind of data or model, sizes do not fit one another, or the
                task has no such score.
        """
        for name, given, wanted in (("data", cfg.data, cls.learns_from), ("model", cfg.model, (cls.model,))):
            if not isinstance(given, wanted):
                possible = [c for c in (*cls.learns_from, *choices(ModelConfig)) if issubclass(c, wanted)]
                task, kinds = kind_of(type(cfg.task)), " or ".join(map(kind_of, possible))
                raise ConfigError(f"{name}: {task} takes {kinds}, not {kind_of(type(given))}")
        known = ("loss", *cls.scores)
        if cfg.train.best_by not in (None, *known):
            raise ConfigError(unknown("train.best_by", cfg.train.best_by, known))
        if not may_validate(cfg):
            check_unvalidated(cfg)
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
        """Build the model on the meta device, without memory for its weights.

        Raises:
            ConfigError: sizes that do not fit one another, with the path.
        """

    @classmethod
    @abstractmethod
    def prepare(cls, cfg: RunConfig, run: RunDirectory) -> Iterator[Preparing | Notice]:
        """Prepare what is not prepared yet; yield a line for each stage.

        Raises:
            DataError: text that cannot be read, or too little of it left.
        """

    @classmethod
    @abstractmethod
    def open(cls, cfg: RunConfig, run: RunDirectory) -> "TaskData":
        """Open what ``prepare`` has written to the run directory."""

    @abstractmethod
    def fill(self, cfg: RunConfig) -> RunConfig:
        """Return ``cfg`` with everything that only the data determine."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """Summary of the amount of data, for a run's first line."""

    @abstractmethod
    def plan(self, cfg: RunConfig, spent: Spent | None = None) -> StepPlan:
        """Return the plan of the rows of every step.

        Args:
            spent: fraction of the budget that is spent after each step; None for a run from its beginning.
        """

    @abstractmethod
    def batch(self, rows: Any) -> Any:
        """Return the tensors of a micro-batch, with ``to(device)``."""

    @abstractmethod
    def size(self, rows: Any) -> tuple[int, int]:
        """Return the number of the micro-batch's positions that are not padding, and of all positions."""

    def origins(self, rows: Any) -> dict[str, int]:
        """Return the micro-batch's tokens, on either side, by source, where there are several."""
        return {}

    @abstractmethod
    def validator(self, cfg: RunConfig, device: torch.device) -> "Validator": ...


class Validator(ABC):
    """Validator of a model on the same examples each time; it never changes the model."""

    num_batches: int
    """Number of batches; 0 where there is no validation data."""

    @abstractmethod
    def validate(self, model: Any, stop: Callable[[], bool]) -> ValidationResult | None:
        """Return the result; None if ``stop`` became true meanwhile."""


def may_validate(cfg: RunConfig) -> bool:
    """Return False if the configuration leaves nothing to validate with: no validation set, and none held out."""
    held = cfg.data.hold_out
    return bool(cfg.data.valid) or not isinstance(held, HoldOut) or held.valid > 0


def check_unvalidated(cfg: RunConfig) -> None:
    """Check that a run without validation examples has no settings that need them.

    Raises:
        ConfigError: such a setting.
    """
    train = cfg.train
    needing = {"patience": train.patience, "best_by": train.best_by, "scored": train.scored or None}
    for name, given in needing.items():
        if given is not None:
            raise ConfigError(
                f"train.{name}: {given} needs validation examples, and there are none: set data.valid or "
                "data.hold_out.valid, or leave this out"
            )


def warm_start_tokenizers(
    init: WarmStart, sources: Iterable[str], targets: Iterable[str] = ()
) -> Generator[Notice, None, tuple[Tokenizer, Tokenizer]]:
    """Return the tokenizers of the run that this one starts from, extended from the texts if configured; report the
    effect on the first texts."""
    sides = [_FirstTexts(sources), _FirstTexts(targets)]
    made = init.tokenizers(*sides)
    for old, new in zip(init.earlier.tokenizers(), made, strict=True):
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


def train_tokenizer(
    cfg: TokenizerConfig, texts: Callable[[], Iterable[str]], marks: Sequence[str] = (), setting: str = "tokenizer"
) -> Generator[Notice, None, Tokenizer]:
    """Train a tokenizer for ``texts``, with the vocabulary of ``cfg`` or as large as they yield; report where that is
    less."""
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


class _FirstTexts:
    """Iterable of texts that remembers the first few."""

    def __init__(self, texts: Iterable[str]):
        self.texts, self.first = texts, list[str]()

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            if len(self.first) < SHOWN:
                self.first.append(text)
            yield text


def mean_nll(nll: Callable[[Any], tuple[Any, Any]], batches: Any, stop: Callable[[], bool]) -> float | None:
    """Return the mean over all tokens of all ``batches``; None if ``stop`` became true meanwhile.

    Raises:
        Diverged: the mean is not finite.
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
