"""A run as a model of CTranslate2, the inference engine, through the specifications of its own converter.

Its ids are ours: the engine takes and gives our tokenizer's tokens. Encoder-decoders of 2017 and of today (RMSNorm,
rotary, SwiGLU, grouped queries) and decoders alone are expressible; `obstacles` yields what is not.

D width, H query heads, G key/value heads.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dragoman import durable
from dragoman.checkpoint import RunDirectory
from dragoman.config import kind_of, unknown
from dragoman.errors import ConfigError
from dragoman.interchange.checking import built, check_ctranslate2
from dragoman.interchange.exporting import ModelWeights, check_free, weights_of
from dragoman.interchange.nearest import nearest_preset
from dragoman.interchange.vocabulary import NAMES
from dragoman.interchange.whitelist import FieldRule, Whitelist, only, unknown_parts
from dragoman.model.attention import AttentionConfig
from dragoman.model.families import ModelConfig
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mlp import Activation, FeedForward, Gated
from dragoman.model.norm import LayerNorm, NoNorm, Norm, PlainResidual, RmsNorm, ZeroCenteredRmsNorm
from dragoman.model.positions.position import (
    Alibi,
    Learned,
    NoEmbedding,
    NoPosition,
    Sinusoidal,
    SinusoidalEmbedding,
    T5Bias,
)
from dragoman.model.positions.rotary import LinearScaling, NoScaling, Rotary
from dragoman.model.scorer import Dot, ScaledDot
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.text.tokens.tokenizer import Tokenizer

ACTIVATIONS: dict[Activation, str] = {"relu": "RELU", "gelu": "GELU", "gelu_tanh": "GELUTanh", "silu": "SWISH",
                                      "gelu_quick": "GELUSigmoid"}  # fmt: skip
QUANTIZATIONS = ("int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16", "float32")
LONGEST = 1024
"""Positions that sines and cosines are written out for, where the model itself has no limit."""


def export_ctranslate2(
    run: str | Path,
    folder: str | Path,
    checkpoint: str | int = "best",
    quantization: str | None = None,
    *,
    check: bool = True,
) -> None:
    """Write the folder that ``ctranslate2.Translator`` (or ``Generator``) opens, with our tokenizers beside the model.

    The model is compared with the run's first, in float32, unless ``check`` is false.

    Raises:
        CheckpointError: as ``RunDirectory.load``, something is at ``folder`` already, or the export answers otherwise.
        ConfigError: the model cannot be expressed (the message names the path), or CTranslate2 is not installed.
    """
    directory, folder = RunDirectory.open(run), Path(folder)
    check_free(folder)
    cfg, weights = weights_of(directory, checkpoint)
    if quantization not in (None, *QUANTIZATIONS):
        raise ConfigError(unknown("quantization", quantization, QUANTIZATIONS))
    if hindrance := ctranslate2_obstacle(cfg):
        raise ConfigError(f"{hindrance}: cannot be expressed in CTranslate2; {nearest_preset(cfg, 'ctranslate2')}")
    assert isinstance(cfg, TransformerConfig), "checked just now"
    source, target = directory.tokenizers()

    def write(path: Path, quantization: str | None) -> None:
        spec = _specification(cfg, {name: value.float() for name, value in weights.items()})
        _set_vocabulary(spec, source, target, cfg)
        spec.validate()
        spec.optimize(quantization)
        spec.save(str(path))

    with durable.folder(folder) as partial:
        if check:
            with tempfile.TemporaryDirectory(dir=partial.parent) as plain:
                write(Path(plain), None)
                check_ctranslate2(Path(plain), built(cfg, weights), (tokens(source), tokens(target)))
        write(partial, quantization)
        for path in directory.tokenizer_files():
            (partial / path.name).write_bytes(path.read_bytes())


# ---- what can be expressed --------------------------------------------------------------------------


_NORM: dict[str, FieldRule] = {"eps": "written"}
KNOWN: Whitelist = {
    TransformerConfig: {
        "vocab": "written", "source_vocab": "written", "dim": "written", "encoder": "written", "decoder": "written",
        "position": "written", "scale_embedding": "written", "embedding_norm": "written", "tying": "written",
        "output_bias": "written", "suppressed": "written", "scale_output": "written", "logit_cap": only(None),
        "pad": "harmless", "source": only(None), "dropout": "harmless", "init": "harmless",
    },
    TowerConfig: {"depth": "written", "pattern": "written", "final_norm": "written"},
    BlockConfig: {
        "mixer": "written", "cross": "written", "mlp": "written", "norm": "written", "placement": only("pre", "post"),
        "residual": "written", "dropout": "harmless",
    },
    AttentionConfig: {
        "heads": "written", "kv_heads": "written", "head_dim": "written", "position": "written",
        "visibility": "written", "scorer": "written", "qk_norm": "written", "bias": "written", "out_bias": "written",
        "dropout": "harmless",
    },
    FeedForward: {"hidden": "written", "activation": only(*ACTIVATIONS), "bias": "written", "dropout": "harmless"},
    Gated: {"hidden": "written", "activation": only(*ACTIVATIONS), "bias": "written", "dropout": "harmless"},
    LayerNorm: {**_NORM, "bias": only(True)},
    RmsNorm: _NORM,
    ZeroCenteredRmsNorm: _NORM,
    NoNorm: {},
    PlainResidual: {},
    NoEmbedding: {},
    Learned: {"length": "written", "offset": "written"},
    Sinusoidal: {"base": "written", "layout": "written"},
    NoPosition: {},
    Rotary: {"theta": "written", "scaling": "written", "fraction": "written", "pairs": "written"},
    NoScaling: {},
    LinearScaling: {"factor": "written"},
    T5Bias: {"buckets": "written", "reach": "written", "bidirectional": "written", "shared": only(True)},
    Alibi: {},
    Dot: {},
    Full: {},
    Causal: {"window": only(None), "sinks": only(0)},  # its own window forgets other tokens than ours
    ScaledDot: {"scale": only(None)},
}  # fmt: skip
"""Parts that can be written for the engine; all others are refused."""


def ctranslate2_obstacle(cfg: ModelConfig) -> str | None:
    """Return the first part that cannot be expressed, with its path; None where all can."""
    if not isinstance(cfg, TransformerConfig):
        return f"model.kind: {_kind(cfg)}"
    return next(obstacles(cfg), None)


def obstacles(cfg: TransformerConfig) -> Iterator[str]:
    """Yield every part that cannot be expressed, with its path."""
    unknown_to_engine = list(unknown_parts(cfg, KNOWN))
    yield from unknown_to_engine
    if unknown_to_engine:
        return  # the checks below assume known parts
    towers = {"decoder": cfg.decoder} | ({"encoder": cfg.encoder} if cfg.encoder else {})
    yield from _tower_obstacles(cfg, towers)


def _tower_obstacles(cfg: TransformerConfig, towers: dict[str, TowerConfig]) -> Iterator[str]:
    for side, tower in towers.items():
        first = tower.pattern[0]
        for i, block in enumerate(tower.pattern):
            path = f"model.{side}.pattern.{i}"
            if i and block != first:
                yield f"{path}: layers that differ from one another"
            if isinstance(block.norm, NoNorm):
                yield f"{path}.norm: no norm"
            yield from _attention_obstacles(block, path, crossing=cfg.encoder is not None)
            yield from _visibility_obstacles(block, path, side)
        inside = first.attention.position  # without positions there, the engine adds those of the embeddings, or sines
        if isinstance(cfg.position, NoEmbedding) != isinstance(inside, Rotary | T5Bias | Alibi):
            yield f"model.{side}.pattern.0.mixer.position: {_kind(inside)} after model.position: {_kind(cfg.position)}"
        if isinstance(tower.final_norm, NoNorm) != (first.placement == "post"):
            yield f"model.{side}.final_norm: {_kind(tower.final_norm)} after {first.placement}-norm blocks"
        yield from _norm_obstacles(cfg, tower, f"model.{side}")
    if cfg.encoder and cfg.encoder.pattern[0].placement != cfg.decoder.pattern[0].placement:
        yield "model.encoder.pattern.0.placement: another than the decoder's"
    norms = [cfg.embedding_norm, *(norm for tower in towers.values() for norm in _norms(tower))]
    epsilons = {norm.eps for norm in norms if not isinstance(norm, NoNorm)}
    if len(epsilons) > 1:
        yield f"model: norms with different eps ({', '.join(map(str, sorted(epsilons)))})"


def _norms(tower: TowerConfig) -> list[Norm]:
    heads: list[Any] = [block.attention.qk_norm for block in tower.pattern]
    return [tower.final_norm, *(block.norm for block in tower.pattern), *heads]


def _norm_obstacles(cfg: TransformerConfig, tower: TowerConfig, path: str) -> Iterator[str]:
    """The engine has one kind of norm for all of a tower, the embeddings' included."""
    kind = isinstance(tower.pattern[0].norm, LayerNorm)
    if not isinstance(tower.final_norm, NoNorm) and isinstance(tower.final_norm, LayerNorm) != kind:
        yield f"{path}.final_norm: {_kind(tower.final_norm)} after blocks with {_kind(tower.pattern[0].norm)}"
    if not isinstance(cfg.embedding_norm, NoNorm) and not (isinstance(cfg.embedding_norm, LayerNorm) and kind):
        yield f"model.embedding_norm: {_kind(cfg.embedding_norm)} with {_kind(tower.pattern[0].norm)} in blocks"


