"""Modules of XLIFF 2: kept to the byte, and the limits and rules in them obeyed and checked."""

import re

import pytest

from dragoman.cli import main
from dragoman.decode.documents.document import translate_document
from dragoman.decode.request import Request
from dragoman.decode.translation import Candidate, Translation
from dragoman.text.checks import find_problems, translations_in
from dragoman.text.document import Filling
from dragoman.text.formats.xliff import XliffDocument

SPACES = " ".join(
    f'xmlns:{prefix}="urn:oasis:names:tc:xliff:{name}:2.0"'
    for prefix, name in (
        ("mtc", "matches"),
        ("gls", "glossary"),
        ("fs", "fs"),
        ("mda", "metadata"),
        ("res", "resourcedata"),
        ("ctr", "changetracking"),
        ("slr", "sizerestriction"),
        ("val", "validation"),
    )
)
ALL_MODULES = f"""<?xml version="1.0"?>
<xliff version="2.1" srcLang="en" trgLang="de" xmlns="urn:oasis:names:tc:xliff:document:2.0" {SPACES}
 xmlns:its="http://www.w3.org/2005/11/its" its:version="2.0" xmlns:x="urn:x">
<file id="f"><skeleton>a  b</skeleton>
 <mda:metadata><mda:metaGroup category="unit"><mda:meta type="source">segment &amp; unit</mda:meta>
  </mda:metaGroup></mda:metadata>
 <slr:profiles generalProfile="xliff:codepoints" storageProfile="xliff:utf8">
  <slr:normalization general="nfc"/></slr:profiles>
 <res:resourceData><res:resourceItem id="r"><res:source href="a.png"/><res:target href="b.png"/>
  </res:resourceItem></res:resourceData>
 <val:validation><val:rule isNotPresent="!!"/></val:validation>
 <notes><note id="n">for  translators</note></notes>
 <group id="g" fs:fs="div"><unit id="1" slr:sizeRestriction="12" x:mine="kept">
  <mtc:matches><mtc:match ref="#m"><source>Open</source><target>Offen</target></mtc:match></mtc:matches>
  <gls:glossary><gls:glossEntry><gls:term source="x">door</gls:term><gls:translation>Tür</gls:translation>
  </gls:glossEntry></gls:glossary>
  <ctr:changeTrack><ctr:revisions appliesTo="source"><ctr:revision>
  <ctr:item property="content">Opn</ctr:item></ctr:revision></ctr:revisions></ctr:changeTrack>
  <mda:metadata><mda:metaGroup><mda:meta type="a">  b </mda:meta></mda:metaGroup></mda:metadata>
  <originalData><data id="d">&lt;br/&gt;</data></originalData>
  <segment id="s" state="initial" subState="x:new" canResegment="no">
  <source>Open <ph id="p" dataRef="d" slr:equivStorage="4"/></source></segment>
  <ignorable><source> </source></ignorable>
  <segment id="t"><source>Door</source></segment>
 </unit></group>
</file></xliff>
"""


def file(unit: str, before: str = "", attributes: str = "") -> XliffDocument:
    text = (
        f'<xliff version="2.1" srcLang="en" trgLang="de" xmlns="urn:oasis:names:tc:xliff:document:2.0" {SPACES}>'
        f'<file id="f" {attributes}>{before}{unit}</file></xliff>'
    )
    return XliffDocument(text.encode(), "a.xlf")


def unit(target: str, *, attributes: str = "", inside: str = "", source: str = "Open") -> str:
    return (
        f'<unit id="1" {attributes}>{inside}<segment state="translated"><source>{source}</source>'
        f"<target>{target}</target></segment></unit>"
    )


POINTS = '<slr:profiles generalProfile="xliff:codepoints"/>'
UTF8, UTF16, UTF32 = (f'<slr:profiles storageProfile="xliff:utf{n}"/>' for n in (8, 16, 32))


def found(document):
    return [(one.check, one.message) for pair in translations_in(document) for one in find_problems(pair)]


