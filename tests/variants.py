"""One table of model variants for every test of the model room. A new part joins here and is tested for all of it.

Models are tiny and in float64, where equal computations agree to 1e-9, and their weights are shaken, so that no bias is
zero and no norm's weight is one.
"""

import dataclasses
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import pytest
import torch

from dragoman.model.attention import AttentionConfig
from dragoman.model.bidirectional import Bidirectional, Recurrent
from dragoman.model.big_bird import BigBird
from dragoman.model.feature_maps import FavorFeatures
from dragoman.model.gated_delta_net import GatedDeltaNet
from dragoman.model.init import Gpt2Init, InverseSqrtWidth, Xavier
from dragoman.model.linear_attention import LinearAttention
from dragoman.model.linformer import Linformer
from dragoman.model.longformer import Longformer
from dragoman.model.mamba import Mamba
from dragoman.model.mamba2 import Mamba2
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.min_gru import MinGru
from dragoman.model.mixer import MixerConfig
from dragoman.model.mlp import FeedForward, Gated, NoFeedForward
from dragoman.model.mlstm import Mlstm
from dragoman.model.moe import Mixture
from dragoman.model.norm import (
    DeepNorm,
    LayerNorm,
    LayerScale,
    NoNorm,
    NoSkip,
    ProjectionRmsNorm,
    RmsNorm,
    ZeroCenteredRmsNorm,
)
from dragoman.model.positions.position import Alibi, InclusiveSinusoidal, Learned, NoPosition, Shaw, Sinusoidal, T5Bias
from dragoman.model.positions.rotary import (
    DynamicNtkScaling,
    LinearScaling,
    Llama3Scaling,
    LongRope,
    NtkScaling,
    Rotary,
    Yarn,
)
from dragoman.model.reformer import Reformer
from dragoman.model.scorer import Additive, CappedDot, Dot, Multiplicative, ScaledDot
from dragoman.model.short_convolution import ShortConvolution
from dragoman.model.sparse_transformer import FixedAttention, StridedAttention
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import Transformer, TransformerConfig

V, D, H = 29, 24, 4
Shape = Literal["encoder-decoder", "decoder-only"]


@dataclass(frozen=True)
class Variant:
    """What differs from the base: in every attention, in the decoder's self-attention, in blocks, in which mixers
    stand in them, in the model."""

    attention: dict[str, Any] = field(default_factory=dict)
    mixer: dict[str, Any] = field(default_factory=dict)
    block: dict[str, Any] = field(default_factory=dict)
    mixers: dict[int, MixerConfig] = field(default_factory=dict)
    """What stands in some blocks in the place of self-attention, by their number."""
    model: dict[str, Any] = field(default_factory=dict)

    def config(self, shape: Shape) -> TransformerConfig:
        crossing = shape == "encoder-decoder"
        everywhere = {"heads": H} | self.attention
        cross = AttentionConfig(**everywhere, visibility=Full())
        mixer = {"visibility": Causal()} | self.mixer
        decoder = self.tower(AttentionConfig(**everywhere, **mixer), cross if crossing else None)
        position = mixer.get("position", cross.position)
        if isinstance(position, T5Bias):
            position = dataclasses.replace(position, bidirectional=True)
        encoder = self.tower(AttentionConfig(**everywhere, position=position, visibility=Full()), None)
        base = {"vocab": V, "dim": D, "decoder": decoder, "encoder": encoder if crossing else None}
        return TransformerConfig(**base | self.model)

    def tower(self, mixer: AttentionConfig, cross: AttentionConfig | None) -> TowerConfig:
        block = {"mlp": FeedForward(hidden=32), "norm": LayerNorm()} | self.block
        mixers = [self.instead(i, mixer) for i in range(2)] if self.mixers else [mixer]
        pattern = tuple(BlockConfig(mixer=each, cross=cross, **block) for each in mixers)
        return TowerConfig(depth=2, pattern=pattern, final_norm=block["norm"])

    def instead(self, number: int, attention: AttentionConfig) -> Any:
        """The mixer of a block, which sees both ways where the attention would."""
        found: Any = self.mixers.get(number)
        if found is None or (attention.visibility != Full() and isinstance(found, Linformer)):
            return attention
        if isinstance(found, Recurrent) and attention.visibility == Full():
            return Bidirectional(mixer=found)
        return dataclasses.replace(found, causal=attention.visibility != Full()) if hasattr(found, "causal") else found


