"""dragoman train: a run, from its text to its last checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.train.run import Run


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
            help="Parallel text: a .tsv, .csv or .jsonl file, or two text files as SOURCE,TARGET. May be repeated."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="What the run is based on; dragoman config presets lists them.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Directory of the run; default: runs/ and the name of the file.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped, to the bit.")] = False,
    checkpoint: Annotated[
        str, typer.Option(help="With --resume: where to go on from; newer checkpoints are set aside.")
    ] = "last",
    deliberate: Annotated[
        bool, typer.Option("--deliberate", help="With --resume: allow changes that make it another training.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files for TensorBoard into the run's directory.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say where the time of a few steps goes, and keep a trace of them.")
    ] = False,
) -> None:
    """Train a model: from a run file, or straight from parallel text.

    dragoman train my-run.yaml

    dragoman train --pairs corpus.tsv --preset transformer-small

    dragoman train runs/my-run --resume
    """
    from dragoman.cli.watch import watch
    from dragoman.train.board import summary_writer

    if tensorboard:
        summary_writer()  # told before anything is begun
    settings = [word for word in what or [] if "=" in word and not Path(word).exists()]
    names = [word for word in what or [] if word not in settings]
    if len(names) > 1:
        raise ConfigError(f"{names[1]}: one run file or run at a time; settings are written PATH=VALUE")
    if resume:
        if not names:
            raise ConfigError("--resume: name the directory of the run, as in: dragoman train runs/my-run --resume")
        going = _resumed(names[0], run, settings, checkpoint, deliberate)
    else:
        going = _started(names[0] if names else None, pairs or [], preset, run, settings)
    finished = watch(going, tensorboard=tensorboard, profile=profile)
    raise typer.Exit(0 if finished.complete else 130)


def _resumed(name: str, run: Path | None, settings: list[str], checkpoint: str, deliberate: bool) -> "Run":
    from dragoman.train.recipe import load
    from dragoman.train.run import resume

    if Path(name).is_dir():
        return resume(name, overrides=settings, checkpoint=checkpoint, deliberate=deliberate)
    cfg = load(name, settings)  # a run file: the run it started goes on, if the file still says the same
    return resume(run or _default_directory(name), cfg=cfg, checkpoint=checkpoint, deliberate=deliberate)


def _started(name: str | None, pairs: list[str], preset: str | None, run: Path | None, settings: list[str]) -> "Run":
    from dragoman.config import load_yaml, merge, to_dict
    from dragoman.text.formats import guess_source
    from dragoman.train.recipe import load
    from dragoman.train.run import start

    if name is None and not pairs:
        raise ConfigError("nothing to train on: name a run file, or give parallel text with --pairs")
    if name is not None and Path(name).is_dir():
        raise ConfigError(f"{name} is a directory: to go on with the run there, add --resume")
    given: dict[str, Any] = load_yaml(Path(name)) if name else {"preset": "transformer-small"}
    if preset:
        given = {**given, "preset": preset}
    if pairs:
        given = merge(given, {"data": {"train": [to_dict(guess_source(p)) for p in pairs]}})
    return start(load(given, settings), run or _default_directory(name or pairs[0]))


def _default_directory(name: str) -> Path:
    stem = Path(name.split(",")[0]).name.removesuffix(".gz")
    return Path("runs") / stem.partition(".")[0]
