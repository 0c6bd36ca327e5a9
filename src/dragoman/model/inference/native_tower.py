"""Tower with its embedding and its output layer as structs of C: what the kernels of native/tower.c compute.

N sentences, S source length, n tokens, D width.
"""

import ctypes
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dragoman.model.dropout import Dropout
from dragoman.model.inference.known import STATIC_SCALINGS, UnknownToKernels
from dragoman.model.inference.layouts import LinearStruct, Panels
from dragoman.model.inference.packed import PackedAttention, PackedCross, PackedGated
from dragoman.model.inference.slots import StepKernel
from dragoman.model.inputs import Embedding
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mixer import MixerLayer
from dragoman.model.mlp import ACTIVATIONS, FeedForwardLayer
from dragoman.model.norm import ProjectionRmsNormLayer, Residual, RmsNormLayer, ZeroCenteredRmsNormLayer
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.position import LearnedEmbedding, NoPositionEmbedding, SinusoidalEmbedding
from dragoman.model.positions.rotary import RotaryScheme
from dragoman.model.scorer import Scorer
from dragoman.model.tower import Block, Tower
from dragoman.native.library import library

# ---- structs of native/tower.c ----------------------------------------------------------------------


class NormStruct(ctypes.Structure):
    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("kind", ctypes.c_int64),
        ("eps", ctypes.c_double),
    ]


class ResidualStruct(ctypes.Structure):
    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [*((name, NormStruct) for name in ("before", "output", "after")), ("residual_scale", ctypes.c_double)]


class AttentionStruct(ctypes.Structure):
    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        *((name, LinearStruct) for name in ("inputs", "source", "out")),
        *((name, NormStruct) for name in ("q_norm", "k_norm")),
        ("scale", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("H", "G", "C", "window", "rotation", "rotary_dim")),
        ("cos_sin", ctypes.c_void_p),
    ]


class BlockStruct(ctypes.Structure):
    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        *((name, AttentionStruct) for name in ("self", "cross")),
        *((name, LinearStruct) for name in ("up", "down")),
        *((name, ctypes.c_int64) for name in ("activation", "gated", "crossed")),
        *((name, ResidualStruct) for name in ("self_residual", "cross_residual", "mlp_residual")),
    ]


class ModelStruct(ctypes.Structure):
    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        ("embedding", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("scale", ctypes.c_double),
        *((name, NormStruct) for name in ("embedding_norm", "final_norm")),
        ("blocks", ctypes.POINTER(BlockStruct)),
        *((name, ctypes.c_int64) for name in ("depth", "D", "causal", "narrow")),
        ("output", LinearStruct),
    ]


class EncodedTexts(NamedTuple):
    """Texts as the encoder's hidden vectors."""

    hidden: Float[Tensor, "room D"]
    """Those of all texts, concatenated."""
    tokens: int
    """Number of them."""
    first: Int[Tensor, " N"]
    """Index of the first one of each text."""
    lengths: Int[Tensor, " N"]
    """Number of those of each text."""


