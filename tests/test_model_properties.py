"""What must hold for every model, whatever it is made of."""

import pytest
import torch
from torch import Tensor
from variants import D, H, V, assert_equal, batch, build, every_model, every_variant, gradients, ids

from dragoman.errors import ConfigError
from dragoman.model import attention as attention_module
from dragoman.model.attention import Attention, AttentionConfig
from dragoman.model.interface import PAD, Tokens
from dragoman.model.masks.visibility import Causal, Full, Prefix, Structural
from dragoman.model.mlp import FeedForward
from dragoman.model.moe import auxiliary_loss
from dragoman.model.norm import LayerNorm
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import Transformer, TransformerConfig


def gradient_by_input(model: Transformer, target: Tensor | Tokens, source: Tensor | None, t: int) -> Tensor:
    """|d logits of token t / d embedded target tokens|, summed over all but the tokens."""
    embedded = []
    handle = model.embed.register_forward_hook(lambda module, given, out: embedded.append(out))
    logits = model(target, source)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, t].square().sum(), embedded)
    return gradient.abs().sum(dim=(0, 2))


# ---- the future ------------------------------------------------------------------------------------


@every_model
def test_the_gradient_of_an_output_with_respect_to_later_inputs_is_exactly_zero(variant, shape):
    model = build(variant, shape)
    by_input = gradient_by_input(model, *batch(model, 2, 8, 5), t=4)
    assert (by_input[5:] == 0).all()
    assert by_input[4] > 0


@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_window_is_exactly_as_wide_as_it_says(window):
    block = BlockConfig(
        mixer=AttentionConfig(heads=H, visibility=Causal(window=window, sinks=1)),
        mlp=FeedForward(hidden=8),
        norm=LayerNorm(),
    )
    model = TransformerConfig(vocab=V, dim=D, decoder=TowerConfig(depth=1, pattern=(block,))).build().double()
    seen = gradient_by_input(model, ids(2, 8), None, t=6) > 0
    assert seen.tolist() == [i == 0 or 6 - window < i <= 6 for i in range(8)]


def seen_by(visibility, tokens: Tokens) -> list[list[bool]]:
    """Which inputs reach each output of one layer."""
    block = BlockConfig(
        mixer=AttentionConfig(heads=H, visibility=visibility), mlp=FeedForward(hidden=8), norm=LayerNorm()
    )
    model = TransformerConfig(vocab=V, dim=D, decoder=TowerConfig(depth=1, pattern=(block,))).build().double()
    return [(gradient_by_input(model, tokens, None, t) > 0).tolist() for t in range(tokens.ids.shape[1])]


def test_a_prefix_is_read_in_both_directions_and_the_rest_forwards_only():
    field = torch.tensor([[0, 0, 0, 1, 1, 1]])
    seen = seen_by(Prefix(), Tokens(ids(1, 6), field=field))
    assert seen == [[j <= i or j < 3 for j in range(6)] for i in range(6)]


def test_fields_see_exactly_the_fields_that_the_structure_says():
    field, sees = torch.tensor([[0, 1, 2, 1, 0, 2]]), ((0,), (0, 1), (2, 1))
    f = field[0].tolist()
    assert seen_by(Structural(sees=sees), Tokens(ids(1, 6), field=field)) == [
        [f[j] in sees[f[i]] for j in range(6)] for i in range(6)
    ]
    assert seen_by(Structural(sees=sees, causal=True), Tokens(ids(1, 6), field=field)) == [
        [f[j] in sees[f[i]] and j <= i for j in range(6)] for i in range(6)
    ]


def test_structure_wants_fields_and_knows_them_all():
    block = BlockConfig(
        mixer=AttentionConfig(heads=H, visibility=Structural(sees=((0,),))), mlp=FeedForward(hidden=8), norm=LayerNorm()
    )
    model = TransformerConfig(vocab=V, dim=D, decoder=TowerConfig(depth=1, pattern=(block,))).build()
    with pytest.raises(ConfigError, match="needs the field of each token"):
        model(ids(1, 3))
    with pytest.raises(ConfigError, match="field 1 of a token is not in 'sees'"):
        model(Tokens(ids(1, 3), field=torch.tensor([[0, 0, 1]])))


