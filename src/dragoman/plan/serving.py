"""Memory and work of answering: weights, the cache as the caches themselves measure it, and a step of decoding.

Counted for the model as PyTorch runs it; narrower weights are read in their own format, and multiplied in bfloat16.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import KVPolicy
from dragoman.model.interface import SequenceModel
from dragoman.plan import shapes
from dragoman.plan.counting import CPU, Counted, count, on_shapes
from dragoman.plan.synthetic import ID

WeightFormat = Literal["float32", "bfloat16", "float16", "float8", "int8", "int4"]
BITS: dict[str, int] = {"float32": 32, "bfloat16": 16, "float16": 16, "float8": 8, "int8": 8, "int4": 4}
"""Bits of a number of a weight matrix."""
COMPUTED = {"float32": torch.float32, "float16": torch.float16}
"""Data type of what is computed; bfloat16 for the other formats."""


@dataclass(frozen=True)
class ServingCount:
    """Memory and work of answering a number of users at once."""

    weights: int
    """Bytes of the weights."""
    cache: int
    """Bytes of all decoding states, at the full context: keys, values, states of fixed size, encoded sources."""
    workspace: int
    """Most bytes that a step of decoding holds besides."""
    prompt: Counted
    """Work of reading all prompts."""
    step: Counted
    """Work of one token for every row."""
    rows: int
    """Users times beams."""

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.workspace


def count_serving(
    model: SequenceModel,
    *,
    users: int,
    context: int,
    source: int | None = None,
    policy: KVPolicy = DEFAULT,
    beams: int = 1,
    precision: WeightFormat = "bfloat16",
    device: torch.device = CPU,
) -> ServingCount:
    """Count what serving takes.

    Args:
        model: model on the meta device, whose tensors this function replaces.
        users: texts at once.
        context: tokens of each, the newest one included.
        source: tokens of each source, where the model reads one; None for ``context``.
        policy: cache of keys and values.
        beams: hypotheses of each text.
        precision: number format of the weights.
        device: device of the server; a GPU need not be here.
    """
    weights, computed = weight_bytes(model, precision), COMPUTED.get(precision, torch.bfloat16)
    share = BITS[precision] / (8 * computed.itemsize)
    model.to(computed).eval()
    with on_shapes(device), torch.no_grad():
        shapes.without_values(model, CPU)
        found: list[Any] = []
        read = _source(model, users, source or context)
        fused = device.type != "cpu"

        def prompt() -> None:
            state = model.start(read, policy)
            if context > 1:
                model.decode(torch.full((users, context - 1), ID), state)
            if beams > 1:
                state.expand(beams)
            found.append(state)

        prompts = count(prompt, model, fused_attention=fused)
        state = found[0]
        step = count(lambda: model.decode(torch.full((users * beams, 1), ID), state), model, fused_attention=fused)
        cache = state.nbytes
    rows = users * beams
    prompts, step = (_with_weights_of(share, counted) for counted in (prompts, step))
    return ServingCount(weights, cache, step.peak_bytes, prompts, step, rows)


def _with_weights_of(share: float, counted: Counted) -> Counted:
    """Return work whose matrices of weights have a ``share`` of their bytes."""
    operations = []
    for op in counted.operations:
        weights = round(share * op.weight_bytes)
        moved = op.bytes_moved - op.weight_bytes + weights
        operations.append(replace(op, bytes_moved=moved, weight_bytes=weights))
    return replace(counted, operations=operations)


def _source(model: SequenceModel, users: int, length: int) -> Any:
    cfg: Any = model.cfg  # pyright: ignore[reportAttributeAccessIssue]
    if not cfg.translates:
        return None
    from dragoman.plan.synthetic import _inputs

    return shapes.inputs_on(_inputs(getattr(cfg, "source", None), users, length), CPU)


def weight_bytes(model: nn.Module, precision: WeightFormat) -> int:
    """Return the bytes of the weights: matrices in ``precision``, with a float32 scale for each row of whole numbers;
    vectors in 16 bits at least."""
    total = 0
    for p in {id(p): p for p in (*model.parameters(), *model.buffers())}.values():
        narrow = BITS[precision] < 16 and p.dim() >= 2
        bits = BITS[precision] if narrow or BITS[precision] >= 16 else 16
        total += p.numel() * bits // 8 + (4 * p.shape[0] if narrow and precision != "float8" else 0)
    return total
