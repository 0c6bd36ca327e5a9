"""Norm, dropout and residual sum of training steps: no further from float64 than PyTorch's own passes."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from by_kernels import (
    Function,
    autocast_to,
    compare,
    half,
    in_each_type,
    needed,
    same_with_any_number_of_threads,
    value_and_gradients,
)
from torch import Tensor

from dragoman.model.norm import LayerNorm, NoNorm, Norm, Placement, Residual, RmsNorm, ZeroCenteredRmsNorm
from dragoman.model.ops import residual as kernels
from dragoman.model.ops.elementwise import DropoutFunction

pytestmark = needed


@dataclass(frozen=True)
class Around:
    norm: Norm
    placement: Placement
    residual_scale: float = 1.0
    passes: int = 3
    """By kernels, forward and back."""
    dtype: torch.dtype = torch.bfloat16

    def __call__(self, x: Tensor, factors: Tensor, *weights: Tensor) -> Tensor:
        """A residual around a product with ``factors``, its norms' weights and biases replaced by ``weights``."""
        residual = Residual(self.norm, self.placement, x.shape[-1], 0.0, self.residual_scale)
        given = dict(zip((name for name, _ in residual.named_parameters()), weights, strict=True))
        with autocast_to(x.dtype if x.dtype == torch.float64 else self.dtype):
            return torch.func.functional_call(residual, given, (x, lambda read: read * factors.to(read.dtype)))

    def weights(self, width: int) -> list[Tensor]:
        named = Residual(self.norm, self.placement, width, 0.0).named_parameters()
        return [torch.randn(width) / 10 + ("bias" not in name) for name, _ in named]


AROUND = {
    "2017": Around(LayerNorm(), "post"),
    "without biases": Around(LayerNorm(bias=False), "post"),
    "deep norm": Around(LayerNorm(), "post", residual_scale=1.7),
    "2026": Around(RmsNorm(), "pre", passes=4),
    "gemma 1": Around(ZeroCenteredRmsNorm(), "pre", passes=4),
    "gpt-2": Around(LayerNorm(), "pre", passes=2),
    "rms behind": Around(RmsNorm(), "post"),
    "no norm": Around(NoNorm(), "pre", residual_scale=0.5),
}


@in_each_type
@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize(
    ("rows", "width"), [(1, 32), (3, 96), (300, 256)]
)  # gradients of weights: in blocks of 128 rows
def test_a_residual(monkeypatch, around, rows, width, dtype):
    x, factors = 3 * torch.randn(2, rows, width) + 1, torch.randn(width)
    passes = around.passes if dtype == torch.bfloat16 else 2  # without a conversion of what the sublayer reads
    around = replace(around, dtype=dtype)
    compare(monkeypatch, around, x, factors, *around.weights(width), passes=passes, dtype=dtype)


@in_each_type
@pytest.mark.parametrize("around", [AROUND["2017"], AROUND["2026"]], ids=["2017", "2026"])
def test_the_number_of_threads_changes_no_bit(around, dtype):
    around = replace(around, dtype=dtype)
    given, upstream = [torch.randn(2, 350, 128), torch.randn(128), *around.weights(128)], torch.randn(2, 350, 128)
    same_with_any_number_of_threads(lambda: value_and_gradients(around, given, upstream))


# ---- dropout --------------------------------------------------------------------------------------------


def seeded(function: Function) -> Function:
    def run(*given: Tensor) -> Tensor:
        torch.manual_seed(5)
        return function(*given)

    return run


@in_each_type
def test_what_is_dropped_is_added_nowhere_and_gets_no_gradient(dtype):
    x, y = torch.zeros(100, 96), torch.ones(100, 96, dtype=dtype)
    value, by_x, by_y = value_and_gradients(seeded(lambda x, y: kernels.AddFunction.apply(x, y, 1.0, 0.5)), [x, y])
    assert torch.equal(value, by_y.float()) and set(value.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(value, seeded(lambda y: DropoutFunction.apply(y, 0.5))(y).float()), "as dropout by itself draws"
    assert (by_x == 1).all()


@in_each_type
def test_dropout_sum_and_norm_are_what_they_are_apart(dtype):
    x, y, weight, bias = torch.randn(50, 96), half(50, 96).to(dtype), torch.randn(96), torch.randn(96)

    def apart(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(kernels.AddFunction.apply(x, y, 1.5, 0.3), (96,), weight, bias)

    def at_once(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return kernels.AddLayerNormFunction.apply(x, y, 1.5, 0.3, weight, bias, 1e-5)

    upstream = torch.randn(50, 96)
    for one, other in zip(
        *(value_and_gradients(seeded(f), [x, y, weight, bias], upstream) for f in (apart, at_once)), strict=True
    ):
        close = {"rtol": 1e-2, "atol": 1e-2} if one.dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(one, other, **close)


@in_each_type
def test_nothing_is_dropped_when_nothing_is_learned(dtype):
    residual = Residual(LayerNorm(), "post", 32, 0.5).eval()
    x = torch.randn(4, 7, 32, requires_grad=True)
    with autocast_to(dtype):
        assert torch.equal(residual(x, torch.Tensor.clone), residual(x, torch.Tensor.clone))