def test_full_visibility_sees_the_future(monkeypatch):
    monkeypatch.setattr(AttentionConfig, "check_decoder", lambda self: None)  # a decoder with it is refused
    assert all(all(row) for row in seen_by(Full(), Tokens(ids(1, 5))))


# ---- padding and packing ---------------------------------------------------------------------------


def loss(model: Transformer, target: Tensor | Tokens, source: Tensor | Tokens | None, real: Tensor) -> Tensor:
    """A loss of the real tokens alone, with what mixtures add."""
    return model(target, source)[real].logsumexp(-1).sum() + 10 * auxiliary_loss(model)


@pytest.fixture
def training():
    """Puts a model into training mode for the length of a test."""
    put = []

    def train(model: Transformer) -> Transformer:
        put.append(model)
        return model.train()

    yield train
    for model in put:
        model.eval()


def padded(x: Tensor | None, *, left: int = 0, right: int = 0) -> Tensor | None:
    return None if x is None else torch.nn.functional.pad(x, (left, right), value=PAD)


@every_model
def test_padding_on_the_right_changes_neither_output_nor_gradient(variant, shape, training):
    model = training(build(variant, shape))
    target, source = batch(model, 2, 6, 5)
    want = loss(model, target, source, target != PAD)
    longer = padded(target, right=3)
    got = loss(model, longer, padded(source, right=2), longer != PAD)
    assert_equal(got, want)
    assert_equal(gradients(model, got), gradients(model, want))


@every_variant
def test_padding_on_the_left_changes_neither_output_nor_gradient(variant, training):
    model = training(build(variant))
    target, source = batch(model, 2, 6, 5)
    want = loss(model, target, source, target != PAD)
    longer, more = padded(target, left=3), padded(source, left=2)
    more = None if more is None else Tokens(more, keep=more != PAD)
    got = loss(model, Tokens(longer, keep=longer != PAD), more, longer != PAD)
    assert_equal(got, want)
    assert_equal(gradients(model, got), gradients(model, want))


@every_variant
def test_texts_packed_into_a_row_are_as_in_rows_of_their_own(variant):
    model = build(variant)
    first, second = batch(model, 1, 6, 5), batch(model, 1, 3, 4)
    want = torch.cat([model(*first), model(*second)], dim=1)
    target, source = (
        None if a is None else Tokens(torch.cat([a, b], 1), segment=torch.tensor([[0] * a.shape[1] + [1] * b.shape[1]]))
        for a, b in zip(first, second, strict=True)
    )
    got = model(target, source)
    assert_equal(got, want)
    assert_equal(gradients(model, got.logsumexp(-1).sum()), gradients(model, want.logsumexp(-1).sum()))


@every_variant
def test_packed_rows_may_be_padded(variant):
    model = build(variant)
    first, second = batch(model, 1, 5, 4), batch(model, 1, 3, 3)
    target, source = (
        Tokens(
            torch.cat([a, padded(b, right=2)], 1),
            keep=torch.tensor([[True] * (a.shape[1] + b.shape[1]) + [False] * 2]),
            segment=torch.tensor([[7] * a.shape[1] + [3] * b.shape[1] + [0] * 2]),
        )
        for a, b in zip(first, second, strict=True)
    )
    assert_equal(model(target, source)[:, :8], torch.cat([model(*first), model(*second)], dim=1))


# ---- rows ------------------------------------------------------------------------------------------


@every_variant
def test_rows_are_independent_of_the_batch_they_come_in(variant):
    model = build(variant)
    target, source = batch(model, 3, 7, 5)
    together = model(target, source)
    for i in range(3):
        assert_equal(together[i : i + 1], model(target[i : i + 1], None if source is None else source[i : i + 1]))