def _attention_obstacles(block: BlockConfig, path: str, *, crossing: bool) -> Iterator[str]:
    qk_norm, position = block.attention.qk_norm, block.attention.position
    if isinstance(position, Alibi) and crossing:
        yield f"{path}.mixer.position: alibi in a model with an encoder"
    if isinstance(position, T5Bias) and position.bidirectional != isinstance(block.attention.visibility, Full):
        yield f"{path}.mixer.position.bidirectional: {position.bidirectional}"
    if not isinstance(qk_norm, NoNorm) and (crossing or type(qk_norm) is not RmsNorm):
        yield f"{path}.mixer.qk_norm: {_kind(qk_norm)}" + (" in a model with an encoder" if crossing else "")
    if block.cross is None:
        return
    if not isinstance(block.cross.position, NoPosition):
        yield f"{path}.cross.position: {_kind(block.cross.position)}"
    if not isinstance(block.cross.qk_norm, NoNorm):
        yield f"{path}.cross.qk_norm: {_kind(block.cross.qk_norm)}"
    for name in ("heads", "kv_heads", "head_dim"):
        if getattr(block.cross, name) != getattr(block.mixer, name):
            yield f"{path}.cross.{name}: another than the mixer's"


def _visibility_obstacles(block: BlockConfig, path: str, side: str) -> Iterator[str]:
    """The engine's encoder sees all of a source, and its decoder too."""
    if side == "encoder" and not isinstance(block.attention.visibility, Full):
        yield f"{path}.mixer.visibility: {_kind(block.attention.visibility)}"
    if block.cross is not None and not isinstance(block.cross.visibility, Full):
        yield f"{path}.cross.visibility: {_kind(block.cross.visibility)}"


