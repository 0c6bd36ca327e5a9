"""Parts of encoders of the ELECTRA, ALBERT and ModernBERT kind: narrow embeddings, shared layers, windows, norms."""

import dataclasses

import pytest
import torch

from dragoman.errors import ConfigError
from dragoman.model.attention import AttentionConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import ClassificationHead, MaskedLanguageHead, SpansHead, TaggingHead
from dragoman.model.inputs import TokenInput
from dragoman.model.lora import Lora
from dragoman.model.masks.visibility import Full, SlidingWindow, Visibility
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm, NoNorm
from dragoman.model.positions.position import InclusiveSinusoidal, Sinusoidal
from dragoman.model.positions.tokens import Tokens
from dragoman.model.tower import BlockConfig, SharedTower, TowerConfig

BLOCK = BlockConfig(
    mixer=AttentionConfig(heads=2, visibility=Full(), bias=True), mlp=FeedForward(hidden=9), norm=LayerNorm()
)
PLAIN = EncoderConfig(inputs=TokenInput(vocab=20), dim=8, tower=TowerConfig(depth=3, pattern=(BLOCK,)))
IDS = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 10, 11]])


def build(**changed):
    torch.manual_seed(0)
    return dataclasses.replace(PLAIN, **changed).build().eval()


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def seeing(visibility: Visibility, depth=1):
    block = dataclasses.replace(BLOCK, mixer=dataclasses.replace(BLOCK.mixer, visibility=visibility))
    return build(tower=TowerConfig(depth=depth, pattern=(block,)))


# ---- windows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach, depth", [(1, 1), (3, 1), (1, 2)])
def test_a_window_reaches_as_far_as_it_says_in_both_directions(reach, depth):
    model, other = seeing(SlidingWindow(reach=reach), depth), IDS.clone()
    other[0, 4] = 17
    changed = ((model(IDS) - model(other)).abs().amax(dim=2) > 1e-6)[0].tolist()
    assert changed == [abs(i - 4) <= reach * depth for i in range(9)]


def test_a_window_as_long_as_the_text_sees_all_of_it():
    torch.testing.assert_close(seeing(SlidingWindow(reach=8))(IDS), seeing(Full())(IDS))


def test_padding_on_either_side_changes_nothing_under_a_window():
    model = seeing(SlidingWindow(reach=2), 2)
    alone = model(IDS[:, :5])
    for side in (slice(0, 5), slice(4, 9)):
        ids, keep = torch.zeros(1, 9, dtype=torch.long), torch.zeros(1, 9, dtype=torch.bool)
        ids[:, side], keep[:, side] = IDS[:, :5], True
        torch.testing.assert_close(model(Tokens(ids, keep))[:, side], alone)


def test_a_decoder_may_not_see_ahead_by_a_window():
    with pytest.raises(ConfigError, match="a decoder must not see what it is to predict"):
        AttentionConfig(heads=2, visibility=SlidingWindow(reach=2)).check_decoder()


# ---- shared layers -----------------------------------------------------------------------------------


def test_layers_of_a_group_have_the_same_weights_and_are_counted_once():
    one, two, all_own = (
        build(tower=SharedTower(depth=4, pattern=(BLOCK,), groups=1)),
        build(tower=SharedTower(depth=4, pattern=(BLOCK,), groups=2)),
        build(tower=TowerConfig(depth=4, pattern=(BLOCK,))),
    )
    layer = (count(all_own) - count(one)) // 3
    assert count(two) == count(one) + layer
    first, second, third, fourth = (block.mlp.up.weight for block in two.tower.blocks)
    assert first is second and third is fourth and first is not third


def test_a_shared_layer_computes_what_copies_of_it_compute_and_learns_from_each():
    shared = build(tower=SharedTower(depth=3, pattern=(BLOCK,)))
    copies = build(tower=TowerConfig(depth=3, pattern=(BLOCK,)))
    copies.load_state_dict(shared.state_dict())
    torch.testing.assert_close(copies(IDS), shared(IDS))
    for model in (shared, copies):
        model(IDS).square().sum().backward()
    summed = sum(block.mlp.up.weight.grad for block in copies.tower.blocks)
    torch.testing.assert_close(shared.tower.blocks[0].mlp.up.weight.grad, summed)


