"""Request of a study: what the command line asks for, and the folder where it was begun.

OUT/study.json                what was asked, for the same command to go on
    data/                     generated data sets
    prepared/KEY/             text and tokenizer, prepared once for all contestants that share them
    tuning/NAME/FACTOR/       short runs that find a learning rate
    trials/NAME/seed-1/       run directories, and seed-1.json with the figures of each
    results.json  report.html
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.compare.study import Study
from dragoman.config import differences, to_dict
from dragoman.errors import CheckpointError

STUDY, DATA, PREPARED, TUNING, TRIALS = "study.json", "data", "prepared", "tuning", "trials"
FREE = ("title", "question", "claims", "minutes", "unfair", "judge", "against", "seeds", "sizes")
"""Settings that may change after a study began: they change no training."""


@dataclass(frozen=True)
class StudyRequest:
    """A study, and what the command line adds to it."""

    study: Study
    name: str
    size: str
    seconds: float | None = None
    """Time for the whole study: all trainings are shortened by one factor. None for the lengths as given."""
    command: str = ""
    """Command that repeats the study."""

    def lasting(self) -> dict[str, Any]:
        """Return what must stay the same when a study goes on."""
        plain = {key: value for key, value in to_dict(self.study).items() if key not in FREE}
        return json.loads(json.dumps(plain | {"size": self.size, "--budget": self.seconds}))


def begun(request: StudyRequest, path: Path) -> dict[str, Any] | None:
    """Return what was written when the study at ``path`` began; None if it has not begun.

    Raises:
        CheckpointError: something else is there, or a study that has changed since; the message shows the difference.
    """
    if path.exists() and not (path.is_dir() and ((path / STUDY).exists() or _only_prepared(path))):
        raise CheckpointError(f"{path}: exists and is not a study: choose another --output")
    if not (path / STUDY).exists():
        return None
    try:
        known = json.loads((path / STUDY).read_text(encoding="utf-8"))
        before, _ = known["asked"], known["measured"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path / STUDY}: damaged: remove {path}, or choose another --output") from None
    if changes := differences(_as_now(before), request.lasting()):
        listed = "; ".join(f"{where} was {_brief(old)}, is now {_brief(new)}" for where, old, new in changes[:3])
        more = f" (and {len(changes) - 3} more)" if len(changes) > 3 else ""
        raise CheckpointError(
            f"{path}: begun with other settings: {listed}{more}: restore them, or choose another --output"
        )
    return known


def _as_now(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what was asked as this version writes it: the length had a field for every unit."""
    length = asked["budget"]
    if length.get("kind") != "training_length":
        return asked
    (given,) = ({"kind": unit, unit: amount} for unit, amount in length.items() if amount and unit != "kind")
    return asked | {"budget": given}


def _only_prepared(path: Path) -> bool:
    """Return whether a folder holds nothing but what a study prepares before it begins."""
    return {inside.name for inside in path.iterdir() if not inside.name.startswith(".")} <= {DATA, PREPARED}


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
