"""Two towers that agree on what belongs together: texts and images (CLIP), questions and answers.

B batch, E size of an embedding.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor, nn

from dragoman.config import at, config
from dragoman.errors import ConfigError
from dragoman.model.encoder import Encoder, EncoderConfig
from dragoman.model.heads import SentenceHead
from dragoman.model.positions.tokens import Frames, Tokens

LARGEST_SCALE = 100.0


@config
class TwoTowersConfig:
    first: EncoderConfig
    """Its head is ``sentence``."""
    second: EncoderConfig | None = None
    """None for the first with the same weights: texts with texts."""
    temperature: PositiveFloat = 0.07
    """What similarities are divided by at first; it is learned, down to 0.01 (Radford et al., arXiv:2103.00020)."""

    def sized(self, *, vocab: int | None = None, classes: int | None = None) -> "TwoTowersConfig":
        """With what only the data tell; None for what they do not. Both towers, where both read text, share one
        tokenizer."""
        second = self.second and self.second.sized(vocab=vocab)
        return TwoTowersConfig(first=self.first.sized(vocab=vocab), second=second, temperature=self.temperature)

    def build(self) -> "TwoTowers":
        """Raises ConfigError, naming the path, where sizes do not fit one another."""
        with at("model"):
            return TwoTowers(self)


class TwoTowers(nn.Module):
    def __init__(self, cfg: TwoTowersConfig):
        super().__init__()
        self.cfg = cfg
        sizes = [_size(name, tower) for name, tower in (("first", cfg.first), ("second", cfg.second)) if tower]
        if len({*sizes}) > 1:
            raise ConfigError(f"second.head: gives vectors of {sizes[1]}, the first tower of {sizes[0]}; set size")
        with at("first"):
            self.first = Encoder(cfg.first)
        if cfg.second:
            with at("second"):
                self.second = Encoder(cfg.second)
        else:
            self.second = self.first
        self.log_scale = nn.Parameter(torch.tensor(-math.log(cfg.temperature)))

    @property
    def max_length(self) -> int | None:
        """Longest text that both can take; None for no limit."""
        return min(filter(None, (self.first.max_length, self.second.max_length)), default=None)

    def forward(self, first: Tensor | Tokens | Frames, second: Tensor | Tokens | Frames) -> Float[Tensor, "B B2"]:
        """How similar each of ``first`` is to each of ``second``: logits."""
        return self.scale() * self.first(first) @ self.second(second).T

    def scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied by."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)


def contrastive_loss(similarity: Float[Tensor, "B B"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """To find the partner of each of the first among all of the second, and the other way round: half the sum of both
    cross-entropies, and the number of pairs. Pair i is row i and column i (CLIP's figure 3)."""
    pairs = torch.arange(len(similarity), device=similarity.device)
    there, back = (F.cross_entropy(logits, pairs, reduction="sum") for logits in (similarity, similarity.T))
    return (there + back) / 2, similarity.new_full((), len(similarity))


def _size(name: str, cfg: EncoderConfig) -> int:
    if not isinstance(cfg.head, SentenceHead) or not cfg.head.normalize:
        raise ConfigError(
            f"{name}.head: must be sentence, normalized, to give one vector that others are compared with"
        )
    return cfg.head.size or cfg.dim
