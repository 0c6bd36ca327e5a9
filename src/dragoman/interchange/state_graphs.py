"""Graphs of a decoder whose state is any tensors: sums of the past, the last inputs of convolutions, keys and values.

    begin.onnx   token (B, 1) and, with an encoder, ids (B, S), keep (B, S)  -> logits (B, V), state.0, state.1, ...
    step.onnx    token (B, 1), state.0, state.1, ...                          -> logits (B, V), state.0, state.1, ...

The first token is read by ``begin``, which also encodes the source; every later one by ``step``, which takes the state
that the call before returned.

B batch, S source length, V vocabulary.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dragoman.model.caches.cache import KVCache
from dragoman.model.caches.layout import GrowingLayout, MemoryLayout
from dragoman.model.caches.state import KVPolicy, KVState, LayerState, TowerState
from dragoman.model.caches.storage import Unchanged
from dragoman.model.interface import DecodingState, SequenceModel
from dragoman.model.masks.visibility import VisibilityRule
from dragoman.model.memory import DecodingMemory, Memory
from dragoman.model.positions.tokens import Tokens

_WALKED = (DecodingState, LayerState, TowerState, MemoryLayout, DecodingMemory, Memory)


class GraphCache(KVPolicy):
    """Caches that grow by concatenation, as a graph can."""

    def new_state(self, visibility: VisibilityRule) -> KVState:
        return KVCache(Unchanged(), GrowingLayout())


# ---- the tensors of a state -------------------------------------------------------------------------


def tensors_of(part: Any) -> Iterator[Tensor]:
    """Yield the tensors of a state, in an order of their own."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    changed(part, note)
    yield from found


def changed(part: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a copy of a state in which each tensor is changed, in the order of ``tensors_of``."""
    if isinstance(part, Tensor):
        return change(part)
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*(changed(value, change) for value in part))
    if isinstance(part, tuple | list):
        return type(part)(changed(value, change) for value in part)
    if isinstance(part, dict):
        return {name: changed(value, change) for name, value in part.items()}
    if isinstance(part, _WALKED):
        copied = copy.copy(part)
        for name, value in vars(part).items():
            setattr(copied, name, changed(value, change))
        return copied
    if dataclasses.is_dataclass(part) and not isinstance(part, type) and hasattr(part, "select_rows"):
        fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        return dataclasses.replace(part, **{name: changed(value, change) for name, value in fields.items()})
    return part


# ---- the graphs as modules ---------------------------------------------------------------------------


class BeginGraph(nn.Module):
    """The first token, and the state behind it."""

    def __init__(self, model: SequenceModel):
        super().__init__()
        self.model = model

    def forward(self, token: Tensor, ids: Tensor | None = None, keep: Tensor | None = None) -> tuple[Tensor, ...]:
        state = _of_graphs(self.model.start(None if ids is None else Tokens(ids, keep), GraphCache()))
        logits = self.model.decode(Tokens(token), state)
        return logits[:, -1], *tensors_of(_without_counts(state))


class StateStepGraph(nn.Module):
    """A later token, and the state behind it."""

    def __init__(self, model: SequenceModel, template: DecodingState):
        super().__init__()
        self.model, self.template = model, template

    def forward(self, token: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        given = iter(state)
        now = changed(self.template, lambda tensor: next(given))
        logits = self.model.decode(Tokens(token), now)
        return logits[:, -1], *tensors_of(now)


class GraphTowerState(TowerState):
    """State of a graph's decoder: it keeps the positions of all tokens, and layers with a window mask them."""

    @property
    def remembers(self) -> bool:
        return False


def _of_graphs(state: DecodingState) -> DecodingState:
    """Return a new state whose sizes depend on the number of tokens alone."""
    tower = getattr(state, "tower", None)
    if tower is not None:
        state.tower = GraphTowerState(tower.layers, tower.visibilities)  # pyright: ignore[reportAttributeAccessIssue]
    return state


def _without_counts(state: DecodingState) -> DecodingState:
    """Set the number of tokens so far to 0: it only limits learned positions, and a graph would fix it."""
    tower = getattr(state, "tower", None)
    if tower is not None:
        tower.length = 0
    return state


# ---- examples of inputs -----------------------------------------------------------------------------


@torch.no_grad()
def example_state(model: SequenceModel, rows: int, source: int, tokens: int, *, translates: bool) -> DecodingState:
    """Return the state behind some tokens."""
    ids = torch.full((rows, source), 3)
    given = Tokens(ids, torch.ones_like(ids, dtype=torch.bool)) if translates else None
    state = _of_graphs(model.start(given, GraphCache()))
    for _ in range(tokens):
        model.decode(Tokens(torch.full((rows, 1), 3)), state)
    return _without_counts(state)


def free_dimensions(one: DecodingState, other: DecodingState) -> list[dict[int, str]]:
    """Return which dimensions of each tensor differ between two states."""
    pairs = zip(tensors_of(one), tensors_of(other), strict=True)
    return [{i: "free" for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if a != b} for x, y in pairs]
