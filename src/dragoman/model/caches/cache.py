"""Choice of the cache of keys and values: a layout (``layout.py``, ``paged.py``) and a storage (``storage.py``).

Any layout goes with any storage: ``Cache(layout=Paged(tokens=16), storage=Int8())``, or ``paged:16+int8``.

B batch, G key/value heads, T length, C channels of one head, K cached tokens.
"""

import dataclasses
import itertools
from abc import ABC, abstractmethod
from typing import Annotated, Any

from jaxtyping import Int
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from dragoman.config import OneOf, choices, config, from_dict, kind_of, unknown
from dragoman.errors import ConfigError
from dragoman.machine import full_dtype_name
from dragoman.model.caches.layout import GrowingLayout, MemoryLayout, PreallocatedLayout
from dragoman.model.caches.paged import PagedLayout, PagePool
from dragoman.model.caches.state import KVPolicy, KVState, LayerState
from dragoman.model.caches.storage import KV, AnyStorage, Storage, Stored, Unchanged
from dragoman.model.masks.visibility import VisibilityRule

# ---- configurations -------------------------------------------------------------------------------


class CacheLayout(ABC):
    """Base of the layouts."""

    examples: tuple[str, ...] | None = None
    """Caches that ``dragoman verify`` tests, with sizes that move the ends of buffers and pages; None for the name
    alone."""

    def restricted(self, visibility: VisibilityRule) -> VisibilityRule:
        """Return the visibility that this cache leaves of the layer's own; the default is all of it."""
        return visibility

    @abstractmethod
    def build(self) -> MemoryLayout: ...


@config
class Growing(CacheLayout):
    """Concatenate at each step: the simplest cache, and the reference for the others."""

    examples = ()  # the others are compared with it

    def build(self) -> MemoryLayout:
        return GrowingLayout()


@config
class Preallocated(CacheLayout):
    """Write in place into a buffer that doubles when it is full."""

    tokens: PositiveInt = 32
    """Initial capacity in tokens."""

    examples = ("preallocated", "preallocated:1")

    def build(self) -> MemoryLayout:
        return PreallocatedLayout(self.tokens)


@config
class Window(CacheLayout):
    """Keep only the last ``tokens`` and the first ``sinks`` (StreamingLLM, arXiv:2309.17453).

    Memory and time no longer grow with the text. It is an approximation for layers trained to see further. Positions
    stay those of the text.
    """

    tokens: PositiveInt
    """Number of visible tokens, including the current one."""
    sinks: NonNegativeInt = 4
    """Number of first tokens that stay visible."""

    examples = ("window:32:4",)

    def restricted(self, visibility: VisibilityRule) -> VisibilityRule:
        found = visibility.in_window(self.tokens, self.sinks)
        if found is None:
            raise ConfigError(
                f"cache: a window fits layers that see the past, and this model has one of visibility "
                f"{kind_of(type(visibility))}: use growing, preallocated or paged"
            )
        return found

    def build(self) -> MemoryLayout:
        return PreallocatedLayout(min(32, self.tokens + self.sinks))


@config
class Paged(CacheLayout):
    """Pages that rows share until they diverge (vLLM, arXiv:2309.06180): beams store a common prefix once, and
    reordering them moves no data."""

    tokens: PositiveInt = 16
    """Tokens in a page."""

    examples = ("paged:16", "paged:3", "paged:16+int8")

    def build(self) -> MemoryLayout:
        return PagedLayout(PagePool(self.tokens), private=True)


AnyCacheLayout = Annotated[Growing | Preallocated | Window | Paged, OneOf()]


@config
class Cache(KVPolicy):
    """Cache of keys and values; the default is the fastest exact one, as measured in benchmarks/caches.py."""

    layout: AnyCacheLayout = Preallocated()
    storage: AnyStorage = Unchanged()

    def restricted(self, visibility: VisibilityRule) -> VisibilityRule:
        return self.layout.restricted(visibility)

    def new_state(self, visibility: VisibilityRule) -> "KVCache":
        return KVCache(self.storage, self.layout.build())

    def store(self, kv: KV) -> Stored:
        return Stored.of(kv, self.storage)

    def __str__(self) -> str:
        """Return the cache as text for ``parse_cache``."""
        numbers = [str(getattr(self.layout, f.name)) for f in dataclasses.fields(self.layout)[1:]]
        laid = ":".join([kind_of(type(self.layout)), *numbers])
        return laid if isinstance(self.storage, Unchanged) else f"{laid}+{kind_of(type(self.storage))}"


