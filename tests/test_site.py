"""The site of the documents: every public name is in its reference, every link leads somewhere, nothing is fetched."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import dragoman

ROOT = Path(__file__).parent.parent
REFERENCE = "\n".join(path.read_text() for path in sorted((ROOT / "docs" / "api").glob("*.md")))


def test_every_public_name_is_in_the_reference():
    listed = {line.rpartition(".")[2] for line in re.findall(r"^::: (\S+)$", REFERENCE, re.MULTILINE)}
    errors = {name for name in dragoman.__all__ if issubclass(_class_of(name), Exception)}  # listed as a module
    assert not set(dragoman.__all__) - listed - errors - {"__version__"}
    assert "::: dragoman.errors" in REFERENCE


def _class_of(name: str) -> type:
    value = getattr(dragoman, name)
    return value if isinstance(value, type) else object


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"""<(?:script|img|iframe|link)[^>]+(?:src|href)=["']?(?:https?:)?//[^"'>]+""", text), (
            page
        )
    assert {"index.html", "python.html"} <= {page.name for page in pages}
    assert "Train a model; return its run" in (tmp_path / "api" / "training.html").read_text(encoding="utf-8")
