"""dragoman compare: run a study, or say what it will cost."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dragoman.cli.options import writable_folder
from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.compare.study_request import StudyRequest

FAILED = 3
"""Exit code of a study in which a training diverged or did not fit into memory."""


def compare(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STUDY | RUN_FILE [PATH=VALUE]...",
            help="A study: the name of a shipped one (--list), or a file; or a run file (YAML) or preset, with --vary. "
            "Then settings of it to change, such as budget.steps=500.",
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH=VALUES",
            help="Values of a setting to compare, such as model.decoder.depth=2,4; given twice: all combinations.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings of each contestant.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="Learn from this file instead of the study's data.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time for the whole study, such as 30m or 2h: all trainings get shorter."),
    ] = None,
    match: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE=PATH",
            help="Fit widths to equal parameters or flops, such as parameters=model.dim; several paths by commas.",
        ),
    ] = None,
    measure: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Measure, such as loss or translation; may be repeated.")
    ] = None,
    size: Annotated[str, typer.Option(help="toy, small or large, as the study file says.")] = "small",
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default=False,
            help="Trainings at a time, each in a process of its own; default: 1, with --ray as many as the cluster has "
            "processors.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Train on a Ray cluster, whose machines find the study's folder and data under the same paths; "
            "'local' starts one here.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",  # its earlier name
            "-o",
            help="Folder of the study; default: runs/studies/ and its name and size.",
            callback=writable_folder,
        ),
    ] = None,
    keep_runs: Annotated[
        bool, typer.Option("--keep-runs", help="Keep the checkpoints of all trainings; default: figures alone.")
    ] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Also copy results and page to studies/results/.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say what the study will cost, and do not run it.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the studies that come with Dragoman.")] = False,
) -> None:
    """Compare architectures, recipes or settings: the same budget for each, several seeds, intervals, one page.

    dragoman compare positions

    dragoman compare families --data mine.tsv --budget 30m

    dragoman compare run.yaml --vary 'model.decoder.pattern.*.mixer.kv_heads=4,2,1' --seeds 3

    The same command goes on with a study that was stopped. Exit code 3: a training diverged; all others are finished.
    """
    from dragoman.cli import compare_screen

    if list_:
        compare_screen.show_list()
        return
    request = _request(
        what or [],
        vary=vary or [],
        seeds=seeds,
        data=data,
        seconds=None if budget is None else parse_time(budget),
        match=match,
        measures=measure or [],
        size=size,
    )
    if plan:
        compare_screen.show_plan(request)
        return
    folder = out or Path("runs") / "studies" / _folder_name(request)
    finished = compare_screen.run(request, folder, processes=processes, ray=ray, keep=keep_runs)
    if not finished.complete:
        raise typer.Exit(130)
    if publish:
        compare_screen.publish(folder, request.name)
    if finished.failed:
        raise typer.Exit(FAILED)


def _study_name(named: str) -> str:
    """Return the name of a study file, run file or folder, without what says that it is YAML."""
    return Path(named).resolve().name.removesuffix(".yaml").removesuffix(".yml")


def _folder_name(request: "StudyRequest") -> str:
    return request.name if request.size == "small" else f"{request.name}-{request.size}"


def parse_time(text: str) -> float:
    """Return the seconds of a time such as 30m, 1h30m or 90s.

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    seconds = sum(
        float(number or 0) * unit for number, unit in zip(found.groups() if found else (), (3600, 60, 1), strict=False)
    )
    if not seconds:
        raise ConfigError(f"--budget {text}: write a time such as 30m, 1h30m or 90s")
    return seconds


def _request(
    what: Sequence[str],
    *,
    vary: Sequence[str],
    seeds: int | None,
    data: str | None,
    seconds: float | None,
    match: str | None,
    measures: Sequence[str],
    size: str,
) -> "StudyRequest":
    from dragoman.compare.study_request import StudyRequest

    settings = [word for word in what if "=" in word and not Path(word).exists()]
    names = [word for word in what if word not in settings]
    if len(names) != 1:
        raise ConfigError(
            f"{names[1]}: one study or run file at a time; settings are written PATH=VALUE"
            if names
            else "compare: name a study or a run file; dragoman compare --list shows the studies"
        )
    more = [f"seeds={seeds}"] if seeds is not None else []
    more += [f"measures={_listed(measures)}"] if measures else []
    more += [_match(match)] if match is not None else []
    if data is not None:
        more.append(f"data={{kind: file, path: {_quoted(data)}}}")
    study = _study(names[0], settings, more, vary, size)
    return StudyRequest(study, _study_name(names[0]), size, seconds, shlex.join(_command()))


def _study(named: str, settings: Sequence[str], more: Sequence[str], vary: Sequence[str], size: str) -> Any:
    from dragoman.compare.adhoc import varied
    from dragoman.compare.study import read_study

    if vary:
        return varied(named, settings, vary, more, size)
    return read_study(named, size=size, overrides=[*settings, *more])


def _command() -> list[str]:
    """Return the command as it was typed, without the folder that it writes to."""
    given, kept, skip = sys.argv[1:], ["dragoman"], False
    for word in given:
        if skip or word in (*_OUTPUT, "--publish", "--keep-runs") or re.match("--out(put)?=|-o.", word):
            skip = word in _OUTPUT and not skip
            continue
        kept.append(word)
    return kept


_OUTPUT = ("--output", "--out", "-o")


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(map(_quoted, names)) + "]"


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)


def _match(text: str) -> str:
    hold, equals, paths = text.partition("=")
    if not equals or not paths:
        raise ConfigError(f"--match {text}: write parameters=PATH or flops=PATH, such as parameters=model.dim")
    return f"match={{hold: {_quoted(hold)}, by: {_listed(paths.split(','))}}}"
