"""Interface of a mixer: the layer of a block through which the tokens of a text exchange information.

Attention is one (``attention.py``), a short convolution another (``short_convolution.py``), Mamba a third
(``mamba.py``). A further one is a new file with two classes, a ``MixerConfig`` and its ``MixerLayer``, and a name in
the union ``Mixer`` of ``tower.py``.
Training, search and ``dragoman verify`` know a mixer by this interface alone.

B batch, T length, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dragoman.model.caches.state import KVPolicy, LayerState, VisibleKeys
from dragoman.model.masks.visibility import VisibilityRule
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions


class MixerConfig(ABC):
    """Configuration of a mixer, as a tower uses it to build its blocks."""

    visibility: VisibilityRule
    """Rule for which tokens each token is computed from. While decoding, a tower tracks the positions of the tokens
    that later ones may still need. A mixer that summarizes the past needs only the token itself:
    ``Causal(window=1)``."""

    longest: int | None = None
    """Longest text in tokens; None for no limit."""

    @abstractmethod
    def build(self, dim: int) -> "MixerLayer":
        """Build the layer for vectors of width ``dim``.

        Raises:
            ConfigError: sizes that do not fit; the message opens with the field.
        """

    def build_position(self, dim: int) -> RelativeScheme:
        """Build the scheme of relative positions; the default has no effect."""
        return RelativeScheme()

    def position_key(self, dim: int) -> Hashable:
        """Return the key of the scheme: layers with equal keys share one. None: each layer has its own."""
        return "none"

    @property
    def needs_grid(self) -> bool:
        """True where tokens must have a row and a column, as the patches of an image have."""
        return False

    def check_decoder(self) -> None:
        """Check that this mixer fits a decoder, whose tokens must not see those they predict.

        Raises:
            ConfigError: this mixer sees later tokens; the message opens with the field.
        """
        return


class MixerLayer(nn.Module, ABC):
    """Mixer with its weights. It owns no state: its cache is passed in."""

    @staticmethod
    @abstractmethod
    def context(
        new: Positions, seen: VisibleKeys, scheme: RelativeScheme, real: Bool[Tensor, "B T"] | None, dtype: torch.dtype
    ) -> Any:
        """Compute what all layers of this class with the same visibility and positions share in one forward.

        Args:
            new: positions of the newest tokens.
            seen: positions of all visible tokens, the newest last, and the columns that later tokens may need.
            scheme: the scheme of relative positions.
            real: False on padding among the newest; None when nothing is padded.
            dtype: data type to compute positions in.
        """

    @abstractmethod
    def forward(self, x: Float[Tensor, "B T D"], context: Any, state: Any) -> Float[Tensor, "B T D"]:
        """Mix the newest tokens with each other and with those in ``state``, to which they are added."""

    @abstractmethod
    def new_state(self, policy: KVPolicy) -> LayerState:
        """Return an empty cache; where ``policy.remembers`` is False, one that stays empty."""

    @property
    def context_key(self) -> Hashable:
        """Return what decides, with visibility and positions, what ``context`` computes; the class by default."""
        return type(self)

    def visible(self, policy: KVPolicy) -> VisibilityRule:
        """Return the visibility while decoding with ``policy``: smaller where a cache of keys drops tokens sooner."""
        return self.visibility

    visibility: VisibilityRule
    """Visibility of the configuration."""