DEFAULT = Cache()
"""Cache used where none is named."""


class SharedPages(KVPolicy):
    """Paged caches of all layers and states in one pool, which outlives them; heads and channels must be equal."""

    def __init__(self, pool: PagePool, storage: Storage):
        self.pool, self.storage = pool, storage

    def new_state(self, visibility: VisibilityRule) -> "KVCache":
        return KVCache(self.storage, PagedLayout(self.pool, private=False))

    def store(self, kv: KV) -> Stored:
        return Stored.of(kv, self.storage)


class PooledCache(KVPolicy):
    """A cache whose states share their memory where the model can: the kernels in C then keep all rows in one pool.

    Its states must be used by one thread at a time.
    """

    def __init__(self, cache: Cache, capacity: int | None = None):
        """
        Args:
            capacity: most tokens that the pool may hold; None for any number.
        """
        self.cache, self.capacity = cache, capacity
        self.pools: dict[object, object] = {}
        """Pools by what their tokens look like, made by the models that use them."""

    def restricted(self, visibility: VisibilityRule) -> VisibilityRule:
        return self.cache.restricted(visibility)

    def new_state(self, visibility: VisibilityRule) -> "KVCache":
        return self.cache.new_state(visibility)

    def store(self, kv: KV) -> Stored:
        return self.cache.store(kv)

    def __str__(self) -> str:
        return str(self.cache)


# ---- as a line of text ----------------------------------------------------------------------------

_CHOICES = {
    "layout": {kind_of(choice): choice for choice in choices(AnyCacheLayout)},
    "storage": {kind_of(choice): choice for choice in choices(AnyStorage)},
}


def examples() -> list[str]:
    """List caches that together cover every choice except the reference, for ``dragoman verify``."""
    known = [choice for named in _CHOICES.values() for choice in named.items()]
    return [line for kind, choice in known for line in ((kind,) if choice.examples is None else choice.examples)]


def parse_cache(text: str) -> Cache:
    """Parse a cache such as ``paged:16+int8``: a layout with its sizes, a storage, or both, joined by +.

    Raises:
        ConfigError: an unknown name, or sizes that do not fit.
    """
    found = {}
    for piece in text.strip().split("+"):
        name, *numbers = piece.strip().split(":")
        name = full_dtype_name(name)
        slot = next((slot for slot, known in _CHOICES.items() if name in known), None)
        if slot is None:
            raise ConfigError(unknown("cache", name, itertools.chain(*_CHOICES.values())))
        if slot in found:
            raise ConfigError(f"cache: {text!r} names more than one {slot}: keep one")
        found[slot] = _numbered(name, _CHOICES[slot][name], numbers)
    return Cache(**found)


def _numbered(name: str, choice: type, numbers: list[str]) -> Any:
    fields = [f.name for f in dataclasses.fields(choice)[1:]]
    if len(numbers) > len(fields) or not all(number.isdecimal() for number in numbers):
        takes = ":".join([name, *(field.upper() for field in fields)])
        raise ConfigError(f"cache: {':'.join([name, *numbers])!r} does not fit: write {takes}, with whole numbers")
    return from_dict(choice, dict(zip(fields, map(int, numbers), strict=False)), where=f"cache: {name}")


# ---- the state of a layer --------------------------------------------------------------------------


class KVCache(KVState):
    """Cache of one layer. Even the newest keys are read as stored, so that outputs do not depend on the chunks in which
    a text is read."""

    def __init__(self, storage: Storage, layout: MemoryLayout):
        self.storage, self.layout = storage, layout

    def extend(self, new: KV, retained: Int[Tensor, " K"] | None = None) -> KV:
        k, v = self.storage.write(new.k), self.storage.write(new.v)
        seen = self.layout.extend(tuple(part.permute(2, 0, 1, 3) for part in (*k, *v)), retained)
        seen = tuple(part.permute(1, 2, 0, 3) for part in seen)
        return Stored(seen[: len(k)], seen[len(k) :], self.storage, new.k.shape[-1], new.k.dtype).read()

    def reorder(self, rows: Tensor) -> None:
        self.layout.reorder(rows)

    def forget(self, retained: Tensor) -> None:
        self.layout.forget(retained)

    def join(self, other: LayerState) -> None:
        assert isinstance(other, KVCache)
        self.layout.join(other.layout)

    def rewind(self, tokens: int) -> None:
        self.layout.rewind(tokens)

    @property
    def nbytes(self) -> int:
        return self.layout.nbytes
