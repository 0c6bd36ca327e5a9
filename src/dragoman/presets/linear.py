"""Language models whose layers sum up the past in a state of fixed size, and LFM2, whose layers are mostly local."""

import dataclasses

from dragoman.model.attention import AttentionConfig
from dragoman.model.feature_maps import FavorFeatures
from dragoman.model.gated_delta_net import GatedDeltaNet
from dragoman.model.init import Gpt2Init
from dragoman.model.linear_attention import LinearAttention
from dragoman.model.masks.visibility import Causal
from dragoman.model.min_gru import MinGru
from dragoman.model.mlp import Gated
from dragoman.model.mlstm import Mlstm
from dragoman.model.norm import RmsNorm
from dragoman.model.positions.rotary import Rotary
from dragoman.model.short_convolution import ShortConvolution
from dragoman.model.tower import BlockConfig, Mixer, TowerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.presets.plain import Plain, architecture
from dragoman.presets.small import language, llama_style, warmup_stable_decay

# ---- with the recipe of lm-small ----------------------------------------------------------------------


def _small(*mixers: Mixer | None, hidden: int = 688) -> Plain:
    """lm-small with these mixers in the place of attention, in turn; None for its own."""
    model = llama_style(dim=256, depth=6, heads=4, hidden=hidden, dropout=0.1)
    (attention,) = model.decoder.pattern
    pattern = tuple(attention if mixer is None else dataclasses.replace(attention, mixer=mixer) for mixer in mixers)
    depth = model.decoder.depth if model.decoder.depth % len(pattern) == 0 else 2 * len(pattern)
    decoder = dataclasses.replace(model.decoder, depth=depth, pattern=pattern)
    return language(
        dataclasses.replace(model, decoder=decoder),
        vocab=8000,
        context=256,
        rows=32,
        steps=10_000,
        schedule=warmup_stable_decay(2e-3, 300),
    )


def linear_small() -> Plain:
    """lm-small with linear attention (Katharopoulos et al., arXiv:2006.16236), and as many parameters."""
    return _small(LinearAttention(heads=4, position=Rotary()))


def performer_small() -> Plain:
    """lm-small with FAVOR+ (Choromanski et al., arXiv:2009.14794), and as many parameters."""
    return _small(LinearAttention(heads=4, features=FavorFeatures(features=128), position=Rotary()))


def gated_deltanet_small() -> Plain:
    """lm-small with the gated delta rule (Yang et al., arXiv:2412.06464), and about as many parameters."""
    return _small(GatedDeltaNet(heads=4), hidden=600)


def deltanet_hybrid_small() -> Plain:
    """Three layers of the gated delta rule for each of attention, as in Qwen3-Next, with lm-small's parameters."""
    delta = GatedDeltaNet(heads=4)
    return _small(delta, delta, delta, None, hidden=360)


def mlstm_small() -> Plain:
    """lm-small with mLSTM as in xLSTM 7B (Beck et al., arXiv:2405.04517), and about as many parameters."""
    return _small(Mlstm(heads=4))


def min_gru_small() -> Plain:
    """lm-small with minGRU (Feng et al., arXiv:2410.01201), and about as many parameters."""
    return _small(MinGru(), hidden=520)


# ---- published ----------------------------------------------------------------------------------------


def _lfm2(*, dim: int, hidden: int, heads: int) -> Plain:
    """LFM2's shape: 10 of 16 layers convolve over 3 tokens, and 6 attend (arXiv:2511.23404)."""
    norm = RmsNorm(eps=1e-5)
    attention = AttentionConfig(heads=heads, kv_heads=8, position=Rotary(theta=1e6), visibility=Causal(), qk_norm=norm)
    mixers = [attention if i in (2, 5, 8, 10, 12, 14) else ShortConvolution() for i in range(16)]
    model = TransformerConfig(
        dim=dim,
        decoder=TowerConfig(
            depth=16,
            pattern=tuple(BlockConfig(mixer=mixer, mlp=Gated(hidden=hidden), norm=norm) for mixer in mixers),
            final_norm=norm,
        ),
        init=Gpt2Init(depth_scaled=False),
    )
    return architecture(model, vocab=65_536)


def lfm2_350m() -> Plain:
    """LFM2 350M (arXiv:2511.23404)."""
    return _lfm2(dim=1024, hidden=4608, heads=16)


def lfm2_1_2b() -> Plain:
    """LFM2 1.2B (arXiv:2511.23404)."""
    return _lfm2(dim=2048, hidden=8192, heads=32)
