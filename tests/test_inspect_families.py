"""A page for every family: recurrent, convolutional, sparse and state-space models are looked at like Transformers."""

import dataclasses

import convolutional_variants
import numpy as np
import pytest
import recurrent_variants
import torch
import variants
from test_every_command import BYTES

from dragoman.inspect.attribution import ExplainedAnswer, occlusion
from dragoman.inspect.page.collect import PageChoice, collect
from dragoman.inspect.page.write import as_html, as_json
from dragoman.inspect.subject import Subject

MIXERS = ("longformer, own projections", "reformer", "mamba, attention", "linear attention", "mixture", "shaw")
CONFIGS = {
    **{name: recurrent_variants.EVERY[name] for name in ("bahdanau", "luong", "gnmt", "sutskever", "lstm")},
    **{name: convolutional_variants.VARIANTS[name] for name in ("convs2s", "bytenet", "cnn-9", "language model")},
    **{name: variants.MODELS[name].config("encoder-decoder") for name in MIXERS},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_has_a_page_and_its_attention_rows_sum_to_1(name):
    torch.manual_seed(0)
    cfg = dataclasses.replace(CONFIGS[name], vocab=len(BYTES), source_vocab=None)
    subject = Subject(cfg.build().eval(), BYTES, BYTES)
    target = "efg" if subject.kind == "translator" else None
    data = collect(subject, "abcd", target, PageChoice(steps=2, beam=2))
    assert as_html(data) and as_json(data)
    attends = not any(part in name for part in ("sutskever", "lstm", "bytenet", "language model"))
    assert any(kind["crossing"] for kind in data["attention"]) == attends
    for kind in data["attention"]:
        for layer in kind["layers"]:
            rows, columns = (len(data["tokens"][kind[side]]) for side in ("rows", "columns"))
            assert layer["weights"].shape[1:] == (rows, columns)
            np.testing.assert_allclose(layer["weights"].sum(-1), 1, atol=1e-4)
    assert np.isfinite(occlusion(ExplainedAnswer(subject, subject.inputs("abcd", target))).scores).all()
