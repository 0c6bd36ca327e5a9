"""Translation models of 2017 and of today with training recipes, and their decoders as language models."""

import copy
import dataclasses
from typing import Any

from dragoman.config import to_dict
from dragoman.model.attention import AttentionConfig
from dragoman.model.init import Xavier
from dragoman.model.interface import SequenceConfig
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.norm import LayerNorm, RmsNorm
from dragoman.model.positions.position import Sinusoidal
from dragoman.model.positions.rotary import Rotary
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.presets.plain import Plain, architecture

# ---- architectures --------------------------------------------------------------------------------


def vaswani2017(
    *, dim: int = 512, heads: int = 8, hidden: int = 2048, depth: int = 6, dropout: float = 0.1
) -> TransformerConfig:
    """Attention Is All You Need (arXiv:1706.03762), Table 3; the defaults are its "base"."""

    def block(*, decoder: bool) -> BlockConfig:
        across = AttentionConfig(heads=heads, visibility=Full(), bias=True)
        return BlockConfig(
            mixer=AttentionConfig(heads=heads, visibility=Causal(), bias=True) if decoder else across,
            cross=across if decoder else None,
            mlp=FeedForward(hidden=hidden),
            norm=LayerNorm(),
            placement="post",
            dropout=dropout,
        )

    return TransformerConfig(
        dim=dim,
        encoder=TowerConfig(depth=depth, pattern=(block(decoder=False),)),
        decoder=TowerConfig(depth=depth, pattern=(block(decoder=True),)),
        position=Sinusoidal(),
        scale_embedding=True,
        dropout=dropout,
    )


def rewritten2026(
    *,
    dim: int,
    heads: int,
    kv_heads: int,
    hidden: int,
    depth: int,
    encoder_depth: int | None = None,
    dropout: float = 0.1,
) -> TransformerConfig:
    """Today's translation Transformer: pre-norm RMSNorm, rotary positions, SwiGLU, grouped queries, no biases."""

    def block(*, decoder: bool) -> BlockConfig:
        def attention(**options: Any) -> AttentionConfig:
            return AttentionConfig(heads=heads, kv_heads=kv_heads, **options)

        return BlockConfig(
            mixer=attention(position=Rotary(), visibility=Causal())
            if decoder
            else attention(position=Rotary(), visibility=Full()),
            cross=attention(visibility=Full()) if decoder else None,
            mlp=Gated(hidden=hidden),
            norm=RmsNorm(),
            placement="pre",
            dropout=dropout,
        )

    return TransformerConfig(
        dim=dim,
        encoder=TowerConfig(depth=encoder_depth or depth, pattern=(block(decoder=False),), final_norm=RmsNorm()),
        decoder=TowerConfig(depth=depth, pattern=(block(decoder=True),), final_norm=RmsNorm()),
        scale_embedding=True,
        dropout=dropout,
        init=Xavier(depth_scaled=True),
    )


def decoder_only(model: TransformerConfig) -> TransformerConfig:
    """Return the decoder of ``model`` as a language model."""
    pattern = tuple(dataclasses.replace(block, cross=None) for block in model.decoder.pattern)
    return dataclasses.replace(model, encoder=None, decoder=dataclasses.replace(model.decoder, pattern=pattern))


# ---- recipes --------------------------------------------------------------------------------------

ADAM_W: Plain = {"kind": "adam_w", "betas": [0.9, 0.98], "weight_decay": 0.01}
MUON: Plain = {
    "kind": "muon",
    "momentum": 0.95,
    "weight_decay": 0.01,
    "others": {"betas": [0.9, 0.98], "weight_decay": 0.01},
}
"""Reaches the loss of AdamW in half the time (``benchmarks/results/optimizers.md``), with three times its peak."""


def _recipe2017(model: TransformerConfig, *, steps: int) -> Plain:
    """Recipe of 2017, sections 5.1 to 5.4: byte-pair encoding shared by both languages, Adam, Noam, label smoothing, no
    clipping, about 25,000 source and 25,000 target tokens a batch."""
    return {
        "task": {"kind": "translation", "label_smoothing": 0.1},
        "tokenizer": {"kind": "bpe", "vocab": 37_000},
        "model": to_dict(model),
        "train": {
            "budget": {"kind": "steps", "steps": steps},
            "optimizer": {"kind": "adam", "betas": [0.9, 0.98], "eps": 1e-9},
            "schedule": {"kind": "noam", "warmup": 4000},
            "batch_tokens": 6250,
            "accumulate": 4,
            "clip": None,
        },
    }


