"""Published language models, decoder-only."""

from typing import Any

from dragoman.model.attention import AttentionConfig
from dragoman.model.init import Gpt2Init
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.moe import Mixture
from dragoman.model.norm import LayerNorm, RmsNorm, ZeroCenteredRmsNorm
from dragoman.model.positions.position import Learned
from dragoman.model.positions.rotary import Llama3Scaling, Rotary
from dragoman.model.scorer import CappedDot, ScaledDot
from dragoman.model.tower import BlockConfig, Mlp, TowerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.presets.plain import Plain, architecture


def gpt2() -> Plain:
    """GPT-2 small (Radford et al. 2019): learned positions, pre-norm, biases."""
    block = BlockConfig(
        mixer=AttentionConfig(heads=12, visibility=Causal(), bias=True, dropout=0.1),
        mlp=FeedForward(hidden=3072, activation="gelu_tanh"),
        norm=LayerNorm(),
        dropout=0.1,
    )
    model = TransformerConfig(
        dim=768,
        decoder=TowerConfig(depth=12, pattern=(block,), final_norm=LayerNorm()),
        position=Learned(length=1024),
        dropout=0.1,
        init=Gpt2Init(),
    )
    return architecture(model, vocab=50_257)


# ---- LLaMA and its successors -----------------------------------------------------------------------


def llama(
    *, dim: int, depth: int, heads: int, mlp: Mlp, position: Rotary, tied: bool, eps: float, **attention: Any
) -> TransformerConfig:
    """LLaMA's shape: pre-norm RMSNorm, rotary positions, SwiGLU, no biases (Touvron et al., arXiv:2302.13971)."""
    attention = {"visibility": Causal(), "position": position} | attention
    block = BlockConfig(mixer=AttentionConfig(heads=heads, **attention), mlp=mlp, norm=RmsNorm(eps=eps))
    return TransformerConfig(
        dim=dim,
        decoder=TowerConfig(depth=depth, pattern=(block,), final_norm=RmsNorm(eps=eps)),
        tying="all" if tied else "none",
        init=Gpt2Init(depth_scaled=False),
    )


def llama_2_7b() -> Plain:
    """Llama 2 7B (arXiv:2307.09288)."""
    mlp = Gated(hidden=11_008)
    model = llama(dim=4096, depth=32, heads=32, mlp=mlp, position=Rotary(), tied=False, eps=1e-5)
    return architecture(model, vocab=32_000)


def llama_3_8b() -> Plain:
    """Llama 3 8B (arXiv:2407.21783): grouped queries, a vocabulary four times as large, longer wavelengths."""
    position, mlp = Rotary(theta=500_000.0), Gated(hidden=14_336)
    model = llama(dim=4096, depth=32, heads=32, kv_heads=8, mlp=mlp, position=position, tied=False, eps=1e-5)
    return architecture(model, vocab=128_256)


def llama_3_2_1b() -> Plain:
    """Llama 3.2 1B: tied embeddings, and positions scaled to 131,072 tokens."""
    position, mlp = Rotary(theta=500_000.0, scaling=Llama3Scaling(factor=32.0, trained=8192)), Gated(hidden=8192)
    model = llama(dim=2048, depth=16, heads=32, kv_heads=8, mlp=mlp, position=position, tied=True, eps=1e-5)
    return architecture(model, vocab=128_256)


def qwen2() -> Plain:
    """Qwen2 0.5B (arXiv:2407.10671): biases on queries, keys and values."""
    position, mlp, bias = Rotary(theta=1e6), Gated(hidden=4864), {"bias": True, "out_bias": False}
    model = llama(dim=896, depth=24, heads=14, kv_heads=2, mlp=mlp, position=position, tied=True, eps=1e-6, **bias)
    return architecture(model, vocab=151_936)


def qwen3() -> Plain:
    """Qwen3 0.6B (arXiv:2505.09388): heads wider than the model, norms on queries and keys."""
    position, mlp, more = Rotary(theta=1e6), Gated(hidden=3072), {"head_dim": 128, "qk_norm": RmsNorm()}
    model = llama(dim=1024, depth=28, heads=16, kv_heads=8, mlp=mlp, position=position, tied=True, eps=1e-6, **more)
    return architecture(model, vocab=151_936)


def mistral_7b() -> Plain:
    """Mistral 7B v0.1 (arXiv:2310.06825): a window of 4,096 tokens."""
    mlp, window = Gated(hidden=14_336), Causal(window=4096)
    model = llama(
        dim=4096, depth=32, heads=32, kv_heads=8, mlp=mlp, position=Rotary(), tied=False, eps=1e-5, visibility=window
    )
    return architecture(model, vocab=32_000)


def mixtral_8x7b() -> Plain:
    """Mixtral 8x7B (arXiv:2401.04088): two of eight experts for each token."""
    mlp, position = Mixture(experts=8, active=2, expert=Gated(hidden=14_336)), Rotary(theta=1e6)
    model = llama(dim=4096, depth=32, heads=32, kv_heads=8, mlp=mlp, position=position, tied=False, eps=1e-5)
    return architecture(model, vocab=32_000)


# ---- Gemma ------------------------------------------------------------------------------------------


def gemma(
    *, dim: int, depth: int, hidden: int, pattern: tuple[AttentionConfig, ...], logit_cap: float | None
) -> TransformerConfig:
    """Gemma's shape: norms on both sides of a sublayer, GeGLU, embeddings times sqrt(D), local and global layers."""
    norm = ZeroCenteredRmsNorm()
    mlp = Gated(hidden=hidden, activation="gelu_tanh")
    blocks = tuple(BlockConfig(mixer=mixer, mlp=mlp, norm=norm, placement="sandwich") for mixer in pattern)
    return TransformerConfig(
        dim=dim,
        decoder=TowerConfig(depth=depth, pattern=blocks, final_norm=norm),
        scale_embedding=True,
        logit_cap=logit_cap,
        init=Gpt2Init(depth_scaled=False),
    )


def gemma_2_2b() -> Plain:
    """Gemma 2 2B (arXiv:2408.00118): every other layer sees 4,096 tokens; scores and logits are capped."""

    def attention(visibility: Causal) -> AttentionConfig:
        scorer = CappedDot(cap=50.0, scale=256**-0.5)
        return AttentionConfig(
            heads=8, kv_heads=4, head_dim=256, position=Rotary(), visibility=visibility, scorer=scorer
        )

    pattern = (attention(Causal(window=4096)), attention(Causal()))
    return architecture(gemma(dim=2304, depth=26, hidden=9216, pattern=pattern, logit_cap=30.0), vocab=256_000)


def gemma_3_1b() -> Plain:
    """Gemma 3 1B (arXiv:2503.19786): five local layers of 512 tokens for each global one, with longer wavelengths."""

    def attention(visibility: Causal, theta: float) -> AttentionConfig:
        scorer, norm = ScaledDot(scale=256**-0.5), ZeroCenteredRmsNorm()
        position = Rotary(theta=theta)
        return AttentionConfig(
            heads=4, kv_heads=1, head_dim=256, position=position, visibility=visibility, scorer=scorer, qk_norm=norm
        )

    pattern = (attention(Causal(window=512), 10_000.0),) * 5 + (attention(Causal(), 1e6),)
    return architecture(gemma(dim=1152, depth=26, hidden=6912, pattern=pattern, logit_cap=None), vocab=262_144)
