"""Stack of recurrent layers that reads whole texts: encoder of a translator, tower of a classifier or tagger.

B batch, T length, D width of the model, E width of the stack's outputs, H channels of a state.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple, cast

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from dragoman.config import OneOf, config, kind_of
from dragoman.errors import ConfigError
from dragoman.model.caches.summary import Summary
from dragoman.model.dropout import DropoutRate, dropout
from dragoman.model.init import Init, initialize
from dragoman.model.layer_stack import LayerStack, StackConfig
from dragoman.model.linear import Linear
from dragoman.model.positions.tokens import Positions
from dragoman.model.recurrent.cells import RecurrentCell, RecurrentLayer
from dragoman.model.recurrent.rows import TextRows, scan_rows

# ---- directions -------------------------------------------------------------------------------------


class Sides(NamedTuple):
    """Directions of one layer."""

    ahead: bool
    behind: bool

    @property
    def number(self) -> int:
        return self.ahead + self.behind


@config
class Forward:
    """Read from the first token to the last."""

    def sides(self, layer: int) -> Sides:
        return Sides(True, False)


@config
class Backward:
    """Read from the last token to the first: the reversed source of Sutskever et al. (arXiv:1409.3215)."""

    def sides(self, layer: int) -> Sides:
        return Sides(False, True)


@config
class BidirectionalLayers:
    """Read both ways and concatenate the outputs, in every layer (Schuster & Paliwal 1997)."""

    def sides(self, layer: int) -> Sides:
        return Sides(True, True)


@config
class FirstBidirectional:
    """Read both ways in the first layer, forward in the others: GNMT (Wu et al., arXiv:1609.08144, section 3.2)."""

    def sides(self, layer: int) -> Sides:
        return Sides(True, layer == 0)


Direction = Annotated[Forward | Backward | BidirectionalLayers | FirstBidirectional, OneOf()]

# ---- residuals and dropout --------------------------------------------------------------------------


@config
class NoShortcut:
    """No residual connections."""

    def applies(self, layer: int) -> bool:
        return False


@config
class Shortcut:
    """Residual connections: the output of a layer is added to its input."""

    first: PositiveInt = 3
    """First layer that has one, counted from 1; 3 in GNMT."""

    def applies(self, layer: int) -> bool:
        return layer + 1 >= self.first


LayerShortcut = Annotated[NoShortcut | Shortcut, OneOf()]


@config
class EachStep:
    """Draw dropout anew for each token (Zaremba et al., arXiv:1409.2329)."""

    def apply(self, x: Float[Tensor, "B T C"], rate: float) -> Float[Tensor, "B T C"]:
        return dropout(x, rate)


@config
class Variational:
    """Drop the same channels at every token of a row (Gal & Ghahramani, arXiv:1512.05287)."""

    def apply(self, x: Float[Tensor, "B T C"], rate: float) -> Float[Tensor, "B T C"]:
        return x * dropout(torch.ones_like(x[:, :1]), rate) if rate else x


DropoutMask = Annotated[EachStep | Variational, OneOf()]


class LayerDropout(nn.Module):
    """Dropout on the outputs of layers, while training."""

    def __init__(self, rate: float, mask: EachStep | Variational):
        super().__init__()
        self.rate, self.mask = rate, mask

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        return self.mask.apply(x, self.rate) if self.training else x


# ---- the stack --------------------------------------------------------------------------------------


@config
class RecurrentStackConfig(StackConfig):
    """Configuration of a stack of recurrent layers."""

    cell: RecurrentCell
    depth: PositiveInt
    """Number of layers."""
    hidden: PositiveInt | None = None
    """Channels H of a state, in each direction; None for the model's width D, or half of it where every layer reads
    both ways."""
    direction: Direction = Forward()
    shortcut: LayerShortcut = NoShortcut()
    """Residual connections."""
    dropout: DropoutRate = 0.0
    """Dropout on the output of each layer, never on its state."""
    dropout_mask: DropoutMask = EachStep()

    def channels(self, dim: int) -> int:
        """Return H.

        Raises:
            ConfigError: an odd width to be halved.
        """
        if self.hidden is not None:
            return self.hidden
        if not isinstance(self.direction, BidirectionalLayers):
            return dim
        if dim % 2:
            raise ConfigError(f"hidden: two directions cannot share an odd width {dim}: give the channels of each")
        return dim // 2

    def build(self, dim: int) -> "RecurrentStack":
        return RecurrentStack(self, dim)

    def build_tower(self, dim: int, inputs: object, init: Init) -> "RecurrentTower":
        """Build the tower of an encoder model that reads ``inputs``."""
        return RecurrentTower(self, dim, init)


class StackLayer(nn.Module):
    """Layer of a stack, in one direction or two."""

    def __init__(self, cfg: RecurrentStackConfig, number: int, inputs: int, hidden: int):
        super().__init__()
        sides = cfg.direction.sides(number)
        made = {name: RecurrentLayer(cfg.cell, inputs, hidden) for name, has in sides._asdict().items() if has}
        self.directions = nn.ModuleDict(made)
        self.outputs = sides.number * hidden
        self.dropout, self.adds = LayerDropout(cfg.dropout, cfg.dropout_mask), cfg.shortcut.applies(number)
        if self.adds and inputs != self.outputs:
            raise ConfigError(
                f"shortcut: layer {number + 1} reads {inputs} channels and gives {self.outputs}: begin with a later "
                "layer, or set hidden"
            )

    def forward(
        self, x: Float[Tensor, "B T K"], rows: TextRows | None, exact: bool = False
    ) -> tuple[Float[Tensor, "B T E"], Summary]:
        """Read whole texts; also return the state after each row's text, of both directions, if ``exact``."""
        sides = cast(dict[str, RecurrentLayer], self.directions)
        read = [
            read_texts(layer, x, rows, layer.empty(len(x)), exact=exact, reverse=name == "behind")
            for name, layer in sides.items()
        ]
        found = [layer.outputs(y) for layer, (y, _) in zip(sides.values(), read, strict=True)]
        y = self.dropout(found[0] if len(found) == 1 else torch.cat(found, dim=-1))
        return x + y if self.adds else y, tuple(part for _, state in read for part in state)


