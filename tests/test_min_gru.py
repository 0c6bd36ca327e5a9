"""minGRU: as its paper writes it, at once and step by step, and what it learns."""

import pytest
import torch
import torch.nn.functional as F
from mixing import assert_close_in_bfloat16, mixed, padded_and_packed, shaken, stepwise
from recurrent_runs import ages_are_joined
from torch import Tensor
from variants import V, Variant, assert_equal, build_from, ids

from dragoman.model.min_gru import MinGru, MinGruLayer, positive
from dragoman.model.mlp import NoFeedForward
from dragoman.model.norm import RmsNorm
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig

D = 24
SIZES = [MinGru(), MinGru(expand=1, bias=True)]
every_size = pytest.mark.parametrize("cfg", SIZES, ids=["usual", "bias"])

# ---- the cell of the paper ------------------------------------------------------------------------------


def naive(layer: MinGruLayer, x: Tensor) -> Tensor:
    """The sequential form of the paper's appendix, token by token."""
    h, found = x.new_zeros(len(x), layer.gate.out_features), []
    for token in x.unbind(1):
        z, v = layer.gate(token).sigmoid(), layer.candidate(token)
        h = (1 - z) * h + z * torch.where(v >= 0, v + 0.5, v.sigmoid())
        found.append(layer.out(h))
    return torch.stack(found, dim=1)


def with_gradients(made, layer: MinGruLayer, x: Tensor) -> tuple:
    y = made(layer, x)
    return y, torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])


@every_size
@pytest.mark.parametrize("T", [1, 5, 64, 150])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_scan_computes_the_cell_of_the_paper_and_its_gradients(cfg, T, scale):
    layer = shaken(cfg, D)
    x = (scale * torch.randn(2, T, D, dtype=torch.float64)).requires_grad_()
    assert_equal(with_gradients(mixed, layer, x), with_gradients(naive, layer, x), tolerance=1e-8)


def test_float32_is_as_exact_after_thousands_of_tokens_as_after_a_few():
    """The sums of the logarithms of decays, -6,000 and less here, would be exact to half a thousandth."""
    layer, x = shaken(MinGru(), D, std=1.0), torch.randn(1, 3000, D, dtype=torch.float64)
    with torch.no_grad():
        exact = naive(layer, x)
        y = mixed(layer.float(), x.float())
    assert_equal(y.double()[:, -50:], exact[:, -50:], tolerance=1e-4)


@pytest.mark.parametrize("gate", [-1e4, -200.0, 0.0, 200.0, 1e4])
def test_gates_of_any_size_give_numbers_and_gradients(gate):
    layer, x = shaken(MinGru(bias=True), D, torch.float32), torch.randn(2, 40, D, requires_grad=True)
    with torch.no_grad():
        layer.gate.bias += gate
    y, gradients = with_gradients(mixed, layer, x)
    assert y.isfinite().all() and all(g.isfinite().all() for g in gradients)
    torch.testing.assert_close(y, naive(layer, x), rtol=1e-4, atol=1e-5)


def test_candidates_are_positive_and_continuous():
    v = torch.tensor([-20.0, -1e-9, 0.0, 1e-9, 3.0], dtype=torch.float64)
    assert_equal(positive(v)[1:], torch.tensor([0.5, 0.5, 0.5, 3.5], dtype=torch.float64), tolerance=1e-8)
    assert positive(v)[0] > 0


# ---- the layer ------------------------------------------------------------------------------------------


@every_size
@pytest.mark.parametrize("pieces", [[1] * 9, [4, 1, 1, 3], [9]])
@torch.no_grad()
def test_step_by_step_it_is_as_at_once(cfg, pieces):
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        layer, x = shaken(cfg, D, dtype), torch.randn(2, 9, D, dtype=dtype)
        assert_equal(stepwise(layer, x, pieces), mixed(layer, x), tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_texts_apart_by_padding_and_by_segments_are_as_alone(dtype):
    layer, x = shaken(MinGru(), D, dtype, std=1.0), torch.randn(3, 9, D, dtype=dtype)
    x[1, :3] *= 1e6  # a text whose state must leave no trace in the next one
    tokens, texts = padded_and_packed()
    got = mixed(layer, x, tokens)
    for row, columns in texts:
        tolerance = 1e-9 if dtype == torch.float64 else 1e-5
        assert_equal(got[row, columns], mixed(layer, x[row : row + 1, columns])[0], tolerance)


def test_in_bfloat16_it_learns_nearly_the_same():
    assert_close_in_bfloat16(shaken(MinGru(), D, torch.float32), torch.randn(2, 70, D))


# ---- models ---------------------------------------------------------------------------------------------


def test_in_a_hybrid_with_attention_rows_of_other_ages_are_joined():
    ages_are_joined(build_from(Variant(mixers={0: MinGru()}).config("decoder-only")))


def test_it_learns_to_recall_the_first_token_of_a_text():
    torch.manual_seed(0)
    block = BlockConfig(mixer=MinGru(), mlp=NoFeedForward(), norm=RmsNorm())
    decoder = TowerConfig(depth=1, pattern=(block,), final_norm=RmsNorm())
    model = TransformerConfig(vocab=V, dim=D, decoder=decoder, tying="none").build()
    optimizer, losses = torch.optim.Adam(model.parameters(), 1e-2), []
    for _ in range(150):
        text = ids(32, 12, vocab=9)
        text[:, 0] += 9  # ids that occur nowhere else
        loss = F.cross_entropy(model(text)[:, -1], text[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 < 2 < losses[0]
