"""Models on the meta device: the shapes of real ones, without what PyTorch imports to draw numbers there."""

import subprocess
import sys

import pytest
import torch

from dragoman.config import from_dict, merge
from dragoman.model.families import ModelConfig
from dragoman.model.meta_device import on_meta_device
from dragoman.presets import PRESETS

BUILD = """
import sys
from dragoman.config import from_dict, merge
from dragoman.model.families import ModelConfig
from dragoman.model.meta_device import on_meta_device
from dragoman.presets import PRESETS
with on_meta_device():
    from_dict(ModelConfig, merge(PRESETS["transformer-tiny"]()["model"], {"vocab": 300})).build()
print(sorted({"torch._dynamo", "sympy"} & set(sys.modules)))
"""


SIZES = {"vocab": 300}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("transformer-tiny", SIZES),
        ("lstm-luong", SIZES),
        ("mamba-small", SIZES),
        ("vit-tiny", {"head": {"classes": 3}}),
    ],
)
def test_shapes_are_those_of_a_real_model(name, sizes):
    cfg = from_dict(ModelConfig, merge(PRESETS[name]()["model"], sizes))
    real = {name: (p.shape, p.dtype) for name, p in cfg.build().state_dict().items()}
    with on_meta_device():
        found = cfg.build().state_dict()
    assert {name: (p.shape, p.dtype) for name, p in found.items()} == real
    assert all(p.is_meta for p in found.values() if p.is_floating_point())


def test_nothing_is_imported_to_draw_numbers_that_nobody_reads():
    done = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_numbers_are_drawn_again_outside():
    with on_meta_device():
        pass
    assert torch.nn.Linear(4, 4).weight.abs().sum() > 0
