"""Qwen 2 and 2.5: LLaMA with biases on queries, keys and values; some layers may have a window (arXiv:2407.10671)."""

from typing import Any

from dragoman.interchange.families import llama
from dragoman.interchange.family import Family, HubConfig
from dragoman.model.masks.visibility import Causal, Visibility
from dragoman.model.transformer import BlockConfig, TransformerConfig


def masks(given: HubConfig) -> list[Visibility]:
    given.read |= {"sliding_window", "max_window_layers", "layer_types"}  # without use_sliding_window they are unused
    if not given.get("use_sliding_window", False):
        return [Causal()] * given["num_hidden_layers"]
    if given.get("layer_types"):
        return llama.windows(given, every=False)
    first, window = given.get("max_window_layers", 28), given["sliding_window"]
    return [Causal(window=window if i >= first else None) for i in range(given["num_hidden_layers"])]


def layer_types(cfg: TransformerConfig) -> dict[str, Any]:
    """Return the fields of config.json that ``masks`` reads."""
    sees = [cfg.decoder.pattern[i % len(cfg.decoder.pattern)].attention.visibility for i in range(cfg.decoder.depth)]
    windows = [mask.window for mask in sees if mask.window is not None]
    return {
        "use_sliding_window": bool(windows),
        "sliding_window": windows[0] if windows else None,
        "max_window_layers": 0 if windows else cfg.decoder.depth,
        "layer_types": ["full_attention" if mask.window is None else "sliding_attention" for mask in sees],
    }


def config(given: HubConfig) -> TransformerConfig:
    norm = llama.rms_norm(given)
    blocks = [
        BlockConfig(
            mixer=llama.attention(given, bias=True, out_bias=False, visibility=mask),
            mlp=llama.gated(given),
            norm=norm,
        )
        for mask in masks(given)
    ]
    return llama.model(given, blocks, norm)


FAMILY = Family(
    name="qwen2",
    architectures=("Qwen2ForCausalLM",),
    model_type="qwen2",
    table=lambda cfg: llama.TABLE,
    config=config,
    describe=lambda cfg: llama.describe(cfg) | layer_types(cfg),
    prefix="model.",
)
