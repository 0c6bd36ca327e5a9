"""Plan of a study: the configuration of every training, its length and its size, decided before the first one."""

import hashlib
import json
import math
import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dragoman.checkpoint import RunDirectory
from dragoman.compare.contestants import Contestant, contestants_of
from dragoman.compare.matching import Matched, fit_widths
from dragoman.compare.study import Study, unit_and_amount
from dragoman.compare.study_request import DATA, PREPARED, StudyRequest
from dragoman.compare.trial import BARE, prepare
from dragoman.compare.tuning import most_trainings
from dragoman.config import to_dict
from dragoman.errors import ConfigError
from dragoman.machine import choose_device
from dragoman.plan.measured import size
from dragoman.plan.parameters import count_parameters
from dragoman.train.budget import Minutes, Steps
from dragoman.train.events import Event
from dragoman.train.prediction import RunCounter
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks import task_data_for
from dragoman.train.tasks.task_data import FOLDER, TaskData

POINTS = 20
"""Validations of a training, for its learning curve."""
SAVED_EVERY = 500
"""Steps between checkpoints, which an interrupted training goes on from."""
OF_A_TIME = 100
"""Steps between validations of a training that lasts a time."""
OVERHEAD = 1.25
"""Time of a training with its validations and measures, in that of its steps."""
OF_THE_LOSS = ("label_smoothing", "r_drop")
"""Settings of tasks that change the loss and not the text."""


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

    def measured(self) -> dict[str, Any]:
        """Return what the speed of this machine decided, by contestant: a study that goes on must keep it."""
        trains = {one.name: one.cfg.train for one in self.contestants if one.cfg}
        names = ("budget", "precision", "products")
        return {name: {key: to_dict(getattr(train, key)) for key in names} for name, train in trains.items()}

    @property
    def further_trainings(self) -> int:
        """Return how many trainings, besides those with the study's seeds, tune learning rates at most."""
        tuning = self.request.study.tuning
        if tuning is None:
            return 0
        return len(self.contestants) * (most_trainings(tuning) - (tuning.steps is None))

    @property
    def seconds(self) -> float | None:
        """Return the predicted time of all trainings, at most; None where it was not predicted."""
        each = [_seconds(planned, self.request.study) for planned in self.contestants]
        return None if None in each else sum(filter(None, each))


def _seconds(planned: Planned, study: Study) -> float | None:
    if planned.cfg is None:
        return None
    limit = planned.cfg.train.budget.seconds
    if planned.step_seconds is None:
        return None
    each = limit if limit is not None else (planned.steps or 0) * planned.step_seconds
    return OVERHEAD * (_trainings(study) * each + _short_steps(study) * planned.step_seconds)


def _trainings(study: Study) -> int:
    """Return how many trainings of the whole length one contestant has at most."""
    if study.tuning is None or study.tuning.steps is not None:
        return study.seeds
    return study.seeds - 1 + most_trainings(study.tuning)


def _short_steps(study: Study) -> int:
    """Return how many steps one contestant's shorter trainings, which tune its rate, have at most."""
    if study.tuning is None or study.tuning.steps is None:
        return 0
    return most_trainings(study.tuning) * study.tuning.steps


# ---- deciding -------------------------------------------------------------------------------------


def decide(
    request: StudyRequest, path: Path, *, predict: bool = False, before: Mapping[str, Any] | None = None
) -> Generator[Event, None, StudyPlan]:
    """Prepare the data, fit sizes and set lengths.

    Args:
        request: what is asked.
        path: folder of the study.
        predict: also predict the time of a step.
        before: what was measured when the study began (``StudyPlan.measured``), which a study that goes on keeps.

    Raises:
        ConfigError: contestants that are wrong or cannot be matched.
        DataError: text that cannot be read.
    """
    study = request.study
    contestants = contestants_of(study, path / DATA)
    if not study.trains:
        return StudyPlan(request, [Planned(contestant) for contestant in contestants])
    opened = yield from _opened(contestants, path)
    counted = _Counting(study, contestants, opened)
    predict = predict or (request.seconds is not None and not before)
    planned = [counted.planned(contestant, predict=predict) for contestant in contestants]
    planned = [_with_length(one, study, opened[one.name]) for one in planned]
    if before:
        planned = [_as_before(one, before[one.name]) for one in planned]
    elif request.seconds is not None:
        planned = _within(planned, study, request.seconds)
    return StudyPlan(request, planned, _notes(study, planned))


