"""Placeholders survive translation, whatever the model answers."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.decode.documents import placeholders
from dragoman.decode.documents.source_line import is_left_alone
from dragoman.decode.translation import Candidate, Translation
from dragoman.text.cleaning.clean import normalise
from dragoman.text.placeholders import Role, find_placeholders, placeholders_preserved


def said(row, source, *texts, confidence=0.5, warnings=()):
    candidates = tuple(Candidate(text, -1.0, -2.0, (5, 2), (-1.0, -1.0), truncated=False) for text in texts)
    return Translation(row, source, candidates, warnings, confidence)


def speaks(change):
    """A translator that answers each text with ``change`` of it."""
    return lambda texts: [said(row, text, change(text)) for row, text in enumerate(texts, 1)]


def translated(text, change, codes=(), **options):
    (answer,) = placeholders.translate([text], speaks(change), codes=[codes], **options)
    return answer


def texts_of(text, codes=()):
    return [p.text for p in find_placeholders(text, codes)]


# ---- finding --------------------------------------------------------------------------------------

FOUND = {
    "Hello %(name)s, %s and %1$d!": ["%(name)s", "%s", "%1$d"],
    "{0} of {name}, {{x}} {amount:.2f} {}": ["{0}", "{name}", "{{x}}", "{amount:.2f}", "{}"],
    'a <b>bold</b> <x id="1"/> <br>': ["<b>", "</b>", '<x id="1"/>', "<br>"],
    "see https://a.b/c?d=1&e={f}. Or (www.x.org), me@x.org!": ["https://a.b/c?d=1&e={f}", "www.x.org", "me@x.org"],
    r"one\ntwo": [r"\n"],
    "50% discount, 100%, 5 < 6 > 4, a { b, $5": [],
    "{n, plural, one {# item} other {# items}} left": ["{n, plural, one {# item} other {# items}}"],
    "&nbsp;$HOME %{x} ${y} %d%% %@ %1": ["&nbsp;", "$HOME", "%{x}", "${y}", "%d", "%%", "%@", "%1"],
    r"in C:\new\table or [here](/a.png)": [r"C:\new\table", "[", "](/a.png)"],
    "<a href=\"a>b\" title='{c}'>x</a>": ["<a href=\"a>b\" title='{c}'>", "</a>"],
    "Hello %name%, the %title of %#@files@ by %id": ["%name%", "%title", "%#@files@", "%id"],
    "%1$#@days@ of %2$#@hours@": ["%1$#@days@", "%2$#@hours@"],
    "^[%lld new file](inflect: true) for ^[you](agreeWithArgument: 1), x^[y] (z: a)": [
        *("^[", "%lld", "](inflect: true)", "^[", "](agreeWithArgument: 1)")
    ],
    "%dx%d, %dpx, %sMB, %ds, %d%, %s%s": ["%d", "%d", "%d", "%s", "%d", "%d%", "%s", "%s"],
    "%1$-10s %1$,.2f %05.2f %ld %L1%n %1%2 %Y-%m-%d": [
        *("%1$-10s", "%1$,.2f", "%05.2f", "%ld", "%L1", "%n", "%1", "%2", "%Y", "%m", "%d")
    ],
    "50%discount, 100% sure, 50 % de, 100%sure, 50%ig, 5%-10%": [],
    "50%-a, 50 %-a, 20%-os, %s%-5s": ["%s", "%-5s"],
    "%s%.2f, %d%+d, %s%#x, %u%-3lu": ["%s", "%.2f", "%d", "%+d", "%s", "%#x", "%u", "%-3lu"],
    "%d%-mal, %s%-seitig, %count%-fold, %c%.old": ["%d%", "%s%", "%count%", "%c%"],
    "time: 12:30, a:b, std::vector, snake_case, R&D, AT&T, C#, #1, $5, key:value, a :-) b, :D": [],
    "Dear :name (:count|:Other) and @count, !var, not user@host or @ home!": [
        ":name",
        ":count",
        ":Other",
        "@count",
        "!var",
    ],
    "__name__ [[x|y]] $(USER) $t(key) #{x} %{a} %<b>s": [
        *("__name__", "[[x|y]]", "$(USER)", "$t(key)", "#{x}", "%{a}", "%<b>s")
    ],
    "Run `a --b` or ``c`` but don`t, can`t, `quote' ``quote''": ["`a --b`", "``c``"],
    "{0:N2} {n!r:>10} {0,number} { $name } {{ x | y }} {{#if x}}": [
        *("{0:N2}", "{n!r:>10}", "{0,number}", "{ $name }", "{{ x | y }}", "{{#if x}}")
    ],
    "<!-- a --> <%= b %> @:c.d \\u00e9 \\(e)": ["<!-- a -->", "<%= b %>", "@:c.d", r"\u00e9", r"\(e)"],
    "👨‍👩‍👧‍👦 at 🇪🇸🇫🇷 👍🏽 1️⃣ ❤️ ★★ → 🏴\U000e0067\U000e0062\U000e007f :+1: 🏳️‍🌈": [
        *("👨‍👩‍👧‍👦", "🇪🇸🇫🇷", "👍🏽", "1️⃣", "❤️", "★★", "→", "🏴\U000e0067\U000e0062\U000e007f", ":+1:", "🏳️‍🌈")
    ],
    "20 °C, ™, ©, ½, §, ±": [],
}


@pytest.mark.parametrize("text", FOUND)
def test_placeholders_are_found_as_their_syntax_ends(text):
    assert texts_of(text) == FOUND[text]


def test_a_tag_opens_only_what_is_closed():
    roles = [p.role for p in find_placeholders("<b>a</b> <i> <br> </u> <c/>")]
    assert roles == [Role.OPENS, Role.CLOSES, Role.ORDERED, Role.ALONE, Role.ORDERED, Role.ALONE]


def test_what_a_format_says_is_markup_is_found_whole():
    code = '<ph id="1">{0} <b></ph>'
    assert texts_of(f"a {code} {{1}}", [code]) == [code, "{1}"]


@pytest.mark.parametrize(
    ("source", "target", "good"),
    [
        ("<b>a</b> <i>c</i>", "<i>c</i> <b>a</b>", True),
        ("<b>a</b> <i>c</i>", "<b>a<i>c</b></i>", False),
        ("<b>a</b>", "</b>a<b>", False),
        ("<p> {x}", "{x} <p>", True),
        ("<p> </q>", "</q> <p>", False),
        ("{a} {b}", "{b} {a}", True),
        ("{a}", "{a} {a}", False),
        ("%s", "", False),
    ],
)
def test_what_is_kept_is_there_as_often_and_well_nested(source, target, good):
    assert placeholders_preserved(find_placeholders(source), find_placeholders(target)) is good


@given(st.text(st.sampled_from("{}<>/ab%s&;:$\\ \"'.(")))
def test_places_are_in_order_and_hold_what_they_say(text):
    at = 0
    for p in find_placeholders(text):
        assert at <= p.start < p.end and text[p.start : p.end] == p.text
        at = p.end


MARKS = "<%{$@\\`&[]_:!/wftp.#*19 \u20e3\ufe0f\u2139\u00a9\U0001f1e6\U0001f600\u2190\u2049aé"


@given(st.text(st.sampled_from(MARKS) | st.characters()))
def test_the_quick_look_overlooks_no_placeholder(text):
    known = find_placeholders(text, ["no such code"])  # with codes every text is looked through
    assert find_placeholders(text) == known


# ---- whatever the model answers -------------------------------------------------------------------

PIECES = ["%(name)s", "%s", "%1$d", "{0}", "{name}", "{{x}}", "<b>", "</b>", '<x id="1"/>', "<i>", "</i>", "<br>"]
PIECES += ["https://a.b/c?d=1", "me@x.org", r"\n", "%%", "&amp;", "{", "}", "<", "%", "\n", "\n\n", "\t", "  ", " "]
PIECES += ["[", "](u)", "](", "Word", "some words", "two. Sentences.", "17", "(", ")", '"', "**", ".", "ä", "\u00a0"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
LINES = st.lists(st.sampled_from([*PIECES, "17", "23", "{name}", "{value}"]), max_size=8).map(" ".join).map(normalise)


@given(texts=st.lists(TEXTS, max_size=3), data=st.data())
def test_whatever_the_model_answers_the_same_placeholders_come_out_well_nested(texts, data):
    def mangling(asked):
        answers = st.lists(LINES, min_size=1, max_size=2)
        return [said(row, text, *data.draw(answers)) for row, text in enumerate(asked, 1)]

    require = data.draw(st.none() | st.just(lambda asked, _: mangling(asked)))
    for text, answer in zip(texts, placeholders.translate(texts, mangling, require=require), strict=True):
        assert Counter(texts_of(text)) == Counter(texts_of(answer.text)), answer.text
        assert placeholders_preserved(find_placeholders(text), find_placeholders(answer.text))
        assert text.count("\n") == answer.text.count("\n")
        assert re.match(r"\s*", text)[0] == re.match(r"\s*", answer.text)[0] or not text.strip()


@given(text=TEXTS)
def test_a_model_that_copies_changes_nothing(text):
    assert translated(text, lambda t: t).text == text


@given(text=TEXTS, codes=st.lists(st.sampled_from(['<g id="1">', "</g>", "<ph>{0} a</ph>"]), max_size=3, unique=True))
def test_markup_of_the_file_survives_a_model_that_forgets_it(text, codes):
    text += " and ".join(codes)
    answer = translated(text, lambda t: re.sub(r"<[^>]*>", "", t).upper(), codes)
    assert Counter(texts_of(text, codes)) == Counter(texts_of(answer.text, codes))


# ---- the ways, from the best to the last ----------------------------------------------------------


def test_a_model_that_keeps_placeholders_is_left_alone():
    answer = translated("The {name} is on", lambda t: "An ist {name}")
    assert answer.text == "An ist {name}" and answer.candidates[0].tokens == (5, 2) and not answer.warnings


def test_a_later_candidate_that_keeps_them_is_better_than_a_first_that_does_not():
    def ask(texts):
        return [said(1, text, "An ist", "{name} ist an") for text in texts]

    (answer,) = placeholders.translate(["{name} is on"], ask)
    assert answer.text == "{name} ist an"


def test_a_second_translator_is_asked_with_what_must_come_out():
    asked = []

    def require(texts, required):
        asked.append((texts, required))
        return [said(1, text, "an: {name}") for text in texts]

    answer = translated("{name} is on", lambda t: "an", require=require)
    assert answer.text == "an: {name}" and asked == [(["{name} is on"], [["{name}"]])]


def test_of_a_second_translators_candidates_one_comes_out_so_that_a_line_stays_one_line():
    several = ["{name} an", "an", "an: {name}"]
    answer = translated("{name} is on", lambda t: "an", require=lambda texts, _: [said(1, t, *several) for t in texts])
    assert [candidate.text for candidate in answer.candidates] == several[:1]


def test_stand_ins_let_the_model_move_what_it_does_not_know():
    def knows_numbers(text):
        return re.sub(r"(\d+) on (\d+)", r"auf \2 \1", re.sub(r"%\w|{\w+}", "", text))

    answer = translated("%s on %d", knows_numbers)
    assert answer.text == "auf %d %s" and not answer.warnings


def test_tags_become_marks_that_the_model_knows():
    def knows_quotes(text):
        return 'Auf "OK" klicken' if text == 'Click "OK"' else "Klicken"

    assert translated("Click <b>OK</b>", knows_quotes).text == "Auf <b>OK</b> klicken"


def test_a_pair_of_tags_around_a_placeholder_goes_as_one():
    answer = translated("<b>%s</b> is on", lambda t: "an ist 17" if t == "17 is on" else "an")
    assert answer.text == "an ist <b>%s</b>"


def test_a_difficult_sentence_spoils_no_other():
    def change(text):
        return {"It is on.": "Es ist an.", "Hello": "Hallo"}.get(text, "nichts")

    answer = translated("It is on. Hello {name}!", change)
    assert answer.text == "Es ist an. Hallo {name}!"
    assert answer.warnings == ("row 1: translated in pieces, to keep its placeholders: check how it reads",)


def test_at_last_the_words_between_are_translated_where_they_stand():
    words = {"Click": "Klick.", "here": "hier", "and wait": "und warte"}
    answer = translated("Click <a>here</a>, and wait (%s).", lambda t: words.get(t, "?"))
    assert answer.text == "Klick <a>hier</a>, und warte (%s)."


def test_words_whose_translation_would_be_a_placeholder_stay_as_they_are():
    answer = translated("on %s", lambda t: "{x}")
    assert answer.text == "on %s" and "translate it by hand" in answer.warnings[0]


@pytest.mark.parametrize(
    ("text", "answer", "says"),
    [
        ("red house", "", "since its translation was empty"),
        ("on %s", "", "since its translation was empty"),
        ("red house", "{x}", "had a placeholder or a number that is not there"),
        ("on %s", "{x}", "would not keep a placeholder"),
    ],
)
def test_a_text_that_stays_as_it_is_says_why(text, answer, says):
    found = translated(text, lambda _: answer)
    assert found.text == text and found.confidence == 0.0
    assert says in found.warnings[0] and is_left_alone(found)


def test_lines_are_translated_one_by_one_and_white_space_stays():
    answer = translated("  One\n\ttwo \n", str.upper)
    assert answer.text == "  ONE\n\tTWO \n"


@pytest.mark.parametrize(
    ("text", "answer", "kept"),
    [
        ("Walk 5\u00a0km now", "Camina 5 km ahora", "Camina 5\u00a0km ahora"),
        ("Hello\u00a0!", "Hola !", "Hola\u00a0!"),
        ("10\u202f000\u00a0km", "10 000 km", "10\u202f000\u00a0km"),
        ("15 or 5\u00a0km", "15 o 5 km", "15 o 5\u00a0km"),
        ("a\u00a0b", "x y", "x y"),
        ("5\u00a0a 5\u00a0b", "5 x 5 y", "5 x 5 y"),
        ("5\u00a0<b>km</b>", "5 <b>kilo</b>", "5\u00a0<b>kilo</b>"),
    ],
)
def test_no_break_spaces_come_back_beside_the_words_they_hold(text, answer, kept):
    assert translated(text, lambda _: answer).text == kept


def test_a_text_of_placeholders_alone_is_not_asked_for():
    answer = placeholders.translate(["{a}: 5 %s", ""], lambda texts: pytest.fail("asked"))
    assert [t.text for t in answer] == ["{a}: 5 %s", ""]


def test_confidence_is_that_of_the_worst_part_and_warnings_name_the_row():
    def ask(texts):
        return [said(9, t, t, confidence=len(t) / 10, warnings=("row 9: strange",)) for t in texts]

    answers = placeholders.translate(["abc", "abcde\nab"], ask, first_row=4)
    assert [(t.row, t.confidence) for t in answers] == [(4, 0.3), (5, 0.2)]
    assert [t.warnings for t in answers] == [("row 4: strange",), ("row 5: strange",)]


def test_a_stream_counts_its_rows_and_reads_white_space_as_single_spaces():
    lines = ["a  b", "", " ", "c\td %s"]
    answers = list(placeholders.stream(lines, speaks(str.upper), chunk=3))
    assert [t.text for t in answers] == ["A B", "", "", "C D %s"]
    assert [t.row for t in answers] == [1, 2, 3, 4] and [t.source for t in answers] == lines
