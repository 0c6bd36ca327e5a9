"""Model under examination with its batch, and the measurements that several checks share.

B rows, T positions, S positions of the source.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dragoman.inspect.doctor.batch import IGNORED_LABEL, InputBatch
from dragoman.inspect.doctor.finding import NotApplicable
from dragoman.inspect.doctor.observe import EmbeddingLeaf, ModuleEvent, by_position, floats, tensors, watch_modules

LossFunction = Callable[[nn.Module, Any], Any]
"""Returns the loss of a model on a batch: a scalar, or a sum and a count."""
MOST_TRAINED = 20_000_000
"""Parameters up to which checks train the model, and put its weights back."""


@dataclass
class TrainingFacts:
    """Facts about the training beside the model; None where one is not known."""

    loss: LossFunction | None = None
    accumulate: Callable[[nn.Module, Sequence[Any]], None] | None = None
    """Accumulates the gradients of several micro-batches, as the training loop does before a step."""
    optimizer: torch.optim.Optimizer | None = None
    scheduler: Any = None
    rates: Sequence[float] | None = None
    """Learning rate of each step of a whole run, in order; or of some of them."""
    steps: int = 1000
    """Steps over which a scheduler is followed."""
    batches: Callable[[], Any] | None = None
    """Makes a batch; called twice to see whether labels stay with their inputs."""
    train: Sequence[Any] | None = None
    """Training examples, texts or rows of ids."""
    test: Sequence[Any] | None = None
    tokenizer: Any = None
    """Object with ``encode`` and ``decode``, or one for each side."""
    texts: Sequence[str] = ()
    """Texts for the round trip of the tokenizer."""


@dataclass
class ExaminedModel:
    """Model under examination. Every method leaves the model as it was."""

    model: nn.Module
    batch: InputBatch
    facts: TrainingFacts = field(default_factory=TrainingFacts)
    given: Any = None
    """Batch as the user gave it, for the user's own functions."""

    # ---- running ----

    def run(self, batch: InputBatch | None = None) -> Any:
        """Call the model in its present mode."""
        return (batch or self.batch).run(self.model)

    def output(self, batch: InputBatch | None = None) -> Tensor:
        """Return the main output for a batch, rows first: (B, T, ...) or (B, ...)."""
        batch = batch or self.batch
        return main_output(self.run(batch), batch)

    @torch.no_grad()
    def answer(self, batch: InputBatch | None = None) -> Tensor:
        """Return the main output without a graph."""
        return self.output(batch)

    @torch.no_grad()
    def trace(self, batch: InputBatch | None = None) -> list[ModuleEvent]:
        """Return what enters and leaves every module."""
        with watch_modules(self.model) as events:
            self.run(batch)
        return events

    @cached_property
    def clean(self) -> Tensor:
        """Main output for the batch as it is, in evaluation mode."""
        return self.answer()

    @property
    def answers_positions(self) -> bool:
        """True where there is an output for every position of the tokens."""
        return self.batch.length is not None and self.clean.shape[:2] == (self.batch.rows, self.batch.length)

    def need_positions(self) -> int:
        """Return the number of positions T.

        Raises:
            NotApplicable: there is not an output for every position.
        """
        if self.batch.length is None or not self.answers_positions:
            raise NotApplicable("the output has no positions")
        return self.batch.length

    # ---- comparing ----

    @property
    def tolerance(self) -> float:
        """Largest difference that rounding explains, relative to the size of the outputs."""
        dtype = self.clean.dtype
        return {torch.float64: 1e-9, torch.float32: 2e-4}.get(dtype, 6e-2)

    def difference(self, a: Tensor, b: Tensor) -> float:
        """Return the largest difference of two outputs, relative to their size; infinite where one is not finite."""
        if a.shape != b.shape:
            return float("inf")
        scale = float(a.float().square().mean().sqrt().clamp(min=1e-6)) if a.numel() else 1.0
        found = float((a.float() - b.float()).abs().max()) / scale if a.numel() else 0.0
        return found if found == found else float("inf")

    def differs(self, a: Tensor, b: Tensor) -> bool:
        """Return whether two outputs differ by more than rounding explains."""
        return self.difference(a, b) > self.tolerance

    def at_positions(self, x: Tensor) -> Tensor | None:
        """Return an inner tensor as (B, T, ...), or None; see ``by_position``."""
        return by_position(x, self.batch.rows, self.batch.length) if self.batch.length else None

    # ---- other inputs ----

    def other_tokens(self, name: str | None = None) -> Tensor:
        """Return tokens like those of the batch, with another one at every position."""
        value = self.batch.arguments[name or self.batch.tokens]
        if value.is_floating_point():
            return torch.randn_like(value) * value.std() + value.mean()
        pad = self.batch.pad
        ids = torch.unique(value if pad is None else value[value != pad])
        if len(ids) < 2:
            raise NotApplicable("the batch holds a single id")
        place = torch.searchsorted(ids, value).clamp(max=len(ids) - 1)
        return ids[(place + 1 + torch.arange(value.numel(), device=value.device).view_as(value) % 2) % len(ids)]

    # ---- gradients ----

    def influence(self, batch: InputBatch | None = None, name: str | None = None, row: int | None = None) -> Tensor:
        """Return how much each output depends on each input: norms of gradients, (T of outputs, B, T of inputs).

        The gradient is of a random projection of each position's output, of one row or of all rows, with respect to
        the embeddings of ``name``, by default of the tokens. An output without positions counts as one position.

        Raises:
            NotApplicable: the model cannot be differentiated with respect to its inputs.
        """
        batch = batch or self.batch
        name = name or batch.tokens
        leaf, output = self._from_leaf(batch, name)
        draw = torch.Generator().manual_seed(0)
        weight = torch.randn(output.shape[1:], generator=draw).to(output.device, output.dtype)
        if not self.answers_positions:
            output, weight = output[:, None], weight[None]
        chosen = output if row is None else output[row : row + 1]
        found = []
        for t in range(output.shape[1]):
            total = (chosen[:, t] * weight[t]).sum()
            (gradient,) = torch.autograd.grad(total, leaf, retain_graph=True, allow_unused=True)
            gradient = torch.zeros_like(leaf) if gradient is None else gradient
            by_row = gradient if batch.batch_dim == 0 or gradient.shape[0] == batch.rows else gradient.transpose(0, 1)
            found.append(by_row.flatten(2).double().norm(dim=2) if by_row.ndim > 2 else by_row.double().abs())
        return torch.stack(found).cpu()

    def _from_leaf(self, batch: InputBatch, name: str) -> tuple[Tensor, Tensor]:
        value = batch.arguments[name]
        with torch.enable_grad():
            if value.is_floating_point():
                leaf = value.detach().clone().requires_grad_()
                output = self.output(batch.with_tokens(leaf, name))
            else:
                with EmbeddingLeaf(value) as mode:
                    output = self.output(batch)
                leaf = mode.leaf
        if leaf is None or not output.requires_grad:
            raise NotApplicable("no gradient reaches its inputs")
        return leaf, output

    # ---- the loss ----

    def loss(self, model: nn.Module, batch: InputBatch | None = None) -> Tensor:
        """Return a loss of the model on the batch: the user's, the model's own, cross-entropy, or a stand-in.

        The stand-in is the squared distance to random numbers; it serves to follow gradients where nothing is known.
        """
        batch = batch or self.batch
        if self.facts.loss is not None and batch is self.batch:
            return mean_of(self.facts.loss(model, self.given if self.given is not None else batch.arguments))
        result = batch.run(model)
        own = own_loss(result)
        if own is not None:
            return own
        output = main_output(result, batch)
        labels = batch.labels
        if labels is not None and not labels.is_floating_point() and labels.ndim == output.ndim - 1:
            by_row = labels if batch.batch_dim == 0 or labels.ndim < 2 else labels.T
            if by_row.shape == output.shape[:-1]:
                return F.cross_entropy(output.flatten(0, -2).float(), by_row.flatten(), ignore_index=IGNORED_LABEL)
        return stand_in(result)

    @property
    def has_loss(self) -> bool:
        """True where the loss is a real one."""
        own = own_loss(self.run()) if self.facts.loss is None else 1
        labels = self.batch.labels
        known = labels is not None and not labels.is_floating_point() and labels.ndim == self.clean.ndim - 1
        return own is not None or known

    @contextmanager
    def trainable(self) -> Iterator[nn.Module]:
        """Give the model to be trained; afterwards its weights, buffers and gradients are what they were.

        A copy would not do: what a stranger hangs on a model by closures stays with the original.

        Raises:
            NotApplicable: the model is too large.
        """
        count = sum(p.numel() for p in self.model.parameters())
        if count > MOST_TRAINED:
            raise NotApplicable(f"it has {count / 1e6:.0f} million parameters, and this check trains it")
        state = [*self.model.parameters(), *self.model.buffers()]
        values, gradients = [t.detach().clone() for t in state], [t.grad for t in state]
        try:
            for tensor in state:
                tensor.grad = None
            yield self.model
        finally:
            with torch.no_grad():
                for tensor, value, gradient in zip(state, values, gradients, strict=True):
                    tensor.copy_(value)
                    tensor.grad = gradient


