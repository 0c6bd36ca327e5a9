"""Memory of this machine and of this process."""

import os
from contextlib import suppress
from pathlib import Path


def available_memory() -> int:
    """Return the bytes that this process may still take: of the machine, or of the container that it runs in."""
    limits = [found for found in (_free_of_machine(), _free_of_container()) if found is not None]
    return min(limits, default=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _free_of_machine() -> int | None:
    """Return what Linux says is available without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None


def _free_of_container(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return what the limit of a control group (version 2) leaves; the file cache can be given back."""
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cache = next((int(x.split()[1]) for x in (folder / "memory.stat").open() if x.startswith("file ")), 0)
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - int(used) + cache)


def resident_memory() -> int | None:
    """Return the bytes of memory that this process holds now; None where the system does not tell."""
    return _status("VmRSS:")


def peak_resident_memory() -> int | None:
    """Return the most bytes of memory that this process held at once; None where the system does not tell."""
    return _status("VmHWM:")


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(name)]
    return 1024 * int(found[0]) if found else None


def reset_peak() -> None:
    """Let ``peak_resident_memory`` begin anew, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
