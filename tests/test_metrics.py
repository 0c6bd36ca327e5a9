"""Scores against sacreBLEU's own, and intervals against what they promise."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics.base import Metric as SacrebleuMetric

from dragoman.errors import DataError
from dragoman.evaluate.metrics import METRICS, SAMPLES, Sacrebleu, compare, samples, score

TEXT = "The the a Cat dog house, sees eats 'quickly' (today). it's 12.5% über naïve 猫 &amp; !"
WORDS = TEXT.split()


def corpus(sentences, noise, seed=0):
    """References, and outputs in which each word is another one with probability ``noise``."""
    choose = random.Random(seed)
    references = [" ".join(choose.choices(WORDS, k=choose.randint(1, 20))) for _ in range(sentences)]
    outputs = [" ".join(w if choose.random() > noise else choose.choice(WORDS) for w in r.split()) for r in references]
    return outputs, references


OUTPUTS, REFERENCES = corpus(150, 0.3)
OWN = {
    "bleu": lambda o, r: sacrebleu.corpus_bleu(o, [r]),
    "chrf": lambda o, r: sacrebleu.corpus_chrf(o, [r]),
    "chrf++": lambda o, r: sacrebleu.corpus_chrf(o, [r], word_order=2),
    "ter": lambda o, r: sacrebleu.corpus_ter(o, [r]),
    "bleu_lowercase_tokenized": lambda o, r: sacrebleu.corpus_bleu(o, [r], lowercase=True, smooth_method="none"),
    "bleu_lowercase_as_given": lambda o, r: sacrebleu.corpus_bleu(
        o, [r], lowercase=True, tokenize="none", smooth_method="none", force=True
    ),
    "bleu_zh": lambda o, r: sacrebleu.corpus_bleu(o, [r], tokenize="zh"),
    "bleu_char": lambda o, r: sacrebleu.corpus_bleu(o, [r], tokenize="char"),
    "bleu_intl": lambda o, r: sacrebleu.corpus_bleu(o, [r], tokenize="intl"),
}


@pytest.mark.parametrize("name", OWN)
def test_the_score_is_what_sacrebleu_says(name):
    for outputs, references in [(OUTPUTS, REFERENCES), (REFERENCES, REFERENCES), (["a b"], ["c d"]), ([""], ["a"])]:
        assert score(METRICS[name], outputs, references).value == pytest.approx(OWN[name](outputs, references).score)


def test_every_metric_is_tested():
    assert set(METRICS) == {*OWN, "exact_match"}


@pytest.mark.parametrize(("name", "metric"), [("bleu", "bleu"), ("chrf", "chrf")])
def test_score_and_signature_are_those_of_the_sacrebleu_command(name, metric, tmp_path):
    files = []
    for kind, lines in [("out", OUTPUTS), ("ref", REFERENCES)]:
        files.append(tmp_path / kind)
        files[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", str(files[1]), "-i", str(files[0]), "-m", metric, "-w", "6"]
    theirs = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    ours = score(METRICS[name], OUTPUTS, REFERENCES)
    assert ours.value == pytest.approx(theirs["score"], abs=1e-5)
    assert ours.signature == theirs["signature"]


def test_exact_match_counts_equal_lines():
    assert score(METRICS["exact_match"], ["a", "b", "c "], ["a", "x", "c"]).value == pytest.approx(100 / 3)


def test_lowercasing_forgives_case_alone():
    outputs = [r.swapcase() for r in REFERENCES]
    assert score(METRICS["bleu_lowercase_tokenized"], outputs, REFERENCES).value == pytest.approx(100)
    assert score(METRICS["bleu"], outputs, REFERENCES).value < 60


# ---- intervals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bleu", "chrf", "exact_match"])
def test_resampled_scores_are_those_of_the_resampled_sentences(name):
    metric = METRICS[name]
    counts = metric.counts(OUTPUTS, REFERENCES)
    for sample, _ in zip(samples(len(OUTPUTS)), range(5), strict=False):
        rows = np.repeat(np.arange(len(OUTPUTS)), sample.astype(int))
        assert len(rows) == len(OUTPUTS)
        drawn = score(metric, [OUTPUTS[i] for i in rows], [REFERENCES[i] for i in rows])
        assert metric.value(sample @ counts) == pytest.approx(drawn.value)


def test_the_interval_holds_the_score_and_narrows_with_more_sentences():
    few, many = (score(METRICS["chrf"], OUTPUTS[:n], REFERENCES[:n]) for n in (20, 150))
    for s in (few, many):
        assert s.interval[0] < s.value < s.interval[1]
    assert np.diff(many.interval) < np.diff(few.interval)
    assert score(METRICS["chrf"], OUTPUTS, REFERENCES) == many, "drawn by a fixed seed"


def test_the_interval_of_a_share_is_the_binomial_one():
    outputs = ["right" if i % 4 else "wrong" for i in range(400)]
    low, high = score(METRICS["exact_match"], outputs, ["right"] * 400).interval
    deviation = 100 * (0.75 * 0.25 / 400) ** 0.5
    assert (low, high) == pytest.approx((75 - 1.96 * deviation, 75 + 1.96 * deviation), abs=0.8)


# ---- two systems -----------------------------------------------------------------------------------


def test_a_system_does_not_differ_from_itself():
    same = compare(METRICS["bleu"], OUTPUTS, OUTPUTS, REFERENCES)
    assert same.a == same.b and same.interval == (0, 0) and same.p == 1


def test_a_better_system_is_told_from_a_worse_one_and_equal_ones_are_not():
    worse, _ = corpus(150, 0.45)
    found = compare(METRICS["chrf"], worse, OUTPUTS, REFERENCES)
    assert found.a < found.b and found.interval[0] > 0 and found.p <= 2 / SAMPLES
    half = [w if i % 2 else o for i, (w, o) in enumerate(zip(worse, OUTPUTS, strict=True))]
    other = [o if i % 2 else w for i, (w, o) in enumerate(zip(worse, OUTPUTS, strict=True))]
    found = compare(METRICS["chrf"], half, other, REFERENCES)
    assert found.interval[0] < 0 < found.interval[1] and found.p > 0.05


@pytest.mark.parametrize("sentences", [2, 3, 5, 8, 200])
@pytest.mark.parametrize("equal", [0, 40])
def test_a_few_sentences_that_differ_show_no_more_than_a_sign_test_does(sentences, equal):
    ours, theirs = ["right"] * (sentences + equal), ["wrong"] * sentences + ["right"] * equal
    found = compare(METRICS["exact_match"], theirs, ours, ours)
    sign_test = 2 * 0.5**sentences
    assert found.p >= sign_test and (found.p < 0.01) == (sign_test < 0.01)


def test_a_single_sentence_is_no_test_set_to_compare_on():
    with pytest.raises(DataError, match="a single one"):
        compare(METRICS["bleu"], ["one thing"], ["another thing"], ["a third thing"])


def test_the_paired_bootstrap_agrees_with_sacrebleu():
    from sacrebleu.significance import PairedTest

    other = [o if i % 9 else r for i, (o, r) in enumerate(zip(OUTPUTS, REFERENCES, strict=True))]
    metric = METRICS["bleu"]
    assert isinstance(metric, Sacrebleu)
    inner: SacrebleuMetric = metric.build()
    _, theirs = PairedTest([("a", OUTPUTS), ("b", other)], {"BLEU": inner}, [REFERENCES], "bs", 1000)()
    ours = compare(metric, OUTPUTS, other, REFERENCES)
    assert (ours.a, ours.b) == pytest.approx([result.score for result in theirs["BLEU"]])
    assert ours.p == pytest.approx(theirs["BLEU"][1].p_value, abs=0.02)


# ---- mistakes --------------------------------------------------------------------------------------


def test_unequal_counts_are_refused_with_both():
    with pytest.raises(DataError, match="2 outputs for 3 references"):
        score(METRICS["bleu"], ["a", "b"], ["a", "b", "c"])
    with pytest.raises(DataError, match="1 outputs for 2 references"):
        compare(METRICS["bleu"], ["a", "b"], ["a"], ["a", "b"])
    with pytest.raises(DataError, match="nothing to score"):
        score(METRICS["bleu"], [], [])
