"""The families of checkpoints, a file each."""

from dragoman.interchange.families import (
    bart,
    bert,
    gemma2,
    gemma3,
    gpt2,
    lfm2,
    llama,
    mamba,
    mamba2,
    marian,
    mistral,
    mixtral,
    olmo2,
    qwen2,
    qwen3,
    qwen3_moe,
    roberta,
    t5,
    vit,
    xlstm,
)
from dragoman.interchange.family import Family

FAMILIES: tuple[Family, ...] = (
    llama.FAMILY,
    mistral.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
    gpt2.FAMILY,
    mixtral.FAMILY,
    qwen3_moe.FAMILY,
    olmo2.FAMILY,
    gemma2.FAMILY,
    gemma3.FAMILY,
    marian.FAMILY,
    bart.FAMILY,
    t5.FAMILY,
    bert.FAMILY,
    roberta.FAMILY,
    vit.FAMILY,
    mamba.FAMILY,
    mamba2.FAMILY,
    lfm2.FAMILY,
    xlstm.FAMILY,
)
"""Families, in the order in which an export tries them."""
