"""Table of two runs that are compared on the same examples, as ``dragoman evaluate --against`` prints it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dragoman.evaluate.metrics import Comparison


def show_comparison(
    run: Path,
    other: Path,
    differences: "Sequence[Comparison]",
    *,
    number: str | None = None,
    difference: str | None = None,
    emphasis: str = "",
) -> None:
    """Print the paired comparison of two runs.

    Args:
        run: run A.
        other: run B.
        differences: what was compared.
        number: format of scores, such as ``.4g``; None for the decimals of each metric.
        difference: format of their differences, likewise.
        emphasis: style of the differences on a terminal.
    """
    from rich.table import Table
    from rich.text import Text

    from dragoman.cli.terminal import console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("metric")
    for heading in ("A", "B", "B - A", "95% interval", "p"):
        table.add_column(heading, justify="right")
    for found in differences:
        of_score, of_difference = number or f".{found.digits}f", difference or f"+.{found.digits}f"
        low, high = (format(bound, of_difference) for bound in found.interval)
        a, b = (format(score, of_score) for score in (found.a, found.b))
        change = Text(format(found.b - found.a, of_difference), style=emphasis)
        table.add_row(Text(found.name), a, b, change, f"{low} to {high}", f"{found.p:.3f}")
    console().print()
    for letter, path in (("A", run), ("B", other)):
        console().print(f"{letter}: {path}", soft_wrap=True, markup=False)
    console().print(table)