def main_output(result: Any, batch: InputBatch) -> Tensor:
    """Return the main tensor of what a model returned, rows first.

    Raises:
        NotApplicable: no tensor of real numbers with the rows of the batch.
    """
    for name in ("logits", "last_hidden_state", "prediction_logits", "output", "pooler_output"):
        found = result.get(name) if isinstance(result, dict) else getattr(result, name, None)
        if isinstance(found, Tensor) and found.ndim >= 2:
            return _rows_first(found, batch)
    if isinstance(result, dict) and "start_logits" in result:
        return torch.stack([result["start_logits"], result["end_logits"]], dim=-1)
    for each in floats(result):
        if each.ndim >= 2 and batch.rows in each.shape[:2]:
            return _rows_first(each, batch)
    for each in floats(result):
        if each.ndim >= 1 and each.shape[0] == batch.rows:
            return each[:, None]
    raise NotApplicable(
        f"the model returns {_shapes(result)}, no tensor with the rows of the batch: let it return its outputs, beside "
        "the loss if it returns one"
    )


def _shapes(result: Any) -> str:
    """Return what a model returned, in words."""
    shapes = [f"a tensor of shape {tuple(t.shape)}" if t.ndim else "a number" for t in tensors(result)]
    return " and ".join(shapes[:3]) or f"a {type(result).__name__}"


