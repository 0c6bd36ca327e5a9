"""Training: dropout in evaluation, a batch that cannot be learned, labels, micro-batches, learning rates."""

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dragoman.inspect.doctor.batch import IGNORED_LABEL, InputBatch
from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Severity
from dragoman.inspect.doctor.observe import locate
from dragoman.inspect.doctor.subject import Subject, mean_of

DATA = "(data)"
LOSS = "(loss)"
OPTIMIZER = "(optimizer)"


class DropoutAlive(DoctorCheck[Subject]):
    """Outputs that are random in evaluation mode."""

    name = "dropout in evaluation"
    asks = "Are two passes in evaluation mode equal?"

    def run(self, subject: Subject) -> Iterator[Finding]:
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


class LossFalls(DoctorCheck[Subject]):
    """Losses that do not fall when one batch is learned by heart."""

    name = "one batch"
    asks = "Does the loss fall when one batch is learned by heart?"
    steps = 30
    rates = (3e-3, 3e-2, 3e-4)

    def run(self, subject: Subject) -> Iterator[Finding]:
        if not subject.has_loss:
            raise NotApplicable("no loss is known: pass labels in the batch, or --loss")
        best, first = float("inf"), float("nan")
        for rate in self.rates:
            first, last = self._learn(subject, rate)
            best = min(best, last)
            if best < 0.8 * first:
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

    def _learn(self, subject: Subject, rate: float) -> tuple[float, float]:
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
                if losses[-1] < 0.8 * losses[0]:
                    return losses[0], losses[-1]
                loss.backward()
                optimizer.step()
        return losses[0], min(losses)


def _contradiction(subject: Subject) -> str | None:
    labels, value = _labels(subject.batch), subject.batch.value
    if labels is None or subject.batch.batch_dim == 1 or len(labels) != len(value):
        return None
    for i in range(len(value)):
        for j in range(i):
            if torch.equal(value[i], value[j]) and not torch.equal(labels[i], labels[j]):
                return f"rows {j} and {i} have equal inputs and unlike labels"
    return None


def _labels(batch: InputBatch) -> Tensor | None:
    return batch.labels if batch.labels is not None else batch.arguments.get(batch.labels_name or "")


class LabelsFit(DoctorCheck[Subject]):
    """Labels that are shifted wrongly, shuffled, or of other rows."""

    name = "labels"
    asks = "Does each label belong to its input?"

    def run(self, subject: Subject) -> Iterator[Finding]:
        labels = _labels(subject.batch)
        if labels is None:
            raise NotApplicable("the batch has no labels")
        yield from self._steady(subject)
        contradiction = _contradiction(subject)
        if contradiction:
            yield self._found("equal inputs have unlike labels", contradiction, "labels were shuffled by themselves")
        yield from self._shifted(subject, labels)

    def _steady(self, subject: Subject) -> Iterator[Finding]:
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

    def _shifted(self, subject: Subject, labels: Tensor) -> Iterator[Finding]:
        batch = subject.batch
        value = batch.value
        if not batch.causal or not batch.is_ids or labels.shape != value.shape or batch.batch_dim == 1:
            return
        real = labels >= 0
        shifts_itself = batch.labels_name is not None and hasattr(subject.model, "config")
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


# ---- micro-batches ---------------------------------------------------------------------------------


def as_given(batch: InputBatch, like: Any) -> Any:
    """Return a batch in the form that the user gave one in."""
    if isinstance(like, Tensor):
        return batch.value
    if isinstance(like, Mapping):
        return {name: batch.arguments.get(name, batch.labels) for name in like}
    if isinstance(like, tuple | list):
        parts = [*batch.arguments.values(), *([batch.labels] if batch.labels is not None else [])]
        return type(like)(parts)
    return batch


