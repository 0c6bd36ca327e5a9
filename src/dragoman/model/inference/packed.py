"""Packing of models for inference: weights laid out for the few rows of a decoding step. Packed models cannot train.

A step of decoding multiplies few rows: its time goes into reading weights and into starting many small products. So
weights are stored in the order in which such a product reads them (``layouts.py``), and layers that read the same input
become one. A model packed for our C kernels can then run a step without Python between layers (``native.py``).

B batch, T length, D width, H heads, C channels of one head.
"""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from dragoman.model.attention import Attention
from dragoman.model.caches.state import KV
from dragoman.model.dropout import Dropout
from dragoman.model.exact import is_exactly
from dragoman.model.inference.mamba_block import MambaBlock, is_mamba_block
from dragoman.model.inference.packed_mamba import PackedMamba, PackedMamba2
from dragoman.model.linear import Linear
from dragoman.model.mamba import MambaLayer
from dragoman.model.mamba2 import Mamba2Layer
from dragoman.model.mlp import GatedLayer

LinearLayout = Callable[[Sequence[nn.Linear]], nn.Module]
"""Function that packs several layers with the same input into one, which returns their outputs concatenated."""


def pack(model: nn.Module, layout: LinearLayout) -> None:
    """Replace every linear layer in ``model`` by its packed form in ``layout``, and switch to evaluation mode.

    A matrix tied to an embedding is copied; the embedding stays. Subclasses may compute something else, so they are
    kept, and only their children are replaced.
    """
    _replace_layers(model, layout)
    model.eval()  # new modules start in training mode, where attention's dropout would be active at inference


def _replace_layers(model: nn.Module, layout: LinearLayout) -> None:
    for name, child in list(model.named_children()):
        if is_exactly(child, Attention):
            setattr(model, name, (PackedCross if name == "cross" else PackedAttention)(child, layout))
        elif is_exactly(child, GatedLayer) and is_exactly(child.dropout, Dropout):
            setattr(model, name, PackedGated(child, layout))
        elif is_exactly(child, MambaLayer):
            setattr(model, name, PackedMamba(child, layout))
        elif is_exactly(child, Mamba2Layer):
            setattr(model, name, PackedMamba2(child, layout))
        elif is_exactly(child, nn.Linear, Linear):
            setattr(model, name, layout([child]))
        else:
            _replace_layers(child, layout)
            if is_mamba_block(child):
                setattr(model, name, MambaBlock(child))


# ---- fewer layers ---------------------------------------------------------------------------------


class PackedAttention(Attention):
    """Attention with queries, keys and values in one product."""

    def __init__(self, whole: Attention, layout: LinearLayout):
        nn.Module.__init__(self)
        self.cfg, self.head_dim, self.visibility = whole.cfg, whole.head_dim, whole.visibility
        self.q_norm, self.k_norm, self.scorer = whole.q_norm, whole.k_norm, whole.scorer
        self.scores, self.weights = whole.scores, whole.weights
        self.out = layout([whole.out])
        self.lay_out_inputs(whole, layout)

    def lay_out_inputs(self, whole: Attention, layout: LinearLayout) -> None:
        self.qkv = layout([whole.q, whole.k, whole.v])
        self.sizes = [linear.out_features for linear in (whole.q, whole.k, whole.v)]

    def project(self, x: Float[Tensor, "B T D"]) -> tuple[Float[Tensor, "B H T C"], KV]:
        q, k, v = (self.split_heads(part) for part in self.qkv(x).split(self.sizes, dim=-1))
        return self.scorer.project(self.q_norm(q)), KV(self.k_norm(k), v)


class PackedCross(PackedAttention):
    """Cross-attention with the source's keys and values in one product, queries in another."""

    def lay_out_inputs(self, whole: Attention, layout: LinearLayout) -> None:
        self.q, self.kv = layout([whole.q]), layout([whole.k, whole.v])

    def key_value(self, x: Float[Tensor, "B T D"]) -> KV:
        k, v = (self.split_heads(part) for part in self.kv(x).chunk(2, dim=-1))
        return KV(self.k_norm(k), v)


class PackedGated(nn.Module):
    """Gated feed-forward with gate and up projection in one product."""

    def __init__(self, whole: GatedLayer, layout: LinearLayout):
        super().__init__()
        self.both, self.out, self.activation = layout([whole.gate, whole.up]), layout([whole.out]), whole.activation

    def forward(self, x: Float[Tensor, "*N D"], real: Tensor | None = None) -> Float[Tensor, "*N D"]:
        gate, up = self.both(x).chunk(2, dim=-1)
        return self.out(self.activation(gate) * up)
