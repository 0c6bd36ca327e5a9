"""dragoman translate: text in, text out, line for line."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.argument import RULE, STDIN
from dragoman.cli.lines import INSIST, checked_lines, given_lines
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
from dragoman.cli.searching import (
    ContextOption,
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
from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.decode.documents.source_line import SourceQuestion
    from dragoman.decode.request import Request
    from dragoman.decode.search.search import SearchConfig
    from dragoman.decode.translation import Translation
    from dragoman.decode.translator import Progress, Translator


class SplitSentences(StrEnum):
    auto = "auto"
    on = "on"
    off = "off"


def translate(
    run: RunArgument,
    text: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE | SENTENCE",
            help="Text files, .po, .xlf or .tmx files (plain or compressed), a table with --column, or one sentence; "
            f"default: standard input. {RULE}",
        ),
    ] = None,
    output: OutputOrFolderOption = None,
    column: ColumnOption = None,
    as_kind: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="KIND", help="What a file is, whatever its name ends in: text (lines), po, xliff or tmx."
        ),
    ] = None,
    beam: Annotated[int, typer.Option(min=1, help="Hypotheses kept at each step; 1 is greedy, fastest.")] = 5,
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
        typer.Option("--alignments", help="Add a column: words that belong together, as 0-0 1-2 (source-target)."),
    ] = False,
    flag_below: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="P", help="Add columns: confidence, and 'review' where it is below P."),
    ] = None,
    format: Annotated[
        OutputFormat, typer.Option(help="text: columns between tabs; json: an object a line.")
    ] = OutputFormat.text,
    prefix_column: Annotated[
        bool, typer.Option("--prefix-column", help="Each line holds a text, a tab, and how its translation begins.")
    ] = False,
    cache: Annotated[
        str, typer.Option(help="What decoding keeps, and how: for example paged:16+int8, window:64:4 or growing.")
    ] = "preallocated",
    terms: Annotated[
        Path | None,
        typer.Option(help="A glossary: a .tsv or .csv with columns source, target (a|b for alternatives), forbidden."),
    ] = None,
    forbid: Annotated[
        list[str] | None, typer.Option(metavar="TERM", help="A term that no translation may hold; may be repeated.")
    ] = None,
    tag: TagOption = None,
    context: ContextOption = None,
    redo: Annotated[
        bool, typer.Option("--redo", help="In a .po, .xlf or .tmx file: what is translated already, too.")
    ] = False,
    source_language: Annotated[
        str | None, typer.Option(metavar="LANGUAGE", help="Of a .tmx file's many; and for --split-sentences.")
    ] = None,
    target_language: Annotated[
        str | None,
        typer.Option(metavar="LANGUAGE", help="Of the translations in a .po, .xlf or .tmx file that does not say it."),
    ] = None,
    split_sentences: Annotated[
        SplitSentences,
        typer.Option(
            help="Translate each sentence of a line by itself; auto: if the training text was such sentences."
        ),
    ] = SplitSentences.auto,
    check_numbers: Annotated[
        bool, typer.Option(help="Numbers and signs of a line must come out too, or a warning says so.")
    ] = True,
    special_tokens: SpecialTokensOption = False,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Translate a file, a sentence, or what you type. As many lines come out as went in; an empty line stays empty.

    Placeholders ({name}, %s, <b>, links) survive. Of a .po, .xlf or .tmx file, what is missing is filled in. A run that
    has learnt to reads each line with those before it; an empty line ends a document."""
    from dragoman.cli import document as documents
    from dragoman.cli.live_input import grouping_of
    from dragoman.decode.constraints.glossary import Glossary
    from dragoman.decode.documents import placeholders
    from dragoman.decode.request import as_request
    from dragoman.decode.search.beam import Beam
    from dragoman.decode.translator import Translator, search_for_beam
    from dragoman.model.caches.cache import parse_cache

    target_language = target_language or documents.language_of(run, text or [], as_kind)
    given = documents.opened(text or [], source_language, target_language, output, as_kind)
    if given and (nbest > 1 or scores or alignments or prefix_column or format is not OutputFormat.text):
        raise ConfigError(
            f"{given[0].name}: --nbest, --scores, --alignments, --prefix-column and --format are for lines"
        )
    _check_outputs([one.output for one in given] if given else [output])
    typed = not text and output is None and sys.stdin.isatty()
    lines = None if typed or given else given_lines(text, column=column, as_kind=INSIST if prefix_column else as_kind)
    sampling = {"samples": sample, "temperature": temperature, "top_p": top_p, "seed": seed}
    cfg = chosen_search(search, **sampling) or (Beam(size=beam, nbest=nbest) if nbest > 1 else search_for_beam(beam))
    if nbest > 1 and cfg.nbest != nbest:
        raise ConfigError("--nbest: is for --beam; ask for so many with --sample, or say nbest in --search")
    layout = OutputLayout(format=format, nbest=cfg.nbest, scores=scores, alignments=alignments, flag_below=flag_below)
    glossary = Glossary.read(terms, forbid or ()) if terms else Glossary(forbidden=forbid) if forbid else None
    how = {"rules": chosen_rules(rule), "cache": parse_cache(cache), "glossary": glossary, "alignments": alignments}
    reading_so = {"context": context, "special_tokens": special_tokens, "source_language": source_language}
    loading = {"device": device, "precision": precision, "split_sentences": split_sentences.value}
    translator = Translator.load(run, which=checkpoint, **loading, **reading_so)

    tags = tuple(tag or ())
    translator.check_tags(tags)

    def ask(
        questions: "list[SourceQuestion]", search: "SearchConfig" = cfg, progress: "Progress | None" = None
    ) -> "list[Translation]":
        asked = [as_request(question, tags=tags) for question in questions]
        return translator.translate(asked, search=search, progress=progress, **how)

    def more(questions: "list[SourceQuestion]", _: object) -> "list[Translation]":
        """Several answers, for texts whose first one has lost a placeholder."""
        return ask(questions, search=Beam(size=max(beam, 5), nbest=max(beam, 5)))

    reading = {"require": more, "context": translator.context, "check_numbers": check_numbers}
    for _, document, goal in given:
        documents.fill(document, ask, output=goal, redo=redo, flag_below=flag_below, **reading)
    if given:
        return
    if lines is None:
        _converse(lambda typed: write(placeholders.stream(typed, ask, chunk=1, **reading), sys.stdout, layout))
        return
    grouping = grouping_of(lines)
    if prefix_column:
        results = translator.stream(_with_prefixes(translator, lines, tags), search=cfg, grouping=grouping, **how)
    else:
        read = checked_lines(lines, as_kind) if text in (None, [], [STDIN]) else lines
        results = placeholders.stream(read, ask, grouping=grouping, **reading)
    if output is None:
        write(results, sys.stdout, layout)
    else:
        write_file(results, output, layout)


def _with_prefixes(translator: "Translator", lines: Iterable[str], tags: tuple[str, ...]) -> "Iterator[Request]":
    """Yield a request for each line of a text, a tab, and how its translation begins."""
    from dragoman.decode.request import as_request
    from dragoman.text.cleaning.clean import normalise

    texts, prefixes = tee(line.partition("\t")[::2] for line in lines)
    asked = translator.document(normalise(text) for text, _ in texts)  # one line in, one line out
    for one, (_, prefix) in zip(asked, prefixes, strict=True):
        yield as_request(one, prefix=prefix, tags=tags)


def _check_outputs(paths: Iterable[Path | None]) -> None:
    """Refuse what cannot be written to before a model is loaded."""
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
