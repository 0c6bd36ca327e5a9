"""Every preset, written out in full: a changed default shows up as a changed line in review."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch

from dragoman.config import differences, from_dict, to_dict
from dragoman.model.transformer import TransformerConfig
from dragoman.presets import PRESETS
from dragoman.train.recipe import load

GOLDEN = Path(__file__).parent / "golden"


def parameters(name, **sizes):
    plain = PRESETS[name]()
    cfg = from_dict(TransformerConfig, plain["model"])
    sizes = {"vocab": plain["tokenizer"]["vocab"]} | sizes
    with torch.device("meta"):
        return sum(p.numel() for p in dataclasses.replace(cfg, **sizes).build().parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_as_written_down(name):
    run = to_dict(load({"preset": name, "data": {"train": []}}))
    text = json.dumps({"parameters": parameters(name), "run": run}, indent=1) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, "run UPDATE_GOLDEN=1 pytest and review the difference"


@pytest.mark.parametrize("name, published", [("transformer-base", 65e6), ("transformer-big", 213e6)])
def test_the_2017_models_have_the_papers_parameters(name, published):
    # Table 3 of the paper rounds, and counts a vocabulary of "about 37000"
    assert parameters(name) == pytest.approx(published, rel=0.035)


def test_parameters_of_the_base_model_add_up():
    D, F, N, V = 512, 2048, 6, 37_000
    attention, mlp, norm = 4 * (D * D + D), 2 * D * F + F + D, 2 * D
    encoder, decoder = attention + mlp + 2 * norm, 2 * attention + mlp + 3 * norm
    assert parameters("transformer-base") == V * D + N * (encoder + decoder)


@pytest.mark.parametrize("change", [
    ("model.*.pattern.*.norm=layer_norm"),
    ("model.*.pattern.*.placement=post"),
    ("model.*.pattern.*.mixer.position=no_position"),
    ("model.position=sinusoidal"),
    ("model.*.pattern.*.mlp={kind: feed_forward, hidden: 2048}"),
    ("model.*.pattern.*.mixer.kv_heads=8"),
    ("model.*.pattern.*.mixer.bias=true"),
])  # fmt: skip
def test_each_choice_of_2026_can_be_undone_by_itself(change):
    run = {"preset": "transformer-2026", "data": {"train": []}}
    before, after = load(run), load(run, [change])
    changed = {path for path, _, _ in differences(to_dict(before.model), to_dict(after.model))}
    assert changed
    with torch.device("meta"):
        dataclasses.replace(after.model, vocab=100).build()