def _kind(choice: object) -> str:
    return kind_of(type(choice))


# ---- the specification ------------------------------------------------------------------------------


def _specification(cfg: TransformerConfig, weights: ModelWeights) -> Any:
    try:
        from ctranslate2.specs import transformer_spec
    except ImportError:
        raise ConfigError("ctranslate2 is not installed: pip install ctranslate2 (the extra ctranslate2)") from None
    decoder: Any = transformer_spec.TransformerDecoderSpec(
        cfg.decoder.depth, with_encoder_attention=cfg.encoder is not None, **_options(cfg, cfg.decoder)
    )
    _fill_tower(decoder, cfg, cfg.decoder, weights, "decoder", "embed")
    decoder.projection.weight = weights["output.weight"]
    if (bias := _output_bias(cfg, weights)) is not None:
        decoder.projection.bias = bias
    if cfg.scale_output:
        decoder.scale_outputs = cfg.dim**-0.5
    if cfg.encoder is None:
        spec: Any = transformer_spec.TransformerDecoderModelSpec(decoder)
    else:
        encoder: Any = transformer_spec.TransformerEncoderSpec(cfg.encoder.depth, **_options(cfg, cfg.encoder))
        _fill_tower(encoder, cfg, cfg.encoder, weights, "encoder", "source_embed")
        spec = transformer_spec.TransformerSpec(encoder, decoder)
    spec.config.layer_norm_epsilon = cfg.decoder.pattern[0].norm.eps  # pyright: ignore[reportAttributeAccessIssue]
    return spec


