"""Beam search with a coverage penalty: translations that leave parts of the source unattended score lower.

N sentences still being translated, W hypotheses of each (1 at the first step, then K), R = N x W rows, H heads,
S source length, V vocabulary.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.config import config
from dragoman.decode.search.attention_taps import attention_taps, recording_attention
from dragoman.decode.search.beam import Beam, BeamStrategy
from dragoman.decode.search.strategy import Choice, source_ids
from dragoman.errors import ConfigError
from dragoman.model.interface import SequenceModel
from dragoman.text.tokens.tokenizer import PAD


@config
class CoveringBeam(Beam):
    """A beam whose finished translations are scored with a coverage penalty (Wu et al. 2016, equations 14 and 15).

    The penalty is ``beta`` times the sum, over the source's tokens, of log(min(attention to it, 1)). Attention is the
    mean of all cross-attention heads, added up over the steps.
    """

    beta: float = 0.2

    def __post_init__(self) -> None:
        Beam.__post_init__(self)
        if not 0 <= self.beta < math.inf:
            raise ConfigError(f"beta: a coverage penalty is a number from 0 up, got {self.beta}")

    def start(self, limits: Sequence[int], device: torch.device, seeds: Sequence[int] = ()) -> "CoveringStrategy":
        return CoveringStrategy(self, limits, device)


class CoveringStrategy(BeamStrategy):
    """Beam search of one batch that adds up each hypothesis's attention to the source."""

    cfg: CoveringBeam
    ids: Tensor | None = None
    """(B, S): ids of the source; None for a source of frames, of which none is padding."""
    source: Tensor
    """(N, S): mask of the source as the decoder attends to it, False on padding."""
    attention: Tensor
    """(N, W, S): attention added up so far."""

    def forward_context(self, model: SequenceModel, source: Tensor | None) -> AbstractContextManager[object]:
        if source is None or not attention_taps(model):
            raise ConfigError("covering_beam: this model does not attend to a source: use beam")
        if self.steps == 0:
            self.ids = source_ids(source)
        self.recorded: list[Tensor] = []
        return recording_attention(attention_taps(model), self.recorded)

    def step(
        self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"], complete: Bool[Tensor, " R"] | None = None
    ) -> Choice | None:
        # A layer gives (N, H, W, S): the hypotheses of a sentence attend to its source in one call. At the first step W
        # is the length of the prompt, of which the last token leads to the first of the answer.
        mean = torch.stack([weights.float().mean(dim=1) for weights in self.recorded]).mean(dim=0)
        attention = mean[:, -self.total.shape[1] :]
        if self.steps == 0:
            self.source = torch.ones_like(mean[:, 0], dtype=torch.bool) if self.ids is None else self.ids != PAD
            self.attention = torch.zeros_like(attention)
        self.attention = self.attention + attention
        return super().step(logits, ranked, complete)

    def bonus(self, beam: Int[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        logs = self.attention.clamp(min=1e-9, max=1.0).log().masked_fill(~self.source[:, None], 0.0)
        return self.cfg.beta * logs.sum(dim=2).gather(1, beam)

    def follow(self, beam: Int[Tensor, "N K"]) -> None:
        self.attention = self.attention.gather(1, beam[:, :, None].expand(-1, -1, self.attention.shape[2]))

    def keep(self, sentences: Int[Tensor, " n"]) -> None:
        super().keep(sentences)
        self.source, self.attention = self.source[sentences], self.attention[sentences]
