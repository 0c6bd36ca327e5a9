"""The shape of the package: who may import whom, how large a file may grow, and what is done nowhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "dragoman"
ROOMS = [
    {"errors"},
    {"config", "durable", "machine", "native"},
    {"output_file"},
    {"text", "model"},  # neither knows the other
    {"presets", "data", "migrations"},
    {"snapshot", "abilities"},
    {"checkpoint"},
    {"interchange", "decode"},
    {"train", "evaluate"},
    {"compare"},
    {"cli"},
    {"__main__"},
]  # from the ground up: a room imports from itself and from lower floors
FLOOR = {name: floor for floor, names in enumerate(ROOMS) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
every_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def tree(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever in it."""
    names = set()
    for node in tree(path):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def called(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in tree(path) if isinstance(node, ast.Call)}


def test_every_room_has_a_floor():
    assert {room(path) for path in FILES} <= FLOOR.keys()


@every_file
def test_imports_point_down(path):
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("dragoman.")} & FLOOR.keys()
    here = room(path)
    upward = {there for there in rooms if there != here and FLOOR[there] >= FLOOR[here]}
    assert not upward, f"{here} may not import from {upward}"


@every_file
def test_a_file_fits_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@every_file
def test_a_file_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@every_file
def test_nothing_read_from_outside_is_ever_executed(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"pickle", "marshal", "shelve", "dill", "joblib"}
    assert not called(path) & {"eval", "exec", "compile", "torch.save"}
    for node in tree(path):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert "weights_only=True" in ast.unparse(node)


@every_file
def test_only_the_command_line_prints(path):
    assert room(path) == "cli" or "print" not in called(path)


@every_file
def test_the_model_room_knows_nothing_of_files(path):
    if room(path) == "model":
        assert not {name.split(".")[0] for name in imported(path)} & {"pathlib", "os", "io", "json"}
        assert "open" not in called(path)
