"""Interventions: what is put at a place of a model in the middle of a forward.

    from dragoman import inspect

    site = inspect.Site.parse("decoder.1.mixer.heads:3")             # head 3, at all positions
    write = inspect.ablation([site])                                 # zeros
    write = inspect.ablation([site], inspect.mean_values(subject, texts, [site.place]))
    write = inspect.steering("decoder.1.residual.after", direction, 4.0)
    inspect.trace(subject, text, read=(), write=write)

Each returns what ``trace`` and ``watching`` take as ``write``.

B batch, T tokens, H heads, C channels of one head, D width.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dragoman.errors import ConfigError, DataError
from dragoman.inspect.places import Place, find, places
from dragoman.inspect.subject import Subject
from dragoman.inspect.trace import trace_inputs

Change = Callable[[Tensor], Tensor]
"""Function from what stands at a place to what is to stand there."""


@dataclass(frozen=True)
class Site:
    """A place, or some heads and some positions of it."""

    place: str
    """Name of the place."""
    heads: tuple[int, ...] | None = None
    """Heads, counted from 0; None for all, and where there are none."""
    positions: tuple[int, ...] | None = None
    """Tokens, counted from 0; None for all."""

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Read ``decoder.1.mixer.heads:0,3@5``: a place, after a colon its heads, after an @ its positions.

        Raises:
            ConfigError: another form.
        """
        found = re.fullmatch(r"([^:@\s]+)(?::(\d+(?:,\d+)*))?(?:@(\d+(?:,\d+)*))?", text)
        if not found:
            raise ConfigError(f"{text}: not a place: write for example decoder.1.mixer.heads:3, or encoder.0.output@5")
        place, heads, positions = found.groups()
        return cls(place, _numbers(heads), _numbers(positions))

    def __str__(self) -> str:
        heads = "" if self.heads is None else ":" + ",".join(map(str, self.heads))
        return self.place + heads + ("" if self.positions is None else "@" + ",".join(map(str, self.positions)))

    def mask(self, place: Place, shape: Sequence[int]) -> Tensor:
        """Return a boolean tensor that broadcasts to ``shape``: True at what belongs to the site.

        Raises:
            ConfigError: a place without heads or positions, or a head or position that it does not have.
        """
        mask = torch.ones([1] * len(shape), dtype=torch.bool)
        for chosen, axis, what in ((self.heads, head_axis(place), "head"), (self.positions, time_axis(place), "token")):
            if chosen is not None:
                mask = mask & _chosen(chosen, axis, shape, f"{self.place}: ", what)
        return mask


def _numbers(text: str | None) -> tuple[int, ...] | None:
    return None if text is None else tuple(map(int, text.split(",")))


def _chosen(chosen: Sequence[int], axis: int | None, shape: Sequence[int], where: str, what: str) -> Tensor:
    if axis is None:
        raise ConfigError(f"{where}has no {what}s to choose from")
    size = shape[axis]
    wrong = [i for i in chosen if not 0 <= i < size]
    if wrong:
        raise ConfigError(f"{where}{what} {wrong[0]}: there are {size}, counted from 0")
    line = torch.zeros(size, dtype=torch.bool)
    line[list(chosen)] = True
    return line.view([size if i == axis else 1 for i in range(len(shape))])


def head_axis(place: Place) -> int | None:
    """Return the dimension of a place that counts heads; None where there is none."""
    dims = place.shape.split()
    return next((dims.index(letter) for letter in "HG" if letter in dims), None)


def time_axis(place: Place) -> int | None:
    """Return the dimension of a place that counts tokens, of attention that of the queries; None without one."""
    dims = place.shape.split()
    return next((dims.index(letter) for letter in "TS" if letter in dims), None)


