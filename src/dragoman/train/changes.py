"""Settings that a resumed run may change, and those it may not."""

import json
from collections.abc import Sequence
from typing import Any

from dragoman.config import differences, from_dict, override, to_dict
from dragoman.errors import CheckpointError
from dragoman.train.recipe import RunConfig

FREE = (
    "train.budget",
    "train.device",
    "train.give_up_after",
    "train.keep",
    "train.on_memory",
    "train.parallel",
    "train.patience",
    "train.report_every",
    "train.samples",
    "train.save_every",
    "train.scored",
    "train.validate_every",
)
"""Settings that do not change a step's effect on the weights (except for a schedule that ends with the budget)."""

DELIBERATE = ("task", "train")
"""Settings that do, and that one may still want to change in the middle of a run."""

_DECIDED = (
    "model.decoder.vocab",
    "model.first.inputs.vocab",
    "model.head.classes",
    "model.inputs.vocab",
    "model.second.inputs.vocab",
    "model.source_vocab",
    "model.vocab",
    "task.labels",
    "task.unanswerable",
    "train.precision",
    "train.products",
    "train.schedule.dim",
)
"""Settings that a run file may leave open (None or "auto") and that the run then determines once."""

Change = tuple[str, Any, Any]
"""A changed setting: path, value before, value now."""


def changed(
    had: dict[str, Any], wanted: dict[str, Any], *, deliberate: bool, where: str
) -> tuple[RunConfig, list[Change]]:
    """Return the configuration to resume with, and how it differs from what the run ``had``.

    Raises:
        ConfigError: ``had`` or ``wanted`` is no configuration of a run.
        CheckpointError: something differs that must not; the message lists all of it with both values.
    """
    had = to_dict(from_dict(RunConfig, had, where=where))  # what its version did not know yet has its default
    for path, old, new in differences(had, wanted):
        if path in _DECIDED and new in (None, "auto"):
            wanted = override(wanted, f"{path}={json.dumps(old)}")
    cfg = from_dict(RunConfig, wanted, where=where)
    changes = differences(had, to_dict(cfg))
    refused = [change for change in changes if not _within(change, (*FREE, *DELIBERATE) if deliberate else FREE)]
    if refused:
        listed = "; ".join(f"{path} was {old!r}, is now {new!r}" for path, old, new in refused)
        meant = all(_within(change, DELIBERATE) for change in refused)
        confirmed = ", or confirm it with --deliberate (from Python deliberate=True)" if meant else ""
        remedy = f"restore it, start a new run{confirmed}"
        raise CheckpointError(f"{where}: the configuration differs: {listed}: {remedy}")
    return cfg, changes


def _within(change: Change, settings: Sequence[str]) -> bool:
    return any(change[0] == setting or change[0].startswith(f"{setting}.") for setting in settings)
