"""SigLIP's reader of images: ViT without a class token, pooled by attention (arXiv:2303.15343)."""

from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.families import vit
from dragoman.interchange.family import Family, HubConfig, their_activation
from dragoman.interchange.names import NameTable, TensorForm
from dragoman.model.attention import AttentionConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import AttentionPoolingHead, NoHead
from dragoman.model.inputs import PatchInput
from dragoman.model.masks.visibility import Full
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.tower import BlockConfig, TowerConfig

_HEAD = "vision_model.head"


def layers(theirs: str, ours: str) -> NameTable:
    """Return the names of the layers of a tower, that of texts or that of images."""
    their, our = f"{theirs}.encoder.layers.{{i}}", f"{ours}.blocks.{{i}}"
    return {
        f"{their}.layer_norm1.{{leaf}}": f"{our}.mixer_residual.before.{{leaf}}",
        f"{their}.self_attn.q_proj.{{leaf}}": f"{our}.mixer.q.{{leaf}}",
        f"{their}.self_attn.k_proj.{{leaf}}": f"{our}.mixer.k.{{leaf}}",
        f"{their}.self_attn.v_proj.{{leaf}}": f"{our}.mixer.v.{{leaf}}",
        f"{their}.self_attn.out_proj.{{leaf}}": f"{our}.mixer.out.{{leaf}}",
        f"{their}.layer_norm2.{{leaf}}": f"{our}.mlp_residual.before.{{leaf}}",
        f"{their}.mlp.fc1.{{leaf}}": f"{our}.mlp.up.{{leaf}}",
        f"{their}.mlp.fc2.{{leaf}}": f"{our}.mlp.out.{{leaf}}",
    }


def tower(given: HubConfig) -> TowerConfig:
    """Return the tower of a config.json, that of texts or that of images."""
    norm = LayerNorm(eps=given.get("layer_norm_eps", 1e-6))
    block = BlockConfig(
        mixer=AttentionConfig(heads=given["num_attention_heads"], visibility=Full(), bias=True),
        mlp=FeedForward(hidden=given["intermediate_size"], activation=given.activation("hidden_act")),
        norm=norm,
    )
    return TowerConfig(depth=given["num_hidden_layers"], pattern=(block,), final_norm=norm)


def describe_tower(cfg: EncoderConfig) -> dict[str, Any]:
    """Return the fields of config.json that both towers have."""
    block = cfg.blocks.pattern[0]
    return {
        "hidden_size": cfg.dim,
        "num_hidden_layers": cfg.blocks.depth,
        "num_attention_heads": block.attention.heads,
        "intermediate_size": getattr(block.mlp, "hidden", 1),
        "hidden_act": their_activation(getattr(block.mlp, "activation", "gelu_tanh")),
        "layer_norm_eps": getattr(block.norm, "eps", 1e-6),
    }


def table(cfg: EncoderConfig) -> NameTable:
    assert isinstance(cfg.inputs, PatchInput)
    P = cfg.inputs.patch
    return {
        "vision_model.embeddings.patch_embedding.weight": TensorForm(
            ("inputs.project.weight",), shape=(-1, cfg.inputs.channels, P, P)
        ),
        "vision_model.embeddings.patch_embedding.bias": "inputs.project.bias",
        "vision_model.embeddings.position_embedding.weight": "inputs.position.weight",
        **layers("vision_model", "tower"),
        "vision_model.post_layernorm.{leaf}": "tower.final_norm.{leaf}",
        f"{_HEAD}.probe": TensorForm(("head.query",), shape=(1, 1, -1)),
        f"{_HEAD}.attention.in_proj_weight": TensorForm(tuple(f"head.{part}.weight" for part in "qkv")),
        f"{_HEAD}.attention.in_proj_bias": TensorForm(tuple(f"head.{part}.bias" for part in "qkv")),
        f"{_HEAD}.attention.out_proj.{{leaf}}": "head.out.{leaf}",
        f"{_HEAD}.layernorm.{{leaf}}": "head.norm.{leaf}",
        f"{_HEAD}.mlp.fc1.{{leaf}}": "head.mlp.up.{leaf}",
        f"{_HEAD}.mlp.fc2.{{leaf}}": "head.mlp.out.{leaf}",
    }


def config(given: HubConfig) -> EncoderConfig:
    read = tower(given)
    pooled = AttentionPoolingHead(
        heads=given["num_attention_heads"],
        hidden=given["intermediate_size"],
        activation=given.activation("hidden_act"),
        norm=read.final_norm,
    )
    return EncoderConfig(
        inputs=PatchInput(
            size=vit.image_size(given),
            patch=given["patch_size"],
            channels=given.get("num_channels", 3),
            class_token=False,
        ),
        dim=given["hidden_size"],
        tower=read,
        head=pooled if given.get("vision_use_head", True) else NoHead(),
    )


def describe(cfg: EncoderConfig) -> dict[str, Any]:
    if not isinstance(cfg.inputs, PatchInput):
        raise ConfigError("model.inputs: this layout reads images")
    height, width = cfg.inputs.size
    return describe_tower(cfg) | {
        "architectures": ["SiglipVisionModel"],
        "image_size": height if height == width else [height, width],
        "patch_size": cfg.inputs.patch,
        "num_channels": cfg.inputs.channels,
        "vision_use_head": isinstance(cfg.head, AttentionPoolingHead),
    }


FAMILY = Family(
    name="siglip",
    architectures=("SiglipVisionModel",),
    model_type="siglip_vision_model",
    table=table,
    config=config,
    describe=describe,
    prefix="vision_model.",
    shape="encoder",
    tables=lambda cfg: frozenset(),
)
