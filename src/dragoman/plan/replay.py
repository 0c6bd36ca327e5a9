"""Time of a step on this machine: each distinct operation of it is run for real, alone, and timed.

A step repeats the same operations on the same shapes, once a layer: some hundred distinct ones make up thousands of
calls. So the sum over a step costs a small part of the step, and knows what no formula does: how fast this processor
multiplies matrices of this size in this precision, which of its kernels pass over memory how often, and what calling
them costs. What the sum leaves out is the time between operations, in Python and in autograd; ``here.py`` measures it.
"""

import ctypes
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

import torch
from torch import Tensor

FREE = {
    "view", "_unsafe_view", "_reshape_alias", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "detach", "alias",
    "slice", "select", "split", "split_with_sizes", "as_strided", "unbind", "chunk", "diagonal", "unfold", "view_as",
    "is_same_size", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "sym_size", "lift_fresh",
    "_local_scalar_dense", "narrow", "movedim", "result_type", "is_nonzero",
}  # fmt: skip
"""Operations that move no numbers: each costs the overhead of a call."""
CHOOSES_ROWS = {"embedding", "index_select", "index", "index_put", "index_put_", "_index_put_impl_", "index_add"}
"""Operations whose whole numbers choose among the rows of their first tensor."""
REPEATS, LONGEST = 5, 0.3
"""Times that an operation is run; and seconds after which it is not run again."""


CACHE, MOST_COPIES = 2**26, 4
"""Bytes of tensors that push each other out of the caches; and the most copies of the tensors of one call."""


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


@dataclass
class Recording:
    """Distinct calls of a step and how often each occurs, forward and backward."""

    forward: Counter[RecordedCall]
    backward: Counter[RecordedCall]

    @classmethod
    def empty(cls) -> "Recording":
        return cls(Counter(), Counter())

    def observe(self, function: Any, args: Any, options: Any, backward: bool) -> None:
        """Count a call. For a kernel of this package, ``options`` are its pointers and their tensors."""
        if isinstance(function, str):
            args, options = _without_pointers(args, options), {}
        call = RecordedCall(function, _hashable(args), _hashable(options))
        (self.backward if backward else self.forward)[call] += 1

    @property
    def calls(self) -> int:
        return self.forward.total() + self.backward.total()

    def distinct(self) -> list[RecordedCall]:
        return list(self.forward | self.backward)


def seconds_of(calls: Iterable[RecordedCall], kernels: Any = None, *, within: float = 5.0) -> dict[RecordedCall, float]:
    """Return the seconds of each call on the CPU, at most about ``within`` in all; those not measured are left out.

    The state of the random generator is as before.
    """
    found: dict[RecordedCall, float] = {}
    end = time.perf_counter() + within
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        overhead = call_overhead()
        for call in calls:
            if call.name in FREE:
                found[call] = overhead
            elif time.perf_counter() < end:
                try:
                    found[call] = _timed(_rotating(call, kernels))
                except (RuntimeError, IndexError, TypeError, NotImplementedError):  # numbers that it cannot take
                    continue
    return found


def call_overhead() -> float:
    """Return the seconds that a call of an operation takes which moves nothing."""
    x = torch.ones(2, 2)
    return _timed(lambda: [torch.ops.aten.view.default(x, [4]) for _ in range(50)]) / 50


def _timed(run: Callable[[], object]) -> float:
    run()
    clock, times = clock_of_steps(), []
    while len(times) < REPEATS and sum(times) < LONGEST:
        start = clock()
        run()
        times.append(clock() - start)
    return sorted(times)[len(times) // 3]  # not the least, which a whole step never has


def clock_of_steps() -> Callable[[], float]:
    """Return the clock of measurements: the processor's time where one thread does the work, which other programs'
    load leaves alone, else the time that passes."""
    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def _rotating(call: RecordedCall, kernels: Any) -> Callable[[], object]:
    """Return a function that runs the call on other tensors each time: within a step they have left the cache."""
    size = sum(spec.nbytes for spec in _specs((call.arguments, call.options)))
    copies = [_runner(call, kernels) for _ in range(max(1, min(MOST_COPIES, CACHE // max(size, CACHE // MOST_COPIES))))]
    turns = cycle(copies)
    return lambda: next(turns)()


def _runner(call: RecordedCall, kernels: Any) -> Callable[[], object]:
    """Return a function that runs the call on tensors of its own."""
    tensors = list(_specs((call.arguments, call.options)))
    modulus = _rows(call, tensors)
    args, options = (_thawed(part, modulus) for part in (call.arguments, call.options))
    if isinstance(call.function, str):
        function = getattr(kernels, call.function.removeprefix("native."))
        args, kept = _with_pointers(args)
        return lambda: (function(*args), kept)
    return lambda: call.function(*args, **dict(options))


def _rows(call: RecordedCall, tensors: list[TensorSpec]) -> int:
    """Return how many values the whole numbers of a call may have."""
    if not tensors:
        return 1
    if call.name in CHOOSES_ROWS and tensors[0].shape:
        return max(1, tensors[0].shape[0])
    sizes = [size for spec in tensors for size in spec.shape]
    return max(1, min(sizes, default=1))


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
    elif isinstance(value, tuple):
        for item in value:
            yield from _specs(item)


def _thawed(value: Any, modulus: int) -> Any:
    if isinstance(value, TensorSpec):
        return materialize(value, modulus)
    if isinstance(value, PointerTo | StructSpec):
        return value.thawed(modulus)
    return tuple(_thawed(item, modulus) for item in value) if isinstance(value, tuple) else value


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

    def thawed(self, modulus: int) -> Any:
        return materialize(self.spec, modulus)


@dataclass(frozen=True)
class StructSpec:
    """A structure that a kernel takes by address."""

    kind: type
    fields: tuple[Any, ...]

    def thawed(self, modulus: int) -> Any:
        return self.kind, tuple(_thawed(field, modulus) for field in self.fields)


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
