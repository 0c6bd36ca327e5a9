"""Vocabularies that grow: every old id as it was, new text in fewer tokens, and all of it back to the character."""

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from dragoman.errors import ConfigError
from dragoman.text.tokens.extension import decompose_new_entries, extend, tokens_per_text
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bpe, Bytes, Characters, Unigram, Words

OLD = [f"the {size} dog sees {count} small houses by the river" for size in ("big", "red") for count in range(60)]
NEW = [f"Konfiguration des Gerätes {i} fehlgeschlagen: Schlüssel prüfen" for i in range(60)]
STRANGE = [
    "",
    " ",
    "  two  spaces ",
    "naïve 漢字 🙂",
    "line\nbreak",
    "⟨pad⟩ </s> [CLS]",
    "Gerätekonfigurationsschlüssel",
]
CHOICES = [Bpe(vocab=300), Unigram(vocab=300), Words(vocab=270), Characters()]


def refined(tokenizer, grown, text):
    made = decompose_new_entries(tokenizer, grown)
    new = len(tokenizer)
    return [old for i in grown.encode(text) for old in (made[i - new] if i >= new else [i])]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.kind)
def test_what_grows_keeps_ids_and_joins_what_stood_side_by_side(choice, tmp_path):
    tokenizer = Tokenizer.train(choice, OLD)
    by = 2 if isinstance(choice, Characters) else 20
    grown = extend(tokenizer, NEW, by)
    assert len(grown) == len(tokenizer) + by
    assert grown.entries()[: len(tokenizer)] == tokenizer.entries()
    assert grown.special_rows == tokenizer.special_rows
    for text in (*OLD, *NEW, *STRANGE):
        assert grown.decode(grown.encode(text)) == text
        assert refined(tokenizer, grown, text) == tokenizer.encode(text)
    assert tokens_per_text(grown, NEW) < tokens_per_text(tokenizer, NEW)
    plain = "the red dog sees small houses by the river"
    assert grown.encode(plain) == tokenizer.encode(plain), "nothing of the new text is in it"
    grown.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode_batch(NEW) == grown.encode_batch(NEW)


def test_growing_twice_from_the_same_texts_gives_the_same_file(tmp_path):
    tokenizer = Tokenizer.train(Bpe(vocab=300), OLD)
    for name in "ab":
        extend(tokenizer, NEW, 20).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len(extend(extend(tokenizer, NEW, 5), NEW, 5)) == len(tokenizer) + 10


def foreign(model, trainer, *, metaspace):
    """As SentencePiece's are kept, which cut no words but mark them, or as BERT's."""
    inner = Library(model)
    if metaspace:
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        inner.train_from_iterator((" ".join("▁" + word for word in text.split()) for text in OLD), trainer)
        inner.pre_tokenizer = None
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        inner.decoder = decoders.Metaspace()
    else:
        inner.normalizer, inner.decoder = normalizers.BertNormalizer(), decoders.WordPiece()
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.train_from_iterator(OLD, trainer)
    inner.add_tokens(["⟨unused 500⟩"])
    return Tokenizer(inner)


SPECIALS = ["<unk>", "<s>", "</s>", "<pad>"]
FOREIGN = {
    "BPE over metaspace": (
        lambda: models.BPE(unk_token="<unk>", fuse_unk=True),
        lambda: trainers.BpeTrainer(vocab_size=80, special_tokens=SPECIALS, show_progress=False),
        True,
    ),
    "unigram over metaspace": (
        models.Unigram,
        lambda: trainers.UnigramTrainer(vocab_size=60, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False),
        True,
    ),
    "WordPiece": (
        lambda: models.WordPiece(unk_token="[UNK]"),
        lambda: trainers.WordPieceTrainer(
            vocab_size=80, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
        ),
        False,
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_tokenizers_made_elsewhere_grow_behind_all_their_entries(kind):
    model, trainer, metaspace = FOREIGN[kind]
    tokenizer = foreign(model(), trainer(), metaspace=metaspace)
    new = ["the river dogs see small redhouses " + "dogsee " * (i % 3) for i in range(60)]
    grown = extend(tokenizer, new, 2)
    assert grown.entries()[: len(tokenizer)] == tokenizer.entries()
    assert tokens_per_text(grown, new) < tokens_per_text(tokenizer, new)
    assert all(" " not in name and not name[1:].count("▁") for name in grown.entries()[len(tokenizer) :])
    for text in (*OLD, *new):
        assert grown.decode(grown.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert all(decompose_new_entries(tokenizer, grown))


def test_more_than_the_texts_yield_is_told_with_how_many_there_are():
    with pytest.raises(
        ConfigError, match=r"start_from\.vocabulary: by=100000, but the text yields only \d+ further pieces"
    ):
        extend(Tokenizer.train(Bpe(vocab=300), OLD), NEW, 100_000)
    with pytest.raises(
        ConfigError, match=r"start_from\.vocabulary: this tokenizer does not split texts into words or pieces"
    ):
        extend(Tokenizer.train(Bytes(), OLD), NEW, 5)
