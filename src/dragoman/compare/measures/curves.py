"""Measures of how a run went, from its metrics, and of how many labels a classifier gets wrong."""

import math
from collections.abc import Mapping

import numpy as np

from dragoman.compare.figure import Figure, RatioOfCounts, StudySubject, scored
from dragoman.config import kind_of
from dragoman.errors import ConfigError
from dragoman.evaluate.evaluators import EVALUATORS
from dragoman.journal import Journal


def steps_to_loss(subject: StudySubject, *, loss: float) -> Mapping[str, Figure]:
    """Return the steps after which the validation loss is at most ``loss``, interpolated between two validations.

    Where it never is, the figure is twice the run's length.

    Args:
        subject: a trained run.
        loss: validation loss in nats a token.

    Raises:
        ConfigError: a run that never validated.
    """
    if subject.run is None:
        raise ConfigError("measures.steps_to_loss: needs trained runs")
    lines = [one for one in Journal(subject.run / "metrics.jsonl").lines() if one["kind"] == "valid"]
    curve = sorted((one["step"], one["loss"]) for one in lines if one["loss"] is not None)
    if not curve:
        raise ConfigError("measures.steps_to_loss: the run never validated: lower train.validate_every")
    found, before = 2.0 * curve[-1][0], (0, math.inf)
    for step, value in curve:
        if value <= loss:
            part = 1.0 if math.isinf(before[1]) else (before[1] - loss) / max(before[1] - value, 1e-12)
            found = before[0] + part * (step - before[0])
            break
        before = (step, value)
    signature = f"first validation loss of {loss:g} or less, interpolated; {2 * curve[-1][0]} where there was none"
    return {"steps needed": Figure(found, False, "steps", signature)}


def mistakes(subject: StudySubject) -> Mapping[str, Figure]:
    """Return how many examples of the test set a classifier gets wrong.

    Raises:
        ConfigError: a run without labels.
    """
    kind = kind_of(type(subject.cfg.task)) if subject.cfg else ""
    if subject.run is None or kind != "classification":
        raise ConfigError("measures.mistakes: needs a run of classification")
    evaluator = EVALUATORS[kind](subject.run, subject.checkpoint)
    found = evaluator.evaluate(evaluator.examples(None), baseline=False)
    accuracy, counts = found.counted["accuracy"]
    right, all_of_them = counts.T
    metric = RatioOfCounts("mistakes", 100.0, higher_is_better=False, signature=accuracy.signature)
    return {"mistakes": scored(metric, np.column_stack([all_of_them - right, all_of_them]), unit="%")}
