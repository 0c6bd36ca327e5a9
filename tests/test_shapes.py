"""Shapes and types are those that signatures state: checked in a share of the suite, in a process of its own, because
what is checked is decided before the first import; see conftest.py."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from variants import D, build, ids

from dragoman.data.batch import as_batch
from dragoman.decode.search.ranking import first_largest, log_partition

CHECKED = bool(os.environ.get("CHECK_SHAPES"))

WRONG = {
    "too few dimensions": lambda: build("plain", "decoder-only").scaled(torch.randn(2, D)),
    "whole numbers": lambda: build("plain", "decoder-only").scaled(ids(2, 3)[:, :, None]),
    "a tensor where an array is asked": lambda: as_batch(ids(2, 3), np.ones((2, 3), dtype=np.int64)),
    "rows of different number": lambda: as_batch(np.ones((2, 3), dtype=np.int64), np.ones((3, 3), dtype=np.int64)),
    "one row, not a matrix": lambda: first_largest(torch.randn(5)),
    "two arguments that do not fit": lambda: log_partition(torch.randn(2, 5), torch.randn(3)),
}


@pytest.mark.slow
def test_one_test_in_64_passes_where_shapes_are_checked():
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-m", "not slow", "-p", "no:cacheprovider", str(Path(__file__).parent)]
    done = subprocess.run(command, env=env | {"CHECK_SHAPES": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    assert int(last.split(" passed")[0].split()[-1]) > 200, last


@pytest.mark.skipif(not CHECKED, reason="shapes are checked with CHECK_SHAPES=1, as the test above does")
@pytest.mark.parametrize("case", WRONG)
def test_a_tensor_of_another_shape_is_refused(case):
    with pytest.raises(TypeCheckError):
        WRONG[case]()
