"""Evaluation, calibration and verification of runs: functions that return their figures and print nothing."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dragoman.api.rows import SOURCE_AND_TARGET, Columns, check_file_columns, is_paths, pair_rows
from dragoman.api.run import Run, run_path
from dragoman.api.task_rows import LABELLED, write_task_rows
from dragoman.checkpoint import RunDirectory, run_config
from dragoman.decode.arguments import check_count, check_items
from dragoman.decode.defaults import BEAM
from dragoman.decode.generator import Generator
from dragoman.decode.knn import NearestNeighbours
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.translator import Translator
from dragoman.decode.verify.checks import Check, run_checks
from dragoman.decode.verify.opening import open_run
from dragoman.errors import ConfigError, DataError
from dragoman.evaluate import calibrate as calibration
from dragoman.evaluate import evaluation, language_modelling
from dragoman.evaluate import multiple_choice as choices
from dragoman.evaluate.calibrate import Calibrated
from dragoman.evaluate.classification import ClassificationEvaluator
from dragoman.evaluate.evaluation import USUAL, Evaluation
from dragoman.evaluate.evaluators import EVALUATORS
from dragoman.evaluate.folders import check_folder_name, corpus_id, folder_for
from dragoman.evaluate.given import pairs_for
from dragoman.evaluate.language_modelling import EncodedDocument, LanguageModelEvaluation
from dragoman.evaluate.outcome import EvaluationResult, Evaluator
from dragoman.evaluate.sentence_scorer import SentenceScorer
from dragoman.text.context import context_of_run
from dragoman.text.formats.labelled import LabelledLines, LabelledText
from dragoman.text.lines import Sourced, check_surrogates
from dragoman.text.splits import check_known
from dragoman.train.report import page

Progress = Callable[[int, int], None]
GIVEN = "rows given by a program"
"""Name of a test set that is no file."""


def evaluate(
    run: str | Path | Run,
    test: Any = None,
    *,
    columns: Columns | None = None,
    beam: int | None = None,
    search: SearchConfig | None = None,
    metrics: Sequence[str | SentenceScorer] = USUAL,
    tags: Sequence[str] = (),
    source_language: str | None = None,
    target_language: str | None = None,
    knn: NearestNeighbours | None = None,
    multiple_choice: bool = False,
    checkpoint: str | int = "best",
    device: str = "auto",
    name: str | None = None,
    save: bool = True,
    progress: Progress | None = None,
) -> Evaluation | LanguageModelEvaluation | EvaluationResult:
    """Score a run on a test set, with intervals.

    A translator gets an ``Evaluation`` (BLEU, chrF, by length), a language model a ``LanguageModelEvaluation``
    (perplexity), any other model an ``EvaluationResult`` with the figures of its task and of a baseline.

    Args:
        run: a run, or its directory.
        test: a file; for a translator also pairs, given as in ``train``; for a language model a list of texts; for a
            classifier rows (text, label). By default the run's own test set, or validation text of a language model.
        columns: which columns of pairs hold source and target, or of rows the text and its label.
        beam: hypotheses kept by a translator; 1 is greedy search. By default 5, or the search of an imported model.
        search: a complete search configuration, instead of ``beam``.
        metrics: names of a translator's metrics, or programs that score sentences.
        tags: tags to put before each source.
        source_language, target_language: of an imported translator for many languages; others ignore them.
        knn: a datastore whose nearest states vote on each token of a translator; see ``decode/knn.py``.
        multiple_choice: of a language model, ``test`` has questions: a file of JSON lines, or mappings, with prompt,
            choices and answer. The result is an ``EvaluationResult``.
        checkpoint: ``best``, ``last``, a step number, or the name of a checkpoint.
        device: as torch names it; ``auto`` is the GPU if there is one.
        name: folder under ``RUN/evaluations``; by default that of the file, with ``knn`` followed by -knn. Rows are
            stored only under a name.
        save: store scores and outputs in the run.
        progress: called with the examples done and their number.

    Raises:
        CheckpointError: no such run or checkpoint.
        ConfigError, DataError: a test set that cannot be read, settings of another task, or a ``name`` with a path.
        TypeError: metrics or tags that are no list.
    """
    path = run_path(run)
    if name is not None:
        check_folder_name(name)
    tags = check_items(tags, "tags")
    directory, named = RunDirectory.open(path), _named(test)
    if multiple_choice and not language_modelling.is_language_model(directory.config):
        raise ConfigError(f"multiple_choice: is for language models, and {path} is none")
    is_reader = directory.config.get("task", {}).get("kind", "") in EVALUATORS
    if is_reader or language_modelling.is_language_model(directory.config):
        metrics = () if metrics is USUAL else metrics
        is_rows = is_reader and test is not None and named is None
        of_pairs = {} if is_rows else {"columns": columns}
        _refuse(path, of_pairs | {"beam": beam, "search": search, "metrics": metrics, "tags": tags, "knn": knn})
    if language_modelling.is_language_model(directory.config):
        score = _multiple_choice if multiple_choice else _language_model
        found: Any = score(path, test, named, checkpoint, device, progress)
    elif kind := EVALUATORS.get(directory.config.get("task", {}).get("kind", "")):
        evaluator = kind(path, str(checkpoint), device=device)
        given = evaluator.examples(named) if named or test is None else _labelled(test, evaluator, columns)
        found = dataclasses.replace(evaluator.evaluate(given, progress=progress), test_set=_id(test, named))
    else:
        languages: dict[str, Any] = {"source_language": source_language, "target_language": target_language}
        translator = Translator.load(path, checkpoint, device=device, knn=knn, **languages)
        given = _pairs(path, test, named, tags, columns)
        how: dict[str, Any] = {"beam": beam, "search": search, "metrics": metrics, "progress": progress}
        found = evaluation.evaluate(translator, given, **how, test_set=_id(test, named))
    if save and (test is None or named or name is not None):
        by_default = None if named or not language_modelling.is_language_model(directory.config) else "valid"
        found.save(folder_for(path, named, by_default if name is None else name, votes=knn is not None))
        page.write(directory)
    return found


def calibrate(
    run: str | Path | Run,
    pairs: Any = None,
    *,
    columns: Columns | None = None,
    good: float = 70.0,
    beam: int = BEAM,
    checkpoint: str | int = "best",
    device: str = "auto",
    progress: Progress | None = None,
) -> Calibrated:
    """Calibrate the confidence of a translator, and choose the attention heads that align words; both are stored in the
    run.

    Args:
        run: a run, or its directory.
        pairs: a file or rows, as in ``train``; by default the run's validation set.
        columns: which columns of pairs hold source and target.
        good: chrF from which a sentence counts as good.
        beam: hypotheses kept at each step, as when translating later.
        checkpoint: ``best``, ``last``, a step number, or the name of a checkpoint.
        device: as torch names it; ``auto`` is the GPU if there is one.
        progress: called with the sentences done and their number.

    Raises:
        CheckpointError: no such run or checkpoint.
        DataError: fewer than 50 pairs, or pairs that cannot be read.
    """
    path = run_path(run)
    directory, named = RunDirectory.open(path), _named(pairs)
    translator = Translator.load(path, checkpoint, device=device)
    given = _pairs(path, pairs, named, (), columns, kept="valid", argument="pairs")
    own_test = pairs is None and (directory.path / "data" / "test.jsonl").exists()
    test = pairs_for(path, None) if own_test else []
    found = calibration.calibrate(translator, given, test, good=good, beam=beam, progress=progress)
    found.calibration.write(directory.path)
    return found


@dataclass(frozen=True)
class Verification:
    """Outcome of ``verify``: every check that was made."""

    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    """Says how many texts were left out or cut, because they are too long for a model that writes. A model that only
    reads reads their beginning, as always."""

    @property
    def passed(self) -> bool:
        """True where no answer differs that must be the same."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks in which an answer differs that must be the same."""
        return tuple(check for check in self.checks if not check.passed)

    def __repr__(self) -> str:
        judged = [check for check in self.checks if check.exact]
        return f"Verification({sum(check.passed for check in judged)} of {len(judged)} hold)"


