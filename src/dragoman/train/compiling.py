"""A step's forward and backward pass: operation by operation, or as one program that ``torch.compile`` makes of it.

The program is made once, before the first step, for any number of rows and any lengths; a run never compiles in its
middle. A batch that the program cannot take (of one row, as a rule: a compiler takes a size of 1 for a constant) is
computed as if there were no program, and counted. Weights keep their names, and all else in a step stays as it is.
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
from dragoman.model.positions.rotary import DynamicNtkScaling
from dragoman.model.positions.tokens import Frames
from dragoman.train.distributed.micro_batch import tensors
from dragoman.train.distributed.parallel import Sharded
from dragoman.train.events import Notice, Preparing
from dragoman.train.loop import Loss
from dragoman.train.memory import is_out_of_memory

# ---- computed ---------------------------------------------------------------------------------------


class Uncompiled:
    """Operation by operation, as the task's loss says."""

    missed = 0
    """Batches that the program could not take."""

    def __init__(self, loss: Loss):
        self.loss = loss

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        return self.loss(model, batch)

    def prepare(
        self, model: nn.Module, batches: Iterable[Any], precision: Callable[[], AbstractContextManager[Any]]
    ) -> Iterator[Preparing | Notice]:
        """Make the program, before the first step. ``batches`` are examples, to be computed in ``precision``; ``model``
        does not learn from them.

        Raises:
            ConfigError: torch cannot.
        """
        yield from ()


class Compiled(Uncompiled):
    """By a program that ``backend`` makes, one of torch.compile's."""

    def __init__(self, loss: Loss, backend: Any = "inductor", options: dict[str, Any] | None = None):
        super().__init__(loss)
        self.example: Any = None
        self.program = torch.compile(self._traced, fullgraph=True, backend=backend, options=options)

    def _traced(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        if not torch.compiler.is_compiling():  # so this is not the program, which has only what follows
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
        summed.backward()  # compiled, too, when it is first asked for
        model.zero_grad(set_to_none=True)


# ---- batches that one program can take --------------------------------------------------------------


def example(batches: Iterable[Any]) -> Any:
    """The one to compile with: it says all that any of them does, and has no size of 0 or 1, which a compiler would
    take for a constant. None where there is none."""
    suitable = [batch for batch in batches if all(min(tensor.shape[:2]) > 1 for tensor in tensors(batch))]
    return max(suitable, key=lambda batch: len(list(tensors(batch))), default=None)


def filled(batch: Any, like: Any) -> Any:
    """``batch`` with what ``like`` says and it leaves unsaid, because it goes without saying: that nothing is padded,
    that each row is of one piece. A program is for batches that say it, or for those that do not."""
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
    """Operation by operation."""

    def build(self, loss: Loss, device: torch.device) -> Uncompiled:
        return Uncompiled(loss)

    def check(self, train: Any, model: Any) -> None:
        """
        Raises:
            ConfigError: settings that a program cannot be made for.
        """


@config
class On:
    """One program for forward and backward pass, made before the first step, which may take a minute or more: for GPUs,
    where it fuses what would be written to memory and read again."""

    def build(self, loss: Loss, device: torch.device) -> Uncompiled:
        # on CPUs torch's random numbers, which in float32 both ways then draw alike; GPUs are faster with the program's
        return Compiled(loss, options={"fallback_random": device.type == "cpu"})

    def check(self, train: Any, model: Any) -> None:
        if train.recompute:
            raise ConfigError(
                "train.recompute: a compiled program decides by itself what it computes again: use recompute=false, or "
                "train.compile=off"
            )
        if isinstance(train.parallel, Sharded):
            raise ConfigError(
                "train.parallel: sharded puts weights together between the operations that train.compile=on makes one "
                "of: use replicated, or train.compile=off"
            )
        for path, why in _untraceable(model, "model"):
            raise ConfigError(f"{path}: {why}, and a program is made before that is known: use train.compile=off")


def _untraceable(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Where in a model's configuration numbers that are computed decide what is computed next."""
    if isinstance(value, Mixture):
        yield path, "which expert computes what depends on the text"
    if isinstance(value, DynamicNtkScaling):
        yield path, "how positions are turned depends on the text"
    if isinstance(value, tuple):
        for i, part in enumerate(value):
            yield from _untraceable(part, f"{path}.{i}")
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _untraceable(getattr(value, field.name), f"{path}.{field.name}")


Compile = Annotated[Off | On, OneOf()]
