"""ROUGE is that of rouge-score, and asks for it by name where it is missing."""

import sys

import pytest
from rouge_score.rouge_scorer import RougeScorer  # pyright: ignore[reportMissingImports]

from dragoman.errors import ConfigError
from dragoman.evaluate.metrics import score
from dragoman.evaluate.rouge import ROUGES, Rouge

OUTPUTS = ["the cats sat on the mat", "a dog\nran away", "", "naïve 猫 text"]
REFERENCES = ["the cat was sitting on the mat", "the dog ran\naway", "nothing", "naïve 犬 text"]


@pytest.mark.parametrize("kind", ROUGES)
def test_the_score_is_the_mean_of_rouge_scores_own(kind):
    own = RougeScorer([kind], use_stemmer=True)
    theirs = [own.score(r, o)[kind].fmeasure for o, r in zip(OUTPUTS, REFERENCES, strict=True)]
    assert score(ROUGES[kind], OUTPUTS, REFERENCES).value == pytest.approx(100 * sum(theirs) / len(theirs))
    assert score(ROUGES[kind], REFERENCES[:2], REFERENCES[:2]).value == pytest.approx(100)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ConfigError, match=r"rouge-score: pip install rouge-score \(the extra rouge\)"):
        score(Rouge("rouge1", "ROUGE-1"), OUTPUTS, REFERENCES)
