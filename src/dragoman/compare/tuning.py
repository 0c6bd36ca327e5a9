"""Learning rates of contestants: the same few trainings for each, and the rate that validates best.

The best rate of a short training is often too high for a long one. Trainings that are as long as those of the study
find the right one, and the best of them is the contestant's training with seed 1.

Where the best rate stands at an edge of those that were tried, the search goes on beyond it, so that no contestant
is judged by a rate that was out of its reach.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dragoman.compare.study import Tuning
from dragoman.compare.study_trial import StudyTrial
from dragoman.config import from_dict, to_dict
from dragoman.errors import ConfigError
from dragoman.train.budget import Steps
from dragoman.train.recipe import RunConfig

FIELDS = ("peak", "factor")
"""Names of a schedule's field that all rates are proportional to."""
SEED = 1
LOSS = "validation loss"
BEYOND = 2
"""Rates that are tried beyond those of the study, while the best one stands at an edge."""


@dataclass(frozen=True)
class TriedRate:
    """A learning rate and where it led."""

    factor: float
    """Relative to the rate as given."""
    rate: float
    loss: float | None
    """Lowest validation loss; None where the training diverged."""


@dataclass(frozen=True)
class RateTuning:
    """Tuning of one contestant."""

    path: str
    """Field of the run file."""
    tried: list[TriedRate]

    @property
    def chosen(self) -> TriedRate:
        """Return the rate with the lowest loss; the smallest one where all trainings diverged."""
        known = [one for one in self.tried if one.loss is not None]
        if not known:
            return min(self.tried, key=lambda one: one.rate)
        return min(known, key=lambda one: (one.loss, one.rate))

    @property
    def at_edge(self) -> bool:
        """True where a rate beyond those that were tried may be better."""
        return self.chosen.rate in (min(one.rate for one in self.tried), max(one.rate for one in self.tried))

    def beyond(self) -> float | None:
        """Return the factor to try next where the best one stands at an edge: as far from it as its neighbour is."""
        factors = sorted(one.factor for one in self.tried)
        if len(factors) < 2 or not self.at_edge:
            return None
        edge = self.chosen.factor
        neighbour = factors[1] if edge == factors[0] else factors[-2]
        further = float(f"{edge * edge / neighbour:.6g}")
        return None if further in factors else further  # factors that differ by next to nothing lead nowhere

    def record(self) -> dict[str, Any]:
        """Return the tuning as plain data."""
        return asdict(self) | {"chosen": asdict(self.chosen), "at_edge": self.at_edge}


def most_trainings(tuning: Tuning) -> int:
    """Return how many trainings the tuning of one contestant takes at most."""
    return len(tuning.factors) + (BEYOND if len(tuning.factors) > 1 else 0)


def rate_path(cfg: RunConfig, tuning: Tuning, name: str) -> str:
    """Return the field of the run file that holds the rate.

    Raises:
        ConfigError: there is none.
    """
    path = tuning.path
    if path is None:
        found = [field for field in FIELDS if hasattr(cfg.train.schedule, field)]
        path = f"train.schedule.{found[0] if found else 'peak'}"
    if not isinstance(_at(to_dict(cfg), path), int | float):
        raise ConfigError(f"tuning.path: {name} has no number {path}: name the field that holds its learning rate")
    return path


def _at(node: Any, path: str) -> Any:
    for step in path.split("."):
        node = node.get(step) if isinstance(node, Mapping) else None
    return node


def with_rate(cfg: RunConfig, path: str, factor: float) -> RunConfig:
    """Return the configuration with its rate multiplied."""
    plain = to_dict(cfg)
    holder, _, name = path.rpartition(".")
    node = _at(plain, holder)
    node[name] = float(f"{node[name] * factor:.6g}")
    return from_dict(RunConfig, plain)


def rate_of(cfg: RunConfig, path: str) -> float:
    """Return the rate of a configuration."""
    return float(_at(to_dict(cfg), path))


def tuning_folder(folder: Path, factor: float) -> Path:
    """Return the run of the training that tries a rate, among those of its contestant."""
    return folder / f"{factor:g}"


def tuning_trial(trial: StudyTrial, path: str, factor: float, steps: int | None, folder: Path) -> StudyTrial:
    """Return the training that tries a rate, with ``trial``'s own length where ``steps`` is None."""
    assert trial.cfg is not None, "it trains"
    cfg, where = with_rate(trial.cfg, path, factor), tuning_folder(folder, factor)
    if steps is not None:
        every = max(1, steps // 4)
        short = {"budget": Steps(steps=steps), "validate_every": every, "report_every": every, "save_every": steps}
        cfg = replace(cfg, train=replace(cfg.train, **short))
    return replace(
        trial,
        path=where,
        result=where.with_name(f"{where.name}.json"),
        cfg=cfg,
        seed=SEED,
        measures={"loss": {}},
        checkpoint="best",
    )


def tried_rate(trial: StudyTrial, path: str, factor: float) -> TriedRate:
    """Return where a rate led, once its training is over."""
    found = trial.done()
    assert found is not None and trial.cfg is not None, "it has been made"
    figure = found.figures.get(LOSS)
    return TriedRate(factor, rate_of(trial.cfg, path), figure.value if figure else None)
