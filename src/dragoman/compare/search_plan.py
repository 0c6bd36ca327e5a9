"""Plan of a mixture search: its settings and its trials, fixed before the first trial.

A budget in FLOPs is 6 N D (Kaplan et al., arXiv:2001.08361, section 2.1): N parameters without embeddings and output
layer, D tokens. In a pair, the encoder reads one side and the decoder the other, so each token passes about half of the
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
from dragoman.plan.parameters import count_parameters
from dragoman.text.formats.pairs import names_of
from dragoman.train import utilisation
from dragoman.train.events import Event, Notice
from dragoman.train.recipe import PairsConfig, RunConfig
from dragoman.train.tasks import drawing, task_data_for
from dragoman.train.tasks.translation import TranslationTaskData

PLAN, PREPARED = "plan.json", "prepared"
UNCHANGED = "unchanged"
"""Name of trials with unchanged weights; the others are named after the source whose weight is raised."""
SAMPLED = 20
"""Steps over which the tokens per step are averaged before any is made."""


# ---- settings -------------------------------------------------------------------------------------


@config
class Compute:
    """Budget of a trial in FLOPs."""

    flops: PositiveFloat
    """6 N D of each trial."""

    def steps_at(self, flops_per_step: float) -> int:
        return math.floor(self.flops / flops_per_step)


@config
class Updates:
    """Budget of a trial in steps."""

    steps: PositiveInt
    """Optimizer steps of each trial."""

    def steps_at(self, flops_per_step: float) -> int:
        return self.steps


@config
class SearchSettings:
    """Settings of a mixture search."""

    budget: Annotated[Compute | Updates, OneOf()]
    """Budget of each trial."""
    seeds: Annotated[int, Field(ge=2)] = 3
    """Number of times each trial is run, with seeds 1, 2, ...: their spread is what a gain is compared with."""
    rounds: PositiveInt = 1
    """Number of rounds; each continues from the weights that the one before proposes."""
    step: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 1.5
    """Factor on a weight in a trial, and the most that any weight may change by in a round."""


@dataclass(frozen=True)
class SearchPlan:
    """Description of the trials of a search, as ``plan.json`` has it."""

    asked: dict[str, Any]
    """Settings that must stay the same when a search resumes: the run's configuration, the budget and the step."""
    cfg: RunConfig
    """Run configuration with everything that the text and the machine determine."""
    weights: dict[str, float]
    """Initial weights, which sum to 1."""
    steps: int
    """Steps of a trial."""
    parameters: int
    """Parameters N, without embeddings and output layer."""
    tokens_per_step: float
    """Tokens D of one step."""
    counted_per_token: float | None
    """Operations in all products per token, on either side, padding included in both (``train/utilisation.py``). None
    in searches of an earlier version, for models whose work depends on the data."""
    pace: Pace

    def flops(self, tokens: float) -> float:
        """Return 6 N D for D tokens."""
        return 6 * self.parameters * tokens

    @property
    def seconds(self) -> float:
        """Expected time of a trial."""
        return self.pace.seconds(self.steps)


# ---- making the plan ------------------------------------------------------------------------------


def check(cfg: RunConfig, settings: SearchSettings, path: Path) -> dict[str, Any]:
    """Check the settings before anything is written; return those that must stay the same, as plain data.

    Raises:
        ConfigError: the run has only one source, or no validation data.
        CheckpointError: something else is at ``path``, or a search with other settings.
    """
    task_data = task_data_for(cfg)
    task_data.check(cfg)
    if task_data is not TranslationTaskData or not isinstance(cfg.data, PairsConfig):
        raise ConfigError("data.mixture: only runs that learn to translate mix sources")
    _check_sources(cfg.data)
    if cfg.data.valid is None and not cfg.data.hold_out.valid:
        raise ConfigError(
            "data.valid: no validation text to measure gains on: name one that is like the text to be translated"
        )
    asked = json.loads(json.dumps({"run": to_dict(cfg), "budget": to_dict(settings.budget), "step": settings.step}))
    _check_place(path, asked)
    return asked