def mixture(**options: Any) -> dict[str, Any]:
    return {"mlp": Mixture(**{"experts": 4, "expert": Gated(hidden=16)} | options)}


VARIANTS: dict[str, Variant] = {
    "plain": Variant(),
    # heads
    "gqa": Variant(attention={"kv_heads": 2}),
    "mqa": Variant(attention={"kv_heads": 1}),
    "head size 5": Variant(attention={"head_dim": 5, "heads": 3}),
    "biases": Variant(attention={"bias": True}, model={"output_bias": True}),
    "qk rms norm": Variant(attention={"qk_norm": RmsNorm()}),
    "qk rms norm over all heads": Variant(attention={"qk_norm": ProjectionRmsNorm(), "kv_heads": 2}),
    "qk rms norm over all heads, another epsilon": Variant(attention={"qk_norm": ProjectionRmsNorm(eps=0.1)}),
    "qk layer norm, gqa": Variant(attention={"qk_norm": LayerNorm(), "kv_heads": 2}),
    "biases, not on the output": Variant(attention={"bias": True, "out_bias": False}),
    # positions
    "sinusoidal": Variant(model={"position": Sinusoidal(), "scale_embedding": True}),
    "sinusoidal halves": Variant(model={"position": Sinusoidal(layout="halves")}),
    "inclusive sinusoidal": Variant(model={"position": InclusiveSinusoidal(offset=2), "scale_embedding": True}),
    "inclusive sinusoidal pairs": Variant(model={"position": InclusiveSinusoidal(base=100.0, layout="interleaved")}),
    "learned": Variant(model={"position": Learned(length=24), "embedding_norm": LayerNorm()}),
    "learned, offset": Variant(model={"position": Learned(length=24, offset=2)}),
    "rotary": Variant(mixer={"position": Rotary()}),
    "rotary, gqa, qk norm": Variant(attention={"kv_heads": 2, "qk_norm": RmsNorm()}, mixer={"position": Rotary()}),
    "rotary neighbours, part": Variant(mixer={"position": Rotary(pairs="neighbours", fraction=0.7)}),
    "rotary linear": Variant(mixer={"position": Rotary(scaling=LinearScaling(factor=4.0))}),
    "rotary ntk": Variant(mixer={"position": Rotary(scaling=NtkScaling(factor=4.0))}),
    "rotary dynamic": Variant(mixer={"position": Rotary(scaling=DynamicNtkScaling(trained=4, factor=2.0))}),
    "rotary yarn": Variant(mixer={"position": Rotary(scaling=Yarn(factor=4.0, trained=4, fast=2.0, slow=0.1))}),
    "rotary llama 3": Variant(
        mixer={"position": Rotary(scaling=Llama3Scaling(factor=4.0, trained=24, fast=2.0, slow=0.5))}
    ),
    "rotary long rope": Variant(  # each text is read again at its second token
        attention={"head_dim": 6},
        mixer={
            "position": Rotary(scaling=LongRope(trained=1, short=(1.0, 1.5, 4.0), long=(1.2, 3.0, 9.0), magnitude=1.2))
        },
    ),
    "alibi": Variant(mixer={"position": Alibi()}),
    "alibi, 3 heads": Variant(attention={"heads": 3}, mixer={"position": Alibi()}),
    "t5": Variant(mixer={"position": T5Bias(buckets=8, reach=8, bidirectional=False)}),
    "t5 in each layer": Variant(mixer={"position": T5Bias(buckets=16, reach=20, bidirectional=False, shared=False)}),
    "shaw": Variant(mixer={"position": Shaw(reach=3)}),
    "shaw on keys, gqa, shared": Variant(
        attention={"kv_heads": 2}, mixer={"position": Shaw(reach=3, on_values=False, shared=True)}
    ),
    # visibility
    "window": Variant(mixer={"visibility": Causal(window=3), "position": Rotary()}),
    "window, sinks": Variant(mixer={"visibility": Causal(window=3, sinks=2), "position": Alibi()}),
    "window, sinks, dynamic": Variant(
        mixer={
            "visibility": Causal(window=3, sinks=1),
            "position": Rotary(scaling=DynamicNtkScaling(trained=5, factor=2.0)),
        }
    ),
    "window 1": Variant(mixer={"visibility": Causal(window=1)}, model={"position": Sinusoidal()}),
    # scorers
    "scale": Variant(attention={"scorer": ScaledDot(scale=0.3)}),
    "capped dot": Variant(attention={"scorer": CappedDot(cap=0.5)}),
    "capped dot, scale, gqa, rotary": Variant(
        attention={"scorer": CappedDot(cap=2.0, scale=0.7), "kv_heads": 2}, mixer={"position": Rotary()}
    ),
    "dot": Variant(attention={"scorer": Dot()}, mixer={"position": Shaw(reach=2)}),
    "multiplicative": Variant(attention={"scorer": Multiplicative()}, mixer={"position": Rotary()}),
    "multiplicative, gqa": Variant(attention={"scorer": Multiplicative(), "kv_heads": 2}),
    "additive": Variant(attention={"scorer": Additive()}),
    "additive, gqa, t5, window": Variant(
        attention={"scorer": Additive(), "kv_heads": 2},
        mixer={"position": T5Bias(buckets=8, reach=8, bidirectional=False), "visibility": Causal(window=4)},
    ),
    # a second value of each number
    "other numbers": Variant(
        block={"norm": LayerNorm(eps=0.1), "mlp": Gated(hidden=24)},
        mixer={"position": Rotary(theta=100.0, scaling=LinearScaling(factor=2.0))},
        model={"position": Sinusoidal(base=100.0), "suppressed": (5,), "init": Gpt2Init(std=0.1, depth_scaled=False)},
    ),
    "other numbers, ntk": Variant(
        block={"norm": RmsNorm(eps=0.1)},
        mixer={"position": Rotary(scaling=NtkScaling(factor=2.0))},
        model={"position": Learned(length=30), "init": InverseSqrtWidth(depth_scaled=True)},
    ),
    "other numbers, yarn": Variant(
        block={"norm": ZeroCenteredRmsNorm(eps=0.1)},
        mixer={"position": Rotary(scaling=Yarn(factor=2.0, trained=8, fast=4.0, slow=0.5))},
    ),
    "other numbers, llama 3": Variant(
        mixer={"position": Rotary(scaling=Llama3Scaling(factor=2.0, trained=12, fast=3.0, slow=1.0))}
    ),
    # mixers that are not attention
    "short convolution": Variant(mixers={0: ShortConvolution(), 1: ShortConvolution(kernel=5, bias=True)}),
    "short convolution, attention": Variant(mixers={0: ShortConvolution()}, mixer={"position": Rotary()}),
    "attention, short convolution": Variant(
        mixers={1: ShortConvolution(kernel=7)},
        mixer={"position": T5Bias(buckets=8, reach=8, bidirectional=False), "visibility": Causal(window=3)},
        model={"position": Learned(length=24)},
    ),
    "mamba": Variant(
        mixers={0: Mamba(state=5, kernel=3), 1: Mamba(state=3, expand=1, rank=2, bias=True, convolution_bias=False)},
        block={"norm": RmsNorm(), "mlp": NoFeedForward()},
    ),
    "mamba, attention": Variant(mixers={0: Mamba(state=4)}, mixer={"position": Rotary()}),
    "mamba 2": Variant(
        mixers={
            0: Mamba2(state=5, head_dim=8, kernel=3, chunk=4),
            1: Mamba2(state=3, head_dim=4, groups=2, chunk=3, norm_before_gate=True, bias=True, convolution_bias=False),
        },
        block={"norm": RmsNorm(), "mlp": NoFeedForward()},
    ),
    "mamba 2, attention": Variant(
        mixers={
            0: Mamba2(state=4, expand=1, head_dim=8, norm_eps=0.1, smallest_step=0.02, largest_step=1.5),
        },
        mixer={"visibility": Causal(window=3), "position": Rotary()},
    ),
    # sparse attention
    "longformer": Variant(mixers={0: Longformer(heads=H, window=3, global_every=3), 1: Longformer(window=2, heads=H)}),
    "longformer, own projections": Variant(
        mixers={0: Longformer(heads=H, window=4, global_first=2, global_every=4, global_projections=True, bias=True)}
    ),
    "big bird": Variant(
        mixers={
            0: BigBird(heads=H, block=2, window=2, random_blocks=1, kv_heads=2, position=Alibi()),
            1: BigBird(heads=H, block=1, window=2, global_blocks=2, random_blocks=2, seed=3, qk_norm=RmsNorm()),
        }
    ),
    "sparse transformer": Variant(
        mixers={
            0: StridedAttention(heads=H, stride=3, scorer=CappedDot(cap=2.0)),
            1: FixedAttention(heads=H, stride=4, summary=2, position=Shaw(reach=3)),
        }
    ),
    "reformer": Variant(
        mixers={
            0: Reformer(heads=H, buckets=4, rounds=2, chunk=2),
            1: Reformer(heads=2, buckets=2, rounds=1, chunk=3, bias=True, position=NoPosition(), seed=5),
        }
    ),
    "linear attention": Variant(
        mixers={0: LinearAttention(heads=4), 1: LinearAttention(heads=2, head_dim=6, position=Rotary(), bias=True)}
    ),
    "performer": Variant(
        mixers={0: LinearAttention(heads=4, features=FavorFeatures(), position=Rotary())},
        mixer={"position": Rotary()},
    ),
    "performer, few features": Variant(
        mixers={i: LinearAttention(heads=4, features=FavorFeatures(features=5)) for i in range(2)},
        model={"position": Sinusoidal()},
    ),
    "gated delta net": Variant(
        mixers={0: GatedDeltaNet(heads=4), 1: GatedDeltaNet(heads=4, key_heads=2, key_dim=5, value_dim=7, kernel=2)}
    ),
    "gated delta net, attention": Variant(mixers={0: GatedDeltaNet(heads=4)}, mixer={"position": Rotary()}),
    "mlstm": Variant(mixers={0: Mlstm(heads=4), 1: Mlstm(heads=2, key_dim=5, value_dim=7, gate_cap=None)}),
    "mlstm, attention": Variant(mixers={0: Mlstm(heads=4)}, mixer={"visibility": Causal(window=3)}),
    "min gru": Variant(mixers={0: MinGru(), 1: MinGru(expand=1, bias=True)}),
    "linformer": Variant(
        mixers={0: Linformer(heads=4, length=20, rank=4), 1: Linformer(heads=2, length=24, rank=3, shared=False)}
    ),
    # a second value of each number of these
    "longformer and big bird, other numbers": Variant(
        mixers={
            0: Longformer(
                heads=2,
                kv_heads=1,
                head_dim=5,
                window=3,
                position=Alibi(),
                qk_norm=RmsNorm(),
                scorer=CappedDot(cap=2.0),
            ),
            1: BigBird(heads=2, head_dim=6, block=2, window=4, bias=True, scorer=Dot()),
        }
    ),
    "sparse transformer, other numbers": Variant(
        mixers={
            0: StridedAttention(
                heads=2, kv_heads=1, head_dim=6, stride=2, bias=True, qk_norm=LayerNorm(), position=NoPosition()
            ),
            1: FixedAttention(
                heads=2,
                kv_heads=1,
                head_dim=6,
                stride=3,
                summary=1,
                bias=True,
                qk_norm=RmsNorm(),
                position=Alibi(),
                scorer=CappedDot(cap=1.5),
            ),
        }
    ),
    "delta net and mlstm, other numbers": Variant(
        mixers={0: GatedDeltaNet(heads=2, eps=0.1), 1: Mlstm(heads=2, eps=0.1)}
    ),
    "reformer, other numbers": Variant(mixers={1: Reformer(heads=2, head_dim=6, buckets=2, rounds=1, chunk=3)}),
    "linformer, other numbers": Variant(mixers={0: Linformer(heads=2, head_dim=5, length=22, rank=2, bias=True)}),
    # norms and where they stand
    **{
        f"{type(norm).__name__} {placement}": Variant(block={"norm": norm, "placement": placement})
        for norm in (LayerNorm(), RmsNorm(), ZeroCenteredRmsNorm(), NoNorm())
        for placement in ("post", "pre", "sandwich", "output")
    },
    "layer norm without bias": Variant(block={"norm": LayerNorm(bias=False)}),
    "layer scale": Variant(block={"residual": LayerScale(initial=0.3), "placement": "pre"}),
    "smaller layer scale": Variant(block={"residual": LayerScale(initial=0.1), "placement": "post"}),
    "DeepNorm": Variant(block={"residual": DeepNorm(), "placement": "post"}),
    "no skip": Variant(block={"residual": NoSkip()}),
    # feed-forwards
    "gelu": Variant(block={"mlp": FeedForward(hidden=32, activation="gelu")}),
    "tanh gelu, no bias": Variant(block={"mlp": FeedForward(hidden=32, activation="gelu_tanh", bias=False)}),
    "quick gelu": Variant(block={"mlp": FeedForward(hidden=32, activation="gelu_quick")}),
    "swiglu": Variant(block={"mlp": Gated(hidden=16)}),
    "geglu, bias": Variant(block={"mlp": Gated(hidden=16, activation="gelu", bias=True)}),
    "mixture": Variant(block=mixture()),
    "mixture, capacity": Variant(block=mixture(capacity=0.5, balance=0.1)),
    "mixture, shared": Variant(block=mixture(shared=1, active=1, normalize=False, router_z=0.1)),
    "mixture, relu, all": Variant(block=mixture(experts=3, active=3, expert=FeedForward(hidden=16))),
    # embeddings and their start
    "tying target": Variant(model={"tying": "target", "source_vocab": 17}),
    "tying inputs": Variant(model={"tying": "inputs", "init": Gpt2Init()}),
    "tying none": Variant(model={"tying": "none", "source_vocab": 17, "init": InverseSqrtWidth()}),
    "scaled output": Variant(model={"scale_output": True}),
    "capped logits": Variant(model={"logit_cap": 1.5}),
    "depth scaled": Variant(model={"init": Xavier(depth_scaled=True)}),
}

