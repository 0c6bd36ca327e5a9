"""Numbers and signs come out as they went in, and what has no word is left alone."""

import unicodedata

import pytest
from hypothesis import given, strategies
from test_placeholders import said, speaks, translated
from test_translator import parrot

from dragoman.decode.constraints.glossary import Glossary, GlossaryEntry
from dragoman.decode.documents import placeholders
from dragoman.decode.documents.document import translate_document
from dragoman.decode.request import Request
from dragoman.decode.translation import Candidate, Translation
from dragoman.text.filled.opening import open_document
from dragoman.text.invariants import find_changes, find_numbers, is_wordless

WORDLESS = ["1,234.56", "2024-05-01", "12:30", "192.168.0.1", "2147483648", "€ 15.00", "3/4", "---", "?", "→", "«…»"]
WORDLESS += ["+1 (555) 010-9999", "v1.2.3", "1.0.0-rc.1+build.5", "2024-05-01T12:30:00Z", "fe80::1", "½", "#ff0000"]
WORDLESS += [
    "aa:bb:cc:dd:ee:ff",
    "0x1F",
    "6e-5",
    "me@x.org",
    "https://a.b/c",
    "{x}: %s",
    "①②",
    "100%",
    "\u0661\u0662:\u0663\u0660",
]
WORDLESS += ["550e8400-e29b-41d4-a716-446655440000", "👨‍👩‍👧‍👦 🇪🇸", "***", "<br/> 5", "\ufffd"]


@pytest.mark.parametrize("text", WORDLESS)
def test_a_text_without_a_word_is_its_own_translation_and_not_asked_for(text):
    [answer] = placeholders.translate([text], lambda texts: pytest.fail("asked"))
    assert answer.text == text and not answer.warnings


@pytest.mark.parametrize("text", ["OK", "12:30 PM", "5 km", "v", "H2O", "3D", "a", "1st", "x1.2", "第1章", "µ"])
def test_what_has_a_letter_of_a_word_is_translated(text):
    assert not is_wordless(text)


def test_from_python_it_is_left_alone_as_well_unless_something_is_wanted_of_it():
    texts = [" 12:30", "→", Request("5", prefix="x")]
    found = parrot().translate(texts, beam=1)
    assert [t.text for t in found[:2]] == texts[:2] and not any(t.candidates[0].tokens for t in found[:2])
    assert found[2].text.startswith("x")


def test_white_space_around_a_text_without_words_stays_in_a_stream():
    lines = ["  12:30 ", "\u00a015.00  €", "12\t30", "   "]
    assert [t.text for t in placeholders.stream(lines, speaks(str.upper))] == [
        "  12:30 ",
        "\u00a015.00  €",
        "12 30",
        "",
    ]


def test_a_file_of_messages_keeps_what_has_no_word(tmp_path):
    path = tmp_path / "a.po"
    path.write_text('msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\nmsgid "12:30"\nmsgstr ""\n')
    done = translate_document(open_document(str(path)), lambda texts, _: speaks(lambda t: "123:0")(texts))
    assert b'msgstr "12:30"' in done.content and not done.warnings


# ---- what counts as changed --------------------------------------------------------------------------

