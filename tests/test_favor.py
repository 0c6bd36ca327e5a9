"""FAVOR+: an unbiased estimate of softmax attention, whose error falls with the number of features."""

import math

import pytest
import torch
from mixing import mixed, shaken
from variants import assert_equal

from dragoman.model.feature_maps import FavorFeatures, FavorMap, draw_orthogonal, log_features
from dragoman.model.linear_attention import LinearAttention

C, DRAWS = 8, 4000


def estimates(q, k, features: int, draws: int = DRAWS) -> torch.Tensor:
    """phi(q).phi(k) of so many draws."""
    found = [draw_orthogonal(torch.empty(features, C, dtype=torch.float64)) for _ in range(draws)]
    return torch.stack([(log_features(q, w).exp() * log_features(k, w).exp()).sum() for w in found])


def pair() -> tuple[torch.Tensor, torch.Tensor, float]:
    q, k = 0.3 * torch.randn(2, C, dtype=torch.float64)
    return q, k, math.exp(q @ k / C**0.5)


def test_the_estimate_is_unbiased_within_its_error():
    q, k, exact = pair()
    for vector in (k, -k, q):  # exp(q.k / sqrt(C)) below and above 1
        exact = math.exp(q @ vector / C**0.5)
        found = estimates(q, vector, 16)
        error = found.std() / DRAWS**0.5
        assert abs(found.mean() - exact) < 4 * error
        assert 4 * error < 0.15 * exact  # the claim is not empty


def test_the_error_of_independent_features_is_that_of_lemma_2_and_orthogonal_ones_err_less():
    q, k, exact = pair()
    total = (q + k).square().sum() / C**0.5
    variance = exact**2 * math.exp(total) * (1 - math.exp(-total)) / C  # lemma 2, C features, in units of C^(1/4)
    independent = torch.stack([
        (log_features(q, w).exp() * log_features(k, w).exp()).sum()
        for w in torch.randn(DRAWS, C, C, dtype=torch.float64)
    ])  # fmt: skip
    assert independent.var() == pytest.approx(variance, rel=0.5)
    assert estimates(q, k, C).var() < independent.var()


def test_the_error_falls_with_the_number_of_features():
    q, k, exact = pair()
    errors = [(estimates(q, k, m, 800) - exact).square().mean() for m in (8, 32, 128)]
    assert errors[1] < 0.5 * errors[0] and errors[2] < 0.5 * errors[1]


def test_attention_comes_close_to_softmax_attention_with_many_features():
    x, errors = torch.randn(2, 20, 24, dtype=torch.float64), []
    for features in (16, 256, 4096):
        torch.manual_seed(5)
        layer = shaken(LinearAttention(heads=3, features=FavorFeatures(features=features)), 24, std=0.1)
        for part in (layer.q, layer.k):
            part.weight.data *= 0.5  # of long vectors a few features make up the sum, and errors fall slowly
        q, k, v = (f(x).unflatten(-1, (3, -1)).transpose(1, 2) for f in (layer.q, layer.k, layer.v))
        exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        exact = layer.out(exact.transpose(1, 2).flatten(-2))
        errors.append((mixed(layer, x) - exact).norm() / exact.norm())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.1


@pytest.mark.parametrize("features", [3, 8, 20])
def test_directions_are_orthogonal_in_each_block_and_lengths_are_those_of_normal_vectors(features):
    drawn = draw_orthogonal(torch.empty(features, C, dtype=torch.float64))
    assert drawn.shape == (features, C)
    block = drawn[:C] / drawn[:C].norm(dim=1, keepdim=True)
    torch.testing.assert_close(block @ block.T, torch.eye(len(block), dtype=torch.float64), rtol=1e-5, atol=1e-5)
    lengths = torch.cat([draw_orthogonal(torch.empty(features, C)).square().sum(1) for _ in range(500)])
    assert lengths.mean() == pytest.approx(C, rel=0.1)


def test_directions_are_uniform_in_their_sign_too():
    drawn = torch.stack([draw_orthogonal(torch.empty(C, C)) for _ in range(2000)])
    assert drawn.mean(dim=0).abs().max() < 5 / 2000**0.5


def test_features_are_drawn_once_and_stored_with_the_weights():
    one, other = (FavorMap(FavorFeatures(), C) for _ in range(2))
    assert not torch.equal(one.projection, other.projection)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.projection, other.projection)
    assert one.projection.shape == (C * math.ceil(math.log(C)), C)


def test_redrawn_features_are_a_function_of_the_seed_and_evaluation_uses_the_stored_ones():
    layer = shaken(LinearAttention(heads=3, features=FavorFeatures(redraw=True)), 24)
    x = torch.randn(1, 5, 24, dtype=torch.float64)
    stored, found = mixed(layer, x), []
    layer.train()
    for seed in (1, 2, 1):
        torch.manual_seed(seed)  # as each training step does, from its number
        found.append(mixed(layer, x))
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])
    assert_equal(mixed(layer.eval(), x), stored)
