"""Tables that are not even, quotes that open nothing, headers, keys, and columns that nobody named."""

import pytest

from dragoman.cli import main
from dragoman.decode.constraints.glossary import Glossary
from dragoman.errors import ConfigError, DataError
from dragoman.text.formats.cells import read_column
from dragoman.text.formats.columns import is_header, text_columns
from dragoman.text.formats.labelled import LabelledText, guess_labelled, read_labelled
from dragoman.text.formats.pairs import JsonLines, Parquet, Table, guess_source, read_pairs
from dragoman.text.formats.tables import table_rows
from dragoman.text.formats.tagged import TaggedColumns, read_tagged
from dragoman.text.formats.writing import write_pairs


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


UNEVEN = {
    "more in a .csv": ("a.csv", "Door,Puerta\nHello, friend,Hola, amigo\n", r"a\.csv:2: 2 columns expected, 4 found"),
    "fewer in a .csv": ("a.csv", "a,b\nc\n", r"a\.csv:2: 2 columns expected, 1 found"),
    "more in a .tsv": ("a.tsv", "a\tb\nc\td\te\n", r"a\.tsv:2: 2 columns expected, 3 found"),
    "fewer in a .tsv": ("a.tsv", "a\tb\nc d\n", r"a\.tsv:2: 2 columns expected, 1 found"),
    "a semicolon more": ("a.csv", "en;es\na;b\nc;d;e\n", r"a\.csv:3: 2 columns expected, 3 found"),
    "after a named separator": ("a.csv", "sep=;\na;b\nc\n", r"a\.csv:3: 2 columns expected, 1 found; line 2"),
    "after a blank line": ("a.tsv", "a\tb\n\nc\n", r"a\.tsv:3: 2 columns expected, 1 found"),
    "in a header": ("a.csv", "source,target\na,b,c\n", r"a\.csv:2: 2 columns expected, 3 found"),
    "far below": ("a.csv", "a,b\n" * 300 + "c,d,e\n", r"a\.csv:301: 2 columns expected, 3 found"),
    "a space before a quote": ("a.csv", 'x,y\n"a", "b, c"\n', r"a\.csv:2: .* a space between ',' and the quote"),
    "a tab before a quote": ("a.csv", 'x,y\na,\t"b"\n', r"a\.csv:2: .*quote"),
    "a space before the first": ("a.csv", ' "a",b\n', r"a\.csv:1: .*quote"),
    "text after a quote": ("a.csv", 'x,y\n"a" b,c\n', r"a\.csv:2: the row that begins here is not CSV"),
    "a quote never closed": ("a.csv", 'x,y\n"a,b\nc,d\n', r"a\.csv:2: the row that begins here is not CSV"),
}


@pytest.mark.parametrize("case", UNEVEN)
def test_a_row_that_differs_from_the_first_or_a_misplaced_quote_names_file_and_row(case, tmp_path):
    name, content, says = UNEVEN[case]
    with pytest.raises(DataError, match=says):
        list(read_pairs(guess_source(write(tmp_path / name, content))))


EVEN = {
    "quotes inside a field": ("a.csv", 'She said "hi",Dijo "hola"\n', [('She said "hi"', 'Dijo "hola"')]),
    "a quoted field that begins with space and quote": ("a.csv", '" ""a""",b\n', [(' "a"', "b")]),
    "semicolons": ("a.csv", "Yes, please;Sí\nNo;No\n", [("Yes, please", "Sí"), ("No", "No")]),
    "tabs with quotes": ("a.csv", '"a\tb"\tc\nd\te\n', [("a\tb", "c"), ("d", "e")]),
    "commas with semicolons inside": ("a.csv", "a; b,c\nd,e; f\n", [("a; b", "c"), ("d", "e; f")]),
    "a byte-order mark and CRLF": ("a.csv", "\ufeffa,b\r\nc,d\r\n", [("a", "b"), ("c", "d")]),
    "quoted line ends": ("a.csv", '"a\nb",c\r\nd,"e\r\nf"\r\n', [("a\nb", "c"), ("d", "e\nf")]),
    "a separator that is named": ("a.csv", "sep=;\r\nen;es\r\na, b, c;d\r\n", [("a, b, c", "d")]),
    "a named separator against the rows": ("a.csv", "sep=;\na,b;c,d\ne,f;g,h\n", [("a,b", "c,d"), ("e,f", "g,h")]),
    "a bar that is named, in quotes": ("a.csv", '\ufeff"SEP=|"\na|"b | c"\n', [("a", "b | c")]),
    "a .tsv that begins like one": ("a.tsv", "sep=;\tb\n", [("sep=;", "b")]),
    "literal quotes in a .tsv": ("a.tsv", '"a\tb"\n"\t"\n', [('"a', 'b"'), ('"', '"')]),
    "a row of nothing": ("a.tsv", "a\tb\n\t\n", [("a", "b"), ("", "")]),
}


