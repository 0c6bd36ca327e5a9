"""Figures of published write-ups that do not follow from their own formulas or from the papers they cite, recomputed.

Each slip says what is printed, what follows, and by which arithmetic; every number in a line of arithmetic is computed
there.
"""

from dataclasses import dataclass

import torch

from dragoman.plan.envelope import cache_bytes, seconds, training_flops

GNMT, CONVS2S, MOE = 2.3e19, 9.6e18, 2.0e19
"""Training FLOPs of English to German in Table 2 of Vaswani et al. 2017 (arXiv:1706.03762v7)."""
BASE, BIG = 3.3e18, 2.3e19
"""Training FLOPs of the base and the big Transformer in the same table."""
PRACTITIONER, ESSAY, TEXTBOOK, BUILDER, INTERVIEW = (
    "a practitioner's account of moving from LSTMs",
    "an essay on the 2017 paper and its descendants",
    "a textbook chapter on today's challenges",
    "an account of building one from scratch",
    "an interview guide",
)


@dataclass(frozen=True)
class Slip:
    """A published figure that does not follow from what it is said to follow from."""

    number: int
    where: str
    """Write-up."""
    printed: str
    follows: str
    """Figure that follows instead."""
    arithmetic: tuple[str, ...] = ()
    """Lines of computation."""


def slips() -> list[Slip]:
    """Return all fourteen, in order."""
    found = [
        _no_positions,
        _training_costs,
        _english_french,
        _mixed_rows,
        _fifty_times,
        _gpt3_days,
        _attention_maps,
        _encoder_parameters,
        _cache_growth,
        _cache_of_7b,
        _norm_placement,
        _linear_relative,
        _rotary_extrapolation,
        _mask_values,
    ]
    return [Slip(number, *make()) for number, make in enumerate(found, 1)]


Parts = tuple[str, str, str, tuple[str, ...]]

# ---- the 2017 paper and its table of costs -----------------------------------------------------------


def _no_positions() -> Parts:
    return (
        ESSAY,
        "without positions: 22.5 BLEU, as a row of the paper's Table 3",
        "Table 3 has no such row: row (E) replaces sinusoids by learned positions (25.7 against 25.8). The study "
        "`positions` measures the model without positions.",
        (f"25.8 - 25.7 = {25.8 - 25.7:.1f} BLEU is all that row (E) shows",),
    )


def _training_costs() -> Parts:
    return (
        ESSAY,
        "GNMT 1.4e20, ConvS2S 1.5e20 and MoE 1.2e20 FLOPs beside English-German scores; base is 40 times cheaper",
        "those are the English-French costs; for English-German, base is about 7 times cheaper than GNMT, and big "
        "costs the same",
        (
            f"GNMT / base = {GNMT:.1e} / {BASE:.1e} = {GNMT / BASE:.1f}",
            f"GNMT / big = {GNMT:.1e} / {BIG:.1e} = {GNMT / BIG:.1f}",
            f"ConvS2S / base = {CONVS2S:.1e} / {BASE:.1e} = {CONVS2S / BASE:.1f}; MoE / base = {MOE / BASE:.1f}",
            f"the printed ratio: {1.4e20:.1e} / {BASE:.1e} = {1.4e20 / BASE:.0f}",
        ),
    )


def _english_french() -> Parts:
    return (
        ESSAY,
        "big reaches 41.0 BLEU on English-French",
        "41.0 is in the first version of the paper; the table of later versions says 41.8",
        (f"41.8 - 41.0 = {41.8 - 41.0:.1f} BLEU between versions",),
    )


def _mixed_rows() -> Parts:
    return (
        ESSAY,
        "ConvS2S took 6 days and the Transformer 12 hours for 28.4 BLEU",
        "6 days is GNMT's time, on 96 GPUs; 12 hours is base's, with 27.3 BLEU; big, with 28.4, took 3.5 days",
        (
            f"GNMT: 96 x 6 = {96 * 6} GPU-days; base: 8 x 0.5 = {8 * 0.5:.0f}; big: 8 x 3.5 = {8 * 3.5:.0f}",
            f"28.4 - 27.3 = {28.4 - 27.3:.1f} BLEU between base and big",
        ),
    )


def _fifty_times() -> Parts:
    gnmt, base, big = 96 * 6, 8 * 0.5, 8 * 3.5
    return (
        ESSAY,
        "50 times less compute",
        f"in GPU-days the ratio is {gnmt / base:.0f} for base and {gnmt / big:.1f} for big, on other GPUs",
        (f"96 x 6 / (8 x 0.5) = {gnmt / base:.0f}", f"96 x 6 / (8 x 3.5) = {gnmt / big:.1f}"),
    )


# ---- costs and memory --------------------------------------------------------------------------------


def _gpt3_days() -> Parts:
    N, D, speed, mfu = 175_000_000_000, 300e9, 1024 * 312e12, 0.45
    days = [
        seconds(training_flops(N, D, recomputed=again), speed=speed, mfu=mfu) / 86_400 for again in (False, True)
    ]  # fmt: skip
    return (
        TEXTBOOK,
        "by 6 N D, GPT-3 takes 34 days on 1,024 A100 at 45%",
        f"6 N D gives {days[0]:.1f} days; 34 needs the factor 8 of recomputed activations",
        (
            f"6 x 175e9 x 300e9 / (1024 x 312e12 x 0.45) / 86,400 = {days[0]:.1f} days",
            f"8 x 175e9 x 300e9 / (1024 x 312e12 x 0.45) / 86,400 = {days[1]:.1f} days",
        ),
    )


