"""dragoman calibrate: confidence of a run's translations, learned from some with references."""

from typing import Annotated

import typer

from dragoman.cli.options import CheckpointOption, DeviceOption, FromOption, OwnRunArgument, PrecisionOption, ToOption
from dragoman.decode.defaults import BEAM


def calibrate(
    run: OwnRunArgument,
    pairs: Annotated[
        str | None,
        typer.Argument(
            metavar="[PAIRS]", help="A .tsv, .csv or .jsonl file, or SOURCE,TARGET; default: the run's validation set."
        ),
    ] = None,
    good: Annotated[float, typer.Option(min=0, max=100, help="chrF from which a sentence counts as good.")] = 70.0,
    beam: Annotated[int, typer.Option(min=1, help="Hypotheses kept at each step, as when translating later.")] = BEAM,
    source_language: FromOption = None,
    target_language: ToOption = None,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Calibrate a run's confidence and choose the attention heads that align words; stored in the run's directory."""
    from dragoman.checkpoint import RunDirectory
    from dragoman.cli.terminal import progress_bar
    from dragoman.decode.search.attention_taps import attention_taps
    from dragoman.decode.translator import Translator
    from dragoman.evaluate.calibrate import calibrate
    from dragoman.evaluate.given import pairs_for

    directory = RunDirectory.open(run)
    translator = Translator.load(
        run,
        checkpoint=checkpoint,
        device=device,
        precision=precision,
        source_language=source_language,
        target_language=target_language,
    )
    translator.languages.check(source_language, target_language)
    given = pairs_for(run, pairs, kept="valid")
    test = pairs_for(run, None) if (directory.path / "data" / "test.jsonl").exists() and not pairs else []
    with progress_bar("translating", len(given)) as progress:
        found = calibrate(translator, given, test, good=good, beam=beam, progress=progress)
    found.calibration.write(directory.path)
    measured = f"{len(test):,} test sentences" if test else "half of them, not fitted on"
    print(f"confidence: fitted on {len(given):,} sentences, measured on {measured}")
    print(f"  good (chrF {good:g} or more): {found.good:.1%}")
    print(f"  expected calibration error: {found.error_before:.3f} before, {found.error_after:.3f} now")
    print(f"  area under the risk-coverage curve: {found.area:.3f}; of random order it is {1 - found.good:.3f}")
    for part in found.review:
        print(f"  {part}")
    if not attention_taps(translator.model):
        print("alignments: none, as this model does not attend to a source")
    elif found.alignment_error is None:
        print("alignments: too few words in common to choose heads; all heads of the last two layers are used")
    else:
        chosen = ", ".join(f"{layer + 1}.{head + 1}" for layer, head in found.calibration.heads.heads)
        heads = f"heads {chosen} (layer.head)" if chosen else "all heads of the last two layers, as good as any others"
        print(f"alignments: {heads}; error rate {found.alignment_error:.1%} on words in common")
