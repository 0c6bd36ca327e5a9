"""Mistakes planted in models of this package, in their configuration or in the built model."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from variants import VARIANTS, Variant

from dragoman.model.masks.visibility import Full
from dragoman.model.norm import LayerNorm, NoNorm
from dragoman.model.positions.position import Learned
from dragoman.model.positions.rotary import Rotary
from dragoman.model.positions.tokens import Tokens
from dragoman.model.scorer import Dot
from dragoman.model.transformer import Transformer

HEALTHY = Variant(model={"position": Learned(length=24)})


@dataclass(frozen=True)
class OurBug:
    """One mistake in a decoder of this package."""

    bug: str
    check: str
    where: tuple[str, ...]
    severity: str
    build: Callable[[], nn.Module]
    options: dict[str, Any]

    def __str__(self) -> str:
        return self.bug


def model_of(variant: Variant, shape: Any = "decoder-only") -> Transformer:
    torch.manual_seed(0)
    return variant.config(shape).build().eval()


def patched(
    change: Callable[[Any], None], variant: Variant = HEALTHY, shape: Any = "decoder-only"
) -> Callable[[], Any]:
    """Return what builds a model and changes it."""

    def build() -> nn.Module:
        model = model_of(variant, shape)
        with torch.no_grad():
            change(model)
        return model

    return build


def see_everything(model: Any) -> None:
    for block in model.decoder.blocks:
        block.mixer.cfg = dataclasses.replace(block.mixer.cfg, visibility=Full())


def forget_padding(model: Any) -> None:
    inner = model.forward
    model.forward = lambda target, source=None: inner(Tokens(target.ids), source)


def forget_source_padding(model: Any) -> None:
    inner = model.forward
    model.forward = lambda target, source=None: inner(target, Tokens(source.ids))


def untie(model: Any) -> None:
    model.output.weight = nn.Parameter(model.output.weight.detach().clone())


def detach_embedding(model: Any) -> None:
    model.embed.register_forward_hook(lambda module, arguments, result: result.detach())


def drop_always(model: Any) -> None:
    model.decoder.blocks[0].mlp.register_forward_hook(lambda module, arguments, result: F.dropout(result, 0.3))


def mix_rows(model: Any) -> None:
    model.decoder.blocks[1].mlp.register_forward_hook(lambda m, a, result: result - result.mean(dim=0, keepdim=True))


def peek(model: Any) -> None:
    model.decoder.blocks[1].mlp.register_forward_hook(lambda m, a, result: result + 0.1 * result.roll(-1, 1))


def loud_queries(model: Any) -> None:
    for block in model.decoder.blocks:
        block.mixer.q.weight.mul_(60)
        block.mixer.k.weight.mul_(60)


def zero_queries(model: Any) -> None:
    model.decoder.blocks[0].mixer.q.weight.zero_()


def double(model: Any) -> None:
    model.decoder.blocks[0].mlp.double()
    inner = model.decoder.blocks[0].mlp.forward
    model.decoder.blocks[0].mlp.forward = lambda x, *rest: inner(x.double(), *rest).float()


def not_a_number(model: Any) -> None:
    model.decoder.blocks[1].mlp.register_forward_hook(lambda m, a, result: result / (result.abs() > 0).sum() / 0 * 0)


def unused(model: Any) -> None:
    model.extra = nn.Linear(4, 4)


def with_cache_error(model: Any) -> None:
    """Forget the newest key when it is read again."""
    inner = model.decode

    def decode(tokens: Any, state: Any) -> Any:
        fresh = model.start(None) if tokens.shape[1] == 1 else state
        return inner(tokens, fresh)

    model.decode = decode


def block_norm(norm: Any) -> Variant:
    return dataclasses.replace(HEALTHY, block={"norm": norm})


OURS = [
    OurBug(
        "no causal mask",
        "future leak",
        ("decoder.blocks.0.mixer",),
        "error",
        patched(see_everything, Variant(mixer={"position": Rotary()})),
        {},
    ),
    OurBug("a look ahead", "future leak", ("decoder.blocks.1",), "error", patched(peek), {}),
    OurBug(
        "padding is forgotten",
        "padding leak",
        ("decoder.blocks.0", "(model)", "decoder"),
        "error",
        patched(forget_padding),
        {},
    ),
    OurBug(
        "the source's padding is forgotten",
        "padding leak",
        ("encoder.blocks.0", "(model)"),
        "error",
        patched(forget_source_padding, VARIANTS["learned"], "encoder-decoder"),
        {},
    ),
    OurBug("rows are mixed", "rows", ("decoder.blocks.1",), "error", patched(mix_rows), {}),
    OurBug("no positions", "positions ignored", ("decoder.blocks",), "warning", lambda: model_of(Variant()), {}),
    OurBug("no norm", "missing norm", ("decoder.blocks.0",), "warning", lambda: model_of(block_norm(NoNorm())), {}),
    OurBug(
        "scores are not scaled",
        "scores",
        ("decoder.blocks.0.mixer",),
        "warning",
        lambda: model_of(dataclasses.replace(HEALTHY, attention={"scorer": Dot()}, block={"norm": LayerNorm()})),
        {},
    ),
    OurBug("saturated scores", "scores", ("decoder.blocks.0.mixer",), "warning", patched(loud_queries), {}),
    OurBug("dead heads", "heads", ("decoder.blocks.0.mixer",), "warning", patched(zero_queries), {}),
    OurBug("untied", "tied embeddings", ("output",), "error", patched(untie), {}),
    OurBug("a detached embedding", "gradients", ("embed",), "error", patched(detach_embedding), {}),
    OurBug("a layer that nothing calls", "gradients", ("extra",), "warning", patched(unused), {}),
    OurBug(
        "dropout in evaluation", "dropout in evaluation", ("decoder.blocks.0.mlp",), "error", patched(drop_always), {}
    ),
    OurBug(
        "a state that is forgotten", "cache", ("(model)", "decoder", "embed"), "error", patched(with_cache_error), {}
    ),
    OurBug("double precision", "data types", ("decoder.blocks.0.mlp",), "warning", patched(double), {}),
    OurBug("not a number", "corners", ("decoder.blocks.1",), "error", patched(not_a_number), {}),
]
