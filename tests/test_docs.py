"""The documents say what the program does: their run files are read, and their commands run at toy size."""

import glob
import gzip
import io
import json
import re
import shlex
import shutil
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import docs_world
import jsonschema
import pytest
from conftest import without_numbers
from tiny_reader import quick_disk  # noqa: F401 (a fixture)
from typer.main import get_command

import dragoman
from dragoman.cli import app, main
from dragoman.cli.run_file_schema import run_file_schema
from dragoman.config import choices, kind_of, load_yaml, merge, to_dict
from dragoman.errors import ConfigError
from dragoman.interchange.families import FAMILIES
from dragoman.presets import PRESETS
from dragoman.text.tokens.training import TokenizerConfig
from dragoman.train import planner, recipe
from dragoman.train.budget import Budget
from dragoman.train.distributed.processes import MEETING
from dragoman.train.schedule import Schedule
from dragoman.train.tasks import task_data_for

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "src/dragoman/recipes").glob("*.yaml"))
BASE = {"preset": "transformer-tiny", "data": {"train": [{"kind": "table", "path": "corpus.tsv"}]}}

NOT_RUN = {  # how a command begins, or what it holds: why it is not run here
    "dragoman demo": "fetches a package and trains for nine minutes",
    "--processes": "starts processes of its own: tests/test_parallel.py",
    "--workers": "starts processes of its own: tests/test_bulk.py",
    "--ray": "starts a cluster: tests/test_bulk.py",
    "--safety": "reads a page of rules: tests/test_safety.py",
    "torchrun": "starts processes of its own: tests/test_parallel.py",
    "--compiled": "compiles for a minute: tests/test_compiling.py",
    "--to onnx": "traced, which the type checks of the tests forbid: tests/test_export.py",
    "generate imported/chat --chat": "a conversation at a terminal: tests/test_chat.py",
    "tensorboard --logdir": "a server of another project",
    "make ": "makes environments; its targets are looked up",
    "pip install": "installs; its extras are looked up",
    "python benchmarks/": "takes minutes; the file is looked up",
    "dragoman serve": "does not end by itself: tests/test_serve_command.py",
    "-o docs/claims.md": "writes pages of a checkout: tests/test_claims.py",
    "dragoman compare": "trains many models: tests/test_compare.py, tests/test_studies.py",
    "nllb-200-distilled-600M": "a folder of many languages: tests/test_translators_of_many_languages.py",
    "opus-mt-en-ROMANCE": "a folder of many languages: tests/test_translators_of_many_languages.py",
    "--as BertForMaskedLM": "a folder of older days: tests/test_older_folders.py",
    "whisper-small": "a folder of speech: tests/test_whisper.py",
    "mymodule:": "asks for a module of the reader's: tests/test_doctor.py",
}
SMALLER = {  # what would take long -> the same in small
    "--steps 500": "--steps 2",
    "--flops 1e14": "--flops 1e7",
    "--sentences 1000": "--sentences 4",
    "samples: 32": "samples: 3",
    "test=2000 valid=1000": "test=5 valid=5",
    "seeds 3 --rounds 2": "seeds 2 --rounds 1",
    "plan gpt3-175b": "plan gpt3-175b model.decoder.depth=8",
    "plan llama-2-7b": "plan llama-2-7b model.decoder.depth=4",
    "train.budget.epochs=60": "train.budget.steps=32",  # a toy's budget is in steps
}
EXIT_1 = ("config diff", "doctor runs/", "dragoman check")  # they differ; a toy validated on its text; findings

REFUSED = {
    "augment distill": "without a translation to learn from",  # a toy's best answer is empty, and left out
    "plan --laws": "their losses cannot be compared",  # runs/* are of all tasks here: tests/test_plan_laws.py
}


class Block(NamedTuple):
    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}: {self.text.strip().splitlines()[0][:50]}"


def blocks(page: Path) -> list[Block]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(page, language, text) for language, text in fences]


YAML = [block for page in PAGES for block in blocks(page) if block.language == "yaml"]
YAML += [Block(path, "yaml", path.read_text()) for path in RECIPES]

# ---- run files and their schema ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema():
    schema = run_file_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("block", YAML, ids=str)
def test_the_schema_accepts_a_run_file_of_the_documents(block, schema):
    error = jsonschema.exceptions.best_match(schema.iter_errors(load_yaml(block.text)))
    assert error is None, f"{error.json_path}: {error.message}"


@pytest.mark.parametrize("name", PRESETS)
def test_the_schema_accepts_a_preset_and_a_preset_alone(name, schema):
    assert schema.is_valid({"preset": name})
    assert schema.is_valid(json.loads(json.dumps(to_dict(PRESETS[name]()))))


