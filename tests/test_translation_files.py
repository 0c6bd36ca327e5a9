"""What translators keep (PO, MO, XLIFF, TMX) and Parquet, read as pairs: against the translate toolkit, and broken."""

import bz2
import gettext
import gzip
import itertools
import lzma
import struct
import sys
import tracemalloc
from pathlib import Path

import pyarrow
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from translate.misc.multistring import multistring
from translate.storage import mo, pypo, tmx, xliff

from dragoman.config import from_dict, to_dict
from dragoman.errors import ConfigError, DataError
from dragoman.text.compressed import open_bytes
from dragoman.text.formats import plurals
from dragoman.text.formats.pairs import (
    Gettext,
    JsonLines,
    Pair,
    PairSource,
    Parquet,
    TextFiles,
    Tmx,
    Xliff,
    guess_source,
    read_pairs,
)
from dragoman.text.lines import read_lines

HEADER = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
PLURAL = '"Plural-Forms: nplurals=2; plural=(n != 1);\\n"\n'
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(str.strip)
STRINGS = st.text(st.sampled_from('aé\n\t"\\%& <>{}') | st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)

MANY = settings(max_examples=max(300, settings.default.max_examples))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def read(path: Path, content: str | bytes, **fields) -> list[tuple[str, str]]:
    source = guess_source(write(path, content))
    return [tuple(pair) for pair in read_pairs(from_dict(PairSource, to_dict(source) | fields))]


def refusal(path: Path, content: str | bytes, **fields) -> str:
    with pytest.raises((DataError, ConfigError)) as error:
        read(path, content, **fields)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(str(path))


# ---- compressed files ------------------------------------------------------------------------------

PACKED = {".gz": gzip.compress, ".zst": zstandard.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
PADDING = {".gz": b"\0", ".zst": b"", ".bz2": b"\0", ".xz": b"\0" * 4}
"""Bytes that may follow a stream, once or more often."""


@pytest.mark.parametrize("ending", PACKED)
@given(
    content=st.binary(max_size=3000),
    cuts=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3) | st.just(4096)), max_size=3),
)
def test_a_compressed_file_is_read_as_what_is_in_it_stream_after_stream(folder, ending, content, cuts):
    edges = [(0, 0), *sorted((min(cut, len(content)), padding) for cut, padding in cuts), (len(content), 2)]
    streams = [PACKED[ending](content[a:b]) + PADDING[ending] * n for (a, _), (b, n) in itertools.pairwise(edges)]
    packed, plain = folder / f"x.txt{ending}", folder / "x.txt"
    packed.write_bytes(b"".join(streams))
    plain.write_bytes(content)

    def lines(path):
        try:
            return list(read_lines(path))
        except DataError as error:
            return str(error).replace(ending, "")

    assert lines(packed) == lines(plain)


@pytest.mark.parametrize("ending", PACKED)
def test_a_compressed_file_that_was_cut_short_or_is_none_is_refused(ending, tmp_path):
    whole = PACKED[ending](b"a sentence\n" * 5000)
    for content in (
        b"",
        whole[:-1],
        whole[:-9] + b"123456789",
        b"not compressed\n",
        whole + b"junk",
        whole + whole[:-1],
    ):
        path = write(tmp_path / f"a.txt{ending}", content)
        with pytest.raises(DataError, match=rf"a\.txt\{ending}: damaged, or not"):
            list(read_lines(path))


@pytest.mark.parametrize("ending", PACKED)
def test_the_beginning_of_a_small_file_that_holds_much_takes_little_memory(ending, tmp_path):
    path = write(tmp_path / f"a.txt{ending}", PACKED[ending](bytes(50_000_000)))
    tracemalloc.start()
    with open_bytes(path) as file:
        assert file.read(10) == bytes(10)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20_000_000
    with open_bytes(path) as file:
        assert sum(len(content) for content in iter(lambda: file.read(100_000), b"")) == 50_000_000


