"""Office documents and e-books are filled paragraph by paragraph, and every other member of the archive stays."""

import io
import re
import tracemalloc
import zipfile
from xml.sax.saxutils import escape

import docx
import openpyxl
import pptx
import pytest
from document_samples import filled, opened
from hypothesis import given
from hypothesis import strategies as st
from openpyxl.worksheet.table import Table

from dragoman.errors import DataError
from dragoman.text.document import Filling
from dragoman.text.filled import archive as limits
from dragoman.text.filled.archive import ArchiveReader
from dragoman.text.filled.office_members import kind_of, members_of
from dragoman.text.filled.opening import document_of
from dragoman.text.placeholders import Role, find_placeholders, placeholders_preserved

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


TYPES = {
    "word/document.xml": "openxmlformats-officedocument.wordprocessingml.document.main",
    "word/comments.xml": "openxmlformats-officedocument.wordprocessingml.comments",
    "ppt/slides/slide1.xml": "openxmlformats-officedocument.presentationml.slide",
    "ppt/diagrams/drawing1.xml": "ms-office.drawingml.diagramDrawing",
    "xl/workbook.xml": "openxmlformats-officedocument.spreadsheetml.sheet.main",
    "xl/sharedStrings.xml": "openxmlformats-officedocument.spreadsheetml.sharedStrings",
    "xl/tables/table1.xml": "openxmlformats-officedocument.spreadsheetml.table",
    "xl/drawings/drawing1.xml": "openxmlformats-officedocument.drawing",
    "xl/drawings/drawing2.xml": "openxmlformats-officedocument.drawingml.chartshapes",
    "xl/comments1.xml": "openxmlformats-officedocument.spreadsheetml.comments",
    "xl/threadedComments/threadedComment1.xml": "ms-excel.threadedcomments",
    **{
        f"{folder}/charts/chart1.xml": "openxmlformats-officedocument.drawingml.chart"
        for folder in ("word", "ppt", "xl")
    },
}
"""Content types of members as Office names them; a test may choose other names."""


def packed(content: dict[str, bytes], types: dict[str, str] = TYPES) -> bytes:
    """Return an archive with these members, which are listed by their types if any has one."""
    out = io.BytesIO()
    listed = [
        f'<Override PartName="/{name}" ContentType="application/vnd.{types[name]}+xml"/>'
        for name in content
        if name in types
    ]
    listing = {"[Content_Types].xml": f'<Types xmlns="t">{"".join(listed)}</Types>'.encode()} if listed else {}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, raw in (listing | content).items():
            file.writestr(name, raw)
    return out.getvalue()


def archive(**members: str) -> bytes:
    names = {name: name.replace("__", "/").replace("_xml", ".xml").replace("_", "-") for name in members}
    return packed({names[name]: content.encode() for name, content in members.items()})


def members(raw: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(raw)) as file:
        return {info.filename: file.read(info) for info in file.infolist()}


def word(*paragraphs: str) -> bytes:
    body = "".join(f"<w:p>{paragraph}</w:p>" for paragraph in paragraphs)
    document = f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    return archive(word__document_xml=document, word__media__a_png="kept", word__styles_xml="<kept/>")


def content(raw: bytes) -> str:
    text = members(raw)["word/document.xml"].decode()
    return text.partition("<w:body>")[2].partition("</w:body>")[0]


def run(text: str, properties: str = "") -> str:
    return f"<w:r>{properties}<w:t>{text}</w:t></w:r>"


def spaced(text: str, properties: str = "") -> str:
    """Return a run as Word writes it: spaces at an edge are kept."""
    return run(text, properties).replace("<w:t>", '<w:t xml:space="preserve">' if text != text.strip() else "<w:t>")


BOLD, ITALIC = "<w:rPr><w:b/></w:rPr>", "<w:rPr><w:i/></w:rPr>"


@pytest.mark.parametrize(
    ("paragraph", "text", "expected"),
    [
        (run("one"), "one", run("ONE")),
        ("<w:pPr/>" + run("o") + "<w:proofErr/>" + run("ne &amp; two"), "one & two", "<w:pPr/>" + run("ONE &amp; TWO")),
        (
            run("one two ") + run("three", BOLD),
            "one two <g1>three</g1>",
            '<w:r><w:t xml:space="preserve">ONE TWO </w:t></w:r>' + run("THREE", BOLD),
        ),
        (run("all", BOLD), "all", run("ALL", BOLD)),
        (
            run("a") + '<w:hyperlink w:x="y">' + run("link", ITALIC) + "</w:hyperlink>" + run("long end"),
            "a<g1><g2>link</g2></g1>long end",
            run("A") + '<w:hyperlink w:x="y">' + run("LINK", ITALIC) + "</w:hyperlink>" + run("LONG END"),
        ),
        (
            "<w:r><w:tab/><w:t>a</w:t><w:br/><w:t>b</w:t></w:r>",
            "a<x1/>b",
            "<w:r><w:tab/></w:r>" + run("A") + "<w:r><w:br/></w:r>" + run("B"),
        ),
        (
            run("a") + "<w:r><w:drawing>kept</w:drawing></w:r>" + run("b"),
            "a<x1/>b",
            run("A") + "<w:r><w:drawing>kept</w:drawing></w:r>" + run("B"),
        ),
        (
            "<w:bookmarkStart/>" + run("a") + "<w:bookmarkEnd/>",
            "a",
            "<w:bookmarkStart/>" + run("A") + "<w:bookmarkEnd/>",
        ),
        (run("a") + "<w:del><w:r><w:delText>x</w:delText></w:r></w:del>", "a", None),
        (
            "<w:r><w:t>a</w:t><w:footnoteReference/></w:r><w:r><w:drawing>kept</w:drawing><w:t>b</w:t></w:r>",
            "a<x1/><x2/>b",
            run("A") + "<w:r><w:footnoteReference/></w:r><w:r><w:drawing>kept</w:drawing></w:r>" + run("B"),
        ),
        (run("a") + "<w:moveFrom>" + run("x") + "</w:moveFrom>", "a", None),
    ],
)
def test_a_paragraph_is_one_text_and_its_runs_keep_their_formats(paragraph, text, expected):
    document = opened("a.docx", word(paragraph))
    assert [slot.text for slot in document.slots] == [text]
    expected = expected or paragraph.replace(run("a"), run("A"))
    assert content(filled(document)) == f"<w:p>{expected}</w:p>"


