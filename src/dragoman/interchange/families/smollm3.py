"""SmolLM 3: LLaMA in which every fourth layer has no positions (NoPE: Yang et al., arXiv:2501.18795)."""

from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.families import llama, qwen2
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.rope import read_rotary, their_rotary
from dragoman.model.masks.visibility import Causal, Visibility
from dragoman.model.positions.position import NoPosition
from dragoman.model.positions.rotary import Rotary
from dragoman.model.transformer import BlockConfig, TransformerConfig

THETA = 2_000_000.0
"""Base of the wavelengths where config.json gives none."""


def rotated(given: HubConfig) -> list[bool]:
    """Return for each layer whether it has rotary positions: 1 in ``no_rope_layers``, or all but every fourth.

    Raises:
        ConfigError: a list that is too short or has other entries, or an interval that is no whole number above 0.
    """
    depth, listed = given["num_hidden_layers"], given.get("no_rope_layers")
    every = given.get("no_rope_layer_interval", 4)
    if listed is None:
        if type(every) is not int or every < 1:
            raise ConfigError(f"{given.where}: no_rope_layer_interval: expected a whole number above 0, got {every!r}")
        return [(i + 1) % every != 0 for i in range(depth)]
    if not isinstance(listed, list) or len(listed) < depth or any(entry not in (0, 1) for entry in listed):
        raise ConfigError(
            f"{given.where}: no_rope_layers: expected 1 (with positions) or 0 for each of {depth} layers, "
            f"got {listed!r}"
        )
    return [bool(entry) for entry in listed[:depth]]


def masks(given: HubConfig, has_rope: list[bool]) -> list[Visibility]:
    """Return each layer's mask: with a window where ``layer_types`` say so, or in layers without positions."""
    given.read |= {"sliding_window", "max_window_layers", "pretraining_tp"}  # unused unless a layer has a window
    window = given.get("sliding_window") if given.get("use_sliding_window", False) else None
    if given.get("layer_types"):
        return llama.windows(given, every=False)
    return [Causal() if rope else Causal(window=window) for rope in has_rope]


def config(given: HubConfig) -> TransformerConfig:
    norm, mlp, positions, has_rope = (
        llama.rms_norm(given),
        llama.gated_with_bias(given),
        read_rotary(given, theta=THETA),
        rotated(given),
    )
    blocks = [
        BlockConfig(
            mixer=llama.attention(given, position=positions if rope else NoPosition(), visibility=mask),
            mlp=mlp,
            norm=norm,
        )
        for rope, mask in zip(has_rope, masks(given, has_rope), strict=True)
    ]
    tied = given.changed(tie_word_embeddings=given.get("tie_word_embeddings", True))
    return llama.model(tied, blocks, norm)


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    mixers = [cfg.decoder.pattern[i % len(cfg.decoder.pattern)].attention for i in range(cfg.decoder.depth)]
    has_rope = [isinstance(mixer.position, Rotary) for mixer in mixers]
    first = mixers[has_rope.index(True)] if any(has_rope) else mixers[0]
    return (
        llama.describe(cfg)
        | {name: value for name, value in qwen2.layer_types(cfg).items() if name != "max_window_layers"}
        | {"rope_parameters": their_rotary(first.position), "no_rope_layers": [int(rope) for rope in has_rope]}
    )


FAMILY = Family(
    name="smollm3",
    architectures=("SmolLM3ForCausalLM",),
    model_type="smollm3",
    table=lambda cfg: llama.TABLE,
    config=config,
    describe=describe,
    prefix="model.",
)