@pytest.mark.parametrize("ending", [".bz2", ".xz"])
@pytest.mark.parametrize("stream", range(3))
def test_one_flipped_bit_is_noticed_in_every_stream(ending, stream, tmp_path):
    streams = [bytearray(PACKED[ending](b"a sentence %d\n" % i)) for i in range(3)]
    streams[stream][30] ^= 4
    path = write(tmp_path / f"a.txt{ending}", b"".join(streams))
    with pytest.raises(DataError, match=rf"a\.txt\{ending}: damaged, or not"):
        list(read_lines(path))


def test_padding_that_the_xz_format_does_not_allow_is_refused(tmp_path):
    path = write(tmp_path / "a.txt.xz", lzma.compress(b"one\n") + b"\0" * 3 + lzma.compress(b"two\n"))
    with pytest.raises(DataError, match=r"a\.txt\.xz: damaged, or not xz \(3 zero bytes"):
        list(read_lines(path))


def test_zstd_is_read_whatever_its_window(tmp_path):
    long = zstandard.ZstdCompressionParameters.from_level(3, window_log=28, enable_ldm=True)
    packed = zstandard.ZstdCompressor(compression_params=long).compressobj()
    path = write(tmp_path / "a.txt.zst", packed.compress(b"one\n") + packed.flush())
    assert list(read_lines(path)) == ["one"]


def test_compressed_sources_are_read_as_plain_ones(tmp_path):
    lines, record = b"one\ntwo\n", b'{"source": "a", "target": "b"}\n'
    write(tmp_path / "a.en.zst", zstandard.compress(lines))
    write(tmp_path / "a.de.gz", gzip.compress(lines))
    both = TextFiles(source=str(tmp_path / "a.en.zst"), target=str(tmp_path / "a.de.gz"))
    assert list(read_pairs(both)) == [Pair("one", "one"), Pair("two", "two")]
    assert read(tmp_path / "a.jsonl.zst", zstandard.compress(record)) == [("a", "b")]
    assert read(tmp_path / "a.tsv.zst", zstandard.compress(b"a\tb\n")) == [("a", "b")]
    assert isinstance(guess_source("A.JSONL.ZST"), JsonLines)


# ---- PO and MO ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(STRINGS, STRINGS, st.none() | WORDS, st.booleans()), max_size=5))
def test_a_po_file_reads_as_the_translate_toolkit_wrote_it(folder, messages):
    store = pypo.pofile()
    store.updateheader(add=True, Content_Type="text/plain; charset=UTF-8")
    expected = []
    for source, target, context, fuzzy in messages:
        unit = store.addsourceunit(source)
        unit.target = target
        if context:
            unit.setcontext(context)
        unit.markfuzzy(fuzzy)
        if source and target and not fuzzy:
            expected.append((source, target))
    try:
        assert read(folder / "a.po", bytes(store)) == expected
    except DataError as error:
        assert not expected and "no sentence pairs" in str(error)


def test_fuzzy_obsolete_and_untranslated_entries_are_no_pairs(tmp_path):
    content = (
        HEADER
        + '\n#, c-format, fuzzy\nmsgid "a"\nmsgstr "b"\n\n#~ msgid "c"\n#~ msgstr "d"\n\nmsgid "e"\nmsgstr ""\n'
        + '\n#, fuzzy\n#~ msgid "f"\n#~ msgstr "g"\n\nmsgctxt "menu"\nmsgid "h"\nmsgstr "i"\n'
    )
    assert read(tmp_path / "a.po", content) == [("h", "i")]


FILES = 'msgid "{}"\nmsgid_plural "%d files"\nmsgstr[0] "A"\nmsgstr[1] "B"\n'