LINE = "<w:rPr><w:b/><w:u w:val='single'/></w:rPr>"
PLAIN_LINE = "<w:rPr><w:u w:val='none'/></w:rPr>"


@pytest.mark.parametrize("properties", [LINE, BOLD, "<w:rPr><w:shd w:val='clear' w:fill='D9D9D9'/></w:rPr>"])
@pytest.mark.parametrize("blank", ["     ", "\N{NO-BREAK SPACE}" * 9, " \N{EM SPACE}"])
@pytest.mark.parametrize("divided", [False, True])
def test_a_blank_to_fill_in_stays_as_it_is(properties, blank, divided):
    field = spaced(blank, properties)
    if divided:
        field = spaced(blank[:2], properties) + "<w:proofErr/>" + spaced(blank[2:] + blank, properties)
    document = opened("a.docx", word(spaced("Signed by ") + field + spaced(" in the office")))
    assert [slot.text for slot in document.slots] == ["Signed by <x1/> in the office"]
    assert content(filled(document)) == f"<w:p>{spaced('SIGNED BY ')}{field}{spaced(' IN THE OFFICE')}</w:p>"
    moved = document.fill({0: Filling("Im Büro unterschrieben von <x1/>")})
    assert content(moved) == f"<w:p>{spaced('Im Büro unterschrieben von ')}{field}</w:p>"


def test_a_blank_to_fill_in_stays_beside_a_picture_in_its_run():
    paragraph = spaced("by ") + f"<w:r>{LINE}<w:tab/><w:t xml:space='preserve'>    </w:t><w:br/></w:r>" + run("here")
    document = opened("a.docx", word(paragraph))
    assert [slot.text for slot in document.slots] == ["by <x1/><x2/><x3/>here"]
    blank = f"<w:r>{LINE}<w:t xml:space='preserve'>    </w:t></w:r>"
    assert content(filled(document)) == (
        f"<w:p>{spaced('BY ')}<w:r>{LINE}<w:tab/></w:r>{blank}<w:r>{LINE}<w:br/></w:r>{run('HERE')}</w:p>"
    )


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([("plain text", ""), (" ", BOLD), ("two", "")], "plain text two"),
        ([("plain text", ""), ("\N{NO-BREAK SPACE}", BOLD), ("two", "")], "plain text\N{NO-BREAK SPACE}two"),
        ([("plain text", ""), (" ", PLAIN_LINE), ("two", "")], "plain text two"),
        ([("plain text", ""), (" ", LINE), ("two", "")], "plain text<x1/>two"),
        ([("plain text ", ""), ("one", LINE), (" ", LINE), ("two", LINE)], "plain text <g1>one two</g1>"),
        ([("plain text ", ""), ("one", LINE), (" ", LINE), ("two", BOLD)], "plain text <g1>one </g1><g2>two</g2>"),
        ([("plain text ", ""), ("one", LINE), ("  ", ""), ("two", BOLD)], "plain text <g1>one</g1>  <g2>two</g2>"),
        ([("one", LINE), ("", ITALIC), ("plain text", "")], "<g1>one</g1>plain text"),
    ],
)
def test_a_space_between_words_is_text(parts, text):
    document = opened("a.docx", word("".join(spaced(part, properties) for part, properties in parts)))
    assert [slot.text for slot in document.slots] == [text]


@pytest.mark.parametrize(
    ("name", "begin", "others"),
    [
        (
            "a.pptx",
            '<a:rPr b="1"/>',
            ['<a:rPr lang="en-GB" b="1" dirty="0" err="1"/>', '<a:rPr b="1" smtClean="0"/>'],
        ),
        ("a.pptx", "", ['<a:rPr lang="en-GB" altLang="ja-JP" noProof="1" err="1"/>', '<a:rPr dirty="0"></a:rPr>']),
        ("a.docx", "", ["<w:rPr><w:noProof/></w:rPr>", '<w:rPr><w:lang w:val="fr-FR"/></w:rPr>', "<w:rPr/>"]),
        ("a.docx", BOLD, ['<w:rPr><w:b/><w:noProof w:val="1"/><w:lang w:val="fr-FR"></w:lang></w:rPr>']),
    ],
)
def test_marks_of_spelling_and_language_are_no_format(name, begin, others):
    for other in others:
        for marked in ("kubelet", " "):
            document = opened(name, one_paragraph(name, ("The", begin), (marked, other), ("starts pods", begin)))
            assert [slot.text for slot in document.slots] == [f"The{marked}starts pods"]
            expected = one_paragraph(name, (f"THE{marked.upper()}STARTS PODS", begin))
            assert members(filled(document)) == members(expected)


def test_a_translation_is_not_marked_as_checked_for_spelling():
    properties = '<a:rPr lang="en-US" sz="900"{}/>'
    raw = one_paragraph("a.pptx", ("kubelet", properties.format(' dirty="0" err="1"')), ("x", ITALIC))
    expected = one_paragraph("a.pptx", ("KUBELET", properties.format("")), ("X", ITALIC))
    assert members(filled(opened("a.pptx", raw))) == members(expected)


def one_paragraph(name: str, *runs: tuple[str, str]) -> bytes:
    """Return a document or slides with one paragraph of these texts with their properties."""
    if name.endswith(".docx"):
        return word("".join(run(text, properties) for text, properties in runs))
    inner = "".join(f"<a:r>{properties}<a:t>{escape(text)}</a:t></a:r>" for text, properties in runs)
    return packed({"ppt/slides/slide1.xml": f'<p:sld xmlns:p="p" xmlns:a="a"><a:p>{inner}</a:p></p:sld>'.encode()})


@pytest.mark.parametrize(
    "container", ["moveTo", "ins", "fldSimple", "customXml", "dir", "bdo", "smartTag", "hyperlink"]
)
def test_text_in_a_container_is_translated(container):
    inner = f'<w:{container} w:x="y">' + run("b") + f"</w:{container}>"
    for paragraph, texts in ((inner, ["b"]), (run("a") + inner + run("c"), ["a<g1>b</g1>c"])):
        document = opened("a.docx", word(paragraph))
        assert [slot.text for slot in document.slots] == texts
        expected = paragraph.replace("t>a<", "t>A<").replace("t>b<", "t>B<").replace("t>c<", "t>C<")
        assert content(filled(document)) == f"<w:p>{expected}</w:p>"


