"""Convolutions, blocks and what a decoder reads of a source, against torch's own layers and the papers' equations."""

import math

import pytest
import torch
import torch.nn.functional as F
from convolutional_variants import D, V, build
from torch import nn
from variants import assert_equal

from dragoman.config import from_dict
from dragoman.errors import ConfigError
from dragoman.model.convolution.blocks import DilatedResidual, GatedConvolution, TanhConvolution
from dragoman.model.convolution.layers import AlignedRows, Convolution, RecentInputs
from dragoman.model.convolution.weights import PlainWeights, WeightNorm, WeightNormLinear, fold_weight_norm
from dragoman.model.families import ModelConfig
from dragoman.model.linear import Linear
from dragoman.model.positions.tokens import Tokens, positions_of

HALVED = math.sqrt(0.5)

# ---- against torch ---------------------------------------------------------------------------------


def plain_layout(length: int) -> AlignedRows:
    return AlignedRows.of(positions_of(Tokens(torch.ones(1, length, dtype=torch.long))), (), torch.float64)


def kernels_of(layer: Convolution) -> torch.Tensor:
    """The weights as conv1d has them: (outputs, inputs, kernel)."""
    weight = layer.linear.normalized() if isinstance(layer.linear, WeightNormLinear) else layer.linear.weight
    return weight.unflatten(1, (layer.kernel, -1)).transpose(1, 2)


