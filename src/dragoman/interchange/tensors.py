"""Tensors on disk, one at a time: reading a folder of shards, and writing one file without holding it in memory.

The format is safetensors (a header of names, types, shapes and places, then the bytes). `.bin` files are read through
PyTorch's loader for weights alone, which runs no code.
"""

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from dragoman.errors import CheckpointError
from dragoman.json_files import read_json

Report = Callable[[int, int], None]
"""Called with the number done and the number in all."""

_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
_FLOATS = frozenset(_TYPES.values())

# ---- reading ---------------------------------------------------------------------------------------


class TensorShards:
    """The tensors of a folder by name; use as a context, which holds its files open."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: dict[str, str] = {}
        """Mapping from names to files."""
        self._open: dict[str, Any] = {}
        self._held = ExitStack()

    def __enter__(self) -> "TensorShards":
        for index, single in (("model.safetensors.index.json", "model.safetensors"),
                              ("pytorch_model.bin.index.json", "pytorch_model.bin")):  # fmt: skip
            if (self.folder / index).is_file():
                self._read_index(index)
                return self
            if (self.folder / single).is_file():
                self.names = dict.fromkeys(self._file(single).keys(), single)
                return self
        raise CheckpointError(
            f"{self.folder}: no weights here: neither model.safetensors nor its index, nor .bin files"
        )

    def __exit__(self, *error: object) -> None:
        self._open.clear()
        self._held.close()

    def _read_index(self, index: str) -> None:
        self.names = read_json(self.folder / index).get("weight_map", {})
        files = sorted(set(self.names.values()))
        if missing := [file for file in files if not (self.folder / file).is_file()]:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise CheckpointError(
                f"{self.folder / missing[0]}: missing{more}: {index} names {len(files)} files; fetch them all"
            )
        for name, file in self.names.items():
            if name not in self._file(file).keys():  # noqa: SIM118, not a dict
                raise CheckpointError(f"{self.folder / file}: has no tensor {name}, which {index} lists for it")

    def _file(self, name: str) -> Any:
        if name not in self._open:
            path = self.folder / name
            self._open[name] = _load_bin(path) if path.suffix == ".bin" else self._held.enter_context(_open(path))
        return self._open[name]

    def shape(self, name: str) -> tuple[int, ...]:
        file = self._file(self.names[name])
        return tuple(file[name].shape if isinstance(file, dict) else file.get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """Return the type, read from the header.

        Raises:
            CheckpointError: a type other than floating point, which is a quantized tensor.
        """
        file = self._file(self.names[name])
        found = _TYPES.get(file[name].dtype) if isinstance(file, dict) else file.get_slice(name).get_dtype()
        if found not in _FLOATS:
            raise CheckpointError(
                f"{self.folder / self.names[name]}: {name} is {found or file[name].dtype}: quantized weights are not "
                "read; take the original in float32, float16 or bfloat16"
            )
        return next(dtype for dtype, known in _TYPES.items() if known == found)

    def __getitem__(self, name: str) -> Tensor:
        file = self._file(self.names[name])
        return file[name] if isinstance(file, dict) else file.get_tensor(name)


def _open(path: Path) -> Any:
    try:
        return safetensors.safe_open(path, framework="pt")
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: not a safetensors file: {error}") from None


def _load_bin(path: Path) -> dict[str, Tensor]:
    try:
        return torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
    except Exception as error:  # PyTorch raises pickle's errors, and many others
        if type(error).__name__ == "UnpicklingError":
            raise CheckpointError(
                f"{path}: holds pickled code, or is damaged: refused, since opening it could run anything; "
                "ask for the safetensors files"
            ) from None
        raise CheckpointError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None


# ---- writing ---------------------------------------------------------------------------------------


def write_stream(
    path: Path,
    tensors: Iterable[tuple[str, tuple[int, ...], torch.dtype]],
    produce: Callable[[str], Tensor],
    metadata: Mapping[str, str],
    progress: Report | None = None,
) -> None:
    """Write a safetensors file; ``produce`` is called once for each name, in order, and its tensor is then released."""
    listed, end = list(tensors), 0
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    for name, shape, dtype in listed:
        start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": _TYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for done, (name, shape, dtype) in enumerate(listed, 1):
            tensor = produce(name)
            assert tuple(tensor.shape) == tuple(shape) and tensor.dtype == dtype, name
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            if progress:
                progress(done, len(listed))
