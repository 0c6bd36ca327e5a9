"""Inputs of the checks of generating models: sources to translate, or prompts to continue, behind one interface.

B examples of a batch, S source length, P length of a prompt, T length of an answer, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.data.padding import padded
from dragoman.decode.prompt import PromptAfterImage
from dragoman.decode.search.ranking import log_prob_of
from dragoman.decode.search.rule import Rule, Rules
from dragoman.decode.search.search import SearchConfig, own_seeds, search, walk
from dragoman.decode.search.strategy import Hypothesis, LengthLimit
from dragoman.decode.search.teacher_forcing import padded_in_front, shifted, token_log_probs
from dragoman.model.caches.cache import DEFAULT, Cache
from dragoman.model.interface import SequenceModel, Tokens
from dragoman.text.tokens.tokenizer import EOS, PAD

IdRows = Sequence[Sequence[int]]
Forward = Callable[..., Tensor]
"""A model, or a compiled program of its forward pass."""
LONGEST = 32
"""Most tokens of a continuation, which may never end by itself."""
MOST = 2**16
"""Most tokens of any text, where neither model nor search has a limit."""


class VerifyInputs(ABC):
    """The ids of every example."""

    limit = LengthLimit()
    """Longest answer, unless another one is asked for."""

    def __init__(self, rows: IdRows, device: torch.device):
        self.rows, self.device = [list(row) for row in rows], device

    @abstractmethod
    def search(
        self,
        model: SequenceModel,
        rows: IdRows,
        cfg: SearchConfig,
        policy: Cache = DEFAULT,
        *,
        extra: int = 0,
        rules: Sequence[Rule] = (),
    ) -> list[list[Hypothesis]]:
        """Return the answers to a batch, with ``extra`` columns of padding added."""

    @abstractmethod
    def limits(self, model: SequenceModel, rows: IdRows, cfg: SearchConfig) -> list[int]:
        """Return the most tokens that each answer may have, its end included."""

    @abstractmethod
    def at_once(self, forward: Forward, rows: IdRows, target: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Return the logits of each token of ``target``, the answers to ``rows``, from one forward pass."""

    @abstractmethod
    def one_by_one(
        self, model: SequenceModel, rows: IdRows, target: Int[Tensor, "B T"], policy: Cache
    ) -> Float[Tensor, "B T V"]:
        """Return the same logits as ``at_once``, computed token by token with a cache."""

    @abstractmethod
    def log_probs(self, model: SequenceModel, rows: IdRows, targets: IdRows) -> list[tuple[float, ...]]:
        """Return the log-probability of each token of each answer, read in one forward pass."""


class TranslationInputs(VerifyInputs):
    """Texts to translate, each with its EOS."""

    def search(
        self,
        model: SequenceModel,
        rows: IdRows,
        cfg: SearchConfig,
        policy: Cache = DEFAULT,
        *,
        extra: int = 0,
        rules: Sequence[Rule] = (),
    ) -> list[list[Hypothesis]]:
        return search(model, F.pad(padded(rows, self.device), (0, extra), value=PAD), cfg, policy, rules)

    def limits(self, model: SequenceModel, rows: IdRows, cfg: SearchConfig) -> list[int]:
        return [min(cfg.limit.of(len(row)), model.max_length or MOST) for row in rows]

    def at_once(self, forward: Forward, rows: IdRows, target: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        return forward(shifted(target), padded(rows, self.device))

    def one_by_one(
        self, model: SequenceModel, rows: IdRows, target: Int[Tensor, "B T"], policy: Cache
    ) -> Float[Tensor, "B T V"]:
        state = model.start(padded(rows, self.device), policy)
        return torch.cat([model.decode(tokens, state) for tokens in shifted(target).split(1, dim=1)], dim=1)

    def log_probs(self, model: SequenceModel, rows: IdRows, targets: IdRows) -> list[tuple[float, ...]]:
        return token_log_probs(model, rows, targets)


class ContinuationInputs(VerifyInputs):
    """Texts to continue, from BOS on."""

    limit = LengthLimit(tokens=LONGEST)

    def source(self, rows: IdRows) -> Tensor | None:
        """Return what stands before the texts of a batch."""
        return None

    def search(
        self,
        model: SequenceModel,
        rows: IdRows,
        cfg: SearchConfig,
        policy: Cache = DEFAULT,
        *,
        extra: int = 0,
        rules: Sequence[Rule] = (),
    ) -> list[list[Hypothesis]]:
        prompt, limits = padded_in_front(rows, self.device, extra), self.limits(model, rows, cfg)
        Rules(rules).begin(limits)
        strategy = cfg.start(limits, self.device, own_seeds(prompt.ids))
        for _ in walk(model, self.source(rows), prompt, cfg, strategy, policy, rules):
            pass
        return strategy.results()

    def limits(self, model: SequenceModel, rows: IdRows, cfg: SearchConfig) -> list[int]:
        return [1 + min(cfg.limit.tokens, (model.max_length or MOST) - len(row)) for row in rows]

    def at_once(self, forward: Forward, rows: IdRows, target: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        prompt = padded_in_front(rows, self.device).ids
        ids = torch.cat([prompt, _unended(target)], dim=1)  # padded in front and behind
        return forward(Tokens(ids, ids != PAD), self.source(rows))[:, prompt.shape[1] - 1 :]

    def one_by_one(
        self, model: SequenceModel, rows: IdRows, target: Int[Tensor, "B T"], policy: Cache
    ) -> Float[Tensor, "B T V"]:
        state = model.start(self.source(rows), policy)
        logits = [model.decode(padded_in_front(rows, self.device), state)[:, -1:]]
        for ids in _unended(target).T[:, :, None]:
            logits.append(model.decode(Tokens(ids, ids != PAD), state))
        return torch.cat(logits, dim=1)

    def log_probs(self, model: SequenceModel, rows: IdRows, targets: IdRows) -> list[tuple[float, ...]]:
        found = []
        for row, target in zip(rows, targets, strict=True):
            ids = torch.tensor([target], device=self.device)
            values = log_prob_of(self.at_once(model, [row], ids)[0], ids[0])
            found.append(tuple(values.tolist()))
        return found


class ImageInputs(ContinuationInputs):
    """Texts to continue, from BOS on, each after an image."""

    def __init__(self, rows: Sequence[PromptAfterImage], device: torch.device):
        super().__init__((), device)
        self.rows = [*rows]

    def source(self, rows: IdRows) -> Tensor:
        return torch.stack([row.image for row in rows if isinstance(row, PromptAfterImage)]).to(self.device)


def _unended(target: Int[Tensor, "B T"]) -> Int[Tensor, "B T-1"]:
    """Return the tokens read under teacher forcing; EOS becomes PAD, because the model may have no position for it."""
    read = target[:, :-1]
    return read.masked_fill(read == EOS, PAD)
