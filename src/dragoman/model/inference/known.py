"""Configurations that the decoding kernels support, field by field, so that a new field is never silently ignored.

``native_tower.py`` reads the modules. This table lists every supported field of their configurations: computed, without
effect on decoding, or supported with one value only. A model with any other class or field is decoded by PyTorch. To
extend the kernels, extend this table too.
"""

import dataclasses
from typing import Any, NamedTuple

from dragoman.model.attention import AttentionConfig
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.norm import (
    DeepNorm,
    LayerNorm,
    NoNorm,
    NoSkip,
    PlainResidual,
    ProjectionRmsNorm,
    RmsNorm,
    ZeroCenteredRmsNorm,
)
from dragoman.model.positions.position import InclusiveSinusoidal, Learned, NoEmbedding, NoPosition, Sinusoidal
from dragoman.model.positions.rotary import LinearScaling, Llama3Scaling, NoScaling, NtkScaling, Rotary, Yarn
from dragoman.model.scorer import Dot, ScaledDot
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig

STATIC_SCALINGS = (NoScaling, LinearScaling, NtkScaling, Yarn, Llama3Scaling)
"""Rotary scalings whose frequencies are the same for every text."""


class UnknownToKernels(Exception):
    """A part that the kernels cannot compute; the message names it."""


class Fields(NamedTuple):
    """Fields of a configuration class that the kernels support."""

    computed: str = ""
    """Names of fields supported with any value; a configuration in one is checked in turn."""
    ignored: str = ""
    """Names of fields without effect on decoding, or read by PyTorch."""
    only: tuple[tuple[str, Any], ...] = ()
    """Names of fields supported with this one value each."""


KNOWN: dict[type, Fields] = {
    TransformerConfig: Fields(
        computed="dim decoder position scale_embedding embedding_norm output_bias suppressed logit_cap pad",
        ignored="vocab source_vocab encoder source tying dropout init",
        only=(("scale_output", False),),
    ),
    TowerConfig: Fields(computed="depth pattern final_norm"),
    BlockConfig: Fields(computed="mixer cross mlp norm placement residual", ignored="dropout"),
    AttentionConfig: Fields(
        computed="heads kv_heads head_dim position visibility scorer qk_norm bias out_bias", ignored="dropout"
    ),
    FeedForward: Fields(computed="hidden activation bias", ignored="dropout"),
    Gated: Fields(computed="hidden activation bias", ignored="dropout"),
    LayerNorm: Fields(computed="eps bias"),
    RmsNorm: Fields(computed="eps"),
    ZeroCenteredRmsNorm: Fields(computed="eps"),
    ProjectionRmsNorm: Fields(computed="eps"),
    NoNorm: Fields(),
    PlainResidual: Fields(),
    DeepNorm: Fields(),
    NoSkip: Fields(),
    Sinusoidal: Fields(computed="base layout"),
    InclusiveSinusoidal: Fields(computed="base layout offset"),
    Learned: Fields(computed="length offset"),
    NoEmbedding: Fields(),
    NoPosition: Fields(),
    Rotary: Fields(computed="theta scaling fraction pairs"),
    NoScaling: Fields(),
    LinearScaling: Fields(computed="factor"),
    NtkScaling: Fields(computed="factor"),
    Yarn: Fields(computed="factor trained fast slow"),
    Llama3Scaling: Fields(computed="factor trained fast slow"),
    Full: Fields(),
    Causal: Fields(computed="window", only=(("sinks", 0),)),
    ScaledDot: Fields(computed="scale"),
    Dot: Fields(),
}


def check_known(value: Any, path: str) -> None:
    """Check a configuration and those nested in its computed fields.

    Raises:
        UnknownToKernels: a class or a field that ``KNOWN`` does not list; the message opens with the path.
    """
    if isinstance(value, tuple):
        for i, part in enumerate(value):
            check_known(part, f"{path}.{i}")
        return
    if not dataclasses.is_dataclass(value):
        return
    fields = KNOWN.get(type(value))
    if fields is None:
        raise UnknownToKernels(f"{path}: {getattr(value, 'kind', type(value).__name__)}")
    computed, ignored = fields.computed.split(), fields.ignored.split()
    for name in (field.name for field in dataclasses.fields(value)):
        inner = getattr(value, name)
        if name in computed:
            check_known(inner, f"{path}.{name}")
        elif name not in (*ignored, "kind") and (name, inner) not in fields.only:
            raise UnknownToKernels(f"{path}.{name}: {getattr(inner, 'kind', inner)}")
