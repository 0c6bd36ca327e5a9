"""Files of every format are filled in place: all but text stays to the byte, and other libraries read the result."""

import json
import plistlib
import re

import pytest
from document_samples import SAMPLES, capitals, filled, opened
from fluent.syntax import FluentParser, ast
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dragoman.errors import UserError
from dragoman.text.checks import find_problems, translations_between
from dragoman.text.document import Filling
from dragoman.text.filled.html_document import HtmlDocument
from dragoman.text.filled.icu_messages import Branch, message_pieces
from dragoman.text.filled.opening import OPENERS
from dragoman.text.filled.plural_categories import CATEGORIES, plural_categories
from dragoman.text.placeholders import find_placeholders, placeholders_preserved

every_sample = pytest.mark.parametrize("sample", SAMPLES, ids=[sample.name for sample in SAMPLES])


@every_sample
def test_texts_are_translated_and_everything_else_stays(sample):
    assert filled(opened(sample.name, sample.before)).decode() == sample.after


@every_sample
def test_filling_nothing_gives_the_same_bytes(sample):
    for raw in (sample.before, sample.before.replace("\n", "\r\n"), "\ufeff" + sample.before):
        assert opened(sample.name, raw).fill({}) == raw.encode()


@every_sample
def test_line_ends_of_windows_stay(sample):
    raw = sample.before.replace("\n", "\r\n")
    assert filled(opened(sample.name, raw)).decode() == sample.after.replace("\n", "\r\n")


@pytest.mark.parametrize("sample", [s for s in SAMPLES if not s.before.startswith("<?xml")], ids=lambda s: s.name)
def test_a_file_whose_lines_end_in_carriage_returns_alone_is_filled_like_any_other(sample):
    raw = sample.before.replace("\n", "\r")
    assert opened(sample.name, raw).fill({}) == raw.encode()
    assert filled(opened(sample.name, raw)).decode() == sample.after.replace("\n", "\r")


@pytest.mark.parametrize(
    "raw", ["# a\r\n\rb\n", "a\rb\n\nc\n", "- a\r- b\n", "> a\r\r> b\n\n# c\n", "---\na: b\r---\n\rc\n"]
)
def test_a_carriage_return_inside_a_line_of_markdown_stays(raw):
    document = opened("a.md", raw)
    assert document.fill({}) == raw.encode()
    assert filled(document).count(b"\r") == raw.count("\r")


@pytest.mark.parametrize("limit", ["12", "9" * 5000])
def test_a_limit_is_a_number_of_characters_that_a_text_could_have(limit):
    po = f'#, max-length:{limit}\nmsgid "a"\nmsgstr ""\n'
    xliff = (
        '<xliff version="1.2"><file source-language="en" target-language="pl"><body>'
        f'<trans-unit id="1" maxwidth="{limit}" size-unit="char"><source>a</source></trans-unit></body></file></xliff>'
    )
    for name, raw in (("a.po", po), ("a.xlf", xliff)):
        assert opened(name, raw).slots[0].limit == (12 if limit == "12" else None)


@every_sample
def test_every_slot_has_a_place_with_a_line_and_a_key_of_its_own(sample):
    document = opened(sample.name, sample.before)
    assert all(slot.place.startswith(f"{sample.name}:") for slot in document.slots)
    assert len({slot.key for slot in document.slots}) == len(document.slots)


TEXTS = st.text(
    st.sampled_from("aé'\"\\{}<>&#|:%$[]*_`!?-\n\t .,;=@") | st.characters(exclude_categories=["Cs", "Cc"]),
    min_size=1,
    max_size=12,
).filter(lambda text: text.strip() == text and text.isprintable() and not any(c in text for c in "\u2028\u2029\x85"))


@pytest.mark.parametrize(
    "sample", [s for s in SAMPLES if s.name.endswith(("n.json", "e.strings", "ml", "es", "yml", "resx"))]
)
@given(text=TEXTS)
def test_any_translation_is_read_back_as_it_was_written(sample, text):
    document = opened(sample.name, sample.before, target=None)
    at = next(i for i, slot in enumerate(document.slots) if not slot.codes and "{0}" not in slot.text)
    if sample.name == "strings.xml" and text[0] in "@?":
        return  # a reference is no text
    again = opened(sample.name, document.fill({at: Filling(text)}), target=None)
    there = next((slot.text for slot in again.slots if slot.key == document.slots[at].key), None)
    assert there == text


@given(text=TEXTS)
def test_json_and_yaml_are_read_back_by_their_libraries(text):
    import yaml
    from ruamel.yaml import YAML

    document = opened("a.json", '{"a": "x", "b": 1}')
    assert json.loads(document.fill({0: Filling(text)})) == {"a": text, "b": 1}
    for style in ("x y", "'x'", '"x"', "|\n  x", ">-\n  x"):
        document = opened("a.yml", f"a: {style}\nb: [x, {{c: zz}}]\n")
        raw = document.fill({i: Filling(text) for i in range(len(document.slots))})
        for found in (YAML(typ="safe", pure=True).load(raw.decode()), yaml.safe_load(raw)):
            assert found["a"].strip() == text and found["b"] == [text, {"c": text}]


@pytest.mark.parametrize("text", ["a\nb", "a\n\nb", "a\n\n\nb\nc", "a\n b\nc", "a b"])
def test_a_folded_block_is_read_back_with_its_line_ends(text):
    from ruamel.yaml import YAML

    for raw in ("a: >\n  x y\n  z\nb: c\n", "a: >-\n  x\n\n  y\n\n\n  z\nb: c\n"):
        document = opened("a.yml", raw)
        found = YAML(typ="safe", pure=True).load(document.fill({0: Filling(text)}).decode())
        assert found["a"].rstrip("\n") == text and found["b"] == "c"


