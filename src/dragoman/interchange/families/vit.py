"""ViT: images as patches behind a class token (arXiv:2010.11929)."""

from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.family import Family, HubConfig, class_count, their_activation
from dragoman.interchange.names import NameTable, TensorForm
from dragoman.model.attention import AttentionConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import ClassificationHead, First, NoHead
from dragoman.model.inputs import PatchInput
from dragoman.model.masks.visibility import Full
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.tower import BlockConfig, TowerConfig

_LAYER, _OURS = "vit.encoder.layer.{i}", "tower.blocks.{i}"


def table(cfg: EncoderConfig) -> NameTable:
    assert isinstance(cfg.inputs, PatchInput)
    P = cfg.inputs.patch
    return {
        "vit.embeddings.cls_token": TensorForm(("inputs.class_token",), shape=(1, 1, -1)),
        "vit.embeddings.position_embeddings": TensorForm(("inputs.position.weight",), shape=(1, -1, cfg.dim)),
        "vit.embeddings.patch_embeddings.projection.weight": TensorForm(
            ("inputs.project.weight",), shape=(-1, cfg.inputs.channels, P, P)
        ),
        "vit.embeddings.patch_embeddings.projection.bias": "inputs.project.bias",
        f"{_LAYER}.layernorm_before.{{leaf}}": f"{_OURS}.mixer_residual.before.{{leaf}}",
        f"{_LAYER}.attention.attention.query.{{leaf}}": f"{_OURS}.mixer.q.{{leaf}}",
        f"{_LAYER}.attention.attention.key.{{leaf}}": f"{_OURS}.mixer.k.{{leaf}}",
        f"{_LAYER}.attention.attention.value.{{leaf}}": f"{_OURS}.mixer.v.{{leaf}}",
        f"{_LAYER}.attention.output.dense.{{leaf}}": f"{_OURS}.mixer.out.{{leaf}}",
        f"{_LAYER}.layernorm_after.{{leaf}}": f"{_OURS}.mlp_residual.before.{{leaf}}",
        f"{_LAYER}.intermediate.dense.{{leaf}}": f"{_OURS}.mlp.up.{{leaf}}",
        f"{_LAYER}.output.dense.{{leaf}}": f"{_OURS}.mlp.out.{{leaf}}",
        "vit.layernorm.{leaf}": "tower.final_norm.{leaf}",
        "classifier.{leaf}": "head.output.{leaf}",
    }


def image_size(given: HubConfig) -> tuple[int, int]:
    """Return the height and width of images in pixels."""
    size = given["image_size"]
    height, width = size if isinstance(size, list) else (size, size)
    return height, width


def config(given: HubConfig) -> EncoderConfig:
    norm = LayerNorm(eps=given.get("layer_norm_eps", 1e-12))
    block = BlockConfig(
        mixer=AttentionConfig(
            heads=given["num_attention_heads"],
            visibility=Full(),
            bias=bool(given.get("qkv_bias", True)),
            out_bias=True,
        ),
        mlp=FeedForward(hidden=given["intermediate_size"], activation=given.activation("hidden_act")),
        norm=norm,
    )
    classifies = "ViTForImageClassification" in given.get("architectures", [])
    return EncoderConfig(
        inputs=PatchInput(size=image_size(given), patch=given["patch_size"], channels=given.get("num_channels", 3)),
        dim=given["hidden_size"],
        tower=TowerConfig(depth=given["num_hidden_layers"], pattern=(block,), final_norm=norm),
        head=ClassificationHead(classes=class_count(given), pooling=First()) if classifies else NoHead(),
    )


def describe(cfg: EncoderConfig) -> dict[str, Any]:
    block = cfg.blocks.pattern[0]
    if not isinstance(cfg.inputs, PatchInput):
        raise ConfigError("model.inputs: this layout reads images")
    classifies = isinstance(cfg.head, ClassificationHead)
    return {
        "architectures": ["ViTForImageClassification" if classifies else "ViTModel"],
        "hidden_size": cfg.dim,
        "num_hidden_layers": cfg.tower.depth,
        "num_attention_heads": block.attention.heads,
        "intermediate_size": getattr(block.mlp, "hidden", 1),
        "hidden_act": their_activation(getattr(block.mlp, "activation", "gelu")),
        "layer_norm_eps": getattr(block.norm, "eps", 1e-12),
        "qkv_bias": block.attention.bias,
        "image_size": cfg.inputs.size[0] if len(set(cfg.inputs.size)) == 1 else list(cfg.inputs.size),
        "patch_size": cfg.inputs.patch,
        "num_channels": cfg.inputs.channels,
        "id2label": {str(i): f"LABEL_{i}" for i in range(getattr(cfg.head, "classes", None) or 2)},
    }


FAMILY = Family(
    name="vit",
    architectures=("ViTForImageClassification", "ViTModel"),
    model_type="vit",
    table=table,
    config=config,
    describe=describe,
    prefix="vit.",
    shape="encoder",
    tables=lambda cfg: frozenset(),
)
