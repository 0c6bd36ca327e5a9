"""dragoman translate: text in, text out, line for line."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli import messages
from dragoman.cli.argument import RULE, STDIN
from dragoman.cli.bulk import RayOption, RestartOption, WorkersOption
from dragoman.cli.bulk_plan import BulkRequest, plan_bulk
from dragoman.cli.lines import INSIST, checked_lines, input_lines
from dragoman.cli.options import (
    CheckpointOption,
    ColumnOption,
    DeviceOption,
    OutputOrFolderOption,
    PrecisionOption,
    RunArgument,
    SpecialTokensOption,
)
from dragoman.cli.output import OutputFormat, OutputLayout, write, write_file
from dragoman.cli.run_languages import languages_of_run
from dragoman.cli.safety import SafetyOption, guarded, read_safety_page
from dragoman.cli.searching import (
    ContextOption,
    KnnOption,
    RuleOption,
    SampleOption,
    SearchOption,
    SeedOption,
    TagOption,
    TemperatureOption,
    TopPOption,
    chosen_neighbours,
    chosen_rules,
    chosen_search,
)
from dragoman.cli.terminology import (
    ForbidOption,
    InflectOption,
    TermsOption,
    WantedTerms,
    read_glossary,
)
from dragoman.decode.defaults import BEAM
from dragoman.decode.documents.redo import Redo
from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.decode.search.search import SearchConfig
    from dragoman.decode.translation import Translation
    from dragoman.decode.translator import Translator


class SplitSentences(StrEnum):
    """Splitting of lines into sentences."""

    auto = "auto"
    on = "on"
    off = "off"


def translate(
    run: RunArgument,
    text: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE | SENTENCE",
            help="Text files, documents (.po, .xlf, .json, .xml, .srt, .html, .docx, ...), folders of them, a table "
            f"with --column, or one sentence; default: standard input. {RULE}",
        ),
    ] = None,
    output: OutputOrFolderOption = None,
    column: ColumnOption = None,
    as_kind: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="KIND",
            help="The format of a file, whatever its extension: text (lines), po, json, srt, ...",
        ),
    ] = None,
    beam: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Hypotheses kept at each step; 1 is greedy, fastest. Default: as an imported model's files say, or 5.",
        ),
    ] = None,
    nbest: Annotated[int, typer.Option(min=1, help="Translations of each text, best first; at most --beam.")] = 1,
    sample: SampleOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    seed: SeedOption = None,
    search: SearchOption = None,
    rule: RuleOption = None,
    scores: Annotated[bool, typer.Option("--scores", help="Add columns: score and log-probability.")] = False,
    alignments: Annotated[
        bool,
        typer.Option("--alignments", help="Add a column: aligned words, as 0-0 1-2 (source-target)."),
    ] = False,
    flag_below: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="P", help="Add columns: confidence, and 'review' where it is below P."),
    ] = None,
    format: Annotated[
        OutputFormat, typer.Option(help="text: columns separated by tabs; json: an object a line.")
    ] = OutputFormat.text,
    prefix_column: Annotated[
        bool, typer.Option("--prefix-column", help="Each line holds a text, a tab, and how its translation begins.")
    ] = False,
    cache: Annotated[
        str, typer.Option(help="Layout of the key/value cache: for example paged:16+int8, window:64:4 or growing.")
    ] = "preallocated",
    terms: TermsOption = None,
    forbid: ForbidOption = None,
    inflect: InflectOption = False,
    tag: TagOption = None,
    context: ContextOption = None,
    redo: Annotated[
        Redo,
        typer.Option(
            metavar="[fuzzy|all]",
            help="Also replace existing translations of documents: those marked for review, or all (all by default).",
        ),
    ] = Redo.nothing,
    memory: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="A translation memory (.tmx, .po, .tsv, ...), asked before the model, which reads fuzzy matches if it "
            "was trained with some; may be repeated.",
        ),
    ] = None,
    knn: KnnOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what is to be translated in each document; load and write nothing.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write an HTML page of all entries of the documents, doubtful ones first."),
    ] = None,
    source_language: Annotated[
        str | None,
        typer.Option(
            "--source-language",
            "--from",
            metavar="LANGUAGE",
            help="Source language, as names of files and .tmx files have it; also used by --split-sentences, and by "
            "imported models for many languages.",
        ),
    ] = None,
    target_language: Annotated[
        str | None,
        typer.Option(
            "--target-language",
            "--to",
            metavar="LANGUAGE",
            help="Target language: of documents, for their plurals, names and where they declare it; and of an "
            "imported model for many languages.",
        ),
    ] = None,
    split_sentences: Annotated[
        SplitSentences,
        typer.Option(
            help="Translate each sentence of a line by itself; auto: if the training text was single sentences."
        ),
    ] = SplitSentences.auto,
    check_numbers: Annotated[
        bool, typer.Option(help="Warn where numbers or signs of a line are missing in its translation.")
    ] = True,
    special_tokens: SpecialTokensOption = False,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    ray: RayOption = None,
    restart: RestartOption = False,
    safety: SafetyOption = None,
) -> None:
    """Translate a file, a sentence, or what you type. As many lines come out as went in; an empty line stays empty.

    Placeholders ({name}, %s, <b>, links) survive. In a document, missing translations are filled in. A
    run that was trained with context reads each line with those before it; an empty line ends a document.
    """
    lines_only = nbest > 1 or scores or alignments or prefix_column or format is not OutputFormat.text
    request = BulkRequest(
        run=run,
        texts=text or [],
        output=output,
        column=column,
        as_kind=INSIST if prefix_column else as_kind,
        workers=workers,
        ray=ray,
        restart=restart,
        redo=redo is not Redo.nothing,
        safety=safety,
        lines_only=lines_only or flag_below is not None,
        never_in_bulk=bool(dry_run or report or memory or knn),
    )
    plan = plan_bulk(request)  # before the imports, which its processes make at the same time

    from dragoman.cli import document as documents
    from dragoman.cli.live_input import grouping_of
    from dragoman.cli.memory import read_memory
    from dragoman.decode.documents.line_translation import LineSettings
    from dragoman.text.grouping import in_groups

    job = None
    known = read_memory(run, memory, source_language, target_language)
    if plan is None:
        job = documents.prepare(
            documents.Wanted(
                run,
                text or [],
                output,
                INSIST if column is not None or prefix_column else as_kind,  # a table that is read as lines
                source_language,
                target_language,
                redo,
                report,
            ),
            known,
            dry_run=dry_run,
            lines_only=lines_only,
        )
    non_text = [] if job or plan else _files_apart(text or [], output)
    goals = [goal for _, goal in non_text] or (job.outputs if job else [None if plan else output])
    _check_outputs(goals)
    typed = not text and output is None and sys.stdin.isatty()
    kind = INSIST if prefix_column else as_kind
    named = [] if typed or job or plan else [name for name, _ in non_text] or [text]
    inputs = [input_lines(some, column=column, as_kind=kind) for some in named]
    sampling = {"samples": sample, "temperature": temperature, "top_p": top_p, "seed": seed}
    cfg = _search_for(chosen_search(search, beam=beam, **sampling), beam, nbest)
    layout = OutputLayout(
        format=format, nbest=cfg.nbest if cfg else 1, scores=scores, alignments=alignments, flag_below=flag_below
    )
    glossary = read_glossary(WantedTerms(terms, forbid or (), inflect, source_language, target_language), run)
    settings = LineSettings(
        run=run,
        checkpoint=checkpoint,
        device=device,
        precision=precision,
        search=cfg,
        beam=beam or BEAM,
        rules=tuple(chosen_rules(rule)) if rule else None,
        cache=cache,
        glossary=glossary,
        tags=tuple(tag or ()),
        alignments=alignments,
        check_numbers=check_numbers,
        prefix_column=prefix_column,
        context=context,
        memory=known,
        knn=chosen_neighbours(knn),
        special_tokens=special_tokens,
        source_language=source_language,
        target_language=target_language,
        split_sentences=split_sentences.value,
    )
    settings.check()
    page = read_safety_page(safety, job.opened.given if job else [])
    if plan:
        plan.run(request, settings, layout, (source_language, target_language or languages_of_run(run)[1]))
        return
    translator = settings.open()
    _say_settings(translator.translator, chosen=cfg is not None)
    of_lines = guarded(translator, page)
    stream_options = {
        "require": translator.ask_nbest,
        "context": translator.translator.context,
        "check_numbers": check_numbers,
        "glossary": glossary,
    }
    if job:
        job.run(translator.ask, flag_below=flag_below, **stream_options)
        return
    if typed:
        one_by_one = partial(in_groups, most=1)
        _converse(lambda lines: write(of_lines.stream(lines, grouping=one_by_one), sys.stdout, layout))

    def translated(lines: Iterable[str]) -> "Iterator[Translation]":
        grouping = grouping_of(lines)
        read = checked_lines(lines, as_kind) if text in (None, [], [STDIN]) and not prefix_column else lines
        return of_lines.stream(read, grouping=grouping)

    for lines, goal in zip(inputs, goals, strict=False):  # none where sentences are typed
        _write_results(translated(lines), goal, layout)


def _search_for(chosen: "SearchConfig | None", beam: int | None, nbest: int) -> "SearchConfig | None":
    """Return the search that the options choose; None where they choose none."""
    from dragoman.decode.search.beam import Beam
    from dragoman.decode.translator import search_for_beam

    if chosen is None and beam is None and nbest == 1:
        return None
    beam = BEAM if beam is None else beam
    cfg = chosen or (Beam(size=beam, nbest=nbest) if nbest > 1 else search_for_beam(beam))
    if nbest > 1 and cfg.nbest != nbest:
        raise ConfigError("--nbest: is for --beam; ask for so many with --sample, or say nbest in --search")
    return cfg


def _say_settings(translator: "Translator", *, chosen: bool) -> None:
    """Say which settings of an imported model's files hold, if any change its answers."""
    defaults = translator.defaults
    if chosen or messages.current.quiet or not (defaults.search or defaults.unused):
        return
    print(f"dragoman: {defaults}", file=sys.stderr)


