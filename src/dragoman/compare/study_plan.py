"""Plan of a study: the configuration of every training, its length and its size, decided before the first one.

OUT/study.json                what was asked, for the same command to go on
    data/                     generated data sets
    prepared/KEY/             text and tokenizer, prepared once for all contestants that share them
    tuning/NAME/FACTOR/       short runs that find a learning rate
    trials/NAME/seed-1/       run directories, and seed-1.json with the figures of each
    results.json  report.html
"""

import hashlib
import json
import math
import shutil
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dragoman.checkpoint import RunDirectory
from dragoman.compare.contestants import Contestant, contestants_of
from dragoman.compare.matching import Matched, fit_widths
from dragoman.compare.study import Study
from dragoman.compare.trial import prepare
from dragoman.config import differences, to_dict
from dragoman.errors import CheckpointError, ConfigError
from dragoman.machine import choose_device
from dragoman.plan.measured import size
from dragoman.plan.parameters import count_parameters
from dragoman.train.budget import Minutes, Steps
from dragoman.train.events import Event
from dragoman.train.prediction import RunCounter
from dragoman.train.recipe import Keep, RunConfig
from dragoman.train.tasks import task_data_for
from dragoman.train.tasks.task_data import FOLDER, TaskData

STUDY, DATA, PREPARED, TUNING, TRIALS = "study.json", "data", "prepared", "tuning", "trials"
POINTS = 20
"""Validations of a training, for its learning curve."""
SAVED_EVERY = 500
"""Steps between checkpoints, which an interrupted training goes on from."""
OVERHEAD = 1.25
"""Time of a training with its validations and measures, in that of its steps."""
FREE = ("title", "question", "claims", "minutes", "unfair", "judge", "against", "seeds", "sizes")
"""Settings that may change after a study began: they change no training."""
OF_THE_LOSS = ("label_smoothing", "r_drop")
"""Settings of tasks that change the loss and not the text."""


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


@dataclass(frozen=True)
class Planned:
    """A contestant whose trainings are decided."""

    contestant: Contestant
    cfg: RunConfig | None = None
    """Configuration with everything but seed and learning rate decided."""
    prepared: Path | None = None
    """Folder of its text and tokenizer."""
    parameters: int = 0
    flops_per_step: float = 0.0
    """FLOPs of an average step, forward and backward."""
    memory: int = 0
    """Bytes that a training holds, as counted."""
    tokens_per_step: float = 0.0
    """Tokens of an average step, on either side."""
    step_seconds: float | None = None
    """Predicted time of a step; None where nobody asked."""
    matched: Matched | None = None
    summary: str = ""
    """Amount of data, in words."""

    @property
    def name(self) -> str:
        return self.contestant.name

    @property
    def folder(self) -> str:
        """Return the name of its folder."""
        return quote(self.name, safe=" ,()+=").replace(".", "%2E")

    @property
    def steps(self) -> int | None:
        """Return the steps of a training; None where a time decides."""
        return self.cfg.train.budget.total(1) if self.cfg else 0


@dataclass(frozen=True)
class StudyPlan:
    """All that is decided before the first training."""

    request: StudyRequest
    contestants: list[Planned]
    notes: list[str] = field(default_factory=list)
    """Sentences on what makes it fair, or not."""

    @property
    def seconds(self) -> float | None:
        """Return the predicted time of all trainings; None where that was not predicted."""
        each = [_seconds(planned, self.request.study) for planned in self.contestants]
        return None if None in each else sum(filter(None, each))


def _seconds(planned: Planned, study: Study) -> float | None:
    if planned.cfg is None:
        return None
    tuned = len(study.tuning.factors) * study.tuning.steps if study.tuning else 0
    limit = planned.cfg.train.budget.seconds
    if planned.step_seconds is None:
        return None
    length = study.seeds * (limit if limit is not None else (planned.steps or 0) * planned.step_seconds)
    return OVERHEAD * (length + tuned * planned.step_seconds)


# ---- identity -------------------------------------------------------------------------------------


def check_folder(request: StudyRequest, path: Path) -> None:
    """Check that ``path`` is free, or holds this very study.

    Raises:
        CheckpointError: something else is there, or a study that has changed since; the message shows the difference.
    """
    if path.exists() and not (path.is_dir() and ((path / STUDY).exists() or _only_prepared(path))):
        raise CheckpointError(f"{path}: exists and is not a study: choose another --out")
    if not (path / STUDY).exists():
        return
    try:
        begun = json.loads((path / STUDY).read_text(encoding="utf-8"))["asked"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path / STUDY}: damaged: remove {path}, or choose another --out") from None
    if changes := differences(begun, request.lasting()):
        listed = "; ".join(f"{where} was {_brief(old)}, is now {_brief(new)}" for where, old, new in changes[:3])
        more = f" (and {len(changes) - 3} more)" if len(changes) > 3 else ""
        raise CheckpointError(
            f"{path}: begun with other settings: {listed}{more}: restore them, or choose another --out"
        )


