"""UTF-8 bytes of tokens, derived from a tokenizer's own description of its decoder."""

import json
from collections.abc import Sequence, Set

import tokenizers

from dragoman.errors import ConfigError


def spellings(inner: tokenizers.Tokenizer, ids: Sequence[int], *, suppressed: Set[int]) -> list[bytes]:
    """Return the UTF-8 bytes of each of the library's ``ids``; those in ``suppressed`` have none.

    Raises:
        ConfigError: a decoder that does not concatenate the bytes of tokens.
    """
    kinds = _kinds(json.loads(inner.to_str())["decoder"])
    if "ByteLevel" in kinds:
        spell = _byte_level
    elif kinds & {"Metaspace", "ByteFallback"}:
        spell = _metaspace
    else:
        raise ConfigError(
            "tokenizer: was made elsewhere and its tokens are not spelt in bytes, which constraints on the "
            "output need; train one of bpe, unigram, words, characters or bytes"
        )
    return [b"" if i in suppressed else spell(inner.id_to_token(i) or "") for i in ids]


def _kinds(decoder: dict | None) -> set[str]:
    if decoder is None:
        return set()
    return {decoder["type"]}.union(*(_kinds(inner) for inner in decoder.get("decoders", ())))


def _byte_level(name: str) -> bytes:
    """Decode GPT-2's symbols, one per byte; a token that was added later is written as it is."""
    try:
        return bytes(_BYTE_OF[symbol] for symbol in name)
    except KeyError:
        return name.encode()


def _metaspace(name: str) -> bytes:
    """Decode SentencePiece's spelling: a lower bar for a space, and <0xC3> for a byte."""
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.replace("▁", " ").encode()


def _symbols() -> dict[str, int]:
    """Map GPT-2's symbols to bytes: those that print in Latin-1 are themselves; the others follow from 256 on (Radford
    et al. 2019)."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF: dict[str, int] = _symbols()
