"""Runs of models that read and write nothing, small enough to be made many times in a test."""

import os

import pytest

from dragoman.config import merge
from dragoman.train import recipe
from dragoman.train.run import start

BLOCK = {
    "mixer": {"heads": 2, "position": "rotary", "visibility": "full"},
    "mlp": {"kind": "feed_forward", "hidden": 32},
    "norm": "layer_norm",
}
MODEL = {"kind": "encoder", "dim": 16, "inputs": "token_input", "tower": {"depth": 1, "pattern": [BLOCK]}}
TRAIN = {
    "budget": {"kind": "steps", "steps": 12},
    "schedule": {"kind": "constant", "peak": 1e-2, "warmup": 2},
    "batch_tokens": 400,
    "validate_every": 4,
    "save_every": 3,
    "report_every": 2,
    "keep": {"last": 100},
    "samples": 2,
    "precision": "float32",
}


def config(task, data, model, steps=12, vocab=300, **train):
    """``model`` and ``train`` are laid over what is above; ``steps`` is both the budget and when to validate first."""
    timing = {"budget": {"kind": "steps", "steps": steps}, "validate_every": min(steps, 20)}
    return recipe.load(
        {
            "task": task,
            "data": data,
            "tokenizer": {"kind": "bpe", "vocab": vocab},
            "model": merge(MODEL, model) if model.get("kind", "encoder") == "encoder" else model,
            "train": TRAIN | timing | train,
        }
    )


def trained(cfg, path):
    """All that happened, and whatever ``Validated`` said last."""
    events = list(start(cfg, path).events())
    return events, [event for event in events if hasattr(event, "scores")][-1]


@pytest.fixture(scope="module", autouse=True)
def quick_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # these tests stop runs, not machines
        yield
