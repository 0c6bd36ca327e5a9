"""Kernels of training beside PyTorch's own passes, for tests."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from dragoman.model.ops import elementwise as kernels
from dragoman.native import library as native

Function = Callable[..., Tensor]
needed = pytest.mark.skipif(not native.available(), reason=f"no kernels: {native.unavailable()}")


TYPES = [torch.bfloat16, torch.float32]
"""Types that the kernels of a training step read and write."""
in_each_type = pytest.mark.parametrize("dtype", TYPES, ids=["bfloat16", "float32"])
ROUNDINGS = {torch.bfloat16: 0.25, torch.float32: 8.0}
"""Distance from the truth that kernels may have beyond PyTorch's own, in units of the last place. In float32, where
both are exact to a few of these, the terms of a gradient of attention cancel."""


def half(*shape: int) -> Tensor:
    return torch.randn(*shape).bfloat16()


def autocast_to(dtype: torch.dtype) -> torch.autocast:
    """Autocast as training in ``dtype`` has it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


def value_and_gradients(function: Function, given: Sequence[Tensor], upstream: Tensor | None = None) -> list[Tensor]:
    given = [t.detach().clone().requires_grad_() for t in given]
    value = function(*given)
    upstream = torch.ones_like(value) if upstream is None else upstream.to(value.dtype)
    return [value, *torch.autograd.grad(value, given, upstream)]


def no_further(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], truth: Sequence[Tensor], dtype: torch.dtype = torch.bfloat16
) -> None:
    for our, their, true in zip(ours, theirs, truth, strict=True):
        assert our.shape == true.shape
        rounding = ROUNDINGS[dtype] * torch.finfo(dtype).eps * true.norm()
        assert (our - true).norm() <= 1.1 * (their - true).norm() + rounding


def without(monkeypatch, function: Callable[[], list[Tensor]]) -> list[Tensor]:
    """As ``function`` comes out where there are no kernels."""
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "available", lambda: False)
        return function()


def compare(
    monkeypatch,
    function: Function,
    *given: Tensor,
    exact: Function | None = None,
    passes: int = 2,
    dtype: torch.dtype = torch.bfloat16,
) -> list[Tensor]:
    """``function`` by kernels beside the same by PyTorch and what it is in float64; the first.

    ``passes`` are by kernels for ``dtype``: as a rule one forward and one back.
    """
    upstream = torch.randn_like(function(*given))
    ran = []
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "kernel_library", lambda: ran.append(True) or native.library())
        ours = value_and_gradients(function, given, upstream)
    assert len(ran) >= passes, "no kernel ran, forward or back"
    theirs = without(monkeypatch, lambda: value_and_gradients(function, given, upstream))
    no_further(ours, theirs, value_and_gradients(exact or function, [t.double() for t in given], upstream), dtype)
    return ours


def same_with_any_number_of_threads(function: Callable[[], Sequence[Tensor]]) -> None:
    """To the bit."""
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(function())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
