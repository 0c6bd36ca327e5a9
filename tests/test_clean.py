"""Cleaning: each rule removes what it names and nothing else, and the report accounts for every pair."""

import gc
import math
import os
import random
import signal
import statistics
import sys
import tracemalloc
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.config import from_dict
from dragoman.errors import ConfigError, DataError
from dragoman.text.cleaning import languages
from dragoman.text.cleaning.clean import EXAMPLES, Cleaning, CleanReport, clean, normalise
from dragoman.text.cleaning.remembered import SeenTexts, temporary_database
from dragoman.text.cleaning.workers import CHUNK, map_parallel
from dragoman.text.invariants import find_changes
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
    *(
        ("placeholder", {"markup": "drop"}, Pair(f"Open {text} now, at last", f"{text} endlich öffnen"))
        for text in (
            *(
                "%@",
                "%1$@",
                "%ld",
                "%lu",
                "%lld",
                "%zu",
                "%(n)ld",
                "%10.3f",
                "%1",
                "%L1",
                "%%",
                "%-5s",
                "%name%",
                "%{n}",
            ),
            *(
                "$name",
                "${name}",
                "#{n}",
                ":name",
                "@count",
                "\\n",
                "\\(name)",
                "[[page]]",
                "<1>x</1>",
                "{n, plural, one {x}}",
            ),
        )
    ),
    ("link", {"markup": "drop"}, Pair("See https://example.org", "Siehe dort")),
    ("link", {"markup": "drop"}, Pair("Write to us", "An wir@example.org schreiben")),
    ("markup", {"markup": "drop"}, Pair("A <b>bold</b> word", "Ein fettes Wort")),
    ("markup", {"markup": "drop"}, Pair("Read [this](page)", "Das hier lesen")),
    ("markup", {"markup": "drop"}, Pair("Press **Submit**", "Absenden drücken")),
    ("number mismatch", {"numbers": "drop"}, Pair("Wait 5 minutes", "Warten Sie 15 Minuten")),
    ("number mismatch", {"numbers": "drop"}, Pair("Version 2 of the file", "Eine Fassung der Datei")),
    ("script", {"source_scripts": ("latin",)}, Pair("Это по-русски", "Das ist Russisch")),
    ("script", {"target_scripts": ("latin", "greek")}, Pair("This is Japanese", "これは日本語です")),
    ("language", {"source_language": "en"}, Pair("Dies ist ganz sicher ein Satz auf Deutsch.", "Ein Satz auf Deutsch")),
    ("language", {"target_language": "de"}, Pair("A sentence", "This is most certainly a sentence in English.")),
    ("conflict", {"conflicts": "drop_rarer"}, Pair(PLAIN.source, "Ein schlichter Satz.")),
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
    Pair("100% sure, 50%-60% of it", "100% sicher, zu 50%-60%"),
    Pair("Half of them: 50 % of all", "az emberek 50%-a, 50 %-a, 20%-os, 10%-kal"),
    Pair("About 50% of people, 3.5% more", "Nüfusun %50'si, %3,5 eder, %100"),
    Pair("At 10:30 he said: no!", "♪ Um 10:30 sagte er nein ♪ 🙂"),
    Pair("It costs $5.", "Es kostet 5 $."),
    Pair("On/off (soon)", "An/aus (bald)"),
    Pair("Yes", "Ja, das ist richtig so"),
]


@pytest.mark.parametrize("pair", FINE)
def test_ordinary_sentences_stay_under_every_rule(pair):
    assert list(clean([pair], Cleaning(markup="drop"))) == [pair]


SAME_NUMBERS = [
    Pair("It costs 1,000.50 in 2024.", "2024 kostet es 1.000,50 viel"),
    Pair("10 000 people", "10,000 Menschen"),
    Pair("Page ٣", "Seite 3"),
    Pair("Chapter 07", "Kapitel 7"),
    Pair("no number", "keine Zahl"),
]


@pytest.mark.parametrize("pair", SAME_NUMBERS)
def test_numbers_are_the_same_however_they_are_written(pair):
    assert list(clean([pair], Cleaning(numbers="drop"))) == [pair]


def test_a_few_foreign_letters_and_no_letters_at_all_stay_under_the_script_rule():
    pairs = [Pair("The letter я and café", "Der Buchstabe я und Café"), Pair("100 %", "100 Prozent")]
    assert list(clean(pairs, Cleaning(source_scripts=("latin",), target_scripts=("latin",)))) == pairs


