"""Numbers and bars of ``dragoman plan``."""

import math
import re

from dragoman.errors import ConfigError

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")
_COUNTS = ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k"))
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(?![\d,])[^,]*$")
"""Digits with commas between thousands, and what follows without any: a point, a power of ten, a unit."""
_BLOCKS = " ▏▎▍▌▋▊▉"


def size(nbytes: float) -> str:
    """Return bytes with a decimal unit: 1.07 GB."""
    power = 0 if nbytes < 1 else min(int(math.log10(nbytes) // 3), len(_SIZES) - 1)
    return f"{nbytes / 1000**power:.3g} {_SIZES[power]}" if nbytes < 999.5 * 1000**power else size(1000 ** (power + 1))


def amount(number: float) -> str:
    """Return a number with a word's letter: 174.6 B."""
    for unit, name in _COUNTS:
        if number >= unit:
            return f"{number / unit:.4g}{name}"
    return f"{number:,.0f}"


def short(number: float) -> str:
    """Return a number with three digits at most and a letter: 33k, 1.58M."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:.3g}"


def flops(number: float) -> str:
    """Return FLOPs with a unit, or as a power of ten where that is longer."""
    for unit, name in ((1e18, " EFLOP"), (1e15, " PFLOP"), (1e12, " TFLOP"), (1e9, " GFLOP"), (1e6, " MFLOP")):
        if unit <= number < 1e21:
            return f"{number / unit:.4g}{name}"
    return f"{number:.3g} FLOP"


def time(seconds: float) -> str:
    """Return a time in the unit that a person would use."""
    for unit, name in ((365.25 * 86_400, "years"), (86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}" if seconds / unit < 1000 else f"{seconds / unit:,.0f} {name}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def bar(share: float, width: int = 24) -> str:
    """Return a bar of the length ``share``, from 0 to 1, of ``width`` characters."""
    eighths = round(8 * width * min(max(share, 0), 1))
    return "█" * (eighths // 8) + (_BLOCKS[eighths % 8].strip())


def count_of(text: str | None, option: str) -> float | None:
    """Read a positive number such as ``300e9``, ``300B``, ``2_000`` or ``2,000``. A comma stands before groups of three
    digits alone: in ``1,5M`` it could be meant as a point.

    Raises:
        ConfigError: it is none.
    """
    if text is None:
        return None
    plain = text.strip()
    if "," in plain and not _GROUPED.match(plain):
        raise ConfigError(
            f"{option}: {text!r} is no number: a comma stands before three digits; write 1.5M, or 1,500,000"
        )
    units = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
    plain = plain.replace(",", "").replace("_", "")
    unit = units.get(plain[-1:])
    try:
        number = float(plain[:-1]) * unit if unit else float(plain)
    except ValueError:
        raise ConfigError(f"{option}: {text!r} is no number: write 300e9, or 300B") from None
    if not math.isfinite(number) or number < 1:
        raise ConfigError(f"{option}: {text} must be 1 or more")
    return number


def pair_of(text: str | None, option: str) -> tuple[float, float] | None:
    """Read two positive numbers with a comma between, such as ``10M,200M``.

    Raises:
        ConfigError: they are not two.
    """
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2:
        raise ConfigError(f"{option}: {text!r} is not parameters and tokens: write 10M,200M")
    first, second = (count_of(part, option) for part in parts)
    assert first is not None and second is not None
    return first, second


def whole(text: str | None, option: str) -> int | None:
    """Read a positive whole number.

    Raises:
        ConfigError: it is none.
    """
    number = count_of(text, option)
    if number is not None and number != int(number):
        raise ConfigError(f"{option}: {text} must be a whole number")
    return None if number is None else int(number)


def share_of(value: float | None, option: str) -> float | None:
    """Check a share of 1.

    Raises:
        ConfigError: it is none; a percentage gets the share that was meant.
    """
    if value is not None and not 0 < value <= 1:
        meant = f": write {value / 100:g} for {value:g}%" if 1 < value <= 100 else ""
        raise ConfigError(f"{option}: {value:g} must be above 0 and at most 1{meant}")
    return value
