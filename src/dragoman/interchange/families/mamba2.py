"""Mamba-2 (Dao & Gu, arXiv:2405.21060), as transformers stores it: Codestral Mamba among others."""

import math
from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.families.mamba import ALIASES, BACKBONE, backbone, described_backbone, expansion
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable
from dragoman.model.mamba2 import Mamba2
from dragoman.model.transformer import TransformerConfig

_THEIRS, _OURS = "backbone.layers.{i}.mixer", "decoder.blocks.{i}.mixer"
TABLE: NameTable = BACKBONE | {
    f"{_THEIRS}.dt_bias": f"{_OURS}.step_bias",
    f"{_THEIRS}.norm.weight": f"{_OURS}.norm.weight",
}


def config(given: HubConfig) -> TransformerConfig:
    dim, expand, head_dim, groups = given["hidden_size"], expansion(given), given["head_dim"], given["n_groups"]
    heads = given["num_heads"]
    if heads * head_dim != expand * dim:
        raise ConfigError(
            f"{given.where}: num_heads: {heads} heads of head_dim {head_dim} are {heads * head_dim} channels, but "
            f"expand {expand} x hidden_size {dim} are {expand * dim}: correct one of them"
        )
    if heads % groups:
        raise ConfigError(f"{given.where}: n_groups: {groups} groups do not divide num_heads, {heads}")
    given.get("time_step_rank")  # left over from the first generation: step sizes come from the first projection
    smallest, largest = limits(given)
    mixer = Mamba2(
        state=given["state_size"],
        expand=expand,
        head_dim=head_dim,
        groups=groups,
        kernel=given["conv_kernel"],
        chunk=given["chunk_size"],
        bias=bool(given.get("use_bias", False)),
        convolution_bias=bool(given.get("use_conv_bias", True)),
        norm_eps=given["layer_norm_epsilon"],
        smallest_step=smallest,
        largest_step=largest,
    )
    return backbone(given, mixer)


def limits(given: HubConfig) -> tuple[float, float | None]:
    """Return the smallest and the largest step size of ``time_step_limit``; None for no limit.

    Raises:
        ConfigError: they are not two numbers in order.
    """
    stated = given.get("time_step_limit", [0.0, math.inf])
    try:
        smallest, largest = (float(v["__float__"] if isinstance(v, dict) else v) for v in stated)
        if not 0 <= smallest <= largest or largest == 0:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f"{given.where}: time_step_limit: expected two numbers, the smallest and the largest step, got {stated!r}"
        ) from None
    return smallest, None if largest == math.inf else largest


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    mixer = cfg.decoder.pattern[0].mixer
    assert isinstance(mixer, Mamba2)
    limited = mixer.smallest_step > 0 or mixer.largest_step is not None
    limit = [mixer.smallest_step, mixer.largest_step or {"__float__": "Infinity"}]
    return described_backbone(cfg) | {
        "state_size": mixer.state,
        "expand": mixer.expand,
        "head_dim": mixer.head_dim,
        "num_heads": mixer.heads(cfg.dim),
        "n_groups": mixer.groups,
        "conv_kernel": mixer.kernel,
        "chunk_size": mixer.chunk,
        "use_bias": mixer.bias,
        "use_conv_bias": mixer.convolution_bias,
        **({"time_step_limit": limit} if limited else {}),
    }


FAMILY = Family(
    name="mamba2",
    architectures=("Mamba2ForCausalLM",),
    model_type="mamba2",
    table=lambda cfg: TABLE,
    config=config,
    describe=describe,
    prefix="backbone.",
    aliases=ALIASES,
    mixers=(Mamba2,),
)
