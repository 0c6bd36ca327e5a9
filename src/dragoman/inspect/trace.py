"""Trace: read what stands at any place of a model in one forward, and replace it.

    from dragoman import inspect

    seen = inspect.trace("my-run", "a dog sleeps")
    seen["decoder.0.cross.weights"]                 # numpy, (B, H, T, S)
    seen.tokens, seen.logits

    ablated = {"encoder.1.feed_forward.output": torch.zeros_like}
    with inspect.watching(model, read="encoder.*.mixer.heads", write=ablated) as record:
        model(target, source)
    record["encoder.0.mixer.heads"]

Nothing is registered on a model before or after. Hooks see the model's own tensors, in the kernels that run anyway:
fused attention, which holds no weights, is shown those of the explicit kernel beside it, and keeps its own output.
Sparse and convolutional attention step aside for one that computes all pairs; ``trace`` reads their scores and weights
in a second pass, so that the answer stays what it is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dragoman.errors import DataError
from dragoman.inspect.places import Place, find, places
from dragoman.inspect.subject import subject_of

Writing = Tensor | Callable[[Tensor], Tensor]
"""Tensor that is to stand at a place, or a function of what stands there. Where a place comes step by step, the
function is called for each step, with one token; a tensor is for all of them."""

EVERYTHING = "*"


class Recording:
    """Tensors that were read, by the names of their places, and whether a replacement differed."""

    def __init__(self) -> None:
        self.parts: dict[str, list[Tensor]] = {}
        self.replaced: set[str] = set()
        """Places at which something else was put than what stood there."""

    def __getitem__(self, name: str) -> Tensor:
        found = self.parts[name]
        return found[0] if len(found) == 1 else torch.cat(found, dim=2 if name.endswith(_PER_HEAD) else 1)

    def __contains__(self, name: str) -> bool:
        return name in self.parts

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def as_dict(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        return {name: self[name] for name in self}


_PER_HEAD = (".scores", ".weights")
"""Endings of places whose second dimension is the heads."""


@contextmanager
def watching(
    model: nn.Module, read: str | Iterable[str] = (), write: Mapping[str, Writing] | None = None
) -> Iterator[Recording]:
    """Read and replace what stands at places of a model in the forwards inside the block.

    What is read is what stood there before a replacement at the same place. Tensors are those of the forward, with
    their graph where gradients are on; of several forwards each appends its own, along the time.

    Args:
        model: a model of ours.
        read: names or patterns of places.
        write: what is to stand at places, by name or pattern.

    Raises:
        ConfigError: a place that the model does not have.
        DataError: a replacement of another shape.
    """
    known, record = places(model), Recording()
    written = {place.name: change for pattern, change in (write or {}).items() for place in find(known, pattern)}
    looked = {place.name for place in find(known, read)}
    with ExitStack() as attached:
        for name in known:  # in the order of the forward
            if name in looked or name in written:
                handle = known[name].tap.attach(_Visitor(known[name], name in looked, written.get(name), record))
                attached.callback(handle.remove)
        yield record


class _Visitor:
    """Function that a tap calls: records, and replaces."""

    def __init__(self, place: Place, reads: bool, change: Writing | None, record: Recording):
        self.place, self.reads, self.change, self.record, self.step = place, reads, change, record, 0

    def __call__(self, found: Tensor) -> Tensor:
        name = self.place.name
        if self.reads:
            self.record.parts.setdefault(name, []).append(found)
        if self.change is None:
            return found
        new = self.change(found) if callable(self.change) else self.part(self.change, found)
        if new.shape != found.shape:
            raise DataError(
                f"{name}: what is to stand there has the shape {_shape(new)}, and what stands there {_shape(found)}"
            )
        new = new.to(found)
        if not torch.equal(new, found):
            self.record.replaced.add(name)
        return new

    def part(self, whole: Tensor, found: Tensor) -> Tensor:
        """Return the part of a replacement that belongs to this call."""
        if not self.place.tap.stepwise:
            return whole
        axis = 2 if self.place.name.endswith(_PER_HEAD) else 1
        start, end = self.step, self.step + found.shape[axis]
        if end > whole.shape[axis]:
            return whole
        self.step = end % whole.shape[axis]  # the next forward begins again
        return whole.narrow(axis, start, found.shape[axis])


def _shape(x: Tensor) -> str:
    return " x ".join(map(str, x.shape))


# ---- one text ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trace:
    """All that was read in one forward."""

    tensors: dict[str, Tensor]
    """By place; see ``places.places`` for shapes."""
    output: Tensor
    """Output of the model: logits (B, T, V) of one that writes; of an encoder, what its head returned."""
    source_tokens: tuple[str, ...] = ()
    """Spelling of each token that the encoder reads; empty without text."""
    tokens: tuple[str, ...] = ()
    """Spelling of each token that the decoder reads; of an encoder model, of each token."""
    targets: tuple[str, ...] = ()
    """Spelling of the token that the text has after each of ``tokens``; empty for a model that does not write."""
    replaced: frozenset[str] = field(default_factory=frozenset)
    """Places at which something else stood than without a replacement."""

    def __getitem__(self, name: str) -> np.ndarray:
        """Return what stood at a place, as float32 where it is narrower.

        Raises:
            DataError: a place that was not read.
        """
        if name not in self.tensors:
            raise DataError(f"{name}: not read in this trace, which has {', '.join(self.tensors) or 'nothing'}")
        return as_array(self.tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that was read, as numpy arrays, by place."""
        return {name: as_array(tensor) for name, tensor in self.tensors.items()}

    @property
    def logits(self) -> np.ndarray:
        """Output of the model as an array."""
        return as_array(self.output)