def _only_prepared(path: Path) -> bool:
    """Return whether a folder holds nothing but what a study prepares before it begins."""
    return {inside.name for inside in path.iterdir() if not inside.name.startswith(".")} <= {DATA, PREPARED}


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


# ---- deciding -------------------------------------------------------------------------------------


def decide(request: StudyRequest, path: Path, *, predict: bool = False) -> Generator[Event, None, StudyPlan]:
    """Prepare the data, fit sizes and set lengths.

    Args:
        request: what is asked.
        path: folder of the study.
        predict: also predict the time of a step.

    Raises:
        ConfigError: contestants that are wrong or cannot be matched.
        DataError: text that cannot be read.
    """
    study = request.study
    contestants = contestants_of(study, path / DATA)
    if not study.trains:
        return StudyPlan(request, [Planned(contestant) for contestant in contestants])
    opened = {}
    for contestant in contestants:
        opened[contestant.name] = yield from _prepared(contestant, path)
    counted = _Counting(study, contestants, opened)
    planned = [
        counted.planned(contestant, predict=predict or request.seconds is not None) for contestant in contestants
    ]
    planned = [_with_length(one, study, opened[one.name]) for one in planned]
    if request.seconds is not None:
        planned = _within(planned, study, request.seconds)
    return StudyPlan(request, planned, _notes(study, planned))


@dataclass(frozen=True)
class _Opened:
    """Prepared text of a contestant."""

    folder: Path
    data: TaskData
    cfg: RunConfig
    """Configuration with everything that the text and the machine determine."""


def _prepared(contestant: Contestant, path: Path) -> Generator[Event, None, _Opened]:
    cfg = contestant.cfg
    assert cfg is not None, "it trains"
    task_data = task_data_for(cfg)
    try:
        task_data.check(cfg)
        folder = path / PREPARED / _data_key(cfg)
        if (folder / FOLDER).is_dir():  # of another contestant, or of this one before
            data = task_data.open(cfg, RunDirectory(folder))
        else:
            shutil.rmtree(folder, ignore_errors=True)
            data = yield from prepare(cfg, folder)
        return _Opened(folder, data, data.fill(cfg))
    except ConfigError as error:
        raise ConfigError(f"contestants.{contestant.name}: {error}") from None


def _data_key(cfg: RunConfig) -> str:
    """Return a name for all that the prepared text depends on."""
    plain = to_dict(cfg)
    task = {name: value for name, value in plain["task"].items() if name not in OF_THE_LOSS}
    longest = getattr(task_data_for(cfg).outline(cfg), "max_length", None)
    parts = [task, plain["data"], plain["tokenizer"], plain["target_tokenizer"], plain["start_from"], longest]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


class _Counting:
    """Sizes of the contestants' models."""

    def __init__(self, study: Study, contestants: list[Contestant], opened: dict[str, _Opened]):
        self.study, self.contestants, self.opened = study, contestants, opened
        self._wanted: float | None = None

    def planned(self, contestant: Contestant, *, predict: bool) -> Planned:
        there = self.opened[contestant.name]
        cfg, matched = there.cfg, None
        try:
            if self.study.match:
                cfg, matched = fit_widths(cfg, self.study.match, self.wanted, lambda one: self._size(one, there))
        except ConfigError as error:
            raise ConfigError(f"contestants.{contestant.name}: {error}") from None
        counter = self._counter(cfg, there)
        memory, flops = _counted(counter)
        sample = counter.sample
        return Planned(
            contestant,
            cfg,
            there.folder,
            count_parameters(there.data.outline(cfg)).total,
            flops,
            memory,
            sample.real / sample.steps,
            counter.predict().step_seconds if predict else None,
            matched,
            there.data.summary,
        )

    @property
    def wanted(self) -> float:
        """Return the size that is wanted."""
        if self._wanted is None:
            assert self.study.match, "asked where there is one"
            to = self.study.match.to
            if isinstance(to, int | float):
                self._wanted = float(to)
            else:
                one = self.opened[to or self.contestants[0].name]
                self._wanted = self._size(one.cfg, one)
        return self._wanted

    def _size(self, cfg: RunConfig, there: _Opened) -> float:
        assert self.study.match, "asked where there is one"
        if self.study.match.hold == "parameters":
            return count_parameters(there.data.outline(cfg)).total
        return _flops(self._counter(cfg, there))

    def _counter(self, cfg: RunConfig, there: _Opened) -> RunCounter:
        return RunCounter(cfg, there.data, there.data.plan(cfg), choose_device(cfg.train.device))


