"""Time of a step on this machine: each distinct operation of it is run for real, alone, and timed.

A step repeats the same operations on the same shapes, once a layer: some hundred distinct ones make up thousands of
calls. So the sum over a step costs a small part of the step, and knows what no formula does: how fast this processor
multiplies matrices of this size in this precision, which of its kernels pass over memory how often, and what calling
them costs. What the sum leaves out is the time between operations, in Python and in autograd; ``here.py`` measures it.
"""

import ctypes
import math
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from dragoman.model.ops.native_scan import ScanGradientStruct, ScanStruct

FREE = {
    "view", "_unsafe_view", "_reshape_alias", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "detach",
    "slice", "select", "split", "split_with_sizes", "as_strided", "unbind", "chunk", "diagonal", "unfold", "view_as",
    "is_same_size", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "sym_size", "lift_fresh",
    "alias", "_local_scalar_dense", "narrow", "movedim", "result_type", "is_nonzero",
}  # fmt: skip
"""Operations that move no numbers: each costs the overhead of a call."""
CHOOSES_ROWS = {"embedding", "index_select", "index", "index_add", "index_put", "_index_put_impl_"}
"""Operations whose whole numbers choose among the rows of their first tensor."""
CHOOSES = CHOOSES_ROWS | {"embedding_dense_backward", "gather", "scatter", "scatter_add", "scatter_add_"}
"""Operations that are run although they read whole numbers as places: invented ones stay within the sizes."""
ELEMENTWISE = {
    "_to_copy",
    "add",
    "sub",
    "mul",
    "ne",
    "eq",
    "where",
    "cumsum",
    "copy_",
    "clone",
    "cat",
    "masked_fill",
    "sum",
}
"""Operations that only compute with whole numbers."""
REPEATS, LONGEST = 5, 0.3
"""Times that an operation is run; and seconds after which it is not run again."""


ARENA = 1 << 26
"""Bytes of memory that the tensors of one call after the other are taken from: many times a processor's caches."""

BY_ADDRESS: dict[str, tuple[Any, ...]] = {
    "native.selective_scan": (ScanStruct,),
    "native.selective_scan_gradient": (ScanStruct, ScanGradientStruct),
}
"""Structures whose address a kernel takes as a number."""


class TensorSpec(NamedTuple):
    """A tensor without its numbers."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Return the bytes between its first and its last number."""
        last = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return 0 if 0 in self.shape else (last + 1) * self.dtype.itemsize

    @classmethod
    def of(cls, x: Tensor) -> "TensorSpec":
        return cls(tuple(map(int, x.shape)), tuple(map(int, x.stride())), x.dtype)


class RecordedCall(NamedTuple):
    """A call of one operation, with tensors replaced by their specs: equal calls take equally long."""

    function: Any
    """The operation as PyTorch dispatches it, or the name of a kernel of this package."""
    arguments: Hashable
    options: Hashable

    @property
    def name(self) -> str:
        return self.function if isinstance(self.function, str) else self.function.overloadpacket.__name__


COMPILED = {"_linear_pointwise", "mm", "addmm", "addmm_", "bmm", "baddbmm"}
"""Products for which the library makes code for their sizes, and keeps that of the last ones."""


