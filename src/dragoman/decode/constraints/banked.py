"""Beams in banks: required terms get their place where the model prefers it.

As in grid beam search (Hokamp & Liu 2017) and dynamic beam allocation (Post & Vilar 2018), hypotheses compete only with
those that contain as many terms, and those in the middle of a term have banks of their own. Each bank is a whole beam:
in a diverse beam it has all groups.

N sentences still being translated, W hypotheses of each, R = N x W rows, D groups of a diverse beam, G = banks x D
groups in all, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.decode.constraints.constrained import STAGES, TermRule
from dragoman.decode.search.beam import Beam, BeamStrategy
from dragoman.decode.search.coverage import CoveringBeam, CoveringStrategy
from dragoman.decode.search.diverse import DiverseBeam, DiverseStrategy
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.length_penalty import Gnmt
from dragoman.decode.search.ranking import Best, best_continuations, first_largest, log_partition
from dragoman.decode.search.search import SearchConfig, plain_search
from dragoman.text.tokens.tokenizer import EOS


def in_banks(cfg: SearchConfig, rule: TermRule) -> SearchConfig:
    """Return the search with its beam in banks; greedy search becomes a beam of one, and sampling stays as it is.

    The length penalty is milder than the default. With the log-probability divided by the full length, a long
    translation could make up for an unlikely term.
    """
    plain = plain_search(cfg)
    if isinstance(plain, Greedy):
        plain = Beam(size=1, limit=plain.limit)
    if not isinstance(plain, Beam):
        return cfg
    settings = {field.name: getattr(plain, field.name) for field in fields(plain)}
    return _BANKED[type(plain)](**settings | {"penalty": Gnmt(), "rule": rule})


@dataclass(frozen=True, kw_only=True)
class BankedBeam(Beam):
    """A beam of ``size`` in each bank of a rule; its sentences should require equally many terms."""

    rule: TermRule

    @property
    def banks(self) -> int:
        return STAGES * self.rule.count + 1

    def start(self, limits: Sequence[int], device: torch.device, seeds: Sequence[int] = ()) -> "BankedStrategy":
        return BankedStrategy(self, limits, device)


class BankedStrategy(BeamStrategy):
    """Beam search of one batch with a group for each bank."""

    def __init__(self, cfg: BankedBeam, limits: Sequence[int], device: torch.device, *, groups: int = 1):
        """
        Args:
            groups: number of groups of each bank.
        """
        BeamStrategy.__init__(self, cfg, limits, device, groups=cfg.banks * groups, each=cfg.size // groups)
        self.rule, self.banks = cfg.rule, cfg.banks
        self.ripe = torch.zeros(len(limits), dtype=torch.bool, device=device)  # (N,): the model would have ended it

    def propose(
        self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"], partition: Float[Tensor, "N W"] | None
    ) -> Best:
        shape = self.total.shape
        own = log_partition(logits).view(shape) if partition is None else partition
        # Of the best hypotheses of the banks between terms:
        ending = (first_largest(logits[:, EOS:]) == 0).view(shape)[:, :: STAGES * self.cfg.size]
        self.ripe = self.ripe | ending[:, : max(1, self.banks // STAGES)].any(dim=1)
        proposals = list[Best]()
        for bank in range(self.banks):
            here = ranked.masked_fill(self.rule.banks != bank, -torch.inf).unflatten(0, shape)
            proposals += self.of_bank(here, own)
        return Best(*(torch.stack(fields, dim=1) for fields in zip(*proposals, strict=True)))

    def of_bank(self, ranked: Float[Tensor, "N W V"], own: Float[Tensor, "N W"]) -> list[Best]:
        """Return the best candidates of each group of a bank, of which alone ``ranked`` has tokens."""
        return [best_continuations(ranked, self.total, self.candidate_count, EOS, own)]

    def best_unfinished(self) -> Float[Tensor, " N"]:
        """Return the best score of an unfinished hypothesis, as ``BeamStrategy`` does.

        Once the model would have ended the sentence, only hypotheses with all terms count.
        """
        complete = self.total[:, -self.cfg.size :].amax(dim=1)
        best = torch.where(self.ripe, complete, self.total.amax(dim=1))
        return best / self.divisors[self.length]

    def keep(self, sentences: Int[Tensor, " n"]) -> None:
        super().keep(sentences)
        self.ripe = self.ripe[sentences]


# ---- other beams ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BankedCoveringBeam(BankedBeam, CoveringBeam):
    """A covering beam in banks."""

    kind: Literal["covering_beam"] = "covering_beam"

    def start(self, limits: Sequence[int], device: torch.device, seeds: Sequence[int] = ()) -> "BankedCoveringStrategy":
        return BankedCoveringStrategy(self, limits, device)


class BankedCoveringStrategy(BankedStrategy, CoveringStrategy):
    """Search of one batch with a covering beam in banks."""


@dataclass(frozen=True, kw_only=True)
class BankedDiverseBeam(BankedBeam, DiverseBeam):
    """A diverse beam in banks: a group avoids what the groups before it chose in the same bank."""

    kind: Literal["diverse_beam"] = "diverse_beam"

    def start(self, limits: Sequence[int], device: torch.device, seeds: Sequence[int] = ()) -> "BankedDiverseStrategy":
        return BankedDiverseStrategy(self, limits, device)


class BankedDiverseStrategy(BankedStrategy, DiverseStrategy):
    """Search of one batch with a diverse beam in banks; the groups of a bank follow one another."""

    def __init__(self, cfg: BankedDiverseBeam, limits: Sequence[int], device: torch.device):
        super().__init__(cfg, limits, device, groups=cfg.groups)

    def of_bank(self, ranked: Float[Tensor, "N W V"], own: Float[Tensor, "N W"]) -> list[Best]:
        return self.in_turn(ranked, own)

    def rows_of_groups(self) -> Int[Tensor, "D w"]:
        rows = super().rows_of_groups()
        if self.total.shape[1] < self.beams:
            return rows[: self.cfg.groups]
        return rows.unflatten(0, (self.banks, self.cfg.groups)).transpose(0, 1).flatten(1)


_BANKED = {Beam: BankedBeam, CoveringBeam: BankedCoveringBeam, DiverseBeam: BankedDiverseBeam}
