"""Patch maps: how much of the clean answer returns, for each place and each position, over one or several contrasts.

    from dragoman import inspect

    found = inspect.patch_map([inspect.Contrast.of(subject, clean, corrupt)])
    for row in found.rows:
        print(row.place, row.whole.recovered, [cell.recovered for cell in row.cells])
    inspect.patch_heads(contrasts)[:5]              # the heads that carry most, first

Of one contrast there is a column for each token. Of several, whose tokens do not correspond, there are three on the
side that differs: the tokens before the change, the changed ones, and those after it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dragoman.errors import ConfigError, DataError
from dragoman.inspect.contrast import ADDED, Contrast
from dragoman.inspect.heatmap import Panel, heatmap_svg
from dragoman.inspect.interventions import Site, head_axis, time_axis
from dragoman.inspect.places import Place, find

LAYERS = ("*.residual.after", *(f"*{ending}" for ending in ADDED))
"""Places that a map shows unless others are asked for."""
HEADS = ("*.mixer.heads", "*.cross.heads")
DRAWS = 1000
"""Bootstrap draws of an interval."""

PatchProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Cell:
    """Recovered part of the answer after one patch."""

    label: str
    """Token, group of tokens, or "all"."""
    positions: tuple[int, ...] | None
    """Tokens of the first contrast that were patched; None for all."""
    recovered: float
    """Part of the difference in log-probability that returned, over all contrasts together."""
    low: float | None = None
    """Interval of 95%, from a bootstrap over contrasts; None of one contrast."""
    high: float | None = None


@dataclass(frozen=True)
class MapRow:
    """One place of a map."""

    place: str
    layer: int | None
    whole: Cell
    """Patch of the place at all tokens."""
    cells: tuple[Cell, ...]
    """Patches of single tokens, or of groups of them."""


@dataclass(frozen=True)
class HeadCell:
    """Recovered part of the answer after the patch of one head."""

    place: str
    head: int
    recovered: float
    low: float | None
    high: float | None

    @property
    def name(self) -> str:
        """Name of the head as a site: ``decoder.1.mixer.heads:3``."""
        return f"{self.place}:{self.head}"


@dataclass(frozen=True)
class PatchMap:
    """Map of recovered log-probability."""

    contrasts: int
    clean: float
    """Mean log-probability of the answers after the clean inputs, in nats."""
    corrupt: float
    """The same after the corrupt inputs."""
    reversed: int
    """Contrasts whose answer is likelier after the corrupt input: there is little to learn from these."""
    answer: tuple[str, ...]
    """Tokens of the first contrast's answer."""
    rows: tuple[MapRow, ...]

    def plain(self) -> dict[str, Any]:
        """Return the map as what JSON can hold."""
        return asdict(self)


def patch_map(
    contrasts: Sequence[Contrast],
    patterns: Sequence[str] | None = None,
    progress: PatchProgress | None = None,
) -> PatchMap:
    """Patch each place at each token, from the clean into the corrupt run.

    Args:
        contrasts: of one model.
        patterns: names or patterns of places; None for ``LAYERS``.
        progress: called with (done, total).

    Raises:
        ConfigError: a place that the model does not have, or one without tokens.
        DataError: no contrasts.
    """
    known = _chosen(contrasts, patterns, LAYERS)
    for pair in contrasts:
        pair.record([place.name for place in known])
    rows = []
    for i, place in enumerate(known):
        sites = [[Site(place.name)] * len(contrasts)] + [
            [Site(place.name, positions=positions) for positions in column] for _, column in _columns(contrasts, place)
        ]
        cells = [
            _cell(label, contrasts, column) for label, column in zip(_labels(contrasts, place), sites, strict=True)
        ]
        rows.append(MapRow(place.name, place.layer, cells[0], tuple(cells[1:])))
        if progress:
            progress(i + 1, len(known))
    count = len(contrasts)
    clean, corrupt = (
        sum(getattr(pair, f"{which}_log_prob") for pair in contrasts) / count for which in ("clean", "corrupt")
    )
    backwards = sum(pair.clean_log_prob < pair.corrupt_log_prob for pair in contrasts)
    return PatchMap(count, clean, corrupt, backwards, contrasts[0].answer.spelling, tuple(rows))


def patch_heads(
    contrasts: Sequence[Contrast],
    patterns: Sequence[str] | None = None,
    progress: PatchProgress | None = None,
) -> list[HeadCell]:
    """Patch each attention head, at all tokens; return those that recover most first.

    Raises:
        ConfigError: a place that the model does not have, or one without heads.
        DataError: no contrasts.
    """
    known = [p for p in _chosen(contrasts, patterns, HEADS) if patterns is not None or head_axis(p) is not None]
    without = next((place.name for place in known if head_axis(place) is None), None)
    if without:
        raise ConfigError(f"{without}: has no heads: name a place such as decoder.0.mixer.heads")
    for pair in contrasts:
        pair.record([place.name for place in known])
    found = []
    for i, place in enumerate(known):
        axis = head_axis(place)
        assert axis is not None
        for head in range(contrasts[0].recorded(place.name, True).shape[axis]):
            cell = _cell("", contrasts, [Site(place.name, heads=(head,))] * len(contrasts))
            found.append(HeadCell(place.name, head, cell.recovered, cell.low, cell.high))
        if progress:
            progress(i + 1, len(known))
    return sorted(found, key=lambda cell: -cell.recovered)


