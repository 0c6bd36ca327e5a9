"""Two-tower models trained by contrast: texts and images (CLIP, SigLIP), questions and answers.

B batch, E size of an embedding.
"""

import dataclasses
import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor, nn

from dragoman.config import at, config
from dragoman.errors import ConfigError
from dragoman.model.encoder import Encoder, EncoderConfig
from dragoman.model.heads import AttentionPoolingHead, OneVector
from dragoman.model.positions.tokens import Frames, Tokens

MAX_SCALE = 100.0
SIGMOID_BIAS = -10.0
"""Initial bias of similarities: most pairs of a batch do not belong together (Zhai et al., arXiv:2303.15343, 3.2)."""


@config
class TwoTowersConfig:
    """Configuration of two encoders whose vectors are compared."""

    first: EncoderConfig
    """First tower, with a ``sentence`` head."""
    second: EncoderConfig | None = None
    """Second tower; None to use the first, with the same weights: texts with texts."""
    temperature: PositiveFloat = 0.07
    """Initial temperature that similarities are divided by; learned, down to 0.01 (Radford et al.,
    arXiv:2103.00020)."""
    objective: Literal["softmax", "sigmoid"] = "softmax"
    """Choose each partner among all of the batch (``softmax``), or judge each pair by itself (``sigmoid``; SigLIP, Zhai
    et al., arXiv:2303.15343): then a learned bias is added to similarities, and the temperature has no lowest value."""

    def sized(self, *, vocab: int | None = None, classes: int | None = None) -> "TwoTowersConfig":
        """Return a copy with the sizes that only the data give; None leaves one open. Two towers that both read text
        share one tokenizer."""
        second = self.second and self.second.sized(vocab=vocab)
        return dataclasses.replace(self, first=self.first.sized(vocab=vocab), second=second)

    def build(self) -> "TwoTowers":
        """Build the model with initial weights.

        Raises:
            ConfigError: sizes that do not fit one another; the message names the path.
        """
        with at("model"):
            return TwoTowers(self)


class TwoTowers(nn.Module):
    """Two encoders with a learned temperature."""

    def __init__(self, cfg: TwoTowersConfig):
        super().__init__()
        self.cfg = cfg
        sizes = [_size(name, tower) for name, tower in (("first", cfg.first), ("second", cfg.second)) if tower]
        if len({*sizes}) > 1:
            raise ConfigError(
                f"second.head: vectors of size {sizes[1]}, but the first tower's have size {sizes[0]}; set size"
            )
        with at("first"):
            self.first = Encoder(cfg.first)
        if cfg.second:
            with at("second"):
                self.second = Encoder(cfg.second)
        else:
            self.second = self.first
        self.log_scale = nn.Parameter(torch.tensor(-math.log(cfg.temperature)))
        if cfg.objective == "sigmoid":
            self.bias = nn.Parameter(torch.tensor(SIGMOID_BIAS))

    @property
    def max_length(self) -> int | None:
        """Longest text in tokens that both towers read; None for no limit."""
        return min(filter(None, (self.first.max_length, self.second.max_length)), default=None)

    def forward(self, first: Tensor | Tokens | Frames, second: Tensor | Tokens | Frames) -> Float[Tensor, "B B2"]:
        """Return the scaled similarity of each of ``first`` to each of ``second``: logits."""
        return self.similarity(self.first(first), self.second(second))

    def similarity(self, first: Float[Tensor, "B D"], second: Float[Tensor, "B2 D"]) -> Float[Tensor, "B B2"]:
        """Return the scaled similarity of vectors of one side to those of the other: logits."""
        similarity = self.scale() * first @ second.T
        return similarity + self.bias if self.cfg.objective == "sigmoid" else similarity

    def loss(self, similarity: Float[Tensor, "B B"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the summed loss of the model's objective on what ``similarity`` returned, and the number of pairs."""
        loss = sigmoid_loss if self.cfg.objective == "sigmoid" else contrastive_loss
        return loss(similarity)

    def scale(self) -> Float[Tensor, ""]:
        """Return the factor of similarities, 1 / temperature."""
        scale = self.log_scale.exp()
        return scale if self.cfg.objective == "sigmoid" else scale.clamp(max=MAX_SCALE)


def contrastive_loss(similarity: Float[Tensor, "B B"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return half the sum of two cross-entropies, over rows and over columns, and the number of pairs.

    They are those of finding each item's partner among all of the other side; pair i is row i and column i (CLIP's
    figure 3).
    """
    pairs = torch.arange(len(similarity), device=similarity.device)
    there, back = (F.cross_entropy(logits, pairs, reduction="sum") for logits in (similarity, similarity.T))
    return (there + back) / 2, similarity.new_full((), len(similarity))


def sigmoid_loss(similarity: Float[Tensor, "B B"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the negative log-probability of what is true of each pair, summed over all, and the number of rows.

    Item i belongs to item i of the other side and to no other (SigLIP, arXiv:2303.15343, equation 1).
    """
    sign = 2 * torch.eye(len(similarity), device=similarity.device) - 1
    return -F.logsigmoid(sign * similarity).sum(), similarity.new_full((), len(similarity))


def _size(name: str, cfg: EncoderConfig) -> int:
    if not isinstance(cfg.head, OneVector) or not cfg.head.normalize:
        raise ConfigError(
            f"{name}.head: must be a normalized sentence head, to return one vector that can be compared with others"
        )
    if isinstance(cfg.head, AttentionPoolingHead):
        return cfg.dim
    return cfg.head.size or cfg.head.pooling.vectors * cfg.dim
