"""SigLIP whole: a reader of texts beside the reader of images, and the similarity of both (arXiv:2303.15343)."""

import dataclasses
from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.families import siglip
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable, TensorForm
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import AttentionPoolingHead, Last, SentenceHead
from dragoman.model.inputs import FixedLength, TokenInput
from dragoman.model.positions.position import Learned

_SIZES = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
}  # fmt: skip
_TEXTS = _SIZES | {"vocab_size": 32_000, "max_position_embeddings": 64}
_IMAGES = _SIZES | {"image_size": 224, "patch_size": 16}
"""Values of fields that published folders leave out, since they are those of transformers' class."""
_TEXT: NameTable = {
    "text_model.embeddings.token_embedding.weight": "first.inputs.tokens.weight",
    "text_model.embeddings.position_embedding.weight": "first.inputs.position.weight",
    **siglip.layers("text_model", "first.tower"),
    "text_model.final_layer_norm.{leaf}": "first.tower.final_norm.{leaf}",
    "text_model.head.{leaf}": "first.head.output.{leaf}",
    "logit_scale": TensorForm(("log_scale",), shape=(1,)),
    "logit_bias": TensorForm(("bias",), shape=(1,)),
}


def table(cfg: TwoTowersConfig) -> NameTable:
    assert cfg.second is not None
    images: NameTable = {}
    for theirs, ours in siglip.table(cfg.second).items():
        form = ours if isinstance(ours, TensorForm) else TensorForm((ours,))
        images[theirs] = TensorForm(tuple(f"second.{name}" for name in form.ours), form.transposed, form.shape)
    return _TEXT | images


def _part(given: HubConfig, name: str, usual: dict[str, Any]) -> HubConfig:
    """Return the settings of one tower; raises ConfigError where they are none."""
    stated = given.get(name, {})
    if not isinstance(stated, dict):
        raise ConfigError(f"{given.where}: {name}: expected the settings of a tower, got {stated!r}")
    part = HubConfig(usual | {key: value for key, value in stated.items() if value is not None}, given.where)
    part.notes = given.notes
    given.parts[name] = part
    return part


def config(given: HubConfig) -> TwoTowersConfig:
    images = siglip.config(_part(given, "vision_config", _IMAGES))
    if not isinstance(images.head, AttentionPoolingHead):
        raise ConfigError(f"{given.where}: vision_config.vision_use_head: must be true, for images to have a vector")
    seen = dataclasses.replace(images, head=dataclasses.replace(images.head, normalize=True))
    return TwoTowersConfig(first=_texts(_part(given, "text_config", _TEXTS)), second=seen, objective="sigmoid")


def _texts(given: HubConfig) -> EncoderConfig:
    length = given["max_position_embeddings"]
    return EncoderConfig(
        inputs=TokenInput(
            vocab=given["vocab_size"], position=Learned(length=length), filled=FixedLength(length=length)
        ),
        dim=given["hidden_size"],
        tower=siglip.tower(given),
        head=SentenceHead(pooling=Last(), size=given.get("projection_size", given["hidden_size"]), bias=True),
    )


def describe(cfg: TwoTowersConfig) -> dict[str, Any]:
    texts, images = cfg.first, cfg.second
    if images is None or not isinstance(texts.inputs, TokenInput):
        raise ConfigError("model: this layout reads texts first, and images second")
    seen = {name: value for name, value in siglip.describe(images).items() if name != "architectures"}
    read = {
        "vocab_size": texts.inputs.vocab,
        "max_position_embeddings": texts.inputs.position.length,
        "projection_size": getattr(texts.head, "size", None),
    }
    return {
        "text_config": siglip.describe_tower(texts) | read,
        "vision_config": seen,
    }


FAMILY = Family(
    name="siglip_towers",
    architectures=("SiglipModel",),
    model_type="siglip",
    table=table,
    config=config,
    describe=describe,
    shape="towers",
    tables=lambda cfg: frozenset({"first.inputs.tokens.weight"}),
)