READING = f"<w:rubyPr><w:lid/></w:rubyPr><w:rt>{run('kept', ITALIC)}</w:rt>"


@pytest.mark.parametrize(
    ("paragraph", "text", "expected"),
    [
        ("<w:r>{word}</w:r>", "base", "<w:r>{word}</w:r>"),
        (
            run("one ") + f"<w:r>{BOLD}{{word}}</w:r>" + run(" two"),
            "one <g1>base</g1> two",
            spaced("ONE ") + f"<w:r>{BOLD}{{word}}</w:r>" + spaced(" TWO"),
        ),
        (
            "<w:r><w:t>one</w:t><w:br/>{word}<w:t>two</w:t></w:r>",
            "one<x1/><g2>base</g2>two",
            run("ONE") + "<w:r><w:br/></w:r><w:r>{word}</w:r>" + run("TWO"),
        ),
        ("<w:r>{word}</w:r>" * 2, "<g1>base</g1><g2>base</g2>", "<w:r>{word}</w:r>" * 2),
        ("<w:r><w:tab/>{word}</w:r>", "base", "<w:r><w:tab/>{word}</w:r>"),
        (run("one") + "<w:r><w:ruby>" + READING + "</w:ruby></w:r>", "one", None),
    ],
)
def test_a_word_below_its_reading_is_translated(paragraph, text, expected):
    def with_word(base: str) -> str:
        return f"<w:ruby>{READING}<w:rubyBase>{run(base)}</w:rubyBase></w:ruby>"

    document = opened("a.docx", word(paragraph.format(word=with_word("base"))))
    assert [slot.text for slot in document.slots] == [text]
    expected = expected or paragraph.replace("one", "ONE")
    assert content(filled(document)) == f"<w:p>{expected.format(word=with_word('BASE'))}</w:p>"


@pytest.mark.parametrize("in_one_run", [True, False])
def test_the_parts_of_a_field_stay_in_their_order(in_one_run):
    parts = [f'<w:fldChar w:type="{name}"/>' for name in ("begin", "separate", "end")]
    parts[1:1] = ["<w:instrText>REF x</w:instrText>"]
    pieces = ["<w:t>a</w:t>", *parts[:3], "<w:t>b</w:t>", parts[3], "<w:t>c</w:t>"]
    paragraph = f"<w:r>{''.join(pieces)}</w:r>" if in_one_run else "".join(f"<w:r>{piece}</w:r>" for piece in pieces)
    document = opened("a.docx", word(paragraph))
    (slot,) = document.slots
    expected = "".join(f"<w:r>{piece}</w:r>" for piece in pieces)
    for text in "abc":
        expected = expected.replace(f"<w:t>{text}<", f"<w:t>{text.upper()}<")
    assert content(filled(document)) == f"<w:p>{expected}</w:p>"
    source = find_placeholders(slot.text, slot.codes)
    assert [p.role for p in source] == [Role.ORDERED] * 4
    moved = slot.text.replace(source[-1].text, "").replace("a", source[-1].text + "a")
    assert placeholders_preserved(source, find_placeholders(slot.text.replace("b", "x"), slot.codes))
    assert not placeholders_preserved(source, find_placeholders(moved, slot.codes))


def test_text_in_a_box_inside_a_paragraph_is_translated_with_it():
    box = "<w:r><w:txbxContent><w:p>" + run("inner") + "</w:p></w:txbxContent></w:r>"
    document = opened("a.docx", word(run("outer ") + box + run("end"), run("next")))
    assert [slot.text for slot in document.slots] == ["outer <x1/>end", "inner", "next"]
    upper = content(filled(document))
    assert upper.count("INNER") == 1 and upper.index("OUTER") < upper.index("INNER") < upper.index("END")
    assert content(document.fill({1: Filling("X")})).count("inner") == 0


def test_formats_may_change_their_order():
    document = opened("a.docx", word(run("red ", BOLD) + run("house", ITALIC) + run(" is plain text")))
    (slot,) = document.slots
    assert slot.text == "<g1>red </g1><g2>house</g2> is plain text"
    done = docx.Document(io.BytesIO(with_package(document.fill({0: Filling("<g2>Haus</g2> <g1>rot</g1> ist")}))))
    assert [(r.text, r.bold, r.italic) for r in done.paragraphs[0].runs] == [
        ("Haus", None, True),
        (" ", None, None),
        ("rot", True, None),
        (" ist", None, None),
    ]


def with_package(raw: bytes) -> bytes:
    """A document of python-docx with the body of another."""
    out = io.BytesIO()
    docx.Document().save(out)
    new = io.BytesIO()
    with zipfile.ZipFile(out) as old, zipfile.ZipFile(new, "w") as file:
        for name in old.namelist():
            file.writestr(name, members(raw)["word/document.xml"] if name == "word/document.xml" else old.read(name))
    return new.getvalue()


TEXTS = st.text(
    st.sampled_from("aB &<>'\" é{") | st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8
)


@given(parts=st.lists(st.tuples(TEXTS, st.sampled_from(["", BOLD, ITALIC])), min_size=1, max_size=5))
def test_the_same_text_gives_the_same_paragraph(parts):
    raw = word("".join(f'<w:r>{f}<w:t xml:space="preserve">{escape(text)}</w:t></w:r>' for text, f in parts))
    document = opened("a.docx", raw)
    again = opened("a.docx", document.fill({i: Filling(slot.text) for i, slot in enumerate(document.slots)}))
    assert [slot.text for slot in again.slots] == [slot.text for slot in document.slots]


def test_other_members_their_order_and_dates_stay():
    raw = word(run("a"))
    new = filled(opened("a.docx", raw))
    before, after = (zipfile.ZipFile(io.BytesIO(file)).infolist() for file in (raw, new))
    assert [(i.filename, i.date_time, i.compress_type) for i in before] == [
        (i.filename, i.date_time, i.compress_type) for i in after
    ]
    assert {n for n, c in members(raw).items() if members(new)[n] != c} == {"word/document.xml"}