@pytest.mark.parametrize(
    ("language", "singular", "sources"),
    [
        ("de", "One file", ["One file", "%d files"]),
        ("de", "%d file", ["%d file", "%d files"]),
        ("fr", "%d file", ["%d file", "%d files"]),
        ("fr", "One file", ["%d files", "%d files"]),  # the form is for 0 as well
        ("ja", "One file", ["%d files", "%d files"]),  # one form for all numbers
        ("xx", "One file", ["One file", "%d files"]),
    ],
)
def test_each_plural_form_pairs_with_the_text_it_translates(tmp_path, language, singular, sources):
    content = HEADER + f'"Language: {language}\\n"\n\n' + FILES.format(singular)
    assert read(tmp_path / "a.po", content) == list(zip(sources, "AB", strict=True))


def test_a_po_file_in_another_encoding_is_read_in_it(tmp_path):
    content = HEADER.replace("UTF-8", "ISO-8859-1") + '\nmsgid "cheese"\nmsgstr "Käse \\344\\x62"\n'
    assert read(tmp_path / "a.po", content.encode("latin-1")) == [("cheese", "Käse äb")]


BROKEN_PO = {
    "text between entries": ('msgid "a"\nmsgstr "b"\nhello\n', ":6: 'hello' is not part of a PO file"),
    "no end quote": ('msgid "a"\nmsgstr "b\n', ":5: a string that does not end on its line"),
    "no translation": ('msgid "a"\n\nmsgid "b"\nmsgstr ""\n', ":6: msgid is out of place"),
    "nothing after it": ('msgid "a"\n', ":4: the entry that begins here has no msgstr"),
    "no string": ('msgid "a"\nmsgstr\n', ":5: a keyword without its string"),
    "a plural form left out": ('msgid "a"\nmsgid_plural "b"\nmsgstr[1] "c"\n', ":6: msgstr[0] expected"),
    "a number without a plural": ('msgid "a"\nmsgstr[0] "c"\n', ":5: msgstr[0] is out of place"),
    "a stray string": ('\n"a"\n', "is out of place"),
    "an unknown escape": ('msgid "a"\nmsgstr "\\q"\n', r":5: \q is not an escape sequence"),
    "NUL": ('msgid "a"\nmsgstr "\\000"\n', r":5: holds \u0000"),
}


@pytest.mark.parametrize("case", BROKEN_PO)
def test_a_broken_po_entry_is_refused_with_its_line_and_reason(tmp_path, case):
    if case == "a stray string":
        assert "without a keyword" in refusal(tmp_path / "a.po", '"a"\n')
    else:
        content, message = BROKEN_PO[case]
        assert message in refusal(tmp_path / "a.po", HEADER + content)


def test_a_po_header_that_misleads_is_refused(tmp_path):
    body = '\nmsgid "a"\nmsgstr "ä"\n'
    assert ":6: not UTF-8" in refusal(tmp_path / "a.po", (HEADER + body).encode("latin-1"))
    assert "encoding MARTIAN" in refusal(tmp_path / "a.po", HEADER.replace("UTF-8", "MARTIAN") + body)
    assert ":2: Plural-Forms in the header: a ')'" in refusal(
        tmp_path / "a.po", HEADER + PLURAL.replace("1)", "1") + body
    )


@given(st.lists(st.tuples(WORDS, WORDS, st.none() | WORDS, st.none() | WORDS), max_size=5, unique_by=lambda m: m[0]))
def test_a_compiled_catalogue_reads_as_the_translate_toolkit_wrote_it(folder, messages):
    store = mo.mofile()
    expected = []
    for source, target, context, plural in messages:
        unit = mo.mounit()
        unit.source, unit.target = (
            (multistring([source, plural]), multistring([target, target])) if plural else (source, target)
        )
        if context:
            unit.msgctxt = [context]
        store.addunit(unit)
        expected += [(source, target), (plural, target)] if plural else [(source, target)]
    if expected:
        assert sorted(read(folder / "a.mo", bytes(store))) == sorted(expected)


def test_a_damaged_catalogue_is_refused(tmp_path):
    store = mo.mofile()
    store.addunit(unit := mo.mounit("a"))
    unit.target = "b"
    assert "damaged" in refusal(tmp_path / "a.mo", bytes(store)[:-2])
    assert "not a compiled gettext catalogue" in refusal(tmp_path / "a.mo", b"hello")
    assert "not a compiled gettext catalogue" in refusal(tmp_path / "a.mo", b"")