@pytest.mark.parametrize(
    "raw",
    [
        "a: |2\n     indented more\n   less\n",
        "a: |1-\n   b\n  c\n\nd: e\n",
        "a:\n  b: |2+\n      c\n    d\n\n  e: f\n",
        "- |2\n     a\n   b\n- |-1\n   c\n",
        "a: |2\n\n      \n     b\n    \n   c\n",
        "a: |\n  b  \nc: |\n  d\u00a0\n \n",
        "a: |\n\n  b\n     \n  c\n      \n",
        "a: >2\n\n  b\n  c \n",
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_spaces_of_a_block_that_belong_to_its_text_stay_in_it(raw, line_end):
    import yaml

    def shouted(value):
        if isinstance(value, list):
            return [shouted(item) for item in value]
        return {name: shouted(item) for name, item in value.items()} if isinstance(value, dict) else value.upper()

    document, before = opened("a.yml", raw.replace("\n", line_end)), yaml.safe_load(raw)
    copies = {i: Filling(slot.text) for i, slot in enumerate(document.slots)}
    assert yaml.safe_load(document.fill(copies)) == before
    assert yaml.safe_load(filled(document)) == shouted(before)


def test_symbols_of_ruby_are_no_text_and_a_text_that_stays_keeps_its_spelling():
    raw = "order: [ :year, :month ]\nstart:\n  - :day\n  - :\"a b\"\ne: :a:b it\nf: -5 C\ng: 'it''s'\nh: \"\\u00e9\"\n"
    document = opened("a.yml", raw)
    assert [slot.text for slot in document.slots] == [":a:b it", "-5 C", "it's", "é"]
    assert document.fill({i: Filling(slot.text) for i, slot in enumerate(document.slots)}).decode() == raw


@pytest.mark.parametrize("value", ["10:30", "21:21", "1:02:03.5", "-1:30"])
def test_what_yaml_1_1_reads_as_a_number_to_the_base_60_is_no_text(value):
    assert [slot.text for slot in opened("a.yml", f"a: {value}\nb: '{value} pm'\n").slots] == [f"{value} pm"]


@pytest.mark.parametrize("category", ["zero", "one", "two"])
@pytest.mark.parametrize("target", ["de", "ja", "ru"])
def test_forms_that_dart_takes_for_numbers_stay_in_every_language(category, target):
    message = f"{{n, plural, {category} {{a thing, {{n}}}} other {{{{n}} things}}}}"
    for name, there in (("a.arb", True), ("a.json", category == "one" and target != "ja")):
        document = opened(name, json.dumps({"m": message}), target=target)
        assert (f" {category} {{A THING" in filled(document).decode()) is there


@pytest.mark.parametrize(
    ("content", "text", "expected"),
    [
        ('"  two  words "', "  two  words ", '"  TWO  WORDS "'),
        ('Label:" "', "Label: ", '"LABEL: "'),
        ('Foo "  " bar', "Foo    bar", '"FOO    BAR"'),
        ('"A"  "  b  "', "A   b  ", '"A   B  "'),
        ("a   \\n  b", "a   \n  b", "A   \\n  B"),
        ('\n    a\n    b"  c"\n', "a b  c", '"A B  C"'),
        ('it\\\'s <b>"  a"</b> x   "y"', "it's <b>  a</b> x y", '"IT\'S <b>  A</b> X Y"'),
        ('a \\"b\\" <a href="x">c</a>', 'a "b" <a href="x">c</a>', 'A \\"B\\" <a href="x">C</a>'),
    ],
)
def test_quotes_keep_the_white_space_of_android(content, text, expected):
    document = opened("a.xml", f"<resources><string name='a'>{content}</string></resources>")
    assert [slot.text for slot in document.slots] == [text]
    raw = filled(document).decode()
    assert raw == f"<resources><string name='a'>{expected}</string></resources>"
    assert [slot.text for slot in opened("a.xml", raw).slots] == [capitals(document.slots[0])]


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.xml", "<resources><string name='a'>Hi {} x</string></resources>"),
        ("a.xml", "<resources><string name='a'><![CDATA[Hi {} x]]></string></resources>"),
        ("a.strings", '"a" = "Hi {} x";\n'),
        ("a.properties", "a = Hi {} x\n"),
    ],
)
def test_escapes_of_utf_16_are_characters(name, raw):
    escape = {"a.strings": "\\U{}"}.get(name, "\\u{}")
    document = opened(name, raw.format(escape.format("d83d") + escape.format("DE00")))
    assert [slot.text for slot in document.slots] == ["Hi 😀 x"]
    assert [slot.text for slot in opened(name, filled(document)).slots] == ["HI 😀 X"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "raw",
    [
        "a =\n    One { $x }\n    two.\n\n    Three\n    .t = four\n",
        "a = One { $x } two.\n\n    Three\n    .t = four\n",
        "a =\n    .t = One { $x } two.\n\n        Three\nb = four\n",
        "a = { $n ->\n    [one] x\n   *[other]\n        One { $x } two.\n\n        Three\n    }\nb = four\n",
    ],
)
def test_paragraphs_of_fluent_stay_paragraphs(raw, end):
    document = opened("a.ftl", raw.replace("\n", end))
    assert "One { $x } two.\n\nThree" in [slot.text for slot in document.slots]
    for new in ("UN { $x }.\n\nDEUX", "UN { $x }.\n\n\n[DEUX]", "* UN { $x }.\n\n.DEUX } {"):
        done = document.fill({i: Filling(new if "One" in slot.text else "X") for i, slot in enumerate(document.slots)})
        entries = FluentParser().parse(done.decode().replace(end, "\n")).body
        assert not any(isinstance(entry, ast.Junk) for entry in entries)
        again = [re.sub(r'\{"(.)"\}', r"\1", slot.text) for slot in opened("a.ftl", done).slots]
        assert set(again) == {new, "X"} and done.decode().count("\n") == done.decode().count(end)


@pytest.mark.parametrize("name", ["Employee.Name", "B.[using:A]AutomationProperties.Name", "Shoe.Size", "x.Font"])
def test_a_string_of_dotnet_is_translated_whatever_its_name(name):
    data = '<data name="{}"{}><value>{}</value></data>'
    typed = data.format("b.Size", ' type="System.Drawing.Size, System.Drawing"', "1, 2")
    raw = "<root>" + data.format(name, "", "a") + typed + data.format("&gt;&gt;b.Name", "", "b") + "</root>"
    for file in ("a.resx", "a.resw"):
        assert filled(opened(file, raw)).decode() == raw.replace(">a<", ">A<")


