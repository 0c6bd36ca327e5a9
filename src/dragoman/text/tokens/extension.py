"""Further pieces for a tokenizer that is in use: a new domain or language in fewer tokens, every old id as it was.

Pieces are joined of those that stood side by side in the new text, the most frequent pair first: byte-pair encoding
goes on where it ended. They come last in every decision, so a text is cut as before but for the places where such
pieces meet, which become one; text without them keeps its ids. Unigram does the same through scores: a joined piece has
the sum of its parts' and a trifle more, so that it wins where they would have stood, and nowhere else. Vocabularies of
whole words get the most frequent further words; of WordPiece too, where a word that begins with a new one is then cut
in another way.
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
"""Texts in memory while they are cut."""
TRIFLE = 1e-6
"""By which a joined unigram is likelier than its parts."""
_FIRST = 0x10000
"""The character that stands for the first piece while pairs are counted: behind all white space."""


@config
class Kept:
    """As it is."""

    def grown(self, tokenizer: Tokenizer, texts: Iterable[str]) -> Tokenizer:
        return tokenizer


@config
class Extended:
    """With further pieces, learned from the new text."""

    by: PositiveInt
    """Pieces that are added."""

    def grown(self, tokenizer: Tokenizer, texts: Iterable[str]) -> Tokenizer:
        return extend(tokenizer, texts, self.by)


VocabularyConfig = Annotated[Kept | Extended, OneOf()]


def extend(tokenizer: Tokenizer, texts: Iterable[str], by: int) -> Tokenizer:
    """``tokenizer`` and ``by`` pieces more, with ids behind its own.

    Raises:
        ConfigError: the texts yield fewer, or a tokenizer of bytes alone, which has no pieces.
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


def parts(old: Tokenizer, new: Tokenizer) -> list[list[int]]:
    """For each entry of ``new`` that ``old`` lacks: the ids that ``old`` would have made of it; none if it cannot."""
    suffix = json.loads(old.inner.to_str())["model"].get("end_of_word_suffix") or ""
    names = [name.removesuffix(suffix) for name in new.entries()[len(old) :]]
    return [old.ours(token.id for token in old.inner.model.tokenize(name)) for name in names]


def tokens_per_text(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    return sum(map(len, tokenizer.encode_batch(texts))) / max(len(texts), 1)


# ---- a tokenizer's description ---------------------------------------------------------------------


class VocabularyModel:
    """The model in the description of a tokenizer, to which pieces are added in place.

    Tokens that were added to it become entries of it: the library numbers them anew if they are not.
    """

    def __init__(self, content: dict[str, Any]):
        self.content = content["model"]
        self.joins: bool = self.content["type"] == "Unigram" or bool(self.content.get("merges"))
        """Whether it is made of pieces that can be joined; else it lists words."""
        added = {token["id"]: token["content"] for token in content["added_tokens"]}
        self.apart = {*added.values(), self.content.get("unk_token")}
        """Entries that are no pieces of text."""
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
        if isinstance(self.content["vocab"], list):
            self.content["vocab"].append([name, score])
        else:
            self.content["vocab"][name] = self.size
            self.size += 1
        self.scores[name] = score

    def join(self, left: Sequence[str], right: Sequence[str]) -> bool:
        """Make one piece of two, each of which was joined of these; whether it is a new entry."""
        a, b = self.spelt(left), self.spelt(right)
        name, new = self.spelt([*left, *right]), self.spelt([*left, *right]) not in self
        if new:
            self.append(name, sum(self.scores[piece] for piece in (*left, *right)) + TRIFLE * (len(left) + len(right)))
        if "merges" in self.content:
            self.content["merges"].append([a, b])
        return new

    def spelt(self, pieces: Sequence[str]) -> str:
        """Those after the first without the mark that older vocabularies put before the inside of a word."""
        prefix = self.content.get("continuing_subword_prefix") or ""
        return pieces[0] + "".join(piece.removeprefix(prefix) for piece in pieces[1:])


# ---- learning --------------------------------------------------------------------------------------


def _join(model: VocabularyModel, inner: tokenizers.Tokenizer, texts: Iterable[str], by: int) -> int:
    """Each piece becomes a character, each word a string of them: the library's trainer counts pairs of characters."""
    names: dict[str, str] = {}
    lines = [" ".join(_spell(word, names) for word in words) for words in _words_in_pieces(model, inner, texts)]
    pieces = {character: name for name, character in names.items()}
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wanted = len(names) + by + len(model.content["vocab"])  # more than enough: some pairs make an entry that is there
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
    """The words of each text; a word ends where the tokenizer, a space, or something that is no text ends it."""
    for chunk in chunks(texts, CHUNK):
        for encoding in inner.encode_batch(chunk, add_special_tokens=False):
            words: list[list[str]] = []
            last: int | None = None
            for piece, number in zip(encoding.tokens, encoding.word_ids, strict=True):
                if piece in model.apart or _is_byte(piece):
                    last = None
                    continue
                if last is None or number != last or piece.startswith(("▁", "Ġ")):
                    words.append([])
                words[-1].append(piece)
                last = number
            yield words


def _is_byte(piece: str) -> bool:
    """How SentencePiece writes the bytes of what it does not know: <0xC3>."""
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _list_words(model: VocabularyModel, inner: tokenizers.Tokenizer, texts: Iterable[str], by: int) -> int:
    cut = json.loads(inner.to_str())["pre_tokenizer"] or {"type": None}
    if cut["type"] is None or (cut["type"] == "ByteLevel" and not cut["use_regex"]):
        raise ConfigError(
            "start_from.vocabulary: this tokenizer does not cut texts into words or pieces: keep it as it is"
        )
    counts: Counter[str] = Counter()
    for text in texts:
        normal = inner.normalizer.normalize_str(text) if inner.normalizer else text
        counts.update(word for word, _ in inner.pre_tokenizer.pre_tokenize_str(normal) if word not in model)
    chosen = sorted(counts, key=lambda word: (-counts[word], word))[:by]
    for word in chosen:
        model.append(word)
    return len(chosen)
