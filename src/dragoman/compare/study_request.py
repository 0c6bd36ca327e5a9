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
from dragoman.migrations import renamed, renamed_setting

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
        return _as_now(json.loads(json.dumps(plain | {"size": self.size, "--budget": self.seconds})))


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
        before, _ = _as_now(known["asked"]), known["measured"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise CheckpointError(f"{path / STUDY}: damaged: remove {path}, or choose another --output") from None
    if changes := differences(before, request.lasting()):
        listed = "; ".join(f"{where} was {_brief(old)}, is now {_brief(new)}" for where, old, new in changes[:3])
        more = f" (and {len(changes) - 3} more)" if len(changes) > 3 else ""
        raise CheckpointError(
            f"{path}: begun with other settings: {listed}{more}: restore them, or choose another --output"
        )
    return known


def _as_now(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what was asked as this version writes it: settings had other names, and lengths a field for every unit."""
    length, base = asked["budget"], asked["base"]
    if length["kind"] == "training_length":
        (length,) = ({"kind": unit, unit: amount} for unit, amount in length.items() if amount and unit != "kind")
    return asked | {
        "budget": length,
        "base": renamed(base) if isinstance(base, dict) else base,
        "contestants": {name: _settings_as_now(own) for name, own in asked["contestants"].items()},
        "vary": {
            renamed_setting(path, None)[0]: [renamed_setting(path, value)[1] for value in values]
            for path, values in asked["vary"].items()
        },
    }


def _settings_as_now(settings: dict[str, Any]) -> dict[str, Any]:
    return dict(renamed_setting(path, value) for path, value in settings.items())


def _only_prepared(path: Path) -> bool:
    """Return whether a folder holds nothing but what a study prepares before it begins."""
    return {inside.name for inside in path.iterdir() if not inside.name.startswith(".")} <= {DATA, PREPARED}


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
