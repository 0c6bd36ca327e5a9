"""Published models that are too large to train here: known shapes, for ``dragoman plan``."""

from dragoman.model.attention import AttentionConfig
from dragoman.model.init import Gpt2Init
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.norm import LayerNorm, RmsNorm
from dragoman.model.positions.position import Learned
from dragoman.model.positions.rotary import Rotary
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.presets.language import llama
from dragoman.presets.plain import Plain, architecture


def gpt3_175b() -> Plain:
    """GPT-3 (Brown et al., arXiv:2005.14165), dense in all layers; every second one of the original is banded."""
    block = BlockConfig(
        mixer=AttentionConfig(heads=96, visibility=Causal(), bias=True),
        mlp=FeedForward(hidden=4 * 12_288, activation="gelu_tanh"),
        norm=LayerNorm(),
    )
    model = TransformerConfig(
        dim=12_288,
        decoder=TowerConfig(depth=96, pattern=(block,), final_norm=LayerNorm()),
        position=Learned(length=2048),
        init=Gpt2Init(),
    )
    return architecture(model, vocab=50_257)


def chinchilla() -> Plain:
    """Chinchilla 70B (Hoffmann et al., arXiv:2203.15556), with rotary positions; the original's relative positions are
    a further matrix in each layer, 5.4 billion parameters together."""
    mixer = AttentionConfig(heads=64, visibility=Causal(), position=Rotary())
    block = BlockConfig(mixer=mixer, mlp=FeedForward(hidden=4 * 8192), norm=RmsNorm())
    decoder = TowerConfig(depth=80, pattern=(block,), final_norm=RmsNorm())
    return architecture(TransformerConfig(dim=8192, decoder=decoder, init=Gpt2Init()), vocab=32_000)


def palm() -> Plain:
    """PaLM 540B (Chowdhery et al., arXiv:2204.02311): one key/value head, gated feed-forward, tied embeddings.

    The original computes attention and feed-forward side by side, from one norm: the same products.
    """
    mixer = AttentionConfig(heads=48, kv_heads=1, head_dim=256, visibility=Causal(), position=Rotary())
    block = BlockConfig(mixer=mixer, mlp=Gated(hidden=4 * 18_432), norm=RmsNorm())
    decoder = TowerConfig(depth=118, pattern=(block,), final_norm=RmsNorm())
    return architecture(TransformerConfig(dim=18_432, decoder=decoder, init=Gpt2Init()), vocab=256_000)


def llama_2_13b() -> Plain:
    """Llama 2 13B (arXiv:2307.09288)."""
    mlp = Gated(hidden=13_824)
    model = llama(dim=5120, depth=40, heads=40, mlp=mlp, position=Rotary(), tied=False, eps=1e-5)
    return architecture(model, vocab=32_000)


def llama_2_70b() -> Plain:
    """Llama 2 70B (arXiv:2307.09288): grouped queries."""
    mlp = Gated(hidden=28_672)
    model = llama(dim=8192, depth=80, heads=64, kv_heads=8, mlp=mlp, position=Rotary(), tied=False, eps=1e-5)
    return architecture(model, vocab=32_000)


def llama_3_70b() -> Plain:
    """Llama 3 70B (arXiv:2407.21783)."""
    mlp, position = Gated(hidden=28_672), Rotary(theta=500_000.0)
    model = llama(dim=8192, depth=80, heads=64, kv_heads=8, mlp=mlp, position=position, tied=False, eps=1e-5)
    return architecture(model, vocab=128_256)


def llama_3_405b() -> Plain:
    """Llama 3 405B (arXiv:2407.21783)."""
    mlp, position = Gated(hidden=53_248), Rotary(theta=500_000.0)
    model = llama(dim=16_384, depth=126, heads=128, kv_heads=8, mlp=mlp, position=position, tied=False, eps=1e-5)
    return architecture(model, vocab=128_256)
