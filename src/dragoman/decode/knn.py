"""Nearest-neighbour translation (kNN-MT; Khandelwal et al., arXiv:2010.00710): a datastore of decoder states.

A datastore holds, for each token of given translations, the state of the decoder before it (the input of the output
layer) and the token. While decoding, the tokens of the k nearest states vote, each with exp(-distance / temperature),
and their distribution is mixed into the model's own (equations 2 and 3). New text is learnt without training.

R rows, T tokens of a row, D width, V vocabulary, N stored states, k neighbours.
"""

import hashlib
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from dragoman.capabilities import TRANSLATES, check
from dragoman.checkpoint import load_writer
from dragoman.config import config
from dragoman.data.padding import padded
from dragoman.decode.generation_settings import read_generation_settings
from dragoman.decode.languages import read_languages
from dragoman.decode.precision import on_device
from dragoman.decode.search.teacher_forcing import batches_by_length, shifted
from dragoman.decode.state_index import StateIndex, build_state_index
from dragoman.errors import ConfigError, DataError
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import KVPolicy
from dragoman.model.interface import DecodingState, Frames, SequenceModel, Tokens
from dragoman.text.cleaning.clean import normalise_pair
from dragoman.text.corpus import source_rows
from dragoman.text.lines import Pair, Sourced
from dragoman.text.store import MANIFEST, Store, create_store
from dragoman.text.tokens.tokenizer import EOS
from dragoman.text.vector_index import required_library

CHUNK = 1 << 16
"""Stored states whose distances are computed at a time."""
IN_MEMORY = 1 << 30
"""Largest datastore, in bytes of float32, that is kept in memory; a larger one is read from its file at each step."""
SAMPLE = 1024
"""Elements at both ends of each weight that identify a model."""

READS = 2
"""Version of what is read to build a datastore; in 1, which is not noted, sources had no tags and no context."""

Progress = Callable[[int, int], None]
"""Called with the pairs done and their number."""


@config
class NearestNeighbours:
    """Votes of the nearest states of a datastore."""

    store: str
    """Folder of the datastore."""
    k: PositiveInt = 8
    """Number of neighbours."""
    temperature: PositiveFloat = 10.0
    """Divisor of squared distances: higher values even the votes out."""
    weight: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Weight of the votes, lambda; the model's own distribution has the rest."""
    search: Literal["exact", "approximate"] = "exact"
    """Search for the nearest states; approximate needs the index that `dragoman datastore --index` writes."""

    def attach(self, model: SequenceModel, identity: str, place: str, before: Sequence[str] = ()) -> "NeighbourModel":
        """Return the model with votes.

        Args:
            identity: that of the model as it was trained: see ``model_identity``.
            place: the run, for messages.
            before: what the run may read before a source: tags, context.

        Raises:
            DataError: no datastore there, or a damaged one.
            ConfigError: it was built with another model, or from sources without what the run reads before them, or has
                no index for approximate search.
        """
        datastore = Datastore(self.store, approximate=self.search == "approximate")
        if datastore.identity != identity:
            raise ConfigError(
                f"{self.store}: was built with another model than that of {place}: build it again (dragoman datastore)"
            )
        if before and datastore.reads < READS:
            raise ConfigError(
                f"{self.store}: an earlier version built it without the {' and '.join(before)} of sources, which "
                f"{place} reads: build it again (dragoman datastore)"
            )
        return NeighbourModel(model, datastore, self)


# ---- the datastore ------------------------------------------------------------------------------------


