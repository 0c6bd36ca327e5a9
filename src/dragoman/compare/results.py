"""Results of a study as JSON: what ran, what came out, what can be said of it. ``page/`` shows it, ``claims.py`` reads
it.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch

from dragoman import __version__, durable
from dragoman.compare.figure import Figure
from dragoman.compare.page.study_page import study_page
from dragoman.compare.statistics import over_seeds
from dragoman.compare.study_plan import Planned, StudyPlan
from dragoman.compare.study_trial import StudyTrial, TrialFigures
from dragoman.compare.tuning import RateTuning
from dragoman.compare.verdicts import verdicts_of
from dragoman.config import to_dict
from dragoman.errors import ConfigError, DataError
from dragoman.json_files import json_text
from dragoman.text.cleaning.workers import available_cores

FORMAT = 1
RESULTS, REPORT = "results.json", "report.html"
ALWAYS = {
    "finished": (True, "", "1 where the training did not diverge"),
    "training speed": (True, "tokens/s", "tokens read in a second of learning, on either side, padding not counted"),
    "training time": (False, "s", "time spent learning, without validations and measures"),
}
"""Figures of every training: higher is better, unit, how they are computed."""
_PARTS = {
    "machine": dict,
    "date": str,
    "contestants": list,
    "runs": list,
    "figures": dict,
    "verdicts": list,
    "failed": list,
}
"""Parts of results that their readers need."""
Done = Sequence[tuple[StudyTrial, TrialFigures]]


def results_of(plan: StudyPlan, tuned: Mapping[str, RateTuning], done: Done) -> dict[str, Any]:
    """Return the results of those trials that are done, as plain data.

    Raises:
        ConfigError: a figure to judge by that no measure gives.
    """
    study, request = plan.request.study, plan.request
    by_run = _by_run(plan, done)
    judged = study.judge or tuple(name for name in by_run if name not in ALWAYS)[:1]
    complete = all(result.finished for _, result in done) and bool(done)
    left_out = {name for _, result in done for name in result.left_out}
    for name in judged:
        if name not in by_run and name not in left_out and complete:
            raise ConfigError(f"judge: no measure gives {name!r}; there are {', '.join(by_run)}")
    names = [one.name for one in plan.contestants]
    verdicts = []
    if study.intervals:
        verdicts = verdicts_of({name: by_run[name] for name in judged if name in by_run}, names, study.against)
    return {
        "format": FORMAT,
        "name": request.name,
        "title": study.title,
        "question": study.question,
        "claims": list(study.claims),
        "size": request.size,
        "command": request.command,
        "machine": machine(),
        "date": date.today().isoformat(),
        "seconds": sum(result.seconds for _, result in done),
        "study": to_dict(study),
        "fair": [*plan.notes, *([f"Not fair: {study.unfair}"] if study.unfair else [])],
        "data": _data(plan),
        "judged": list(judged),
        "contestants": [_contestant(one, tuned.get(one.name)) for one in plan.contestants],
        "runs": [_run(trial, result) for trial, result in done],
        "figures": {name: _figure(runs, names, intervals=study.intervals) for name, runs in by_run.items()},
        "verdicts": [verdict.record() for verdict in verdicts],
        "failed": [
            {"contestant": trial.contestant, "seed": trial.seed, "why": result.failure}
            for trial, result in done
            if not result.finished
        ],
    }


def write_results(found: dict[str, Any], path: Path) -> None:
    """Write results and page into the folder ``path``."""
    durable.replace(path / RESULTS, (json_text(found, indent=1) + "\n").encode())
    durable.replace(path / REPORT, study_page(found).encode())


def read_results(path: Path) -> dict[str, Any]:
    """Return the results in a file.

    Raises:
        DataError: it is damaged, or of another format.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(f"{path}: not the results of a study") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or not _has_parts(found):
        raise DataError(f"{path}: not the results of a study in format {FORMAT}")
    return found


def _has_parts(found: Mapping[str, Any]) -> bool:
    return all(isinstance(found.get(name), kind) for name, kind in _PARTS.items())


