"""Start several processes of one command on this machine, as torchrun does, and wait for all of them.

Each runs in its own session, so Ctrl-C reaches this process alone, which forwards it once. If this process is killed,
Linux sends SIGTERM to the others. They meet in a file: no port is needed.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dragoman.errors import ConfigError

MEETING = "DRAGOMAN_MEETING"
"""Environment variable with the file in which the processes of one machine find one another."""
STOPPED = 130
"""Exit code of a process that was asked to stop and has saved."""
LEFT = 75
"""Exit code of a process that leaves because another one was killed, which ``launch`` reports."""
TIMEOUT = "DRAGOMAN_TIMEOUT"
"""Environment variable with the seconds that processes wait for one that is alive and does not answer; 600 if not
set."""
MOST_SECONDS = 1_000_000
"""Longest wait; far longer ones do not fit into the process group's clock."""
GRACE, LAST_GRACE = 60.0, 10.0
"""Seconds that the other processes get to leave by themselves once one has failed, and then after SIGTERM."""


def in_a_group() -> bool:
    """Return True if this process is one of several started by ``launch``, torchrun or a person."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def leave(code: int) -> NoReturn:
    """End this process at once, including other threads.

    A thread of gloo may still be releasing its last tensor, or one of ``tokenizers`` may be training a vocabulary that
    nobody waits for. If Python shuts down meanwhile, that thread aborts the process, and the caller sees a failure
    although the work is done.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream:  # None where it is closed
            with suppress(OSError):
                stream.flush()
    os._exit(code)


def timeout_seconds() -> float:
    """Return the seconds that processes wait for one that is alive and does not answer.

    Raises:
        ConfigError: the environment variable is no positive number.
    """
    given = os.environ.get(TIMEOUT, "600")
    with suppress(ValueError):
        if 0 < (seconds := float(given)) <= MOST_SECONDS:
            return seconds
    raise ConfigError(f"{TIMEOUT}: {given!r} is no number of seconds up to {MOST_SECONDS:,}: write 600 for ten minutes")


def lost_mark(meeting: str | Path) -> Path:
    """Return the file that ``launch`` makes when a process has failed, beside the one in which they meet."""
    return Path(f"{meeting}.lost")


def launch(command: Sequence[str], count: int) -> list[int]:
    """Run ``command`` as ``count`` processes and return their exit codes, negative for the signal that killed one.

    If one fails, the others get ``GRACE`` seconds to leave; then they are terminated, and ``LAST_GRACE`` seconds later
    killed.

    Raises:
        ConfigError: as ``timeout_seconds``.
    """
    timeout_seconds()  # here, so that a mistake is reported once
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        processes: list[subprocess.Popen[bytes]] = []

        def forward(number: int, frame: FrameType | None) -> None:
            for process in processes:
                process.send_signal(number)

        before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            for rank in range(count):
                environment = os.environ | _environment(rank, count, meeting)
                processes.append(
                    subprocess.Popen(
                        command, env=environment, start_new_session=True, preexec_fn=_die_with_parent(os.getpid())
                    )
                )
            return _wait_for_all(processes, lost_mark(meeting))
        finally:
            for process in processes:
                process.kill()
            for number, handler in before.items():
                signal.signal(number, handler)


def _environment(rank: int, count: int, meeting: Path) -> dict[str, str]:
    """Return the variables torchrun would set, with an equal number of cores for each process."""
    threads = str(max(1, (os.cpu_count() or 1) // count))
    loopback = "lo" if sys.platform == "linux" else "lo0"  # whatever the machine's name resolves to
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        MEETING: str(meeting),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", loopback),
    }


def _die_with_parent(parent: int) -> Callable[[], None]:
    def tie() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:  # the parent died before prctl took effect
                os.kill(os.getpid(), signal.SIGTERM)

    return tie


def _wait_for_all(processes: Sequence[subprocess.Popen[bytes]], lost: Path) -> list[int]:
    failed_at, terminated = None, False
    while None in (codes := [process.poll() for process in processes]):  # all are asked: any of them may have ended
        if failed_at is None and any(code not in (None, 0, STOPPED, LEFT) for code in codes):
            failed_at = time.monotonic()
            lost.touch()
        waited = 0.0 if failed_at is None else time.monotonic() - failed_at
        if waited > GRACE and not terminated:
            terminated = True
            for process in processes:
                process.terminate()
        if waited > GRACE + LAST_GRACE:
            for process in processes:
                process.kill()
        time.sleep(0.05)
    return [process.returncode for process in processes]