def _options(cfg: TransformerConfig, tower: TowerConfig) -> dict[str, Any]:
    from ctranslate2.specs import common_spec

    block = tower.pattern[0]
    mixer, groups = block.attention, block.attention.key_value_heads
    options: dict[str, Any] = {
        "num_heads": mixer.heads,
        "num_heads_kv": None if groups == mixer.heads else groups,
        "head_dim": mixer.head_dim,
        "pre_norm": block.placement == "pre",
        "activation": common_spec.Activation[ACTIVATIONS[block.mlp.activation]],  # pyright: ignore[reportAttributeAccessIssue]
        "layernorm_embedding": isinstance(cfg.embedding_norm, LayerNorm),
        "ffn_glu": isinstance(block.mlp, Gated),
        "rms_norm": isinstance(block.norm, RmsNorm | ZeroCenteredRmsNorm),
        "qk_norm": isinstance(mixer.qk_norm, RmsNorm),
    }
    if isinstance(mixer.position, T5Bias):
        options["relative_attention_bias"] = True
    if isinstance(mixer.position, Alibi):
        options["alibi"] = True
    if isinstance(mixer.position, Rotary):
        options |= _scaling(mixer.position)
        options |= {
            "rotary_dim": int(mixer.channels(cfg.dim) * mixer.position.fraction),
            "rotary_interleave": mixer.position.pairs == "neighbours",
            "rotary_base": mixer.position.theta,
        }
    return options


def _scaling(position: Rotary) -> dict[str, Any]:
    from ctranslate2.specs import attention_spec

    if not isinstance(position.scaling, LinearScaling):
        return {}
    kind = attention_spec.RotaryScalingType.Linear
    return {"rotary_scaling_type": kind, "rotary_scaling_factor": position.scaling.factor}


def _output_bias(cfg: TransformerConfig, weights: ModelWeights) -> Tensor | None:
    if cfg.output_bias:
        return weights["output.bias"]
    if not cfg.suppressed:
        return None
    with torch.device("cpu"):
        return cfg.build().output.bias.detach()


def _fill_tower(
    spec: Any, cfg: TransformerConfig, tower: TowerConfig, weights: ModelWeights, side: str, embed: str
) -> None:
    embeddings = spec.embeddings[0] if isinstance(spec.embeddings, list) else spec.embeddings
    embeddings.weight = weights[f"{embed}.tokens.weight"]
    spec.scale_embeddings = cfg.dim**0.5 if cfg.scale_embedding else 1.0
    if isinstance(cfg.position, NoEmbedding):
        if hasattr(spec, "position_encodings"):
            delattr(spec, "position_encodings")
    else:
        spec.position_encodings.encodings = _encodings(cfg, weights, embed)
    if isinstance(cfg.embedding_norm, LayerNorm):
        _fill_norm(spec.layernorm_embedding, weights, f"{embed}.norm", cfg.embedding_norm)
    if not isinstance(tower.final_norm, NoNorm):
        _fill_norm(spec.layer_norm, weights, f"{side}.final_norm", tower.final_norm)
    for i, layer in enumerate(spec.layer):
        _fill_block(layer, tower.pattern[0], weights, f"{side}.blocks.{i}")
        if isinstance(bias := tower.pattern[0].attention.position, T5Bias):
            layer.self_attention.relative_attention_bias = weights[f"{side}.schemes.0.table.weight"]
            layer.self_attention.relative_attention_max_distance = np.dtype("int32").type(bias.reach)


