"""A clean and a corrupt input of one model, and how much of the clean answer returns when a part is patched.

    from dragoman import inspect

    pair = inspect.Contrast.of(subject, "a red dog sleeps", "a red cat sleeps")
    pair.patch([inspect.Site("encoder.0.residual.after", positions=(2,))]).recovered     # 1 is all, 0 nothing
    pair.path(inspect.Site("encoder.0.mixer.heads", heads=(1,)), inspect.Site("decoder.1.cross.keys"))

The answer is that of the clean input. Its log-probability is measured in a run on the corrupt input, in which what
stands at some places is that of the clean run (activation patching, Vig et al. 2020, arXiv:2004.12265; Meng et al.
2022, arXiv:2202.05262).

B batch, here 1; T tokens; V vocabulary.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from dragoman.errors import ConfigError, DataError
from dragoman.inspect.interventions import Site, mixed
from dragoman.inspect.places import Place, find, places
from dragoman.inspect.subject import Inputs, Subject
from dragoman.inspect.trace import trace_inputs
from dragoman.model.heads import ClassificationHead, MaskedLanguageHead, TaggingHead

ADDED = (".mixer.output", ".cross.output", ".feed_forward.output")
"""Endings of the places at which a layer adds to the residual stream."""


_SUBLAYER = re.compile(r".*\.(mixer|cross|feed_forward)\.")
"""Beginning of the name of a place within a sublayer, whose own output follows from what is put there."""


@dataclass(frozen=True)
class MeasuredAnswer:
    """Tokens or classes whose log-probability is measured."""

    ids: Tensor
    """Token or class at each position, (n,)."""
    positions: Tensor | None = None
    """Positions of the output, (n,); None where the output is one row of classes."""
    spelling: tuple[str, ...] = ()

    def log_prob(self, output: Tensor) -> float:
        """Return the summed log-probability of the answer in an output (1, T, V) or (1, V)."""
        rows = output[0].double() if self.positions is None else output[0, self.positions].double()
        logs = rows.log_softmax(-1)
        return float(logs.reshape(-1, logs.shape[-1]).gather(1, self.ids.view(-1, 1)).sum())


@dataclass(frozen=True)
class Recovery:
    """Outcome of a patch."""

    log_prob: float
    """Log-probability of the clean answer, in nats."""
    recovered: float
    """Part of the difference between clean and corrupt that returned: 1 is all, 0 nothing."""


class Contrast:
    """A clean and a corrupt input, as the model reads them, with the answer that is measured."""

    def __init__(self, model: nn.Module, clean: Inputs, corrupt: Inputs, answer: MeasuredAnswer):
        """
        Raises:
            DataError: inputs of unlike length, or whose answers are equally likely.
        """
        self.model, self.clean, self.corrupt, self.answer = model, clean, corrupt, answer
        self.known = places(model)
        _check_lengths(clean, corrupt)
        self.clean_log_prob, self.corrupt_log_prob = (
            answer.log_prob(trace_inputs(model, given.arguments, ()).output) for given in (clean, corrupt)
        )
        if self.clean_log_prob == self.corrupt_log_prob:
            raise DataError("clean and corrupt: the answer is equally likely after both, so nothing can be recovered")

    @classmethod
    def of(cls, subject: Subject, clean: Any, corrupt: Any, answer: str | None = None) -> "Contrast":
        """Read two inputs by the model's own tokenizers.

        The answer of a translator is ``answer``, or its translation of the clean text; of a language model the text
        ``answer``, or the likeliest next token; of an encoder with classes the likeliest.

        Raises:
            DataError: an input that the model cannot read; inputs of unlike length.
            ConfigError: a model whose answer is no probability, such as one for vectors.
        """
        if subject.kind == "translator":
            first = subject.inputs(clean, answer)
            other = subject.inputs(corrupt, first.target_ids)
            ids = torch.tensor(first.target_ids, device=subject.device)
            return cls(subject.model, first, other, MeasuredAnswer(ids, torch.arange(len(ids)), first.targets))
        if subject.kind == "language model":
            return _of_language_model(cls, subject, clean, corrupt, answer)
        if answer is not None:
            raise ConfigError("answer: this model writes none: leave it out")
        return _of_encoder(cls, subject, clean, corrupt)

    @cached_property
    def _recorded(self) -> dict[tuple[str, bool], Tensor]:
        return {}

    def recorded(self, name: str, clean: bool) -> Tensor:
        """Return what stands at a place in the clean or the corrupt run."""
        if (name, clean) not in self._recorded:
            given = (self.clean if clean else self.corrupt).arguments
            self._recorded[name, clean] = trace_inputs(self.model, given, name).tensors[name]
        return self._recorded[name, clean]

    def record(self, names: Sequence[str]) -> None:
        """Record several places in one forward of each input."""
        for clean, given in ((True, self.clean), (False, self.corrupt)):
            seen = trace_inputs(self.model, given.arguments, names)
            self._recorded.update({(name, clean): tensor for name, tensor in seen.tensors.items()})

    def place(self, site: Site) -> Place:
        """Return the place of a site.

        Raises:
            ConfigError: a place that the model does not have, where the message names a near one; or several.
        """
        found = [self.known[site.place]] if site.place in self.known else find(self.known, site.place)
        if len(found) > 1:
            raise ConfigError(f"{site.place}: matches {len(found)} places: name one, such as {found[0].name}")
        return found[0]

    def patch(self, sites: Sequence[Site], *, clean: bool = True) -> Recovery:
        """Run the corrupt input with what the clean run has at ``sites``.

        Args:
            sites: at different places; what a later one does not cover follows from the earlier ones.
            clean: False puts back what stood there, which changes nothing.

        Raises:
            ConfigError: a place, head or position that the model does not have.
        """
        write: dict[str, Any] = {}
        for site in sites:
            place = self.place(site)
            base = write.get(site.place, self.recorded(site.place, False))
            write[site.place] = mixed(place, base, self.recorded(site.place, clean), site)
        return self._measured(write)

    def path(self, sender: Site, receiver: Site) -> Recovery:
        """Run the corrupt input with the direct effect of ``sender`` on ``receiver``, and no other effect, restored.

        Everything that layers add between the two is held at its corrupt value (path patching, Wang et al. 2022,
        arXiv:2211.00593, appendix B; Goldowsky-Dill et al. 2023, arXiv:2304.05969).

        Raises:
            ConfigError: a place that the model does not have, or a receiver that does not come after the sender.
        """
        start, end = self.place(sender), self.place(receiver)
        order = list(self.known)
        if order.index(end.name) <= order.index(start.name):
            raise ConfigError(f"{receiver}: comes before {sender} in the forward: name the earlier place first")
        patched = mixed(start, self.recorded(start.name, False), self.recorded(start.name, True), sender)
        write: dict[str, Any] = {name: self.recorded(name, False) for name in self._held(start.name, end.name)}
        seen = trace_inputs(self.model, self.corrupt.arguments, end.name, write | {start.name: patched})
        received = mixed(end, self.recorded(end.name, False), seen.tensors[end.name], receiver)
        return self._measured({end.name: received})

    def _held(self, start: str, end: str) -> list[str]:
        """Return the places between two, in the order of the forward, at which layers add to the residual stream."""
        order = list(self.known)
        between = order[order.index(start) + 1 : order.index(end)]
        own = _SUBLAYER.match(start)
        return [name for name in between if name.endswith(ADDED) and not (own and name.startswith(own[0]))]

    def _measured(self, write: dict[str, Any]) -> Recovery:
        value = self.answer.log_prob(trace_inputs(self.model, self.corrupt.arguments, (), write).output)
        whole = self.clean_log_prob - self.corrupt_log_prob
        return Recovery(value, (value - self.corrupt_log_prob) / whole)


def _check_lengths(clean: Inputs, corrupt: Inputs) -> None:
    for side in ("source_tokens", "tokens"):
        first, second = getattr(clean, side), getattr(corrupt, side)
        if len(first) != len(second):
            same = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(second))
            raise DataError(
                f"clean has {len(first)} tokens and corrupt {len(second)}, and they are aligned one by one (they part "
                f"at token {same}: {_near(first, same)} and {_near(second, same)}): replace words by others of as many "
                "tokens"
            )
    if all(_equal(*both) for both in zip(clean.arguments, corrupt.arguments, strict=True)):
        raise DataError("clean and corrupt: both are the same to the model: change a word in one")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):  # frames, or tokens with their types
        return all(_equal(*both) for both in zip(one, other, strict=True))
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def _near(tokens: Sequence[str], i: int) -> str:
    return repr("".join(tokens[i : i + 3])) if i < len(tokens) else "the end"


def _of_language_model(cls: type[Contrast], subject: Subject, clean: Any, corrupt: Any, answer: str | None) -> Contrast:
    first, other = subject.inputs(clean), subject.inputs(corrupt)
    _check_lengths(first, other)
    length = len(first.tokens)
    if answer is None:
        output = trace_inputs(subject.model, first.arguments, ()).output
        ids = output[0, -1:].argmax(-1)
        return cls(
            subject.model, first, other, MeasuredAnswer(ids, torch.tensor([length - 1]), subject.spell(ids.tolist()))
        )
    assert subject.tokenizer is not None
    wanted = subject.tokenizer.encode(answer)
    if not wanted:
        raise DataError("answer: has no tokens")
    longer, other = (subject.inputs(text, wanted) for text in (clean, corrupt))
    positions = torch.arange(length - 1, length - 1 + len(wanted))
    ids = torch.tensor(wanted, device=subject.device)
    return cls(subject.model, longer, other, MeasuredAnswer(ids, positions, subject.spell(wanted)))


def _of_encoder(cls: type[Contrast], subject: Subject, clean: Any, corrupt: Any) -> Contrast:
    first, other = subject.inputs(clean), subject.inputs(corrupt)
    _check_lengths(first, other)
    head = getattr(subject.model.cfg, "head", None)
    if not isinstance(head, ClassificationHead | TaggingHead | MaskedLanguageHead):
        raise ConfigError("this model answers with vectors, not probabilities: patch a model that writes or classifies")
    output = trace_inputs(subject.model, first.arguments, ()).output
    if output.dim() == 2:
        ids = output[0].argmax(-1, keepdim=True)
        return cls(subject.model, first, other, MeasuredAnswer(ids, None, tuple(f"class {i}" for i in ids.tolist())))
    ids = output[0].argmax(-1)
    return cls(
        subject.model,
        first,
        other,
        MeasuredAnswer(ids, torch.arange(len(ids)), tuple(f"class {i}" for i in ids.tolist())),
    )
