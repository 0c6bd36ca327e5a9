"""Data sets that are made on the spot, by name."""

from collections.abc import Callable

from dragoman.compare.datasets import arrays, grammar, puzzles
from dragoman.presets import Plain

FURTHER_DATA_SETS: dict[str, Callable[..., Plain]] = {
    "recall": puzzles.recall,
    "induction": puzzles.induction,
    "selective_copy": puzzles.selective_copy,
    "listops": puzzles.listops,
    "sums": puzzles.sums,
    "trees": grammar.trees,
    "sentences": grammar.sentences,
    "canaries": grammar.canaries,
    "topics": grammar.topics,
    "digits": arrays.digits,
    "series": arrays.series,
}
"""Data sets by name: functions of a folder and settings that return the ``data`` section of a run file."""