def compiled(sources, targets, moved=None):
    """A catalogue as the GNU manual lays it out; ``moved`` changes the table of lengths and places."""
    strings, table, at = [*sources, *targets], [], 28 + 8 * len([*sources, *targets])
    for text in strings:
        table += [len(text), at]
        at += len(text) + 1
    table = moved(table) if moved else table
    head = struct.pack("<7I", 0x950412DE, 0, len(sources), 28, 28 + 8 * len(sources), 0, 0)
    return head + struct.pack(f"<{len(table)}I", *table) + b"".join(text + b"\0" for text in strings)


THREE = [b"a", b"bc", b"bd"], [b"A", b"BC", b"BD"]


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        (lambda t: [*t[:8], *t[6:8], *t[10:]], "the translation of entry 2 overlaps the translation of entry 1"),
        (lambda t: [*t[:4], *t[2:4], *t[6:]], "the source of entry 3 overlaps the source of entry 2"),
        (lambda t: [*t[:4], 2, 30, *t[6:]], "entry 3 does not end where it should"),
        (lambda t: [*t[2:4], *t[:2], *t[4:]], "the source of entry 2 is not in order after the one before"),
        (lambda t: [*t[:6], 3, *t[7:]], "the translation of entry 1 does not end where it should"),
        (lambda t: [*t[:6], *t[:2], *t[8:]], "the translation of entry 1 overlaps the source of entry 1"),
        (lambda t: [*t[:-1], 10**9], "the translation of entry 3 does not end where it should"),
    ],
)
def test_a_catalogue_whose_table_leads_elsewhere_is_refused_with_its_entry(moved, said, tmp_path):
    told = refusal(tmp_path / "a.mo", compiled(*THREE, moved))
    assert said in told and "compile it again with msgfmt" in told


def test_the_orders_of_catalogues_that_are_whole_are_read(tmp_path):
    assert read(tmp_path / "a.mo", compiled(*THREE)) == [Pair("a", "A"), Pair("bc", "BC"), Pair("bd", "BD")]
    by_text = [b"x\4a", b"a\4b", b"z\4b", b"c\0cs"], [b"A", b"B", b"B2", b"C\0CS"]  # as Babel writes contexts
    assert len(read(tmp_path / "a.mo", compiled(*by_text))) == 5
    empty = [b"", b"a"], [b"Content-Type: text/plain; charset=UTF-8\n", b""]
    with pytest.raises(DataError, match="no sentence pairs"):
        read(tmp_path / "a.mo", compiled(*empty))


@pytest.mark.parametrize("field", sorted(set(plurals._tables()[0].values())))
def test_plural_rules_agree_with_pythons_gettext(field):
    ours, theirs = plurals.parse(field), gettext.c2py(field.partition("plural=")[2].rstrip(";"))
    assert [ours.form(n) for n in range(300)] == [theirs(n) for n in range(300)]


@given(st.text(st.sampled_from("n0123()?:!&|=<>%*/+- "), max_size=20))
def test_any_plural_expression_is_understood_as_by_pythons_gettext_or_refused(expression):
    try:
        ours = plurals.parse(f"nplurals=99; plural={expression};")
    except ValueError:
        return
    theirs = gettext.c2py(expression)
    assert [ours.form(n) for n in range(30)] == [theirs(n) for n in range(30)]


# ---- XLIFF ----------------------------------------------------------------------------------------


def xliff12(*units: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<xliff xmlns="urn:oasis:names:tc:xliff:document:1.2" version="1.2">\n'
        '<file original="a" datatype="x" source-language="en" target-language="de"><body>\n'
        + "\n".join(units)
        + "\n</body></file></xliff>\n"
    )


