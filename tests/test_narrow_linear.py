"""Linear layers of training steps in bfloat16: no further from float64 than autocast's, forward and back."""

import pytest
import torch
import torch.nn.functional as F
from by_kernels import compare, half, needed, same_with_any_number_of_threads, value_and_gradients
from torch import Tensor

from dragoman.model.linear import Linear
from dragoman.model.ops import products

pytestmark = [
    needed,
    pytest.mark.skipif(
        not products.supports_gradient(torch.zeros(32, 32)),
        reason="oneDNN multiplies as fast as the kernel here, or faster",
    ),
]


def by_layer(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    layer, given = Linear(weight.shape[1], weight.shape[0], bias=bias is not None), {"weight": weight, "bias": bias}
    with torch.autocast("cpu", torch.bfloat16, enabled=weight.dtype == torch.float32):
        return torch.func.functional_call(layer, {name: t for name, t in given.items() if t is not None}, x)


#            R    K    N: one tile; a ragged end of each block; odd rows
SIZES = [(1, 32, 16), (300, 544, 208), (517, 64, 400)]


@pytest.mark.parametrize(("R", "K", "N"), SIZES)
@pytest.mark.parametrize("biased", [True, False])
def test_a_layer_and_its_gradients(monkeypatch, R, K, N, biased):
    weight = (torch.randn(N, K) / K**0.5, torch.randn(N))[: 1 + biased]
    compare(monkeypatch, by_layer, torch.randn(2, R, K), *weight, passes=1)
    compare(monkeypatch, by_layer, half(2, R, K), *weight, passes=1)


def test_the_gradient_of_a_weight_is_not_rounded_to_bfloat16():
    x, weight, upstream = half(40, 32), torch.randn(16, 32), half(40, 16)
    _, _, gradient = value_and_gradients(by_layer, [x, weight], upstream)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, upstream.float().T @ x.float())


@pytest.mark.parametrize("frozen", [0, 1, 2], ids=["input", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(frozen):
    given = [half(5, 32), torch.randn(16, 32), torch.randn(16)]
    _, *all_of_them = value_and_gradients(by_layer, given)
    for i, t in enumerate(given):
        t.requires_grad_(i != frozen)
    by_layer(*given).sum().backward()
    assert given[frozen].grad is None
    assert all(torch.equal(t.grad, g) for i, (t, g) in enumerate(zip(given, all_of_them, strict=True)) if i != frozen)


@pytest.mark.parametrize(("K", "N"), [(32, 15), (48, 16)])
def test_sizes_that_the_kernel_does_not_know_are_torchs(K, N):
    x, weight = half(5, K), torch.randn(N, K)
    with torch.autocast("cpu", torch.bfloat16):
        assert not products.runs_in_bfloat16(x, weight)
        assert torch.equal(by_layer(x, weight), F.linear(x, weight))


def test_nothing_else_goes_through_the_kernel():
    x, weight = half(5, 32), torch.randn(16, 32)
    assert not products.runs_in_bfloat16(x, weight), "outside of autocast"
    with torch.autocast("cpu", torch.bfloat16):
        assert products.runs_in_bfloat16(x, weight)
        assert not products.runs_in_bfloat16(x[:0], weight) and not products.runs_in_bfloat16(x, weight.double())
        with torch.no_grad():
            assert not products.runs_in_bfloat16(x, weight), "nothing is to be learned"


def test_the_number_of_threads_changes_no_bit():
    x, weight, upstream = half(300, 544), torch.randn(400, 544), half(300, 400)
    same_with_any_number_of_threads(lambda: value_and_gradients(by_layer, [x, weight], upstream))