def test_groups_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="groups: 4 groups, and 3 layers"):
        build(tower=SharedTower(depth=3, pattern=(BLOCK,), groups=4))
    other = dataclasses.replace(BLOCK, mlp=FeedForward(hidden=10))
    with pytest.raises(ConfigError, match="layers that share their weights must be equal"):
        build(tower=SharedTower(depth=4, pattern=(BLOCK, other)))


def test_adapters_do_not_stand_on_weights_that_layers_share():
    with pytest.raises(ConfigError, match=r"start_from\.lora\.targets"):
        Lora(rank=2).target_layers(build(tower=SharedTower(depth=3, pattern=(BLOCK,))))
    assert len(Lora(rank=2).target_layers(build(tower=SharedTower(depth=3, pattern=(BLOCK,), groups=3)))) == 6


# ---- inputs, norms and heads --------------------------------------------------------------------------


def test_a_narrow_embedding_is_projected_and_its_masked_head_is_as_narrow():
    model = build(inputs=TokenInput(vocab=20, types=2, norm=LayerNorm(), width=4), head=MaskedLanguageHead())
    assert model.inputs.tokens.weight.shape == (20, 4) and model.inputs.types.weight.shape == (2, 4)
    assert model.head.output.weight is model.inputs.tokens.weight
    assert model(IDS).shape == (1, 9, 20)


def test_only_the_feed_forward_has_a_norm_before_it_where_the_placement_says_so():
    block = dataclasses.replace(BLOCK, placement="pre_mlp")
    model = build(tower=TowerConfig(depth=1, pattern=(block,)))
    names = {name for name, _ in model.named_parameters() if "residual" in name}
    assert names == {f"tower.blocks.0.mlp_residual.before.{leaf}" for leaf in ("weight", "bias")}
    x = torch.randn(1, 9, 8)
    mixed = x + model.tower.blocks[0].mixer(x, *context_of(model, x))
    wanted = mixed + model.tower.blocks[0].mlp(model.tower.blocks[0].mlp_residual.before(mixed))
    torch.testing.assert_close(model.tower.blocks[0](x, *context_of(model, x)), wanted)


def context_of(model, x):
    from dragoman.model.caches.state import stateless

    state = model.tower.new_state(stateless)
    _, positions = model.inputs.read(IDS)
    return model.tower.contexts(x, positions, state, None)[0], state.layers[0]


@pytest.mark.parametrize("head", [ClassificationHead(classes=3), TaggingHead(classes=3), SpansHead()])
def test_a_layer_before_the_classes_has_activation_norm_and_bias(head):
    layered = dataclasses.replace(head, activation="gelu", norm=LayerNorm(bias=False), bias=False)
    plain, model = build(head=head), build(head=layered)
    names = {name for name, _ in model.head.named_parameters()}
    assert names == {"dense.weight", "norm.weight", "output.weight", "output.bias"}
    assert model(IDS).shape == plain(IDS).shape
    with pytest.raises(ConfigError, match="norm: stands behind the layer that activation names"):
        build(head=dataclasses.replace(head, norm=LayerNorm()))
    assert isinstance(plain.head.norm, torch.nn.Identity) and head.norm == NoNorm()


# ---- sines and cosines ---------------------------------------------------------------------------------


def test_inclusive_sinusoids_end_at_the_longest_wavelength_and_count_from_their_offset():
    scheme = InclusiveSinusoidal(base=100.0, offset=2).build(8)
    at = scheme(torch.zeros(1, 3, 8), torch.arange(3)[None])[0]
    for position in range(3):
        angles = torch.tensor([(position + 2) * 100.0 ** (-i / 3) for i in range(4)])
        torch.testing.assert_close(at[position], torch.cat([angles.sin(), angles.cos()]))
    plain = Sinusoidal(base=100.0, layout="halves").build(8)(torch.zeros(1, 3, 8), torch.arange(3)[None])
    assert (at - plain[0]).abs().max() > 0.1


def test_sinusoids_need_pairs_of_channels():
    for scheme in (Sinusoidal(), InclusiveSinusoidal()):
        with pytest.raises(ConfigError, match="the width 7 is odd"):
            scheme.build(7)
    with pytest.raises(ConfigError, match="two wavelengths need four channels"):
        InclusiveSinusoidal().build(2)