def _files_apart(names: list[str], output: Path | None) -> list[tuple[str, Path]]:
    """Return where each of several files of lines goes if ``output`` is a folder; nothing if they go one after the
    other into one file.

    Raises:
        ConfigError: two files of one name, or standard input among them.
    """
    from dragoman.cli.document import output_paths

    if len(names) < 2 or output is None or not output.is_dir():
        return []
    return [(name, goal) for name, goal in zip(names, output_paths(names, output), strict=True) if goal is not None]


def _write_results(results: "Iterable[Translation]", output: Path | None, layout: OutputLayout) -> None:
    if output is None:
        write(results, sys.stdout, layout)
    else:
        write_file(results, output, layout)


def _check_outputs(paths: Iterable[Path | None]) -> None:
    """Refuse an output that cannot be written to, before a model is loaded."""
    from dragoman.output_file import check_output_file

    for path in paths:
        if path is not None:
            check_output_file(path)


def _converse(answer: Callable[[Iterator[str]], None]) -> None:
    print("Type a sentence and press Enter; Ctrl-D ends.", file=sys.stderr)
    with suppress(KeyboardInterrupt):
        answer(_typed())
    print(file=sys.stderr)


def _typed() -> Iterator[str]:
    while True:
        try:
            yield input("> ")
        except EOFError:
            return
