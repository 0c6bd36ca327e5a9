"""One module that holds only the classes and functions that a model needs, taken from this package's own source.

A Hugging Face folder for ``trust_remote_code`` must run where this package is not installed. A second implementation
could drift from ours; this one is ours: the definitions that the roots reach, without the kernels in C, the checks of
configuration files and the methods that nothing calls.
"""

import ast
import builtins
import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

PACKAGE = "dragoman"
_OPS = f"{PACKAGE}.model.ops."
_CONFIG = f"{PACKAGE}.config"
_ALWAYS = {name for name in dir(nn.Module) if name != "extra_repr"} | {"backward", "jvp", "setup_context"}
"""Methods that PyTorch calls by name."""

_STATES = re.compile(rf"{PACKAGE}\.model\.(caches\..*|memory|interface|.*\.(state|memory))")
"""Modules of caches and states."""
_OF_SERVERS = {"join", "fork", "forget_unseen", "rewind", "allow_rewind", "nbytes"}
"""Methods of caches and states that only searches and servers of this package call, not ``generate``."""
_INITIAL_VALUES = {"initialize", "initialize_embedding", "initialize_input_layer", "scale_outputs"}
"""Functions that draw initial weights: those of an export are in its files."""

Definition = ast.ClassDef | ast.FunctionDef | ast.Assign | ast.AnnAssign


class Place(NamedTuple):
    """A name at the top of a module."""

    module: str
    name: str


@dataclass
class SourceModule:
    """A module of this package: its definitions, and the names that it imports."""

    name: str
    definitions: dict[str, Definition] = field(default_factory=dict)
    inside: dict[str, Place] = field(default_factory=dict)
    """Name -> the definition of this package that it stands for."""
    modules: dict[str, str] = field(default_factory=dict)
    """Name -> the module of this package that it stands for."""
    outside: dict[str, str] = field(default_factory=dict)
    """Name -> the line that imports it from another package."""


@cache
def read_module(name: str) -> SourceModule:
    """Parse a module of this package, with constant branches and annotations simplified."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    tree, found = ast.parse(Path(spec.origin).read_text(encoding="utf-8")), SourceModule(name)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            _read_import_from(found, node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                found.outside[alias.asname or alias.name.split(".")[0]] = ast.unparse(ast.Import([alias]))
    simplify = _Simplify(found)
    for node in tree.body:
        if isinstance(node, Definition):
            for defined in _names(node):
                found.definitions[defined] = simplify.visit(node)
    return found


def _read_import_from(found: SourceModule, node: ast.ImportFrom) -> None:
    for alias in node.names:
        name = alias.asname or alias.name
        if not (node.module or "").startswith(PACKAGE):
            found.outside[name] = ast.unparse(ast.ImportFrom(node.module, [alias], 0))
        elif _is_module(f"{node.module}.{alias.name}"):
            found.modules[name] = f"{node.module}.{alias.name}"
        else:
            found.inside[name] = Place(str(node.module), alias.name)


@cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _names(node: Definition) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name
    else:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


# ---- simplification --------------------------------------------------------------------------------


class _Simplify(ast.NodeTransformer):
    """Leave out what only training on CPUs, type checkers and configuration files need."""

    def __init__(self, module: SourceModule):
        self.module = module

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if self._asks_for_kernels(node.func) or ast.unparse(node.func) == "torch.compiler.is_compiling":
            return ast.Constant(False)
        if isinstance(node.func, ast.Name) and node.func.id == "cast" and len(node.args) == 2:
            return node.args[1]
        if isinstance(node.func, ast.Attribute) and node.func.attr == "register_buffer":
            node.keywords = []  # every buffer is in the file: transformers would leave others without values
        return node

    def _asks_for_kernels(self, called: ast.expr) -> bool:
        """Return whether a call asks if kernels in C can be used; here they never can."""
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            here, name = self.module.modules.get(called.value.id, ""), called.attr
        elif isinstance(called, ast.Name):
            here, name = self.module.inside.get(called.id, Place(self.module.name, called.id))
        else:
            return False
        return f"{here}.".startswith(_OPS) and name.startswith(("supports", "runs_in_", "uses_", "available"))

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        deciding = isinstance(node.op, ast.Or)  # True decides an "or", False an "and"
        values = [value for value in node.values if _constant(value) is not (not deciding)]
        if any(_constant(value) is deciding for value in values):
            return ast.Constant(deciding)
        return node if len(values) == len(node.values) else _joined(node.op, values, empty=not deciding)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        known = _constant(node.operand)
        return ast.Constant(not known) if isinstance(node.op, ast.Not) and known is not None else node

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        known = _constant(node.test)
        if known is not None:
            return node.body if known else node.orelse
        if all(map(_refuses, node.body)):  # the configuration of an export has been checked
            return node.orelse
        return node

    def visit_With(self, node: ast.With) -> Any:
        self.generic_visit(node)
        match node.items:
            case [ast.withitem(context_expr=ast.Call(func=ast.Name(id="at")))]:
                return node.body
        return node

    def visit_For(self, node: ast.For) -> Any:
        self.generic_visit(node)
        return node if node.body else None

    def visit_Expr(self, node: ast.Expr) -> Any:
        self.generic_visit(node)
        match node.value:
            case ast.Call(func=ast.Name(id=name)) if name in _INITIAL_VALUES:
                return None
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        node.decorator_list = [_frozen() if _is_named(mark, "config") else mark for mark in node.decorator_list]
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        known = _constant(node.test)
        return node if known is None else (node.body if known else node.orelse)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(node.arg, _shape(node.annotation))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = _shape(node.returns)
        node.args.defaults = [ast.Constant(None) if _is_named(d, "DEFAULT") else d for d in node.args.defaults]
        if all(map(_is_text, node.body)):
            node.body.append(ast.Pass())
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        node.annotation = _shape(node.annotation) or ast.Name("object")
        return node


def _is_named(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _frozen() -> ast.expr:
    """Return the decorator that stands in the place of ``config``, which also checks files."""
    return ast.parse("dataclass(frozen=True, kw_only=True)", mode="eval").body


def _refuses(node: ast.stmt) -> bool:
    """Return whether a statement refuses a configuration."""
    match node:
        case ast.Raise(exc=ast.Call(func=ast.Name(id="ConfigError"))):
            return True
    return False


def _constant(node: ast.expr) -> bool | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, bool) else None


def _joined(op: ast.boolop, values: list[ast.expr], *, empty: bool) -> ast.expr:
    if not values:
        return ast.Constant(empty)
    return values[0] if len(values) == 1 else ast.BoolOp(op, values)


def _shape(annotation: ast.expr | None) -> ast.expr | None:
    """Return the shape that an annotation states, as text; None for any other annotation."""
    match annotation:
        case ast.Subscript(slice=ast.Tuple(elts=[_, ast.Constant(value=str() as shape)])):
            return ast.Constant(shape.strip() or "scalar")
    return None


# ---- reachability ----------------------------------------------------------------------------------


class _Reach:
    """Everything that the roots reach: definitions by name, and methods by the names of attributes that are read."""

    def __init__(self, roots: Sequence[Place], attributes: Sequence[str]):
        self.live: set[Place] = set()
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

    def reach(self, place: Place) -> None:
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
                    self.reach(Place(module.modules[used.value.id], used.attr))
            elif isinstance(used, ast.Constant):
                self.attributes.add(str(used.value))
            elif used.id in module.outside:
                self.outside.add(module.outside[used.id])
            else:
                self.reach(Place(module.name, used.id))


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
            if name in ("annotation", "returns") or (name == "value" and _is_text(current)):
                continue
            stack.extend(part for part in (value if isinstance(value, list) else [value]) if isinstance(part, ast.AST))


def _is_text(node: ast.AST) -> bool:
    """Return whether a statement is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


