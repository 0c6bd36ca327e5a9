"""Tokenizers of folders older than tokenizer.json, converted to the content of one.

vocab.json, merges.txt                 GPT-2, RoBERTa, BART
vocab.txt                              BERT
source.spm, target.spm, vocab.json     Marian: SentencePiece splits, vocab.json numbers; with target_vocab.json, which
                                       numbers the target's, both sides have a vocabulary of their own
tokenizer_config.json                  ByT5: its entries are the bytes
a single SentencePiece model           see sentencepiece_layouts.py
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from dragoman.errors import DataError
from dragoman.interchange.sentencepiece_layouts import read_layout
from dragoman.interchange.sentencepiece_model import ADVICE, UNIGRAM, SentencePieceModel, read_pieces
from dragoman.json_files import read_json

TokenizerContent = dict[str, Any]
TARGET = "target_tokenizer"
"""Folder of the target's tokenizer, in folders that we wrote, where it is not the source's."""


def contents(folder: Path, kind: str = "") -> tuple[TokenizerContent, TokenizerContent, Path]:
    """Return the source's and the target's tokenizer (one and the same, where there is one for both), and their file.

    ``kind`` is the name of the tokenizer's class, without its ending.

    Raises:
        DataError: no tokenizer in any form, or one that is damaged.
    """
    path, beside = folder / "tokenizer.json", folder / TARGET / "tokenizer.json"
    if kind in _BY_PIECES and (found := read_layout(folder, kind)):
        return found[0], *found
    if path.is_file():
        content = _content(path)
        return content, _content(beside) if beside.is_file() else content, path
    if kind == "ByT5":  # its entries are bytes, of which no file tells
        return *_bytes(folder), folder / "tokenizer_config.json"
    if (folder / "source.spm").is_file():
        return *_marian(folder), folder / "source.spm"
    if found := read_layout(folder, kind):
        return found[0], *found
    for name, make in (("merges.txt", _byte_pairs), ("vocab.txt", _word_pieces)):
        if (folder / name).is_file():
            return *make(folder), folder / name
    raise DataError(
        f"{path}: no such file: this model's text cannot be read without its tokenizer; "
        "transformers writes one with AutoTokenizer.from_pretrained(...).save_pretrained(...)"
    )


_BY_PIECES = ("Siglip",)
"""Classes that transformers reads from their SentencePiece model alone, though a tokenizer.json may stand beside it."""


def _content(path: Path) -> TokenizerContent:
    content = read_json(path)
    if not isinstance(content.get("model"), dict):
        raise DataError(f"{path}: not a tokenizer.json of the tokenizers library: it has no 'model'")
    return content


def _twice(inner: tokenizers.Tokenizer, folder: Path) -> tuple[TokenizerContent, TokenizerContent]:
    """Return ``inner`` twice as content, with the special tokens that the folder names."""
    names = read_json(folder / "tokenizer_config.json") | read_json(folder / "special_tokens_map.json")
    special = [token for key, token in names.items() if key.endswith("_token") and token]
    texts = [token.get("content") if isinstance(token, dict) else token for token in special]
    inner.add_special_tokens([t for t in (*texts, *_USUAL) if isinstance(t, str) and inner.token_to_id(t) is not None])
    content = json.loads(inner.to_str())
    return content, content


_USUAL = ("<pad>", "<s>", "</s>", "<unk>", "<mask>", "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "<|endoftext|>")


def _bytes(folder: Path) -> tuple[TokenizerContent, TokenizerContent]:
    """Return ByT5's tokenizer: padding, end and unknown, the 256 bytes, and 125 marks of spans."""
    names = ["<pad>", "</s>", "<unk>", *(_BYTES[i] for i in range(256))]
    inner = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    settings = read_json(folder / "tokenizer_config.json")
    marks = settings.get("additional_special_tokens") or settings.get("extra_special_tokens")
    inner.add_special_tokens([*names[:3], *(marks or (f"<extra_id_{i}>" for i in range(125)))])
    content = json.loads(inner.to_str())
    return content, content


