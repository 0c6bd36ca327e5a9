"""A folder with nothing but a SentencePiece model reads text as `AutoTokenizer` reads it."""

import json

import foreign_text
import pytest
from foreign_pieces import FOLDERS, make
from tokenizers import Tokenizer as Library

from dragoman.errors import DataError
from dragoman.interchange.framing import read_frame
from dragoman.interchange.older_tokenizers import contents
from dragoman.interchange.tokenizer_kinds import tokenizer_kind

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")
transformers.logging.set_verbosity_error()


@pytest.mark.parametrize("name", FOLDERS)
def test_texts_are_read_as_auto_tokenizer_reads_them(name, tmp_path):
    make(name, tmp_path, foreign_text.CORPUS)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    _, content, path = contents(tmp_path, tokenizer_kind(tmp_path, config))
    assert path == tmp_path / FOLDERS[name][0]
    frame = read_frame(tmp_path, content, config)
    inner = Library.from_str(json.dumps(content | {"post_processor": None}))
    inner.encode_special_tokens = True
    for text in foreign_text.TEXTS:
        ours = [*frame.before, *inner.encode(text, add_special_tokens=False).ids, *frame.after]
        wanted = theirs(text).input_ids
        if name == "NLLB":  # numbered as published weights are: the languages, then <mask>
            ours, wanted = list(map(inner.id_to_token, ours)), theirs.convert_ids_to_tokens(wanted)
        assert ours == wanted, text


def test_byt5_reads_bytes_and_writes_texts_though_no_file_tells_them(tmp_path):
    theirs = transformers.ByT5Tokenizer()
    theirs.save_pretrained(tmp_path)
    config = {"model_type": "t5"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, content, _ = contents(tmp_path, tokenizer_kind(tmp_path, config))
    frame, inner = read_frame(tmp_path, content, config), Library.from_str(json.dumps(content))
    inner.encode_special_tokens = True
    assert inner.token_to_id("<extra_id_0>") == theirs.convert_tokens_to_ids("<extra_id_0>") == 259
    for text in foreign_text.TEXTS:
        ids = inner.encode(text, add_special_tokens=False).ids
        assert [*frame.before, *ids, *frame.after] == theirs(text).input_ids, text
        assert inner.decode(ids) == text


def test_a_file_that_is_no_sentencepiece_model_is_named(tmp_path):
    for content in (b"", b"\xff\xff\xff", b"{}", b"\x0a\x03abc"):
        (tmp_path / "spiece.model").write_bytes(content)
        with pytest.raises(DataError, match=r"spiece.model: not a SentencePiece model"):
            contents(tmp_path, "T5")
