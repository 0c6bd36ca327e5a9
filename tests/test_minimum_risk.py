"""Minimum Bayes risk decoding against sacreBLEU and a double loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.chrf import CHRF
from test_translator import BYTES, parrot

from dragoman.config import from_dict
from dragoman.decode.constraints.repetition import Forbidden
from dragoman.decode.search.minimum_risk import Chrf, MinimumBayesRisk
from dragoman.decode.search.sample import Sample
from dragoman.decode.translation import Candidate
from dragoman.errors import ConfigError

TEXTS = st.lists(st.text("ab c\u00e9", max_size=12), min_size=1, max_size=6)


@given(TEXTS, st.sampled_from([(6, 2.0), (3, 1.0), (1, 0.0)]))
def test_chrf_between_texts_is_sacrebleus(texts, parameters):
    order, beta = parameters
    theirs = CHRF(char_order=order, beta=beta)
    expected = [[theirs.sentence_score(one, [other]).score for other in texts] for one in texts]
    np.testing.assert_allclose(Chrf(order=order, beta=beta).between(texts), expected, atol=1e-4)


def candidate(text, log_prob=-1.0):
    return Candidate(text, log_prob, log_prob, (2,), (log_prob,), truncated=False)


@given(TEXTS.filter(any))
def test_candidates_are_ranked_by_their_mean_utility_over_all_samples(texts):
    theirs = CHRF()
    expected = {one: sum(theirs.sentence_score(one, [other]).score for other in texts) / len(texts) for one in texts}
    found = MinimumBayesRisk(nbest=20).ranked([candidate(text) for text in texts])
    assert {c.text: c.score for c in found} == pytest.approx(expected, abs=1e-3)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)


def test_consensus_beats_probability_and_the_likeliest_of_equal_texts_stands_for_them():
    samples = [candidate("zzz", -0.1), *(candidate(f"the cat sat{i}", -9.0 - i) for i in range(3))]
    samples.append(candidate("the cat sat0", -5.0))
    [best] = MinimumBayesRisk().ranked(samples)
    assert (best.text, best.log_prob) == ("the cat sat0", -5.0)


def test_a_translator_samples_ranks_by_utility_and_obeys_rules():
    translator, texts = parrot(), ["abc", "abd", "abc"]
    cfg = MinimumBayesRisk(sampling=Sample(samples=12, temperature=2.0), nbest=3)
    rules = [Forbidden(tokens=tuple(BYTES.encode("c")))]
    found = translator.translate(texts, search=cfg, rules=rules)
    raw = translator.translate(texts, search=cfg.sampling)
    assert found[0].candidates == found[2].candidates and raw[0].candidates == raw[2].candidates
    for translation in found:
        assert 1 < len(translation.candidates) <= 3 and "c" not in "".join(c.text for c in translation.candidates)
        assert all(0 <= c.score <= 100 for c in translation.candidates)
    assert found[1].candidates == translator.translate(["abd"], search=cfg, rules=rules)[0].candidates


def test_it_is_written_in_a_file():
    cfg = from_dict(MinimumBayesRisk, {"sampling": {"samples": 8}, "nbest": 2})
    assert cfg == MinimumBayesRisk(sampling=Sample(samples=8), nbest=2) and cfg.size == 8
    with pytest.raises(ConfigError, match=r"utility\.order"):
        from_dict(MinimumBayesRisk, {"utility": {"order": 0}})
