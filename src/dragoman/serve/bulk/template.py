"""Imports of the process that workers are forked from: nearly all that takes time before the work is known.

What has been imported is never looked through again for garbage, so that all workers go on sharing its memory.
"""

import gc

from dragoman.serve.heap import collect_rarely

collect_rarely()

from dragoman.serve.bulk import translation  # noqa: E402, F401

gc.freeze()