def mixed(place: Place, base: Tensor, other: Tensor, site: Site) -> Tensor:
    """Return ``base`` with what belongs to ``site`` from ``other``.

    Raises:
        DataError: tensors of unlike shapes.
        ConfigError: as ``Site.mask``.
    """
    if base.shape != other.shape:
        shapes = " and ".join(" x ".join(map(str, x.shape)) for x in (base, other))
        raise DataError(f"{site.place}: {shapes}: the two inputs must have the same number of tokens")
    return torch.where(site.mask(place, base.shape).to(base.device), other, base)


# ---- ablation -----------------------------------------------------------------------------------------


def ablation(sites: Iterable[Site], values: Mapping[str, Tensor] | None = None) -> dict[str, Change]:
    """Return what replaces sites by zeros, or by means.

    Args:
        sites: several sites at one place are replaced together.
        values: of each place, what ``mean_values`` returned; None for zeros.
    """
    by_place: dict[str, list[Site]] = {}
    for site in sites:
        by_place.setdefault(site.place, []).append(site)
    return {
        name: _Replacement(tuple(there), None if values is None else values[name]) for name, there in by_place.items()
    }


@dataclass(frozen=True)
class _Replacement:
    """Zeros, or a mean, at some heads and positions."""

    sites: tuple[Site, ...]
    value: Tensor | None

    def __call__(self, found: Tensor) -> Tensor:
        place = _shaped(self.sites[0].place, found)
        mask = torch.zeros([1] * found.dim(), dtype=torch.bool)
        for site in self.sites:
            mask = mask | site.mask(place, found.shape)
        value = torch.zeros_like(found) if self.value is None else self.value.to(found).expand_as(found)
        return torch.where(mask.to(found.device), value, found)


def _shaped(name: str, found: Tensor) -> Place:
    """Return a place with the dimensions of a tensor that stands there, for a function that knows no model."""
    per_head = found.dim() == 4
    return Place(name, "B H T C" if per_head else "B T D", "", tap=None)  # pyright: ignore[reportArgumentType]


def mean_values(subject: Subject, texts: Sequence[Any], patterns: str | Iterable[str]) -> dict[str, Tensor]:
    """Return the mean of what stands at places, over all tokens of some texts, as (1, H, 1, C) or (1, 1, D).

    Raises:
        ConfigError: a place that the model does not have, or one without tokens to average.
        DataError: a text that the model cannot read, or none.
    """
    if not texts:
        raise DataError("texts: none are given to take means over")
    known = find(places(subject.model), patterns)
    for place in known:
        if time_axis(place) is None or place.name.endswith((".weights", ".scores")):
            raise ConfigError(f"{place.name}: has no mean over tokens: choose a place such as its heads or output")
    total: dict[str, Tensor] = {}
    tokens: dict[str, int] = {}
    for text in texts:
        seen = trace_inputs(subject.model, subject.inputs(text).arguments, [p.name for p in known])
        for place in known:
            value, axis = seen.tensors[place.name], time_axis(place)
            assert axis is not None
            part = value.double().sum(dim=axis, keepdim=True)
            total[place.name] = total.get(place.name, 0) + part
            tokens[place.name] = tokens.get(place.name, 0) + value.shape[axis]
    return {name: (value / tokens[name]).float() for name, value in total.items()}


# ---- steering -----------------------------------------------------------------------------------------


def difference_of_means(subject: Subject, some: Sequence[Any], others: Sequence[Any], place: str) -> Tensor:
    """Return the direction from the mean of ``others`` to the mean of ``some`` at a place, (1, 1, D).

    As in Turner et al. 2023 (arXiv:2308.10248) and Belrose 2023 (difference in means).

    Raises:
        ConfigError, DataError: as ``mean_values``.
    """
    first, second = (mean_values(subject, texts, place) for texts in (some, others))
    return first[place] - second[place]


def steering(place: str, direction: Tensor, strength: float = 1.0) -> dict[str, Change]:
    """Return what adds ``strength`` times a direction to what stands at a place, at every token."""
    return {place: lambda found: found + strength * direction.to(found)}