# ---- combinations: every choice of one part meets every choice of every other part at least once ----

PARTS: dict[str, dict[str, Variant]] = {
    "heads": {
        "mha": Variant(attention={"bias": True}),
        "gqa": Variant(attention={"kv_heads": 2}),
        "mqa": Variant(attention={"kv_heads": 1}),
        "free": Variant(attention={"head_dim": 8, "heads": 2}),
    },
    "position": {
        "none": Variant(),
        "sinusoidal": Variant(model={"position": Sinusoidal(), "scale_embedding": True}),
        "learned": Variant(model={"position": Learned(length=24)}),
        "rotary": Variant(mixer={"position": Rotary(theta=100.0)}),
        "yarn": Variant(mixer={"position": Rotary(scaling=Yarn(factor=4.0, trained=4, fast=2.0, slow=0.1))}),
        "dynamic": Variant(mixer={"position": Rotary(scaling=DynamicNtkScaling(trained=4), pairs="neighbours")}),
        "alibi": Variant(mixer={"position": Alibi()}),
        "t5": Variant(mixer={"position": T5Bias(buckets=8, reach=8, bidirectional=False)}),
        "shaw": Variant(mixer={"position": Shaw(reach=3)}),
    },
    "mixer": {
        "attention": Variant(),
        "convolution": Variant(mixers={0: ShortConvolution(), 1: ShortConvolution()}),
        "hybrid": Variant(mixers={0: ShortConvolution(kernel=5)}),
        "mamba": Variant(mixers={0: Mamba(state=4), 1: Mamba(state=3)}),
        "mamba2": Variant(mixers={0: Mamba2(state=4, head_dim=8, chunk=4)}),
        "linear": Variant(mixers={0: LinearAttention(heads=4), 1: GatedDeltaNet(heads=4)}),
        "xlstm": Variant(mixers={i: Mlstm(heads=4) for i in range(2)}),
    },
    "visibility": {
        "all": Variant(),
        "window": Variant(mixer={"visibility": Causal(window=3)}),
        "sinks": Variant(mixer={"visibility": Causal(window=2, sinks=2)}),
    },
    "scorer": {
        "scaled": Variant(),
        "capped": Variant(attention={"scorer": CappedDot(cap=1.0)}),
        "dot": Variant(attention={"scorer": Dot()}),
        "multiplicative": Variant(attention={"scorer": Multiplicative()}),
        "additive": Variant(attention={"scorer": Additive()}),
    },
    "qk": {
        "raw": Variant(),
        "rms": Variant(attention={"qk_norm": RmsNorm()}),
        "layer": Variant(attention={"qk_norm": LayerNorm()}),
        "all heads": Variant(attention={"qk_norm": ProjectionRmsNorm()}),
    },
    "norm": {
        "layer": Variant(block={"norm": LayerNorm()}),
        "rms": Variant(block={"norm": RmsNorm()}),
        "centred": Variant(block={"norm": ZeroCenteredRmsNorm()}),
        "none": Variant(block={"norm": NoNorm()}),
    },
    "residual": {
        "post": Variant(block={"placement": "post"}),
        "pre": Variant(block={"placement": "pre"}),
        "sandwich": Variant(block={"placement": "sandwich"}),
        "output": Variant(block={"placement": "output"}),
        "deep": Variant(block={"placement": "post", "residual": DeepNorm()}),
    },
    "mlp": {
        "relu": Variant(),
        "gelu": Variant(block={"mlp": FeedForward(hidden=32, activation="gelu")}),
        "swiglu": Variant(block={"mlp": Gated(hidden=16)}),
        "geglu": Variant(block={"mlp": Gated(hidden=16, activation="gelu")}),
        "dropless": Variant(block=mixture()),
        "capacity": Variant(block=mixture(capacity=0.5, expert=FeedForward(hidden=16))),
        "shared": Variant(block=mixture(shared=1)),
        "nothing": Variant(block={"mlp": NoFeedForward()}),
    },
    "logits": {
        "plain": Variant(),
        "capped": Variant(model={"logit_cap": 3.0}),
        "scaled": Variant(model={"scale_output": True}),
    },
    "tying": {
        "all": Variant(),
        "target": Variant(model={"tying": "target", "source_vocab": 17}),
        "inputs": Variant(model={"tying": "inputs", "output_bias": True}),
        "none": Variant(model={"tying": "none", "source_vocab": 17}),
    },
    "init": {
        "xavier": Variant(model={"init": Xavier(depth_scaled=True)}),
        "width": Variant(model={"init": InverseSqrtWidth()}),
        "gpt2": Variant(model={"init": Gpt2Init()}),
    },
}


