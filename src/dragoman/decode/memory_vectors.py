"""Vectors of a translation memory, computed once and kept beside the run: a file for each memory and encoder.

    runs/NAME/data/encoder/                    the encoder, as a run of its own
    runs/NAME/vectors/ENCODER-MEMORY.vectors   one line of JSON, then N x D numbers in float32

N sentences, D width.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from dragoman import durable
from dragoman.checkpoint import run_folder
from dragoman.errors import CheckpointError
from dragoman.text.memory import TranslationMemory
from dragoman.text.retrieval import NO_MATCHER, FuzzyMatches, MemoryMatcher, NoMatcher, retrieval_of_run

if TYPE_CHECKING:
    from dragoman.decode.sentence_encoder import SentenceEncoder

DATA, ENCODER, VECTORS = "data", "encoder", "vectors"
"""Folders of a run: its data, its encoder of matches in these, and the vectors of memories."""
KEPT = 4
"""Files that are kept, the newest ones: a memory that grows leaves one for each of its states."""
DTYPE = np.dtype("<f4")

log = logging.getLogger(__name__)


class MemoryVectors:
    """Vectors of a memory, from a file where there is one, and of queries, each computed by itself."""

    def __init__(self, encoder: "SentenceEncoder", folder: Path):
        """
        Args:
            folder: where the vectors of memories are kept.
        """
        self.encoder, self.folder = encoder, folder

    def of_memory(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Return the vectors of sentences; they are computed and kept where no file has them."""
        facts = {"encoder": self.encoder.identity, "memory": _digest(texts)}
        path = self.folder / f"{facts['encoder'][:16]}-{facts['memory'][:16]}.vectors"
        known = _read(path, facts)
        if known is None:
            known = self.encoder.vectors(texts).astype(DTYPE)
            self._keep(path, facts, known)
        return known

    def of_queries(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Return the vector of each sentence, which does not depend on the others."""
        return np.concatenate([self.encoder.vectors([text]) for text in texts])

    def _keep(self, path: Path, facts: Mapping[str, str], vectors: Float[np.ndarray, "N D"]) -> None:
        content = vectors.tobytes()
        header = {**facts, "shape": vectors.shape, "sha256": hashlib.sha256(content).hexdigest()}
        try:
            self.folder.mkdir(exist_ok=True)
            durable.replace(path, json.dumps(header).encode() + b"\n" + content)
        except OSError as error:  # such as a run that may only be read
            log.warning("%s: the memory's vectors are not kept: %s", path, error.strerror or error)
            return
        for old in sorted(self.folder.glob("*.vectors"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)


def _read(path: Path, facts: Mapping[str, str]) -> np.ndarray | None:
    """Return the vectors in a file; None where it is missing, damaged, or of another encoder or memory."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        header, _, content = path.read_bytes().partition(b"\n")
        found: dict[str, Any] = json.loads(header)
        intact = hashlib.sha256(content).hexdigest() == found["sha256"]
        if intact and all(found[name] == value for name, value in facts.items()):
            return np.frombuffer(content, DTYPE).reshape(found["shape"])
        log.warning("%s: damaged, or of another encoder or memory: the vectors are computed again", path)
    return None


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def load_matcher(
    run: str | Path, config: Mapping[str, Any], memory: TranslationMemory | None, device: str = "auto"
) -> NoMatcher:
    """Return the matcher of a run with a memory; one that finds nothing where there is no memory, or where the run has
    not learnt to read matches.

    Args:
        run: a run directory, or one of its checkpoints.
        config: the configuration of the run.

    Raises:
        ConfigError: a library is missing.
        CheckpointError, DataError: the run's encoder of matches is missing or damaged.
    """
    cfg = retrieval_of_run(config)
    if memory is None or not isinstance(cfg, FuzzyMatches):
        return NO_MATCHER
    if cfg.encoder is None:
        return MemoryMatcher(cfg, memory)
    from dragoman.decode.sentence_encoder import SentenceEncoder  # here, because few translators need it

    folder = run_folder(run)
    kept = folder / DATA / ENCODER
    if not kept.is_dir():
        raise CheckpointError(
            f"{kept}: the encoder that finds matches for this run is missing: copy the folder from where "
            "the run was trained, or translate without --memory"
        )
    encoder = SentenceEncoder.open(kept, device=device)
    return MemoryMatcher(cfg, memory, MemoryVectors(encoder, folder / VECTORS))
