"""Training from a program: pairs or a run file in, a run out; events by callback, and a stop from another thread."""

import dataclasses
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dragoman.api.rows import SOURCE_AND_TARGET, Columns, check_file_columns, described, is_paths, write_rows
from dragoman.api.run import Run
from dragoman.api.task_rows import INSTRUCTIONS, LABELLED, TAGGED, TEXTS, RowKind, write_task_rows
from dragoman.checkpoint import CONFIG
from dragoman.config import merge, to_dict
from dragoman.errors import CheckpointError, ConfigError, StoppedEarly
from dragoman.text.formats.pairs import JsonLines
from dragoman.text.formats.several import guess_sources
from dragoman.train.automatic import choose, is_automatic, without_preset
from dragoman.train.events import Event, Finished, Notice, Started
from dragoman.train.planner import Planner
from dragoman.train.recipe import load, read_run_file
from dragoman.train.run import resume as resume_run
from dragoman.train.run import start
from dragoman.train.trainer import Trainer

FOLDER = "given"
"""Folder of a run with the rows that a program gave it, so that the run can be resumed without that program."""
DEFAULT_PRESET = "transformer-small"
OnEvent = Callable[[Event], object]
Overrides = Mapping[str, Any] | Sequence[str]
"""Settings on top: a mapping of paths such as ``model.decoder.depth`` to values, or texts as on the command line."""


def train(
    pairs: Any = None,
    *,
    texts: Any = None,
    labelled: Any = None,
    tagged: Any = None,
    instructions: Any = None,
    config: str | Path | Mapping[str, Any] | None = None,
    preset: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    overrides: Overrides = (),
    columns: Columns | None = None,
    valid: Any = None,
    test: Any = None,
    run: str | Path | None = None,
    on_event: OnEvent | None = None,
    stop: threading.Event | None = None,
    force: bool = False,
) -> Run:
    """Train a model; return its run when it has finished.

    Nothing is printed: ``on_event`` is called with what happens. Ctrl-C, ``stop`` or the end of the budget stop the run
    after a step, with everything saved; ``Run.finished.complete`` tells which it was, and ``resume`` goes on.

    Args:
        pairs: parallel text: tuples (source, target), mappings, a data frame of pandas or polars, a table of pyarrow, a
            data set of Hugging Face, or any other iterable of rows; or paths of files, as for ``dragoman train
            --pairs``. None where ``config`` names the data, or one of the next four is given.
        texts: texts for a language model, in the same forms: strings, or a column of them. A path, or a list of
            ``Path``, names files.
        labelled: texts with labels for a classifier: (text, label); labels are texts, integers or booleans.
        tagged: words with labels for a tagger: (list of words, list of labels).
        instructions: prompts with answers for a language model: (prompt, answer).
        config: a run file, or its content as a mapping; see ``docs/train.md``.
        preset: name of the preset, instead of that of ``config``; ``auto`` chooses model and recipe by the text and the
            time. Without either it is transformer-small, or lm-tiny, classifier-tiny or tagger-small by the rows.
        minutes: time to learn.
        steps: steps to learn, instead of ``minutes``.
        overrides: settings on top, by path.
        columns: which columns of rows or files hold source and target, or text and label, ...: their names, or indices
            from 0 where rows have no names. By default as their names tell.
        valid: rows that choose the best checkpoint, given as those to train on; by default some are held out.
        test: rows for the final scores, given likewise; texts and instructions have none.
        run: directory of the run; by default ``runs/run``, or the first of ``runs/run-2``, ... that is free.
        on_event: called with each event, a dataclass of ``dragoman.train.events``, in this thread.
        stop: stops the run once it is set, by any thread.
        force: start although memory is predicted not to suffice.

    Raises:
        TypeError: ``pairs``, ``texts``, ... that are no rows at all, ``on_event`` no function, or ``stop`` no event.
        DataError: a row that is no pair of texts, or no row of its task; the message names its number and what it is.
        ConfigError: settings that do not exist or do not fit one another, or nothing to train on.
        CheckpointError: there is something at ``run`` already.
        OutOfMemory: the run cannot fit.
        StoppedEarly: stopped before anything of a run was there.
    """
    _check_calls(on_event, stop)
    rows = {TEXTS: texts, LABELLED: labelled, TAGGED: tagged, INSTRUCTIONS: instructions}
    kind = _kind_of_rows(pairs, rows)
    usual = None if pairs is None and kind is None else kind.preset if kind else DEFAULT_PRESET
    given = _content(config, preset, usual)
    settings = _settings(overrides, minutes, steps)
    path = Path(run) if run is not None else _free(Path("runs"))
    _check_free(path)
    with _RowFiles(path) as files:
        argument = kind.argument if kind else "pairs"
        data = {
            "train": files.sources(rows[kind] if kind else pairs, argument, columns, kind),
            "valid": _only(files.sources(valid, "valid", columns, kind), "valid"),
            "test": _only(files.sources(test, "test", columns, kind), "test"),
        }
        given = merge(given, {"data": kind.data_of(**data)}) if kind else _with_data(given, data)
        if is_automatic(given, settings):
            chosen = choose(given, settings)
            given, settings = chosen.given, without_preset(settings)
            reasons = chosen.reasons
        else:
            reasons = ()
        cfg = load(files.final(given), settings)
        trainer = start(cfg, path)
        files.keep()
    for reason in reasons if on_event else ():
        on_event(Notice(reason))  # pyright: ignore[reportOptionalCall]
    trainer.planner = Planner(force=force)
    return _trained(trainer, on_event, stop)


