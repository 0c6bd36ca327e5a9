"""SentencePiece models, read without their library: the pieces, the kind, and the rules that normalize a text."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from dragoman.errors import DataError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of pieces."""
UNIGRAM, BPE = 1, 2
"""Kinds of models."""


class SentencePiece(NamedTuple):
    """An entry of a SentencePiece model."""

    text: str
    score: float
    type: int


@dataclass(frozen=True)
class SentencePieceModel:
    """The parts of a SentencePiece model that we use."""

    pieces: tuple[SentencePiece, ...]
    """All entries, in the order of their ids."""
    kind: int
    """``UNIGRAM`` or ``BPE``."""
    charsmap: bytes
    """Compiled rules by which characters are normalized."""
    byte_fallback: bool = False
    """Spell unknown characters in bytes."""
    add_dummy_prefix: bool = True
    """Put a space before each text."""
    remove_extra_whitespaces: bool = True
    """Remove spaces at both ends, and all but one of several."""

    @cached_property
    def scores(self) -> dict[str, float]:
        """The score of each piece that a text may contain."""
        return {piece.text: piece.score for piece in self.pieces if piece.type == NORMAL}


def read_pieces(path: Path) -> SentencePieceModel:
    """Read the parts of a SentencePiece model that we use.

    The file is a protocol buffer: pieces are field 1 (text 1, score 2, type 3), the trainer is field 2 (kind 3, byte
    fallback 35), the normalizer field 3 (characters 2, dummy prefix 3, extra spaces 4).

    Raises:
        DataError: not such a file, or one of another kind than unigram or BPE.
    """
    pieces: list[SentencePiece] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    try:
        for field, value in _fields(path.read_bytes()):
            if field == 1:
                piece = dict(_fields(value))
                pieces.append(SentencePiece(piece[1].decode(), piece.get(2, 0.0), piece.get(3, NORMAL)))
            elif field == 2:
                trainer = dict(_fields(value))
            elif field == 3:
                normalizer = dict(_fields(value))
    except (IndexError, struct.error, UnicodeDecodeError, AttributeError, KeyError, TypeError):
        raise DataError(f"{path}: not a SentencePiece model") from None
    if not pieces:
        raise DataError(f"{path}: not a SentencePiece model: it has no pieces")
    if (kind := trainer.get(3, UNIGRAM)) not in (UNIGRAM, BPE):
        raise DataError(f"{path}: a SentencePiece model of another kind than unigram or BPE: {ADVICE}")
    return SentencePieceModel(
        tuple(pieces),
        kind,
        normalizer.get(2, b""),
        bool(trainer.get(35, False)),
        bool(normalizer.get(3, True)),
        bool(normalizer.get(4, True)),
    )


ADVICE = "transformers writes a tokenizer.json with AutoTokenizer.from_pretrained(...).save_pretrained(...)"


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a protocol buffer: bytes, integers, or 32-bit floats."""
    at = 0
    while at < len(message):
        key, at = _number(message, at)
        match key & 7:
            case 0:
                value, at = _number(message, at)
            case 1:
                value, at = message[at : at + 8], at + 8
            case 2:
                size, at = _number(message, at)
                value, at = message[at : at + size], at + size
            case 5:
                (value,), at = struct.unpack("<f", message[at : at + 4]), at + 4
            case _:
                raise IndexError
        yield key >> 3, value


def _number(message: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
