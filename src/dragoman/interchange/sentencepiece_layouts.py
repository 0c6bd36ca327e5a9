"""Tokenizers of folders that hold a single SentencePiece model, in the order of entries of each family.

    spiece.model               T5, mT5, ALBERT, Pegasus, SigLIP
    sentencepiece.bpe.model    XLM-R, mBART, NLLB; with vocab.json M2M-100
    spm.model                  DeBERTa-v3
    tokenizer.model            LLaMA 1 and 2, and others whose entries are the pieces as they are

SentencePiece numbers its pieces one way, and models that were trained with fairseq number them another.
"""

import json
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from dragoman.errors import DataError
from dragoman.interchange.languages import M2M100, MBART, MBART50
from dragoman.interchange.sentencepiece_model import (
    BPE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    SentencePieceModel,
    read_pieces,
)
from dragoman.json_files import read_json

FILES = ("spiece.model", "sentencepiece.bpe.model", "spm.model", "tokenizer.model")
"""Names of a folder's SentencePiece model."""
Entries = Sequence[tuple[str, float]]
Steps = tuple[list[Any], list[Any]]
"""Normalizers, and pre-tokenizers."""


@dataclass(frozen=True)
class PieceLayout:
    """Order of a family's entries, and how it cuts a text before SentencePiece does."""

    entries: Callable[[SentencePieceModel, Mapping[str, Any]], Entries]
    """Returns the entries; also receives the settings of tokenizer_config.json."""
    steps: Callable[[SentencePieceModel, Mapping[str, Any]], Steps]
    special: Callable[[Mapping[str, Any]], Iterable[str]] = field(default=lambda settings: ())
    """Returns entries that are special tokens, besides control pieces and the usual names."""


def read_layout(folder: Path, kind: str) -> tuple[dict[str, Any], Path] | None:
    """Return the content of a tokenizer.json for a folder with a SentencePiece model, and its path; None without one.

    Args:
        kind: name of the tokenizer's class, without its ending.

    Raises:
        DataError: a damaged model.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    model, settings = read_pieces(path), read_json(folder / "tokenizer_config.json")
    settings = read_json(folder / "special_tokens_map.json") | settings
    if kind == "M2M100":
        return _with_vocabulary(folder, model, settings), path
    layout = LAYOUTS.get(kind, PLAIN)
    entries = list(layout.entries(model, settings))
    unknown = next((i for i, (name, _) in enumerate(entries) if name in ("<unk>", "[UNK]")), None)
    if unknown is None:
        raise DataError(f"{path}: no piece <unk> or [UNK]: not the model of this folder's tokenizer")
    inner = tokenizers.Tokenizer(_model(model, entries, unknown))
    _finish(inner, model, *layout.steps(model, settings))
    known = {name for name, _ in entries}
    control = [piece.text for piece in model.pieces if piece.type in (CONTROL, UNKNOWN)]
    named = [*control, *_named(settings), *layout.special(settings)]
    inner.add_special_tokens([name for name in dict.fromkeys(named) if name in known])
    _add_beyond(inner, settings)
    return json.loads(inner.to_str()), path


def _model(model: SentencePieceModel, entries: Entries, unknown: int) -> Any:
    if model.kind != BPE:
        return models.Unigram(list(entries), unk_id=unknown, byte_fallback=model.byte_fallback)
    numbers = {name: i for i, (name, _) in enumerate(entries)}
    return models.BPE(
        numbers,
        _merges(model, numbers),
        unk_token=entries[unknown][0],
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )


def _merges(model: SentencePieceModel, known: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return the merges that make each piece, those of the best score first."""
    found = []
    normal = {piece.text for piece in model.pieces if piece.type == NORMAL and piece.text in known}
    for rank, piece in enumerate(model.pieces):
        if piece.text in normal:
            halves = [(piece.text[:at], piece.text[at:]) for at in range(1, len(piece.text))]
            found += [(-piece.score, rank, a, b) for a, b in halves if a in normal and b in normal]
    return [(a, b) for _, _, a, b in sorted(found)]


def _finish(inner: tokenizers.Tokenizer, model: SentencePieceModel, before: list[Any], cuts: list[Any]) -> None:
    if before:
        inner.normalizer = normalizers.Sequence(before)
    inner.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    if model.byte_fallback:
        strip = [decoders.Strip(" ", 1, 0)] if model.add_dummy_prefix else []
        inner.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
    else:
        inner.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")


