"""dragoman train: a run, from its text to its last checkpoint."""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dragoman.cli import sources
from dragoman.cli.options import refuse_options
from dragoman.errors import ConfigError, ProcessLost
from dragoman.train.distributed.launch import LEFT, STOPPED, in_a_group, launch

if TYPE_CHECKING:
    from dragoman.text.formats.pairs import PairSource
    from dragoman.train.distributed.processes import SingleProcess
    from dragoman.train.trainer import Trainer


def train(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN_FILE | RUN] [PATH=VALUE]...",
            help="A run file (YAML), or with --resume the directory of a run; then settings to change, "
            "such as train.seed=2 or model.decoder.depth=4.",
        ),
    ] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Parallel text: {sources.FILES}. May be repeated. For a folder of JSON or text files by language, "
            "--columns names the languages."
        ),
    ] = None,
    columns: sources.ColumnsOption = None,
    preset: Annotated[
        str | None, typer.Option(help="The preset that the run is based on; dragoman config presets lists them.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Directory of the run; default: runs/ and the name of the file.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped, equal to the bit.")] = False,
    checkpoint: Annotated[
        str, typer.Option(help="With --resume: the checkpoint to resume from; newer ones are set aside.")
    ] = "last",
    deliberate: Annotated[
        bool,
        typer.Option(
            "--deliberate", help="With --resume: allow settings that change training, such as the learning rate."
        ),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files for TensorBoard into the run's directory.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Report where the time of a few steps goes, and store a trace of them.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Start although memory is predicted not to suffice.")] = False,
    processes: Annotated[
        int, typer.Option(min=1, help="Number of training processes, each on a GPU or a part of the cores.")
    ] = 1,
) -> None:
    """Train a model: from a run file, or straight from parallel text.

    dragoman train my-run.yaml

    dragoman train --pairs corpus.tsv --preset transformer-small

    dragoman train runs/my-run --resume
    """
    if tensorboard:
        from dragoman.train.tensorboard import summary_writer

        summary_writer()  # reports a missing package before anything starts
    settings = [word for word in what or [] if "=" in word and not os.path.exists(word)]
    names = [word for word in what or [] if word not in settings]
    if len(names) > 1:
        raise ConfigError(f"{names[1]}: one run file or run at a time; settings are written PATH=VALUE")
    if resume and not names:
        raise ConfigError("--resume: name the directory of the run, as in: dragoman train runs/my-run --resume")
    name = names[0] if names else None
    if name is None and not pairs:
        raise ConfigError("nothing to train on: name a run file, or give parallel text with --pairs")
    _check_use(
        resume=resume,
        is_run=name is not None and os.path.isdir(name),
        pairs=pairs,
        columns=columns,
        preset=preset,
        run=run,
        checkpoint=checkpoint,
        deliberate=deliberate,
    )
    directory = run or _default_directory(name or (pairs or [""])[0])

    def open_trainer(group: "SingleProcess") -> "Trainer":
        if resume:
            return _resumed(str(name), directory, settings, checkpoint, deliberate, group)
        return _started(
            name, _training_text(pairs or [], columns, report=group.first), preset, directory, settings, group
        )

    join = processes == 1 or in_a_group()
    raise typer.Exit(
        _watched(open_trainer, tensorboard=tensorboard, profile=profile, force=force)
        if join
        else _launched(processes, Path(name) if name and os.path.isdir(name) else directory)
    )


def _check_use(
    *,
    resume: bool,
    is_run: bool,
    pairs: list[str] | None,
    columns: str | None,
    preset: str | None,
    run: Path | None,
    checkpoint: str,
    deliberate: bool,
) -> None:
    """Check that options of a new run are given for one, and those of --resume with it.

    Raises:
        ConfigError: they are not.
    """
    if not resume:
        of_resume = {"--checkpoint": checkpoint != "last", "--deliberate": deliberate}
        return refuse_options(of_resume, "is for --resume: add it, or leave this out")
    refuse_options(
        {"--pairs": pairs, "--columns": columns, "--preset": preset}, "is for a new run: a resumed one has it"
    )
    if is_run:
        refuse_options({"--run": run}, "is for a new run, or a run file: the run to resume is named already")