def verify(
    run: str | Path | Run,
    *,
    text: str | Path | None = None,
    sentences: int = 100,
    beam: int | None = None,
    batch: int = 32,
    max_new_tokens: int | None = None,
    compiled: bool = False,
    checkpoint: str | int = "best",
    device: str = "auto",
    progress: Progress | None = None,
) -> Verification:
    """Check that a run's model answers the same in batches of any size and order, with every cache and kernel.

    Args:
        run: a run, or its directory.
        text: a file with a text in each line; by default the run's own test or validation set, or random inputs.
        sentences: most examples.
        beam: hypotheses kept in beam search by a model that writes, by default 5; 1 leaves it out.
        batch: examples in a batch.
        max_new_tokens: most tokens of an answer, of a model that writes.
        compiled: compile the model, too; takes a minute.
        checkpoint: ``best``, ``last``, a step number, or the name of a checkpoint.
        device: as torch names it; ``auto`` is the GPU if there is one.
        progress: called with the checks done and their number.

    Raises:
        CheckpointError: no such run or checkpoint.
        ConfigError, DataError: no such device, a number below 1, texts that the model cannot read, or settings of a
            search for a model that only reads.
        TypeError: a number that is no whole number.
    """
    file = None if text is None else Path(text)
    sentences, beam = check_count(sentences, "sentences"), None if beam is None else check_count(beam, "beam")
    most = None if max_new_tokens is None else check_count(max_new_tokens, "max_new_tokens")
    batch = check_count(batch, "batch")
    options: dict[str, Any] = {"beam": beam, "max_new_tokens": most, "batch": batch, "compiled": compiled}
    runs = open_run(run_path(run), checkpoint, text=file, examples=sentences, device=device, **options)
    notes = tuple({one.note: None for one in runs if one.note})
    return Verification(tuple(check for one in runs for check in run_checks(one.verifier, progress)), notes)


