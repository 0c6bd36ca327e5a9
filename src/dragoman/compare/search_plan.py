"""What a search of weights is asked, and what its trials are: decided once, before the first of them.

A budget in FLOPs is 6 N D (Kaplan et al., arXiv:2001.08361, section 2.1): N parameters without embeddings and output
layer, D tokens. Of a pair, the encoder reads one side and the decoder the other, so each token meets about half of the
parameters: D is half the tokens of both sides.
"""

import json
import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from dragoman import durable
from dragoman.compare.gains import SourceShares
from dragoman.compare.trial import Pace, bare, measure, prepare
from dragoman.config import OneOf, config, differences, from_dict, to_dict
from dragoman.data.mixture import Stages, Weights
from dragoman.errors import CheckpointError, ConfigError, DataError
from dragoman.migrations import renamed
from dragoman.text.formats.pairs import names_of
from dragoman.train import utilisation
from dragoman.train.events import Event, Notice
from dragoman.train.optimize import hidden
from dragoman.train.recipe import PairsConfig, RunConfig
from dragoman.train.tasks import drawing, task_data_for
from dragoman.train.tasks.translation import TranslationTaskData

PLAN, PREPARED = "plan.json", "prepared"
UNCHANGED = "unchanged"
"""What trials with the weights as they are go by; the others go by the source whose weight is raised."""
SAMPLED = 20
"""Steps by which the tokens of a step are counted before any is made."""


# ---- what is asked --------------------------------------------------------------------------------


@config
class Compute:
    flops: PositiveFloat
    """6 N D of each trial."""

    def steps_at(self, flops_per_step: float) -> int:
        return math.floor(self.flops / flops_per_step)


@config
class Updates:
    steps: PositiveInt
    """Optimizer steps of each trial."""

    def steps_at(self, flops_per_step: float) -> int:
        return self.steps


@config
class SearchSettings:
    budget: Annotated[Compute | Updates, OneOf()]
    """Of each trial."""
    seeds: Annotated[int, Field(ge=2)] = 2
    """Each trial is made so many times, with seeds 1, 2, ...: what a gain is compared with is how they differ."""
    rounds: PositiveInt = 1
    """Each goes on from the weights that the one before it proposes."""
    step: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 1.5
    """What a weight is multiplied by in a trial, and the most that any may change by in a round."""


@dataclass(frozen=True)
class SearchPlan:
    asked: dict[str, Any]
    """What has to be the same for a search to go on: the run's configuration, the budget and the step."""
    cfg: RunConfig
    """With all that the text and the machine decide."""
    weights: dict[str, float]
    """At the beginning, adding up to 1."""
    steps: int
    """Of a trial."""
    parameters: int
    """N."""
    tokens_per_step: float
    """D of one step."""
    counted_per_token: float | None
    """Operations in all products for each token, on either side, padding included in both; None where shapes alone
    do not tell (``train/utilisation.py``)."""
    pace: Pace

    def flops(self, tokens: float) -> float:
        """6 N D."""
        return 6 * self.parameters * tokens

    @property
    def seconds(self) -> float:
        """That a trial will take."""
        return self.pace.seconds(self.steps)


# ---- deciding it ----------------------------------------------------------------------------------


def check(cfg: RunConfig, how: SearchSettings, path: Path) -> dict[str, Any]:
    """Look for what does not fit before anything is written; what is asked, as plain data.

    Raises:
        ConfigError: the run has nothing to weigh, or nothing to weigh it by.
        CheckpointError: something else is at ``path``, or a search with other settings.
    """
    task_data = task_data_for(cfg)
    task_data.check(cfg)
    if task_data is not TranslationTaskData or not isinstance(cfg.data, PairsConfig):
        raise ConfigError("data.mixture: only runs that learn to translate mix sources")
    _check_sources(cfg.data)
    if cfg.data.valid is None and not cfg.data.hold_out.valid:
        raise ConfigError(
            "data.valid: no validation text to weigh sources by: name one that is like what will be translated"
        )
    asked = json.loads(json.dumps({"run": to_dict(cfg), "budget": to_dict(how.budget), "step": how.step}))
    _check_place(path, asked)
    return asked