class Datastore:
    """States in float16 with their tokens, mapped into memory."""

    def __init__(self, folder: str | Path, *, approximate: bool = False):
        """
        Args:
            approximate: search the index beside the states, where most of the nearest are found.

        Raises:
            DataError: no datastore there, or a damaged one.
            ConfigError: no index there, or the library for it is missing.
        """
        store = Store.open(folder) if (Path(folder) / MANIFEST).exists() else None
        if store is None or {"key", "token"} != store.columns.keys():
            there = "is no datastore" if Path(folder).exists() else "no such datastore"
            raise DataError(f"{folder}: {there}: `dragoman datastore RUN PAIRS -o {folder}` makes one")
        self.identity, self.width = str(store.facts["model"]), int(store.facts["width"])
        self.reads = int(store.facts.get("reads", 1))
        self.keys = store.columns["key"].ids.reshape(-1, self.width)
        self.tokens = torch.from_numpy(np.array(store.columns["token"].ids, np.int64))
        self.index = StateIndex(Path(folder), *self.keys.shape) if approximate else None
        self.kept: Tensor | None = None
        if self.index is not None:
            return
        if self.keys.size * 4 <= IN_MEMORY:
            self.kept = torch.from_numpy(np.array(self.keys, np.float32))
        self.norms = torch.cat([(self._keys(start) ** 2).sum(dim=1) for start in range(0, len(self), CHUNK)])

    def __len__(self) -> int:
        return len(self.tokens)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Datastore":
        """Return the datastore itself: copies of a model share it, as it is only read."""
        return self

    def nearest(self, queries: Float[Tensor, "R D"], k: int) -> tuple[Float[Tensor, "R k"], Int[Tensor, "R k"]]:
        """Return squared distances and tokens of the ``k`` nearest states, or of all where there are fewer. Search is
        exact, unless an index is searched."""
        queries = queries.float().cpu()
        if self.index is not None:
            distances, rows = map(torch.from_numpy, self.index.nearest(queries.numpy(), min(k, len(self))))
            return distances, self.tokens[rows]
        best, rows = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
        for start in range(0, len(self), CHUNK):
            keys = self._keys(start)
            distances = self.norms[start : start + len(keys)] - 2 * queries @ keys.T
            distances, found = distances.topk(min(k, len(keys)), largest=False)
            best, rows = torch.cat([best, distances], dim=1), torch.cat([rows, found + start], dim=1)
            best, chosen = best.topk(min(k, best.shape[1]), largest=False)
            rows = rows.gather(1, chosen)
        return (best + (queries**2).sum(dim=1, keepdim=True)).clamp(min=0), self.tokens[rows]

    def _keys(self, start: int) -> Float[Tensor, "_ D"]:
        if self.kept is not None:
            return self.kept[start : start + CHUNK]
        return torch.from_numpy(np.array(self.keys[start : start + CHUNK], np.float32))


def build_datastore(
    run: str | Path,
    pairs: Sequence[Pair | Sourced],
    folder: str | Path,
    checkpoint: str | int = "best",
    *,
    device: str = "auto",
    batch_tokens: int = 4096,
    index: bool = False,
    source_language: str | None = None,
    target_language: str | None = None,
    progress: Progress | None = None,
) -> int:
    """Build a datastore of the states with which a translator reads given translations; return the number of states.

    Args:
        run: a run directory, or one of its checkpoints.
        pairs: texts with their translations, and what the run reads before a source: tags, context and matches.
        folder: where the datastore goes; an earlier one is replaced when the new one is complete.
        checkpoint: ``best``, ``last``, a step number, or the name of a checkpoint.
        batch_tokens: tokens of both sides read at a time, padding included.
        index: also write an index for approximate search.
        source_language, target_language: those of the pairs, for an imported model for many languages.

    Raises:
        CheckpointError: no such run or checkpoint, or one whose model is no translator.
        ConfigError: an index without the library for it, or a language that the model does not have.
        DataError: no pairs, or the folder holds something else.
    """
    if index:
        required_library()  # before anything is computed
    model, source_tokenizer, target_tokenizer, _ = load_writer(run, checkpoint)
    check(run, model, TRANSLATES)
    languages = read_languages(run, source_tokenizer)
    languages.check(source_language, target_language)
    source_tokenizer = languages.framed(source_tokenizer, source_language, target_language)
    defaults = read_generation_settings(run, target_tokenizer, translates=True)
    first = languages.first(target_tokenizer, target_language) or defaults.first_token
    identity, model = model_identity(model), on_device(model, device)
    tidy = [pair for pair in map(normalise_pair, pairs) if pair.source and pair.target]
    sources = source_rows(source_tokenizer, tidy, model.max_length)
    targets = [[*ids, EOS] for ids in target_tokenizer.encode_batch([pair.target for pair in tidy])]
    longest = model.max_length
    answers = targets if first is None else [first.before(ids, len(target_tokenizer)) for ids in targets]
    lengths = [max(map(len, row)) for row in zip(sources, answers, strict=True)]
    fit = [i for i, length in enumerate(lengths) if longest is None or length <= longest]
    if not fit:
        raise DataError("no pairs to build a datastore of")
    count = done = 0
    with create_store(Path(folder), {"key": "<f2", "token": len(target_tokenizer)}) as store, model.without_dropout():
        for some in batches_by_length([len(sources[i]) + len(answers[i]) for i in fit], batch_tokens):
            rows = [fit[i] for i in some]
            read = _states(model, [sources[i] for i in rows], [answers[i] for i in rows])
            states = [each[-len(targets[i]) :] for each, i in zip(read, rows, strict=True)]
            store.write(key=[state.ravel() for state in states], token=[targets[i] for i in rows])
            count, done = count + sum(map(len, states)), done + len(rows)
            if progress:
                progress(done, len(fit))
        store.facts = {"width": model.output.weight.shape[1], "model": identity, "pairs": done, "reads": READS}
    if index:
        keys = Store.open(folder).columns["key"].ids
        build_state_index(Path(folder), keys.reshape(count, -1))
    return count


