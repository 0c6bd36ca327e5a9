"""Termbases (TBX) and inflected forms as glossaries."""

import gzip
import sys

import pytest
from test_constraints import TOKENIZERS, untrained
from test_terms import LOOSE

from dragoman.cli import main
from dragoman.decode.constraints.glossary import Glossary, GlossaryEntry
from dragoman.decode.search.beam import Beam
from dragoman.errors import ConfigError, DataError
from dragoman.text.inflections import MOST, inflected_terms

TBX_2 = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE martif SYSTEM "TBXcoreStructV02.dtd">
<martif type="TBX" xml:lang="en">
  <martifHeader><fileDesc><sourceDesc><p>made for a test</p></sourceDesc></fileDesc></martifHeader>
  <text><body>
    <termEntry id="c1">
      <descrip type="subjectField">power</descrip>
      <langSet xml:lang="en-US">
        <tig><term>battery</term><termNote type="partOfSpeech">noun</termNote></tig>
        <tig><term id="t2">accumulator</term>
          <termNote type="administrativeStatus">deprecatedTerm-admn-sts</termNote></tig>
      </langSet>
      <langSet xml:lang="es">
        <ntig><termGrp><term>acumulador</term>
          <termNote type="administrativeStatus">admittedTerm-admn-sts</termNote></termGrp></ntig>
        <tig><term>batería</term><termNote type="administrativeStatus">preferredTerm-admn-sts</termNote></tig>
        <tig><term>pila</term><termNote type="administrativeStatus">supersededTerm-admn-sts</termNote></tig>
      </langSet>
      <langSet xml:lang="de"><tig><term>Batterie</term></tig></langSet>
    </termEntry>
    <termEntry id="c2">
      <langSet xml:lang="en-US"><tig><term>IT</term><termNote type="termType">acronym</termNote></tig></langSet>
      <langSet xml:lang="es"><tig><term>TI</term></tig></langSet>
    </termEntry>
  </body></text>
</martif>
"""
TBX_3 = """<?xml version="1.0" encoding="UTF-8"?>
<!-- <martif> is what it was called before -->
<tbx type="TBX-Basic" style="{style}" xml:lang="en" xmlns="urn:iso:std:iso:30042:ed-2"
     xmlns:min="http://www.tbxinfo.net/ns/min" xmlns:basic="http://www.tbxinfo.net/ns/basic">
  <tbxHeader><fileDesc/></tbxHeader>
  <text><body>
    <conceptEntry id="c1">
      <langSec xml:lang="en"><termSec><term>access <hi>point</hi></term></termSec></langSec>
      <langSec xml:lang="es">
        <termSec><term>punto de acceso</term>{preferred}</termSec>
        <termSec><term>AP</term>{avoided}</termSec>
      </langSec>
    </conceptEntry>
  </body></text>