def all_pairs(parts: dict[str, dict[str, Variant]]) -> Iterator[dict[str, str]]:
    """Choices of all parts, together holding every pair: each is the best of some that hold a pair still missing."""
    draw = random.Random(0)
    every = [(part, choice) for part, choices in parts.items() for choice in choices]
    missing = {frozenset(pair) for pair in itertools.combinations(every, 2) if pair[0][0] != pair[1][0]}

    def held(picked: dict[str, str]) -> set[frozenset[tuple[str, str]]]:
        return {frozenset(pair) for pair in itertools.combinations(picked.items(), 2)} & missing

    while missing:
        pair = dict(min(missing, key=sorted))
        drawn = [{part: draw.choice([*choices]) for part, choices in parts.items()} | pair for _ in range(60)]
        best = max(drawn, key=lambda picked: len(held(picked)))
        missing -= held(best)
        yield best


def combine(picked: dict[str, str]) -> Variant:
    chosen = [PARTS[part][choice] for part, choice in picked.items()]
    options = {
        f.name: {k: v for c in chosen for k, v in getattr(c, f.name).items()} for f in dataclasses.fields(Variant)
    }
    if options["block"].get("norm") == NoNorm() and any(
        isinstance(m, Mamba | Mamba2) for m in options["mixers"].values()
    ):
        options["block"]["norm"] = RmsNorm()  # a scan multiplies its inputs: without norms they grow to 1e15
    return Variant(**options)


