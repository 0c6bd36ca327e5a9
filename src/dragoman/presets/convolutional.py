"""Convolutional models: small ones with recipes, and published ones at their sizes."""

import dataclasses

from dragoman.model.convolution.blocks import DilatedResidual, GatedConvolution, TanhConvolution
from dragoman.model.convolution.sources import MultiStepSource, TwoStackSource, UnfoldedSource
from dragoman.model.convolution.stack import ConvolutionStack, NoProjections, ReluOutput
from dragoman.model.convolution.weights import WeightNorm
from dragoman.model.convolutional import ConvolutionalConfig
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import Learned
from dragoman.presets.plain import Plain, architecture
from dragoman.presets.small import as_lm_small
from dragoman.presets.translation import as_transformer_small

Widths = tuple[tuple[int, int], ...]
"""Channels and kernel of each block."""

# ---- architectures --------------------------------------------------------------------------------


def gated_stack(widths: Widths, dropout: float) -> ConvolutionStack:
    """Return a stack of gated convolutions as in ConvS2S."""
    pattern = tuple(GatedConvolution(channels=channels, kernel=k, dropout=dropout) for channels, k in widths)
    return ConvolutionStack(depth=len(pattern), pattern=pattern, weights=WeightNorm())


def gehring2017(
    *,
    dim: int,
    encoder: Widths,
    decoder: Widths,
    embedding: int | None = None,
    length: int = 1024,
    dropout: float,
) -> ConvolutionalConfig:
    """Convolutional Sequence to Sequence Learning (arXiv:1705.03122)."""
    return ConvolutionalConfig(
        dim=dim,
        embedding=embedding,
        encoder=MultiStepSource(stack=gated_stack(encoder, dropout)),
        decoder=gated_stack(decoder, dropout),
        position=Learned(length=length),
        dropout=dropout,
    )


def kalchbrenner2016(*, dim: int, depth: int, dropout: float = 0.0) -> ConvolutionalConfig:
    """ByteNet with ReLUs (arXiv:1610.10099): dilations 1 to 16 and again, ``depth`` blocks on either side."""
    pattern = tuple(DilatedResidual(dilation=2**i, dropout=dropout) for i in range(5))
    stack = ConvolutionStack(depth=depth, pattern=pattern, ends=NoProjections(), final_norm=LayerNorm())
    return ConvolutionalConfig(
        dim=dim,
        encoder=UnfoldedSource(stack=stack),
        decoder=dataclasses.replace(stack, ends=ReluOutput()),
        dropout=dropout,
    )


def gehring2016(
    *, dim: int, channels: int, keys: int, values: int, decoder: int, length: int = 1024, dropout: float
) -> ConvolutionalConfig:
    """A Convolutional Encoder Model for Neural Machine Translation (arXiv:1611.02344): ``keys`` and ``values`` layers
    in its two stacks, CNN-a and CNN-c.

    The paper decodes by an LSTM. Here the decoder is causal gated convolutions, of which the first attends to the
    source: the same single attention, and every later layer reads what it found for earlier tokens too.
    """

    def stack(depth: int) -> ConvolutionStack:
        return ConvolutionStack(depth=depth, pattern=(TanhConvolution(channels=channels, dropout=dropout),))

    return ConvolutionalConfig(
        dim=dim,
        encoder=TwoStackSource(keys=stack(keys), values=stack(values), attend_from=(0,)),
        decoder=gated_stack(((channels, 3),) * decoder, dropout),
        position=Learned(length=length),
        dropout=dropout,
    )


def dauphin2016(*, dim: int, depth: int, kernel: int, dropout: float) -> ConvolutionalConfig:
    """Language Modeling with Gated Convolutional Networks (arXiv:1612.08083), a uniform stack with residual
    connections."""
    block = GatedConvolution(kernel=kernel, dropout=dropout)
    stack = ConvolutionStack(depth=depth, pattern=(block,), ends=NoProjections(), weights=WeightNorm())
    return ConvolutionalConfig(dim=dim, decoder=stack, dropout=dropout)


# ---- recipes --------------------------------------------------------------------------------------


def _tied(model: ConvolutionalConfig) -> ConvolutionalConfig:
    return dataclasses.replace(model, tying="all")


def _translation(model: ConvolutionalConfig) -> Plain:
    """Recipe of transformer-small, with which convolutions learn faster than with the momentum of 2017."""
    return as_transformer_small(_tied(model))


def convs2s() -> Plain:
    """ConvS2S with the parameters of transformer-small: eight and six gated convolutions, attention in each of the
    decoder's."""
    block = (256, 3)
    model = gehring2017(dim=256, encoder=(block,) * 8, decoder=(block,) * 6, dropout=0.2)
    return _translation(model)


def bytenet() -> Plain:
    """ByteNet with the parameters of transformer-small, on subwords: eleven blocks on either side, dilations 1 to 16
    twice and 1 again. It attends to nothing: the decoder unfolds over the source's representation."""
    return _translation(_scaled(kalchbrenner2016(dim=384, depth=11, dropout=0.1)))


def _scaled(model: ConvolutionalConfig) -> ConvolutionalConfig:
    """Give embeddings variance 1, as the normalized source representation has to which they are added."""
    return dataclasses.replace(model, scale_embedding=True, embedding_std=model.dim**-0.5)


def cnn_9() -> Plain:
    """Nine-layer convolutional encoder of 2016, six layers for keys and three for values, with the parameters of
    transformer-small; its decoder is convolutional too, with one attention."""
    model = gehring2016(dim=256, channels=320, keys=6, values=3, decoder=5, dropout=0.2)
    return _translation(model)


def gated_cnn_lm_small() -> Plain:
    """Gated convolutional language model with the parameters of lm-small; it sees 28 tokens back."""
    return as_lm_small(_tied(dauphin2016(dim=256, depth=9, kernel=4, dropout=0.1)))


# ---- published sizes --------------------------------------------------------------------------------


def convs2s_wmt() -> Plain:
    """ConvS2S for WMT'14 English-German, as the authors' fconv_wmt_en_de: fifteen layers on either side, 512, 1,024 and
    2,048 channels wide."""
    widths = ((512, 3),) * 9 + ((1024, 3),) * 4 + ((2048, 1),) * 2
    return architecture(gehring2017(dim=512, embedding=768, encoder=widths, decoder=widths, dropout=0.2), vocab=40_000)


def bytenet_wmt() -> Plain:
    """ByteNet for WMT'14 English-German: thirty blocks on either side, 1,600 channels around convolutions of 800. The
    paper's model reads characters; a vocabulary of 300 here is little more than bytes."""
    return architecture(kalchbrenner2016(dim=1600, depth=30), vocab=300)
