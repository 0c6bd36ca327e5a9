"""Names and forms of weights: which of theirs holds which of ours, and how.

A family is described by a table, theirs -> ours. ``{i}`` and ``{j}`` stand for a number, ``{leaf}`` for weight or bias.
V their vocabulary size.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dragoman.interchange.vocabulary import VocabularyMapping

_PLACEHOLDERS = {"{i}": r"(?P<i>\d+)", "{j}": r"(?P<j>\d+)", "{leaf}": r"(?P<leaf>weight|bias)"}


@dataclass(frozen=True)
class TensorForm:
    """How one of their tensors holds ours."""

    ours: tuple[str, ...]
    """One on top of the other, along the first dimension."""
    transposed: bool = False
    """They store inputs x outputs, we outputs x inputs."""
    shape: tuple[int, ...] | None = None
    """Theirs, where it has other dimensions; -1 for what follows from the size."""


NameTable = dict[str, str | TensorForm]


@dataclass(frozen=True)
class TensorPair:
    """One of their tensors and those of ours that it holds."""

    theirs: str
    ours: tuple[str, ...]
    form: TensorForm
    of_vocabulary: bool
    """Whether it has a row for each entry of the vocabulary."""

    def shape(self, parameters: Mapping[str, Tensor], vocabulary: VocabularyMapping | None) -> tuple[int, ...]:
        """What theirs must have for a model of ours with these ``parameters``."""
        shapes = [parameters[name].shape for name in self.ours]
        rows = sum(shape[0] for shape in shapes)
        if vocabulary is not None and self.of_vocabulary:
            rows = vocabulary.size
        full = (rows, *shapes[0][1:])
        if self.form.transposed:
            full = full[::-1]
        if self.form.shape is None:
            return full
        return tuple(torch.empty(full, device="meta").reshape(self.form.shape).shape)

    def read(
        self, theirs: Tensor, name: str, parameters: Mapping[str, Tensor], vocabulary: VocabularyMapping | None
    ) -> Tensor:
        """Our tensor ``name``, which is one of ``ours``."""
        if self.form.transposed:
            theirs = theirs.T
        if self.of_vocabulary and vocabulary is not None:
            return vocabulary.read(theirs.reshape(vocabulary.size, *parameters[name].shape[1:]), name)
        start = 0
        for other in self.ours:
            if other == name:
                break
            start += parameters[other].shape[0]
        part = theirs if len(self.ours) == 1 else theirs[start : start + parameters[name].shape[0]]
        return part.reshape(parameters[name].shape)

    def write(self, ours: Sequence[Tensor], vocabulary: VocabularyMapping | None) -> Tensor:
        """Their tensor from ``ours``, in the order of ``self.ours``."""
        whole = ours[0] if len(ours) == 1 else torch.cat(list(ours))
        if self.of_vocabulary and vocabulary is not None:
            whole = vocabulary.write(whole)
        whole = whole.T if self.form.transposed else whole
        return (whole if self.form.shape is None else whole.reshape(self.form.shape)).contiguous()


def pairs(model: nn.Module, table: NameTable, of_vocabulary: frozenset[str]) -> list[TensorPair]:
    """Every tensor of theirs that the ``model`` needs, in the order of its parameters; of ours those in
    ``of_vocabulary`` have a row for each entry of it."""
    rows = [(theirs, form if isinstance(form, TensorForm) else TensorForm((form,))) for theirs, form in table.items()]
    patterns = [(_pattern(ours), theirs, form) for theirs, form in rows for ours in form.ours]
    found: dict[str, TensorPair] = {}
    for name, _ in model.named_parameters():
        for pattern, theirs, form in patterns:
            if matched := pattern.fullmatch(name):
                place = matched.groupdict()
                their_name = theirs.format(**place)
                names = tuple(ours.format(**place) for ours in form.ours)
                found.setdefault(their_name, TensorPair(their_name, names, form, names[0] in of_vocabulary))
                break
        else:
            raise KeyError(f"no row of the table stands for {name}")
    return list(found.values())


def _pattern(name: str) -> re.Pattern[str]:
    text = re.escape(name)
    for placeholder, expression in _PLACEHOLDERS.items():
        text = text.replace(re.escape(placeholder), expression)
    return re.compile(text)
