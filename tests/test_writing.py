"""Writing pairs: what is written is read back pair for pair, and a failure leaves the old file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.errors import ConfigError, DataError
from dragoman.text.formats.pairs import guess_source, read_pairs
from dragoman.text.formats.writing import write_pairs
from dragoman.text.lines import Pair

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from('\t"\u2028\ufeff\n'))
PAIRS = st.lists(st.tuples(TEXT, TEXT).map(lambda pair: Pair(*pair)), min_size=1)
NAMES = ["out.tsv", "out.tsv.gz", "out.TSV.zst", "out.jsonl", "out.jsonl.zst", "out.en,out.de", "out.en.gz,out.de.zst"]


@pytest.mark.parametrize("name", NAMES)
@given(pairs=PAIRS)
def test_what_is_written_is_read_back_pair_for_pair(name, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    output = ",".join(str(folder / part) for part in name.split(","))
    bad = "\t\n\r" if ".tsv" in name.lower() else "" if "jsonl" in name else "\n\r"
    if any(c in text for pair in pairs for text in pair for c in bad):
        with pytest.raises(DataError, match=r"out\.\w+.*:\d+: the text holds a (tab|line end): write .jsonl"):
            write_pairs(pairs, output)
        assert not list(folder.iterdir())
        return
    assert write_pairs(iter(pairs), output) == len(pairs)
    assert list(read_pairs(guess_source(output))) == pairs


@pytest.mark.parametrize("pair", [Pair("source", "target"), Pair("target", "source"), Pair("\ufeffa", "b")])
@pytest.mark.parametrize("name", ["out.tsv", "out.jsonl", "out.en,out.de"])
def test_a_first_pair_that_looks_like_something_else_is_a_pair(name, pair, tmp_path):
    output = ",".join(str(tmp_path / part) for part in name.split(","))
    write_pairs([pair, pair], output)
    assert list(read_pairs(guess_source(output))) == [pair, pair]


@pytest.mark.parametrize("name", ["out.tsv", "out.en,out.de"])
def test_a_failure_on_the_way_leaves_what_was_there(name, tmp_path):
    def failing():
        yield Pair("a", "b")
        raise DataError("corpus.tsv:2: is broken")

    output = ",".join(str(tmp_path / part) for part in name.split(","))
    write_pairs([Pair("old", "alt")], output)
    with pytest.raises(DataError, match="is broken"):
        write_pairs(failing(), output)
    assert list(read_pairs(guess_source(output))) == [Pair("old", "alt")]
    assert len(list(tmp_path.iterdir())) == len(name.split(","))


def test_the_same_pairs_make_the_same_compressed_file(tmp_path):
    for name in ("a.tsv.gz", "b.tsv.gz"):
        write_pairs([Pair("a", "b")], tmp_path / name)
    assert (tmp_path / "a.tsv.gz").read_bytes() == (tmp_path / "b.tsv.gz").read_bytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.docx", "its name does not show the format: name it .tsv, .jsonl"),
        ("absent/out.tsv", "there is no folder .*absent: create it first"),
        ("out.en,", "two different text files expected"),
        ("out.en,out.en", "two different text files expected"),
    ],
)
def test_a_name_that_cannot_be_written_is_refused(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        write_pairs([Pair("a", "b")], name)
