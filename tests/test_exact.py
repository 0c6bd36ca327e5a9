"""What a kernel does not know by its exact type is computed by PyTorch: subclasses, hooks, and fields that are new."""

import copy
import dataclasses
from typing import get_type_hints

import pytest
import torch
from by_kernels import needed, without
from torch import Tensor, nn
from torch.nn import functional as F
from variants import MODELS, VARIANTS, batch, build, build_from

from dragoman.config import choices, config
from dragoman.decode.precision import prepare_for_inference
from dragoman.model.attention import Attention, AttentionConfig
from dragoman.model.dropout import Dropout
from dragoman.model.inference.known import KNOWN, UnknownToKernels, check_known
from dragoman.model.inference.native import NativeTransformer
from dragoman.model.linear import Linear
from dragoman.model.masks.visibility import Causal, Full, build_cross_mask, build_self_mask, retained_columns
from dragoman.model.mlp import ACTIVATIONS, FeedForwardLayer, GatedLayer
from dragoman.model.norm import Residual, RmsNormLayer
from dragoman.model.ops import elementwise as kernels
from dragoman.model.positions.effect import PositionEffect, RelativeScheme
from dragoman.model.positions.position import LearnedEmbedding
from dragoman.model.positions.rotary import NoScaling, Rotary, RotaryScheme
from dragoman.model.positions.tokens import Positions
from dragoman.model.scorer import Scorer
from dragoman.model.tower import Block, Tower
from dragoman.model.transformer import Transformer, TransformerConfig
from dragoman.native import library as native

pytestmark = needed

# ---- parts that override something --------------------------------------------------------------------


class Backwards(RotaryScheme):
    def effect(self, q, k, dtype):
        return super().effect(q._replace(pos=-q.pos), k, dtype)


class Nearer(PositionEffect):
    """A bias, and nothing that says so."""

    def __init__(self, q, k):
        self.back = (q.pos[:, :, None] - k.pos[:, None, :]).abs()[:, None]

    def bias(self, q, scale):
        return -0.5 * self.back.to(q.dtype)


class NearerScheme(RelativeScheme):
    def effect(self, q, k, dtype):
        return Nearer(q, k)


class Louder(PositionEffect):
    """Adds to the output, and nothing says so."""

    def values(self, weights):
        return weights.sum(dim=-1, keepdim=True).expand(-1, -1, -1, self.channels)


class LouderScheme(RelativeScheme):
    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def effect(self, q, k, dtype):
        position_effect = Louder()
        position_effect.channels = self.channels
        return position_effect


class Doubled(nn.Module):
    def forward(self, *given):
        return 2 * super().forward(*given)


class DoubledRms(Doubled, RmsNormLayer): ...


class DoubledLayerNorm(Doubled, nn.LayerNorm): ...


class DoubledNothing(Doubled, nn.Identity): ...


class DoubledDropout(Doubled, Dropout): ...


class DoubledLinear(Doubled, Linear): ...


class DoubledFeedForward(Doubled, FeedForwardLayer): ...


class DoubledGate(Doubled, GatedLayer): ...


class DoubledResidual(Doubled, Residual): ...


class DoubledBlock(Doubled, Block): ...


class DoubledTower(Doubled, Tower): ...


class DoubledAttention(Attention):
    def attend(self, q, kv, view):
        return 2 * super().attend(q, kv, view)


class DoubledTransformer(Transformer):
    def scaled(self, x):
        return 2 * x


class FlippedPosition(LearnedEmbedding):
    def forward(self, x, pos):
        return super().forward(x.flip(-1), pos)


class Squared(Scorer):
    def scores(self, q, k):
        return super().scores(q, k).square()


@config
class EveryOther(Causal):
    """Tokens of even distance."""

    def allows(self, q, k):
        return super().allows(q, k) & ((q.pos[:, :, None] - k.pos[:, None, :]) % 2 == 0)


@config
class OnlyItself(Full):
    def allows(self, q, k):
        return q.pos[:, :, None] == k.pos[:, None, :]


@config
class Slower(NoScaling):
    def frequencies(self, theta, channels):
        return super().frequencies(theta, channels) / 2


def first(model: Transformer) -> Block:
    return model.decoder.blocks[0]


