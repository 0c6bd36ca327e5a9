"""Baselines of classifiers: logistic regression on words and pairs of words, or on the numbers of an array.

N examples, F features, K labels.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dragoman.text.words import WORD_OR_SIGN

STEPS = 100
"""Most steps of L-BFGS; it converges in fewer."""


class LogisticRegression(ABC):
    """Logistic regression from features to a label of ``labels``, with the customary L2 penalty of 1."""

    name: str
    weight: Tensor
    """Weights (F + 1, K); the last row is a bias."""

    def __init__(self, labels: Sequence[str]):
        self.labels = list(labels)

    def fit(self, features: Any, true: Sequence[str], width: int) -> None:
        index = {label: i for i, label in enumerate(self.labels)}
        goal = torch.tensor([index[label] for label in true])
        self.weight = torch.zeros(width + 1, len(self.labels), requires_grad=True)
        optimizer = torch.optim.LBFGS([self.weight], max_iter=STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            summed = F.cross_entropy(self.logits(features), goal, reduction="sum")
            loss = summed + self.weight[:-1].square().sum() / 2
            loss.backward()
            return loss

        optimizer.step(closure)  # pyright: ignore[reportArgumentType]
        self.weight.requires_grad_(False)

    def guess(self, given: Sequence[Any]) -> list[str]:
        return [self.labels[i] for i in self.logits(self.features(given)).argmax(dim=1).tolist()]

    @abstractmethod
    def features(self, given: Sequence[Any]) -> Any:
        """Return the features of examples, as ``logits`` takes them."""

    @abstractmethod
    def logits(self, features: Any) -> Tensor: ...


class BagOfWords(LogisticRegression):
    """Features of texts: which words and pairs of neighbouring words they contain."""

    name = "bag of words"

    def __init__(self, texts: Sequence[str], true: Sequence[str], labels: Sequence[str]):
        super().__init__(labels)
        counts = Counter(feature for text in texts for feature in _bag(text))
        self.index = {feature: i for i, feature in enumerate(f for f, n in counts.items() if n > 1)}
        self.fit(self.features(texts), true, len(self.index))

    def features(self, given: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the features of all texts end to end, and where each text's begin."""
        bags = map(_bag, given)
        rows = [[*sorted(self.index[f] for f in bag if f in self.index), len(self.index)] for bag in bags]
        starts = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)[:-1]
        return torch.tensor([i for row in rows for i in row]), starts

    def logits(self, features: tuple[Tensor, Tensor]) -> Tensor:
        return F.embedding_bag(features[0], self.weight, features[1], mode="sum")


def _bag(text: str) -> set[str]:
    words = WORD_OR_SIGN.findall(text.lower())
    return {*words, *(" ".join(pair) for pair in pairwise(words))}


class ArrayFeatures(LogisticRegression):
    """Features of arrays of one shape: their numbers, scaled to mean 0 and deviation 1.

    Sequences of frames are first reduced to their mean and deviation over time.
    """

    def __init__(self, arrays: Sequence[np.ndarray], true: Sequence[str], labels: Sequence[str], *, over_time: bool):
        super().__init__(labels)
        self.over_time = over_time
        self.name = "logistic regression on means over time" if over_time else "logistic regression on pixels"
        plain = self._plain(arrays)
        self.mean, self.deviation = plain.mean(axis=0), plain.std(axis=0) + 1e-3
        self.fit(self.features(arrays), true, plain.shape[1])

    def _plain(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        if self.over_time:
            arrays = [np.concatenate([array.mean(axis=0), array.std(axis=0)]) for array in arrays]
        return np.stack([np.ravel(array) for array in arrays]).astype(np.float32)

    def features(self, given: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy((self._plain(given) - self.mean) / self.deviation)

    def logits(self, features: Tensor) -> Tensor:
        return features @ self.weight[:-1] + self.weight[-1]