def test_slides_and_sheets_are_read_back_by_their_libraries():
    deck, out = pptx.Presentation(), io.BytesIO()
    slide = deck.slides.add_slide(deck.slide_layouts[0])
    slide.shapes.title.text = "a title"
    frame = slide.placeholders[1].text_frame
    frame.text = "one "
    frame.paragraphs[0].add_run().text = "two"
    deck.save(out)
    shapes = pptx.Presentation(io.BytesIO(filled(opened("a.pptx", out.getvalue())))).slides[0].shapes
    assert [shape.text_frame.text for shape in shapes] == ["A TITLE", "ONE TWO"]
    book, out = openpyxl.Workbook(), io.BytesIO()
    sheet = book.active
    for cell, value in {"A1": "head", "B1": "amount", "A2": " two & ", "A3": 3, "B3": "=A3*2"}.items():
        sheet[cell] = value
    sheet.add_table(Table(displayName="T", ref="A1:B2"))
    book.save(out)
    done = openpyxl.load_workbook(io.BytesIO(filled(opened("a.xlsx", out.getvalue())))).active
    found = {cell: done[cell].value for cell in ("A1", "B1", "A2", "A3", "B3")}
    assert found == {"A1": "head", "B1": "amount", "A2": " TWO & ", "A3": 3, "B3": "=A3*2"}  # headers stay


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("<r><rPr><b/></rPr><t>Net </t></r><r><t>amount</t></r>", "Net amount"),
        ("<t xml:space='preserve'> Net amount </t>", "Net amount"),
        ("<t>Net\namount</t>", "Net_x000a_amount"),
        ("<t>Net_x000D_\namount</t>", "Net_x000d__x000A_amount"),
        ("<r><t>Net\n</t></r><r><rPr><b/></rPr><t>amount</t></r>", "Net&#10;amount"),
        ("<t>a &lt;g1> b</t>", "a &lt;g1> b"),
        ("<t>漢字</t><rPh sb='0' eb='2'><t>かんじ</t></rPh>", "漢字"),
    ],
)
def test_the_header_of_a_table_stays_as_its_column_is_called(cell, name):
    strings = f"<sst><si>{cell}</si><si><t>other</t></si></sst>"
    table = f"<table name='T'><tableColumns><tableColumn id='1' name='{name}'/></tableColumns></table>"
    types = TYPES | {"xl/lists/any.xml": TYPES["xl/tables/table1.xml"]}
    for member in ("xl/tables/table1.xml", "xl/lists/any.xml"):
        raw = packed({"xl/sharedStrings.xml": strings.encode(), member: table.encode()}, types)
        done = members(filled(opened("a.xlsx", raw)))["xl/sharedStrings.xml"].decode()
        assert done == strings.replace("other", "OTHER")


def test_characters_that_excel_writes_as_code_stay():
    strings = (
        "<sst><si><t>one_x000D_\ntwo_x005F_x_xyz_</t></si><si><r><t>a_x0009_</t></r><r><rPr/><t>b</t></r></si></sst>"
    )
    document = opened("a.xlsx", packed({"xl/sharedStrings.xml": strings.encode()}))
    assert [slot.codes for slot in document.slots] == [("_x000D_", "_x005F_"), ("_x0009_",)]
    done = members(filled(document))["xl/sharedStrings.xml"].decode()
    assert "ONE_x000D_\nTWO_x005F_X_XYZ_" in done and "A_x0009_B" in done
    slot = document.slots[0]
    found = find_placeholders(slot.text, slot.codes)
    assert not placeholders_preserved(found, find_placeholders("one\ntwo_x005F_x_xyz_", slot.codes))


OFFICE = "openxmlformats-officedocument."
MAIN = OFFICE + "wordprocessingml.document.main"


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("a.docx", {"word/document2.xml": MAIN, "word/header1.xml": OFFICE + "wordprocessingml.header"}),
        ("a.docx", {"word/document22.xml": MAIN, "word/notes.xml": OFFICE + "wordprocessingml.footnotes"}),
        ("a.docx", {"text/main.xml": "ms-word.document.macroEnabled.main"}),
        ("a.docx", {"word/document.xml": OFFICE + "wordprocessingml.template.main"}),
        ("a.pptx", {"ppt/one.xml": OFFICE + "presentationml.slide"}),
        ("a.pptx", {"ppt/notes/n.xml": OFFICE + "presentationml.notesSlide"}),
        ("a.xlsx", {"xl/strings.xml": OFFICE + "spreadsheetml.sharedStrings", "xl/d.xml": OFFICE + "drawing"}),
        ("a.xlsx", {"xl/a.xml": OFFICE + "spreadsheetml.worksheet"}),
        ("a.xlsx", {"xl/x/c.xml": "ms-office.chartex", "xl/x/d.xml": OFFICE + "drawingml.chartshapes"}),
    ],
)
def test_members_are_found_by_their_types(name, types):
    parts = {member: part(type_) for member, type_ in types.items()}
    raw = packed({**parts, "other.xml": part(MAIN)}, types)
    expected = {member: inner.replace(b"Hello", b"HELLO") for member, inner in parts.items()}
    assert members(filled(opened(name, raw))) == members(raw) | expected
    listing = {"[Content_Types].xml": members(raw)["[Content_Types].xml"]}
    in_capitals = packed(listing | {member.upper(): inner for member, inner in parts.items()}, {})
    assert len(opened(name, in_capitals).slots) == len(types)


def part(type_: str) -> bytes:
    """Return a member of this type with one text."""
    is_sheet = "spreadsheetml" in type_
    text = "<si><t>Hello</t></si>" if is_sheet else "<w:p><w:r><w:t>Hello</w:t></w:r></w:p>"
    return f'<root xmlns:w="{WORD}">{text}</root>'.encode()


