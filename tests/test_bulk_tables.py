"""Tables in bulk: the same file as in memory, to the byte; resumable; bounded memory; Parquet likewise."""

import os
import tracemalloc
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_bulk import InThisProcess
from tiny_run import config, write_pairs

from dragoman.cli import main
from dragoman.decode.documents.document import translate_document
from dragoman.decode.translation import Candidate, Translation
from dragoman.errors import DataError
from dragoman.serve.bulk import shard as shards
from dragoman.serve.bulk.job import check_input, run_bulk
from dragoman.serve.bulk.parquet_rows import ParquetTable
from dragoman.serve.bulk.shard import ShardWork
from dragoman.serve.bulk.table_rows import read_table_rows
from dragoman.serve.bulk.table_translation import TableAnswerer
from dragoman.text.context import NO_CONTEXT, EntryNotes, SentencesBefore
from dragoman.text.filled.opening import open_document
from dragoman.train.run import start

TABLES = {
    "plain": ("a.csv", "source,target\nred dog,\ncat,Katze\nblue car,\n"),
    "named columns": ("a.csv", 'id,en,note,de\n1,"red, dog",x,\n2,cat,"y ""z""",\n'),
    "a column is added": ("a.csv", "id,en\n1,red dog\n2,\n3,cat\n"),
    "CRLF and no line end": ("a.csv", "source,target\r\nred dog,\r\ncat,"),
    "quoted line ends": ("a.csv", 'source,target\n"red\ndog",\n"a ""b""\r\nc",\ncat,\n'),
    "semicolons": ("a.csv", "source;target\nred, dog;\ncat;x\n"),
    "tabs, taken literally": ("a.tsv", 'source\ttarget\n"red dog\t\ncat"\t\n'),
    "a byte-order mark": ("a.csv", "\ufeffsource,target\nred dog,\n"),
    "empty lines": ("a.csv", "source,target\n\nred dog,\n\n\ncat,\n"),
    "blank sources": ("a.csv", "source,target\n ,\nred dog,  \n,\n"),
    "a header alone": ("a.csv", "source,target\n"),
    "notes": ("a.csv", "source,target,comment\nred,,colour\ndog,,\n"),
    "quotes inside a field": ("a.csv", 'source,target\n5" pipe,\na "b,\n"x""",\n5" x,"a\nb"\n'),
    "a named separator": ("a.csv", "\ufeffsep=;\r\nen;de\r\nred, blue;\r\ndog;Hund\r\n"),
    "a named separator, a column added": ("a.csv", '"sep=,"\nen,note\nred;blue,colour\n'),
    "other letters": ("a.csv", "source,target\nré 日本\u2028x,\n"),
}


def ask(questions, *_):
    texts = [getattr(one, "text", one) for one in questions]
    notes = ["".join(getattr(one, "context", ())) for one in questions]
    candidates = [
        Candidate(f"{t.upper()}{n}", 0.0, 0.0, (), (), truncated=False) for t, n in zip(texts, notes, strict=True)
    ]
    return [Translation(1, t, (c,)) for t, c in zip(texts, candidates, strict=True)]


@dataclass(frozen=True)
class Shouting(ShardWork):
    """Translates by writing in capitals, with what is read before each row after it."""

    context: object = NO_CONTEXT
    lines_before: int = 0

    def open(self):
        how = SimpleNamespace(check_numbers=False, glossary=None)
        translator = SimpleNamespace(
            translator=SimpleNamespace(context=self.context), ask=ask, ask_nbest=ask, settings=how
        )
        return TableAnswerer(translator)  # pyright: ignore[reportArgumentType]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "FEWEST", 2)
    monkeypatch.setattr(shards, "SHARE", 10**6)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def bulk(read, output, work=None, assemble=None, scheduler=None):
    work = work or Shouting()
    scheduler = scheduler or InThisProcess(work)
    return run_bulk(
        read, check_input(read), scheduler, output, model={}, options={}, before=work.lines_before, assemble=assemble
    )


def in_memory(path, context=NO_CONTEXT):
    document = open_document(path, source="en", target="de")
    return translate_document(document, ask, context=context, check_numbers=False, require=ask).content


@pytest.mark.parametrize("name", TABLES)
def test_a_table_in_bulk_is_the_table_in_memory_to_the_byte(name, tmp_path):
    file, content = TABLES[name]
    (tmp_path / file).write_bytes(content.encode())
    bulk(lambda: read_table_rows(str(tmp_path / file), "en", "de"), tmp_path / f"out.{file}")
    assert (tmp_path / f"out.{file}").read_bytes() == in_memory(tmp_path / file)


def test_the_line_that_names_a_separator_stays_and_is_no_row(tmp_path):
    (tmp_path / "a.csv").write_text("sep=;\nen;de\nred, blue;\n")
    assert in_memory(tmp_path / "a.csv") == b"sep=;\nen;de\nred, blue;RED, BLUE\n"