class NativeTower(StepKernel):
    """Tower with its embedding and, in a decoder, its output layer, as structs; tables of positions grow with texts."""

    def __init__(self, embed: Embedding, tower: Tower, output: Panels | None = None):
        self.embed, self.tower, self.output = embed, tower, output
        self.dtype = kv_dtype(tower)
        self.kept_alive: list[Tensor] = []  # tensors that structs point to, and no module holds
        self.blocks = (BlockStruct * len(tower.blocks))(*map(self.block, tower.blocks))
        self.struct = ModelStruct(
            embedding=self.pointer(embed.tokens.weight),
            scale=embed.scale,
            embedding_norm=self.norm(embed.norm),
            final_norm=self.norm(tower.final_norm),
            blocks=self.blocks,
            depth=len(self.blocks),
            D=embed.tokens.embedding_dim,
            causal=int(output is not None),
            narrow=int(self.dtype == torch.bfloat16),
        )
        if output is not None:
            self.struct.output = output.struct
        if type(embed) is not Embedding or type(embed.types) is not nn.Identity:
            raise UnknownToKernels("types of tokens")
        if type(tower) is not Tower:
            raise UnknownToKernels(f"a tower that is a {type(tower).__name__}")
        wanted = Causal if output is not None else Full
        for block, (scheme, visibility) in zip(self.blocks, tower.kinds, strict=True):
            if type(visibility) is not wanted or getattr(visibility, "sinks", 0):
                raise UnknownToKernels("who sees whom")
            block.self.window = visibility.window or 0
            self.set_rotation(block.self, tower.schemes[scheme])
        if type(embed.position) not in (NoPositionEmbedding, SinusoidalEmbedding, LearnedEmbedding):
            raise UnknownToKernels("positions that are added to embeddings")
        self.kv_widths = [2 * block.self.G * block.self.C for block in self.blocks]
        """Size of a token's keys and values in each layer."""
        self.source_widths = [2 * block.cross.G * block.cross.C for block in self.blocks]
        """Size of a source token's, where there is a source."""
        self.positions_ready, self.growing = 0, Lock()
        self.ensure_positions(64)

    @property
    def address(self) -> int:
        return ctypes.addressof(self.struct)

    @property
    def output_size(self) -> int:
        return self.struct.output.N or self.struct.D

    def block(self, block: Block) -> BlockStruct:
        if type(block) is not Block:
            raise UnknownToKernels(f"a block that is a {type(block).__name__}")
        mlp, made = block.mlp, BlockStruct()
        made.self, made.self_residual = self.attention(block.mixer), self.residual(block.mixer_residual)
        if hasattr(block, "cross"):
            made.crossed = 1
            made.cross, made.cross_residual = self.attention(block.cross), self.residual(block.cross_residual)
        if type(mlp) is PackedGated:
            made.up, made.down, made.gated = self.linear(mlp.both), self.linear(mlp.out), 1
        elif type(mlp) is FeedForwardLayer and type(mlp.dropout) is Dropout:
            made.up, made.down = self.linear(mlp.up), self.linear(mlp.out)
        else:
            raise UnknownToKernels(f"a feed-forward that is a {type(mlp).__name__}")
        made.activation = self.activation(mlp.activation)
        made.mlp_residual = self.residual(block.mlp_residual)
        return made

    def activation(self, function: Callable[[Tensor], Tensor]) -> int:
        """Return the activation's number in native/tower.c, in the order of ``ACTIVATIONS``."""
        for number, name in enumerate(("relu", "gelu", "gelu_tanh", "gelu_quick", "silu", "tanh")):
            if function is ACTIVATIONS[name]:
                return number
        raise UnknownToKernels("an activation")

    def attention(self, attention: MixerLayer) -> AttentionStruct:
        if type(attention) not in (PackedAttention, PackedCross):
            raise UnknownToKernels(f"a mixer that is a {type(attention).__name__}")
        assert isinstance(attention, PackedAttention)
        if type(attention.scorer) is not Scorer or type(attention.weights) is not nn.Identity:
            raise UnknownToKernels("how queries meet keys")
        H = attention.cfg.heads
        reads, source = (attention.q, attention.kv) if isinstance(attention, PackedCross) else (attention.qkv, None)
        return AttentionStruct(
            inputs=self.linear(reads),
            source=LinearStruct() if source is None else self.linear(source),
            out=self.linear(attention.out),
            q_norm=self.norm(attention.q_norm),
            k_norm=self.norm(attention.k_norm),
            scale=attention.scorer.scale,
            H=H,
            G=attention.cfg.key_value_heads,
            C=attention.head_dim,
        )

    def set_rotation(self, made: AttentionStruct, scheme: RelativeScheme) -> None:
        if type(scheme) is RotaryScheme and type(scheme.cfg.scaling) in STATIC_SCALINGS:
            made.rotation, made.rotary_dim = 1 if scheme.cfg.pairs == "halves" else 2, scheme.channels
        elif type(scheme) is not RelativeScheme:
            raise UnknownToKernels("how distances count")

    def linear(self, layer: nn.Module) -> LinearStruct:
        if type(layer) is not Panels:
            raise UnknownToKernels("weights that are not in panels")
        return layer.struct

    def norm(self, norm: nn.Module) -> NormStruct:
        if type(norm) is nn.Identity:
            return NormStruct(kind=0)
        if type(norm) is nn.LayerNorm and norm.weight is not None and len(norm.normalized_shape) == 1:
            bias = None if norm.bias is None else self.pointer(norm.bias)
            return NormStruct(weight=self.pointer(norm.weight), bias=bias, kind=1, eps=norm.eps)
        if type(norm) is RmsNormLayer:
            return NormStruct(weight=self.pointer(norm.weight), kind=2, eps=norm.eps)
        if type(norm) is ZeroCenteredRmsNormLayer:
            return NormStruct(weight=self.pointer(1 + norm.weight), kind=2, eps=norm.eps)
        if type(norm) is ProjectionRmsNormLayer:
            return NormStruct(weight=self.pointer(norm.weight), kind=3, eps=norm.eps)
        raise UnknownToKernels("how sums are normed")

    def residual(self, residual: nn.Module) -> ResidualStruct:
        if type(residual) is not Residual or type(residual.dropout) is not Dropout:
            raise UnknownToKernels(
                f"a residual that is a {type(residual).__name__} with a {type(residual.dropout).__name__}"
            )
        before, output, after = map(self.norm, (residual.before, residual.output, residual.after))
        return ResidualStruct(before, output, after, residual.residual_scale)

    def encode(self, ids: Int[Tensor, "N S"], keep: Bool[Tensor, "N S"] | None, pad: int | None) -> "EncodedTexts":
        """Encode whole texts without their padding: what ``keep`` masks, or else the token ``pad``; None for none."""
        (N, S), ids = ids.shape, ids.contiguous()
        hidden = torch.empty(N * S, self.output_size)
        first, count = torch.empty(N, dtype=torch.int32), torch.empty(N, dtype=torch.int32)
        masked = None if keep is None else keep.expand(N, S).contiguous()
        addresses = ids.data_ptr(), None if masked is None else masked.data_ptr()
        self.ensure_positions(S)
        places = first.data_ptr(), count.data_ptr(), hidden.data_ptr()
        tokens = library().encode(self.address, *addresses, -1 if pad is None else pad, N, S, *places)
        return EncodedTexts(hidden, tokens, first, count)

    def pointer(self, values: Tensor) -> int:
        """Return the address of these numbers in float32, and keep them alive."""
        kept = values.detach().float().contiguous()
        self.kept_alive.append(kept)
        return kept.data_ptr()

    def ensure_positions(self, length: int) -> None:
        if length <= self.positions_ready:
            return
        with self.growing:
            if length > self.positions_ready:
                self.extend_positions(max(length, 2 * self.positions_ready))

    def extend_positions(self, length: int) -> None:
        """Let the structs point to tables of this length; the old ones stay for threads that still read them."""
        pos = torch.arange(length)
        if type(self.embed.position) is not NoPositionEmbedding:
            nothing = torch.zeros(1, len(pos), self.struct.D)
            self.struct.positions = self.pointer(self.embed.position(nothing, pos[None])[0])
        cos_sin: dict[int, int] = {}
        for block, (number, _) in zip(self.blocks, self.tower.kinds, strict=True):
            scheme = self.tower.schemes[number]
            if isinstance(scheme, RotaryScheme):
                block.self.cos_sin = cos_sin.get(number) or cos_sin.setdefault(number, self.cos_sin(scheme, pos))
        self.positions_ready = length  # last: another thread may read the tables from now on

    def cos_sin(self, scheme: RotaryScheme, pos: Tensor) -> int:
        """Return the address of a table with the cosines, then the sines, of each position's pairs."""
        angle = pos[:, None] * scheme.cfg.scaling.frequencies(scheme.cfg.theta, scheme.channels)
        return self.pointer(torch.cat([angle.cos(), angle.sin()], dim=1).mul(scheme.cfg.scaling.magnitude))


def kv_dtype(tower: Tower) -> torch.dtype:
    """Return the data type of cached keys and values: float32, or bfloat16 where weights are narrower than float32."""
    number_format = {layer.number_format for layer in tower.modules() if isinstance(layer, Panels)}
    return torch.float32 if number_format <= {"float32"} else torch.bfloat16
