"""Extension of a tokenizer in use: further pieces, so that a new domain or language takes fewer tokens, with every old
id unchanged.

New pieces join adjacent pieces of the new text, the most frequent pair first: byte-pair encoding resumes where it
ended. They have the lowest priority, so a text is split as before except where such pieces meet, which become one; text
without them keeps its ids. Unigram does the same through scores: a joined piece has the sum of its parts' scores plus
``TRIFLE``, so that it wins where they would have been, and nowhere else. Vocabularies of whole words get the most
frequent further words. So do those of WordPiece, where a word that begins with a new one is then split differently.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import tokenizers
from pydantic import PositiveInt
from tokenizers import models, pre_tokenizers, trainers

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError
from dragoman.text.store import chunks
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import train_interruptibly

CHUNK = 1000
"""Number of texts in memory while they are tokenized."""
TRIFLE = 1e-6
"""Amount by which the score of a joined unigram exceeds the sum of its parts'."""
_FIRST = 0x10000
"""Code point of the first piece while pairs are counted: above all white space."""


@config
class Kept:
    """Vocabulary kept unchanged."""

    def extended(self, tokenizer: Tokenizer, texts: Iterable[str]) -> Tokenizer:
        """Return the tokenizer unchanged."""
        return tokenizer


@config
class Extended:
    """Vocabulary with further pieces, learned from the new text."""

    by: PositiveInt
    """Number of pieces to add."""

    def extended(self, tokenizer: Tokenizer, texts: Iterable[str]) -> Tokenizer:
        """Return the tokenizer with ``by`` further pieces."""
        return extend(tokenizer, texts, self.by)


VocabularyConfig = Annotated[Kept | Extended, OneOf()]


def extend(tokenizer: Tokenizer, texts: Iterable[str], by: int) -> Tokenizer:
    """Return ``tokenizer`` with ``by`` further pieces, whose ids follow its own.

    Raises:
        ConfigError: the texts yield fewer, or the tokenizer is of bytes alone, which has no pieces.
    """
    content = json.loads(tokenizer.inner.to_str())
    model = VocabularyModel(content)
    found = (_join if model.joins else _list_words)(model, tokenizer.inner, texts, by)
    if found < by:
        raise ConfigError(
            f"start_from.vocabulary: by={by}, but the text yields only {found} further pieces: set by={found} or less"
        )
    grown = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(content)))
    assert grown.entries()[: len(tokenizer)] == tokenizer.entries(), "an id has moved"
    return grown


def decompose_new_entries(old: Tokenizer, new: Tokenizer) -> list[list[int]]:
    """Return, for each entry of ``new`` that ``old`` lacks, the ids that ``old`` would have made of it; none if it
    cannot."""
    suffix = json.loads(old.inner.to_str())["model"].get("end_of_word_suffix") or ""
    names = [name.removesuffix(suffix) for name in new.entries()[len(old) :]]
    return [old.to_our_ids(token.id for token in old.inner.model.tokenize(name)) for name in names]


