"""dragoman plan RUN --reconcile: predicted, measured, ratio."""

from pathlib import Path
from typing import TYPE_CHECKING

from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.plan.reconcile import Reconciled

NEAR = {"bytes": 0.10, "seconds": 0.20, "tokens": 0.20, "steps": 0.20}
"""Distance from a ratio of 1 within which a prediction has held."""


def show_reconciliation(run: Path, *, as_json: bool = False) -> None:
    """Print what was predicted for a run and what was measured.

    Raises:
        CheckpointError: no run there, or nothing to compare.
    """
    from dragoman.checkpoint import RunDirectory
    from dragoman.cli.terminal import console
    from dragoman.plan.reconcile import PREDICTION, reconcile

    directory = RunDirectory.open(run)
    rows = reconcile(directory.path)
    if as_json:
        plain = [
            {name: getattr(row, name) for name in ("name", "unit", "predicted", "measured", "ratio")} for row in rows
        ]
        print(json_text(plain, indent=1))
        return
    _table(rows)
    if not (directory.path / PREDICTION).exists():
        console().print(
            "Nothing was predicted before its first step: `dragoman train` does so for the runs that it starts.",
            style="dim",
            soft_wrap=True,
        )


def _table(rows: "list[Reconciled]") -> None:
    from rich.table import Table

    from dragoman.cli.terminal import console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("", "predicted", "measured", "ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        far = row.ratio is not None and abs(row.ratio - 1) > NEAR[row.unit]
        table.add_row(
            row.name,
            _figure(row.predicted, row.unit),
            _figure(row.measured, row.unit),
            f"[yellow]{ratio}[/yellow]" if far else ratio,
        )
    console().print(table)


def _figure(value: float | None, unit: str) -> str:
    from dragoman.plan.measured import size

    if value is None:
        return "-"
    if unit == "bytes":
        return size(value)
    if unit == "seconds":
        return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"
    return f"{value:,.0f}"
