"""Mistral: LLaMA whose tokens see a window of the past (arXiv:2310.06825)."""

from typing import Any

from dragoman.interchange.families import llama
from dragoman.interchange.family import Family, HubConfig
from dragoman.model.transformer import BlockConfig, TransformerConfig


def config(given: HubConfig) -> TransformerConfig:
    norm = llama.rms_norm(given)
    blocks = [
        BlockConfig(mixer=llama.attention(given, bias=False, visibility=mask), mlp=llama.gated(given), norm=norm)
        for mask in llama.windows(given, every=given.get("sliding_window") is not None)
    ]
    return llama.model(given, blocks, norm)


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    return llama.describe(cfg) | {"sliding_window": cfg.decoder.pattern[0].attention.visibility.window}


FAMILY = Family(
    name="mistral",
    architectures=("MistralForCausalLM",),
    model_type="mistral",
    table=lambda cfg: llama.TABLE,
    config=config,
    describe=describe,
    prefix="model.",
)
