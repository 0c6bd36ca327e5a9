"""dragoman explain: causal paths, curves of sensitivity, and a script that repeats them."""

from pathlib import Path
from typing import Annotated

import typer

from dragoman.cli.options import CheckpointOption, FromOption, RunArgument, ToOption
from dragoman.errors import DataError


def explain(
    run: RunArgument,
    sentences: Annotated[Path, typer.Argument(help="A text file with one sentence in each line.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write, which is made.", show_default=False)
    ],
    seed: Annotated[int, typer.Option(min=0, help="Seed of replaced tokens and of intervals.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Random replacements of each token.")] = 3,
    most: Annotated[int, typer.Option("--sentences", min=1, help="Most sentences read from the file.")] = 50,
    source_language: FromOption = None,
    target_language: ToOption = None,
    checkpoint: CheckpointOption = "best",
) -> None:
    """Explain the answers to many sentences: a page of causal paths, curves of sensitivity, a script to repeat them."""
    from dragoman.cli.terminal import progress_bar
    from dragoman.inspect.explain import explain as compute
    from dragoman.inspect.explain import write_explanation
    from dragoman.inspect.subject import Subject
    from dragoman.output_file import check_output_folder
    from dragoman.text.lines import read_lines

    check_output_folder(output)
    texts = [line for line in read_lines(sentences) if line.strip()][:most]
    if not texts:
        raise DataError(f"{sentences}: a sentence is read from each line, and the file has none")
    subject = Subject.open(run, checkpoint, source_language=source_language, target_language=target_language)
    with progress_bar("explaining", len(texts)) as progress:
        points, explained = compute(subject, texts, seed=seed, seeds=seeds, progress=progress)
    write_explanation(output, subject, texts, points, explained, seed=seed, seeds=seeds)
    typer.echo(f"{output}", err=True)
