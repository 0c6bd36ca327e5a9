"""The loss that never stores its logits, against the one that stores them all."""

import copy

import pytest
import torch
from torch import Tensor
from variants import assert_equal

from dragoman.model import loss as loss_module
from dragoman.model.loss import linear_cross_entropy, plain_cross_entropy

N, D, V = 23, 6, 11


@pytest.fixture(params=[1, 4, 1000], ids=["a row a chunk", "some chunks", "one chunk"])
def chunk_rows(request, monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK_BYTES", 4 * V * request.param)


def inputs(dtype: torch.dtype = torch.float64, *, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    hidden, weight = (torch.randn(n, D, dtype=dtype, requires_grad=True) for n in (N, V))
    targets = torch.randint(0, V, (N,))  # some are 0, to be ignored
    targets[[3, 4, 22]] = 0
    return hidden, weight, torch.randn(V, dtype=dtype, requires_grad=True) if bias else None, targets


def value_and_gradients(function, *given: Tensor | None, scale: float = 1.0, **options: float) -> list[Tensor]:
    value = function(*given, **options)
    wanted = [t for t in given[:3] if t is not None and t.requires_grad]
    return [value, *torch.autograd.grad(value * scale, wanted)]


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_chunked_is_plain(chunk_rows, smoothing, bias):
    given = inputs(bias=bias)
    ours, theirs = (
        value_and_gradients(f, *given, scale=0.37, smoothing=smoothing)
        for f in (linear_cross_entropy, plain_cross_entropy)
    )
    assert_equal(ours, theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chunked_is_plain_where_logits_are_capped(chunk_rows, smoothing):
    given = inputs()
    ours, theirs = (
        value_and_gradients(f, *given, smoothing=smoothing, cap=1.5)
        for f in (linear_cross_entropy, plain_cross_entropy)
    )
    assert_equal(ours, theirs)


def test_another_target_may_be_the_ignored_one(chunk_rows):
    given = inputs()
    ours, theirs = (value_and_gradients(f, *given, ignore=5) for f in (linear_cross_entropy, plain_cross_entropy))
    assert_equal(ours, theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_are_right(chunk_rows, smoothing):
    *given, targets = inputs()
    given = [t[:5].detach().requires_grad_() if len(t) == N else t for t in given]
    assert torch.autograd.gradcheck(lambda *t: linear_cross_entropy(*t, targets[:5], smoothing=smoothing), given)


def test_it_is_the_sum_over_tokens_of_the_smoothed_cross_entropy():
    hidden, weight, bias, targets = inputs()
    log_p = (hidden @ weight.T + bias).log_softmax(-1)
    want = 0.0
    for i, y in enumerate(targets.tolist()):
        q = torch.full((V,), 0.1 / V, dtype=torch.float64)
        q[y] += 0.9
        want -= (q * log_p[i]).sum() if y != 0 else 0.0
    assert_equal(linear_cross_entropy(hidden, weight, bias, targets, smoothing=0.1), want)


@pytest.mark.parametrize("frozen", [0, 1, 2], ids=["hidden", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(frozen):
    given = inputs()
    everything = value_and_gradients(linear_cross_entropy, *given)
    given[frozen].requires_grad_(False)
    del everything[1 + frozen]
    assert_equal(value_and_gradients(linear_cross_entropy, *given), everything)


def test_nothing_but_ignored_tokens_is_zero_with_zero_gradients():
    hidden, weight, bias, targets = inputs()
    value = linear_cross_entropy(hidden, weight, bias, torch.zeros_like(targets), smoothing=0.1)
    value.backward()
    assert value == 0
    assert all((t.grad == 0).all() for t in (hidden, weight, bias))


def test_gradients_reach_a_weight_that_is_used_elsewhere_too():
    hidden, weight, _, targets = inputs(bias=False)
    both = [
        torch.autograd.grad(f(hidden @ weight.T @ weight, weight, None, targets) + weight.square().sum(), weight)
        for f in (linear_cross_entropy, plain_cross_entropy)
    ]
    assert_equal(*both)


def test_where_nothing_is_learned_no_gradient_is_computed(monkeypatch):
    monkeypatch.setattr(loss_module, "_Gradients", None)  # would fail if it were called
    given = inputs()
    with torch.no_grad():
        assert_equal(linear_cross_entropy(*given), plain_cross_entropy(*given))
    with torch.inference_mode():
        assert_equal(linear_cross_entropy(*given), plain_cross_entropy(*given))


def test_under_autocast_it_is_as_close_to_the_truth_as_the_plain_loss_is(chunk_rows):
    given = inputs(torch.float32)
    truth = value_and_gradients(plain_cross_entropy, *given, smoothing=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (
            value_and_gradients(f, *given, smoothing=0.1) for f in (linear_cross_entropy, plain_cross_entropy)
        )
    for true, our, their in zip(truth, ours, theirs, strict=True):
        assert our.dtype == torch.float32
        assert (our - true).norm() <= 1.5 * (their - true).norm() + 1e-3 * true.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sum_is_never_less_exact_than_float32(dtype):
    hidden, weight, bias, targets = inputs(dtype)
    assert linear_cross_entropy(hidden, weight, bias, targets).dtype == torch.float32


def test_large_logits_do_not_overflow():
    hidden, weight, bias, targets = inputs(torch.float32)
    value = linear_cross_entropy(1e4 * hidden, weight, bias, targets, smoothing=0.1)
    assert value.isfinite()
    assert_equal(value, plain_cross_entropy(1e4 * hidden, weight, bias, targets, smoothing=0.1), 1e-5)


def test_the_logits_of_all_tokens_never_exist_at_once():
    rows, vocabulary = 4096, 8192
    hidden, weight = torch.randn(rows, 8), torch.randn(vocabulary, 8)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            largest = max(largest, out.nbytes if isinstance(out, Tensor) else 0)
            return out

    with Watch():
        linear_cross_entropy(hidden, weight.requires_grad_(), None, torch.randint(1, vocabulary, (rows,)))
    assert largest <= loss_module.CHUNK_BYTES < rows * vocabulary * 4 / 10


def test_inputs_are_left_as_they_were():
    given = inputs()
    before = copy.deepcopy(given)
    linear_cross_entropy(*given, smoothing=0.1).backward()
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
