"""dragoman score: log-probabilities that a run gives to existing translations."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.lines import write_lines
from dragoman.cli.options import (
    CheckpointOption,
    DeviceOption,
    FromOption,
    OutputOption,
    PrecisionOption,
    RunArgument,
    SpecialTokensOption,
    ToOption,
)
from dragoman.cli.output import OutputFormat
from dragoman.cli.searching import ContextOption, TagOption
from dragoman.cli.sources import FILES, ColumnsOption, parsed_columns
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.decode.scoring import ScoredPair
    from dragoman.text.tokens.tokenizer import Tokenizer


def score(
    run: RunArgument,
    pairs: Annotated[str, typer.Argument(help=f"Pairs: {FILES}.")],
    columns: ColumnsOption = None,
    output: OutputOption = None,
    format: Annotated[
        OutputFormat, typer.Option(help="text: log-probability, tokens, source and target between tabs; json: all.")
    ] = OutputFormat.text,
    tag: TagOption = None,
    context: ContextOption = None,
    special_tokens: SpecialTokensOption = False,
    source_language: FromOption = None,
    target_language: ToOption = None,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Score given translations: log-probabilities of tokens and sentences, a line a pair; the perplexity at the end."""
    from dragoman.cli.terminal import progress_bar
    from dragoman.decode.scoring import perplexity
    from dragoman.decode.translator import Translator
    from dragoman.evaluate.given import pairs_for

    translator = Translator.load(
        run,
        checkpoint=checkpoint,
        device=device,
        precision=precision,
        special_tokens=special_tokens,
        context=context,
        source_language=source_language,
        target_language=target_language,
    )
    translator.languages.check(source_language, target_language)
    given = pairs_for(run, pairs, tag or [], columns=parsed_columns(columns))
    with progress_bar("scoring", len(given)) as progress:
        scored = translator.score(given, progress=progress)
    lines = _as_json(scored, translator.target_tokenizer) if format is OutputFormat.json else _as_text(scored)
    write_lines(lines, output)
    tokens = sum(len(pair.tokens) for pair in scored)
    print(f"{len(scored):,} pairs, {tokens:,} tokens: perplexity {perplexity(scored):.4g}", file=sys.stderr)


def _as_text(scored: "Sequence[ScoredPair]") -> Iterator[str]:
    from dragoman.text.lines import on_one_line

    for pair in scored:
        sides = (on_one_line(side) for side in (pair.source, pair.target))
        yield "\t".join([f"{pair.log_prob:.6f}", str(len(pair.tokens)), *sides])


def _as_json(scored: "Sequence[ScoredPair]", tokenizer: "Tokenizer") -> Iterator[str]:
    for pair in scored:
        record = {
            "row": pair.row,
            "source": pair.source,
            "target": pair.target,
            "log_prob": pair.log_prob,
            "perplexity": pair.perplexity,
            "tokens": tokenizer.token_texts(pair.tokens),
            "token_log_probs": pair.token_log_probs,
        }
        yield json_text(record)
