"""Records of a search: single steps as tensors on their device, several steps as C wrote them, and at last one array.

Nothing is fetched from a device before it is asked for.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor


class StepRecords:
    """What happened at each step of a search: a number of entries of one structured type, in order."""

    def __init__(self, dtype: np.dtype) -> None:
        """
        Args:
            dtype: type of an entry; the tensors of ``append`` are its fields.
        """
        self.dtype = dtype
        self.counts: list[int] = []
        """Number of entries of each step."""
        self._parts: list[Sequence[Tensor] | np.ndarray] = []

    def append(self, fields: Sequence[Tensor]) -> None:
        """Append a step: a tensor for each field, all of one size."""
        self._parts.append(fields)
        self.counts.append(fields[0].numel())

    def extend(self, entries: np.ndarray, counts: Sequence[int]) -> None:
        """Append several steps, whose numbers of entries are ``counts``."""
        self._parts.append(entries)
        self.counts += counts

    @property
    def entries(self) -> np.ndarray:
        """The entries of all steps."""
        if len(self._parts) != 1 or not isinstance(self._parts[0], np.ndarray):
            found = [np.empty(0, self.dtype)]
            for ready, parts in groupby(self._parts, lambda part: isinstance(part, np.ndarray)):
                found += parts if ready else [self._fetched(list(parts))]  # pyright: ignore[reportArgumentType]
            self._parts = [found[1] if len(found) == 2 else np.concatenate(found)]
        return self._parts[0]  # pyright: ignore[reportReturnType]

    def _fetched(self, steps: Sequence[Sequence[Tensor]]) -> np.ndarray:
        fields = [torch.cat([t.flatten() for t in field]).numpy(force=True) for field in zip(*steps, strict=True)]
        entries = np.empty(len(fields[0]), self.dtype)
        for name, field in zip(self.dtype.names or (), fields, strict=True):
            entries[name] = field
        return entries

    @property
    def newest(self) -> np.ndarray:
        """The entries of the last step."""
        last = self._parts[-1]
        entries = last if isinstance(last, np.ndarray) else self._fetched([last])
        return entries[len(entries) - self.counts[-1] :]

    def replace(self, entries: np.ndarray, counts: Sequence[int]) -> None:
        """Let these entries take the place of all others."""
        self._parts, self.counts = [entries], list(counts)

    def drop(self, steps: int) -> None:
        """Forget the first steps."""
        self.replace(self.entries[sum(self.counts[:steps]) :], self.counts[steps:])

    def merge(self, other: "StepRecords") -> None:
        """Append to each step the entries of one of ``other``, so that the last steps of both become one."""
        mine, theirs = self._by_step(), other._by_step()
        missing = [np.empty(0, self.dtype)] * abs(len(mine) - len(theirs))
        longer = len(mine) > len(theirs)
        mine, theirs = (mine, missing + theirs) if longer else (missing + mine, theirs)
        steps = [part for pair in zip(mine, theirs, strict=True) for part in pair]
        counts = [len(a) + len(b) for a, b in zip(mine, theirs, strict=True)]
        self.replace(np.concatenate([*steps, np.empty(0, self.dtype)]), counts)

    def _by_step(self) -> list[np.ndarray]:
        return np.split(self.entries, np.cumsum(self.counts)[:-1]) if self.counts else []
