"""Names and forms of weights: which of their tensors holds which of ours, and how.

A family is described by a table, theirs -> ours. ``{i}`` and ``{j}`` match a number, ``{leaf}`` weight or bias.
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
    """The form in which one of their tensors stores ours."""

    ours: tuple[str, ...]
    """Names of our tensors, stored one after the other along the first dimension."""
    transposed: bool = False
    """True where they store inputs x outputs, and we outputs x inputs."""
    shape: tuple[int, ...] | None = None
    """Their shape, where it has other dimensions; -1 for a size that follows from the rest."""


NameTable = dict[str, str | TensorForm]


@dataclass(frozen=True)
class TensorPair:
    """One of their tensors, with those of ours that it holds."""

    theirs: str
    ours: tuple[str, ...]
    form: TensorForm
    of_vocabulary: bool
    """True where it has a row for each entry of the vocabulary."""

    def shape(self, parameters: Mapping[str, Tensor], vocabulary: VocabularyMapping | None) -> tuple[int, ...]:
        """Return the shape that theirs must have for a model of ours with these ``parameters``."""
        shapes = [parameters[name].shape for name in self.ours]
        if not shapes[0]:  # a single number
            return self.form.shape or ()
        rows = sum(shape[0] for shape in shapes)
        if vocabulary is not None and self.of_vocabulary:
            rows = vocabulary.of(self.ours[0]).size
        full = (rows, *shapes[0][1:])
        if self.form.transposed:
            full = full[::-1]
        if self.form.shape is None:
            return full
        return tuple(torch.empty(full, device="meta").reshape(self.form.shape).shape)

    def read(
        self, theirs: Tensor, name: str, parameters: Mapping[str, Tensor], vocabulary: VocabularyMapping | None
    ) -> Tensor:
        """Return our tensor ``name``, which is one of ``ours``."""
        if self.form.transposed:
            theirs = theirs.T
        if self.of_vocabulary and vocabulary is not None:
            vocabulary = vocabulary.of(name)
            return vocabulary.read(theirs.reshape(vocabulary.size, *parameters[name].shape[1:]), name)
        start = 0
        for other in self.ours:
            if other == name:
                break
            start += parameters[other].shape[0]
        part = theirs if len(self.ours) == 1 else theirs[start : start + parameters[name].shape[0]]
        return part.reshape(parameters[name].shape)

    def write(self, ours: Sequence[Tensor], vocabulary: VocabularyMapping | None) -> Tensor:
        """Return their tensor from ``ours``, in the order of ``self.ours``."""
        joined = ours[0] if len(ours) == 1 else torch.cat(list(ours))
        if self.of_vocabulary and vocabulary is not None:
            joined = vocabulary.of(self.ours[0]).write(joined)
        joined = joined.T if self.form.transposed else joined
        return (joined if self.form.shape is None else joined.reshape(self.form.shape)).contiguous()


def pairs(
    model: nn.Module, table: NameTable, of_vocabulary: frozenset[str], zeros: str | None = None
) -> list[TensorPair]:
    """Return every tensor of theirs that ``model`` needs, in the order of its parameters.

    Our tensors in ``of_vocabulary`` have a row for each entry of the vocabulary; those whose names match ``zeros`` have
    none of theirs.
    """
    rows = [(theirs, form if isinstance(form, TensorForm) else TensorForm((form,))) for theirs, form in table.items()]
    patterns = [(_pattern(ours), theirs, form) for theirs, form in rows for ours in form.ours]
    found: dict[str, TensorPair] = {}
    for name, _ in model.named_parameters():
        if zeros is not None and re.fullmatch(zeros, name):
            continue
        for pattern, theirs, form in patterns:
            if matched := pattern.fullmatch(name):
                place = matched.groupdict()
                their_name = theirs.format(**place)
                names = tuple(ours.format(**place) for ours in form.ours)
                found.setdefault(their_name, TensorPair(their_name, names, form, names[0] in of_vocabulary))
                break
        else:
            raise KeyError(f"no row of the table matches {name}")
    return list(found.values())


def _pattern(name: str) -> re.Pattern[str]:
    text = re.escape(name)
    for placeholder, expression in _PLACEHOLDERS.items():
        text = text.replace(re.escape(placeholder), expression)
    return re.compile(text)