@pytest.mark.parametrize(
    ("page", "text", "words", "expected"),
    [
        (
            '<p>a <img alt="Image" src=a> b <img alt="Image" src=b> c</p>',
            None,
            {"Image": "Imagen"},
            '<p>A <img alt="Imagen" src=a> B <img alt="Imagen" src=b> C</p>',
        ),
        (  # in another order, and one attribute the beginning of another
            '<p>a <a title="Open file" href=x>b</a> c <a title="Open" href=y>d</a></p>',
            'D <a title="Open" href=y>c</a> <a title="Open file" href=x>b</a>',
            {"Open": "Auf"},
            '<p>D <a title="Auf" href=y>c</a> <a title="Open file" href=x>b</a></p>',
        ),
        (
            '<p>a <a title="Open file" href=x>b</a> c <a title="Open" href=y>d</a></p>',
            None,
            {"Open": "Auf"},
            '<p>A <a title="Open file" href=x>B</a> C <a title="Auf" href=y>D</a></p>',
        ),
        (
            "<p>a <i title='x > y'>b</i> <code title=\"z\">c <i title='x > y'></i></code> d <i title='x > y'>e</i></p>",
            None,
            {"x > y": "X > Y"},
            "<p>A <i title='X > Y'>B</i> <code title=\"z\">c <i title='x > y'></i></code> D <i title='X > Y'>E</i></p>",
        ),
    ],
)
def test_each_attribute_is_written_into_its_own_tag(page, text, words, expected):
    document = opened("a.html", page)
    fillings = {i: Filling(words[slot.text]) for i, slot in enumerate(document.slots) if slot.text in words}
    at = next(i for i, slot in enumerate(document.slots) if slot.codes)
    fillings[at] = Filling(text or capitals(document.slots[at]))
    assert document.fill(fillings).decode() == expected


def test_attributes_without_quotes_and_of_elements_whose_content_stays_are_translated():
    page = (
        '<html lang=en><body><textarea placeholder="a > b">kept</textarea><iframe title="c"></iframe>'
        "<img alt=d src=e.png><input placeholder=f><svg aria-label='g'><title>kept</title></svg>"
        '<code class="notranslate" title="kept">x</code><style title="kept">x</style><p title="kept" translate=no>x</p>'
    )
    expected = page.replace('"a > b"', '"A > B"').replace('"c"', '"C"').replace("'g'", "'G'").replace("=en>", "=pl>")
    expected = expected.replace("alt=d", 'alt="D"').replace("=f>", '="F">')
    assert filled(opened("a.html", page)).decode() == expected


MENTIONS = {
    "a.html": ("<p>{}</p>", "<b>", "&lt;b&gt;"),
    "of_a_mention.html": ("<p>{} &amp;lt;b&amp;gt;</p>", "<b>", "&lt;b&gt;"),
    "a.xml": ('<resources><string name="a">{}</string></resources>', "<b>", "&lt;b&gt;"),
    "escaped.xml": ('<resources><string name="a">{}</string></resources>', '<b c="d">', '&lt;b c=\\"d\\"&gt;'),
    "quoted.xml": ('<resources><string name="a">"{}"</string></resources>', "<b>", "&lt;b&gt;"),
    "a.resx": ('<root><data name="A"><value>{}</value></data></root>', "<b>", "&lt;b&gt;"),
}
"""Files, a tag in them, and how they spell its characters."""


@pytest.mark.parametrize("name", MENTIONS)
def test_a_tag_that_a_text_mentions_is_not_taken_for_one_that_it_has(name):
    page, tag, mention = MENTIONS[name]

    def file(text):
        return page.format(text.format(tag=tag, mention=mention))

    document = opened(name, file("use {mention} and &lt;/b&gt; for {tag}bold</b> text"))
    assert filled(document).decode() == file("USE {mention} AND &lt;/b&gt; FOR {tag}BOLD</b> TEXT")
    moved = " for ".join(reversed(document.slots[0].text.split(" for ")))
    if "mention" not in name:
        expected = file("{tag}bold</b> text for use {mention} and &lt;/b&gt;")
        assert document.fill({0: Filling(moved)}).decode() == expected


EDGES = {
    "a.html": "<p>{0}Hello{0}<b>dear</b>{0}friend{0}</p><li>{0}Hello{0}</li>",
    "a.yml": "a: {0}Hello{0}\nb: '{0}Hello{0}'\nc: |\n  {0}Hello{0}\n",
    "forms.yml": "a:\n  one: Hello{0}\n  few: Hello{0}\n  many: Hello{0}\n  other: Hello{0}\n",
    "a.ftl": "a = {0}Hello{0}\nb =\n    {0}Hello{0}\n",
    "a.properties": "a = {0}Hello{0}\n",
    "a.xml": '<resources><string name="a">{0}Hello{0}</string></resources>',
    "a.md": "{0}Hello{0}\n\n- {0}Hello{0}\n",
    "a.srt": "1\n00:00:01,000 --> 00:00:02,000\n{0}Hello{0}\n",
}


def capital_words(text):
    return re.sub("Hello|dear|friend", lambda word: word[0].upper(), text)


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("space", ["\u00a0", "\u3000", "\u202f"])
def test_no_break_and_ideographic_spaces_at_the_edges_of_a_text_are_there_once(name, space):
    done = filled(opened(name, EDGES[name].format(space))).decode()
    expected = capital_words(EDGES[name].format(space))
    assert done.replace('"', "") == expected.replace('"', "")  # YAML quotes what its plain style cannot hold


@pytest.mark.parametrize("space", ["&nbsp;", "&#x3000;"])
def test_references_to_spaces_stay_at_the_edges_of_a_text_of_html(space):
    page = f"<p>{space}Hello{space}<b>dear</b>{space}friend{space}</p>"
    assert filled(opened("a.html", page)).decode() == capital_words(page)


def subtitles(*cues, head=""):
    return head + "\n".join(f"00:00:0{n}.000 --> 00:00:0{n + 1}.000\n{cue}\n" for n, cue in enumerate(cues))


@pytest.mark.parametrize(
    ("cues", "text", "translation", "expected"),
    [
        (
            ("<i>When I was young</i>", "<i>we lived near the sea.</i>"),
            "When I was young we lived near the sea.",
            "Als Kind lebten wir in der Nähe des Meeres.",
            ("<i>Als Kind lebten wir</i>", "<i>in der Nähe des Meeres.</i>"),
        ),
        (
            ("{\\an8}<i>When I was young</i>", "we lived near the sea."),
            "When I was young we lived near the sea.",
            "Als Kind lebten wir in der Nähe des Meeres.",
            ("{\\an8}<i>Als Kind lebten wir</i>", "in der Nähe des Meeres."),
        ),
        (
            ("<v Ann><i>When I was young</i>", "<v Ann>we lived near the sea.</v>"),
            "When I was young we lived near the sea.",
            "Als Kind lebten wir in der Nähe des Meeres.",
            ("<v Ann><i>Als Kind lebten wir</i>", "<v Ann>in der Nähe des Meeres.</v>"),
        ),
        (  # a stretch that the division cuts
            ("When I was <b>young</b>", "we lived near the sea."),
            "When I was <b>young</b> we lived near the sea.",
            "Als Kind <b>lebten wir in der</b> Nähe des Meeres.",
            ("Als Kind <b>lebten wir</b>", "<b>in der</b> Nähe des Meeres."),
        ),
        (  # a stretch that runs over both cues
            ("<i>When I was young", "we lived near the sea.</i>"),
            "<i>When I was young we lived near the sea.</i>",
            "<i>Als Kind lebten wir in der Nähe des Meeres.</i>",
            ("<i>Als Kind lebten wir", "in der Nähe des Meeres.</i>"),
        ),
    ],
)
def test_tags_stay_in_their_cues_where_a_sentence_is_divided(cues, text, translation, expected):
    document = opened("a.vtt", subtitles(*cues, head="WEBVTT\n\n"))
    assert [slot.text for slot in document.slots] == [text]
    done = document.fill({0: Filling(translation)}).decode()
    assert done == subtitles(*expected, head="WEBVTT\n\n")
    assert document.fill({0: Filling(text)}).decode() == subtitles(*cues, head="WEBVTT\n\n")