def unit12(source: str, target: str, attributes: str = "") -> str:
    return f'<trans-unit id="1"><source>{source}</source><target{attributes}>{target}</target></trans-unit>'


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_an_xliff_file_reads_as_the_translate_toolkit_wrote_it(folder, messages):
    store = xliff.xlifffile()
    for source, target in messages:
        store.addsourceunit(source).target = target
    assert read(folder / "a.xlf", bytes(store)) == messages


def test_tags_in_xliff_are_text_and_characters_are_themselves(tmp_path):
    source = 'See <g id="1">this &amp; <x id="2"/></g> <ph id="3">&lt;br&gt;</ph> <![CDATA[<b>]]>'
    text = 'See <g id="1">this & <x id="2"/></g> <ph id="3">&lt;br&gt;</ph> <b>'
    assert read(tmp_path / "a.xlf", xliff12(unit12(source, "ok"))) == [(text, "ok")]


def test_white_space_in_xliff_is_kept_only_where_it_says_so(tmp_path):
    units = [
        unit12("two\n     lines", "x"),
        unit12("two\n  lines", "y").replace("<source", '<source xml:space="preserve"'),
    ]
    assert read(tmp_path / "a.xlf", xliff12(*units)) == [("two lines", "x"), ("two\n  lines", "y")]


def test_units_that_are_unsure_or_not_for_translation_are_no_pairs(tmp_path):
    states = ("new", "needs-translation", "needs-review-translation")
    units = [unit12("a", "b", f' state="{state}"') for state in states]
    units += [unit12("a", "b").replace("<trans-unit", '<trans-unit translate="no"'), unit12("a", "")]
    assert read(tmp_path / "a.xlf", xliff12(*units, unit12("c", "d", ' state="final"'))) == [("c", "d")]


def test_xliff_2_is_read_segment_by_segment(tmp_path):
    content = (
        '<xliff xmlns="urn:oasis:names:tc:xliff:document:2.0" version="2.0" srcLang="en" trgLang="de"><file id="f">'
        '<unit id="u"><segment><source>a <pc id="1">b</pc></source><target>A</target></segment>'
        "<ignorable><source> </source></ignorable>"
        '<segment state="initial"><source>c</source><target>C</target></segment>'
        '<segment state="final"><source>d</source><target>D</target></segment></unit></file></xliff>'
    )
    assert read(tmp_path / "a.xliff", content) == [('a <pc id="1">b</pc>', "A"), ("d", "D")]


# ---- TMX ------------------------------------------------------------------------------------------


def memory(*units: dict[str, str], declared: str = "en") -> str:
    body = "\n".join(
        "<tu>" + "".join(f'<tuv xml:lang="{name}"><seg>{text}</seg></tuv>' for name, text in unit.items()) + "</tu>"
        for unit in units
    )
    return (
        '<?xml version="1.0"?>\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n'
        f'<tmx version="1.4"><header srclang="{declared}"/><body>\n{body}\n</body></tmx>\n'
    )


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
def test_a_memory_reads_as_the_translate_toolkit_wrote_it(folder, messages):
    store = tmx.tmxfile()
    for source, target in messages:
        store.addtranslation(source, "en", target, "de")
    assert read(folder / "a.tmx", bytes(store)) == messages


def test_the_languages_of_a_memory_are_chosen(tmp_path):
    three = memory({"en-GB": "a", "de": "b", "fr": "c"}, {"fr": "d", "en-GB": "e"}, declared="en-gb")
    assert read(tmp_path / "a.tmx", three, target="fr") == [("a", "c"), ("e", "d")]
    assert read(tmp_path / "a.tmx", three, source="de", target="en") == [("b", "a")]
    assert read(tmp_path / "a.tmx", memory({"en": "a", "de-AT": "b"})) == [("a", "b")]
    message = refusal(tmp_path / "a.tmx", three)
    assert message == ":4: which language is the target, of de, fr? Name it with 'target'"
    one_after_the_other = memory({"en": "a", "de": "b"}, {"en": "a", "fr": "b"})
    assert ":5: which language is the target, of de, fr?" in refusal(tmp_path / "a.tmx", one_after_the_other)
    undeclared = memory({"en": "a", "de": "b"}, declared="*all*")
    assert ":4: which language is the source, of en, de?" in refusal(tmp_path / "a.tmx", undeclared)
    assert "no unit has pl; the languages in it: en, de" in refusal(
        tmp_path / "a.tmx", memory({"en": "a", "de": "b"}), target="pl"
    )