def tokens_per_text(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """Return the mean number of tokens per text."""
    return sum(map(len, tokenizer.encode_batch(texts))) / max(len(texts), 1)


# ---- a tokenizer's description ---------------------------------------------------------------------


class VocabularyModel:
    """Model part of a tokenizer's JSON description, to which pieces are added in place.

    Tokens that were added to the tokenizer become entries of the model: otherwise the library renumbers them.
    """

    def __init__(self, content: dict[str, Any]):
        self.content = content["model"]
        self.joins: bool = self.content["type"] == "Unigram" or bool(self.content.get("merges"))
        """True for a model of pieces that can be joined; False for a list of words."""
        added = {token["id"]: token["content"] for token in content["added_tokens"]}
        self.non_text = {*added.values(), self.content.get("unk_token")}
        """Entries that are not pieces of text."""
        if isinstance(self.content["vocab"], list):
            self.scores: dict[str, float] = {name: score for name, score in self.content["vocab"]}
            lowest = min(self.scores.values())
            for i in range(len(self.content["vocab"]), 1 + max(added, default=-1)):
                self.append(added.get(i, f"⟨unused {i}⟩"), lowest)
            self.size = len(self.content["vocab"])
        else:
            self.scores = dict.fromkeys(self.content["vocab"], 0.0)
            self.content["vocab"] |= {name: i for i, name in added.items() if name not in self.scores}
            self.size = 1 + max(self.content["vocab"].values())

    def __contains__(self, name: str) -> bool:
        return name in self.scores

    def append(self, name: str, score: float = 0.0) -> None:
        """Add an entry with the next id."""
        if isinstance(self.content["vocab"], list):
            self.content["vocab"].append([name, score])
        else:
            self.content["vocab"][name] = self.size
            self.size += 1
        self.scores[name] = score

    def join(self, left: Sequence[str], right: Sequence[str]) -> bool:
        """Join two pieces, each given by the pieces it was joined of. Return True if the result is a new entry."""
        a, b = self.spell(left), self.spell(right)
        name, new = self.spell([*left, *right]), self.spell([*left, *right]) not in self
        if new:
            self.append(name, sum(self.scores[piece] for piece in (*left, *right)) + TRIFLE * (len(left) + len(right)))
        if "merges" in self.content:
            self.content["merges"].append([a, b])
        return new

    def spell(self, pieces: Sequence[str]) -> str:
        """Join pieces into a name, without the prefix that WordPiece puts before the inside of a word."""
        prefix = self.content.get("continuing_subword_prefix") or ""
        return pieces[0] + "".join(piece.removeprefix(prefix) for piece in pieces[1:])


# ---- learning --------------------------------------------------------------------------------------


def _join(model: VocabularyModel, inner: tokenizers.Tokenizer, texts: Iterable[str], by: int) -> int:
    """Learn merges: each piece becomes a character and each word a string of them, so the library's trainer counts
    pairs."""
    names: dict[str, str] = {}
    lines = [" ".join(_spell(word, names) for word in words) for words in _words_in_pieces(model, inner, texts)]
    pieces = {character: name for name, character in names.items()}
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wanted = len(names) + by + len(model.content["vocab"])  # an upper bound: some pairs make an existing entry
    train_interruptibly(learner, trainers.BpeTrainer(vocab_size=wanted, min_frequency=2, show_progress=False), lines)
    found = 0
    for left, right in json.loads(learner.to_str())["model"]["merges"]:
        if found == by:
            break
        found += model.join([pieces[c] for c in left], [pieces[c] for c in right])
    return found


def _spell(word: Sequence[str], names: dict[str, str]) -> str:
    return "".join(names.setdefault(piece, chr(_FIRST + len(names))) for piece in word)


def _words_in_pieces(
    model: VocabularyModel, inner: tokenizers.Tokenizer, texts: Iterable[str]
) -> Iterator[list[list[str]]]:
    """Yield the words of each text as lists of pieces. A word ends where the tokenizer, a space, or a token that is not
    text ends it."""
    for chunk in chunks(texts, CHUNK):
        for encoding in inner.encode_batch(chunk, add_special_tokens=False):
            words: list[list[str]] = []
            last: int | None = None
            for piece, number in zip(encoding.tokens, encoding.word_ids, strict=True):
                if piece in model.non_text or _is_byte(piece):
                    last = None
                    continue
                if last is None or number != last or piece.startswith(("▁", "Ġ")):
                    words.append([])
                words[-1].append(piece)
                last = number
            yield words


def _is_byte(piece: str) -> bool:
    """Return True for SentencePiece's spelling of a byte of an unknown character: <0xC3>."""
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _list_words(model: VocabularyModel, inner: tokenizers.Tokenizer, texts: Iterable[str], by: int) -> int:
    cut = json.loads(inner.to_str())["pre_tokenizer"] or {"type": None}
    if cut["type"] is None or (cut["type"] == "ByteLevel" and not cut["use_regex"]):
        raise ConfigError(
            "start_from.vocabulary: this tokenizer does not split texts into words or pieces: use vocabulary: kept"
        )
    counts: Counter[str] = Counter()
    for text in texts:
        normal = inner.normalizer.normalize_str(text) if inner.normalizer else text
        counts.update(word for word, _ in inner.pre_tokenizer.pre_tokenize_str(normal) if word not in model)
    chosen = sorted(counts, key=lambda word: (-counts[word], word))[:by]
    for word in chosen:
        model.append(word)
    return len(chosen)