@pytest.mark.parametrize(
    "cues", [("Hello",), ("Hello\nfriend",), ("Hello,", "dear\nfriend"), ("Hello,\ndear", "friend")]
)
@pytest.mark.parametrize("nothing", ["", " "])
def test_an_empty_translation_empties_its_cue(cues, nothing):
    following = "00:00:09.000 --> 00:00:10.000\nNext\n"
    document = opened("a.vtt", subtitles(*cues, head="WEBVTT\n\n") + f"\n{following}")
    done = document.fill({0: Filling(nothing)}).decode()
    assert done == f"WEBVTT\n\n00:00:00.000 --> 00:00:0{len(cues)}.000\n\n\n{following}"
    assert [slot.text for slot in opened("a.vtt", done).slots] == ["Next"]


NEVER = ("Not now,", "at least", "never.")


@pytest.mark.parametrize(
    ("cues", "translation", "expected"),
    [
        (
            ("It", "could", "not", "be", "found."),
            "No se pudo encontrar.",
            {(0, 1): "No", (1, 2): "se", (2, 4): "pudo", (4, 5): "encontrar."},
        ),
        (NEVER, "Nunca.", {(0, 3): "Nunca."}),
        (NEVER, "Ahora no.", {(0, 1): "Ahora", (1, 3): "no."}),
        (("<b>Not now,", "at least", "never.</b>"), "<b>Ahora no.</b>", {(0, 1): "<b>Ahora", (1, 3): "no.</b>"}),
        (("<i>Not now,</i>", "{\\an8}<i>never.</i>"), "Nunca.", {(0, 2): "<i>Nunca.</i>"}),
        (("Not <i>now,", "at least</i>", "never."), "<i> Nunca. </i>", {(0, 3): "<i> Nunca. </i>"}),
        (NEVER, "从不。", {(0, 1): "从", (1, 3): "不。"}),  # no sign at the beginning of a cue
        (NEVER, "「スーパー」 Python!", {(0, 1): "「スー", (1, 2): "パー」", (2, 3): "Python!"}),
        (("a b", "c d."), "Quoi\u00a0?", {(0, 2): "Quoi\u00a0?"}),
    ],
)
@pytest.mark.parametrize("name", ["a.srt", "a.vtt"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_cues_become_one_before_a_word_is_cut(cues, translation, expected, name, line_end):
    def file(cues):
        head = ["WEBVTT", ""] if name == "a.vtt" else []
        texts = [(f"{a + 1}", f"00:00:0{a}.000 --> 00:00:0{b}.000 x", text, "") for (a, b), text in cues.items()]
        return "".join(line + line_end for line in [*head, *(line for text in texts for line in text)])

    document = opened(name, file({(n, n + 1): cue for n, cue in enumerate(cues)}))
    assert len(document.slots) == 1
    assert document.fill({0: Filling(translation)}).decode() == file(expected)


def test_a_comment_between_cues_that_become_one_stays():
    raw = (
        "WEBVTT\n\n00:00.000 --> 00:01.000 a\nNot now,\n\nNOTE who?\n\nb\n00:02.000 --> 00:03.000 c\nnever.\n\nNOTE d\n"
    )
    expected = "WEBVTT\n\n00:00.000 --> 00:03.000 a\nNunca.\n\nNOTE who?\n\nNOTE d\n"
    assert opened("a.vtt", raw).fill({0: Filling("Nunca.")}).decode() == expected


@pytest.mark.parametrize(
    ("cues", "texts", "expected"),
    [
        (("Tom &amp; Jerry &lt;3",), ["Tom & Jerry <3"], ("TOM &amp; JERRY &lt;3",)),
        (("a&nbsp;b&lrm; &#8230; c &amp;lt;",), ["a\u00a0b\u200e … c &lt;"], ("A&nbsp;B&lrm; &#8230; C &amp;lt;",)),
        (
            ("&gt;&gt; Are you ready?\n&gt;&gt; Not at all.",),
            [">> Are you ready?\n>> Not at all."],
            ("&gt;&gt; ARE YOU READY?\n&gt;&gt; NOT AT ALL.",),
        ),
        (("rock &amp;", "roll &amp; more."), ["rock & roll & more."], ("ROCK &amp;", "ROLL &amp; MORE.")),
        (("Use &lt;i&gt; for <i>x</i>.",), ["Use &lt;i&gt; for <i>x</i>."], ("USE &lt;i&gt; FOR <i>X</i>.",)),
        (("a --&gt; b",), ["a --> b"], ("A --&gt; B",)),
    ],
)
def test_references_of_webvtt_are_read_and_written(cues, texts, expected):
    document = opened("a.vtt", subtitles(*cues, head="WEBVTT\n\n"))
    assert [slot.text for slot in document.slots] == texts
    assert filled(document).decode() == subtitles(*expected, head="WEBVTT\n\n")


def test_a_reference_is_not_cut_and_none_are_read_in_subrip():
    document = opened("a.vtt", subtitles(*NEVER, head="WEBVTT\n\n"))
    done = document.fill({0: Filling("猫&狗。")}).decode()
    assert done == subtitles("猫", "&amp;", "狗。", head="WEBVTT\n\n")
    assert (
        opened("a.srt", subtitles("Q &amp; A < B")).fill({0: Filling("Q &amp; A < C")})
        == subtitles("Q &amp; A < C").encode()
    )


@pytest.mark.parametrize(
    "cues", [("<v Ann>I think", "<v Bob>maybe not."), ("I think", "<v Bob>maybe not."), ("a <00:01.000>b", "c d.")]
)
def test_what_two_voices_say_is_not_joined(cues):
    document = opened("a.vtt", subtitles(*cues, head="WEBVTT\n\n"))
    assert [slot.text for slot in document.slots] == list(cues)


@pytest.mark.parametrize(
    ("text", "expected", "numbers"),
    [
        ("T0\nIt was\n1999\n\nT1\n2024\n\nT2\n7\n", ["It was 1999", "2024", "7"], []),
        ("T0\nIt was\n1999\nT1\nB.\n", ["It was 1999", "B."], []),
        ("T0\nIt was\n2\n\nT1\nB.\n", ["It was 2", "B."], []),
        ("1\nT0\nIt was\n1999\n\n2\nT1\n2024\n\n3\nT2\n7\n", ["It was 1999", "2024", "7"], ["1", "2", "3"]),
        ("\n7\nT0\nIt was\n1999\n\n\n9\nT1\nB.\n", ["It was 1999", "B."], ["7", "9"]),
        ("1\nT0\nIt was\n1999\n2\nT1\nB.\n3\nT2\nC.\n", ["It was 1999", "B.", "C."], ["1", "2", "3"]),
        ("1\nT0\n\n2\nT1\nB.\n", ["B."], ["1", "2"]),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_digits_below_a_text_belong_to_it_unless_they_count_cues(text, expected, numbers, line_end):
    for n in range(3):
        text = text.replace(f"T{n}", f"00:00:0{n},000 --> 00:00:0{n},900")
    document = opened("a.srt", text.replace("\n", line_end))
    assert [slot.text for slot in document.slots] == expected
    done = document.fill({number: Filling("x") for number in range(len(expected))}).decode()
    assert [line for line in done.split(line_end) if line.isdigit()] == numbers
    assert done.count("-->") == text.count("-->") and done.count("x") == len(expected)


def test_a_blank_line_ends_a_value_that_wants_to_go_on():
    document = opened("a.properties", "a = one \\\n\nb = two\n")
    assert [(slot.key, slot.text) for slot in document.slots] == [("a", "one "), ("b", "two")]
    assert filled(document) == b"a = ONE \nb = TWO\n"


def test_properties_get_escapes_unless_the_file_does_without():
    assert opened("a.properties", "a = x\n").fill({0: Filling("é🐕")}) == b"a = \\u00e9\\ud83d\\udc15\n"
    assert opened("a.properties", "# é\na = x\n").fill({0: Filling("ü")}) == "# é\na = ü\n".encode()
    assert opened("a.properties", "# é\na = x\n".encode("latin-1")).fill({0: Filling("ü")}).endswith(b"\\u00fc\n")


def test_a_plist_is_read_by_its_library():
    raw = filled(opened("a.stringsdict", next(s.before for s in SAMPLES if s.name.endswith("dict"))))
    forms = plistlib.loads(raw)["files"]["files"]
    assert {name: forms[name] for name in ("one", "few", "many")} == {
        "one": "%d FILE",
        "few": "%d FILES",
        "many": "%d FILES",
    }


def test_the_ends_of_a_link_stay_in_their_order_whatever_its_form():
    for text in ('see [a link](http://x "t") here', "see [a link][ref] here", "see ![a (b)](c(d).png) here"):
        (slot,) = opened("a.md", f"{text}\n\n[ref]: http://x\n").slots
        start, end = slot.text.index("["), slot.text.index("]")
        swapped = (
            slot.text[:start].replace("!", "") + slot.text[end:] + " " + "!" * ("!" in text) + slot.text[start:end]
        )
        there, here = (find_placeholders(some, slot.codes) for some in (swapped, slot.text))
        assert placeholders_preserved(here, here) and not placeholders_preserved(here, there)


def test_a_tasks_box_and_the_name_of_a_footnote_are_no_text():
    texts = [slot.text for slot in opened("a.md", "- [x] done\n\n[^1]: a note\n").slots]
    assert texts == ["done", "a note"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("> [!NOTE]\n> Useful to\n> know.\n", "> [!NOTE]\n> USEFUL TO KNOW.\n"),
        ("> [!tip]- A title\n> The text\n", "> [!tip]- A TITLE\n> THE TEXT\n"),
        ("::: tip Title\nThe text\nhere.\n:::\n", "::: tip Title\nTHE TEXT HERE.\n:::\n"),
        (":::note[Title]\nThe text.\n:::\nMore\n", ":::note[Title]\nTHE TEXT.\n:::\nMORE\n"),
        ('!!! warning "Title"\n    The text\n    here.\n', '!!! warning "Title"\n    THE TEXT HERE.\n'),
        ("??? note\n    The text\n", "??? note\n    THE TEXT\n"),
        ('=== "A tab"\n    The text\n', '=== "A tab"\n    THE TEXT\n'),
        ("Term\n: One\n  meaning\n: Another\n", "TERM\n: ONE MEANING\n: ANOTHER\n"),
        ("[^1]: One note\n[^2]: Two notes\n", "[^1]: ONE NOTE\n[^2]: TWO NOTES\n"),
        ("Math and\n$$\na = b \\text{ and}\n$$\nmore\n", "MATH AND\n$$\na = b \\text{ and}\n$$\nMORE\n"),
        ("Text\n{: .class}\n", "TEXT\n{: .class}\n"),
        ("{% note %}\nText\n{% endnote %}\n", "{% note %}\nTEXT\n{% endnote %}\n"),
        ("{{< note >}}\nText\n{{< /note >}}\n", "{{< note >}}\nTEXT\n{{< /note >}}\n"),
        ("[TOC]\n\nText\n", "[TOC]\n\nTEXT\n"),
        ("[![a b](x.png)](y)\nand text\n", "[![A B](x.png)](y)\nAND TEXT\n"),
        ("Hello\n{{ name }}!\n", "HELLO {{ name }}!\n"),
    ],
)
def test_lines_of_dialects_of_markdown_stay_and_divide_a_paragraph(raw, expected):
    assert filled(opened("a.md", raw)).decode() == expected


@pytest.mark.parametrize("before", ["", "- ", "> ", "1. "])
@pytest.mark.parametrize(
    "text",
    [
        "1. Mai ist ein Feiertag",
        "12) x",
        "# 5",
        "- x",
        "+ x",
        "> x",
        "* x",
        "---",
        "***",
        "~~~",
        "```",
        "===",
        "a\n1. b",
    ],
)
def test_a_translation_stays_the_kind_of_block_that_its_source_is(before, text):
    def blocks(raw):
        return [token.type for token in MarkdownIt("commonmark").parse(raw)]

    source = f"{before}One line"
    source += "  \n" + " " * len(before) + "two" if "\n" in text else ""
    (slot,) = (document := opened("a.md", source + "\n")).slots
    raw = document.fill({0: Filling(text)}).decode()
    assert blocks(raw) == blocks(source) and len(opened("a.md", raw).slots) == any(map(str.isalpha, text))
    inline = next(token for token in MarkdownIt("commonmark").parse(raw) if token.type == "inline")
    assert "".join(child.content or "\n" for child in inline.children or ()) == text and slot.text.startswith("One")
    heading = opened("a.md", "## One\n").fill({0: Filling("1. Mai")})
    assert heading == b"## 1. Mai\n"


# ---- plurals and messages ------------------------------------------------------------------------


def test_plural_categories_are_those_of_cldr():
    from babel import Locale

    languages = "en de fr es it pt pl ru uk cs sl ar he lv lt ro ga cy ja zh ko tr fa hi"
    for language in languages.split():
        expected = set(Locale.parse(language).plural_form.tags) | {"other"}
        assert set(plural_categories(language).names) == expected, language
    assert plural_categories("pt-BR").names == plural_categories("pt_BR").names == ("one", "many", "other")
    assert plural_categories(None).names == () == plural_categories("qqq").names
    assert set(plural_categories("ar").names) == set(CATEGORIES)


def android(one, other):
    items = f'<item quantity="one">{one}</item><item quantity="other">{other}</item>'
    return f'<resources><plurals name="p">{items}</plurals></resources>'


def catalog(one, other):
    forms = {
        name: {"stringUnit": {"state": "translated", "value": text}} for name, text in (("one", one), ("other", other))
    }
    entry = {"localizations": {"en": {"variations": {"plural": forms}}}}
    return json.dumps({"sourceLanguage": "en", "strings": {"n": entry}, "version": "1.0"})


PLURALS = {
    "a.yml": lambda one, other: f"en:\n  n:\n    one: '{one}'\n    other: '{other}'\n",
    "a.json": lambda one, other: json.dumps({"n_one": one, "n_other": other}),
    "m.json": lambda one, other: json.dumps({"m": f"{{n, plural, one {{{one}}} other {{{other}}}}}"}),
    "a.arb": lambda one, other: json.dumps({"m": f"{{n, plural, one{{{one}}} other{{{other}}}}}"}),
    "a.properties": lambda one, other: f"m={{n, plural, one {{{one}}} other {{{other}}}}}\n",
    "a.xml": android,
    "a.xcstrings": catalog,
    "a.ftl": lambda one, other: f"a = {{ $x ->\n    [one] {one}\n   *[other] {other}\n }}\n",
    "a.po": lambda one, other: f'msgid "{one}"\nmsgid_plural "{other}"\nmsgstr[0] ""\nmsgstr[1] ""\n',
    "a.stringsdict": lambda one, other: (
        "<plist><dict><key>a</key><dict><key>x</key><dict>"
        f"<key>one</key><string>{one}</string><key>other</key><string>{other}</string></dict></dict></dict></plist>"
    ),
}
"""Makers of a file of each format with one plural, from its forms ``one`` and ``other``."""


@pytest.mark.parametrize("name", PLURALS)
@pytest.mark.parametrize("target", ["ru", "hr", "de"])
def test_a_one_without_its_number_is_not_used_where_21_is_one_as_well(name, target):
    number, user = {"a.ftl": ("{ $n }", "{ $user }"), "a.po": ("%d", "%s"), "a.xml": ("%1$d", "%2$s")}.get(
        name, ("{n}", "{user}")
    )
    other = f"{user} sent {number} files"
    for one in ("One file", "1 file", f"{user} sent a file", f"{user} sent 1 file", f"{user} sent {number} file"):
        texts = [slot.text for slot in opened(name, PLURALS[name](one, other), target=target).slots]
        usable = target == "de" or one == f"{user} sent {number} file"
        assert [text for text in texts if text != other] == ([one] if usable else [])


@pytest.mark.parametrize("name", ["m.json", "a.arb", "a.properties"])
def test_the_number_of_a_message_is_a_placeholder(name):
    def document(one, other):
        return opened(name, PLURALS[name](one, other), target="de")

    source = document("# file {u}", "# of ## files, {p, number, #,##0}")
    assert [slot.codes for slot in source.slots] == [("#",), ("#", "#", "#")]
    for translation in (document("Datei {u}", "# of ## files, {p, number, #,##0}"), document("# # {u}", "# of ## {p}")):
        problems = [found for pair in translations_between(source, translation) for found in find_problems(pair)]
        assert "placeholders" in [found.check for found in problems]
    assert not [code for slot in opened("a.json", '{"a": "# {n, select, other {# x}}"}').slots for code in slot.codes]


def test_a_one_without_a_number_sign_is_not_used_where_21_is_one_as_well():
    texts = [
        slot.text
        for slot in opened("m.json", PLURALS["m.json"]("{u} sent a file", "{u} sent # files"), target="ru").slots
    ]
    assert texts == ["{u} sent # files"] * 4


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (  # the number of the outer plural
            "{n, plural, other {# of {m, plural, other {# files}}}}",
            "{n, plural, other {{m, plural, other {{n, number} of # files}}}}",
        ),
        (
            "{n, plural, other {# by {g, select, other {her}}}}",
            "{n, plural, other {{g, select, other {{n, number} by her}}}}",
        ),
        (  # no number, and what looks like one
            "No. #1, {p, number, #,##0}: {n, plural, other {# '#' x}}",
            "{n, plural, other {No. '#'1, {p, number, #,##0}: # '#' x}}",
        ),
        (
            "{n, plural, other {# '#' {p, number, #,##0} x}} and {m, plural, other {# y}}",
            "{n, plural, other {{m, plural, other {{n, number} '#' {p, number, #,##0} x and # y}}}}",
        ),
    ],
)
def test_a_number_keeps_its_meaning_where_words_are_moved(message, expected):
    pieces = message_pieces(message, plural_categories("ja"))
    assert pieces is not None and "".join(p if isinstance(p, str) else p.text for p in pieces) == expected


@pytest.mark.parametrize(
    ("message", "branches"),
    [
        ("{n, plural, one {# file} other {# files}}", "one: # file; few: # files; many: # files; other: # files"),
        ("{g, select, male {He} other {They}} left", "male: He left; other: They left"),
        ("{n, plural, =0 {none} other {all}}", "=0: none; one: all; few: all; many: all; other: all"),
        ("{n, selectordinal, one {#st day} other {#th day}}", "one: #st day; other: #th day"),
        (
            "{g, select, a {{n, plural, other {x}}} other {it''s '{y}'}}",
            "a.one: x; a.few: x; a.many: x; a.other: x; other: it''s '{y}'",
        ),
    ],
)
def test_the_branches_of_a_message_are_whole_sentences(message, branches):
    pieces = message_pieces(message, plural_categories("pl"))
    assert pieces is not None
    assert "; ".join(f"{p.path}: {p.text}" for p in pieces if isinstance(p, Branch)) == branches


def test_two_plurals_in_one_sentence_keep_their_numbers():
    pieces = message_pieces("{a, plural, other {# cats}} and {b, plural, other {# dogs}}", plural_categories("ja"))
    assert pieces is not None
    assert "".join(p if isinstance(p, str) else p.text for p in pieces) == (
        "{a, plural, other {{b, plural, other {{a, number} cats and # dogs}}}}"
    )


@pytest.mark.parametrize(
    "text", ["{n, plural, one {x}", "{n, plural, one {x}}", "{n}", "plain", "{n, date, short}", "{"]
)
def test_what_is_no_complete_message_is_a_plain_text(text):
    assert message_pieces(text, plural_categories("pl")) is None


def test_a_new_apostrophe_quotes_no_argument():
    document = opened("a.arb", '{"a": "{g, select, other {of {x}}}"}', target="fr")
    assert json.loads(document.fill({0: Filling("d'{x}")}))["a"] == "{g, select, other {d''{x}}}"


# ---- files that cannot be read --------------------------------------------------------------------

BROKEN = {
    "a.json": ['{"a": }', '{"a": "b"', '["a", \n]', '"alone"', "{" * 3000, '{"a": ' + "9" * 5000 + "}"],
    "a.arb": ["[]", '{"a" "b"}'],
    "strings.xml": ["<resources><string></resources>", "<other/>", "", "<resources>&x;</resources>", "text"],
    "a.strings": ['"a" = "b"', '"a" = ;', "/* open", '"a" "b";', "bplist00"],
    "a.stringsdict": ["<plist><dict><key>a</key></dict></plist>", "<x/>", "bplist00", "<plist><array/></plist>"],
    "a.xcstrings": [
        *("{}", '{"strings": 1}', "["),
        *(
            f'{{"sourceLanguage": "en", "strings": {{"a": {{"localizations": {localizations}}}}}}}'
            for localizations in (
                *("1", '"x"', "[1]", '{"pl": 1}', '{"pl": [1]}', '{"en": "x"}'),
                *('{"en": {"stringUnit": {"value": 1}}}', '{"pl": {"stringUnit": {"value": null}}}'),
                '{"pl": {"variations": {"plural": {"other": {"stringUnit": {"state": [], "value": "x"}}}}}}',
            )
        ),
    ],
    "a.resx": ["<root>", "<x/>", ""],
    "a.properties": ["a = \\u12"],
    "a.yml": ["a: [", "a: b: c", "\ta: b", 'a: "x', "a: *x"],
    "a.ftl": ["a = { $", "= x", "a", "a = { b ->\n }"],
    "a.ts": ["const a = 1;", "<TS><message>", "<x/>"],
    "a.srt": ["text", "1\n00:00:01,000 -> 00:00:02,000\nx\n", "1\n00:00:01,000 --> 00:00:0x\nx\n"],
    "a.vtt": [
        *("hello", "WEBVTX\n\n00:01.000 --> 00:02.000\nx\n", "WEBVTT\n\nx -> y\nz\n", "WEBVTT\n\n00:01.000 --> \nx\n"),
        "WEBVTT\n\n00:01.000 --> \nx\n\n00:03.000 --> 00:04.000\ny\n",
        "WEBVTT\n\n00:01.000 --> 00:02.000\nx\n\n00:03.000 -> 00:04,00\n00:00:03.000 >\ny\n",
    ],
    "a.csv": ["en,pl,en\n1,,2\n", "", "a,b\n1,2\n", "en,pl\n1\n", 'en,pl\n"x,\n'],
    "a.docx": ["no archive", "PK\x03\x04"],
    "a.epub": [""],
}


@pytest.mark.parametrize(("name", "raw"), [(name, raw) for name, some in BROKEN.items() for raw in some])
def test_a_broken_file_is_refused_in_one_line_with_its_name(name, raw):
    with pytest.raises(UserError, match=rf"^{name}") as error:
        opened(name, raw)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize("name", [f"a{kind}" for kind in OPENERS if kind not in (".tmx", ".xlf", ".xliff")])
@given(raw=st.binary(max_size=60))
def test_no_bytes_lead_to_anything_but_a_document_or_a_refusal(name, raw):
    try:
        document = opened(name, raw)
    except UserError as error:
        assert str(error).startswith(name)
    else:
        assert document.fill({}) == raw


@every_sample
@given(data=st.data())
def test_a_damaged_file_is_refused_or_filled(sample, data):
    raw = sample.before
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, min(start + 20, len(raw))))
    try:
        document = opened(
            sample.name, raw[:start] + data.draw(st.sampled_from(["", "<", '"', "{", "\n", "\r", "&"])) + raw[end:]
        )
    except UserError as error:
        assert str(error).startswith(sample.name)
    else:
        filled(document)


