"""DINOv2: ViT with a learned factor for each channel of a layer's output (arXiv:2304.07193)."""

from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.families import vit
from dragoman.interchange.family import Family, HubConfig, class_count, their_activation
from dragoman.interchange.names import NameTable, TensorForm
from dragoman.model.attention import AttentionConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import ClassificationHead, First, FirstAndMean, NoHead, SentenceHead
from dragoman.model.inputs import PatchInput
from dragoman.model.masks.visibility import Full
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.norm import LayerNorm, LayerScale
from dragoman.model.tower import BlockConfig, TowerConfig

_LAYER, _OURS = "dinov2.encoder.layer.{i}", "tower.blocks.{i}"


def table(cfg: EncoderConfig) -> NameTable:
    same = ("embeddings", "attention", "layernorm.", "classifier")
    rows = {
        theirs.replace("vit.", "dinov2.", 1): ours
        for theirs, ours in vit.table(cfg).items()
        if any(part in theirs for part in same) and not any(part in theirs for part in ("norm_before", "norm_after"))
    }
    return rows | {
        f"{_LAYER}.norm1.{{leaf}}": f"{_OURS}.mixer_residual.before.{{leaf}}",
        f"{_LAYER}.norm2.{{leaf}}": f"{_OURS}.mlp_residual.before.{{leaf}}",
        f"{_LAYER}.layer_scale1.lambda1": f"{_OURS}.mixer_residual.factor",
        f"{_LAYER}.layer_scale2.lambda1": f"{_OURS}.mlp_residual.factor",
        **(_GATED if isinstance(cfg.blocks.pattern[0].mlp, Gated) else _PLAIN),
    }


_PLAIN: NameTable = {
    f"{_LAYER}.mlp.fc1.{{leaf}}": f"{_OURS}.mlp.up.{{leaf}}",
    f"{_LAYER}.mlp.fc2.{{leaf}}": f"{_OURS}.mlp.out.{{leaf}}",
}
_GATED: NameTable = {
    f"{_LAYER}.mlp.weights_in.weight": TensorForm(tuple(f"{_OURS}.mlp.{part}.weight" for part in ("gate", "up"))),
    f"{_LAYER}.mlp.weights_in.bias": TensorForm(tuple(f"{_OURS}.mlp.{part}.bias" for part in ("gate", "up"))),
    f"{_LAYER}.mlp.weights_out.{{leaf}}": f"{_OURS}.mlp.out.{{leaf}}",
}


def mlp(given: HubConfig) -> FeedForward | Gated:
    """Return the feed-forward: plain, or SwiGLU of two thirds of its width, rounded up to a multiple of 8."""
    hidden = int(given["hidden_size"] * given["mlp_ratio"])
    if given.get("use_swiglu_ffn", False):
        given.read.add("hidden_act")
        return Gated(hidden=(int(hidden * 2 / 3) + 7) // 8 * 8, activation="silu", bias=True)
    return FeedForward(hidden=hidden, activation=given.activation("hidden_act"))


def config(given: HubConfig) -> EncoderConfig:
    norm = LayerNorm(eps=given.get("layer_norm_eps", 1e-6))
    block = BlockConfig(
        mixer=AttentionConfig(
            heads=given["num_attention_heads"], visibility=Full(), bias=bool(given.get("qkv_bias", True)), out_bias=True
        ),
        mlp=mlp(given),
        norm=norm,
        residual=LayerScale(),
    )
    classifies = "Dinov2ForImageClassification" in given.get("architectures", [])
    return EncoderConfig(
        inputs=PatchInput(size=vit.image_size(given), patch=given["patch_size"], channels=given.get("num_channels", 3)),
        dim=given["hidden_size"],
        tower=TowerConfig(depth=given["num_hidden_layers"], pattern=(block,), final_norm=norm),
        head=ClassificationHead(classes=class_count(given), pooling=FirstAndMean()) if classifies else NoHead(),
    )


def describe(cfg: EncoderConfig) -> dict[str, Any]:
    block = cfg.blocks.pattern[0]
    if not isinstance(cfg.inputs, PatchInput):
        raise ConfigError("model.inputs: this layout reads images")
    described, gated = vit.describe(cfg), isinstance(block.mlp, Gated)
    hidden = getattr(block.mlp, "hidden", cfg.dim)
    stored = getattr(cfg.inputs.position, "stored", None)
    names = ("id2label", "hidden_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps", "qkv_bias",
             "patch_size", "num_channels")  # fmt: skip
    return {name: described[name] for name in names} | {
        "architectures": [
            "Dinov2ForImageClassification" if isinstance(cfg.head, ClassificationHead) else "Dinov2Model"
        ],
        "image_size": [side * cfg.inputs.patch for side in stored] if stored else described["image_size"],
        "hidden_act": "gelu" if gated else their_activation(getattr(block.mlp, "activation", "gelu")),
        "use_swiglu_ffn": gated,
        "mlp_ratio": round(hidden * 1.5 / cfg.dim) if gated else hidden // cfg.dim,
        "use_mask_token": False,
    }


FAMILY = Family(
    name="dinov2",
    architectures=("Dinov2ForImageClassification", "Dinov2Model"),
    model_type="dinov2",
    table=table,
    config=config,
    describe=describe,
    prefix="dinov2.",
    shape="encoder",
    tables=lambda cfg: frozenset(),
    vector=SentenceHead(pooling=First(), normalize=False),
    resamples=True,
)
