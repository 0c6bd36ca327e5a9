"""Small language models with recipes, for one's own text on one's own machine."""

import dataclasses

from dragoman.config import to_dict
from dragoman.model.attention import AttentionConfig
from dragoman.model.init import Gpt2Init, Xavier
from dragoman.model.interface import SequenceConfig
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.norm import LayerNorm, RmsNorm
from dragoman.model.positions.position import Learned
from dragoman.model.positions.rotary import Rotary
from dragoman.model.short_convolution import ShortConvolution
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.presets.plain import Plain

# ---- language models --------------------------------------------------------------------------------


def llama_style(*, dim: int, depth: int, heads: int, hidden: int, dropout: float) -> TransformerConfig:
    """LLaMA's shape: pre-norm RMSNorm, rotary positions, SwiGLU, no biases."""
    block = BlockConfig(
        mixer=AttentionConfig(heads=heads, position=Rotary(), visibility=Causal()),
        mlp=Gated(hidden=hidden),
        norm=RmsNorm(),
        dropout=dropout,
    )
    return TransformerConfig(
        dim=dim,
        decoder=TowerConfig(depth=depth, pattern=(block,), final_norm=RmsNorm()),
        scale_embedding=True,
        dropout=dropout,
        init=Xavier(depth_scaled=True),
    )


def gpt2_style(*, dim: int, depth: int, heads: int, length: int, dropout: float) -> TransformerConfig:
    """GPT-2's shape: pre-norm LayerNorm, learned positions, GELU, biases (Radford et al. 2019)."""
    block = BlockConfig(
        mixer=AttentionConfig(heads=heads, visibility=Causal(), bias=True),
        mlp=FeedForward(hidden=4 * dim, activation="gelu"),
        norm=LayerNorm(),
        dropout=dropout,
    )
    return TransformerConfig(
        dim=dim,
        decoder=TowerConfig(depth=depth, pattern=(block,), final_norm=LayerNorm()),
        position=Learned(length=length),
        dropout=dropout,
        init=Gpt2Init(),
    )


def language(
    model: SequenceConfig,
    *,
    vocab: int,
    context: int,
    rows: int,
    steps: int,
    schedule: Plain,
    weight_decay: float = 0.1,
) -> Plain:
    """Return the recipe of a small language model."""
    return {
        "task": {"kind": "language_modelling", "context": context},
        "tokenizer": {"kind": "bpe", "vocab": vocab},
        "model": to_dict(model),
        "train": {
            "budget": {"kind": "steps", "steps": steps},
            "optimizer": {"kind": "adam_w", "betas": [0.9, 0.98], "weight_decay": weight_decay},
            "schedule": schedule,
            "batch_tokens": rows * context,
        },
    }


def warmup_stable_decay(peak: float, warmup: int) -> Plain:
    return {"kind": "warmup_stable_decay", "peak": peak, "warmup": warmup, "decay": 0.5}


def _cosine(peak: float, warmup: int) -> Plain:
    return {"kind": "cosine", "peak": peak, "warmup": warmup, "floor": 0.1}


def as_lm_small(model: SequenceConfig, *, peak: float = 2e-3, weight_decay: float = 0.1) -> Plain:
    """Return lm-small's recipe for another model."""
    schedule = warmup_stable_decay(peak, 300)
    return language(model, vocab=8000, context=256, rows=32, steps=10_000, schedule=schedule, weight_decay=weight_decay)


def lm_small() -> Plain:
    """A language model for some megabytes of text; an evening on a laptop."""
    return as_lm_small(llama_style(dim=256, depth=6, heads=4, hidden=688, dropout=0.1))


def lm_small_2019() -> Plain:
    """lm-small as it would have been built in 2019, with as many parameters."""
    model = gpt2_style(dim=256, depth=6, heads=4, length=256, dropout=0.1)
    return language(model, vocab=8000, context=256, rows=32, steps=10_000, schedule=_cosine(6e-4, 300))


def lm_hybrid_small() -> Plain:
    """lm-small with two short convolutions for each layer of attention, as in LFM2 (arXiv:2511.23404)."""
    model = llama_style(dim=256, depth=6, heads=4, hidden=688, dropout=0.1)
    (attention,) = model.decoder.pattern
    convolution = dataclasses.replace(attention, mixer=ShortConvolution())
    decoder = dataclasses.replace(model.decoder, pattern=(convolution, convolution, attention))
    return as_lm_small(dataclasses.replace(model, decoder=decoder))


def lm_tiny() -> Plain:
    """A language model for a book or some minutes."""
    model = llama_style(dim=128, depth=4, heads=4, hidden=348, dropout=0.0)
    return language(model, vocab=2000, context=64, rows=12, steps=2000, schedule=warmup_stable_decay(3e-3, 100))


def lm_tiny_2019() -> Plain:
    """lm-tiny as it would have been built in 2019, with as many parameters."""
    model = gpt2_style(dim=128, depth=4, heads=4, length=64, dropout=0.0)
    return language(model, vocab=2000, context=64, rows=12, steps=2000, schedule=_cosine(1e-3, 100))
