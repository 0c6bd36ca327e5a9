"""Caches: answers token by token beside answers at once.

B rows, T positions.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Severity
from dragoman.inspect.doctor.observe import MODEL, name_of, watch_modules
from dragoman.inspect.doctor.subject import ExaminedModel, main_output
from dragoman.model.interface import SequenceModel
from dragoman.model.positions.tokens import Tokens

STATES = (
    "past_key_values",
    "cache_params",
    "cache",
    "kv_cache",
    "past",
    "layer_past",
    "hidden",
    "state",
    "states",
    "hx",
)
STEPS = 3
"""Tokens that are read one by one at the end."""


class CacheAgrees(DoctorCheck[ExaminedModel]):
    """Answers with a cache that differ from answers without."""

    name = "cache"
    asks = "Are outputs the same token by token, with a cache, as at once?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        if subject.batch.causal is not True:
            raise NotApplicable("it does not write")
        length = subject.need_positions()
        if length < 2 * STEPS:
            raise NotApplicable("the batch has too few positions")
        run = _runner(subject)
        with torch.no_grad():
            try:
                cached = run(subject, length)
            except NotApplicable:
                raise
            except Exception as error:
                line = (str(error).splitlines() or [""])[0][:80]
                raise NotApplicable(f"it could not be run in pieces ({type(error).__name__}: {line})") from None
        found = subject.difference(subject.clean, cached)
        if found <= subject.tolerance:
            return
        first = next(t for t in range(length) if subject.differs(subject.clean[:, t], cached[:, t]))
        yield self.finding(
            Severity.error,
            "outputs with a cache differ",
            evidence=f"after {length - STEPS} tokens at once and {STEPS} one by one, outputs differ by {found:.1e} of "
            f"their size, first at position {first}",
            numbers={"difference": found, "position": first},
            cause="positions start again at 0 in each piece, the mask is made for the new tokens alone, or keys are "
            "stored before or after the wrong step (rotation, norm)",
            remedy="count positions from the length of the cache, and let new queries see all cached keys",
            where=self._place(subject, run, length),
        )

    def _place(self, subject: ExaminedModel, run: Callable[..., Tensor], length: int) -> str:
        """Return the first module whose output for the last token differs with a cache."""
        with torch.no_grad(), watch_modules(subject.model) as pieces:
            run(subject, length)
        roots = [i for i, e in enumerate(pieces) if e.name == "" and e.entering]
        last = pieces[roots[-1] :] if roots else pieces
        whole = subject.trace()

        def symptom(a: Tensor, b: Tensor) -> bool:
            x = subject.at_positions(a)
            return x is not None and b.numel() == x[:, -1].numel() and subject.differs(x[:, -1].flatten(), b.flatten())

        return _aligned(whole, last, symptom)


def _aligned(whole: list, last: list, symptom: Callable[[Tensor, Tensor], bool]) -> str:
    later = {(e.name, e.entering): e for e in last}
    for event in whole:
        other = later.get((event.name, event.entering))
        if other is None or len(event.values) != len(other.values):
            continue
        if any(symptom(a, b) for a, b in zip(event.values, other.values, strict=True)):
            return name_of(event.caller if event.entering else event.name)
    return MODEL


def _runner(subject: ExaminedModel) -> Callable[[ExaminedModel, int], Tensor]:
    """Return what runs a model in pieces.

    Raises:
        NotApplicable: nothing tells how it keeps a state.
    """
    model = subject.model
    if isinstance(model, SequenceModel):
        return _ours
    parameters = inspect.signature(model.forward).parameters
    name = next((name for name in STATES if name in parameters), None)
    if name is None:
        raise NotApplicable(f"its forward takes no state (one of {', '.join(STATES[:4])}, ...)")
    if "use_cache" in parameters:
        return lambda subject, length: _transformers(subject, length, name)
    return lambda subject, length: _stranger(subject, length, name)


def _pieces(length: int) -> list[tuple[int, int]]:
    return [(0, length - STEPS), *((t, t + 1) for t in range(length - STEPS, length))]


def _ours(subject: ExaminedModel, length: int) -> Tensor:
    model: Any = subject.model
    arguments = subject.batch.arguments
    source = arguments.get("source")
    if source is not None and not source.is_floating_point():
        source = Tokens(source, arguments["source_keep"])
    elif source is not None and source.ndim == 3:
        raise NotApplicable("its source is of frames")
    state = model.start(source)
    return torch.cat([model.decode(subject.batch.value[:, a:b], state) for a, b in _pieces(length)], dim=1)


def _transformers(subject: ExaminedModel, length: int, name: str) -> Tensor:
    batch = subject.batch
    own = {mask.name for mask in batch.masks_of(batch.tokens)}
    keep = batch.keep_of(batch.tokens)
    padded = own if keep is not None and not keep.all() else set()  # a mask of nothing may be left out
    without = own | {batch.labels_name}
    arguments = {k: v for k, v in batch.arguments.items() if k not in without} | {"use_cache": True}
    found, state = [], None
    for start, stop in _pieces(length):
        given = arguments | {mask: batch.arguments[mask][:, :stop] for mask in padded}
        given |= {batch.tokens: batch.value[:, start:stop]} | ({} if state is None else {name: state})
        result = subject.model(**given)
        state = result.get(name)
        if state is None:
            raise NotApplicable(f"it returned no {name}")
        found.append(main_output(result, batch.with_tokens(batch.value[:, start:stop])))
    return torch.cat(found, dim=1)


def _stranger(subject: ExaminedModel, length: int, name: str) -> Tensor:
    """Run a model that returns (outputs, ..., state) and takes the state by name."""
    batch = subject.batch
    found, state = [], None
    for start, stop in _pieces(length):
        piece = batch.select_times(start, stop)
        named = dict(zip(_names(subject.model), piece.arguments.values(), strict=False))
        result = subject.model(**named | ({} if state is None else {name: state}))
        if not isinstance(result, tuple | list) or len(result) < 2:
            raise NotApplicable("it returns no state beside its outputs")
        state = result[-1]
        found.append(main_output(result, piece))
    return torch.cat(found, dim=1)


def _names(model: nn.Module) -> list[str]:
    return [name for name, p in inspect.signature(model.forward).parameters.items() if p.kind is not p.VAR_POSITIONAL]
