"""The package as others install it: a wheel and a source archive, whole, without a compiler, with all that it needs."""

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from dragoman.cache_folder import cache_folder

ROOT = Path(__file__).parent.parent
TEXT = cache_folder() / "wheels" / "homeassistant-2026.11.0"
pytest.importorskip("build")
pytestmark = pytest.mark.slow


def run(*words: object, **environment: str) -> str:
    without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # which may name a checkout
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, env=without | environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, Path]:
    """Build in a copy of the tree, from nothing but what is in it."""
    copied, out = tmp_path_factory.mktemp("tree") / "dragoman", tmp_path_factory.mktemp("dist")
    for name in ("src", "README.md", "LICENSE", "pyproject.toml"):
        path, ignored = ROOT / name, shutil.ignore_patterns("__pycache__", "*.egg-info")
        if path.is_dir():
            shutil.copytree(path, copied / name, ignore=ignored)
        else:
            shutil.copy(path, copied / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copied)
    return {path.suffix: path for path in out.iterdir()}


@pytest.fixture(scope="module")
def python(archives, tmp_path_factory) -> Path:
    """An environment with the wheel, which sees the packages of this one but not its checkout."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    interpreter = folder / "bin" / "python"
    site = run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    install = ("--python", interpreter, "install", "--quiet", "--no-deps", "--no-index")
    run(sys.executable, "-m", "pip", *install, archives[".whl"])
    (Path(site) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


def test_both_archives_hold_every_file_of_the_package(archives):
    with zipfile.ZipFile(archives[".whl"]) as wheel, tarfile.open(archives[".gz"]) as source:
        in_wheel = set(wheel.namelist())
        in_source = {name.partition("/src/")[2] for name in source.getnames() if "/src/dragoman/" in name}
    files = (path for path in (ROOT / "src" / "dragoman").rglob("*") if path.is_file())
    wanted = {str(path.relative_to(ROOT / "src")) for path in files if "__pycache__" not in path.parts}
    assert not wanted - in_wheel and not wanted - in_source


def test_the_index_would_take_them(archives):
    pytest.importorskip("twine")
    run(sys.executable, "-m", "twine", "check", "--strict", *archives.values())


def test_the_metadata_is_complete(archives):
    with zipfile.ZipFile(archives[".whl"]) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(wheel.read(name))
        entry = wheel.read(name.replace("METADATA", "entry_points.txt")).decode()
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["Name"] == "dragoman" and metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Summary"] and "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "dragoman = dragoman.cli:command" in entry
    needed = [re.split(r"[<>=; \[]", line)[0] for line in metadata.get_all("Requires-Dist", []) if "extra" not in line]
    assert sorted(needed) == sorted(re.split(r"[<>=; \[]", line)[0] for line in stated["dependencies"])


def test_it_installs_from_source_and_is_imported_from_there(python, archives, tmp_path):
    code = "import dragoman, sys; print(dragoman.__version__, dragoman.__file__); from dragoman import Translator"
    version, place = run(python, "-I", "-c", code).split()
    assert version and Path(place).is_relative_to(python.parent.parent)
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", tmp_path)
    run(sys.executable, "-m", "pip", "install", *options, archives[".gz"])
    assert (tmp_path / "dragoman" / "py.typed").exists() and (tmp_path / "dragoman" / "native" / "tower.c").exists()


def test_the_demo_runs_in_a_clean_environment_without_a_compiler(python, tmp_path):
    if not TEXT.is_dir():
        pytest.skip("the demo's text is not in the cache")
    cache = tmp_path / "cache" / "wheels"
    cache.mkdir(parents=True)
    (cache / TEXT.name).symlink_to(TEXT)
    said = run(
        python.with_name("dragoman"), "demo", "--minutes", "0.1", "--run", tmp_path / "run",
        PATH=str(python.parent), DRAGOMAN_CACHE=str(tmp_path / "cache"), XDG_CACHE_HOME=str(tmp_path / "kernels"),
    )  # fmt: skip
    assert "And yours" in said and (tmp_path / "run" / "report.html").exists()
    assert not list((tmp_path / "kernels").rglob("*.so"))
