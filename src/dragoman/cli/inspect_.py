"""dragoman inspect: one page about one answer of a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.options import CheckpointOption, FromOption, RunArgument, ToOption
from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.inspect.subject import Subject

SUFFIXES = (".html", ".json", ".svg", ".png")


def inspect(
    run: RunArgument,
    text: Annotated[
        str | None, typer.Argument(help="What the model reads: a text, or the path of an image.", show_default=False)
    ] = None,
    second: Annotated[
        str | None, typer.Argument(help="Of two towers, what the second one reads.", show_default=False)
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write: .html, .json, .svg or .png.")
    ] = Path("page.html"),
    target: Annotated[
        str | None, typer.Option(help="A translation to look at; default: the model's own.", show_default=False)
    ] = None,
    layers: Annotated[str, typer.Option(help="Layers, such as 0,2 or 4-7; default: all.", show_default=False)] = "",
    heads: Annotated[str, typer.Option(help="Heads, such as 0,2 or 4-7; default: all.", show_default=False)] = "",
    beam: Annotated[
        int | None,
        typer.Option(min=1, help="Hypotheses of the search; default: as translate has.", show_default=False),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Points on the path of integrated gradients.")] = 32,
    attribution: Annotated[
        bool, typer.Option("--attribution/--no-attribution", help="Run the model again without each input.")
    ] = True,
    places: Annotated[bool, typer.Option("--places", help="Only list what can be looked at, with shapes.")] = False,
    source_language: FromOption = None,
    target_language: ToOption = None,
    checkpoint: CheckpointOption = "best",
) -> None:
    """Show what a model looked at, how sure it was and what its answer depends on, on one page that opens offline."""
    from dragoman.inspect.subject import Subject

    if output.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{output}: a page is written as .html, .json, .svg or .png: choose one of these endings")
    subject = Subject.open(run, checkpoint, source_language=source_language, target_language=target_language)
    if places:
        _print_places(subject)
        return
    if text is None:
        raise ConfigError("text: give a text to look at, or --places for what can be looked at")
    from dragoman.inspect.page.collect import PageChoice, collect
    from dragoman.inspect.page.write import write_page

    choice = PageChoice(numbers(layers, "layers"), numbers(heads, "heads"), beam, steps, attribution)
    write_page(output, collect(subject, text if second is None else (text, second), target, choice))
    typer.echo(f"{output}", err=True)


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Return the numbers of a list such as 0,2 or 4-7; none of an empty text.

    Raises:
        ConfigError: something else, a list without numbers, or a range that ends before it begins.
    """
    found: list[int] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f"--{option}: {part!r} is no number: give numbers such as 0,2 or 4-7")
        if int(last or first) < int(first):
            raise ConfigError(f"--{option}: {part!r} ends before it begins: write {last}-{first}")
        found += range(int(first), int(last or first) + 1)
    if text and not found:
        raise ConfigError(f"--{option}: {text!r} names none: give numbers such as 0,2 or 4-7")
    return tuple(found)


def _print_places(subject: "Subject") -> None:
    from dragoman.inspect.places import places

    known = places(subject.model)
    widest, shapes = max(map(len, known)), max(len(place.shape) for place in known.values())
    for place in known.values():
        print(f"{place.name:<{widest}}  {place.shape:<{shapes}}  {place.about}")
