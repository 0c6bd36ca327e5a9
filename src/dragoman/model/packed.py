"""Models made ready to run: weights laid out for the few rows of a decoding step. Nothing learns after this.

A step of decoding multiplies few rows: its time goes into reading weights and into starting many small products. So
weights are stored in the order in which such a product reads them, or as whole numbers of 8 bits, a quarter of their
size; and layers that read the same input become one.

R rows, K inputs, N outputs of one layer; B batch, T length, D width, H heads, C channels of one head.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.model.attention import Attention
from dragoman.model.mlp import GatedLayer
from dragoman.model.state import KV

Layout = Callable[[Sequence[nn.Linear]], nn.Module]
"""Makes one layer of several that read the same input; their outputs stand side by side in its output."""


def pack(model: nn.Module, layout: Layout) -> None:
    """Replace every ``nn.Linear`` in ``model`` by what ``layout`` makes of it. A matrix that an embedding shares is
    copied; the embedding stays as it is."""
    for name, child in list(model.named_children()):
        if isinstance(child, Attention):
            setattr(model, name, (PackedCross if name == "cross" else PackedAttention)(child, layout))
        elif isinstance(child, GatedLayer):
            setattr(model, name, PackedGated(child, layout))
        elif isinstance(child, nn.Linear):
            setattr(model, name, layout([child]))
        else:
            pack(child, layout)


# ---- fewer layers ---------------------------------------------------------------------------------


class PackedAttention(Attention):
    """Queries, keys and values of the same tokens in one product."""

    def __init__(self, whole: Attention, layout: Layout):
        nn.Module.__init__(self)
        self.cfg, self.head_dim = whole.cfg, whole.head_dim
        self.q_norm, self.k_norm, self.scorer, self.weights = whole.q_norm, whole.k_norm, whole.scorer, whole.weights
        self.out = layout([whole.out])
        self.lay_out_inputs(whole, layout)

    def lay_out_inputs(self, whole: Attention, layout: Layout) -> None:
        self.qkv = layout([whole.q, whole.k, whole.v])
        self.sizes = [linear.out_features for linear in (whole.q, whole.k, whole.v)]

    def project(self, x: Float[Tensor, "B T D"]) -> tuple[Float[Tensor, "B H T C"], KV]:
        q, k, v = (self.split(part) for part in self.qkv(x).split(self.sizes, dim=-1))
        return self.scorer.project(self.q_norm(q)), KV(self.k_norm(k), v)


class PackedCross(PackedAttention):
    """Attention to a source: its keys and values in one product, queries in another."""

    def lay_out_inputs(self, whole: Attention, layout: Layout) -> None:
        self.q, self.kv = layout([whole.q]), layout([whole.k, whole.v])

    def key_value(self, x: Float[Tensor, "B T D"]) -> KV:
        k, v = (self.split(part) for part in self.kv(x).chunk(2, dim=-1))
        return KV(self.k_norm(k), v)


class PackedGated(nn.Module):
    """The gate and what it lets through in one product."""

    def __init__(self, whole: GatedLayer, layout: Layout):
        super().__init__()
        self.both, self.out, self.activation = layout([whole.gate, whole.up]), layout([whole.out]), whole.activation

    def forward(self, x: Float[Tensor, "*N D"], real: Tensor | None = None) -> Float[Tensor, "*N D"]:
        gate, up = self.both(x).chunk(2, dim=-1)
        return self.out(self.activation(gate) * up)


# ---- layouts --------------------------------------------------------------------------------------


class PackedLinear(nn.Module):
    """Several layers that read the same input, as one."""

    weight: Tensor
    """(K, N)."""
    bias: Float[Tensor, " N"] | None

    def __init__(self, parts: Sequence[nn.Linear]):
        super().__init__()
        self.in_features, self.out_features = parts[0].in_features, sum(part.out_features for part in parts)
        self.register_buffer("bias", _biases(parts))


class Transposed(PackedLinear):
    """x W + b in the precision of the model."""

    def __init__(self, parts: Sequence[nn.Linear]):
        super().__init__(parts)
        self.register_buffer("weight", torch.cat([part.weight.detach() for part in parts]).t().contiguous())

    def forward(self, x: Float[Tensor, "*R K"]) -> Float[Tensor, "*R N"]:
        y = x @ self.weight
        return y if self.bias is None else y.add_(self.bias)


MOST = 127.0
"""Largest whole number of 8 bits, on either side of 0."""
TINY = 1e-20
"""Keeps rows of zeros from dividing by zero."""


class WholeNumbers(PackedLinear):
    """x W + b with 8 bits for each weight, scaled by output, and 8 for each input as it comes by, scaled by row.

    Sums of whole numbers are exact: what a row gives does not depend on the rows beside it, to the bit.
    """

    scale: Float[Tensor, " N"]

    def __init__(self, parts: Sequence[nn.Linear]):
        super().__init__(parts)
        weight = torch.cat([part.weight.detach() for part in parts]).float()
        scale = weight.abs().amax(dim=1).clamp_min(TINY) / MOST
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8).t())
        self.register_buffer("scale", scale / MOST)

    def forward(self, x: Float[Tensor, "*R K"]) -> Float[Tensor, "*R N"]:
        rows = x.flatten(0, -2)
        size = rows.abs().amax(dim=1, keepdim=True).clamp_min_(TINY)
        whole = (rows * (MOST / size)).round_().to(torch.int8)
        product = torch._int_mm(whole, self.weight)  # pyright: ignore[reportPrivateImportUsage]
        y = product.float().mul_(size).mul_(self.scale)
        return (y if self.bias is None else y.add_(self.bias)).view(*x.shape[:-1], -1)


def _biases(parts: Sequence[nn.Linear]) -> Tensor | None:
    """End to end; None where there is none."""
    if all(part.bias is None for part in parts):
        return None
    return torch.cat(
        [part.weight.new_zeros(part.out_features) if part.bias is None else part.bias.detach() for part in parts]
    )
