"""Dropout from sixteen random bits: its shares, scale and repeatability."""

import pytest
import torch

from dragoman.model.dropout import Dropout, dropout


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_the_wanted_share_is_zero_and_the_rest_is_scaled_up(share):
    x = torch.ones(1000, 1001)  # no multiple of four: the last draw serves fewer elements
    out = dropout(x, share)
    zeros = (out == 0).double().mean().item()
    noise = (share * (1 - share) / x.numel()) ** 0.5
    assert abs(zeros - share) < 5 * noise + 2**-16
    torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 1 / (1 - share)))
    assert abs(out.double().mean().item() - 1) < 6 * noise / (1 - share)


def test_neighbouring_elements_are_dropped_independently():
    kept = (dropout(torch.ones(400_000), 0.5) != 0).double() - 0.5
    for lag in range(1, 9):
        assert abs((kept[lag:] * kept[:-lag]).mean().item()) < 5 * 0.25 / 400_000**0.5


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_gradient_passes_where_the_value_does(share):
    x = torch.randn(50, 7, requires_grad=True)
    out = dropout(x, share)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient * x, out)


def test_the_same_seed_drops_the_same_elements():
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(dropout(torch.ones(100), 0.5))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [(0,), (1,), (3, 5), (2, 0, 3)])
def test_shape_and_type_stay(size, dtype):
    x = torch.ones(size, dtype=dtype)
    out = dropout(x, 0.5)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)


def test_it_does_nothing_outside_training_and_with_a_share_of_zero():
    x = torch.randn(100)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
    assert repr(Dropout(0.25)) == "Dropout(0.25)"
