"""Trace: every place that a model lists can be read and written, on every family, and looking changes nothing."""

import convolutional_variants
import pytest
import recurrent_variants
import torch
import variants
from test_encoder import ENCODERS, given, shaken

from dragoman import inspect
from dragoman.model.contrastive import TwoTowersConfig

LONG = 11
"""Tokens of a text: more than ``FEW_QUERIES``, so that attention goes by PyTorch's kernel where nobody looks."""


WRITTEN: set[tuple[str, ...]] = set()
"""Places of modules of one class that were written already, and are then known to work."""


def check(model, inputs) -> None:
    """Every place can be read, reading all changes no bit, and what is put at each changes the answer."""
    known = inspect.places(model)
    with torch.inference_mode():
        before = model(*inputs)
        seen = inspect.trace_inputs(model, inputs)
        assert torch.equal(seen.output, before)
        assert list(seen) == list(known)
        for name, place in known.items():
            dims = place.shape.split()
            assert seen[name].ndim == len(dims) or dims[-1] == "...", name
        same = inspect.trace_inputs(model, inputs, (), seen.tensors)
        torch.testing.assert_close(same.output, before, rtol=1e-9, atol=1e-9)
        for name, place in known.items():
            kind = (name, *(type(part).__name__ for part in vars(place.tap).values()))
            if kind in WRITTEN or place.layer not in (None, 0):
                continue
            WRITTEN.add(kind)
            back = inspect.trace_inputs(model, inputs, (), {name: seen.tensors[name]})
            exact = not any(place.tap.aside for place in known.values())
            assert torch.equal(back.output, before) if exact else torch.allclose(back.output, before), name
            with inspect.watching(model, (), {name: lambda x: x * 0.5 + 0.3 * torch.randn_like(x)}) as record:
                other = model(*inputs)
            assert name in record.replaced, name
            assert not torch.equal(other, before), name
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


BOTH_SHAPES = [*((name, "encoder-decoder") for name in variants.VARIANTS), *variants.ALONE]


@pytest.mark.parametrize(("variant", "shape"), BOTH_SHAPES)
def test_every_place_of_a_transformer_is_read_and_written_and_looking_changes_no_bit(variant, shape):
    model = variants.build(variant, shape)
    check(model, variants.batch(model, 1, LONG, LONG + 1))


@pytest.mark.parametrize("variant", recurrent_variants.EVERY)
def test_every_place_of_a_recurrent_model_is_read_and_written(variant):
    cfg = recurrent_variants.EVERY[variant]
    check(recurrent_variants.build(cfg), (recurrent_variants.targets(2, 5), recurrent_variants.sources(cfg, 2, 6)))


@pytest.mark.parametrize("variant", convolutional_variants.VARIANTS)
def test_every_place_of_a_convolutional_model_is_read_and_written(variant):
    model = convolutional_variants.build(variant)
    check(model, convolutional_variants.batch(model, 2, 5, 6))


@pytest.mark.parametrize("variant", ENCODERS)
def test_every_place_of_an_encoder_is_read_and_written(variant):
    model = shaken(ENCODERS[variant].build())
    check(model, (given(model),))


@pytest.mark.parametrize("second", ["vit, rotary", None])
def test_every_place_of_two_towers_is_read_and_written_also_where_they_are_one(second):
    model = shaken(TwoTowersConfig(first=ENCODERS["clip text"], second=second and ENCODERS[second]).build())
    check(model, (given(model.first), given(model.second, 2)))
