"""XLIFF and TMX that are filled keep line ends and references, and say which language the translations are in."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from test_translation_files import memory, xliff12
from translate.storage.tmx import tmxfile
from translate.storage.xliff import xlifffile

from dragoman.errors import DataError
from dragoman.text.document import Filling
from dragoman.text.formats.tmx import Tmx, TmxDocument, read_tmx
from dragoman.text.formats.xliff import XliffDocument, read_xliff
from dragoman.text.lines import Pair


def upper(doc, review=False) -> bytes:
    return doc.fill({i: Filling(slot.text.upper(), review) for i, slot in enumerate(doc.slots)})


def target(source: str) -> str:
    """The target that a source gets, as it stands in the file."""
    doc = XliffDocument(xliff12(f'<trans-unit id="1"><source>{source}</source></trans-unit>').encode(), "a.xlf")
    return re.search("<target>(.*)</target>", upper(doc).decode(), re.DOTALL)[1]


# ---- white space and references -------------------------------------------------------------------

KEPT = {
    # source                     target
    "one\ntwo":                 "ONE\nTWO",
    "one\n\ntwo\n":             "ONE\n\nTWO\n",
    "one&#10;two":              "ONE&#10;TWO",
    "one&#13;&#10;two":         "ONE&#13;&#10;TWO",
    "one&#xD;&#xA;two":         "ONE&#xD;&#xA;TWO",
    "one&#10;   two":           "ONE&#10;   TWO",
    "a&#9;b":                   "A&#9;B",
    "5&#xA0;km":                "5&#xA0;KM",
    "&#32;one two&#32;":        "&#32;ONE TWO&#32;",
    "so&#x2026; &quot;x&quot;": "SO&#x2026; &quot;X&quot;",
    "a &lt; &#60; &amp;#10;":   "A &lt; &lt; &amp;#10;",
    "one\n     two":            "ONE TWO",
    "\n     one\n\ttwo\n   ":   " ONE TWO ",
    "one<!-- no -->\ntwo":      "ONE\nTWO",
    "<![CDATA[one\ntwo & 3]]>": "ONE\nTWO &amp; 3",
}  # fmt: skip


@pytest.mark.parametrize("source", KEPT)
def test_white_space_that_is_meant_is_kept_as_it_is_written_and_layout_is_a_space(source):
    assert target(source) == KEPT[source]


@pytest.mark.parametrize("source", KEPT)
def test_a_copy_means_what_its_source_means(source):
    doc = XliffDocument(
        xliff12(f'<trans-unit id="1" xml:space="preserve"><source>{source}</source></trans-unit>').encode(), "a.xlf"
    )
    raw = doc.fill({0: Filling(doc.slots[0].text)})
    copies = ["".join(etree.fromstring(raw).find(f".//{{*}}{name}").itertext()) for name in ("source", "target")]
    assert copies[0] == copies[1]


XML = [
    "a",
    "é",
    "&#233;",
    "&#10;",
    "\n",
    "\r\n",
    "&#xD;",
    " ",
    "&#32;",
    "&quot;",
    '"',
    "&amp;",
    "&#38;",
    "&lt;",
    "&#x3c;",
]
XML += ["<!-- c -->", "<?p i?>", "<![CDATA[<&]]>", "\t", "]]&gt;", "&#x1F600;", "\u00a0", "#10;"]


@given(pieces=st.lists(st.sampled_from(XML), min_size=1, max_size=8), line_end=st.sampled_from(["\n", "\r\n"]))
def test_any_text_is_read_as_lxml_reads_it_and_written_so_that_it_reads_the_same(pieces, line_end):
    source = "".join(pieces)
    text = xliff12(f'<trans-unit id="1" xml:space="preserve"><source>{source}</source></trans-unit>')
    raw = text.replace("\r\n", "\n").replace("\n", line_end).encode()
    meant = "".join(etree.fromstring(raw).find(".//{*}source").itertext())
    doc = XliffDocument(raw, "a.xlf")
    assert [slot.text for slot in doc.slots] == [meant] * bool(meant.strip())
    if doc.slots:
        assert etree.fromstring(doc.fill({0: Filling(meant)})).findtext(".//{*}target") == meant


def test_line_ends_inside_tags_of_the_text_and_between_them_are_kept():
    source = 'one <g id="1">two&#10;three</g>\n<x id="2"/>\n   four'
    doc = XliffDocument(xliff12(f'<trans-unit id="1"><source>{source}</source></trans-unit>').encode(), "a.xlf")
    assert doc.slots[0].text == 'one <g id="1">two\nthree</g>\n<x id="2"/> four'


def test_a_tag_that_a_text_mentions_is_not_taken_for_one_that_it_has():
    source = 'use &lt;g id="1"&gt; for <g id="1">bold</g> text'
    doc = XliffDocument(xliff12(f'<trans-unit id="1"><source>{source}</source></trans-unit>').encode(), "a.xlf")
    assert f"<target>{source}</target>" in doc.fill({0: Filling(doc.slots[0].text)}).decode()
    source = source.replace("g id", "hi type")
    doc = TmxDocument(memory({"en": source.replace("</g>", "</hi>")}).encode(), "a.tmx", target="de")
    again = doc.fill({0: Filling(doc.slots[0].text)}).decode()
    assert again.count(source.replace("</g>", "</hi>")) == 2


def test_a_memory_keeps_line_ends_and_references_as_well():
    doc = TmxDocument(memory({"en": "one&#13;&#10;two\nthree&#xA0;"}).encode(), "a.tmx", target="de")
    assert "<seg>ONE&#13;&#10;TWO&#10;THREE&#xA0;</seg>" in upper(doc).decode()


# ---- sentences of a source ------------------------------------------------------------------------

CUT = (
    '<source>One&#10;. Two <x id="1"/>.</source><seg-source><mrk mtype="seg" mid="1">One&#10;.</mrk> \n'
    '<mrk mid="2" mtype="seg">Two <x id="1"/>.</mrk></seg-source>'
)


@pytest.mark.parametrize("target", ["", "<target/>", '<target state="new"></target>'])
def test_a_target_is_cut_as_its_source_is(target):
    doc = XliffDocument(xliff12(f'<trans-unit id="1">{CUT}{target}</trans-unit>').encode(), "a.xlf")
    assert [slot.text for slot in doc.slots] == ["One\n.", 'Two <x id="1"/>.']
    raw = doc.fill({0: Filling("EINS\n."), 1: Filling('<x id="1"/> ZWEI.')})
    (found,) = re.findall("<target.*</target>", raw.decode(), re.DOTALL)
    assert re.sub("<target[^>]*>", "", found) == (
        '<mrk mtype="seg" mid="1">EINS&#10;.</mrk> \n<mrk mid="2" mtype="seg"><x id="1"/> ZWEI.</mrk></target>'
    )
    assert "review" not in found and doc.slots_to_review({0: Filling("a"), 1: Filling("b")}) == set()


@pytest.mark.parametrize("fillings", [{0: Filling("a", True), 1: Filling("b")}, {1: Filling("b")}])
def test_a_target_with_a_doubtful_sentence_or_without_one_needs_review(fillings):
    doc = XliffDocument(xliff12(f'<trans-unit id="1">{CUT}</trans-unit>').encode(), "a.xlf")
    assert doc.fill(fillings).count(b'state="needs-review-translation"') == 1
    assert doc.slots_to_review(fillings) == set(fillings)


@pytest.mark.parametrize("cut", ['<mrk mtype="x">a</mrk>', 'a <mrk mtype="seg" mid="1">b</mrk>', "a"])
def test_a_source_that_is_not_cut_into_sentences_alone_is_translated_whole(cut):
    unit = f'<trans-unit id="1"><source>a b</source><seg-source>{cut}</seg-source></trans-unit>'
    doc = XliffDocument(xliff12(unit).encode(), "a.xlf")
    assert [slot.text for slot in doc.slots] == ["a b"]
    assert f"{cut}</seg-source><target>A B</target>" in upper(doc).decode()


SENTENCES = (
    '<source>One. Two.</source><seg-source><mrk mtype="seg" mid="1">One.</mrk> <mrk mtype="seg" mid="2">Two.</mrk>'
    "</seg-source>"
)


def opened_sentences(target: str, attributes: str = "") -> XliffDocument:
    return XliffDocument(xliff12(f'<trans-unit id="1"{attributes}>{SENTENCES}{target}</trans-unit>').encode(), "a.xlf")


def sentences(first: str, second: str, attributes: str = "") -> str:
    content = "> <".join(f'mrk mtype="seg" mid="{mid}">{text}</mrk' for mid, text in enumerate((first, second), 1))
    return f"<target{attributes}><{content}></target>"


@pytest.mark.parametrize(
    ("target", "translations"),
    [
        (sentences("", ""), ("", "")),
        (sentences(" ", '<g id="1"></g>'), ("", "")),
        ('<target><mrk mtype="seg" mid="1"/> <mrk mtype="seg" mid="2"/></target>', ("", "")),
        (sentences("Uno.", ""), ("Uno.", "")),
        (sentences("", "Dos."), ("", "Dos.")),
        ('<target><mrk mtype="seg" mid="2">Dos.</mrk></target>', ("", "Dos.")),
        (sentences("Uno.", '<x id="1"/>'), ("Uno.", '<x id="1"/>')),
        (sentences("One.", "Two.", ' state="new"'), ("", "")),
    ],
)
def test_each_sentence_is_translated_or_waits_on_its_own(target, translations):
    doc = opened_sentences(target)
    assert [slot.translation for slot in doc.slots] == list(translations)
    assert [slot.filled for slot in doc.slots] == [bool(text) for text in translations]


@pytest.mark.parametrize("mark", ["", ' state="needs-review-translation"', ' state="translated"'])
def test_sentences_that_are_not_translated_again_stay(mark):
    kept = '<g id="1">U&#10;n</g>o.'
    doc = opened_sentences(sentences(kept, "", mark))
    [waits] = [i for i, slot in enumerate(doc.slots) if not slot.filled]
    unsure = "review" in mark
    assert doc.fill({waits: Filling("DOS.")}).decode().count(sentences(kept, "DOS.", mark)) == 1
    assert doc.slots_to_review({waits: Filling("DOS.")}) == (
        {waits} if unsure else set()
    )  # a state is of a whole target
    done = doc.fill({0: Filling("UNO."), 1: Filling("DOS.")}).decode()
    assert sentences("UNO.", "DOS.", ' state="translated"' if mark else "") in done


def test_a_target_is_from_a_memory_only_if_all_its_sentences_are():
    doc = opened_sentences(sentences("Uno.", ""))
    remembered = Filling("DOS.", remembered=True)
    assert b"exact-match" not in doc.fill({1: remembered})
    assert b"exact-match" in doc.fill({0: remembered, 1: remembered})


@pytest.mark.parametrize(
    "content", ["Uno. Dos.", '<mrk mtype="seg" mid="1">Uno.</mrk> Dos.', '<g id="1">Uno. Dos.</g>']
)
def test_a_translation_that_is_not_cut_as_its_source_is_stays_whole(content):
    [slot] = opened_sentences(f"<target>{content}</target>").slots
    assert slot.filled and (slot.text, slot.translation) == ("One. Two.", content)


@pytest.mark.parametrize("content", ['<g id="1"></g>', '<g id="1"/>', ' <g id="1"><mrk mtype="x"> </mrk></g> '])
def test_tags_that_enclose_nothing_are_no_translation(content):
    unit = f'<trans-unit id="1"><source><g id="1">Door</g></source><target>{content}</target></trans-unit>'
    [slot] = XliffDocument(xliff12(unit).encode(), "a.xlf").slots
    assert not slot.filled and slot.translation == ""


def test_pairs_of_a_file_are_its_translated_sentences(tmp_path):
    unit = f'<trans-unit id="1">{SENTENCES}{{}}</trans-unit>'
    targets = [
        sentences("Uno.", ""),
        sentences("", ""),
        "<target>Uno. Dos.</target>",
        sentences("A", "B", ' state="new"'),
    ]
    (tmp_path / "a.xlf").write_text(xliff12("".join(map(unit.format, targets))))
    found = [(pair.source, pair.target) for pair in read_xliff(str(tmp_path / "a.xlf"))]
    assert found == [("One.", "Uno."), ("One. Two.", "Uno. Dos.")]


# ---- the language of the targets ------------------------------------------------------------------


def file12(attributes: str = "", source: str = "Door") -> str:
    return (
        f'<file source-language="en" datatype="x" original="a"{attributes}><body><trans-unit id="1"><source>{source}'
        "</source></trans-unit></body></file>"
    )


def version_2(attributes: str = "", version: str = "2.0") -> str:
    return (
        f'<xliff xmlns="urn:oasis:names:tc:xliff:document:2.0" version="{version}" srcLang="en"{attributes}>'
        '<file id="f">'
        '<unit id="u"><segment><source>Door</source></segment></unit></file></xliff>'
    )


EN, ES = ' target-language="en"', ' target-language="es"'


def test_each_file_of_version_1_that_names_no_target_language_gets_it():
    text = f'<xliff version="1.2">{file12()}{file12(ES)}{file12(source=" ")}</xliff>'
    root = etree.fromstring(upper(XliffDocument(text.encode(), "a.xlf", "es")))
    assert [file.get("target-language") for file in root] == ["es", "es", None]  # the last has nothing to translate
    assert b"target-language" not in upper(XliffDocument(f"<xliff>{file12()}</xliff>".encode(), "a.xlf"))


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
def test_version_2_gets_its_target_language_or_is_refused(version):
    raw = upper(XliffDocument(version_2(version=version).encode(), "a.xlf", "pt_BR"))
    assert etree.fromstring(raw).get("trgLang") == "pt-BR"
    with pytest.raises(DataError, match=r"^a\.xlf:1: XLIFF 2 .* \(trgLang\): name it with --target-language$"):
        XliffDocument(version_2(version=version).encode(), "a.xlf")
    XliffDocument(version_2(' trgLang="es"').encode(), "a.xlf")


def test_a_target_language_that_copies_the_source_is_replaced_and_another_is_noted():
    copied = XliffDocument(f"<xliff>{file12(EN)}</xliff>".encode(), "a.xlf", "es")
    assert b'target-language="es"' in upper(copied) and not copied.notes
    other = XliffDocument(version_2(' trgLang="fr"').encode(), "a.xlf", "es")
    assert b'trgLang="fr"' in upper(other)
    assert other.notes == ["a.xlf: declares translations in fr, not es: the declaration is kept"]
    assert not XliffDocument(version_2(' trgLang="es-MX"').encode(), "a.xlf", "es").notes


def test_a_file_without_text_says_so():
    for text in ("<xliff/>", f"<xliff>{file12(source=' ')}</xliff>"):
        assert XliffDocument(text.encode(), "a.xlf").notes == ["a.xlf: has no text to translate"]
    assert TmxDocument(memory().encode(), "a.tmx").notes == ["a.tmx: has no units: there is nothing to translate in it"]


# ---- memories -------------------------------------------------------------------------------------


def test_languages_that_cannot_be_meant_are_refused_or_noted():
    with pytest.raises(DataError, match=r"a\.tmx:4: en is the source and en the target.*--target-language"):
        TmxDocument(memory({"en": "a"}).encode(), "a.tmx", target="en")
    with pytest.raises(DataError, match=r"target, of de, fr[?] Name it with --target-language"):
        TmxDocument(memory({"en": "a", "de": "b", "fr": "c"}).encode(), "a.tmx")
    notes = TmxDocument(memory({"de": "a", "fr": "b"}).encode(), "a.tmx", target="es").notes
    assert notes == [
        "a.tmx: no unit has text in en, the source; the languages in it: de, fr: name one with --source-language"
    ]


def test_a_language_of_a_region_is_added_beside_the_language():
    doc = TmxDocument(memory({"en": "colour"}).encode(), "a.tmx", target="en-US")
    assert b'<tuv xml:lang="en-US"><seg>COLOUR</seg></tuv>' in upper(doc)


MARK = '<prop type="x-needs-review">yes</prop>'


@pytest.mark.parametrize("before", ["", '<prop type="x-other">k</prop>', MARK, "<note>n</note>"])
@pytest.mark.parametrize("segment", ["<seg></seg>", "<seg/>", "<seg>b</seg>"])
def test_the_mark_of_a_memory_follows_what_was_done(before, segment):
    text = memory({"en": "a", "de": "@"}).replace("<seg>@</seg>", before + segment)
    doc = TmxDocument(text.encode(), "a.tmx")
    assert upper(doc, review=True).decode().count(MARK) == 1
    assert upper(doc).decode().count(MARK) == 0
    for review in (True, False):
        unit = tmxfile.parsestring(upper(doc, review)).units[0]
        assert unit.gettarget("de") == "A" and ("x-other" in before) == (b"x-other" in upper(doc, review))


def test_a_marked_translation_is_no_training_pair(tmp_path):
    text = memory({"en": "a", "de": "b"}, {"en": "c", "de": "@"}).replace("<seg>@", f"{MARK}<seg>d")
    (tmp_path / "a.tmx").write_text(text)
    assert list(read_tmx(Tmx(path=str(tmp_path / "a.tmx")))) == [Pair("a", "b")]


# ---- files of other tools -------------------------------------------------------------------------

ANGULAR = (
    '<source>Hello <x id="INTERPOLATION" equiv-text="{{ name }}"/>,&#10;bye</source><context-group purpose="location">'
    '<context context-type="linenumber">3</context></context-group><note priority="1" from="description">a</note>'
)
SYMFONY = "<source>The %name% door</source><target>__The %name% door</target><note>key: door.open</note>"
DOTNET = '<source>File\nnot found</source><target state="new">File\nnot found</target><note />'
TYPO3 = "<source><![CDATA[A <b>door</b>]]></source>"
QT = "<source>Open &amp;file&#x2026;</source><context-group><context context-type='x'>a.cpp</context></context-group>"
XCODE = "<source>%#@doors@</source><target state='translated'>%#@doors@</target><note/>"


@pytest.mark.parametrize("unit", [ANGULAR, SYMFONY, DOTNET, TYPO3, QT, XCODE])
def test_units_of_other_tools_get_their_targets_alone(unit):
    text = xliff12(f'<trans-unit id="1" datatype="html">{unit}</trans-unit>')
    doc = XliffDocument(text.encode(), "a.xlf", "de")
    raw = doc.fill({i: Filling(slot.text) for i, slot in enumerate(doc.slots)})
    root = etree.fromstring(raw)
    copies = [("".join(root.find(f".//{{*}}{name}").itertext())) for name in ("source", "target")]
    assert copies[0] == copies[1] and len(xlifffile.parsestring(raw).units) == 1
    assert re.sub(r"\s*<target.*?</target>", "", raw.decode(), flags=re.DOTALL) == re.sub(
        r"\s*<target.*?</target>", "", text, flags=re.DOTALL
    )
