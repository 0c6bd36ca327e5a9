# ruff: noqa: RUF001  (full stops of many scripts)
"""Text sentence by sentence: where it is divided, and what comes of the parts."""

import json

import pytest
from test_translator import BYTES, parrot

from dragoman.decode import multiline
from dragoman.decode.documents.source_line import combine
from dragoman.decode.job import Job
from dragoman.decode.request import Request
from dragoman.decode.search.beam import Beam
from dragoman.decode.segmentation import TextSegment, glue_after
from dragoman.decode.sentence_splitting import BySentences, NoSplitting, SentenceCount
from dragoman.decode.translation import Candidate, Translation

ONE = ["See e.g. this.", "Use v1.2.3 now.", "Dr. Smith came.", "Wait... then go.", "Go to https://a.b/C.D?e=F. now"]
ONE += [
    "Is it {a. B} here?",
    "<b>One. Two</b> here",
    "It costs $5.50.",
    "U.S. troops",
    "Yes.No",
    "1. Open it",
    "A. B. C.",
]
ONE += [
    "Approx. 5 min. left",
    "at 5 p.m. Tuesday we go",
    "Hello!!!",
    "Open `a. B` now",
    "Mr. and Mrs. Smith",
    "?! ...",
    "",
]
TWO = [
    ("The door is open. The window is closed.", ["The door is open.", "The window is closed."]),
    ("Are you sure? This cannot be undone.", ["Are you sure?", "This cannot be undone."]),
    ("Dr. Smith came. He left!", ["Dr. Smith came.", "He left!"]),
    ("你好。世界！", ["你好。", "世界！"]),
    ("これはペンです。あれは本です。", ["これはペンです。", "あれは本です。"]),
    ("Hola. ¿Qué tal? Bien.", ["Hola.", "¿Qué tal?", "Bien."]),
    ("Open <b>it</b>. Then close {x}.", ["Open <b>it</b>.", "Then close {x}."]),
    ("<b>One. Two.</b> Three.", ["<b>One. Two.</b> Three."]),
]


@pytest.mark.parametrize("text", ONE)
def test_a_sentence_is_not_divided(text):
    assert [part.text for part in BySentences().parts(text)] == [text]


@pytest.mark.parametrize(("text", "sentences"), TWO)
def test_sentences_are_divided_where_they_end(text, sentences):
    assert [part.text for part in BySentences().parts(text)] == sentences


GOES_ON = [
    ("ja", "「行こう。」と彼は言った。"),
    ("ja", "彼は「本当？」と聞いた。"),
    ("ja", "『行こう！』　彼は言った。"),
    ("zh", "“我们走吧。”他说。"),
    ("zh", "“好。”Tom说。"),
    ("zh", "（见图。）然后走。"),
    ("zh", "“好。”（笑）他走了。"),
    ("hi", '"यह है।" उसने कहा।'),
    ("hi", "“यह है।” उसने कहा।"),
]


@pytest.mark.parametrize(("language", "text"), GOES_ON)
def test_a_sentence_that_goes_on_after_a_quotation_is_not_divided(language, text):
    assert [part.text for part in BySentences(language).parts(text)] == [text]


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("ja", ["「行こう。」", "「うん。」", "「そう。」と彼は言った。", "次だ。"]),
        ("zh", ["“好。”", "“走吧！”他说。", "天黑了。"]),
        ("ja", ["「行こう。」\n", "彼は言った。"]),
        ("en", ["“Go.” ", "He left. ", 'She said "No." ', "Then it rained."]),
    ],
)
def test_a_quotation_ends_a_sentence_where_another_begins_or_the_first_letter_tells(language, sentences):
    assert [p.text + p.glue for p in BySentences(language).parts("".join(sentences))] == sentences


@pytest.mark.parametrize("text", ["『好。』『走。』", "「え？」「本当！」", "（好。）（走。）"])
def test_no_sentence_begins_with_a_closing_mark(text):
    assert all(part.text[0] not in "』」）" for part in BySentences("zh").parts(text))


def test_abbreviations_are_those_of_the_language():
    text = "Das ist z. B. gut. Am 3. Mai kommt er."
    assert [part.text for part in BySentences("de-AT").parts(text)] == ["Das ist z. B. gut.", "Am 3. Mai kommt er."]


@pytest.mark.parametrize("text", [*ONE, *(text for text, _ in TWO), "One.  Two.\u00a0Three. "])
def test_sentences_and_the_white_space_between_them_are_the_text(text):
    assert "".join(part.text + part.glue for part in BySentences().parts(text)) == text


# ---- in a translator ---------------------------------------------------------------------------------


def split(translator):
    translator.splitter = BySentences()
    return translator


