"""The token store: what is built is what is read, and what is damaged is refused by name."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.errors import DataError
from dragoman.text import corpus as module
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.lines import Pair
from dragoman.text.tokens.tokenizer import EOS, PAD, Tokenizer
from dragoman.text.tokens.training import Bytes

BYTES = Tokenizer.train(Bytes(), [])
PAIRS = [Pair("one", "eins"), Pair("two", "zwei, drei"), Pair("", "leer"), Pair("über", "")]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


@given(pairs=st.lists(st.tuples(TEXT, TEXT).map(lambda pair: Pair(*pair)), max_size=12))
@settings(max_examples=30)
def test_every_pair_comes_back_in_its_place_with_its_length(folder, pairs):
    ParallelCorpus.build(folder / "store", iter(pairs), BYTES, BYTES)
    corpus = ParallelCorpus.open(folder / "store")
    assert len(corpus) == len(pairs) and corpus.lengths.shape == (len(pairs), 2)
    for i, pair in enumerate(pairs):
        for side, text in enumerate(pair):
            ids = corpus[i][side]
            assert ids.dtype == np.int64 and ids.tolist() == [*BYTES.encode(text), EOS]
            assert corpus.lengths[i, side] == len(ids)


@given(rows=st.lists(st.integers(0, len(PAIRS) - 1), min_size=1, max_size=6))
def test_padded_rows_are_the_pairs_and_padding_after_them(folder, rows):
    if not (folder / "fixed").exists():
        ParallelCorpus.build(folder / "fixed", PAIRS, BYTES, BYTES)
    corpus = ParallelCorpus.open(folder / "fixed")
    for side, padded in enumerate(corpus.padded(np.array(rows))):
        assert padded.shape == (len(rows), corpus.lengths[rows, side].max())
        for i, row in zip(rows, padded, strict=True):
            ids = corpus[i][side]
            assert row[: len(ids)].tolist() == ids.tolist() and (row[len(ids) :] == PAD).all()


def test_chunks_leave_no_seam(tmp_path, monkeypatch):
    whole = ParallelCorpus.build(tmp_path / "whole", PAIRS * 5, BYTES, BYTES)
    monkeypatch.setattr(module, "CHUNK", 3)
    done = []
    parts = ParallelCorpus.build(tmp_path / "parts", PAIRS * 5, BYTES, BYTES, progress=lambda *now: done.append(now))
    assert np.array_equal(whole.source.ids, parts.source.ids) and np.array_equal(whole.lengths, parts.lengths)
    assert done[0] == (3, 20) and done[-1] == (20, 20)


def test_building_reads_the_pairs_a_chunk_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 10)
    ahead = []
    written = [0]

    def pairs():
        for i in range(100):
            ahead.append(i - written[0])
            yield PAIRS[0]

    ParallelCorpus.build(tmp_path / "c", pairs(), BYTES, BYTES, progress=lambda done, _: written.__setitem__(0, done))
    assert max(ahead) < 10


def test_pairs_that_are_too_long_are_left_out_and_counted(tmp_path):
    corpus = ParallelCorpus.build(tmp_path / "c", PAIRS, BYTES, BYTES, longest=5)
    assert (len(corpus), corpus.left_out) == (2, 2)  # "zwei, drei" has 10 bytes; "über" 5, and its end is the 6th
    assert corpus[0][0].tolist() == [*BYTES.encode("one"), EOS] and corpus.lengths.max() == 5
    assert ParallelCorpus.open(tmp_path / "c").left_out == 2


def test_large_vocabularies_take_wider_numbers(tmp_path):
    class Wide(Tokenizer):
        def __len__(self) -> int:
            return 70_000

        def encode_batch(self, texts):
            return [[69_999] for _ in texts]

    corpus = ParallelCorpus.build(tmp_path / "c", PAIRS, BYTES, Wide(BYTES._inner))
    assert (corpus.source.ids.dtype, corpus.target.ids.dtype) == (np.uint16, np.uint32)
    assert corpus[0][1].tolist() == [69_999, EOS]


FILES = ("source.ids", "source.starts", "target.ids", "target.starts", "manifest.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "one bit", "missing", "empty"])
def test_a_damaged_store_is_refused_by_the_name_of_the_file(tmp_path, name, damage):
    ParallelCorpus.build(tmp_path / "c", PAIRS, BYTES, BYTES)
    path = tmp_path / "c" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": whole[:-1], "one bit": bytes(content), "empty": b""}[damage])
    with pytest.raises(DataError, match=r"c/(manifest\.json|source\.\w+|target\.\w+): .*build") as error:
        ParallelCorpus.open(tmp_path / "c")
    assert name in str(error.value) or name == "manifest.json"


def test_a_store_of_another_format_is_refused(tmp_path):
    ParallelCorpus.build(tmp_path / "c", PAIRS, BYTES, BYTES)
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    (tmp_path / "c" / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(DataError, match="of format 99"):
        ParallelCorpus.open(tmp_path / "c")


def test_a_build_that_fails_leaves_what_was_there(tmp_path):
    ParallelCorpus.build(tmp_path / "c", PAIRS, BYTES, BYTES)

    def broken():
        yield PAIRS[0]
        raise DataError("a.en:2: not UTF-8")

    with pytest.raises(DataError, match="not UTF-8"):
        ParallelCorpus.build(tmp_path / "c", broken(), BYTES, BYTES)
    assert len(ParallelCorpus.open(tmp_path / "c")) == len(PAIRS)
    assert os.listdir(tmp_path) == ["c"]


def test_a_folder_that_is_no_store_is_not_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(DataError, match="thesis: exists and is not a corpus"):
        ParallelCorpus.build(tmp_path / "thesis", PAIRS, BYTES, BYTES)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_disk_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        ParallelCorpus.build(tmp_path / "file" / "c", PAIRS, BYTES, BYTES)