# ---- test sets ------------------------------------------------------------------------------------------


def _named(test: Any) -> str | None:
    """Return the files that are given, as the command line takes them; None where there are none."""
    if test is None or not is_paths(test) or (isinstance(test, list | tuple) and not _are_files(test)):
        return None
    return str(test) if isinstance(test, str | Path) else ",".join(map(str, test))


def _are_files(given: Sequence[Any]) -> bool:
    return len(given) == 2 and all(Path(one).is_file() for one in given)


def _id(test: Any, named: str | None) -> str:
    return corpus_id(named) if test is None or named else GIVEN


def _pairs(
    run: Path,
    test: Any,
    named: str | None,
    tags: Sequence[str],
    columns: Columns | None,
    *,
    kept: str = "test",
    argument: str = "test",
) -> list[Sourced]:
    if test is None or named is not None:
        return pairs_for(run, named, tags, kept=kept, columns=check_file_columns(columns, SOURCE_AND_TARGET))
    given, context = list(pair_rows(test, argument, columns)), context_of_run(run_config(run))
    before = [lines for _, lines in context.in_lines(pair.source for pair in given)]
    return [
        Sourced(pair.source, pair.target, "", " ".join(tags), lines) for pair, lines in zip(given, before, strict=True)
    ]


def _refuse(path: Path, of_translators: Mapping[str, Any]) -> None:
    for name, value in of_translators.items():
        if value:
            raise ConfigError(f"{name}: is for translators, and {path} is none")


def _labelled(test: Any, evaluator: Evaluator, columns: Columns | None) -> list[LabelledText]:
    """Return texts with their labels, read as in training.

    Raises:
        ConfigError: a model that is no classifier of texts.
        DataError: rows that are none, or a label that the classifier does not have.
    """
    if not (isinstance(evaluator, ClassificationEvaluator) and evaluator.texts):
        raise ConfigError("test: a file is expected: only pairs, texts, and texts with labels may be given as rows")
    with TemporaryDirectory() as folder:
        rows = Path(folder) / "test.jsonl"
        write_task_rows(test, LABELLED, "test", rows, columns)
        found = list(LabelledLines(path=str(rows)).read())
    for number, one in enumerate(found, 1):
        check_known(one.label, evaluator.classifier.labels, f"test: row {number}")
    with_text = [one for one in found if one.text.strip()]
    if not with_text:
        raise DataError("test: no row has a text")
    return with_text


def _language_model(
    run: Path, test: Any, named: str | None, checkpoint: str | int, device: str, progress: Progress | None
) -> LanguageModelEvaluation:
    generator = Generator.load(run, checkpoint, device=device)
    if test is None or named is not None:
        documents = language_modelling.documents_for(run, named, generator.tokenizer)
    else:
        documents = _documents(test, generator)
    context = language_modelling.context_of(run_config(run))
    how: dict[str, Any] = {"context": context, "progress": progress, "test_set": _id(test, named)}
    return language_modelling.evaluate(generator, documents, **how)


def _multiple_choice(
    run: Path, test: Any, named: str | None, checkpoint: str | int, device: str, progress: Progress | None
) -> EvaluationResult:
    if named is None and (isinstance(test, Mapping) or not isinstance(test, Iterable)):
        raise ConfigError("test: multiple choice needs questions: a file, or mappings with prompt, choices and answer")
    rows = enumerate([] if named else test, 1)
    given = choices.read_questions(named) if named else [choices.question_of(row, f"test: row {i}") for i, row in rows]
    generator = Generator.load(run, checkpoint, device=device)
    return choices.evaluate(generator, given, progress=progress, test_set=_id(test, named))


def _documents(test: Any, generator: Generator) -> list[EncodedDocument]:
    if isinstance(test, str | bytes) or not isinstance(test, Sequence):
        raise ConfigError(f"test: a file or a list of texts is expected, got {type(test).__name__}")
    for number, text in enumerate(test, 1):
        if not isinstance(text, str):
            raise DataError(f"test: row {number}: a text is expected, and this is {text!r:.40} ({type(text).__name__})")
        check_surrogates(text, f"test: row {number}")
    return language_modelling.encode_documents(test, generator.tokenizer)