def _check_sources(data: PairsConfig) -> None:
    names = names_of(data.train)
    if len(names) < 2:
        raise ConfigError(f"data.train: {names[0] if names else 'none'} is the only source: there is nothing to weigh")
    if UNCHANGED in names:
        raise ConfigError(f"data.train: the name {UNCHANGED!r} is that of other trials: give the source another one")
    if isinstance(data.mixture, Stages):
        raise ConfigError("data.mixture: stages are not searched: give weights, which hold for the whole run")
    for name in names:
        if not data.mixture.used(name):
            raise ConfigError(
                f"data.mixture.weights.{name}: 0 stays 0 whatever it is multiplied by: give it a small weight, or "
                "leave the source out of data.train"
            )


def _check_place(path: Path, asked: dict[str, Any]) -> None:
    if path.exists() and not (path.is_dir() and ((path / PREPARED).exists() or not any(path.iterdir()))):
        raise CheckpointError(f"{path}: exists and is not a search: choose another --out")
    if (path / PLAN).exists() and (changes := differences(load_plan(path).asked, asked)):
        listed = "; ".join(f"{where.removeprefix('run.')} was {old!r}, is now {new!r}" for where, old, new in changes)
        raise CheckpointError(f"{path}: begun with other settings: {listed}: restore them, or choose another --out")


def load_plan(path: Path) -> SearchPlan:
    """The plan of the search at ``path``."""
    plain = json.loads((path / PLAN).read_text(encoding="utf-8"))
    plain |= {"cfg": renamed(plain["cfg"]), "asked": plain["asked"] | {"run": renamed(plain["asked"]["run"])}}
    return from_dict(SearchPlan, plain, where=str(path / PLAN))


def plan(cfg: RunConfig, how: SearchSettings, path: Path, asked: dict[str, Any]) -> Generator[Event, None, SearchPlan]:
    """Make the text ready, count what a step takes, and make a few; or find all that in ``path``.

    Raises:
        ConfigError: a budget too small for a step.
        DataError: text that cannot be read, or a source or a validation set of which nothing is left.
    """
    task_data = yield from prepare(cfg, path / PREPARED)
    if (path / PLAN).exists():
        return load_plan(path)
    assert isinstance(task_data, TranslationTaskData) and isinstance(cfg.data, PairsConfig), "checked before"
    if not len(task_data.valid):
        raise DataError("data.valid: no validation pair is left that the model can take: see data.hold_out")
    weights = {name: float(f"{share:.6g}") for name, share in _weights(cfg.data, task_data).items()}
    cfg = trial_of(task_data.fill(cfg), weights, seed=1, steps=1)
    batches = task_data.plan(cfg)
    sizes = [task_data.size(rows) for step in range(SAMPLED) for rows in batches.at(step)]
    real, cells = (sum(size) / SAMPLED for size in zip(*sizes, strict=True))
    counted = utilisation.per_position(cfg, task_data, batches)
    parameters, tokens = sum(p.numel() for p in hidden(task_data.outline(cfg))), real / 2
    steps = how.budget.steps_at(6 * parameters * tokens)
    if not steps:
        raise ConfigError(
            f"--flops: less than one step, which takes {6 * parameters * tokens:.2g}: 6 x {parameters:,} parameters x "
            f"{tokens:,.0f} tokens: give a hundred times that, or lower train.batch_tokens"
        )
    warmup = getattr(cfg.train.schedule, "warmup", 0)
    if warmup >= steps:
        yield Notice(f"train.schedule.warmup: {warmup:,} steps, but trials make {steps:,}: all of them are warm-up")
    pace = yield from measure(cfg, path / PREPARED, path / ".pilot", steps)
    made = SearchPlan(asked, cfg, weights, steps, parameters, tokens, counted and counted * cells / real, pace)
    durable.replace(path / PLAN, json.dumps(to_dict(made), indent=1).encode())
    return made


def trial_of(cfg: RunConfig, weights: SourceShares, *, seed: int, steps: int) -> RunConfig:
    assert isinstance(cfg.data, PairsConfig), "checked before"
    data, train = replace(cfg.data, mixture=Weights(weights=dict(weights))), replace(cfg.train, seed=seed)
    return bare(replace(cfg, data=data, train=train), steps=steps)


def _weights(data: PairsConfig, task_data: TranslationTaskData) -> dict[str, float]:
    """The shares that the run has now.

    Raises:
        DataError: a source of which no pair is left.
    """
    sizes, names = task_data.train.sources, names_of(data.train)
    drawing.check_left(replace(data, mixture=Weights(weights=dict.fromkeys(names, 1.0))), sizes)
    return dict(zip(names, data.mixture.shares({name: sizes[name] for name in names}, 0.0), strict=True))
