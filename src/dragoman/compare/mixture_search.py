"""Mixture search: find the weights of a run's sources. In trials of equal budget, each weight is raised in turn.

OUT/plan.json                          settings, and the description of a trial (search_plan.py)

    prepared/                          the text, prepared once

    trials/round-1/unchanged-seed-1/   run directories; others are named after the source whose weight is raised

    weights.yaml                       the proposed data.mixture

    report.json                        all figures
"""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from dragoman import durable
from dragoman.compare.gains import Gain, SourceShares, gains_of, propose, raised
from dragoman.compare.search_plan import PREPARED, UNCHANGED, SearchPlan, SearchSettings, check, plan, trial_of
from dragoman.compare.trial import Trial, TrialResult, bare
from dragoman.config import dump_yaml, to_dict
from dragoman.data.mixture import Weights
from dragoman.json_files import json_text
from dragoman.train.events import Event, Notice, Started, StepsReported
from dragoman.train.interrupt import as_ctrl_c
from dragoman.train.recipe import RunConfig

REPORT, WEIGHTS = "report.json", "weights.yaml"


# ---- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SearchPlanned:
    plan: SearchPlan
    trials: int
    done: int
    """Number of trials that were finished before."""
    seconds: float
    """Expected time of the remaining trials, as measured by a few steps."""


@dataclass(frozen=True)
class TrialProgress:
    """A trial makes progress."""

    name: str
    number: int
    trials: int
    done: float
    """Fraction of this trial completed."""
    seconds_left: float
    """Expected time until all trials are done."""


@dataclass(frozen=True)
class TrialFinished:
    """A trial is finished."""

    name: str
    number: int
    trials: int
    outcome: TrialResult
    before: bool
    """True if it was finished before this search resumed."""
    seconds_left: float
    """Expected time until all trials are done."""


@dataclass(frozen=True)
class SourceResult:
    """Result of a round for one source."""

    before: float
    """Share of the source before the round."""
    gain: Gain
    after: float
    """Share of the source after the round."""
    tokens: float
    """Tokens on either side that a trial with unchanged weights learned from; mean over seeds."""


@dataclass(frozen=True)
class RoundFinished:
    """A round is finished."""

    round: int
    losses: dict[str, list[float]]
    """Validation loss of each trial, by the raised source and in the order of seeds."""
    sources: dict[str, SourceResult]

    @property
    def weights(self) -> dict[str, float]:
        return {name: source.after for name, source in self.sources.items()}

    @property
    def moved(self) -> bool:
        return any(source.gain.certain for source in self.sources.values())


@dataclass(frozen=True)
class SearchCost:
    """Cost of all trials together, as predicted and as measured."""

    predicted_seconds: float
    """Predicted time spent learning."""
    seconds: float
    predicted_flops: float
    """Predicted operations, 6 N D."""
    flops: float
    least: float
    """6 N D of the trial with the fewest tokens: all trials make equally many steps."""
    most: float
    counted: float | None
    """Operations in all products; None where that is not known."""


@dataclass(frozen=True)
class SearchFinished:
    """The search has ended."""

    reason: str
    complete: bool
    """False if it was interrupted and may be resumed."""
    cost: SearchCost | None = None


Outcomes = dict[str, list[TrialResult]]
"""Results by the raised source, in the order of seeds."""
SearchEvent = Event | SearchPlanned | TrialProgress | TrialFinished | RoundFinished | SearchFinished


# ---- the search -----------------------------------------------------------------------------------


class MixtureSearch:
    """A mixture search that starts or resumes at ``path``; ``events`` runs it.

    Raises:
        ConfigError: the run has only one source, or no validation data.
        CheckpointError: something else is at ``path``, or a search with other settings.
    """

    def __init__(self, cfg: RunConfig, settings: SearchSettings, path: str | Path):
        self.cfg, self.settings, self.path = bare(cfg), settings, Path(path)
        self.asked = check(self.cfg, settings, self.path)

    def events(self) -> Iterator[SearchEvent]:
        """Yield everything that happens, up to ``SearchFinished``.

        Raises:
            UserError: see ``plan`` and ``Trainer.events``; finished trials are kept.
        """
        try:
            with as_ctrl_c():
                yield from self._search()
        except KeyboardInterrupt:
            yield SearchFinished("the same command goes on" if self.path.exists() else "nothing is left of it", False)

    def _search(self) -> Iterator[SearchEvent]:
        decided = yield from plan(self.cfg, self.settings, self.path, self.asked)
        trials = _Trials(decided, self.settings, self.path)
        yield SearchPlanned(decided, trials.all, trials.done(), trials.seconds_left(trials.done()))
        weights, rounds, cost = decided.weights, list[RoundFinished](), None
        for number in range(1, self.settings.rounds + 1):
            outcomes = yield from trials.round(number, weights)
            rounds.append(_round_result(number, outcomes, weights, self.settings.step))
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
            "asked": to_dict(self.settings),
            "trial": {name: value for name, value in to_dict(decided).items() if name not in ("asked", "cfg")},
            "rounds": [asdict(result) for result in rounds],
            "cost": asdict(cost),
        }
        durable.replace(self.path / REPORT, json_text(report, indent=1).encode())
        durable.replace(self.path / WEIGHTS, dump_yaml({"data": {"mixture": mixture(rounds[-1].weights)}}).encode())


class _Trials:
    """All trials of a search, and the time that they take."""

    def __init__(self, decided: SearchPlan, settings: SearchSettings, path: Path):
        self.plan, self.settings, self.path = decided, settings, path
        self.all = (1 + len(decided.weights)) * settings.seeds * settings.rounds
        self.outcomes: list[TrialResult] = []
        self.taken: list[float] = []
        """Seconds of each trial that this process ran from beginning to end."""

    def round(self, number: int, weights: SourceShares) -> Generator[SearchEvent, None, Outcomes]:
        """Run the trials of a round that are not finished."""
        outcomes: Outcomes = {name: [] for name in (UNCHANGED, *weights)}
        for seed, name in product(range(1, self.settings.seeds + 1), outcomes):
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
        """Return the number of trials that are finished."""
        found = (Trial(path, self._cfg({}, 1)).outcome() for path in self.path.glob("trials/round-*/*-seed-*"))
        return min(self.all, sum(outcome is not None for outcome in found))

    def seconds_left(self, made: float) -> float:
        """Return the expected time of the rest once ``made`` trials are finished."""
        return (self.all - made) * (fmean(self.taken) if self.taken else self.plan.seconds)

    def _trial(self, number: int, name: str, seed: int, weights: SourceShares) -> Trial:
        mixed = dict(weights) if name == UNCHANGED else raised(weights, name, self.settings.step)
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


# ---- results --------------------------------------------------------------------------------------


def mixture(weights: SourceShares) -> dict[str, Any]:
    """Return the ``data.mixture`` of a run file."""
    return to_dict(Weights(weights=dict(weights)))


def _round_result(number: int, outcomes: Outcomes, weights: SourceShares, step: float) -> RoundFinished:
    losses = {name: [outcome.loss for outcome in some] for name, some in outcomes.items()}
    gains = gains_of(losses[UNCHANGED], {name: losses[name] for name in weights}, step)
    after = propose(weights, gains, step)
    sources = {
        name: SourceResult(
            before=weights[name],
            gain=gains[name],
            after=_rounded(after[name]),
            tokens=fmean(outcome.sources.get(name, 0) for outcome in outcomes[UNCHANGED]),
        )
        for name in weights
    }
    return RoundFinished(number, losses, sources)


def _rounded(share: float) -> float:
    """Round to the digits that are shown: the next round then tries exactly what people paste."""
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