MODELS = VARIANTS | {" ".join(picked.values()): combine(picked) for picked in all_pairs(PARTS)}
"""The variants, which tell one part from another, and the combinations, in which parts meet."""

ALONE: list[tuple[str, Shape]] = [
    (name, "decoder-only") for name in ("plain", "gqa", "learned", "rotary", "t5", "shaw", "window, sinks", "mixture")
]
ALONE.extend((name, "decoder-only") for name, variant in VARIANTS.items() if variant.mixers)
SUMMARIES = [
    name
    for name, variant in VARIANTS.items()
    if any(isinstance(mixer, Recurrent | LinearAttention) for mixer in variant.mixers.values())
]
"""Variants in which a mixer sums up the past in a state."""
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_model = pytest.mark.parametrize(("variant", "shape"), [*((name, "encoder-decoder") for name in MODELS), *ALONE])


@cache
def build(variant: str, shape: Shape = "encoder-decoder") -> Transformer:
    """The model of a variant, in float64 and without dropout; built once, so leave it as it is."""
    return build_from(MODELS[variant].config(shape))


def build_from(cfg: TransformerConfig) -> Transformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = cfg.build().double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def ids(*size: int, vocab: int = 17) -> torch.Tensor:
    """Random ids, none of them padding; by default in every variant's vocabularies."""
    return torch.randint(1, vocab, size)


def batch(model: Transformer, rows: int, target: int, source: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A target and, where the model reads one, a source."""
    return ids(rows, target), ids(rows, source) if model.cfg.encoder else None


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of ``loss``, by parameter; zeros where it does not depend on one."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), found, strict=True)}


def assert_equal(ours: Any, theirs: Any, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
