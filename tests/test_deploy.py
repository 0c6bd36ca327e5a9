"""deploy/: what the Dockerfile and the systemd unit name is there, and the commands in them are commands of ours."""

import ast
import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from typer.main import get_command

from dragoman.cli import app

ROOT = Path(__file__).parents[1]
DOCKERFILE = re.sub(r"\\\n", " ", (ROOT / "deploy" / "Dockerfile").read_text())
UNIT = re.sub(r"\\\n", " ", (ROOT / "deploy" / "dragoman.service").read_text())


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def test_what_is_copied_is_there_and_not_ignored():
    kept = [line[1:] for line in (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"]
    copied = [name for line in instructions("COPY") for name in line.split()[:-1]]
    assert copied == ["pyproject.toml", "README.md", "LICENSE", "src"]
    for name in copied:
        assert (ROOT / name).exists() and any(fnmatch(name.removeprefix("./"), pattern) for pattern in kept)


def test_the_installed_extra_is_one_of_ours():
    (extra,) = re.findall(r"'\.\[(\w+)\]'", DOCKERFILE)
    assert extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    "words",
    [
        json.loads(instructions("ENTRYPOINT")[0]),
        shlex.split(re.findall(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)[0]),
    ],
    ids=["Dockerfile", "systemd"],
)
def test_the_command_is_one_of_ours(words):
    assert words[0] == "/opt/dragoman/bin/dragoman" and words[1] == "serve"
    known = {name for option in get_command(app).commands["serve"].params for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_health_check_asks_the_port_that_the_server_listens_on():
    check = json.loads(re.findall(r"CMD (\[.*\])", DOCKERFILE)[0])
    ast.parse(check[-1])
    words = json.loads(instructions("ENTRYPOINT")[0])
    port = words[words.index("--port") + 1]
    assert f"127.0.0.1:{port}/health" in check[-1] and instructions("EXPOSE") == [port]


def test_the_time_to_stop_is_longer_than_the_grace():
    grace, stop = (
        int(re.search(pattern, UNIT)[1])  # pyright: ignore[reportOptionalSubscript]
        for pattern in (r"--grace (\d+)", r"TimeoutStopSec=(\d+)")
    )
    assert stop > grace
