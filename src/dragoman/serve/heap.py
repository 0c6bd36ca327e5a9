"""Objects that stay as long as the process: the garbage collector need not look at them again and again.

PyTorch, models and tokenizers are some hundred thousand objects. A full collection looks at all of them, and all
requests wait meanwhile, up to half a second on a busy machine.
"""

import gc

ALLOCATIONS = 50_000
"""New objects after which a collection begins. With the usual 700, collecting takes a seventh of importing PyTorch."""


def collect_rarely() -> None:
    """Let this process collect rarely: for those that are short, or leave little behind."""
    gc.set_threshold(ALLOCATIONS, 10, 10)


def settle_heap() -> None:
    """Take what is there now out of the garbage collector's sight, after a last collection."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def settle_heap_again() -> None:
    """Do so where it has been done before: a model that was replaced is then collected."""
    if gc.get_freeze_count():
        settle_heap()
