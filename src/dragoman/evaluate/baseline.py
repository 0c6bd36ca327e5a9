"""What a classifier has to beat: logistic regression on words and pairs of words, no order, no meaning.

N texts, F words and pairs, K labels.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from dragoman.text.labelled import LabelledText

STEPS = 100
"""Steps of L-BFGS at most; it converges in fewer."""


class BagOfWords:
    """Which words and neighbouring pairs of words a text holds -> label; L2 penalty 1, as is customary."""

    def __init__(self, train: Sequence[LabelledText], labels: Sequence[str]):
        self.labels = list(labels)
        bags = [_bag(example.text) for example in train]
        counts = Counter(feature for bag in bags for feature in bag)
        self.index = {feature: i for i, feature in enumerate(f for f, n in counts.items() if n > 1)}
        true = torch.tensor([self.labels.index(example.label) for example in train])
        self.weight = torch.zeros(len(self.index) + 1, len(self.labels), requires_grad=True)  # the last row: a bias
        known = self._indices(bags)
        optimizer = torch.optim.LBFGS([self.weight], max_iter=STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(self._logits(*known), true, reduction="sum") + self.weight[:-1].square().sum() / 2
            loss.backward()
            return loss

        optimizer.step(closure)  # pyright: ignore[reportArgumentType]
        self.weight.requires_grad_(False)

    def guess(self, texts: Sequence[str]) -> list[str]:
        logits = self._logits(*self._indices([_bag(text) for text in texts]))
        return [self.labels[i] for i in logits.argmax(dim=1).tolist()]

    def _indices(self, bags: Sequence[set[str]]) -> tuple[Tensor, Tensor]:
        """The features of all texts end to end, and where each text's begin."""
        rows = [[*sorted(self.index[f] for f in bag if f in self.index), len(self.index)] for bag in bags]
        starts = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)[:-1]
        return torch.tensor([i for row in rows for i in row]), starts

    def _logits(self, features: Tensor, starts: Tensor) -> Tensor:
        return F.embedding_bag(features, self.weight, starts, mode="sum")


def _bag(text: str) -> set[str]:
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    return {*words, *(" ".join(pair) for pair in pairwise(words))}