@pytest.mark.parametrize("factor", [1, 3])
def test_the_fitted_ratio_is_measured_by_the_text_itself(factor):
    pick = random.Random(3)
    sizes = [pick.randint(20, 60) for _ in range(300)]
    pairs = [Pair("s" * n + str(i), "t" * (factor * n + pick.randint(-4, 4))) for i, n in enumerate(sizes)]
    odd = Pair("s" * 40, "t" * (120 // factor))
    logs = [math.log((len(b) + 10) / (len(a) + 10)) for a, b in [*pairs, odd]]
    mean, deviation = statistics.fmean(logs), statistics.pstdev(logs)
    usual = [p for p, value in zip([*pairs, odd], logs, strict=True) if abs(value - mean) <= 3 * deviation]
    assert list(clean([*pairs, odd], Cleaning(max_deviations=3.0))) == usual
    assert odd not in usual and len(usual) > 290


def test_pairs_of_one_and_the_same_ratio_are_none_of_them_unusual():
    pairs = [Pair(f"source {i:02}", f"target {i:02}") for i in range(40)]
    assert list(clean(pairs, Cleaning(max_deviations=1e-6))) == pairs


FEW = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")).map(lambda pair: Pair(*pair)))


@given(pairs=FEW, duplicates=st.sampled_from(["drop", "keep"]))
def test_conflicts_are_settled_as_by_counting_in_memory(pairs, duplicates):
    given_to = {source: Counter(p.target for p in pairs if p.source == source) for source, _ in pairs}
    for how, stays in {
        "drop": lambda pair: len(given_to[pair.source]) == 1,
        "drop_rarer": lambda pair: given_to[pair.source].most_common(1)[0][0] == pair.target,
    }.items():
        kept = [pair for pair in pairs if stays(pair)]
        kept = list(dict.fromkeys(kept)) if duplicates == "drop" else kept
        assert list(clean(iter(pairs), Cleaning(conflicts=how, duplicates=duplicates))) == kept


@given(pairs=FEW)
def test_what_is_remembered_on_disk_answers_as_a_set_in_memory(pairs):
    assert list(clean(iter(pairs), Cleaning())) == list(dict.fromkeys(pairs))


@pytest.mark.parametrize("text", ["アーー", "サーバー", "ｻｰﾊﾞｰ", "々々", "人々、あゝ", "がぎぐ", "か\u3099き"])
def test_marks_of_japanese_are_of_the_letters_around_them(text):
    pair = Pair("Text", text)
    assert list(clean([pair], Cleaning(target_scripts=("katakana", "hiragana", "cjk"))))
    assert not list(clean([pair], Cleaning(target_scripts=("latin", "cyrillic"))))


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("cyrillic", "п\u02bcять"),  # the apostrophe of Ukrainian is a letter
        ("latin", "♥\ufe0f ♥\ufe0f ª"),
        ("latin", "5 \u00b5"),  # micro
    ],
)
def test_letters_and_marks_that_scripts_share_count_for_none(script, text):
    pair = Pair(text, "x y z")
    assert list(clean([pair], Cleaning(source_scripts=(script,))))


def test_a_script_that_is_none_is_refused_with_the_likely_one():
    with pytest.raises(ConfigError, match=r"source_scripts.*no 'latn' here. Did you mean 'latin'"):
        from_dict(Cleaning, {"source_scripts": ["latn"]})


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


@pytest.mark.usefixtures("garbage_collected_as_usual")
def test_memory_does_not_grow_with_the_pairs():
    def peak(count: int) -> int:
        gc.collect()
        tracemalloc.start()
        pairs = (Pair(f"source {i % 4000}", f"target {i}") for i in range(count))
        kept = sum(1 for _ in clean(pairs, Cleaning(max_deviations=5.0, conflicts="drop_rarer")))
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept == min(count, 4000)
        return highest

    peak(5000)  # what is filled once and stays
    assert peak(20_000) < peak(5000) + 150_000  # a hash each in a set would take a million bytes more


def test_a_full_disk_is_told_with_what_to_do():
    message = "temporary file: database or disk is full: make room, or let TMPDIR"
    with pytest.raises(DataError, match=message), temporary_database() as memory:
        seen = SeenTexts(memory)
        memory.execute("PRAGMA max_page_count = 4")
        for key in range(100_000):
            seen.seen_before(key)


