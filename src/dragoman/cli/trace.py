"""dragoman trace: from sentences that a translator gets wrong to the training text that they need."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.options import CheckpointOption, DeviceOption, OutputOption, OwnRunArgument, refuse_options
from dragoman.cli.output import OutputFormat
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.inspect.failures import FailureReport, NearPair, TracedFailure

WIDTH = 100
"""Characters of a training text that are shown."""


def trace(
    run: OwnRunArgument,
    failures: Annotated[
        str,
        typer.Argument(metavar="FAILURES", help="Sentences that fail with their references: .tsv, .csv or .jsonl."),
    ],
    pool: Annotated[
        str | None,
        typer.Option(metavar="PAIRS", help="Pairs that may be added to training: proposals are chosen from them."),
    ] = None,
    output: OutputOption = None,
    nearest: Annotated[int, typer.Option(min=1, help="Training pairs that are shown for each failure.")] = 3,
    encode: Annotated[
        int, typer.Option(min=0, help="Largest number of training sources compared by the encoder; 0 for none.")
    ] = 20_000,
    propose: Annotated[
        int | None, typer.Option(min=1, help="With --pool: largest number of proposals; default: 100.")
    ] = None,
    hard_set: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The hard set to add to; default: data/hard.jsonl in the run."),
    ] = None,
    grow: Annotated[bool, typer.Option("--grow/--no-grow", help="Add the failures to the hard set.")] = True,
    format: Annotated[OutputFormat, typer.Option(help="text: a summary; json: one object.")] = OutputFormat.text,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
) -> None:
    """For each failing sentence show the nearest training pairs, by n-grams and by the model's own encoder, and the
    words that training hardly had.

    The failures join the run's hard set, which only grows; evaluate later runs on it with `dragoman evaluate`. With
    --pool, pairs that have the missing words are proposed, and written to -o (.tsv, .jsonl, or two text files as in
    add.en,add.de); none is like a failure.
    """
    from dragoman.capabilities import TRANSLATES, check
    from dragoman.checkpoint import RunDirectory
    from dragoman.cli.terminal import progress_bar
    from dragoman.evaluate.given import pairs_for
    from dragoman.inspect.failures import PROPOSALS, grow_hard_set, trace_failures
    from dragoman.inspect.subject import Subject
    from dragoman.text.formats.writing import check_output, write_pairs
    from dragoman.text.held_out import read_held_out
    from dragoman.text.lines import Pair, on_one_line

    if pool is None:
        of_proposals = {"--output": output, "--propose": propose}
        refuse_options(of_proposals, "is for proposals: name pairs with --pool, or leave this out")
    if output is not None:
        check_output(output)
    folder = RunDirectory.open(run).path
    subject = Subject.open(folder, checkpoint, device=device)
    check(run, subject.model, TRANSLATES)
    path = hard_set or folder / "data" / "hard.jsonl"
    there = read_held_out(path) if path.exists() else []
    given = pairs_for(folder, failures)
    more = pairs_for(folder, pool) if pool else []
    options = {"pool": more, "held_out": there, "nearest": nearest, "encode": encode, "propose": propose or PROPOSALS}
    with progress_bar("encoding", None) as progress:
        found = trace_failures(subject, given, progress=progress, **options)
    new, now = grow_hard_set(path, found.for_hard_set) if grow else (0, len(there))
    if output is not None:
        write_pairs((Pair(on_one_line(pair.source), on_one_line(pair.target)) for pair in found.proposals), output)
    if format is OutputFormat.json:
        print(json_text(found.plain() | {"hard_set": str(path), "new": new, "hard": now}))
        return
    _print(found, pool)
    if grow:
        print(f"{path}: {new} new, {now} in all. Evaluate later runs on it: dragoman evaluate RUN {path}")


def _print(found: "FailureReport", pool: str | None) -> None:
    for failure in found.failures:
        print(f"{failure.source}\n  reference: {failure.target}")
        for line in _about(failure):
            print(f"  {line}")
        print()
    trained = sum(failure.trained for failure in found.failures)
    if trained:
        print(f"{trained} of {len(found.failures)} are in the training text: these are not added to the hard set")
    if found.missing:
        shown = ", ".join(f"{word} ({count})" for word, count in list(found.missing.items())[:20])
        print(f"words to add pairs for (failures that have them): {shown}")
    if pool is not None:
        print(f"{pool}: {len(found.proposals)} pairs proposed")


def _about(failure: "TracedFailure") -> list[str]:
    lines = []
    for side, words in (("source", failure.rare_source), ("reference", failure.rare_target)):
        if words:
            told = ", ".join(f"{word} ({'never' if count == 0 else count})" for word, count in words.items())
            lines.append(f"rare in training, {side}: {told}")
    if failure.trained:
        lines.append("training has this very source")
    for name, pairs in (("n-grams", failure.by_ngrams), ("encoder", failure.by_encoder)):
        lines += [f"near by {name} {_shown(pair)}" for pair in pairs]
    return lines


def _shown(pair: "NearPair") -> str:
    return f"{pair.nearness:.2f}: {_short(pair.source)} -> {_short(pair.target)}"


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else text[:WIDTH] + "..."
