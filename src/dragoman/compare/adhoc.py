"""Study of a run file whose settings are varied on the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dragoman.checkpoint import run_config
from dragoman.compare.contestants import NO_DATA, parse_vary
from dragoman.compare.study import Study, find_study, is_study, read_content, shipped, study_from, unit_and_amount
from dragoman.config import kind_of, to_dict, unknown
from dragoman.errors import ConfigError
from dragoman.presets import PRESETS
from dragoman.train.recipe import load

_MEASURES = {"translation": ["translation", "loss"], "language_modelling": ["loss", "perplexity"]}


def varied(named: str, settings: Sequence[str], vary: Sequence[str], more: Sequence[str], size: str = "small") -> Study:
    """Return the study that compares values of some settings of a run file, a run, a preset or a study's base.

    Args:
        named: the run file, folder of a run, preset or study.
        settings: settings to change in it, PATH=VALUE.
        vary: values to compare, PATH=VALUES.
        more: settings of the study itself, PATH=VALUE.
        size: size of a study.

    Raises:
        ConfigError: no such file, or settings that are wrong.
    """
    values = parse_vary(vary)
    given = _content(named)
    if is_study(given):
        given = _without_contestants(given) | {"vary": _plain(values)}
        return study_from(given, size=size, overrides=[*settings, *more], where=named)
    return study_from(
        {
            "title": f"{Path(named).resolve().name}: {', '.join(path.rpartition('.')[2] for path in values)}",
            "base": _base(given, settings, has_data=any(text.startswith("data=") for text in more)),
            "vary": _plain(values),
            **_usual(given, settings),
        },
        overrides=more,
        where=named,
    )


def _without_contestants(given: dict[str, Any]) -> dict[str, Any]:
    """Return a study's content without its contestants, and without what names them, in all sizes."""
    of_them = ("contestants", "vary", "only", "against")
    kept = {key: value for key, value in given.items() if key not in of_them}
    if isinstance(sizes := kept.get("sizes"), dict):
        kept["sizes"] = {
            size: {key: value for key, value in (change or {}).items() if key not in of_them}
            for size, change in sizes.items()
        }
    return kept


def _content(named: str) -> Any:
    if named in PRESETS:
        return {"preset": named}
    if Path(named).is_dir():
        return run_config(named)
    if Path(named).exists():
        return read_content(Path(named))
    if Path(named).suffix not in (".yaml", ".yml") and named not in shipped():
        raise ConfigError(unknown("compare: study, run file or preset", named, (*shipped(), *PRESETS)))
    return read_content(find_study(named))


def _plain(values: dict[str, tuple[Any, ...]]) -> dict[str, list[Any]]:
    return {path: list(some) for path, some in values.items()}


def _base(given: Any, settings: Sequence[str], *, has_data: bool) -> Any:
    """Return the run file with its settings; a placeholder for data that comes later is left out again."""
    if not settings or not isinstance(given, dict):
        return given
    complete = to_dict(load(given if "data" in given or not has_data else {**given, "data": NO_DATA}, settings))
    return complete if "data" in given else {name: value for name, value in complete.items() if name != "data"}


def _usual(given: Any, settings: Sequence[str]) -> dict[str, Any]:
    """Return the length and the measures that suit a run file."""
    cfg = load(given if not isinstance(given, dict) or "data" in given else {**given, "data": NO_DATA}, settings)
    kind = kind_of(type(cfg.task))
    unit, amount = unit_and_amount(cfg.train.budget)
    return {"budget": {unit: amount}, "measures": _MEASURES.get(kind, ["task", "loss"])}