@torch.inference_mode()
def _states(model: SequenceModel, sources: list[list[int]], targets: list[list[int]]) -> list[np.ndarray]:
    """Return the states (T, D) before the tokens of each target."""
    target = padded(targets, model.device)
    hidden = model.hidden(shifted(target), padded(sources, model.device)).float().cpu().numpy()
    return [states[: len(ids)].astype(np.float16) for states, ids in zip(hidden, targets, strict=True)]


def model_identity(model: nn.Module) -> str:
    """Return a digest of a model's weights, as it was trained."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().float().cpu().ravel()
        ends = torch.cat([flat[:SAMPLE], flat[-SAMPLE:]])
        digest.update(repr((name, tuple(tensor.shape))).encode() + ends.numpy().tobytes())
    return digest.hexdigest()[:32]


# ---- decoding -------------------------------------------------------------------------------------------


_SEEN = threading.local()
"""``states``: what an output layer read last, in this thread, since threads may share a model."""


class NeighbourModel(SequenceModel):
    """Model whose distribution is mixed with the votes of a datastore. It keeps PyTorch's layers, whose states are
    seen."""

    def __init__(self, model: SequenceModel, datastore: Datastore, cfg: NearestNeighbours):
        super().__init__()
        self.model, self.datastore, self.neighbours = model, datastore, cfg
        self.cfg = model.cfg  # pyright: ignore[reportAttributeAccessIssue]
        self.keeps_keys = model.keeps_keys
        model.output.register_forward_pre_hook(self._see)

    @property
    def output(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        """Output layer of the model."""
        return self.model.output

    @property
    def max_length(self) -> int | None:
        return self.model.max_length

    def hidden(self, target: Tensor | Tokens, source: Tensor | Tokens | Frames | None = None) -> Float[Tensor, "B T D"]:
        return self.model.hidden(target, source)

    def start(self, source: Tensor | Tokens | Frames | None, policy: KVPolicy = DEFAULT) -> DecodingState:
        return self.model.start(source, policy)

    def decode(self, tokens: Tensor | Tokens, state: DecodingState) -> Float[Tensor, "B T V"]:
        logits = self.model.decode(tokens, state)
        return self.mixed(logits, _SEEN.__dict__.pop("states"))  # the output layer has just run

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        return self.mixed(self.model.logits(hidden), hidden)

    def mixed(self, logits: Float[Tensor, "*B V"], states: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Return the logarithm of the mixed distribution."""
        cfg = self.neighbours
        distances, tokens = self.datastore.nearest(states.flatten(0, -2), cfg.k)
        votes = (-distances / cfg.temperature).softmax(dim=1)
        voted = torch.zeros(len(votes), logits.shape[-1]).scatter_add_(1, tokens, votes)
        own = logits.float().log_softmax(dim=-1)
        if not cfg.weight:
            return own
        voted = voted.to(own.device).view_as(own)
        return torch.logaddexp(own + math.log1p(-cfg.weight), voted.log() + math.log(cfg.weight))

    def _see(self, layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        _SEEN.states = given[0]


def neighbours_of(model: nn.Module) -> NearestNeighbours | None:
    """Return the settings of the datastore whose states vote in a model; None without one."""
    return model.neighbours if isinstance(model, NeighbourModel) else None