def recipe2026(
    model: SequenceConfig,
    *,
    vocab: int,
    peak: float,
    steps: int,
    warmup: int,
    batch_tokens: int,
    accumulate: int = 1,
    optimizer: Plain = ADAM_W,
) -> Plain:
    """Recipe of today: a constant and then a decaying rate, clipped gradients, averaged weights."""
    return {
        "task": {"kind": "translation", "label_smoothing": 0.1},
        "tokenizer": {"kind": "bpe", "vocab": vocab},
        "model": to_dict(model),
        "train": {
            "budget": {"kind": "steps", "steps": steps},
            "optimizer": copy.deepcopy(optimizer),  # what is done to one run's settings stays there
            "schedule": {"kind": "warmup_stable_decay", "peak": peak, "warmup": warmup, "decay": 0.5},
            "batch_tokens": batch_tokens,
            "accumulate": accumulate,
            "clip": 1.0,
            "average": 0.999,
        },
    }


def as_transformer_small(model: SequenceConfig, *, peak: float = 2e-3, optimizer: Plain = ADAM_W) -> Plain:
    """Return transformer-small's recipe for another model, by default with AdamW."""
    return recipe2026(model, vocab=8000, peak=peak, steps=10_000, warmup=500, batch_tokens=4096, optimizer=optimizer)


def transformer_base() -> Plain:
    """The 2017 base model and its recipe: 100,000 steps; 63 million parameters with the paper's vocabulary."""
    return _recipe2017(vaswani2017(), steps=100_000)


def transformer_big() -> Plain:
    """The 2017 big model and its recipe: 300,000 steps; 214 million parameters with the paper's vocabulary."""
    return _recipe2017(vaswani2017(dim=1024, heads=16, hidden=4096, dropout=0.3), steps=300_000)


def transformer_2026() -> Plain:
    """Base model's size with every part replaced by its successor."""
    model = rewritten2026(dim=512, heads=8, kv_heads=2, hidden=1536, depth=6)
    return recipe2026(model, vocab=32_000, peak=1e-3, steps=100_000, warmup=2000, batch_tokens=6250, accumulate=4)


def transformer_small() -> Plain:
    """Small model for ten thousand to some hundred thousand pairs; an evening on a laptop."""
    model = rewritten2026(dim=256, heads=4, kv_heads=2, hidden=768, depth=4, dropout=0.2)
    return as_transformer_small(model, peak=7e-3, optimizer=MUON)


def transformer_tiny() -> Plain:
    """Tiny model for some thousand pairs, or some minutes: small batches, as a short training lacks steps, not
    tokens."""
    model = rewritten2026(dim=128, heads=4, kv_heads=2, hidden=384, depth=3, dropout=0.1)
    return recipe2026(model, vocab=4000, peak=1e-2, steps=6000, warmup=300, batch_tokens=1024, optimizer=MUON)


def transformer_fast() -> Plain:
    """Model for fast translation (arXiv:2006.10369): twelve encoder layers, which run once, and one decoder layer,
    which runs for every token."""
    model = rewritten2026(dim=512, heads=8, kv_heads=2, hidden=1536, depth=1, encoder_depth=12)
    return recipe2026(model, vocab=32_000, peak=1e-3, steps=100_000, warmup=2000, batch_tokens=6250, accumulate=4)


# ---- decoder-only ---------------------------------------------------------------------------------


def transformer_base_lm() -> Plain:
    """The decoder of the 2017 base model alone, a language model."""
    return architecture(decoder_only(vaswani2017()), vocab=37_000)


def transformer_big_lm() -> Plain:
    """The decoder of the 2017 big model alone, a language model."""
    return architecture(decoder_only(vaswani2017(dim=1024, heads=16, hidden=4096, dropout=0.3)), vocab=37_000)


def transformer_2026_lm() -> Plain:
    """The decoder of transformer-2026 alone, a language model."""
    return architecture(decoder_only(rewritten2026(dim=512, heads=8, kv_heads=2, hidden=1536, depth=6)), vocab=32_000)