def _encodings(cfg: TransformerConfig, weights: ModelWeights, embed: str) -> Tensor:
    if isinstance(cfg.position, Learned):
        return weights[f"{embed}.position.weight"][cfg.position.offset :]
    assert isinstance(cfg.position, Sinusoidal)
    return SinusoidalEmbedding(cfg.position, cfg.dim).sinusoids(torch.arange(LONGEST)[None])[0].float()


def _fill_block(layer: Any, block: BlockConfig, weights: ModelWeights, path: str) -> None:
    slot = "before" if block.placement == "pre" else "after"

    def linear(spec: Any, *names: str) -> None:
        spec.weight = torch.cat([weights[f"{path}.{name}.weight"] for name in names])
        if biased := [name for name in names if f"{path}.{name}.bias" in weights]:
            spec.bias = torch.cat([weights[f"{path}.{name}.bias"] for name in biased])

    for part, spec, groups in (
        ("mixer", layer.self_attention, (("q", "k", "v"), ("out",))),
        ("cross", getattr(layer, "attention", None), (("q",), ("k", "v"), ("out",))),
    ):
        if spec is None:
            continue
        if isinstance(getattr(block, part).scorer, Dot):
            spec.queries_scale = 1.0
        for one, names in zip(spec.linear, groups, strict=True):
            linear(one, *(f"{part}.{name}" for name in names))
        _fill_norm(spec.layer_norm, weights, f"{path}.{part}_residual.{slot}", block.norm)
        if hasattr(spec, "q_norm"):
            spec.q_norm.gamma, spec.k_norm.gamma = (weights[f"{path}.{part}.{x}_norm.weight"] for x in "qk")
    _fill_mlp(layer.ffn, block, linear)
    _fill_norm(layer.ffn.layer_norm, weights, f"{path}.mlp_residual.{slot}", block.norm)


def _fill_mlp(spec: Any, block: BlockConfig, linear: Callable[..., None]) -> None:
    if isinstance(block.mlp, Gated):
        linear(spec.linear_0, "mlp.gate")
        linear(spec.linear_0_noact, "mlp.up")
    else:
        linear(spec.linear_0, "mlp.up")
    linear(spec.linear_1, "mlp.out")


def _fill_norm(spec: Any, weights: ModelWeights, path: str, norm: Norm) -> None:
    weight = weights[f"{path}.weight"]
    spec.gamma = 1 + weight if isinstance(norm, ZeroCenteredRmsNorm) else weight
    if isinstance(norm, LayerNorm):
        spec.beta = weights[f"{path}.bias"]


# ---- vocabularies ----------------------------------------------------------------------------------


def _set_vocabulary(spec: Any, source: Tokenizer, target: Tokenizer, cfg: TransformerConfig) -> None:
    pad, bos, eos = NAMES
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = pad, bos, eos
    if cfg.encoder is None:
        spec.register_vocabulary(tokens(target))
        return
    spec.config.decoder_start_token, spec.config.add_source_eos = bos, True
    spec.register_source_vocabulary(tokens(source))
    spec.register_target_vocabulary(tokens(target))


def tokens(tokenizer: Tokenizer) -> list[str]:
    """Return the entry of each of our ids, the three special ones under our names, as CTranslate2 takes and gives."""
    return [*NAMES, *tokenizer.entries()[len(NAMES) :]]