SAME = [
    ("It costs 1,234.56 €", "Cuesta 1.234,56 €"),
    ("On 2024-05-01 at 12:30", "Am 01.05.2024 um 12:30"),
    ("At 5:30 pm", "A las 17:30"),
    ("At 17:30", "At 5:30 p.m."),
    ("2 men and 12 dogs", "Zwei Männer und zwölf Hunde"),
    ("3 days", "三天"),
    ("三天", "3 days"),
    ("2.00 euros", "2 euros"),
    ("20 °C and 5%", "5 % y 20°C"),
    ("1 of 3", "3 中的 1"),
    ("Windows™ ©", "© Windows™"),
    ("It costs €5 or 3%", "Cuesta 5 euros o el 3 por ciento"),
    ("At 0:30", "Um 0.30 Uhr"),
    ("At 00:05", "Um 00.05 Uhr"),
    ("At 0:00", "Um 0.00 Uhr"),
    ("At 10:05", "Um 10.05 Uhr"),
    ("Section 07", "Abschnitt 7"),
    ("Version 1.0", "Version 1"),
    ("Version 0.0", "Version 0"),
    (".5 ml", "0,5 ml"),
    ("\u0660\u066b\u0665", "0.5"),
    ("Version 3.0, 30 users", "Version 3, 30 Nutzer"),
    ("30 users of version 3.0", "Version 3 hat 30 Nutzer"),
    ("1,500 users", "1.500 Nutzer"),
    ("1,500 users", "1500 Nutzer"),
    ("12,34,567 rupees", "1.234.567 Rupien"),
    ("CHF 1'234.50", "CHF 1\u202f234,50"),
    ("0800.123.456", "0800 123 456"),
    ("0800 123 456", "0800123456"),
    ("a .0", "b 0"),
    ("1.1.2024", "1. 1. 2024"),
    ("Version 1.5 100 times", "100 Mal Version 1,5"),
    ("12 345 678.9 km", "12.345.678,9 km"),
    ("3.141 592 and 0.000\u202f001", "3,141592 und 0,000001"),
    ("1,5000円 von 1,2345,6789", "15000 yen of 123456789"),
]
CHANGED = [
    ("Call +1 (555) 010-9999", "Llama +1 (5-99)"),
    ("Wait 5 minutes", "Espera minutos"),
    ("At 12:30", "A las 123:0"),
    ("Open 192.168.0.1", "Abrir 192.168"),
    ("Use v1.2.3", "Usa v1.2"),
    ("Add it", "Añadir 7"),
    ("200 devices", "2 dispositivos"),
    ("At 5 o'clock", "A las 17"),
    ("Windows™", "Windows"),
    ("20 °C", "20 C"),
    ("5 €", "5 $"),
    ("0.5 ml", "5 ml"),
    (".5 ml", "5 ml"),
    ("0,05 ml", "0,5 ml"),
    ("At 0:30", "Um 30 Uhr"),
    ("100% sure", "100 seguro"),
    ("Update to 2024.5.1 now", "Actualizar a 2024.5 ahora.1"),
    ("On 2024-05-01", "Am 02.05.2024"),
    ("1.5 mg", "15 mg"),
    ("15 mg", "1,5 mg"),
    ("0,25 l", "025 l"),
    ("12.34 €", "1234 €"),
    ("1,234.5 km", "12.345 km"),
    ("2,000 users", "2 Nutzer"),
    ("Use v1.2.3", "Usa v12.3"),
    ("1.2 m high", "doce m de alto"),
    ("1.7 l at 5 pm", "A las 17, 5 l"),
    ("Turn by 1.5 and 20", "Drehe um 15.20"),
]


@pytest.mark.parametrize(("source", "target"), SAME)
def test_numbers_may_be_written_as_another_language_writes_them(source, target):
    assert not find_changes(source, target), str(find_changes(source, target))


THOUSANDS, POINTS = ",. '\u202f\u2019\u066c", ".,,.,.\u066b"
WAYS = [*zip(THOUSANDS, POINTS, strict=True), ("", "."), ("", ",")]
"""Separators of thousands and of decimals."""


@given(
    whole=strategies.integers(0, 10**12),
    decimals=strategies.from_regex(r"[0-9]{0,3}[1-9]", fullmatch=True),
    ways=strategies.tuples(strategies.sampled_from(WAYS), strategies.sampled_from(WAYS)),
)
def test_a_number_is_itself_in_every_language_and_never_without_its_decimal_point(whole, decimals, ways):
    one, other = (f"{whole:,}".replace(",", thousands) + point + decimals for thousands, point in ways)
    assert not find_changes(f"a {one}", f"b {other}")
    if len(decimals) != 3:  # 1.234 may be a thousand
        assert find_changes(f"a {one}", f"b {whole}{decimals}")
        assert find_changes(f"a {one}", f"b {whole}")


@pytest.mark.parametrize(("source", "target"), CHANGED)
def test_numbers_and_signs_that_are_lost_or_made_up_are_noticed(source, target):
    assert find_changes(source, target)


def test_addresses_dates_times_and_telephone_numbers_are_one_piece_each():
    text = "Call +1 (555) 010-9999 or (030) 12 34 at 12:30 on 2024-05-01, 192.168.0.1 has 1 234,5 kg"
    text += ", $5 or 5 €, 20 °C, 3 %"
    wanted = ["+1 (555) 010-9999", "(030) 12 34", "12:30", "2024-05-01", "192.168.0.1", "1 234,5"]
    wanted += ["$5", "5 €", "20 °C", "3 %"]
    assert find_numbers(text)[: len(wanted)] == wanted


# ---- what is done about it ---------------------------------------------------------------------------


def test_a_candidate_with_the_right_numbers_is_preferred():
    [answer] = placeholders.translate(
        ["At 12:30"], lambda texts: [said(1, t, "A las 123:0", "A las 12:30") for t in texts]
    )
    assert answer.text == "A las 12:30" and not answer.warnings