def test_the_type_of_an_extension_is_that_of_members_that_are_not_listed():
    listing = f'<Types><Default Extension="XML" ContentType="application/vnd.{MAIN}+xml"/></Types>'
    text, other = (part(MAIN).replace(b"root", root) for root in (b"w:document", b"w:comments"))
    kept = {
        "docProps/core.xml": b"<cp:coreProperties xmlns:cp='c'><p>Kept</p></cp:coreProperties>",
        "docProps/app.xml": b"\xff\xfe" + "<?xml version='1.0' encoding='UTF-16'?><Properties/>".encode("utf-16-le"),
        "word/comments.xml": other,
        "empty.xml": b"",
        "a.png": b"kept",
    }
    raw = packed({"[Content_Types].xml": listing.encode(), **kept, "a.xml": text, "b.xml": b"<!-- <a> -->" + text}, {})
    document = opened("a.docx", raw)
    assert [slot.place for slot in document.slots] == ["a.docx/a.xml:1", "a.docx/b.xml:1"]
    assert {member for member, content in members(filled(document)).items() if content != members(raw)[member]} == {
        "a.xml",
        "b.xml",
    }


@pytest.mark.parametrize("folder", ["word/glossary/", "word/"])
def test_text_that_people_insert_stays_with_its_headers(folder):
    types = {"word/document2.xml": MAIN, f"{folder}texts.xml": OFFICE + "wordprocessingml.document.glossary"}
    stays = [f"{folder}texts.xml"]
    if folder != "word/":
        types[f"{folder}header1.xml"] = OFFICE + "wordprocessingml.header"
        stays.append(f"{folder}header1.xml")
    document = opened("a.docx", packed({member: part(type_) for member, type_ in types.items()}, types))
    assert document.notes == [f"a.docx: text stays as it is in {', '.join(stays)}"]
    assert [slot.place for slot in document.slots] == ["a.docx/word/document2.xml:1"]


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        (".docx", "wordprocessingml.document.main"),
        (".pptx", "presentationml.presentation.main"),
        (".xlsx", "spreadsheetml.sheet.main"),
    ],
)
def test_the_kind_of_an_archive_shows_in_its_types(kind, type_):
    with zipfile.ZipFile(io.BytesIO(packed({"x/main.xml": b"<x/>"}, {"x/main.xml": OFFICE + type_}))) as file:
        assert kind_of(ArchiveReader(file, "a")) == kind


def test_a_list_of_types_that_is_no_xml_is_refused():
    with pytest.raises(DataError, match=r"^a.docx/\[Content_Types\].xml:1: not well-formed XML"):
        opened("a.docx", packed({"[Content_Types].xml": b"<Types", "word/document.xml": part(MAIN)}, {}))


OPEN = (
    '<o:c xmlns:o="o" xmlns:t="t" xmlns:x="x"><t:h>title</t:h><t:p>a <t:span>b &amp; c</t:span> d<t:note>'
    '<t:p>note</t:p></t:note></t:p><x:table-cell office:value-type="float" xmlns:office="f"><t:p>one</t:p>'
    "</x:table-cell></o:c>"
)


def test_open_documents_keep_spans_notes_and_numbers():
    raw = archive(content_xml=OPEN, mimetype="application/vnd.oasis.opendocument.text")
    document = opened("a.odt", raw)
    assert [slot.text for slot in document.slots] == ["title", "a <g1>b & c</g1> d", "note"]
    expected = OPEN.replace("title", "TITLE").replace("a <", "A <").replace("b &amp; c", "B &amp; C")
    expected = expected.replace("> d<", "> D<").replace("note<", "NOTE<")
    assert members(filled(document))["content.xml"].decode() == expected


STYLES = "".join(
    f"<x:style x:name='{name}' x:family='{family}'{parent}><x:text-properties {properties}/></x:style>"
    for name, family, parent, properties in (
        ("edited", "text", "", "rs:rsid='0012ab'"),
        ("french", "text", "", "fo:language='fr' fo:country='FR' x:country-asian='none' rs:rsid='0012ab'"),
        ("bold", "text", "", "fo:font-weight='bold' rs:rsid='0012ab'"),
        ("named", "text", " x:parent-style-name='Emphasis'", "rs:rsid='0012ab'"),
        ("body", "paragraph", "", "rs:rsid='0012ab'"),
    )
)


def opening_codes(count: int) -> str:
    return "".join(f"<g{i}>" for i in range(1, count + 1))


def closing_codes(count: int) -> str:
    return "".join(f"</g{i}>" for i in range(count, 0, -1))


@pytest.mark.parametrize(
    ("content", "read", "written"),
    [
        ("Hel<t:span t:style-name='edited'>lo</t:span> all", "Hello all", "HELLO ALL"),
        ("<t:span t:style-name='french'>Hel</t:span>lo all", "Hello all", "HELLO ALL"),
        (
            "Hi <t:span t:style-name='edited'>a<t:span t:style-name='french'>ll</t:span> &amp; o</t:span>ne",
            "Hi all & one",
            "HI ALL &amp; ONE",
        ),
        ("Hello<t:span t:style-name='edited'/> all", "Hello all", "HELLO ALL"),
        (
            "Hi " + 40 * "<t:span t:style-name='edited'>" + "all<t:tab/>of" + 40 * "</t:span>" + " you",
            f"Hi {opening_codes(40)}all<x41/>of{closing_codes(40)} you",
            "HI " + 40 * "<t:span t:style-name='edited'>" + "ALL<t:tab/>OF" + 40 * "</t:span>" + " YOU",
        ),
        ("<t:span t:style-name='edited'> </t:span>Hello", "Hello", "<t:span t:style-name='edited'> </t:span>HELLO"),
        (
            "Hi <t:span t:style-name='edited'>all<t:tab/>of</t:span> you",
            "Hi <g1>all<x2/>of</g1> you",
            "HI <t:span t:style-name='edited'>ALL<t:tab/>OF</t:span> YOU",
        ),
        *(
            (
                f"Hi <t:span t:style-name='{style}'>all</t:span> of you",
                "Hi <g1>all</g1> of you",
                f"HI <t:span t:style-name='{style}'>ALL</t:span> OF YOU",
            )
            for style in ("bold", "named", "body", "unknown")
        ),
    ],
)
def test_edits_and_languages_do_not_divide_the_sentences_of_open_documents(content, read, written):
    raw = with_prefixes(
        f"<o:document-content xmlns:o='o' xmlns:fo='fo' xmlns:rs='rs'>{STYLES}<t:p>{{}}</t:p></o:document-content>"
    )
    document = opened("a.odt", archive(content_xml=raw.format(content)))
    assert [slot.text for slot in document.slots] == [read]
    assert members(filled(document))["content.xml"].decode() == raw.format(written)