@pytest.mark.parametrize("case", EVEN)
def test_even_tables_are_read_as_they_stand(case, tmp_path):
    name, content, pairs = EVEN[case]
    assert list(read_pairs(guess_source(write(tmp_path / name, content)))) == pairs


HEADERS = {
    "codes with an id": ("id,en,es", "1,Day,Día", [("Day", "Día")]),
    "codes with an id at the end": ("en,es,id", "Day,Día,1", [("Day", "Día")]),
    "names": ("English,Spanish", "Day,Día", [("Day", "Día")]),
    "target first": ("target,source", "Día,Day", [("Day", "Día")]),
    "codes with regions": ("key,en-US,pt_BR,comment", "k,Day,Dia,", [("Day", "Dia")]),
    "FLORES": ("eng_Latn,spa_Latn", "Day,Día", [("Day", "Día")]),
    "an index of pandas": (",src,tgt", "0,Day,Día", [("Day", "Día")]),
    "text and code": ("text_en,text_es,score", "Day,Día,0.5", [("Day", "Día")]),
    "Indonesian": ("en,id", "Day,Hari", [("Day", "Hari")]),
    "spaces around": ("id , en , es", "1,Day,Día", [("Day", "Día")]),
    "prompt and answer": ("prompt,answer", "Day,Día", [("Day", "Día")]),
}


@pytest.mark.parametrize("case", HEADERS)
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_header_is_noticed_and_keys_are_never_text(case, separator, tmp_path):
    header, row, pairs = HEADERS[case]
    name = "a.tsv" if separator == "\t" else "a.csv"
    path = write(tmp_path / name, f"{header}\n{row}\n".replace(",", separator))
    assert list(read_pairs(guess_source(path))) == pairs
    assert list(read_pairs(Table(path=path))) == pairs, "in a run file too"


@pytest.mark.parametrize(
    "first", ["Name,Nombre", "No,No", "Source,Fuente", "Is,Es", "Hello,Hola", "Target,Ziel", "Notes,Notes", "en,Hola"]
)
def test_a_first_pair_of_words_is_no_header(first, tmp_path):
    path = write(tmp_path / "a.csv", f"{first}\nDay,Día\n")
    assert [",".join(pair) for pair in read_pairs(guess_source(path))] == [first, "Day,Día"]


@pytest.mark.parametrize(
    "content",
    ["1,Day,Día\n2,Night,Noche\n", "id,en,es,fr\n1,a,b,c\n", "a,b,c\n", "x,Hello,Hola,9\n", "id,text,label\n1,a,b\n"],
)
def test_three_columns_that_nothing_names_are_refused_until_somebody_does(content, tmp_path):
    path = write(tmp_path / "a.csv", content)
    for source in (lambda: guess_source(path), lambda: Table(path=path)):
        with pytest.raises(DataError, match=r"a\.csv:1: \d columns, but which two .*--columns"):
            list(read_pairs(source()))
    assert next(read_pairs(guess_source(path, ("1", "2"))))


def test_columns_are_given_by_name_or_number_and_must_be_two_that_are_there(tmp_path):
    path = write(tmp_path / "a.csv", "id,en,es,fr\n1,a,b,c\n")
    for columns in (("es", "fr"), ("2", "3")):
        assert list(read_pairs(guess_source(path, columns))) == [("b", "c")]
    for columns, says in {
        ("en", "de"): "no column 'de' in the header: id, en, es, fr",
        ("1", "4"): "no column 4: there are 4, counted from 0",
        ("en", "1"): "source and target are the same column",
    }.items():
        with pytest.raises((DataError, ConfigError), match=says):
            list(read_pairs(guess_source(path, columns)))
    twice = write(tmp_path / "b.csv", "en,es,es\na,b,c\n")
    with pytest.raises(DataError, match="2 columns are named 'es'"):
        list(read_pairs(guess_source(twice, ("en", "es"))))
    with pytest.raises(ConfigError, match=r"a\.po: has no columns"):
        guess_source("a.po", ("en", "es"))
    assert guess_source("a.jsonl", ("en", "es")) == JsonLines(path="a.jsonl", source="en", target="es")
    assert guess_source("a.parquet", ("en", "es")) == Parquet(path="a.parquet", source="en", target="es")


