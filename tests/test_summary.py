"""Summaries of a text: what is counted is what a plain count in memory finds."""

import math
import statistics
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dragoman.text.cleaning.clean import normalise
from dragoman.text.cleaning.summary import histogram, percentile, summarise, total
from dragoman.text.lines import Pair

TEXT = st.sampled_from(["", "a", "A", "b ", "ein Satz", "語", "Слово и дело", "a  b", "a b"])
PAIRS = st.lists(st.tuples(TEXT, TEXT).map(lambda pair: Pair(*pair)))


@given(pairs=PAIRS)
def test_a_summary_counts_what_is_there(pairs):
    summary = summarise(iter(pairs))
    tidy = [Pair(normalise(a), normalise(b)) for a, b in pairs]
    assert summary.pairs == len(pairs) == sum(summary.ratios)
    assert summary.duplicates == len(tidy) - len(set(tidy))
    assert summary.copies == sum(a.casefold() == b.casefold() != "" for a, b in tidy)
    assert summary.conflicts == len(set(tidy)) - len({a for a, _ in tidy})
    assert summary.untidy == sum(a != b for a, b in zip(pairs, tidy, strict=True))
    for side, texts in (
        (summary.source, [a for a, _ in tidy]),
        (summary.target, [b for _, b in tidy]),
    ):
        assert side.characters == Counter("".join(texts))
        assert total(side.lengths) == sum(map(len, texts))
        assert (side.different, side.empty) == (len(set(texts)), texts.count(""))
    if tidy:
        logs = [math.log((len(b) + 10) / (len(a) + 10)) for a, b in tidy]
        assert math.isclose(math.log(summary.ratio), statistics.fmean(logs), abs_tol=1e-9)
        assert math.isclose(summary.deviation, statistics.pstdev(logs), abs_tol=1e-7)


def test_scripts_are_those_of_the_letters():
    summary = summarise([Pair("Слово, ok 12", "日本の")])
    assert summary.source.scripts() == {"cyrillic": 5, "latin": 2}
    assert summary.target.scripts() == {"cjk": 2, "hiragana": 1}


@given(numbers=st.lists(st.integers(0, 500), min_size=1), share=st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.99, 1.0]))
def test_percentiles_and_bars_are_those_of_the_sorted_list(numbers, share):
    counts, ordered = Counter(numbers), sorted(numbers)
    assert percentile(counts, share) == ordered[max(0, math.ceil(share * len(ordered)) - 1)]
    bars = histogram(counts)
    assert [counted for *_, counted in bars] == [sum(low <= n <= high for n in numbers) for low, high, _ in bars]
    assert sum(counted for *_, counted in bars) == len(numbers)
