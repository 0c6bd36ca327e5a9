"""Gemma 3 for text: five layers with a window to each without, which has another rotary base (arXiv:2503.19786)."""

from typing import Any

from dragoman.interchange.families import gemma2, qwen2
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.rope import read_rotary, their_rotary
from dragoman.model.positions.rotary import Rotary
from dragoman.model.transformer import BlockConfig, TransformerConfig


def config(given: HubConfig) -> TransformerConfig:
    depth = given["num_hidden_layers"]
    every = given.get("sliding_window_pattern", given.get("_sliding_window_pattern", 6))
    given.read |= {"rope_local_base_freq", "rope_scaling"}  # rope_parameters takes their place
    kinds = given.get("layer_types") or [
        "full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(depth)
    ]
    with_types = given.changed(layer_types=kinds)
    masks = gemma2.masks(with_types)
    return gemma2.model(given, [_block(given, kind, mask) for kind, mask in zip(kinds, masks, strict=True)])


def _block(given: HubConfig, kind: str, mask: Any) -> BlockConfig:
    if given.get("rope_parameters"):
        position = read_rotary(given, kind)
    elif kind == "full_attention":
        position = read_rotary(given, theta=1_000_000.0)
    else:
        position = Rotary(theta=float(given.get("rope_local_base_freq", 10_000.0)))
    return gemma2.block(given, visibility=mask, position=position, qk_norm=gemma2.norm(given))


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    kinds = qwen2.layer_types(cfg)["layer_types"]
    mixers = [cfg.decoder.pattern[i % len(cfg.decoder.pattern)].attention for i in range(cfg.decoder.depth)]
    positions = {kind: their_rotary(mixer.position) for kind, mixer in zip(kinds, mixers, strict=True)}
    default = next(iter(positions.values()))
    return gemma2.describe(cfg) | {
        "rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), default) | positions,
        "sliding_window": qwen2.layer_types(cfg)["sliding_window"] or 4096,
    }


FAMILY = Family(
    name="gemma3",
    architectures=("Gemma3ForCausalLM",),
    model_type="gemma3_text",
    table=lambda cfg: gemma2.TABLE,
    config=config,
    describe=describe,
    prefix="model.",
    within=("language_model.", "model.language_model."),
)