def as_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array on the CPU, as float32 where numpy has no such numbers."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()


def trace(
    model: Any,
    text: Any,
    *,
    target: Any = None,
    read: str | Iterable[str] = EVERYTHING,
    write: Mapping[str, Writing] | None = None,
    gradients: bool = False,
) -> Trace:
    """Run a model on one text, image or pair; return what stood at places, with the spelling of the tokens.

    Args:
        model: a run's path, a ``Subject``, or a model, which is then given tensors.
        text: what the model reads: a text, an image (path or array), a pair for two towers; of a bare model the tuple
            of its forward's arguments, or the only one.
        target: see ``Subject.inputs``.
        read: names or patterns of places.
        write: what is to stand at places, by name or pattern.
        gradients: keep the graph, so that gradients can be taken.

    Raises:
        CheckpointError: no such run, or a damaged one.
        ConfigError: a place that the model does not have.
        DataError: an input that the model cannot read.
    """
    subject = subject_of(model)
    if isinstance(model, nn.Module):
        arguments = text if isinstance(text, tuple) else (text,)
        return trace_inputs(model, arguments, read, write, gradients=gradients)
    given = subject.inputs(text, target)
    seen = trace_inputs(subject.model, given.arguments, read, write, gradients=gradients)
    return replace(seen, source_tokens=given.source_tokens, tokens=given.tokens, targets=given.targets)


def trace_inputs(
    model: nn.Module,
    inputs: tuple[Any, ...],
    read: str | Iterable[str] = EVERYTHING,
    write: Mapping[str, Writing] | None = None,
    *,
    gradients: bool = False,
) -> Trace:
    """Run a model on ready inputs; return what stood at places.

    Reading changes no bit of the answer, and neither does putting back what stood there: see the top of this file.

    Args:
        model: a model of ours, which is run in evaluation mode.
        inputs: arguments of the model's forward.
        read: names or patterns of places.
        write: what is to stand at places, by name or pattern.
        gradients: keep the graph, so that gradients can be taken.

    Raises:
        ConfigError: a place that the model does not have.
        DataError: a replacement of another shape, or inputs that the model cannot read.
    """
    known, write = places(model), dict(write or {})
    looked = [place for place in find(known, read)] if read else []
    aside = {place.name for place in looked if place.tap.aside}
    changing = {name for pattern in write for name in (p.name for p in find(known, pattern) if p.tap.aside)}
    if changing:
        tensors, output, replaced = _run(model, inputs, [p.name for p in looked], write, gradients)
        if changing & replaced or not _separable(write, changing):
            return Trace(_ordered(known, tensors), output, replaced=frozenset(replaced))
        write = {name: change for name, change in write.items() if name not in changing}
    plain = [p.name for p in looked if p.name not in aside]
    tensors, output, replaced = _run(model, inputs, plain, write, gradients)
    if aside:
        tensors |= _run(model, inputs, sorted(aside), write, gradients)[0]
    return Trace(_ordered(known, tensors), output, replaced=frozenset(replaced))


def _separable(write: Mapping[str, Writing], changing: set[str]) -> bool:
    """Return whether each of these places is named by itself, so that it can be left out."""
    return changing <= set(write)


def _ordered(known: Mapping[str, Place], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[name] for name in known if name in tensors}


def _run(
    model: Any, inputs: tuple[Any, ...], read: Iterable[str], write: Mapping[str, Writing], gradients: bool
) -> tuple[dict[str, Tensor], Tensor, set[str]]:
    """Run one forward; return what was read, the output, and the places at which something else was put."""
    training = model.training
    model.eval()
    try:
        with torch.set_grad_enabled(gradients), watching(model, read, write) as record:
            output = model(*inputs)
    finally:
        model.train(training)
    return record.as_dict(), output, record.replaced
