"""Looking at a model in the middle of its training, without changing it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from dragoman.train.lessons.lesson import Examination, Seen


def look(
    model: nn.Module,
    examination: Examination,
    precision: Callable[[], AbstractContextManager[Any]],
    stop: Callable[[], bool],
) -> Seen | None:
    """None if ``stop`` said so meanwhile.

    Raises:
        Diverged: the loss is not a number.
    """
    model.eval()
    try:
        with torch.inference_mode(), precision():
            return examination.look(model, stop)
    finally:
        model.train()
