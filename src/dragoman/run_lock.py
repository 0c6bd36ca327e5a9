"""Lock of a run directory: any number of processes may read it, and one at a time may write."""

import os
import time
from pathlib import Path

from dragoman.errors import CheckpointError

LOCK = ".lock"
SECONDS_TO_CLAIM = 1.0
"""Time in which a lock that only a question holds (``is_held``) has certainly been given back."""


class RunLock:
    """Lock of the run at ``path``, held until ``release`` or the end of the process."""

    def __init__(self, path: Path):
        self.path, self.file = path, path / LOCK
        self._handle: int | None = None

    def claim(self) -> None:
        """Lock the run for this process.

        Raises:
            CheckpointError: another process has locked it.
            OSError: the lock cannot be written.
        """
        import fcntl  # here, so that reading works where there is none

        self._handle = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
        end = time.monotonic() + SECONDS_TO_CLAIM
        while True:
            try:
                return fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    self.release()
                    busy = f"{self.path}: another process is training here: wait for it, or stop it"
                    raise CheckpointError(busy) from None
            time.sleep(0.02)

    def is_held(self) -> bool:
        """Return whether a process has locked the run. Asking takes the lock for a moment."""
        import fcntl

        try:
            with self.file.open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def release(self) -> None:
        """Unlock the run for other writers."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