def conv1d(layer: Convolution, x: torch.Tensor) -> torch.Tensor:
    reach = layer.reach
    sides = (reach, 0) if layer.causal else (reach // 2, reach // 2)
    padded = F.pad(x.transpose(1, 2), sides)
    return F.conv1d(padded, kernels_of(layer), layer.linear.bias, dilation=layer.dilation).transpose(1, 2)


def nothing(reach: int = 0) -> RecentInputs:
    return RecentInputs(reach, remembers=False)


@pytest.mark.parametrize("causal, kernel", [(True, 1), (True, 2), (True, 3), (True, 4), (False, 1), (False, 5)])
@pytest.mark.parametrize("dilation", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_convolution_is_torchs(causal, kernel, dilation, length):
    layer = Convolution(4, 6, PlainWeights(), kernel=kernel, dilation=dilation, causal=causal, gain=1.0).double()
    x = torch.randn(3, length, 4, dtype=torch.float64)
    assert_equal(layer(x, plain_layout(length), nothing(layer.reach)), conv1d(layer, x))


def test_normalized_weights_are_torchs():
    ours = WeightNormLinear(5, 3).double()
    with torch.no_grad():
        ours.gain += torch.rand(3)
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(5, 3).double())
    with torch.no_grad():
        theirs.parametrizations.weight.original0.copy_(ours.gain[:, None])
        theirs.parametrizations.weight.original1.copy_(ours.weight)
        theirs.bias.copy_(ours.bias)
    x = torch.randn(4, 5, dtype=torch.float64)
    assert_equal(ours(x), theirs(x))
    gradients = [torch.autograd.grad(layer(x).square().sum(), list(layer.parameters())) for layer in (ours, theirs)]
    (weight, bias, gain), (their_bias, their_gain, their_weight) = gradients
    assert_equal((weight, bias, gain[:, None]), (their_weight, their_bias, their_gain))


def test_normalized_weights_begin_as_drawn_and_are_folded_for_inference():
    layer = WeightNormLinear(5, 3)
    torch.testing.assert_close(layer.normalized(), layer.weight)
    holder = nn.Sequential(layer, nn.Sequential(WeightNormLinear(3, 3)))
    x = torch.randn(2, 5)
    want = holder(x)
    fold_weight_norm(holder)
    assert type(holder[0]) is Linear
    torch.testing.assert_close(holder(x), want)


@pytest.mark.parametrize("weights", [PlainWeights(), WeightNorm()], ids=["plain", "normalized"])
@pytest.mark.parametrize("channels", [None, 6])
def test_a_gated_convolution_is_torchs_glu(weights, channels):
    block = GatedConvolution(kernel=3, channels=channels).build(4, weights, causal=True).double()
    x = torch.randn(2, 7, 4, dtype=torch.float64)
    want = (F.glu(conv1d(block.convolution, x), dim=2) + block.residual(x)) * HALVED
    assert_equal(block(x, plain_layout(7), nothing(2)), want)


def test_a_tanh_is_applied_to_the_sum():
    block = TanhConvolution(kernel=3).build(4, PlainWeights(), causal=False).double()
    x = torch.randn(2, 7, 4, dtype=torch.float64)
    assert_equal(block(x, plain_layout(7), nothing()), (conv1d(block.convolution, x) + x).tanh())


def test_a_residual_block_of_bytenet_is_norm_relu_and_layer_three_times():
    block = DilatedResidual(dilation=2).build(8, PlainWeights(), causal=True).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    x = torch.randn(2, 9, 8, dtype=torch.float64)

    def normed(norm: nn.Module, y: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(y, y.shape[-1:], norm.weight, norm.bias).relu()

    y = F.conv1d(normed(block.down_norm, x).transpose(1, 2), block.down.weight[..., None], block.down.bias)
    y = conv1d(block.convolution, normed(block.norm, y.transpose(1, 2)))
    y = F.conv1d(normed(block.out_norm, y).transpose(1, 2), block.out.weight[..., None], block.out.bias)
    assert_equal(block(x, plain_layout(9), nothing(4)), x + y.transpose(1, 2))


# ---- written out from the papers ---------------------------------------------------------------------


def matrix(layer: Linear) -> torch.Tensor:
    return layer.normalized() if isinstance(layer, WeightNormLinear) else layer.weight


def affine(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    return matrix(layer) @ x + layer.bias


def convolved(layer: Convolution, x: list[torch.Tensor], t: int) -> torch.Tensor:
    """W [x_{t-k+1}; ...; x_t] + b, or around t; zeros outside."""
    seen = [x[t - by] if 0 <= t - by < len(x) else torch.zeros_like(x[0]) for by in layer.distances]
    return affine(layer.linear, torch.cat(seen))


def gated_convolutions(block, x):
    found = []
    for t in range(len(x)):
        a, b = convolved(block.convolution, x, t).chunk(2)
        found.append(a * torch.sigmoid(b))
    return found


def convs2s(model, target, source):
    """Gehring et al. 2017, sections 3.1 to 3.4, token by token: logits after each target token."""
    embed, encoder = model.source_embed, model.encoder.stack
    e = [embed.tokens.weight[i] + embed.position.weight[t] for t, i in enumerate(source)]
    z = [affine(encoder.entry, x) for x in e]
    for block in encoder.blocks:
        z = [(h + x) * HALVED for h, x in zip(gated_convolutions(block, z), z, strict=True)]
    z, m = [affine(encoder.leave, x) for x in z], len(source)
    g = [model.embed.tokens.weight[i] + model.embed.position.weight[t] for t, i in enumerate(target)]
    h = [affine(model.decoder.entry, x) for x in g]
    for block in model.decoder.blocks:
        new = []
        for x, gate, embedded in zip(h, gated_convolutions(block, h), g, strict=True):
            d = (affine(block.cross.q, gate) + embedded) * HALVED
            a = torch.stack([d @ key for key in z]).softmax(dim=0)
            c = sum(w * (key + value) * HALVED for w, key, value in zip(a, z, e, strict=True)) * m * math.sqrt(1 / m)
            attended = (affine(block.cross.out, c) + gate) * HALVED
            new.append((attended + x) * HALVED)
        h = new
    return torch.stack([affine(model.output, affine(model.decoder.leave, x)) for x in h])


@torch.no_grad()
def test_convs2s_is_the_papers_equations():
    model, target, source = build("convs2s"), torch.randint(3, V, (6,)), torch.randint(3, V, (5,))
    assert_equal(model(target[None], source[None])[0], convs2s(model, target, source))


def dilated_residuals(block, x):
    def inner(norm, y):
        return F.relu((y - y.mean()) / torch.sqrt(y.var(correction=0) + norm.eps) * norm.weight + norm.bias)

    y = [affine(block.down, inner(block.down_norm, v)) for v in x]
    y = [inner(block.norm, v) for v in y]
    y = [convolved(block.convolution, y, t) for t in range(len(y))]
    return [v + affine(block.out, inner(block.out_norm, w)) for v, w in zip(x, y, strict=True)]


def bytenet(model, target, source):
    """Kalchbrenner et al. 2016, section 3: the source padded to its columns, the decoder unfolded over them."""
    cfg, weight = model.cfg.encoder, model.source_embed.tokens.weight
    columns = math.ceil(cfg.ratio * len(source)) + cfg.offset
    x = [weight[i] for i in source] + [torch.zeros(D, dtype=weight.dtype)] * (columns - len(source))
    for block in model.encoder.stack.blocks:
        x = dilated_residuals(block, x)
    norm = model.encoder.stack.final_norm
    x = [F.layer_norm(v, (D,), norm.weight, norm.bias) for v in x]
    h = []
    for t, i in enumerate(target):
        h.append(model.embed.tokens.weight[i] + (x[t] if t < columns else torch.zeros_like(x[0])))
    for block in model.decoder.blocks:
        h = dilated_residuals(block, h)
    norm, (_, layer, _) = model.decoder.final_norm, model.decoder.leave
    h = [F.layer_norm(v, (D,), norm.weight, norm.bias).relu() for v in h]
    return torch.stack([affine(model.output, affine(layer, v).relu()) for v in h])


@torch.no_grad()
@pytest.mark.parametrize("source", [1, 4, 5, 10])
def test_bytenet_is_unfolded_over_its_source_and_over_zeros_behind_it(source):
    model, target, given = build("bytenet"), torch.randint(3, V, (9,)), torch.randint(3, V, (source,))
    assert_equal(model(target[None], given[None])[0], bytenet(model, target, given))


@torch.no_grad()
def test_keys_and_values_of_the_encoder_of_2016_come_from_two_stacks():
    model, source = build("cnn-9"), torch.randint(3, V, (1, 5))
    x, positions = model.source_embed.read(source)
    memory = model.encode(source)

    def stack(tower):
        y = list(tower.entry(x[0]))
        for block in tower.blocks:
            y = [torch.tanh(convolved(block.convolution, y, t) + y[t]) for t in range(len(y))]
        return tower.leave(torch.stack(y))

    keys, values = memory.layers[0].read()
    assert_equal((keys[0, 0], values[0, 0]), (stack(model.encoder.keys), stack(model.encoder.values)))
    assert positions.pos.tolist() == [[0, 1, 2, 3, 4]]


def test_the_encoder_gets_its_gradient_divided_by_twice_the_attending_layers():
    model = build("convs2s")
    target, source = torch.randint(3, V, (2, 4)), torch.randint(3, V, (2, 5))
    found = {}
    for factor in (model.encoder.gradient, 1.0):
        before, model.encoder.gradient = model.encoder.gradient, factor
        loss = model(target, source).square().sum()
        weight = model.encoder.stack.leave.weight
        found[factor] = torch.autograd.grad(loss, [weight, model.decoder.entry.weight])
        model.encoder.gradient = before
    assert model.encoder.gradient == 1 / (2 * 3)
    assert_equal(found[1 / 6][0], found[1.0][0] / 6)
    assert_equal(found[1 / 6][1], found[1.0][1])


# ---- initial weights ---------------------------------------------------------------------------------


def test_initial_weights_keep_the_variance_of_what_they_read():
    torch.manual_seed(0)
    x = torch.randn(4, 50, 64)
    for cfg in (GatedConvolution(), GatedConvolution(channels=96), DilatedResidual(inner=64)):
        block = cfg.build(64, PlainWeights(), causal=True)
        y = block.branch(x, AlignedRows.of(positions_of(Tokens(torch.ones(1, 50).long())), (), x.dtype), nothing(2))
        assert 0.7 < y.std() < 1.3, cfg


def test_inputs_that_dropout_spares_are_as_varied_as_all_would_be():
    with_dropout, without = (GatedConvolution(dropout=p).build(256, WeightNorm(), causal=True) for p in (0.75, 0.0))
    ratio = with_dropout.convolution.linear.weight.std() / without.convolution.linear.weight.std()
    assert ratio.item() == pytest.approx(0.5, rel=0.02)


# ---- mistakes ----------------------------------------------------------------------------------------

GATED = {"kind": "gated_convolution"}
STACK = {"depth": 2, "pattern": [GATED]}
TRANSLATOR = {"kind": "convolutional", "vocab": V, "dim": D, "encoder": {"kind": "multi_step_source", "stack": STACK}}
TRANSLATOR |= {"decoder": STACK}


def refused(change, base=TRANSLATOR) -> str:
    with pytest.raises(ConfigError) as refusal:
        from_dict(ModelConfig, base | change).build()
    return str(refusal.value)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"encoder": {"kind": "multi_step_source", "stack": STACK | {"pattern": [GATED | {"kernel": 4}]}}},
            "model.encoder.stack.pattern.0.kernel: 4 tokens have no middle one, which an encoder's convolution needs: "
            "choose an odd number",
        ),
        (
            {
                "encoder": {
                    "kind": "two_stack_source",
                    "keys": STACK,
                    "values": STACK | {"pattern": [GATED, GATED | {"kernel": 2}]},
                }
            },
            "model.encoder.values.pattern.1.kernel: 2 tokens have no middle one, which an encoder's convolution needs: "
            "choose an odd number",
        ),
        (
            {"decoder": STACK | {"pattern": [GATED | {"kernel": 1, "dilation": 4}]}},
            "model.decoder.pattern.0.dilation: 4, but a kernel of 1 token has no second one at that distance: use a "
            "kernel of 2 or more, or dilation 1",
        ),
        (
            {"decoder": STACK | {"ends": "no_projections", "pattern": [GATED | {"channels": 6}]}},
            "model.decoder.ends: the last block has 6 channels and the model a width of 8: use projections, or as many "
            "channels",
        ),
        (
            {"dim": 7, "decoder": {"depth": 1, "pattern": ["dilated_residual"], "ends": "no_projections"}},
            "model.decoder.pattern.0.inner: half of an odd width, 7: set the channels of the convolution",
        ),
        (
            {"encoder": {"kind": "multi_step_source", "stack": STACK, "attend_from": [0, 2]}},
            "model.encoder.attend_from: block 2, and the decoder's are 0 to 1",
        ),
        ({"decoder": STACK | {"pattern": []}}, "model.decoder.pattern: must have at least one entry"),
        (
            {"embedding": 12, "tying": "all"},
            "model.tying: 'all' shares one matrix between embedding and output, but the embedding is 12 wide and the "
            "output reads 8; use 'inputs' or 'none'",
        ),
        ({"vocab": None}, "model.vocab: must be given before the model is built; training sets it from the tokenizer"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused_with_path_and_remedy(change, message):
    assert refused(change) == message
