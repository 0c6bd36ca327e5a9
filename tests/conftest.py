"""Shapes written where tensors are at home are checked while tests run; every test starts from the same seed."""

import pytest
from jaxtyping import install_import_hook

install_import_hook(["dragoman.model", "dragoman.data", "dragoman.decode"], "beartype.beartype")

import torch  # noqa: E402


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
