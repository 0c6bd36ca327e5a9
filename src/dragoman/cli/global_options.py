"""Options that every command has, before or after its name, and the formatting of all help."""

import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from dragoman.cli import messages

PANEL = "Everywhere"


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from dragoman import __version__

        print(f"dragoman {__version__}, torch {version('torch')}, Python {platform.python_version()}")
        raise typer.Exit


def _quiet(wanted: bool) -> None:
    messages.current.quiet |= wanted


def _log(path: Path | None) -> None:
    if path is not None:
        messages.current.keep(path)


def _every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the versions of dragoman, torch and Python.",
            callback=_version,
            is_eager=True,
            rich_help_panel=PANEL,
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            help="Show no progress and no notes, on standard error or while training; errors are shown.",
            callback=_quiet,
            is_eager=True,
            rich_help_panel=PANEL,
        ),
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            metavar="FILE",
            help="Append all messages to this file, as plain text with times.",
            callback=_log,
            is_eager=True,
            rich_help_panel=PANEL,
        ),
    ] = None,
) -> None:
    """Declare the options; their callbacks do the work."""


def complete(app: typer.Typer) -> Any:
    """Return the command of ``app`` and its subcommands with these options, and with help that shows square
    brackets."""
    root = typer.main.get_command(app)
    everywhere, at_root = _options(hidden=True), _options(hidden=False)
    for param in (*everywhere, *at_root):
        _show(param)
    for command in every_command(root):
        command.help = _shown(command.help)
        command.get_help_option = _without_type(command.get_help_option)
        for param in command.params:
            _show(param)
        command.params += at_root if command is root else everywhere
        if command.callback and not getattr(command, "commands", None):
            command.callback = messages.routed(command.callback)
    return root


OPTIONAL_VALUES = {"--redo": ("fuzzy", "all")}
"""Values of options that may be given without one, which is then the last of these."""


def with_optional_values(arguments: list[str]) -> list[str]:
    """Return the arguments with the value of each such option written out: ``--redo a.po`` as ``--redo=all a.po``."""
    written: list[str] = []
    for number, argument in enumerate(arguments):
        if argument == "--":
            return written + arguments[number:]
        values = OPTIONAL_VALUES.get(argument)
        alone = values and arguments[number + 1 : number + 2] not in [[value] for value in values]
        written.append(f"{argument}={values[-1]}" if values and alone else argument)
    return written


def every_command(command: Any) -> Iterator[Any]:
    """Yield a command and all subcommands."""
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from every_command(below)


def _options(*, hidden: bool) -> list[Any]:
    holder = typer.Typer(add_completion=False, rich_markup_mode="rich")
    holder.command()(_every_command)
    found = [param for param in typer.main.get_command(holder).params if param.name in ("version", "quiet", "log")]
    for param in found:
        param.expose_value = False  # handled by callbacks, not passed to commands
        if param.name == "version":
            param.hidden = hidden  # pyright: ignore[reportAttributeAccessIssue]
    return found


def _without_type(help_option: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def patched(context: Any) -> Any:
        option = help_option(context)
        if option is not None:
            option.metavar = ""
        return option

    return patched


def _show(param: Any) -> None:
    param.help = _shown(getattr(param, "help", None))
    if getattr(param, "is_flag", False) and param.metavar is None:
        param.metavar = ""  # a flag has no value


def _shown(help: str | None) -> str | None:
    """Escape square brackets, which rich would read as markup."""
    return None if help is None else escape(help)
