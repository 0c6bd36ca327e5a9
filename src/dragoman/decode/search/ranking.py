"""The best few of many scores, with ties in a fixed order, and without sorting a vocabulary.

``torch.topk`` over all tokens can cost more than a small decoder does. Here one pass takes the maximum of each chunk of
tokens, and only the chunks that can hold a winner are searched. Equal scores rank by hypothesis, then by token, on
every device and in every batch, which ``torch.topk`` does not promise. On CPUs kernels of our own
(``native/vocabulary.c``) do the same without storing anything in between. The code here is their slow twin, and runs
wherever they cannot.

B sentences, W hypotheses of each, V vocabulary, R rows, N scores of a row, K winners, n chunks of w tokens.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.native.library import available, library

IMPOSSIBLE = -9999.0
"""Log-probability that is told of a token that cannot be; infinity is no number of JSON."""
_CHUNK = 64  # w; 32 to 256 cost the same within a fifth
_SMALL = 1 << 15  # scores below which one argmax is cheaper than two smaller ones
_IN_CACHE = 1 << 17  # scores exponentiated at a time: half a megabyte stays close to the processor


def kernels_read(*tensors: Tensor | None) -> bool:
    """Return whether our kernels can read these tensors: float32, each in one piece, on the CPU."""
    return available() and all(t is None or _plain(t) for t in tensors)


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.is_cpu and tensor.is_contiguous()


class Best(NamedTuple):
    """Winners of each sentence, best first."""

    score: Float[Tensor, "B K"]
    beam: Int[Tensor, "B K"]
    token: Int[Tensor, "B K"]


def likeliest_tokens(logits: Float[Tensor, "R V"], count: int, least: int) -> list[tuple[tuple[int, float], ...]]:
    """Return the ``count`` most probable tokens of each row, best first, with their log-probabilities; ids below
    ``least`` are never chosen and left out."""
    found = logits[:, least:].float().topk(min(count, logits.shape[1] - least), dim=1)
    log_probs = (found.values - log_partition(logits)[:, None]).clamp(min=IMPOSSIBLE)
    rows = zip((found.indices + least).tolist(), log_probs.tolist(), strict=True)
    return [tuple(zip(tokens, values, strict=True)) for tokens, values in rows]


def log_partition(logits: Float[Tensor, "R V"], highest: Float[Tensor, " R"] | None = None) -> Float[Tensor, " R"]:
    """Return log sum exp over the vocabulary, in float32: a logit less this is a log-probability.

    ``highest`` is the highest logit of each row, where the caller knows it.
    """
    if kernels_read(logits):
        found = torch.empty(len(logits))
        library().partition(logits.data_ptr(), *logits.shape, found.data_ptr())
        return found
    highest = (logits.amax(dim=1) if highest is None else highest).float()
    rows = max(1, _IN_CACHE // logits.shape[1])
    # PyTorch's log_softmax takes half the time of its exp alone, on CPUs
    likeliest = [x.log_softmax(dim=1, dtype=torch.float32).amax(dim=1) for x in logits.split(rows)]
    return highest - torch.cat(likeliest)


def first_largest(rows: Float[Tensor, "R N"]) -> Int[Tensor, " R"]:
    """Return the argmax of each row, the first of equals."""
    if rows.dtype == torch.float32 and rows.is_cpu and rows.stride(-1) == 1 and available():  # rows may lie apart
        found = torch.empty(len(rows), dtype=torch.long)
        library().largest(rows.data_ptr(), *rows.shape, rows.stride(0), found.data_ptr())
        return found
    if rows.numel() < _SMALL:
        return rows.argmax(dim=1)
    start = _chunk_maxima(rows).argmax(dim=1, keepdim=True) * _CHUNK
    index = start + torch.arange(_CHUNK, device=rows.device)  # (R, w)
    values = rows.gather(1, index.clamp(max=rows.shape[1] - 1))  # beyond the end the last repeats, and is never first
    return index.gather(1, values.argmax(dim=1, keepdim=True))[:, 0]


class Likeliest(NamedTuple):
    """The most probable token of each row, with its log-probability."""

    token: Int[Tensor, " R"]
    log_prob: Float[Tensor, " R"]


def likeliest(logits: Float[Tensor, "R V"], first: int) -> Likeliest:
    """Return the token with the highest logit from ``first`` on, the first of equals.

    Its log-probability is that among all tokens.
    """
    if kernels_read(logits):
        found = Likeliest(torch.empty(len(logits), dtype=torch.long), torch.empty(len(logits)))
        library().likeliest(logits.data_ptr(), *logits.shape, first, *(field.data_ptr() for field in found))
        return found
    token = first_largest(logits[:, first:]) + first
    return Likeliest(token, log_prob_of(logits, token))


def log_prob_of(logits: Float[Tensor, "R V"], token: Int[Tensor, " R"]) -> Float[Tensor, " R"]:
    """Return the log-probability of one token of each row, in float32."""
    return logits.gather(1, token[:, None])[:, 0].float() - log_partition(logits)


def best(scores: Float[Tensor, "B N"], count: int) -> Int[Tensor, "B K"]:
    """Return the indices of the ``count`` highest of each row, best first; of equals the lowest index first."""
    return _keys(scores, torch.arange(scores.shape[1], device=scores.device)).topk(count, dim=1).indices


def best_continuations(
    logits: Float[Tensor, "B W V"],
    total: Float[Tensor, "B W"],
    count: int,
    first: int = 0,
    partition: Float[Tensor, "B W"] | None = None,
) -> Best:
    """Return the ``count`` highest of ``total + log_softmax(logits)`` of each sentence, over tokens from ``first`` on.

    Where there are fewer than ``count``, the rest have a score of minus infinity. ``partition`` is the logarithm of the
    softmax's divisor, where it is that of other logits than these.
    """
    B, W, V = logits.shape
    if kernels_read(logits, total, partition):
        found = Best(total.new_empty(B, count), *(torch.empty(B, count, dtype=torch.long) for _ in range(2)))
        known = None if partition is None else partition.data_ptr()
        numbers, places = (B, W, V, count, first), (field.data_ptr() for field in found)
        library().continuations(logits.data_ptr(), total.data_ptr(), known, *numbers, *places)
        return found
    maxima = _chunk_maxima(logits[:, :, first:].flatten(0, 1)).float()  # (R, n)
    if partition is None:
        highest = torch.cat([maxima, logits[:, :, :first].flatten(0, 1)], dim=1).amax(dim=1)
        partition = log_partition(logits.flatten(0, 1), highest).view(B, W)
    offset = total - partition

    # The k best tokens lie in the k best chunks, and so does every tie with a lower index.
    chunk_scores = (maxima.view(B, W, -1) + offset[:, :, None]).flatten(1)
    chunk, n = best(chunk_scores, min(count, chunk_scores.shape[1])), maxima.shape[1]
    beam, start = chunk // n, chunk % n * _CHUNK + first  # (B, k)
    token = start[:, :, None] + torch.arange(_CHUNK, device=logits.device)  # (B, k, w)
    outside = token >= V
    flat = (beam[:, :, None] * V + token).masked_fill_(outside, 0).flatten(1)
    scores = logits.flatten(1).gather(1, flat).float().view(token.shape) + offset.gather(1, beam)[:, :, None]
    scores = scores.masked_fill_(outside, -torch.inf).flatten(1)

    where = _keys(scores, flat).topk(min(count, scores.shape[1]), dim=1).indices
    score, flat = scores.gather(1, where), flat.gather(1, where)
    if missing := count - where.shape[1]:
        score, flat = F.pad(score, (0, missing), value=-torch.inf), F.pad(flat, (0, missing))
    return Best(score, flat // V, flat % V)


def _chunk_maxima(rows: Float[Tensor, "R N"]) -> Float[Tensor, "R n"]:
    full, rest = divmod(rows.shape[1], _CHUNK)
    maxima = rows[:, : full * _CHUNK].unflatten(1, (full, _CHUNK)).amax(dim=2)
    return torch.cat([maxima, rows[:, -rest:].amax(dim=1, keepdim=True)], dim=1) if rest else maxima


def _keys(scores: Float[Tensor, "B N"], index: Int[Tensor, "... N"]) -> Int[Tensor, "B N"]:
    """Return integers that order as (score, then lower index) does."""
    bits = scores.float().view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # read as integers, negative floats run backwards: turn them round
    return (ordered.long() << 32) - index
