"""dragoman evaluate: scores of a run on its task."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dragoman.cli.comparison import show_comparison
from dragoman.cli.memory import read_memory
from dragoman.cli.options import (
    CheckpointOption,
    DeviceOption,
    OwnRunArgument,
    PrecisionOption,
    folder_name,
    refuse_options,
)
from dragoman.cli.output import OutputFormat
from dragoman.cli.searching import (
    ContextOption,
    KnnOption,
    SearchOption,
    TagOption,
    chosen_neighbours,
    chosen_search,
)
from dragoman.cli.sources import ColumnsOption, parsed_columns
from dragoman.errors import ConfigError
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.decode.search.search import SearchConfig
    from dragoman.evaluate.evaluation import Evaluation
    from dragoman.evaluate.metrics import Comparison, Score
    from dragoman.evaluate.sentence_scorer import SentenceScorer
    from dragoman.text.tokens.tokenizer import Tokenizer


def evaluate(
    run: OwnRunArgument,
    pairs: Annotated[
        str | None,
        typer.Argument(
            metavar="[TEST_SET]",
            help="A file in the task's format: pairs, labelled texts, a folder of images, ...; "
            "default: the run's own test set.",
        ),
    ] = None,
    columns: ColumnsOption = None,
    beam: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Hypotheses kept at each step; 1 is greedy. Default: as an imported model's files say, or 5.",
        ),
    ] = None,
    search: SearchOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC",
            help="For translation, may be repeated: bleu, chrf, chrf++, ter, exact_match, bleu_lowercase_tokenized, "
            "bleu_lowercase_as_given (text that comes in tokens), bleu_zh (Chinese), bleu_char (characters: scripts "
            "without spaces), bleu_intl (punctuation of all scripts), rouge1, rouge2, rougeL, rougeLsum (summaries), "
            "bracket_f1 (trees); default: bleu, chrf, exact_match, bleu_lowercase_tokenized. NAME=COMMAND: a "
            "program, such as COMET, that reads lines of source, output and reference between tabs and writes a number "
            "for each.",
        ),
    ] = None,
    tag: TagOption = None,
    source_language: Annotated[
        str | None,
        typer.Option("--from", metavar="LANGUAGE", help="Source language, of an imported model for many languages."),
    ] = None,
    target_language: Annotated[
        str | None,
        typer.Option("--to", metavar="LANGUAGE", help="Target language, of an imported model for many languages."),
    ] = None,
    context: ContextOption = None,
    memory: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="For a translator trained with fuzzy matches: a translation memory that has some; may be repeated.",
        ),
    ] = None,
    knn: KnnOption = None,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    name: Annotated[
        str | None,
        typer.Option(
            help="Folder under RUN/evaluations; default: the name of the test set, with --knn followed by -knn.",
            callback=folder_name,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN2", help="For translation: another run on the same pairs, and a paired test of the difference."
        ),
    ] = None,
    format: Annotated[OutputFormat, typer.Option(help="text: tables; json: all but the outputs.")] = OutputFormat.text,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Score every checkpoint while another process trains, until that ends; default: the validation set.",
        ),
    ] = False,
    multiple_choice: Annotated[
        bool,
        typer.Option(
            "--multiple-choice",
            help="For language models: TEST_SET has questions, as JSON lines with prompt, choices and answer; the "
            "likeliest choice is the model's.",
        ),
    ] = False,
) -> None:
    """Score a run on a test set, with intervals; outputs are kept. Translators: BLEU, chrF and more, by source length.
    Encoders, dual encoders and captioners: the figures of their task, with those of a baseline beside. Language
    models: perplexity per token, byte and word, or multiple choice."""
    from dragoman.checkpoint import RunDirectory
    from dragoman.cli import evaluate_language_model, evaluate_reader
    from dragoman.cli import follow as following
    from dragoman.evaluate.evaluators import EVALUATORS
    from dragoman.evaluate.language_modelling import is_language_model

    config = RunDirectory.open(run).config
    _check_use(
        config,
        of_translators={
            "--columns": columns,
            "--beam": beam,
            "--search": search,
            "--metric": metric,
            "--tag": tag,
            "--context": context is not None,
            "--memory": memory,
            "--knn": knn,
            "--from": source_language,
            "--to": target_language,
        },
        precision=precision,
        against=against,
        multiple_choice=multiple_choice,
    )
    if follow:
        of_one = {"--against": against, "--checkpoint": checkpoint != "best", "--format": format is OutputFormat.json}
        of_one |= {"--multiple-choice": multiple_choice, "--knn": knn}  # a datastore is of one checkpoint
        refuse_options(of_one, "cannot be used with --follow, which prints a line for every checkpoint")
    loading: dict[str, Any] = {"device": device, "precision": precision}
    if is_language_model(config):
        if multiple_choice:
            chosen = evaluate_language_model.multiple_choice(run, pairs, name=name, checkpoint=checkpoint, **loading)
            _print_summary(chosen.summary(), format, lambda: evaluate_reader.show(chosen))
            return
        _evaluate_language_model(run, pairs, name, against, format, follow=follow, checkpoint=checkpoint, **loading)
        return
    if evaluator := EVALUATORS.get(config.get("task", {}).get("kind", "")):
        if follow:
            following.follow(run, pairs, name=name, score=following.reader_scorer(evaluator, pairs, device=device))
            return
        found = evaluate_reader.run_evaluation(evaluator, run, pairs, checkpoint=checkpoint, device=device, name=name)
        _print_summary(found.summary(), format, lambda: evaluate_reader.show(found))
        return
    how: dict[str, Any] = {
        "beam": beam,
        "search": chosen_search(search, beam=beam),
        "metrics": _metrics(metric),
        "tags": tag or [],
    }
    how["columns"] = parsed_columns(columns)
    loading |= {"context": context, "source_language": source_language, "target_language": target_language}
    loading["memory"] = read_memory(run, memory, None, None)
    if follow:
        score = following.translation_scorer(run, pairs, **how, **loading)
        programs = [one.name for one in how["metrics"] or () if not isinstance(one, str)]
        following.follow(run, pairs, name=name, score=score, undirected=programs)
        return
    neighbours = chosen_neighbours(knn)
    evaluation = run_evaluation(run, pairs, name=name, **how, checkpoint=checkpoint, knn=neighbours, **loading)
    if against is None:
        _print_summary(evaluation.summary(), format, lambda: show(evaluation))
        return
    other = run_evaluation(run, pairs, by=against, **how, checkpoint=checkpoint, **loading)
    differences = evaluation.against(other)
    compared = {"run": str(against), "differences": {name: asdict(found) for name, found in differences.items()}}

    def both() -> None:
        show(evaluation)
        show_differences(run, against, list(differences.values()))

    _print_summary(evaluation.summary() | {"against": compared}, format, both)


def _check_use(
    config: dict[str, Any],
    *,
    of_translators: dict[str, Any],
    precision: str,
    against: Path | None,
    multiple_choice: bool,
) -> None:
    """Check that options are for the task of a run.

    Raises:
        ConfigError: one is not.
    """
    from dragoman.evaluate.evaluators import EVALUATORS
    from dragoman.evaluate.language_modelling import is_language_model

    if is_language_model(config):
        refuse_options(of_translators, "is for translators, and this run continues text")
        if multiple_choice:
            refuse_options({"--against": against}, "cannot be used with --multiple-choice")
        return
    refuse_options({"--multiple-choice": multiple_choice}, "is for language models, and this run is none")
    _check_reads_matches(of_translators["--memory"], config)
    if config.get("task", {}).get("kind", "") not in EVALUATORS:
        return
    columns = {"--columns": of_translators["--columns"]}
    refuse_options(columns, "is for translators; name the columns of this table in its first row")
    refuse_options(of_translators, "is for translators, and this run translates nothing")
    refuse_options({"--precision": precision != "auto"}, "is for models that write, and this run writes nothing")
    refuse_options({"--against": against}, "compares translations, and this run makes none: compare the intervals")


def _check_reads_matches(memory: list[str] | None, config: dict[str, Any]) -> None:
    """Check that a run can use a translation memory, where there is one.

    Raises:
        ConfigError: the run is no translator that was trained with fuzzy matches.
    """
    from dragoman.text.retrieval import FuzzyMatches, retrieval_of_run

    pairs = config.get("task", {}).get("kind") == "translation"
    if memory and not (pairs and isinstance(retrieval_of_run(config), FuzzyMatches)):
        raise ConfigError("--memory: is for translators trained with fuzzy matches (data.retrieval); this run is none")


def _evaluate_language_model(
    run: Path,
    named: str | None,
    name: str | None,
    against: Path | None,
    format: OutputFormat,
    *,
    follow: bool,
    checkpoint: str,
    **options: Any,
) -> None:
    from dragoman.cli import evaluate_language_model as language_model
    from dragoman.cli import follow as following

    if follow:
        following.follow(run, named, name=name, score=language_model.following(run, named, **options))
        return
    options["checkpoint"] = checkpoint
    found = language_model.evaluated(run, named, name=name, **options)
    if against is None:
        _print_summary(found.summary(), format, lambda: language_model.show(found))
        return
    differences = found.against(language_model.evaluated(run, named, name=name, by=against, **options))
    compared = {"run": str(against), "differences": {key: asdict(one) for key, one in differences.items()}}

    def both() -> None:
        language_model.show(found)
        language_model.show_differences(run, against, list(differences.values()))

    _print_summary(found.summary() | {"against": compared}, format, both)


def _print_summary(summary: dict[str, Any], format: OutputFormat, show_tables: Callable[[], None]) -> None:
    if format is OutputFormat.json:
        print(json_text(summary))
    else:
        show_tables()


def _metrics(given: "list[str] | None") -> "list[str | SentenceScorer] | None":
    """Return the metrics of the option: names, and programs."""
    from dragoman.evaluate.sentence_scorer import SentenceScorer

    if given is None:
        return None
    parted = [text.partition("=") for text in given]
    return [SentenceScorer(name.strip(), command) if equals else name for name, equals, command in parted]


def run_evaluation(
    run: Path,
    pairs: str | None,
    *,
    beam: int | None = None,
    search: "SearchConfig | None" = None,
    metrics: "list[str | SentenceScorer] | None" = None,
    tags: Sequence[str] = (),
    columns: tuple[str, str] | None = None,
    name: str | None = None,
    by: Path | None = None,
    **options: Any,
) -> "Evaluation":
    """Translate a test set of ``run`` and store the results there; results ``by`` another run are not stored.
    ``options`` are those of ``Translator.load``."""
    from dragoman.checkpoint import RunDirectory
    from dragoman.cli.terminal import progress_bar
    from dragoman.decode.translator import Translator
    from dragoman.evaluate.evaluation import USUAL, evaluate
    from dragoman.evaluate.folders import corpus_id, folder_for
    from dragoman.evaluate.given import pairs_for
    from dragoman.plan.measured import MemoryMeter, note
    from dragoman.train.report import page as report

    directory = RunDirectory.open(run)  # reports a missing run first
    translator = Translator.load(by or run, **options)  # before the test set: reports a run of another task
    test = pairs_for(run, pairs, tags, columns=columns)
    meter = MemoryMeter()
    with progress_bar("translating", len(test)) as progress:
        how: dict[str, Any] = {"beam": beam, "search": search, "metrics": metrics or USUAL}
        evaluation = evaluate(translator, test, **how, progress=progress, test_set=corpus_id(pairs))
    if by is None:
        votes = evaluation.neighbours is not None
        evaluation.save(folder_for(run, pairs, name, votes=votes))
        if not votes:  # a datastore's search is no part of what was predicted
            note(run, "decoding", {"memory": meter.peak(), **decoding_speed(evaluation, translator.target_tokenizer)})
        report.write(directory)  # the report shows every evaluation
    return evaluation


def decoding_speed(evaluation: "Evaluation", tokenizer: "Tokenizer") -> dict[str, float]:
    """Return the figures of the decoding that ``dragoman plan RUN --reconcile`` shows."""
    tokens = sum(map(len, tokenizer.encode_batch([output.output for output in evaluation.outputs])))
    return {
        "sentences": len(evaluation.outputs),
        "seconds": evaluation.seconds,
        "tokens_per_second": tokens / max(evaluation.seconds, 1e-9),
    }


def show(evaluation: "Evaluation") -> None:
    """Print the scores, and those by source length."""
    from rich.markup import escape
    from rich.table import Table

    from dragoman.cli.terminal import console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("metric")
    table.add_column("score", justify="right")
    table.add_column("95% interval", justify="right")
    for score in evaluation.scores.values():
        low, high = (f"{bound:.{score.digits}f}" for bound in score.interval)
        table.add_row(escape(score.name), f"[bold]{_number(score)}[/bold]", f"{low} to {high}")
    console().print(table)
    by_length = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("source words", "sentences", *(escape(score.name) for score in evaluation.scores.values())):
        by_length.add_column(heading, justify="right")
    for bucket in evaluation.by_length:
        words = f"{bucket.shortest} to {bucket.longest}" if bucket.longest else f"{bucket.shortest} and more"
        by_length.add_row(words, f"{bucket.sentences:,}", *map(_number, bucket.scores.values()))
    console().print()
    console().print(by_length)
    console().print()
    for note in evaluation.notes:
        console().print(f"[yellow]{note}[/yellow]\n")
    for score in evaluation.scores.values():  # one a line, to be copied
        console().print(f"{score.name}: {score.signature}", soft_wrap=True, markup=False, style="dim")


def _number(score: "Score") -> str:
    return f"{score.value:.{score.digits}f}"


def show_differences(run: Path, other: Path, differences: "Sequence[Comparison]") -> None:
    """Print the paired comparison of two runs."""
    from dragoman.cli.terminal import console

    show_comparison(run, other, differences, emphasis="bold")
    console().print("p: how often chance alone gives a difference this large (paired bootstrap)", soft_wrap=True)