def test_a_memory_in_utf_16_is_read(tmp_path):
    content = memory({"en": "a", "de": "ä"}).replace('"1.0"', '"1.0" encoding="UTF-16"')
    assert read(tmp_path / "a.tmx", content.encode("utf-16")) == [("a", "ä")]


@pytest.mark.usefixtures("garbage_collected_as_usual")
def test_memory_does_not_grow_with_the_size_of_a_translation_memory(tmp_path):
    import tracemalloc

    def peak(count: int) -> int:
        path = write(tmp_path / "a.tmx", memory(*({"en": f"text {i}", "de": f"Text {i}"} for i in range(count))))
        tracemalloc.start()
        assert sum(1 for _ in read_pairs(Tmx(path=path))) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(2400) < 1.5 * peak(800)


# ---- XML that is broken, or means harm ------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.xlf", "a.tmx"])
def test_broken_xml_is_refused_with_its_line(tmp_path, name):
    good = xliff12(unit12("a", "b")) if name == "a.xlf" else memory({"en": "a", "de": "b"})
    line = 5 if name == "a.xlf" else 4
    assert f":{line}: not well-formed XML" in refusal(
        tmp_path / name, good.replace("<seg>b<", "<seg>b&<").replace("<target>b", "\n<target>b&")
    )
    assert "another kind of file" in refusal(tmp_path / name, "<html></html>")
    assert ":1: not well-formed XML (no element found)" in refusal(tmp_path / name, "")
    assert ":1: not in the encoding it declares" in refusal(tmp_path / name, b"<\xff")
    assert "more than 100 deep" in refusal(tmp_path / name, good.replace(">b<", f">{'<g>' * 200}b{'</g>' * 200}<"))


LAUGHS = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
FETCHING = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("declaration", [LAUGHS, FETCHING])
def test_entities_are_neither_fetched_nor_multiplied(tmp_path, declaration):
    body = xliff12(unit12("&a;", "b")).partition("\n")[2]
    assert ":1: declares an entity (a)" in refusal(tmp_path / "a.xlf", declaration + body)
    unknown = memory({"en": "a&nbsp;b", "de": "c"})
    assert "&nbsp; is not an entity" in refusal(tmp_path / "a.tmx", unknown)


# ---- Parquet --------------------------------------------------------------------------------------


def table(path: Path, **columns) -> str:
    parquet.write_table(pyarrow.table(columns), path)
    return str(path)


@given(rows=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6))
def test_parquet_reads_row_for_row(folder, rows):
    path = table(folder / "a.parquet", source=[a for a, _ in rows], target=[b for _, b in rows])
    assert list(read_pairs(guess_source(path))) == rows


def test_parquet_columns_may_lie_in_structs_or_be_categories(tmp_path):
    both = [{"en": "a", "de": "b"}, None, {"en": None, "de": "c"}]
    path = table(tmp_path / "a.parquet", translation=both, kind=pyarrow.array(["x", "y", "x"]).dictionary_encode())
    read = list(read_pairs(Parquet(path=path, source="translation.en", target="translation.de")))
    assert read == [("a", "b"), ("", ""), ("", "c")]
    assert [pair.target for pair in read_pairs(Parquet(path=path, source="translation.en", target="kind"))] == list(
        "xyx"
    )
    with pytest.raises(DataError, match=r"no column 'source' among 'translation.en', 'translation.de', 'kind'"):
        list(read_pairs(Parquet(path=path)))