def _launched(count: int, run: Path) -> int:
    """Run this command again in ``count`` processes; ``run`` is the directory that they write to."""
    codes = launch([sys.executable, "-m", "dragoman", *sys.argv[1:]], count)
    failed = [code for code in codes if code not in (0, STOPPED, LEFT)]
    if reported := [code for code in failed if code > 0]:
        return max(reported)
    if failed:
        from dragoman.config import CONFIG
        from dragoman.train.failure import resume_command

        killed = ", ".join(f"process {i} by {signal.Signals(-code).name}" for i, code in enumerate(codes) if code < 0)
        if not (run / CONFIG).exists():
            raise ProcessLost(f"killed: {killed}. Nothing was learnt yet: run the same command again")
        again = resume_command(run, f" --processes {count}")
        raise ProcessLost(f"killed: {killed}. What was saved is intact; to resume from there: {again}")
    return max(codes)


def _watched(
    open_trainer: "Callable[[SingleProcess], Trainer]", *, tensorboard: bool, profile: bool, force: bool
) -> int:
    from dragoman.cli.watch import run_silently, watch
    from dragoman.train.distributed.processes import join_group
    from dragoman.train.planner import Planner
    from dragoman.train.run import follow

    with join_group() as group:
        if group.first:
            run = open_trainer(group)
            run.planner = Planner(force=force)
            finished = watch(run, tensorboard=tensorboard, profile=profile)
        else:
            finished = run_silently(follow(group))
    return 0 if finished.complete else STOPPED


def _resumed(
    name: str, run: Path, settings: list[str], checkpoint: str, deliberate: bool, group: "SingleProcess"
) -> "Trainer":
    from dragoman.checkpoint import run_config
    from dragoman.train.automatic import as_chosen, is_automatic
    from dragoman.train.recipe import load, read_run_file
    from dragoman.train.run import resume

    if os.path.isdir(name):
        return resume(name, overrides=settings, checkpoint=checkpoint, deliberate=deliberate, group=group)
    # a run file: resumes the run it started, if the file is unchanged
    if is_automatic(given := read_run_file(name), settings):
        cfg = load(*as_chosen(given, settings, run_config(run)))
    else:
        cfg = load(name, settings)
    return resume(run, cfg=cfg, checkpoint=checkpoint, deliberate=deliberate, group=group)


def _started(
    name: str | None,
    pairs: "list[PairSource]",
    preset: str | None,
    run: Path,
    settings: list[str],
    group: "SingleProcess",
) -> "Trainer":
    from dragoman.config import merge, to_dict
    from dragoman.train.automatic import is_automatic
    from dragoman.train.recipe import load, read_run_file
    from dragoman.train.run import start

    if name is not None and os.path.isdir(name):
        raise ConfigError(f"{name} is a directory: to resume the run there, add --resume")
    given: dict[str, Any] = read_run_file(name) if name else {"preset": "transformer-small"}
    if preset:
        given = {**given, "preset": preset}
    if pairs:
        given = merge(given, {"data": {"train": [to_dict(source) for source in pairs]}})
    if is_automatic(given, settings):
        given, settings = _chosen(given, settings)
    return start(load(given, settings), run, group=group)


def _chosen(given: dict[str, Any], settings: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the run file and the settings with a model and a recipe in the place of ``preset: auto``."""
    from dragoman.cli.terminal import progress_console
    from dragoman.train.automatic import choose, without_preset

    chosen = choose(given, settings)
    settings = without_preset(settings)
    with progress_console() as screen:
        for reason in chosen.reasons:
            screen.print(reason, soft_wrap=True, markup=False)
    return chosen.given, settings


def _training_text(pairs: list[str], columns: str | None, *, report: bool) -> "list[PairSource]":
    if columns is not None and not pairs:
        raise ConfigError("--columns: is for --pairs; in a run file, use source and target of data.train")
    return [source for name in pairs for source in sources.guessed_sources(name, columns, report=report)]


def _default_directory(name: str) -> Path:
    plain = Path(name.split(",")[0])
    stem = (plain.name or plain.resolve().name).removesuffix(".gz").partition(".")[0]
    words = re.findall(r"[\w-]+", str(plain)) if set(name) & set("*?[") else [stem]  # the first folder of a pattern
    return Path("runs") / (words[0] if words else "run")