def test_all_modules_stay_to_the_byte_when_a_file_is_filled():
    document = XliffDocument(ALL_MODULES.encode(), "a.xlf")
    assert [slot.text for slot in document.slots] == ['Open <ph id="p" dataRef="d" slr:equivStorage="4"/>', "Door"]
    done = document.fill({number: Filling(slot.text.upper().lower()) for number, slot in enumerate(document.slots)})
    done = document.fill({0: Filling(document.slots[0].text), 1: Filling("Tür")}).decode()
    without = re.sub(r"\s*<target>(Open <ph[^>]*>|Tür)</target>", "", done)
    without = without.replace('state="translated" canResegment', 'state="initial" subState="x:new" canResegment')
    assert without.replace('<segment id="t" state="translated">', '<segment id="t">') == ALL_MODULES


@pytest.mark.parametrize(
    ("state", "review", "written"),
    [
        ('state="initial" subState="x:new"', False, 'state="translated"'),
        ('state="initial" subState="x:new"', True, 'state="initial" subState="x:new"'),
        ('subState="x:new" state="translated"', False, 'subState="x:new" state="translated"'),
        ("state='reviewed' subState='x:ok'", True, 'state="initial"'),
        ("", True, 'state="initial"'),
        ("", False, 'state="translated"'),
    ],
)
def test_a_state_of_a_tool_goes_with_the_state_that_it_was_in(state, review, written):
    document = file(f'<unit id="1"><segment {state}><source>Open</source></segment></unit>'.replace(" >", ">"))
    assert f"<segment {written}>".encode() in document.fill({0: Filling("Offen", review)})


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (file(unit("Öffnen", attributes='slr:sizeRestriction="6"'), POINTS), None),
        (file(unit("Öffnen!", attributes='slr:sizeRestriction="6"'), POINTS), "has 7 characters, 6 are allowed"),
        (file(unit("Öff", attributes='slr:sizeRestriction="4,6"'), POINTS), "has 3 characters, 4 are needed"),
        (file(unit("Öff", attributes='slr:sizeRestriction="4,"'), POINTS), "has 3 characters, 4 are needed"),
        (file(unit("O\u0308ffnen", attributes='slr:sizeRestriction="6"'), POINTS), None),  # as one character
        (file(unit("Öffnen", attributes='slr:storageRestriction="6"'), UTF8), "has 7 bytes, 6 are allowed"),
        (file(unit("a😀", attributes='slr:storageRestriction="2"'), UTF16), "has 3 units of UTF-16, 2 are allowed"),
        (file(unit("a😀", attributes='slr:storageRestriction="2"'), UTF32), None),
        (file(unit("Öffnen", attributes='slr:sizeRestriction="2"')), None),  # no profile: nobody knows what is counted
        (file(unit("Öffnen", attributes='slr:sizeRestriction="x"'), POINTS), None),
        (file(unit("Öffnen", attributes='slr:sizeRestriction="2"'), POINTS.replace("xliff", "mine")), None),
        (file(unit("Öffnen"), POINTS, 'slr:sizeRestriction="2"'), "has 6 characters, 2 are allowed"),
        (
            file(unit("Öffnen", attributes='slr:sizeRestriction="9"'), POINTS, 'slr:sizeRestriction="2"'),
            None,  # the innermost counts
        ),
        (
            file(unit('<ph id="1"/>Öff', attributes='slr:sizeRestriction="3"', source='<ph id="1"/>Open'), POINTS),
            None,  # codes have no size
        ),
        (
            file(
                '<unit id="1" slr:sizeRestriction="6"><segment><source>a</source><target>Öffn</target></segment>'
                "<ignorable><source> </source></ignorable>"
                "<segment><source>b</source><target>ab</target></segment></unit>",
                POINTS,
            ),
            "has 7 characters, with the other segments of its unit, 6 are allowed",
        ),
    ],
)
def test_sizes_are_counted_by_the_profile_of_the_file(document, said):
    assert {message for check, message in found(document) if check == "length"} == ({said} if said else set())


