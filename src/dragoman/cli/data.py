"""dragoman data: summarise parallel text, clean it, split it, remove duplicates, mix it."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dragoman.cli import sources
from dragoman.cli.options import writable_file, writable_folder
from dragoman.cli.output import OutputFormat
from dragoman.errors import ConfigError, DataError
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.text.lines import Pair

T = TypeVar("T")

app = typer.Typer(help="Summarise, clean, deduplicate, split and mix parallel text.", no_args_is_help=True)

SourceArgument = Annotated[str, typer.Argument(help=sources.HELP)]
Columns = sources.ColumnsOption
CleaningOption = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH=VALUE]...",
        help="Settings: for clean such as max_ratio=3, for dedupe near=0.8, for split test=2000.",
    ),
]
OutputPathOption = Annotated[
    str, typer.Option("--output", "-o", help="A .tsv or .jsonl file, plain, .gz or .zst, or SOURCE,TARGET.")
]
Workers = Annotated[int, typer.Option(min=0, help="Number of processes; 0: one for each core. The result is the same.")]
ReportOption = Annotated[
    Path | None, typer.Option(help="Where to write the report as JSON too.", callback=writable_file)
]


@app.command()
def stats(
    source: SourceArgument,
    columns: Columns = None,
    format: Annotated[OutputFormat, typer.Option(help="text: tables; json: all figures.")] = OutputFormat.text,
) -> None:
    """Summarise a text: lengths, ratios, duplicates, copies, characters and scripts."""
    from dragoman.cli import data_tables
    from dragoman.cli.terminal import progress_bar
    from dragoman.text.cleaning.summary import summarise

    with progress_bar("reading", None) as progress:
        summary = summarise(sources.with_progress(sources.read_named_pairs(source, columns), progress))
    if format is OutputFormat.json:
        print(json_text(data_tables.record(summary), indent=1))
    else:
        data_tables.show_summary(summary)


@app.command()
def clean(
    source: SourceArgument,
    output: OutputPathOption,
    settings: CleaningOption = None,
    columns: Columns = None,
    report: ReportOption = None,
    workers: Workers = 1,
) -> None:
    """Remove pairs that harm a translator, and report what each rule removed, with examples.

    Settings are those of data.cleaning in run files, such as max_ratio=3 numbers=drop target_scripts=[latin]. With
    source_language=en, the slowest rule, use --workers.
    """
    from dragoman.cli import data_tables
    from dragoman.text.cleaning.clean import Cleaning, CleanReport, clean
    from dragoman.text.cleaning.workers import available_cores

    cleaned = CleanReport()
    cfg = _configured(Cleaning, settings)
    _transform(
        (source, columns),
        output,
        lambda pairs: clean(pairs, cfg, cleaned, workers=workers or available_cores()),
        cleaned,
    )
    data_tables.show_removed(cleaned, cleaned.removed, {r: [(p,) for p in e] for r, e in cleaned.examples.items()})
    _write_report(report, cleaned)


@app.command()
def dedupe(
    source: SourceArgument,
    output: OutputPathOption,
    settings: CleaningOption = None,
    columns: Columns = None,
    report: ReportOption = None,
    workers: Workers = 1,
) -> None:
    """Keep the first of pairs that are equal or nearly equal.

    Settings: near=0.8 (similarity of letters, 0.3 to 1, or null for exact duplicates only), by=pair, source or target.
    """
    from dragoman.cli import data_tables
    from dragoman.text.cleaning.dedupe import Deduplication, DuplicateReport, dedupe
    from dragoman.text.cleaning.workers import available_cores

    found = DuplicateReport()
    cfg = _configured(Deduplication, settings)
    _transform(
        (source, columns), output, lambda pairs: dedupe(pairs, cfg, found, workers=workers or available_cores()), found
    )
    data_tables.show_removed(found, found.removed, found.examples)
    _write_report(report, found)


@app.command()
def split(
    source: SourceArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A new folder for train, valid, test and hard.", callback=writable_folder),
    ],
    settings: CleaningOption = None,
    columns: Columns = None,
    ending: Annotated[str, typer.Option(help=".tsv or .jsonl, or that and .gz or .zst.")] = ".tsv",
    report: ReportOption = None,
) -> None:
    """Hold out test and validation pairs, and keep similar pairs out of training. Holds the text in memory.

    Settings are those of data.hold_out in run files: test=1000 valid=500 hard=0 near=0.8 seed=1.
    """
    from dragoman import durable
    from dragoman.cli import data_tables
    from dragoman.cli.terminal import progress_bar
    from dragoman.text.cleaning.split import HoldOut, hold_out
    from dragoman.text.formats.writing import check_output, write_pairs

    cfg = _configured(HoldOut, settings)
    check_output(f"train{ending}")
    if output.exists():
        raise ConfigError(f"{output}: exists: name a folder that does not, or remove it first")
    with progress_bar("reading", None) as progress:
        pairs = list(sources.with_progress(sources.read_named_pairs(source, columns), progress))
    parts = hold_out(pairs, cfg)
    sizes = {}
    with durable.folder(output) as folder:
        for name, part in (("train", parts.train), ("valid", parts.valid), ("test", parts.test), ("hard", parts.hard)):
            if part:  # a file without pairs would be refused when read
                sizes[name] = write_pairs(part, folder / f"{name}{ending}")
    data_tables.show_split(len(pairs), sizes, parts.removed)
    _write_report(report, {"read": len(pairs), "pairs": sizes, "removed": parts.removed})


@app.command()
def mix(
    given: Annotated[list[str], typer.Argument(metavar="SOURCE...", help=f"Two or more. {sources.HELP}")],
    output: OutputPathOption,
    columns: Columns = None,
    weights: Annotated[
        str | None, typer.Option(help="One for each source, as in 1,2,0.5; default: 1 for each.")
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            help="At least 1; fractions go by weight times size^(1/temperature): higher favours small sources."
        ),
    ] = 1.0,
    pairs: Annotated[int | None, typer.Option(help="Pairs in the mixture; default: as many as there are.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw and the order.")] = 1,
    report: ReportOption = None,
) -> None:
    """Mix several sources by weight and temperature, reproducibly from the seed."""
    from dragoman.cli import data_tables
    from dragoman.cli.terminal import progress_bar
    from dragoman.config import from_dict
    from dragoman.text.formats.writing import check_output, write_pairs
    from dragoman.text.mix import Mixing, mix, pairs_per_source

    settings = {"weights": _numbers(weights), "temperature": temperature, "pairs": pairs, "seed": seed}
    cfg = from_dict(Mixing, settings, where="mixing")
    check_output(output)
    pairs_per_source([1] * len(given), cfg)  # refuses unusable weights before reading anything
    with progress_bar("counting", None) as progress:
        sizes = [
            sum(1 for _ in sources.with_progress(sources.read_named_pairs(source, columns), progress))
            for source in given
        ]
    taken = pairs_per_source(sizes, cfg)
    with progress_bar("mixing", sum(taken)) as progress:
        mixed = (
            pair
            for _, pair in mix(
                [partial(sources.read_named_pairs, source, columns, report=False) for source in given], sizes, cfg
            )
        )
        write_pairs(sources.with_progress(mixed, progress), output)
    data_tables.show_mixture(given, sizes, taken)
    rows = [{"source": s, "pairs": n, "taken": k} for s, n, k in zip(given, sizes, taken, strict=True)]
    _write_report(report, {"sources": rows, "pairs": sum(taken), "seed": seed})


# ---- shared by the commands -----------------------------------------------------------------------


def _configured(kind: type[T], settings: list[str] | None) -> T:
    from dragoman.config import from_dict, kind_of, override, to_dict

    plain = to_dict(kind())
    for setting in settings or []:
        plain = override(plain, setting)
    return from_dict(kind, plain, where=kind_of(kind))


def _transform(
    given: tuple[str, str | None], output: str, change: "Callable[[Iterator[Pair]], Iterable[Pair]]", report: object
) -> None:
    """Read the pairs, ``change`` and write them. ``report``, which ``change`` fills, explains an empty result."""
    from dragoman.cli.terminal import progress_bar
    from dragoman.text.formats.writing import check_output, write_pairs

    def require_pairs(pairs: "Iterable[Pair]") -> "Iterator[Pair]":
        any_left = False
        for pair in pairs:
            any_left = True
            yield pair
        if not any_left:
            raise DataError(f"{given[0]}: nothing is left ({report}): relax the rules, or check the text")

    check_output(output)
    with progress_bar("reading", None) as progress:
        write_pairs(require_pairs(change(sources.with_progress(sources.read_named_pairs(*given), progress))), output)


def _numbers(text: str | None) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise ConfigError(f"--weights {text}: expected numbers separated by commas, as in 1,2,0.5") from None


def _write_report(path: Path | None, report: Any) -> None:
    import dataclasses

    from dragoman.text.compressed import create_file

    if path is not None:
        plain = dataclasses.asdict(report) if dataclasses.is_dataclass(report) else report  # pyright: ignore
        with create_file(path) as file:
            file.write((json_text(plain, indent=1) + "\n").encode())
