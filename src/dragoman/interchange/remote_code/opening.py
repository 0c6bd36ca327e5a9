"""The model class of a folder with code, for the comparison with the run."""

import importlib
import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from dragoman.json_files import read_json

_NUMBERS = itertools.count()


def open_with_code(folder: Path) -> Any:
    """Return the class of the model in ``folder``, from the code there, without a copy in transformers' cache."""
    name = f"_exported_{next(_NUMBERS)}"
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the folder holds what was written, and no more
    sys.modules[name] = package
    importlib.invalidate_caches()  # Python may know a folder of this path from before its files were written
    try:
        code = importlib.import_module(f"{name}.modeling_dragoman")
    finally:
        sys.dont_write_bytecode = writes
        for known in [known for known in sys.modules if known.partition(".")[0] == name]:
            del sys.modules[known]
    return getattr(code, read_json(folder / "config.json")["architectures"][0])
