"""Checks of a model: each runs it in one way, compares the answers with a reference, and makes one row of a table.

A verifier has a check for each way of running a model; see ``writing.py`` for models that generate text and
``reading.py`` for those that only read.
"""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from dragoman.errors import ConfigError
from dragoman.machine import compiler_message
from dragoman.model.attention import Attention, explicit

S = TypeVar("S")
T = TypeVar("T")
CheckIds = tuple[int, ...]
Progress = Callable[[int, int], None]
"""Called with the number of checks done and in all."""

PRECISIONS = ["float32", "bfloat16", "int8"]
"""Precisions in which a model is run; in the one it was trained in, it must give the same answers."""
PADDING = 13
"""Columns of padding added in the checks that padding makes no difference."""
COMPILED = 4
"""Examples that a compiled model is run on."""


@dataclass(frozen=True)
class CheckFailure:
    """An example on which the answers differ."""

    row: int
    """Row number of the example, counted from 1."""
    wanted: CheckIds
    """Answer of the reference, in ids of the target vocabulary; empty for a model that only reads."""
    got: CheckIds
    difference: float | None = None
    """Difference of the numbers, where numbers were compared."""


@dataclass(frozen=True)
class Check:
    """One row of the table."""

    name: str
    searched: str
    """Values compared: answers of ``greedy`` or ``beam 5``, ``scores``, ``logits``, ``outputs``."""
    same: int
    of: int
    exact: bool
    """True where every example must be the same."""
    difference: float = 0.0
    """For answers, the mean difference of their scores; for numbers, the largest difference, see ``tolerance``."""
    failure: CheckFailure | None = None
    """First example that differs."""
    skipped: str | None = None
    """Reason why the check was not made."""

    @property
    def passed(self) -> bool:
        """True unless an example differs that must be the same."""
        return not self.exact or self.same == self.of


class CheckQuestion(NamedTuple):
    """A check that has not been made yet."""

    name: str
    searched: str
    ask: Callable[[], Check]
    """Makes the check; raises ConfigError, with the reason, where the model cannot be run in this way."""


class Verifier(ABC):
    """A model and the examples that it is checked on."""

    @abstractmethod
    def questions(self) -> list[CheckQuestion]:
        """Return all checks, in the order of the table."""

    @property
    @abstractmethod
    def examples(self) -> int:
        """Number of examples."""


def run_checks(verifier: Verifier, progress: Progress | None = None) -> Iterator[Check]:
    """Make all checks; yield each row of the table as it is known."""
    questions = verifier.questions()
    for done, question in enumerate(questions, 1):
        with torch.inference_mode():
            try:
                check = question.ask()
            except ConfigError as error:
                check = Check(*question[:2], 0, verifier.examples, exact=False, skipped=str(error))
        if progress:
            progress(done, len(questions))
        yield check


# ---- comparing ------------------------------------------------------------------------------------


def tolerance(dtype: torch.dtype) -> float:
    """Return the largest difference that the order of sums explains, relative to the largest number, or to 1.

    Log-probabilities, which searches add up in float32, may differ by ten times the tolerance of float32, or of this
    type where it is larger.
    """
    return {torch.float64: 1e-9, torch.float32: 1e-5}.get(dtype, 3e-2)


def own_precision(dtype: torch.dtype) -> str:
    """Return the precision in which a model of this type rounds no more than in training."""
    return "bfloat16" if dtype == torch.bfloat16 else "float32"


def within(
    name: str, searched: str, answers: Sequence[CheckIds], differences: Sequence[float], most: float, exact: bool
) -> Check:
    """Return the row for numbers, given the difference of each example; ``most`` is the largest allowed."""
    failures = (CheckFailure(i + 1, answers[i], answers[i], d) for i, d in enumerate(differences) if not d <= most)
    same = sum(d <= most for d in differences)
    return Check(name, searched, same, len(differences), exact, largest(differences), next(failures, None))


def largest(differences: Iterable[float]) -> float:
    """Return the largest difference: NaN where one is no number, wherever it stands, and 0 of none."""
    found = list(differences)
    return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)


# ---- ways of running a model ----------------------------------------------------------------------


def batches(rows: Sequence[T], size: int) -> list[Sequence[T]]:
    """Divide rows into batches of ``size``; the last may be smaller."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def shuffled(rows: Sequence[T], ask: Callable[[Sequence[T]], Sequence[S]]) -> list[S]:
    """Return the answers of ``ask`` to ``rows`` in another order, brought back into this order."""
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    moved = ask([rows[i] for i in order])
    return [answer for _, answer in sorted(zip(order, moved, strict=True), key=lambda pair: pair[0])]


@contextmanager
def written_out(model: nn.Module) -> Iterator[None]:
    """Make every attention run the explicit kernel instead of the fused one.

    Hooks on its weights make kernels that run whole layers or blocks of tokens step aside.

    Raises:
        ConfigError: the model has no attention.
    """
    taps = [module for name, module in model.named_modules() if name.rpartition(".")[2] == "weights"]
    if not taps:
        raise ConfigError("this model has no attention to write out")
    hooks = [tap.register_forward_hook(lambda *_: None) for tap in taps]
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    for attention in attentions:
        vars(attention)["fastest_kernel"] = lambda *_: explicit
    try:
        yield
    finally:
        for attention in attentions:
            del vars(attention)["fastest_kernel"]
        for hook in hooks:
            hook.remove()


def compiled_program(wanted: bool, forward: Callable[..., Tensor], **options: Any) -> Callable[..., Tensor]:
    """Return the compiled program of ``forward``. It raises ConfigError where torch cannot compile, so that the check
    is skipped; what the program returns is the check's to judge.

    Raises:
        ConfigError: compiling was not wanted.
    """
    if not wanted:
        raise ConfigError("it takes a minute: ask for it")

    def call(*arguments: Any) -> Tensor:
        try:  # torch compiles at the first call
            return torch.compile(forward, **options)(*arguments)
        except (RuntimeError, ImportError, OSError) as error:
            raise ConfigError(compiler_message(error)) from None

    return call