def machine() -> dict[str, Any]:
    """Return a description of this machine."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "gpu": device,
        "memory": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dragoman": __version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _by_run(plan: StudyPlan, done: Done) -> dict[str, dict[tuple[str, int], Figure]]:
    """Return each figure by contestant and seed, those of the measures first."""
    found: dict[str, dict[tuple[str, int], Figure]] = {}
    for trial, result in done:
        for name, figure in result.figures.items():
            found.setdefault(name, {})[trial.contestant, trial.seed] = figure
    if not plan.request.study.trains:
        return found
    for trial, result in done:
        values = (float(result.finished), result.tokens_per_second, result.seconds if result.finished else None)
        for (name, (higher, unit, how)), value in zip(ALWAYS.items(), values, strict=True):
            if value is not None:
                found.setdefault(name, {})[trial.contestant, trial.seed] = Figure(value, higher, unit, how)
    return found


def _figure(runs: Mapping[tuple[str, int], Figure], names: Sequence[str], *, intervals: bool) -> dict[str, Any]:
    first = next(iter(runs.values()))
    units = {figure.unit for figure in runs.values()}
    values = {}
    for name in names:
        some = [figure for (contestant, _), figure in runs.items() if contestant == name]
        each = [figure.value for figure in some]
        if each:
            low, high = (_interval(each) if intervals else None) or (None, None)
            known = {"mean": sum(each) / len(each), "low": low, "high": high, "each": each, "seeds": len(each)}
            values[name] = known | ({"unit": some[0].unit} if len(units) > 1 else {})
    return {
        "unit": first.unit if len(units) == 1 else "",
        "higher_is_better": first.higher_is_better,
        "signature": first.signature,
        "values": values,
        "curve": _curve(runs, names, intervals=intervals),
    }


def _curve(runs: Mapping[tuple[str, int], Figure], names: Sequence[str], *, intervals: bool) -> dict[str, Any] | None:
    """Return a figure's curve: at each place the mean over seeds, with its interval."""
    curves = {key: figure.curve for key, figure in runs.items() if figure.curve}
    if not curves:
        return None
    places = list(dict.fromkeys(x for curve in curves.values() for x in curve.x))
    if all(isinstance(x, int | float) for x in places):
        places.sort()
    means, ends = {}, {}
    for name in names:
        at = [dict(zip(curve.x, curve.y, strict=True)) for (one, _), curve in curves.items() if one == name]
        if at:
            there = [[y for found in at if (y := found.get(x)) is not None] for x in places]
            means[name] = [sum(some) / len(some) if some else None for some in there]
            ends[name] = [_interval(some) if intervals else None for some in there]
    return {"x_title": next(iter(curves.values())).x_title, "x": places, "y": means, "intervals": ends}


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    return over_seeds(values).interval() if len(values) > 1 else None


def _contestant(one: Planned, tuning: RateTuning | None) -> dict[str, Any]:
    matched = one.matched
    return {
        "name": one.name,
        "settings": one.contestant.settings,
        "parameters": one.parameters,
        "flops_per_step": one.flops_per_step,
        "tokens_per_step": one.tokens_per_step,
        "memory": one.memory,
        "steps": one.steps,
        "match": None if matched is None else asdict(matched) | {"off": matched.off},
        "tuning": tuning.record() if tuning else None,
    }


def _run(trial: StudyTrial, result: TrialFigures) -> dict[str, Any]:
    record = result.record()
    figures = {name: figure.value for name, figure in result.figures.items()}
    known = {"contestant": trial.contestant, "seed": trial.seed}
    return known | {name: value for name, value in record.items() if name != "figures"} | {"figures": figures}


def _data(plan: StudyPlan) -> dict[str, Any]:
    """Return what was learned from, with the overlap of training and test text."""
    first = plan.contestants[0]
    if first.prepared is None:
        return {}
    report = first.prepared / "data" / "report.json"
    known = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    return {"summary": first.summary, "pairs": known.get("pairs"), "overlap": known.get("overlap")}