class MicroBatches(DoctorCheck[Subject]):
    """Losses that weigh tokens differently when a batch is divided, and losses that count padding."""

    name = "micro-batches"
    asks = "Is the gradient the same when a batch is learned in parts, and free of padding?"

    def run(self, subject: Subject) -> Iterator[Finding]:
        facts = subject.facts
        if facts.loss is None and facts.accumulate is None:
            raise NotApplicable("no loss of yours is known: pass --loss")
        if subject.batch.rows < 2:
            raise NotApplicable("the batch has a single row")
        if facts.loss is not None:
            yield from self._padding(subject)
        whole = _uneven(subject)
        parts = [whole.select_rows([0]), whole.select_rows(range(1, whole.rows))]
        given = subject.given
        if facts.accumulate is not None:
            yield from self._accumulated(subject, [as_given(b, given) for b in (whole, *parts)])
        elif facts.loss is not None:
            yield from self._means(subject, [as_given(b, given) for b in (whole, *parts)])

    def _accumulated(self, subject: Subject, batches: Sequence[Any]) -> Iterator[Finding]:
        assert subject.facts.accumulate is not None
        gradients = []
        for parts in (batches[:1], batches[1:]):
            with subject.trainable() as model, torch.enable_grad():
                model.zero_grad()
                subject.facts.accumulate(model, parts)
                gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        found = float((gradients[0] - gradients[1]).norm() / gradients[0].norm().clamp(min=1e-12))
        if found > 1e-3:
            yield self._wrong(
                f"in two parts of unlike size, the gradient differs by {found:.0%} from that of the whole batch", found
            )

    def _means(self, subject: Subject, batches: Sequence[Any]) -> Iterator[Finding]:
        assert subject.facts.loss is not None
        with torch.no_grad():
            found = [subject.facts.loss(subject.model, batch) for batch in batches]
        if isinstance(found[0], tuple | list):
            sums = [(float(s), float(n)) for s, n in found]
            total = sums[1][0] + sums[2][0], sums[1][1] + sums[2][1]
            if abs(total[0] - sums[0][0]) > 1e-3 * abs(sums[0][0]) or total[1] != sums[0][1]:
                yield self._wrong(
                    f"sums of parts are {total[0]:.4g} over {total[1]:.0f}, of the whole {sums[0][0]:.4g} over "
                    f"{sums[0][1]:.0f}",
                    abs(total[0] / sums[0][0] - 1),
                )
            return
        whole, *parts = map(float, found)
        off = abs(sum(parts) / len(parts) - whole) / max(abs(whole), 1e-12)
        if off > 1e-3:
            yield self.finding(
                Severity.note,
                "the loss is a mean, and means of parts are not the mean",
                evidence=f"{whole:.4f} for the whole batch, {sum(parts) / 2:.4f} as the mean of two parts",
                numbers={"whole": whole, "mean of parts": sum(parts) / 2},
                cause="a mean over the tokens of each part weighs tokens of short parts more",
                remedy="harmless without accumulation; with it, return the sum and divide once by all tokens",
                where=LOSS,
            )

    def _padding(self, subject: Subject) -> Iterator[Finding]:
        batch = subject.batch
        labels, pad = _labels(batch), batch.pad
        if labels is None or pad is None or batch.length is None or labels.shape != batch.value.shape:
            return
        assert subject.facts.loss is not None
        short = batch.length - batch.length // 2
        cut = batch.select_times(0, short)
        wide = _with_padding(batch, short, pad)
        with torch.no_grad():
            a, b = (mean_of(subject.facts.loss(subject.model, as_given(x, subject.given))) for x in (cut, wide))
        found = abs(float(a) - float(b)) / max(abs(float(a)), 1e-12)
        if found > 1e-3:
            yield self.finding(
                Severity.error,
                "the loss counts padding",
                evidence=f"{float(a):.4f} for rows of {short} tokens, {float(b):.4f} for the same rows with "
                f"{batch.length - short} columns of padding",
                numbers={"without": float(a), "with": float(b)},
                cause="padding is among the labels, or the mean is over all positions",
                remedy=f"pass ignore_index={pad} to the cross-entropy, and divide by the number of tokens",
                where=LOSS,
            )

    def _wrong(self, evidence: str, found: float) -> Finding:
        return self.finding(
            Severity.error,
            "the loss is averaged wrongly over micro-batches",
            evidence=evidence,
            numbers={"difference": found},
            cause="each part is divided by its own number of tokens, and the means are added or averaged",
            remedy="sum the losses of all parts, and divide once by the number of tokens in all of them",
            where=LOSS,
        )


def _uneven(subject: Subject) -> InputBatch:
    """Return the batch with rows of unlike length, where it can be padded."""
    batch = subject.batch
    if batch.pad is None or batch.length is None or batch.length < 4 or not batch.is_ids:
        return batch
    return _with_padding(batch, batch.length // 2, batch.pad, rows=range(1, batch.rows))


def _with_padding(batch: InputBatch, start: int, pad: int, rows: Sequence[int] | None = None) -> InputBatch:
    """Return the batch with padding from ``start`` on, in inputs and labels."""
    import dataclasses

    hidden = torch.zeros_like(batch.value, dtype=torch.bool)
    chosen = list(range(batch.rows) if rows is None else rows)
    if batch.batch_dim == 0:
        hidden[chosen, start:] = True
    else:
        hidden[start:, chosen] = True
    changed: dict[str, Any] = {batch.tokens: batch.value.masked_fill(hidden, pad)}
    for mask in batch.masks_of(batch.tokens):
        by_row = hidden if batch.batch_dim == 0 else hidden.T
        changed[mask.name] = (~by_row if mask.keeps else by_row).to(batch.arguments[mask.name].dtype)
    labels = batch.labels
    fill = IGNORED_LABEL if batch.labels_name is not None and batch.masks else pad
    if batch.labels_name is not None:
        changed[batch.labels_name] = batch.arguments[batch.labels_name].masked_fill(hidden, fill)
    elif labels is not None and labels.shape == hidden.shape:
        labels = labels.masked_fill(hidden, pad)
    return dataclasses.replace(batch.replace(**changed), labels=labels)


# ---- rates -----------------------------------------------------------------------------------------


class LearningRates(DoctorCheck[Subject]):
    """Learning rates without a warm-up, and rates that never fall."""

    name = "learning rate"
    asks = "Does the learning rate begin low and end low?"

    def run(self, subject: Subject) -> Iterator[Finding]:
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

    def _rates(self, subject: Subject) -> list[float]:
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


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that learn."""
    return [p for p in model.parameters() if p.requires_grad]
