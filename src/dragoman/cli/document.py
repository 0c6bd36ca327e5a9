"""Translating documents: files of localisation formats given to `dragoman translate`."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from dragoman.cli.argument import STDIN, is_file
from dragoman.cli.messages import report_error
from dragoman.cli.run_languages import languages_of_run
from dragoman.config import unknown
from dragoman.errors import ConfigError, DataError, UserError

if TYPE_CHECKING:
    from dragoman.cli.document_tree import TreeFile
    from dragoman.decode.constraints.glossary import Glossary
    from dragoman.decode.documents.document import DocumentSummary
    from dragoman.decode.documents.redo import Redo
    from dragoman.decode.documents.source_line import Require
    from dragoman.decode.translation import Translation
    from dragoman.text.context import ReadContext
    from dragoman.text.document import FillableDocument, Filling
    from dragoman.text.memory import TranslationMemory


class Given(NamedTuple):
    """Document to translate, and its output."""

    name: str
    document: "FillableDocument"
    output: Path | None
    kept: "Mapping[int, Filling]"
    """Translations that the output has already, if it is a file of the target language alone."""


class Opened(NamedTuple):
    """Documents that the arguments name."""

    given: list[Given]
    failures: list[str]
    """Reasons for which files of a folder are left out, one line each."""


def open_documents(
    texts: Sequence[str],
    source: str | None,
    target: str | None,
    output: Path | None,
    as_kind: str | None = None,
    *,
    anew: bool = False,
) -> Opened:
    """Open the documents that the arguments name, each with its output; none if they are text or lines.

    Raises:
        ConfigError: several documents without a folder to write them into, documents among other files, or an unknown
            ``as_kind``.
        DataError: a document that is missing or cannot be read, unless it was found in a folder.
    """
    from dragoman.cli.document_tree import is_tree, tree_files
    from dragoman.text.filled.opening import KINDS

    if any(map(is_tree, texts)):
        return _open_tree(tree_files(texts, output, source, target), target, anew=anew)
    kinds = {name: _kind(name, as_kind) for name in texts or [STDIN]}
    if not any(kinds.values()):
        return Opened([], [])
    if odd := [name for name, kind in kinds.items() if kind is None]:
        raise ConfigError(f"{odd[0]}: not a document ({', '.join(KINDS)}): translate it by itself")
    goals = output_paths(list(kinds), output)
    given = []
    for (name, kind), goal in zip(kinds.items(), goals, strict=True):
        assert kind is not None
        language = target or _named_language(kind, goal)
        document = _open(name, kind, source, language)
        given.append(Given(name, document, goal, _kept(document, name, goal, language, anew=anew)))
    return Opened(given, [])


def _open_tree(files: "Sequence[TreeFile]", target: str | None, *, anew: bool) -> Opened:
    """Open the documents of a folder. One that cannot be read is left out; files of another kind are passed over."""
    from dragoman.text.compressed import extension
    from dragoman.text.document import OtherKindError

    given, failures = [], []
    for name, goal, source in files:
        try:
            document = _open(name, extension(name), source, target)
            there = os.path.lexists(goal) and not os.path.samefile(goal, name)
            if document.bilingual and there:  # the translator's file, with what is done in it
                document = _open(str(goal), extension(name), source, target)
            given.append(Given(name, document, goal, _kept(document, name, goal, target, anew=anew)))
        except OtherKindError:
            continue
        except UserError as error:
            failures.append(str(error))
    return Opened(given, failures)


def _named_language(kind: str, goal: Path | None) -> str | None:
    """Return the language in the name of an output, of a document in one language: its plurals need it."""
    from dragoman.text.formats.kinds import BILINGUAL
    from dragoman.text.formats.localized_paths import language_in

    return None if goal is None or kind in BILINGUAL else language_in(goal.as_posix())


def _kept(
    document: "FillableDocument", name: str, goal: Path | None, language: str | None, *, anew: bool
) -> "dict[int, Filling]":
    """Return the translations that an output has already, for a document in one language; notes tell what is lost.

    The document takes the other values of the output, such as numbers.

    Args:
        language: language of the output, where it is known.
        anew: all is translated again.

    Raises:
        DataError: it cannot be told what is translated in the output.
    """
    from dragoman.text.existing import existing_translations, only_in, take_values
    from dragoman.text.filled.opening import open_document

    if document.bilingual or goal is None or name == STDIN or not os.path.isfile(goal) or os.path.samefile(goal, name):
        return {}
    there = open_document(goal, source=language)  # as a source: its plural forms are those that it has
    found = existing_translations(document, there)
    if found is None:
        if anew:
            return {}
        raise DataError(
            f"{goal}: has other parts than {name}, so what is translated in it cannot be told: replace it with --redo, "
            "or name another output"
        )
    take_values(document, there)
    if lost := only_in(document, there):
        shown = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        document.notes.append(f"{goal}: {len(lost)} of its entries are not in {name} and are left out: {shown}")
    return found


def _kind(name: str, as_kind: str | None) -> str | None:
    """Return the extension of a document's format; None for text or lines."""
    from dragoman.cli.lines import INSIST
    from dragoman.text.compressed import extension
    from dragoman.text.filled.opening import KINDS

    if as_kind is not None:
        requested = f".{as_kind.lower().removeprefix('.')}"
        if requested not in (*KINDS, f".{INSIST}"):
            raise ConfigError(unknown("--as", as_kind, [INSIST, *(kind[1:] for kind in KINDS)]))
        return None if requested == f".{INSIST}" or not (name == STDIN or is_file(name)) else requested
    return extension(name) if is_file(name) and extension(name) in (*KINDS, ".mo") else None