def _check_sources(data: PairsConfig) -> None:
    names = names_of(data.train)
    if len(names) < 2:
        raise ConfigError(
            f"data.train: {names[0] if names else 'none'} is the only source: there is no mixture to search"
        )
    if UNCHANGED in names:
        raise ConfigError(
            f"data.train: the name {UNCHANGED!r} is reserved for unchanged trials: give the source another one"
        )
    if isinstance(data.mixture, Stages):
        raise ConfigError("data.mixture: stages cannot be searched: give weights, which apply to the whole run")
    for name in names:
        if not data.mixture.used(name):
            raise ConfigError(
                f"data.mixture.weights.{name}: 0 stays 0 whatever it is multiplied by: give it a small weight, or "
                "leave the source out of data.train"
            )


def _check_place(path: Path, asked: dict[str, Any]) -> None:
    if path.exists() and not (path.is_dir() and ((path / PREPARED).exists() or not any(path.iterdir()))):
        raise CheckpointError(f"{path}: exists and is not a search: choose another --output")
    if (path / PLAN).exists() and (changes := differences(load_plan(path).asked, asked)):
        listed = "; ".join(f"{where.removeprefix('run.')} was {old!r}, is now {new!r}" for where, old, new in changes)
        raise CheckpointError(f"{path}: begun with other settings: {listed}: restore them, or choose another --output")


def load_plan(path: Path) -> SearchPlan:
    """Load the plan of the search at ``path``."""
    plain = json.loads((path / PLAN).read_text(encoding="utf-8"))
    plain |= {"cfg": renamed(plain["cfg"]), "asked": plain["asked"] | {"run": renamed(plain["asked"]["run"])}}
    return from_dict(SearchPlan, plain, where=str(path / PLAN))


def plan(
    cfg: RunConfig, settings: SearchSettings, path: Path, asked: dict[str, Any]
) -> Generator[Event, None, SearchPlan]:
    """Prepare the text, count the cost of a step and time a few; or load the plan from ``path``.

    Raises:
        ConfigError: the budget is too small for one step.
        DataError: text cannot be read, or a source or the validation set has no pairs left.
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
    parameters, tokens = count_parameters(task_data.outline(cfg)).hidden, real / 2
    steps = settings.budget.steps_at(6 * parameters * tokens)
    if not steps:
        raise ConfigError(
            f"--flops: less than one step, which takes {6 * parameters * tokens:.2g}: 6 x {parameters:,} parameters x "
            f"{tokens:,.0f} tokens: give a hundred times that, or lower train.batch_tokens"
        )
    warmup = getattr(cfg.train.schedule, "warmup", 0)
    if warmup >= steps:
        yield Notice(f"train.schedule.warmup: {warmup:,} steps, but trials make {steps:,}: all of them are warm-up")
    pace = yield from measure(cfg, path / PREPARED, path / ".pilot", steps)
    made = SearchPlan(asked, cfg, weights, steps, parameters, tokens, counted * cells / real, pace)
    durable.replace(path / PLAN, json.dumps(to_dict(made), indent=1).encode())
    return made


def trial_of(cfg: RunConfig, weights: SourceShares, *, seed: int, steps: int) -> RunConfig:
    """Return the configuration of a trial with these weights, this seed and this length."""
    assert isinstance(cfg.data, PairsConfig), "checked before"
    data, train = replace(cfg.data, mixture=Weights(weights=dict(weights))), replace(cfg.train, seed=seed)
    return bare(replace(cfg, data=data, train=train), steps=steps)


def _weights(data: PairsConfig, task_data: TranslationTaskData) -> dict[str, float]:
    """Return the shares of the run's current mixture.

    Raises:
        DataError: a source has no pairs left.
    """
    sizes, names = task_data.train.sources, names_of(data.train)
    drawing.check_remaining(replace(data, mixture=Weights(weights=dict.fromkeys(names, 1.0))), sizes)
    return dict(zip(names, data.mixture.shares({name: sizes[name] for name in names}, 0.0), strict=True))
