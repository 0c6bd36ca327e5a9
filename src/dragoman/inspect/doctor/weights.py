"""Weights: embeddings that should be tied, parameters that no gradient reaches, data types that do not fit."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Severity
from dragoman.inspect.doctor.observe import name_of
from dragoman.inspect.doctor.subject import ExaminedModel, stand_in

HALVES = (torch.bfloat16, torch.float16)
DECLARATIONS = (
    "tie_word_embeddings",
    "tie_weights",
    "tied",
    "tie_embeddings",
    "weight_tying",
    "tying",
    "share_weights",
)


class EmbeddingsTied(DoctorCheck[ExaminedModel]):
    """Embeddings and output layers that say they share a matrix, and do not."""

    name = "tied embeddings"
    asks = "Do embedding and output share one matrix where they say so?"
    compares = False

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        tables = [(n, m.weight) for n, m in subject.model.named_modules() if isinstance(m, nn.Embedding)]
        outputs = [(n, m.weight) for n, m in subject.model.named_modules() if isinstance(m, nn.Linear)]
        pairs = [(a, x, b, y) for a, x in tables for b, y in outputs if x.shape == y.shape and len(x) > 2]
        if not pairs:
            raise NotApplicable("it has no output layer of the shape of an embedding")
        if any(x.data_ptr() == y.data_ptr() and x is y for _, x, _, y in pairs):
            return
        said = _declaration(subject.model)
        for a, x, b, y in pairs:
            copied = x is not y and torch.equal(x, y)
            if said is None and not copied:
                continue
            yield self.finding(
                Severity.error,
                "embedding and output layer are not tied",
                evidence=f"{a} and {b} are two parameters of shape {tuple(x.shape)}"
                + (", equal now, and each will learn by itself" if copied else f", although {said}"),
                numbers={"rows": x.shape[0], "width": x.shape[1]},
                cause="the matrix was copied, or replaced after it was tied (by loading, by a new embedding, by .data)",
                remedy="let both be one parameter: output.weight = embedding.weight, after anything that replaces it",
                where=name_of(b),
            )
            return


def _declaration(model: nn.Module) -> str | None:
    """Return what says that embeddings are tied, or None."""
    for holder, name in ((model, "the model"), (getattr(model, "config", None), "its configuration")):
        for attribute in DECLARATIONS if holder is not None else ():
            value = getattr(holder, attribute, None)
            if value is True or value == "all" or value == "target":
                return f"{name} says {attribute} = {value}"
    value = getattr(getattr(model, "cfg", None), "tying", None)
    return f"its configuration says tying = {value}" if value in ("all", "target") else None


# ---- gradients -------------------------------------------------------------------------------------


class ParametersReached(DoctorCheck[ExaminedModel]):
    """Parameters that no gradient reaches."""

    name = "gradients"
    asks = "Does a gradient reach every parameter?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        named = {name: p for name, p in subject.model.named_parameters() if p.requires_grad and p.numel()}
        if not named:
            raise NotApplicable("every parameter is frozen")
        found = _gradients(subject, list(named.values()))
        missing = [name for name, g in zip(named, found, strict=True) if g is None]
        zero = [name for name, g in zip(named, found, strict=True) if g is not None and not g.any()]
        ran = {event.name for event in subject.trace() if event.entering}
        used = [name for name in missing if name.rpartition(".")[0] in ran and name.rpartition(".")[0]]
        if used:
            yield self._cut(used, len(named), ran)
        unused = [name for name in missing if name not in used]
        if unused:
            yield self._report(
                Severity.warning if not _experts(unused) else Severity.note,
                "parameters are never used",
                unused,
                len(named),
                "a layer that forward does not call, or an expert that no token was sent to",
                "call it, or remove it: an optimizer with weight decay still changes it",
            )
        if zero and not missing:
            yield self._report(
                Severity.note,
                "the gradient of some parameters is exactly zero",
                zero,
                len(named),
                "a matrix of zeros behind them, units that never fire, or rounding to whole numbers in between",
                "look at what stands between them and the loss",
            )

    def _cut(self, names: list[str], total: int, ran: set[str]) -> Finding:
        return self._report(
            Severity.error,
            "no gradient reaches parameters that are used",
            names,
            total,
            "detach(), .data, torch.no_grad(), item(), argmax or a new tensor between them and the loss",
            "remove what cuts the graph after this module",
        )

    def _report(self, severity: Severity, title: str, names: list[str], total: int, cause: str, remedy: str) -> Finding:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        return self.finding(
            severity,
            title,
            evidence=f"{len(names)} of {total} parameters: {shown}",
            numbers={"parameters": len(names), "of": total},
            cause=cause,
            remedy=remedy,
            where=name_of(names[-1].rpartition(".")[0]),
        )


def _experts(names: list[str]) -> bool:
    return all("expert" in name or "router" in name for name in names)


def _gradients(subject: ExaminedModel, parameters: list[nn.Parameter]) -> list[Tensor | None]:
    """Return gradients of the loss and of all outputs together."""
    with torch.enable_grad():
        try:
            total = stand_in(subject.run())
        except NotApplicable:
            return [None] * len(parameters)
        if subject.has_loss:
            loss = subject.loss(subject.model)
            total = total + loss if loss.requires_grad else total
        return list(torch.autograd.grad(total, parameters, allow_unused=True))


# ---- data types ------------------------------------------------------------------------------------


class DataTypes(DoctorCheck[ExaminedModel]):
    """Data types that lose precision or that do not mean what they seem to."""

    name = "data types"
    asks = "Are parameters of one type, angles in float32, and masks booleans?"
    compares = False

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        yield from self._mixed(subject)
        yield from self._angles(subject)
        yield from self._masks(subject)

    def _mixed(self, subject: ExaminedModel) -> Iterator[Finding]:
        types = Counter(p.dtype for p in subject.model.parameters() if p.is_floating_point())
        if len(types) < 2:
            return
        usual = types.most_common(1)[0][0]
        odd = [name for name, p in subject.model.named_parameters() if p.is_floating_point() and p.dtype != usual]
        double = torch.float64 in types
        yield self.finding(
            Severity.warning if double else Severity.note,
            "parameters are of several types",
            evidence=", ".join(f"{count} of {dtype}" for dtype, count in types.items()) + f"; for example {odd[0]}",
            numbers={str(dtype): count for dtype, count in types.items()},
            cause="a tensor from NumPy, which is float64" if double else "a part was kept in, or left in, another type",
            remedy="convert it with .float() when it is made" if double else "right for norms and routers; else .to()",
            where=name_of(odd[0].rpartition(".")[0]),
        )

    def _angles(self, subject: ExaminedModel) -> Iterator[Finding]:
        with torch.no_grad(), _AngleWatch(subject.model) as watch:
            subject.run()
        if watch.found is not None:
            yield self.finding(
                Severity.warning,
                "positions are computed in half precision",
                evidence=f"{watch.found[0]} of {watch.found[1]}: above 256, bfloat16 cannot tell neighbouring "
                "positions apart",
                numbers={"exact up to": 256.0 if watch.found[1] is torch.bfloat16 else 2048.0},
                cause="the whole model was converted, the frequencies of its positions too",
                remedy="compute positions, angles, sines and cosines in float32, and convert the result",
                where=name_of(watch.where),
            )

    def _masks(self, subject: ExaminedModel) -> Iterator[Finding]:
        for mask in subject.batch.masks:
            value = subject.batch.arguments.get(mask.name)
            if not isinstance(value, Tensor) or not value.is_floating_point() or mask.keeps:
                continue
            if set(value.unique().tolist()) <= {0.0, 1.0}:
                yield self.finding(
                    Severity.warning,
                    "a padding mask is of real numbers",
                    evidence=f"{mask.name} is {value.dtype} and holds nothing but 0 and 1",
                    numbers={"largest": float(value.max())},
                    cause="PyTorch's modules add a mask of real numbers to the scores: 1 hides nothing",
                    remedy="pass booleans: mask.bool()",
                    where="(data)",
                )


class _AngleWatch(TorchFunctionMode):
    """Finds sines, cosines and counted positions in half precision."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.found, self.where = model, None, ""
        self.running: list[str] = []
        self.hooks: list[Any] = []

    def __enter__(self) -> "_AngleWatch":
        for path, module in self.model.named_modules():
            self.hooks.append(module.register_forward_pre_hook(lambda *_, path=path: self.running.append(path)))
            self.hooks.append(module.register_forward_hook(lambda *_: self.running.pop() and None))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self.hooks:
            hook.remove()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        angle = name in ("sin", "cos", "arange", "sin_", "cos_") and isinstance(result, Tensor)
        if angle and result.dtype in HALVES and self.found is None:
            self.found, self.where = (name, result.dtype), self.running[-1] if self.running else ""
        return result
