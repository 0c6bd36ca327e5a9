"""Attention's softmax, whose short rows are filled up: the same numbers and the same gradients as torch's own."""

import pytest
import torch

from dragoman.model.attention import VECTOR, additive_mask, softmax

LENGTHS = (1, 2, VECTOR - 1, VECTOR, VECTOR + 1, 2 * VECTOR - 1, 2 * VECTOR, 100)


def value_and_gradient(function, scores, upstream):
    scores = scores.clone().requires_grad_()
    weights = function(scores)
    return weights, torch.autograd.grad(weights, scores, upstream)[0]


@pytest.mark.parametrize("keys", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_is_torchs_softmax_of_any_length_and_no_less_exact(dtype, keys):
    scores, upstream = (5 * torch.randn(2, 3, 4, keys)).to(dtype), torch.randn(2, 3, 4, keys).to(dtype)
    truth = value_and_gradient(lambda x: x.softmax(-1), scores.double(), upstream.double())
    ours = value_and_gradient(softmax, scores, upstream)
    theirs = value_and_gradient(lambda x: x.softmax(-1), scores, upstream)
    for our, their, true in zip(ours, theirs, truth, strict=True):
        assert our.dtype == dtype and our.shape == true.shape
        assert (our - true).norm() <= 1.1 * (their - true).norm() + torch.finfo(dtype).eps * true.norm()


@pytest.mark.parametrize("keys", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_hidden_has_no_share_and_a_row_that_sees_nothing_is_finite(dtype, keys):
    mask = torch.rand(2, 1, 4, keys) < 0.5
    mask[0, 0, 0] = False
    weights = softmax(100 * torch.randn(2, 3, 4, keys).to(dtype) + additive_mask(mask, dtype))
    assert weights.isfinite().all()
    seeing = mask.any(-1, keepdim=True)
    assert not weights[(~mask & seeing).expand_as(weights)].any()
    torch.testing.assert_close(weights.sum(-1).float(), torch.ones(2, 3, 4), atol=2e-2, rtol=0)
