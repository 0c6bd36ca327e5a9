"""Training: dropout in evaluation, a batch that cannot be learned, labels, learning rates."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Severity
from dragoman.inspect.doctor.observe import locate
from dragoman.inspect.doctor.subject import ExaminedModel

DATA = "(data)"
LOSS = "(loss)"
OPTIMIZER = "(optimizer)"
LEARNED = 0.05
"""Loss of a batch that a trained model knows already."""


class DropoutAlive(DoctorCheck[ExaminedModel]):
    """Outputs that are random in evaluation mode."""

    name = "dropout in evaluation"
    asks = "Are two passes in evaluation mode equal?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        torch.manual_seed(1)
        first, one = subject.answer(), subject.trace()
        torch.manual_seed(2)
        second, two = subject.answer(), subject.trace()
        found = subject.difference(first, second)
        if found > subject.tolerance:
            yield self.finding(
                Severity.error,
                "the model is random in evaluation mode",
                evidence=f"two passes over the same batch differ by {found:.1e} of the outputs' size",
                numbers={"difference": found},
                cause="F.dropout(x) without training=self.training, a probability given to PyTorch's attention "
                "function in evaluation, or noise that is always drawn",
                remedy="use nn.Dropout, or pass training=self.training",
                where=locate(one, two, lambda a, b: subject.differs(a, b)),
            )


# ---- one batch -------------------------------------------------------------------------------------


class LossFalls(DoctorCheck[ExaminedModel]):
    """Losses that do not fall when one batch is learned by heart."""

    name = "one batch"
    asks = "Does the loss fall when one batch is learned by heart?"
    steps = 30
    rates = (3e-3, 3e-2, 3e-4)

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        if not subject.has_loss:
            raise NotApplicable("no loss is known: pass labels in the batch, or --loss")
        best, first = float("inf"), float("nan")
        for rate in self.rates:
            first, last = self._learn(subject, rate)
            best = min(best, last)
            if _fell(first, best):
                return
        floor = _contradiction(subject)
        yield self.finding(
            Severity.error,
            "the loss does not fall on one batch",
            evidence=f"from {first:.3f} to {best:.3f} at best in {self.steps} steps of Adam, with the rates "
            f"{', '.join(f'{rate:g}' for rate in self.rates)}" + (f"; {floor}" if floor else ""),
            numbers={"first": first, "best": best},
            cause="labels that contradict each other or are shuffled, parameters that no gradient reaches, or a loss "
            "that does not depend on the outputs",
            remedy="look at one input beside its label; then at the findings about gradients",
            where=DATA if floor else LOSS,
        )

    def _learn(self, subject: ExaminedModel, rate: float) -> tuple[float, float]:
        with subject.trainable() as model, torch.enable_grad():
            parameters = [p for p in model.parameters() if p.requires_grad]
            if not parameters:
                raise NotApplicable("every parameter is frozen")
            optimizer, losses = torch.optim.Adam(parameters, lr=rate), []
            for _ in range(self.steps):
                optimizer.zero_grad()
                loss = subject.loss(model)
                losses.append(float(loss))
                if not loss.requires_grad:
                    return losses[0], losses[0]
                if _fell(losses[0], losses[-1]):
                    return losses[0], losses[-1]
                loss.backward()
                optimizer.step()
        return losses[0], min(losses)


def _fell(first: float, last: float) -> bool:
    """Return whether a loss fell by a fifth, or was so low that it need not."""
    return first - last > abs(first) / 5 or abs(first) < LEARNED


def _contradiction(subject: ExaminedModel) -> str | None:
    labels, value = subject.batch.answers, subject.batch.value
    if labels is None or subject.batch.batch_dim == 1 or len(labels) != len(value):
        return None
    for i in range(len(value)):
        for j in range(i):
            if torch.equal(value[i], value[j]) and not torch.equal(labels[i], labels[j]):
                return f"rows {j} and {i} have equal inputs and unlike labels"
    return None


class LabelsFit(DoctorCheck[ExaminedModel]):
    """Labels that are shifted wrongly, shuffled, or of other rows."""

    name = "labels"
    asks = "Does each label belong to its input?"
    compares = False

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        labels = subject.batch.answers
        if labels is None:
            raise NotApplicable("the batch has no labels")
        yield from self._steady(subject)
        contradiction = _contradiction(subject)
        if contradiction:
            yield self._found("equal inputs have unlike labels", contradiction, "labels were shuffled by themselves")
        yield from self._shifted(subject, labels)

    def _steady(self, subject: ExaminedModel) -> Iterator[Finding]:
        if subject.facts.batches is None or subject.given is None:
            return
        again = subject.facts.batches()
        first, second = _split(subject.given), _split(again)
        if len(first) != len(second) or len(first) < 2:
            return
        inputs = all(_same(a, b) for a, b in zip(first[:-1], second[:-1], strict=True))
        if inputs and not _same(first[-1], second[-1]):
            yield self._found(
                "labels change from batch to batch while inputs do not",
                "asked twice, the same inputs came with other labels",
                "labels are shuffled or drawn anew by themselves",
            )

    def _shifted(self, subject: ExaminedModel, labels: Tensor) -> Iterator[Finding]:
        batch = subject.batch
        value = batch.value
        if not batch.causal or not batch.is_ids or labels.shape != value.shape or batch.batch_dim == 1:
            return
        real = labels >= 0
        shifts_itself = batch.labels_name is not None and hasattr(subject.model, "config") and batch.source is None
        same = _share(labels, value, real)
        next_one = _share(labels[:, :-1], value[:, 1:], real[:, :-1])
        if same > 0.9 and not shifts_itself and batch.source is None:
            yield self._found(
                "each label is the token that the output has just read",
                f"{same:.0%} of the labels equal the input at the same position",
                "labels are not shifted: the model learns to copy",
                "let inputs be tokens[:, :-1] and labels tokens[:, 1:]",
            )
        elif next_one > 0.9 and shifts_itself:
            yield self._found(
                "labels are shifted twice",
                f"{next_one:.0%} of the labels equal the next input, and this model shifts labels itself",
                "models of transformers take labels that equal the inputs",
                "pass labels = input_ids",
            )
        elif next_one < 0.5 and len(value) > 1:
            yield from self._other_rows(labels, value, real)

    def _other_rows(self, labels: Tensor, value: Tensor, real: Tensor) -> Iterator[Finding]:
        shares = {
            move: _share(labels[:, :-1], value.roll(move, 0)[:, 1:], real[:, :-1]) for move in range(1, len(value))
        }
        rows = sum(
            any(
                _share(labels[i : i + 1, :-1], value[j : j + 1, 1:], real[i : i + 1, :-1]) > 0.9
                for j in range(len(value))
                if j != i
            )
            for i in range(len(value))
        )
        if max(shares.values()) > 0.9 or rows > len(value) / 2:
            yield self._found(
                "labels belong to other rows",
                f"{rows} of {len(value)} rows of labels are the next tokens of another row",
                "inputs and labels were shuffled apart",
            )

    def _found(self, title: str, evidence: str, cause: str, remedy: str | None = None) -> Finding:
        return self.finding(
            Severity.error,
            title,
            evidence=evidence,
            cause=cause,
            remedy=remedy or "shuffle inputs and labels with one permutation, and look at a few pairs",
            where=DATA,
        )


def _share(a: Tensor, b: Tensor, real: Tensor) -> float:
    return float((a == b)[real].float().mean()) if real.any() else 0.0


def _split(given: Any) -> list[Any]:
    if isinstance(given, Mapping):
        return list(given.values())
    return list(given) if isinstance(given, tuple | list) else [given]


def _same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape else a is b


# ---- rates -----------------------------------------------------------------------------------------


class LearningRates(DoctorCheck[ExaminedModel]):
    """Learning rates without a warm-up, and rates that never fall."""

    name = "learning rate"
    asks = "Does the learning rate begin low and end low?"
    compares = False

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        rates = self._rates(subject)
        peak = max(rates)
        if peak <= 0:
            yield self._found("the learning rate is zero", 0.0, 0.0, peak, "nothing is learned", "raise it")
            return
        first, last = rates[0] / peak, min(rates[-max(1, len(rates) // 10) :]) / peak
        if first > 0.5:
            yield self._found(
                "the learning rate has no warm-up",
                rates[0],
                rates[-1],
                peak,
                "the first steps of Adam follow single gradients at full rate; models with norms after the sum are "
                "thrown off by it",
                "raise the rate linearly over the first 1 to 10% of the steps",
            )
        if last > 0.9:
            yield self._found(
                "the learning rate never falls",
                rates[0],
                rates[-1],
                peak,
                "a constant rate, or a scheduler that is never stepped",
                "let it fall to zero or a tenth by a cosine or a line; step the scheduler after the optimizer",
            )

    def _found(self, title: str, first: float, last: float, peak: float, cause: str, remedy: str) -> Finding:
        return self.finding(
            Severity.warning,
            title,
            evidence=f"first {first:.2e}, highest {peak:.2e}, last {last:.2e}",
            numbers={"first": first, "peak": peak, "last": last},
            cause=cause,
            remedy=remedy,
            where=OPTIMIZER,
        )

    def _rates(self, subject: ExaminedModel) -> list[float]:
        facts = subject.facts
        if facts.rates:
            return [float(rate) for rate in facts.rates]
        if facts.optimizer is None:
            raise NotApplicable("no schedule is known: pass a run, a configuration, or --optimizer")
        return _followed(facts.optimizer, facts.scheduler, facts.steps)


def _followed(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int) -> list[float]:
    """Return the rate of each step of copies of an optimizer and its scheduler."""
    optimizer, scheduler = copy.deepcopy((optimizer, scheduler))
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = None
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(steps if scheduler is not None else 2):
            found.append(max(float(group["lr"]) for group in optimizer.param_groups))
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
    return found