@every_variant
def test_a_source_of_nothing_but_padding_gives_numbers_and_no_gradient(variant):
    model = build(variant)
    target, source = batch(model, 2, 6, 5)
    nothing = source.clone()
    nothing[1] = PAD
    logits = model(target, nothing)
    assert logits.isfinite().all()
    assert_equal(logits[:1], model(target[:1], source[:1]))
    embedded = []
    handle = model.source_embed.register_forward_hook(lambda module, given, out: embedded.append(out))
    total = model(target, nothing).logsumexp(-1).sum()
    handle.remove()
    (by_source,) = torch.autograd.grad(total, embedded, retain_graph=True)
    assert by_source[0].abs().sum() > 0
    assert (by_source[1] == 0).all()
    assert all(g.isfinite().all() for g in gradients(model, total).values())


@pytest.fixture(params=["fused", "explicit"])
def kernel(request, monkeypatch):
    """Attention goes through this kernel wherever both can do it."""
    use(request.param, monkeypatch)


def use(kernel: str, monkeypatch) -> None:
    monkeypatch.setattr(attention_module, "explicit_is_faster", lambda *given: kernel == "explicit")


@every_variant
def test_a_row_that_sees_nothing_attends_to_nothing(variant, kernel):
    model = build(variant)
    heads = []
    handles = [
        m.out.register_forward_pre_hook(lambda module, given: heads.append(given[0]))
        for m in model.decoder.modules()
        if isinstance(m, Attention)
    ]
    target, source = batch(model, 2, 6, 5)
    keep = torch.tensor([[True] * 6, [False] * 6])
    total = model(Tokens(target, keep=keep), Tokens(source, keep=keep[:, :5])).logsumexp(-1).sum()
    for handle in handles:
        handle.remove()
    assert len(heads) == len(handles) >= 2
    assert all((seen[1] == 0).all() and seen[0].abs().sum() > 0 for seen in heads)
    assert all(g.isfinite().all() for g in gradients(model, total).values())


# ---- kernels ---------------------------------------------------------------------------------------


@every_model
def test_the_fused_kernel_equals_the_explicit_one(variant, shape, monkeypatch):
    model = build(variant, shape)
    target, source = batch(model, 2, 7, 5)
    if source is not None:
        source[1, 3:] = PAD
    results = []
    for kernel in ("fused", "explicit"):
        use(kernel, monkeypatch)
        logits = model(target, source)
        results.append((logits, gradients(model, logits.logsumexp(-1).sum())))
    assert_equal(results[0], results[1])


@every_variant
def test_listening_to_the_weights_does_not_change_the_output_and_they_sum_to_one(variant):
    model = build(variant)
    target, source = batch(model, 2, 7, 5)
    quiet = model(target, source)
    seen = {}
    handles = [
        m.weights.register_forward_hook(lambda module, given, out, name=name: seen.update({name: out}))
        for name, m in model.named_modules()
        if isinstance(m, Attention)
    ]
    assert_equal(model(target, source), quiet)
    for handle in handles:
        handle.remove()
    heads = {name: module.cfg.heads for name, module in model.named_modules() if isinstance(module, Attention)}
    assert len(seen) == len(handles) > 0
    for name, weights in seen.items():
        Q, K = (5, 5) if name.startswith("encoder") else (7, 5) if name.endswith("cross") else (7, 7)
        assert weights.shape == (2, heads[name], Q, K)
        assert_equal(weights.sum(-1), torch.ones_like(weights[..., 0]))


# ---- symmetries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["plain", "gqa", "additive", "multiplicative, gqa", "mixture", "DeepNorm"])
def test_without_positions_permuting_the_source_permutes_its_encoding(variant):
    model = build(variant)
    source, order = ids(2, 7), torch.randperm(7)
    assert_equal(model.encode(source[:, order]).x, model.encode(source).x[:, order])
    target = ids(2, 3)
    assert_equal(model(target, source[:, order]), model(target, source))


@pytest.mark.parametrize("variant", ["sinusoidal", "learned", "rotary", "alibi", "t5", "shaw"])
def test_with_positions_order_matters(variant):
    model = build(variant)
    source, order = torch.arange(1, 8)[None], torch.tensor([0, 3, 1, 2, 6, 4, 5])
    assert (model.encode(source[:, order]).x - model.encode(source).x[:, order]).abs().max() > 1e-4
