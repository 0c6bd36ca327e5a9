"""Which weights should the sources of a run have? In trials of equal budget, each one's weight is raised in turn.

OUT/plan.json                          what was asked, and what a trial is (plan.py)
    prepared/                          the text, made ready once
    trials/round-1/unchanged-seed-1/   run directories; others are called after the source whose weight is raised
    weights.yaml                       the proposed data.mixture
    report.json                        all figures
"""

import json
import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from dragoman import durable
from dragoman.compare.gains import Gain, SourceShares, gain, propose, raised
from dragoman.compare.search_plan import PREPARED, UNCHANGED, SearchPlan, SearchSettings, check, plan, trial_of
from dragoman.compare.trial import Trial, TrialResult, bare
from dragoman.config import dump_yaml, to_dict
from dragoman.data.mixture import Weights
from dragoman.train.events import Event, Notice, Started, StepsReported
from dragoman.train.interrupt import as_ctrl_c
from dragoman.train.recipe import RunConfig

REPORT, WEIGHTS = "report.json", "weights.yaml"


# ---- what is told ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class SearchPlanned:
    plan: SearchPlan
    trials: int
    done: int
    """Of the trials; those were made before."""
    seconds: float
    """That the others will take, as measured by a few steps."""


@dataclass(frozen=True)
class TrialProgress:
    """A trial goes on."""

    name: str
    number: int
    trials: int
    done: float
    """Of this trial, the share."""
    seconds_left: float
    """Until all trials are done."""


@dataclass(frozen=True)
class TrialFinished:
    name: str
    number: int
    trials: int
    outcome: TrialResult
    before: bool
    """It was made before, and not again."""
    seconds_left: float
    """Until all trials are done."""


@dataclass(frozen=True)
class SourceResult:
    """What a round says of one source."""

    before: float
    """Share."""
    gain: Gain
    after: float
    """Share."""
    tokens: float
    """On either side, that a trial with the weights as they are learned from; mean over seeds."""


@dataclass(frozen=True)
class RoundFinished:
    round: int
    losses: dict[str, list[float]]
    """Validation loss of each trial, by what was raised and in the order of seeds."""
    sources: dict[str, SourceResult]

    @property
    def weights(self) -> dict[str, float]:
        return {name: source.after for name, source in self.sources.items()}

    @property
    def moved(self) -> bool:
        return any(source.gain.certain for source in self.sources.values())


@dataclass(frozen=True)
class SearchCost:
    """All trials together, as predicted and as measured."""

    predicted_seconds: float
    """Of learning alone."""
    seconds: float
    predicted_flops: float
    """6 N D."""
    flops: float
    least: float
    """6 N D of the trial with the fewest tokens: all make equally many steps."""
    most: float
    counted: float | None
    """Operations in all products; None where that is not known."""


@dataclass(frozen=True)
class SearchFinished:
    reason: str
    complete: bool
    """False if it was interrupted and may go on."""
    cost: SearchCost | None = None


Outcomes = dict[str, list[TrialResult]]
"""By what was raised, and in the order of seeds."""
SearchEvent = Event | SearchPlanned | TrialProgress | TrialFinished | RoundFinished | SearchFinished


# ---- the search -----------------------------------------------------------------------------------


class MixtureSearch:
    """A search that is about to begin or to go on at ``path``. ``events`` makes it happen.

    Raises:
        ConfigError: the run has nothing to weigh, or nothing to weigh it by.
        CheckpointError: something else is at ``path``, or a search with other settings.
    """

    def __init__(self, cfg: RunConfig, how: SearchSettings, path: str | Path):
        self.cfg, self.how, self.path = bare(cfg), how, Path(path)
        self.asked = check(self.cfg, how, self.path)

    def events(self) -> Iterator[SearchEvent]:
        """Everything that happens, to ``Ended``.

        Raises:
            UserError: as ``plan`` and ``Run.events``; trials that are done stay so.
        """
        try:
            with as_ctrl_c():
                yield from self._search()
        except KeyboardInterrupt:
            yield SearchFinished("the same command goes on" if self.path.exists() else "nothing is left of it", False)

    def _search(self) -> Iterator[SearchEvent]:
        decided = yield from plan(self.cfg, self.how, self.path, self.asked)
        trials = _Trials(decided, self.how, self.path)
        yield SearchPlanned(decided, trials.all, trials.done(), trials.seconds_left(trials.done()))
        weights, rounds, cost = decided.weights, list[RoundFinished](), None
        for number in range(1, self.how.rounds + 1):
            outcomes = yield from trials.round(number, weights)
            rounds.append(_weighed(number, outcomes, weights, self.how.step))
            cost, weights = _cost(decided, trials.outcomes), rounds[-1].weights
            self._write(decided, rounds, cost)
            yield rounds[-1]
            if not rounds[-1].moved:
                reason = "no gain is certain, so all keep their weights: more --seeds or longer trials may tell"
                yield SearchFinished(reason, True, cost)
                return
        yield SearchFinished("all trials are made", True, cost)

    def _write(self, decided: SearchPlan, rounds: list[RoundFinished], cost: SearchCost) -> None:
        report = {
            "asked": to_dict(self.how),
            "trial": {name: value for name, value in to_dict(decided).items() if name not in ("asked", "cfg")},
            "rounds": [asdict(seen) for seen in rounds],
            "cost": asdict(cost),
        }
        durable.replace(self.path / REPORT, json.dumps(report, indent=1, ensure_ascii=False).encode())
        durable.replace(self.path / WEIGHTS, dump_yaml({"data": {"mixture": mixture(rounds[-1].weights)}}).encode())


