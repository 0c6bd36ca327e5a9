"""The loss that never stores its logits, against the one that stores them all."""

import copy

import pytest
import torch
from torch import Tensor
from variants import assert_equal

from dragoman.model import chunked_loss as chunks
from dragoman.model.loss import linear_cross_entropy, linear_r_drop, plain_cross_entropy, plain_r_drop

N, D, V = 23, 6, 11


@pytest.fixture(params=[1, 4, 1000], ids=["a row a chunk", "some chunks", "one chunk"])
def chunk_rows(request, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 4 * V * request.param)
    monkeypatch.setattr(chunks, "KERNEL_CHUNK", V * request.param)


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
    monkeypatch.setattr(chunks, "_Gradients", None)  # would fail if it were called
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("target", [-1, -100, 50, 10**8])
def test_a_target_that_is_no_entry_is_refused(target, dtype):
    hidden, weight = torch.randn(4, 32, requires_grad=True), torch.randn(50, 32)
    targets = torch.tensor([1, 2, 3, target])
    with pytest.raises(IndexError, match="out of bounds"):
        linear_cross_entropy(hidden.to(dtype), weight.to(dtype), None, targets)


def test_targets_may_be_short_numbers():
    hidden, weight, targets = torch.randn(4, 32, requires_grad=True), torch.randn(50, 32), torch.tensor([1, 2, 3, 49])
    given = (hidden, weight, None)
    assert_equal(linear_cross_entropy(*given, targets.int()), linear_cross_entropy(*given, targets))


def test_a_forbidden_entry_is_no_loss_of_the_others():
    hidden, weight, targets = torch.randn(4, 32, requires_grad=True), torch.randn(50, 32), torch.tensor([1, 2, 3, 4])
    bias = torch.zeros(50)
    bias[49] = float("-inf")
    expected = linear_cross_entropy(hidden, weight[:49], None, targets)
    assert_equal(linear_cross_entropy(hidden, weight, bias, targets), expected, 1e-5)


def test_large_logits_do_not_overflow():
    hidden, weight, bias, targets = inputs(torch.float32)
    value = linear_cross_entropy(1e4 * hidden, weight, bias, targets, smoothing=0.1)
    assert value.isfinite()
    assert_equal(value, plain_cross_entropy(1e4 * hidden, weight, bias, targets, smoothing=0.1), 1e-5)


def test_the_logits_of_all_tokens_never_exist_at_once():
    rows, vocabulary = 16384, 8192
    hidden, weight = torch.randn(rows, 8), torch.randn(vocabulary, 8)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            largest = max(largest, out.nbytes if isinstance(out, Tensor) else 0)
            return out

    with Watch():
        targets = torch.randint(1, vocabulary, (rows,))
        linear_cross_entropy(hidden, weight.requires_grad_(), None, targets)
        linear_r_drop(hidden[:512], hidden[512:1024], weight, None, targets[:512], alpha=5.0)
    assert largest <= 4 * chunks.KERNEL_CHUNK < rows * vocabulary * 4 / 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_chunk_on_another_device_than_a_cpu_is_a_quarter_of_a_gigabyte(rows, dtype):
    weight = torch.empty(37_000, 8, dtype=dtype, device="meta")
    tokens = chunks._chunk(weight, rows, None)
    row = 4 * 37_000 * rows
    assert tokens * row <= 2**28 < (tokens + 1) * row


def test_inputs_are_left_as_they_were():
    given = inputs()
    before = copy.deepcopy(given)
    linear_cross_entropy(*given, smoothing=0.1).backward()
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


# ---- R-Drop ---------------------------------------------------------------------------------------


def passes(dtype: torch.dtype = torch.float64, *, bias: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    one, weight, bias_, _ = inputs(dtype, bias=bias)
    two = (one + 0.3 * torch.randn_like(one)).detach().requires_grad_()
    return one, two, weight, bias_


@pytest.mark.parametrize("cap", [None, 1.5], ids=["", "capped"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chunked_r_drop_is_plain(chunk_rows, smoothing, bias, cap):
    given, targets = passes(bias=bias), inputs()[3]
    options = {"alpha": 5.0, "smoothing": smoothing, "cap": cap}
    wanted = [t for t in given if t is not None]
    ours, theirs = (
        [value := f(*given, targets, **options), *torch.autograd.grad(value * 0.37, wanted)]
        for f in (linear_r_drop, plain_r_drop)
    )
    assert_equal(ours, theirs)


def test_gradients_of_r_drop_are_right(chunk_rows):
    one, two, weight, bias = passes()
    few = [t.detach().requires_grad_() for t in (one[:5], two[:5], weight, bias)]
    targets = inputs()[3][:5]
    assert torch.autograd.gradcheck(lambda *t: linear_r_drop(*t, targets, alpha=5.0, smoothing=0.1), few)


def test_it_is_half_of_the_papers_equation():
    one, two, weight, bias = passes()
    targets = inputs()[3]
    real = targets != 0
    log_p, log_q = ((h @ weight.T + bias).log_softmax(-1)[real] for h in (one, two))
    kl = torch.nn.functional.kl_div
    both = kl(log_q, log_p, reduction="sum", log_target=True) + kl(log_p, log_q, reduction="sum", log_target=True)
    nll = -sum(x.gather(1, targets[real, None]).sum() for x in (log_p, log_q))
    assert_equal(linear_r_drop(one, two, weight, bias, targets, alpha=5.0), (nll + 5.0 / 2 * both) / 2)


def test_two_equal_passes_cost_what_one_does(chunk_rows):
    hidden, weight, bias, targets = inputs()
    assert_equal(
        linear_r_drop(hidden, hidden, weight, bias, targets, alpha=5.0, smoothing=0.1),
        linear_cross_entropy(hidden, weight, bias, targets, smoothing=0.1),
    )


def test_r_drop_of_nothing_but_ignored_tokens_is_zero():
    one, two, weight, bias = passes()
    assert linear_r_drop(one, two, weight, bias, torch.zeros(N, dtype=torch.long), alpha=5.0) == 0
