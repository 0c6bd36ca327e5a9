"""Beam search that counts what of the source has been looked at: translations that leave some of it out score lower.

N sentences still being translated, W hypotheses of each (1 at the first step, then K), R = N x W rows, H heads,
S source length, V vocabulary.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.config import config
from dragoman.decode.search.attention_taps import attention_taps, recording_attention
from dragoman.decode.search.beam import Beam, BeamStrategy
from dragoman.decode.search.strategy import Choice
from dragoman.errors import ConfigError
from dragoman.model.interface import SequenceModel
from dragoman.text.tokens.tokenizer import PAD


@config
class CoveringBeam(Beam):
    """A beam whose finished translations are scored with a coverage penalty (Wu et al. 2016, equations 14 and 15):
    ``beta`` times the sum, over the source's tokens, of log(min(attention paid to it, 1)). Attention is the mean of all
    heads across to the source, added up over the steps."""

    beta: float = 0.2

    def __post_init__(self) -> None:
        Beam.__post_init__(self)
        if self.beta < 0:
            raise ConfigError(f"beta: a coverage penalty must not be negative, got {self.beta}")

    def start(self, limits: Sequence[int], device: torch.device, seeds: Sequence[int] = ()) -> "CoveringStrategy":
        return CoveringStrategy(self, limits, device)


class CoveringStrategy(BeamStrategy):
    cfg: CoveringBeam
    source: Tensor
    """(N, S): False on padding."""
    paid: Tensor
    """(N, W, S): attention so far."""

    def watching(self, model: SequenceModel, source: Int[Tensor, "B S"] | None) -> AbstractContextManager[object]:
        if source is None or not attention_taps(model):
            raise ConfigError("covering_beam: this model does not attend to a source: use beam")
        if self.steps == 0:
            self.source, self.paid = source != PAD, source.new_zeros(len(source), 1, source.shape[1]).float()
        self.heard: list[Tensor] = []
        return recording_attention(attention_taps(model), self.heard)

    def step(self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"]) -> Choice | None:
        # The hypotheses of a sentence read its source side by side: (N, H, W, S) from each layer.
        mean = torch.stack([weights.float().mean(dim=1) for weights in self.heard]).mean(dim=0)
        self.paid = self.paid + mean.view(self.paid.shape)
        return super().step(logits, ranked)

    def bonus(self, beam: Int[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        logs = self.paid.clamp(min=1e-9, max=1.0).log().masked_fill(~self.source[:, None], 0.0)
        return self.cfg.beta * logs.sum(dim=2).gather(1, beam)

    def follow(self, beam: Int[Tensor, "N K"]) -> None:
        self.paid = self.paid.gather(1, beam[:, :, None].expand(-1, -1, self.paid.shape[2]))

    def keep(self, sentences: Int[Tensor, " n"]) -> None:
        super().keep(sentences)
        self.source, self.paid = self.source[sentences], self.paid[sentences]