def test_notes_and_styles_of_webvtt_are_no_cues():
    text = "WEBVTT - a\nKind: b\n\nNOTE\nfrom 00:00:01.000 on\n\nSTYLE\n::cue {}\n\n"
    assert not opened("a.vtt", text).slots
    assert [slot.text for slot in opened("a.vtt", text + "id\n00:01.000 --> 00:02.000\nx\n\nmore\n").slots] == ["x"]
    assert [slot.text for slot in opened("a.vtt", "1\n00:00:01,000 --> 00:00:02,000\nx\n").slots] == ["x"]


@pytest.mark.parametrize(
    ("page", "texts"),
    [
        ("<ul><li translate=no>A<li>Hello<li>World</ul><p>End", ["Hello", "World", "End"]),
        ("<ul><li translate=no>A<ul><li>B<li>C</ul><li>Hello</ul>", ["Hello"]),
        ("<div><p translate=no>A</div><p>Hello", ["Hello"]),
        ("<p class=notranslate>A<p>Hello", ["Hello"]),
        ("<table><tr><td translate=no>A<td>Hello<tr><td>World</table>", ["Hello", "World"]),
        ("<dl><dt translate=no>A<dd>Hello</dl>", ["Hello"]),
        ("<div translate=no>A<p>B</div><p>Hello", ["Hello"]),
        ("<div translate=no>A<div>B</div></div> Hello", ["Hello"]),
        ("<table><tr translate=no><td>A<tr><td>Hello</table>", ["Hello"]),
    ],
)
def test_an_html_element_that_stays_ends_where_its_end_is_left_out(page, texts):
    assert [slot.text for slot in HtmlDocument(page.encode(), "p.html").slots] == texts


