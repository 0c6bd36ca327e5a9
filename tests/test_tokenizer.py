"""Tokenizers: every text comes back to the character, training is reproducible, and files agree with other programs."""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from dragoman.config import from_dict, to_dict
from dragoman.errors import ConfigError, DataError
from dragoman.text.tokens.tokenizer import BOS, EOS, PAD, Tokenizer
from dragoman.text.tokens.training import Bpe, Bytes, Characters, Loaded, TokenizerConfig, Unigram, Words

TEXTS = [
    "The device is already configured.",
    "Das Gerät ist bereits konfiguriert.",
    "The battery is low; the battery of the device is low.",
    "Die Batterie des Geräts ist schwach: 12 %.",
    "устройство уже настроено",
    "Turn on the light </s> now",
] * 3
KINDS = {
    "bpe": Bpe(vocab=300),
    "unigram": Unigram(vocab=300),
    "words": Words(vocab=280),
    "characters": Characters(),
    "few characters": Characters(vocab=262),
    "bytes": Bytes(),
}
TRAINED = {kind: Tokenizer.train(cfg, TEXTS) for kind, cfg in KINDS.items()}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request) -> Tokenizer:
    return TRAINED[request.param]


@given(text=st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" ät\n\u2028"), max_size=30))
@example("")
@example(" ")
@example("  leading, doubled  and trailing  ")
@example("</s><s><pad>⟨eos⟩⟨bos⟩⟨pad⟩<unk>[CLS]")
@example("👩‍👩‍👧 \x01\x7f\0 e\u0301 ﬁ \uff21")
def test_every_text_comes_back_to_the_character(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(EOS < i < len(tokenizer) for i in ids)  # whatever is typed, no special token


def test_special_tokens_are_0_1_2_and_vanish_in_decoding(tokenizer):
    assert (tokenizer.pad, tokenizer.bos, tokenizer.eos) == (PAD, BOS, EOS) == (0, 1, 2)
    ids = tokenizer.encode("The light")
    assert tokenizer.decode([BOS, *ids, EOS, PAD, PAD]) == "The light"
    assert tokenizer.decode(np.array(ids)) == "The light"


@pytest.mark.parametrize("kind", KINDS)
def test_marks_stand_for_no_text_and_no_text_becomes_one(kind, tmp_path):
    marked, plain = Tokenizer.train(KINDS[kind], TEXTS, ["⟨mask⟩", "⟨2de⟩"]), TRAINED[kind]
    ids = marked.mark("⟨mask⟩"), marked.mark("[MASK]", "⟨2de⟩")
    assert sorted(ids) == [len(plain), len(plain) + 1] and len(marked) == len(plain) + 2
    text = "Turn on ⟨mask⟩"
    assert not set(marked.encode(text)) & set(ids) and marked.decode(marked.encode(text)) == text
    assert marked.encode(TEXTS[0]) == plain.encode(TEXTS[0])
    assert marked.decode([*marked.encode("Turn"), *ids]) == "Turn" and marked.spelling(ids[0]) == b""
    marked.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").mark("⟨2de⟩") == ids[1]
    with pytest.raises(ConfigError, match="tokenizer: has no ⟨mask⟩"):
        plain.mark("⟨mask⟩", "<mask>")


def test_any_ids_decode_to_some_text(tokenizer):
    for i in range(len(tokenizer)):
        assert isinstance(tokenizer.decode([i]), str)


def test_batches_encode_and_decode_as_single_texts_do(tokenizer):
    texts = [*TEXTS, "", "unseen: žluťoučký"]
    rows = tokenizer.encode_batch(texts)
    assert rows == [tokenizer.encode(text) for text in texts]
    assert tokenizer.decode_batch(rows) == texts
    assert tokenizer.encode_batch([]) == tokenizer.decode_batch([]) == []


def test_the_first_word_is_the_same_token_as_inside_a_sentence():
    for kind in ("bpe", "unigram", "words"):
        low, sentence = (TRAINED[kind].encode(text) for text in ("low", "low and low"))
        assert sentence[: len(low)] == sentence[-len(low) :] == low


def test_vocabularies_have_the_size_that_was_asked_for():
    for kind, cfg in KINDS.items():
        wanted = getattr(cfg, "vocab", None)
        assert wanted is None or len(TRAINED[kind]) == wanted
    assert len(TRAINED["bytes"]) == 259


def test_listed_words_and_characters_are_one_token():
    assert len(TRAINED["words"].encode("the device is")) == 3
    assert len(TRAINED["characters"].encode("настроено")) == 9
    assert len(TRAINED["bytes"].encode("настроено")) == 18


@pytest.mark.parametrize("cfg", [Bpe(vocab=5000), Unigram(vocab=5000), Words(vocab=5000), Characters(vocab=5000)])
def test_a_vocabulary_larger_than_the_data_allows_says_what_fits(cfg):
    with pytest.raises(ConfigError, match="vocab=5000, but the text yields only") as error:
        Tokenizer.train(cfg, TEXTS)
    most = int(str(error.value).split("set tokenizer.vocab=")[1].split()[0])
    assert len(Tokenizer.train(type(cfg)(vocab=most), TEXTS)) == most


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ConfigError, match="vocab"):
        from_dict(TokenizerConfig, {"kind": "bpe", "vocab": 200})