def _rows_first(x: Tensor, batch: InputBatch) -> Tensor:
    length = batch.length
    if batch.batch_dim == 1 and length is not None and x.shape[:2] == (length, batch.rows):
        return x.transpose(0, 1)
    return x


def own_loss(result: Any) -> Tensor | None:
    """Return the scalar among the outputs, which is the loss."""
    found = result.get("loss") if isinstance(result, dict) else getattr(result, "loss", None)
    if isinstance(found, Tensor):
        return found
    if isinstance(result, tuple | list):
        return next((t for t in floats(result) if t.ndim == 0 and t.requires_grad), None)
    return result if isinstance(result, Tensor) and result.ndim == 0 else None


def mean_of(loss: Any) -> Tensor:
    """Return a loss as one number: the scalar, or the sum divided by the count."""
    return loss[0] / loss[1] if isinstance(loss, tuple | list) else loss


def stand_in(result: Any) -> Tensor:
    """Return the mean squared distance of all outputs to random numbers that are always the same."""
    total = []
    for i, each in enumerate(floats(result)):
        if each.requires_grad:
            target = torch.randn(each.shape, generator=torch.Generator().manual_seed(i)).to(each.device, each.dtype)
            total.append((each - target).square().mean())
    if not total:
        raise NotApplicable("no output depends on a parameter")
    return torch.stack([t.float() for t in total]).sum()
