"""One module that holds only the classes and functions that a model needs, taken from this package's own source.

A Hugging Face folder for ``trust_remote_code`` must run where this package is not installed. A second implementation
could drift from ours; this one is ours: the definitions that the roots reach, without the kernels in C, the checks of
configuration files and the methods that nothing calls.
"""

import ast
import builtins
import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from dragoman.interchange.remote_code.source import (
    PACKAGE,
    Definition,
    SourceModule,
    SourceName,
    is_text,
    read_module,
)

_ALWAYS = {name for name in dir(nn.Module) if name != "extra_repr"} | {"backward", "jvp", "setup_context"}
"""Methods that PyTorch calls by name."""
_STATES = re.compile(rf"{PACKAGE}\.model\.(caches\..*|memory|interface|.*\.(state|memory))")
"""Modules of caches and states."""
STAYING = (f"{PACKAGE}.native", f"{PACKAGE}.text")
"""Modules of which nothing leaves this package: what they do, an export must not need."""
_OF_SERVERS = {"join", "fork", "forget_unseen", "rewind", "allow_rewind", "nbytes"}
"""Methods of caches and states that only searches and servers of this package call, not ``generate``."""

# ---- reachability ----------------------------------------------------------------------------------


class _Reach:
    """Everything that the roots reach: definitions by name, and methods by the names of attributes that are read."""

    def __init__(self, roots: Sequence[SourceName], attributes: Sequence[str]):
        self.live: set[SourceName] = set()
        self.attributes = set(attributes) | _ALWAYS
        self.outside: set[str] = set()
        self.waiting: list[tuple[SourceModule, ast.FunctionDef]] = []
        """Methods of live classes whose names nothing has read so far."""
        self.methods: set[int] = set()
        for root in roots:
            self.reach(root)
        while called := [pair for pair in self.waiting if pair[1].name in self.attributes]:
            self.waiting = [pair for pair in self.waiting if pair[1].name not in self.attributes]
            for module, method in called:
                self.read_method(module, method)

    def reach(self, place: SourceName) -> None:
        module = read_module(place.module)
        if place.name in module.inside:
            self.reach(module.inside[place.name])
        elif place.name in module.definitions and place not in self.live:
            self.live.add(place)
            self.read_definition(module, module.definitions[place.name])

    def read_definition(self, module: SourceModule, node: Definition) -> None:
        if not isinstance(node, ast.ClassDef):
            self.read(module, node)
            return
        for part in (*node.bases, *node.keywords, *node.decorator_list):
            self.read(module, part)
        for part in node.body:
            dunder = isinstance(part, ast.FunctionDef) and part.name.startswith("__") and part.name.endswith("__")
            if isinstance(part, ast.FunctionDef) and part.name in _OF_SERVERS and _STATES.fullmatch(module.name):
                continue
            if isinstance(part, ast.FunctionDef) and not dunder:
                self.waiting.append((module, part))
            elif isinstance(part, ast.FunctionDef):
                self.read_method(module, part)
            else:
                self.read(module, part)

    def read_method(self, module: SourceModule, method: ast.FunctionDef) -> None:
        self.methods.add(id(method))
        self.read(module, method)

    def read(self, module: SourceModule, node: ast.AST) -> None:
        for used in _used(node):
            if isinstance(used, ast.Attribute):
                self.attributes.add(used.attr)
                if isinstance(used.value, ast.Name) and used.value.id in module.modules:
                    self.reach(SourceName(module.modules[used.value.id], used.attr))
            elif isinstance(used, ast.Constant):
                self.attributes.add(str(used.value))
            elif used.id in module.outside:
                self.outside.add(module.outside[used.id])
            else:
                self.reach(SourceName(module.name, used.id))


def _used(node: ast.AST) -> Iterator[Any]:
    """Yield the names, attributes and short texts of a definition, without its annotations and docstrings."""
    stack: list[ast.AST] = [node]
    while stack:
        current = stack.pop()
        if isinstance(current, ast.Name | ast.Attribute) or (
            isinstance(current, ast.Constant) and isinstance(current.value, str) and current.value.isidentifier()
        ):
            yield current
        for name, value in ast.iter_fields(current):
            if name in ("annotation", "returns") or (name == "value" and is_text(current)):
                continue
            stack.extend(part for part in (value if isinstance(value, list) else [value]) if isinstance(part, ast.AST))


