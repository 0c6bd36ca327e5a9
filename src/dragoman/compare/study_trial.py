"""One training of a study and its measures; all that remains of them is a JSON file beside the run."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dragoman import durable
from dragoman.compare.figure import Figure, StudySubject
from dragoman.compare.measures import MEASURES
from dragoman.compare.settings import check_settings
from dragoman.compare.trial import on_prepared
from dragoman.config import from_dict, unknown
from dragoman.errors import ConfigError, UserError
from dragoman.journal import Journal
from dragoman.json_files import json_text
from dragoman.plan.measured import measured
from dragoman.train.events import Event, Finished
from dragoman.train.loop import Diverged
from dragoman.train.memory import OutOfMemory
from dragoman.train.recipe import RunConfig

FAILURES = (Diverged, OutOfMemory)
"""Errors that end one training and not the study."""
CURVE = ("step", "tokens", "flops", "seconds", "loss")
"""Columns of a learning curve."""


@dataclass(frozen=True)
class TrialFigures:
    """Result of a training and of its measures."""

    finished: bool
    failure: str = ""
    """Why it did not finish; empty where it did."""
    steps: int = 0
    tokens: int = 0
    """Target tokens learned from."""
    flops: float = 0.0
    seconds: float = 0.0
    """Time spent learning."""
    tokens_per_second: float | None = None
    memory: int | None = None
    """Most bytes held while learning, as measured; None where several runs share a process."""
    curve: dict[str, list[float]] = field(default_factory=dict)
    """Learning curve by column of ``CURVE``: validation loss."""
    figures: dict[str, Figure] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    """Names of figures that are infinite or NaN, which nothing can be said of."""

    def record(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "TrialFigures":
        """Return the result of plain data."""
        return from_dict(cls, dict(record), where="trial")


@dataclass(frozen=True)
class StudyTrial:
    """A contestant with one seed: its training, if there is one, and its measures."""

    path: Path
    """Folder of the run; the figures are beside it, in a file of the contestant's own."""
    result: Path
    """File of the figures."""
    contestant: str
    seed: int
    cfg: RunConfig | None
    prepared: Path | None
    flops_per_step: float
    measures: dict[str, dict[str, Any]]
    checkpoint: str
    size: str

    def done(self) -> TrialFigures | None:
        """Return the result; None until training and measures are finished."""
        try:
            return TrialFigures.of(json.loads(self.result.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def events(self, *, alone: bool = False) -> Iterator[Event]:
        """Train, measure and write the result.

        Args:
            alone: the run has the process for itself, so that the memory it held is its own.

        Raises:
            KeyboardInterrupt: a signal came; all is saved.
            UserError: see ``Trainer.events``; a run that diverges or does not fit into memory is a result.
        """
        found = TrialFigures(True)
        if self.cfg is not None:
            try:
                yield from self._train()
            except FAILURES as error:
                found = TrialFigures(False, _brief(error))
            found = _learned(self.path, found, self.flops_per_step, alone=alone)
        if found.finished:
            measured = self._measured()
            found = replace(
                found,
                figures={name: one for name, one in measured.items() if one.finite},
                left_out=tuple(name for name, one in measured.items() if not one.finite),
            )
        self.result.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(self.result, json_text(found.record()).encode())

    def _train(self) -> Iterator[Event]:
        assert self.cfg is not None and self.prepared is not None, "checked before"
        cfg = replace(self.cfg, train=replace(self.cfg.train, seed=self.seed))
        run, complete = on_prepared(cfg, self.path, self.prepared), False
        for event in run.events():
            yield event
            complete = isinstance(event, Finished) and event.complete
        if not complete:
            raise KeyboardInterrupt

    def _measured(self) -> dict[str, Figure]:
        run = self.path if self.cfg is not None else None
        self.path.mkdir(parents=True, exist_ok=True)
        subject = StudySubject(self.contestant, self.seed, run, self.checkpoint, self.cfg, self.path, self.size)
        found: dict[str, Figure] = {}
        for name, settings in self.measures.items():
            for figure, one in MEASURES[name](subject, **settings).items():
                if figure in found:
                    raise ConfigError(f"measures.{name}: another measure gives {figure} too: leave one of them out")
                found[figure] = one
        return found

    def forget(self) -> None:
        """Remove the checkpoints of the run, once nothing needs them."""
        for name in ("checkpoints", "data"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in ("best", "last"):
            (self.path / name).unlink(missing_ok=True)


def check_measures(measures: Mapping[str, Mapping[str, Any]], where: str = "measures") -> None:
    """Check names and settings of measures.

    Raises:
        ConfigError: one does not exist, or is of another type.
    """
    for name, settings in measures.items():
        if name not in MEASURES:
            raise ConfigError(unknown(where, name, MEASURES))
        check_settings(settings, MEASURES[name], f"{where}.{name}")


def _brief(error: UserError) -> str:
    """Return what happened, without advice for a run of one's own."""
    return str(error).partition(". ")[0]


def _learned(path: Path, found: TrialFigures, flops_per_step: float, *, alone: bool) -> TrialFigures:
    """Return ``found`` with what the run's journal tells."""
    lines = list(Journal(path / "metrics.jsonl").lines())
    train = [line for line in lines if line["kind"] == "train"]
    if not train:
        return found
    last, rate = train[-1], [line["tokens_per_second"] for line in train if line["tokens_per_second"]]
    curve = {column: list[float]() for column in CURVE}
    for line in lines:
        if line["kind"] != "valid" or not line["step"] or line["loss"] is None:
            continue
        at = [row for row in train if row["step"] <= line["step"]][-1:] or train[:1]
        values = (line["step"], at[0]["tokens"], line["step"] * flops_per_step, at[0]["seconds"], line["loss"])
        for column, value in zip(CURVE, values, strict=True):
            curve[column].append(value)
    held = measured(path).get("training", {}).get("memory") if alone else None
    return replace(
        found,
        steps=last["step"],
        tokens=last["tokens"],
        flops=last["step"] * flops_per_step,
        seconds=last["seconds"],
        tokens_per_second=sorted(rate)[len(rate) // 2] if rate else None,
        memory=held,
        curve=curve,
    )
