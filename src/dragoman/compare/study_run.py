"""Run a study: decide, tune, train and measure, in this order; what is finished is skipped."""

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dragoman import durable
from dragoman.compare.results import machine, results_of, write_results
from dragoman.compare.study import Tuning
from dragoman.compare.study_plan import Planned, StudyPlan, decide
from dragoman.compare.study_request import STUDY, TRIALS, TUNING, StudyRequest, begun
from dragoman.compare.study_trial import StudyTrial, TrialFigures, check_measures
from dragoman.compare.tuning import (
    SEED,
    RateTuning,
    most_trainings,
    rate_path,
    tried_rate,
    tuning_folder,
    tuning_trial,
    with_rate,
)
from dragoman.compare.workers import LocalTrials, TrialDone, TrialStarted, TrialWorkers
from dragoman.train.events import Event, StepsReported
from dragoman.train.interrupt import as_ctrl_c

# ---- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StudyPlanned:
    """Everything is decided."""

    plan: StudyPlan
    trials: int
    done: int
    """Trials that were finished before."""


@dataclass(frozen=True)
class StudyProgress:
    """A trial makes progress."""

    name: str
    number: int
    trials: int
    step: int
    total: int | None


@dataclass(frozen=True)
class RateTuned:
    """A contestant's learning rate is chosen."""

    name: str
    tuning: RateTuning


@dataclass(frozen=True)
class StudyTrialFinished:
    """A trial is finished, or has failed."""

    name: str
    seed: int
    number: int
    trials: int
    result: TrialFigures
    before: bool
    """True if it was finished before this study went on."""


@dataclass(frozen=True)
class StudyFinished:
    """The study has ended."""

    path: Path
    complete: bool
    """False if it was interrupted: the same command goes on."""
    failed: int = 0
    """Trainings that did not finish."""
    words: tuple[str, ...] = ()
    """Verdicts."""


StudyEvent = Event | StudyPlanned | StudyProgress | RateTuned | StudyTrialFinished | StudyFinished


# ---- the study ------------------------------------------------------------------------------------