@dataclass(frozen=True)
class _Opened:
    """Prepared text of a contestant."""

    folder: Path
    data: TaskData
    cfg: RunConfig
    """Configuration with everything that the text and the machine determine."""


def _opened(contestants: list[Contestant], path: Path) -> Generator[Event, None, dict[str, _Opened]]:
    """Prepare text once for all contestants that share it, without what is too long for any of them."""
    sharing: dict[str, list[tuple[float, Contestant]]] = {}
    for contestant in contestants:
        assert contestant.cfg is not None, "it trains"
        try:
            task_data = task_data_for(contestant.cfg)
            task_data.check(contestant.cfg)
            longest = getattr(task_data.outline(contestant.cfg), "max_length", None)
        except ConfigError as error:
            raise ConfigError(f"contestants.{contestant.name}: {error}") from None
        sharing.setdefault(_data_key(contestant.cfg), []).append((longest or math.inf, contestant))
    opened = {}
    for key, some in sharing.items():
        shortest, first = min(some, key=lambda one: one[0])
        folder = path / PREPARED / (key if math.isinf(shortest) else f"{key}-{shortest}")
        assert first.cfg is not None, "it trains"
        if not (folder / FOLDER).is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            yield from prepare(first.cfg, folder)
        for _, contestant in some:
            opened[contestant.name] = _open(contestant, folder)
    return opened


def _open(contestant: Contestant, folder: Path) -> _Opened:
    cfg = contestant.cfg
    assert cfg is not None, "it trains"
    try:
        data = task_data_for(cfg).open(cfg, RunDirectory(folder))
        return _Opened(folder, data, data.fill(cfg))
    except ConfigError as error:
        raise ConfigError(f"contestants.{contestant.name}: {error}") from None


def _data_key(cfg: RunConfig) -> str:
    """Return a name for all that the prepared text depends on, but for the longest text of the model."""
    plain = to_dict(cfg)
    task = {name: value for name, value in plain["task"].items() if name not in OF_THE_LOSS}
    parts = [task, plain["data"], plain["tokenizer"], plain["target_tokenizer"], plain["start_from"]]
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
    return counter.count(counter.sample.typical, update=False).counted.learned_flops * counter.work


def _counted(counter: RunCounter) -> tuple[int, float]:
    """Return the bytes that a training holds, and the FLOPs of an average step."""
    found = counter.count(counter.sample.typical)
    memory = counter.memory(counter.largest(found))
    return memory.total, found.counted.learned_flops * counter.work


# ---- lengths --------------------------------------------------------------------------------------


def _with_length(planned: Planned, study: Study, there: _Opened) -> Planned:
    unit, amount = unit_and_amount(study.budget)
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
    every = max(1, steps // POINTS) if steps else min(OF_A_TIME, train.validate_every)
    train = replace(
        train,
        budget=Steps(steps=steps) if steps else Minutes(minutes=minutes or 1.0),
        validate_every=every,
        report_every=every,
        save_every=max(SAVED_EVERY, every),
        **BARE,
    )
    return replace(planned, cfg=replace(planned.cfg, train=train))


def _as_before(planned: Planned, measured: Mapping[str, Any]) -> Planned:
    """Return the contestant with what was measured when the study began."""
    budget = measured["budget"]
    planned = _lasting(planned, budget.get("steps"), budget.get("minutes"))
    assert planned.cfg is not None, "it trains"
    train = replace(planned.cfg.train, precision=measured["precision"], products=measured["products"])
    return replace(planned, cfg=replace(planned.cfg, train=train))


def _within(planned: list[Planned], study: Study, seconds: float) -> list[Planned]:
    """Return the contestants with all trainings longer or shorter by one factor, so that all together take the time.

    Raises:
        ConfigError: too little time for a step of each.
    """
    tuned = OVERHEAD * sum(_short_steps(study) * (one.step_seconds or 0) for one in planned)
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
    unit, amount = unit_and_amount(study.budget)
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
        given = len(study.tuning.factors)
        further = most_trainings(study.tuning) - given
        beyond = f", and up to {further} beyond where the best rate stands at an edge" if further else ""
        short = study.tuning.steps
        length = f"of {short:,} steps" if short else "of the study's own length, the best of which is that with seed 1"
        notes.append(
            f"Learning rates are tuned for each contestant: {given} trainings {length}, by validation loss{beyond}."
        )
    else:
        notes.append("Learning rates are those of the run file or preset; they are not tuned.")
    most = max(one.memory for one in planned)
    notes.append(f"A training holds at most {size(most)}, as counted.")
    return notes