@pytest.mark.parametrize(
    "plain",
    [
        {"preset": "transformer-small", "model": {"encoder": {"depth": 3}}},
        {"preset": "transformer-small", "model": {"position": "sinusoidal"}, "train": {"optimizer": "adam_w"}},
        {"preset": "transformer-small", "train": {"schedule": {"peak": 1e-3}}},  # of the preset's kind
        {"preset": "lm-tiny", "task": {"context": 64}},
        {"start_from": {"run": "runs/base"}, "train": {"budget": {"kind": "steps", "steps": 5}}},
        {"start_from": {"run": "runs/base"}},
        {"data": {"train": [{"kind": "table", "path": "a.tsv"}]}},
        {},
    ],
)
def test_what_a_preset_or_an_earlier_run_gives_may_be_left_out(plain, schema):
    assert schema.is_valid(plain)


@pytest.mark.parametrize(
    "plain",
    [
        {"preset": "transformer-smal"},
        {"presett": "transformer-small"},
        {"preset": "transformer-small", "modle": {}},
        {"preset": "transformer-small", "model": {"encoder": {"dept": 3}}},
        {"preset": "transformer-small", "model": {"encoder": {"depth": "three"}}},
        {"preset": "transformer-small", "model": {"position": "rotory"}},
        {"train": {"optimizer": {"kind": "adam_w", "momentum": 0.9}}},  # of another kind
        {"train": {"optimizer": {"momntum": 0.9}}},
        {"train": {"optimizer": {"kind": "adamw"}}},
        {"train": {"budget": "steps"}},  # does not say how many
        {"data": {"train": [{"kind": "table"}]}},  # entries of lists are whole
        {"data": {"train": [{"kind": "table", "path": "a.tsv", "sorce": 0}]}},
        {"data": {"kind": "texts", "files": ["a"], "train": []}},
        {"start_from": {"run": "runs/base", "frozn": []}},
        {"init": {"run": "runs/base"}},
    ],
)
def test_the_schema_refuses_a_key_a_kind_or_a_value_that_is_mistyped(plain, schema):
    assert not schema.is_valid(plain)


def test_the_schema_names_the_kinds_and_what_settings_mean(schema):
    text = json.dumps(schema.schema)
    assert '"const": "rotary"' in text
    assert "Base of the wavelengths; larger reaches further." in text
    assert schema.schema["properties"]["preset"]["oneOf"][0]["const"] in PRESETS


