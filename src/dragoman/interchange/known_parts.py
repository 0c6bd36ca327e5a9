"""Parts that Hugging Face layouts and ONNX graphs support, by exact type.

Every field of them is covered: an ONNX graph is traced from the model, and a Hugging Face layout is read back and
compared field by field. A part added to the model is refused by both until it is listed here.
"""

import dataclasses
from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.whitelist import FieldRule, Whitelist, unknown_parts
from dragoman.model.attention import AttentionConfig
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.disentangled import DisentangledAttention
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import (
    AttentionPoolingHead,
    ClassificationHead,
    First,
    FirstAndMean,
    Last,
    MaskedLanguageHead,
    Mean,
    NoHead,
    SentenceHead,
    SpansHead,
    TaggingHead,
)
from dragoman.model.inputs import FixedLength, FrameConvolution, FrameInput, PatchInput, TokenInput
from dragoman.model.mamba import Mamba
from dragoman.model.mamba2 import Mamba2
from dragoman.model.masks.visibility import Causal, Full, SlidingWindow
from dragoman.model.mlp import FeedForward, Gated, NoFeedForward
from dragoman.model.mlstm import Mlstm
from dragoman.model.moe import Mixture
from dragoman.model.norm import (
    DeepNorm,
    LayerNorm,
    LayerScale,
    NoNorm,
    NoSkip,
    PlainResidual,
    ProjectionRmsNorm,
    RmsNorm,
    ZeroCenteredRmsNorm,
)
from dragoman.model.positions.grid import LearnedGrid, NoGrid, SinusoidalGrid
from dragoman.model.positions.position import (
    Alibi,
    InclusiveSinusoidal,
    Learned,
    NoEmbedding,
    NoPosition,
    Shaw,
    Sinusoidal,
    T5Bias,
)
from dragoman.model.positions.rotary import (
    DynamicNtkScaling,
    LinearScaling,
    Llama3Scaling,
    LongRope,
    NoScaling,
    NtkScaling,
    Rotary,
    RotaryGrid,
    Yarn,
)
from dragoman.model.scorer import Additive, CappedDot, Dot, Multiplicative, ScaledDot
from dragoman.model.short_convolution import ShortConvolution
from dragoman.model.tower import BlockConfig, SharedTower, TowerConfig
from dragoman.model.transformer import TransformerConfig

_MODELS = (TransformerConfig, EncoderConfig, TowerConfig, SharedTower, BlockConfig, AttentionConfig)
_FEED_FORWARDS = (FeedForward, Gated, NoFeedForward)
_INPUTS = (TokenInput, FixedLength, PatchInput, LearnedGrid, SinusoidalGrid, NoGrid, RotaryGrid)
_HEADS = (
    NoHead,
    MaskedLanguageHead,
    ClassificationHead,
    TaggingHead,
    SpansHead,
    SentenceHead,
    AttentionPoolingHead,
    First,
    Last,
    Mean,
    FirstAndMean,
)
_NORMS = (LayerNorm, RmsNorm, ZeroCenteredRmsNorm, ProjectionRmsNorm, NoNorm)
_RESIDUALS = (PlainResidual, DeepNorm, NoSkip, LayerScale)
_SCALINGS = (NoScaling, LinearScaling, NtkScaling, Yarn, Llama3Scaling)
_POSITIONS = (
    NoEmbedding,
    Learned,
    Sinusoidal,
    InclusiveSinusoidal,
    NoPosition,
    Rotary,
    Alibi,
    T5Bias,
    Shaw,
    *_SCALINGS,
)
_ATTENTION = (Full, Causal, SlidingWindow, ScaledDot, Dot, CappedDot, Multiplicative, Additive)


def _with_every_field(part: type) -> dict[str, FieldRule]:
    names = [field.name for field in dataclasses.fields(part)]
    return {name: "harmless" if name in ("init", "dropout", "preprocessing") else "written" for name in names}


ONNX: Whitelist = {
    part: _with_every_field(part)
    for part in (*_MODELS, *_FEED_FORWARDS, Mixture, *_INPUTS, *_HEADS, *_NORMS, *_RESIDUALS, *_POSITIONS, *_ATTENTION)
}
"""Parts that become graphs. Mixtures are among them with all experts: which are needed depends on the tokens. LongRoPE
and dynamic NTK scaling are not: their angles depend on how long a text gets, and a graph is the same for all."""
_MIXERS = (DisentangledAttention, ShortConvolution, Mlstm, Mamba, Mamba2)
_MORE = (LongRope, DynamicNtkScaling, TwoTowersConfig, FrameInput, FrameConvolution)
HUGGINGFACE: Whitelist = {**ONNX, **{part: _with_every_field(part) for part in (*_MORE, *_MIXERS)}}


def check_graph(part: Any, path: str) -> None:
    """Check that a part, and all parts in it, become ONNX graphs.

    Raises:
        ConfigError: one does not; the message names its path.
    """
    if unknown := next(unknown_parts(part, ONNX, path), None):
        raise ConfigError(f"{unknown}: does not become an ONNX graph")
