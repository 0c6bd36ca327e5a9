"""Kernels of training in bfloat16: no further from float64 than PyTorch's own passes, forward and back."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dragoman.data.batch import Batch
from dragoman.data.tasks import Translation
from dragoman.model.attention import AttentionConfig, View, flash, over_seen
from dragoman.model.kernels import learning as kernels
from dragoman.model.loss import linear_cross_entropy, plain_cross_entropy
from dragoman.model.mlp import relu
from dragoman.model.norm import narrow_rms_norm, rms_norm
from dragoman.model.positions.places import Tokens, stand
from dragoman.model.positions.position import Alibi
from dragoman.model.positions.relation import Relation
from dragoman.model.positions.rotary import Rotary, Rotation
from dragoman.model.positions.visibility import Full, Sight
from dragoman.model.state import KV
from dragoman.model.tower import Tower
from dragoman.native import library as native
from dragoman.presets import rewritten2026, vaswani2017

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no kernels: {native.unavailable()}")
Function = Callable[..., Tensor]


def half(*shape: int) -> Tensor:
    return torch.randn(*shape).bfloat16()


def value_and_gradients(function: Function, given: Sequence[Tensor], upstream: Tensor | None = None) -> list[Tensor]:
    given = [t.detach().clone().requires_grad_() for t in given]
    value = function(*given)
    upstream = torch.ones_like(value) if upstream is None else upstream.to(value.dtype)
    return [value, *torch.autograd.grad(value, given, upstream)]


def no_further(ours: Sequence[Tensor], theirs: Sequence[Tensor], truth: Sequence[Tensor]) -> None:
    for our, their, true in zip(ours, theirs, truth, strict=True):
        assert our.shape == true.shape
        rounding = torch.finfo(torch.bfloat16).eps / 4 * true.norm()
        assert (our - true).norm() <= 1.1 * (their - true).norm() + rounding


def without(monkeypatch, function: Callable[[], list[Tensor]]) -> list[Tensor]:
    """As ``function`` comes out where there are no kernels."""
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "available", lambda: False)
        return function()


def compare(monkeypatch, function: Function, *given: Tensor, exact: Function | None = None) -> list[Tensor]:
    """``function`` by kernels beside the same by PyTorch and what it is in float64; the first."""
    upstream = torch.randn_like(function(*given))
    ran = []
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "ready", lambda: ran.append(True) or native.library())
        ours = value_and_gradients(function, given, upstream)
    assert len(ran) >= 2, "no kernel ran, forward or back"
    theirs = without(monkeypatch, lambda: value_and_gradients(function, given, upstream))
    no_further(ours, theirs, value_and_gradients(exact or function, [t.double() for t in given], upstream))
    return ours


# ---- each pass ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3, 300])  # gradients of a weight are summed in blocks of 128 rows
@pytest.mark.parametrize("width", [16, 48, 256])
def test_rms_norm(monkeypatch, rows, width):
    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return narrow_rms_norm(x, weight, 1e-6)

    x, weight = 3 * torch.randn(2, rows, width), torch.randn(width)
    compare(monkeypatch, ours, x, weight, exact=lambda x, w: rms_norm(x, w, 1e-6))


def test_silu_gate_is_right_for_numbers_of_any_size(monkeypatch):
    gate, up = (torch.linspace(-100, 100, 64 * 16).view(64, 16) * half(64, 16)).bfloat16(), half(64, 16)

    def gated(gate: Tensor, up: Tensor) -> Tensor:
        by_kernel = gate.dtype == torch.bfloat16 and kernels.take_half(gate, up)
        return kernels.SiluGate.apply(gate, up) if by_kernel else F.silu(gate) * up

    compare(monkeypatch, gated, gate, up)


def test_relu_is_torchs_to_the_bit():
    x, upstream = half(5, 32), half(5, 32)
    x[0, :3] = torch.tensor([0.0, -0.0, float("inf")])
    ours, theirs = (value_and_gradients(f, [x], upstream) for f in (relu, F.relu))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("keys", [1, 15, 16, 17, 40, 100])
@pytest.mark.parametrize("seen", ["all", "causal", "some", "as one"])
def test_softmax_over_the_keys_that_are_seen(monkeypatch, keys, seen):
    queries = keys if seen == "causal" else 5
    mask = {"some": torch.rand(2, 1, queries, keys) < 0.6, "as one": torch.rand(2, 1, 1, keys) < 0.6}.get(seen)
    if mask is not None:
        mask[0, 0, 0] = False
    sight, scores = Sight(mask, causal=seen == "causal"), 5 * half(2, 3, queries, keys)
    ours, gradient = value_and_gradients(lambda x: over_seen(x, sight), [scores], half(*scores.shape))
    dense = sight.dense(queries, keys, scores.device)
    if dense is not None:
        assert not ours[~dense.expand_as(ours)].any() and not gradient[~dense.expand_as(ours)].any()
    totals = torch.ones(2, 3, queries) if dense is None else dense.any(-1).float().expand(2, 3, queries)
    torch.testing.assert_close(ours.sum(-1).float(), totals, atol=1e-2, rtol=0)
    if keys > 1:
        compare(monkeypatch, lambda x: over_seen(x, sight), scores)


@pytest.mark.parametrize("texts", [1, 2])
def test_rotation_of_heads_wherever_they_lie(monkeypatch, texts):
    ids, T, H, C = torch.ones(2, 7, dtype=torch.long), 7, 3, 32
    places = stand(Tokens(ids, segment=torch.tensor([[1, 1, 1, 2, 2, 2, 2], [1, 2, 2, 2, 3, 3, 3]])))
    pos = places.pos[:texts] if texts == 1 else places.pos
    turn = Rotation(Rotary(), pos[..., None] * torch.rand(C // 2, dtype=torch.float64), torch.float32)

    def apart(x: Tensor) -> Tensor:
        return turn.rotate(x.unflatten(-1, (H, C)).transpose(1, 2))

    compare(monkeypatch, apart, half(2, T, H * C))


def test_the_loss_and_its_gradients(monkeypatch):
    hidden, weight, targets = torch.randn(70, 32), torch.randn(101, 32), torch.randint(0, 101, (70,))

    def narrow(hidden: Tensor, weight: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return linear_cross_entropy(hidden, weight, None, targets, smoothing=0.1)

    compare(
        monkeypatch, narrow, hidden, weight,
        exact=lambda h, w: plain_cross_entropy(h, w, None, targets, smoothing=0.1),
    )  # fmt: skip


def test_a_logit_that_is_no_number_is_not_lost():
    for odd in (float("nan"), float("inf")):
        logits = half(2, 40)
        logits[0, 7] = odd
        losses = kernels.cross_entropy(logits, torch.ones(2, 1, dtype=torch.long), 0.1, True)
        assert not losses.isfinite() and logits[1].isfinite().all() and not logits[0].isfinite().all()


# ---- attention ------------------------------------------------------------------------------------------


def attending(sight: Sight, H: int, G: int, C: int) -> Function:
    """From what three linear layers give, by whichever kernel is chosen for it."""
    attention, view = (
        AttentionConfig(heads=H, kv_heads=G, visibility=Full()).build(H * C),
        View(sight, Relation(), None, None),
    )

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (-1, C)).transpose(1, 2) for t in (q, k, v))
        return attention.kernel(q, KV(k, v), view)(attention, q, KV(k, v), view).transpose(1, 2).flatten(-2)

    return attend


#            B  H  G  Q    K    C
SHAPES = [
    (2, 2, 2, 5, 5, 32),
    (2, 4, 2, 33, 33, 64),
    (1, 2, 1, 16, 40, 32),
    (2, 6, 2, 70, 9, 96),
    (1, 1, 1, 150, 150, 64),
]


def sights(B: int, Q: int, K: int) -> dict[str, Sight]:
    keep, some = torch.rand(B, 1, 1, K) < 0.7, torch.rand(B, 1, Q, K) < 0.3
    left, document = torch.arange(K) >= torch.arange(1, B + 1)[:, None], torch.arange(K) * 3 // K
    keep[-1], some[0, 0, 0], some[-1, 0, -1] = False, False, False
    made = {"all": Sight(), "padding": Sight(keep), "left": Sight(left[:, None, None]), "some": Sight(some)}
    if Q == K:
        apart = (document[:, None] == document) & torch.ones(K, K, dtype=torch.bool).tril()
        made |= {"causal": Sight(causal=True), "documents": Sight(apart.expand(B, 1, K, K))}
    return made


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_over_the_keys_that_are_seen(monkeypatch, shape):
    B, H, G, Q, K, C = shape
    for sight in sights(B, Q, K).values():
        given = (3 * half(B, Q, H * C), half(B, K, G * C), half(B, K, G * C))
        heads = compare(monkeypatch, attending(sight, H, G, C), *given)[0].unflatten(-1, (H, C))
        dense = sight.dense(Q, K, heads.device)
        if dense is not None:
            assert not heads[~dense.any(-1).expand(B, 1, Q)[:, 0]].any(), "who sees nothing gathers nothing"


def test_attention_reads_heads_wherever_they_lie():
    lying = [
        torch.randn(2, 3, 7, 64).bfloat16(),
        half(2, 7, 3, 128)[..., 32:96].transpose(1, 2),
        half(2, 7, 3, 64).transpose(1, 2),
    ]
    attention, view = (
        AttentionConfig(heads=3, visibility=Full()).build(192),
        View(Sight(causal=True), Relation(), None, None),
    )

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return flash(attention, q, KV(k, v), view)

    upstream = half(2, 3, 64, 7).transpose(2, 3)
    there = value_and_gradients(attend, lying, upstream)
    here = value_and_gradients(attend, [t.contiguous() for t in lying], upstream.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(there, here, strict=True))


def test_attention_keeps_nothing_of_the_size_of_its_weights():
    kept = []
    given = [half(1, 100, 64).requires_grad_() for _ in range(3)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        attending(Sight(causal=True), 2, 2, 32)(*given)
    assert 0 < max(kept) <= given[0].numel() < 2 * 100 * 100


def test_weights_that_are_dropped_biased_or_listened_to_are_written_out():
    q, view = half(1, 2, 5, 32).requires_grad_(), View(Sight(), Relation(), None, None)
    plain, dropping = (AttentionConfig(heads=2, visibility=Full(), dropout=p).build(64) for p in (0.0, 0.1))
    places = stand(Tokens(torch.ones(1, 5, dtype=torch.long)))
    biased = View(Sight(), Alibi().build(2, 32).relate(places, places, torch.float32), None, None)
    assert plain.kernel(q, KV(q, q), view) is flash
    assert dropping.kernel(q, KV(q, q), view) is not flash and plain.kernel(q, KV(q, q), biased) is not flash
    plain.weights.register_forward_hook(lambda *given: None)
    assert plain.kernel(q, KV(q, q), view) is not flash


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_not_lost(odd):
    given = [half(2, 5, 32).abs() for _ in range(3)]
    given[0][0, 3, 7] = odd
    value, _, by_k, _ = value_and_gradients(attending(Sight(), 1, 1, 32), given)
    assert not value[0, 3].isfinite().any() and value[0, :3].isfinite().all() and value[1].isfinite().all()
    assert not by_k[0].isfinite().any() and by_k[1].isfinite().all()


# ---- dropout --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_has_its_share_and_its_gradient_passes_where_the_value_does(share):
    x = torch.ones(1000, 1040).bfloat16()
    value, gradient = value_and_gradients(lambda x: kernels.Dropout.apply(x, share), [x])
    kept, noise = (value != 0).double(), (share * (1 - share) / x.numel()) ** 0.5
    assert abs(1 - kept.mean() - share) < 5 * noise + 2**-16
    assert torch.equal(value, kept.bfloat16() * (1 / (1 - share))) and torch.equal(value, gradient)


def test_neighbours_and_successive_draws_are_dropped_independently():
    x = torch.ones(400_000).bfloat16()
    one, two = (kernels.Dropout.apply(x, 0.5).ne(0).double() - 0.5 for _ in range(2))
    bound = 5 * 0.25 / len(x) ** 0.5
    for lag in (0, 1, 2, 15, 16, 17, 32, 256):
        assert abs((one[lag:] * two[: len(two) - lag]).mean()) < bound
        assert not lag or abs((one[lag:] * one[:-lag]).mean()) < bound


def test_dropout_is_a_function_of_the_seed():
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(kernels.Dropout.apply(torch.ones(64).bfloat16(), 0.5))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


# ---- a whole model --------------------------------------------------------------------------------------

MODELS = {
    "2017": vaswani2017(dim=64, heads=2, hidden=64, depth=2, dropout=0.0),
    "2026": rewritten2026(dim=64, heads=2, kv_heads=1, hidden=64, depth=2, dropout=0.0),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_learns_the_same(monkeypatch, name):
    model = replace(MODELS[name], vocab=50).build().double()
    lengths, ids = torch.tensor([9, 4, 7]), torch.randint(3, 50, (3, 9))
    ids = ids.masked_fill(torch.arange(9) >= lengths[:, None], 0)
    batch = Batch(ids, F.pad(ids[:, :-1], (1, 0), value=1), ids)

    def learned() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=next(model.parameters()).dtype == torch.float32):
            loss, _ = Translation().loss(model, batch)
        return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]

    truth = learned()
    model.float()
    ours, theirs = learned(), without(monkeypatch, learned)
    whole = [torch.cat([t.flatten().double() for t in results]) for results in (ours, theirs, truth)]
    apart = [(results - whole[2]).norm() / whole[2].norm() for results in whole]
    assert 0 < apart[0] <= 1.1 * apart[1] < 0.05


def test_computing_a_layer_again_draws_the_same_dropout():
    model = replace(rewritten2026(dim=64, heads=2, kv_heads=1, hidden=64, depth=2, dropout=0.3), vocab=50).build()
    ids, results = torch.randint(3, 50, (4, 9)), []
    for again in (False, True):
        for tower in (m for m in model.modules() if isinstance(m, Tower)):
            tower.recompute = again
        torch.manual_seed(7)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = Translation().loss(model, Batch(ids, ids, ids))
        results.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_number_of_threads_changes_no_bit():
    x, weight, upstream, threads = torch.randn(700, 128), torch.randn(128), half(700, 128), torch.get_num_threads()
    heads, gathered, attend = (
        [half(3, 40, 64) for _ in range(3)],
        half(3, 40, 64),
        attending(Sight(causal=True), 2, 2, 32),
    )
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            normed = value_and_gradients(lambda x, w: kernels.RmsNorm.apply(x, w, 1e-6), [x, weight], upstream)
            results.append([*normed, *value_and_gradients(attend, heads, gathered)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