TRAIN = """
import sys
from dragoman.config import from_dict
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import TokenizerConfig
import json
cfg, texts = json.loads(sys.stdin.read())
Tokenizer.train(from_dict(TokenizerConfig, cfg), texts).save(sys.argv[1])
"""


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_same_texts_give_the_same_file_in_another_process(tmp_path, kind):
    given_texts = json.dumps([to_dict(KINDS[kind]), TEXTS])
    command = [sys.executable, "-c", TRAIN, str(tmp_path / "theirs.json")]
    subprocess.run(command, input=given_texts, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    TRAINED[kind].save(tmp_path / "ours.json")
    assert (tmp_path / "ours.json").read_bytes() == (tmp_path / "theirs.json").read_bytes()


def test_a_saved_tokenizer_is_the_same_when_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.train(Loaded(path=str(tmp_path / "tokenizer.json")), [])
    assert loaded.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS) and len(loaded) == len(tokenizer)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_transformers_loads_the_file_and_agrees(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        theirs = PreTrainedTokenizerFast(
            tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="⟨pad⟩", bos_token="⟨bos⟩", eos_token="⟨eos⟩"
        )
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (PAD, BOS, EOS)
    for text in [*TEXTS, "", "  two  spaces ", "unseen: žluťoučký </s>"]:
        assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
        ids = [BOS, *tokenizer.encode(text), EOS, PAD]
        assert theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def foreign(vocab: dict[str, int]) -> tokenizers.Tokenizer:
    """A tokenizer as other projects save them: own order of ids, own names, a template, truncation."""
    theirs = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    theirs.pre_tokenizer = pre_tokenizers.Whitespace()
    theirs.enable_truncation(2)
    theirs.enable_padding(length=9)
    if "</s>" in vocab:
        theirs.add_special_tokens(["</s>"])
        theirs.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", vocab["</s>"])]
        )
    return theirs


FOREIGN = {
    "end first, as Marian": {"</s>": 0, "a": 1, "b": 2, "c": 3, "<unk>": 4, "<pad>": 5},
    "brackets, as BERT": {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4, "c": 5, "<unk>": 6},
    "one for all, as GPT-2": {"a": 0, "b": 1, "c": 2, "<unk>": 3, "<|endoftext|>": 4},
    "none": {"a": 0, "b": 1, "c": 2, "<unk>": 3},
}


@pytest.mark.parametrize("case", FOREIGN)
def test_any_file_of_the_library_gets_its_special_tokens_in_our_places(tmp_path, case):
    foreign(FOREIGN[case]).save(str(tmp_path / "theirs.json"))
    loaded = Tokenizer.load(tmp_path / "theirs.json")
    ids = loaded.encode("a c b a")
    assert len(ids) == 4 and ids[0] == ids[3] and len({PAD, BOS, EOS, *ids}) == 6 and max(ids) < len(loaded)
    assert loaded.decode([BOS, *ids, EOS, PAD]) == "a c b a"
    loaded.save(tmp_path / "ours.json")
    assert Tokenizer.load(tmp_path / "ours.json").encode("a c b a") == ids


@pytest.mark.parametrize("content", [b"{}", b"\xff", b'{"version": "1.0"'])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path, content):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.json: not a tokenizer\.json"):
        Tokenizer.load(tmp_path / "bad.json")
    with pytest.raises(DataError, match=r"gone\.json: cannot be read: No such file"):
        Tokenizer.load(tmp_path / "gone.json")


FORK = """
import os
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bytes
tokenizer = Tokenizer.train(Bytes(), [])
before = os.environ.get("TOKENIZERS_PARALLELISM")
rows = tokenizer.encode_batch(["some text"] * 1000)
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0 and os.environ.get("TOKENIZERS_PARALLELISM") == before
else:
    os._exit(tokenizer.encode_batch(["some text"] * 1000) != rows)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_processes_encode_without_warning():
    env = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    pythons_own = "ignore:This process:DeprecationWarning"  # of any fork beside threads, from 3.12 on
    done = subprocess.run(
        [sys.executable, "-W", pythons_own, "-c", FORK], capture_output=True, text=True, timeout=60, env=env
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
