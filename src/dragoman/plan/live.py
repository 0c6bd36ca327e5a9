"""Memory that a step holds, followed from allocation to release, without allocating any."""

import weakref
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Category = Literal["activations", "logits", "gradients", "workspace"]


@dataclass
class Allocation:
    """Storage that an operation allocated."""

    nbytes: int
    part: str
    """Part of the model that allocated it: see ``Operation.part``."""
    forward: bool
    """True if it was allocated in the forward pass."""
    created: int
    released: int | None = None
    """Moments, counted in allocations and releases; None: it outlives the step."""
    kept: bool = False
    """True if it is still held when the backward pass begins."""
    recomputed: bool = False
    """True if it was allocated where the backward pass runs the forward pass again."""
    gradient: bool = False
    """True if it is the gradient of a parameter in the end."""

    @property
    def category(self) -> Category:
        if self.gradient:
            return "gradients"
        if self.part == "output" and self.nbytes:
            return "logits"
        return "activations" if self.kept else "workspace"


@dataclass
class LiveBytes:
    """Every storage that was allocated in a step, and when it was released."""

    now: int = 0
    """Bytes held now."""
    peak: int = 0
    """Most bytes held at once."""
    peak_moment: int = 0
    moment: int = 0
    allocations: list[Allocation] = field(default_factory=list)
    _known: dict[int, Any] = field(default_factory=dict)
    """Allocations by the address of their storage, with the reference that notes their release."""

    def add(self, tensor: Tensor, known: set[int], part: str, forward: bool, recomputed: bool = False) -> None:
        """Note the storage of an operation's result, unless it is one of the ``known`` ones, its arguments'."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in known or key in self._known:
            return
        self.moment += 1
        made = Allocation(storage.nbytes(), part, forward, self.moment, recomputed=recomputed)
        self.allocations.append(made)
        self._known[key] = made, weakref.ref(storage, lambda _: self._release(key))
        self.now += made.nbytes
        if self.now > self.peak:
            self.peak, self.peak_moment = self.now, self.moment

    def _release(self, key: int) -> None:
        made, _ = self._known.pop(key)
        self.moment += 1
        made.released = self.moment
        self.now -= made.nbytes

    def begin_backward(self) -> None:
        """Mark what is held now as kept for the backward pass."""
        for made, _ in self._known.values():
            made.kept = True

    def mark_gradients(self, gradients: list[Tensor]) -> None:
        """Mark the storages of ``gradients``."""
        for gradient in gradients:
            found = self._known.get(gradient.untyped_storage()._cdata)
            if found:
                found[0].gradient = True

    def at_peak(self) -> dict[str, int]:
        """Return the bytes held at the peak, by category."""
        held: Counter[str] = Counter()
        for made in self.allocations:
            if made.created <= self.peak_moment and (made.released is None or made.released > self.peak_moment):
                held[made.category] += made.nbytes
        held["workspace"] += self.peak - sum(held.values())
        return dict(held)


def storages(tensors: list[Tensor]) -> set[int]:
    """Return the addresses of the storages of ``tensors``."""
    return {t.untyped_storage()._cdata for t in tensors if t.layout == torch.strided}
