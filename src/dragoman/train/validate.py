"""Looking at a model in the middle of its training, without changing it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from dragoman.train.lessons.lesson import Examination, Seen
from dragoman.train.memory import OutOfMemory, is_out_of_memory


def look(
    model: nn.Module,
    examination: Examination,
    precision: Callable[[], AbstractContextManager[Any]],
    stop: Callable[[], bool],
) -> Seen | None:
    """None if ``stop`` said so meanwhile.

    Raises:
        Diverged: the loss is not a number.
        OutOfMemory: memory does not suffice for that.
    """
    model.eval()
    try:
        with torch.inference_mode(), precision():
            return examination.look(model, stop)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory("out of memory in the validation before it") from None
    finally:
        model.train()
