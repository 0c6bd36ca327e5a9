"""Text to token ids and back, over Hugging Face `tokenizers`.

What is trained here works on UTF-8 bytes (written as the 256 printable symbols of GPT-2): nothing is unknown, and
decoding gives back every text to the character. A space is put before the text and taken off again, so that the first
word is the same token as inside a sentence. The special tokens are spelt with ⟨⟩, which no token made of bytes can be;
typed by a person they are text like any other. Padding is 0, the beginning of a sentence 1, its end 2, in every
vocabulary. Further ones, marks, stand for no text either: what hides a word, which language is asked for.
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
from dragoman.text.tokens.training import SPECIALS, Loaded, TokenizerConfig, learn

PAD, BOS, EOS = 0, 1, 2
PROMPT_FRAME, SOURCE_FRAME, INPUT_FRAME = TextFrame((BOS,)), TextFrame(after=(EOS,)), TextFrame((BOS,), (EOS,))
"""Around what a language model continues, what a translator reads and what an encoder reads, in models trained here."""

_USUAL = (  # what files call them; a role that a file has no token for gets ours
    ("<pad>", "[PAD]", "<|pad|>", "<blank>"),
    ("<s>", "<bos>", "[BOS]", "[CLS]", "<|startoftext|>", "<|begin_of_text|>"),
    ("</s>", "<eos>", "[EOS]", "[SEP]", "<|endoftext|>", "<|end_of_text|>"),
)

_TAG = "⟨tag "


def tag_mark(name: str) -> str:
    """How the mark of a tag is spelt.

    Raises:
        ConfigError: it is no word of letters, digits, - and _.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(f"tag: {name!r} is none: write letters, digits, - and _, as in 2de or bt")
    return f"{_TAG}{name}⟩"


# ---- the tokenizer --------------------------------------------------------------------------------


