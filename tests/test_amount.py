"""Words and tokens of a text before there is a tokenizer: about right in every script, and the same for all who ask."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.cli import plan_text
from dragoman.text.amount import count_tokens, count_words
from dragoman.text.formats.pairs import Table
from dragoman.train.automatic import measure_text
from dragoman.train.recipe import PairsConfig

#          a sentence, divided into its words by a reader
SENTENCES = {
    "English": "The cat sleeps on the sofa in the living room",
    "Russian": "Кошка спит на диване в гостиной",
    "Hindi": "बिल्ली बैठक में सोफे पर सोती है",
    "Chinese": "猫 在 客厅 的 沙发 上 睡觉",
    "Japanese": "猫 が 居間 の ソファー で 寝て います",
    "Thai": "แมว นอนหลับ อยู่ บน โซฟา ใน ห้อง นั่งเล่น",
    "Khmer": "ឆ្មា ដេក លើ សាឡុង ក្នុង បន្ទប់ ទទួល ភ្ញៀវ",
}
SPACELESS = ("Chinese", "Japanese", "Thai", "Khmer")


@pytest.mark.parametrize("language", SENTENCES)
def test_a_text_has_about_as_many_words_as_a_reader_finds(language):
    words = SENTENCES[language].split()
    written = ("" if language in SPACELESS else " ").join(words)
    assert len(words) / 1.6 <= count_words(written) <= 1.6 * len(words)


def test_words_of_two_scripts_are_counted_together():
    assert count_words("Python 猫在客厅 is 3.12") == 3 + count_words("猫在客厅")
    assert count_words("  a \t b\n") == 2 and count_words("") == count_words("   ") == 0


@given(st.text(), st.text())
def test_texts_beside_each_other_have_the_words_of_both(one, other):
    assert count_words(f"{one} {other}") == count_words(one) + count_words(other)


@pytest.mark.parametrize("language", SENTENCES)
def test_the_planner_and_the_choice_of_a_model_estimate_alike(tmp_path, language):
    text = SENTENCES[language].replace(" ", "" if language in SPACELESS else " ")
    (tmp_path / "p.tsv").write_text("".join(f"{n} {text}\tx{n}\n" for n in range(200)))
    planned = plan_text.measure_text(str(tmp_path / "p.tsv"), pairs=True)
    measured = measure_text(PairsConfig(train=(Table(path=str(tmp_path / "p.tsv")),)))
    assert planned.examples == measured.pairs
    assert planned.tokens == pytest.approx(measured.tokens(plan_text.VOCAB), abs=2)
    (tmp_path / "t.txt").write_text("".join(f"{n} {text}\n" for n in range(200)))
    running = plan_text.measure_text(str(tmp_path / "t.txt"), pairs=False)
    assert running.tokens == pytest.approx(count_tokens(measured.words, plan_text.VOCAB), abs=2)


def test_a_large_text_is_estimated_from_its_beginning_whether_compressed_or_not(tmp_path, monkeypatch):
    text = "".join(f"line {n} of the text\n" for n in range(3000)).encode()
    (tmp_path / "t.txt").write_bytes(text)
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(text))
    whole = [plan_text.measure_text(str(tmp_path / name), pairs=False).tokens for name in ("t.txt", "t.txt.gz")]
    monkeypatch.setattr(plan_text, "SAMPLE", 5000)
    parts = [plan_text.measure_text(str(tmp_path / name), pairs=False).tokens for name in ("t.txt", "t.txt.gz")]
    assert whole[0] == whole[1] and parts[0] == parts[1] == pytest.approx(whole[0], rel=0.1)
