"""Study files: what varies, what is held equal, how often, and what is measured.

A study is contestants x seeds of trainings, and measures of each finished run. One without ``base`` measures alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PositiveFloat, PositiveInt

from dragoman.config import OneOf, choices, config, from_dict, kind_of, load_yaml, merge, override, unknown
from dragoman.errors import ConfigError
from dragoman.train.budget import Budget, Epochs, Minutes, Steps

SHIPPED = Path(__file__).parent.parent / "studies"
"""Folder of the studies that come with the package."""
RESULTS = SHIPPED / "results"
"""Folder of their results."""
Size = Literal["toy", "small", "large"]
SIZES: tuple[Size, ...] = ("toy", "small", "large")
NOT_STUDIES = ("claims",)
"""Files in ``SHIPPED`` that are no studies."""


# ---- the file -------------------------------------------------------------------------------------


@config
class Match:
    """Widths that are fitted, so that contestants are of equal size."""

    hold: Literal["parameters", "flops"]
    """Quantity held equal: parameters, or FLOPs of a training step on the same batch."""
    by: tuple[str, ...]
    """Fields of the run file that are scaled together; a contestant need not have all of them."""
    to: str | PositiveFloat | None = None
    """Contestant whose size the others get, or a number; None for the first one."""
    within: PositiveFloat = 0.05
    """Largest relative difference that is allowed."""
    multiple: PositiveInt = 8
    """Number that widths are multiples of, or of twice, four times, ... as much where heads need it."""


@config
class Tuning:
    """Trainings that find each contestant's learning rate."""

    factors: tuple[PositiveFloat, ...] = (0.3, 1.0, 3.0)
    """Learning rates that are tried, relative to the contestant's own."""
    steps: PositiveInt | None = None
    """Steps of each such training; None for those of the study itself, of which the best is the one with seed 1."""
    path: str | None = None
    """Field of the run file that holds the rate; None for the schedule's own."""


@config
class TokensConfig:
    """Train on a number of tokens."""

    tokens: PositiveFloat
    """Tokens read, on either side."""


@config
class FlopsConfig:
    """Train for a number of floating-point operations: contestants whose steps are cheaper make more of them."""

    flops: PositiveFloat
    """Floating-point operations."""


def _named_by_unit(given: Any) -> Any:
    """Return the settings of a length with the kind that their only field names: ``{steps: 400}``."""
    if not isinstance(given, dict):
        return given
    units = [name for name, value in given.items() if value is not None and name != "kind"]
    if len(units) != 1:
        known = ", ".join(map(kind_of, choices(TrainingLength)))
        raise ValueError(f"give one of {known}, not {' and '.join(units) or 'none'}")
    (unit,) = units
    if given.get("kind", unit) != unit:
        raise ValueError(f"kind: {given['kind']} does not go with {unit}: leave it out")
    return {"kind": unit, unit: given[unit]}


TrainingLength = Annotated[
    Steps | Epochs | TokensConfig | FlopsConfig | Minutes, OneOf(), BeforeValidator(_named_by_unit)
]
"""Length of each training, in one unit: what contestants are given equally. In a file its one field is enough."""


def unit_and_amount(length: TrainingLength | Budget) -> tuple[str, float]:
    """Return the name of a length's unit, and the number of them."""
    unit = kind_of(type(length))
    return unit, getattr(length, unit)


