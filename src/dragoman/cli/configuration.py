"""dragoman config: show configurations without running anything."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from dragoman.errors import ConfigError

app = typer.Typer(help="Show and compare configurations.", no_args_is_help=True)

ABSENT = object()
"""Value of a setting that one of two configurations does not have."""
ConfigArgument = Annotated[
    str, typer.Argument(help="A run file (YAML), the directory of a run, or the name of a preset.")
]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[PATH=VALUE]...", help="Changes, such as model.dim=384.")
]


@app.command()
def show(source: ConfigArgument, settings: OverridesArgument = None) -> None:
    """Show the whole configuration, every default written out, as YAML."""
    from dragoman.config import dump_yaml

    sys.stdout.write(dump_yaml(_plain(source, settings or [])))


@app.command()
def schema() -> None:
    """Print a JSON schema of run files, for editors that complete and check as you type."""
    from dragoman.cli.run_file_schema import run_file_schema

    print(json.dumps(run_file_schema(), indent=1))


@app.command()
def diff(one: ConfigArgument, other: Annotated[str, typer.Argument(help="The configuration to compare with.")]) -> None:
    """List the settings in which two configurations differ, one a line; exit code 1 if there are any."""
    from rich.markup import escape
    from rich.table import Table

    from dragoman.cli.terminal import console
    from dragoman.config import differences

    rows = differences(_plain(one, []), _plain(other, []), absent=ABSENT)
    if not rows:
        print("no differences")
        return
    cells = [("setting", one, other), *((path, _shown(a), _shown(b)) for path, a, b in rows)]
    if console().is_terminal:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in cells[0]:
            table.add_column(escape(heading), overflow="fold")
        for row in cells[1:]:
            table.add_row(*map(escape, row))
        console().print(table)
    else:
        for row in cells:
            print("\t".join(row))
    raise typer.Exit(1)


def _shown(value: object) -> str:
    """Return a value as a run file has it, on one line."""
    if value is ABSENT:
        return "absent"
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value, ensure_ascii=False)


@app.command()
def presets() -> None:
    """List the presets, one a line."""
    from rich.table import Table

    from dragoman.cli.terminal import console
    from dragoman.presets import PRESETS

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, preset in PRESETS.items():
        table.add_row(f"[bold]{name}[/bold]", " ".join((preset.__doc__ or "").split()))
    console().print(table)


def _plain(source: str, settings: list[str]) -> object:
    from dragoman.checkpoint import RunDirectory
    from dragoman.config import from_dict, override, to_dict, unknown
    from dragoman.train import recipe

    if source in _preset_names() and not Path(source).exists():
        unknown = {"data": {"train": []}}
        return to_dict(recipe.load({"preset": source} | unknown, settings))
    if Path(source).is_dir():
        plain = RunDirectory.open(source).config
        for setting in settings:
            plain = override(plain, setting)
        return to_dict(from_dict(recipe.RunConfig, plain, where=source))
    if not Path(source).suffix and not Path(source).exists():  # written like the name of a preset
        raise ConfigError(unknown(f"{source}: neither a file nor a run; preset", source, _preset_names()))
    return to_dict(recipe.load(source, settings))


def _preset_names() -> list[str]:
    from dragoman.presets import PRESETS

    return list(PRESETS)
