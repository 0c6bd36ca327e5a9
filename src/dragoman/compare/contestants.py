"""Contestants of a study: the configuration of each, made of the base and of what it changes."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dragoman.compare.datasets import data_section, names_data_set
from dragoman.compare.study import Study
from dragoman.compare.study_trial import check_measures
from dragoman.config import load_yaml, to_dict, unknown
from dragoman.errors import ConfigError
from dragoman.presets import PRESETS
from dragoman.train.recipe import RunConfig, load

MEASURES = "measures."
"""Prefix of contestants' settings that belong to a measure."""
OF_A_PRESET = ("optimizer", "schedule")
"""Settings of ``train`` that a contestant takes from its preset; all others are those of the base."""
NO_DATA: dict[str, Any] = {"train": [{"kind": "table", "path": "corpus.tsv"}]}
"""Placeholder, to complete a run file whose data comes later."""


@dataclass(frozen=True)
class Contestant:
    """One of those that are compared."""

    name: str
    settings: dict[str, Any]
    """Settings in which it differs from the base, by path."""
    cfg: RunConfig | None
    """Configuration of its trainings; None in a study that trains nothing."""
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of each measure."""


def contestants_of(study: Study, folder: Path) -> list[Contestant]:
    """Return the contestants of a study, in order.

    Args:
        study: the study.
        folder: where generated data is written.

    Raises:
        ConfigError: a path that leads nowhere, a value or a measure that is wrong, or a name that is unknown or not
            unique.
        DataError: a data set that is not there.
    """
    named = dict(study.contestants) or _grid(study.vary)
    if len(named) < 2:
        raise ConfigError(f"contestants: {', '.join(named)} alone: a comparison needs two or more")
    for name in (*study.only, *filter(None, [study.against, study.match and study.match.to])):
        if isinstance(name, str) and name not in named:
            raise ConfigError(unknown("contestants", name, named))
    chosen = {name: settings for name, settings in named.items() if not study.only or name in study.only}
    base = base_of(study, folder) if study.trains else None
    usual = study.measure_settings()
    return [
        _contestant(name, _with_data(settings, folder, study.base), base, usual, shown=settings)
        for name, settings in chosen.items()
    ]


def _with_data(settings: dict[str, Any], folder: Path, run_file: Any) -> dict[str, Any]:
    """Return a contestant's settings with a data set of its own as the ``data`` of a run file."""
    if names_data_set(settings.get("data")):
        return settings | {"data": data_section(settings["data"], folder, run_file or {})}
    return settings


def base_of(study: Study, folder: Path) -> dict[str, Any]:
    """Return the configuration that contestants start from as plain data, with the study's data."""
    given = study.base
    if not isinstance(given, dict):
        raise ConfigError(f"base: expected a run file or the name of a preset, got {given!r}")
    section = data_section(study.data, folder, given) if study.data is not None else given.get("data")
    if section is None:
        raise ConfigError("data: must be given, in the study or in its base, or with --data")
    return to_dict(load({**given, "data": section}))


def _contestant(
    name: str,
    settings: Mapping[str, Any],
    base: dict[str, Any] | None,
    usual: dict[str, dict[str, Any]],
    *,
    shown: dict[str, Any],
) -> Contestant:
    of_measures = {path: value for path, value in settings.items() if path.startswith(MEASURES)}
    paths = {path: value for path, value in settings.items() if path not in of_measures}
    measures = {measure: dict(given) for measure, given in usual.items()}
    for path, value in of_measures.items():
        measure, _, setting = path.removeprefix(MEASURES).partition(".")
        if measure not in measures or not setting:
            raise ConfigError(unknown(f"contestants.{name}: measures", measure, measures))
        measures[measure][setting] = value
    check_measures(measures, f"contestants.{name}: measures")
    if base is None:
        if paths:
            raise ConfigError(
                f"contestants.{name}.{next(iter(paths))}: a study without base trains nothing: write "
                "measures.NAME.SETTING, or give a base"
            )
        return Contestant(name, shown, None, measures)
    try:
        return Contestant(name, shown, _configured(base, paths), measures)
    except ConfigError as error:
        raise ConfigError(f"contestants.{name}: {error}") from None


def _configured(base: dict[str, Any], paths: dict[str, Any]) -> RunConfig:
    paths = dict(paths)
    preset = paths.pop("preset", None)
    plain = base if preset is None else _with_preset(base, preset)
    return load(plain, [f"{path}={json.dumps(value, ensure_ascii=False)}" for path, value in paths.items()])


def _with_preset(base: dict[str, Any], name: Any) -> dict[str, Any]:
    """Return ``base`` with the model of a preset, and with the optimizer and schedule that it was published with."""
    if name not in PRESETS:
        raise ConfigError(unknown("preset", name, PRESETS))
    given = PRESETS[name]()
    preset = given if "task" in given else to_dict(load({"data": NO_DATA} | given))
    own = preset["train"] if "train" in given else {}
    return base | {
        "model": preset["model"],
        "train": base["train"] | {key: own[key] for key in OF_A_PRESET if key in own},
    }


# ---- grids ----------------------------------------------------------------------------------------


def parse_vary(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return the values to try by path, from texts such as ``model.decoder.depth=2,4``.

    Raises:
        ConfigError: a text without ``=`` or without values, or a path that is given twice.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        path, equals, values = text.partition("=")
        if not equals or not path or not values.strip():
            raise ConfigError(f"--vary {text}: write PATH=VALUE,VALUE, such as model.decoder.depth=2,4")
        if path in found:
            raise ConfigError(f"--vary {path}: given twice: write all values behind one =")
        found[path] = tuple(load_yaml(f"[{values}]", where=f"--vary {text}"))
    return found


def _grid(vary: dict[str, tuple[Any, ...]]) -> dict[str, dict[str, Any]]:
    named: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*vary.values()):
        settings = dict(zip(vary, values, strict=True))
        name = ", ".join(_label(path, value) for path, value in settings.items())
        if name in named:
            raise ConfigError(f"vary: {name} is there twice: give each value once")
        named[name] = settings
    return named


def _label(path: str, value: Any) -> str:
    """Return the name of a value: ``rotary``, or ``kv_heads 4``."""
    if isinstance(value, dict):
        more = [f"{key} {_plain(one)}" for key, one in value.items() if key != "kind"]
        return " ".join([str(value.get("kind", path.rpartition(".")[2])), *more])
    return value if isinstance(value, str) else f"{path.rpartition('.')[2]} {_plain(value)}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