@pytest.mark.parametrize(
    ("page", "texts"),
    [
        (
            "<p translate=NO>A<p Translate='No'>B<p translate=YES>Hello<p translate>Hi<p translate=x>Ho",
            ["Hello", "Hi", "Ho"],
        ),
        ("<div translate=no>A<p translate=yes>Hello</p>B<p translate=''>Hi</p>C</div>Ho", ["Hello", "Hi", "Ho"]),
        ("<div translate=no>A<p translate=yes>Hello<p>B</div>Ho", ["Hello", "Ho"]),
        ("<div class=notranslate><ul translate=yes><li translate=no>A<li>Hello</ul>B</div>", ["Hello"]),
        ("<div translate=no><pre>A <i translate=yes>B</i></pre></div><code>C<i translate=yes>D</i></code>", []),
        ("<div translate=no><b translate=yes>Hello</b> A</div>", ["Hello"]),
        (
            "<p>Hello <span translate=no>A <b translate=yes>dear</b> B</span> friend",
            ["Hello <span translate=no>A <b translate=yes>dear</b> B</span> friend"],
        ),
    ],
)
def test_the_innermost_translate_attribute_of_html_counts_in_any_case(page, texts):
    document = HtmlDocument(page.encode(), "p.html")
    assert [slot.text for slot in document.slots] == texts
    done = filled(document).decode()
    assert done.lower() == page.lower()
    assert re.findall(r"\b[A-D]\b", done) == re.findall(r"\b[A-D]\b", page)