def _open(name: str, kind: str, source: str | None, target: str | None) -> "FillableDocument":
    from dragoman.text.filled.opening import document_of, open_document

    if name == STDIN:
        return document_of(sys.stdin.buffer.read, "standard input", kind=kind, source=source, target=target)
    return open_document(name, kind=kind, source=source, target=target)


def output_paths(names: Sequence[str], output: Path | None) -> list[Path | None]:
    """Return where each of several files is written: into the folder ``output``, under its own name; one file to
    ``output``.

    Raises:
        ConfigError: several files without a folder, or of the same name.
    """
    inside = output is not None and os.path.isdir(output)
    if len(names) == 1 and not inside:
        return [output]
    if output is None or (os.path.lexists(output) and not inside):
        raise ConfigError(f"{names[1]}: several documents are written into a folder: name one, as in -o translated")
    if STDIN in names:
        raise ConfigError("-: standard input has no name to be written under in a folder: give -o a file")
    goals = [output / Path(name).name for name in names]
    if twice := [goal for goal in goals if goals.count(goal) > 1]:
        raise ConfigError(f"{twice[0]}: two of the files would be written there: translate them one by one")
    output.mkdir(parents=True, exist_ok=True)
    return list(goals)


def language_of(run: Path, texts: Sequence[str], as_kind: str | None) -> str | None:
    """Return the language that a run translates into, where its cleaning names it and ``texts`` holds a document."""
    from dragoman.cli.document_tree import is_tree

    if not any(is_tree(text) or _kind(text, as_kind) for text in texts or [STDIN]):
        return None
    return languages_of_run(run)[1]


class Wanted(NamedTuple):
    """Arguments and options about documents."""

    run: Path
    texts: Sequence[str]
    output: Path | None
    as_kind: str | None
    source: str | None
    target: str | None
    redo: "Redo"
    report: Path | None


def prepare(
    wanted: Wanted, memory: "TranslationMemory | None", *, dry_run: bool, lines_only: bool
) -> "DocumentJob | None":
    """Open the documents that are to be translated; None if there are none, but text or lines.

    Args:
        memory: translation memory, asked first.
        dry_run: print the plan and leave.
        lines_only: an option was given that is for lines of text.

    Raises:
        ConfigError, DataError: as ``open_documents``; or options for documents without one, or for lines with one.
        typer.Exit: after a dry run.
    """
    from dragoman.decode.documents.redo import Redo

    target = wanted.target or language_of(wanted.run, wanted.texts, wanted.as_kind)
    anew = wanted.redo is Redo.all
    opened = open_documents(wanted.texts, wanted.source, target, wanted.output, wanted.as_kind, anew=anew)
    if not opened.given and not opened.failures:
        if dry_run or wanted.report or wanted.redo is not Redo.nothing:
            raise ConfigError("--dry-run, --report and --redo are for documents: name a file, or a folder of them")
        return None
    if opened.given and lines_only:
        raise ConfigError(
            f"{opened.given[0].name}: --nbest, --scores, --alignments, --prefix-column and --format are for lines of "
            "text"
        )
    job = DocumentJob(opened, wanted.redo, memory, wanted.report, wanted.output)
    if dry_run or not opened.given:
        job.print_plan()
        finish(opened.failures)
        raise typer.Exit
    return job


