"""Measurements of a run, noted in its directory beside what was predicted."""

import json
from pathlib import Path
from typing import Any

import torch

from dragoman import durable
from dragoman.json_files import json_text
from dragoman.plan.memory_here import peak_resident_memory, reset_peak, resident_memory

MEASURED = "measured.json"
"""File in the run directory with what was measured: ``training``, ``decoding`` and ``serving``."""


class MemoryMeter:
    """Meter of the most memory that this process holds, beyond what it held at the beginning.

    On a GPU it is that of PyTorch's allocator.
    """

    def __init__(self, device: torch.device | None = None):
        self.device = device or torch.device("cpu")
        self.before, self.most = 0, 0
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
        else:
            reset_peak()
            self.before = resident_memory() or 0

    def peak(self) -> int | None:
        """Return the bytes until now; None where the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.before
        held = peak_resident_memory()
        return None if held is None else max(0, held - self.before)


def note(run: Path, kind: str, values: dict[str, Any]) -> None:
    """Note what was measured while the run was used as ``kind`` says; earlier notes of that kind are replaced."""
    path = run / MEASURED
    text = json_text(measured(run) | {kind: values}, indent=1) + "\n"
    durable.replace(path, text.encode())


def measured(run: Path) -> dict[str, Any]:
    """Return what has been noted; nothing where the file is missing or damaged."""
    try:
        found = json.loads((run / MEASURED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def size(number: float) -> str:
    """Return a number of bytes as ``1.23 GB`` or ``45 MB``."""
    return f"{number / 1e9:.3g} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
