"""Holding out of small texts: fewer pairs than asked for, where these would leave too few to learn from."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from dragoman.errors import DataError
from dragoman.text.cleaning.split import HoldOut, P, PairSplit, hold_out, letters

MOST = 1 / 2
"""The share of a text that may be held out as asked for."""
SHARE = 1 / 5
"""The share that is held out where more was asked for."""


def hold_out_some(
    pairs: Sequence[P], cfg: HoldOut, may: Callable[[P], bool] = lambda pair: True
) -> tuple[PairSplit[P], HoldOut]:
    """Split as ``hold_out`` does. Where ``cfg`` asks for more than half of the different sources, a fifth of them is
    held out, in the proportions asked for; less where what is like them would leave nothing to train on.

    Returns:
        The split, and how much was held out.

    Raises:
        DataError: too few pairs to hold out one of each and train on the rest.
    """
    different = len({letters(pair.source) for pair in pairs if may(pair)})
    if cfg.test + cfg.valid + cfg.hard <= MOST * different:
        return hold_out(pairs, cfg, may), cfg
    fewer = _scaled(cfg, SHARE * different)
    while True:
        try:
            return hold_out(pairs, fewer, may), fewer
        except DataError:
            if fewer == (least := _scaled(cfg, 0)):
                raise
            asked = fewer.test + fewer.valid + fewer.hard
            fewer = _scaled(cfg, asked / 2) if _scaled(cfg, asked / 2) != fewer else least


def describe_reduction(asked: HoldOut, held: HoldOut, examples: int, what: str = "pairs") -> str:
    """Return a line that says what is held out instead, as settings to paste; empty where it is what was asked for."""
    if asked == held:
        return ""
    sizes = [(name, getattr(asked, name), getattr(held, name)) for name in ("test", "valid", "hard")]
    settings = " ".join(f"data.hold_out.{name}={now}" for name, was, now in sizes if was)
    were = " and ".join(f"{was:,} for {name}" for name, was, _ in sizes if was)
    return f"small text: {were} of {examples:,} {what} would leave too few to train on; held out instead: {settings}"


def _scaled(cfg: HoldOut, total: float) -> HoldOut:
    """``total`` in the proportions of ``cfg``, at least one of each that is asked for."""
    share = total / max(cfg.test + cfg.valid + cfg.hard, 1)
    test, valid, hard = (min(count, max(1, int(count * share))) for count in (cfg.test, cfg.valid, cfg.hard))
    return replace(cfg, test=test, valid=valid, hard=hard)