def _chosen(contrasts: Sequence[Contrast], patterns: Sequence[str] | None, default: Sequence[str]) -> list[Place]:
    if not contrasts:
        raise DataError("contrasts: none are given")
    known = contrasts[0].known
    if patterns is None:
        endings = tuple(pattern[1:] for pattern in default)
        return [place for name, place in known.items() if name.endswith(endings) or _stands_for_a_layer(name, known)]
    return find(known, patterns)


def _stands_for_a_layer(name: str, known: Collection[str]) -> bool:
    """Return whether a place is the state of a recurrent layer, which has no residual stream."""
    return name.endswith(".mixer.state") and name.removesuffix(".mixer.state") + ".residual.after" not in known


def _cell(label: str, contrasts: Sequence[Contrast], column: Sequence[Site]) -> Cell:
    """Patch one site in each contrast. The recovered part is a ratio of sums, so that a contrast with little difference
    weighs little."""
    gains, wholes = [], []
    for pair, site in zip(contrasts, column, strict=True):
        if site.positions != ():
            gains.append(pair.patch([site]).log_prob - pair.corrupt_log_prob)
            wholes.append(pair.clean_log_prob - pair.corrupt_log_prob)
    if not gains:
        return Cell(label, column[0].positions, float("nan"))
    low, high = ratio_interval(gains, wholes) if len(gains) > 1 else (None, None)
    return Cell(label, column[0].positions, float(_ratio(np.sum(gains), np.sum(wholes))), low, high)


def _ratio(top: Any, bottom: Any) -> Any:
    """Return a ratio; NaN where there is no difference to recover."""
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=np.asarray(bottom) != 0)[()]


def ratio_interval(tops: Sequence[float], bottoms: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the interval of 95% of a ratio of sums, from a bootstrap over its terms."""
    rows = np.random.default_rng(seed).integers(len(tops), size=(DRAWS, len(tops)))
    ratios = _ratio(np.array(tops)[rows].sum(axis=1), np.array(bottoms)[rows].sum(axis=1))
    low, high = np.nanquantile(ratios, [0.025, 0.975])
    return float(low), float(high)


# ---- columns ------------------------------------------------------------------------------------------


def tokens_at(pair: Contrast, place: Place) -> tuple[str, ...]:
    """Return the clean tokens that a place counts along its time; numbers where it counts something else."""
    axis = time_axis(place)
    size = 0 if axis is None else pair.recorded(place.name, True).shape[axis]
    for tokens in _sides(pair, place):
        if len(tokens) == size:
            return tokens
    return tuple(map(str, range(size)))


def _sides(pair: Contrast, place: Place) -> Iterator[tuple[str, ...]]:
    of_source = place.name.startswith("encoder") or "S" in place.shape.split()[:3]
    if of_source and pair.clean.source_tokens:
        yield pair.clean.source_tokens
    else:
        yield pair.clean.tokens


def _columns(contrasts: Sequence[Contrast], place: Place) -> list[tuple[str, list[tuple[int, ...]]]]:
    """Return for each column of a place its label and the tokens of each contrast."""
    if len(contrasts) == 1:
        return [(token, [(i,)]) for i, token in enumerate(tokens_at(contrasts[0], place))]
    parts = [_around_the_change(pair, place) for pair in contrasts]
    labels = ("before", "changed", "after")
    columns = [(label, [part[i] for part in parts]) for i, label in enumerate(labels)]
    return [column for column in columns if any(column[1])]


def _labels(contrasts: Sequence[Contrast], place: Place) -> list[str]:
    return ["all", *(label for label, _ in _columns(contrasts, place))]


def _around_the_change(pair: Contrast, place: Place) -> tuple[tuple[int, ...], ...]:
    """Return the tokens before, in and after the part that differs; none on a side that does not differ."""
    clean = tokens_at(pair, place)
    for side in ("source_tokens", "tokens"):
        mine, other = getattr(pair.clean, side), getattr(pair.corrupt, side)
        different = [i for i, (a, b) in enumerate(zip(mine, other, strict=True)) if a != b]
        if mine == clean and different:
            start, end = different[0], different[-1] + 1
            return tuple(range(start)), tuple(range(start, end)), tuple(range(end, len(clean)))
    return (), (), ()


def map_svg(found: PatchMap) -> str:
    """Return a map as an SVG document, a panel for each set of columns, the whole place first."""
    panels: dict[tuple[str, ...], list[tuple[str, tuple[float, ...]]]] = {}
    for row in found.rows:
        cells = (row.whole, *row.cells)
        side = row.place.split(".")[0]
        columns = (side, *(cell.label.strip() or cell.label for cell in cells))
        panels.setdefault(columns, []).append((row.place, tuple(cell.recovered for cell in cells)))
    about = (
        f"Part of the log-probability of {''.join(found.answer).strip()!r} that returns: 1 is all of it "
        f"({found.clean:.2f} after the clean text, {found.corrupt:.2f} after the corrupt one)."
    )
    drawn = [Panel(columns[0], columns[1:], tuple(rows)) for columns, rows in panels.items()]
    return heatmap_svg("What carries the difference", about, drawn)
