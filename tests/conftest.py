"""Shapes and types written in the package are checked while it is tested; every test starts from the same seed."""

import pytest
from jaxtyping import install_import_hook

install_import_hook("dragoman", "beartype.beartype")

import torch  # noqa: E402


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
