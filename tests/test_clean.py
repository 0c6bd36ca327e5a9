"""Cleaning: each rule removes what it names and nothing else, and the report accounts for every pair."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.text.clean import EXAMPLES, Cleaning, CleanReport, clean, normalise
from dragoman.text.lines import Pair

TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" a\t\u2028\u00a0\ufeff\u0301é"), max_size=30)
PLAIN = Pair("A plain sentence.", "Ein einfacher Satz.")

OBJECTIONS = [
    # rule            how                                  a pair it removes
    ("empty", {}, Pair("", "Satz")),
    ("empty", {}, Pair("Sentence", " \u2028\t")),
    ("too long", {"max_characters": 30}, Pair("A" * 31, "Satz, der kurz genug ist")),
    ("too long", {"max_words": 5}, Pair("one two three four five", "eins zwei drei vier fünf sechs")),
    ("length ratio", {"max_ratio": 2.0}, Pair("A sentence of ordinary length.", "Satz")),
    ("copy", {}, Pair("Home Assistant", "home assistant")),
    ("one-word copy", {"copies": "drop_single_words"}, Pair("Bluetooth", "Bluetooth")),
    ("placeholder", {"markup": "drop"}, Pair("Hello {name}!", "Hallo {name}!")),
    ("placeholder", {"markup": "drop"}, Pair("%s files", "Dateien: %s")),
    ("placeholder", {"markup": "drop"}, Pair("%(count)d files", "%(count)d Dateien")),
    ("placeholder", {"markup": "drop"}, Pair("[%key:common::state::on%]", "An")),
    ("link", {"markup": "drop"}, Pair("See https://example.org", "Siehe dort")),
    ("link", {"markup": "drop"}, Pair("Write to us", "An wir@example.org schreiben")),
    ("markup", {"markup": "drop"}, Pair("A <b>bold</b> word", "Ein fettes Wort")),
    ("markup", {"markup": "drop"}, Pair("Read [this](page)", "Das hier lesen")),
    ("markup", {"markup": "drop"}, Pair("Press **Submit**", "Absenden drücken")),
    ("duplicate", {}, PLAIN),
    ("duplicate", {}, Pair(PLAIN.source + " ", PLAIN.target.replace(" ", "\u00a0"))),
]


@pytest.mark.parametrize(("rule", "how", "pair"), OBJECTIONS)
def test_each_rule_removes_and_counts_what_it_names(rule, how, pair):
    report = CleanReport()
    assert list(clean([PLAIN, pair], Cleaning(**how), report)) == [PLAIN]
    assert {name: n for name, n in report.removed.items() if n} == {rule: 1}
    assert len(report.examples[rule]) == 1


FINE = [
    Pair("5 < 6 and 7 > 3", "5 < 6 und 7 > 3 ist wahr"),
    Pair("100 % sure", "100 % sicher"),
    Pair("It costs $5.", "Es kostet 5 $."),
    Pair("On/off (soon)", "An/aus (bald)"),
    Pair("Yes", "Ja, das ist richtig so"),
]


@pytest.mark.parametrize("pair", FINE)
def test_ordinary_sentences_stay_under_every_rule(pair):
    assert list(clean([pair], Cleaning(markup="drop"))) == [pair]


def test_every_rule_can_be_switched_off():
    cfg = Cleaning(max_characters=None, max_words=None, max_ratio=None, copies="keep", duplicates="keep", markup="keep")
    pairs = [Pair("a", "a"), Pair("a", "a"), Pair("a", "b " * 5000 + "b"), Pair("<b>{x}</b>", "http://x")]
    assert list(clean(pairs, cfg)) == pairs


@given(pairs=st.lists(st.tuples(TEXT, TEXT).map(lambda pair: Pair(*pair))), markup=st.sampled_from(["drop", "keep"]))
def test_the_report_accounts_for_every_pair(pairs, markup):
    report = CleanReport()
    kept = list(clean(iter(pairs), Cleaning(markup=markup), report))
    assert (report.read, report.kept) == (len(pairs), len(kept))
    assert report.read == report.kept + sum(report.removed.values())
    assert all(len(report.examples[rule]) == min(EXAMPLES, n) for rule, n in report.removed.items())
    assert list(clean(kept, Cleaning(markup=markup))) == kept  # once is enough


@given(text=TEXT)
def test_normalised_text_is_nfc_on_one_line_with_single_spaces(text):
    tidy = normalise(text)
    assert tidy == normalise(tidy) == unicodedata.normalize("NFC", tidy)
    assert tidy.split() == tidy.split(" ") or not tidy
    assert len(tidy.splitlines()) <= 1 and not any(unicodedata.category(c) == "Cc" for c in tidy)


def test_cleaning_reads_no_further_than_it_is_asked():
    asked = []
    cleaned = clean((asked.append(i) or Pair(f"s{i}", f"t{i}") for i in range(9)), Cleaning())
    next(cleaned), next(cleaned)
    assert asked == [0, 1]


def test_the_report_is_one_line_with_the_harshest_rule_first():
    report = CleanReport()
    list(clean([Pair("a", "a"), PLAIN, PLAIN, PLAIN, Pair("", "")], Cleaning(), report))
    assert str(report) == "1 of 5 pairs kept; removed: duplicate 2, empty 1, copy 1"
