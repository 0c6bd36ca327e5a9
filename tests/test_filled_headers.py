"""PO files that are filled have a header that gettext takes, and fuzzy marks that tell the truth."""

import re
import shutil
import subprocess

import pytest
from translate.storage import pypo

from dragoman.text.document import Filling
from dragoman.text.filled.po_document import PoDocument
from dragoman.text.formats import plurals

TEMPLATE = r"""# SOME DESCRIPTIVE TITLE.
#, fuzzy
msgid ""
msgstr ""
"Project-Id-Version: PACKAGE VERSION\n"
"POT-Creation-Date: 2024-01-01 00:00+0000\n"
"PO-Revision-Date: YEAR-MO-DA HO:MI+ZONE\n"
"Last-Translator: FULL NAME <EMAIL@ADDRESS>\n"
"Language-Team: LANGUAGE <LL@li.org>\n"
"Language: \n"
"MIME-Version: 1.0\n"
"Content-Type: text/plain; charset=CHARSET\n"
"Content-Transfer-Encoding: 8bit\n"
"Plural-Forms: nplurals=INTEGER; plural=EXPRESSION;\n"
"""
BODY = r"""
#: a.c:1
msgid "%d light"
msgid_plural "%d lights"
msgstr[0] ""
msgstr[1] ""

msgid "The battery is low."
msgstr ""
"""


def fields(raw: bytes) -> dict[str, str]:
    return dict(pypo.pofile.parsestring(raw).parseheader())


def filled(
    text: str, name: str = "a.pot", language: str | None = None, review: bool = False, word: str = "día"
) -> bytes:
    doc = PoDocument(text.encode(), name, language)
    return doc.fill({i: Filling(f"{word} %d" * ("%d" in s.text) or word, review) for i, s in enumerate(doc.slots)})


def check_with_msgfmt(raw: bytes, folder) -> None:
    """Compile the file as strictly as gettext can, where it is installed."""
    if shutil.which("msgfmt"):
        (folder / "out.po").write_bytes(raw)
        command = ["msgfmt", "-c", "-o", str(folder / "out.mo"), str(folder / "out.po")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


# ---- the header -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "count"),
    [("es", 2), ("pt-BR", 2), ("ja", 1), ("zh_CN", 1), ("ru", 3), ("pl", 3), ("sl", 4), ("ga", 5), ("ar", 6)],
)
def test_a_template_gets_the_header_that_gettext_wants_of_a_language(language, count, tmp_path):
    raw = filled(TEMPLATE + BODY, language=language)
    found = fields(raw)
    assert found["Language"] == language.replace("-", "_")
    assert found["Content-Type"] == "text/plain; charset=UTF-8"
    assert found["Plural-Forms"].startswith(f"nplurals={count}; ")
    assert not re.search("YEAR-MO-DA|FULL NAME|LL@li.org", raw.decode()) and raw.count(b"msgstr[") == count
    assert b"#, fuzzy" not in raw  # the header is no guess any more
    check_with_msgfmt(raw, tmp_path)


HEADERS = {
    "none at all": "",
    "an empty one": 'msgid ""\nmsgstr ""\n',
    "the language alone": 'msgid ""\nmsgstr "Language: ru\\n"\n',
    "all on one line": 'msgid ""\nmsgstr "Language: \\nContent-Type: text/plain; charset=CHARSET\\n"\n',
    "no number of forms": 'msgid ""\nmsgstr ""\n"Language: ru\\n"\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
    '"Plural-Forms: nplurals=INTEGER; plural=EXPRESSION;\\n"\n',
    "ASCII": 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=us-ascii\\n"\n',
    "a comment alone": "# by hand\n",
}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_lacks_something_is_completed(header, line_end, tmp_path):
    raw = filled((HEADERS[header] + BODY).replace("\n", line_end), "a.po", "ru")
    found = fields(raw)
    assert (found["Language"], found["Content-Type"]) == ("ru", "text/plain; charset=UTF-8")
    assert found["Plural-Forms"] == plurals.field_of("ru")
    assert raw.count(b"\r\n") == (raw.count(b"\n") if line_end == "\r\n" else 0)
    check_with_msgfmt(raw, tmp_path)


def test_a_byte_order_mark_stays_first_where_a_header_is_written():
    assert filled("\ufeff" + BODY, "a.po", "ru").startswith('\ufeffmsgid ""'.encode())


def test_a_template_with_a_header_of_its_source_gets_that_of_the_translations():
    header = 'msgid ""\nmsgstr ""\n"Language: en\\n"\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
    header += '"Plural-Forms: nplurals=2; plural=(n != 1);\\n"\n'
    found = fields(filled(header + BODY, "a.pot", "ru"))
    assert (found["Language"], found["Plural-Forms"]) == ("ru", plurals.field_of("ru"))


def test_a_template_in_the_language_of_the_translations_keeps_its_own_plural_forms(tmp_path):
    header = 'msgid ""\nmsgstr ""\n"Language: es\\n"\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
    header += '"Plural-Forms: nplurals=3; plural=n==1 ? 0 : n%1000000==0 ? 1 : 2;\\n"\n'
    raw = filled(header + BODY, "a.pot", "es_MX")
    assert raw.count(b"msgstr[") == 3 and b"nplurals=3" in raw
    check_with_msgfmt(raw, tmp_path)