# ---- commands ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    docs_world.build(folder)
    return folder


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    folder = tmp_path / "world"
    shutil.copytree(world, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


PREDICTED: dict[str, Any] = {}


@pytest.fixture
def predicted_once(monkeypatch):
    """Predict what a run costs once for each kind of model: its figures are held to real runs elsewhere."""
    predict = planner.predict_run

    def remembered(cfg, *others):
        kind = json.dumps(without_numbers(to_dict(cfg.model)))
        if kind not in PREDICTED:
            PREDICTED[kind] = predict(cfg, *others)
        return PREDICTED[kind]

    monkeypatch.setattr(planner, "predict_run", remembered)


def commands(page: Path) -> list[str]:
    """List the commands of a page's blocks, in order, continued lines joined."""
    text = "\n".join(block.text for block in blocks(page) if not block.language).replace("\\\n", " ")
    begins = r"\s*(dragoman|python|make|pip|torchrun|zcat|tensorboard) [^:]"
    return [re.sub(r"\s+# .*", "", line).strip() for line in text.splitlines() if re.match(begins, line)]


def inline(page: Path) -> list[str]:
    """List the commands within sentences."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`((?:dragoman|make|python|pip|tensorboard) [^`]+)`", text)]


def reason(command: str) -> str | None:
    return next((why for part, why in NOT_RUN.items() if part in command), None)


def write_run_files(page: Path, folder: Path) -> None:
    """Write the blocks whose first line names them, ``# my-run.yaml``, and a my-run.yaml in any case."""
    sources = [{"kind": "table", "path": name} for name in ("corpus.tsv", "ours.tsv")]
    (folder / "my-run.yaml").write_text(json.dumps(BASE | {"data": {"train": sources}}))
    for block in blocks(page):
        if block.language == "yaml" and (named := re.match(r"# ([\w-]+\.yaml)\b", block.text)):
            (folder / named[1]).write_text(block.text)


def smaller(words: list[str]) -> list[str]:
    """Return a command that trains with two steps, and few examples held out."""
    more = {
        "verify": ["--sentences", "2"],
        "generate": ["--max-new-tokens", "3"],
        "checklist": ["--sentences", "4"],
        "explain": ["--sentences", "3"],
    }.get(words[0])
    if more is not None:
        return words if more[0] in words else [*words, *more]
    if words[0] not in ("train", "search-mixture"):
        return words
    added = [
        "train.budget={kind: steps, steps: 2}",
        "train.batch_tokens=200",
        "train.validate_every=2",
        "train.samples=0",
    ]
    if "--resume" in words:
        return words if any(word.startswith("train.budget") for word in words) else [*words, added[0]]
    plain = load_yaml(Path(words[1])) if words[1].endswith(".yaml") and Path(words[1]).exists() else {}
    kind = plain.get("data", {}).get("kind", "pairs")
    if kind not in ("pairs", "texts", "instructions") or str(plain.get("preset")).startswith("towers"):
        added += ["data.hold_out.test=5", "data.hold_out.valid=5"]
    return [*words, *added]


def run(command: str, monkeypatch) -> int:
    """Run a line of a shell in this process: words in quotes, patterns, and what stands in for input and output."""
    if " | " in command:
        fill, _, command = command.partition(" | ")
        monkeypatch.setattr("sys.stdin", _input(piped(fill)))
    words = shlex.split(command, comments=True)
    for sign in ("<", ">"):
        if sign in words:
            at = words.index(sign)
            if sign == "<":
                monkeypatch.setattr("sys.stdin", _input(Path(words[at + 1]).read_bytes()))
            words = words[:at] + words[at + 2 :]
    quoted = [text for _, text in re.findall(r"""(['"])(.*?)\1""", command)]
    words = [
        found
        for word in words[1:]
        for found in (sorted(glob.glob(word)) if "*" in word and "=" not in word and word not in quoted else [word])
    ]
    if words[0] == "train" and "--resume" not in words:
        return train(words)
    if words[0] == "import" and "--run" not in words:
        shutil.rmtree(Path("imported") / Path(words[1]).name, ignore_errors=True)
    return main(smaller(words))


def train(words: list[str]) -> int:
    """Train for two steps. A run that the documents also name stays the world's, whose answers are short."""
    folder = Path("runs") / Path(words[2 if "--pairs" in words else 1].partition(",")[0]).stem
    before = folder.with_name(folder.name + ".before")
    if folder.exists():
        folder.rename(before)
    code = main(smaller(words))
    if before.exists():
        shutil.rmtree(folder, ignore_errors=True)
        before.rename(folder)
    return code


def piped(fill: str) -> bytes:
    program, name = fill.split()
    assert program == "zcat"
    return gzip.decompress(Path(name).read_bytes())


def _input(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page, here, predicted_once, monkeypatch, capsys):
    for name, toy in docs_world.toy_presets(here).items():
        monkeypatch.setitem(PRESETS, name, toy)
    write_run_files(page, here)
    failed = []
    for command in commands(page):
        if reason(command) is not None:
            continue
        for long, short in SMALLER.items():
            command = command.replace(long, short)
        monkeypatch.setattr("sys.stdin", _input(b"a dog\n"))
        capsys.readouterr()
        code = run(command, monkeypatch)
        err = capsys.readouterr().err.strip()
        refused = code == 2 and any(name in command and why in err for name, why in REFUSED.items())
        if code and not refused and not (code == 1 and any(name in command for name in EXIT_1)):
            failed.append(f"{command}\n    exit {code}: {err[-400:]}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_options_and_targets_on_a_page_exist(page):
    for command in commands(page) + inline(page):
        words = shlex.split(command.partition(" | ")[2] or command, comments=True)
        check = {"dragoman": _check_options, "make": _check_target, "python": _check_script, "pip": _check_extras}
        if words[0] in check:
            check[words[0]](words, command)


@cache
def command_line() -> Any:
    return get_command(app)


def _check_options(words: list[str], command: str) -> None:
    found = command_line()
    known = {"--help", "--version", "--quiet", "--log", "-h"}
    for word in words[1:]:
        if hasattr(found, "commands"):
            if word.startswith("-"):
                continue
            assert word in found.commands, f"{command}: no command {word}"
            found = found.commands[word]
            known |= {name for option in found.params for name in (*option.opts, *option.secondary_opts)}
        elif word.startswith("-") and len(word) > 1 and not re.match(r"-\d", word):
            assert word.partition("=")[0] in known, f"{command}: no option {word}"


def _check_target(words: list[str], command: str) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert any(word in targets for word in words[1:]), command


def _check_script(words: list[str], command: str) -> None:
    assert (ROOT / words[1]).exists() or words[1].startswith("-"), command


def _check_extras(words: list[str], command: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "dragoman" not in command, f"{command}: the package is on no index"
    for name in re.findall(r"\[([\w,]+)\]", command):
        assert set(name.split(",")) <= set(extras), command


def test_what_the_python_of_a_page_imports_exists():
    for page in PAGES:
        for block in blocks(page):
            if block.language == "python":
                for line in re.findall(r"^from dragoman.*", block.text, re.MULTILINE):
                    exec(line, {})


def test_the_python_of_a_page_imports_public_names_from_the_package_itself():
    for page in PAGES:
        for block in blocks(page):
            for names in re.findall(r"^from dragoman\.\S+ import (.*)", block.text, re.MULTILINE):
                inner = set(re.findall(r"\w+", names.partition("#")[0])) & set(dragoman.__all__)
                assert not inner, f"{block}: from dragoman import {', '.join(inner)}"


def anchors(page: Path) -> set[str]:
    """Return what a link to a part of a page may name: its headings, as GitHub spells them, and its own ids."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text), re.MULTILINE)
    spelled = {re.sub(r"[^\w\s-]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}
    return spelled | set(re.findall(r"""\bid=["']?([\w-]+)""", text))


def test_parts_of_pages_that_links_lead_to_exist():
    for page in PAGES:
        for target, part in re.findall(r"(?<!`)\[[^\]`]*\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text()):
            where = page.parent / target if target else page
            if not target.startswith("http") and where.suffix == ".md":
                assert part in anchors(where), f"{page.name}: {target}#{part}"


def test_links_and_files_named_on_the_pages_exist():
    for page in PAGES:
        text = page.read_text()
        for target in re.findall(r"(?<!`)\[[^\]`]*\]\(([^)#\s]+)", text):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
        for name in re.findall(r"`((?:src|tests|benchmarks|docs)/[\w./-]+)`", text):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def rows_of(heading: str) -> str:
    """Return the rows of the table below a heading of the commands' page."""
    text = (ROOT / "docs/commands.md").read_text()
    return text.partition(f"### {heading}\n")[2].partition("\n#")[0]


def test_every_extra_is_in_the_table_of_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {name for row in re.findall(r"^\| (`.*?) \|", rows_of("Extras"), re.MULTILINE) for name in row.split(", ")}
    assert named == {f"`{name}`" for name in extras if name != "dev"}


def test_every_environment_variable_of_ours_is_in_the_table():
    sources = "\n".join(path.read_text() for path in (ROOT / "src/dragoman").rglob("*.py"))
    for name in set(re.findall(r"\bDRAGOMAN_[A-Z]+\b", sources)) - {MEETING}:  # which processes set for each other
        assert f"| `{name}` |" in rows_of("Environment variables"), name


def test_every_command_is_on_the_page_of_commands():
    headings = " ".join(re.findall(r"^## (dragoman .*)$", (ROOT / "docs/commands.md").read_text(), re.MULTILINE))
    for name, command in get_command(app).commands.items():
        assert command.hidden or re.search(rf"\b{name}\b", headings), name


def test_every_family_that_is_imported_is_on_its_page():
    page = (ROOT / "docs/bring-your-checkpoint.md").read_text()
    for family in FAMILIES:
        assert any(f"`{name}`" in page for name in family.architectures), family.name


def test_what_is_not_run_says_why():
    everything = "\n".join(command for page in PAGES for command in commands(page) + inline(page))
    for part, why in NOT_RUN.items():
        assert why and part in everything, part


# ---- run files are read by the program ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_run_files_of_a_page_are_read(page, world, monkeypatch):
    monkeypatch.chdir(world)
    for block in blocks(page):
        if block.language != "yaml":
            continue
        plain = load_yaml(block.text)
        if "preset" not in plain and "start_from" not in plain:
            plain = merge(_base_for(plain), plain)
        try:
            cfg = recipe.load(plain)
            task_data_for(cfg).check(cfg)
        except ConfigError as error:
            pytest.fail(f"{block}: {error}")


def _base_for(plain: dict[str, Any]) -> dict[str, Any]:
    """Return what a part of a run file is laid over."""
    kind = plain.get("data", {}).get("kind", "pairs")
    task = plain.get("task")
    task = task["kind"] if isinstance(task, dict) and "kind" in task else task
    preset = {"denoising": "denoiser-small"}.get(str(task)) or {"texts": "lm-small", "instructions": "lm-small"}.get(
        kind
    )
    base = {"preset": preset or "transformer-tiny"}
    if preset == "denoiser-small" and "data" not in plain:
        return base | {"data": {"kind": "texts", "files": ["input.txt"]}}
    return base if "data" in plain and ("train" in plain["data"] or "files" in plain["data"]) else BASE | base


@pytest.mark.parametrize("text", re.findall(r"`(\{kind: [^`]*\})`", (ROOT / "docs/train.md").read_text()))
def test_a_choice_in_the_tables_of_training_is_one(text):
    kind = load_yaml(text)["kind"]
    places = {"train.budget": Budget, "train.schedule": Schedule, "tokenizer": TokenizerConfig}
    (place,) = (place for place, union in places.items() if kind in map(kind_of, choices(union)))
    recipe.load(BASE, [f"{place}={text}"])
