"""The bug museum: every planted mistake is found, named and located, and its right twin is free of it."""

import pytest
import torch
from museum.entries import EXHIBITS, healthy_batch
from museum.ours import HEALTHY, OURS, model_of

from dragoman.inspect.doctor import Severity, examine

RANK = ["note", "warning", "error"]


def found(report, check, where, severity):
    return [
        finding
        for finding in report.findings
        if finding.check == check
        and finding.where.startswith(where)
        and RANK.index(finding.severity) >= RANK.index(severity)
    ]


def told(report):
    return [(f.severity.value, f.check, f.where, f.title, f.evidence) for f in report.findings] + [
        (s.check, s.reason) for s in report.skipped
    ]


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=str)
def test_a_planted_mistake_is_found_named_and_located(exhibit):
    torch.manual_seed(0)
    model = exhibit.build(exhibit.bug)
    report = examine(model, exhibit.batch(), **exhibit.options(exhibit.bug, model))
    assert found(report, exhibit.check, exhibit.where, exhibit.severity), told(report)


TWINS: dict = {}


def twin_report(exhibit):
    """Examine the model without its mistake; many exhibits have the same one."""
    torch.manual_seed(0)
    model = exhibit.build(None)
    options = exhibit.options(None, model)
    kind = (type(model), exhibit.bug if options else None, str(healthy_batch(exhibit)))
    if kind not in TWINS:
        TWINS[kind] = examine(model, healthy_batch(exhibit), **options)
    return TWINS[kind]


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=str)
def test_the_right_twin_is_free_of_it(exhibit):
    report = twin_report(exhibit)
    assert not report.errors, told(report)
    assert not [f for f in report.of(Severity.warning) if f.check == exhibit.check], told(report)


@pytest.mark.parametrize("bug", OURS, ids=str)
def test_a_mistake_in_a_model_of_this_package_is_found_named_and_located(bug):
    report = examine(bug.build(), **bug.options)
    assert found(report, bug.check, bug.where, bug.severity), told(report)


def test_the_model_of_this_package_without_a_mistake_has_none():
    report = examine(model_of(HEALTHY))
    assert not report.errors and not report.of(Severity.warning), told(report)


def test_the_museum_holds_twenty_kinds_of_mistakes_in_models_of_ours_and_in_plain_pytorch():
    kinds = {exhibit.bug for exhibit in EXHIBITS}
    assert len(kinds) >= 40
    assert len({bug.bug for bug in OURS}) >= 16