def test_each_sentence_is_translated_as_if_it_stood_alone():
    sentences = ["One is here.", "Two is there!"]
    alone = parrot().translate(sentences)
    [whole] = split(parrot()).translate([" ".join(sentences)])
    assert whole.text == " ".join(t.text for t in alone) and not whole.warnings
    best, parts = whole.candidates[0], [t.candidates[0] for t in alone]
    assert best.tokens == parts[0].tokens + parts[1].tokens
    assert best.token_log_probs == parts[0].token_log_probs + parts[1].token_log_probs
    assert best.log_prob == pytest.approx(sum(p.log_prob for p in parts))
    assert whole.confidence == min(t.confidence for t in alone)


def test_candidates_of_the_whole_are_put_together_of_those_of_the_parts_best_first():
    search = Beam(size=4, nbest=4)
    [one] = split(parrot()).translate(["One is here. Two is there!"], beam=4)
    [several] = split(parrot()).translate(["One is here. Two is there!"], search=search)
    scores = [c.score for c in several.candidates]
    assert several.text == one.text and 1 < len(scores) <= 4 and scores == sorted(scores, reverse=True)
    assert len({c.text for c in several.candidates}) == len(scores)


def _answers(count, tokens=50):
    candidate = Candidate("a b.", -1.0, -1.0, Copied((5,) * tokens), Copied((-0.1,) * tokens), truncated=False)
    return [Translation(row, "a b.", (candidate,)) for row in range(count)]


JOINS = {
    "sentences": lambda job, found: job.best_combinations([TextSegment("a b.", " ")] * len(found), found),
    "lines": lambda job, found: multiline._joined("\n".join(["a b."] * len(found)), found, ["\n"] * (len(found) - 1)),
    "parts of a line": lambda job, found: combine(1, "a b.", "a b.", found),
}


class Copied(tuple):
    """Tuple that counts the elements that are copied when tuples are added."""

    count = 0

    def __add__(self, after):
        Copied.count += len(self) + len(after)
        return Copied((*self, *after))

    def __radd__(self, before):
        return Copied(before) + self


@pytest.mark.parametrize("join", JOINS)
def test_no_token_is_copied_again_for_each_part_that_is_joined(join, monkeypatch):
    monkeypatch.setattr(Copied, "count", 0)
    job = Job(parrot().model, BYTES, BYTES, cfg=Beam(), batch_tokens=1, longest=1)
    found = _answers(200)
    JOINS[join](job, [answer.candidates for answer in found] if join == "sentences" else found)
    assert Copied.count <= 200 * len(found[0].candidates[0].tokens)


def test_a_text_whose_beginning_or_terms_are_given_is_taken_as_one():
    for request in (Request("One. Two", prefix="x"), Request("One. Two", required=(("x",),))):
        [found] = split(parrot()).translate([request], beam=1)
        assert "x" in found.text and found.candidates[0].tokens.count(2) == 1


# ---- when ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "mostly"), [(["One."] * 9 + ["One. Two."], True), (["One. Two.", "One."], False), ([], False)]
)
def test_texts_of_single_sentences_are_told_from_others(texts, mostly):
    assert SentenceCount.of(texts, None).mostly_single is mostly


def test_what_was_counted_at_training_counts_and_else_the_validation_texts(tmp_path):
    assert SentenceCount.read(tmp_path, None) == SentenceCount()
    (tmp_path / "valid.jsonl").write_text(
        "\n".join(json.dumps({"source": s, "target": "x"}) for s in ("One.", "A. Bee."))
    )
    assert SentenceCount.read(tmp_path, None).texts == 2
    (tmp_path / "report.json").write_text(json.dumps({"pairs": {}}))
    assert SentenceCount.read(tmp_path, None).texts == 2
    (tmp_path / "report.json").write_text(json.dumps({"sentences": {"texts": 10, "single": 9}}))
    assert SentenceCount.read(tmp_path, None) == SentenceCount(texts=10, single=9)
    (tmp_path / "report.json").write_text("{")
    assert SentenceCount.read(tmp_path, None) == SentenceCount()


def test_a_translator_that_was_told_nothing_takes_texts_as_they_are():
    assert isinstance(parrot().splitter, NoSplitting)


# ---- what stands between the translations ----------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "glue", "translation", "between"),
    [
        ("你好。", "", "Hello.", " "),
        ("「你好。」", "", 'He said "hello."', " "),
        ("你好。", "", "こんにちは。", ""),
        ("Hello.", " ", "你好。", ""),
        ("He said “hi.”", " ", "他说“嗨。”", ""),
        ("Hello.", " ", "Hola.", " "),
        ("one, two,", " ", "一、二、", ""),
        ("a very long wo", "", "una palabra", ""),
        ("नमस्ते।", " ", "Hello.", " "),
        ("你好。", "", "", ""),
    ],
)
def test_between_sentences_stands_what_the_script_of_the_translation_writes(source, glue, translation, between):
    assert glue_after(TextSegment(source, glue), translation) == between