def _named(settings: Mapping[str, Any]) -> list[str]:
    """Return the special tokens that a folder names."""
    listed = settings.get("additional_special_tokens") or settings.get("extra_special_tokens") or []
    several = listed if isinstance(listed, list) else list(listed)
    found = [value for key, value in settings.items() if key.endswith("_token")] + list(several)
    texts = [token.get("content") if isinstance(token, dict) else token for token in found]
    return [text for text in texts if isinstance(text, str)]


def _add_beyond(inner: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> None:
    """Add the tokens behind the pieces that tokenizer_config.json numbers, in their order; nothing is renumbered."""
    listed = settings.get("added_tokens_decoder") or {}
    for number, token in sorted(((int(i), token) for i, token in listed.items()), key=lambda pair: pair[0]):
        if number != inner.get_vocab_size():
            continue
        options = {key: bool(token.get(key)) for key in ("lstrip", "rstrip", "normalized", "single_word")}
        inner.add_tokens([AddedToken(token["content"], special=bool(token.get("special")), **options)])


# ---- steps -----------------------------------------------------------------------------------------


def _charsmap(model: SentencePieceModel) -> list[Any]:
    return [normalizers.Precompiled(model.charsmap)] if model.charsmap else []


def _metaspace() -> Any:
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")


def _by_words(model: SentencePieceModel, settings: Mapping[str, Any]) -> Steps:
    return _charsmap(model), [pre_tokenizers.WhitespaceSplit(), _metaspace()]


def _by_spaces(model: SentencePieceModel, settings: Mapping[str, Any]) -> Steps:
    return [*_charsmap(model), normalizers.Replace(Regex(" {2,}"), " ")], [_metaspace()]


def _as_stated(model: SentencePieceModel, settings: Mapping[str, Any]) -> Steps:
    """Return the steps of SentencePiece itself, as its file states them."""
    before = _charsmap(model)
    if model.remove_extra_whitespaces:
        before += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    before.append(normalizers.Replace(" ", "▁"))
    scheme = "always" if model.add_dummy_prefix else "never"
    return before, [pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)]


def _albert_steps(model: SentencePieceModel, settings: Mapping[str, Any]) -> Steps:
    before: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not settings.get("keep_accents", False):
        before += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings.get("do_lower_case", True):
        before.append(normalizers.Lowercase())
    return [*before, *_charsmap(model)], [pre_tokenizers.WhitespaceSplit(), _metaspace()]


def _deberta_steps(model: SentencePieceModel, settings: Mapping[str, Any]) -> Steps:
    before: list[Any] = [normalizers.Lowercase()] if settings.get("do_lower_case", False) else []
    before += [
        normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
        normalizers.NFC(),
        normalizers.Strip(left=False, right=True),
    ]
    cuts = [pre_tokenizers.Punctuation(behavior="isolated")] if settings.get("split_by_punct", False) else []
    return before, [*cuts, _metaspace()]


_PUNCTUATION = re.escape(string.punctuation)


def _siglip_steps(model: SentencePieceModel, settings: Mapping[str, Any]) -> Steps:
    """Return SigLIP's steps: lower case, without ASCII punctuation, one space for several."""
    before: list[Any] = [normalizers.Replace("▁", " ")]
    before += [normalizers.Lowercase()] if settings.get("do_lower_case", True) else []
    before += [normalizers.Replace(Regex(f"[{_PUNCTUATION}]"), ""), *_charsmap(model)]
    before += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    return before, [_metaspace()]


# ---- entries ---------------------------------------------------------------------------------------


def _plain_entries(model: SentencePieceModel, settings: Mapping[str, Any]) -> Entries:
    return [(piece.text, piece.score) for piece in model.pieces]


_FAIRSEQ = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]


def _fairseq(after: Callable[[Mapping[str, Any]], Iterable[str]]) -> Callable[..., Entries]:
    """Return the order of fairseq: four special tokens, the pieces but for the first three, and ``after``."""

    def entries(model: SentencePieceModel, settings: Mapping[str, Any]) -> Entries:
        behind = dict.fromkeys([*after(settings), "<mask>"])
        return [*_FAIRSEQ, *_plain_entries(model, settings)[3:], *((name, 0.0) for name in behind)]

    return entries


