"""Measures of studies: what a figure is compared with, and what it is drawn from."""

import math

import numpy as np
import pytest
import torch
from test_language_modelling import ROTARY, config, stored

from dragoman.compare.figure import StudySubject
from dragoman.compare.measures import longer
from dragoman.config import from_dict
from dragoman.model.families import ModelConfig

TRAINED = 8


@pytest.fixture
def extrapolated(tmp_path, monkeypatch):
    """Return a function that measures a language model whose loss is made up: of its own, and with a scaling."""
    run = tmp_path / "run"
    (run / "data").mkdir(parents=True)
    stored(run / "data" / "valid", [list(range(3, 100))] * 20)
    (tmp_path / "t.txt").write_text("a line\n\nanother\n")
    cfg = config(tmp_path / "t.txt", task={"context": TRAINED})
    subject = StudySubject("A", 1, run, "best", cfg, run, "toy")

    def measured(own, scaled, **settings):
        model = {key: from_dict(ModelConfig, ROTARY).sized(vocab=100).build() for key in (False, True)}
        monkeypatch.setattr(longer, "_model", lambda subject, scaling: model[scaling is not None])

        def nll(which, row):
            of = scaled if which is model[True] else own
            return torch.full((row.shape[1] - 1,), of(row.shape[1] - 1)) + row[0, 1:] / 1000

        monkeypatch.setattr(longer, "_token_nll", nll)
        return longer.length_extrapolation(subject, **settings)

    return measured


def test_a_scaling_that_ruins_the_model_at_every_length_reaches_nowhere(extrapolated):
    found = extrapolated(lambda length: 1.0, lambda length: 3.0, scaling={"kind": "yarn"})
    assert found["reach"].value == 0
    assert found["growth"].value == pytest.approx(math.exp(2)) and found["growth"].curve.y[0] > 7


@pytest.mark.parametrize("multiples", [(1, 2, 4), (2, 4), (4,)])
def test_what_counts_is_the_perplexity_at_the_trained_length_whatever_lengths_are_asked_for(extrapolated, multiples):
    found = extrapolated(lambda length: 1.0 if length <= 2 * TRAINED else 2.0, None, multiples=multiples)
    assert found["reach"].value == max((one for one in multiples if one <= 2), default=0)
    assert found["growth"].value == pytest.approx(math.e)


def test_texts_of_any_length_are_drawn_again_together(extrapolated):
    found = extrapolated(lambda length: 1.0, lambda length: 1.2, scaling={"kind": "yarn"})
    assert np.std(found["perplexity"].resampled) > 0
    assert np.std(found["growth"].resampled) == pytest.approx(0, abs=1e-6), "its texts are the same at all lengths"
