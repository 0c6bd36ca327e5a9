"""What a warning names is never passed off as a translation, and all that is told about a text is of one answer."""

import io
import json
import math

import pytest
from test_documents import document
from test_placeholders import said, speaks, translated
from test_translation_files import HEADER, memory, xliff12

from dragoman.cli.output import OutputFormat, OutputLayout, write
from dragoman.decode.documents import placeholders
from dragoman.decode.documents.document import translate_document
from dragoman.decode.documents.icu import ICU_KEPT, holds_icu_message
from dragoman.decode.documents.placeholder_strategies import IN_PIECES
from dragoman.decode.documents.source_line import UNTOUCHED
from dragoman.decode.translation import TRUNCATED, Candidate, PartAnswer, Translation

# ---- in documents ---------------------------------------------------------------------------------


def forgets(text):
    """An answer that loses all placeholders, and turns lines with "bad" into one."""
    return "{x}" if "bad" in text else "".join(c for c in text if c.isalpha() or c == " ").upper().strip() or "-"


def done(name: str, text: str, redo: bool = False, **options):
    def ask(questions, _=None):
        return speaks(forgets)([getattr(question, "text", question) for question in questions])

    return translate_document(document(name, text.encode(), **options), ask, redo=redo)


def po(*entries: str) -> str:
    return HEADER + "".join(f'\nmsgid "{text}"\nmsgstr ""\n' for text in entries)


def unit(source: str) -> str:
    return f'<trans-unit id="1"><source>{source}</source></trans-unit>'


PIECES, LEFT, PLAIN = "Click <b>here</b> and wait %s", "bad %s", "Hello"
ICU = "{n, plural, one {# file} other {# files}}"


def test_po_entries_that_a_warning_names_are_fuzzy_or_empty():
    found = done("a.po", po(PIECES, LEFT, PLAIN, ICU, f"You have {ICU}."))
    text = found.content.decode()
    assert f'#, fuzzy\nmsgid "{PIECES}"\nmsgstr "CLICK <b>HERE</b> AND WAIT %s"' in text
    assert f'\n\nmsgid "{LEFT}"\nmsgstr ""\n' in text and f'\n\nmsgid "{PLAIN}"\nmsgstr "HELLO"\n' in text
    assert f'\n\nmsgid "{ICU}"\nmsgstr ""\n' in text and f'#, fuzzy\nmsgid "You have {ICU}."' in text
    assert (found.filled, found.flagged, found.untranslated, len(found.warnings)) == (3, 2, 2, 5)


def test_xliff_targets_that_a_warning_names_need_review_or_are_left_out():
    units = [unit(text.replace("<", "&lt;")) for text in (PIECES, LEFT, PLAIN, ICU)]
    found = done("a.xlf", xliff12(*units))
    text = found.content.decode()
    assert text.count("<target") == 2 and text.count('state="needs-review-translation"') == 1
    assert (found.filled, found.flagged, found.untranslated) == (2, 1, 2)


def test_variants_of_a_memory_that_a_warning_names_are_marked_or_left_out():
    units = [{"en": text.replace("<", "&lt;")} for text in (PIECES, LEFT, PLAIN, ICU)]
    found = done("a.tmx", memory(*units), target="de")
    text = found.content.decode()
    assert text.count('xml:lang="de"') == 2 and text.count("x-needs-review") == 1
    assert (found.filled, found.flagged, found.untranslated) == (2, 1, 2)


def test_a_translation_that_was_ended_by_force_is_marked():
    def ask(questions, _=None):
        cut = Candidate("A A A", -1.0, -2.0, (5, 2), (-1.0, -1.0), truncated=True)
        return [Translation(1, text, (cut,), (f"row 1: {TRUNCATED}",)) for text in questions]

    found = translate_document(document("a.po", po("a").encode()), ask)
    assert b"#, fuzzy" in found.content and found.flagged == 1


def test_a_translation_that_is_there_is_not_replaced_by_its_source():
    text = HEADER + f'\nmsgid "{LEFT}"\nmsgstr "gut %s"\n'
    found = done("a.po", text, redo=True)
    assert found.content.decode() == text and (found.filled, found.left, found.untranslated) == (0, 1, 0)


# ---- ICU messages ---------------------------------------------------------------------------------

MESSAGES = [
    "{n, plural, one {# file} other {# files}}",
    "{VAR_PLURAL, plural, =0 {just now} other {<x id='1'/> minutes ago}}",
    "{gender, select, male {He} female {She} other {They}}",
    "{0,choice,0#no files|1#one file|1<{0} files}",
    "{n,selectordinal,one{#st}other{#th}}",
    "Hi {name}, {n, plural, one {{m} file} other {{m} files}}!",
    "{n, plural,\n  one {# file}\n  other {# files}\n}",
]
NO_MESSAGES = ["{n, number}", "{d, date, short}", "{name}", "{n, plural, one {#} other {#}}", "plural, select", "a { b"]
NO_MESSAGES += ["{n, plural, one {{x}} other {{y}}}", "{{n}}"]