COMMENT = (
    "<office:annotation office:name='1'><dc:creator>Bob</dc:creator><t:p{}>{}</t:p>"
    "<t:list><t:list-item><t:p>{}</t:p></t:list-item></t:list></office:annotation>"
)


@pytest.mark.parametrize(
    ("name", "around"),
    [
        ("a.odt", "<t:p>Hello{}<office:annotation-end office:name='1'/> you</t:p>"),
        ("a.odt", "<t:p>{}Hello</t:p>"),
        ("a.odt", "<t:p>Hello <t:span>dear {} all</t:span></t:p>"),
        ("a.ods", "<x:table-cell office:value-type='string'>{}<t:p>Hello</t:p></x:table-cell>"),
        ("a.odp", "<d:page><d:frame><t:p>Hello</t:p></d:frame>{}</d:page>"),
    ],
)
@pytest.mark.parametrize("comment", [("", "please check", ""), (" t:style-name='x'", "", "日本")])
def test_comments_in_open_documents_stay_and_a_note_says_so(name, around, comment):
    raw = f"<o:document-content xmlns:o='o'>{around.format(COMMENT.format(*comment))}</o:document-content>"
    document = opened(name, archive(content_xml=with_prefixes(raw)))
    assert document.notes == [f"{name}: text stays as it is in comments in content.xml"]
    assert len(document.slots) == 1 and "check" not in document.slots[0].text
    expected = raw
    for word_ in ("Hello", "you", "dear", "all"):
        expected = re.sub(rf"(?<![\w:-]){word_}(?![\w:])", word_.upper(), expected)
    assert members(filled(document))["content.xml"].decode() == with_prefixes(expected)


def test_a_comment_without_words_needs_no_note():
    raw = f"<o:document-content xmlns:o='o'><t:p>a{COMMENT.format('', '', '1.')}</t:p></o:document-content>"
    assert not opened("a.odt", archive(content_xml=with_prefixes(raw))).notes


@pytest.mark.parametrize(
    ("comment", "has_words"),
    [
        ("<o:annotation a='>x'><t:p a='>b'>1<t:s/>2.</t:p><t:p/></o:annotation>", False),
        ('<o:annotation><t:p><t:span>1</t:span> <t:a h="\'">one</t:a></t:p></o:annotation>', True),
        ("<o:annotation/><t:p>one</t:p><o:annotation><t:p>1</t:p></o:annotation>", False),
        ("<o:annotation a='b'/><t:p>one</t:p><o:annotation><t:p>1</t:p></o:annotation>", False),
        ("<o:annotation><t:p>1</t:p></o:annotation><t:p>one</t:p><o:annotation-end/>", False),
        ("<o:annotation><t:p>1</t:p></o:annotation><o:annotation><t:page>a</t:page><t:p>b</t:p></o:annotation>", True),
    ],
)
def test_a_comment_has_words_if_a_paragraph_of_it_has_letters(comment, has_words):
    raw = f"<o:document-content xmlns:o='o' xmlns:t='t'><t:p>a</t:p>{comment}</o:document-content>"
    assert (
        opened("a.odt", archive(content_xml=raw)).notes
        == ["a.odt: text stays as it is in comments in content.xml"] * has_words
    )


@pytest.mark.parametrize(
    "text",
    [
        "<o:annotation>" + "<t:p>1</t:p>" * 60_000 + "</o:annotation>",
        "<o:annotation><t:p>" + "<t:s/>" * 120_000 + "</t:p></o:annotation>",
        "<o:annotation a='b'/>" * 40_000,
        "<o:annotation a='b'/>" * 40_000 + "<o:annotation><t:p>1</t:p></o:annotation>",
        "<o:annotation><t:p>" + ">" * 500_000 + "</t:p></o:annotation>",
    ],
)
def test_long_comments_without_letters_have_no_words(text):  # a search in quadratic time would hardly end
    with zipfile.ZipFile(io.BytesIO(packed({"content.xml": text.encode()}))) as file:
        assert not members_of(ArchiveReader(file, "a"), ".odt").left


def with_prefixes(raw: str) -> str:
    """Return XML whose prefixes are declared at its beginning."""
    declared = " ".join(f"xmlns:{prefix}='{prefix}'" for prefix in ("t", "x", "d", "dc", "office", "table"))
    return raw.replace("xmlns:o='o'", f"xmlns:o='o' {declared}", 1)


@pytest.mark.parametrize(
    ("cell", "stays"),
    [
        ("table:formula='of:=[.A1]' office:value-type='string' office:string-value='one'", True),
        ("table:formula='of:=[.A1]' office:value-type='string'", True),
        ("office:value-type='float' office:value='1'", True),
        ("office:value-type='string'", False),
        ("office:value-type='string' office:string-value='one' table:style-name='x'", False),
    ],
)
def test_results_of_formulas_stay_and_a_translated_cell_has_no_other_value(cell, stays):
    cells = f"<x:table-cell {cell}><t:p>one</t:p><t:p>two</t:p></x:table-cell><t:p>last</t:p>"
    raw = with_prefixes(f"<o:document-content xmlns:o='o'>{cells}</o:document-content>")
    done = members(filled(opened("a.ods", archive(content_xml=raw))))["content.xml"].decode()
    expected = raw.replace("last", "LAST")
    if not stays:
        expected = (
            expected.replace(">one<", ">ONE<").replace(">two<", ">TWO<").replace(" office:string-value='one'", "")
        )
    assert done == expected


def test_a_word_below_its_reading_is_translated_in_open_documents():
    ruby = "<t:ruby><t:ruby-base>b</t:ruby-base><t:ruby-text>kept</t:ruby-text></t:ruby>"
    raw = f'<o:document-content xmlns:o="o" xmlns:t="t"><t:p>a {ruby} c</t:p></o:document-content>'
    document = opened("a.odt", archive(content_xml=raw))
    assert [slot.text for slot in document.slots] == ["a <g1>b</g1> c"]
    expected = raw.replace("a <", "A <").replace(">b<", ">B<").replace("> c<", "> C<")
    assert members(filled(document))["content.xml"].decode() == expected


