"""One table of convolutional models for the tests of their family, tiny and in float64, with shaken weights."""

import dataclasses
from functools import cache

import torch

from dragoman.model.convolution.blocks import DilatedResidual, GatedConvolution, TanhConvolution
from dragoman.model.convolution.sources import MultiStepSource, TwoStackSource, UnfoldedSource
from dragoman.model.convolution.stack import ConvolutionStack, NoProjections, Projections, ReluOutput
from dragoman.model.convolution.weights import PlainWeights, WeightNorm
from dragoman.model.convolutional import ConvolutionalConfig, ConvolutionalModel
from dragoman.model.norm import LayerNorm, RmsNorm
from dragoman.model.positions.position import Learned, Sinusoidal

V, D, E = 29, 8, 12


def gated(*kernels: int, channels: tuple[int, ...] = (10,), **options) -> ConvolutionStack:
    pattern = tuple(
        GatedConvolution(kernel=k, channels=channels[i % len(channels)], **options) for i, k in enumerate(kernels)
    )
    return ConvolutionStack(depth=len(pattern), pattern=pattern, weights=WeightNorm())


def tanh(depth: int, **options) -> ConvolutionStack:
    return ConvolutionStack(depth=depth, pattern=(TanhConvolution(**options),))


DILATED = ConvolutionStack(
    depth=3,
    pattern=(DilatedResidual(), DilatedResidual(dilation=2), DilatedResidual(dilation=4)),
    ends=NoProjections(),
    final_norm=LayerNorm(),
)
UNFOLDING = dataclasses.replace(DILATED, ends=ReluOutput())
ENCODER, DECODER = gated(3, 5), gated(3, 2, 4)

VARIANTS: dict[str, ConvolutionalConfig] = {
    "convs2s": ConvolutionalConfig(
        dim=D, embedding=E, encoder=MultiStepSource(stack=ENCODER), decoder=DECODER, position=Learned(length=40)
    ),
    "convs2s, widths": ConvolutionalConfig(
        dim=D,
        encoder=MultiStepSource(stack=gated(3, 3, 1, channels=(6, 10, 14))),
        decoder=gated(3, 3, 1, channels=(6, 10, 14)),
        position=Sinusoidal(),
        tying="all",
    ),
    "convs2s, one attention": ConvolutionalConfig(
        dim=D, encoder=MultiStepSource(stack=ENCODER, attend_from=(1,)), decoder=DECODER, tying="target"
    ),
    "convs2s, dilated": ConvolutionalConfig(
        dim=D,
        encoder=MultiStepSource(stack=gated(3, 3, dilation=2)),
        decoder=gated(2, 3, dilation=3, scale=1.0),
        suppressed=(5,),
    ),
    "bytenet": ConvolutionalConfig(dim=D, encoder=UnfoldedSource(stack=DILATED), decoder=UNFOLDING),
    "bytenet, short": ConvolutionalConfig(
        dim=D,
        encoder=UnfoldedSource(stack=DILATED, ratio=1.0),
        decoder=UNFOLDING,
        position=Sinusoidal(),
        scale_embedding=True,
        tying="inputs",
    ),
    "bytenet, offset": ConvolutionalConfig(
        dim=D,
        encoder=UnfoldedSource(stack=DILATED, ratio=1.5, offset=3),
        decoder=dataclasses.replace(
            UNFOLDING, pattern=(DilatedResidual(inner=5, norm=RmsNorm()),), weights=WeightNorm()
        ),
        output_bias=False,
    ),
    "bytenet, gated": ConvolutionalConfig(
        dim=D, encoder=UnfoldedSource(stack=gated(3, 5)), decoder=gated(3, 3, dilation=2)
    ),
    "cnn-9": ConvolutionalConfig(
        dim=D, encoder=TwoStackSource(keys=tanh(3), values=tanh(2), attend_from=(0,)), decoder=DECODER
    ),
    "cnn-9, tanh decoder": ConvolutionalConfig(
        dim=D,
        encoder=TwoStackSource(keys=tanh(2, channels=6, dilation=2), values=tanh(1)),
        decoder=tanh(2, kernel=2, channels=9),
    ),
    "cnn-9, residual decoder": ConvolutionalConfig(
        dim=D, encoder=TwoStackSource(keys=tanh(1), values=tanh(1)), decoder=UNFOLDING
    ),
    "language model": ConvolutionalConfig(dim=D, decoder=gated(4, 4, 4), tying="all"),
    "language model, learned": ConvolutionalConfig(
        dim=D, decoder=dataclasses.replace(gated(3, 1), ends=Projections()), position=Learned(length=40)
    ),
    "language model, dilated": ConvolutionalConfig(dim=D, decoder=DILATED),
    "language model, one token": ConvolutionalConfig(
        dim=D, decoder=dataclasses.replace(gated(1, channels=(D,)), ends=NoProjections(), weights=PlainWeights())
    ),
}
TRANSLATORS = [name for name, cfg in VARIANTS.items() if cfg.translates]
WRITERS = [name for name, cfg in VARIANTS.items() if not cfg.translates]
ATTENDING = [name for name in TRANSLATORS if not name.startswith("bytenet")]


@cache
def build(variant: str) -> ConvolutionalModel:
    """The model of a variant, in float64 and without dropout; built once, so leave it as it is."""
    return build_from(VARIANTS[variant])


def build_from(cfg: ConvolutionalConfig) -> ConvolutionalModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = cfg.sized(vocab=cfg.vocab or V).build().double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def batch(model: ConvolutionalModel, rows: int, target: int, source: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A target and, where the model reads one, a source; no id is padding."""
    draw = lambda *size: torch.randint(3, V, size)  # noqa: E731
    return draw(rows, target), draw(rows, source) if model.cfg.translates else None