def test_a_complete_header_stays_as_it_is_and_another_language_is_noted():
    header = TEMPLATE.replace("CHARSET", "UTF-8").replace("Language: ", "Language: fr").replace("#, fuzzy\n", "")
    header = header.replace("nplurals=INTEGER; plural=EXPRESSION", "nplurals=2; plural=(n>1)")
    for language in (None, "fr_CA", "es"):
        assert filled(header + BODY, "a.po", language).decode().startswith(header)
    assert PoDocument((header + BODY).encode(), "a.po", "fr_CA").notes == []
    assert PoDocument((header + BODY).encode(), "a.po", "es").notes == [
        "a.po: its header says Language: fr, not es: the header is kept"
    ]


def test_without_a_language_a_template_says_so_and_gets_its_encoding_alone():
    doc = PoDocument((TEMPLATE + BODY).encode(), "a.pot")
    assert any("its header is a template's" in note and "--target-language" in note for note in doc.notes)
    raw = filled(TEMPLATE + BODY)
    assert b"charset=UTF-8" in raw and b"nplurals=INTEGER" in raw


def test_a_language_whose_plurals_are_not_known_is_named():
    notes = PoDocument((TEMPLATE + BODY).encode(), "a.pot", "xx").notes
    assert any("the plural forms of xx are not known here" in note for note in notes)


@pytest.mark.parametrize("content", ["", "# nothing yet\n", 'msgid ""\nmsgstr "Language: de\\n"\n'])
def test_a_file_without_entries_says_so(content):
    doc = PoDocument(content.encode(), "a.po", "de")
    assert doc.notes == ["a.po: has no entries: there is nothing to translate in it"]
    assert doc.fill({}) == content.encode()


def test_a_template_whose_language_is_written_in_already_is_completed_too(tmp_path):
    raw = filled(TEMPLATE.replace("Language: ", "Language: es") + BODY, "a.po")
    assert b"#, fuzzy" not in raw and fields(raw)["Plural-Forms"] == plurals.field_of("es")
    check_with_msgfmt(raw, tmp_path)


def test_the_time_of_a_revision_can_be_fixed(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert fields(filled(TEMPLATE + BODY, language="es"))["PO-Revision-Date"] == "1970-01-01 00:00+0000"


@pytest.mark.parametrize(
    ("name", "same"), [("pt-BR", "pt_BR"), ("ru_RU.UTF-8", "ru"), ("de_AT", "de"), ("no", "nb"), ("zh-Hans", "zh_CN")]
)
def test_languages_are_known_by_the_names_that_files_use(name, same):
    assert plurals.field_of(name) == plurals.field_of(same) is not None


# ---- fuzzy marks ----------------------------------------------------------------------------------

UTF_8 = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
THREE = UTF_8 + '"Plural-Forms: nplurals=3; plural=n>2?2:n>1;\\n"\n'
DOORS = '#, {}\n#| msgid "%d window"\nmsgid "%d door"\nmsgid_plural "%d doors"\n{}'


def entry(*forms: str) -> str:
    return "".join(f'msgstr[{i}] "{form}"\n' for i, form in enumerate(forms))


@pytest.mark.parametrize(
    "forms", [("a %d", "", ""), ("", "b %d", ""), ("a %d", "b %d"), ("a %d",), ("a %d", "b %d", "")]
)
@pytest.mark.parametrize("flags", ["fuzzy", "fuzzy, c-format", "c-format, fuzzy"])
def test_a_fuzzy_plural_stays_fuzzy_while_a_form_of_the_old_source_is_left(forms, flags):
    text = THREE + "\n" + DOORS.format(flags, entry(*forms))
    doc = PoDocument(text.encode(), "a.po")
    fillings = {i: Filling("x %d") for i, slot in enumerate(doc.slots) if not slot.filled}
    unit = pypo.pofile.parsestring(doc.fill(fillings)).units[-1]
    assert unit.isfuzzy() and all(unit.target.strings) and len(unit.target.strings) == 3
    assert doc.slots_to_review(fillings) == set(fillings)


@pytest.mark.parametrize("forms", [("a %d", "b %d", "c %d"), ("a %d",), ("", "", "")])
def test_a_fuzzy_plural_that_is_made_anew_whole_is_fuzzy_no_more(forms):
    doc = PoDocument((THREE + "\n" + DOORS.format("fuzzy", entry(*forms))).encode(), "a.po")
    everything = {i: Filling("x %d") for i in range(len(doc.slots))}
    unit = pypo.pofile.parsestring(doc.fill(everything)).units[-1]
    assert not unit.isfuzzy() and not unit.prev_source
    assert doc.slots_to_review(everything) == set()


def test_a_plural_with_a_form_left_empty_is_fuzzy_since_a_program_would_show_nothing():
    doc = PoDocument((THREE + "\n" + DOORS.format("c-format", entry("", "", ""))).encode(), "a.po")
    assert pypo.pofile.parsestring(doc.fill({0: Filling("x %d"), 2: Filling("y %d")})).units[-1].isfuzzy()


def test_forms_that_the_language_does_not_have_go_if_they_are_empty_and_stay_if_not(tmp_path):
    header = UTF_8 + '"Plural-Forms: nplurals=1; plural=0;\\n"\n'
    raw = filled(header + BODY, "a.po")
    assert raw.count(b"msgstr[") == 1
    check_with_msgfmt(raw, tmp_path)
    kept = filled(header + BODY.replace('msgstr[1] ""', 'msgstr[1] "x"'), "a.po")
    assert b'msgstr[1] "x"' in kept
