"""dragoman augment: further training pairs, translated by a run from monolingual text."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from dragoman.cli.options import CheckpointOption, DeviceOption, FromOption, PrecisionOption, ToOption
from dragoman.cli.searching import (
    RuleOption,
    SampleOption,
    SearchOption,
    SeedOption,
    TagOption,
    TemperatureOption,
    TopPOption,
    chosen_rules,
    chosen_search,
)

app = typer.Typer(help="Make more training pairs from text in one language.", no_args_is_help=True)


def _make_command(method: str, metavar: str, which_run: str) -> Callable[..., None]:
    """Return the command that makes pairs by ``method``, a function of ``decode/augment.py``."""

    def command(
        run: Annotated[Path, typer.Argument(metavar=metavar, help=which_run)],
        text: Annotated[Path, typer.Argument(help="A text file with one sentence a line, plain, .gz or .zst.")],
        output: Annotated[
            Path,
            typer.Option("--output", "-o", help="A .tsv or .jsonl file (or that and .gz or .zst), or SOURCE,TARGET."),
        ],
        beam: Annotated[
            int | None,
            typer.Option(
                min=1,
                help="Hypotheses kept at each step; 1 is greedy, fastest. Default: 5, or the imported model's.",
            ),
        ] = None,
        sample: SampleOption = None,
        temperature: TemperatureOption = None,
        top_p: TopPOption = None,
        seed: SeedOption = None,
        search: SearchOption = None,
        rule: RuleOption = None,
        tag: TagOption = None,
        source_language: FromOption = None,
        target_language: ToOption = None,
        checkpoint: CheckpointOption = "best",
        device: DeviceOption = "auto",
        precision: PrecisionOption = "auto",
    ) -> None:
        from dragoman.cli.terminal import progress_bar
        from dragoman.decode import augment
        from dragoman.decode.translator import search_for_beam

        sampling = {"samples": sample, "temperature": temperature, "top_p": top_p, "seed": seed}
        augmentation = augment.Augmentation(
            run,
            getattr(augment, method),
            search=chosen_search(search, beam=beam, **sampling) or (None if beam is None else search_for_beam(beam)),
            rules=chosen_rules(rule) if rule else None,
            tags=tuple(tag or ()),
            checkpoint=checkpoint,
            device=device,
            precision=precision,
            source_language=source_language,
            target_language=target_language,
        )
        try:
            with progress_bar("translating", None) as progress:
                print(augmentation.apply(text, output, progress=progress))
        except KeyboardInterrupt:
            print(f"dragoman: stopped: the same command resumes from {output}.partial", file=sys.stderr)
            raise typer.Exit(130) from None

    return command


app.command(
    "back-translate",
    help="Pairs (translation, original): text in your target language becomes targets, whose sources a run of the "
    "other direction generates. The same command resumes one that was stopped.",
)(_make_command("back_translated", "REVERSE_RUN", "A run that translates in the other direction."))
app.command(
    "distill",
    help="Pairs (original, translation): the outputs of a large run become targets for a small one. The same "
    "command resumes one that was stopped.",
)(_make_command("distilled", "RUN", "The directory of a run."))
