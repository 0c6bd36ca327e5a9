"""Roles of attention heads: what ``dragoman patch --heads`` shows."""

from pathlib import Path
from typing import TYPE_CHECKING

from dragoman.cli.output import OutputFormat
from dragoman.errors import ConfigError, DataError
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.inspect.head_roles import HeadReport
    from dragoman.inspect.subject import Subject

TEXTS = 50
"""Most lines that are read where ``--texts`` gives no number."""


def show_head_roles(
    subject: "Subject",
    file: str,
    targets: str | None,
    parses: Path | None,
    *,
    tolerance: float | None,
    texts: int | None,
    output: Path | None,
    format: OutputFormat,
) -> None:
    """Print the role of each head on the lines of a file, and the heads that can be cut.

    Args:
        tolerance: largest rise of the loss by a cut, in nats per token; None for ``TOLERANCE``.
        texts: largest number of lines with text; None for ``TEXTS``.

    Raises:
        ConfigError, DataError: as ``inspect.head_roles``, or unlike numbers of lines.
    """
    from dragoman.cli.lines import input_lines
    from dragoman.cli.terminal import progress_bar
    from dragoman.inspect.head_roles import TOLERANCE, head_roles
    from dragoman.inspect.parses import read_parses
    from dragoman.output_file import open_output

    most = texts or TEXTS
    lines = [line for line in input_lines([file]) if line.strip()][:most]
    wanted = None if targets is None else [line for line in input_lines([targets]) if line.strip()][:most]
    if wanted is not None and len(wanted) != len(lines):
        raise DataError(f"{file} has {len(lines)} lines with text, and --answer {len(wanted)}: they belong together")
    if wanted is not None and subject.kind != "translator":
        raise ConfigError("--answer: with --heads it is for translators: leave it out")
    parsed = [] if parses is None else read_parses(str(parses))
    with progress_bar("ablating", None) as progress:
        most_lost = TOLERANCE if tolerance is None else tolerance
        found = head_roles(subject, lines, wanted, parsed, tolerance=most_lost, progress=progress)
    plain = json_text(found.plain())
    if output is not None:
        with open_output(output) as to:
            to.write((plain + "\n").encode())
    if format is OutputFormat.json:
        print(plain)
    else:
        _print(found)


def _print(found: "HeadReport") -> None:
    from rich.table import Table

    from dragoman.cli.terminal import console

    print(f"loss of {found.texts} texts: {found.loss:.3f} nats per token")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for i, heading in enumerate(("head", "role", "score", "equal", "loss", "95%")):
        table.add_column(heading, justify="right" if i in (2, 3, 4) else "left", no_wrap=True)
    for head in found.heads:
        score = ("", "")
        if head.role != "none":
            score = f"{head.scores[head.role]:.2f}", f"{head.equal_weights[head.role]:.2f}"
        interval = f"{head.low:+.3f} to {head.high:+.3f}"
        table.add_row(head.name, head.role, *score, f"{head.effect:+.3f}", interval)
    console().print(table, markup=False)
    print("score: mean weight where the role says; equal: of equal weights; loss: its rise without the head")
    if found.removable:
        print(
            f"{len(found.removable)} of {len(found.heads)} heads can be cut together: the loss rises by "
            f"{found.rise:+.3f} (at most {found.rise_high:+.3f}): {' '.join(found.removable)}"
        )
    else:
        print(f"no head can be cut without a loss that may rise by more than {found.tolerance:g}")
