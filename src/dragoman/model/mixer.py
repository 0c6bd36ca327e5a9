"""What a mixer is: the part of a block through which the tokens of a text exchange information.

Attention is one (``attention.py``), a short convolution another (``short_convolution.py``). A further one is a new
file with two classes, a ``MixerConfig`` and its ``MixerLayer``, and a name in the union ``Mixer`` of ``tower.py``.
Everything else (training, search, ``dragoman verify``) knows a mixer by what stands here alone.

B batch, T length, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dragoman.model.caches.state import KVPolicy, LayerState, VisibleKeys
from dragoman.model.masks.visibility import Visibility
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions


class MixerConfig(ABC):
    """Configuration of a mixer: what a tower asks of it before and while it builds its blocks."""

    visibility: Visibility
    """Which tokens each token is computed from. While decoding, a tower keeps account of where those stand that tokens
    to come may still need. A mixer that sums up the past needs only the token itself: ``Causal(window=1)``."""

    @abstractmethod
    def build(self, dim: int) -> "MixerLayer":
        """Make the layer for vectors of width ``dim``.

        Raises:
            ConfigError: sizes that do not fit; the message opens with the field.
        """

    def build_position(self, dim: int) -> RelativeScheme:
        """Make the scheme of relative positions; as a rule there is none."""
        return RelativeScheme()

    def position_key(self, dim: int) -> Hashable:
        """Name the scheme: layers with equal keys share one. None: each layer has its own."""
        return "none"

    @property
    def needs_grid(self) -> bool:
        """True where tokens must have a row and a column, as the patches of an image have."""
        return False

    def check_decoder(self) -> None:
        """Refuse to stand in a decoder, whose tokens must not see what they are to predict.

        Raises:
            ConfigError: this mixer sees tokens that are still to come; the message opens with the field.
        """
        return


class MixerLayer(nn.Module, ABC):
    """A mixer with its weights. It owns no state: what it remembers while decoding is handed to it."""

    @staticmethod
    @abstractmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> Any:
        """Compute what all layers of this class with the same visibility and positions need to know of one forward.

        Args:
            new: where the newest tokens stand.
            seen: where all those stand that they may need, the newest at the end, and which may be needed later.
            scheme: of relative positions.
            real: False on padding among the newest; None when nothing is padded.
            dtype: what to compute positions in.
        """

    @abstractmethod
    def forward(self, x: Float[Tensor, "B T D"], context: Any, state: Any) -> Float[Tensor, "B T D"]:
        """Mix the newest tokens with each other and with what ``state`` remembers, which moves on."""

    @abstractmethod
    def new_state(self, policy: KVPolicy) -> LayerState:
        """Begin to remember, with nothing seen; where ``policy.remembers`` is False, nothing ever is."""

    def visible(self, policy: KVPolicy) -> Visibility:
        """Tell which tokens are seen while decoding with ``policy``: fewer, where a cache of keys forgets sooner."""
        return self.visibility

    visibility: Visibility
    """That of the configuration."""
