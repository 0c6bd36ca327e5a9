"""Settings that fit into memory: micro-batch, accumulation, activation checkpointing and precision.

A step's gradient is a sum over its tokens, so a batch in k pieces learns the same in about a k-th of the memory for
activations. Pieces cost next to no time until they are small; checkpointing costs a third; so pieces come first.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

SMALLEST = 256
"""Tokens of a micro-batch below which pieces cost more time than activation checkpointing: products of few rows read
the weights as often as those of many."""
LARGEST = 1 << 20
"""Most tokens of a micro-batch that are tried."""


@dataclass(frozen=True)
class FitSetting:
    """Settings that decide the memory of a step and change nothing that it learns, but for rounding."""

    batch_tokens: int
    accumulate: int = 1
    recompute: bool = False
    precision: str = "float32"

    def settings(self, before: "FitSetting") -> str:
        """Return what differs from ``before``, as the command line takes it."""
        changed = (field.name for field in dataclasses.fields(self))
        pairs = ((name, getattr(self, name)) for name in changed if getattr(self, name) != getattr(before, name))
        return " ".join(f"train.{name}={str(value).lower()}" for name, value in pairs)


@dataclass(frozen=True)
class Fit:
    """Result of a search for settings that fit."""

    wanted: FitSetting
    needed: int
    """Bytes that ``wanted`` needs."""
    available: int
    """Bytes that there are."""
    nearest: FitSetting | None
    """Fitting setting that is nearest to ``wanted``; None where nothing fits."""
    memory: int
    """Bytes that ``nearest`` needs, or the least that was found."""
    largest: FitSetting | None
    """Setting with the largest micro-batch that fits as wanted otherwise; None where ``wanted`` does not fit."""

    @property
    def fits(self) -> bool:
        return self.needed <= self.available


def fit(
    memory: Callable[[FitSetting], int], wanted: FitSetting, available: int, *, precisions: Sequence[str] = ()
) -> Fit:
    """Return the setting nearest to ``wanted`` whose ``memory`` is within ``available`` bytes.

    Args:
        memory: bytes that a setting needs.
        precisions: others to try where nothing fits in the wanted one.
    """
    needed = memory(wanted)
    if needed <= available:
        return Fit(wanted, needed, available, wanted, needed, _largest(memory, wanted, available))
    least = needed
    for setting in _smaller(wanted, precisions):
        bytes_needed = memory(setting)
        if bytes_needed <= available:
            return Fit(wanted, needed, available, setting, bytes_needed, None)
        least = min(least, bytes_needed)
    return Fit(wanted, needed, available, None, least, None)


def _smaller(wanted: FitSetting, precisions: Sequence[str]) -> Iterator[FitSetting]:
    """Yield settings that need less memory, those that cost least time first."""
    for precision in (wanted.precision, *(name for name in precisions if name != wanted.precision)):
        base = dataclasses.replace(wanted, precision=precision)
        for recompute in (False, True) if not wanted.recompute else (True,):
            pieces = _pieces(dataclasses.replace(base, recompute=recompute), SMALLEST)
            yield from (setting for setting in pieces if setting != wanted)
        yield from _pieces(dataclasses.replace(base, recompute=True), 1, below=SMALLEST)


def _pieces(setting: FitSetting, smallest: int, below: int | None = None) -> Iterator[FitSetting]:
    """Yield ``setting`` in 1, 2, 4, ... pieces, as long as each has ``smallest`` tokens and is ``below``."""
    tokens, accumulate = setting.batch_tokens, setting.accumulate
    while tokens >= smallest or tokens == setting.batch_tokens:
        if below is None or tokens < below:
            yield dataclasses.replace(setting, batch_tokens=tokens, accumulate=accumulate)
        if tokens < 2:
            return
        tokens, accumulate = tokens // 2, 2 * accumulate


def _largest(memory: Callable[[FitSetting], int], wanted: FitSetting, available: int) -> FitSetting:
    """Return ``wanted`` with the largest micro-batch that fits, in powers of two."""
    found = wanted
    while found.batch_tokens < LARGEST:
        larger = dataclasses.replace(found, batch_tokens=2 * found.batch_tokens)
        if memory(larger) > available:
            break
        found = larger
    return found


def linear_memory(at: Callable[[FitSetting], int], smaller: int, larger: int) -> Callable[[FitSetting], int]:
    """Return the memory of any number of tokens, from ``at`` counted for ``smaller`` and ``larger`` numbers of them.

    Activations grow with the rows of a batch, all else stays, so two counts tell those of all batches of such rows.
    """
    counted: dict[tuple[bool, str], tuple[int, int]] = {}

    def memory(setting: FitSetting) -> int:
        key = setting.recompute, setting.precision
        if key not in counted:
            few, many = (dataclasses.replace(setting, batch_tokens=n) for n in (smaller, larger))
            counted[key] = at(few), at(many)
        first, second = counted[key]
        slope = (second - first) / max(1, larger - smaller)
        return round(first + slope * (setting.batch_tokens - smaller))

    return memory