def resume(
    run: str | Path | Run,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    overrides: Overrides = (),
    checkpoint: str | int = "last",
    deliberate: bool = False,
    on_event: OnEvent | None = None,
    stop: threading.Event | None = None,
    force: bool = False,
) -> Run:
    """Go on with a run that was stopped, equal to the bit, or with a longer budget; arguments are those of ``train``.

    Args:
        checkpoint: where to go on, by step or name; newer checkpoints are set aside.
        deliberate: also change settings that change what a step does, such as ``train.clip``.

    Raises:
        CheckpointError: no run there, another process trains it, a damaged checkpoint, or settings that may not change.
        ConfigError: settings that do not exist.
    """
    _check_calls(on_event, stop)
    path = run.path if isinstance(run, Run) else run
    settings = _settings(overrides, minutes, steps)
    trainer = resume_run(path, overrides=settings, checkpoint=checkpoint, deliberate=deliberate)
    trainer.planner = Planner(force=force)
    return _trained(trainer, on_event, stop)


def _trained(trainer: Trainer, on_event: OnEvent | None, stop: threading.Event | None) -> Run:
    """Train to the end, and tell what happens."""
    if stop is not None:
        trainer.stop_wanted = stop.is_set
    events, finished, learning = trainer.events(), None, False
    try:
        for event in events:
            learning = learning or isinstance(event, Started)
            if isinstance(event, Finished):
                finished = event
            if on_event is not None:
                on_event(event)
            if stop is not None and stop.is_set() and not learning and finished is None:
                finished = _stopped_early(events)
                if on_event is not None and finished is not None:
                    on_event(finished)
                break
    finally:
        events.close()  # pyright: ignore[reportAttributeAccessIssue]  # of a callback that raised: unlock the run
        trainer.directory.close()
        _clear(trainer.directory.path)
    if not (trainer.directory.path / CONFIG).exists():
        raise StoppedEarly(f"{trainer.directory.path}: stopped before the first step: nothing is left of it")
    return Run(trainer.directory.path, finished)


def _check_calls(on_event: Any, stop: Any) -> None:
    """Check what is called during a run, before anything of it is there.

    Raises:
        TypeError: it cannot be called.
    """
    if on_event is not None and not callable(on_event):
        raise TypeError(f"on_event: a function of an event is expected, got {described(on_event)}")
    if stop is not None and (isinstance(stop, type) or not callable(getattr(stop, "is_set", None))):
        raise TypeError(f"stop: a threading.Event is expected, got {described(stop)}")


def _stopped_early(events: Any) -> Finished | None:
    """Stop a run that is being prepared, as Ctrl-C does."""
    try:
        return events.throw(KeyboardInterrupt)
    except (KeyboardInterrupt, StopIteration):
        return None


def _clear(run: Path) -> None:
    """Remove the rows of a run that failed before anything of it was there, and its empty folder."""
    if not (run / CONFIG).exists():
        shutil.rmtree(run / FOLDER, ignore_errors=True)
        with suppress(OSError):
            run.rmdir()


# ---- the configuration ----------------------------------------------------------------------------------


def _kind_of_rows(pairs: Any, rows: Mapping[RowKind, Any]) -> RowKind | None:
    """Return the kind of the rows that are given; None for pairs, or for none.

    Raises:
        ConfigError: rows of several tasks.
    """
    given = [kind for kind, some in rows.items() if some is not None]
    named = [*(["pairs"] if pairs is not None else []), *(kind.argument for kind in given)]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)}: a run has one task: give one of them")
    return given[0] if given else None


def _content(config: str | Path | Mapping[str, Any] | None, preset: str | None, usual: str | None) -> dict[str, Any]:
    """Return the content of the run file.

    Args:
        usual: preset where nothing else is said; None where there are no rows.
    """
    if config is None:
        if usual is None:
            raise ConfigError("nothing to train on: give pairs, or texts, labelled, tagged, ..., or a config with data")
        found: dict[str, Any] = {"preset": usual}
    else:
        found = _plain(config, "") if isinstance(config, Mapping) else read_run_file(config)
    return found if preset is None else found | {"preset": preset}