# ---- writing ---------------------------------------------------------------------------------------


def bundle(roots: Sequence[type], attributes: Sequence[str]) -> tuple[list[str], str]:
    """Return the lines that import from other packages, and the definitions that ``roots`` need.

    Args:
        roots: classes of this package.
        attributes: names of the methods that the caller of this code uses.

    Raises:
        ValueError: the code needs a part of this package that cannot leave it, such as a kernel in C.
    """
    reach = _Reach([Place(root.__module__, root.__name__) for root in roots], attributes)
    if strange := sorted({place.module for place in reach.live} & _staying(reach)):
        raise ValueError(f"{strange[0]} cannot be part of an export")
    renamed, written = _renamed(reach.live), []
    for module in _in_order({place.module for place in reach.live}):
        source, done = read_module(module), set()
        write = _Write(source, reach, renamed)
        for name, node in source.definitions.items():
            if Place(module, name) in reach.live and id(node) not in done:
                done.add(id(node))
                written.append(ast.unparse(ast.fix_missing_locations(write.visit(_copied(node)))))
    outside = {line for line in reach.outside if "pydantic" not in line and "jaxtyping" not in line}
    outside.add("from dataclasses import dataclass")
    return sorted(outside), "\n\n\n".join(written) + "\n"


def _staying(reach: _Reach) -> set[str]:
    return {place.module for place in reach.live if place.module.startswith((f"{PACKAGE}.native", f"{PACKAGE}.text"))}


def _copied(node: ast.AST) -> Any:
    """Return a copy whose methods know the ones that they are copies of."""
    copied = ast.parse(ast.unparse(node)).body[0]
    for old, new in zip(ast.walk(node), ast.walk(copied), strict=False):
        if isinstance(old, ast.ClassDef) and isinstance(new, ast.ClassDef):
            for a, b in zip(old.body, new.body, strict=True):
                b.original = id(a)  # pyright: ignore[reportAttributeAccessIssue]
        break
    return copied


def _renamed(live: set[Place]) -> dict[Place, str]:
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

    def __init__(self, module: SourceModule, reach: _Reach, renamed: dict[Place, str]):
        self.module, self.reach, self.renamed = module, reach, renamed

    def name_of(self, place: Place) -> str:
        while place.name in read_module(place.module).inside:
            place = read_module(place.module).inside[place.name]
        return self.renamed.get(place, place.name)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        known = node.id in self.module.definitions or node.id in self.module.inside
        return ast.Name(self.name_of(Place(self.module.name, node.id)), node.ctx) if known else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in self.module.modules:
            return ast.Name(self.name_of(Place(self.module.modules[node.value.id], node.attr)), node.ctx)
        self.generic_visit(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.name = (
            self.renamed.get(Place(self.module.name, node.name), node.name) if node.col_offset == 0 else node.name
        )
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [part for part in node.body if self._stays(part)] or [ast.Pass()]
        self.generic_visit(node)
        node.name = self.name_of(Place(self.module.name, node.name))
        return node

    def _stays(self, part: ast.stmt) -> bool:
        if not isinstance(part, ast.FunctionDef):
            return not (
                isinstance(part, ast.AnnAssign) and part.value is None and not isinstance(part.target, ast.Name)
            )
        return getattr(part, "original", 0) in self.reach.methods
