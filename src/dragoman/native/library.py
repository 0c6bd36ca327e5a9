"""Library of C kernels: compiled from the files beside this one, once for each machine, and cached.

``-march=native`` lets the compiler use the processor's instructions (AVX-512, bfloat16 and integer products), so a
library fits one kind of processor: its name contains a hash of the sources, the compiler and the processor. A matrix
unit (AMX) is used if a process that was started for this has multiplied rightly with it.
"""

import ctypes
import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch

from dragoman.cache_folder import cache_folder
from dragoman.errors import ConfigError

SOURCES = tuple(sorted(path.name for path in Path(__file__).parent.glob("*.[ch]")))
NATIVE = "-march=native"
FLAGS = ("-O3", NATIVE, "-std=gnu11", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fPIC")
SWITCH = "DRAGOMAN_KERNELS"
"""Environment variable: one of ``KERNELS``."""
_V3 = ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
LEVELS = {"x86-64-v3": _V3, "x86-64-v4": (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")}
"""Levels of instructions, as compilers name them, and the flags in /proc/cpuinfo that each needs beyond SSE4.2."""
KERNELS = ("on", "off", "vectors", "matrix-unit", "emulated", *LEVELS)
"""``off`` leaves everything to PyTorch; ``vectors`` leaves a matrix unit alone; ``matrix-unit`` uses it for all
products in bfloat16 and int8; ``emulated`` uses one that is emulated, which is slow, so that any machine can test what
it computes; a level uses no instructions but its own, so that a newer machine can test what an older one computes."""
AMX, EMULATED = "-DMATRIX_UNIT=AMX", "-DMATRIX_UNIT=EMULATED"
COMPILE_TIMEOUT = 120
"""Seconds after which compilation fails; it usually takes four."""
PROBE_TIMEOUT = 60
log = logging.getLogger(__name__)


class Unavailable(Exception):
    """The kernels are not available on this machine; the message says why."""


FLOAT32 = "_float32"
"""End of the names of kernels for float32; those without it are for bfloat16."""
_ADDRESS, _NUMBER, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
TRAINING: dict[str, tuple[type, ...]] = {
    "cross_entropy": (_ADDRESS, _ADDRESS, _NUMBER, _NUMBER, _REAL, _NUMBER, _ADDRESS),
    "softmax": (_ADDRESS, _ADDRESS, *[_NUMBER] * 7, _ADDRESS),
    "softmax_gradient": (_ADDRESS, _ADDRESS, _NUMBER, _NUMBER, _ADDRESS),
    "rms_norm": (_ADDRESS, _ADDRESS, _NUMBER, _NUMBER, _REAL, _ADDRESS, _ADDRESS),
    "rms_norm_gradient": (*[_ADDRESS] * 5, _NUMBER, _NUMBER, _ADDRESS, _ADDRESS),
    "add_dropped": (_ADDRESS, _ADDRESS, _NUMBER, _REAL, _ADDRESS, _ADDRESS),
    "add_dropped_gradient": (_ADDRESS, _NUMBER, _ADDRESS, _ADDRESS),
    "add_layer_norm": (_ADDRESS, _ADDRESS, _REAL, *[_ADDRESS] * 3, _NUMBER, _NUMBER, _REAL, *[_ADDRESS] * 4),
    "add_layer_norm_gradient": (*[_ADDRESS] * 5, _REAL, _ADDRESS, _NUMBER, _NUMBER, *[_ADDRESS] * 4),
    "silu_gate": (_ADDRESS, _ADDRESS, _NUMBER, _ADDRESS),
    "silu_gate_gradient": (*[_ADDRESS] * 3, _NUMBER, _ADDRESS, _ADDRESS),
    "dropout": (_ADDRESS, _NUMBER, _ADDRESS, _ADDRESS),
    "rotate": (*[_ADDRESS] * 3, *[_NUMBER] * 6),
    "flash": (_ADDRESS,),
    "flash_gradient": (_ADDRESS,),
}
"""Arguments of the kernels of a training step that there are for bfloat16 and for float32."""
RETURNS = {"cross_entropy": _NUMBER}
"""Types that some of them return."""


class Library:
    """Functions exported by the C files. Tensors are passed as addresses: contiguous, on the CPU, of the type in C."""

    def __init__(self, path: Path):
        dll, address, number = ctypes.CDLL(str(path)), _ADDRESS, _NUMBER
        self.linear = _typed(dll.linear, address, address, number, address)
        self.run = _typed(dll.run, address, address, address, address, number, address)
        self.encode = _typed(dll.encode, *[address] * 3, *[number] * 3, *[address] * 3, returns=number)
        self.project_sources = _typed(dll.project_sources, address, address, number, address)
        self.partition = _typed(dll.partition, address, number, number, address)
        self.largest = _typed(dll.largest, address, number, number, number, address)
        self.likeliest = _typed(dll.likeliest, address, number, number, number, address, address)
        self.continuations = _typed(dll.continuations, address, address, address, *[number] * 5, *[address] * 3)
        self.beam_step = _typed(dll.beam_step, address)
        self.walk_beam, self.walk_greedy = (_typed(f, address, address) for f in (dll.walk_beam, dll.walk_greedy))
        self.walk_back = _typed(dll.walk_back, number, number, *[address] * 6)
        for name, arguments in TRAINING.items():
            for suffix in ("", FLOAT32):
                found = _typed(getattr(dll, name + suffix), *arguments, returns=RETURNS.get(name))
                setattr(self, name + suffix, found)
        self.add_gradient = _typed(dll.add_gradient, address, address, number, number, number, address, address)
        self.relu_gradient = _typed(dll.relu_gradient, address, address, number, address)
        self.add_narrow = _typed(dll.add_narrow, address, address, number, address)
        self.selective_scan = _typed(dll.selective_scan, address)
        self.selective_scan_gradient = _typed(dll.selective_scan_gradient, address, address)
        self.mamba_step = _typed(dll.mamba_step, *[address] * 3, number, address, number, address, address)
        self.mamba2_step = _typed(dll.mamba2_step, *[address] * 4, number, address, number, address, address)
        self.mamba_block = _typed(dll.mamba_block, *[address] * 3, number, *[address] * 5)
        self.mamba2_block = _typed(dll.mamba2_block, *[address] * 3, number, *[address] * 5)
        self.scan_span, self.scan_slice = int(dll.scan_span()), int(dll.scan_slice())
        """Tokens between the states that a scan keeps; channels whose gradients of b and c it sums."""
        self._threads = _typed(dll.set_threads, number)
        self.panel: int = dll.panel()
        """Number of outputs whose weights are adjacent."""
        self.multiplies_bfloat16 = bool(dll.multiplies_bfloat16())
        """True with an instruction for bfloat16 products; otherwise numbers are converted to float32 first."""
        self.multiplies_matrices = bool(dll.multiplies_matrices())
        """True with instructions for matrix products (AMX), which oneDNN uses and these kernels do not."""
        self.multiplies_whole_numbers = bool(dll.multiplies_whole_numbers())
        self.uses_matrix_unit = bool(dll.use_matrix_unit())
        """True where products in bfloat16, and in int8 of enough rows, are those of a matrix unit."""
        self.use_int8_tiles_from = _typed(dll.set_int8_tiles_from, number)

    def use_torch_threads(self) -> None:
        """Use as many threads as PyTorch does."""
        self._threads(torch.get_num_threads())


def _typed(function, *arguments: type, returns: type | None = None):
    function.argtypes, function.restype = arguments, returns
    return function


_stand_ins: list["Library | None"] = []
"""Libraries that take the place of the kernels while a step is counted; None for no kernels."""


@contextmanager
def standing_in(stand_in: "Library | None") -> Iterator[None]:
    """Let ``stand_in`` take the place of the kernels inside the block; None: there are none."""
    _stand_ins.append(stand_in)
    try:
        yield
    finally:
        _stand_ins.pop()


def library() -> Library:
    """Return the library, compiled first if it is not cached.

    Raises:
        Unavailable: switched off, no compiler, or compilation failed.
        ConfigError: ``DRAGOMAN_KERNELS`` asks for what is not known, or for instructions that are not here.
    """
    if not _stand_ins:
        return _compiled()
    if (stand_in := _stand_ins[-1]) is None:
        raise Unavailable("the step that is counted here runs on another machine")
    return stand_in


def wanted_kernels() -> str:
    """Return what ``DRAGOMAN_KERNELS`` asks for.

    Raises:
        ConfigError: something that is not known.
    """
    found = os.environ.get(SWITCH) or "on"
    if found not in KERNELS:
        raise ConfigError(f"{SWITCH}: there is no {found!r}: choose from {', '.join(KERNELS)}")
    return found


@cache
def _compiled() -> Library:
    wanted = wanted_kernels()
    if wanted == "off":
        raise Unavailable(f"{SWITCH} is off")
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise Unavailable("there is no C compiler")
    flags = _flags(wanted)
    path = cache_folder() / f"kernels-{_fingerprint(compiler, flags)}.so"
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # others may be building it, too
                _build_tried(compiler, flags, Path(folder) / path.name)
                os.replace(Path(folder) / path.name, path)
        found = Library(path)
    except (OSError, AttributeError) as error:
        raise Unavailable(f"the kernels in {path.parent} cannot be used: {error}") from None
    except Unavailable as why:
        if wanted not in LEVELS:
            raise
        raise ConfigError(f"{SWITCH}={wanted}: {why}: gcc knows it since version 11, clang since 12") from None
    if wanted == "matrix-unit" and not found.uses_matrix_unit:
        raise ConfigError(f"{SWITCH}: this machine has no matrix unit that the kernels can use: leave it out")
    return found


def _flags(wanted: str) -> tuple[str, ...]:
    """Return the compiler's flags.

    Raises:
        ConfigError: this processor lacks instructions of the level that is asked for.
    """
    if wanted in LEVELS:
        if missing := [name for name in LEVELS[wanted] if name.encode() not in _processor().split()]:
            raise ConfigError(f"{SWITCH}: this processor has no {missing[0]}, which {wanted} needs: leave it out")
        return tuple(f"-march={wanted}" if flag == NATIVE else flag for flag in FLAGS)
    if wanted == "emulated":
        return (*FLAGS, EMULATED)
    has_unit = wanted != "vectors" and b" amx_tile" in _processor()
    return (*FLAGS, AMX) if has_unit else FLAGS


def available() -> bool:
    return _stand_ins[-1] is not None if _stand_ins else unavailable() is None


@cache
def unavailable() -> str | None:
    """Return why the kernels are not available; None where they are. Cached, since a search asks at every step."""
    try:
        _compiled()
    except Unavailable as why:
        return str(why)
    return None


CHOICES = "choices.json"
"""Name of the file that ``cached_choice`` keeps beside the kernels."""


def cached_choice(name: str, measure: Callable[[], str]) -> str:
    """Return the result of ``measure``, kept in a file for this machine, number of threads and torch.

    Measurements vary with the load, and a command must give the same output in every process.
    """
    machine = hashlib.sha256(_processor()).hexdigest()[:16]
    kernels = "" if (wanted := wanted_kernels()) == "on" else f", kernels {wanted}"
    key = f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads, processor {machine}{kernels}"
    path = cache_folder() / CHOICES
    known = _choices(path)
    if key not in known:
        known = {**known, key: measure()}
        with suppress(OSError):  # without the file each process measures anew
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                (Path(folder) / CHOICES).write_text(json.dumps(known, indent=1) + "\n")
                os.replace(Path(folder) / CHOICES, path)
    return known[key]


def _choices(path: Path) -> dict[str, str]:
    """Return the choices in the file; none where it is missing or damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _fingerprint(compiler: str, flags: tuple[str, ...]) -> str:
    parts = [(Path(__file__).parent / name).read_bytes() for name in SOURCES]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False, timeout=COMPILE_TIMEOUT).stdout
    return hashlib.sha256(b"\0".join([*parts, repr(flags).encode(), version, _processor()])).hexdigest()[:16]


def _processor() -> bytes:
    """Return the processor's model and flags, which decide its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor().encode()
    return "\n".join(next((line for line in lines if line.startswith(k)), "") for k in ("model name", "flags")).encode()


def _build_tried(compiler: str, flags: tuple[str, ...], to: Path) -> None:
    """Build the library; without the matrix unit where it turns out not to multiply."""
    log.info("building kernels for this processor, once: this takes some seconds")
    if AMX in flags:
        with suppress(Unavailable):  # compilers before 2020 do not know it
            _build(compiler, flags, to)
            if _multiplies(to):
                return
        flags = FLAGS
        log.info("the processor has a matrix unit, which cannot be used here")
    _build(compiler, flags, to)


def _multiplies(path: Path) -> bool:
    """Return whether the matrix unit multiplies rightly; in another process, which an illegal instruction may end."""
    code = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).use_matrix_unit() != 1)"
    try:
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, timeout=PROBE_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _build(compiler: str, flags: tuple[str, ...], to: Path) -> None:
    """Compile all sources, on all cores, and link them."""

    def compile_one(name: str) -> str:
        made = f"{to}-{name}.o"
        _run([compiler, *flags, "-c", str(Path(__file__).parent / name), "-o", made])
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, [name for name in SOURCES if name.endswith(".c")]))
    _run([compiler, "-shared", *flags, *objects, "-o", str(to), "-lm"])


def _run(command: list[str]) -> None:
    compiler = command[0]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMPILE_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{compiler} took more than {COMPILE_TIMEOUT} s") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or [f"exit code {done.returncode}"]
        raise Unavailable(f"{compiler} cannot build them: {errors[0]}")
