"""Every shipped study runs at toy size, and says something in words; its page opens anywhere."""

import json
import os

import pytest

from dragoman.compare.claims import read_claims
from dragoman.compare.results import read_results
from dragoman.compare.study import SHIPPED, SIZES, read_study, shipped
from dragoman.compare.study_request import TRIALS, StudyRequest
from dragoman.compare.study_run import StudyFinished, StudyRun

OF_NO_TEST_SET = {
    "validation loss",
    "steps needed",
    "speed against exact",
    "memory against exact",
    "difference from exact",
    "milliseconds",
    "megabytes",
    "faster from",
    "speed-up",
    "time saved",
    "largest difference of logits",
    "first token computed without a cache",
    "gradient left",
    "variance of scores",
    "slope of the softmax",
    "value",
}
"""Figures that are no score of single examples."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no machine stops here
    monkeypatch.setattr("dragoman.train.utilisation.measure", lambda *given: None)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_shipped_study_runs_at_toy_size(name, tmp_path):
    study = read_study(name, size="toy")
    *_, ended = StudyRun(StudyRequest(study, name, "toy"), tmp_path / "out").events()
    assert isinstance(ended, StudyFinished) and ended.complete
    found = read_results(tmp_path / "out" / "results.json")
    assert found["figures"] and len(found["contestants"]) >= 2
    assert found["verdicts"] or not study.intervals
    assert all(verdict["words"] for verdict in found["verdicts"])
    for path in (tmp_path / "out" / TRIALS).glob("*/seed-*.json"):
        figures = json.loads(path.read_bytes())["figures"]
        assert {figure for figure, one in figures.items() if one["resampled"] is None} <= OF_NO_TEST_SET
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "http" not in page.replace("http-equiv", "") and len(page) < 3e6


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_shipped_study_asks_a_question_and_says_how_long_it_takes(name):
    for size in SIZES:
        study = read_study(name, size=size)
        assert study.question.endswith("?") and study.minutes and study.minutes <= 60


def test_claims_and_studies_name_one_another():
    claims = {claim.id: claim for claim in read_claims(SHIPPED / "claims.yaml")}
    named = {claim.study for claim in claims.values() if claim.study}
    assert named <= shipped().keys()
    for name in shipped():
        study = read_study(name)
        assert not [claim for claim in study.claims if claim not in claims]
        assert {claim.id for claim in claims.values() if claim.study == name} <= set(study.claims)
