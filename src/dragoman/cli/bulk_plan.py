"""Plan of a bulk job of `dragoman translate`: lines or rows of tables, by its arguments and options."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dragoman.cli.bulk import PARQUET, BulkInput, are_tables, bulk_inputs, translate_in_bulk, translate_tables_in_bulk
from dragoman.config import CONFIG
from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.cli.output import OutputLayout
    from dragoman.decode.documents.line_translation import LineSettings


EARLY_BYTES = 16_000
"""Bytes of input from which the workers' template begins early: some 500 lines of a few words."""


class BulkRequest(NamedTuple):
    """Arguments and options that decide it."""

    run: Path
    texts: Sequence[str]
    output: Path | None
    column: str | None
    as_kind: str | None
    workers: int | None
    ray: str | None
    restart: bool
    redo: bool
    safety: Path | None
    lines_only: bool
    """An option was given that is for lines."""
    never_in_bulk: bool
    """An option was given that no bulk job takes."""


class BulkPlan(NamedTuple):
    """Inputs of a bulk job, and who works."""

    inputs: list[BulkInput]
    tables: bool
    """True if rows of tables are translated."""
    workers: int | None

    def run(
        self,
        request: BulkRequest,
        settings: "LineSettings",
        layout: "OutputLayout",
        columns: tuple[str | None, str | None],
    ) -> None:
        """Translate the inputs.

        Args:
            columns: columns of source and target in tables; None where common names tell.

        Raises:
            UserError, typer.Exit: as ``translate_in_bulk``.
        """
        who = {"workers": self.workers, "ray": request.ray, "restart": request.restart}
        if self.tables:
            translate_tables_in_bulk(self.inputs, settings, columns, **who)
            return
        reading = {"column": request.column, "as_kind": request.as_kind, "safety": request.safety}
        translate_in_bulk(self.inputs, settings, layout, **reading, **who)


def plan_bulk(request: BulkRequest) -> BulkPlan | None:
    """Return the plan of a bulk job; None without --workers or --ray. Parquet files are always translated in bulk.

    The template of a plan's workers begins at once where there will be work, since its start takes as long as that of
    this process.

    Raises:
        ConfigError, DataError: as ``bulk_inputs``; or options that do not fit one another.
    """
    workers, option = request.workers, "--ray" if request.ray else "--workers"
    if request.restart and not (workers or request.ray):
        raise ConfigError("--restart: is for --workers and --ray: leave it out")
    tables = are_tables(request.texts, request.column, request.as_kind)
    if tables and not (workers or request.ray) and all(name.lower().endswith(PARQUET) for name in request.texts):
        workers, option = 1, "translation of Parquet"
    if not (workers or request.ray):
        return None
    as_kind = request.as_kind if request.column is None else "text"
    inputs = bulk_inputs(request.texts, request.output, as_kind, redo=request.redo, tables=tables, option=option)
    if tables and (request.lines_only or request.safety):
        raise ConfigError(
            f"{inputs[0].names[0]}: a table: --nbest, --scores, --alignments, --flag-below, --prefix-column, --safety "
            "and --format are for lines of text; read one of its columns as lines with --column"
        )
    if request.never_in_bulk:
        raise ConfigError(f"{option}: cannot be used with --memory, --knn, --dry-run and --report")
    if not request.ray and _will_have_work(request.run, inputs):
        from dragoman.serve.bulk import worker_process

        if worker_process.OF_COMMANDS == "forkserver":
            worker_process.start_template()
    return BulkPlan(inputs, tables, workers)


def _will_have_work(run: Path, inputs: Sequence[BulkInput]) -> bool:
    """Return False for a run that is not there, inputs elsewhere or nearly empty, and an output that is there."""
    try:
        size = sum(os.path.getsize(name) for one in inputs for name in one.names)
    except OSError:
        return False
    return size >= EARLY_BYTES and (run / CONFIG).is_file() and not any(one.output.exists() for one in inputs)


def stop_template() -> None:
    """Stop the template of a plan that has failed, or is done."""
    if worker_process := sys.modules.get("dragoman.serve.bulk.worker_process"):
        worker_process.stop_template()