@config
class Study:
    """A study, as its file has it."""

    title: str
    question: str = ""
    """Question that it answers, in words."""
    claims: tuple[str, ...] = ()
    """Ids of published claims that it tests."""
    minutes: PositiveFloat | None = None
    """Time that it takes on two cores."""
    base: Any = None
    """Settings of a run that all contestants start from, or the name of a preset; None for a study that trains nothing.
    In a file also the path of a run file, seen from there, or ``run: PATH`` among settings that change it."""
    data: Any = None
    """Data set: a name in ``DATA_SETS``, or a mapping with its settings; None for the data of ``base``."""
    vary: dict[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    """Values to try by path of the run file; several paths make a grid."""
    contestants: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Contestants by name: the settings in which each differs, by path."""
    only: tuple[str, ...] = ()
    """Contestants that take part; empty for all."""
    match: Match | None = None
    """Sizes that are fitted to make contestants equal; None for none."""
    budget: TrainingLength = Steps(steps=1000)
    """Length of each training."""
    seeds: PositiveInt = 3
    """Number of trainings of each contestant, with seeds 1, 2, ...; the same ones for all."""
    tuning: Tuning | None = None
    """How learning rates are tuned; None for the rates as given."""
    measures: Any = ("loss",)
    """Names in ``MEASURES``, or a mapping of them to their settings."""
    judge: tuple[str, ...] = ()
    """Figures that contestants are compared by; empty for the first one."""
    against: str | None = None
    """Contestant that all others are compared with; None to compare all pairs."""
    checkpoint: Literal["best", "last"] = "best"
    """Weights that are measured."""
    intervals: bool = True
    """False for figures alone, without intervals and verdicts: one seed then suffices."""
    unfair: str = ""
    """Reason why the comparison cannot be made fair, in words; empty where it is."""
    sizes: dict[Size, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Settings that differ in other sizes; ``small`` is the file itself."""

    @property
    def trains(self) -> bool:
        """True where contestants are trained."""
        return self.base is not None

    def measure_settings(self) -> dict[str, dict[str, Any]]:
        """Return the measures and their settings.

        Raises:
            ConfigError: something else than names, or names with settings.
        """
        given = self.measures
        if isinstance(given, str):
            given = [given]
        if isinstance(given, Sequence) and all(isinstance(name, str) for name in given):
            return {name: {} for name in given}
        if isinstance(given, Mapping) and all(isinstance(value, dict | None) for value in given.values()):
            return {name: dict(value or {}) for name, value in given.items()}
        raise ConfigError("measures: expected names, or a mapping of names to settings")


# ---- reading --------------------------------------------------------------------------------------


def shipped() -> dict[str, Path]:
    """Return the studies that come with the package, by name."""
    files = sorted(SHIPPED.glob("*.yaml"))
    return {path.stem: path for path in files if path.stem not in NOT_STUDIES}


def find_study(named: str) -> Path:
    """Return the file of a study: a path, or the name of a shipped one, also as ``studies/NAME.yaml``.

    Raises:
        ConfigError: there is none.
    """
    path = Path(named)
    if path.is_file():
        return path
    if path.parent.name in ("", "studies") and (found := shipped().get(path.name.removesuffix(".yaml"))):
        return found
    if path.suffix in (".yaml", ".yml"):
        raise ConfigError(f"{named}: no such file")
    raise ConfigError(unknown("compare", named, shipped()))


def is_study(given: Any) -> bool:
    """Return whether the content of a file is a study rather than a run file."""
    return isinstance(given, dict) and bool({"contestants", "vary"} & given.keys())


def read_study(named: str, *, size: str = "small", overrides: Sequence[str] = ()) -> Study:
    """Return the study of a file in one size, with ``overrides`` (PATH=VALUE) on top.

    Raises:
        ConfigError: no such study or size, or settings that are wrong, with their path.
    """
    path = find_study(named)
    given = read_content(path)
    if not is_study(given):
        raise ConfigError(f"{path}: no study: it has neither contestants nor vary; to compare run files, give --vary")
    return study_from(given, size=size, overrides=overrides, where=str(path))


def read_content(path: Path) -> Any:
    """Return the content of a study or a run file; of a study with the run file that its base names written out.

    Raises:
        ConfigError: no such file, or no run file.
    """
    given = load_yaml(path)
    return given | {"base": _read_base(given["base"], path)} if is_study(given) and "base" in given else given


def _read_base(base: Any, study: Path) -> Any:
    if isinstance(base, str) and base.endswith((".yaml", ".yml")):
        base = {"run": base}
    if not isinstance(base, dict) or "run" not in base:
        return base
    if not isinstance(base["run"], str):
        raise ConfigError(f"{study}: base.run: {base['run']!r} is not the path of a run file")
    path = study.parent / base["run"]
    if not path.is_file():
        raise ConfigError(f"{study}: base: {path}: no such file")
    run = load_yaml(path)
    if not isinstance(run, dict) or is_study(run):
        raise ConfigError(f"{study}: base: {path}: no run file")
    return merge(run, {name: value for name, value in base.items() if name != "run"})


def study_from(
    given: dict[str, Any], *, size: str = "small", overrides: Sequence[str] = (), where: str = ""
) -> Study:  # fmt: skip
    """Return the study of a file's content; see ``read_study``."""
    if size not in SIZES:
        raise ConfigError(unknown("--size", size, SIZES))
    sizes = given.get("sizes") or {}
    wanted = sizes.get(size) if isinstance(sizes, dict) else None
    if size != "small" and wanted is None:
        raise ConfigError(f"{where}: has no size {size}: add it under sizes")
    plain = {name: value for name, value in given.items() if name != "sizes"}
    if isinstance(plain.get("base"), str):
        plain["base"] = {"preset": plain["base"]}
    plain = _merged(plain, wanted or {})
    for assignment in overrides:
        plain = override(plain, assignment)
    study = from_dict(Study, plain, where=where)
    check_study(study, where)
    return study


def _merged(plain: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Merge one size over the file; a budget in another unit, and another data set, replace theirs."""
    merged = merge(plain, change)
    for name in ("budget", "data"):
        if name in change:
            merged[name] = change[name]
    return merged


def check_study(study: Study, where: str = "") -> None:
    """Check settings against one another, before anything else is done.

    Raises:
        ConfigError: contestants that are missing or given twice, or too few seeds.
    """
    prefix = f"{where}: " if where else ""
    if bool(study.vary) == bool(study.contestants):
        raise ConfigError(
            f"{prefix}give either contestants or vary, {'not both' if study.vary else 'and some of them'}"
        )
    if empty := [path for path, values in study.vary.items() if not values]:
        raise ConfigError(f"{prefix}vary.{empty[0]}: no values to try")
    if study.intervals and study.seeds < 2:
        raise ConfigError(
            f"{prefix}seeds: {study.seeds}, and an interval needs two or more; intervals=false for figures alone"
        )
    if not study.measure_settings():
        raise ConfigError(f"{prefix}measures: none given")
    if not study.trains and (study.match or study.tuning):
        raise ConfigError(f"{prefix}base: must be given, since {'match' if study.match else 'tuning'} needs trainings")
