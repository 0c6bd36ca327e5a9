"""Holding out of small texts: fewer pairs than asked for, where these would leave too few for training."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from dragoman.errors import DataError
from dragoman.text.cleaning.split import HoldOut, P, PairSplit, hold_out, letters

LARGEST_FRACTION = 1 / 2
"""Largest fraction of the different sources that is held out as asked."""
FALLBACK_FRACTION = 1 / 5
"""Fraction of the different sources that is held out where more was asked for."""


def hold_out_some(
    pairs: Sequence[P], cfg: HoldOut, may: Callable[[P], bool] = lambda pair: True
) -> tuple[PairSplit[P], HoldOut]:
    """Split as ``hold_out`` does. Where ``cfg`` asks for more than half of the different sources, a fifth of them is
    held out, in the proportions asked for; fewer where similar pairs would leave nothing to train on.

    Returns:
        The split, and the numbers held out.

    Raises:
        DataError: too few pairs to hold out one of each and train on the rest.
    """
    different = len({letters(pair.source) for pair in pairs if may(pair)})
    if cfg.test + cfg.valid + cfg.hard <= LARGEST_FRACTION * different:
        return hold_out(pairs, cfg, may), cfg
    fewer = _scaled(cfg, FALLBACK_FRACTION * different)
    while True:
        try:
            return hold_out(pairs, fewer, may), fewer
        except DataError:
            if fewer == (least := _scaled(cfg, 0)):
                raise
            requested = fewer.test + fewer.valid + fewer.hard
            fewer = _scaled(cfg, requested / 2) if _scaled(cfg, requested / 2) != fewer else least


def describe_reduction(asked: HoldOut, held: HoldOut, examples: int, what: str = "pairs") -> str:
    """Return a line that says what is held out instead, as settings to paste; empty where it is what was asked for."""
    if asked == held:
        return ""
    sizes = [(name, getattr(asked, name), getattr(held, name)) for name in ("test", "valid", "hard")]
    settings = " ".join(f"data.hold_out.{name}={now}" for name, was, now in sizes if was)
    were = " and ".join(f"{was:,} for {name}" for name, was, _ in sizes if was)
    return f"small text: {were} of {examples:,} {what} would leave too few to train on; held out instead: {settings}"


def _scaled(cfg: HoldOut, total: float) -> HoldOut:
    """Scale the numbers to ``total`` in the proportions of ``cfg``, at least one of each that is asked for."""
    scale = total / max(cfg.test + cfg.valid + cfg.hard, 1)
    test, valid, hard = (min(count, max(1, int(count * scale))) for count in (cfg.test, cfg.valid, cfg.hard))
    return replace(cfg, test=test, valid=valid, hard=hard)