def test_a_number_that_is_lost_is_asked_for_with_something_that_models_copy():
    def knows_names(text):
        return text.replace("Open", "Abrir") if "{name}" in text else "Abrir 192.168"

    answer = translated("Open 192.168.0.1", knows_names)
    assert answer.text == "Abrir 192.168.0.1" and not answer.warnings


def test_a_second_translator_is_asked_before_that():
    asked = []

    def require(texts, required):
        asked.append(texts)
        return [said(1, t, "A 123:0", "A las 12:30") for t in texts]

    assert translated("At 12:30", lambda t: "nada", require=require).text == "A las 12:30" and asked == [["At 12:30"]]


def test_where_no_way_keeps_the_numbers_the_first_answer_comes_with_a_warning():
    answer = translated("Call 555 now", lambda t: "Llama ahora", first_row=3)
    assert answer.text == "Llama ahora"
    assert answer.warnings == ("row 3: without 555: numbers or signs are not those of the source: check it",)


def test_numbers_are_left_alone_where_nobody_asks_for_them():
    asked = []

    def change(text):
        asked.append(text)
        return "Llama ahora"

    answer = translated("Call 555 now", change, check_numbers=False)
    assert answer.text == "Llama ahora" and not answer.warnings and asked == ["Call 555 now"]


def test_numbers_inside_placeholders_are_the_placeholders_own():
    assert not translated("%1$s costs 5", lambda t: t.replace("costs", "cuesta")).warnings


LEAKS = {
    "Open the (door) for {user}.": lambda t: t.replace("17.", "17.7.") if "17" in t else "Abrir (77) para 17.7.",
    "${x} was added to {name}.": lambda t: f"{t}3." if "17" in t else "nada",
    "Click <b>OK</b>": lambda t: f'{t} "' if '"' in t or "*" in t else f"({t})",
    "Click <b>OK</b> now": lambda t: f"{t} **" if "*" in t else "nada",
    "{a} and <i>b</i>": lambda t: t.replace("{name}", "{name}}") if "{name}" in t else "nada",
    "%s on %d": lambda t: f"{t} 5" if "17" in t else "nada",
}


@pytest.mark.parametrize("text", LEAKS)
def test_nothing_of_a_stand_in_stays_in_the_answer(text):
    answer = translated(text, LEAKS[text])
    assert not [n for n in "0123456789" if n in answer.text] and not set('*"}') & set(answer.text) - set(text)


@pytest.mark.parametrize("text", ["24/7", "24/7!", "(24/7)", "Open 24/7 now", "24/7 12:30"])
def test_a_term_of_a_glossary_that_is_no_word_is_translated_as_well(text):
    glossary = Glossary([GlossaryEntry("24/7", ("siempre",))])
    asked = []

    def ask(questions):
        asked.extend(questions)
        answer = (Candidate("siempre", 0.0, 0.0, (5, 2), (0.0, 0.0), truncated=False),)
        return [Translation(i, question, answer) for i, question in enumerate(questions, 1)]

    [found] = placeholders.translate([text], ask, glossary=glossary)
    assert found.text == "siempre" and asked == [text] and not found.warnings
    [line] = placeholders.stream([f" {text}"], ask, glossary=glossary)
    assert line.text == "siempre"
    others = placeholders.translate(["12:30", "24:7"], ask, glossary=glossary)
    assert [one.text for one in others] == ["12:30", "24:7"]


def test_every_number_and_every_sign_of_unicode_is_looked_at():
    signs = (chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Nd", "So", "Sc", "Sm"))
    counted = [sign for sign in signs if sign not in "+<=>^`|~№º" and ord(sign) > 0x7F] + [*"0123456789%$"]
    assert [sign for sign in counted if not find_changes(f"a {sign}", "a") and find_numbers(f"a {sign}")] == []


def test_thousands_of_numbers_are_matched_one_for_one():
    """In a moment: each is looked up, not compared with all others."""
    halves, times = [f"{i}.5" for i in range(3000)], [f"{i}:{i + 1}" for i in range(10, 3000)]
    assert not find_changes(" ".join(halves), " ".join(half.replace(".", ",") for half in reversed(halves)))
    assert find_changes(" ".join(halves), " ".join(halves[1:])).missing == ("0.5",)
    assert not find_changes("; ".join(times), "; ".join(time.replace(":", ".") for time in times))
    assert len(find_changes(" ".join(halves), "; ".join(f"{i}.7" for i in range(3000))).missing) == 3000


def test_a_number_of_thousands_of_digits_is_no_hour():
    long = "7" * 5000
    assert find_changes(f"at {long} pm", f"at {long[1:]} pm") == ((long,), (long[1:],))
    assert not find_changes("at 007 pm", "a las 19 p. m.")
