"""Depth: norms that are missing, and activations and gradients that grow or vanish from layer to layer."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dragoman.inspect.doctor.blocks import BlockCall, find_blocks, stream
from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Severity
from dragoman.inspect.doctor.observe import watch_modules
from dragoman.inspect.doctor.subject import ExaminedModel

FACTOR = 30.0
"""Factor by which a layer's input is made larger: what a norm reads does not grow with it."""

DEEP = 24
"""Layers up to which norms after the sum are usual: BERT large has so many."""


def rms(x: Tensor) -> float:
    """Return the root mean square."""
    return float(x.detach().float().square().mean().sqrt())


class MissingNorm(DoctorCheck[ExaminedModel]):
    """Layers that read the residual stream without a norm."""

    name = "missing norm"
    asks = "Does each layer add about as much to a stream that is 30 times as large?"

    @torch.no_grad()
    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        stacks = [calls for calls in find_blocks(subject) if calls[0].x.ndim == 3]
        if not stacks:
            raise NotApplicable("its layers do not hand on a vector for each position")
        for calls in stacks:
            grown = [(call, *_growth(call)) for call in calls]
            flagged = [(call, whole, branch) for call, whole, branch in grown if whole > 3 and branch > FACTOR / 3]
            if flagged:
                yield self._block(calls, flagged)
            elif all(whole > FACTOR / 3 for _, whole, _ in grown):
                yield from self._final(subject, calls)

    def _block(self, calls: list[BlockCall], flagged: list[tuple[BlockCall, float, float]]) -> Finding:
        call, _, branch = flagged[0]
        growth = (rms(calls[-1].y) / max(rms(calls[0].x), 1e-9)) ** (1 / len(calls))
        usual = Severity.warning if growth > 1 else Severity.note  # other means may hold activations
        return self.finding(
            Severity.error if growth > 2 and len(calls) > 3 else usual,
            "a layer reads the residual stream without a norm",
            evidence=f"{len(flagged)} of {len(calls)} layers add {branch:.0f} times as much to a stream {FACTOR:.0f} "
            f"times as large; activations grow by a factor of {growth:.2f} a layer",
            numbers={"layers": len(flagged), "branch": branch, "growth": growth},
            cause="the norm before attention or before the feed-forward is missing, or its result is not used",
            remedy="normalize what each sublayer reads (x + f(norm(x))), or the sum after it",
            where=_reader(call),
        )

    def _final(self, subject: ExaminedModel, calls: list[BlockCall]) -> Iterator[Finding]:
        last = calls[-1]

        def louder(module: object, arguments: object, result: object) -> object:
            return _scaled(result, stream(result, last.x))

        hook = last.module.register_forward_hook(louder)
        try:
            found = rms(subject.output()) / max(rms(subject.clean), 1e-9)
        finally:
            hook.remove()
        if found > FACTOR / 3:
            yield self.finding(
                Severity.warning,
                "no norm after the last layer",
                evidence=f"outputs grow {found:.0f} times with a residual stream that is {FACTOR:.0f} times as large",
                numbers={"outputs": found},
                cause="layers that normalize what they read leave a stream that grows with depth, and nothing "
                "normalizes it before the output",
                remedy="add a final norm before the output layer",
                where=last.name.rpartition(".")[0] or "(model)",
            )


def _scaled(result: object, wanted: Tensor) -> object:
    if result is wanted:
        return wanted * FACTOR
    if isinstance(result, tuple):
        return tuple(each * FACTOR if each is wanted else each for each in result)
    return result


def _growth(call: BlockCall) -> tuple[float, float]:
    """Return by what factor the output of a block grows with its input, and by what factor the part of the output that
    is not along the input does."""
    try:
        loud = call.replay(call.x * FACTOR)
    except NotApplicable:
        raise
    except Exception as error:
        raise NotApplicable(f"a layer cannot be run by itself ({type(error).__name__})") from None
    parts = [_across(y, x) for y, x in ((loud, call.x), (call.y, call.x))]
    return rms(loud) / max(rms(call.y), 1e-9), rms(parts[0]) / max(rms(parts[1]), 1e-9)


def _across(y: Tensor, x: Tensor) -> Tensor:
    """Return ``y`` without its component along ``x``, vector by vector."""
    x, y = x.double(), y.double()
    along = (y * x).sum(-1, keepdim=True) / x.square().sum(-1, keepdim=True).clamp(min=1e-12)
    return y - along * x


