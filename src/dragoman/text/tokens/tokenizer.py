"""Text to token ids and back, over Hugging Face `tokenizers`.

Tokenizers trained here work on UTF-8 bytes (written as the 256 printable symbols of GPT-2): nothing is unknown, and
decoding returns every text to the character. A space is put before the text and removed again, so that the first word
is the same token as inside a sentence. The special tokens are spelt with ⟨⟩, which no token made of bytes can be; typed
by a user they are text like any other. Padding is 0, the beginning of a sentence 1, its end 2, in every vocabulary.
Further marks decode to no text either: a masked word, the target language.
"""

import copy
import os
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import SupportsInt

import numpy as np
import tokenizers
from tokenizers import AddedToken

from dragoman.errors import ConfigError, DataError
from dragoman.text.tokens.framing import FrameTemplate, TextFrame, read_template
from dragoman.text.tokens.spelling import spellings
from dragoman.text.tokens.training import SPECIALS, Loaded, TokenizerConfig, train_tokenizer

PAD, BOS, EOS = 0, 1, 2
PROMPT_FRAME, SOURCE_FRAME, INPUT_FRAME = TextFrame((BOS,)), TextFrame(after=(EOS,)), TextFrame((BOS,), (EOS,))
"""Frames around a language model's prompt, a translator's source and an encoder's input, in models trained here."""

_USUAL = (  # their names in files of others; a role without a token there gets ours
    ("<pad>", "[PAD]", "<|pad|>", "<blank>"),
    ("<s>", "<bos>", "[BOS]", "[CLS]", "<|startoftext|>", "<|begin_of_text|>"),
    ("</s>", "<eos>", "[EOS]", "[SEP]", "<|endoftext|>", "<|end_of_text|>"),
)

_TAG = "⟨tag "