CELL = st.text('ab" ,;\t\n\r\u2028é', max_size=5)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(CELL, CELL), max_size=6), line_end=st.sampled_from(["\n", "\r\n"]))
def test_any_table_that_can_be_read_in_memory_is_the_same_in_bulk(rows, line_end, tmp_path):
    def quoted(text):
        return '"' + text.replace('"', '""') + '"'

    lines = ["en,de", *(f"{quoted(a)},{quoted(b)}" for a, b in rows)]
    (tmp_path / "a.csv").write_bytes(line_end.join(lines).encode())
    bulk(lambda: read_table_rows(str(tmp_path / "a.csv"), "en", "de"), tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_bytes() == in_memory(tmp_path / "a.csv")


@pytest.mark.parametrize("context", [SentencesBefore(sentences=2), EntryNotes()], ids=["sentences", "notes"])
def test_what_is_read_before_a_row_is_the_same_in_bulk(context, tmp_path):
    rows = "".join(f"word{i},{'x' * (i % 3 == 0)},note{i}\n" for i in range(9))
    (tmp_path / "a.csv").write_text("source,target,comment\n" + rows)
    work = Shouting(context, 2 if isinstance(context, SentencesBefore) else 0)
    bulk(lambda: read_table_rows(str(tmp_path / "a.csv"), None, None), tmp_path / "b.csv", work)
    assert (tmp_path / "b.csv").read_bytes() == in_memory(tmp_path / "a.csv", context)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.zst", ".parquet"])
def test_a_job_that_was_stopped_goes_on_and_gives_the_same_file(suffix, tmp_path):
    path, output = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write(path, [(f"word {i}", "" if i % 3 else "there") for i in range(20)])
    table = ParquetTable(str(path), None, None)
    read, assemble = (
        (table.rows, table.assemble) if suffix == ".parquet" else (lambda: read_table_rows(str(path), None, None), None)
    )
    bulk(read, tmp_path / f"whole{suffix}", assemble=assemble)
    with pytest.raises(KeyboardInterrupt):
        bulk(read, output, assemble=assemble, scheduler=InThisProcess(Shouting(), stop_after=4))
    assert not output.exists()
    assert bulk(read, output, assemble=assemble).resumed > 0
    assert output.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def write(path, rows, **columns):
    if path.suffix == ".parquet":
        arrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
        source, target = ([row[side] for row in rows] for side in (0, 1))
        parquet.write_table(arrow.table({"source": source, "target": target} | columns), path, row_group_size=7)
    else:
        from dragoman.text.compressed import create_text

        with create_text(path) as file:
            file.write("source,target\n" + "".join(f"{a},{b}\n" for a, b in rows))


def test_other_columns_of_parquet_and_their_types_stay(tmp_path):
    arrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    made = arrow.table(
        {
            "id": arrow.array([1, 2, 3], arrow.int32()),
            "en": ["red dog", None, "cat"],
            "de": arrow.array([None, "x", " "], arrow.large_string()),
            "list": [[1.5], [], None],
            "kind": arrow.array(["a", "b", "a"]).dictionary_encode(),
        },
    ).replace_schema_metadata({"made": "here"})
    parquet.write_table(made, tmp_path / "a.parquet", compression="zstd")
    table = parquet.read_table(tmp_path / "a.parquet")
    job = ParquetTable(str(tmp_path / "a.parquet"), "en", "de")
    bulk(job.rows, tmp_path / "b.parquet", assemble=job.assemble)
    found = parquet.read_table(tmp_path / "b.parquet")
    assert found.column("de").to_pylist() == ["RED DOG", "x", "CAT"] and found.schema.equals(
        table.schema, check_metadata=True
    )
    assert found.drop_columns(["de"]).equals(table.drop_columns(["de"]))
    assert parquet.ParquetFile(tmp_path / "b.parquet").metadata.row_group(0).column(0).compression == "ZSTD"
    job = ParquetTable(str(tmp_path / "a.parquet"), "en", "fr")
    bulk(job.rows, tmp_path / "c.parquet", assemble=job.assemble)
    found = parquet.read_table(tmp_path / "c.parquet")
    assert found.column("fr").to_pylist() == ["RED DOG", None, "CAT"] and found.column_names[-1] == "fr"


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 5])
def test_parquet_of_any_length_comes_out_whole(rows, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    empty = arrow.schema([("source", arrow.string()), ("target", arrow.string())])
    table = arrow.Table.from_pylist([{"source": f"a {i}", "target": None} for i in range(rows)], schema=empty)
    parquet.write_table(table, tmp_path / "a.parquet")
    job = ParquetTable(str(tmp_path / "a.parquet"), None, None)
    bulk(job.rows, tmp_path / "b.parquet", assemble=job.assemble)
    assert parquet.read_table(tmp_path / "b.parquet").column("target").to_pylist() == [f"A {i}" for i in range(rows)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "a.csv: is empty: its first row must name the columns"),
        ("a.csv", b"\n\n", "a.csv: is empty"),
        ("a.csv", b"x,y\n1,2\n", "a.csv:1: does not tell which column"),
        ("a.csv", b"source,target\na,b\na\n", "a.csv:3: 2 columns expected, 1 found"),
        ("a.csv", b"source,target\na,\n\xff,\n", "a.csv:3: not UTF-8"),
        ("a.csv", b'source,target\na,\n"b,\nc,\n', "a.csv:3: a quote does not open a field here, or does not close"),
        ("a.csv", b'source,target\n"b"c,\n', "a.csv:2: a quote does not open a field"),
        ("a.csv", b"source,target\na\0,\n", "a.csv:2: holds a NUL"),
        ("a.csv", b"source,target\ra,\rb,\r", "a carriage return, alone"),
        ("a.csv", b"\xff\xfes\0", "a.csv:1: not UTF-8"),
        ("a.parquet", b"PAR1", "a.parquet: not Parquet, or damaged"),
        ("b.parquet", None, "b.parquet: no such file"),
        ("b.csv", None, "b.csv: no such file"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line_and_nothing_is_written(name, content, said, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    path = str(tmp_path / name)
    job = ParquetTable(path, None, None)
    read = job.rows if name.endswith(".parquet") else lambda: read_table_rows(path, None, None)
    with pytest.raises(DataError) as error:
        bulk(read, tmp_path / f"out.{name}")
    assert said in str(error.value) and "\n" not in str(error.value)
    assert {one.name for one in tmp_path.iterdir()} <= {name}


@pytest.mark.parametrize(
    ("columns", "names", "said"),
    [
        ({"en": [1, 2], "de": ["a", "b"]}, ("en", "de"), "column 'en' holds int64, not text"),
        ({"en": ["a"], "de": [1]}, ("en", "de"), "column 'de' holds int64, not text"),
        ({"x": ["a"], "y": ["b"]}, (None, None), "does not tell which column is translated into which"),
        ({"en": [["a"]], "de": ["b"]}, ("en", "de"), "column 'en' holds list<"),
        ({"en": ["a"], "de": [{"x": "b"}]}, ("en", "de"), "column 'de' holds struct<"),
    ],
)
def test_columns_of_parquet_that_hold_no_text_are_one_line(columns, names, said, tmp_path):
    arrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError) as error:
        list(ParquetTable(str(tmp_path / "a.parquet"), *names).rows())
    assert said in str(error.value)


@pytest.mark.usefixtures("garbage_collected_as_usual")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    peaks = []
    for count in (2_000, 20_000):
        write(tmp_path / "a.csv", [(f"the red house {i}", "") for i in range(count)])
        tracemalloc.start()
        for _ in read_table_rows(str(tmp_path / "a.csv"), None, None):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0] + 100_000


# ---- from the command line -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    fsync, os.fsync = os.fsync, lambda handle: None
    try:
        list(start(config(write_pairs(folder / "pairs.tsv")), folder / "run").events())
    finally:
        os.fsync = fsync
    return folder / "run"


def test_the_command_gives_the_same_with_workers_and_translates_parquet(run, tmp_path, monkeypatch, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    work: list[object] = []

    def here(shard_work, workers, method):
        work.append((type(shard_work).__name__, workers))
        return InThisProcess(shard_work)

    monkeypatch.setattr("dragoman.serve.bulk.local.LocalWorkers", here)
    monkeypatch.setattr("dragoman.serve.bulk.worker_process.start_template", lambda: None)
    rows = [("the red dog", ""), ("one {name} cat", ""), ("", ""), ("two cars", "there")]
    for suffix in (".csv", ".parquet"):
        write(tmp_path / f"a{suffix}", rows)
    command = ["translate", str(run), str(tmp_path / "a.csv"), "--beam", "1"]
    assert main([*command, "-o", str(tmp_path / "b.csv")]) == 0
    assert main([*command, "-o", str(tmp_path / "c.csv"), "--workers", "2"]) == 0
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()
    command = ["translate", str(run), str(tmp_path / "a.parquet"), "-o", str(tmp_path / "b.parquet"), "--beam", "1"]
    assert main(command) == 0
    texts = parquet.read_table(tmp_path / "b.parquet").column("target").to_pylist()
    lines = (tmp_path / "b.csv").read_text().splitlines()[1:]
    assert [text or "" for text in texts] == [line.partition(",")[2].strip('"') for line in lines]
    assert work == [("TableWork", 2), ("TableWork", 1)]


@pytest.mark.parametrize("options", [(), ("-o", "b.parquet", "--memory", "a.tsv"), ("-o", "b.parquet", "--redo")])
def test_parquet_that_cannot_be_translated_names_no_option_that_was_not_given(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert main(["translate", "no-run", "a.parquet", *options]) == 2
    said = capsys.readouterr().err
    assert "translation of Parquet" in said and "--workers" not in said and said.count("\n") == 1