@pytest.mark.parametrize("text", MESSAGES)
def test_an_icu_message_that_is_kept_whole_says_so_and_is_not_trusted(text):
    assert holds_icu_message(text)
    answer = translated(text, str.upper)
    assert ICU_KEPT in answer.warnings[-1] and answer.confidence == 0.0 == answer.candidates[0].confidence


@pytest.mark.parametrize("text", NO_MESSAGES)
def test_what_has_no_words_inside_is_no_icu_message(text):
    assert not holds_icu_message(text) and not translated(text, lambda t: t).warnings


# ---- one and the same answer ----------------------------------------------------------------------


def record(translation: Translation, **layout) -> dict:
    write([translation], file := io.StringIO(), OutputLayout(format=OutputFormat.json, **layout))
    return json.loads(file.getvalue())


def check_is_consistent(found: dict) -> None:
    best = found["candidates"][0]
    assert found["text"] == best["text"] and found["confidence"] == best["confidence"]
    assert math.isclose(best["log_prob"], sum(best["token_log_probs"])) and len(best["tokens"]) == len(
        best["token_log_probs"]
    )
    assert len(best["parts"]) == best["tokens"].count(2) or not best["parts"]  # each ends with the end's id


def test_a_text_that_stays_as_it_is_has_no_tokens_and_no_confidence():
    found = record(translated("on %s", lambda t: "{x}"), flag_below=0.1)
    assert found["text"] == "on %s" and UNTOUCHED in found["warnings"][0]
    assert (found["confidence"], found["review"], found["candidates"][0]["tokens"]) == (0.0, True, [])
    assert found["candidates"][0]["log_prob"] == 0.0 and found["candidates"][0]["parts"] == []


def test_tokens_of_a_text_in_pieces_are_those_of_the_pieces_that_are_in_it():
    answer = translated("Click <b>bad</b> now", lambda t: "{x}" if "bad" in t else t.upper())
    found = record(answer, flag_below=0.1)
    assert found["text"] == "CLICK <b>bad</b> NOW" and found["confidence"] == 0.0
    best = found["candidates"][0]
    assert best["parts"] == [{"question": "Click", "answer": "CLICK"}, {"question": "now", "answer": "NOW"}]
    assert best["tokens"] == [5, 2, 5, 2] and best["log_prob"] == -4.0


def test_a_text_in_pieces_is_to_be_reviewed_however_sure_the_model_is():
    answer = translated("Click <b>here</b>", forgets)
    assert IN_PIECES in answer.warnings[0] and answer.confidence == 0.5
    assert record(answer, flag_below=0.1)["review"] and not record(translated("a", str.upper), flag_below=0.1)["review"]


def test_stand_ins_tell_what_was_asked_and_answered():
    answer = translated("%s is on", lambda t: t.replace("is on", "ist an") if "%" not in t else "an")
    (best,) = answer.candidates
    assert answer.text == "%s ist an" and best.parts == (PartAnswer("{name} is on", "{name} ist an"),)
    check_is_consistent(record(answer))


def test_confidence_and_warnings_are_those_of_the_candidate_that_is_taken():
    lost = Candidate("an", -1.0, -1.0, (7, 2), (-0.5, -0.5), truncated=True, confidence=0.9)
    kept = Candidate("an: %s", -4.0, -4.0, (8, 2), (-2.0, -2.0), truncated=False, confidence=0.2)

    def ask(texts):
        return [Translation(1, text, (lost, kept), (f"row 1: {TRUNCATED}",), 0.9) for text in texts]

    (answer,) = placeholders.translate(["on %s"], ask)
    assert (answer.text, answer.confidence, answer.warnings) == ("an: %s", 0.2, ())
    check_is_consistent(record(answer))


def test_a_candidate_that_was_cut_is_told_even_if_the_first_was_not():
    lost = Candidate("an", -1.0, -1.0, (2,), (-1.0,), truncated=False)
    kept = Candidate("an: %s", -4.0, -4.0, (8, 2), (-2.0, -2.0), truncated=True)
    (answer,) = placeholders.translate(["on %s"], lambda texts: [Translation(1, t, (lost, kept)) for t in texts])
    assert answer.warnings == (f"row 1: {TRUNCATED}",) and answer.confidence == pytest.approx(math.exp(-2.0))


@pytest.mark.parametrize("text", ["a\nb %s", "One. Two %s.", "%s", "<b>a</b> c", " a ", LEFT, PIECES, f"{ICU} x"])
@pytest.mark.parametrize("change", [forgets, str.upper, lambda t: t, lambda t: "17 {name}", lambda t: ""])
def test_whatever_the_model_answers_a_line_of_json_does_not_contradict_itself(text, change):
    def ask(texts):
        return [
            Translation(t.row, t.source, tuple(_judged(c) for c in t.candidates), t.warnings, 0.5)
            for t in (said(row, text, change(text)) for row, text in enumerate(texts, 1))
        ]

    for answer in placeholders.translate([text], ask):
        check_is_consistent(record(answer))


def _judged(candidate: Candidate) -> Candidate:
    return Candidate(candidate.text, -1.0, -2.0, (5, 2), (-1.0, -1.0), truncated=False, confidence=0.5)