@dataclass
class RecordedStep:
    """Distinct calls of a step and how often each occurs, forward and backward."""

    forward: Counter[RecordedCall]
    backward: Counter[RecordedCall]
    groups: int = 0
    """Experts of all layers."""
    shares: set[int] = field(default_factory=set)
    """Numbers of tokens that an expert gets where all get as many, which they never do."""

    @classmethod
    def empty(cls) -> "RecordedStep":
        return cls(Counter(), Counter())

    def observe(self, function: Any, args: Any, options: Any, backward: bool, calls: int = 1) -> None:
        """Count ``calls`` equal calls. For a kernel of this package, ``options`` are its pointers and their tensors."""
        if isinstance(function, str):
            kinds = BY_ADDRESS.get(function, ())
            args = [kind.from_address(arg) for kind, arg in zip(kinds, args, strict=False)] or args
            args, options = _without_pointers(args, options), {}
        elif function is torch.ops.aten.bincount.default:
            bins = max(1, options.get("minlength", args[2] if len(args) > 2 else 1))
            self.groups += calls * bins
            self.shares |= {args[0].numel() // bins, -(-args[0].numel() // bins)}
        call = RecordedCall(function, _hashable(args), _hashable(options))
        (self.backward if backward else self.forward)[call] += calls

    def ragged(self) -> dict[RecordedCall, int]:
        """Return the products of experts, and on how many numbers of tokens each runs in a step: one for each expert of
        each layer, and others in the next step."""
        calls = (call for call in self.distinct() if call.name in COMPILED and self.shares & _sizes(call))
        return {call: min(self.groups, (self.forward + self.backward)[call]) for call in calls}

    def distinct(self) -> list[RecordedCall]:
        return list(self.forward | self.backward)


class CallTime(NamedTuple):
    """Seconds of a call."""

    usual: float
    first: float
    """The first call on these shapes: a library for products makes code for each."""


def seconds_of(
    calls: Iterable[RecordedCall], kernels: Any = None, *, within: float = 5.0, arena: int = ARENA
) -> dict[RecordedCall, CallTime]:
    """Return the time of each call on the CPU, at most about ``within`` in all; those not measured are left out.

    The state of the random generator is as before.
    """
    found: dict[RecordedCall, CallTime] = {}
    end, memory = time.perf_counter() + within, Arena(arena)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        overhead = call_overhead()
        for call in calls:
            if call.name in FREE:
                found[call] = CallTime(overhead, overhead)
            elif time.perf_counter() < end and _is_safe(call):
                try:
                    found[call] = _timed(call, kernels, memory)
                except (RuntimeError, IndexError, TypeError, NotImplementedError):  # numbers that it cannot take
                    continue
    return found


def _sizes(call: RecordedCall) -> set[int]:
    return {size for spec in _specs((call.arguments, call.options)) for size in spec.shape}


def _is_safe(call: RecordedCall) -> bool:
    """Return False for calls that read whole numbers whose meaning is not known here: they might follow them."""
    if isinstance(call.function, str) or call.name in CHOOSES:
        return True
    whole = (torch.bool, torch.int64) if call.name in ELEMENTWISE else (torch.bool,)
    specs = _specs((call.arguments, call.options))
    return all(spec.dtype.is_floating_point or spec.dtype in whole for spec in specs)


def call_overhead() -> float:
    """Return the seconds that a call of an operation takes which moves nothing."""
    x, clock = torch.ones(2, 2), clock_of_steps()
    times = []
    for _ in range(REPEATS):
        start = clock()
        for _ in range(100):
            torch.ops.aten.view.default(x, [4])
        times.append(clock() - start)
    return min(times) / 100


def clock_of_steps() -> Callable[[], float]:
    """Return the clock of measurements: the processor's time where one thread does the work, which other programs'
    load leaves alone, else the time that passes."""
    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def _timed(call: RecordedCall, kernels: Any, memory: "Arena") -> CallTime:
    clock, times = clock_of_steps(), list[float]()
    while len(times) <= REPEATS and sum(times) < LONGEST:
        run = _runner(call, kernels, memory)
        start = clock()
        found = run()
        times.append(clock() - start)
        memory.hold(found)
    first, later = times[0], sorted(times[1:] or times)
    usual = later[len(later) // 3]  # not the least, which a whole step never has
    return CallTime(usual, max(first, usual))


def _runner(call: RecordedCall, kernels: Any, memory: "Arena") -> Callable[[], object]:
    """Return a function that runs the call, on tensors that have left the caches, as within a step."""
    memory.modulus = _rows(call, list(_specs((call.arguments, call.options))))
    args, options = memory.thawed(call.arguments), memory.thawed(call.options)
    if isinstance(call.function, str):
        function = getattr(kernels, call.function.removeprefix("native."))
        args, kept = _with_pointers(args)
        return lambda: (function(*args), kept)[0]
    options = dict(options)
    return lambda: call.function(*args, **options)


def _rows(call: RecordedCall, tensors: list[TensorSpec]) -> int:
    """Return how many values the whole numbers of a call may have."""
    if not tensors:
        return 1
    if call.name in CHOOSES_ROWS and tensors[0].shape:
        return max(1, tensors[0].shape[0])
    sizes = [size for spec in tensors for size in spec.shape]
    return max(1, min(sizes, default=1))


def multiplications(call: RecordedCall) -> int:
    """Return the number of multiplications of a product of matrices; 0 for other calls."""
    if call.name == "native.add_gradient":
        _, _, rows, outputs, inputs, *_ = cast(tuple[Any, ...], call.arguments)
        return rows * outputs * inputs
    factors = [spec.shape for spec in _specs(call.arguments) if len(spec.shape) > 1][-2:]
    if call.name not in COMPILED or len(factors) < 2 or not all(map(math.prod, factors)):
        return 0
    left, right = factors
    return math.prod(left) * math.prod(right) // (left[-1] * math.prod(right[:-2]))


def estimated(call: RecordedCall, found: Mapping[RecordedCall, CallTime], bandwidth: float) -> float:
    """Return the seconds of a call that could not be run: a product's at the speed of those that were, twice its
    forward pass for a gradient, which is two products for each one, or its bytes at ``bandwidth``."""
    name = call.name
    if work := multiplications(call):
        ran = [(done, time.usual) for other, time in found.items() if (done := multiplications(other))]
        if ran:
            return work * sum(seconds for _, seconds in ran) / sum(done for done, _ in ran)
    if name.endswith("_backward"):
        forward = [time.usual for other, time in found.items() if other.name == name.removesuffix("_backward")]
        if forward:
            return 2 * sum(forward) / len(forward)
    return sum(spec.nbytes for spec in _specs((call.arguments, call.options))) / bandwidth


class Arena:
    """Memory for the tensors of calls, one after the other, so that none is in a cache when its call begins.

    It holds ones, which also reads as numbers in half precision; no number in it is random.
    """

    def __init__(self, size: int = ARENA):
        self.ones, self.at, self.modulus = torch.ones(size // 4), 0, 1
        self.results: list[Any] = [torch.ones(size // 8)]  # memory that the process has from now on
        self.results.clear()
        self.held, self.most = 0, size // 2

    def hold(self, found: Any) -> None:
        """Hold results until there are many bytes of them."""
        for result in found if isinstance(found, list | tuple) else (found,):
            if isinstance(result, Tensor):
                self.results.append(result)
                self.held += result.nbytes
        if self.held > self.most:
            self.results.clear()
            self.held = 0

    def thawed(self, value: Any) -> Any:
        """Return recorded arguments with tensors in the place of their specs."""
        if isinstance(value, TensorSpec):
            return self.tensor(value)
        if isinstance(value, PointerTo):
            return self.tensor(value.spec)
        if isinstance(value, StructSpec):
            return value.kind, tuple(self.thawed(field) for field in value.fields)
        return tuple(self.thawed(item) for item in value) if type(value) is tuple else value

    def tensor(self, spec: TensorSpec) -> Tensor:
        """Return a tensor of this spec: of ones, and whole numbers below ``modulus``."""
        if not spec.dtype.is_floating_point or spec.nbytes > self.ones.nbytes // 2:
            return materialize(spec, self.modulus)
        size = -(-spec.nbytes // 64) * 16  # whole lines of the cache, in elements of four bytes
        if self.at + size > len(self.ones):
            self.at = 0
        part = self.ones[self.at : self.at + size].view(spec.dtype)
        self.at += size
        return torch.as_strided(part, spec.shape, spec.stride)


# ---- freezing and thawing ---------------------------------------------------------------------------


def _hashable(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return TensorSpec.of(value)
    if isinstance(value, list | tuple):
        return tuple(_hashable(item) for item in value)
    if isinstance(value, Mapping):
        return tuple((key, _hashable(item)) for key, item in value.items())
    return int(value) if isinstance(value, torch.SymInt) else value


def _specs(value: Any) -> Iterator[TensorSpec]:
    if isinstance(value, TensorSpec):
        yield value
    elif isinstance(value, PointerTo | StructSpec):
        yield from _specs(value.spec if isinstance(value, PointerTo) else value.fields)
    elif isinstance(value, tuple):
        for item in value:
            yield from _specs(item)


def materialize(spec: TensorSpec, modulus: int = 1) -> Tensor:
    """Return a tensor of this spec, without a random number: ones, and whole numbers below ``modulus``."""
    x = torch.empty_strided(spec.shape, spec.stride, dtype=spec.dtype)
    flat = torch.as_strided(x, (spec.nbytes // spec.dtype.itemsize,), (1,))
    if spec.dtype.is_floating_point or spec.dtype == torch.bool:
        flat.fill_(1)
    else:
        flat.copy_(torch.arange(flat.numel()) % modulus)
    return x


# ---- kernels in C -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PointerTo:
    """Address of a tensor's first number."""

    spec: TensorSpec


@dataclass(frozen=True)
class StructSpec:
    """A structure that a kernel takes by address."""

    kind: type
    fields: tuple[Any, ...]


def _without_pointers(value: Any, tensors: Mapping[int, Tensor]) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_without_pointers(item, tensors) for item in value)
    if isinstance(value, ctypes.Structure):
        values = (getattr(value, name) for name, *_ in value._fields_)
        return StructSpec(type(value), tuple(_without_pointers(item, tensors) for item in values))
    if hasattr(value, "_obj"):  # ctypes.byref
        return _without_pointers(value._obj, tensors)
    if isinstance(value, int) and not isinstance(value, bool) and value in tensors:
        return PointerTo(TensorSpec.of(tensors[value]))
    return value


def _with_pointers(args: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Return the arguments as C takes them, and what must stay alive meanwhile."""
    kept: list[Any] = []

    def given(value: Any) -> Any:
        if isinstance(value, Tensor):
            kept.append(value)
            return value.data_ptr()
        if isinstance(value, tuple) and value and isinstance(value[0], type):
            kind, fields = value
            kept.append(kind(*map(given, fields)))
            return kept[-1]
        return value

    made = [given(arg) for arg in args]
    return [ctypes.byref(value) if isinstance(value, ctypes.Structure) else value for value in made], kept