def test_pages_and_contents_of_a_book_are_translated():
    page = '<?xml version="1.0"?>\n<html xmlns="h" lang="en"><body><p>Hello <b>you</b><br/></p></body></html>'
    contents = "<ncx><navLabel><text>Hello</text></navLabel></ncx>"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, text in {"META-INF/container.xml": "<x/>", "a.xhtml": page, "toc.ncx": contents}.items():
            file.writestr(name, text)
    done = members(filled(opened("a.epub", out.getvalue())))
    assert done["a.xhtml"].decode() == page.replace("Hello", "HELLO").replace("you", "YOU").replace('"en"', '"pl"')
    assert done["toc.ncx"].decode() == contents.replace("Hello", "HELLO")


BOOK = {
    "ch1.xml": '<item href="ch1.xml" media-type="application/xhtml+xml"/>',
    "ch2.XHTML": '<item href="ch2.XHTML" media-type="application/xhtml+xml"/>',
    "a chapter.bin": '<item media-type="application/XHTML+xml" href="a%20chapter.bin"/>',
    "a%20chapter": '<item media-type="application/xhtml+xml" href="a%20chapter"/>',
    "text/ch4": '<item media-type="application/xhtml+xml" href="../OPS/text/ch4"/>',
    "old.htm": '<item media-type="text/x-oeb1-document" href="old.htm"/>',
    "unlisted.html": "",
    "UNLISTED.HTM": "",
}


@pytest.mark.parametrize("package", ["OPS/content.opf", "OPS/package.xml"])
def test_chapters_of_a_book_are_those_that_its_package_lists(package):
    folder = "OPS/"
    page = '<html lang="en"><body><p>Hello</p></body></html>'
    listed = f"<package xmlns:o='o'><o:manifest>{''.join(BOOK.values())}<item href='x'/></o:manifest></package>"
    files = {package: "application/oebps-package+xml", "book.pdf": "application/pdf"}
    container = "".join(f'<rootfile full-path="{path}" media-type="{type_}"/>' for path, type_ in files.items())
    book = {"META-INF/container.xml": container, package: listed, **{folder + name: page for name in BOOK}}
    raw = packed({name: text.encode() for name, text in {**book, folder + "data.xml": page, "book.pdf": ""}.items()})
    done = members(filled(opened("a.epub", raw)))
    for name in BOOK:
        assert done[folder + name].decode() == '<html lang="pl"><body><p>HELLO</p></body></html>'
    assert done[folder + "data.xml"].decode() == page


def test_title_and_language_of_a_book_are_those_of_the_translation():
    package = (
        '<package xmlns:dc="d"><metadata><dc:title id="t">A book</dc:title><dc:language>en</dc:language>'
        "<dc:creator>Kept</dc:creator></metadata></package>"
    )
    page = "<html><body><p>Hello</p></body></html>"
    for name, languages in (("one", "<dc:language>en</dc:language>"), ("two", "<dc:language>en</dc:language>" * 2)):
        raw = packed(
            {"a.opf": package.replace("<dc:language>en</dc:language>", languages).encode(), "a.html": page.encode()}
        )
        done = members(filled(opened("a.epub", raw)))["a.opf"].decode()
        expected = languages.replace("en<", "pl<") if name == "one" else languages
        assert expected in done and "A BOOK" in done and "Kept" in done
        assert opened("a.epub", raw).fill({}) == raw


@pytest.mark.parametrize(
    ("name", "main", "member"),
    [
        ("a.xlsx", "xl/sharedStrings.xml", "xl/drawings/drawing1.xml"),
        ("a.xlsx", "xl/sharedStrings.xml", "xl/charts/chart1.xml"),
        ("a.pptx", "ppt/slides/slide1.xml", "ppt/charts/chart1.xml"),
        ("a.pptx", "ppt/slides/slide1.xml", "ppt/diagrams/drawing1.xml"),
        ("a.docx", "word/document.xml", "word/charts/chart1.xml"),
    ],
)
def test_text_of_charts_and_drawings_is_translated(name, main, member):
    roots = {"xl/sharedStrings.xml": "<sst/>", "ppt/slides/slide1.xml": "<sld/>", "word/document.xml": "<document/>"}
    title = '<c xmlns:a="a"><a:p><a:r><a:rPr b="1"/><a:t>Sales</a:t></a:r></a:p><n>3</n></c>'
    document = opened(name, packed({main: roots[main].encode(), member: title.encode()}))
    assert members(filled(document))[member].decode() == title.replace("Sales", "SALES")


@pytest.mark.parametrize(
    ("name", "member", "text"),
    [
        ("a.docx", "word/comments.xml", "<w:t>{}</w:t>"),
        ("a.docx", "word/charts/chart1.xml", "<c:v>{}</c:v>"),
        ("a.xlsx", "xl/comments1.xml", '<t xml:space="preserve">{}</t>'),
        ("a.xlsx", "xl/threadedComments/threadedComment1.xml", "<text>{}</text>"),
        ("a.pptx", "ppt/charts/chart1.xml", "<c:v>{}</c:v>"),
    ],
)
def test_members_whose_text_stays_are_named(name, member, text):
    main = {"docx": "word/document.xml", "xlsx": "xl/sharedStrings.xml", "pptx": "ppt/slides/slide1.xml"}[name[2:]]
    for words, expected in (("Sales", True), ("日本", True), ("12.5", False)):
        root = '<chartSpace xmlns:w="w" xmlns:c="c">' + text.format(words) + "</chartSpace>"
        document = opened(name, packed({main: b"<document/>", member: root.encode()}))
        named = [note for note in document.notes if note == f"{name}: text stays as it is in {member}"]
        assert bool(named) == expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"no archive", "a.docx: damaged, or not the archive its name says"),
        (
            archive(a_xml="<a/>"),
            "a.docx: an archive of another kind: no member of it is listed as text of a .docx file",
        ),
        (archive(word__document_xml="<w:document"), "a.docx/word/document.xml:1: not well-formed XML"),
        (word(run("a"))[:-30], "a.docx: damaged"),
    ],
)
def test_a_broken_archive_is_refused_with_its_member(raw, message):
    with pytest.raises(DataError, match="^" + message):
        opened("a.docx", raw)