def tag_mark(name: str) -> str:
    """Return the spelling of a tag's mark.

    Raises:
        ConfigError: it is not a word of letters, digits, - and _.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(f"tag: {name!r} is not a tag: write letters, digits, - and _, as in 2de or bt")
    return f"{_TAG}{name}⟩"


# ---- the tokenizer --------------------------------------------------------------------------------


class Tokenizer:
    """Tokenizer of text to ids and back; adds no special tokens when encoding, and drops them when decoding."""

    pad, bos, eos = PAD, BOS, EOS

    def __init__(self, inner: tokenizers.Tokenizer):
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True  # "</s>" in a sentence is text, not an instruction
        theirs = _special_ids(inner)
        rest = np.setdiff1d(np.arange(1 + max(inner.get_vocab().values())), theirs)
        self._inner = inner
        self._library_ids = np.concatenate([theirs, rest])  # our id -> the library's: specials come first in ours
        self._our_ids = np.argsort(self._library_ids)
        self._our_names: dict[str, str] = {}
        self._is_identity = bool((self._library_ids[:-1] < self._library_ids[1:]).all())

    @classmethod
    def train(cls, cfg: TokenizerConfig, texts: Iterable[str], marks: Sequence[str] = ()) -> "Tokenizer":
        """Train a tokenizer on ``texts``; the same texts in the same order give the same file to the byte. It has
        ``marks``, such as ⟨mask⟩, besides the tokens that ``cfg`` asks for.

        Raises:
            ConfigError: a vocabulary larger than the texts yield.
            DataError: a file that cannot be loaded.
        """
        inner = cls.load(cfg.path)._inner if isinstance(cfg, Loaded) else train_tokenizer(cfg, texts)
        inner.post_processor = None  # pyright: ignore[reportAttributeAccessIssue]  # training frames texts itself
        inner.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
        return cls(inner)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read what ``save`` wrote, or any file of the library. Special tokens are found by their usual names.

        Raises:
            DataError: no such file, or not one of the library's.
        """
        try:
            return cls(tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
        except Exception as error:  # the library raises nothing more precise
            raise DataError(f"{path}: not a tokenizer.json of the tokenizers library: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write one JSON file that other users of the library can load."""
        Path(path).write_text(self._inner.to_str(), encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""
        encoded = self._inner.encode_batch_fast([self._renamed(text) for text in texts], add_special_tokens=False)
        return [self._translate(self._our_ids, encoding.ids) for encoding in encoded]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids, and of each the offsets (start, end) in characters of ``text``. The space before a word is
        part of it, and tokens that are parts of one character all have that character's offsets."""
        encoded = self._inner.encode(text, add_special_tokens=False)
        return self._translate(self._our_ids, encoded.ids), encoded.offsets

    def encode_without(self, text: str, barrier: str) -> list[int]:
        """Return the ids of a text without those of ``barrier``, a character that keeps what stands on both sides of it
        from being read as one token."""
        text = self._renamed(text)
        encoded = self._inner.encode(text, add_special_tokens=False)
        tokens = zip(encoded.ids, encoded.offsets, strict=True)
        kept = [i for i, (start, end) in tokens if start == end or text[start:end] != barrier]
        return self._translate(self._our_ids, kept)

    def frame(self, default: TextFrame) -> TextFrame:
        """Return the special tokens around each text: the original's for an imported tokenizer, else ``default``."""
        if (template := self.template) is None:
            return default
        names = (template.before, template.after, template.between)
        return TextFrame(*(tuple(map(self._id_of, part)) for part in names))

    @property
    def ends(self) -> tuple[int, ...]:
        """Return the tokens besides eos that end a text, for a model imported with several."""
        template = self.template
        return () if template is None else tuple(map(self._id_of, template.ends))

    @cached_property
    def template(self) -> FrameTemplate | None:
        """Return the original's template of special tokens; None for a tokenizer that was not imported."""
        return read_template(self._inner)

    def with_template(self, template: FrameTemplate) -> "Tokenizer":
        """Return a tokenizer that puts other special tokens around each text."""
        other = copy.copy(self)
        other.__dict__["template"] = template
        return other

    def token_id(self, name: str) -> int:
        """Return the id of a special token by its name here.

        Raises:
            ConfigError: there is none.
        """
        return self._id_of(name)

    @property
    def original_names(self) -> Iterable[str]:
        """Return the names of all entries as the library has them."""
        return self._inner.get_vocab()

    def _id_of(self, name: str) -> int:
        found = self._inner.token_to_id(name)
        if found is None:
            raise ConfigError(f"tokenizer: its template names {name}, which it does not have")
        return int(self._our_ids[found])

    def with_special_tokens(self) -> "Tokenizer":
        """Return a tokenizer that encodes special tokens spelt out in a text, such as <|im_start|>, as these tokens."""
        other = copy.copy(self)
        other._inner = tokenizers.Tokenizer.from_str(self._inner.to_str())
        other._inner.encode_special_tokens = False
        originals = {} if self.template is None else self.template.originals
        other._our_names = {theirs: ours for ours, theirs in originals.items() if theirs != ours}
        return other

    def _renamed(self, text: str) -> str:
        """Replace the original's names of special tokens in ``text`` by ours."""
        if not self._our_names:
            return text
        pattern = "|".join(map(re.escape, sorted(self._our_names, key=len, reverse=True)))
        return re.sub(pattern, lambda found: self._our_names[found.group()], text)

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """Return the text of ids, without special tokens."""
        return self.decode_batch([ids])[0]

    def decode_batch(self, rows: Iterable[Iterable[SupportsInt]]) -> list[str]:
        """Return the text of each row of ids, without special tokens."""
        theirs = [self._translate(self._library_ids, [int(i) for i in ids]) for ids in rows]
        return self._inner.decode_batch(theirs, skip_special_tokens=True)

    def tag(self, name: str) -> int:
        """Return the id of the mark that a tag, such as 2de, puts before a text.

        Raises:
            ConfigError: the tokenizer has no such tag.
        """
        if (found := self._marks.get(tag_mark(name))) is None:
            known = ", ".join(self.tags) or "none, because no source of its training text had one"
            raise ConfigError(f"tag: no {name!r} here. Known: {known}.")
        return int(self._our_ids[found])

    @property
    def tags(self) -> list[str]:
        """Return the names of all tags, sorted."""
        return sorted(mark[len(_TAG) : -1] for mark in self._marks if mark.startswith(_TAG))

    def mark(self, *names: str) -> int:
        """Return the id of a mark by any of its ``names``, such as ⟨mask⟩, [MASK] and <mask>.

        Raises:
            ConfigError: the tokenizer has none of them.
        """
        if (found := self.find_mark(*names)) is None:
            raise ConfigError(f"tokenizer: has no {names[0]}: train one with the run, or load one that has it")
        return found

    def find_mark(self, *names: str) -> int | None:
        """Return the id of a mark by any of its ``names``; None where the tokenizer has none of them."""
        return next((int(self._our_ids[self._marks[name]]) for name in names if name in self._marks), None)

    @property
    def marks(self) -> set[int]:
        """Return the ids of all tokens that decode to no text, including padding, beginning and end."""
        return {int(self._our_ids[i]) for i in self._marks.values()}

    @property
    def special_spellings(self) -> list[str]:
        """Return the texts that ``with_special_tokens`` reads as special tokens: the tokenizer's names and, of an
        imported one, the original's."""
        originals = {} if self.template is None else self.template.originals
        return sorted({*self._marks, *originals.values()})

    @cached_property
    def _marks(self) -> dict[str, int]:
        """Return the library's ids of tokens that decode to no text, by name."""
        added = self._inner.get_added_tokens_decoder()
        return {token.content: i for i, token in added.items() if token.special}

    def token_texts(self, ids: Iterable[SupportsInt]) -> list[str]:
        """Return each token as readable text: the space before a word stays, and part of a character becomes a
        replacement character."""
        return [spelling.decode(errors="replace") for spelling in map(self.spelling, ids)]

    def spelling(self, token: SupportsInt) -> bytes:
        """Return the UTF-8 bytes of a token; none for a mark. The bytes of a text's tokens spell it, apart from the
        space that some tokenizers put before the first word.

        Raises:
            ConfigError: an imported tokenizer whose tokens are not spelt in bytes.
        """
        return self.spellings[int(token)]

    @cached_property
    def spellings(self) -> list[bytes]:
        """Return the UTF-8 bytes of every token, by id."""
        return spellings(self._inner, self._library_ids.tolist(), suppressed=set(self._marks.values()))

    def __len__(self) -> int:
        """Return the size of the vocabulary."""
        return len(self._library_ids)

    def entries(self) -> list[str]:
        """Return the library's spelling of each entry, in the order of our ids; unused ids get a name of ours."""
        names = {i: name for name, i in self._inner.get_vocab().items()}
        return [names.get(int(i), f"⟨unused {i}⟩") for i in self._library_ids]

    @property
    def special_rows(self) -> tuple[int, int, int]:
        """Return the library's ids for padding, beginning and end, which are not always 0, 1 and 2 there."""
        pad, bos, eos = self._library_ids[:3].tolist()
        return pad, bos, eos

    @property
    def inner(self) -> tokenizers.Tokenizer:
        """Return the library's tokenizer, with its original order of ids."""
        return self._inner

    def to_our_ids(self, ids: Iterable[int]) -> list[int]:
        """Convert ids of the library to ours."""
        return self._translate(self._our_ids, list(ids))

    def _translate(self, table: np.ndarray, ids: list[int]) -> list[int]:
        return ids if self._is_identity else table[np.asarray(ids, int)].tolist()


def _special_ids(inner: tokenizers.Tokenizer) -> list[int]:
    """Return the library's ids for padding, beginning and end, and make them special tokens there too."""
    ids: list[int] = []
    for ours, usual in zip(SPECIALS, _USUAL, strict=True):
        name = next((name for name in (ours, *usual) if inner.token_to_id(name) not in (None, *ids)), ours)
        inner.add_special_tokens([AddedToken(name, special=True, normalized=False)])
        token = inner.token_to_id(name)
        assert token is not None  # it was there, or has just been added
        ids.append(token)
    return ids


# ---- forks ----------------------------------------------------------------------------------------

_SWITCH = "TOKENIZERS_PARALLELISM"


def _before_fork() -> None:
    """Disable the library's threads before a fork, unless the user set them: they do not survive it, and it would
    warn."""
    global _switched
    _switched = _SWITCH not in os.environ
    if _switched:
        os.environ[_SWITCH] = "false"


def _after_fork_in_parent() -> None:
    if _switched:
        os.environ.pop(_SWITCH, None)


_switched = False
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
