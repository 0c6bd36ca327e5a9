"""Risk-coverage curves and thresholds of review are what they claim; signs of a weak explanation are numbers."""

import numpy as np
import pytest
from test_every_command import make
from tiny_reader import quick_disk  # noqa: F401 (a fixture)

from dragoman import inspect
from dragoman.evaluate.calibrate import review_share
from dragoman.evaluate.risk_coverage import risk_coverage
from dragoman.inspect.doubt import EXPLANATION_FEATURES, disagreement


def test_a_perfect_order_keeps_the_errors_for_the_end_and_a_reversed_one_begins_with_them():
    error = np.array([0, 0, 1, 0])
    perfect, reversed_ = risk_coverage(1 - error, error), risk_coverage(error, error)
    assert perfect.risk_at(0.75) == 0
    assert perfect.area == pytest.approx((0 + 0 + 0 + 1 / 4) / 4)
    assert reversed_.area == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert perfect.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]


def test_certainty_that_says_nothing_has_the_mean_error_as_its_area():
    error = np.array([1, 0, 0, 0, 1])
    curve = risk_coverage(np.zeros(5), error)
    assert curve.area == pytest.approx(0.4)
    assert curve.risk == pytest.approx(np.full(5, 0.4))


def test_the_area_does_not_depend_on_the_order_of_equally_certain_answers():
    draw = np.random.default_rng(0)
    sure, error = draw.integers(0, 4, 60), draw.integers(0, 2, 60)
    rows = draw.permutation(60)
    assert risk_coverage(sure, error).area == pytest.approx(risk_coverage(sure[rows], error[rows]).area)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
def test_a_share_goes_to_review_and_what_is_kept_has_the_errors_of_the_curve(share):
    draw = np.random.default_rng(1)
    sure = draw.permutation(100) / 100
    right = draw.random(100) < sure
    found = review_share(sure, right, share)
    assert found.share == pytest.approx(share)
    assert (sure < found.flag_below).mean() == pytest.approx(share)
    assert found.errors == pytest.approx(risk_coverage(sure, ~right).risk_at(1 - share))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
def test_the_threshold_that_is_printed_sends_the_share_that_is_printed(share):
    draw = np.random.default_rng(1)
    sure = 1 - draw.random(1000) ** 4 / 40  # most of them within a hundredth
    right = draw.random(1000) < sure
    line = str(review_share(sure, right, share)).split()
    threshold, told = (
        float(line[line.index("--flag-below") + 1]),
        float(line[line.index("sends") + 1].rstrip("%")) / 100,
    )
    assert (sure < threshold).mean() == pytest.approx(told, abs=0.005)
    assert told == pytest.approx(share, abs=0.05)


def test_equally_sure_sentences_are_all_kept():
    everything = review_share(np.full(60, 0.99996), np.ones(60, dtype=bool), 0.2)
    assert everything.share == 0 and everything.errors == 0


def test_equal_attributions_agree_opposite_ones_disagree_most():
    scores = np.random.default_rng(0).normal(size=(6, 3))
    assert disagreement(scores, scores * 2 + 1) == pytest.approx(0)
    assert disagreement(scores, -scores) == pytest.approx(2)


def test_a_translation_has_features_of_its_explanation(tmp_path):
    subject = inspect.Subject.open(make("translation", tmp_path / "run"))
    ids = subject.inputs("abc", "xy").target_ids
    found = inspect.explanation_features(subject, "abc", ids)
    assert found.shape == (len(EXPLANATION_FEATURES),)
    assert np.isfinite(found).all()
    assert 0 <= found[0] <= 2
    assert np.isfinite(inspect.explanation_features(subject, "a", ids)).all()
