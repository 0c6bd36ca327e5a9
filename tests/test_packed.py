"""A packed model says what the plain one says; in whole numbers, nearly so, and a row's answer is its own."""

import copy

import pytest
import torch
from torch import nn
from variants import VARIANTS, V, batch, build

from dragoman.model.inference import layouts
from dragoman.model.inference.layouts import INT8_MAX, Int8Linear, TransposedLinear, int8_product
from dragoman.model.inference.packed import pack
from dragoman.model.positions.tokens import Tokens


@pytest.mark.parametrize("shape", ["encoder-decoder", "decoder-only"])
@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_a_packed_model_says_what_the_plain_one_says(name, shape):
    plain = build(name, shape)
    packed = copy.deepcopy(plain)
    pack(packed, TransposedLinear)
    assert not any(isinstance(module, nn.Linear) for module in packed.modules())
    target, source = batch(plain, 3, 6, 5)
    torch.testing.assert_close(packed(target, source), plain(target, source), rtol=1e-9, atol=1e-9)
    state, slow = packed.start(source), plain.start(source)
    for t in range(4):
        torch.testing.assert_close(
            packed.decode(target[:, t : t + 1], state), plain.decode(target[:, t : t + 1], slow), rtol=1e-9, atol=1e-9
        )


def layers(count=2):
    return [nn.Linear(40, 24 + i, bias=i % 2 == 0) for i in range(count)]


@pytest.mark.parametrize("layout", [TransposedLinear, Int8Linear])
def test_outputs_of_layers_stand_side_by_side(layout):
    parts, x = layers(3), torch.randn(5, 2, 40)
    wanted = torch.cat([part(x) for part in parts], dim=-1)
    torch.testing.assert_close(layout(parts)(x), wanted, rtol=0, atol=1e-5 if layout is TransposedLinear else 0.05)


def test_whole_numbers_err_by_half_a_step_of_each_factor_at_most():
    (layer,) = layers(1)
    x = torch.randn(50, 40) * torch.logspace(-6, 6, 50)[:, None]
    w = layer.weight.detach()
    of_input = x.abs().amax(dim=1, keepdim=True) / INT8_MAX / 2
    of_weight = w.abs().amax(dim=1) / INT8_MAX / 2
    bound = of_input * w.abs().sum(dim=1) + of_weight * x.abs().sum(dim=1, keepdim=True) + 40 * of_input * of_weight
    error = (Int8Linear([layer])(x) - layer(x)).abs()
    assert (error <= bound * 1.001 + 1e-6 * layer(x).abs()).all()


def test_in_whole_numbers_a_row_does_not_depend_on_the_rows_beside_it_to_the_bit():
    layer, x = Int8Linear(layers()), torch.randn(70, 40)
    together = layer(x)
    for i in (0, 1, 33, 69):
        assert torch.equal(layer(x[i : i + 1]), together[i : i + 1])


@pytest.mark.parametrize("by", ["int8", "float32"])
@pytest.mark.parametrize("inputs", [1, 2, 3, 8, 1024, 1025, 3000])
@pytest.mark.parametrize("outputs", [1, 2, 12, 32, 300])
def test_integers_of_any_width_are_multiplied_exactly(inputs, outputs, by, monkeypatch):
    monkeypatch.setattr(layouts, "_rows_for_float32", lambda: 1 if by == "float32" else 10**9)
    a, b = (torch.randint(-127, 128, size, dtype=torch.int8) for size in ((5, inputs), (outputs, inputs)))
    a[0], a[1], b[0] = 127, -127, 127
    a[2], a[3] = 127, -127
    a[2:4, 0] -= a[2:4, 0].sign()  # large sums that are odd: float32 holds none above 2^24
    wanted = a.int() @ b.int().t()
    assert torch.equal(int8_product(a, b.t()), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(int8_product(a, b.t()), wanted)


def test_float32_takes_the_place_of_8_bits_where_it_is_measured_to_be_faster(monkeypatch):
    measured = iter([2.0, 0.5])  # slower for one row, faster for four
    monkeypatch.setattr(layouts, "shortest_times", lambda *_: {"int8": 1.0, "float32": next(measured)})
    assert layouts._rows_for_float32.__wrapped__() == 4


def test_a_row_of_zeros_gives_the_bias():
    (part,) = layers(1)
    assert torch.equal(Int8Linear([part])(torch.zeros(1, 40))[0], part.bias)


def test_embeddings_that_share_the_output_matrix_stay_exact():
    plain = build("plain").float()
    packed = copy.deepcopy(plain)
    pack(packed, Int8Linear)
    assert torch.equal(packed.embed.tokens.weight, plain.embed.tokens.weight)
    ids = torch.randint(3, V, (2, 4))
    assert packed(Tokens(ids), ids).isfinite().all()
