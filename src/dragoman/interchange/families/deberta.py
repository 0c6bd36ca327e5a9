"""DeBERTa-v2 and v3: disentangled attention (arXiv:2006.03654, arXiv:2111.09543)."""

from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.families import bert
from dragoman.interchange.family import Family, HubConfig, their_activation
from dragoman.interchange.names import NameTable
from dragoman.model.attention import AttentionConfig
from dragoman.model.disentangled import DisentangledAttention
from dragoman.model.encoder import EncoderConfig
from dragoman.model.inputs import TokenInput
from dragoman.model.masks.visibility import Full
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm, NoNorm
from dragoman.model.positions.position import Learned, NoEmbedding
from dragoman.model.tower import BlockConfig, TowerConfig

_SELF = "deberta.encoder.layer.{i}.attention.self"


def table(cfg: EncoderConfig) -> NameTable:
    body = {theirs: ours for theirs, ours in bert.body("deberta").items() if ".attention.self." not in theirs}
    own: NameTable = {f"{_SELF}.{theirs}_proj.{{leaf}}": f"tower.blocks.{{i}}.mixer.{ours}.{{leaf}}"
                      for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v"))}  # fmt: skip
    own |= {
        "deberta.encoder.rel_embeddings.weight": "tower.schemes.0.table.weight",
        "deberta.encoder.LayerNorm.{leaf}": "tower.schemes.0.norm.{leaf}",
    }
    heads = bert.HEADS | {
        "classification": {"pooler.dense.{leaf}": "head.dense.{leaf}", "classifier.{leaf}": "head.output.{leaf}"}
    }
    return body | own | heads.get(cfg.head.kind, {})  # pyright: ignore[reportAttributeAccessIssue]


# ---- config.json -> ours ---------------------------------------------------------------------------


def _mixer(given: HubConfig) -> DisentangledAttention | AttentionConfig:
    if not given.get("relative_attention", False):
        given.read |= {"pos_att_type", "max_relative_positions", "position_buckets", "share_att_key", "norm_rel_ebd"}
        return AttentionConfig(heads=given["num_attention_heads"], visibility=Full(), bias=True)
    given.only("share_att_key", True)
    kinds = given.get("pos_att_type", "")
    kinds = kinds.lower().split("|") if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or sorted({str(kind).strip() for kind in kinds}) != ["c2p", "p2c"]:
        raise ConfigError(f"{given.where}: pos_att_type: {kinds} is not supported here, only c2p and p2c together")
    longest, buckets = given.get("max_relative_positions", -1), given.get("position_buckets", -1)
    if not isinstance(buckets, int):
        raise ConfigError(f"{given.where}: position_buckets: expected a whole number, got {buckets!r}")
    longest = given["max_position_embeddings"] if longest < 1 else longest
    normed = given.only("norm_rel_ebd", "none", "layer_norm") == "layer_norm"
    return DisentangledAttention(
        heads=given["num_attention_heads"],
        buckets=buckets if buckets > 0 else longest,
        reach=longest if buckets > 0 else None,
        norm=LayerNorm(eps=given.get("layer_norm_eps", 1e-7)) if normed else NoNorm(),
    )


def config(given: HubConfig) -> EncoderConfig:
    given.only("conv_kernel_size", 0)
    given.only("embedding_size", given["hidden_size"])
    given.only("attention_head_size", given["hidden_size"] // given["num_attention_heads"])
    given.read |= {
        "conv_act",
        "conv_groups",
        "pooler_hidden_size",
        "pooler_dropout",
        "legacy",
        "position_embedding_type",
    }
    norm = LayerNorm(eps=given.get("layer_norm_eps", 1e-7))
    block = BlockConfig(
        mixer=_mixer(given),
        mlp=FeedForward(hidden=given["intermediate_size"], activation=given.activation("hidden_act")),
        norm=norm,
        placement="post",
    )
    added = bool(given.get("position_biased_input", True))
    position = Learned(length=given["max_position_embeddings"]) if added else NoEmbedding()
    return EncoderConfig(
        inputs=TokenInput(
            vocab=given["vocab_size"], position=position, types=given.get("type_vocab_size", 0), norm=norm
        ),
        dim=given["hidden_size"],
        tower=TowerConfig(depth=given["num_hidden_layers"], pattern=(block,)),
        head=bert.head(given, norm, pooler=given.activation("pooler_hidden_act")),
    )


# ---- ours -> config.json ---------------------------------------------------------------------------


def _distances(mixer: DisentangledAttention) -> dict[str, Any]:
    return {
        "max_relative_positions": mixer.reach or mixer.buckets,
        "position_buckets": mixer.buckets if mixer.reach else -1,
        "relative_attention": True,
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "none" if isinstance(mixer.norm, NoNorm) else "layer_norm",
    }


def describe(cfg: EncoderConfig) -> dict[str, Any]:
    block, kind = cfg.blocks.pattern[0], str(cfg.head.kind)  # pyright: ignore[reportAttributeAccessIssue]
    mixer = block.mixer
    if not isinstance(cfg.inputs, TokenInput) or not isinstance(mixer, DisentangledAttention | AttentionConfig):
        raise ConfigError("model.inputs: this layout reads token ids")
    distances = _distances(mixer) if isinstance(mixer, DisentangledAttention) else {"relative_attention": False}
    longest = distances.get("max_relative_positions", 512)
    return distances | {
        "architectures": [f"DebertaV2For{bert.AS[kind]}" if kind in bert.AS else "DebertaV2Model"],
        "vocab_size": cfg.inputs.vocab,
        "hidden_size": cfg.dim,
        "num_hidden_layers": cfg.blocks.depth,
        "num_attention_heads": mixer.heads,
        "intermediate_size": getattr(block.mlp, "hidden", 1),
        "hidden_act": their_activation(getattr(block.mlp, "activation", "gelu")),
        "pooler_hidden_act": their_activation(getattr(cfg.head, "activation", None) or "gelu"),
        "layer_norm_eps": getattr(block.norm, "eps", 1e-7),
        "max_position_embeddings": cfg.inputs.position.length or longest,
        "position_biased_input": isinstance(cfg.inputs.position, Learned),
        "type_vocab_size": cfg.inputs.types,
        "id2label": {str(i): f"LABEL_{i}" for i in range(getattr(cfg.head, "classes", None) or 2)},
    }


_HEAD = "cls.predictions.transform"
FAMILY = Family(
    name="deberta",
    architectures=(
        "DebertaV2Model", "DebertaV2ForMaskedLM", "DebertaV2ForSequenceClassification",
        "DebertaV2ForTokenClassification", "DebertaV2ForQuestionAnswering",
    ),
    model_type="deberta-v2",
    table=table,
    config=config,
    describe=describe,
    prefix="deberta.",
    aliases={
        "cls.predictions.bias": ("cls.predictions.decoder.bias", "lm_predictions.lm_head.bias"),
        **{
            f"{_HEAD}.{part}.{leaf}": (f"lm_predictions.lm_head.{part}.{leaf}",)
            for part in ("dense", "LayerNorm")
            for leaf in ("weight", "bias")
        },
    },
    shape="encoder",
    tables=bert.tables,
    mixers=(DisentangledAttention, AttentionConfig),
)  # fmt: skip