def test_a_document_without_text_stays_as_it_is():
    document = opened("a.docx", word("<w:r/>", run(" ")))
    assert not document.slots and document.notes == ["a.docx: has no text to translate"]
    assert document.fill({}) == word("<w:r/>", run(" "))


def test_a_flipped_byte_is_a_refusal_or_a_document():
    raw = bytearray(word(run("some text that is long enough")))
    for at in range(0, len(raw), 7):
        damaged = bytes([*raw[:at], raw[at] ^ 0x55, *raw[at + 1 :]])
        try:
            filled(opened("a.docx", damaged))
        except DataError as error:
            assert str(error).startswith("a.docx")


LARGE = b"<a>" + b" " * 5000 + b"</a>"
LONG_LIST = f"<Types>{' ' * 5000}</Types>".encode()


@pytest.mark.parametrize(
    ("name", "member", "raw"),
    [
        ("a.docx", "word/document.xml", LARGE),
        ("a.docx", "word/comments.xml", LARGE),
        ("a.docx", "[Content_Types].xml", LONG_LIST),
        ("a.pptx", "ppt/charts/chart1.xml", LARGE),
        ("a.xlsx", "xl/tables/table1.xml", LARGE),
        ("a.odt", "content.xml", LARGE),
        ("a.ods", "META-INF/manifest.xml", LARGE),
        ("a.epub", "a.opf", LARGE),
        ("a.epub", "META-INF/container.xml", LARGE),
        ("a.epub", "META-INF/encryption.xml", LARGE),
        ("upload", "[Content_Types].xml", LONG_LIST),
    ],
)
def test_nothing_that_unpacks_to_too_much_is_read(name, member, raw, monkeypatch):
    read, unpack = [], zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name: read.append(name) or unpack(self, name))
    monkeypatch.setattr(limits, "MOST", 4000)
    types = TYPES if raw is LARGE else {}
    with pytest.raises(DataError, match=f"^{name}/{re.escape(member)}: the text of this archive unpacks to more than"):
        document_of(lambda: packed({member: raw}, types), name, kind=".docx")
    assert member not in read


def test_the_limit_holds_for_all_members_together_and_counts_each_once(monkeypatch):
    pages = {f"{n}.xhtml": b"<p>" + b"a" * 1000 for n in range(4)}
    monkeypatch.setattr(limits, "MOST", 4 * 1003)
    assert len(opened("a.epub", packed(pages)).slots) == 4
    text = f"<o:document-content xmlns:o='o' xmlns:t='t'><t:p>{'a' * 3000}</t:p></o:document-content>"
    assert len(opened("a.odt", packed({"content.xml": text.encode()})).slots) == 1
    with pytest.raises(DataError, match=r"^a.epub/4.xhtml: the text of this archive"):
        opened("a.epub", packed({**pages, "4.xhtml": b"a"}))


def test_members_that_are_copied_are_never_whole_in_memory():
    size = 1 << 24
    raw = packed({"word/document.xml": part(MAIN), "word/media/a.bmp": bytes(size)})
    tracemalloc.start()
    try:
        done = filled(opened("a.docx", raw))
        assert tracemalloc.get_traced_memory()[1] < size / 4
    finally:
        tracemalloc.stop()
    assert members(done) == members(raw) | {"word/document.xml": part(MAIN).replace(b"Hello", b"HELLO")}


# ---- encrypted documents -------------------------------------------------------------------------


def listing(member: str) -> str:
    """Return OpenDocument's list of members, one of which is encrypted."""
    return (
        f'<manifest:file-entry manifest:full-path="{member}" manifest:size="9">\n <manifest:encryption-data/>'
        '</manifest:file-entry><manifest:file-entry manifest:full-path="settings.xml"/>'
    )


def protection(member: str) -> str:
    """Return an e-book's list of encrypted members."""
    return (
        f"<enc:EncryptedData><enc:CipherData><enc:CipherReference URI='{member}'/></enc:CipherData></enc:EncryptedData>"
    )


@pytest.mark.parametrize(
    ("name", "texts", "lists"),
    [
        ("a.odp", {"content.xml": b"\x94\x00"}, {"META-INF/manifest.xml": listing("content.xml")}),
        ("a.odt", {"encrypted-package": b"\x94"}, {"META-INF/manifest.xml": listing("encrypted-package")}),
        ("a.ods", {"content.xml": b"<x/>", "styles.xml": b"\x94"}, {"META-INF/manifest.xml": listing("styles.xml")}),
        ("a.epub", {"OPS/a.xhtml": b"\x94"}, {"META-INF/encryption.xml": protection("OPS/a.xhtml")}),
    ],
)
def test_an_encrypted_document_says_that_it_is(name, texts, lists):
    with pytest.raises(DataError, match=f"^{name}: is encrypted: save it without a password"):
        opened(name, packed({**texts, **{member: text.encode() for member, text in lists.items()}}))


def test_encrypted_fonts_are_no_hindrance():
    page = b"<html><body><p>one</p></body></html>"
    book = {"a.xhtml": page, "f.otf": b"\x94", "META-INF/encryption.xml": protection("f.otf").encode()}
    assert [slot.text for slot in opened("a.epub", packed(book)).slots] == ["one"]


@pytest.mark.parametrize("name", ["a.docx", "a.pptx", "a.xlsx", "a.odt"])
def test_a_compound_file_is_told_apart_from_a_damaged_archive(name):
    with pytest.raises(DataError, match=f"^{name}: has a password, or an older format than {name[1:]}"):
        opened(name, bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600))


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("a.docx", "word/document.xml"),
        ("a.pptx", "ppt/slides/slide1.xml"),
        ("a.xlsx", "xl/sharedStrings.xml"),
        ("a.odt", "content.xml"),
        ("a.epub", "toc.ncx"),
    ],
)
def test_a_member_that_is_other_xml_is_refused(name, member):
    with pytest.raises(DataError, match=f"^{name}/{member}:1: not the content of a document.*<other>"):
        opened(name, packed({member: b"<!-- <x> --><a:other xmlns:a='b'/>"}))
