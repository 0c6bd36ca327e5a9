"""What is asked of a model, and what comes out: a row of the table for each way of asking.

A verifier has one for every way there is; see ``writing.py`` for models that write, ``reading.py`` for those that only
read.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from dragoman.errors import ConfigError
from dragoman.machine import compiler_message
from dragoman.model.attention import Attention

S = TypeVar("S")
T = TypeVar("T")
CheckIds = tuple[int, ...]
Progress = Callable[[int, int], None]
"""Called with the questions answered and their number."""

PRECISIONS = ["float32", "bfloat16", "int8"]
"""In which a model is run, its weights laid out anew; in its own it must say the same."""
PADDING = 13
"""Columns added where padding is to make no difference."""
COMPILED = 4
"""Examples that a compiled model is asked."""


@dataclass(frozen=True)
class CheckFailure:
    row: int
    """Of the examples given, counted from 1."""
    wanted: CheckIds
    """What the reference says, in ids of the target vocabulary; nothing of a model that only reads."""
    got: CheckIds
    difference: float | None = None
    """Where numbers were compared: by how much they differ."""


@dataclass(frozen=True)
class Check:
    """One row of the table."""

    name: str
    searched: str
    """What was compared: answers of ``greedy`` or ``beam 5``, ``scores``, ``logits``, ``outputs``."""
    same: int
    of: int
    exact: bool
    """Whether it must be the same, every time."""
    difference: float = 0.0
    """Of answers: the mean of how far their scores lie apart. Of numbers: the largest, see ``tolerance``."""
    failure: CheckFailure | None = None
    """The first."""
    skipped: str | None = None
    """Why it was not asked."""

    @property
    def passed(self) -> bool:
        return not self.exact or self.same == self.of


class CheckQuestion(NamedTuple):
    name: str
    searched: str
    ask: Callable[[], Check]
    """
    Raises:
        ConfigError: the model cannot be asked so; the message says why.
    """


class Verifier(ABC):
    """A model and the examples that it is asked."""

    @abstractmethod
    def questions(self) -> list[CheckQuestion]:
        """Everything that is asked, in this order."""

    @property
    @abstractmethod
    def examples(self) -> int:
        """How many there are."""


def run_checks(verifier: Verifier, progress: Progress | None = None) -> Iterator[Check]:
    """Ask everything; yield each row of the table as it is known."""
    questions = verifier.questions()
    for done, question in enumerate(questions, 1):
        with torch.inference_mode():
            try:
                check = question.ask()
            except ConfigError as unfit:
                check = Check(*question[:2], 0, verifier.examples, exact=False, skipped=str(unfit))
        if progress:
            progress(done, len(questions))
        yield check


# ---- comparing ------------------------------------------------------------------------------------


def tolerance(dtype: torch.dtype) -> float:
    """How far numbers may lie apart that are equal but for the order of sums; relative to the largest of them, or to 1.
    Logarithms of probabilities, which searches add up in float32: ten times as far as float32 logits, or these."""
    return {torch.float64: 1e-9, torch.float32: 1e-5}.get(dtype, 3e-2)


def own_precision(dtype: torch.dtype) -> str:
    """The precision in which a model of this type rounds no more than it does as it was trained."""
    return "bfloat16" if dtype == torch.bfloat16 else "float32"


def within(
    name: str, searched: str, answers: Sequence[CheckIds], apart: Sequence[float], most: float, exact: bool
) -> Check:
    """The row of numbers that lie so far ``apart``, those of an example each."""
    failures = (CheckFailure(i + 1, answers[i], answers[i], d) for i, d in enumerate(apart) if not d <= most)
    same = sum(d <= most for d in apart)
    return Check(name, searched, same, len(apart), exact, max(apart, default=0.0), next(failures, None))


# ---- ways of asking -------------------------------------------------------------------------------


def batches(rows: Sequence[T], size: int) -> list[Sequence[T]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def shuffled(rows: Sequence[T], ask: Callable[[Sequence[T]], Sequence[S]]) -> list[S]:
    """What ``ask`` answers to ``rows`` in another order, put in this one again."""
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    moved = ask([rows[i] for i in order])
    return [answer for _, answer in sorted(zip(order, moved, strict=True), key=lambda pair: pair[0])]


@contextmanager
def written_out(model: nn.Module) -> Iterator[None]:
    """Hooks on every attention's weights, which then runs written out instead of fused."""
    hooks = [m.weights.register_forward_hook(lambda *_: None) for m in model.modules() if isinstance(m, Attention)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def compiling(wanted: bool) -> Iterator[None]:
    """
    Raises:
        ConfigError: nobody asked for it, or torch cannot compile here.
    """
    if not wanted:
        raise ConfigError("it takes a minute: ask for it")
    try:
        yield
    except (RuntimeError, ImportError, OSError) as error:  # torch raises these where it cannot compile
        raise ConfigError(compiler_message(error)) from None
