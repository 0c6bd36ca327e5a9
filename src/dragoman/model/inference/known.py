"""Which configurations the kernels for decoding know: field by field, so that a new field is never silently ignored.

``native.py`` reads the modules; this table says of every field of their configuration that it is either computed, or
has no part in a step of decoding, or is known with one value only. A class or a field that is not here is unknown, and
a model that holds it is decoded by PyTorch: whoever teaches the kernels more adds it here.
"""

import dataclasses
from typing import Any, NamedTuple

from dragoman.model.attention import AttentionConfig
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.norm import DeepNorm, LayerNorm, NoNorm, PlainResidual, RmsNorm, ZeroCenteredRmsNorm
from dragoman.model.positions.position import Learned, NoEmbedding, NoPosition, Sinusoidal
from dragoman.model.positions.rotary import LinearScaling, Llama3Scaling, NoScaling, NtkScaling, Rotary, Yarn
from dragoman.model.scorer import Dot, ScaledDot
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig

STATIC_SCALINGS = (NoScaling, LinearScaling, NtkScaling, Yarn, Llama3Scaling)
"""Those whose frequencies are the same for every text."""


class UnknownToKernels(Exception):
    """Something that the kernels cannot do; the message names it."""


class Fields(NamedTuple):
    """The fields of a class of configuration that the kernels know."""

    computed: str = ""
    """With whatever value; a configuration there has to be known in its turn."""
    apart: str = ""
    """Without a part in decoding, or read by PyTorch."""
    only: tuple[tuple[str, Any], ...] = ()
    """With this one value each."""


KNOWN: dict[type, Fields] = {
    TransformerConfig: Fields(
        computed="dim decoder position scale_embedding embedding_norm output_bias suppressed logit_cap pad",
        apart="vocab source_vocab encoder source tying dropout init",
        only=(("scale_output", False),),
    ),
    TowerConfig: Fields(computed="depth pattern final_norm"),
    BlockConfig: Fields(computed="mixer cross mlp norm placement residual", apart="dropout"),
    AttentionConfig: Fields(
        computed="heads kv_heads head_dim position visibility scorer qk_norm bias out_bias", apart="dropout"
    ),
    FeedForward: Fields(computed="hidden activation bias", apart="dropout"),
    Gated: Fields(computed="hidden activation bias", apart="dropout"),
    LayerNorm: Fields(computed="eps bias"),
    RmsNorm: Fields(computed="eps"),
    ZeroCenteredRmsNorm: Fields(computed="eps"),
    NoNorm: Fields(),
    PlainResidual: Fields(),
    DeepNorm: Fields(),
    Sinusoidal: Fields(computed="base layout"),
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
    """Walk through a configuration, and through all that it computes with.

    Raises:
        Unknown: a class or a field that ``KNOWN`` does not list; the message opens with the path.
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
    computed, apart = fields.computed.split(), fields.apart.split()
    for name in (field.name for field in dataclasses.fields(value)):
        inner = getattr(value, name)
        if name in computed:
            check_known(inner, f"{path}.{name}")
        elif name not in (*apart, "kind") and (name, inner) not in fields.only:
            raise UnknownToKernels(f"{path}.{name}: {getattr(inner, 'kind', inner)}")
