"""State space models, alone and in hybrids with attention: published sizes, and small ones with recipes."""

import dataclasses

from dragoman.model.attention import AttentionConfig
from dragoman.model.bidirectional import Bidirectional
from dragoman.model.init import Gpt2Init, Xavier
from dragoman.model.mamba import Mamba
from dragoman.model.mamba2 import Mamba2
from dragoman.model.masks.visibility import Full
from dragoman.model.mlp import NoFeedForward
from dragoman.model.norm import RmsNorm
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.presets.plain import Plain, architecture
from dragoman.presets.small import as_lm_small, llama_style
from dragoman.presets.translation import as_transformer_small

# ---- published --------------------------------------------------------------------------------------


def state_space(
    mixer: Mamba | Mamba2, *, dim: int, depth: int, dropout: float = 0.0, init: Gpt2Init | Xavier | None = None
) -> TransformerConfig:
    """The shape of both papers: blocks of a norm and a mixer, without a feed-forward; tied embeddings."""
    norm = RmsNorm(eps=1e-5)
    block = BlockConfig(mixer=mixer, mlp=NoFeedForward(), norm=norm, dropout=dropout)
    return TransformerConfig(
        dim=dim,
        decoder=TowerConfig(depth=depth, pattern=(block,), final_norm=norm),
        dropout=dropout,
        init=init or Gpt2Init(),
    )


def mamba_130m() -> Plain:
    """Mamba 130M (arXiv:2312.00752, table 12)."""
    return architecture(state_space(Mamba(), dim=768, depth=24), vocab=50_280)


def mamba_370m() -> Plain:
    """Mamba 370M (arXiv:2312.00752, table 12)."""
    return architecture(state_space(Mamba(), dim=1024, depth=48), vocab=50_280)


def mamba2_130m() -> Plain:
    """Mamba-2 130M (arXiv:2405.21060, table 9)."""
    return architecture(state_space(Mamba2(chunk=256), dim=768, depth=24), vocab=50_288)


# ---- small, with recipes ----------------------------------------------------------------------------


def mamba_small() -> Plain:
    """lm-small's size in Mamba blocks."""
    model = state_space(Mamba(), dim=256, depth=11, dropout=0.1, init=Xavier(depth_scaled=True))
    return as_lm_small(model)


def mamba2_small() -> Plain:
    """lm-small's size in Mamba-2 blocks."""
    model = state_space(Mamba2(state=64), dim=256, depth=11, dropout=0.1, init=Xavier(depth_scaled=True))
    return as_lm_small(model)


def mamba2_hybrid_small() -> Plain:
    """lm-small's size with two Mamba-2 layers for each layer of attention."""
    model = llama_style(dim=256, depth=6, heads=4, hidden=544, dropout=0.1)
    (attention,) = model.decoder.pattern
    recurrent = dataclasses.replace(attention, mixer=Mamba2(state=64))
    decoder = dataclasses.replace(model.decoder, pattern=(recurrent, recurrent, attention))
    return as_lm_small(dataclasses.replace(model, decoder=decoder))


def mamba_translator_small() -> Plain:
    """transformer-small's size with Mamba in the place of self-attention: in both directions in the encoder."""
    model = state_space(Mamba(), dim=256, depth=4, dropout=0.2, init=Xavier(depth_scaled=True))
    (block,) = model.decoder.pattern
    across = AttentionConfig(heads=4, kv_heads=2, visibility=Full())
    decoder = dataclasses.replace(model.decoder, pattern=(dataclasses.replace(block, cross=across),))
    both_ways = dataclasses.replace(block, mixer=Bidirectional(mixer=Mamba()))
    encoder = TowerConfig(depth=5, pattern=(both_ways,), final_norm=model.decoder.final_norm)
    return as_transformer_small(dataclasses.replace(model, encoder=encoder, decoder=decoder))
