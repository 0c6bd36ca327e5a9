"""A model that is loaded is the one that was saved, although its initial weights are never drawn."""

import pytest
import torch
from variants import V, build, every_variant, ids

from dragoman.model.loading import Uninitialized, load


@every_variant
@torch.no_grad()
def test_a_loaded_model_is_the_one_that_was_saved(variant):
    saved = build(variant)
    weights = {name: tensor.float() for name, tensor in saved.state_dict().items()}
    loaded = load(saved.cfg.build, weights).eval()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())
    target, source = ids(2, 7), ids(2, 6)
    torch.testing.assert_close(loaded(target, source), saved(target, source).float(), rtol=1e-3, atol=1e-3)


def test_weights_that_were_tied_stay_so():
    saved = build("plain")
    loaded = load(saved.cfg.build, {name: tensor.float() for name, tensor in saved.state_dict().items()})
    assert loaded.output.weight is loaded.embed.tokens.weight is loaded.source_embed.tokens.weight


def test_weights_that_lack_one_are_refused():
    saved = build("plain")
    weights = saved.state_dict()
    del weights["embed.tokens.weight"]
    with pytest.raises(RuntimeError, match=r"embed\.tokens\.weight"):
        load(saved.cfg.build, weights)


def test_nothing_is_drawn():
    cfg, before = build("plain").cfg, torch.get_rng_state()
    with Uninitialized():
        model = cfg.build()
    assert torch.equal(torch.get_rng_state(), before) and model.embed.tokens.weight.shape[0] == V
