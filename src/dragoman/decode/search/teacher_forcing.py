"""Teacher forcing: log-probabilities of given translations, read in one forward pass each.

B sentences of a batch, S source length, T target length, V vocabulary, N rows of the corpus.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.data.padding import padded
from dragoman.decode.search.ranking import log_prob_of
from dragoman.model.interface import SequenceModel, Tokens
from dragoman.text.tokens.tokenizer import BOS, PAD

_CHUNK = 512
"""Positions whose logits are held in memory at a time."""


@torch.inference_mode()
def token_log_probs(
    model: SequenceModel,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    batch_tokens: int = 4096,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[float, ...]]:
    """Return the natural logarithm of the probability of each target token, given those before it and the source.

    Values are computed in float32.

    Args:
        model: run without dropout, wherever its weights are.
        sources: ids, each row with its EOS.
        targets: ids, each row with its EOS, without BOS.
        batch_tokens: tokens of both sides read at a time, padding included.
        progress: called with the rows done and their number.
    """
    found: list[tuple[float, ...]] = [()] * len(targets)
    done = 0
    with model.without_dropout():
        for rows in batches_by_length([len(s) + len(t) for s, t in zip(sources, targets, strict=True)], batch_tokens):
            source, target = (padded([side[i] for i in rows], model.device) for side in (sources, targets))
            for i, values in zip(rows, _of_batch(model, source, target).cpu(), strict=True):
                found[i] = tuple(values[: len(targets[i])].tolist())
            done += len(rows)
            if progress:
                progress(done, len(targets))
    return found


def shifted(target: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Return the decoder's input under teacher forcing: ``target`` with BOS in front and without its last token."""
    return torch.cat([target.new_full((len(target), 1), BOS), target[:, :-1]], dim=1)


def padded_in_front(rows: Sequence[Sequence[int]], device: torch.device, extra: int = 0) -> Tokens:
    """Return the rows padded in front, so that all end in the last column; ``extra`` columns of padding are added."""
    longest = extra + max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + list(row) for row in rows], device=device)
    return Tokens(ids, None if all(len(row) == longest for row in rows) else ids != PAD)


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield the indices of rows of similar length, the longest first, so that running out of memory shows at once."""
    order, start = sorted(range(len(lengths)), key=lambda i: -lengths[i]), 0
    while start < len(order):
        size = max(1, batch_tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size


def _of_batch(model: SequenceModel, source: Int[Tensor, "B S"], target: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    hidden, wanted = model.hidden(shifted(target), source).flatten(0, 1), target.flatten()
    parts = []
    for chunk, ids in zip(hidden.split(_CHUNK), wanted.split(_CHUNK), strict=True):
        logits = model.logits(chunk)
        parts.append(log_prob_of(logits, ids))
    return torch.cat(parts).view(target.shape)
