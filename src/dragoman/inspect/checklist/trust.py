"""Trust: confidence that means something, test sets that training has not seen, and where the data come from."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dragoman.checkpoint import checkpoint_at
from dragoman.data.tasks.usual import task_of
from dragoman.decode.calibration import Calibration
from dragoman.evaluate.calibrate import SHARES, calibration_error, review_share
from dragoman.evaluate.risk_coverage import risk_coverage
from dragoman.inspect.checklist.material import TranslatorMaterial, each_chrf
from dragoman.inspect.checklist.row import (
    ChecklistRow,
    ChecklistTable,
    below,
    counted,
    example,
    percent,
    unmeasured,
)
from dragoman.plan.parameters import parameters_of_run
from dragoman.text.cleaning.split import Overlap, overlap

GROUP = "Trust"
GOOD = 70.0
"""chrF from which an answer counts as good, as in ``dragoman calibrate``."""
FEWEST = 50


def confidence(material: TranslatorMaterial) -> ChecklistRow:
    """Return whether the confidence of an answer says how probably it is good."""
    if len(material.test) < FEWEST:
        return unmeasured(GROUP, "Confidence", f"It takes {FEWEST} test pairs to say.")
    fitted = Calibration.read(material.folder).confidence
    least = fitted.good if fitted else GOOD
    right = np.array([score >= least for score in each_chrf(material.chrf)])
    sure = np.array([answer.confidence for answer in material.answers])
    error = calibration_error(sure, right)
    area, chance = risk_coverage(sure, 1.0 - right).area, float(1 - right.mean())
    shares = [review_share(sure, right, share) for share in SHARES]
    advice = "" if fitted else " It is not calibrated: dragoman calibrate does that."
    return ChecklistRow(
        group=GROUP,
        title="Confidence",
        verdict=below(error, 0.05, 0.15),
        finding=f"Confidence is off by {percent(error)} on average; {percent(1 - chance)} of the answers are "
        f"good.{advice}",
        measured=f"{counted(len(sure), 'pair')} of {material.named}; good is chrF {least:.0f} or more. Area under the "
        f"curve of risk and coverage {area:.3f}, by chance {chance:.3f}",
        limits="good if off by at most 5%, poor beyond 15%",
        tables=(
            ChecklistTable(
                ("sent to review", "where confidence is below", "not good among the others"),
                tuple((percent(s.share), f"{s.flag_below:.2f}", percent(s.errors)) for s in shares),
            ),
        ),
    )


def train_test_overlap(material: TranslatorMaterial) -> ChecklistRow:
    """Return how many test pairs are like a training pair."""
    title = "Overlap of training and test"
    if material.corpus is None:
        return unmeasured(GROUP, title, "The run's training text is gone, so nothing can be compared with it.")
    found = overlap(material.training_pairs(), material.test)
    return overlap_row(title, found, len(material.test), material.named, of="pair")


def overlap_row(title: str, found: Overlap, tested: int, named: str, *, of: str) -> ChecklistRow:
    """Return the row on how many of the ``tested`` test pairs or texts are like one of training."""
    alike = sum(found.seen.values())
    shown = [pair for pairs in found.examples.values() for pair in pairs][:3]
    return ChecklistRow(
        group=GROUP,
        title=title,
        verdict=below(found.hit / tested, 0, 0.02),
        finding=f"{found.hit:,} of {counted(tested, f'test {of}')} ({percent(found.hit, tested)}) are like one of "
        f"training, so that the figures would be too good; {counted(alike, f'training {of}')} are like one of the test "
        "set."
        if alike
        else f"No training {of} is like one of the test set.",
        measured=f"{counted(found.trained, f'training {of}')} against {tested:,} of {named}: the same letters, or 80% "
        "of their four-letter stretches",
        limits=f"good if there are none, poor if more than 2% of the test {of}s",
        tables=(ChecklistTable(("kind", f"training {of}s"), tuple((k, f"{n:,}") for k, n in found.seen.items())),),
        examples=tuple(example(training_source=one.source, training_target=one.target) for one in shown)
        if of == "pair"
        else tuple(example(training_text=one.source) for one in shown),
    )


# ---- recorded -----------------------------------------------------------------------------------------

_LICENCE = re.compile(r"licen[cs]e", re.IGNORECASE)


def data_and_licence(folder: Path, config: dict[str, Any]) -> ChecklistRow:
    """Return the sources and the licence of the training data, as far as the run records them."""
    sources = list(_sources(config))
    licences = [str(value) for key, value in _leaves(config) if _LICENCE.search(key)]
    licences += [path.name for path in sorted(folder.glob("LICEN[CS]E*")) if path.is_file()]
    said = (
        f"Licence: {', '.join(licences)}." if licences else "The licence is not recorded: find out before you publish."
    )
    rows = tuple((kind, name, digest or "not recorded") for kind, name, digest in sources)
    return ChecklistRow(
        group="Data",
        title="Source and licence of the data",
        verdict="good" if licences and sources else "look",
        finding=said if sources else f"The sources are not recorded. {said}",
        measured=f"{counted(len(sources), 'source')} in config.yaml",
        limits="good if both are recorded; this page cannot know whether they allow what you plan",
        tables=(ChecklistTable(("kind", "source", "sha256"), rows),) if rows else (),
    )


def _sources(config: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    data = config.get("data") or {}
    listed = data.get("train") or data.get("files") or ()
    for source in [listed] if isinstance(listed, str | dict) else listed:
        if isinstance(source, str):
            yield "file", source, ""
        elif isinstance(source, dict):
            named = [
                str(source[key]) for key in ("root", "path", "source", "target") if isinstance(source.get(key), str)
            ]
            yield str(source.get("kind", "")), " ".join(named), str(source.get("sha256") or "")


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, below_it in value.items():
            yield from _leaves(below_it, str(name))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one, key)
    elif value is not None:
        yield key, value


def facts(run: Path, checkpoint: str) -> tuple[tuple[str, str], ...]:
    """Return what identifies the model, for the head of the page."""
    found = checkpoint_at(run, checkpoint)
    content = found.load(())
    task = task_of(content.config).get("kind", "none").replace("_", " ")
    parameters, step = parameters_of_run(content.config).total, content.progress.get("step")
    named = [("task", task), ("checkpoint", found.path.resolve().name), ("parameters", f"{parameters:,}")]
    named += [("steps trained", f"{step:,}")] if isinstance(step, int) else []
    return (*named, ("checksum", found.seal()[:16]))