# ---- writing ---------------------------------------------------------------------------------------


def bundle(roots: Sequence[type], attributes: Sequence[str]) -> tuple[list[str], str]:
    """Return the lines that import from other packages, and the definitions that ``roots`` need.

    Args:
        roots: classes of this package.
        attributes: names of the methods that the caller of this code uses.

    Raises:
        ValueError: the code needs a part of this package that cannot leave it, such as a kernel in C.
    """
    reach = _Reach([SourceName(root.__module__, root.__name__) for root in roots], attributes)
    if strange := sorted(place.module for place in reach.live if place.module.startswith(STAYING)):
        raise ValueError(f"{strange[0]} cannot be part of an export")
    renamed, written = _renamed(reach.live), []
    for module in _in_order({place.module for place in reach.live}):
        source, done = read_module(module), set()
        write = _Write(source, reach, renamed)
        for name, node in source.definitions.items():
            if SourceName(module, name) in reach.live and id(node) not in done:
                done.add(id(node))
                written.append(ast.unparse(ast.fix_missing_locations(write.visit(_copied(node)))))
    outside = {line for line in reach.outside if "pydantic" not in line and "jaxtyping" not in line}
    outside.add("from dataclasses import dataclass")
    return sorted(outside), "\n\n\n".join(written) + "\n"


def _copied(node: Definition) -> Any:
    """Return a copy whose methods know the ones that they are copies of."""
    copied = ast.parse(ast.unparse(node)).body[0]
    if isinstance(node, ast.ClassDef) and isinstance(copied, ast.ClassDef):
        for old, new in zip(node.body, copied.body, strict=True):
            new.original = id(old)  # pyright: ignore[reportAttributeAccessIssue]
    return copied


def _renamed(live: set[SourceName]) -> dict[SourceName, str]:
    """Return the names of definitions whose own names other modules have too."""
    found, taken = {}, set(dir(builtins))
    for place in sorted(live, key=lambda p: (p.name.startswith("_"), p)):
        name = place.name
        if name in taken:
            name = f"{place.name}_of_{place.module.rpartition('.')[2]}"
        assert name not in taken, name
        taken.add(name)
        if name != place.name:
            found[place] = name
    return found


def _in_order(modules: set[str]) -> list[str]:
    """Return modules, those that others import first."""
    order: list[str] = []
    visited: set[str] = set()

    def visit(name: str) -> None:
        if name in visited:
            return
        visited.add(name)
        module = read_module(name)
        for below in sorted({place.module for place in module.inside.values()} | set(module.modules.values())):
            visit(below)
        if name in modules:
            order.append(name)

    for name in sorted(modules):
        visit(name)
    return order


class _Write(ast.NodeTransformer):
    """Write a module's definitions with the names they have in the bundle, and without methods that nothing calls."""

    def __init__(self, module: SourceModule, reach: _Reach, renamed: dict[SourceName, str]):
        self.module, self.reach, self.renamed = module, reach, renamed

    def name_of(self, place: SourceName) -> str:
        while place.name in read_module(place.module).inside:
            place = read_module(place.module).inside[place.name]
        return self.renamed.get(place, place.name)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        known = node.id in self.module.definitions or node.id in self.module.inside
        return ast.Name(self.name_of(SourceName(self.module.name, node.id)), node.ctx) if known else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in self.module.modules:
            return ast.Name(self.name_of(SourceName(self.module.modules[node.value.id], node.attr)), node.ctx)
        self.generic_visit(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.name = (
            self.renamed.get(SourceName(self.module.name, node.name), node.name) if node.col_offset == 0 else node.name
        )
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [part for part in node.body if self._stays(part)] or [ast.Pass()]
        self.generic_visit(node)
        node.name = self.name_of(SourceName(self.module.name, node.name))
        return node

    def _stays(self, part: ast.stmt) -> bool:
        if not isinstance(part, ast.FunctionDef):
            return not (
                isinstance(part, ast.AnnAssign) and part.value is None and not isinstance(part.target, ast.Name)
            )
        return getattr(part, "original", 0) in self.reach.methods