def test_parquet_that_holds_no_text_or_is_none_is_refused(tmp_path):
    path = table(tmp_path / "a.parquet", source=["a", "b"], target=["c", "d\0"], number=[1, 2])
    with pytest.raises(DataError, match=r"a\.parquet: column 'number' holds int64, not text"):
        list(read_pairs(Parquet(path=path, target="number")))
    with pytest.raises(DataError, match=r"a\.parquet: row 2: holds \\u0000"):
        list(read_pairs(Parquet(path=path)))
    for content in (b"", b"hello", Path(path).read_bytes()[:-3]):
        assert "not Parquet, or damaged" in refusal(tmp_path / "b.parquet", content)


def test_parquet_with_checksums_tells_a_changed_byte(tmp_path):
    columns = pyarrow.table({"source": ["first text", "second text"], "target": ["erster Text", "zweiter Text"]})
    parquet.write_table(columns, tmp_path / "a.parquet", compression="none", write_page_checksum=True)
    content = (tmp_path / "a.parquet").read_bytes()
    at = content.index(b"second text")
    changed = content[:at] + b"S" + content[at + 1 :]
    assert "damaged" in refusal(tmp_path / "b.parquet", changed)


def test_parquet_without_its_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"a\.parquet: Parquet needs pyarrow: pip install pyarrow"):
        list(read_pairs(Parquet(path="a.parquet")))


# ---- anything at all ------------------------------------------------------------------------------

WHOLE = {
    "a.po": HEADER + PLURAL + '\n#, fuzzy\nmsgid "a"\nmsgstr "b"\n\nmsgctxt "c"\n' + FILES.format("One file"),
    "a.xlf": xliff12(unit12('a <g id="1">b</g>', "c"), unit12("d &amp; e", "f", ' state="final"')),
    "a.tmx": memory({"en": "a", "de": 'b <ph x="1">{0}</ph>'}, {"en": "c", "de": "d"}),
}


@st.composite
def damaged(draw) -> tuple[str, bytes]:
    """A file of some kind with a few stretches of it replaced by others, or by anything."""
    name = draw(st.sampled_from(sorted(WHOLE)))
    content = WHOLE[name].encode()
    anything = st.binary(max_size=4) | st.sampled_from(
        [b'"', b"\\", b"\n", b"<", b">", b"&", b"\0", b"msgid ", b"<seg>"]
    )
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        end = draw(st.sampled_from([start, min(end, start + 5), end]))
        a, b = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        content = content[:start] + draw(anything | st.just(content[a:b])) + content[end:]
    return name, content


@MANY
@given(file=damaged())
def test_a_damaged_file_gives_pairs_of_text_or_one_line_that_names_it(folder, file):
    name, content = file
    path = write(folder / name, content)
    try:
        for pair in read_pairs(guess_source(path)):
            assert all(text.strip() and text.encode().decode() == text and "\0" not in text for text in pair)
    except DataError as error:
        assert str(error).startswith(path) and "\n" not in str(error)


@MANY
@given(content=st.binary(max_size=60), cut=st.integers(0, 200))
def test_a_damaged_catalogue_gives_pairs_of_text_or_one_line_that_names_it(folder, content, cut):
    store = mo.mofile()
    for text in ("", "a", "bc"):
        store.addunit(unit := mo.mounit(text))
        unit.target = text.upper() or "Content-Type: text/plain; charset=UTF-8\n"
    whole = bytes(store)
    path = write(folder / "b.mo", whole[:cut] + content + whole[cut + len(content) :])
    try:
        for pair in read_pairs(guess_source(path)):
            assert all(text.encode().decode() == text and "\0" not in text for text in pair)
    except DataError as error:
        assert str(error).startswith(path) and "\n" not in str(error)


@pytest.mark.parametrize("source", [Gettext(path="a"), Xliff(path="a"), Tmx(path="a", target="de"), Parquet(path="a")])
def test_a_source_survives_its_configuration_file(source):
    assert from_dict(PairSource, to_dict(source)) == source