def test_attributes_follow_the_translate_attribute_of_their_element():
    page = '<div translate=NO title="kept">A<p translate=yes title="hello">Hello</p><i title="kept">B</i></div>'
    expected = page.replace('"hello"', '"HELLO"').replace(">Hello", ">HELLO")
    assert filled(HtmlDocument(page.encode(), "p.html")).decode() == expected


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p><code>git push</code> could not be started</p>", "<code>git push</code> could not be started"),
        ("<p>Run <kbd>Ctrl</kbd></p>", "Run <kbd>Ctrl</kbd>"),
        ("<p><b translate=no>Acme</b> is here", "<b translate=no>Acme</b> is here"),
        ("<li><b><a class=notranslate>Acme</a></b>, Inc.", "<b><a class=notranslate>Acme</a></b>, Inc."),
        ("<p><math><mi>x</mi></math> is a number", "<math><mi>x</mi></math> is a number"),
        ("<p><img src=a> Hello <br><svg><title>A</title></svg></p>", "Hello"),
        (
            "<p><code></code><i class=notranslate><img><!-- a > b --></i>&nbsp;<svg/>Hello<var> </var>",
            "\u00a0<svg/>Hello",
        ),
        ("<td><code>git</code></td>", None),
    ],
)
def test_what_stays_at_the_edge_of_a_sentence_is_a_part_of_it_if_it_has_a_text(page, text):
    assert [slot.text for slot in HtmlDocument(page.encode(), "p.html").slots] == [text] * bool(text)