</tbx>
"""
DCA = '<termNote type="administrativeStatus">{}-admn-sts</termNote>'
DCT = "<basic:administrativeStatus>{}-admn-sts</basic:administrativeStatus>"


def write(path, content):
    path.write_text(content, encoding="utf-8")
    return path


@pytest.fixture
def termbase(tmp_path):
    return write(tmp_path / "terms.tbx", TBX_2)


def test_any_term_of_a_concept_will_do_and_deprecated_ones_are_forbidden(termbase):
    glossary = Glossary.read(termbase, source="en", target="es")
    required, forbidden = glossary.of("a battery")
    assert required == (("batería", "^Batería", "acumulador", "^Acumulador"),)  # the preferred one first
    assert forbidden == ("pila", "Pila", "PILA")
    assert glossary.of("an accumulator")[0] == required  # still found in sources


def test_an_acronym_counts_in_its_own_case_only(termbase):
    glossary = Glossary.read(termbase, source="en", target="es")
    assert glossary.of("is it new?") == ((), ())
    assert glossary.of("the IT team")[0]


@pytest.mark.parametrize(("style", "note"), [("dca", DCA), ("dct", DCT)])
def test_termbases_of_2019_are_read_in_both_styles(tmp_path, style, note):
    content = TBX_3.format(style=style, preferred=note.format("preferredTerm"), avoided=note.format("deprecatedTerm"))
    required, forbidden = Glossary.read(write(tmp_path / "t.tbx", content), source="en", target="es").of("Access point")
    assert "punto de acceso" in required[0] and "AP" not in required[0] and "AP" in forbidden


@pytest.mark.parametrize(
    ("source", "target", "term"),
    [
        ("en", "de", "Batterie"),  # en-US is en, unless there is en
        ("en-US", "de-AT", "Batterie"),
        ("EN_us", "es", "batería"),
        ("de", "es", "batería"),
        ("es-MX", "de", "Batterie"),
    ],
)
def test_languages_fit_with_and_without_regions(termbase, source, target, term):
    read = Glossary.read(termbase, source=source, target=target)
    assert read.of("battery Batterie batería")[0][0][0] == term


def test_one_language_suffices_where_there_are_two(tmp_path):
    content = TBX_3.format(style="dca", preferred="", avoided="")
    path = write(tmp_path / "t.tbx", content)
    for source, target in (("en", None), (None, "es"), (None, "es-ES")):
        assert Glossary.read(path, source=source, target=target).of("access point")[0]
    assert Glossary.read(path, source="es").of("punto de acceso")[0][0][0] == "access point"


def test_a_term_of_several_concepts_may_be_translated_as_in_any(tmp_path):
    entry = (
        '<termEntry><langSet xml:lang="en"><tig><term>bank</term></tig></langSet>'
        '<langSet xml:lang="es"><tig><term>{}</term><termNote type="administrativeStatus">{}</termNote></tig></langSet>'
        "</termEntry>"
    )
    both = (
        entry.format("banco", "preferredTerm-admn-sts")
        + entry.format("orilla", "")
        + entry.format("banco", "deprecatedTerm-admn-sts")
    )
    path = write(tmp_path / "t.tbx", f"<martif><text><body>{both}</body></text></martif>")
    required, forbidden = Glossary.read(path, source="en", target="es").of("the bank")
    assert {"banco", "orilla"} <= set(required[0]) and forbidden == ()


def test_termbases_may_be_compressed_and_in_other_encodings(tmp_path):
    (tmp_path / "t.tbx.gz").write_bytes(gzip.compress(TBX_2.encode()))
    assert Glossary.read(tmp_path / "t.tbx.gz", source="en", target="es").of("battery")[0]
    (tmp_path / "w.tbx").write_bytes(TBX_2.replace("UTF-8", "UTF-16").encode("utf-16"))
    assert Glossary.read(tmp_path / "w.tbx", source="en", target="es").of("battery")[0][0][0] == "batería"
    (tmp_path / "l.tbx").write_bytes(TBX_2.replace("UTF-8", "ISO-8859-1").encode("latin-1"))
    assert Glossary.read(tmp_path / "l.tbx", source="en", target="es").of("battery")[0][0][0] == "batería"


@pytest.mark.parametrize(
    ("content", "languages", "said"),
    [
        (TBX_2.replace("</body>", ""), ("en", "es"), "t.tbx:25: not well-formed XML"),
        ("<tmx version='1.4'><body/></tmx>", ("en", "es"), "t.tbx: not a TBX termbase: its outermost element is <tmx>"),
        ("", ("en", "es"), "t.tbx: not a TBX termbase: it has no element, not <martif> or <tbx>"),
        ("source\ttarget\na\tb\n", ("en", "es"), "t.tbx: not a TBX termbase"),
        (TBX_2.replace(' xml:lang="de"', ""), ("en", "es"), "t.tbx:19: a <langSet> without xml:lang"),
        (TBX_2.replace("<term>Batterie</term>", "<term> </term>"), ("en", "es"), "t.tbx:19: a <tig> without a term"),
        (TBX_2.replace("<term>Batterie</term>", ""), ("en", "es"), "t.tbx:19: a <tig> without a term"),
        (TBX_2, ("en", "fr"), "t.tbx: no concept has terms in en and fr; the languages in it: en-US, es, de"),
        (TBX_2, (None, None), "which of its languages (en-US, es, de) is translated into which? Name them with --from"),
        (TBX_2, ("en", None), "which of its languages (en-US, es, de)"),
        ("<martif><text><body/></text></martif>", ("en", "es"), "the languages in it: none"),
        ('<!DOCTYPE martif [<!ENTITY a "b">]><martif>&a;</martif>', ("en", "es"), "declares an entity (a)"),
    ],
    ids=lambda value: "-" if isinstance(value, str) and len(value) > 40 else str(value),
)
def test_a_termbase_that_cannot_be_read_is_one_line(tmp_path, content, languages, said):
    path = write(tmp_path / "t.tbx", content)
    with pytest.raises(DataError) as error:
        Glossary.read(path, source=languages[0], target=languages[1])
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["missing.tbx", "folder.tbx"])
def test_a_termbase_that_is_not_there_is_one_line_before_a_model_is_loaded(tmp_path, capsys, name):
    (tmp_path / "folder.tbx").mkdir()
    command = ["translate", str(tmp_path), "text", "--from", "en", "--to", "es", "--terms", str(tmp_path / name)]
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"dragoman: {tmp_path / name}") and err.count("\n") == 1


def test_terms_of_scripts_without_spaces_are_found_inside_a_sentence():
    glossary = Glossary(
        [
            GlossaryEntry("電池", ("battery",)),
            GlossaryEntry("แบตเตอรี่", ("battery",)),
            GlossaryEntry("배터리", ("cell",)),
        ]
    )
    assert glossary.of("この電池は新しい。")[0] == (("battery", "^Battery"),)
    assert glossary.of("เปลี่ยนแบตเตอรี่แล้ว")[0] and glossary.of("배터리가 없다")[0]
    assert not Glossary([GlossaryEntry("art", ("arte",))]).of("party")[0]


# ---- inflected forms -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "term", "accepted", "refused"),
    [
        ("es", "batería", "baterías", "baterista"),
        ("es-MX", "punto de acceso", "puntos de acceso", "punto del acceso"),
        ("de", "Batterie", "Batterien", "batterien"),
        ("de", "rotes Haus", "roten Häusern", "rot Hausen"),
        ("de", "Zusatzbatterie", "Zusatzbatterien", "ZusatzBatterien"),  # in no dictionary: as its last part
        ("en", "mouse", "mice", "moose"),
        ("fr", "cheval", "chevaux", "chevalerie"),
        ("ru", "батарея", "батарей", "батарейка"),
        ("en", "*phone", "*phones", "phone"),
    ],
)
def test_the_forms_of_a_term_are_those_of_its_language(language, term, accepted, refused):
    found = inflected_terms([term], language)[term]
    assert found[0] == term and accepted in found and refused not in found and len(found) <= MOST


@pytest.mark.parametrize("term", ["HDD", "USB-C", "5G", "qwrtz", "Windows 11 SE"])
def test_acronyms_numbers_and_unknown_words_do_not_inflect(term):
    assert inflected_terms([term], "de")[term] == (term,)


def test_inflected_forms_are_accepted_in_both_languages_and_forbidden_too(tmp_path):
    table = write(tmp_path / "terms.tsv", "source\ttarget\tforbidden\nbattery\tbatería\tpila\nmice\tratones|ratón\t\n")
    plain = Glossary.read(table)
    glossary = Glossary.read(table, source="en", target="es", inflected=True)
    assert plain.of("new batteries") == ((), ())
    required, forbidden = glossary.of("new batteries")
    assert {"batería", "baterías"} <= set(required[0]) and {"pila", "pilas"} <= set(forbidden)
    assert "ratón" in glossary.of("a mouse")[0][0]
    assert glossary.of("mice")[0][0][0] == "ratones"  # what the table says comes first


def test_an_entry_of_a_form_has_its_own_translation(tmp_path):
    table = write(tmp_path / "terms.tsv", "source\ttarget\nsetting\tajuste\nsettings\tconfiguración\n")
    glossary = Glossary.read(table, source="en", target="es", inflected=True)
    assert "configuración" in glossary.of("settings")[0][0] and "ajuste" not in glossary.of("settings")[0][0]


@pytest.mark.parametrize(
    ("languages", "said"),
    [
        (("en", None), "inflected forms depend on the languages: name both with --from and --to"),
        ((None, "es"), "name both with --from and --to"),
        (("en", "xx"), "xx: there is no dictionary of its inflected forms: list them, as in battery|batteries"),
        (("zu", "es"), "zu: there is no dictionary"),
        (("../en", "es"), "there is no dictionary"),
    ],
)
def test_inflected_forms_of_an_unknown_language_are_one_line(tmp_path, languages, said):
    table = write(tmp_path / "terms.tsv", "source\ttarget\nbattery\tbatería\n")
    with pytest.raises(ConfigError) as error:
        Glossary.read(table, source=languages[0], target=languages[1], inflected=True)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "simplemma"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "simplemma", None)
    with pytest.raises(ConfigError, match=r"pip install simplemma \(the extra inflections\)"):
        inflected_terms(["battery"], "en")


def test_inflect_without_terms_is_one_line(tmp_path, capsys):
    assert main(["translate", str(tmp_path), "text", "--inflect"]) == 2
    assert capsys.readouterr().err == "dragoman: --inflect: is for the terms of a glossary: name one with --terms\n"


def test_an_untrained_model_says_one_of_the_forms(termbase):
    translator = untrained(TOKENIZERS["bytes"])
    glossary = Glossary.read(termbase, source="en", target="de", inflected=True)
    answer = translator.translate(["batteries"], search=Beam(size=2, limit=LOOSE), glossary=glossary)[0]
    assert any(form in answer.text for form in ("Batterie", "Batterien"))
