"""Documents are filled in, and nothing else in them changes: to the byte, and as the translate toolkit reads them."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_translation_files import HEADER, damaged, memory, xliff12
from translate.storage import factory, pypo
from translate.storage.xliff2 import Xliff2File

from dragoman.cli import main
from dragoman.decode.documents.document import CHUNK, translate_document
from dragoman.decode.generation_settings import NO_SETTINGS
from dragoman.decode.translation import Candidate, Translation
from dragoman.decode.translator import Translator
from dragoman.errors import DataError
from dragoman.text.context import NO_CONTEXT
from dragoman.text.document import FillableDocument, Filling, Slot
from dragoman.text.filled.opening import open_document
from dragoman.text.filled.po_document import PoDocument
from dragoman.text.formats import plurals
from dragoman.text.formats.tmx import TmxDocument
from dragoman.text.formats.xliff import XliffDocument

TEXTS = st.text(
    st.sampled_from('aé\n\t"\\%& <>{}') | st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12
)
WORDS = TEXTS.filter(lambda text: text.strip() and "\r" not in text)
MARK = "MARK"

MANY = settings(max_examples=max(300, settings.default.max_examples))


def document(name: str, raw: bytes, **options) -> FillableDocument:
    kind = {"po": PoDocument, "xlf": XliffDocument, "tmx": TmxDocument}[name.rpartition(".")[2]]
    return kind(raw, name, **options)


def everything(doc: FillableDocument, text=MARK, **options) -> dict[int, Filling]:
    return {i: Filling(text, **options) for i in range(len(doc.slots))}


def parsed(raw: bytes, name: str):
    file = io.BytesIO(raw)
    file.name = name
    return factory.getobject(file)


# ---- nothing else changes -------------------------------------------------------------------------


@MANY
@given(file=damaged())
def test_filling_nothing_gives_the_same_bytes_of_any_file_that_can_be_read(file):
    name, raw = file
    try:
        doc = document(name, raw)
    except DataError as error:
        assert str(error).startswith(name) and "\n" not in str(error)
    else:
        assert doc.fill({}) == raw


COMMENTS = st.lists(
    st.sampled_from(
        ["# by hand", "#. extracted", "#: a.py:1 b.py:2", "#, c-format", '#| msgid "old"', "", '#~ msgid "gone"']
    ),
    max_size=3,
)
QUOTED = st.sampled_from(
    ['"Hello"', '""\n"Hello, "\n"world\\n"', '"tab\\t and \\"quotes\\" and \\\\ \\101"', '  "indented"  ']
)


@st.composite
def untranslated_po(draw) -> str:
    parts = [HEADER + '"Language: ru\\n"\n' + f'"Plural-Forms: {plurals.field_of("ru")}\\n"\n']
    for _ in range(draw(st.integers(0, 4))):
        parts += [line + "\n" for line in draw(COMMENTS)]
        parts += ['msgctxt "menu"\n'] * draw(st.integers(0, 1)) + [f"msgid {draw(QUOTED)}\n"]
        forms = draw(st.sampled_from([0, 3]))
        parts += [f"msgid_plural {draw(QUOTED)}\n"] * bool(forms)
        parts += [f'msgstr[{form}] ""\n' for form in range(forms)] or ['msgstr ""\n']
        parts += draw(st.sampled_from(["\n", "\n\n", "\n# end\n", ""]))
    return "".join(parts)


@given(text=untranslated_po(), line_end=st.sampled_from(["\n", "\r\n"]), mark=st.sampled_from(["", "\ufeff"]))
def test_filling_a_po_file_changes_its_empty_strings_alone(text, line_end, mark):
    raw = (mark + text.replace("\n", line_end)).encode()
    doc = PoDocument(raw, "a.po")
    filled = doc.fill(everything(doc))
    assert filled.count(b'"MARK"') == len(doc.slots)
    assert filled.replace(b'"MARK"', b'""') == raw


UNITS = [
    "<trans-unit id='1'><source>Hello &amp; <x id=\"1\"/></source></trans-unit>",
    '<trans-unit id="2">\n   <source>two\n   lines</source>\n   <!-- note --></trans-unit>',
    '<trans-unit id="3"><source>a</source><note>b</note><alt-trans><target>c</target></alt-trans></trans-unit>',
    "<group><trans-unit id='4' approved = 'no' >\n<source xml:space='preserve'> a\n b </source></trans-unit></group>",
]


@given(
    units=st.lists(st.sampled_from(UNITS), max_size=4),
    line_end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_filling_an_xliff_file_adds_its_targets_alone(units, line_end, encoding):
    text = (
        xliff12(*units).replace('"UTF-8"', f'"{"UTF-16" if encoding == "utf-16" else "UTF-8"}"').replace("\n", line_end)
    )
    doc = XliffDocument(text.encode(encoding), "a.xlf")
    filled = doc.fill(everything(doc)).decode(encoding)
    assert filled.count("<target>MARK</target>") == len(doc.slots) == len(units)
    assert re.sub(r"\s*<target>MARK</target>", "", filled) == text
    assert filled.count(f"{line_end}   <source>") == filled.count(f"{line_end}   <target>")


@given(count=st.integers(0, 3), line_end=st.sampled_from(["\n", "\r\n"]), review=st.booleans())
def test_filling_a_memory_adds_its_variants_alone(count, line_end, review):
    unit = {"en": "Hello &amp; <ph x='1'>{0}</ph>"}
    text = memory(*[unit] * count).replace("<tuv", "\n  <tuv").replace("<seg", "\n    <seg").replace("\n", line_end)
    doc = TmxDocument(text.encode(), "a.tmx", target="de")
    filled = doc.fill(everything(doc, review=review)).decode()
    assert len(doc.slots) == count == filled.count('<prop type="x-needs-review">yes</prop>') or not review
    assert re.sub(r'\s*<tuv xml:lang="de">.*?</tuv>', "", filled, flags=re.DOTALL) == text


# ---- and what was written is read as it was meant --------------------------------------------------


@given(
    texts=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4, unique_by=lambda pair: pair[0]),
    review=st.booleans(),
)
def test_the_translate_toolkit_reads_what_was_written_to_po(texts, review):
    store = pypo.pofile()
    store.updateheader(add=True, Content_Type="text/plain; charset=UTF-8")
    for source, _ in texts:
        store.addsourceunit(source)
    doc = PoDocument(bytes(store), "a.po")
    assert [slot.text for slot in doc.slots] == [source for source, _ in texts]
    raw = doc.fill({i: Filling(target, review) for i, (_, target) in enumerate(texts)})
    units = [unit for unit in parsed(raw, "a.po").units if not unit.isheader()]
    assert [(str(u.source), str(u.target), u.isfuzzy()) for u in units] == [(*pair, review) for pair in texts]


@given(texts=st.lists(WORDS, min_size=1, max_size=4))
def test_the_translate_toolkit_reads_what_was_written_to_xliff_and_tmx(texts):
    unit = '<trans-unit id="1" xml:space="preserve"><source>a</source></trans-unit>'
    doc = XliffDocument(xliff12(*[unit] * len(texts)).encode(), "a.xlf")
    raw = doc.fill({i: Filling(text) for i, text in enumerate(texts)})
    assert [u.target for u in parsed(raw, "a.xlf").units] == texts
    doc = TmxDocument(memory(*[{"en": "a"}] * len(texts)).encode(), "a.tmx", target="de")
    raw = doc.fill({i: Filling(text) for i, text in enumerate(texts)})
    assert [u.gettarget("de") for u in parsed(raw, "a.tmx").units] == texts


def test_tags_are_written_as_tags_and_characters_as_characters():
    raw = xliff12('<trans-unit id="1"><source>a <g id="1">b</g> &lt;i&gt;</source></trans-unit>').encode()
    doc = XliffDocument(raw, "a.xlf")
    assert doc.slots[0].text == 'a <g id="1">b</g> <i>'
    filled = doc.fill({0: Filling('<i> <g id="1">B & C</g>')}).decode()
    assert '<target>&lt;i&gt; <g id="1">B &amp; C</g></target>' in filled


def test_what_an_encoding_cannot_hold_is_refused_in_po_and_spelt_out_in_xml():
    raw = (HEADER.replace("UTF-8", "ISO-8859-1") + '\nmsgid "a"\nmsgstr ""\n').encode()
    with pytest.raises(DataError, match=r"a\.po: ISO-8859-1, its encoding, has no '€'.*msgconv -t UTF-8"):
        PoDocument(raw, "a.po").fill({0: Filling("5 €")})
    raw = memory({"en": "ä", "de": ""}).replace('"1.0"', '"1.0" encoding="ISO-8859-1"').encode("latin-1")
    assert b"<seg>5 &#8364;</seg>" in TmxDocument(raw, "a.tmx").fill({0: Filling("5 €")})


# ---- plurals --------------------------------------------------------------------------------------

PLURAL = '\nmsgid "One file"\nmsgid_plural "%d files"\nmsgstr[0] ""\nmsgstr[1] ""\n'


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        ("de", ["One file", "%d files"]),
        ("ru", ["%d files", "%d files", "%d files"]),  # the first form is for 21 too: it must name the number
        ("pl", ["One file", "%d files", "%d files"]),
        ("ja", ["%d files"]),
        ("ar", ["%d files", "One file", *["%d files"] * 4]),
    ],
)
def test_plural_forms_are_filled_as_the_language_has_them(language, texts):
    doc = PoDocument((HEADER + f'"Language: {language}\\n"\n' + PLURAL).encode(), "a.po")
    assert [slot.text for slot in doc.slots] == texts
    unit = parsed(doc.fill({i: Filling(f"{i}") for i in range(len(texts))}), "a.po").units[-1]
    assert unit.target.strings == [f"{i}" for i in range(len(texts))] and not doc.notes


def test_where_nothing_tells_the_plural_forms_those_that_are_there_are_filled():
    raw = (HEADER + PLURAL + PLURAL.replace("file", "row")).encode()
    doc = PoDocument(raw, "a.po")
    assert len(doc.slots) == 4 and doc.notes == [
        "a.po: no Plural-Forms in its header, so plurals get the forms they have: name the language with "
        "--target-language to have them filled in"
    ]
    assert len(PoDocument(raw, "a.po", "ru").slots) == 6


# ---- states ---------------------------------------------------------------------------------------

FLAGS = {
    # before              filled with doubt        filled without
    "":                  ("#, fuzzy\n",           ""),
    "#, c-format\n":     ("#, fuzzy, c-format\n", "#, c-format\n"),
    '#| msgid "x"\n':    ('#, fuzzy\n#| msgid "x"\n', '#| msgid "x"\n'),
    '#, fuzzy\n#| msgid "x"\n': ('#, fuzzy\n#| msgid "x"\n', ""),
    '# a\n#| msgctxt "c"\n#| msgid ""\n#| "x "\n#| "y"\n#, fuzzy, c-format\n#| msgid_plural "xs"\n#: b\n': (
        '# a\n#| msgctxt "c"\n#| msgid ""\n#| "x "\n#| "y"\n#, fuzzy, c-format\n#| msgid_plural "xs"\n#: b\n',
        "# a\n#, c-format\n#: b\n",
    ),
    "#, fuzzy\n":        ("#, fuzzy\n",           ""),
    "#, fuzzy, c-format\n": ("#, fuzzy, c-format\n", "#, c-format\n"),
    "#, c-format, fuzzy\n": ("#, c-format, fuzzy\n", "#, c-format\n"),
    "#, fuzzy,c-format\n": ("#, fuzzy,c-format\n", "#, c-format\n"),
    "#,fuzzy,c-format\n": ("#,fuzzy,c-format\n", "#, c-format\n"),
}  # fmt: skip
"""Comments of an entry."""


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("before", FLAGS)
def test_entries_are_marked_fuzzy_where_there_is_doubt_and_only_there(before, line_end):
    def entry(comments, text):
        return f'{HEADER}\n{comments}msgid "a"\nmsgstr "{text}"\n'.replace("\n", line_end).encode()

    doc = PoDocument(entry(before, "" if "fuzzy" not in before else "x"), "a.po")
    for review, after in zip((True, False), FLAGS[before], strict=True):
        assert doc.fill({0: Filling("b", review)}) == entry(after, "b")


def test_states_of_xliff_follow_what_was_done():
    def filled(unit, review):
        doc = XliffDocument(xliff12(unit).encode(), "a.xlf")
        return re.search(r"<target.*</target>", doc.fill({0: Filling("b", review)}).decode())[0]

    new = "<trans-unit><source>a</source><target state='new'>a</target></trans-unit>"
    assert filled(new, True) == '<target state="needs-review-translation">b</target>'
    assert filled(new, False) == '<target state="translated">b</target>'
    assert filled("<trans-unit><source>a</source><target/></trans-unit>", False) == "<target>b</target>"
    assert (
        filled("<trans-unit><source>a</source></trans-unit>", True)
        == '<target state="needs-review-translation">b</target>'
    )


def test_states_of_xliff_2_stand_on_the_segment():
    text = (
        '<xliff xmlns="urn:oasis:names:tc:xliff:document:2.0" version="2.0" srcLang="en" trgLang="de"><file id="f">'
        '<unit id="u"><segment id="s"><source>a</source></segment></unit></file></xliff>'
    )
    doc = XliffDocument(text.encode(), "a.xlf")
    for review, state in ((False, "translated"), (True, "initial")):
        expected = text.replace('id="s">', f'id="s" state="{state}">').replace(
            "</source>", "</source><target>b</target>"
        )
        raw = doc.fill({0: Filling("b", review)})
        assert raw.decode() == expected
        assert Xliff2File.parsestring(raw).units[0].isfuzzy() is review


def test_what_is_translated_or_not_for_translation_is_no_slot_to_fill():
    units = [
        "<trans-unit><source>a</source><target>b</target></trans-unit>",
        '<trans-unit approved="yes"><source>a</source><target>b</target></trans-unit>',
        '<trans-unit translate="no"><source>a</source></trans-unit>',
        "<trans-unit><source> </source></trans-unit>",
    ]
    doc = XliffDocument(xliff12(*units).encode(), "a.xlf")
    assert [(slot.place, slot.filled, slot.locked) for slot in doc.slots] == [
        ("a.xlf:4", True, False),
        ("a.xlf:5", True, True),
    ]


# ---- translating one ------------------------------------------------------------------------------


class Listed(FillableDocument):
    """A document of nothing but slots; filling it lists them."""

    def __init__(self, *slots: Slot):
        super().__init__()
        self.slots = list(slots)

    def fill(self, fillings):
        return repr(sorted(fillings.items())).encode()


def upper(texts, progress=None, confidence=lambda text: 0.5):
    if progress:
        progress(len(texts), len(texts))
    return [
        Translation(
            row,
            text,
            (Candidate(text.upper(), -1.0, -1.0, (2,), (-1.0,), False),),
            ("row 1: odd",) * (text == "odd"),
            confidence(text),
        )
        for row, text in enumerate(texts, 1)
    ]


def test_only_what_is_missing_is_translated_unless_all_is_asked_for():
    doc = Listed(Slot("a:1", "one"), Slot("a:2", "two", filled=True), Slot("a:3", "three", filled=True, locked=True))
    done = translate_document(doc, upper)
    assert done.content.decode() == str([(0, Filling("ONE"))]) and (
        done.filled,
        done.left,
    ) == (1, 2)
    done = translate_document(doc, upper, redo=True)
    assert (done.filled, done.left) == (2, 1) and b"TWO" in done.content


def test_doubtful_translations_are_flagged_and_warnings_name_the_place():
    doc = Listed(Slot("a.po:1", "odd"), Slot("a.po:7", "even"))
    doc.notes = ["a.po: a note"]
    sure = {"odd": 0.2, "even": 0.9}.__getitem__
    done = translate_document(doc, lambda *asked: upper(*asked, confidence=sure), flag_below=0.5)
    assert done.content.decode() == str([(0, Filling("ODD", review=True)), (1, Filling("EVEN"))])
    assert done.flagged == 1 and done.warnings == ("a.po: a note", "a.po:1: odd")


def test_progress_counts_slots_up_to_all_of_them():
    told = []
    doc = Listed(*[Slot(f"a:{i}", f"text {i}") for i in range(CHUNK + 5)])
    translate_document(doc, upper, progress=lambda *now: told.append(now))
    assert told == [(CHUNK, CHUNK + 5), (CHUNK + 5, CHUNK + 5)]


# ---- from the command line ------------------------------------------------------------------------


class Shouting(Translator):
    """A run whose translations are their sources in capitals."""

    context, defaults = NO_CONTEXT, NO_SETTINGS

    def __init__(self):
        self.asked: list[str] = []

    def check_tags(self, tags):
        assert not tags

    def translate(self, requests, *, progress=None, **_):
        texts = [request.text for request in requests]
        self.asked += texts
        return upper(texts, progress, confidence=lambda text: 0.1 if "doubt" in text else 0.9)


@pytest.fixture
def shouting(monkeypatch):
    monkeypatch.setattr(Translator, "load", lambda *_, **__: Shouting())


PO = HEADER + '\nmsgid "doubt %s"\nmsgstr ""\n\nmsgid "there"\nmsgstr "da"\n'


def test_a_po_file_is_translated_from_the_command_line(shouting, tmp_path, capsys):
    (tmp_path / "a.po").write_text(PO)
    arguments = ["translate", "run", str(tmp_path / "a.po"), "-o", str(tmp_path / "b.po"), "--flag-below", "0.5"]
    assert main(arguments) == 0
    expected = PO.replace('msgid "doubt %s"\nmsgstr ""', '#, fuzzy\nmsgid "doubt %s"\nmsgstr "DOUBT %s"')
    assert (tmp_path / "b.po").read_text() == expected and (tmp_path / "a.po").read_text() == PO
    assert (
        "0 translated; 1 more filled in and marked for review; 1 were already translated and are unchanged"
        in capsys.readouterr().err
    )
    assert main(["translate", "run", str(tmp_path / "a.po"), "--redo"]) == 0
    assert capsys.readouterr().out == PO.replace('""\n\nmsgid', '"DOUBT %s"\n\nmsgid').replace('"da"', '"THERE"')


def test_lines_keep_their_placeholders_and_their_number(shouting, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("Hello {name}\n\n<b>x</b>\n")
    assert main(["translate", "run", str(tmp_path / "a.txt")]) == 0
    out, err = capsys.readouterr()
    assert out == "HELLO {name}\n\n<b>X</b>\n" and not err


VERSION_2 = (
    '<xliff xmlns="urn:oasis:names:tc:xliff:document:2.0" version="2.0" srcLang="en"><file id="f"><unit id="u">'
    "<segment><source>a</source></segment></unit></file></xliff>"
)


def test_a_run_that_knows_its_target_language_tells_it_to_documents(shouting, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "dragoman.checkpoint.run_config", lambda _: {"data": {"cleaning": {"target_language": "de"}}}, raising=True
    )
    (tmp_path / "a.xlf").write_text(VERSION_2)
    (tmp_path / "a.pot").write_text(HEADER.replace("UTF-8", "CHARSET") + PLURAL)
    assert main(["translate", "run", str(tmp_path / "a.xlf")]) == 0 and 'trgLang="de"' in capsys.readouterr().out
    assert main(["translate", "run", str(tmp_path / "a.xlf"), "--target-language", "fr"]) == 0
    assert 'trgLang="fr"' in capsys.readouterr().out
    assert main(["translate", "run", str(tmp_path / "a.pot")]) == 0
    assert "Language: de" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", HEADER])
def test_a_po_file_without_entries_stays_as_it_is_and_says_so(shouting, tmp_path, capsys, content):
    (tmp_path / "a.po").write_text(content)
    assert main(["translate", "run", str(tmp_path / "a.po"), "-o", str(tmp_path / "b.po")]) == 0
    assert (tmp_path / "b.po").read_text() == content
    assert "a.po: has no entries: there is nothing to translate in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.po", None, "absent.po: no such file"),
        ("a.po", 'msgid "a"\n', "a.po:1: the entry that begins here has no msgstr"),
        ("a.xlf", "<xliff>\n<", "a.xlf:2: not well-formed XML"),
        ("a.tmx", memory({"en": "a"}), "a.tmx: has no unit in two languages"),
        ("b.xlf", VERSION_2, "b.xlf:1: XLIFF 2 with translations must name their language (trgLang)"),
        ("a.mo", "x", "a.mo: is compiled: translate the .po file"),
    ],
)
def test_a_document_that_cannot_be_read_is_one_line_and_nothing_is_written(
    shouting, tmp_path, capsys, name, content, message
):
    if content is not None:
        (tmp_path / name).write_text(content)
    assert main(["translate", "run", str(tmp_path / name), "-o", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_what_is_for_lines_of_text_is_refused_for_a_document(shouting, tmp_path, capsys):
    (tmp_path / "a.po").write_text(PO)
    assert main(["translate", "run", str(tmp_path / "a.po"), "--nbest", "2"]) == 2
    assert (
        "--nbest, --scores, --alignments, --prefix-column and --format are for lines of text" in capsys.readouterr().err
    )


def test_documents_are_opened_by_their_names(tmp_path):
    (tmp_path / "a.po").write_text(PO)
    assert [slot.filled for slot in open_document(tmp_path / "a.po").slots] == [False, True]