def _flops(counter: RunCounter) -> float:
    """Return the FLOPs of an average step, forward and backward."""
    return counter.count(counter.sample.typical).counted.learned_flops * counter.work


def _counted(counter: RunCounter) -> tuple[int, float]:
    """Return the bytes that a training holds, and the FLOPs of an average step."""
    typical, largest = counter.sample.typical, counter.sample.largest
    found = counter.count(typical)
    memory = counter.memory(found if typical == largest else counter.count(largest))
    return memory.total, found.counted.learned_flops * counter.work


# ---- lengths --------------------------------------------------------------------------------------


def _with_length(planned: Planned, study: Study, there: _Opened) -> Planned:
    unit, amount = study.budget.unit, study.budget.amount
    assert planned.cfg is not None, "it trains"
    if unit == "minutes":
        return _lasting(planned, None, amount)
    each = {
        "steps": 1.0,
        "epochs": 1 / there.data.plan(planned.cfg).steps_per_epoch,
        "tokens": planned.tokens_per_step,
        "flops": planned.flops_per_step,
    }[unit]
    steps = math.ceil(amount / each - 1e-9) if unit == "epochs" else math.floor(amount / each + 1e-9)
    if steps < 1:
        raise ConfigError(f"budget.{unit}: {amount:g} is less than one step of {planned.name}, which takes {each:.3g}")
    return _lasting(planned, steps, None)


def _lasting(planned: Planned, steps: int | None, minutes: float | None) -> Planned:
    """Return the contestant with this length, and with nothing but what its figures depend on."""
    assert planned.cfg is not None, "it trains"
    train = planned.cfg.train
    every = max(1, (steps or POINTS * train.validate_every) // POINTS)
    train = replace(
        train,
        budget=Steps(steps=steps) if steps else Minutes(minutes=minutes or 1.0),
        validate_every=every,
        report_every=every,
        save_every=max(SAVED_EVERY, every),
        keep=Keep(last=1),
        patience=None,
        best_by=None,
        samples=0,
        scored=0,
    )
    return replace(planned, cfg=replace(planned.cfg, train=train))


def _within(planned: list[Planned], study: Study, seconds: float) -> list[Planned]:
    """Return the contestants with all trainings longer or shorter by one factor, so that all together take the time.

    Raises:
        ConfigError: too little time for a step of each.
    """
    tuned = OVERHEAD * sum(
        len(study.tuning.factors) * study.tuning.steps * (one.step_seconds or 0) for one in planned if study.tuning
    )
    learning = sum(_seconds(one, study) or 0 for one in planned) - tuned
    factor = (seconds - tuned) / learning if learning else 1.0
    shorter = []
    for one in planned:
        assert one.cfg is not None, "it trains"
        if limit := one.cfg.train.budget.seconds:
            shorter.append(_lasting(one, None, limit / 60 * factor) if factor > 0 else one)
            continue
        steps = math.floor((one.steps or 0) * factor)
        if steps < 1:
            raise ConfigError(
                f"--budget: {seconds:.0f} s are too few: {len(planned)} contestants with {study.seeds} seeds need "
                f"{tuned + learning:.0f} s at the length that the study gives them"
            )
        shorter.append(_lasting(one, steps, None))
    return shorter


def _notes(study: Study, planned: list[Planned]) -> list[str]:
    """Return what is held equal, in sentences."""
    first = planned[0].cfg
    assert first is not None, "it trains"
    unit, amount = study.budget.unit, study.budget.amount
    lengths = {one.steps for one in planned}
    steps = f"{lengths.pop():,} steps each" if len(lengths) == 1 and None not in lengths else ""
    notes = [f"Every training lasts {amount:g} {unit}" + (f": {steps}." if steps and unit != "steps" else ".")]
    if steps and not steps.startswith(f"{amount:,.0f} "):
        notes[0] = f"Every training lasts {steps}."
    folders = {one.prepared for one in planned}
    notes.append(
        "All contestants read the same text in the same order, with the same tokenizer; seeds are the same for all."
        if len(folders) == 1
        else "Text or tokenizer differ between contestants, as the study varies them; seeds are the same for all."
    )
    if study.match:
        off = max(abs(one.matched.off) for one in planned if one.matched)
        notes.append(f"Widths are fitted to equal {study.match.hold}; the largest difference is {off:.2%}.")
    if study.tuning:
        notes.append(
            f"Learning rates are tuned for each contestant: {len(study.tuning.factors)} trainings of "
            f"{study.tuning.steps:,} steps each, by validation loss."
        )
    else:
        notes.append("Learning rates are those of the run file or preset; they are not tuned.")
    most = max(one.memory for one in planned)
    notes.append(f"A training holds at most {size(most)}, as counted.")
    return notes