@pytest.mark.parametrize(
    ("page", "codes"),
    [
        (
            '<td>Price: <span class="notranslate">USD <div translate="yes">about ten</div> net</span></td>',
            ['<span class="notranslate">USD'],
        ),
        (
            '<body>Hi <span translate="no">Acme <p translate="yes">ok</p> Inc. </span> there</body>',
            ['<span translate="no">Acme', "Inc. </span>"],
        ),
        ("<p>Run <code>make install\n</p>\n<p>next</p>\n", ["<code>make install\n</p>\n<p>next</p>"]),
        ("<p>Run <code title='how'>make install \n", ["<code title='how'>make install"]),
    ],
)
def test_white_space_at_the_edge_of_what_stays_makes_no_text_of_it(page, codes):
    document = HtmlDocument(page.encode(), "p.html")
    assert [code for slot in document.slots for code in slot.codes] == codes
    assert all(slot.text == slot.text.strip() for slot in document.slots)
    assert document.fill({i: Filling(slot.text) for i, slot in enumerate(document.slots)}).decode() == page
    capital = re.sub("Price|Run|Hi|there|ok|how|about ten", lambda word: word[0].upper(), page)
    assert filled(document).decode() == capital


HTML_PIECES = [
    *("Hello", "dear ", " friend", " ", "\n", "&amp;", "&lt;p&gt;", "\u00a0", "<br>", "<img alt='a b'>", "<!-- c -->"),
    *("<b>", "</b>", "<code>", "</code>", "<span translate=no title='t'>", "<span translate=yes>", "</span>"),
    *("<p>", "<p translate=no>", "<p translate=yes title='t'>", "</p>", "<div class=notranslate>", "<div>", "</div>"),
    *("Hello <code>a ", "Hello <span translate=no> a ", "<p translate=yes>b</p> a </span> Hello"),
]


@given(found=st.lists(st.sampled_from(HTML_PIECES), max_size=12))
def test_a_page_whose_translation_is_its_text_stays_as_it_is_but_for_white_space(found):
    page = "".join(found)
    document = HtmlDocument(page.encode(), "p.html")
    done = document.fill({i: Filling(slot.text) for i, slot in enumerate(document.slots)}).decode()
    assert re.sub("[ \\n]+", " ", done) == re.sub("[ \\n]+", " ", page)


@pytest.mark.parametrize("attributes", ["lang='en'", 'xml:lang="en"', 'xml:lang="en" lang="en"', "XML:LANG=en"])
def test_the_language_of_a_page_becomes_the_target_however_it_is_declared(attributes):
    page = f'<html xmlns="http://www.w3.org/1999/xhtml" {attributes}><body><p>Hello</p></body></html>'
    expected = page.replace("Hello", "HELLO").replace(attributes, attributes.replace("en", "pl"))
    assert filled(opened("a.xhtml", page)).decode() == expected
