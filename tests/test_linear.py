"""Linear layers: whoever multiplies, the same function and the same derivatives."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dragoman.model.linear import PRODUCTS, Linear, multiply_by, onednn, plain, transposed_product
from dragoman.model.loss import linear_cross_entropy, plain_cross_entropy
from dragoman.presets import rewritten2026, vaswani2017

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")

SIZES = [(7, 5, 3), (1, 4, 9), (64, 48, 80), (33, 80, 16)]
by_size = pytest.mark.parametrize(("R", "K", "N"), SIZES)


def layouts(*shape):
    """The same numbers as they may come by: in one piece, transposed, and as part of something larger."""
    x = torch.randn(*shape)
    whole = torch.zeros(*shape[:-1], 2 * shape[-1])
    whole[..., ::2] = x
    return [x, x.transpose(0, -1).contiguous().transpose(0, -1), whole[..., ::2]]


def derivatives(product, x, weight, bias, upstream):
    given = [t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, weight)]
    if bias is not None:
        given.append(bias.clone().requires_grad_())
    y = product(given[0], given[1], None if bias is None else given[2])
    return [y, *torch.autograd.grad(y, given, upstream)]


@by_size
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("layout", [0, 1, 2], ids=["in one piece", "transposed", "part of more"])
def test_onednn_is_as_close_to_float64_as_torch_is(R, K, N, biased, layout):
    x, weight, upstream = layouts(2, R, K)[layout], layouts(N, K)[layout], layouts(2, R, N)[layout]
    bias = torch.randn(N) if biased else None
    exact = derivatives(plain, *(t if t is None else t.double() for t in (x, weight, bias, upstream)))
    for ours, theirs, true in zip(
        derivatives(onednn, x, weight, bias, upstream),
        derivatives(plain, x, weight, bias, upstream),
        exact,
        strict=True,
    ):
        assert ours.dtype == torch.float32 and ours.shape == true.shape
        assert (ours - true).norm() <= 2 * (theirs - true).norm() + 1e-6 * true.norm()


@by_size
def test_the_gradient_of_a_weight_is_a_transposed_product(R, K, N):
    a, b = torch.randn(R, N), torch.randn(R, K)
    torch.testing.assert_close(transposed_product(a, b), a.T @ b)


@pytest.mark.parametrize("frozen", [0, 1, 2], ids=["input", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(frozen):
    given = [
        t.requires_grad_(i != frozen) for i, t in enumerate((torch.randn(6, 5), torch.randn(4, 5), torch.randn(4)))
    ]
    wanted = [t for t in given if t.requires_grad]
    ours, theirs = (torch.autograd.grad(product(*given).square().sum(), wanted) for product in (onednn, plain))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_onednn_is_not_for_is_left_to_torch(dtype):
    x, weight = torch.randn(3, 5, dtype=dtype), torch.randn(4, 5, dtype=dtype)
    assert torch.equal(onednn(x, weight), F.linear(x, weight))
    assert onednn(x[:0], weight).shape == (0, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert onednn(x.float(), weight.float()).dtype == torch.bfloat16
    assert onednn(x.to("meta"), weight.to("meta")).is_meta


MODELS = {
    "2017": vaswani2017(dim=16, heads=2, hidden=32, depth=1),
    "2026": rewritten2026(dim=16, heads=2, kv_heads=1, hidden=32, depth=1),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_same_loss_and_gradients_whoever_multiplies(name):
    model = replace(MODELS[name], vocab=30).build().eval()
    source, target = torch.randint(3, 30, (4, 6)), torch.randint(3, 30, (4, 5))
    results = []
    for products in PRODUCTS:
        multiply_by(model, products)
        loss = linear_cross_entropy(
            model.hidden(target, source).flatten(0, 1), model.output.weight, None, target.flatten(),
            smoothing=0.1, product=model.output.product,
        )  # fmt: skip
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cap", [None, 2.0])
def test_the_loss_has_the_same_gradients_whoever_multiplies(cap):
    hidden, weight, bias = (torch.randn(*shape).requires_grad_() for shape in ((20, 6), (11, 6), (11,)))
    targets = torch.randint(0, 11, (20,))
    values = [
        linear_cross_entropy(hidden, weight, bias, targets, smoothing=0.1, cap=cap, product=onednn),
        plain_cross_entropy(hidden, weight, bias, targets, smoothing=0.1, cap=cap),
    ]
    torch.testing.assert_close(*([v, *torch.autograd.grad(v, (hidden, weight, bias))] for v in values))


def test_a_layer_multiplies_as_torchs_own_until_it_is_told_otherwise():
    layer = Linear(5, 4)
    assert layer.product is plain and layer.state_dict().keys() == torch.nn.Linear(5, 4).state_dict().keys()
    multiply_by(layer, "onednn")
    assert layer.product is onednn
