"""dragoman translate --workers, --ray: the lines of files in shards, by several processes or machines."""

import glob
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from dragoman.cli.argument import STDIN, is_file
from dragoman.errors import ConfigError, DataError

if TYPE_CHECKING:
    from dragoman.cli.output import OutputLayout
    from dragoman.decode.documents.line_translation import LineSettings
    from dragoman.serve.bulk.job import CheckedInput, ReadLines
    from dragoman.serve.bulk.parts import Assemble
    from dragoman.serve.bulk.scheduler import ShardScheduler
    from dragoman.serve.bulk.shard import ShardWork

WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Translate files of lines in N processes; the same command goes on with one that was stopped.",
        rich_help_panel="Bulk",
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="The same on the machines of a Ray cluster: its address, or auto, or local for one on this machine.",
        rich_help_panel="Bulk",
    ),
]
RestartOption = Annotated[
    bool,
    typer.Option(
        "--restart", help="Forget what a stopped --workers or --ray command has done.", rich_help_panel="Bulk"
    ),
]
PARQUET = ".parquet"
TABLES = (".csv", ".tsv", PARQUET)
"""Extensions of tables whose rows are translated in bulk."""
AT_FIRST, EVERY = 2.0, 60.0
"""Seconds after which progress is reported where there is no terminal, and between two reports."""
STOPPED = 130
"""Exit code after Ctrl-C."""


class BulkInput(NamedTuple):
    """Files whose lines are translated into one output."""

    names: list[str]
    output: Path


def bulk_inputs(
    names: Sequence[str],
    output: Path | None,
    as_kind: str | None = None,
    *,
    redo: bool = False,
    tables: bool = False,
    option: str,
) -> list[BulkInput]:
    """Return the inputs that arguments and patterns name, each with its output; errors name ``option``.

    Args:
        tables: they are tables, whose rows are translated, rather than files of lines.

    Raises:
        ConfigError: no file, something that can be read only once, a document, or no output.
        DataError: nothing has such a name.
    """
    from dragoman.cli.document import output_paths
    from dragoman.output_file import check_output_file, is_live, is_open_file

    if redo:
        raise ConfigError(f"--redo: is for documents, and {option} for files of lines: leave one of them out")
    files = [file for name in names for file in _matching(name, option)]
    if tables:
        _check_tables(files, option)
    else:
        _refuse_documents(files, as_kind, option)
    if not files:
        raise ConfigError(f"{option}: is for files of lines: name one, or several")
    if output is None:
        raise ConfigError(f"{option}: name the output with -o: what is finished is kept beside it")
    if os.path.isdir(output):
        goals = [BulkInput([name], goal) for name, goal in zip(files, output_paths(files, output), strict=True) if goal]
    elif tables and len(files) > 1:
        raise ConfigError(f"{files[1]}: several tables are written into a folder: make one, and name it with -o")
    else:
        goals = [BulkInput(files, output)]
    for goal in goals:
        check_output_file(goal.output)
        if is_open_file(goal.output) or is_live(goal.output):
            raise ConfigError(f"{goal.output}: {option} writes into a file, since what is finished is kept beside it")
        if any(os.path.exists(name) and os.path.realpath(name) == os.path.realpath(goal.output) for name in goal.names):
            raise ConfigError(
                f"{goal.output}: is also the input, which is read again after a stop: name another output"
            )
    return goals


def _matching(name: str, option: str) -> list[str]:
    """Return the files that an argument names."""
    from dragoman.cli.live_input import is_pipe
    from dragoman.serve.bulk.remote import is_remote, matching_remote

    if is_remote(name):
        return matching_remote(name)
    if name == STDIN or is_pipe(name):
        raise ConfigError(
            f"{name}: {option} reads its input again after a stop, and this can be read only once: name a file"
        )
    if glob.has_magic(name) and not os.path.lexists(name):
        found = sorted(one for one in glob.glob(name, recursive=True) if not os.path.isdir(one))
        if not found:
            raise DataError(f"{name}: no file matches this pattern")
        return found
    if not is_file(name):
        raise ConfigError(f"{name[:60]!r}: no such file, and {option} is for files of lines")
    return [name]


