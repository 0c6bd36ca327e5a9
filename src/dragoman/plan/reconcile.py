"""Reconciliation of a run: what was predicted before its first step, and what was measured."""

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.errors import CheckpointError
from dragoman.journal import Journal
from dragoman.plan.measured import measured

PREDICTION = "prediction.json"
"""File in the run directory with the prediction."""


@dataclass(frozen=True)
class Reconciled:
    """One figure of a run."""

    name: str
    unit: str
    """``bytes``, ``seconds``, ``tokens`` (a second) or ``steps``."""
    predicted: float | None
    """None where nothing was predicted."""
    measured: float | None
    """None where nothing was measured."""

    @property
    def ratio(self) -> float | None:
        """Return predicted / measured; None where one of them is missing."""
        return self.predicted / self.measured if self.predicted and self.measured else None


def reconcile(run: Path) -> list[Reconciled]:
    """Return the figures of a run with their predictions.

    Raises:
        CheckpointError: the run has neither a prediction nor measurements.
    """
    predicted, notes, rows = prediction_of(run), measured(run), list(_reports(run))
    if not predicted and not notes and not rows:
        raise CheckpointError(f"{run}: nothing to reconcile: no step of this run has been reported yet")
    training, decoding, serving = (notes.get(kind, {}) for kind in ("training", "decoding", "serving"))
    rate = statistics.median(row["tokens_per_second"] for row in rows) if rows else None
    last: dict[str, Any] = rows[-1] if rows else {}
    steps = last.get("step") or 0
    found = [
        Reconciled("peak memory in training", "bytes", predicted.get("memory"), training.get("memory")),
        Reconciled("a step, processor time", "seconds", predicted.get("cpu_seconds"), _share(last, "cpu_seconds")),
        Reconciled("a step", "seconds", predicted.get("step_seconds"), _share(last, "seconds")),
        Reconciled("tokens read a second", "tokens", _rate(predicted), rate),
        Reconciled("steps", "steps", predicted.get("steps"), steps or None),
        Reconciled("peak memory in decoding", "bytes", None, decoding.get("memory")),
        Reconciled("tokens written a second", "tokens", None, decoding.get("tokens_per_second")),
        Reconciled("peak memory in serving", "bytes", None, serving.get("memory")),
        Reconciled("a step in serving", "seconds", None, serving.get("step_seconds")),
        Reconciled("tokens chosen a second in serving", "tokens", None, serving.get("tokens_per_second")),
    ]
    return [row for row in found if row.predicted is not None or row.measured is not None]


def _share(last: dict[str, Any], name: str) -> float | None:
    return last[name] / last["step"] if last.get("step") and last.get(name) else None


def _rate(predicted: dict[str, Any]) -> float | None:
    seconds = predicted.get("step_seconds")
    return predicted["tokens_per_step"] / seconds if seconds else None


def prediction_of(run: Path) -> dict[str, Any]:
    """Return the prediction in a run's directory; nothing where it is missing or damaged."""
    try:
        found = json.loads((run / PREDICTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _reports(run: Path) -> Iterator[dict[str, Any]]:
    """Yield the reports of steps in the run's metrics."""
    for row in Journal(run / "metrics.jsonl").lines():
        if row.get("kind") == "train" and row.get("tokens_per_second"):
            yield row
