"""Vectors of sentences by the encoder of a run, for the matches of a translation memory.

The vector of a sentence is the mean of the encoder's states, or what an encoder trained for vectors returns. The mean
vector of many sentences is subtracted: vectors share a large part that tells nothing apart (Mu & Viswanath 2018,
"All-but-the-Top"), so that cosines of unrelated sentences would be high. Then the vector has length 1.

N sentences, S tokens, D width.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman import durable
from dragoman.checkpoint import RunDirectory, load_any
from dragoman.data.padding import padded
from dragoman.decode.knn import model_identity
from dragoman.decode.precision import on_device
from dragoman.decode.readers.embedder import Embedder
from dragoman.decode.search.strategy import not_numbers
from dragoman.decode.search.teacher_forcing import batches_by_length
from dragoman.errors import CheckpointError, DataError
from dragoman.model.contrastive import TwoTowers
from dragoman.model.encoder import Encoder
from dragoman.model.heads import Mean
from dragoman.model.inputs import TokenInput
from dragoman.model.recurrent.model import RecurrentModel
from dragoman.model.transformer import Transformer
from dragoman.text.corpus import source_rows
from dragoman.text.lines import Pair
from dragoman.text.tokens.tokenizer import Tokenizer

BATCH_TOKENS = 8192
"""Source tokens read at a time, padding included."""
MEAN = "mean.npy"
"""File of the mean vector, beside the run that ``SentenceEncoder.save`` writes."""

Pooling = Callable[[Sequence[str]], Float[Tensor, "N D"]]


class SentenceEncoder:
    """Encoder of a run, with the mean vector of its sentences."""

    def __init__(
        self, run: RunDirectory, pool: Pooling, identity: str, content: tuple[dict[str, Any], dict[str, Tensor]]
    ):
        """
        Args:
            run: where the encoder comes from.
            pool: returns the mean states of sentences.
            identity: digest of the model.
            content: configuration and weights of the model, which ``save`` writes.
        """
        self.run, self.pool, self.content, self.model_identity = run, pool, content, identity
        self.mean: Float[np.ndarray, " D"] | None = None

    @classmethod
    def load(cls, run: str | Path, checkpoint: str | int = "best", *, device: str = "auto") -> "SentenceEncoder":
        """Load the encoder of a translator, of an encoder of texts, or of the first of two towers.

        Raises:
            CheckpointError: no such run or checkpoint, a damaged one, or one without an encoder that reads text.
            ConfigError: no such device.
        """
        found, model, config = load_any(run, checkpoint)
        content = config, {name: tensor.detach() for name, tensor in model.state_dict().items()}
        identity = model_identity(model)
        model = model.first if isinstance(model, TwoTowers) else model
        if isinstance(model, Encoder) and isinstance(model.cfg.inputs, TokenInput):
            embedder = Embedder(on_device(model, device), found.tokenizers()[0], config)
            return cls(found, embedder.embed, identity, content)
        if not _reads_text(model):
            raise CheckpointError(
                f"{run}: its model has no encoder that reads texts as a whole: name a Transformer or recurrent "
                "translator, or an encoder of texts"
            )
        return cls(found, partial(_pooled, on_device(model, device), found.tokenizers()[0]), identity, content)

    @property
    def identity(self) -> str:
        """Digest of the model and of the mean vector."""
        mean = b"" if self.mean is None else self.mean.tobytes()
        return hashlib.sha256(self.model_identity.encode() + mean).hexdigest()

    def centre(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Set the mean vector to that of these sentences, and return their vectors."""
        states = self._states(texts)
        self.mean = states.mean(axis=0, dtype=np.float64).astype(np.float32)
        return self._directed(states)

    def vectors(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Return the vectors of sentences, in float32, at length 1."""
        return self._directed(self._states(texts))

    def _states(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        return self.pool(texts).float().cpu().numpy() if texts else np.empty((0, 0), np.float32)

    def _directed(self, states: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
        centred = states if self.mean is None or not len(states) else states - self.mean
        return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)

    # ---- the copy that a run keeps ------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the model and its mean vector as a run directory, so that the run that uses them needs no other."""
        config, weights = self.content
        copy = RunDirectory.create(folder, config)
        try:
            source, target = self.run.tokenizers()
            copy.write_tokenizers(source, target)
            copy.save(0, tensors={"model": weights}, progress={}, config=config)
        finally:
            copy.close()
        assert self.mean is not None, "the sentences of the run have been read"
        with (folder / MEAN).open("wb") as file:
            np.save(file, self.mean, allow_pickle=False)
        durable.flush(folder / MEAN)

    @classmethod
    def open(cls, folder: Path, *, device: str = "auto") -> "SentenceEncoder":
        """Load what ``save`` wrote.

        Raises:
            CheckpointError, DataError: it is missing or damaged.
        """
        encoder = cls.load(folder, "last", device=device)
        try:
            encoder.mean = np.load(folder / MEAN, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder / MEAN}: cannot be read: {error}: train the run again") from None
        return encoder


def _reads_text(model: object) -> TypeGuard[Transformer | RecurrentModel]:
    if isinstance(model, Transformer):
        return model.cfg.encoder is not None and model.cfg.source is None
    return isinstance(model, RecurrentModel) and model.cfg.encoder is not None


@torch.inference_mode()
def _pooled(model: Transformer | RecurrentModel, tokenizer: Tokenizer, texts: Sequence[str]) -> Float[Tensor, "N D"]:
    """Return the mean encoder states of texts; of a text that is too long, of its beginning.

    Raises:
        CheckpointError: a model whose output is not numbers.
    """
    rows = [row[: model.max_length] for row in source_rows(tokenizer, [Pair(text, "") for text in texts])]
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    with model.without_dropout():
        for batch in batches_by_length([len(row) for row in rows], BATCH_TOKENS):
            encoded = model.encode(padded([rows[i] for i in batch], model.device))
            memory = encoded[1] if isinstance(encoded, tuple) else encoded
            assert memory is not None, "the model has an encoder"
            for i, vector in zip(batch, Mean().pool(memory.x.float(), memory.positions.keep), strict=True):
                found[i] = vector
    stacked = torch.stack(found)
    if not bool(stacked.isfinite().all()):
        raise not_numbers()
    return stacked
