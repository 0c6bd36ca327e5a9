"""Costs on the back of an envelope: the formulas of published write-ups, beside which the exact count is shown.

N parameters, D tokens; L layers, H heads, C channels of a head, T tokens of a text.
As Korthikanti et al. name them: s tokens, b texts, h width, a heads.
"""

from dataclasses import dataclass

DAY = 86_400


def training_flops(parameters: int, tokens: float, *, recomputed: bool = False) -> float:
    """Return 6 N D (Kaplan et al., arXiv:2001.08361), or 8 N D where activations are computed again in the backward
    pass (Narayanan et al., arXiv:2104.04473): two passes forward and one, of twice the work, backward."""
    return (8 if recomputed else 6) * parameters * tokens


def palm_flops_per_token(parameters: int, *, layers: int, heads: int, channels: int, length: int) -> int:
    """Return 6 N + 12 L H C T, the FLOPs of learning from a token (Chowdhery et al., arXiv:2204.02311, appendix B)."""
    return 6 * parameters + 12 * layers * heads * channels * length


def seconds(flops: float, *, speed: float, mfu: float) -> float:
    """Return the seconds of ``flops`` where all devices together could compute ``speed`` a second and use the share
    ``mfu`` of it."""
    return flops / (speed * mfu)


@dataclass(frozen=True)
class LayerActivations:
    """Activations of GPT's layers in 16 bits, as Korthikanti et al. (arXiv:2205.05198) count them."""

    s: int
    b: int
    h: int
    a: int

    @property
    def stored(self) -> int:
        """34 s b h + 5 a s^2 b: bytes of a layer whose attention stores its weights."""
        return 34 * self.s * self.b * self.h + 5 * self.a * self.s**2 * self.b

    @property
    def fused(self) -> int:
        """34 s b h: bytes of a layer whose attention computes its weights again."""
        return 34 * self.s * self.b * self.h

    def parallel(self, t: int) -> float:
        """Return s b h (10 + 24 / t + 5 a s / (h t)): bytes on each of ``t`` devices that share a layer (tensor
        parallelism)."""
        return self.s * self.b * self.h * (10 + 24 / t + 5 * self.a * self.s / (self.h * t))


def cache_bytes(*, layers: int, kv_heads: int, channels: int, tokens: int, texts: int = 1, bits: int = 16) -> int:
    """Return the bytes of keys and values: 2 L G C for each token and text."""
    return 2 * layers * kv_heads * channels * tokens * texts * bits // 8
