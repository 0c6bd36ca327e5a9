"""Validate a model in the middle of its training, without changing it."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from dragoman.train.events import Validated
from dragoman.train.memory import OutOfMemory, is_out_of_memory
from dragoman.train.progress import RunProgress
from dragoman.train.tasks.task_data import ValidationResult, Validator


def validate(
    model: nn.Module,
    validator: Validator,
    precision: Callable[[], AbstractContextManager[Any]],
    stop: Callable[[], bool],
) -> ValidationResult | None:
    """Validate ``model`` in evaluation mode and put it back into training mode; None if ``stop`` became true meanwhile.

    Raises:
        Diverged: the loss is not a number.
        OutOfMemory: memory does not suffice for the validation.
    """
    model.eval()
    try:
        with torch.inference_mode(), precision():
            return validator.validate(model, stop)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory("out of memory in the validation before it") from None
    finally:
        model.train()


def record(result: ValidationResult, progress: RunProgress, *, cost: float) -> Validated:
    """Count the validation in ``progress`` and return its event; the lowest ``cost`` is the best."""
    best = progress.best_loss is None or cost < progress.best_loss
    progress.validated, progress.stale = progress.step, 0 if best else progress.stale + 1
    if best:
        progress.best_loss, progress.best_step = cost, progress.step
    perplexity = math.exp(min(result.loss, 700))
    return Validated(progress.step, result.loss, perplexity, best, result.scores, result.samples, cost)
