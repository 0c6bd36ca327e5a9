"""Checkpoints on disk: tensors, progress and configuration, with a manifest of their sizes and hashes.

The manifest contains a checksum of itself, so that any changed bit of a checkpoint is detected.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from dragoman import durable
from dragoman.migrations import FORMAT, Content, migrate

MANIFEST = "manifest.json"


def step_name(step: int) -> str:
    """Return the folder name of the checkpoint after ``step`` steps: ``step-000500``."""
    return f"step-{step:06d}"


class Damaged(Exception):
    """Checkpoint whose files do not match its manifest; the message opens with the file."""


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoint on disk."""

    path: Path

    @property
    def step(self) -> int | None:
        """Number of steps trained; None for a checkpoint with another name, such as an average of several."""
        found = re.fullmatch(r"step-(\d{6,})", self.path.name)
        return int(found[1]) if found else None

    def write(
        self,
        tensors: Mapping[str, Mapping[str, Tensor] | Path],
        progress: Mapping[str, Any],
        config: Mapping[str, Any],
        *,
        beside: Iterable[Path],
    ) -> None:
        """Write the checkpoint into the empty folder ``path``; ``beside`` are the files of the run that it requires.

        A path among ``tensors`` is a safetensors file on the same disk, which is moved into the folder.
        """
        files = {}

        def write(name: str, content: bytes) -> None:
            files[name] = _describe(content)
            durable.write(self.path / name, content)

        for part, named in tensors.items():
            if isinstance(named, Path):
                files[f"{part}.safetensors"] = _describe_file(named)
                os.rename(named, self.path / f"{part}.safetensors")
            else:
                write(f"{part}.safetensors", encode(named))
        write("config.json", _json(config))
        write("progress.json", _json(progress))
        manifest = {
            "format": FORMAT,
            "dragoman": version("dragoman"),
            "parts": list(tensors),
            "files": files,
            "beside": {path.name: _describe_unchanged(path, path.stat().st_mtime_ns) for path in beside},
        }
        durable.write(self.path / MANIFEST, _json(manifest | {"seal": _seal(manifest)}))

    def manifest(self) -> dict[str, Any]:
        """Return the manifest.

        Raises:
            Damaged: there is no manifest, or it does not match its own checksum.
        """
        path = self.path / MANIFEST
        try:
            sealed = json.loads(path.read_bytes())
            seal = sealed.pop("seal")
        except (OSError, ValueError, AttributeError, KeyError):
            raise Damaged(f"{path}: missing or unreadable") from None
        if seal != _seal(sealed):
            raise Damaged(f"{path}: damaged, its checksum differs")
        return sealed

    def seal(self) -> str:
        """Return a checksum of the complete checkpoint, from before any parts were dropped.

        Raises:
            Damaged: same as ``manifest``.
        """
        manifest = self.manifest()
        return manifest.get("sealed", _seal(manifest))

    def drop(self, part: str) -> None:
        """Remove the tensors of ``part``: first from the manifest, atomically, and then the file.

        Raises:
            Damaged: same as ``manifest``.
        """
        manifest, name = self.manifest(), f"{part}.safetensors"
        if name in manifest["files"]:
            left: dict[str, Any] = {"sealed": _seal(manifest)} | manifest
            left["parts"] = [other for other in manifest["parts"] if other != part]
            left["files"] = {file: found for file, found in manifest["files"].items() if file != name}
            durable.replace(self.path / MANIFEST, _json(left | {"seal": _seal(left)}))
        (self.path / name).unlink(missing_ok=True)

    def verify(self) -> dict[str, Any]:
        """Check every file against the manifest, and return the manifest.

        Raises:
            Damaged: a file is missing, or its size or hash differs.
        """
        manifest = self.manifest()
        for name, expected in manifest["files"].items():
            _verify(self.path / name, expected)
        for name, expected in manifest["beside"].items():
            _verify(self.path.parent.parent / name, expected)
        return manifest

    def load(self, parts: Iterable[str] | None = None) -> Content:
        """Verify the checkpoint, then read the tensors of ``parts`` (None for all).

        Raises:
            Damaged: same as ``verify``.
            CheckpointError: a format that this version does not read.
        """
        manifest = self.verify()
        there: list[str] = manifest["parts"]
        wanted = there if parts is None else [part for part in parts if part in there]
        content = Content(
            config=json.loads((self.path / "config.json").read_bytes()),
            progress=json.loads((self.path / "progress.json").read_bytes()),
            tensors={part: read_tensors(self.path / f"{part}.safetensors") for part in wanted},
        )
        return migrate(content, manifest["format"], str(self.path))


def _verify(path: Path, expected: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise Damaged(f"{path}: missing")
    if (size := path.stat().st_size) != expected["size"]:
        raise Damaged(f"{path}: damaged, {size} bytes where {expected['size']} were written")
    if _describe_file(path) != expected:
        raise Damaged(f"{path}: damaged, its sha256 is not the one in {MANIFEST}")


def _seal(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _describe(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _describe_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


@lru_cache(maxsize=8)
def _describe_unchanged(path: Path, modified: int) -> dict[str, Any]:
    """Describe a file required by many checkpoints, perhaps a large one: read once per ``modified`` time."""
    return _describe_file(path)


def encode(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as safetensors; identical ones, such as tied weights, are stored once under all their names."""
    kept, first, aliases = {}, {}, {}
    for name, tensor in tensors.items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name
        if place in first:
            aliases[name] = first[place]
            continue
        first[place] = name
        own = tensor.detach().cpu().contiguous()
        # safetensors would save the base of a view too
        kept[name] = own if own.untyped_storage().nbytes() == own.nbytes else own.clone()
    return safetensors.torch.save(kept, {"aliases": json.dumps(aliases)})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors from a file made by ``encode``."""
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
        aliases = json.loads((file.metadata() or {}).get("aliases", "{}"))
    return tensors | {alias: tensors[name] for alias, name in aliases.items()}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in a file made by ``encode``."""
    with safetensors.safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118, not a dict
        aliases = json.loads((file.metadata() or {}).get("aliases", "{}"))
    return shapes | {alias: shapes[name] for alias, name in aliases.items()}


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"