def are_tables(names: Sequence[str], column: str | None, as_kind: str | None) -> bool:
    """Return True if all arguments name tables of which a column is translated into another."""
    from dragoman.text.compressed import extension

    return bool(names) and column is None and as_kind is None and all(extension(name) in TABLES for name in names)


def _check_tables(files: Sequence[str], option: str) -> None:
    from dragoman.serve.bulk.remote import is_remote

    for name in filter(is_remote, files):
        raise ConfigError(f"{name}: a table, and {option} reads tables of this machine: copy it here first")


def _refuse_documents(files: Sequence[str], as_kind: str | None, option: str) -> None:
    from dragoman.cli.lines import INSIST
    from dragoman.text.compressed import extension
    from dragoman.text.filled.opening import KINDS

    if as_kind not in (None, INSIST):
        raise ConfigError(f"--as {as_kind}: is for documents, and {option} for files of lines: leave one of them out")
    for name in files:
        if as_kind is None and extension(name) in KINDS:
            raise ConfigError(f"{name}: a document, and {option} is for files of lines: translate it without")


def translate_in_bulk(
    inputs: Sequence[BulkInput],
    settings: "LineSettings",
    layout: "OutputLayout",
    *,
    column: str | None,
    as_kind: str | None,
    safety: Path | None,
    workers: int | None,
    ray: str | None,
    restart: bool,
) -> None:
    """Translate the lines of each input into its output; notes and a summary go to standard error.

    Raises:
        typer.Exit: after Ctrl-C, with a hint how to go on.
        UserError: as ``run_bulk``; what is finished is kept.
    """
    from dragoman.config import to_dict
    from dragoman.serve.bulk.translation import TranslationWork, model_identity

    model = model_identity(settings.run, settings.checkpoint)
    settings = replace(settings, checkpoint=model["checkpoint"])  # of a run in training the best one may change
    work = TranslationWork(settings, layout, settings.lines_before(), str(safety.resolve()) if safety else None)
    jobs = [BulkJob(one.output, _reader(one.names, column, as_kind), model, restart) for one in inputs]
    _run(jobs, work, work.options() | to_dict(work.layout), workers, ray)


def translate_tables_in_bulk(
    inputs: Sequence[BulkInput],
    settings: "LineSettings",
    columns: tuple[str | None, str | None],
    *,
    workers: int | None,
    ray: str | None,
    restart: bool,
) -> None:
    """Translate the rows of each table that have no translation; see ``translate_in_bulk``.

    Args:
        columns: columns of source and target; None where common names tell.
    """
    from functools import partial

    from dragoman.serve.bulk.parquet_rows import ParquetTable
    from dragoman.serve.bulk.table_rows import read_table_rows
    from dragoman.serve.bulk.table_translation import TableWork
    from dragoman.serve.bulk.translation import model_identity
    from dragoman.text.compressed import extension

    model = model_identity(settings.run, settings.checkpoint)
    settings = replace(settings, checkpoint=model["checkpoint"])
    work = TableWork(settings, settings.lines_before())
    jobs = []
    for one in inputs:
        (name,) = one.names
        if extension(name) != extension(one.output):
            raise ConfigError(f"{one.output}: {name} is translated into a file of its own format: name it like that")
        if extension(name) == PARQUET:
            table = ParquetTable(name, *columns)
            jobs.append(BulkJob(one.output, table.rows, model, restart, table.assemble))
        else:
            jobs.append(BulkJob(one.output, partial(read_table_rows, name, *columns), model, restart))
    _run(jobs, work, work.options(), workers, ray)


class BulkJob(NamedTuple):
    """One output, and what it is made of."""

    output: Path
    read: "ReadLines"
    model: dict[str, Any]
    restart: bool
    assemble: "Assemble | None" = None