def as_class(cls: type, *path: str):
    """Turns a part of every model into one of a subclass."""

    def change(model: Transformer) -> None:
        part = model
        for name in path:
            part = part[int(name)] if name.isdigit() else getattr(part, name)
        part.__class__ = cls

    return change


def scheme(model: Transformer, made: RelativeScheme) -> None:
    model.decoder.schemes[0] = made


def sees(model: Transformer, visibility: Causal) -> None:
    model.decoder.kinds = [(number, visibility) for number, _ in model.decoder.kinds]
    for block in model.decoder.blocks:
        block.mixer.visibility = visibility
        block.mixer.cfg = dataclasses.replace(block.mixer.cfg, visibility=visibility)


def turned(model: Transformer) -> None:
    rotary = model.decoder.schemes[0]
    rotary.cfg = dataclasses.replace(rotary.cfg, scaling=Slower())


BLOCK = ("decoder", "blocks", "0")
CHANGES = {
    "rotary positions": ("rotary", as_class(Backwards, "decoder", "schemes", "0")),
    "frequencies": ("rotary", turned),
    "a bias of distances": ("plain", lambda model: scheme(model, NearerScheme())),
    "a part of the output": ("plain", lambda model: scheme(model, LouderScheme(first(model).mixer.head_dim))),
    "rms norm": ("RmsNorm pre", as_class(DoubledRms, *BLOCK, "mixer_residual", "before")),
    "layer norm before": ("LayerNorm pre", as_class(DoubledLayerNorm, *BLOCK, "mlp_residual", "before")),
    "layer norm behind": ("LayerNorm post", as_class(DoubledLayerNorm, *BLOCK, "mlp_residual", "after")),
    "norm of heads": ("qk rms norm", as_class(DoubledRms, *BLOCK, "mixer", "q_norm")),
    "no norm": ("LayerNorm post", as_class(DoubledNothing, *BLOCK, "mlp_residual", "before")),
    "last norm": ("plain", as_class(DoubledLayerNorm, "decoder", "final_norm")),
    "score": ("plain", as_class(Squared, *BLOCK, "mixer", "scorer")),
    "weights of attention": ("plain", as_class(DoubledNothing, *BLOCK, "mixer", "weights")),
    "attention": ("plain", as_class(DoubledAttention, *BLOCK, "mixer")),
    "attention across": ("plain", as_class(DoubledAttention, *BLOCK, "cross")),
    "feed-forward": ("plain", as_class(DoubledFeedForward, *BLOCK, "mlp")),
    "gated feed-forward": ("swiglu", as_class(DoubledGate, *BLOCK, "mlp")),
    "activation": ("plain", lambda model: setattr(first(model).mlp, "activation", F.softplus)),
    "linear layer": ("plain", as_class(DoubledLinear, *BLOCK, "mlp", "up")),
    "output": ("tying none", as_class(DoubledLinear, "output")),
    "dropout": ("plain", as_class(DoubledDropout, *BLOCK, "mlp_residual", "dropout")),
    "residual": ("plain", as_class(DoubledResidual, *BLOCK, "mlp_residual")),
    "block": ("plain", as_class(DoubledBlock, *BLOCK)),
    "tower": ("plain", as_class(DoubledTower, "decoder")),
    "model": ("plain", lambda model: setattr(model, "__class__", DoubledTransformer)),
    "added positions": ("learned", as_class(FlippedPosition, "embed", "position")),
    "who sees whom": ("plain", lambda model: sees(model, EveryOther())),
    "a hook before": (
        "plain",
        lambda model: first(model).mlp.register_forward_pre_hook(lambda module, given: (2 * given[0], *given[1:])),
    ),
    "a hook behind a norm": (
        "RmsNorm pre",
        lambda model: first(model).mixer_residual.before.register_forward_hook(lambda module, given, out: 2 * out),
    ),
    "a hook on a norm of sums": (
        "LayerNorm post",
        lambda model: first(model).mlp_residual.after.register_forward_hook(lambda module, given, out: 2 * out),
    ),
}
each_change = pytest.mark.parametrize("name", CHANGES)


def changed(name: str, plain: Transformer) -> Transformer:
    model = copy.deepcopy(plain)
    CHANGES[name][1](model)
    return model


