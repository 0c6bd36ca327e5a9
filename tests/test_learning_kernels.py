"""Kernels of training in bfloat16 and float32: no further from float64 than PyTorch's own passes, forward and back."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from by_kernels import autocast_to, compare, half, in_each_type, needed, value_and_gradients, without
from torch import Tensor

from dragoman.data.batch import PairBatch
from dragoman.data.tasks import TranslationTask
from dragoman.model.attention import masked_softmax
from dragoman.model.loss import linear_cross_entropy, plain_cross_entropy
from dragoman.model.masks.visibility import AttentionMask
from dragoman.model.mlp import relu
from dragoman.model.ops import elementwise as kernels
from dragoman.model.positions.rotary import Rotary, RotaryEffect
from dragoman.model.positions.tokens import Tokens, positions_of
from dragoman.model.tower import Tower
from dragoman.native import library as native
from dragoman.presets import rewritten2026, vaswani2017

pytestmark = needed


# ---- each pass ------------------------------------------------------------------------------------------


@in_each_type
def test_silu_gate_is_right_for_numbers_of_any_size(monkeypatch, dtype):
    gate, up = (torch.linspace(-100, 100, 64 * 16).view(64, 16) * torch.randn(64, 16)).to(dtype), half(64, 16).to(dtype)

    def gated(gate: Tensor, up: Tensor) -> Tensor:
        by_kernel = kernels.supports_rows(gate, up)
        return kernels.SiluGateFunction.apply(gate, up) if by_kernel else F.silu(gate) * up

    compare(monkeypatch, gated, gate, up, dtype=dtype)


def test_relu_is_torchs_to_the_bit():
    x, upstream = half(5, 32), half(5, 32)
    x[0, :3] = torch.tensor([0.0, -0.0, float("inf")])
    ours, theirs = (value_and_gradients(f, [x], upstream) for f in (relu, F.relu))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@in_each_type
@pytest.mark.parametrize("keys", [1, 3, 16, 40])
def test_scores_that_are_no_numbers_are_not_lost(keys, dtype):
    scores = half(2, 1, 3, keys).to(dtype)
    scores[0, 0, 1] = float("nan")
    weights, _ = value_and_gradients(lambda x: masked_softmax(x, AttentionMask()), [scores])
    assert weights[0, 0, 1].isnan().all() and weights[0, 0, [0, 2]].isfinite().all() and weights[1].isfinite().all()


@in_each_type
@pytest.mark.parametrize("keys", [1, 15, 16, 17, 40, 100])
@pytest.mark.parametrize("seen", ["all", "causal", "some", "as one"])
def test_softmax_over_the_keys_that_are_seen(monkeypatch, keys, seen, dtype):
    queries = keys if seen == "causal" else 5
    mask = {"some": torch.rand(2, 1, queries, keys) < 0.6, "as one": torch.rand(2, 1, 1, keys) < 0.6}.get(seen)
    if mask is not None:
        mask[0, 0, 0] = False
    mask, scores = AttentionMask(mask, causal=seen == "causal"), (5 * half(2, 3, queries, keys)).to(dtype)
    ours, gradient = value_and_gradients(lambda x: masked_softmax(x, mask), [scores], half(*scores.shape))
    dense = mask.dense(queries, keys, scores.device)
    if dense is not None:
        assert not ours[~dense.expand_as(ours)].any() and not gradient[~dense.expand_as(ours)].any()
    totals = torch.ones(2, 3, queries) if dense is None else dense.any(-1).float().expand(2, 3, queries)
    torch.testing.assert_close(ours.sum(-1).float(), totals, atol=1e-2, rtol=0)
    if keys > 1:
        compare(monkeypatch, lambda x: masked_softmax(x, mask), scores, dtype=dtype)


@in_each_type
@pytest.mark.parametrize("texts", [1, 2])
def test_rotation_of_heads_wherever_they_lie(monkeypatch, texts, dtype):
    ids, T, H, C = torch.ones(2, 7, dtype=torch.long), 7, 3, 32
    places = positions_of(Tokens(ids, segment=torch.tensor([[1, 1, 1, 2, 2, 2, 2], [1, 2, 2, 2, 3, 3, 3]])))
    pos = places.pos[:texts] if texts == 1 else places.pos
    turn = RotaryEffect(Rotary(), pos[..., None] * torch.rand(C // 2, dtype=torch.float64), torch.float32)

    def apart(x: Tensor) -> Tensor:
        return turn.rotate(x.unflatten(-1, (H, C)).transpose(1, 2))

    compare(monkeypatch, apart, half(2, T, H * C).to(dtype), dtype=dtype)


@in_each_type
@pytest.mark.parametrize("vocabulary", [5, 96, 101])
def test_the_loss_and_its_gradients(monkeypatch, vocabulary, dtype):
    hidden, weight = torch.randn(70, 32), torch.randn(vocabulary, 32)
    targets = torch.randint(0, vocabulary, (70,))

    def chunked(hidden: Tensor, weight: Tensor) -> Tensor:
        with autocast_to(dtype):
            return linear_cross_entropy(hidden, weight, None, targets, smoothing=0.1)

    compare(
        monkeypatch, chunked, hidden, weight, dtype=dtype, passes=1,
        exact=lambda h, w: plain_cross_entropy(h, w, None, targets, smoothing=0.1),
    )  # fmt: skip


@in_each_type
def test_a_logit_that_is_no_number_is_not_lost(dtype):
    for odd in (float("nan"), float("inf")):
        logits = half(2, 40).to(dtype)
        logits[0, 7] = odd
        losses = kernels.cross_entropy(logits, torch.ones(2, 1, dtype=torch.long), 0.1, True)
        assert not losses.isfinite() and logits[1].isfinite().all() and not logits[0].isfinite().all()


# ---- dropout --------------------------------------------------------------------------------------------


@in_each_type
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_has_its_share_and_its_gradient_passes_where_the_value_does(share, dtype):
    x = torch.ones(1000, 1040, dtype=dtype)
    value, gradient = value_and_gradients(lambda x: kernels.DropoutFunction.apply(x, share), [x])
    kept, noise = (value != 0).double(), (share * (1 - share) / x.numel()) ** 0.5
    assert abs(1 - kept.mean() - share) < 5 * noise + 2**-16
    assert torch.equal(value, kept.to(dtype) * (1 / (1 - share))) and torch.equal(value, gradient)


def test_neighbours_and_successive_draws_are_dropped_independently():
    x = torch.ones(400_000).bfloat16()
    one, two = (kernels.DropoutFunction.apply(x, 0.5).ne(0).double() - 0.5 for _ in range(2))
    bound = 5 * 0.25 / len(x) ** 0.5
    for lag in (0, 1, 2, 15, 16, 17, 32, 256):
        assert abs((one[lag:] * two[: len(two) - lag]).mean()) < bound
        assert not lag or abs((one[lag:] * one[:-lag]).mean()) < bound


def test_dropout_is_a_function_of_the_seed():
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(kernels.DropoutFunction.apply(torch.ones(64).bfloat16(), 0.5))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


# ---- a whole model --------------------------------------------------------------------------------------

MODELS = {
    "2017": vaswani2017(dim=64, heads=2, hidden=64, depth=2, dropout=0.0),
    "2026": rewritten2026(dim=64, heads=2, kv_heads=1, hidden=64, depth=2, dropout=0.0),
}


@in_each_type
@pytest.mark.parametrize("name", MODELS)
def test_a_model_learns_the_same(monkeypatch, name, dtype):
    model = replace(MODELS[name], vocab=50).build().double()
    lengths, ids = torch.tensor([9, 4, 7]), torch.randint(3, 50, (3, 9))
    ids = ids.masked_fill(torch.arange(9) >= lengths[:, None], 0)
    batch = PairBatch(ids, F.pad(ids[:, :-1], (1, 0), value=1), ids)

    def learned() -> list[Tensor]:
        precise = next(model.parameters()).dtype == torch.float64
        with autocast_to(torch.float64 if precise else dtype):
            loss, _ = TranslationTask().loss(model, batch)
        return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]

    truth = learned()
    model.float()
    ours, theirs = learned(), without(monkeypatch, learned)
    whole = [torch.cat([t.flatten().double() for t in results]) for results in (ours, theirs, truth)]
    apart = [(results - whole[2]).norm() / whole[2].norm() for results in whole]
    assert 0 < apart[0] <= 1.1 * apart[1] < 10 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", MODELS)
def test_a_run_in_float32_learns_alike_step_by_step(monkeypatch, name):
    ran: list[bool] = []
    monkeypatch.setattr(kernels, "kernel_library", lambda: ran.append(True) or native.library())
    ids = torch.randint(3, 50, (4, 11))

    def losses() -> list[Tensor]:
        torch.manual_seed(1)
        model, found = replace(MODELS[name], vocab=50).build(), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(12):
            loss, _ = TranslationTask().loss(model, PairBatch(ids, F.pad(ids[:, :-1], (1, 0), value=1), ids))
            optimizer.zero_grad()
            (loss / ids.numel()).backward()
            optimizer.step()
            found.append(loss.detach() / ids.numel())
        return found

    ours, before = torch.stack(losses()), len(ran)
    theirs = torch.stack(without(monkeypatch, losses))
    assert before >= 12 * 10 and len(ran) == before, "kernels run in one of them alone"
    assert ours[-1] < ours[0] - 0.01
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@in_each_type
def test_computing_a_layer_again_draws_the_same_dropout(dtype):
    model = replace(rewritten2026(dim=64, heads=2, kv_heads=1, hidden=64, depth=2, dropout=0.3), vocab=50).build()
    ids, results = torch.randint(3, 50, (4, 9)), []
    for again in (False, True):
        for tower in (m for m in model.modules() if isinstance(m, Tower)):
            tower.recompute = again
        torch.manual_seed(7)
        with autocast_to(dtype):
            loss, _ = TranslationTask().loss(model, PairBatch(ids, ids, ids))
        results.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
