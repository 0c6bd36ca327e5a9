"""Compilation of a step's forward and backward pass: eager, or one program made by ``torch.compile``.

The program is compiled once, before the first step, for any number of rows and any lengths; a run never compiles in its
middle. A batch that the program cannot take (usually one of a single row: a compiler treats a size of 1 as a constant)
is computed without it, and counted. Weights keep their names, and everything else in a step stays the same.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from dragoman.config import OneOf, config
from dragoman.data.packing import TextBatch
from dragoman.errors import ConfigError
from dragoman.machine import compiler_message
from dragoman.model.moe import Mixture
from dragoman.model.positions.rotary import DynamicNtkScaling, LongRope
from dragoman.model.positions.tokens import Frames
from dragoman.model.recurrent.stack import RecurrentStackConfig
from dragoman.train.distributed.micro_batch import tensors
from dragoman.train.distributed.parallel import Sharded
from dragoman.train.events import Notice, Preparing
from dragoman.train.loop import Loss
from dragoman.train.memory import is_out_of_memory

# ---- execution --------------------------------------------------------------------------------------


class Uncompiled:
    """Eager execution: operation by operation, as the task's loss is written."""

    missed = 0
    """Number of batches that the program could not take."""

    def __init__(self, loss: Loss):
        self.loss = loss

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        return self.loss(model, batch)

    def prepare(
        self, model: nn.Module, batches: Iterable[Any], precision: Callable[[], AbstractContextManager[Any]]
    ) -> Iterator[Preparing | Notice]:
        """Compile the program, before the first step.

        ``batches`` are examples, to be computed in ``precision``; ``model`` does not learn from them.

        Raises:
            ConfigError: torch cannot compile the model.
        """
        yield from ()


class Compiled(Uncompiled):
    """Execution by a compiled program from ``backend``, one of torch.compile's."""

    def __init__(self, loss: Loss, backend: Any = "inductor", options: dict[str, Any] | None = None):
        super().__init__(loss)
        self.example: Any = None
        self.program = torch.compile(self._traced, fullgraph=True, backend=backend, options=options)

    def _traced(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        if not torch.compiler.is_compiling():  # runs only without the program, which holds just what follows
            self.missed += 1
        return self.loss(model, batch)

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        with torch.compiler.set_stance("eager_on_recompile"):
            return self.program(model, filled(batch, self.example))

    def prepare(
        self, model: nn.Module, batches: Iterable[Any], precision: Callable[[], AbstractContextManager[Any]]
    ) -> Iterator[Preparing | Notice]:
        yield Preparing("compiling the model, once, which may take some minutes")
        began = time.perf_counter()
        torch.compiler.reset()  # what earlier runs in this process have left
        self.example = example(batches)
        if self.example is None:
            yield Notice("train.compile: batches of single rows are not compiled: use a larger train.batch_tokens")
            return
        try:
            self.compile(model, precision)
        except (RuntimeError, ImportError, OSError) as error:  # torch raises these
            if is_out_of_memory(error):
                raise
            reason = compiler_message(error)
            raise ConfigError(f"train.compile: torch cannot compile this model here ({reason}): use off") from error
        yield Notice(f"compiled in {time.perf_counter() - began:.0f} s")

    def compile(self, model: nn.Module, precision: Callable[[], AbstractContextManager[Any]]) -> None:
        for tensor in tensors(self.example):
            for size in range(min(tensor.ndim, 2)):  # rows and length; an image's channels stay what they are
                torch._dynamo.maybe_mark_dynamic(tensor, size)
        with precision():
            summed, _ = self.program(model, self.example)
        summed.backward()  # compiles the backward pass, too
        model.zero_grad(set_to_none=True)


# ---- batches that one program can take --------------------------------------------------------------


def example(batches: Iterable[Any]) -> Any:
    """Return the batch to compile with, or None. It has every optional tensor that any batch has, and no size of 0 or
    1, which a compiler would treat as a constant."""
    suitable = [batch for batch in batches if all(min(tensor.shape[:2]) > 1 for tensor in tensors(batch))]
    return max(suitable, key=lambda batch: len(list(tensors(batch))), default=None)


def filled(batch: Any, like: Any) -> Any:
    """Return ``batch`` with the optional tensors that ``like`` has and it lacks: masks that mark nothing as padding,
    segments of one piece. A program takes either batches with them or batches without."""
    match batch, like:
        case Frames(values, None), Frames(_, Tensor()):
            return Frames(values, torch.ones_like(values[..., 0], dtype=torch.bool))
        case TextBatch(ids, targets, None), TextBatch(_, _, Tensor()):
            return TextBatch(ids, targets, torch.zeros_like(ids))
        case tuple(), tuple():
            return type(batch)(*(filled(part, other) for part, other in zip(batch, like, strict=True)))
    return batch


# ---- the choices ------------------------------------------------------------------------------------


@config
class Off:
    """Compute operation by operation."""

    def build(self, loss: Loss, device: torch.device) -> Uncompiled:
        return Uncompiled(loss)

    def check(self, train: Any, model: Any) -> None:
        """Check that a program can be compiled with these settings.

        Raises:
            ConfigError: a program cannot be compiled with these settings.
        """


@config
class On:
    """Compile forward and backward pass into one program before the first step, which may take a minute or more. Meant
    for GPUs, where it fuses operations whose results would be written to memory and read again."""

    def build(self, loss: Loss, device: torch.device) -> Uncompiled:
        # on CPUs torch's generator, so that float32 dropout is the same eager and compiled; on GPUs the program's own
        # generator is faster
        return Compiled(loss, options={"fallback_random": device.type == "cpu"})

    def check(self, train: Any, model: Any) -> None:
        if train.recompute:
            raise ConfigError(
                "train.recompute: a compiled program decides by itself what it recomputes: use recompute=false, or "
                "train.compile=off"
            )
        if isinstance(train.parallel, Sharded):
            raise ConfigError(
                "train.parallel: sharded gathers weights between the operations that train.compile=on makes one "
                "of: use replicated, or train.compile=off"
            )
        for path, why in _untraceable(model, "model"):
            raise ConfigError(f"{path}: {why}, and a program is made before that is known: use train.compile=off")


def _untraceable(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a model's configuration where computed values decide what is computed next, with the
    reason."""
    if isinstance(value, Mixture):
        yield path, "the experts that compute a token depend on the text"
    if isinstance(value, RecurrentStackConfig):
        yield path, "how far recurrent layers read depends on the text's length"
    if isinstance(value, DynamicNtkScaling | LongRope):
        yield path, "the rotation of positions depends on the text"
    if isinstance(value, tuple):
        for i, part in enumerate(value):
            yield from _untraceable(part, f"{path}.{i}")
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _untraceable(getattr(value, field.name), f"{path}.{field.name}")


Compile = Annotated[Off | On, OneOf()]
