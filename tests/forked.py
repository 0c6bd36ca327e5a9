"""Commands as forks of a process that has imported torch, where a new interpreter is not what a test is about.

A fork begins in milliseconds; a new interpreter spends two seconds of a core on importing torch and this package.
"""

import os
import runpy
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

PRELOADED = ["torch", "dragoman.train.run", "dragoman.decode.translator", "dragoman.cli", "dragoman.cli.train"]
PRELOADED += ["torch._dynamo", "rich.progress", "ruamel.yaml", "sentencex", "numpy.ma"]
"""All that a training imports, also at its end."""

KEPT: list[Any] = []
"""Streams that would close what they write to if nobody held them."""


def server() -> Any:
    """Return the context whose processes are forks of one that has imported torch."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Command:
    """A command as a fork of the server, with what it has written so far; as ``subprocess.Popen``.

    Processes that it launches are forks of it, or new interpreters as usual.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], fork_launched: bool = True):
        self.folder = tempfile.TemporaryDirectory()
        self.files = [str(Path(self.folder.name, name)) for name in ("out", "err")]
        self.process = server().Process(
            target=_begin, args=(list(command), dict(env), fork_launched, *self.files), daemon=False
        )
        self.process.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for the end, and return what was written to standard output and error."""
        self.process.join(timeout)
        assert self.poll() is not None, "it took too long"
        out, err = (Path(file).read_text() for file in self.files)
        return out, err

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self.send_signal(signal.SIGTERM)
        self.process.join(60)
        self.process.kill()
        self.process.join()
        self.folder.cleanup()


def run(command: Sequence[str], env: Mapping[str, str], timeout: float, **how: bool) -> SimpleNamespace:
    """Run a command to its end; as ``subprocess.run``."""
    with Command(command, env, **how) as process:
        out, err = process.communicate(timeout)
        return SimpleNamespace(returncode=process.returncode, stdout=out, stderr=err)


def _begin(command: Sequence[str], env: Mapping[str, str], fork_launched: bool, *files: str) -> NoReturn:
    for number, name in enumerate(files, 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    if fork_launched:
        fork_what_is_launched()
    interpret(command, env)


def fork_what_is_launched() -> None:
    """Let ``launch`` fork its processes from this one."""
    from dragoman.train.distributed import launch

    launch.subprocess = SimpleNamespace(Popen=Forked)  # pyright: ignore[reportAttributeAccessIssue]


class Forked:
    """A stand-in for ``subprocess.Popen`` of ``python -m MODULE``, ``python -c CODE`` or ``python FILE``."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        start_new_session: bool = False,
        preexec_fn: Callable[[], None] | None = None,
        stdout: int = 1,
    ):
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(stdout, 1)
            if start_new_session:
                os.setsid()
            if preexec_fn is not None:
                preexec_fn()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            interpret(command, env)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def output_of(command: Sequence[str]) -> str:
    """Run a command as a fork of this process, which must not have computed yet, and return its standard output."""
    with tempfile.TemporaryFile("w+") as file:
        process = Forked(command, os.environ, stdout=file.fileno())
        assert os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) == 0, command
        file.seek(0)
        return file.read()


def interpret(command: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Do in this process what a new interpreter does with a command, and leave with its exit code."""
    given = dict(env)
    os.environ.clear()
    os.environ.update(given)
    KEPT.extend([sys.stdout, sys.__stdout__, sys.stderr, sys.__stderr__])
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, closefd=False)
    code: Any = 1
    try:
        code = _run(command)
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0))


def _run(command: Sequence[str]) -> int:
    _, way, *others = map(str, command)
    if way == "-m":
        sys.argv = others
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    elif way == "-c":
        sys.argv = ["-c", *others[1:]]
        exec(others[0], {"__name__": "__main__"})
    else:
        sys.argv = [way, *others]
        sys.path.insert(0, str(Path(way).parent))
        runpy.run_path(way, run_name="__main__")
    return 0
