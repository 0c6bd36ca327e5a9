"""Holding out: nothing like a test or validation pair is in training, by the plain definition of likeness."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.errors import DataError
from dragoman.text.cleaning.split import Hardness, HoldOut, grams, hold_out, jaccard, letters, overlap, without_overlap
from dragoman.text.lines import Pair

WORDS = ["light", "Light", "the", "a", "turn", "on", "off", "7", "device", "deVice!", "is", "configured", "已", "नमस्ते"]
SENTENCE = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
PAIRS = st.lists(st.tuples(SENTENCE, SENTENCE).map(lambda pair: Pair(*pair)), min_size=12, max_size=40)


def alike(a: str, b: str, near: float | None) -> bool:
    """The definition, without any index."""
    a, b = letters(a), letters(b)
    return a == b or (near is not None and jaccard(grams(a), grams(b)) >= near)


def like_any(pair: Pair, held: list[Pair], near: float | None) -> bool:
    return any(alike(pair.source, other.source, near) or alike(pair.target, other.target, near) for other in held)


@given(pairs=PAIRS, near=st.sampled_from([None, 0.3, 0.5, 0.8, 1.0]), seed=st.integers(0, 3))
@settings(max_examples=200)
def test_training_is_exactly_what_is_like_nothing_held_out(pairs, near, seed):
    try:
        split = hold_out(pairs, HoldOut(test=2, valid=2, near=near, seed=seed))
    except DataError:
        return
    held = split.test + split.valid
    assert split.train == [pair for pair in pairs if not like_any(pair, held, near)]
    assert not any(like_any(pair, split.test, near) for pair in split.valid)
    assert len(split.test) == len(split.valid) == 2
    assert sum(split.removed.values()) + len(split.train) + len(held) == len(pairs)


def many(count: int) -> list[Pair]:
    pick = random.Random(7)
    sentences = (" ".join(pick.choices("abcdefghijklmnop", k=30)) for _ in range(2 * count))
    return [Pair(a, b) for a, b in zip(sentences, sentences, strict=True)]


def test_the_order_of_the_pairs_does_not_change_what_is_held_out():
    pairs = many(300)
    split, shuffled = (hold_out(p, HoldOut(test=20, valid=10)) for p in (pairs, random.Random(1).sample(pairs, 300)))
    assert (split.test, split.valid) == (shuffled.test, shuffled.valid)
    assert sorted(split.train) == sorted(shuffled.train)


def test_added_pairs_leave_most_of_the_test_set_as_it_was():
    pairs = many(1000)
    before, after = (hold_out(p, HoldOut(test=100, valid=0)).test for p in (pairs[:900], pairs))
    assert len(set(before) - set(after)) <= 25  # on average one in ten of the new pairs takes an old one's place


def test_another_seed_holds_out_other_pairs():
    pairs = many(1000)
    first, second = (set(hold_out(pairs, HoldOut(test=50, valid=0, seed=seed)).test) for seed in (1, 2))
    assert len(first & second) < 15


def test_nothing_is_held_out_where_none_is_asked_for():
    pairs = many(20)
    assert hold_out(pairs, HoldOut(test=0, valid=0)).train == pairs


def test_too_few_pairs_are_an_error_with_the_numbers():
    with pytest.raises(
        DataError, match="20 pairs with 20 different sources are too few to hold out 15 for test and 5 "
    ):
        hold_out(many(20), HoldOut(test=15, valid=5))
    with pytest.raises(DataError, match="20 pairs with 1 different sources are too few"):
        hold_out([Pair(f"Zone {i}", f"Zona {i}") for i in range(20)], HoldOut(test=1, valid=1))


LIKENESSES = [
    ("same source", Pair("turn ON the light, 2!", "etwas anderes")),
    ("near source", Pair("Turn on the lights", "etwas anderes")),
    ("same target", Pair("something else", "schalte das licht ein")),
    ("near target", Pair("something else", "Schalte das Licht ein: an")),
    (None, Pair("something else", "etwas anderes")),
]


@pytest.mark.parametrize(("why", "pair"), LIKENESSES)
def test_overlap_says_why_a_pair_is_like_the_test_set(why, pair):
    test = [Pair("Turn on the light.", "Schalte das Licht ein.")]
    report = overlap([pair], test)
    assert {reason: n for reason, n in report.seen.items() if n} == ({why: 1} if why else {})
    assert report.trained == 1 and (why is None or report.examples[why] == [pair])
    assert list(without_overlap([pair], test)) == ([] if why else [pair])


@pytest.mark.parametrize(("why", "pair"), LIKENESSES)
@pytest.mark.parametrize("copies", [1, 50])
def test_overlap_counts_the_test_pairs_however_many_training_pairs_are_like_them(why, pair, copies):
    test = [
        Pair("Turn on the light.", "Schalte das Licht ein."),
        Pair("Where are we?", "Wo sind wir?"),
        Pair("turn on the light", "Licht an"),
    ]
    report = overlap([pair] * copies, test)
    assert report.hit == {"source": 2, "target": 1, "": 0}[(why or "").rpartition(" ")[2]]
    assert sum(report.seen.values()) == (copies if why else 0)
    twice = overlap([pair, Pair("where are we", "?!")], test)
    assert twice.hit == report.hit + 1


def test_near_duplicates_count_only_where_they_are_asked_for():
    test, pair = [Pair("Turn on the light.", "Licht ein")], Pair("Turn on the lights.", "Lampen ein")
    assert sum(overlap([pair], test, near=None).seen.values()) == 0


def test_letters_keep_the_marks_of_every_script():
    assert letters("\uff26ull-Width 3") == "fullwidth"
    assert letters("कि") != letters("की")
    assert letters("100 %") != letters("200 %")  # without letters, all of it counts


def test_hard_pairs_are_the_longest_of_the_rarest_words_and_kept_apart():
    pairs = many(300)
    plain, split = hold_out(pairs, HoldOut(test=20, valid=10)), hold_out(pairs, HoldOut(test=20, valid=10, hard=8))
    assert split.test == plain.test and split.valid == plain.valid, "the other sets stay what they are"
    hardness = Hardness(pair.source for pair in pairs)
    assert len(split.hard) == 8
    assert min(hardness.score(p.source) for p in split.hard) >= max(hardness.score(p.source) for p in split.train)
    assert not any(overlap(split.train, split.hard).seen.values())
    assert not any(overlap(split.hard, [*split.test, *split.valid]).seen.values())
    assert hold_out(random.Random(1).sample(pairs, 300), HoldOut(test=20, valid=10, hard=8)).hard == split.hard


def test_a_rare_word_is_harder_than_a_frequent_one_and_more_words_than_fewer():
    hardness = Hardness(["the light", "the Light", "the lamp"])
    assert hardness.score("the") < hardness.score("light") < hardness.score("lamp") < hardness.score("the lamp")
    assert hardness.score("never seen") >= hardness.score("lamp lamp")


def test_too_few_pairs_for_a_hard_set_are_told():
    with pytest.raises(DataError, match="15 for test, 3 as hard ones and 5 for validation"):
        hold_out(many(20), HoldOut(test=15, valid=5, hard=3))
