"""Diverse beam search (Vijayakumar et al. 2016): each group of hypotheses avoids the tokens of the groups before it.

N sentences still being translated, W hypotheses of each (1 at the first step, then G x K), R = N x W rows, G groups of
K hypotheses, V vocabulary.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.config import config
from dragoman.decode.search.beam import Beam, BeamStrategy
from dragoman.decode.search.ranking import Best, best_continuations, log_partition
from dragoman.decode.search.strategy import Hypothesis
from dragoman.errors import ConfigError
from dragoman.text.tokens.tokenizer import EOS


@config
class DiverseBeam(Beam):
    """A beam in groups. A token costs ``strength`` for each hypothesis of earlier groups that has just chosen it.

    The cost affects that choice only; scores stay the model's own.
    """

    groups: int = 3
    """Number of groups, which divides ``size``; with 1, plain beam search."""
    strength: float = 0.5
    """Penalty in units of log-probability (lambda in the paper, which takes 0.2 to 0.8)."""
    size: int = 6
    nbest: int = 3

    def __post_init__(self) -> None:
        Beam.__post_init__(self)
        if self.groups < 1 or self.size % self.groups:
            raise ConfigError(f"groups: {self.groups} groups do not divide a beam of {self.size}")
        if not math.isfinite(self.strength):
            raise ConfigError(f"strength: a number is expected, got {self.strength}")

    def start(self, limits: Sequence[int], device: torch.device, seeds: Sequence[int] = ()) -> "DiverseStrategy":
        return DiverseStrategy(self, limits, device)


class DiverseStrategy(BeamStrategy):
    """Diverse beam search of one batch: groups choose one after the other."""

    cfg: DiverseBeam

    def __init__(self, cfg: DiverseBeam, limits: Sequence[int], device: torch.device):
        super().__init__(cfg, limits, device, groups=cfg.groups, each=cfg.size // cfg.groups)

    def propose(
        self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"], partition: Float[Tensor, "N W"] | None
    ) -> Best:
        own = log_partition(logits).view(self.total.shape) if partition is None else partition
        proposals = self.in_turn(ranked.unflatten(0, self.total.shape), own)
        return Best(*(torch.stack(fields, dim=1) for fields in zip(*proposals, strict=True)))

    def in_turn(self, ranked: Float[Tensor, "N W V"], own: Float[Tensor, "N W"]) -> list[Best]:
        """Return the best candidates of each group, which avoids the tokens that those before it have chosen."""
        chosen_before = torch.zeros(len(ranked), ranked.shape[2], device=ranked.device)  # (N, V): count of choices
        proposals = list[Best]()
        for rows in self.rows_of_groups():
            costs = self.cfg.strength * chosen_before[:, None]
            found = best_continuations(
                ranked[:, rows] - costs, self.total[:, rows], self.candidate_count, EOS, own[:, rows]
            )
            score = found.score + self.cfg.strength * chosen_before.gather(1, found.token)
            chosen = self.is_end(found.token).int().argsort(dim=1, stable=True)[:, : self.each]
            real = (found.score > -torch.inf).to(chosen_before.dtype).gather(1, chosen)
            chosen_before = chosen_before.scatter_add(1, found.token.gather(1, chosen), real)
            proposals.append(Best(score, rows[found.beam], found.token))
        return proposals

    def rows_of_groups(self) -> Int[Tensor, "D w"]:
        """Return the indices of each group's rows; at the first step there is only one row."""
        return self.first_rows() + torch.arange(min(self.each, self.total.shape[1]), device=self.total.device)

    @property
    def traced(self) -> int:
        return self.cfg.size

    def chosen(self, found: list[Hypothesis]) -> list[Hypothesis]:
        """Return the best of all groups; a hypothesis that two groups found counts once."""
        return list({h.tokens: h for h in reversed(found)}.values())[::-1][: self.cfg.nbest]