class StudyRun:
    """A study that starts or goes on at ``path``; ``events`` runs it.

    Args:
        request: what is asked.
        path: folder of the study.
        workers: where trainings run; default: one after the other in this process.
        keep: keep the checkpoints of finished trainings.

    Raises:
        ConfigError: a measure that does not exist, or settings that it does not have.
        CheckpointError: something else is at ``path``, or a study with other settings.
    """

    def __init__(self, request: StudyRequest, path: Path, *, workers: TrialWorkers | None = None, keep: bool = False):
        self.request, self.path, self.workers, self.keep = request, path, workers or LocalTrials(), keep
        check_measures(request.study.measure_settings())
        self.before = begun(request, path)

    def events(self) -> Iterator[StudyEvent]:
        """Yield everything that happens, up to ``StudyFinished``.

        Raises:
            UserError: contestants that are wrong or cannot be matched, data that cannot be read.
        """
        try:
            with as_ctrl_c():
                yield from self._study()
        except KeyboardInterrupt:
            yield StudyFinished(self.path, False)
        finally:
            self.workers.close()

    def _study(self) -> Iterator[StudyEvent]:
        plan = yield from decide(self.request, self.path, before=self.before and self.before["measured"])
        self._begin(plan)
        tuned = yield from self._tuned(plan)
        trials = self._trials(plan, tuned)
        before = {id(trial) for trial in trials if trial.done() is not None}
        yield StudyPlanned(plan, len(trials), len(before))
        number = 0
        for trial in trials:
            if id(trial) in before:
                number += 1
                yield self._finished(trial, number, len(trials), before=True)
        yield from self._run(trials, before, plan, tuned)
        found = self._write(plan, tuned, trials)
        failed = [run for run in found["runs"] if not run["finished"]]
        yield StudyFinished(self.path, True, len(failed), tuple(one["words"] for one in found["verdicts"]))

    def _run(
        self, trials: list[StudyTrial], before: set[int], plan: StudyPlan, tuned: dict[str, RateTuning]
    ) -> Iterator[StudyEvent]:
        number = len(before)
        for wave in _waves([trial for trial in trials if id(trial) not in before]):
            current: StudyTrial | None = None
            for event in self.workers.run(wave):
                if isinstance(event, TrialStarted):
                    current = event.trial
                elif isinstance(event, TrialDone):
                    number += 1
                    yield self._finished(event.trial, number, len(trials), before=False)
                    self._forget(event.trial, trials)
                    self._write(plan, tuned, trials)
                elif isinstance(event, StepsReported) and current:
                    yield StudyProgress(_name(current), number + 1, len(trials), event.step, event.total)

    def _begin(self, plan: StudyPlan) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        if self.before is None:
            known = {"name": self.request.name, "asked": self.request.lasting(), "measured": plan.measured()}
            known["machine"] = machine()
            durable.replace(self.path / STUDY, json.dumps(known, indent=1, ensure_ascii=False).encode())

    def _finished(self, trial: StudyTrial, number: int, trials: int, *, before: bool) -> StudyTrialFinished:
        result = trial.done()
        assert result is not None, "events end with one"
        return StudyTrialFinished(trial.contestant, trial.seed, number, trials, result, before)

    def _trials(self, plan: StudyPlan, tuned: dict[str, RateTuning]) -> list[StudyTrial]:
        """Return all trials, those of the first seed first, so that an interrupted study has something of each."""
        study = self.request.study
        trials: list[StudyTrial] = []
        for seed in range(1, study.seeds + 1):
            owners: list[tuple[Planned, StudyTrial]] = []
            for one in plan.contestants:
                trial = self._trial(one, seed, tuned.get(one.name))
                twin = next((own for _, own in owners if trial.cfg is not None and own.cfg == trial.cfg), None)
                trials.append(replace(trial, path=twin.path) if twin else trial)
                owners.append((one, trials[-1]))
        return trials

    def _trial(self, one: Planned, seed: int, tuning: RateTuning | None) -> StudyTrial:
        folder = self.path / TRIALS / one.folder
        cfg = with_rate(one.cfg, tuning.path, tuning.chosen.factor) if one.cfg and tuning else one.cfg
        path = folder / f"seed-{seed}"
        if tuning and seed == SEED and self._tunes_whole_trainings:
            path = tuning_folder(self.path / TUNING / one.folder, tuning.chosen.factor)
        return StudyTrial(
            path=path,
            result=folder / f"seed-{seed}.json",
            contestant=one.name,
            seed=seed,
            cfg=cfg,
            prepared=one.prepared,
            flops_per_step=one.flops_per_step,
            measures=one.contestant.measures,
            checkpoint=self.request.study.checkpoint,
            size=self.request.size,
        )

    @property
    def _tunes_whole_trainings(self) -> bool:
        """Return whether the best training of a tuning is the contestant's first."""
        tuning = self.request.study.tuning
        return tuning is not None and tuning.steps is None

    def _tuned(self, plan: StudyPlan) -> Generator[StudyEvent, None, dict[str, RateTuning]]:
        """Tune all contestants together, so that several processes have work: all rates given, then those beyond."""
        tuning, tuned = self.request.study.tuning, dict[str, RateTuning]()
        if tuning is None:
            return tuned
        made: dict[str, dict[float, StudyTrial]] = {one.name: {} for one in plan.contestants}
        paths = {one.name: _tuned_path(one, tuning) for one in plan.contestants}
        wanted = dict.fromkeys(made, tuning.factors)
        while wanted:
            for one in plan.contestants:
                for factor in wanted.get(one.name, ()):
                    trial, folder = self._trial(one, SEED, None), self.path / TUNING / one.folder
                    made[one.name][factor] = tuning_trial(trial, paths[one.name], factor, tuning.steps, folder)
            yield from self._try([trial for name in wanted for trial in made[name].values() if trial.done() is None])
            for name in tuple(wanted):
                tried = [tried_rate(trial, paths[name], factor) for factor, trial in made[name].items()]
                tuned[name] = found = RateTuning(paths[name], tried)
                self._forget_tried(made[name], found)
                further = found.beyond() if len(made[name]) < most_trainings(tuning) else None
                if further is None:
                    del wanted[name]
                    yield RateTuned(name, found)
                else:
                    wanted[name] = (further,)
        return tuned

    def _try(self, trials: list[StudyTrial]) -> Iterator[StudyEvent]:
        """Train those that tune rates."""
        name = ""
        for event in self.workers.run(trials):
            if isinstance(event, TrialStarted):
                name = event.trial.contestant
            elif isinstance(event, StepsReported):
                yield StudyProgress(f"learning rate of {name}", 0, 0, event.step, event.total)

    def _forget_tried(self, made: dict[float, StudyTrial], found: RateTuning) -> None:
        """Remove checkpoints of trainings that tried a rate, but for the one that is the contestant's first."""
        for factor, trial in made.items():
            if not (self._tunes_whole_trainings and factor == found.chosen.factor):
                trial.forget()

    def _forget(self, trial: StudyTrial, trials: list[StudyTrial]) -> None:
        """Remove checkpoints that no other trial needs."""
        sharing = [other for other in trials if other.path == trial.path]
        if not self.keep and all(other.done() is not None for other in sharing):
            trial.forget()

    def _write(self, plan: StudyPlan, tuned: dict[str, RateTuning], trials: list[StudyTrial]) -> dict:
        done = [(trial, result) for trial in trials if (result := trial.done()) is not None]
        found = results_of(plan, tuned, done)
        write_results(found, self.path)
        return found


def _waves(trials: list[StudyTrial]) -> list[list[StudyTrial]]:
    """Divide trials so that those that share a run are not made at the same time."""
    waves: list[list[StudyTrial]] = []
    for trial in trials:
        free = next((wave for wave in waves if all(other.path != trial.path for other in wave)), None)
        if free is None:
            waves.append([trial])
        else:
            free.append(trial)
    return waves


def _tuned_path(one: Planned, tuning: Tuning) -> str:
    assert one.cfg is not None, "checked before"
    return rate_path(one.cfg, tuning, one.name)


def _name(trial: StudyTrial) -> str:
    return f"{trial.contestant}, seed {trial.seed}"


def plan_study(request: StudyRequest, path: Path) -> Generator[Event, None, StudyPlan]:
    """Decide a study and predict its time, without beginning it.

    Raises:
        UserError: as ``decide``.
    """
    check_measures(request.study.measure_settings())
    return (yield from decide(request, path, predict=True))
