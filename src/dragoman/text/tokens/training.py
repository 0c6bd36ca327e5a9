"""Training a vocabulary on text: the choices, and how each is made.

All work on UTF-8 bytes, written as the 256 printable symbols of GPT-2, so that nothing is unknown.
"""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from queue import Full, Queue
from threading import Thread
from typing import Annotated, assert_never

import tokenizers
from pydantic import Field
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from dragoman.config import OneOf, config
from dragoman.errors import VocabularyError
from dragoman.text.tokens.unigram import train_unigram

SPECIALS = ["⟨pad⟩", "⟨bos⟩", "⟨eos⟩"]
"""Padding, beginning and end of a text; no token made of bytes can be spelt so."""
_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
SMALLEST = len(SPECIALS) + len(_BYTES)
_CHUNK = 1_000
"""Number of texts handed to the trainer at a time."""

# ---- choices --------------------------------------------------------------------------------------

Size = Annotated[int, Field(ge=SMALLEST)]
"""Total number of tokens, including the 3 special ones and the 256 bytes."""


@config
class Bpe:
    """Byte-pair encoding (Sennrich et al. 2016) on bytes."""

    vocab: Size
    """Total number of tokens, including the 3 special ones and the 256 bytes."""


@config
class Unigram:
    """Unigram language model (Kudo 2018) on bytes."""

    vocab: Size
    """Total number of tokens, including the 3 special ones and the 256 bytes."""


@config
class Words:
    """Whole words, with bytes for those outside the vocabulary."""

    vocab: Size
    """Total number of tokens: the most frequent words, and bytes to spell the others with."""


@config
class Characters:
    """Single characters, with bytes for those outside the vocabulary."""

    vocab: Size | None = None
    """Total number of tokens: the most frequent characters, and bytes to spell the others with; None for all that
    occur."""


@config
class Bytes:
    """Bytes alone: 256 tokens and the 3 special ones."""


@config
class Loaded:
    """Tokenizer loaded from a file."""

    path: str
    """Path of a JSON file of the `tokenizers` library, trained elsewhere."""


TokenizerConfig = Annotated[Bpe | Unigram | Words | Characters | Bytes | Loaded, OneOf()]


def train_tokenizer(cfg: Bpe | Unigram | Words | Characters | Bytes, texts: Iterable[str]) -> tokenizers.Tokenizer:
    """Train the library's tokenizer on ``texts``; the same texts in the same order give the same file to the byte.

    Raises:
        VocabularyError: ``vocab`` is larger than the texts yield.
    """
    match cfg:
        case Bpe():
            return _train_bpe(cfg.vocab, texts)
        case Unigram():
            return _train_unigram(cfg.vocab, texts)
        case Words():
            return _list_words(cfg.vocab, texts)
        case Characters():
            return _list_characters(cfg.vocab, texts)
        case Bytes():
            return _byte_level(_vocabulary_model(Counter(), None), _in_one_piece(), space=False)
        case _:
            assert_never(cfg)


# ---- splitting text into words ----------------------------------------------------------------------

PreTokenizer = pre_tokenizers.PreTokenizer


def _in_words() -> PreTokenizer:
    """Return GPT-2's pre-tokenizer: words with the space before them, numbers, runs of punctuation, runs of white
    space."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _in_characters() -> PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"), _in_one_piece()])


def _in_one_piece() -> PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _byte_level(model: models.Model, cut: PreTokenizer, *, space: bool) -> tokenizers.Tokenizer:
    """Return a byte-level tokenizer with the pre-tokenizer ``cut``. With ``space`` a space is put before the first
    word, so that it is written like the others."""
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = cut
    inner.decoder = decoders.ByteLevel()
    if space:
        inner.normalizer = normalizers.Prepend(" ")
        inner.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    return inner


def _train_bpe(vocab: int, texts: Iterable[str]) -> tokenizers.Tokenizer:
    inner = _byte_level(models.BPE(), _in_words(), space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,  # a pair of symbols that occurs once does not generalise
        special_tokens=SPECIALS,
        initial_alphabet=_BYTES,
        show_progress=False,
    )
    train_interruptibly(inner, trainer, texts)
    _check_size(vocab, inner.get_vocab_size())
    return inner


def _train_unigram(vocab: int, texts: Iterable[str]) -> tokenizers.Tokenizer:
    pieces = train_unigram(_count_words(texts), vocab - len(SPECIALS), _BYTES)
    _check_size(vocab, len(SPECIALS) + len(pieces))
    return _byte_level(models.Unigram([*((name, 0.0) for name in SPECIALS), *pieces]), _in_words(), space=True)


def _list_words(vocab: int, texts: Iterable[str]) -> tokenizers.Tokenizer:
    return _byte_level(_vocabulary_model(_count_words(texts), vocab), _in_words(), space=True)


def _list_characters(vocab: int | None, texts: Iterable[str]) -> tokenizers.Tokenizer:
    counts, cut = Counter[str](), _in_one_piece()
    for text in texts:
        counts.update(text)
    symbols = Counter({cut.pre_tokenize_str(character)[0][0]: n for character, n in counts.items()})
    return _byte_level(_vocabulary_model(symbols, vocab), _in_characters(), space=False)


def _count_words(texts: Iterable[str]) -> Counter[str]:
    """Count the words of the texts, written in byte symbols."""
    cut = _in_words()
    return Counter(word for text in texts if text for word, _ in cut.pre_tokenize_str(" " + text))


def _vocabulary_model(counts: Counter[str], vocab: int | None) -> models.BPE:
    """Return a model of the bytes and the most frequent tokens, without merges: other tokens fall apart into bytes."""
    longer = sorted((-n, token) for token, n in counts.items() if len(token) > 1)
    vocab = SMALLEST + len(longer) if vocab is None else vocab
    _check_size(vocab, SMALLEST + len(longer))
    listed = [*SPECIALS, *_BYTES, *(token for _, token in longer[: vocab - SMALLEST])]
    return models.BPE({token: i for i, token in enumerate(listed)}, [], ignore_merges=True)


def _check_size(wanted: int, found: int) -> None:
    if found < wanted:
        raise VocabularyError(
            f"tokenizer: vocab={wanted}, but the text yields only {found} tokens: set tokenizer.vocab={found} or less",
            found,
        )


_LOOK = 0.2
"""Seconds after which a waiting thread looks whether it was interrupted."""


def _put(chunks: "Queue[list[str] | None]", chunk: list[str] | None) -> None:
    while True:
        with suppress(Full):
            return chunks.put(chunk, timeout=_LOOK)


def train_interruptibly(inner: tokenizers.Tokenizer, trainer: trainers.Trainer, texts: Iterable[str]) -> None:
    """Run ``inner.train_from_iterator`` in a thread of its own: it ignores signals and may take minutes. Ctrl-C
    interrupts this thread, and the other ends with the process. The texts are read in this thread, since their files
    may be bound to it."""
    chunks: Queue[list[str] | None] = Queue(maxsize=4)
    handed_over = iter(chunks.get, None)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            inner.train_from_iterator(handed_over, trainer)
        except BaseException as error:
            failures.append(error)
            for _ in handed_over:  # drain the queue, or the other thread would wait for room
                pass

    thread, rest = Thread(target=work, daemon=True), iter(texts)
    thread.start()
    while chunk := list(islice(rest, _CHUNK)):
        _put(chunks, chunk)
    _put(chunks, None)
    while thread.is_alive():  # a signal may wake another thread than this one, which then looks in time
        thread.join(_LOOK)
    if failures:
        raise failures[0]
