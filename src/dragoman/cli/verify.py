"""dragoman verify: does a run give the same answer every way it can be asked?"""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.options import CheckpointOption, DeviceOption, RunArgument
from dragoman.cli.output import Format

if TYPE_CHECKING:
    from dragoman.decode.translator import Translator
    from dragoman.decode.verify import Check


def verify(
    run: RunArgument,
    text: Annotated[
        Path | None, typer.Option(help="A text file; default: the run's own test set, without one random tokens.")
    ] = None,
    sentences: Annotated[int, typer.Option(min=1, help="Taken from the text, at most.")] = 100,
    beam: Annotated[int, typer.Option(min=1, help="Hypotheses kept in beam search; 1 leaves it out.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Sentences translated at a time.")] = 32,
    compiled: Annotated[bool, typer.Option("--compiled", help="Compile the model, too; takes a minute.")] = False,
    format: Annotated[Format, typer.Option(help="text: a table; json: an object a line.")] = Format.text,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
) -> None:
    """Count how many answers are the same alone and in batches, padded, in another order, with every cache and kernel.

    Exit code 1 when one differs that must not. Caches that keep fewer bits are counted, not judged.
    """
    from dragoman.checkpoint import load_model, run_config
    from dragoman.cli.terminal import tracked
    from dragoman.decode.precision import on_device
    from dragoman.decode.translator import Translator
    from dragoman.decode.verify import Verifier, answered
    from dragoman.text.context import learnt

    model, source, target = load_model(run, checkpoint)
    context = learnt(run_config(run))
    # as it was trained: nothing is laid out anew
    translator = Translator(on_device(model, device), source, target, context=context)
    given, rows = _rows(translator, run, text, sentences)
    verifier = Verifier(translator.model, translator.target_tokenizer, rows, beam=beam, batch=batch, compiled=compiled)
    with tracked("verifying", len(verifier.questions())) as progress:
        checks = list(answered(verifier, progress))
    if format is Format.json:
        _print_json(checks)
    else:
        _print_table(checks)
        _print_failures(checks, given, translator)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


def _rows(
    translator: "Translator", run: Path, text: Path | None, sentences: int
) -> tuple[list[str] | None, list[list[int]]]:
    """The sentences, where there are any, and their ids."""
    from itertools import islice

    from dragoman.decode.verify import random_rows
    from dragoman.errors import DataError
    from dragoman.text.corpus import source_rows
    from dragoman.text.formats.lines import read_lines
    from dragoman.text.held_out import read_held_out

    own, most = run / "data" / "test.jsonl", translator.model.max_length
    if text is not None:
        lines = translator.document(islice(read_lines(text), sentences))
        pairs = [asked.pair for asked in lines if asked.text.strip()]
        if not pairs:
            raise DataError(f"{text}: no text in it")
    elif own.is_file():
        pairs = read_held_out(own)[:sentences]
    else:
        return None, random_rows(len(translator.source_tokenizer), sentences, most)
    rows = source_rows(translator.source_tokenizer, pairs, most)
    given = [pair.source for pair in pairs]
    fit = [(line, row) for line, row in zip(given, rows, strict=True) if most is None or len(row) <= most]
    return [line for line, _ in fit], [row for _, row in fit]


def _print_json(checks: "Sequence[Check]") -> None:
    from dataclasses import asdict

    for check in checks:
        print(json.dumps(asdict(check) | {"passed": check.passed}, ensure_ascii=False))


def _print_table(checks: "Sequence[Check]") -> None:
    from rich.table import Table

    from dragoman.cli.terminal import console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("asked", "compared", "the same", "difference", ""):
        table.add_column(heading, justify="right" if heading in ("the same", "difference") else "left")
    for check in checks:
        counts = "" if check.skipped else f"{check.same:,} of {check.of:,}"
        difference = "" if check.skipped else f"{check.difference:.1e}"
        table.add_row(check.name, check.searched, counts, difference, _verdict(check))
    console().print(table)


def _verdict(check: "Check") -> str:
    if check.skipped:
        return f"[dim]left out: {check.skipped}[/dim]"
    if not check.exact:
        return "[dim]rounds: not judged[/dim]"
    return "" if check.passed else "[bold red]differs[/bold red]"


def _print_failures(checks: "Sequence[Check]", given: list[str] | None, translator: "Translator") -> None:
    from dragoman.cli.terminal import console

    def shown(ids: tuple[int, ...]) -> str:
        with suppress(Exception):  # whatever is wrong with the model, its ids can be shown
            return repr(translator.target_tokenizer.decode(list(ids[:-1])))
        return str(list(ids))

    failed = [check for check in checks if not check.passed]
    for check in failed:
        assert check.failure is not None
        row, wanted, got = check.failure.row, shown(check.failure.wanted), shown(check.failure.got)
        source = f" ({given[row - 1]!r})" if given else ""
        apart = check.failure.difference
        said = f"the reference says {wanted}, this says {got}" if apart is None else f"{wanted}: {apart:.1e} apart"
        console(errors=True).print(f"{check.name}, {check.searched}: sentence {row}{source}: {said}", markup=False)
    judged = [check for check in checks if check.exact]
    console().print(f"\n{len(judged) - len(failed)} of {len(judged)} hold.")
