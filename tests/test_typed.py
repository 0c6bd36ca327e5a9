"""The public names are typed: uses of them pass the strictest check of a type checker."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.slow
def test_uses_of_the_public_names_pass_pyright_in_its_strictest_mode(tmp_path):
    pytest.importorskip("pyright")
    shutil.copy(TESTS / "typed_use.py", tmp_path)
    settings = {"include": ["typed_use.py"], "extraPaths": [str(TESTS.parent / "src")], "typeCheckingMode": "strict"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
