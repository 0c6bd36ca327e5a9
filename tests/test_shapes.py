"""Where shapes are checked, a tensor of another shape or type is refused, in each of the rooms; see conftest.py."""

import os

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from variants import D, build, ids

from dragoman.data.batch import as_batch
from dragoman.decode.search.ranking import first_largest, log_partition

pytestmark = pytest.mark.skipif(not os.environ.get("CHECK_SHAPES"), reason="shapes are checked with CHECK_SHAPES=1")

WRONG = {
    "too few dimensions": lambda: build("plain", "decoder-only").scaled(torch.randn(2, D)),
    "whole numbers": lambda: build("plain", "decoder-only").scaled(ids(2, 3)[:, :, None]),
    "a tensor where an array is asked": lambda: as_batch(ids(2, 3), np.ones((2, 3), dtype=np.int64)),
    "rows of different number": lambda: as_batch(np.ones((2, 3), dtype=np.int64), np.ones((3, 3), dtype=np.int64)),
    "one row, not a matrix": lambda: first_largest(torch.randn(5)),
    "two arguments that do not fit": lambda: log_partition(torch.randn(2, 5), torch.randn(3)),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_tensor_of_another_shape_is_refused(case):
    with pytest.raises(TypeCheckError):
        WRONG[case]()
