"""Whisper: spectra of speech through two convolutions, and the pre-norm Transformer (arXiv:2212.04356)."""

import dataclasses
from typing import Any

from dragoman.interchange.families import marian, mbart
from dragoman.interchange.family import Family, HubConfig
from dragoman.interchange.names import NameTable
from dragoman.model.inputs import FrameConvolution, FrameInput
from dragoman.model.positions.position import Learned
from dragoman.model.transformer import TransformerConfig

_TRAINING = (
    "use_weighted_layer_sum", "classifier_proj_size", "apply_spec_augment", "mask_time_prob", "mask_time_length",
    "mask_time_min_masks", "mask_feature_prob", "mask_feature_length", "mask_feature_min_masks", "median_filter_width",
    "scale_embedding", "forced_decoder_ids", "begin_suppress_tokens",
)  # fmt: skip
"""Fields that change nothing of what this model computes; scale_embedding is stated there and not used either."""


def _without_key_bias(theirs: str) -> str:
    return theirs.replace(".k_proj.{leaf}", ".k_proj.weight")


TABLE: NameTable = {
    _without_key_bias(theirs): ours.replace(".k.{leaf}", ".k.weight") if isinstance(ours, str) else ours
    for theirs, ours in mbart.pre_norm(marian.TABLE).items()
    if theirs not in ("final_logits_bias", "model.shared.weight")
} | {
    "model.decoder.embed_tokens.weight": "embed.tokens.weight",
    "model.decoder.embed_positions.weight": "embed.position.weight",
    "model.encoder.embed_positions.weight": "source_embed.position.weight",
    "model.encoder.conv1.{leaf}": "source_embed.convolutions.0.{leaf}",
    "model.encoder.conv2.{leaf}": "source_embed.convolutions.1.{leaf}",
}


def config(given: HubConfig) -> TransformerConfig:
    given.read.update(_TRAINING)
    given.only("tie_word_embeddings", True)
    given.only("is_decoder", False)
    given.read.add("num_hidden_layers")
    return TransformerConfig(
        vocab=given["vocab_size"],
        dim=given["d_model"],
        source=FrameInput(
            channels=given["num_mel_bins"],
            convolutions=(FrameConvolution(), FrameConvolution(stride=2)),
            position=Learned(length=given["max_source_positions"]),
        ),
        encoder=marian.tower(given, "encoder", "pre"),
        decoder=marian.tower(given, "decoder", "pre"),
        position=Learned(length=given["max_target_positions"]),
        tying="target",
    )


def describe(cfg: TransformerConfig) -> dict[str, Any]:
    content = marian.describe(dataclasses.replace(cfg, source_vocab=None, tying="all"))
    source = cfg.source if isinstance(cfg.source, FrameInput) else FrameInput(channels=1)
    return {name: value for name, value in content.items() if name not in ("max_position_embeddings", "vocab_size")} | {
        "vocab_size": cfg.vocab,
        "num_mel_bins": source.channels,
        "max_source_positions": source.position.length or 1500,
        "max_target_positions": cfg.position.length or 448,
        "tie_word_embeddings": cfg.tying in ("all", "target"),
    }


FAMILY = Family(
    name="whisper",
    architectures=("WhisperForConditionalGeneration", "WhisperModel"),
    model_type="whisper",
    table=lambda cfg: TABLE,
    config=config,
    describe=describe,
    prefix="model.",
    aliases={"model.decoder.embed_tokens.weight": ("proj_out.weight",)},
    shape="encoder-decoder",
    obeyed=("forced_decoder_ids", "begin_suppress_tokens"),
    zeros=r"(encoder|decoder)\.blocks\.\d+\.(mixer|cross)\.k\.bias",
)