def _run(
    jobs: "Sequence[BulkJob]",
    work: "ShardWork",
    options: dict[str, Any],
    workers: int | None,
    ray: str | None,
) -> None:
    """Read all inputs, then work on one after the other.

    Raises:
        typer.Exit: after Ctrl-C, with a hint how to go on.
    """
    from dragoman.serve.bulk.job import check_input
    from dragoman.train.interrupt import as_ctrl_c

    try:
        with as_ctrl_c():
            with bulk_progress("reading") as counted:
                checked = [check_input(job.read, lambda lines: counted(lines, None)) for job in jobs]
            with _scheduler(work, workers, ray) as scheduler:
                for job, found in zip(jobs, checked, strict=True):
                    _translate(job, found, scheduler, work, options)
    except KeyboardInterrupt:
        again = shlex.join(arg for arg in ["dragoman", *sys.argv[1:]] if arg != "--restart")
        print(f"dragoman: stopped; what is finished is kept, go on with: {again}", file=sys.stderr)
        raise typer.Exit(STOPPED) from None


def _translate(
    job: BulkJob,
    checked: "CheckedInput",
    scheduler: "ShardScheduler",
    work: "ShardWork",
    options: dict[str, Any],
) -> None:
    from dragoman.serve.bulk.job import run_bulk

    with bulk_progress("translating") as progress:
        report = run_bulk(
            job.read,
            checked,
            scheduler,
            job.output,
            model=job.model,
            options=options,
            before=work.lines_before,
            restart=job.restart,
            assemble=job.assemble,
            progress=progress,
            remark=_note,
        )
    earlier = f", {report.resumed:,} of them by an earlier command" if report.resumed else ""
    lost = f"; workers that died and were replaced: {report.lost}" if report.lost else ""
    print(f"dragoman: {job.output}: {report.lines:,} lines{earlier}; {report.seconds:,.0f} s{lost}", file=sys.stderr)


def _note(text: str) -> None:
    sys.stderr.write(f"dragoman: {text}\n")  # in one write, which Ctrl-C does not divide


def _scheduler(work: "ShardWork", workers: int | None, ray: str | None) -> "ShardScheduler":
    if ray is not None:
        from dragoman.serve.bulk.on_ray import RayWorkers

        return RayWorkers(work, ray, workers)
    from dragoman.serve.bulk.local import LocalWorkers
    from dragoman.serve.bulk.worker_process import OF_COMMANDS

    return LocalWorkers(work, workers or 1, OF_COMMANDS)


def _reader(names: list[str], column: str | None, as_kind: str | None) -> "ReadLines":
    """Return what opens the files, here or at an address, from their first line on."""
    from dragoman.cli.lines import input_lines
    from dragoman.serve.bulk.remote import is_remote, read_remote_lines

    def read() -> Iterable[str]:
        if not any(map(is_remote, names)):
            return input_lines(names, column=column, as_kind=as_kind)
        if column is not None:
            raise ConfigError(f"{names[0]}: --column is for files of this machine: copy it here first")
        return chain.from_iterable(
            read_remote_lines(name) if is_remote(name) else input_lines([name], as_kind=as_kind) for name in names
        )

    return read


@contextmanager
def bulk_progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show lines done, rate and time left: as a bar on a terminal, else as a line now and then."""
    from dragoman.cli.terminal import console, progress_bar

    if console(errors=True).is_terminal:
        with progress_bar(what, None) as bar:
            yield lambda done, total: bar(done, total)  # pyright: ignore[reportArgumentType]
    else:
        yield _PlainProgress(what)


class _PlainProgress:
    """Progress as lines of a log."""

    def __init__(self, what: str):
        self.what, self.calls, self.due = what, 0, time.monotonic() + AT_FIRST

    def __call__(self, done: int, total: int | None) -> None:
        self.calls += 1
        if self.calls <= 2:  # before: work of an earlier command, and workers that start
            self.since, self.before = time.monotonic(), done
        if (now := time.monotonic()) < self.due or not self.before < done != total:
            return
        self.due = now + EVERY
        rate = (done - self.before) / (now - self.since)
        print(f"dragoman: {self.what}: {_progress(done, total, rate)}", file=sys.stderr, flush=True)


def _progress(done: int, total: int | None, rate: float) -> str:
    from dragoman.cli.terminal import duration

    if total is None:
        return f"{done:,} lines, {rate:,.0f}/s"
    return f"{done:,} of {total:,} lines, {rate:,.0f}/s, {duration((total - done) / rate)} left"
