"""How often Python looks for objects that refer to one another and to which nothing else refers."""

import gc

ALLOCATIONS = 50_000
"""New objects after which it looks. With the usual 700, this takes a seventh of importing torch."""


def collect_rarely() -> None:
    """Let this process look rarely: for processes that are short, or leave little behind."""
    gc.set_threshold(ALLOCATIONS, 10, 10)