class Tokenizer:
    """Turns text to ids and back; adds no special tokens when encoding, and drops them when decoding."""

    pad, bos, eos = PAD, BOS, EOS

    def __init__(self, inner: tokenizers.Tokenizer):
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True  # "</s>" in a sentence is text, not an instruction
        theirs = _special_ids(inner)
        rest = np.setdiff1d(np.arange(1 + max(inner.get_vocab().values())), theirs)
        self._inner = inner
        self._theirs = np.concatenate([theirs, rest])  # our id -> the library's: specials come first with us
        self._ours = np.argsort(self._theirs)
        self._ours_of: dict[str, str] = {}
        self._same = bool((self._theirs[:-1] < self._theirs[1:]).all())

    @classmethod
    def train(cls, cfg: TokenizerConfig, texts: Iterable[str], marks: Sequence[str] = ()) -> "Tokenizer":
        """A tokenizer for ``texts``; the same texts in the same order give the same file to the byte. It has ``marks``,
        such as ⟨mask⟩, besides the tokens that ``cfg`` asks for.

        Raises:
            ConfigError: a vocabulary larger than the texts yield.
            DataError: a file that cannot be loaded.
        """
        inner = cls.load(cfg.path)._inner if isinstance(cfg, Loaded) else learn(cfg, texts)
        inner.post_processor = None  # pyright: ignore[reportAttributeAccessIssue]  # training frames texts itself
        inner.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
        return cls(inner)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read what ``save`` wrote, or any file of the library. Special tokens are found by their usual names.

        Raises:
            DataError: no such file, or none of the library's.
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
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._inner.encode_batch_fast([self._renamed(text) for text in texts], add_special_tokens=False)
        return [self._translate(self._ours, one.ids) for one in encoded]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids, and of each its first character in ``text`` and the one after its last: the space before a word is
        part of it, and tokens that are parts of one character have that character's both."""
        encoded = self._inner.encode(text, add_special_tokens=False)
        return self._translate(self._ours, encoded.ids), encoded.offsets

    def frame(self, default: TextFrame) -> TextFrame:
        """Return the special tokens around each text: those of the original for an imported tokenizer, else
        ``default``."""
        if (template := self.template) is None:
            return default
        names = (template.before, template.after, template.between)
        return TextFrame(*(tuple(map(self._id_of, part)) for part in names))

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a text besides eos, of a model imported with several."""
        template = self.template
        return () if template is None else tuple(map(self._id_of, template.ends))

    @cached_property
    def template(self) -> FrameTemplate | None:
        """How the original frames a text; None for a tokenizer that was not imported."""
        return read_template(self._inner)

    def _id_of(self, name: str) -> int:
        found = self._inner.token_to_id(name)
        if found is None:
            raise ConfigError(f"tokenizer: its template names {name}, which it does not have")
        return int(self._ours[found])

    def reading_special_tokens(self) -> "Tokenizer":
        """Return the same tokenizer, which reads special tokens that are spelt out in a text, such as <|im_start|>, as
        these tokens."""
        other = copy.copy(self)
        other._inner = tokenizers.Tokenizer.from_str(self._inner.to_str())
        other._inner.encode_special_tokens = False
        originals = {} if self.template is None else self.template.originals
        other._ours_of = {theirs: ours for ours, theirs in originals.items() if theirs != ours}
        return other

    def _renamed(self, text: str) -> str:
        """Put our names for the special tokens of the original that are to be read in ``text``."""
        if not self._ours_of:
            return text
        pattern = "|".join(map(re.escape, sorted(self._ours_of, key=len, reverse=True)))
        return re.sub(pattern, lambda found: self._ours_of[found.group()], text)

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        return self.decode_batch([ids])[0]

    def decode_batch(self, rows: Iterable[Iterable[SupportsInt]]) -> list[str]:
        theirs = [self._translate(self._theirs, [int(i) for i in ids]) for ids in rows]
        return self._inner.decode_batch(theirs, skip_special_tokens=True)

    def tag(self, name: str) -> int:
        """The id of the mark that a tag, such as 2de, stands as before a text.

        Raises:
            ConfigError: the tokenizer has none of that name.
        """
        if (found := self._marks.get(tag_mark(name))) is None:
            known = ", ".join(self.tags) or "none, because no source of its training text had one"
            raise ConfigError(f"tag: no {name!r} here. Known: {known}.")
        return int(self._ours[found])

    @property
    def tags(self) -> list[str]:
        """All that there are."""
        return sorted(mark[len(_TAG) : -1] for mark in self._marks if mark.startswith(_TAG))

    def mark(self, *names: str) -> int:
        """The id of a mark, by any of the ``names`` it may go by, such as ⟨mask⟩, [MASK] and <mask>.

        Raises:
            ConfigError: the tokenizer has none of them.
        """
        if (found := self.find_mark(*names)) is None:
            raise ConfigError(f"tokenizer: has no {names[0]}: train one with the run, or load one that has it")
        return found

    def find_mark(self, *names: str) -> int | None:
        """The same; None where the tokenizer has none of them."""
        return next((int(self._ours[self._marks[name]]) for name in names if name in self._marks), None)

    @property
    def marks(self) -> set[int]:
        """The ids of all that stands for no text: padding, beginning and end too."""
        return {int(self._ours[i]) for i in self._marks.values()}

    @cached_property
    def _marks(self) -> dict[str, int]:
        """The library's ids of what stands for no text, by name."""
        added = self._inner.get_added_tokens_decoder()
        return {token.content: i for i, token in added.items() if token.special}

    def pieces(self, ids: Iterable[SupportsInt]) -> list[str]:
        """Each token by itself, for people: the space before a word stays, half of a character is a question mark."""
        return [spelt.decode(errors="replace") for spelt in map(self.spelling, ids)]

    def spelling(self, token: SupportsInt) -> bytes:
        """The UTF-8 bytes that a token stands for; none for a mark. Those of a text's tokens, end to end, spell
        it, but for the space before the first word where the tokenizer puts one.

        Raises:
            ConfigError: a tokenizer made elsewhere, whose tokens are not spelt in bytes.
        """
        return self.spellings[int(token)]

    @cached_property
    def spellings(self) -> list[bytes]:
        return spellings(self._inner, self._theirs.tolist(), suppressed=set(self._marks.values()))

    def __len__(self) -> int:
        """Size of the vocabulary."""
        return len(self._theirs)

    def entries(self) -> list[str]:
        """How the library writes each entry, in the order of our ids; ids that it does not use have a name of ours."""
        names = {i: name for name, i in self._inner.get_vocab().items()}
        return [names.get(int(i), f"⟨unused {i}⟩") for i in self._theirs]

    @property
    def special_rows(self) -> tuple[int, int, int]:
        """The library's ids for padding, beginning and end: with it those need not stand first."""
        pad, bos, eos = self._theirs[:3].tolist()
        return pad, bos, eos

    @property
    def inner(self) -> tokenizers.Tokenizer:
        """The library's, whose ids are in the order that it was given them."""
        return self._inner

    def ours(self, ids: Iterable[int]) -> list[int]:
        """Our ids for those of the library."""
        return self._translate(self._ours, list(ids))

    def _translate(self, table: np.ndarray, ids: list[int]) -> list[int]:
        return ids if self._same else table[np.asarray(ids, int)].tolist()


def _special_ids(inner: tokenizers.Tokenizer) -> list[int]:
    """The library's ids for padding, beginning and end, which from here on are special to it too."""
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
    """The library's threads do not survive a fork: unless the user decided, the child goes without, unwarned."""
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
