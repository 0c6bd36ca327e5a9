"""Runs as points of a scaling law: parameters, training tokens and last validation loss of each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dragoman.checkpoint import RunDirectory
from dragoman.errors import DataError
from dragoman.journal import Journal
from dragoman.plan.laws import LawRun
from dragoman.plan.parameters import parameters_of_run


def read_runs(paths: Sequence[Path]) -> tuple[list[LawRun], list[str]]:
    """Return the finished runs among ``paths``, and why each of the others is left out.

    Raises:
        CheckpointError: no run at one of them.
        DataError: losses that cannot be compared: other tokens, or another validation text.
    """
    found, left_out = [], []
    first: tuple[Path, dict[str, Any]] | None = None
    for path in paths:
        run = RunDirectory.open(path)
        config = run.config
        reason, point = _point(run, config)
        if point is None:
            left_out.append(f"{path}: left out: {reason}")
            continue
        facts = _facts(run, config)
        if first is None:
            first = (path, facts)
        for name, value in facts.items():
            if value != first[1][name]:
                raise DataError(
                    f"{path}: its {name} is not that of {first[0]}, so their losses cannot be compared: give runs that "
                    "differ in size and budget alone"
                )
        found.append(point)
    return found, left_out


def _point(run: RunDirectory, config: dict[str, Any]) -> tuple[str, LawRun | None]:
    """Return the run's point, or why it has none."""
    last, valid = None, None
    for line in Journal(run.path / "metrics.jsonl").lines():
        if line.get("kind") == "train":
            last = line
        elif line.get("kind") == "valid":
            valid = line
    if last is None or valid is None:
        return "it was never validated: set train.validate_every, and give it validation text", None
    step, total = max(last["step"], valid["step"]), last["total"]
    if total is not None and step < total:
        return f"it ended at step {step:,} of {total:,}: continue it with --resume", None
    if valid["step"] < step:
        return f"its last validation was at step {valid['step']:,} of {step:,}", None
    tokens = last["tokens"] * step / last["step"]  # a last line may come some steps before the end
    return "", LawRun(str(run.path), parameters_of_run(config).total, tokens, valid["loss"])


def _facts(run: RunDirectory, config: dict[str, Any]) -> dict[str, Any]:
    """Return what the losses depend on besides the model and its training."""
    data = config.get("data", {})
    return {
        "task": config.get("task"),
        "validation text": data.get("valid") or data,  # where none is named, it is held out from the training text
        "tokenizer": [file.read_bytes() for file in run.tokenizer_files()],
    }