def rules(*written: str) -> str:
    return f"<val:validation>{''.join(f'<val:rule {rule}/>' for rule in written)}</val:validation>"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (file(unit("Öffnen", inside=rules('isPresent="ffn"'))), None),
        (file(unit("Öffnen", inside=rules('isPresent="x"'))), "must hold 'x' (a rule of the file)"),
        (file(unit("Öffnen", inside=rules('isPresent="n" occurs="2"'))), None),
        (file(unit("Öffnen", inside=rules('isPresent="n" occurs="1"'))), "must hold 'n' 1 times (a rule of the file)"),
        (file(unit("Öffnen", inside=rules('isNotPresent="ff"'))), "must not hold 'ff' (a rule of the file)"),
        (file(unit("Öffnen", inside=rules('startsWith="öff"'))), "must begin with 'öff' (a rule of the file)"),
        (file(unit("Öffnen", inside=rules('startsWith="öff" caseSensitive="no"'))), None),
        (file(unit("Öffnen", inside=rules('endsWith="n"'))), None),
        (file(unit("Öffnen", inside=rules('endsWith="." existsInSource="yes"'))), None),
        (
            file(unit("Öffnen.", inside=rules('endsWith="." existsInSource="yes"'))),
            "differs in whether it ends with '.': the source is not so",
        ),
        (file(unit("Öffnen"), rules('isPresent="x"')), "must hold 'x' (a rule of the file)"),
        (file(unit("Öffnen", inside=rules('isPresent="x" disabled="yes"')), rules('isPresent="x"')), None),
        (
            file(f'<group id="g">{rules(chr(39).join(["isPresent=", "x", ""]))}{unit("Öffnen")}</group>'),
            "must hold 'x' (a rule of the file)",
        ),
        (file(f'<group id="g">{rules("isPresent=" + chr(34) + "x" + chr(34))}</group>{unit("Öffnen")}'), None),
        (file(unit("Öffnen", inside=rules('x:mine="y"').replace("x:mine", "xml:id"))), None),
    ],
)
def test_rules_of_the_file_are_checked(document, said):
    assert {message for check, message in found(document) if check == "validation"} == ({said} if said else set())


def answers(*texts):
    candidates = tuple(Candidate(text, 0.0, 0.0, (), (), truncated=False, confidence=0.9) for text in texts)
    return lambda questions, *_: [Translation(1, getattr(q, "text", q), candidates, (), 0.9) for q in questions]


@pytest.mark.parametrize(
    ("offered", "text", "warning"),
    [
        (["Öffnen Sie", "Öffnen", "Auf"], "Öffnen", None),
        (["Öffnen Sie", "Öffnen!", "Aufmachen"], "Öffnen Sie", "has 10 characters, 6 are allowed"),
        (["Auf", "Öffnen"], "Auf", None),
        (["Öffnen Sie", "Auf 3"], "Öffnen Sie", "has 10 characters, 6 are allowed"),  # a number too many
    ],
)
def test_a_translation_that_is_too_long_is_exchanged_for_another_good_one_or_marked(offered, text, warning):
    unfilled = '<unit id="1" slr:sizeRestriction="6"><segment><source>Open</source></segment></unit>'
    document = file(unfilled, POINTS)
    done = translate_document(document, answers(offered[0]), require=answers(*offered))
    assert f"<target>{text}</target>" in done.content.decode()
    assert [w.partition(": ")[2] for w in done.warnings] == ([warning] if warning else [])
    assert done.flagged == bool(warning) and (b'state="initial"' in done.content) == bool(warning)


def test_limits_of_other_formats_are_obeyed_too(tmp_path):
    from dragoman.text.filled.opening import open_document

    (tmp_path / "a.po").write_text('#, max-length:6\nmsgid "Open"\nmsgstr ""\n')
    document = open_document(tmp_path / "a.po", target="de")
    done = translate_document(document, answers("Öffnen Sie"), require=answers("Öffnen Sie", "Öffnen"))
    assert 'msgstr "Öffnen"' in done.content.decode() and not done.warnings
    asked = []
    done = translate_document(
        document, answers("Auf"), require=lambda questions, _: asked.extend(questions) or answers("x")(questions)
    )
    assert not asked and isinstance(Request("x"), Request)  # nothing is asked for again


def test_check_reports_rules_and_sizes_with_their_line(tmp_path, capsys):
    text = file(unit("Öffnen!!", attributes='slr:sizeRestriction="4"'), POINTS + rules('isNotPresent="!!"')).source.utf8
    (tmp_path / "a.xlf").write_bytes(text.replace(b"<segment", b"\n<segment"))
    assert main(["check", str(tmp_path / "a.xlf"), "--only", "length", "--only", "validation"]) == 1
    out = capsys.readouterr().out
    assert "a.xlf:2" in out and "has 8 characters, 4 are allowed" in out and "must not hold '!!'" in out
