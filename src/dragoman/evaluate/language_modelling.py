"""Perplexity of a language model on documents: per token, per byte and per word.

The perplexity per token depends on the tokenizer. Those per byte and per word do not, so that they compare models whose
tokenizers differ: each is the exponential of the same sum of negative log-likelihoods over another count.

N documents, P pieces.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from dragoman import __version__, durable
from dragoman.checkpoint import RunDirectory, run_config, run_folder
from dragoman.config import from_dict
from dragoman.data.padding import padded
from dragoman.data.tasks.usual import task_of
from dragoman.decode.generator import Generator
from dragoman.decode.search.ranking import log_prob_of
from dragoman.decode.search.strategy import not_numbers
from dragoman.decode.search.teacher_forcing import batches_by_length
from dragoman.errors import ConfigError, DataError
from dragoman.evaluate.metrics import Comparison, Metric, Score, compare_counts, score_of
from dragoman.json_files import json_text
from dragoman.model.interface import SequenceModel, Tokens
from dragoman.text.formats.documents import Texts
from dragoman.text.formats.instructions import between_of_run
from dragoman.text.formats.pairs import read_pairs
from dragoman.text.formats.several import guess_sources
from dragoman.text.lines import Pair
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import BOS, EOS, PROMPT_FRAME, Tokenizer

CONTEXT = 1024
"""Tokens read at once where neither the run nor the model has a limit."""
BATCH_TOKENS = 4096
_AT_ONCE = 512
"""Positions whose logits are held at a time."""
TOKENS, BYTES, WORDS = 1, 2, 3
"""Columns of the counts; the first one holds the negative log-likelihood."""

Progress = Any


@dataclass(frozen=True)
class EncodedDocument:
    """A document as the model reads it, and the size of its text."""

    ids: Sequence[int]
    bytes: float
    """Length of the scored text in UTF-8."""
    words: float
    """Words of the scored text, between white space."""
    prompt: int
    """Tokens at the beginning, one or more, that are read but not scored."""


class Perplexity(Metric):
    """Exponential of the mean negative log-likelihood of a unit of text."""

    higher_is_better = False

    def __init__(self, unit: str, column: int, signature: str):
        self.name, self.column, self.signature = f"perplexity per {unit}", column, signature

    def counts(self, outputs: Sequence[Any], references: Sequence[Any]) -> np.ndarray:
        raise NotImplementedError("perplexity is counted from log-probabilities, not from outputs")

    def value(self, counts: np.ndarray) -> float:
        mean = counts[0] / max(counts[self.column], 1e-9)
        return math.exp(mean) if mean < 700 else math.inf


class BitsPerByte(Metric):
    """Mean negative log-likelihood of a byte, in bits."""

    name, higher_is_better = "bits per byte", False

    def __init__(self, signature: str):
        self.signature = signature

    def counts(self, outputs: Sequence[Any], references: Sequence[Any]) -> np.ndarray:
        raise NotImplementedError("bits are counted from log-probabilities, not from outputs")

    def value(self, counts: np.ndarray) -> float:
        return float(counts[0] / math.log(2) / max(counts[BYTES], 1e-9))


LOWER_IS_BETTER = ("perplexity per token", "perplexity per byte", "perplexity per word", "bits per byte")
"""Names of the scores below."""


def metrics(context: int) -> dict[str, Metric]:
    """Return the scores of a language model that reads ``context`` tokens at once."""
    common = f"context:{context}|end:counted|version:{__version__}"
    return {
        "perplexity_token": Perplexity("token", TOKENS, f"tokens:model's own|{common}"),
        "perplexity_byte": Perplexity("byte", BYTES, f"bytes:UTF-8|{common}"),
        "perplexity_word": Perplexity("word", WORDS, f"words:between white space|{common}"),
        "bits_per_byte": BitsPerByte(f"bytes:UTF-8|{common}"),
    }


@dataclass(frozen=True)
class LanguageModelEvaluation:
    """Scores of a language model, and the counts of each document that they are made of."""

    scores: dict[str, Score]
    documents: Float[np.ndarray, "N 4"]
    """Negative log-likelihood, tokens, bytes and words of each document."""
    pieces: Float[np.ndarray, "P 4"]
    """The same of each piece that was read at once, which the intervals are over."""
    context: int
    test_set: str = ""
    """See ``folders.corpus_id``."""

    def summary(self) -> dict[str, Any]:
        """Return the scores and totals as plain data."""
        nll, tokens, size, words = self.documents.sum(axis=0).tolist()
        totals = {"documents": len(self.documents), "tokens": round(tokens), "bytes": round(size)}
        scores = {name: asdict(score) for name, score in self.scores.items()}
        known = {"scores": scores, **totals, "words": round(words), "nll": nll, "context": self.context}
        return known | {"test_set": self.test_set}

    def save(self, folder: str | Path) -> None:
        """Write scores.json and outputs.jsonl, a line for each document, all or nothing."""
        with durable.folder(Path(folder)) as new:
            durable.write(new / "scores.json", (json_text(self.summary(), indent=1) + "\n").encode())
            rows = (
                {"document": i, "nll": nll, "tokens": round(tokens), "bytes": size, "words": words}
                for i, (nll, tokens, size, words) in enumerate(self.documents.tolist(), 1)
            )
            durable.write(new / "outputs.jsonl", "".join(json_text(row) + "\n" for row in rows).encode())

    def against(self, other: "LanguageModelEvaluation") -> dict[str, Comparison]:
        """Return by how much ``other`` is better or worse on the same documents; documents are drawn anew.

        Raises:
            DataError: a single document, which leaves nothing to draw.
        """
        both = self.scores.keys() & other.scores.keys() - {"perplexity_token"}  # the two may have other tokenizers
        found = {name: metric for name, metric in metrics(self.context).items() if name in both}
        compared = {name: compare_counts(metric, self.documents, other.documents) for name, metric in found.items()}
        return {name: one for name, one in compared.items() if math.isfinite(one.p)}


def evaluate(
    generator: Generator,
    documents: Sequence[EncodedDocument],
    *,
    context: int = CONTEXT,
    progress: Progress | None = None,
    test_set: str = "",
) -> LanguageModelEvaluation:
    """Score each document, longer ones in pieces of ``context`` tokens, as in training.

    Intervals are over pieces drawn with replacement. A piece has its share of the bytes and words of its document.
    The perplexity per word is left out where it is not finite, as of scripts without spaces.

    Raises:
        DataError: nothing to score.
        CheckpointError: a model whose output is not numbers.
    """
    limit = generator.model.max_length
    context = context if limit is None else min(context, limit)
    pieces = [(i, *piece) for i, one in enumerate(documents) for piece in _pieces(one, context)]
    if not pieces:
        raise DataError("nothing to evaluate on: the test set has no text")
    nll = _nll(generator.model, [(ids, first) for _, ids, first in pieces], progress)
    owner = np.array([i for i, _, _ in pieces])
    tokens = np.array([len(ids) - 1 - first for _, ids, first in pieces], dtype=np.float64)
    in_all = np.bincount(owner, weights=tokens, minlength=len(documents))
    sizes = np.array([[one.bytes, one.words] for one in documents], dtype=np.float64)
    counts = np.column_stack([nll, tokens, sizes[owner] * (tokens / in_all[owner])[:, None]])
    per_document = np.stack(
        [np.bincount(owner, weights=column, minlength=len(documents)) for column in counts.T], axis=1
    )
    scores = {name: score_of(metric, counts) for name, metric in metrics(context).items()}
    scores = {name: one for name, one in scores.items() if np.isfinite([one.value, *one.interval]).all()}
    return LanguageModelEvaluation(scores, per_document, counts, context, test_set)


def log_likelihoods(generator: Generator, texts: Sequence[str], *, progress: Progress | None = None) -> list[float]:
    """Return the natural logarithm of the probability of each whole text, its end not counted.

    A text longer than the model reads is scored in pieces that follow one another.

    Raises:
        CheckpointError: a model whose output is not numbers.
    """
    context = generator.model.max_length or CONTEXT
    before = _begun(generator.tokenizer)
    encoded = generator.tokenizer.encode_batch(texts)
    rows = [EncodedDocument([*before, *ids], 0.0, 0.0, len(before)) for ids in encoded]
    pieces = [(i, piece) for i, row in enumerate(rows) for piece in _pieces(row, context)]
    nll = _nll(generator.model, [piece for _, piece in pieces], progress) if pieces else np.zeros(0)
    return (-np.bincount([i for i, _ in pieces], weights=nll, minlength=len(texts))).tolist()


def _pieces(document: EncodedDocument, context: int) -> Iterator[tuple[Sequence[int], int]]:
    """Yield ids, of which each but the first is predicted, and how many of these predictions are not scored."""
    for begin in range(0, len(document.ids) - 1, context):
        ids = document.ids[begin : begin + context + 1]
        first = min(max(0, document.prompt - 1 - begin), len(ids) - 1)
        if first < len(ids) - 1:
            yield ids, first


@torch.inference_mode()
def _nll(
    model: SequenceModel, pieces: Sequence[tuple[Sequence[int], int]], progress: Progress | None
) -> Float[np.ndarray, " P"]:
    found, done = np.zeros(len(pieces)), 0
    with model.without_dropout():
        for rows in batches_by_length([len(ids) for ids, _ in pieces], BATCH_TOKENS):
            ids = padded([pieces[i][0] for i in rows], model.device)
            hidden, wanted = model.hidden(Tokens(ids[:, :-1])).flatten(0, 1), ids[:, 1:].flatten()
            parts = zip(hidden.split(_AT_ONCE), wanted.split(_AT_ONCE), strict=True)
            log_probs = torch.cat([log_prob_of(model.logits(some), targets) for some, targets in parts])
            for i, values in zip(rows, log_probs.view(len(rows), -1).double().cpu(), strict=True):
                found[i] = -values[pieces[i][1] : len(pieces[i][0]) - 1].sum().item()
            done += len(rows)
            if progress:
                progress(done, len(pieces))
    if not np.isfinite(found).all():
        raise not_numbers()
    return found


# ---- documents ------------------------------------------------------------------------------------


def encode_documents(texts: Iterable[str], tokenizer: Tokenizer) -> list[EncodedDocument]:
    """Return documents as training stores them, each ended by EOS."""
    before, texts = _begun(tokenizer), list(texts)
    return [
        EncodedDocument([*before, *ids, EOS], len(text.encode()), len(text.split()), len(before))
        for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True)
    ]


def encode_answers(pairs: Sequence[Pair], between: str, tokenizer: Tokenizer) -> list[EncodedDocument]:
    """Return prompts with answers, of which only the answers are scored."""
    sources = tokenizer.encode_batch([pair.source + between for pair in pairs])
    prompts = [_begun(tokenizer, ids) for ids in sources]
    answers = tokenizer.encode_batch([pair.target for pair in pairs])
    return [
        EncodedDocument([*prompt, *ids, EOS], len(pair.target.encode()), len(pair.target.split()), len(prompt))
        for pair, prompt, ids in zip(pairs, prompts, answers, strict=True)
    ]


def stored_documents(folder: Path, tokenizer: Tokenizer) -> list[EncodedDocument]:
    """Return what a run has held out.

    Raises:
        DataError: it is gone or damaged.
    """
    documents = list[EncodedDocument]()
    for ids, prompt in _stored(folder, tokenizer):
        spelt, before = tokenizer.decode(ids[prompt:-1]), ids[:prompt] or [BOS]
        row = [*before, *ids[prompt:]]
        documents.append(EncodedDocument(row, len(spelt.encode()), len(spelt.split()), len(before)))
    return documents


def _stored(folder: Path, tokenizer: Tokenizer) -> Iterator[tuple[list[int], int]]:
    """Yield the ids of each stored text, and how many of them are its beginning or prompt."""
    store = Store.open(folder)
    text, counted = store.columns["text"], store.columns.get("counted")
    before = len(tokenizer.frame(PROMPT_FRAME).before)
    for i in range(len(store)):
        yield text[i].tolist(), before if counted is None else int(counted[i].argmax())


def _begun(tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> list[int]:
    """Return what the model reads before the first token that is scored: its beginning of texts and the prompt, or BOS
    where both are empty, since the first token of a text must be predicted from something."""
    return [*tokenizer.frame(PROMPT_FRAME).before, *prompt] or [BOS]


def _encoded_anew(folder: Path, run: str | Path, tokenizer: Tokenizer) -> list[EncodedDocument]:
    _, own = RunDirectory.open(run_folder(run)).tokenizers()
    begin = len(own.frame(PROMPT_FRAME).before)
    pairs = [Pair(own.decode(ids[begin:prompt]), own.decode(ids[prompt:-1])) for ids, prompt in _stored(folder, own)]
    if not any(pair.source for pair in pairs):
        return encode_documents((pair.target for pair in pairs), tokenizer)
    return encode_answers(pairs, "", tokenizer)


def is_language_model(config: dict[str, Any]) -> bool:
    """Return whether the run with this configuration continues text."""
    return task_of(config).get("kind") == "language_modelling"


def context_of(config: dict[str, Any]) -> int:
    """Return how many tokens a run has learnt to read at once."""
    return int((config.get("task") or {}).get("context", CONTEXT))


def documents_for(
    run: str | Path, named: str | None, tokenizer: Tokenizer, *, by_another: bool = False
) -> list[EncodedDocument]:
    """Return the documents of a file that a person names, cut as the run's own were; or what the run has held out.

    Args:
        tokenizer: that of the model which reads them.
        by_another: it is not the run's own, so that what was held out is decoded and encoded anew.

    Raises:
        ConfigError, DataError: a file that cannot be read, or one of a kind that holds no text.
    """
    config = run_config(run)
    data = config.get("data") or {}
    if named is None:
        folder = run_folder(run) / "data" / "valid"
        if not folder.is_dir():
            raise ConfigError(f"{run}: keeps no validation text: name a file to evaluate on")
        return _encoded_anew(folder, run, tokenizer) if by_another else stored_documents(folder, tokenizer)
    if data.get("kind") == "instructions":
        pairs = list(chain.from_iterable(map(read_pairs, guess_sources(named))))
        return encode_answers(pairs, between_of_run(config), tokenizer)
    cut = {name: data[name] for name in ("documents", "key") if data.get("kind") == "texts" and name in data}
    texts = from_dict(Texts, cut | {"files": [named]}, where="data")
    return encode_documents((document.text for document in texts.read(texts.files)), tokenizer)