class DocumentJob(NamedTuple):
    """Documents to be translated."""

    opened: Opened
    redo: "Redo"
    memory: "TranslationMemory | None"
    report: Path | None
    named: Path | None
    """File or folder that -o names."""

    @property
    def outputs(self) -> list[Path | None]:
        """Return the files to be written whose folders must exist: others are written into folders that are made.

        Raises:
            OutputError: such a folder cannot be made.
        """
        from dragoman.output_file import check_output_folder

        found = [*(one.output for one in self.opened.given), self.report]
        made = [path for path in found if path and path not in (self.named, self.report) and not path.parent.is_dir()]
        for path in made:
            check_output_folder(path)
        return [path for path in found if path not in made]

    def print_plan(self) -> None:
        """Print how many entries of each document are to be translated."""
        from dragoman.decode.documents.document import slots_to_fill

        total = 0
        for name, document, goal, kept in self.opened.given:
            chosen = slots_to_fill(document, kept, self.redo)
            slots = [document.slots[number] for number in chosen]
            words = sum(len(slot.text.split()) for slot in slots)
            known = ""
            if self.memory:
                found = sum(self.memory.find(slot.text, slot.codes) is not None for slot in slots)
                known = f", {found:,} of them from memory"
            total += len(chosen)
            goal = goal or "standard output"
            print(f"{name} -> {goal}: {len(chosen):,} of {len(document.slots):,} ({words:,} words){known}")
        print(f"{total:,} to translate in {len(self.opened.given):,} files; nothing was written")

    def report_unread_notes(self, context: "ReadContext") -> None:
        """Print how many entries have notes for translators that this run does not read."""
        from dragoman.text.context import EntryNotes

        count = sum(bool(slot.notes) for one in self.opened.given for slot in one.document.slots)
        if count and not (isinstance(context, EntryNotes) and context.characters):
            print(
                f"dragoman: {count:,} entries have a context or comments, which were not read: a run reads them if it "
                "was trained with data.context: entry_notes",
                file=sys.stderr,
            )

    def run(self, ask: Callable[..., "list[Translation]"], **options: Any) -> None:
        """Translate documents one after the other, write each, and write the report.

        Raises:
            typer.Exit: a document of a folder failed, with code 1.
        """
        failures, done = list(self.opened.failures), []
        self.report_unread_notes(options["context"])
        for one in self.opened.given:
            try:
                done.append((one.name, fill(one, ask, redo=self.redo, memory=self.memory, **options)))
            except DataError as error:
                if len(self.opened.given) == 1 and not failures:
                    raise
                failures.append(str(error))
        if self.report is not None:
            from dragoman.decode.documents.report import report_page
            from dragoman.text.compressed import create_text

            with create_text(self.report) as file:
                file.write(report_page(done, failures, relative_to=self.report.parent))
        finish(failures)


def finish(failures: Sequence[str]) -> None:
    """List the files that failed.

    Raises:
        typer.Exit: there are any, with code 1.
    """
    for failure in failures:
        report_error(failure)
    if failures:
        raise typer.Exit(1)


def fill(
    given: Given,
    ask: Callable[..., "list[Translation]"],
    *,
    require: "Require",
    context: "ReadContext",
    check_numbers: bool,
    glossary: "Glossary | None",
    redo: "Redo",
    flag_below: float | None,
    memory: "TranslationMemory | None",
) -> "DocumentSummary":
    """Translate the unfilled slots and write the document; warnings and a summary go to standard error."""
    from dragoman.cli.terminal import progress_bar
    from dragoman.decode.documents.document import translate_document

    with progress_bar("translating", len(given.document.slots)) as progress:
        translated = translate_document(
            given.document,
            ask,
            redo=redo,
            kept=given.kept,
            memory=memory,
            flag_below=flag_below,
            require=require,
            context=context,
            check_numbers=check_numbers,
            glossary=glossary,
            progress=progress,
        )
    if translated.filled or not given.kept:
        _write(translated.content, given.output)
    for warning in translated.warnings:
        print(f"dragoman: {warning}", file=sys.stderr)
    print(_summary(translated), file=sys.stderr)
    return translated


def _write(content: bytes, output: Path | None) -> None:
    from dragoman.text.compressed import create_file

    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with create_file(output) as file:
        file.write(content)


def _summary(translated: "DocumentSummary") -> str:
    """Return the number of translations of each kind: those with a warning do not count as translated."""
    flagged = f"; {translated.flagged:,} more filled in and marked for review" if translated.flagged else ""
    missing = f"; {translated.untranslated:,} left without a translation" if translated.untranslated else ""
    remembered = f" ({translated.remembered:,} from memory)" if translated.remembered else ""
    if translated.with_matches:
        remembered += f" ({translated.with_matches:,} by the model with fuzzy matches)"
    unchanged = f"; {translated.left:,} were already translated and are unchanged"
    return f"{translated.filled - translated.flagged:,} translated{remembered}{flagged}{missing}{unchanged}"
