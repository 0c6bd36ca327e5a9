"""Greedy search: always the likeliest token.

B sentences of a batch, N of them still being translated, V vocabulary.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.config import config
from dragoman.decode.ranking import first_largest, log_partition
from dragoman.decode.strategy import Choice, Hypothesis, LengthLimit, Strategy, not_numbers
from dragoman.text.tokenizer import EOS


@config
class Greedy:
    """The likeliest token at each step, the lower id of equals. The score is the mean log-probability of a token."""

    limit: LengthLimit = LengthLimit()

    @property
    def size(self) -> int:
        return 1

    def score(self, log_prob: float, length: int) -> float:
        return log_prob / length

    def start(self, limits: Sequence[int], device: torch.device) -> "GreedyStrategy":
        return GreedyStrategy(self, limits, device)


class GreedyStrategy(Strategy):
    """One hypothesis a sentence. Whoever picks tokens in another way overrides ``pick``."""

    def __init__(self, cfg: Greedy, limits: Sequence[int], device: torch.device):
        self.cfg = cfg
        self.length, self.earliest = 0, min(limits)
        self.limit = torch.tensor(limits, device=device)  # (N,)
        self.sentence = torch.arange(len(limits), device=device)  # (N,): its row in the batch
        self.said: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # of each step: sentence, token, log_prob, cut

    def pick(self, ranked: Float[Tensor, "N V"]) -> Int[Tensor, " N"]:
        return first_largest(ranked[:, EOS:]) + EOS  # padding and begin-of-sentence lie below EOS

    def step(self, logits: Float[Tensor, "N V"], ranked: Float[Tensor, "N V"]) -> Choice | None:
        self.length += 1
        wanted = token = self.pick(ranked)
        if self.length >= self.earliest:
            token = wanted.masked_fill(self.limit <= self.length, EOS)
        log_prob = logits.gather(1, token[:, None])[:, 0].float() - log_partition(logits)
        self.said.append((self.sentence, token, log_prob, token != wanted))

        over = token == EOS
        left = int((~over).sum())  # the one wait for the device
        if left == 0:
            return None
        if left == len(over):
            return Choice(None, None, token)
        keep = over.int().argsort(stable=True)[:left]
        self.sentence, self.limit = self.sentence[keep], self.limit[keep]
        return Choice(keep, None, token[keep])

    def results(self) -> list[list[Hypothesis]]:
        sentence, token, log_prob, cut = (torch.cat(parts).cpu() for parts in zip(*self.said, strict=True))
        if not log_prob.isfinite().all():
            raise not_numbers()
        order = sentence.argsort(stable=True)  # by sentence, then by step
        ends = sentence.bincount().cumsum(0).tolist()
        token, log_prob, cut = token[order].tolist(), log_prob[order].tolist(), cut[order].tolist()
        return [
            [self.hypothesis(token[start:end], log_prob[start:end], cut[end - 1])]
            for start, end in zip([0, *ends], ends, strict=False)
        ]

    def hypothesis(self, tokens: list[int], log_probs: list[float], cut: bool) -> Hypothesis:
        total = sum(log_probs)
        return Hypothesis(tuple(tokens), tuple(log_probs), total, self.cfg.score(total, len(tokens)), cut)
