"""Published text-to-text models, encoder-decoder."""

from typing import Any

from dragoman.model.attention import AttentionConfig
from dragoman.model.init import Gpt2Init
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mlp import Activation, FeedForward, Gated
from dragoman.model.norm import LayerNorm, RmsNorm
from dragoman.model.positions.position import Learned, Sinusoidal, T5Bias
from dragoman.model.scorer import Dot
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.presets.plain import Plain, architecture

# ---- T5 ---------------------------------------------------------------------------------------------


def t5(*, dim: int, depth: int, heads: int, mlp: FeedForward | Gated, tied: bool) -> TransformerConfig:
    """T5's shape: relative biases instead of positions, and unscaled scores (Raffel et al., arXiv:1910.10683)."""

    def attention(**options: Any) -> AttentionConfig:
        return AttentionConfig(heads=heads, head_dim=64, scorer=Dot(), dropout=0.1, **options)

    def tower(*, decoder: bool) -> TowerConfig:
        block = BlockConfig(
            mixer=attention(visibility=Causal() if decoder else Full(), position=T5Bias(bidirectional=not decoder)),
            cross=attention(visibility=Full()) if decoder else None,
            mlp=mlp,
            norm=RmsNorm(),
            dropout=0.1,
        )
        return TowerConfig(depth=depth, pattern=(block,), final_norm=RmsNorm())

    return TransformerConfig(
        dim=dim,
        encoder=tower(decoder=False),
        decoder=tower(decoder=True),
        tying="all" if tied else "inputs",
        scale_output=tied,
        dropout=0.1,
        init=Gpt2Init(depth_scaled=False),
    )


def t5_small() -> Plain:
    """T5 small: ReLU, one matrix for embeddings and output."""
    mlp = FeedForward(hidden=2048, bias=False, dropout=0.1)
    return architecture(t5(dim=512, depth=6, heads=8, mlp=mlp, tied=True), vocab=32_128)


def t5_1_1_small() -> Plain:
    """T5 1.1 small: GeGLU, an output matrix of its own."""
    mlp = Gated(hidden=1024, activation="gelu_tanh", dropout=0.1)
    return architecture(t5(dim=512, depth=8, heads=6, mlp=mlp, tied=False), vocab=32_128)


# ---- post-norm, as in 2017 --------------------------------------------------------------------------


def post_norm(
    *, dim: int, depth: int, heads: int, hidden: int, activation: Activation, **model: Any
) -> TransformerConfig:
    """The 2017 shape with another activation and a bias on the logits."""

    def attention(visibility: Causal | Full) -> AttentionConfig:
        return AttentionConfig(heads=heads, visibility=visibility, bias=True)

    def tower(*, decoder: bool) -> TowerConfig:
        block = BlockConfig(
            mixer=attention(Causal() if decoder else Full()),
            cross=attention(Full()) if decoder else None,
            mlp=FeedForward(hidden=hidden, activation=activation),
            norm=LayerNorm(),
            placement="post",
            dropout=0.1,
        )
        return TowerConfig(depth=depth, pattern=(block,))

    return TransformerConfig(
        dim=dim, encoder=tower(decoder=False), decoder=tower(decoder=True), output_bias=True, dropout=0.1, **model
    )


def bart_base() -> Plain:
    """BART base (Lewis et al., arXiv:1910.13461): learned positions, a norm on the embeddings, GELU."""
    more = {"position": Learned(length=1024, offset=2), "embedding_norm": LayerNorm()}
    init = Gpt2Init(depth_scaled=False)
    model = post_norm(dim=768, depth=6, heads=12, hidden=3072, activation="gelu", init=init, **more)
    return architecture(model, vocab=50_265)


def marian() -> Plain:
    """OPUS-MT's Marian models of a thousand language pairs (Tiedemann & Thottingal 2020), here with the vocabulary of
    English to German: Swish, all sines before all cosines."""
    more = {"position": Sinusoidal(layout="halves"), "scale_embedding": True}
    model = post_norm(dim=512, depth=6, heads=8, hidden=2048, activation="silu", **more)
    return architecture(model, vocab=58_101)