@each_change
@torch.no_grad()
def test_what_a_part_overrides_counts_while_decoding(name):
    plain = copy.deepcopy(build(CHANGES[name][0])).float()
    target, source = batch(plain, 3, 6, 5)
    model = changed(name, plain)
    wanted = model(target, source)
    assert (wanted - plain(target, source)).abs().max() > 0.01, "the change tells"
    if name.startswith("a hook"):  # listening begins when the model is ready
        ready = prepare_for_inference(copy.deepcopy(plain), "cpu", "float32")
        assert type(ready) is NativeTransformer
        CHANGES[name][1](ready)
    else:
        ready = prepare_for_inference(model, "cpu", "float32")
    state = ready.start(source)
    got = torch.cat([ready.decode(tokens, state) for tokens in target.split([1, 1, 2, 2], dim=1)], dim=1)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


# ---- training in bfloat16 ------------------------------------------------------------------------------


def wide(variant: str) -> Transformer:
    """As wide as the kernels need it: heads of 32 channels."""
    found = VARIANTS[variant]
    found = dataclasses.replace(found, attention={"head_dim": 32} | found.attention)
    return build_from(dataclasses.replace(found.config("encoder-decoder"), dim=128)).float()


def learned(model: Transformer, given: list[Tensor], narrow: bool = True) -> list[Tensor]:
    """The loss of a training step, and all gradients end to end."""
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        loss = F.cross_entropy(model.train()(*given).float().flatten(0, 1), given[0].flatten() % 17)
    model.zero_grad()
    loss.backward()
    return [loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])]


def by_kernels_and_by_pytorch(model: Transformer, monkeypatch) -> tuple[list[Tensor], list[Tensor], list[Tensor], int]:
    given, calls = list(batch(model, 3, 9, 7)), []
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "kernel_library", lambda: calls.append(True) or native.library())
        ours = learned(model, given)
    return ours, without(monkeypatch, lambda: learned(model, given)), learned(model, given, narrow=False), len(calls)


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    return float((a[1] - b[1]).norm() / b[1].norm())


def agree(ours: list[Tensor], theirs: list[Tensor], truth: list[Tensor]) -> None:
    """But for rounding: where that turns the sign of what a ReLU is given, some gradients are others."""
    torch.testing.assert_close(ours[0], theirs[0], rtol=0.02, atol=0.02)
    assert distance(ours, truth) < 2 * distance(theirs, truth) + 0.05


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_by_kernels_what_it_learns_by_pytorch(variant, monkeypatch):
    ours, theirs, truth, calls = by_kernels_and_by_pytorch(wide(variant), monkeypatch)
    assert calls > 0
    agree(ours, theirs, truth)


@each_change
def test_what_a_part_overrides_counts_while_training_in_bfloat16(name, monkeypatch):
    model = changed(name, wide(CHANGES[name][0]))
    ours, theirs, truth, calls = by_kernels_and_by_pytorch(model, monkeypatch)
    assert calls > 0
    agree(ours, theirs, truth)


# ---- what follows from allows alone ----------------------------------------------------------------------


def test_a_visibility_that_overrides_allows_alone_is_asked():
    here = Positions(torch.arange(5)[None])
    back = here.pos[:, :, None] - here.pos[:, None, :]
    assert torch.equal(build_self_mask(EveryOther(), here, here).allowed[:, 0], (back >= 0) & (back % 2 == 0))
    assert retained_columns(EveryOther(window=2), here) is None, "nothing is forgotten that it may still see"
    assert not EveryOther().sees_only_past and EveryOther().in_window(2, 0) is None
    for asked in (build_self_mask, build_cross_mask):
        assert torch.equal(asked(OnlyItself(), here, here).allowed[:, 0], back == 0)


def test_every_hook_of_a_relation_decides_which_kernel_runs():
    hooks = {name for name, value in vars(PositionEffect).items() if callable(value) and not name.startswith("_")}
    assert hooks == {"rotate", "parts", "bias", "values"}, "Relation.fusable and .biased must know a new one"
    assert not Louder().fusable and not Louder().biased
    assert PositionEffect().fusable and not PositionEffect().biased


# ---- configuration ---------------------------------------------------------------------------------------


def reachable(union: object) -> set[type]:
    found, ahead = set(), [*choices(union)]
    while ahead:
        if (cls := ahead.pop()) not in found:
            found.add(cls)
            for hint in get_type_hints(cls, include_extras=True).values():
                for part in (hint, *getattr(hint, "__args__", ())):
                    ahead += choices(part)
    return found