def _reader(call: BlockCall) -> str:
    """Return the part of a block that reads the stream without a norm."""
    with watch_modules(call.module) as quiet:
        call.replay(call.x)
    with watch_modules(call.module) as loud:
        call.replay(call.x * FACTOR)
    norms = ("norm", "ln", "dropout", "identity", "drop")
    for a, b in zip(quiet, loud, strict=False):
        if not a.entering or not a.name or not a.values or not b.values:
            continue
        kind = type(call.module.get_submodule(a.name)).__name__.lower()
        leaf = a.name.rpartition(".")[2].lower()
        if any(word in kind or word in leaf for word in norms):
            continue
        if a.values[0].shape == b.values[0].shape and rms(b.values[0]) > FACTOR / 3 * rms(a.values[0]):
            return f"{call.name}.{a.name.split('.')[0]}"
    return call.name


class DepthFlow(DoctorCheck[ExaminedModel]):
    """Activations and gradients from the first layer to the last."""

    name = "growth with depth"
    asks = "Do activations and gradients keep their size from layer to layer?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        for calls in find_blocks(subject):
            if len(calls) < 4:
                raise NotApplicable("it has fewer than four layers")
            sizes, gradients = self._flow(subject, calls)
            where = calls[0].name.rpartition(".")[0] or "(model)"
            yield from self._deep(calls, where)
            if len(sizes) < 4:
                continue
            growth = (sizes[-1] / max(sizes[0], 1e-12)) ** (1 / (len(sizes) - 1))
            if growth > 1.6 and sizes[-1] > 20 * sizes[0]:
                yield self._found(
                    f"activations grow by a factor of {growth:.2f} a layer", where, sizes, "activation", growth
                )
            ratio = gradients[0] / max(gradients[-1], 1e-30)
            if gradients[-1] > 0 and not 1e-2 < ratio < 1e2:
                word = "vanish" if ratio < 1 else "explode"
                yield self._found(f"gradients {word} towards the first layer", where, gradients, "gradient", ratio)

    @torch.no_grad()
    def _deep(self, calls: list[BlockCall], where: str) -> Iterator[Finding]:
        """Look for many layers that each normalize the sum of what they read and what they add."""
        if len(calls) <= DEEP or any(_growth(call)[0] > 3 for call in (calls[0], calls[-1])):
            return
        left = float(torch.cosine_similarity(calls[0].x.flatten(1).float(), calls[-1].y.flatten(1).float()).mean())
        yield self.finding(
            Severity.warning,
            "many layers with norms after the sum",
            evidence=f"each of {len(calls)} layers normalizes its output, so that none passes the stream on unchanged; "
            f"the cosine of the first layer's input and the last layer's output is {left:.2f}",
            numbers={"layers": len(calls), "cosine": left},
            cause="norms after the sum (Vaswani et al. 2017): gradients of all layers pass through every norm",
            remedy="normalize what each sublayer reads instead, scale the residual (DeepNorm), or warm up for long",
            where=where,
        )

    def _found(self, title: str, where: str, sizes: list[float], kind: str, ratio: float) -> Finding:
        return self.finding(
            Severity.warning,
            title,
            evidence=f"root mean square of the {kind} after the first of {len(sizes)} layers {sizes[0]:.2e}, after the "
            f"last {sizes[-1]:.2e}",
            numbers={"first": sizes[0], "last": sizes[-1], "ratio": ratio},
            cause="norms after the sum in a deep model, a missing norm, or initial weights that do not fit the depth",
            remedy="normalize before each sublayer, scale the residual (DeepNorm), or divide the initial weights of "
            "each sublayer's output by sqrt(2 x layers)",
            where=where,
        )

    def _flow(self, subject: ExaminedModel, calls: list[BlockCall]) -> tuple[list[float], list[float]]:
        """Return the size of each layer's output and of its gradient."""
        seen: dict[str, Tensor] = {}
        hooks = []
        for call in calls:

            def hook(module: object, arguments: object, result: object, call: BlockCall = call) -> None:
                seen[call.name] = stream(result, call.x)

            hooks.append(call.module.register_forward_hook(hook))
        try:
            with torch.enable_grad():
                loss = subject.loss(subject.model)
                outputs = [seen[call.name] for call in calls if call.name in seen and seen[call.name].requires_grad]
                found = torch.autograd.grad(loss, outputs, allow_unused=True) if outputs else ()
        finally:
            for each in hooks:
                each.remove()
        return [rms(y) for y in outputs], [0.0 if g is None else rms(g) for g in found]