def read_texts(
    layer: RecurrentLayer,
    x: Float[Tensor, "B T K"],
    rows: TextRows | None,
    state: Summary,
    *,
    exact: bool,
    reverse: bool = False,
) -> tuple[Float[Tensor, "B T H"], Summary]:
    """Read the texts of a batch; return the outputs in its order and, if ``exact``, the state after each row."""
    if rows is None:
        y, after = layer.scan(x.flip(1) if reverse else x, state)
        return y.flip(1) if reverse else y, after
    if not rows.lengths:
        return x.new_zeros(*x.shape[:2], layer.hidden), state
    if rows.aligned and not (exact or reverse):  # what comes after a text does not change it
        return layer.scan(x, state)
    texts = rows.take(x, reverse=reverse)
    y, after = scan_rows(layer, texts, rows.lengths, rows.states_of(state), exact=exact)
    return rows.put_back(y, reverse=reverse), rows.put_states(after, state) if exact else after


class RecurrentStack(LayerStack):
    """Recurrent layers that read whole texts."""

    def __init__(self, cfg: RecurrentStackConfig, dim: int):
        super().__init__()
        self.cfg, hidden, inputs, blocks = cfg, cfg.channels(dim), dim, []
        for number in range(cfg.depth):
            blocks.append(StackLayer(cfg, number, inputs, hidden))
            inputs = blocks[-1].outputs
        self.blocks = cast(Sequence[StackLayer], nn.ModuleList(blocks))
        self.outputs = inputs
        """Width E of the outputs."""

    def forward(
        self, x: Float[Tensor, "B T D"], positions: Positions, exact: bool = False
    ) -> tuple[Float[Tensor, "B T E"], list[Summary]]:
        """Return the outputs and, if ``exact``, each layer's state after the text."""
        rows = TextRows.of(positions.pos.expand(len(x), -1), positions.keep, positions.segment)
        states = []
        for block in self.blocks:
            x, state = self.run_block(block, x, rows, exact)
            states.append(state)
        return x, states


class RecurrentTower(RecurrentStack):
    """Recurrent layers between the inputs and the head of an encoder model."""

    def __init__(self, cfg: RecurrentStackConfig, dim: int, init: Init):
        super().__init__(cfg, dim)
        self.out = nn.Identity() if self.outputs == dim else Linear(self.outputs, dim)
        initialize(self.out, init, dim)

    def read(self, x: Float[Tensor, "B T D"], positions: Positions) -> Float[Tensor, "B T D"]:
        return self.out(self(x, positions)[0])


def check_decoder(cfg: RecurrentStackConfig, dim: int) -> None:
    """Check that a stack fits a decoder of width ``dim``.

    Raises:
        ConfigError: it reads backward, or adds vectors of unequal width; the message opens with the field.
    """
    if not isinstance(cfg.direction, Forward):
        kind = kind_of(type(cfg.direction))
        raise ConfigError(f"direction: {kind}: a decoder must not see what it is to predict: use forward")
    if cfg.shortcut.applies(0) and (hidden := cfg.channels(dim)) != dim:
        raise ConfigError(
            f"shortcut: layer 1 reads {dim} channels and gives {hidden}: begin with a later layer, or set hidden"
        )
