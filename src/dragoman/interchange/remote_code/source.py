"""Modules of this package as syntax trees, without what only training, type checkers and configuration files need."""

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = "dragoman"
_OPS = f"{PACKAGE}.model.ops."
_INITIAL_VALUES = {"initialize", "initialize_embedding", "initialize_input_layer", "scale_outputs"}
"""Functions that draw initial weights: those of an export are in its files."""

Definition = ast.ClassDef | ast.FunctionDef | ast.Assign | ast.AnnAssign


class SourceName(NamedTuple):
    """A name at the top of a module."""

    module: str
    name: str


@dataclass
class SourceModule:
    """A module of this package: its definitions, and the names that it imports."""

    name: str
    definitions: dict[str, Definition] = field(default_factory=dict)
    inside: dict[str, SourceName] = field(default_factory=dict)
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
            found.inside[name] = SourceName(str(node.module), alias.name)


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
            here, name = self.module.inside.get(called.id, SourceName(self.module.name, called.id))
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
        if all(map(is_text, node.body)):
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


def is_text(node: ast.AST) -> bool:
    """Return whether a statement is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