class _Trials:
    """All of a search, with the time that they take."""

    def __init__(self, decided: SearchPlan, how: SearchSettings, path: Path):
        self.plan, self.how, self.path = decided, how, path
        self.all = (1 + len(decided.weights)) * how.seeds * how.rounds
        self.outcomes: list[TrialResult] = []
        self.taken: list[float] = []
        """Seconds of each trial that this process made from beginning to end."""

    def round(self, number: int, weights: SourceShares) -> Generator[SearchEvent, None, Outcomes]:
        """Make what is not made yet."""
        outcomes: Outcomes = {name: [] for name in (UNCHANGED, *weights)}
        for seed, name in product(range(1, self.how.seeds + 1), outcomes):
            trial = self._trial(number, name, seed, weights)
            if not (before := trial.outcome()):
                yield from self._make(trial)
            outcome = trial.outcome()
            assert outcome is not None, "events end with one"
            self.outcomes.append(outcome)
            outcomes[name].append(outcome)
            made = len(self.outcomes)
            yield TrialFinished(trial.path.name, made, self.all, outcome, before is not None, self.seconds_left(made))
        return outcomes

    def done(self) -> int:
        """How many are made already."""
        found = (Trial(path, self._cfg({}, 1)).outcome() for path in self.path.glob("trials/round-*/*-seed-*"))
        return min(self.all, sum(outcome is not None for outcome in found))

    def seconds_left(self, made: float) -> float:
        """Once so many trials are made."""
        return (self.all - made) * (fmean(self.taken) if self.taken else self.plan.seconds)

    def _trial(self, number: int, name: str, seed: int, weights: SourceShares) -> Trial:
        mixed = dict(weights) if name == UNCHANGED else raised(weights, name, self.how.step)
        folder = f"{name.replace('/', '%2F')}-seed-{seed}"
        return Trial(self.path / "trials" / f"round-{number}" / folder, self._cfg(mixed, seed))

    def _cfg(self, weights: SourceShares, seed: int) -> RunConfig:
        return trial_of(self.plan.cfg, weights, seed=seed, steps=self.plan.steps)

    def _make(self, trial: Trial) -> Iterator[SearchEvent]:
        began, whole, name = time.perf_counter(), True, trial.path.name
        for event in trial.events(self.path / PREPARED):
            if isinstance(event, Notice):
                yield Notice(f"{name}: {event.text}")
            if isinstance(event, Started | StepsReported):
                whole = whole and not (isinstance(event, Started) and event.step)
                made, share = len(self.outcomes), event.step / self.plan.steps
                yield TrialProgress(name, made + 1, self.all, share, self.seconds_left(made + share))
        if whole:
            self.taken.append(time.perf_counter() - began)


# ---- what comes of it -----------------------------------------------------------------------------


def mixture(weights: SourceShares) -> dict[str, Any]:
    """``data.mixture`` as a run file has it."""
    return to_dict(Weights(weights=dict(weights)))


def _weighed(number: int, outcomes: Outcomes, weights: SourceShares, step: float) -> RoundFinished:
    losses = {name: [outcome.loss for outcome in some] for name, some in outcomes.items()}
    gains = {name: gain(losses[UNCHANGED], losses[name], step) for name in weights}
    after = propose(weights, gains, step)
    sources = {
        name: SourceResult(
            before=weights[name],
            gain=gains[name],
            after=_shown(after[name]),
            tokens=fmean(outcome.sources.get(name, 0) for outcome in outcomes[UNCHANGED]),
        )
        for name in weights
    }
    return RoundFinished(number, losses, sources)


def _shown(share: float) -> float:
    """With the digits that people see: what they paste is what the next round tries."""
    return float(f"{share:.6g}")


def _cost(decided: SearchPlan, outcomes: Sequence[TrialResult]) -> SearchCost:
    tokens = [sum(outcome.sources.values()) for outcome in outcomes]
    flops = [decided.flops(number / 2) for number in tokens]
    steps = len(outcomes) * decided.steps
    counted = decided.counted_per_token
    return SearchCost(
        predicted_seconds=steps * decided.pace.step,
        seconds=math.fsum(outcome.seconds for outcome in outcomes),
        predicted_flops=decided.flops(steps * decided.tokens_per_step),
        flops=math.fsum(flops),
        least=min(flops),
        most=max(flops),
        counted=None if counted is None else counted * sum(tokens),
    )
