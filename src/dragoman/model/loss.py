"""Cross-entropy of a linear output layer without storing its logits: computed and differentiated chunk by chunk.

The logits of a batch, tokens x vocabulary, are the largest tensor of a small translation model. Written to memory once
forward and read three times backward, they cost more than the matrix products themselves. Here a chunk of them stays
in the CPU's cache, and its gradient overwrites it in place. On a GPU chunks are larger, and save memory alone.

N tokens, D width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.model.chunked_loss import CrossEntropyLoss, RDropLoss, as_float32, in_chunks
from dragoman.model.linear import Product, plain


def linear_cross_entropy(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
    *,
    smoothing: float = 0.0,
    ignore: int = 0,
    cap: float | None = None,
    product: Product = plain,
) -> Float[Tensor, ""]:
    """Return the sum over tokens of -sum_v q(v) log softmax(hidden weight^T + bias)(v), except targets ``ignore``.

    With ``cap`` the softmax is that of cap tanh(logits / cap). ``product`` multiplies, as in linear layers.

    q puts 1 - ``smoothing`` on the target and spreads ``smoothing`` evenly over the vocabulary
    (Szegedy et al., arXiv:1512.00567), as the 2017 recipe does with 0.1.
    """
    if hidden.is_meta:  # shapes alone do not tell which tokens are real: every token counts
        return plain_cross_entropy(hidden, weight, bias, targets, smoothing=smoothing, ignore=ignore, cap=cap)
    return in_chunks(hidden[:, None], weight, bias, targets, CrossEntropyLoss(smoothing), ignore, cap, product)


def linear_r_drop(
    one: Float[Tensor, "N D"],
    two: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
    *,
    alpha: float,
    smoothing: float = 0.0,
    ignore: int = 0,
    cap: float | None = None,
    product: Product = plain,
) -> Float[Tensor, ""]:
    """Return the sum over tokens of the mean loss of two passes with different dropout, and of their divergence:

        (loss(one) + loss(two)) / 2 + alpha / 4 (KL(p_one || p_two) + KL(p_two || p_one))

    This is half of equation 4 of R-Drop (Liang et al., arXiv:2106.14448), so that it is comparable with the loss of one
    pass. Everything else is as in ``linear_cross_entropy``.
    """
    if one.is_meta:
        both, twice = torch.cat([one, two]), targets.repeat(2)
        return plain_cross_entropy(both, weight, bias, twice, smoothing=smoothing, ignore=ignore, cap=cap) / 2
    pairs = torch.stack([one, two], dim=1)
    return in_chunks(pairs, weight, bias, targets, RDropLoss(smoothing, alpha), ignore, cap, product)


# ---- the slow twins -------------------------------------------------------------------------------


def plain_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    smoothing: float = 0.0,
    ignore: int = 0,
    cap: float | None = None,
) -> Tensor:
    """Return the same as ``linear_cross_entropy`` from all logits at once: the reference."""
    logits = as_float32(F.linear(hidden, weight, bias))
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    return F.cross_entropy(logits, targets, ignore_index=ignore, reduction="sum", label_smoothing=smoothing)


def plain_r_drop(
    one: Tensor,
    two: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    alpha: float,
    smoothing: float = 0.0,
    ignore: int = 0,
    cap: float | None = None,
) -> Tensor:
    """Return the same as ``linear_r_drop`` from all logits at once: the reference."""
    options: dict[str, Any] = {"smoothing": smoothing, "ignore": ignore, "cap": cap}
    losses = [plain_cross_entropy(h, weight, bias, targets, **options) for h in (one, two)]
    logits = [as_float32(F.linear(h[targets != ignore], weight, bias)) for h in (one, two)]
    if cap is not None:
        logits = [cap * torch.tanh(x / cap) for x in logits]
    return sum(losses) / 2 + alpha / 4 * disagreement(*logits)


def disagreement(one: Float[Tensor, "N V"], two: Float[Tensor, "N V"]) -> Float[Tensor, ""]:
    """Return the sum over rows of KL(p || q) + KL(q || p), where p and q are the softmax of these logits."""
    log_p, log_q = one.log_softmax(dim=-1), two.log_softmax(dim=-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum()