def test_the_report_is_one_line_with_the_harshest_rule_first():
    report = CleanReport()
    list(clean([Pair("a", "a"), PLAIN, PLAIN, PLAIN, Pair("", "")], Cleaning(), report))
    assert str(report) == "1 of 5 pairs kept; removed: duplicate 2, empty 1, copy 1"


# ---- several processes, several languages ------------------------------------------------------------


def test_workers_remove_what_one_process_removes():
    pairs = [Pair(f"Sentence {i % 90}", f"Satz {i % 90 if i % 3 else i}" + "!" * (i % 2)) for i in range(5000)]
    cfg = Cleaning(numbers="drop", max_deviations=2.0, conflicts="drop_rarer")
    alone, shared = CleanReport(), CleanReport()
    left = list(clean(pairs, cfg, alone))
    assert list(clean(iter(pairs), cfg, shared, workers=2)) == left and shared == alone
    assert alone.removed["number mismatch"] and alone.removed["duplicate"]


def test_no_more_is_read_than_the_workers_are_busy_with():
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield Pair(f"Sentence {read}", f"Satz {read}")

    cleaned = clean(endless(), Cleaning(), workers=2)
    assert next(cleaned) == Pair("Sentence 1", "Satz 1") and read <= 4 * CHUNK
    cleaned.close()


def die(items: list[int]) -> list[int]:
    os.kill(os.getpid(), signal.SIGKILL)
    return items


def test_a_worker_that_is_killed_is_one_line():
    with pytest.raises(DataError, match=r"a worker process was killed from outside.*: use fewer workers, or 1"):
        list(map_parallel(range(10), die, 2))


def test_short_texts_and_an_unknown_language_are_given_the_benefit_and_the_list():
    short = [Pair("OK", "OK!"), Pair("Turn on", "An"), Pair("12:30", "12.30"), Pair("Wi-Fi", "WLAN")]
    assert list(clean(short, Cleaning(source_language="en", target_language="de"))) == short
    with pytest.raises(ConfigError, match=r"the language 'english' cannot .* known are .*, en, .*"):
        list(clean(short, Cleaning(source_language="english")))


@pytest.mark.parametrize(
    ("source", "target", "same"),
    [
        ("At 10:30", "Um 10.30 Uhr", True),
        ("At 10:00", "Um 10.00 Uhr", True),
        ("10.30 Uhr für 1.000 Euro", "1,000 euros at 10:30", True),
        ("On 2024-05-01", "Am 01.05.2024", True),
        ("From 9:05 to 10:30", "Von 9.05 bis 10.30", True),
        ("Version 2.0", "Version 2", True),
        ("At 10:30", "Um 10.31 Uhr", False),
        ("At 10:30", "Um 10 Uhr", False),
        ("Version 1.5", "Version 5.1", False),
    ],
)
def test_numbers_are_the_same_whatever_separates_their_groups(source, target, same):
    for pair in (Pair(source, target), Pair(target, source)):
        assert bool(list(clean([pair], Cleaning(numbers="drop", copies="keep")))) == same
        assert not find_changes(*pair) if same else find_changes(*pair)


FOREIGN = [
    "No se pudo guardar el archivo",
    "Ovo je rečenica koja je napisana na hrvatskom jeziku i govori o kući",
    "Dette er en setning som er skrevet på norsk og handler om et hus",
    "Ini adalah kalimat yang ditulis dalam bahasa Indonesia tentang rumah",
    "请输入您的用户名和密码",
]


@pytest.mark.parametrize("text", FOREIGN)
def test_a_text_is_in_another_language_however_many_languages_resemble_that_one(text):
    ranked = languages.rank_languages(text)
    assert ranked[0][1] < 0.9, "no single language is certain"
    assert languages.is_other_language("en")(text)
    for near, probability in ranked:
        if probability > 0.05:
            assert not languages.is_other_language(near)(text)


@pytest.mark.parametrize("text", ["", "OK", "4.5 GB", "v2.1.0", "{name}: %s", "ISO 9001:2015", "10.0.0.1"])
def test_a_text_without_a_language_is_in_none_other(text):
    assert not languages.is_other_language("en")(text)


def test_languages_need_their_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    languages._identifier.cache_clear()
    with pytest.raises(ConfigError, match=r"needs py3langid: pip install py3langid"):
        languages.rank_languages("a text")
