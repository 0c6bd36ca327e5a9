"""Run files drawn at random from the configuration's own classes, so that a new part is drawn without being listed.

A draw begins with a run file that is known to work, one for each task, and changes some places in it. A place is any
field of any configuration class in it; its new value is drawn from the field's type: a kind of a union with fields of
its own, a number within its bounds, a literal, nothing. So most draws make sense, and the others have to be refused in
one line. The same seed draws the same run file.
"""

import copy
import dataclasses
import random
import types
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import annotated_types
import torch
from pydantic.fields import FieldInfo

from dragoman.config import from_dict, kind_of, to_dict
from dragoman.errors import ConfigError, DataError
from dragoman.model.encoder import EncoderConfig
from dragoman.train import recipe
from dragoman.train.warm_start import WarmStart

PINNED = {"kind", "path", "files", "run", "start_from", "budget", "device", "compile", "labels", "parallel"}
"""Fields that stay as they are: names of files and runs, what would take minutes, and what needs another machine."""
FILLED = {"vocab", "source_vocab", "classes", "precision"}
"""Fields that are filled in, and seldom hold anything else: left alone unless a draw is to be wild."""
SECTIONS = {"model": 10, "train": 4, "data": 3, "task": 2, "tokenizer": 1, "target_tokenizer": 1}
"""How often a place in each part of a run file is chosen; any part that is not listed counts once."""
NUMBERS = (1, 2, 3, 4, 8, 16)
FRACTIONS = (0.0, 1e-3, 0.1, 0.3, 0.5, 0.9, 1.0, 2.0, 100.0)
DROPOUT = 0.3


class Place(NamedTuple):
    """One field of one configuration class in a run file."""

    path: tuple[str | int, ...]
    type: Any
    value: Any


# ---- the types ------------------------------------------------------------------------------------


def bare(tp: Any) -> tuple[Any, list[Any]]:
    """A type without its annotations, and the bounds that they set."""
    bounds: list[Any] = []
    while get_origin(tp) is Annotated:
        tp, *notes = get_args(tp)
        for note in notes:
            bounds += note.metadata if isinstance(note, FieldInfo) else [note]
    return tp, bounds


def is_union(tp: Any) -> bool:
    return get_origin(tp) in (Union, types.UnionType)


def config_classes(tp: Any) -> list[type]:
    """The configuration classes that a value of this type may be of."""
    tp, _ = bare(tp)
    if is_union(tp):
        return [found for option in get_args(tp) for found in config_classes(option)]
    return [tp] if dataclasses.is_dataclass(tp) and isinstance(tp, type) else []


@cache
def hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def fields(cls: type) -> Iterator[tuple[dataclasses.Field, Any]]:
    """Its fields with their types, but for those that are pinned."""
    for field in dataclasses.fields(cls):
        if field.name not in PINNED:
            yield field, hints(cls)[field.name]


def places(tp: Any, value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Place]:
    """All of them in ``value``, which is plain data of type ``tp`` with every default written out."""
    if isinstance(value, list):
        element = get_args(bare(tp)[0])[0] if get_args(bare(tp)[0]) else Any
        for i, part in enumerate(value):
            yield from places(element, part, (*path, i))
    if not isinstance(value, dict):
        return
    cls = next((cls for cls in config_classes(tp) if kind_of(cls) == value.get("kind")), None)
    for field, of_field in fields(cls) if cls else ():
        if field.name in value:
            yield Place((*path, field.name), of_field, value[field.name])
            yield from places(of_field, value[field.name], (*path, field.name))


# ---- drawing --------------------------------------------------------------------------------------