def test_pairs_that_read_as_a_header_are_written_so_that_they_come_back(tmp_path):
    for pair in (("English", "Spanish"), ("source", "target"), ("en", "es")):
        assert is_header(pair) and text_columns(pair)
        write_pairs([pair_of(pair)], str(tmp_path / "a.tsv"))
        assert list(read_pairs(guess_source(str(tmp_path / "a.tsv")))) == [pair]


def pair_of(texts):
    from dragoman.text.lines import Pair

    return Pair(*texts)


def test_the_same_rules_hold_for_labels_tags_and_glossaries(tmp_path):
    with pytest.raises(DataError, match=r"l\.csv:2: 2 columns expected, 3 found"):
        read_labelled(guess_labelled(write(tmp_path / "l.csv", "text,label\nGood, really,1\n")))
    with pytest.raises(DataError, match=r"l\.tsv:1: 3 columns, but which are text and label"):
        guess_labelled(write(tmp_path / "l.tsv", "1\tgood\tx\n2\tbad\ty\n"))
    named = write(tmp_path / "m.tsv", "id\tsentence\tlabel\n7\ta fine day\t1\n")
    assert read_labelled(guess_labelled(named)) == [LabelledText("a fine day", "1")]
    with pytest.raises(DataError, match=r"t\.tsv:2: 2 columns expected as in the first row, 3 found"):
        read_tagged(TaggedColumns(path=write(tmp_path / "t.tsv", "a\tX\nb\tc\tY\n")))
    with pytest.raises(DataError, match=r"g\.csv:2: 2 columns expected, 3 found"):
        Glossary.read(write(tmp_path / "g.csv", "source,target\nbattery,batería,pila\n"))
    with pytest.raises(DataError, match=r"h\.csv:1: 2 columns are named 'target'"):
        Glossary.read(write(tmp_path / "h.csv", "source,target,target\na,b,c\n"))
    assert next(fields for _, fields in table_rows(named)) == ["id", "sentence", "label"]


def test_a_column_is_read_as_lines(tmp_path):
    table = write(tmp_path / "a.csv", 'id,en,note\n1,"two\nlines",x\n2,Day,y\n')
    assert list(read_column(table, "en")) == list(read_column(table, "1")) == ["two lines", "Day"]
    assert list(read_column(write(tmp_path / "a.tsv", "Door\tPuerta\n"), "0")) == ["Door"]
    lines = write(tmp_path / "a.jsonl", '{"t": {"en": "Day"}}\n\n{"t": {"en": "Night"}}\n')
    assert list(read_column(lines, "t.en")) == ["Day", "Night"]
    for path, column, says in (
        (table, "es", r"a\.csv:1: no column 'es': there are 0 to 2, or by name id, en, note"),
        (table, "3", r"no column '3'"),
        (lines, "t.es", r"a\.jsonl:1: no key 't\.es' among 'en'"),
        (lines, "t", r"a\.jsonl:1: 't' is not a string but dict"),
    ):
        with pytest.raises(DataError, match=says):
            list(read_column(path, column))
    with pytest.raises(ConfigError, match="has no columns"):
        list(read_column("a.txt", "0"))


def test_a_column_of_parquet_is_read_and_one_of_two_with_its_name_is_refused(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table({"en": ["Day"], "es": ["Día"]}), tmp_path / "a.parquet")
    assert list(read_column(str(tmp_path / "a.parquet"), "en")) == ["Day"]
    with pytest.raises(DataError, match="no column 'fr' among 'en', 'es'"):
        list(read_column(str(tmp_path / "a.parquet"), "fr"))
    twice = arrow.Table.from_arrays([arrow.array(["a"])] * 2, names=["en", "en"])
    parquet.write_table(twice, tmp_path / "b.parquet")
    with pytest.raises(DataError, match="several columns are named 'en'"):
        list(read_column(str(tmp_path / "b.parquet"), "en"))


def test_data_commands_say_which_columns_they_read(tmp_path, capsys):
    table = write(tmp_path / "k.csv", "id,en,es\n1,Good day,Buen día\n2,Good night,Buenas noches\n")
    out = tmp_path / "k.jsonl"
    assert main(["data", "clean", table, "-o", str(out)]) == 0
    assert "columns en (source) and es (target), named in its first row" in capsys.readouterr().err
    assert main(["data", "clean", table, "-o", str(out), "--columns", "2,en"]) == 0
    assert next(read_pairs(guess_source(str(out)))) == ("Buen día", "Good day")
    assert main(["data", "clean", table, "-o", str(out), "--columns", "en"]) == 2
    assert "two different columns expected" in capsys.readouterr().err
