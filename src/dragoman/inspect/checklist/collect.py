"""Collecting a checklist: the rows that make sense for a run's model, measured one after the other."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from dragoman.checkpoint import run_config, run_folder
from dragoman.data.tasks.usual import task_of
from dragoman.errors import ConfigError
from dragoman.evaluate.given import pairs_for
from dragoman.evaluate.language_modelling import is_language_model
from dragoman.inspect.checklist import classifier, language_model, quality, robustness, texts, trust
from dragoman.inspect.checklist.material import ChecklistSettings, TranslatorMaterial
from dragoman.inspect.checklist.row import VERDICTS, ChecklistRow, ChecklistVerdict

ChecklistStep = Callable[[ChecklistRow], None]
"""Called with each row as it is measured."""


@dataclass(frozen=True)
class Checklist:
    """All rows on a model."""

    run: str
    day: str
    facts: tuple[tuple[str, str], ...]
    """Name and value of each thing that identifies the model."""
    rows: tuple[ChecklistRow, ...]

    def counts(self) -> dict[ChecklistVerdict, int]:
        """Return the number of rows with each verdict, the worst first."""
        found = Counter(row.verdict for row in self.rows)
        return {verdict: found[verdict] for verdict in VERDICTS}

    def plain(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "run": self.run,
            "day": self.day,
            "facts": dict(self.facts),
            "verdicts": self.counts(),
            "rows": [row.plain() for row in self.rows],
        }


def make_checklist(
    settings: ChecklistSettings, test: str | None = None, *, report: ChecklistStep = lambda row: None
) -> Checklist:
    """Measure everything about the model of a run that the page asks.

    Args:
        test: files of test examples, in the task's format; None for those that the run holds out.
        report: called with each row as it is measured.

    Raises:
        CheckpointError: no such run, or a damaged one.
        ConfigError: a run of a task that the checklist does not know.
        DataError: no test examples, or ones that cannot be read.
    """
    config = run_config(settings.run)
    rows = []
    for row in _rows(settings, config, test):
        report(row)
        rows.append(row)
    rows.append(trust.data_and_licence(run_folder(settings.run), config))
    report(rows[-1])
    facts = trust.facts(settings.run, settings.checkpoint)
    return Checklist(run_folder(settings.run).resolve().name, date.today().isoformat(), facts, tuple(rows))


def _rows(settings: ChecklistSettings, config: dict[str, Any], test: str | None) -> Iterator[ChecklistRow]:
    task = task_of(config).get("kind", "none")
    if task == "translation":
        named = "the test set" if test is None else test
        yield from _of_translator(TranslatorMaterial(settings, pairs_for(settings.run, test), named=named))
    elif is_language_model(config):
        yield from language_model.rows(settings, config, test)
    elif task == "classification":
        yield from classifier.rows(settings, config, test)
    else:
        raise ConfigError(
            f"{settings.run}: its task is {task.replace('_', ' ')}, and the checklist is for translators, language "
            "models and classifiers of texts: dragoman evaluate measures this one"
        )


def _of_translator(material: TranslatorMaterial) -> Iterator[ChecklistRow]:
    yield quality.overall(material)
    yield quality.by_length(material)
    yield quality.by_rare_words(material)
    if (row := quality.by_source(material)) is not None:
        yield row
    yield quality.hard_set(material)
    yield quality.degenerate_outputs(material)
    yield quality.known_failures(material)
    yield from robustness.stays(material)
    yield robustness.numbers(material)
    yield robustness.negation(material)
    yield robustness.gender(material)
    yield texts.length_extrapolation(material)
    yield texts.placeholders_kept(material)
    yield texts.numbers_kept(material)
    yield trust.confidence(material)
    yield trust.train_test_overlap(material)
