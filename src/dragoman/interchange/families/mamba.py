"""Mamba (Gu & Dao, arXiv:2312.00752), as transformers stores the models of its authors."""

from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable
from dragoman.model.mamba import Mamba
from dragoman.model.mlp import NoFeedForward
from dragoman.model.norm import RmsNorm
from dragoman.model.tower import Mixer
from dragoman.model.transformer import BlockConfig, TowerConfig, TransformerConfig

_THEIRS, _OURS = "backbone.layers.{i}.mixer", "decoder.blocks.{i}.mixer"
BACKBONE: NameTable = {
    "backbone.embeddings.weight": "embed.tokens.weight",
    "backbone.layers.{i}.norm.{leaf}": "decoder.blocks.{i}.mixer_residual.before.{leaf}",
    f"{_THEIRS}.in_proj.{{leaf}}": f"{_OURS}.inputs.{{leaf}}",
    f"{_THEIRS}.conv1d.{{leaf}}": f"{_OURS}.convolution.{{leaf}}",
    f"{_THEIRS}.A_log": f"{_OURS}.a_log",
    f"{_THEIRS}.D": f"{_OURS}.skip",
    f"{_THEIRS}.out_proj.{{leaf}}": f"{_OURS}.out.{{leaf}}",
    "backbone.norm_f.{leaf}": "decoder.final_norm.{leaf}",
    "lm_head.weight": "output.weight",
}
"""Names that both generations share."""
TABLE: NameTable = BACKBONE | {
    f"{_THEIRS}.x_proj.weight": f"{_OURS}.selection.weight",
    f"{_THEIRS}.dt_proj.weight": f"{_OURS}.step.weight",
    f"{_THEIRS}.dt_proj.bias": f"{_OURS}.step_bias",
}
ALIASES = {"backbone.embeddings.weight": ("backbone.embedding.weight",)}
"""Names in the files of the authors' own code."""


def config(given: HubConfig) -> TransformerConfig:
    dim, expand, rank = given["hidden_size"], expansion(given), given.get("time_step_rank", "auto")
    if rank != "auto" and (type(rank) is not int or rank < 1):
        raise ConfigError(f"{given.where}: time_step_rank: expected a whole number above 0, or auto, got {rank!r}")
    for name, wanted in (("intermediate_size", expand * dim), ("d_inner", expand * dim), ("d_model", dim)):
        if (found := given.get(name, wanted)) != wanted:
            raise ConfigError(
                f"{given.where}: {name}: {found} does not fit hidden_size {dim} and expand {expand}, which make it "
                f"{wanted}: correct one of them"
            )
    mixer = Mamba(
        state=given["state_size"],
        expand=expand,
        kernel=given["conv_kernel"],
        rank=None if rank in ("auto", Mamba().step_rank(dim)) else rank,
        bias=bool(given.get("use_bias", False)),
        convolution_bias=bool(given.get("use_conv_bias", True)),
    )
    return backbone(given, mixer)


def expansion(given: HubConfig) -> int:
    """Return ``expand``.

    Raises:
        ConfigError: it is no whole number above 0.
    """
    expand = given["expand"]
    if type(expand) not in (int, float) or expand != int(expand) or expand < 1:
        raise ConfigError(f"{given.where}: expand: expected a whole number above 0, got {expand!r}")
    return int(expand)


def backbone(given: HubConfig, mixer: Mixer) -> TransformerConfig:
    """Return a stack of blocks that are this mixer alone, with a norm before it."""
    given.only("hidden_act", "silu", "swish")
    given.only("rms_norm", True)
    norm = RmsNorm(eps=given["layer_norm_epsilon"])
    block = BlockConfig(mixer=mixer, mlp=NoFeedForward(), norm=norm)
    return TransformerConfig(
        vocab=given["vocab_size"],
        dim=given["hidden_size"],
        decoder=TowerConfig(depth=given["num_hidden_layers"], pattern=(block,), final_norm=norm),
        tying="target" if given["tie_word_embeddings"] else "none",
    )


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    mixer = cfg.decoder.pattern[0].mixer
    assert isinstance(mixer, Mamba)
    return described_backbone(cfg) | {
        "state_size": mixer.state,
        "expand": mixer.expand,
        "intermediate_size": mixer.expand * cfg.dim,
        "conv_kernel": mixer.kernel,
        "time_step_rank": mixer.step_rank(cfg.dim),
        "use_bias": mixer.bias,
        "use_conv_bias": mixer.convolution_bias,
    }


def described_backbone(cfg: TransformerConfig) -> dict[str, Any]:
    """Return the fields that both generations share."""
    return {
        "vocab_size": cfg.vocab,
        "hidden_size": cfg.dim,
        "num_hidden_layers": cfg.decoder.depth,
        "layer_norm_epsilon": getattr(cfg.decoder.final_norm, "eps", 1e-5),
        "hidden_act": "silu",
        "tie_word_embeddings": cfg.tying in ("all", "target"),
    }


FAMILY = Family(
    name="mamba",
    architectures=("MambaForCausalLM",),
    model_type="mamba",
    table=lambda cfg: TABLE,
    config=config,
    describe=describe,
    prefix="backbone.",
    aliases=ALIASES,
    mixers=(Mamba,),
)