def _attention_maps() -> Parts:
    one = 4096**2 * 8 * 2
    return (
        BUILDER,
        "4.2 GB for the attention matrix of 4,096 tokens",
        "that is 16 such layers: one of 8 heads in 16 bits takes 0.27 GB, and the 18 maps of a model of 6 + 6 layers "
        "take 4.83 GB",
        (
            f"4,096^2 x 8 heads x 2 bytes = {one / 1e9:.3f} GB",
            f"16 x {one / 1e9:.3f} = {16 * one / 1e9:.2f} GB; 18 x {one / 1e9:.3f} = {18 * one / 1e9:.2f} GB",
        ),
    )


def _encoder_parameters() -> Parts:
    D, F, V, layers = 512, 2048, 32_000, 6
    attention = 4 * (D * D + D)
    block = attention + D * F + F + F * D + D + 2 * 2 * D
    encoder, embedding, across = layers * block, V * D, layers * attention
    return (
        BUILDER,
        "the encoder has 37 million parameters and cross-attention 18 million",
        f"the layers of the encoder have {encoder / 1e6:.1f} million, and {(encoder + embedding) / 1e6:.1f} with an "
        f"embedding of 32,000 words that is not shared; cross-attention has {across / 1e6:.1f} million",
        (
            f"6 x ({attention:,} + {block - attention:,}) = {encoder:,} in the layers of the encoder",
            f"32,000 x 512 = {embedding:,} in an embedding; together {(encoder + embedding) / 1e6:.1f} million",
            f"6 x {attention:,} = {across:,} in cross-attention",
        ),
    )


def _cache_growth() -> Parts:
    sizes = [cache_bytes(layers=32, kv_heads=32, channels=128, tokens=n) for n in (1024, 2048, 4096)]
    return (
        PRACTITIONER,
        "the key/value cache takes O(n^2) memory",
        "it grows linearly: twice the tokens take twice the memory; what is quadratic is the matrix of scores",
        (
            f"2 x 32 layers x 32 heads x 128 x 2 bytes x n: {', '.join(f'{size / 1e9:.2f} GB' for size in sizes)} "
            "for 1,024, 2,048 and 4,096 tokens",
            f"ratios {sizes[1] / sizes[0]:.0f} and {sizes[2] / sizes[1]:.0f}; of n^2 they would be 4 and 4",
        ),
    )


def _cache_of_7b() -> Parts:
    half = cache_bytes(layers=32, kv_heads=32, channels=128, tokens=2048)
    return (
        PRACTITIONER,
        "the cache of a 7B model takes nearly 2 GB at 2,048 tokens",
        f"it takes {half / 1e9:.2f} GB in 16 bits; {2 * half / 1e9:.2f} GB is float32",
        (
            f"2 x 32 x 32 x 128 x 2,048 x 2 bytes = {half / 1e9:.2f} GB",
            f"x 4 bytes = {2 * half / 1e9:.2f} GB",
        ),
    )


# ---- definitions -------------------------------------------------------------------------------------


def _norm_placement() -> Parts:
    return (
        BUILDER,
        "proper layer norm stands before rather than after residual connections",
        "post-norm is norm(x + f(x)), after the sum; pre-norm is x + f(norm(x)), before the sublayer and inside the "
        "residual connection. Neither stands before a residual connection.",
        ("post: y = norm(x + f(x)); pre: y = x + f(norm(x))",),
    )


def _linear_relative() -> Parts:
    m, n, by = 7, 3, 100
    torch.manual_seed(1)
    q, k = torch.randn(2, 2, dtype=torch.float64).unbind(0)

    def decayed(i: int, j: int) -> float:
        return float((q * 0.9**i) @ (k * 0.9**-j))

    before, after = decayed(m, n), decayed(m + by, n + by)
    return (
        TEXTBOOK,
        "rotary positions are the only relative ones that linear attention can use",
        "exponential decay factorises too, and is what RetNet, GLA and Mamba-2 use: q_m . k_n a^(m-n)",
        (
            f"(q a^{m}) . (k a^-{n}) = {before:.6f} and (q a^{m + by}) . (k a^-{n + by}) = {after:.6f}, with a = 0.9",
            "it depends on m - n alone, and is a product of one factor of the query and one of the key",
        ),
    )


def _rotary_extrapolation() -> Parts:
    return (
        f"{PRACTITIONER}; {ESSAY}; {INTERVIEW}",
        "rotary positions extrapolate to texts several times as long",
        "ALiBi's paper (arXiv:2108.12409) measured gains for rotary positions up to 200 tokens beyond a trained length "
        "of 512 and 100 beyond 1,024. The study `length-extrapolation` measures it here.",
        (f"(512 + 200) / 512 = {712 / 512:.2f}; (1,024 + 100) / 1,024 = {1124 / 1024:.2f}",),
    )


def _mask_values() -> Parts:
    big = torch.tensor(-1e9)
    half = big.to(torch.float16)
    leaks = torch.full((4,), -1e9).add(torch.tensor([0.0, 1.0, 2.0, 3.0])).softmax(0)
    nan = torch.full((4,), float("-inf")).softmax(0)
    return (
        f"{ESSAY}; {PRACTITIONER}; {BUILDER}",
        "masked scores are set to -1e9 (one), to minus infinity (the others)",
        "neither is safe alone: -1e9 is not finite in float16 and leaks where a whole row is masked; minus infinity "
        "gives NaN there. Rows without a visible key must be set to zero.",
        (
            f"-1e9 in float16 = {half.item()}",
            f"softmax of a row of -1e9 plus small scores = {', '.join(f'{p:.2f}' for p in leaks.tolist())}, not 0",
            f"softmax of a row of minus infinity = {', '.join(str(p) for p in nan.tolist())}",
        ),
    )
