"""The name of the processor, for the heads of results, and what is measured on it. Nothing to run by itself."""

import argparse
import platform
from functools import cache
from pathlib import Path

from dragoman.machine import onednn_has

UNITS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "i8mm", "bf16", "sve")
"""Instructions that products use, by their names in /proc/cpuinfo."""


@cache
def processor() -> str:
    """Return its model, its generation where the model's name hides it, and what it multiplies with."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in info.split("\n\n")[0].splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    flags = found.get("flags", found.get("Features", "")).split()
    generation = _zen(found.get("vendor_id"), found.get("cpu family"), flags)
    known = [part for part in (generation, ", ".join(unit for unit in UNITS if unit in flags)) if part]
    name = found.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({'; '.join(known)})" if known else name


def _zen(maker: str | None, family: str | None, flags: list[str]) -> str:
    """Return the generation of a processor of AMD, whose model may be no more than "AMD EPYC"."""
    if maker != "AuthenticAMD":
        return ""
    return {"25": "Zen 4" if "avx512f" in flags else "Zen 3", "26": "Zen 5"}.get(family or "", "")


PRECISIONS = ("float32", "bfloat16")


def add_precisions(parser: argparse.ArgumentParser) -> None:
    """Add an option that by default leaves out bfloat16 where oneDNN has none: a step takes a minute, or fails."""
    known = [precision for precision in PRECISIONS if onednn_has(precision)]
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=known or ["float32"])