class Drawing:
    """Draws values of types.

    Args:
        draw: where chance comes from.
        files: paths that a text without a default may be.
    """

    def __init__(self, draw: random.Random, files: Sequence[str] = ()):
        self.draw, self.files = draw, list(files) or ["nowhere"]

    def value(self, tp: Any, now: Any = None) -> Any:
        """Plain data of this type; numbers often near the value that there is ``now``."""
        tp, bounds = bare(tp)
        if is_union(tp):
            return self.value(self.option(get_args(tp)), now)
        if get_origin(tp) is Literal:
            return self.draw.choice(get_args(tp))
        if get_origin(tp) is tuple:
            return self.elements(get_args(tp))
        if get_origin(tp) is dict:
            return {}
        if config_classes(tp):
            return self.config(tp)
        return self.leaf(tp, bounds, now)

    def option(self, options: Sequence[Any]) -> Any:
        given = [option for option in options if option is not type(None)]
        if len(given) < len(options) and self.draw.random() < 0.4:
            return type(None)
        return self.draw.choice(given)

    def elements(self, of: Sequence[Any]) -> list[Any]:
        if len(of) == 2 and of[1] is Ellipsis:
            return [self.value(of[0]) for _ in range(self.draw.choice([0, 1, 1, 2]))]
        return [self.value(element) for element in of]

    def config(self, cls: type) -> dict[str, Any]:
        """A class with what it needs, and now and then what it does not."""
        found: dict[str, Any] = {"kind": kind_of(cls)}
        for field in dataclasses.fields(cls):
            usual = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
            if field.name != "kind" and (not usual or (field.name not in PINNED and self.draw.random() < 0.3)):
                found[field.name] = self.value(hints(cls)[field.name])
        return found

    def leaf(self, tp: Any, bounds: Sequence[Any], now: Any) -> Any:
        if tp is bool:
            return self.draw.random() < 0.5
        if tp is int:
            near = [now - 1, now + 1, now * 2, now // 2] if type(now) is int else []
            return self.draw.choice(within([*NUMBERS, *near], bounds) or [least(bounds) + self.draw.choice(NUMBERS)])
        if tp is float:
            near = [now * 2, now / 2] if isinstance(now, float) else []
            return float(self.draw.choice(within([*FRACTIONS, *near], bounds) or [0.5]))
        return self.draw.choice([now] if isinstance(now, str) else self.files) if tp is str else None


def least(bounds: Sequence[Any]) -> int:
    """The largest lower bound, 0 without one."""
    found = [getattr(bound, name) for bound in bounds for name in ("gt", "ge") if hasattr(bound, name)]
    return max(found, default=0)


def within(values: Sequence[float], bounds: Sequence[Any]) -> list[Any]:
    """Those that keep the bounds, each once."""
    tests = {
        annotated_types.Gt: lambda x, b: x > b.gt,
        annotated_types.Ge: lambda x, b: x >= b.ge,
        annotated_types.Lt: lambda x, b: x < b.lt,
        annotated_types.Le: lambda x, b: x <= b.le,
    }
    known = [(tests[type(bound)], bound) for bound in bounds if type(bound) in tests]
    return [x for x in dict.fromkeys(values) if all(test(x, bound) for test, bound in known)]


def written_out(base: dict[str, Any]) -> dict[str, Any]:
    """A run file with every default."""
    return to_dict(from_dict(recipe.RunConfig, base))


def fits(content: dict[str, Any], base: dict[str, Any]) -> bool:
    """Whether it reads as a run of the same task whose model can be built; more is found out by training it."""
    try:
        cfg = from_dict(recipe.RunConfig, content)
        with torch.device("meta"):
            sizes = {"vocab": 300, "classes": 2} if isinstance(cfg.model, EncoderConfig) else {"vocab": 300}
            cfg.model.sized(**sizes).build()
    except (ConfigError, DataError):
        return False
    return all(content[part]["kind"] == base[part]["kind"] for part in ("task", "data", "model"))


def changed(
    base: dict[str, Any], draw: random.Random, changes: int, files: Sequence[str] = (), wild: bool = False
) -> dict[str, Any]:
    """``base`` with so many of its places drawn anew; of those that do not fit only where it is to be ``wild``."""
    base = written_out(base)
    content, drawing = base, Drawing(draw, files)
    for _ in range(changes):
        tried = change(content, draw, drawing, wild)
        if wild or fits(tried, base):
            content = tried
    return content


def change(content: dict[str, Any], draw: random.Random, drawing: Drawing, wild: bool) -> dict[str, Any]:
    """A copy with one place drawn anew."""
    content = copy.deepcopy(content)
    found = [p for p in places(recipe.RunConfig, content) if wild or not (FILLED & set(p.path) or is_text(p))]
    sections = sorted({str(place.path[0]) for place in found})
    section = draw.choices(sections, [SECTIONS.get(name, 1) for name in sections])[0]
    place, budget = draw.choice([place for place in found if place.path[0] == section]), content["train"]["budget"]
    put(content, place.path, drawing.value(place.type, place.value))
    if isinstance(content["train"], dict):
        content["train"]["budget"] = budget  # a whole section that is drawn anew would learn for hours
    return content


def with_budget(content: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Another budget of about as many steps."""
    budgets = [{"kind": "epochs", "epochs": 1.5}, {"kind": "minutes", "minutes": 0.02}, {"kind": "steps", "steps": 3}]
    return content | {"train": content["train"] | {"budget": draw.choice(budgets)}}


def with_start(content: dict[str, Any], base: dict[str, Any], run: str, draw: random.Random) -> dict[str, Any]:
    """Begin with the weights of ``run``, mostly with the model of ``base``, which it has: whole or by adapters."""
    start = Drawing(draw).config(WarmStart) | {"run": run, "new": [], "frozen": []}
    start |= {"checkpoint": draw.choice(["best", "last"]), "frozen": draw.choice([[], [], ["*.mlp.*"], ["*norm*"]])}
    if draw.random() < 0.5:
        start["lora"] = {"kind": "lora", "rank": draw.choice([1, 2, 4]), "dropout": draw.choice([0.0, DROPOUT])}
        start["lora"] |= {"targets": draw.choice([["*.q", "*.v"], ["*"], ["*.mlp.*"]])}
    same = draw.random() < 0.8
    return content | ({"model": base["model"], "tokenizer": base["tokenizer"]} if same else {}) | {"start_from": start}


def is_text(place: Place) -> bool:
    """A name of something outside the configuration, such as a language or a column."""
    options = get_args(bare(place.type)[0]) if is_union(bare(place.type)[0]) else (place.type,)
    return str in options


def with_dropout(content: dict[str, Any], share: float = DROPOUT) -> dict[str, Any]:
    """Dropout wherever it can be set, by name."""
    for place in list(places(recipe.RunConfig, content)):
        if "dropout" in str(place.path[-1]) and isinstance(place.value, float):
            put(content, place.path, share)
    return content


def put(content: Any, path: Sequence[str | int], value: Any) -> None:
    for step in path[:-1]:
        content = content[step]
    content[path[-1]] = value
