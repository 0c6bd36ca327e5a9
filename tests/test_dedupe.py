"""Near duplicates: what goes is near to something that stays, by the plain definition, and hardly any is missed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.text.cleaning.dedupe import HASHES, Deduplication, DuplicateReport, band_shape, dedupe, shingles
from dragoman.text.cleaning.split import jaccard
from dragoman.text.lines import Pair


def corpus(count: int) -> list[Pair]:
    """Sentences of random words, and for each a variant with some letters changed."""
    pick, pairs = random.Random(5), []
    words = ["".join(pick.choices("abcdefghijklmnop", k=pick.randint(3, 8))) for _ in range(300)]
    for _ in range(count):
        source, target = pick.choices(words, k=8), pick.choices(words, k=8)
        pairs.append(Pair(" ".join(source), " ".join(target)))
        for side in (source, target):
            side[pick.randrange(8)] += pick.choice(["", "s", "ed", "ing ly un"])
        pairs.append(Pair(" ".join(source), " ".join(target)))
    return pick.sample(pairs, len(pairs))


def texts(pair: Pair, by: str) -> tuple[str, ...]:
    return {"pair": tuple(pair), "source": (pair.source,), "target": (pair.target,)}[by]


def near(a: Pair, b: Pair, cfg: Deduplication) -> bool:
    assert cfg.near is not None
    return jaccard(shingles(texts(a, cfg.by)), shingles(texts(b, cfg.by))) >= cfg.near


@pytest.mark.parametrize("by", ["pair", "source", "target"])
@pytest.mark.parametrize("limit", [0.6, 0.8])
def test_what_goes_is_near_to_what_stays_and_hardly_any_is_missed(by, limit):
    cfg, report, pairs = Deduplication(by=by, near=limit), DuplicateReport(), corpus(60)
    kept = list(dedupe(iter(pairs), cfg, report))
    plain: list[Pair] = []
    for pair in pairs:
        if not any(near(pair, other, cfg) for other in plain):
            plain.append(pair)
    assert len(plain) < 100
    assert set(plain) <= set(kept) and len(kept) - len(plain) <= 1
    assert report.read == 120 and report.kept == len(kept) == 120 - sum(report.removed.values())
    assert all(near(gone, stays, cfg) and stays in kept for gone, stays in report.examples["near"])


SHORT = st.lists(st.tuples(st.sampled_from(["a", "a ", "b", ""]), st.sampled_from("xy")).map(lambda pair: Pair(*pair)))


@given(pairs=SHORT, by=st.sampled_from(["pair", "source", "target"]))
def test_of_exact_duplicates_the_first_stays_as_it_was(pairs, by):
    first: dict[tuple[str, ...], Pair] = {}
    for pair in pairs:
        first.setdefault(texts(Pair(pair.source.strip(), pair.target), by), pair)
    assert list(dedupe(pairs, Deduplication(by=by, near=None))) == list(first.values())


@pytest.mark.parametrize("limit", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_texts_at_the_limit_are_missed_one_time_in_a_hundred_at_most(limit):
    count, rows = band_shape(limit)
    assert ((1 - limit**rows) ** count <= 0.01 or rows == 1) and count == HASHES // rows


def test_workers_find_what_one_process_finds():
    pairs, alone, shared = corpus(1200), DuplicateReport(), DuplicateReport()
    left = list(dedupe(pairs, Deduplication(), alone))
    assert list(dedupe(pairs, Deduplication(), shared, workers=2)) == left and shared == alone


def test_the_report_is_one_line():
    report = DuplicateReport()
    pairs = [Pair("the quick brown fox jumps", "x"), Pair("the quick brown fox jumps!", "x"), Pair("a", "b")] * 2
    list(dedupe(pairs, Deduplication(), report))
    assert str(report) == "2 of 6 pairs kept; removed: exact duplicates 3, near duplicates 1"
