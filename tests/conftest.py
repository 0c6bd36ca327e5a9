"""Every test starts from the same seed; ``CHECK_SHAPES=1`` checks the shapes that signatures state while tests run.

Checking costs four times the rest of a forward pass of a tiny model, so that ``test_shapes.py`` does it for a share of
the suite that passes through every annotated module.

Property tests draw the same examples on every machine, so that what passed passes again. ``make explore`` draws others,
many more of them, and is how new counterexamples are found; each then becomes a test of its own.
"""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

if os.environ.get("CHECK_SHAPES"):  # before the first import of what it decorates
    from jaxtyping import install_import_hook

    install_import_hook(["dragoman.model", "dragoman.data", "dragoman.decode"], "beartype.beartype")

import torch

from dragoman import machine
from dragoman.decode import precision

settings.register_profile("repeat", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


def pytest_collection_finish() -> None:
    """Take what is loaded by now out of the garbage collector's rounds: torch and all the tests are a large heap."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def any_machine() -> Iterator[None]:
    """What is left to be measured comes out as on a plain CPU: tests compare in float32 wherever they run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "product_seconds", lambda: {"torch": 1.0})
        patch.setattr(precision, "cached_choice", lambda name, measure: measure())
        yield
