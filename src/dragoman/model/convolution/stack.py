"""A stack of convolutional blocks, common to encoders and decoders.

B batch, T newest tokens, D width of the inputs, E width of the outputs.
"""

from collections.abc import Sequence
from typing import Annotated, cast

from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn

from dragoman.config import OneOf, at, config
from dragoman.errors import ConfigError
from dragoman.model.caches.state import KVPolicy, TowerState, stateless
from dragoman.model.convolution.attention import MultiStepAttention
from dragoman.model.convolution.blocks import AnyConvolutionBlock, ConvolutionBlock
from dragoman.model.convolution.layers import AlignedRows, RecentInputs
from dragoman.model.convolution.memory import SharedMemory
from dragoman.model.convolution.weights import PlainWeights, Weights, fill
from dragoman.model.init import Init
from dragoman.model.layer_stack import LayerStack, StackConfig
from dragoman.model.masks.visibility import Causal
from dragoman.model.norm import NoNorm, Norm
from dragoman.model.positions.tokens import Positions

# ---- ends -----------------------------------------------------------------------------------------


@config
class Projections:
    """Linear layers before the first block and after the last one: the blocks have widths of their own (Gehring et al.
    2017, section 3.2)."""

    def build(self, width: int, outputs: int, first: int, last: int, weights: Weights) -> tuple[nn.Module, nn.Module]:
        """Return what comes before blocks that read ``first`` channels, and after blocks that return ``last``.

        Raises:
            ConfigError: widths that these ends cannot bridge.
        """
        entry, leave = weights.build(width, first), weights.build(last, outputs)
        fill(entry, gain=1.0)
        fill(leave, gain=1.0)
        return entry, leave

    def first_channels(self, width: int, block: AnyConvolutionBlock) -> int:
        """Return the channels that the first block reads."""
        return block.channels_after(width)


@config
class NoProjections:
    """Nothing: blocks read the embeddings, and the last one returns the output."""

    def build(self, width: int, outputs: int, first: int, last: int, weights: Weights) -> tuple[nn.Module, nn.Module]:
        _check_width(last, outputs)
        return nn.Identity(), nn.Identity()

    def first_channels(self, width: int, block: AnyConvolutionBlock) -> int:
        return width


@config
class ReluOutput:
    """After the last block a ReLU, a linear layer and a ReLU (Kalchbrenner et al. 2016, section 3)."""

    def build(self, width: int, outputs: int, first: int, last: int, weights: Weights) -> tuple[nn.Module, nn.Module]:
        layer = weights.build(last, outputs)
        fill(layer, gain=2.0)
        return nn.Identity(), nn.Sequential(nn.ReLU(), layer, nn.ReLU())

    def first_channels(self, width: int, block: AnyConvolutionBlock) -> int:
        return width


StackEnds = Annotated[Projections | NoProjections | ReluOutput, OneOf()]


def _check_width(last: int, outputs: int) -> None:
    if last != outputs:
        raise ConfigError(
            f"ends: the last block has {last} channels and the model a width of {outputs}: use projections, or as many "
            "channels"
        )


# ---- stack ----------------------------------------------------------------------------------------


@config
class ConvolutionStack(StackConfig):
    """Configuration of ``depth`` convolutional blocks."""

    depth: PositiveInt
    pattern: tuple[AnyConvolutionBlock, ...]
    """Block i uses pattern[i % len(pattern)]: one entry for a uniform stack, five for ByteNet's dilations 1 to 16."""
    ends: StackEnds = Projections()
    """Layers before the first block and after the last one."""
    final_norm: Norm = NoNorm()
    """Norm on the last block's output."""
    weights: Weights = PlainWeights()
    """Parametrization of all linear layers and convolutions."""

    def build_tower(self, dim: int, inputs: object, init: Init) -> "ConvolutionTower":
        """Build the tower of an encoder model that reads ``inputs``; its initial weights are its own.

        Raises:
            ConfigError: sizes that do not fit; the message opens with the field.
        """
        return ConvolutionTower(self, dim, dim, causal=False)


class ConvolutionTower(LayerStack):
    """Stack of convolutional blocks with its ends."""

    blocks: Sequence[ConvolutionBlock]

    def __init__(
        self,
        cfg: ConvolutionStack,
        width: int,
        outputs: int,
        *,
        causal: bool,
        attending: Sequence[int] = (),
        attended: int = 0,
    ):
        """
        Args:
            cfg: the configuration.
            width: width D of the inputs.
            outputs: width E of the outputs.
            causal: let no token see those behind it.
            attending: indices of the blocks that attend to a source.
            attended: width of the source's keys and values.
        """
        super().__init__()
        if not cfg.pattern:
            raise ConfigError("pattern: must have at least one entry")
        blocks: list[ConvolutionBlock] = []
        first = channels = cfg.ends.first_channels(width, cfg.pattern[0])
        for i in range(cfg.depth):
            part = cfg.pattern[i % len(cfg.pattern)]
            with at(f"pattern.{i % len(cfg.pattern)}"):
                block = part.build(channels, cfg.weights, causal=causal)
            channels = part.channels_after(channels)
            if i in attending:
                block.cross = MultiStepAttention(channels, attended, cfg.weights)
            blocks.append(block)
        self.causal, self.blocks = causal, cast(Sequence[ConvolutionBlock], nn.ModuleList(blocks))
        self.final_norm = cfg.final_norm.build(channels)
        self.entry, self.leave = cfg.ends.build(width, outputs, first, channels, cfg.weights)
        self.distances = sorted({by for block in blocks for by in block.convolution.distances} - {0})
        """Distances back, negative for ahead, at which a block reads other tokens."""

    def new_state(self, policy: KVPolicy) -> TowerState:
        """Return an empty state; ``policy``, which is for keys and values, only tells whether anything is kept."""
        remembers = policy.remembers and self.causal
        layers = [RecentInputs(block.convolution.reach, remembers=remembers) for block in self.blocks]
        return TowerState(layers, [Causal(window=1)] * len(layers))  # no block needs the positions of earlier tokens

    def read(self, x: Float[Tensor, "B T D"], positions: Positions) -> Float[Tensor, "B T E"]:
        """Run all blocks over whole inputs, as an encoder does."""
        return self(x, positions, self.new_state(stateless))

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        new: Positions,
        state: TowerState,
        real: Bool[Tensor, "B T"] | None = None,
        memory: SharedMemory | None = None,
    ) -> Float[Tensor, "B T E"]:
        """Run all blocks over the newest tokens.

        Args:
            x: vectors of the newest tokens.
            new: their positions, which say what is padding; they follow the tokens in ``state``.
            state: newest inputs of all convolutions; updated.
            real: not needed here.
            memory: the encoded source, for blocks that attend to it.
        """
        state.advance(new)
        layout = AlignedRows.of(new, self.distances, x.dtype)
        x = layout.moved(x)
        view = memory and memory.view(x, layout.positions)
        x = self.entry(x)
        for block, layer in zip(self.blocks, state.layers, strict=True):
            x = self.run_block(block, x, layout, layer, view)
        return layout.restored(self.leave(self.final_norm(x)))
