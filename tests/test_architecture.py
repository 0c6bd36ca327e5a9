"""The shape of the package: who may import whom, how large a file may grow, and what is done nowhere."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "dragoman"
ROOMS = [
    {"errors", "cache_folder"},
    {"cluster", "config", "durable", "machine", "native"},
    {"output_file", "journal", "json_files"},
    {"text", "model"},  # neither knows the other
    {"presets", "data", "migrations"},
    {"snapshot", "run_lock", "capabilities"},
    {"checkpoint"},
    {"interchange", "decode"},
    {"plan"},
    {"train", "evaluate"},
    {"inspect"},
    {"compare", "serve"},
    {"api"},
    {"cli"},
    {"__main__"},
]  # from the ground up: a room imports from itself and from lower floors
FLOOR = {name: floor for floor, names in enumerate(ROOMS) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def every_file(check: Callable[[Path], None]) -> Callable[[], None]:
    """Make one test of a check of a file, which names each file that fails: a test a file took longer to begin than to
    run, seven thousand times."""

    def test() -> None:
        failed = []
        for path in FILES:
            try:
                check(path)
            except AssertionError as error:
                failed.append(f"{path.relative_to(ROOT)}: {error}")
        assert not failed, "\n".join(failed)

    test.__name__ = check.__name__
    return test


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def tree(path: Path) -> list[ast.AST]:
    return list(ast.walk(parsed(path)))


@cache
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


@cache
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


def part_of_room(module: str) -> str | None:
    """Return the file or folder of its room that a module belongs to."""
    names = module.split(".")
    return names[2] if len(names) > 2 and names[0] == "dragoman" else None


def inside(room: str) -> dict[str, set[str]]:
    """Return each file and folder of a room, with those of the same room that it imports from."""
    arrows: dict[str, set[str]] = {}
    known = {path.name.removesuffix(".py") for path in (ROOT / room).iterdir()}
    for path in (ROOT / room).rglob("*.py"):
        here = path.relative_to(ROOT / room).parts[0].removesuffix(".py")
        there = {part_of_room(name) for name in imported(path) if name.startswith(f"dragoman.{room}.")}
        arrows.setdefault(here, set()).update(name for name in there if name in known and name != here)
    return arrows


@pytest.mark.parametrize("room", sorted(path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()))
def test_imports_point_down_inside_a_room_too(room):
    arrows = {here: there for here, there in inside(room).items() if here != "__init__"}
    TopologicalSorter(arrows).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize(
    ("room", "floors"),
    [
        ("model", "ops positions masks caches attention tower transformer inference"),
        ("decode", "search constraints job translator documents"),
        ("text", "lines cleaning formats filled"),
        ("train", "distributed loop recipe tasks trainer run"),
    ],
)
def test_the_floors_of_a_room_stand_in_their_order(room, floors):
    arrows, order = inside(room), floors.split()
    assert set(order) <= arrows.keys()
    for height, here in enumerate(order):
        assert not arrows[here] & set(order[height + 1 :])


def test_class_names_are_unique():
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert not {name: where for name, where in homes.items() if len(where) > 1}


def docstrings(path: Path) -> Iterator[str]:
    """Yield every docstring of a file, those under fields and constants included."""
    for node in tree(path):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value.strip()


@every_file
def test_a_docstring_opens_with_a_verb_or_the_name_of_the_thing(path):
    headless = re.compile(r"(What|Of|Whether)\b")
    assert not [text.splitlines()[0] for text in docstrings(path) if headless.match(text)]


def documented_arguments(docstring: str) -> set[str]:
    """Return the names under ``Args:``: each begins a line, after one that ends a sentence."""
    section = docstring.partition("Args:\n")[2].partition("\n\n")[0]
    begun = re.findall(r"(?:^|\.\n) {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*):(?=\s)", section)
    return {name.strip(" *") for names in begun for name in names.split(",")}


@every_file
def test_arguments_that_a_docstring_describes_are_parameters(path):
    for node in tree(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
            given = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg)
            unknown = documented_arguments(text) - {one.arg for one in given if one}
            assert not unknown, f"{path.name}:{node.lineno}: {node.name} has no {', '.join(sorted(unknown))}"


@every_file
def test_a_file_fits_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@every_file
def test_a_file_says_what_it_is(path):
    assert ast.get_docstring(parsed(path))


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


@every_file
def test_a_number_of_beams_is_written_where_all_defaults_come_from(path):
    for node in tree(path):
        if isinstance(node, ast.arguments):
            named = zip([*node.posonlyargs, *node.args][::-1], node.defaults[::-1], strict=False)
            given = [(a.arg, d) for a, d in (*named, *zip(node.kwonlyargs, node.kw_defaults, strict=True)) if d]
        elif isinstance(node, ast.Assign):
            given = [(target.id, node.value) for target in node.targets if isinstance(target, ast.Name)]
        else:
            continue
        numbers = [d.value for name, d in given if name.lower() == "beam" and isinstance(d, ast.Constant)]
        assert all(number in (None, 1) for number in numbers) or path == ROOT / "decode" / "defaults.py"
