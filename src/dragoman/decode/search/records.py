"""Records of a search: single steps as tensors on their device, several steps as C wrote them, and at last one array.

Nothing is fetched from a device before it is asked for.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def record_dtype(fields: type, types: str) -> np.dtype:
    """Return the type of an entry as a compiler lays out the same fields in C.

    Args:
        fields: a NamedTuple with a tensor for each field.
        types: NumPy's names of their types, in that order.
    """
    names: tuple[str, ...] = fields._fields  # pyright: ignore[reportAttributeAccessIssue]
    return np.dtype(list(zip(names, types.split(), strict=True)), align=True)


class StepRecords:
    """Record of each step of a search: a number of entries of one structured type, in order."""

    def __init__(self, dtype: np.dtype) -> None:
        """
        Args:
            dtype: type of an entry; the tensors of ``append`` are its fields.
        """
        self.dtype = dtype
        self.counts: list[int] = []
        """Number of entries of each step."""
        self._ready: list[np.ndarray] = []
        self._pending: list[Sequence[Tensor]] = []
        """Steps after those, on their device."""

    def append(self, fields: Sequence[Tensor]) -> None:
        """Append a step: a tensor for each field, all of one size."""
        self._pending.append(fields)
        self.counts.append(fields[0].numel())

    def extend(self, entries: np.ndarray, counts: Sequence[int]) -> None:
        """Append several steps, whose numbers of entries are ``counts``."""
        self._fetch()
        self._ready.append(entries)
        self.counts += counts

    @property
    def entries(self) -> np.ndarray:
        """The entries of all steps."""
        self._fetch()
        if len(self._ready) != 1:
            self._ready = [_concatenated(self._ready, self.dtype)]
        return self._ready[0]

    @property
    def newest(self) -> np.ndarray:
        """The entries of the last step."""
        self._fetch()
        last = self._ready[-1]
        return last[len(last) - self.counts[-1] :]

    def _fetch(self) -> None:
        if not self._pending:
            return
        every = zip(*self._pending, strict=True)
        fields = [torch.cat([t.flatten() for t in field]).numpy(force=True) for field in every]
        entries = np.empty(len(fields[0]), self.dtype)
        for name, field in zip(self.dtype.names or (), fields, strict=True):
            entries[name] = field
        self._ready.append(entries)
        self._pending = []

    def replace(self, entries: np.ndarray, counts: Sequence[int]) -> None:
        """Let these entries take the place of all others."""
        self._ready, self._pending, self.counts = [entries], [], list(counts)

    @property
    def steps(self) -> np.ndarray:
        """The step of each entry, counted from 0."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def drop(self, steps: int) -> None:
        """Forget the first steps."""
        self.replace(self.entries[sum(self.counts[:steps]) :], self.counts[steps:])

    def select(self, chosen: np.ndarray) -> None:
        """Keep the entries that ``chosen``, a mask, has."""
        counts = np.bincount(self.steps[chosen], minlength=len(self.counts))
        self.replace(self.entries[chosen], counts.tolist())

    def merge(self, other: "StepRecords") -> None:
        """Append to each step the entries of one of ``other``, so that the last steps of both become one."""
        both, behind = (self, other), len(self.counts) - len(other.counts)
        steps = np.concatenate([self.steps - min(behind, 0), other.steps + max(behind, 0)])
        counts = np.bincount(steps, minlength=max(len(each.counts) for each in both))
        entries = _concatenated([each.entries for each in both], self.dtype)
        self.replace(entries[steps.argsort(kind="stable")], counts.tolist())


def _concatenated(parts: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Return the parts as one array; NumPy's own function compares the fields of each two."""
    whole, end = np.empty(sum(map(len, parts)), dtype), 0
    for part in parts:
        whole[end : end + len(part)] = part
        end += len(part)
    return whole