def _settings(overrides: Overrides, minutes: float | None, steps: int | None) -> list[str]:
    """Return all settings as PATH=VALUE.

    Raises:
        ConfigError: two budgets, or a budget that is no positive number.
    """
    if minutes is not None and steps is not None:
        raise ConfigError("minutes and steps: give one of them")
    if isinstance(overrides, str):
        raise ConfigError(f"overrides: a list of settings is expected, such as [{overrides!r}]")
    if isinstance(overrides, Mapping):
        found = [f"{path}={json.dumps(_plain(value, path), ensure_ascii=False)}" for path, value in overrides.items()]
    else:
        found = [_setting(text) for text in overrides]
    for name, value in (("minutes", minutes), ("steps", steps)):
        if value is not None:
            value = _plain(value, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{name}: a number above 0 is expected, got {value!r}")
            found.append(f"train.budget={{kind: {name}, {name}: {value}}}")
    return found


def _setting(text: Any) -> str:
    if not isinstance(text, str):
        raise ConfigError(f"overrides: PATH=VALUE is expected, for example decoder.depth=4, got {text!r}")
    return text


def _plain(value: Any, path: str) -> Any:
    """Return a setting as a run file has it: paths and runs as texts, numbers and arrays of NumPy as plain ones.

    Raises:
        ConfigError: a value that no run file can hold, named by its path.
    """
    if isinstance(value, Run):
        return str(value.path)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = to_dict(value)
    elif callable(plain := getattr(value, "tolist", None)):  # of NumPy, PyTorch
        value = plain()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{path}.{number}") for number, entry in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, f"{path}.{key}".removeprefix(".")) for key, entry in value.items()}
    raise ConfigError(f"{path}: a text, a number, a list or a mapping is expected, got {described(value)}")


def _only(sources: list[dict[str, Any]], argument: str) -> list[dict[str, Any]]:
    """Return the sources, if there is one at most.

    Raises:
        ConfigError: there are several.
    """
    if len(sources) > 1:
        raise ConfigError(f"{argument}: one file or one set of rows is expected, and these are {len(sources)} files")
    return sources


def _with_data(given: dict[str, Any], data: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the run file with the sources that a program gave."""
    found: dict[str, Any] = {"train": data["train"]} if data["train"] else {}
    found |= {part: data[part][0] for part in ("valid", "test") if data[part]}
    return merge(given, {"data": found}) if found else given


def _free(folder: Path) -> Path:
    """Return the first free name for a run."""
    name, number = folder / "run", 2
    while name.exists():
        name, number = folder / f"run-{number}", number + 1
    return name


def _check_free(path: Path) -> None:
    """Refuse a directory that is taken, before any row is read.

    Raises:
        CheckpointError: it is.
    """
    if (path / CONFIG).exists():
        raise CheckpointError(f"{path}: there is a run here already: go on with it (resume) or choose another name")
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise CheckpointError(f"{path}: exists and is not an empty folder: choose another name for the run")


def _are_texts(given: Any) -> bool:
    """Return True for a list of strings, which are texts; a string alone is a path."""
    return not isinstance(given, str | Path) and any(isinstance(one, str) for one in given)


class _RowFiles:
    """Rows that a program gave, in files: in a temporary folder until the run exists, then in the run."""

    def __init__(self, run: Path):
        self.run = run
        self.partial: Path | None = None

    def __enter__(self) -> "_RowFiles":
        return self

    def __exit__(self, *_: object) -> None:
        if self.partial is not None:
            shutil.rmtree(self.partial, ignore_errors=True)

    def sources(
        self, given: Any, argument: str, columns: Columns | None, kind: RowKind | None = None
    ) -> list[dict[str, Any]]:
        """Return the sources of ``given`` as a run file has them; rows are written to a file.

        Args:
            kind: kind of the rows; None for pairs.
        """
        if given is None:
            return []
        if is_paths(given) and not (kind is TEXTS and _are_texts(given)):
            paths: Iterable[Any] = [given] if isinstance(given, str | Path) else given
            if kind is not None:
                return [source for path in paths for source in kind.sources(str(path), columns)]
            named = check_file_columns(columns, SOURCE_AND_TARGET)
            return [to_dict(source) for path in paths for source in guess_sources(str(path), named)]
        if self.partial is None:
            self.run.parent.mkdir(parents=True, exist_ok=True)
            self.partial = Path(tempfile.mkdtemp(prefix=f".{self.run.name}-", dir=self.run.parent))
        file = self.partial / f"{argument}.jsonl"
        if kind is not None:
            write_task_rows(given, kind, argument, file, columns)
            return [kind.source_of_rows(str(file))]
        write_rows(given, argument, file, columns)
        return [to_dict(JsonLines(path=str(file)))]

    def final(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return ``given`` with the files where they will be."""
        if self.partial is None:
            return given
        text = json.dumps(given, default=str).replace(json.dumps(f"{self.partial}{os.sep}")[1:-1], self._place)
        return json.loads(text)

    @property
    def _place(self) -> str:
        return json.dumps(f"{self.run / FOLDER}{os.sep}")[1:-1]

    def keep(self) -> None:
        """Move the files into the run."""
        if self.partial is not None:
            os.rename(self.partial, self.run / FOLDER)
            os.chmod(self.run / FOLDER, 0o777 & ~_umask())
            self.partial = None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