def values(cfg: object, found: dict[tuple[type, str], set[str]]) -> None:
    if isinstance(cfg, tuple):
        for part in cfg:
            values(part, found)
    elif dataclasses.is_dataclass(cfg):
        for field in dataclasses.fields(cfg):
            found.setdefault((type(cfg), field.name), set()).add(repr(getattr(cfg, field.name)))
            values(getattr(cfg, field.name), found)


@pytest.mark.parametrize("cls", KNOWN, ids=lambda cls: cls.__name__)
def test_the_kernels_say_of_every_field_whether_they_know_it(cls):
    listed = KNOWN[cls]
    named = [*listed.computed.split(), *listed.ignored.split(), *(name for name, _ in listed.only)]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(cls) if field.name != "kind")


UNVARIED = {
    "dropout": "chance; tests of dropout hold it",
    "redraw": "chance; tests of FAVOR+ hold it",
    "vocab": "a size",
    "dim": "a size",
    "depth": "a size",
    "source": "pictures and frames: tests of encoders hold them",
    "encoder": "present or not by the shape of a model",
    "pad": "0 wherever a test pads",
}
ELSEWHERE = {
    "RotaryGrid": "images",
    "SinusoidalGrid": "images",
    "LearnedGrid": "images",
    "ImagePreprocessing": "images: test_image_preprocessing.py",
    "ExactSize": "images: test_image_preprocessing.py",
    "ShortestEdge": "images: test_image_preprocessing.py",
    "Structural": "needs fields beside the ids",
    "DisentangledAttention": "encoders: test_disentangled.py",
    "SlidingWindow": "encoders: test_encoder_parts.py",
    "LongRope": "changes with the length of a text: test_newer_decoders.py",
}
"""Classes with tests of their own."""


def test_every_field_of_a_model_has_two_values_in_the_table_of_variants():
    """So that what runs every variant, kernels among them, sees what a field does."""
    found: dict[tuple[type, str], set[str]] = {}
    for variant in MODELS.values():
        values(variant.config("encoder-decoder"), found)
    text = {cls for cls in reachable(TransformerConfig) if cls.__module__ != "dragoman.model.inputs"}
    unvaried = {
        f"{cls.__name__}.{field.name}"
        for cls in text
        if cls.__name__ not in ELSEWHERE
        for field in dataclasses.fields(cls)
        if field.name not in ("kind", *UNVARIED) and len(found.get((cls, field.name), ())) < 2
    }
    assert sorted(unvaried) == []


def plain() -> TransformerConfig:
    return VARIANTS["plain"].config("decoder-only")


def with_mixer(mixer: AttentionConfig) -> TransformerConfig:
    cfg = plain()
    (block,) = cfg.decoder.pattern
    tower = dataclasses.replace(cfg.decoder, pattern=(dataclasses.replace(block, mixer=mixer),))
    return dataclasses.replace(cfg, decoder=tower)


def test_a_class_that_is_new_is_unknown_wherever_it_stands():
    @config
    class Later(Rotary):
        """As rotary, and more."""

    mixer = plain().decoder.pattern[0].mixer
    with pytest.raises(UnknownToKernels, match=r"model\.decoder\.pattern\.0\.mixer\.position: later"):
        check_known(with_mixer(dataclasses.replace(mixer, position=Later())), "model")


def test_a_field_that_is_new_is_unknown_even_with_its_default(monkeypatch):
    field = KNOWN[AttentionConfig]
    monkeypatch.setitem(KNOWN, AttentionConfig, field._replace(computed=field.computed.replace("qk_norm", "")))
    with pytest.raises(UnknownToKernels, match=r"model\.decoder\.pattern\.0\.mixer\.qk_norm: no_norm"):
        check_known(plain(), "model")


@pytest.mark.parametrize("cfg", [VARIANTS["scaled output"], VARIANTS["window, sinks"], VARIANTS["mixture"]])
def test_a_value_that_the_kernels_do_not_compute_is_unknown(cfg):
    with pytest.raises(
        UnknownToKernels, match=r"model\.(scale_output: True|.*sinks: [12]|.*mlp: mixture)|position: alibi"
    ):
        check_known(cfg.config("decoder-only"), "model")


def test_activations_are_numbered_as_in_c():
    assert list(ACTIVATIONS)[:6] == ["relu", "gelu", "gelu_tanh", "gelu_quick", "silu", "tanh"]
