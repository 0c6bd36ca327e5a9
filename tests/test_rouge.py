"""ROUGE is that of rouge-score, and asks for it by name where it is missing."""

import sys

import pytest
from rouge_score.rouge_scorer import RougeScorer  # pyright: ignore[reportMissingImports]

from dragoman.errors import ConfigError
from dragoman.evaluate.metrics import score
from dragoman.evaluate.rouge import ROUGES, Rouge

OUTPUTS = ["the cats sat on the mat", "a dog\nran away", "", "snake_case, it's 3.5% of U.S. 'quoted' words--here!"]
REFERENCES = ["the cat was sitting on the mat", "the dog ran\naway", "nothing", "Snake case: its 35% of US words here"]


@pytest.mark.parametrize("kind", ROUGES)
def test_the_score_is_the_mean_of_rouge_scores_own(kind):
    own = RougeScorer([kind], use_stemmer=True)
    theirs = [own.score(r, o)[kind].fmeasure for o, r in zip(OUTPUTS, REFERENCES, strict=True)]
    assert score(ROUGES[kind], OUTPUTS, REFERENCES).value == pytest.approx(100 * sum(theirs) / len(theirs))
    assert score(ROUGES[kind], REFERENCES[:2], REFERENCES[:2]).value == pytest.approx(100)


@pytest.mark.parametrize("kind", ROUGES)
@pytest.mark.parametrize(
    ("output", "reference", "other"),
    [
        ("Кошка сидит на окне", "кошка сидит на окне.", "Собака лежит под столом"),
        ("Où est né l'élève ?", "où est ne\u0301 l'e\u0301le\u0300ve", "Quels étés mûrs"),
        ("बिल्ली खिड़की पर है", "बिल्ली खिड़की पर है।", "कुत्ता मेज़ तले"),
    ],
)
def test_words_of_all_scripts_are_read(kind, output, reference, other):
    assert score(ROUGES[kind], [output], [reference]).value == pytest.approx(100)
    assert score(ROUGES[kind], [other], [reference]).value == 0


def test_an_accented_word_is_one_word():
    assert score(ROUGES["rouge2"], ["naïve"], ["naïve"]).value == 0, "there is no pair of words"
    assert score(ROUGES["rouge1"], ["naïve"], ["na ve"]).value == 0


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ConfigError, match=r"rouge-score: pip install rouge-score \(the extra rouge\)"):
        score(Rouge("rouge1", "ROUGE-1"), OUTPUTS, REFERENCES)
