"""Observation of a forward pass from outside: what enters and leaves each module, and the attention that is computed.

Nothing of a model is known beforehand. Modules are watched by hooks; softmax and PyTorch's attention function by a
``TorchFunctionMode``, which sees every call of PyTorch's functions.

B rows, T positions.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from dragoman.native.library import standing_in

MODEL = "(model)"


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists, mappings and data classes."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from tensors(each)


def floats(value: Any) -> list[Tensor]:
    """Return the tensors of real numbers in a nested value."""
    return [t for t in tensors(value) if t.is_floating_point()]


# ---- modules ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModuleEvent:
    """Tensors that entered or left a module."""

    name: str
    caller: str
    """Module that was running when this one was called."""
    entering: bool
    values: tuple[Tensor, ...]


def name_of(path: str) -> str:
    """Return the path of a module as findings show it."""
    return path or MODEL


@contextmanager
def watch_modules(model: nn.Module, *, copy: bool = True) -> Iterator[list[ModuleEvent]]:
    """Record what enters and leaves every module inside the block, in order of time; ``copy`` detaches it."""
    events: list[ModuleEvent] = []
    running: list[str] = []
    hooks: list[RemovableHandle] = []

    def taken(value: Any) -> tuple[Tensor, ...]:
        return tuple(t.detach().clone() if copy else t for t in floats(value))

    def before(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, named: Any) -> None:
            caller = running[-1] if running else ""
            running.append(path)
            events.append(ModuleEvent(path, caller, True, taken((arguments, named))))

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, result: Any) -> None:
            if running and running[-1] == path:
                running.pop()
            events.append(ModuleEvent(path, running[-1] if running else "", False, taken(result)))

        return hook

    for path, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
        hooks.append(module.register_forward_hook(after(path)))
    try:
        yield events
    finally:
        for hook in hooks:
            hook.remove()


Symptom = Callable[[Tensor, Tensor], bool]
"""Returns whether two values of one tensor differ in the way that is looked for."""


def locate(first: list[ModuleEvent], second: list[ModuleEvent], symptom: Symptom) -> str:
    """Return the module in which two passes first differ by ``symptom``.

    Where a difference enters a module and left none before, it arose between two calls in the module that calls both.
    """
    for a, b in zip(first, second, strict=False):
        if a.name != b.name or len(a.values) != len(b.values):
            break
        if any(x.shape == y.shape and symptom(x, y) for x, y in zip(a.values, b.values, strict=True)):
            return name_of(a.caller if a.entering else a.name)
    return MODEL


def by_position(x: Tensor, rows: int, length: int) -> Tensor | None:
    """Return a tensor as (B, T, ...), whatever its layout; None where it has no rows and positions."""
    if x.ndim >= 2 and x.shape[:2] == (rows, length):
        return x
    if x.ndim >= 2 and x.shape[:2] == (length, rows):
        return x.transpose(0, 1)
    if x.ndim == 2 and x.shape[0] == rows * length:
        return x.unflatten(0, (rows, length))
    if x.ndim == 4 and x.shape[0] == rows and x.shape[2] == length and x.shape[3] != length:
        return x.transpose(1, 2)
    return None


# ---- functions -------------------------------------------------------------------------------------


@dataclass
class AttentionCall:
    """One computation of attention weights."""

    where: str
    """Module that was running."""
    weights: Tensor
    """Weights (..., Q, K)."""
    scores: Tensor | None = None
    """Input of the softmax, where it was seen; hidden places are large and negative."""
    channels: int | None = None
    """Channels C that a product of queries and keys was summed over."""
    slope: float | None = None
    """Factor between that product and the scores."""
    sizes: tuple[float, float] | None = None
    """Root mean squares of queries and keys."""
    dim: int = -1
    """Dimension that the softmax ran over."""


SOFTMAX = {torch.softmax, F.softmax, Tensor.softmax, torch.nn.functional.softmax}
PRODUCTS = {torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__}


@dataclass
class _Product:
    result: Tensor
    left: Tensor
    right: Tensor


@dataclass
class AttentionWatch(TorchFunctionMode):
    """Mode that records every softmax over positions and every call of PyTorch's attention."""

    lengths: frozenset[int]
    """Numbers of positions: a softmax over another number is not attention."""
    running: list[str] = field(default_factory=list)
    calls: list[AttentionCall] = field(default_factory=list)
    products: list[_Product] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self._fused(*args, **kwargs)
        elif func is F.multi_head_attention_forward:
            return self._multi_head(args, kwargs)
        result = func(*args, **kwargs)
        if func in PRODUCTS and len(args) == 2:
            self._multiplied(result, args[0], args[1])
        elif func in (torch.baddbmm, Tensor.baddbmm) and len(args) == 3:
            self._multiplied(args[1].detach() @ args[2].detach(), args[1], args[2])
        elif func in (torch.einsum, torch.functional.einsum):
            self._summed(result, args)
        elif func in SOFTMAX:
            self._softmax(result, args, kwargs)
        return result

    @property
    def where(self) -> str:
        return self.running[-1] if self.running else ""

    def _is_attention(self, shape: torch.Size) -> bool:
        return len(shape) >= 3 and shape[-1] in self.lengths

    def _multiplied(self, result: Tensor, left: Tensor, right: Tensor) -> None:
        if self._is_attention(result.shape):
            self.products.append(_Product(result.detach().clone(), left.detach(), right.detach()))

    def _summed(self, result: Tensor, args: tuple) -> None:
        operands = args[1] if len(args) == 2 and isinstance(args[1], tuple | list) else args[1:]
        if len(operands) == 2:
            self._multiplied(result, operands[0], operands[1].transpose(-1, -2))

    def _softmax(self, result: Tensor, args: tuple, kwargs: dict[str, Any]) -> None:
        dim = args[1] if len(args) > 1 else kwargs.get("dim", -1)
        if not self._is_attention(result.shape):
            return
        scores = (args[0] if args else kwargs["input"]).detach()
        dim = -1 if dim is None else dim - result.ndim if dim >= 0 else dim
        call = AttentionCall(self.where, result.detach(), scores, dim=dim)
        queries = scores[..., 0].numel()
        product = next((p for p in reversed(self.products) if p.result[..., 0].numel() == queries), None)
        if product is not None:
            keys = product.result.shape[-1]  # short rows may have been made wider
            call.channels = product.left.shape[-1]
            call.slope = _slope(product.result.reshape(*scores.shape[:-1], keys), scores[..., :keys])
            call.sizes = (_rms(product.left), _rms(product.right))
        self.products.clear()
        self.calls.append(call)

    def _fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        q, k = query.detach(), key.detach()
        if k.shape[1] != q.shape[1] and q.ndim == 4:
            k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        slope = q.shape[-1] ** -0.5 if scale is None else scale
        scores = q @ k.transpose(-1, -2) * slope
        if is_causal:
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(hidden, float("-inf"))
        if attn_mask is not None:
            mask = attn_mask.detach()
            scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
        sizes = (_rms(q), _rms(k))
        weights = scores.softmax(-1)
        self.calls.append(AttentionCall(self.where, weights, scores, q.shape[-1], slope, sizes))

    def _multi_head(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Run nn.MultiheadAttention so that it returns its weights, and record them."""
        wanted, averaged = kwargs.get("need_weights", True), kwargs.get("average_attn_weights", True)
        output, weights = F.multi_head_attention_forward(
            *args, **kwargs | {"need_weights": True, "average_attn_weights": False}
        )
        assert weights is not None  # they were asked for
        self.calls.append(AttentionCall(self.where, weights.detach()))
        if not wanted:
            return output, None
        return output, weights.mean(dim=1) if averaged else weights


def _rms(x: Tensor) -> float:
    return float(x.float().square().mean().sqrt())


def _slope(product: Tensor, scores: Tensor) -> float | None:
    """Return the factor between products and scores where they are visible; None where they are not proportional."""
    visible = torch.isfinite(scores) & (scores > -1e3)
    x, y = product[visible].double(), scores[visible].double()
    if x.numel() < 4 or float(x.std()) == 0:
        return None
    x, y = x - x.mean(), y - y.mean()
    slope = float((x * y).sum() / x.square().sum())
    explained = 1 - float((y - slope * x).square().sum() / y.square().sum().clamp(min=1e-30))
    return slope if explained > 0.9 else None


@contextmanager
def watch_attention(model: nn.Module, lengths: frozenset[int]) -> Iterator[list[AttentionCall]]:
    """Record all attention inside the block."""
    watch = AttentionWatch(lengths)
    hooks: list[RemovableHandle] = []

    def leave(*_: Any) -> None:
        if watch.running:
            watch.running.pop()

    for path, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, path=path: watch.running.append(path)))
        hooks.append(module.register_forward_hook(leave))
    try:
        with standing_in(None), watch:  # kernels in C call no function of PyTorch's
            yield watch.calls
    finally:
        for hook in hooks:
            hook.remove()


# ---- the first vectors -----------------------------------------------------------------------------


class EmbeddingLeaf(TorchFunctionMode):
    """Mode that makes the vectors of given ids a leaf, so that gradients with respect to them can be asked for.

    Works for ``nn.Embedding``, ``F.embedding`` and for indexing a table by ids.
    """

    def __init__(self, ids: Tensor):
        super().__init__()
        self.ids, self.leaf = ids, None

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.leaf is None and self._looks_up(func, args):
            self.leaf = result.detach().requires_grad_()
            return self.leaf
        return result

    def _looks_up(self, func: Any, args: tuple) -> bool:
        if func is F.embedding:
            ids = args[0]
        elif func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[0].is_floating_point():
            ids = args[1]
        else:
            return False
        same = [ids, ids.T] if ids.ndim == 2 else [ids]
        return any(each.shape == self.ids.shape and torch.equal(each, self.ids) for each in same)
