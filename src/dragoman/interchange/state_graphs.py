"""Graphs of a decoder whose state is any tensors: sums of the past, the last inputs of convolutions, keys and values,
hidden states of recurrent layers.

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
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.model.caches.cache import KVCache
from dragoman.model.caches.layout import GrowingLayout, MemoryLayout
from dragoman.model.caches.state import KVPolicy, KVState, LayerState, TowerState, VisibleKeys
from dragoman.model.caches.storage import Unchanged
from dragoman.model.caches.summary import JoinedState, SummaryState
from dragoman.model.depthwise import ConvolutionState
from dragoman.model.interface import DecodingState, SequenceModel
from dragoman.model.masks.visibility import VisibilityRule
from dragoman.model.memory import DecodingMemory, Memory
from dragoman.model.positions.tokens import Positions, Tokens
from dragoman.model.recurrent.state import RecurrentState

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


def changed(part: Any, change: Callable[[Tensor], Tensor], seen: dict[int, Any] | None = None) -> Any:
    """Return a copy of a state in which each tensor is changed, in the order of ``tensors_of``.

    ``seen`` are the copies of parts met before: what a state names twice is copied once.
    """
    seen = {} if seen is None else seen
    if isinstance(part, Tensor):
        return change(part)
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*(changed(value, change, seen) for value in part))
    if isinstance(part, tuple | list):
        return type(part)(changed(value, change, seen) for value in part)
    if isinstance(part, dict):
        return {name: changed(value, change, seen) for name, value in part.items()}
    if isinstance(part, _WALKED):
        if id(part) not in seen:
            copied = seen[id(part)] = copy.copy(part)
            for name, value in vars(part).items():
                setattr(copied, name, changed(value, change, seen))
        return seen[id(part)]
    if dataclasses.is_dataclass(part) and not isinstance(part, type) and hasattr(part, "select_rows"):
        fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        return dataclasses.replace(part, **{name: changed(value, change, seen) for name, value in fields.items()})
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
    """State of a graph's decoder: it keeps the positions of all tokens, and layers with a window mask them.

    Layers that keep no keys need no positions of the past, so that their state has the same size at every token.
    """

    @property
    def remembers(self) -> bool:
        return False

    def advance(self, new: Positions) -> dict[VisibilityRule, VisibleKeys]:
        now = super().advance(new)
        keyed = {rule for layer, rule in zip(self.layers, self.visibilities, strict=True) if _keeps_keys(layer)}
        self.visible |= dict.fromkeys(self.visible.keys() - keyed)
        return now


def _keeps_keys(layer: LayerState) -> bool:
    parts = layer.parts if isinstance(layer, JoinedState) else (layer,)
    return not all(isinstance(part, ConvolutionState | SummaryState) for part in parts)


class GraphConvolution(ConvolutionState):
    """Inputs of a convolution in a graph: as many columns at every token, zeros before the first."""

    def __init__(self, columns: int):
        super().__init__(remembers=True)
        self.columns = columns

    def extend(self, new: Float[Tensor, "B 1 D"], retained: Tensor | None) -> Float[Tensor, "B K D"]:
        past = new.new_zeros(new.shape[0], self.columns, new.shape[2]) if self.past is None else self.past
        seen = torch.cat([past, new], dim=1)
        self.past = seen[:, 1:]
        return seen


def _with_fixed_inputs(layer: LayerState, rule: VisibilityRule) -> LayerState:
    """Return the new state of a layer, with convolutions that keep the columns that ``rule`` shows."""
    window = getattr(rule, "window", None)
    if isinstance(layer, ConvolutionState) and window:
        return GraphConvolution(window - 1)
    if isinstance(layer, JoinedState):
        made = {id(part): _with_fixed_inputs(part, rule) for part in layer.parts}
        vars(layer).update({name: made[id(part)] for name, part in vars(layer).items() if id(part) in made})
        layer.parts = tuple(made[id(part)] for part in layer.parts)
    return layer


def _of_graphs(state: DecodingState) -> DecodingState:
    """Return a new state whose sizes depend on the number of tokens alone, if they change at all."""
    tower = getattr(state, "tower", None)
    if tower is not None:
        layers = [_with_fixed_inputs(*pair) for pair in zip(tower.layers, tower.visibilities, strict=True)]
        state.tower = GraphTowerState(layers, tower.visibilities)  # pyright: ignore[reportAttributeAccessIssue]
    return state


def _without_counts(state: DecodingState) -> DecodingState:
    """Set the number of tokens so far to 0: it only limits learned positions, and a graph would fix it."""
    tower = getattr(state, "tower", None)
    if tower is not None:
        tower.length = 0
    if isinstance(state, RecurrentState):
        state.tokens = 0
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