def _nllb_languages(settings: Mapping[str, Any]) -> Iterable[str]:
    special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    return [name for name in _named(settings) if name not in special]


def _t5_sentinels(settings: Mapping[str, Any]) -> list[str]:
    return [f"<extra_id_{i}>" for i in range(int(settings.get("extra_ids", 100)) - 1, -1, -1)]


def _t5_entries(model: SentencePieceModel, settings: Mapping[str, Any]) -> Entries:
    pieces = _plain_entries(model, settings)
    known = {name for name, _ in pieces}
    return [*pieces, *((name, 0.0) for name in _t5_sentinels(settings) if name not in known)]


def _pegasus_entries(model: SentencePieceModel, settings: Mapping[str, Any]) -> Entries:
    before = [("<pad>", 0.0), ("</s>", 0.0), ("<mask_1>", 0.0), ("<mask_2>", 0.0)]
    offset = int(settings.get("offset", 103))
    unused = [(f"<unk_{i}>", -100.0) for i in range(2, offset)]
    return [*before, *unused, *_plain_entries(model, settings)[2:]]


def _pegasus_special(settings: Mapping[str, Any]) -> list[str]:
    return ["<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, int(settings.get("offset", 103))))]


def _deberta_entries(model: SentencePieceModel, settings: Mapping[str, Any]) -> Entries:
    pieces = _plain_entries(model, settings)
    return pieces if any(name == "[MASK]" for name, _ in pieces) else [*pieces, ("[MASK]", 0.0)]


PLAIN = PieceLayout(_plain_entries, _as_stated)
LAYOUTS: dict[str, PieceLayout] = {
    "T5": PieceLayout(_t5_entries, _by_words, _t5_sentinels),
    "Albert": PieceLayout(_plain_entries, _albert_steps),
    "Siglip": PieceLayout(_plain_entries, _siglip_steps),
    "DebertaV2": PieceLayout(_deberta_entries, _deberta_steps, lambda settings: ("[MASK]",)),
    "XLMRoberta": PieceLayout(_fairseq(lambda settings: ()), _by_words, lambda settings: ("<mask>",)),
    "MBart": PieceLayout(
        _fairseq(lambda settings: MBART),
        lambda model, settings: ([], [pre_tokenizers.WhitespaceSplit(), _metaspace()]),
        lambda settings: (*MBART, "<mask>"),
    ),
    "MBart50": PieceLayout(_fairseq(lambda settings: MBART50), _by_spaces, lambda settings: (*MBART50, "<mask>")),
    "Nllb": PieceLayout(_fairseq(_nllb_languages), _by_spaces),
    "Pegasus": PieceLayout(_pegasus_entries, _by_spaces, _pegasus_special),
}
"""Layouts by the name of the tokenizer's class; for all others the pieces are the entries."""


# ---- M2M-100 ---------------------------------------------------------------------------------------


def _with_vocabulary(folder: Path, model: SentencePieceModel, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return M2M-100's tokenizer: SentencePiece cuts, vocab.json numbers, and the languages come behind.

    Raises:
        DataError: no vocab.json.
    """
    numbers: dict[str, int] = read_json(folder / "vocab.json")
    if not numbers:
        raise DataError(f"{folder / 'vocab.json'}: missing: it numbers the pieces of sentencepiece.bpe.model")
    names = sorted(numbers, key=numbers.__getitem__)
    if [numbers[name] for name in names] != list(range(len(names))):
        raise DataError(f"{folder / 'vocab.json'}: the entries are not numbered from 0 without gaps")
    scores = model.scores
    lowest = min(scores.values(), default=0.0) - 10.0
    entries = [(name, scores.get(name, lowest)) for name in names]
    inner = tokenizers.Tokenizer(_model(model, entries, numbers["<unk>"]))
    _finish(inner, model, *_as_stated(model, settings))
    special = [name for name in ("<s>", "<pad>", "</s>", "<unk>") if name in numbers]
    inner.add_special_tokens(special)
    named = [name for name in _named(settings) if name.startswith("__")]
    inner.add_special_tokens(named or [f"__{code}__" for code in M2M100])
    return json.loads(inner.to_str())
