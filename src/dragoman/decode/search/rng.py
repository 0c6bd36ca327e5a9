"""Random numbers that depend on their purpose alone.

A number is a hash of a key, a step and a token. No batch, no order and no number drawn before can change it: the idea
of counter-based generators (Salmon et al. 2011). To draw from a distribution, each token gets an exponential time with
its probability as the rate, and the earliest wins, with exactly that probability (the "Gumbel trick", Maddison et al.
2014). Two distributions that are nearly alike so nearly always give the same token. This makes rounding harmless, and
it makes drafts of another model hit (Daliri et al. 2024, arXiv:2408.07978).

R rows, V vocabulary.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_ODD = 0x9E3779B9 - (1 << 32)  # 2^32 / golden ratio, as a signed number
_MOST = 1 - 2.0**-24  # the largest float32 below 1


def key(*parts: int | Sequence[int]) -> int:
    """Return a signed number of 64 bits, a hash of ``parts``."""
    text = np.concatenate([np.atleast_1d(np.asarray(part, dtype=np.int64)) for part in parts]).tobytes()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def exponentials(keys: Int[Tensor, " R"], step: int | Int[Tensor, " R"], tokens: int) -> Float[Tensor, "R V"]:
    """Return independent exponential numbers of mean 1, for each key and each of ``tokens`` tokens, at a step.

    Rows may be at different steps.
    """
    first = _hash((keys & 0xFFFFFFFF).to(torch.int64) + step * 0x85EBCA6B)
    second = _hash((keys >> 32) + step * 0xC2B2AE35)
    x = torch.arange(tokens, dtype=torch.int32, device=keys.device) * _ODD + first[:, None]
    x = _mix(x, 16, 0x7FEB352D, 15, second[:, None], 0x846CA68B - (1 << 32), 16)
    uniform = (x & 0x7FFFFFFF).float().add_(0.5).mul_(2.0**-31).clamp_(max=_MOST)
    return uniform.neg_().log1p_().neg_()


def draw(logits: Float[Tensor, "R V"], keys: Int[Tensor, " R"], step: int | Int[Tensor, " R"]) -> Int[Tensor, " R"]:
    """Draw a token of each row, with probability softmax(logits); of equal times the first."""
    return (logits.float() - exponentials(keys, step, logits.shape[1]).log_()).argmax(dim=1)


def _hash(x: Tensor) -> Int[Tensor, " R"]:
    """Hash 64 bits to 32."""
    x = (x ^ ((x >> 33) & 0x7FFFFFFF)) * -0x00AE502812AA7333  # the finaliser of MurmurHash3 (Appleby)
    x = (x ^ ((x >> 33) & 0x7FFFFFFF)) * -0x3B314601E57A13AD
    return (x ^ (x >> 32)).to(torch.int32)


def _mix(x: Tensor, a: int, times_a: int, b: int, high: Tensor, times_b: int, c: int) -> Int[Tensor, "R V"]:
    """Mix in place by Wellons' "lowbias32", with ``high``, the upper bits of the key, added half way."""
    x.bitwise_xor_((x >> a).bitwise_and_((1 << (32 - a)) - 1)).mul_(times_a)
    x.bitwise_xor_((x >> b).bitwise_and_((1 << (32 - b)) - 1)).add_(high).mul_(times_b)
    return x.bitwise_xor_((x >> c).bitwise_and_((1 << (32 - c)) - 1))
