"""Norms against their formulas and PyTorch's, values and gradients; and the four places around a sublayer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from variants import assert_equal

from dragoman.model.norm import LayerNorm, NoNorm, Residual, RmsNorm, ZeroCenteredRmsNorm

D = 7


def vectors(*size: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*size, D, dtype=dtype, requires_grad=True)


def shaken(norm: nn.Module) -> nn.Module:
    for parameter in norm.double().parameters():
        nn.init.normal_(parameter)
    return norm


@pytest.mark.parametrize("size", [(5,), (2, 3), (2, 3, 4)], ids=str)
def test_rms_norm_is_that_of_torch_with_its_gradients(size):
    x, norm = vectors(*size), shaken(RmsNorm(eps=1e-3).build(D))
    ours, theirs = norm(x), F.rms_norm(x, (D,), norm.weight, 1e-3)
    upstream = torch.randn_like(ours)
    assert_equal(ours, theirs)
    assert_equal(*(torch.autograd.grad(y, (x, norm.weight), upstream) for y in (ours, theirs)))


def test_rms_norm_divides_by_the_root_mean_square():
    x, norm = vectors(4), shaken(RmsNorm(eps=1e-3).build(D))
    assert_equal(norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight)


def test_a_zero_centered_norm_is_one_whose_weight_is_larger_by_1():
    x, centred, plain = vectors(4), shaken(ZeroCenteredRmsNorm(eps=1e-3).build(D)), RmsNorm(eps=1e-3).build(D).double()
    with torch.no_grad():
        plain.weight.copy_(1 + centred.weight)
    upstream = torch.randn(4, D, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(norm(x), (x, norm.weight), upstream) for norm in (centred, plain))
    assert_equal(centred(x), plain(x))
    assert_equal(ours, theirs)


def test_layer_norm_subtracts_the_mean_and_divides_by_the_deviation():
    x, norm = vectors(4), shaken(LayerNorm(eps=1e-3).build(D))
    centred = x - x.mean(-1, keepdim=True)
    want = centred / (centred.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight + norm.bias
    assert_equal(norm(x), want)


@pytest.mark.parametrize("cfg", [RmsNorm(), LayerNorm(), LayerNorm(bias=False)], ids=["rms", "layer", "no bias"])
def test_gradients_are_right(cfg):
    norm = shaken(cfg.build(D))
    names = [name for name, _ in norm.named_parameters()]

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(norm, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (vectors(3), *norm.parameters()))


def test_rms_norm_is_the_same_where_nothing_is_learned():
    x, norm = vectors(6), shaken(RmsNorm().build(D))
    with torch.no_grad():
        quiet = norm(x)
    assert_equal(norm(x), quiet, 1e-12)


@pytest.mark.parametrize("norm", [RmsNorm(), LayerNorm()], ids=["rms", "layer"])
def test_a_vector_of_zeros_stays_finite(norm):
    x = torch.zeros(2, D, requires_grad=True)
    out = norm.build(D)(x)
    out.sum().backward()
    assert (out == 0).all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("placement", ["post", "pre", "sandwich", "output"])
def test_norms_stand_where_the_placement_says(placement):
    x, f = vectors(2, 3), torch.tanh
    residual = Residual(LayerNorm(), placement, D, dropout=0.0, residual_scale=1.5).double()
    norms = [part for part in (residual.before, residual.output, residual.after) if isinstance(part, nn.LayerNorm)]
    for norm in norms:
        shaken(norm)
    want = {
        "post": lambda n: n(1.5 * x + f(x)),
        "pre": lambda n: 1.5 * x + f(n(x)),
        "sandwich": lambda n, m: 1.5 * x + m(f(n(x))),
        "output": lambda n: 1.5 * x + n(f(x)),
    }[placement]
    assert_equal(residual(x, f), want(*norms))


def test_without_a_norm_the_sum_is_all():
    x = vectors(2, 3)
    assert_equal(Residual(NoNorm(), "pre", D, dropout=0.0)(x, torch.sin), x + x.sin())