def _bytes_by_spelling() -> dict[int, str]:
    """Return the printable symbol by which byte-level tokenizers write each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [i for i in range(256) if i not in plain]
    return {i: chr(i) for i in plain} | {i: chr(256 + n) for n, i in enumerate(others)}


_BYTES = _bytes_by_spelling()


def _read_model(kind: Any, *paths: Path, **settings: Any) -> Any:
    """Return a model of the tokenizers library from its files.

    Raises:
        DataError: one is missing or damaged.
    """
    try:
        return kind.from_file(*map(str, paths), **settings)
    except Exception as error:  # the library raises nothing more precise
        raise DataError(f"{' and '.join(map(str, paths))}: {str(error).splitlines()[0]}") from None


def _byte_pairs(folder: Path) -> tuple[TokenizerContent, TokenizerContent]:
    inner = tokenizers.Tokenizer(_read_model(models.BPE, folder / "vocab.json", folder / "merges.txt"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    _add_beyond(inner, folder)
    return _twice(inner, folder)


def _add_beyond(inner: tokenizers.Tokenizer, folder: Path) -> None:
    """Add the tokens behind the pieces, as added_tokens.json or tokenizer_config.json number them."""
    settings = read_json(folder / "tokenizer_config.json") | read_json(folder / "special_tokens_map.json")
    path, more = folder / "added_tokens.json", settings.get("additional_special_tokens") or ()
    special = {token.get("content") if isinstance(token, dict) else token for token in more}
    try:
        numbers = {int(i): name for name, i in read_json(path).items()}
        for i, token in (settings.get("added_tokens_decoder") or {}).items():
            numbers[int(i)] = token["content"]
            special |= {token["content"]} if token.get("special") else set()
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(f"{path}, or added_tokens_decoder in tokenizer_config.json: expected ids of tokens") from None
    for i in sorted(numbers):
        if i == inner.get_vocab_size():
            inner.add_tokens([AddedToken(numbers[i], special=numbers[i] in special, normalized=False)])


def _word_pieces(folder: Path) -> tuple[TokenizerContent, TokenizerContent]:
    inner = tokenizers.Tokenizer(_read_model(models.WordPiece, folder / "vocab.txt", unk_token="[UNK]"))
    lowercase = bool(read_json(folder / "tokenizer_config.json").get("do_lower_case", True))
    inner.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    return _twice(inner, folder)


# ---- SentencePiece ---------------------------------------------------------------------------------


def has_two_vocabularies(folder: Path, config: Mapping[str, Any]) -> bool:
    """Return whether source and target have vocabularies of their own, as Marian's tokenizer_config.json may state.

    ``config`` is config.json. A folder that we wrote has the target's tokenizer in a folder of its own.
    """
    if config.get("share_encoder_decoder_embeddings", True):
        return False
    return _states_two(folder) or (folder / TARGET / "tokenizer.json").is_file()


def _states_two(folder: Path) -> bool:
    return read_json(folder / "tokenizer_config.json").get("separate_vocabs") is True


def _names(path: Path) -> list[str]:
    """Return the entries of a vocab.json in their order.

    Raises:
        DataError: none there, or ids that are not those from 0 up.
    """
    numbers: dict[str, int] = read_json(path)
    if not numbers:
        raise DataError(
            f"{path}: missing or empty: a Marian folder has source.spm, target.spm and vocab.json, and "
            "target_vocab.json where tokenizer_config.json states separate_vocabs"
        )
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise DataError(f"{path}: its {len(numbers)} entries are not numbered from 0 to {len(numbers) - 1}")
    return sorted(numbers, key=numbers.__getitem__)


def _marian(folder: Path) -> tuple[TokenizerContent, TokenizerContent]:
    if not (folder / "target.spm").is_file():
        raise DataError(f"{folder}: a Marian folder has source.spm, target.spm and vocab.json; one is missing")
    names = theirs = _names(folder / "vocab.json")
    if _states_two(folder):
        theirs = _names(folder / "target_vocab.json")
    source, target = (read_pieces(folder / name) for name in ("source.spm", "target.spm"))
    if source.kind != UNIGRAM or target.kind != UNIGRAM:
        raise DataError(f"{folder}: source.spm and target.spm are of another kind than unigram: {ADVICE}")
    return _numbered(names, source, hide=True), _numbered(theirs, target, hide=False)


def _numbered(names: list[str], pieces: SentencePieceModel, *, hide: bool) -> TokenizerContent:
    """Return a tokenizer that splits into ``pieces`` and numbers them by their position in ``names``.

    A character that is no piece keeps its number where it has one. Longer names that are no pieces (the other
    language's) are never produced. To ``hide`` them changes their spelling, which is harmless on a side that is only
    read.
    """
    scores = pieces.scores
    lowest = min(scores.values(), default=0.0) - 10.0

    def entry(name: str) -> tuple[str, float]:
        if name in scores:
            return name, scores[name]
        kept = len(name) == 1 or name in _USUAL or _LANGUAGE.fullmatch(name)
        return (name if kept or not hide else f"⟨other {name}⟩"), lowest

    unknown = names.index("<unk>") if "<unk>" in names else None
    inner = tokenizers.Tokenizer(models.Unigram([entry(name) for name in names], unk_id=unknown))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    charsmap = [normalizers.Precompiled(pieces.charsmap)] if pieces.charsmap else []
    inner.normalizer = normalizers.Sequence([*charsmap, normalizers.Strip(), spaces])
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    inner.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    inner.add_special_tokens([name for name in _USUAL if name in names])
    languages = [AddedToken(name, special=False, normalized=False) for name in names if _LANGUAGE.fullmatch(name)]
    inner.add_tokens(languages)
    return json.loads(inner.to_str())


_LANGUAGE = re.compile(">>[^<>]+<<")
"""Spelling of the token of a language, with which a source begins; also where it is part of a text."""
